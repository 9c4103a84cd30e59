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
    /// First: what has counts is nothing else.
    Changed(Changed),
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

/// Of a step after which tokens are in a topic, or out of it.
#[derive(Debug, Deserialize)]
pub struct Changed {
    pub success_count: usize,
    pub failure_count: usize,
    pub errors: Vec<Reason>,
}

/// Why a token is not.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Reason {
    pub index: usize,
    /// The SDK's own word.
    pub reason: String,
}

impl Report {
    /// The only outcome of a step.
    #[track_caller]
    pub fn one(&self, step: usize) -> &Outcome {
        match &self.outcomes[step] {
            Outcomes::One(outcome) => outcome,
            other => panic!("step {step} has {other:?}"),
        }
    }

    /// The outcomes of a step with many messages.
    #[track_caller]
    pub fn many(&self, step: usize) -> &[Outcome] {
        match &self.outcomes[step] {
            Outcomes::Many(outcomes) => outcomes,
            other => panic!("step {step} has {other:?}"),
        }
    }

    /// Whether a step failed as a whole, which must be in this word.
    #[track_caller]
    pub fn is_refused(&self, step: usize, word: &str) -> bool {
        match &self.outcomes[step] {
            Outcomes::Changed(_) => false,
            Outcomes::One(outcome) => {
                outcome.assert_refused(word);
                true
            }
            Outcomes::Many(many) => panic!("step {step} has {many:?}"),
        }
    }

    /// What became of the tokens of a step.
    #[track_caller]
    pub fn changed(&self, step: usize) -> &Changed {
        match &self.outcomes[step] {
            Outcomes::Changed(changed) => changed,
            other => panic!("step {step} has {other:?}"),
        }
    }
}

impl Changed {
    /// So many tokens are as wanted, and these are not, each in its word.
    #[track_caller]
    pub fn assert_done(&self, successes: usize, failures: &[(usize, &str)]) {
        let errors = self.errors.iter();
        let errors: Vec<_> = errors.map(|it| (it.index, it.reason.as_str())).collect();
        assert_eq!(errors, failures);
        let counts = (self.success_count, self.failure_count);
        assert_eq!(counts, (successes, failures.len()));
    }

    /// How many tokens were refused, which must be in this word.
    #[track_caller]
    pub fn failures_in(&self, word: &str) -> usize {
        let errors = &self.errors;
        assert!(errors.iter().all(|it| it.reason == word), "{errors:?}");
        assert_eq!(self.failure_count, errors.len());
        errors.len()
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

/// A message to many: `kind` is `topic` or `condition`.
pub fn send_to(kind: &str, to: &str, text: &str) -> Value {
    json!({"do": "send", "message": kind, "to": to, "text": text})
}

/// Tokens join a topic (`subscribe`) or leave it (`unsubscribe`), by one of the SDK's ways.
pub fn change(change: &str, how: &str, tokens: &[&str], topic: &str) -> Value {
    json!({"do": change, "how": how, "tokens": tokens, "topic": topic})
}

/// The same step, only tried.
pub fn dry(mut step: Value) -> Value {
    step["dry_run"] = Value::Bool(true);
    step
}
