//! The admin listener's routes, called as an operator calls them.

use actix_web::App;
use actix_web::body::to_bytes;
use actix_web::http::{Method, header};
use actix_web::test::{TestRequest, init_service};
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::config::Secret;
use crate::metrics::Metrics;
use crate::projects::tests::memory_store;
use crate::sealing_keys::tests::own_keys;

const ADMIN: &str = "an-admin-token-for-tests";
const FINGERPRINT: &str = "91AC2F0B91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b91ac2f0b";
const NOW: u64 = 1_700_000_000_000;

struct Answer {
    status: u16,
    headers: header::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|it| it.to_str().expect("ASCII"));
        value.unwrap_or_default()
    }

    fn fails_with(&self, code: u16, status: &str) {
        let error = &self.json()["error"];
        assert_eq!(
            (self.status, &error["status"]),
            (code, &json!(status)),
            "{error}"
        );
        assert_eq!(error["code"], json!(code));
        assert!(error["message"].is_string());
    }
}

async fn state() -> AdminState {
    let projects = Projects::load(memory_store(), Clock::manual(NOW))
        .await
        .expect("projects");
    AdminState::new(
        &Config::dev(),
        Arc::new(projects),
        own_keys().await,
        AdminTokenHash::of(&Secret::new(ADMIN.to_owned())),
        Probes {
            metrics: Arc::new(Metrics::new()),
            readiness: Arc::new(Vec::new),
            liveness: Arc::new(|| true),
        },
    )
}

async fn call(state: &AdminState, request: TestRequest) -> Answer {
    let app = init_service(App::new().configure(configure(state))).await;
    let response = match actix_web::dev::Service::call(&app, request.to_request()).await {
        Ok(response) => response.into_parts().1,
        Err(error) => error.error_response(),
    };
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: to_bytes(response.into_body().boxed())
            .await
            .expect("a body")
            .to_vec(),
    }
}

fn operator(method: Method, path: &str) -> TestRequest {
    TestRequest::with_uri(path)
        .method(method)
        .insert_header((header::AUTHORIZATION, format!("Bearer {ADMIN}")))
}

fn demo() -> Value {
    json!({
        "project_id": "demo",
        "name": "Demo",
        "package_name": "com.example.app",
        "cert_sha256": [FINGERPRINT],
    })
}

async fn with_demo() -> AdminState {
    let state = state().await;
    let request = operator(Method::POST, "/admin/v1/projects").set_json(demo());
    assert_eq!(call(&state, request).await.status, 201);
    state
}

#[actix_web::test]
async fn probes_need_no_credential() {
    let mut state = state().await;
    assert_eq!(
        call(&state, TestRequest::get().uri("/livez")).await.status,
        200
    );
    let ready = call(&state, TestRequest::get().uri("/readyz")).await;
    assert_eq!(
        (ready.status, ready.json()["ready"].clone()),
        (200, json!(true))
    );
    state.probes.readiness = Arc::new(|| vec!["the node is draining".to_owned()]);
    let unready = call(&state, TestRequest::get().uri("/readyz")).await;
    unready.fails_with(503, "UNAVAILABLE");
    assert_eq!(unready.json()["reasons"], json!(["the node is draining"]));
    assert_eq!(unready.header("retry-after"), "1");
    assert_eq!(
        call(&state, TestRequest::get().uri("/livez")).await.status,
        200
    );
}

#[actix_web::test]
async fn sealing_keys_are_made_one_at_a_time_and_shown_without_secrets() {
    let state = state().await;
    let keys = "/admin/v1/sealing-keys";
    let made = call(&state, operator(Method::POST, keys)).await;
    let second = json!({"id": 2, "seals_from": 601_000, "seals": false});
    assert_eq!((made.status, made.json()), (201, second.clone()));
    let again = call(&state, operator(Method::POST, keys)).await;
    again.fails_with(409, "ABORTED");
    let first = json!({"id": 1, "seals_from": 0, "seals": true});
    let listed = call(&state, operator(Method::GET, keys)).await;
    assert_eq!(listed.json(), json!({"sealing_keys": [first, second]}));
    let refused = call(&state, operator(Method::DELETE, keys)).await;
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, "GET, POST")
    );
}

#[actix_web::test]
async fn metrics_are_prometheus_text() {
    let state = state().await;
    let metrics = call(&state, TestRequest::get().uri("/metrics")).await;
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let text = String::from_utf8(metrics.body).expect("UTF-8");
    assert!(text.contains("herald_sessions 0"));
}

#[actix_web::test]
async fn nothing_under_admin_opens_without_the_admin_token() {
    let state = with_demo().await;
    for path in [
        "/admin/v1/projects",
        "/admin/v1/projects/demo",
        "/admin/nothing",
        "/admin",
    ] {
        for credential in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer wrong",
            ADMIN,
            "Basic x",
            "Device a.b",
        ] {
            let request = TestRequest::get()
                .uri(path)
                .insert_header((header::AUTHORIZATION, credential));
            call(&state, request)
                .await
                .fails_with(401, "UNAUTHENTICATED");
        }
        let nobody = call(&state, TestRequest::get().uri(path)).await;
        nobody.fails_with(401, "UNAUTHENTICATED");
        assert!(nobody.header("www-authenticate").starts_with("Bearer"));
    }
}

#[actix_web::test]
async fn a_project_lives_from_post_to_delete() {
    let state = state().await;
    let request = operator(Method::POST, "/admin/v1/projects").set_json(demo());
    let created = call(&state, request).await;
    assert_eq!(created.status, 201);
    let fingerprint = ["91:AC:2F:0B"; 8].join(":");
    let mut expected = json!({
        "project_id": "demo",
        "name": "Demo",
        "package_name": "com.example.app",
        "cert_sha256": [fingerprint],
        "created": NOW,
    });
    assert_eq!(created.json(), expected);

    let again = operator(Method::POST, "/admin/v1/projects").set_json(demo());
    call(&state, again).await.fails_with(409, "ALREADY_EXISTS");

    let change = operator(Method::PATCH, "/admin/v1/projects/demo");
    let changed = call(&state, change.set_json(json!({ "name": "New" }))).await;
    expected["name"] = json!("New");
    assert_eq!((changed.status, changed.json()), (200, expected.clone()));

    let shown = call(&state, operator(Method::GET, "/admin/v1/projects/demo")).await;
    assert_eq!((shown.status, shown.json()), (200, expected.clone()));
    let listed = call(&state, operator(Method::GET, "/admin/v1/projects")).await;
    assert_eq!(listed.json(), json!({ "projects": [expected] }));

    let delete = || operator(Method::DELETE, "/admin/v1/projects/demo");
    let deleted = call(&state, delete()).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    call(&state, delete()).await.fails_with(404, "NOT_FOUND");
    call(&state, operator(Method::GET, "/admin/v1/projects/demo"))
        .await
        .fails_with(404, "NOT_FOUND");
    let again = operator(Method::POST, "/admin/v1/projects").set_json(demo());
    call(&state, again).await.fails_with(409, "ALREADY_EXISTS");
}

#[actix_web::test]
async fn a_service_token_is_shown_once_and_works_until_deleted() {
    let state = with_demo().await;
    let path = "/admin/v1/projects/demo/service-tokens";
    let create = || operator(Method::POST, path).set_json(json!({ "name": "ci" }));
    let created = call(&state, create()).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.header("cache-control"), "no-store");
    let created = created.json();
    let secret = created["token"].as_str().expect("a token").to_owned();
    assert!(state.projects.authenticate(&secret).is_some());

    let listed = call(&state, operator(Method::GET, path)).await;
    assert!(!String::from_utf8_lossy(&listed.body).contains(&secret));
    let expected = json!([{ "id": created["id"], "name": "ci", "created": NOW, "last_used": NOW }]);
    assert_eq!(listed.json()["service_tokens"], expected);

    for _ in 0..4 {
        assert_eq!(call(&state, create()).await.status, 201);
    }
    call(&state, create()).await.fails_with(409, "ABORTED");

    let id = created["id"].as_str().expect("an id");
    let delete = || operator(Method::DELETE, &format!("{path}/{id}"));
    assert_eq!(call(&state, delete()).await.status, 204);
    call(&state, delete()).await.fails_with(404, "NOT_FOUND");
    assert!(state.projects.authenticate(&secret).is_none());
    assert_eq!(call(&state, create()).await.status, 201);
}

#[actix_web::test]
async fn bad_bodies_are_told_what_is_wrong() {
    let state = with_demo().await;
    let wrong_type = json!({ "project_id": 7, "package_name": "a.b", "cert_sha256": [] });
    let cases = [
        (
            "POST",
            "/admin/v1/projects",
            json!({}),
            "missing field `project_id`",
        ),
        (
            "POST",
            "/admin/v1/projects",
            wrong_type,
            "expected a string",
        ),
        (
            "POST",
            "/admin/v1/projects",
            json!(["demo", null, "a.b", []]),
            "must be a JSON object",
        ),
        (
            "POST",
            "/admin/v1/projects",
            json!({ "x": 1 }),
            "unknown field `x`",
        ),
        (
            "PATCH",
            "/admin/v1/projects/demo",
            json!({ "package_name": "x" }),
            "package_name",
        ),
        (
            "PATCH",
            "/admin/v1/projects/demo",
            json!({ "cert_sha256": [] }),
            "1 to 16",
        ),
        (
            "PATCH",
            "/admin/v1/projects/demo",
            json!({ "project_id": "x" }),
            "unknown field",
        ),
        (
            "POST",
            "/admin/v1/projects/demo/service-tokens",
            json!({}),
            "missing field `name`",
        ),
        (
            "POST",
            "/admin/v1/projects/demo/service-tokens",
            json!({ "name": "" }),
            "1 to 128",
        ),
    ];
    for (method, path, body, message) in cases {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = call(&state, operator(method, path).set_json(&body)).await;
        answer.fails_with(400, "INVALID_ARGUMENT");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains(message), "{body}: {text}");
    }
}

#[actix_web::test]
async fn broken_json_is_a_400_and_not_echoed_into_a_500() {
    let state = state().await;
    let deep = "[".repeat(100_000);
    for body in ["", "{", "nul", "\u{0}", deep.as_str()] {
        let request = operator(Method::POST, "/admin/v1/projects")
            .insert_header((header::CONTENT_TYPE, "application/json"))
            .set_payload(body.to_owned());
        call(&state, request)
            .await
            .fails_with(400, "INVALID_ARGUMENT");
    }
}

#[actix_web::test]
async fn other_media_types_paths_and_methods_are_refused() {
    let state = with_demo().await;
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let request = operator(Method::POST, "/admin/v1/projects")
            .set_payload("{}")
            .insert_header((header::CONTENT_TYPE, media_type));
        call(&state, request)
            .await
            .fails_with(415, "INVALID_ARGUMENT");
    }
    for path in [
        "/",
        "/nothing",
        "/admin/v1",
        "/admin/v1/projects/demo/nothing",
        "/admin/v2/x",
    ] {
        let answer = call(&state, operator(Method::GET, path)).await;
        answer.fails_with(404, "NOT_FOUND");
    }
    for (method, path, allow) in [
        (Method::POST, "/livez", "GET, HEAD"),
        (Method::DELETE, "/metrics", "GET, HEAD"),
        (Method::PUT, "/admin/v1/projects", "GET, POST"),
        (Method::PUT, "/admin/v1/projects/demo", "GET, PATCH, DELETE"),
        (
            Method::PUT,
            "/admin/v1/projects/demo/service-tokens",
            "GET, POST",
        ),
        (
            Method::GET,
            "/admin/v1/projects/demo/service-tokens/x",
            "DELETE",
        ),
    ] {
        let answer = call(&state, operator(method, path)).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, allow),
            "{path}"
        );
    }
}

#[actix_web::test]
async fn a_body_over_the_limit_is_refused_by_its_declaration_or_its_bytes() {
    let mut state = state().await;
    state.body_bytes_max = 64;
    let big = "x".repeat(65);
    let json_body = || {
        operator(Method::POST, "/admin/v1/projects")
            .insert_header((header::CONTENT_TYPE, "application/json"))
    };
    let sent = json_body().set_payload(big);
    call(&state, sent).await.fails_with(413, "INVALID_ARGUMENT");
    let declared = json_body().insert_header((header::CONTENT_LENGTH, "65"));
    call(&state, declared)
        .await
        .fails_with(413, "INVALID_ARGUMENT");
}

#[actix_web::test]
async fn unknown_projects_are_404_everywhere() {
    let state = state().await;
    let name = json!({ "name": "x" });
    let base = "/admin/v1/projects/nobody";
    for request in [
        operator(Method::GET, base),
        operator(Method::PATCH, base).set_json(&name),
        operator(Method::DELETE, base),
        operator(Method::GET, &format!("{base}/service-tokens")),
        operator(Method::POST, &format!("{base}/service-tokens")).set_json(&name),
        operator(Method::DELETE, &format!("{base}/service-tokens/x")),
    ] {
        call(&state, request).await.fails_with(404, "NOT_FOUND");
    }
}
