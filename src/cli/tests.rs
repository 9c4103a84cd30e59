//! What may be typed, and what the client commands do with a server's answers.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::{App, HttpServer};

use super::*;
use crate::admin_token::{self, AdminTokenHash};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::admin::{self, AdminState};
use crate::http::health::Probes;
use crate::metrics::Metrics;
use crate::projects::Projects;
use crate::projects::tests::memory_store;
use crate::sealing_keys::tests::own_keys;

const CERT: &str = "91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b";

fn command(line: &str) -> Result<Command, Exit> {
    let words = std::iter::once("herald").chain(line.split(' '));
    parse(words.map(OsString::from))
}

#[test]
fn good_lines_are_understood() {
    for line in [
        "serve",
        "serve --dev --data x --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --config f",
        "check-config --config f",
        "print-config --dev",
        "project list",
        "project list --json --admin-url http://127.0.0.1:1 --admin-token x",
        "project --data x show demo",
        "project update demo --name New",
        "project delete demo",
        "service-token create demo --name ci",
        "service-token list demo",
        "service-token delete demo 0123",
        "fsck --data x",
    ] {
        assert!(command(line).is_ok(), "{line}");
    }
}

#[test]
fn bad_lines_exit_with_64_and_help_with_0() {
    for line in [
        "",
        "fly",
        "serve --no-such-flag",
        "serve extra",
        "project create demo",
        "project create demo --package com.example.app",
        "project update demo",
        "service-token create demo",
        "project list --admin-url nonsense",
    ] {
        assert_eq!(command(line).err(), Some(Exit::Usage), "{line}");
    }
    assert_eq!(command("--help").err(), Some(Exit::Success));
    assert_eq!(command("--version").err(), Some(Exit::Success));
    assert_eq!(command("project create --help").err(), Some(Exit::Success));
}

#[test]
fn fsck_exits_by_what_was_found() {
    let Ok(Command::Fsck(fsck)) = command("fsck --data x") else {
        panic!("a good line");
    };
    let well = |well| move |_: &std::path::Path| Ok::<_, &str>(("3 tokens", well));
    assert_eq!(fsck.run(well(true)), Exit::Success);
    assert_eq!(fsck.run(well(false)), Exit::Failed);
    let refused = fsck.run(|_| Err::<(&str, bool), _>("a server is running there"));
    assert_eq!(refused, Exit::Fault);
}

/// A real admin listener and a data directory with its token.
struct Server {
    address: SocketAddr,
    data: tempfile::TempDir,
    projects: Arc<Projects>,
}

impl Server {
    async fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let token = admin_token::read_or_make(data.path()).expect("a token");
        let store = memory_store();
        let projects = Projects::load(store, Clock::manual(1))
            .await
            .expect("projects");
        let projects = Arc::new(projects);
        let state = AdminState::new(
            &Config::dev(),
            Arc::clone(&projects),
            own_keys().await,
            AdminTokenHash::of(&token),
            Probes {
                metrics: Arc::new(Metrics::new()),
                readiness: Arc::new(Vec::new),
                liveness: Arc::new(|| true),
            },
        );
        let server = HttpServer::new(move || App::new().configure(admin::configure(&state)));
        let server = server
            .workers(1)
            .disable_signals()
            .bind("127.0.0.1:0")
            .expect("bound");
        let address = server.addrs()[0];
        actix_web::rt::spawn(server.run());
        Self {
            address,
            data,
            projects,
        }
    }

    async fn run(&self, line: &str) -> Exit {
        let data = self.data.path().display();
        let line = format!("{line} --admin-url http://{} --data {data}", self.address);
        match command(&line).expect("a good line") {
            Command::Project { command, admin } => command.run(&admin).await,
            Command::ServiceToken { command, admin } => command.run(&admin).await,
            Command::Keys { command, admin } => command.run(&admin).await,
            other => panic!("{other:?} needs no server"),
        }
    }
}

#[actix_web::test]
async fn a_project_lives_from_the_command_line() {
    let server = Server::start().await;
    let create = format!("project create demo --package com.example.app --cert {CERT}");
    assert_eq!(server.run(&create).await, Exit::Success);
    assert_eq!(server.run(&create).await, Exit::Usage, "taken");
    let made = server.projects.get("demo").expect("the project");
    assert_eq!((made.name.as_str(), made.cert_sha256.len()), ("demo", 1));

    assert_eq!(
        server.run("project update demo --name New").await,
        Exit::Success
    );
    let changed = server.projects.get("demo").expect("the project");
    assert_eq!(
        (changed.name.as_str(), changed.package_name.as_str()),
        ("New", "com.example.app")
    );

    for line in ["project list", "project list --json", "project show demo"] {
        assert_eq!(server.run(line).await, Exit::Success, "{line}");
    }
    assert_eq!(
        server.run("service-token create demo --name ci").await,
        Exit::Success
    );
    assert_eq!(server.run("service-token list demo").await, Exit::Success);
    let project = server.projects.get("demo").expect("the project");
    let id = &project.service_tokens[0].id;
    assert_eq!(
        server.run(&format!("service-token delete demo {id}")).await,
        Exit::Success
    );
    assert_eq!(
        server.run(&format!("service-token delete demo {id}")).await,
        Exit::Usage
    );

    assert_eq!(server.run("project delete demo").await, Exit::Success);
    assert!(server.projects.get("demo").is_none());
    assert_eq!(server.run("project show demo").await, Exit::Usage);
}

#[actix_web::test]
async fn keys_are_rotated_from_the_command_line_one_at_a_time() {
    let server = Server::start().await;
    assert_eq!(server.run("keys list").await, Exit::Success);
    assert_eq!(server.run("keys rotate").await, Exit::Success);
    assert_eq!(server.run("keys rotate").await, Exit::Usage, "under way");
    assert_eq!(server.run("keys generate 7").await, Exit::Success);
    assert!(command("keys generate").is_err() && command("keys generate 256").is_err());
}

#[actix_web::test]
async fn a_path_made_of_dots_reaches_no_other_route() {
    let server = Server::start().await;
    for path in ["../../../metrics", "..", ".", "%2e%2e"] {
        let line = format!("project show {path}");
        assert_eq!(server.run(&line).await, Exit::Usage, "{path}");
    }
}

#[actix_web::test]
async fn a_wrong_token_a_missing_one_and_a_missing_server_are_told_apart() {
    let server = Server::start().await;
    assert_eq!(
        server.run("project list --admin-token wrong").await,
        Exit::Usage
    );
    let empty = tempfile::tempdir().expect("a directory");
    let line = format!("project list --data {}", empty.path().display());
    let Ok(Command::Project {
        command: list,
        admin,
    }) = command(&line)
    else {
        panic!("a good line");
    };
    assert_eq!(list.run(&admin).await, Exit::Usage);
    let line = "project list --admin-token x --admin-url http://127.0.0.1:1";
    let Ok(Command::Project {
        command: list,
        admin,
    }) = command(line)
    else {
        panic!("a good line");
    };
    assert_eq!(list.run(&admin).await, Exit::Fault);
}
