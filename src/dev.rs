//! `--dev`: a project to play with, a file that tells tools all about it, and lines to paste.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::private_file;
use crate::projects::{NewProject, Project, ProjectError, Projects};

/// The file's name in the data directory, mode 0600.
pub const DEV_FILE: &str = "dev.json";
/// The project that `--dev` makes.
pub const DEV_PROJECT_ID: &str = "demo";

const DEV_PACKAGE_NAME: &str = "com.example.app";
/// Of no real certificate.
const DEV_CERT_SHA256: &str = "91:AC:2F:0B:5D:3E:77:18:C4:60:9A:E2:4B:F1:86:35:\
                               0D:DA:71:2C:A8:53:EF:94:16:BB:68:07:3F:C9:D2:5E";
const SERVICE_TOKEN_NAME: &str = "dev";

/// All that a tool must know to use a development server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevFile {
    /// The project's id.
    pub project_id: String,
    /// Its package name.
    pub package_name: String,
    /// Its fingerprints.
    pub cert_sha256: Vec<String>,
    /// A service token of the project.
    pub service_token: String,
    /// The admin token.
    pub admin_token: String,
    /// Address and port of the public listener.
    pub listen: String,
    /// Address and port of the admin listener.
    pub admin_listen: String,
}

impl DevFile {
    /// Describes a server; `listen` and `admin_listen` are what it is really bound to.
    #[must_use]
    pub fn new(
        project: &Project,
        service_token: &str,
        admin_token: &str,
        listen: SocketAddr,
        admin_listen: SocketAddr,
    ) -> Self {
        Self {
            project_id: project.project_id.clone(),
            package_name: project.package_name.clone(),
            cert_sha256: project.cert_sha256.clone(),
            service_token: service_token.to_owned(),
            admin_token: admin_token.to_owned(),
            listen: reachable(listen).to_string(),
            admin_listen: reachable(admin_listen).to_string(),
        }
    }

    /// Reads the file of a data directory; `None` if there is none, or none that makes sense.
    ///
    /// # Errors
    /// The file system's.
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        let text = private_file::read(&data_dir.join(DEV_FILE))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Writes the file into a data directory, and says where.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, data_dir: &Path) -> io::Result<PathBuf> {
        let path = data_dir.join(DEV_FILE);
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        private_file::write(&path, &text)?;
        Ok(path)
    }

    /// What a development server says when it is up: a warning, the addresses, and commands that
    /// make a device, send it a push and poll for it.
    #[must_use]
    pub fn banner(&self, path: &Path) -> String {
        let url = format!("http://{}", self.listen);
        let project = &self.project_id;
        let json = "-H 'Content-Type: application/json'";
        let device = "-H \"Authorization: Device $DEVICE\"";
        let mint = serde_json::json!({
            "package_name": self.package_name,
            "cert_sha256": self.cert_sha256.first(),
        });
        let rule = "=".repeat(79);
        let mut text = format!(
            "{rule}\n\
             DEVELOPMENT SERVER: no quotas, secrets printed below. NEVER use --dev in production.\n\
             {rule}\n\
             public  {url}\n\
             admin   http://{admin}\n\
             all of it in {path}\n\n",
            admin = self.admin_listen,
            path = path.display(),
        );
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "# make a device and a push token (valid once it has been used within 10 minutes)\n\
             DEVICE=$(curl -s {url}/v1/devices {json} -d '{{}}' | sed -E \
             's/.*\"device_id\": *\"([^\"]*)\".*\"device_secret\": *\"([^\"]*)\".*/\\1.\\2/')\n\
             TOKEN=$(curl -s {url}/v1/projects/{project}/tokens {device} {json} -d '{mint}' \
             | sed -E 's/.*\"token\": *\"([^\"]*)\".*/\\1/')\n\n\
             # send\n\
             curl {url}/v1/projects/{project}/messages:send -H 'Authorization: Bearer {bearer}' \
             {json} -d '{{\"message\":{{\"token\":\"'\"$TOKEN\"'\",\
             \"notification\":{{\"title\":\"Hello\",\"body\":\"from Herald\"}}}}}}'\n\n\
             # poll\n\
             curl {url}/v1/projects/messages:get {device} {json} -d \
             '{{\"requests\":[{{\"project_id\":\"{project}\",\"token\":\"'\"$TOKEN\"'\"}}]}}'\n\
             {rule}\n",
            bearer = self.service_token,
        );
        text
    }
}

/// An address that a client on this machine can connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        IpAddr::V6(_) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port())),
    }
}

/// The development project and a service token of it: those of last time where they still work,
/// new ones else.
///
/// # Errors
/// The project was deleted, it has no room for a service token, or the store's.
pub async fn prepare_project(
    projects: &Projects,
    last_time: Option<&DevFile>,
) -> Result<(Arc<Project>, String), ProjectError> {
    let project = match projects.get(DEV_PROJECT_ID) {
        Some(project) => project,
        None => projects.create(dev_project()).await?,
    };
    let kept = last_time.map(|file| file.service_token.as_str());
    let still_works = |token: &&str| {
        let owner = projects.authenticate(token);
        owner.is_some_and(|owner| owner.project_id == DEV_PROJECT_ID)
    };
    if let Some(token) = kept.filter(still_works) {
        return Ok((project, token.to_owned()));
    }
    // Nobody can know the text of an earlier one any more, except from a copy of a lost file.
    for lost in project
        .service_tokens
        .iter()
        .filter(|it| it.name == SERVICE_TOKEN_NAME)
    {
        projects
            .delete_service_token(DEV_PROJECT_ID, &lost.id)
            .await?;
    }
    let new = projects
        .create_service_token(DEV_PROJECT_ID, SERVICE_TOKEN_NAME)
        .await?;
    Ok((project, new.text.to_string()))
}

fn dev_project() -> NewProject {
    NewProject {
        project_id: DEV_PROJECT_ID.to_owned(),
        name: Some("Demo".to_owned()),
        package_name: DEV_PACKAGE_NAME.to_owned(),
        cert_sha256: vec![DEV_CERT_SHA256.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::projects::tests::memory_store;

    async fn projects() -> Projects {
        Projects::load(memory_store(), Clock::manual(1))
            .await
            .expect("projects")
    }

    fn file(project: &Project, service_token: &str) -> DevFile {
        let listen = "0.0.0.0:8080".parse().expect("an address");
        let admin_listen = "127.0.0.1:8081".parse().expect("an address");
        DevFile::new(project, service_token, "admin-secret", listen, admin_listen)
    }

    #[tokio::test]
    async fn project_and_service_token_are_made_once() {
        let projects = projects().await;
        let (project, token) = prepare_project(&projects, None).await.expect("made");
        assert!(project.admits(DEV_PACKAGE_NAME, DEV_CERT_SHA256));
        let last_time = file(&project, &token);
        for _ in 0..7 {
            let again = prepare_project(&projects, Some(&last_time))
                .await
                .expect("kept");
            assert_eq!(again.1, token);
        }
        assert_eq!(
            projects
                .get(DEV_PROJECT_ID)
                .expect("it")
                .service_tokens
                .len(),
            1
        );
    }

    #[tokio::test]
    async fn a_lost_file_replaces_the_token_and_never_fills_the_project() {
        let projects = projects().await;
        let (_, first) = prepare_project(&projects, None).await.expect("made");
        for _ in 0..7 {
            prepare_project(&projects, None).await.expect("made anew");
        }
        assert_eq!(
            projects
                .get(DEV_PROJECT_ID)
                .expect("it")
                .service_tokens
                .len(),
            1
        );
        assert!(projects.authenticate(&first).is_none());
    }

    #[tokio::test]
    async fn a_file_survives_being_written_and_a_broken_one_is_ignored() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(DevFile::read(directory.path()).expect("no error").is_none());
        let (project, token) = prepare_project(&projects().await, None)
            .await
            .expect("made");
        let written = file(&project, &token);
        assert_eq!(written.listen, "127.0.0.1:8080");
        let path = written.write(directory.path()).expect("written");
        let read = DevFile::read(directory.path()).expect("no error");
        assert!(read.as_ref() == Some(&written));
        std::fs::write(path, "{").expect("broken");
        assert!(DevFile::read(directory.path()).expect("no error").is_none());
    }

    #[tokio::test]
    async fn the_banner_warns_and_its_commands_are_good_shell() {
        let (project, token) = prepare_project(&projects().await, None)
            .await
            .expect("made");
        let banner = file(&project, &token).banner(Path::new("herald-data/dev.json"));
        assert!(banner.contains("NEVER use --dev in production"));
        let answers = "curl() { case \"$*\" in \
            */v1/devices*) echo '{\"device_id\":\"dev\",\"device_secret\":\"sec\"}';; \
            */tokens*) echo '{\"token\":\"tok\"}'; echo \"$*\" >&2;; \
            *) echo \"$*\";; esac; }";
        let commands: Vec<&str> = banner
            .lines()
            .filter(|line| {
                ["DEVICE=", "TOKEN=", "curl "]
                    .iter()
                    .any(|it| line.starts_with(it))
            })
            .collect();
        assert_eq!(commands.len(), 4);
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("{answers}\n{}", commands.join("\n"))])
            .output()
            .expect("a shell");
        assert!(output.status.success());
        let mint = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(
            mint.contains("Device dev.sec") && mint.contains(DEV_CERT_SHA256),
            "{mint}"
        );
        let shown = String::from_utf8(output.stdout).expect("UTF-8");
        let bodies: Vec<serde_json::Value> = shown
            .lines()
            .filter_map(|line| line.split_once(" -d ")?.1.parse().ok())
            .collect();
        assert_eq!(bodies[0]["message"]["token"], "tok");
        assert_eq!(bodies[1]["requests"][0]["token"], "tok");
        assert!(shown.contains(&format!("Bearer {token}")));
    }
}
