//! The `herald` binary of a build.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// The `herald` binary of a profile, which is the directory of a build such as `target/release`;
/// built if it is missing.
///
/// # Errors
/// When it is missing and cannot be built.
pub async fn herald_of_profile(profile: &Path) -> anyhow::Result<PathBuf> {
    let herald = profile.join("herald");
    if !herald.exists() {
        eprintln!("building herald: there is no {}", herald.display());
        build(profile).await?;
        ensure!(herald.exists(), "cargo built no {}", herald.display());
    }
    Ok(herald)
}

async fn build(profile: &Path) -> anyhow::Result<()> {
    let target = profile.parent().context("a profile is in a directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--package", "herald", "--bin", "herald"])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .kill_on_drop(true);
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().await.context("cannot start cargo")?;
    ensure!(status.success(), "cargo could not build herald: {status}");
    Ok(())
}
