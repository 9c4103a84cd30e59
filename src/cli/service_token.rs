//! `herald service-token …`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::Exit;
use super::admin_client::{AdminOptions, Call};

/// What to do with a project's service tokens.
#[derive(Debug, Subcommand)]
pub enum ServiceTokenCommand {
    /// Make a service token and print it, for the only time.
    Create {
        /// The project's id.
        project_id: String,
        /// What it is for.
        #[arg(long)]
        name: String,
    },
    /// List a project's service tokens, without their secrets.
    List {
        /// The project's id.
        project_id: String,
    },
    /// Revoke a service token at once.
    Delete {
        /// The project's id.
        project_id: String,
        /// The service token's id, as the list shows it.
        service_token_id: String,
    },
}

impl ServiceTokenCommand {
    /// Asks the server.
    pub async fn run(self, admin: &AdminOptions) -> Exit {
        let tokens = |project_id| {
            vec![
                "projects".to_owned(),
                project_id,
                "service-tokens".to_owned(),
            ]
        };
        match self {
            Self::Create { project_id, name } => {
                let call = Call {
                    method: Method::POST,
                    path: tokens(project_id),
                    body: Some(json!({ "name": name })),
                };
                admin.run(call, show_new).await
            }
            Self::List { project_id } => {
                let call = Call {
                    method: Method::GET,
                    path: tokens(project_id),
                    body: None,
                };
                admin.run(call, show_list).await
            }
            Self::Delete {
                project_id,
                service_token_id,
            } => {
                let done = format!("service token {service_token_id} deleted\n");
                let mut path = tokens(project_id);
                path.push(service_token_id);
                let call = Call {
                    method: Method::DELETE,
                    path,
                    body: None,
                };
                admin.run(call, |_| done).await
            }
        }
    }
}

/// The token alone goes to standard output, so that it can be piped; the rest is for people.
fn show_new(answer: &Value) -> String {
    eprintln!(
        "keep it: it is not shown again (id {})",
        answer["id"].as_str().unwrap_or("-")
    );
    format!("{}\n", answer["token"].as_str().unwrap_or_default())
}

fn show_list(answer: &Value) -> String {
    let tokens = answer["service_tokens"].as_array();
    let lines: Vec<String> = tokens
        .into_iter()
        .flatten()
        .map(|token| {
            let used = match token["last_used"].as_u64() {
                Some(time) => format!("last used at {time} ms"),
                None => "not used since the server started".to_owned(),
            };
            let text = |key: &str| token[key].as_str().unwrap_or("-").to_owned();
            format!("{}  {:<24} {used}\n", text("id"), text("name"))
        })
        .collect();
    match lines.is_empty() {
        true => "no service tokens\n".to_owned(),
        false => lines.concat(),
    }
}
