//! Calls to the admin API of a running server.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::{Method, Url};
use serde_json::Value;

use super::{Exit, say};
use crate::admin_token;
use crate::config::{ADMIN_TOKEN_VARIABLE, ADMIN_URL_VARIABLE, Secret};

/// An answer may take this long: the server cuts its own work off much earlier.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Which server, and by which right.
#[derive(Debug, Args)]
pub struct AdminOptions {
    /// The admin listener.
    #[arg(
        long,
        value_name = "URL",
        env = ADMIN_URL_VARIABLE,
        default_value = "http://127.0.0.1:8081",
        global = true
    )]
    admin_url: Url,
    /// The admin token; better in the environment, where other users do not see it.
    #[arg(
        long,
        value_name = "TOKEN",
        env = ADMIN_TOKEN_VARIABLE,
        hide_env_values = true,
        value_parser = read_secret,
        global = true
    )]
    admin_token: Option<Secret>,
    /// The server's data directory, to read the admin token from.
    #[arg(long, value_name = "DIR", default_value = "herald-data", global = true)]
    data: PathBuf,
    /// Print what the server answers, as JSON.
    #[arg(long, global = true)]
    json: bool,
}

fn read_secret(text: &str) -> Result<Secret, String> {
    <Secret as crate::config::SettingValue>::from_text(text)
}

/// Why a call did not do what it should.
#[derive(Debug)]
pub struct CallError {
    exit: Exit,
    message: String,
}

impl CallError {
    fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.into(),
        }
    }

    fn fault(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Fault,
            message: message.into(),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// One call to make, below `/admin/v1`.
pub(super) struct Call {
    pub(super) method: Method,
    /// Path segments, to be escaped.
    pub(super) path: Vec<String>,
    pub(super) body: Option<Value>,
}

impl AdminOptions {
    /// Makes a call and prints its answer, by `show` for people or as JSON for programs.
    pub(super) async fn run(&self, call: Call, show: impl FnOnce(&Value) -> String) -> Exit {
        match self.call(call).await {
            Ok(answer) if self.json => say(&format!("{answer:#}\n")),
            Ok(answer) => say(&show(&answer)),
            Err(error) => {
                eprintln!("error: {error}");
                return error.exit;
            }
        }
        Exit::Success
    }

    async fn call(&self, call: Call) -> Result<Value, CallError> {
        let token = self.token()?;
        let url = self.url_of(&call.path)?;
        // Fails only when somebody else has set a provider already, which then serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| CallError::fault(error.to_string()))?;
        let mut request = client.request(call.method, url).bearer_auth(token.reveal());
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let answer = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(answer);
        }
        let message = match answer["error"]["message"].as_str() {
            Some(message) => format!("{message} ({status})"),
            None => format!("{} answered {status}", self.admin_url),
        };
        Err(match status.is_client_error() {
            true => CallError::usage(message),
            false => CallError::fault(message),
        })
    }

    fn token(&self) -> Result<Secret, CallError> {
        if let Some(token) = &self.admin_token {
            return Ok(token.clone());
        }
        match admin_token::read(&self.data) {
            Ok(Some(token)) => Ok(token),
            Ok(None) => Err(CallError::usage(format!(
                "no admin token: there is no {} in {}; give --data DIR or set {ADMIN_TOKEN_VARIABLE}",
                admin_token::ADMIN_TOKEN_FILE,
                self.data.display()
            ))),
            Err(error) => Err(CallError::usage(format!("no admin token: {error}"))),
        }
    }

    fn url_of(&self, path: &[String]) -> Result<Url, CallError> {
        // Segments that clients of URLs resolve away would lead to another route.
        if let Some(dots) = path
            .iter()
            .find(|it| matches!(it.as_str(), "" | "." | ".."))
        {
            return Err(CallError::usage(format!("`{dots}` is no id")));
        }
        let mut url = self.admin_url.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().extend(["admin", "v1"]).extend(path);
            }
            Err(()) => {
                let message = format!("{} is no address of a server", self.admin_url);
                return Err(CallError::usage(message));
            }
        }
        Ok(url)
    }

    fn unreachable(&self, error: &reqwest::Error) -> CallError {
        let mut message = format!("{} cannot be reached", self.admin_url);
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            message.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        CallError::fault(message)
    }
}
