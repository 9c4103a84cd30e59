//! Senders beyond the plain one: with options, in crowds, and while the server dies.

use serde_json::{Value, json};

use super::Door;
use super::answer;

/// A data message with a text.
pub fn message(token: &str, text: &str) -> Value {
    json!({"message": {"token": token, "data": {"text": text}}})
}

/// A data message with a text and options of `android`.
pub fn message_with(token: &str, text: &str, android: Value) -> Value {
    json!({"message": {"token": token, "data": {"text": text}, "android": android}})
}

/// The text of a push, as [`message`] and [`message_with`] put it in.
pub fn text_of(push: &Value) -> &str {
    push["message"]["data"]["text"]
        .as_str()
        .expect("a text in the data")
}

/// The texts of a poll's entry, in order.
pub fn texts_of(entry: &Value) -> Vec<&str> {
    let messages = entry["messages"].as_array().expect("messages");
    messages.iter().map(text_of).collect()
}

/// The numbers of a poll's entry, in order.
pub fn syns_of(entry: &Value) -> Vec<u64> {
    let messages = entry["messages"].as_array().expect("messages");
    messages.iter().map(syn_of).collect()
}

/// The number of a push.
pub fn syn_of(push: &Value) -> u64 {
    push["syn"].as_u64().expect("a syn")
}

impl Door {
    /// Sends; `None` when the connection ended without an answer.
    pub async fn try_send(&self, body: &Value) -> Option<(u16, Value)> {
        let url = self.url("/v1/projects/demo/messages:send");
        let request = self
            .http()
            .post(url)
            .bearer_auth(self.service_token())
            .json(body);
        let answer = super::soon("an answer or its end", request.send()).await;
        let answer = answer.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// Sends with an idempotency key; status and JSON answer.
    pub async fn send_once(&self, key: &str, body: &Value) -> (u16, Value) {
        let url = self.url("/v1/projects/demo/messages:send");
        let request = self
            .http()
            .post(url)
            .bearer_auth(self.service_token())
            .header("Idempotency-Key", key)
            .json(body);
        answer(request).await
    }

    /// Sends what must be accepted; its message id.
    pub async fn accepted(&self, body: &Value) -> String {
        let (status, answer) = self.send(body).await;
        assert_eq!(status, 200, "{answer}");
        message_id(&answer)
    }
}

/// The message id of an accepted send.
pub fn message_id(answer: &Value) -> String {
    let name = answer["name"].as_str().expect("a name");
    name.rsplit('/').next().expect("a message id").to_owned()
}
