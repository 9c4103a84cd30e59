//! Error bodies and headers, word for word.

use actix_web::body::MessageBody as _;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use super::*;

const WAIT: Duration = Duration::from_millis(1_200);

fn body(error: &ApiError) -> Value {
    let bytes = error
        .error_response()
        .into_body()
        .try_into_bytes()
        .expect("a body in memory");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn header(error: &ApiError, name: &HeaderName) -> Option<String> {
    let response = error.error_response();
    let value = response.headers().get(name)?;
    Some(value.to_str().expect("visible text").to_owned())
}

fn fcm_error(code: &str) -> Value {
    json!({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
}

#[test]
fn an_unregistered_body_is_the_documented_one_byte_for_byte() {
    let bytes = ApiError::unregistered()
        .error_response()
        .into_body()
        .try_into_bytes()
        .expect("a body in memory");
    assert_eq!(
        std::str::from_utf8(&bytes),
        Ok(concat!(
            r#"{"error":{"code":404,"message":"Requested entity was not found.","status":"NOT_FOUND","#,
            r#""details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","#,
            r#""errorCode":"UNREGISTERED"}]}}"#
        ))
    );
}

#[test]
fn faults_of_a_send_have_the_bodies_that_fcm_gives() {
    let bad_request = |field: &str, description: &str| {
        json!({"@type": "type.googleapis.com/google.rpc.BadRequest",
               "fieldViolations": [{"field": field, "description": description}]})
    };
    let no_token = "The registration token is not a valid FCM registration token";
    for (error, expected) in [
        (
            ApiError::malformed_token(),
            json!({"code": 400, "message": no_token, "status": "INVALID_ARGUMENT",
                   "details": [fcm_error("INVALID_ARGUMENT"), bad_request("message.token", no_token)]}),
        ),
        (
            ApiError::message_too_large(4096),
            json!({"code": 400, "message": "Message is too large. The maximum is 4K (4096 bytes).",
                   "status": "INVALID_ARGUMENT",
                   "details": [fcm_error("INVALID_ARGUMENT"),
                               {"@type": "type.googleapis.com/google.rpc.BadRequest"}]}),
        ),
        (
            ApiError::invalid_condition("unit test"),
            json!({"code": 400, "message": "Request contains an invalid argument.",
                   "status": "INVALID_ARGUMENT"}),
        ),
        (
            ApiError::sender_id_mismatch(),
            json!({"code": 403, "message": "SenderId mismatch", "status": "PERMISSION_DENIED",
                   "details": [fcm_error("SENDER_ID_MISMATCH")]}),
        ),
        (
            ApiError::permission_denied(),
            json!({"code": 403, "message": "The caller does not have permission",
                   "status": "PERMISSION_DENIED"}),
        ),
        (
            ApiError::unavailable(WAIT),
            json!({"code": 503, "message": "The service is currently unavailable.",
                   "status": "UNAVAILABLE", "details": [fcm_error("UNAVAILABLE")]}),
        ),
    ] {
        assert_eq!(body(&error), json!({"error": expected}));
    }
}

#[test]
fn a_wrong_bearer_gets_the_recorded_body() {
    let error = ApiError::unauthenticated(Scheme::Bearer);
    assert_eq!(
        body(&error),
        json!({"error": {
            "code": 401,
            "message": "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
            "status": "UNAUTHENTICATED",
            "details": [{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "ACCESS_TOKEN_EXPIRED",
                "domain": "googleapis.com",
                "metadata": {"method": "google.firebase.fcm.v1.FcmService.SendMessage",
                             "service": "fcm.googleapis.com"}
            }]
        }})
    );
    assert_eq!(header(&error, &WWW_AUTHENTICATE).as_deref(), Some("Bearer"));
    let missing = body(&ApiError::credentials_missing(Scheme::Bearer));
    assert_eq!(
        missing["error"]["details"][0]["reason"],
        "CREDENTIALS_MISSING"
    );
    let device = ApiError::unauthenticated(Scheme::Device);
    assert_eq!(
        body(&device),
        json!({"error": {"code": 401, "message": "The device credential is wrong.",
                         "status": "UNAUTHENTICATED"}})
    );
    assert_eq!(
        header(&device, &WWW_AUTHENTICATE).as_deref(),
        Some("Device")
    );
}

#[test]
fn a_used_up_project_quota_satisfies_every_client_library() {
    let error = ApiError::project_quota_exceeded(WAIT, "demo", 600_000);
    let message = "Quota exceeded for quota metric 'Send requests' and limit 'Send requests per minute' of service 'fcm.googleapis.com' for consumer 'project_number:demo'.";
    assert_eq!(
        body(&error),
        json!({"error": {
            "code": 429, "message": message, "status": "RESOURCE_EXHAUSTED",
            "details": [
                fcm_error("QUOTA_EXCEEDED"),
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure",
                 "violations": [{"subject": "projects/demo", "description": message}]},
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo",
                 "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com",
                 "metadata": {
                    "quota_limit_value": "600000", "consumer": "projects/demo",
                    "quota_metric": "fcm.googleapis.com/send_requests",
                    "quota_unit": "1/min/{project}", "service": "fcm.googleapis.com",
                    "quota_location": "global", "quota_limit": "SendsPerMinutePerProject"}},
            ]
        }})
    );
}

#[test]
fn a_used_up_quota_of_a_device_names_it() {
    let error = ApiError::resource_exhausted(WAIT, "device", "Too often.");
    assert_eq!(
        body(&error),
        json!({"error": {
            "code": 429, "message": "Too often.", "status": "RESOURCE_EXHAUSTED",
            "details": [
                fcm_error("QUOTA_EXCEEDED"),
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure",
                 "violations": [{"subject": "device", "description": "Too often."}]},
            ]
        }})
    );
    // Devices that ask for too much are no senders, and hear nothing of FCM.
    assert_eq!(
        body(&ApiError::minting_limited(WAIT)),
        json!({"error": {"code": 429, "message": "Too many registrations at the moment.",
                         "status": "RESOURCE_EXHAUSTED"}})
    );
}

#[test]
fn what_is_nobodys_fault_has_its_body_too() {
    let fault = |code: u16, status: &str, error: &str, message: &str| {
        json!({"error": {"code": code, "message": message, "status": status,
                         "details": [fcm_error(error)]}})
    };
    for (error, expected) in [
        (
            ApiError::internal("unit test"),
            fault(500, "INTERNAL", "INTERNAL", "Internal error encountered."),
        ),
        (
            ApiError::payload_too_large(65_536),
            fault(
                413,
                "INVALID_ARGUMENT",
                "INVALID_ARGUMENT",
                "The request body is larger than 65536 bytes.",
            ),
        ),
        (
            ApiError::deadline_exceeded(),
            json!({"error": {"code": 504, "status": "DEADLINE_EXCEEDED",
                             "message": "Deadline expired before operation could complete."}}),
        ),
        (
            ApiError::unsupported_media_type(),
            json!({"error": {"code": 415, "status": "INVALID_ARGUMENT",
                             "message": "The content type must be application/json."}}),
        ),
    ] {
        assert_eq!(body(&error), expected);
    }
}

#[test]
fn headers_go_with_their_codes() {
    for (error, code, status, extra) in [
        (
            ApiError::resource_exhausted(WAIT, "tokens/1", "full"),
            429,
            "RESOURCE_EXHAUSTED",
            Some((RETRY_AFTER, "2")),
        ),
        (
            ApiError::minting_limited(Duration::ZERO),
            429,
            "RESOURCE_EXHAUSTED",
            Some((RETRY_AFTER, "1")),
        ),
        (
            ApiError::unavailable(Duration::from_secs(3)),
            503,
            "UNAVAILABLE",
            Some((RETRY_AFTER, "3")),
        ),
        (
            ApiError::method_not_allowed("GET, POST"),
            405,
            "INVALID_ARGUMENT",
            Some((ALLOW, "GET, POST")),
        ),
        (
            ApiError::unsupported_media_type(),
            415,
            "INVALID_ARGUMENT",
            None,
        ),
        (
            ApiError::payload_too_large(65_536),
            413,
            "INVALID_ARGUMENT",
            None,
        ),
        (ApiError::request_timeout(), 408, "DEADLINE_EXCEEDED", None),
        (ApiError::not_found("No such path."), 404, "NOT_FOUND", None),
        (
            ApiError::already_exists("Taken."),
            409,
            "ALREADY_EXISTS",
            None,
        ),
        (ApiError::conflict("Changed."), 409, "ABORTED", None),
        (
            ApiError::deadline_exceeded(),
            504,
            "DEADLINE_EXCEEDED",
            None,
        ),
        (ApiError::internal("unit test"), 500, "INTERNAL", None),
    ] {
        assert_eq!(error.status_code().as_u16(), code);
        assert_eq!(error.status().as_str(), status);
        assert_eq!(body(&error)["error"]["code"], code);
        assert_eq!(body(&error)["error"]["status"], status);
        assert_eq!(body(&error)["error"]["message"], error.message());
        assert_eq!(
            header(&error, &CONTENT_TYPE).as_deref(),
            Some("application/json; charset=UTF-8")
        );
        if let Some((name, value)) = extra {
            assert_eq!(header(&error, &name).as_deref(), Some(value));
        }
    }
}

#[test]
fn proof_of_work_is_asked_for_in_the_contracts_words() {
    let detail = Detail::ProofOfWork {
        challenge: "abc".to_owned(),
        bits: 20,
    };
    let error = ApiError::minting_limited(WAIT).with_detail(detail);
    assert_eq!(
        body(&error)["error"]["details"],
        json!([{"@type": "type.googleapis.com/herald.v1.ProofOfWork", "challenge": "abc", "bits": 20}])
    );
}

#[test]
fn logs_see_the_cause_and_never_the_payload() {
    let error = ApiError::malformed_json("at secret").with_cause("the cause");
    for printed in [format!("{error}"), format!("{error:?}")] {
        assert!(printed.contains("400 INVALID_ARGUMENT"), "{printed}");
        assert!(printed.contains("the cause"), "{printed}");
        assert!(!printed.contains("secret"), "{printed}");
    }
    assert!(!body(&error).to_string().contains("the cause"));
    assert!(error.source().is_some());
    assert_eq!(
        ApiError::unregistered().to_string(),
        "404 NOT_FOUND: Requested entity was not found."
    );
}
