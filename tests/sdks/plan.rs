//! What an SDK is told to do, and what it makes of it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What is written into the file that an SDK's script reads.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Where Herald is; empty when it is found by name.
    pub url: String,
    pub project_id: String,
    pub service_token: String,
    /// Which of several versions, for Node.
    pub package: &'static str,
    pub legacy_transport: bool,
    pub steps: Vec<Value>,
}

/// What the script writes to standard output.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// The SDK's version.
    pub sdk: String,
    pub outcomes: Vec<Outcomes>,
}

/// Of one step.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Outcomes {
    One(Outcome),
    Many(Vec<Outcome>),
}

/// Of one message.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct Outcome {
    #[serde(default)]
    pub name: Option<String>,
    /// The SDK's own word for what was wrong.
    #[serde(default)]
    pub error: Option<String>,
    /// For whoever reads a failed test.
    #[serde(default)]
    text: Option<String>,
}

impl Report {
    /// The only outcome of a step.
    #[track_caller]
    pub fn one(&self, step: usize) -> &Outcome {
        match &self.outcomes[step] {
            Outcomes::One(outcome) => outcome,
            Outcomes::Many(many) => panic!("step {step} has {many:?}"),
        }
    }

    /// The outcomes of a step with many messages.
    #[track_caller]
    pub fn many(&self, step: usize) -> &[Outcome] {
        match &self.outcomes[step] {
            Outcomes::Many(outcomes) => outcomes,
            Outcomes::One(one) => panic!("step {step} has {one:?}"),
        }
    }
}

impl Outcome {
    /// It was accepted.
    #[track_caller]
    pub fn assert_accepted(&self) {
        let name = self.name.as_deref().unwrap_or_default();
        assert!(name.starts_with("projects/demo/messages/"), "{self:?}");
    }

    /// It was refused, in this word.
    #[track_caller]
    pub fn assert_refused(&self, word: &str) {
        assert_eq!(self.error.as_deref(), Some(word), "{self:?}");
    }
}

/// One message: `whole`, `text`, `fid`, `now_or_never` or `collapsible`.
pub fn send(message: &str, token: &str, text: &str) -> Value {
    json!({"do": "send", "message": message, "token": token, "text": text})
}

/// One message to each token, whose text is its place.
pub fn send_each(verb: &str, tokens: &[String]) -> Value {
    json!({"do": verb, "tokens": tokens})
}

/// The same message to all tokens.
pub fn multicast(tokens: &[String]) -> Value {
    json!({"do": "multicast", "tokens": tokens})
}

/// The same step, only tried.
pub fn dry(mut step: Value) -> Value {
    step["dry_run"] = Value::Bool(true);
    step
}
