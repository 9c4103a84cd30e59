//! More projects than the development server's own.

use serde_json::{Value, json};

use super::Door;
use super::answer;
use super::device::Credential;

/// A project and what its sender shows.
pub struct Project {
    /// Its id.
    pub id: String,
    /// Its service token.
    pub service_token: String,
}

const PACKAGE: &str = "com.example.app";
const FINGERPRINT: &str = "91:AC:7F:1B:91:AC:7F:1B:91:AC:7F:1B:91:AC:7F:1B:\
                           91:AC:7F:1B:91:AC:7F:1B:91:AC:7F:1B:91:AC:7F:1B";

impl Door {
    /// A new project with a service token.
    pub async fn project(&self, id: &str) -> Project {
        let body = json!({
            "project_id": id,
            "name": id,
            "package_name": PACKAGE,
            "cert_sha256": [FINGERPRINT],
        });
        let post = reqwest::Method::POST;
        let (status, answer) = self.admin(post.clone(), "/admin/v1/projects", &body).await;
        assert_eq!(status, 201, "{answer}");
        let path = format!("/admin/v1/projects/{id}/service-tokens");
        let (status, answer) = self.admin(post, &path, &json!({"name": "test"})).await;
        assert_eq!(status, 201, "{answer}");
        Project {
            id: id.to_owned(),
            service_token: answer["token"].as_str().expect("a token").to_owned(),
        }
    }

    /// Ends a project.
    pub async fn delete_project(&self, id: &str) {
        let path = format!("/admin/v1/projects/{id}");
        let (status, answer) = self
            .admin(reqwest::Method::DELETE, &path, &Value::Null)
            .await;
        assert_eq!(status, 204, "{answer}");
    }

    /// A new push token of a project on a device.
    pub async fn token_in(&self, project: &Project, device: &Credential) -> String {
        let url = self.url(&format!("/v1/projects/{}/tokens", project.id));
        let request = self
            .http()
            .post(url)
            .header("Authorization", device.header())
            .json(&json!({"package_name": PACKAGE, "cert_sha256": FINGERPRINT}));
        let (status, answer) = answer(request).await;
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// Deletes a push token; the status.
    pub async fn delete_token(&self, project_id: &str, device: &Credential, token: &str) -> u16 {
        let url = self.url(&format!("/v1/projects/{project_id}/tokens/{token}"));
        let request = self
            .http()
            .delete(url)
            .header("Authorization", device.header());
        answer(request).await.0
    }

    /// Sends as a project's sender, on the path of any project; status and JSON answer.
    pub async fn send_as(
        &self,
        service_token: &str,
        project_id: &str,
        body: &Value,
    ) -> (u16, Value) {
        let url = self.url(&format!("/v1/projects/{project_id}/messages:send"));
        let request = self.http().post(url).bearer_auth(service_token).json(body);
        answer(request).await
    }
}

/// The FCM error code of a refused send; empty when there is none.
pub fn fcm_error(answer: &Value) -> &str {
    let details = answer["error"]["details"].as_array();
    let mut codes = details
        .into_iter()
        .flatten()
        .filter_map(|detail| detail["errorCode"].as_str());
    codes.next().unwrap_or_default()
}
