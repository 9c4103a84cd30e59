//! One SDK: installed, and run as a process of its own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Server, ServerOptions};
use crate::names::{self, Certificate, TRUST_STORE_PASSWORD};
use crate::plan::{Plan, Report};
use crate::words::Words;

/// What `install.sh` says when a toolchain is missing.
const MISSING: i32 = 3;

/// How long one run may take: the slowest waits for four repeats of a refused send.
const RUN_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Python,
    Node,
    Go,
    Java,
}

/// How an SDK finds Herald.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `fcm.googleapis.com` leads to it, with TLS. The program knows nothing of it.
    Named,
    /// The same, and Node was told to leave HTTP/2 alone.
    NamedOverHttp1,
    /// The program says where it is, without TLS. For Node this is a matter of HTTP/1.1 alone.
    Told,
}

/// An SDK that is there.
pub struct Sdk {
    pub language: Language,
    pub words: Words,
    package: &'static str,
    home: PathBuf,
}

impl Sdk {
    /// Installs it, unless it is there already. `None`, loudly, when its toolchain is missing.
    pub fn installed(language: Language, package: &'static str, words: Words) -> Option<Self> {
        let name = language.directory();
        let installed = Command::new(directory().join("install.sh"))
            .arg(name)
            .stdin(Stdio::null())
            .output()
            .expect("install.sh starts");
        let said = String::from_utf8_lossy(&installed.stderr);
        if installed.status.code() == Some(MISSING) {
            let why = said.lines().last().unwrap_or_default();
            let why = why.trim_start_matches(name).trim_start_matches(": ");
            skipped(name, why);
            return None;
        }
        assert!(installed.status.success(), "{said}");
        let home = String::from_utf8(installed.stdout).expect("a path of UTF-8");
        Some(Self {
            language,
            words,
            package,
            home: home.trim().into(),
        })
    }

    /// What the device must get of the message with every field that the SDK can express.
    pub fn whole(&self) -> Value {
        let mut whole: Value = serde_json::from_str(include_str!("whole.json")).expect("JSON");
        for (place, value) in self.language.differences() {
            let (object, name) = place.rsplit_once('/').expect("a place in an object");
            let object = whole.pointer_mut(object).and_then(Value::as_object_mut);
            let object = object.expect("an object");
            let before = match value {
                None => object.remove(name),
                Some(text) => {
                    let value = serde_json::from_str(text).expect("JSON");
                    object.insert(name.to_owned(), value)
                }
            };
            assert!(before.is_some(), "{place}");
        }
        whole
    }

    /// Whether it has the newer target.
    pub fn has_fid(&self) -> bool {
        self.language != Language::Go && self.package != "firebase-admin-13"
    }

    /// Carries out the steps, as the sender of the server's own project.
    pub async fn run(&self, place: &Place, steps: Vec<Value>) -> Report {
        self.run_as(place, place.server.service_token(), steps)
            .await
    }

    /// Carries out the steps with a service token.
    pub async fn run_as(&self, place: &Place, service_token: String, steps: Vec<Value>) -> Report {
        let server = &place.server;
        let url = match place.way {
            Way::Told => server.url(""),
            _ => String::new(),
        };
        let plan = Plan {
            url,
            project_id: "demo".to_owned(),
            service_token,
            package: self.package,
            legacy_transport: place.way != Way::Named,
            steps,
        };
        let file = tempfile::NamedTempFile::new().expect("a file for the plan");
        serde_json::to_writer(&file, &plan).expect("written");
        let mut command = self.command(place.certificate.as_ref());
        command
            .arg(file.path())
            .env("HERALD_SDK", &self.home)
            .stdin(Stdio::null());
        if let Some(certificate) = &place.certificate {
            let listen = server.listen();
            let (_, port) = listen.rsplit_once(':').expect("a port");
            command.env("LD_PRELOAD", names::library());
            command.env("BY_NAME", port);
            for variable in ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
                command.env(variable, certificate.authority());
            }
        }
        let mut command = tokio::process::Command::from(command);
        let running = command.kill_on_drop(true).output();
        let ended = tokio::time::timeout(RUN_MAX, running).await;
        let output = ended.expect("it ends").expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {said}", self.language);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    fn command(&self, certificate: Option<&Certificate>) -> Command {
        let source = directory().join(self.language.directory());
        match self.language {
            Language::Python => {
                let mut command = Command::new(self.home.join("venv/bin/python"));
                command.arg(source.join("sender.py"));
                command
            }
            Language::Node => {
                let mut command = Command::new("node");
                command.arg(source.join("sender.js"));
                command
            }
            Language::Go => Command::new(self.home.join("sender")),
            Language::Java => {
                let mut command = Command::new("java");
                if let Some(certificate) = certificate {
                    let store = certificate.trust_store();
                    command.arg(format!("-Djavax.net.ssl.trustStore={}", store.display()));
                    let password = "-Djavax.net.ssl.trustStorePassword=";
                    command.arg(format!("{password}{TRUST_STORE_PASSWORD}"));
                }
                let home = self.home.display();
                command.args(["-cp", &format!("{home}/classes:{home}/lib/*"), "Sender"]);
                command
            }
        }
    }
}

impl Language {
    /// Where its message is another than in `whole.json`, and how: it has another precision, cannot
    /// say false, writes names in small letters, or lacks the field.
    const fn differences(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Self::Python => &[
                (
                    "/android/notification/event_time",
                    Some(r#""2026-01-02T03:04:05.678901Z""#),
                ),
                ("/apns/payload/aps/alert/subtitle-loc-key", None),
                ("/apns/payload/aps/alert/subtitle-loc-args", None),
            ],
            Self::Node => &[],
            Self::Go => &[
                (
                    "/android/notification/event_time",
                    Some(r#""2026-01-02T03:04:05.678901234Z""#),
                ),
                ("/android/bandwidth_constrained_ok", None),
                ("/android/restricted_satellite_ok", None),
                ("/android/notification/default_light_settings", Some("true")),
                (
                    "/android/notification/default_vibrate_timings",
                    Some("true"),
                ),
                ("/webpush/notification/silent", Some("true")),
            ],
            Self::Java => &[
                (
                    "/android/notification/event_time",
                    Some(r#""2026-01-02T03:04:05.678000000Z""#),
                ),
                (
                    "/android/notification/light_settings/color",
                    Some(r#"{"red":0.06666667,"green":0.13333334,"blue":0.2,"alpha":1.0}"#),
                ),
                ("/android/notification/visibility", Some(r#""secret""#)),
                (
                    "/webpush/notification/data",
                    Some(r#"{"any":["thing",1,"else"]}"#),
                ),
            ],
        }
    }

    const fn directory(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Go => "go",
            Self::Java => "java",
        }
    }
}

/// Says so loudly.
pub fn skipped(sdk: &str, why: &str) {
    // Not by a macro, whose words a passed test keeps to itself.
    let line = format!("\n*** SKIPPED: an official SDK was not tried: {sdk}: {why}\n\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Of the `node` that is there, if there is one.
pub fn node_is_older_than(major: u32) -> bool {
    let asked = Command::new("node").arg("--version").output();
    let said = asked.map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let digits = said.trim_start_matches('v').split('.').next();
    digits
        .and_then(|digits| digits.parse().ok())
        .is_some_and(|is: u32| is < major)
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdks"))
}

/// A server, and how it is found.
pub struct Place {
    pub server: Server,
    pub way: Way,
    certificate: Option<Certificate>,
}

impl Place {
    /// Starts a server that can be found this way.
    pub async fn new(way: Way, mut settings: Vec<(&'static str, String)>) -> Self {
        let certificate = (way != Way::Told).then(Certificate::new);
        if let Some(certificate) = &certificate {
            let text = |path: PathBuf| path.to_str().expect("a path of UTF-8").to_owned();
            settings.push(("HERALD_TLS__CERT", text(certificate.chain())));
            settings.push(("HERALD_TLS__KEY", text(certificate.key())));
        }
        Self {
            server: Server::with(ServerOptions { settings }).await,
            way,
            certificate,
        }
    }
}
