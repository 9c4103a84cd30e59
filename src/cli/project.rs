//! `herald project …`.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::Exit;
use super::admin_client::{AdminOptions, Call};

/// What to do with projects.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Make a project.
    Create {
        /// Its id, for ever: lower-case letters, digits and hyphens.
        project_id: String,
        /// Its name for people [default: its id].
        #[arg(long)]
        name: Option<String>,
        /// The app's package name, like com.example.app.
        #[arg(long, value_name = "NAME")]
        package: String,
        /// SHA-256 fingerprint of a certificate that signs the app; may be repeated.
        #[arg(long, value_name = "SHA256", required = true)]
        cert: Vec<String>,
    },
    /// List all projects.
    List,
    /// Show a project.
    Show {
        /// Its id.
        project_id: String,
    },
    /// Change a project; what is not given stays.
    Update {
        /// Its id.
        project_id: String,
        /// What changes.
        #[command(flatten)]
        change: Change,
    },
    /// End a project for ever, with its service tokens and push tokens. Its id stays taken.
    Delete {
        /// Its id.
        project_id: String,
    },
}

/// What changes in a project.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Change {
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// A new package name.
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
    /// A fingerprint; all that are given replace all that there were.
    #[arg(long, value_name = "SHA256")]
    cert: Vec<String>,
}

impl ProjectCommand {
    /// Asks the server.
    pub async fn run(self, admin: &AdminOptions) -> Exit {
        let projects = || "projects".to_owned();
        let call = |method, path, body| Call { method, path, body };
        match self {
            Self::Create {
                project_id,
                name,
                package,
                cert,
            } => {
                let body = json!({
                    "project_id": project_id,
                    "name": name,
                    "package_name": package,
                    "cert_sha256": cert,
                });
                let call = call(Method::POST, vec![projects()], Some(body));
                admin.run(call, show_project).await
            }
            Self::List => {
                let call = call(Method::GET, vec![projects()], None);
                admin.run(call, show_projects).await
            }
            Self::Show { project_id } => {
                let call = call(Method::GET, vec![projects(), project_id], None);
                admin.run(call, show_project).await
            }
            Self::Update { project_id, change } => {
                let path = vec![projects(), project_id];
                let call = call(Method::PATCH, path, Some(change.body()));
                admin.run(call, show_project).await
            }
            Self::Delete { project_id } => {
                let done = format!("project {project_id} deleted\n");
                let call = call(Method::DELETE, vec![projects(), project_id], None);
                admin.run(call, |_| done).await
            }
        }
    }
}

impl Change {
    fn body(self) -> Value {
        let cert_sha256 = (!self.cert.is_empty()).then_some(self.cert);
        json!({ "name": self.name, "package_name": self.package, "cert_sha256": cert_sha256 })
    }
}

fn show_project(project: &Value) -> String {
    let mut text = format!(
        "project      {}\nname         {}\npackage      {}\n",
        text_of(&project["project_id"]),
        text_of(&project["name"]),
        text_of(&project["package_name"]),
    );
    for cert in project["cert_sha256"].as_array().into_iter().flatten() {
        text.push_str(&format!("certificate  {}\n", text_of(cert)));
    }
    text
}

fn show_projects(answer: &Value) -> String {
    let projects = answer["projects"].as_array();
    let lines: Vec<String> = projects
        .into_iter()
        .flatten()
        .map(|project| {
            format!(
                "{:<24} {:<32} {}\n",
                text_of(&project["project_id"]),
                text_of(&project["package_name"]),
                text_of(&project["name"]),
            )
        })
        .collect();
    match lines.is_empty() {
        true => "no projects\n".to_owned(),
        false => lines.concat(),
    }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
