//! `/v1/projects/{project_id}/registrations/{token}/topicSubscriptions`: FCM v1's own topic
//! management.

use std::sync::Arc;

use actix_web::web::{Data, Path, Payload, Query};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{TIMESTAMP, moment_text, take_changes, topic_name};
use crate::http::error::ApiError;
use crate::http::{Public, auth, body, json_response, store_error};
use crate::projects::Project;
use crate::store::{Subscribed, Subscription, Unsubscribed};
use crate::token::{TokenAddress, TokenError};
use crate::topic::TopicName;

/// Subscriptions of one page, unless the caller asks for another number.
const PAGE_DEFAULT: usize = 1_000;

/// Most subscriptions of one page; asking for more gives so many.
const PAGE_MAX: usize = 2_000;

/// A subscription on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicSubscription {
    name: String,
    topic_name: String,
    create_time: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicSubscriptions {
    topic_subscriptions: Vec<TopicSubscription>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// The body of a create, of which nothing counts: a subscription is all in the path.
#[derive(Deserialize)]
struct Nothing {}

/// Who is asking, of which token, and how the call is put.
struct Call<'a> {
    project: Arc<Project>,
    token: &'a str,
    address: TokenAddress,
    query: Vec<(String, String)>,
    public: &'a Public,
}

impl<'a> Call<'a> {
    /// # Errors
    /// 401, 403 for another project's path or token, 400 for what is no token, 404 for one whose
    /// key is gone.
    fn of(
        request: &HttpRequest,
        project_id: &str,
        token: &'a str,
        public: &'a Public,
    ) -> Result<Self, ApiError> {
        let project = auth::sender(request.headers(), &public.projects, project_id)?;
        let address = match public.node.keys().open_text(token) {
            Ok((address, _)) => address,
            Err(TokenError::Malformed) => return Err(ApiError::malformed_registration()),
            Err(TokenError::KeyGone) => return Err(ApiError::unregistered()),
        };
        if address.project != project.hash() {
            return Err(ApiError::sender_id_mismatch());
        }
        let query = Query::<Vec<(String, String)>>::from_query(request.query_string());
        let query = query.map_err(|error| {
            ApiError::invalid_argument("The query cannot be read.").with_cause(error.to_string())
        })?;
        Ok(Self {
            project,
            token,
            address,
            query: query.into_inner(),
            public,
        })
    }

    /// For calls that change something, which have a quota.
    fn to_change(
        request: &HttpRequest,
        project_id: &str,
        token: &'a str,
        public: &'a Public,
    ) -> Result<Self, ApiError> {
        let call = Self::of(request, project_id, token, public)?;
        take_changes(&call.project, 1, public)
            .map_err(|wait| ApiError::topic_quota_exceeded(wait, project_id))?;
        Ok(call)
    }

    /// The value of a query field in either spelling; of a repeated one the last counts.
    fn asked(&self, camel: &str, snake: &str) -> Option<&str> {
        let mut fields = self.query.iter().rev();
        let field = fields.find(|(name, _)| name == camel || name == snake)?;
        Some(field.1.as_str())
    }

    fn allows_missing(&self) -> Result<bool, ApiError> {
        match self.asked("allowMissing", "allow_missing") {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(_) => Err(ApiError::invalid_field(
                "allow_missing",
                "allow_missing must be true or false.",
            )),
        }
    }

    fn page_size(&self) -> Result<usize, ApiError> {
        let Some(text) = self.asked("pageSize", "page_size") else {
            return Ok(PAGE_DEFAULT);
        };
        match text.parse::<u32>() {
            Ok(0) => Ok(PAGE_DEFAULT),
            Ok(size) => Ok(usize::try_from(size).map_or(PAGE_MAX, |size| size.min(PAGE_MAX))),
            Err(_) => Err(ApiError::invalid_field(
                "page_size",
                "page_size must be a whole number.",
            )),
        }
    }

    /// The name that the page before ended with.
    fn page_start(&self) -> Result<String, ApiError> {
        let token = self.asked("pageToken", "page_token").unwrap_or_default();
        let name = URL_SAFE_NO_PAD.decode(token).ok();
        name.and_then(|name| String::from_utf8(name).ok())
            .ok_or_else(|| ApiError::invalid_field("page_token", "page_token is not one of ours."))
    }

    fn shown(&self, subscription: &Subscription) -> TopicSubscription {
        let (project_id, token) = (&self.project.project_id, self.token);
        let topic = &subscription.topic;
        TopicSubscription {
            name: format!("projects/{project_id}/registrations/{token}/topicSubscriptions/{topic}"),
            topic_name: topic.to_string(),
            create_time: moment_text(subscription.since, TIMESTAMP),
        }
    }

    fn answer(&self, subscription: &Subscription) -> Result<HttpResponse, ApiError> {
        answer(&self.shown(subscription))
    }

    /// Subscribes; whether there was such a subscription before is the caller's to judge.
    async fn subscribe(&self, topic: TopicName) -> Result<(Subscription, bool), ApiError> {
        let subscribed = self.public.node.subscribe(&self.address, &topic).await;
        let (subscribed, since) = subscribed.map_err(store_error)?;
        match subscribed {
            Subscribed::Added => Ok((Subscription { topic, since }, true)),
            Subscribed::Already(_) => Ok((Subscription { topic, since }, false)),
            Subscribed::TooMany => Err(ApiError::too_many_topics()),
            Subscribed::Unregistered => Err(ApiError::unregistered()),
        }
    }

    async fn find(&self, topic: &TopicName) -> Result<Option<Subscription>, ApiError> {
        let node = &self.public.node;
        let found = node.subscription(&self.address, topic).await;
        match found.map_err(store_error)? {
            Some(subscription) => Ok(Some(subscription)),
            None if !node
                .is_registered(&self.address)
                .await
                .map_err(store_error)? =>
            {
                Err(ApiError::unregistered())
            }
            None => Ok(None),
        }
    }
}

fn topic_of(name: &str) -> Result<TopicName, ApiError> {
    topic_name(name).ok_or_else(|| {
        ApiError::invalid_field("topic_name", "Topic name contains invalid characters.")
    })
}

fn answer(body: &impl Serialize) -> Result<HttpResponse, ApiError> {
    let text = serde_json::to_string(body).map_err(ApiError::internal)?;
    Ok(json_response(text))
}

/// `POST …/topicSubscriptions?topicName=N`.
///
/// # Errors
/// As for every sender's call; 409 if there is such a subscription.
pub async fn create(
    request: HttpRequest,
    path: Path<(String, String)>,
    payload: Payload,
    public: Data<Public>,
) -> Result<HttpResponse, ApiError> {
    let (project_id, token) = path.into_inner();
    let call = Call::to_change(&request, &project_id, &token, &public)?;
    read_nothing(&request, payload, &public).await?;
    let topic = topic_of(call.asked("topicName", "topic_name").unwrap_or_default())?;
    match call.subscribe(topic).await? {
        (subscription, true) => call.answer(&subscription),
        (_, false) => Err(ApiError::already_exists("Requested entity already exists")),
    }
}

/// `PATCH …/topicSubscriptions/N`: makes it with `allowMissing`, and changes nothing otherwise,
/// because there is nothing in it to change.
///
/// # Errors
/// As for every sender's call; 404 if there is none and none is to be made.
pub async fn update(
    request: HttpRequest,
    path: Path<(String, String, String)>,
    payload: Payload,
    public: Data<Public>,
) -> Result<HttpResponse, ApiError> {
    let (project_id, token, topic) = path.into_inner();
    let call = Call::to_change(&request, &project_id, &token, &public)?;
    read_nothing(&request, payload, &public).await?;
    let topic = topic_of(&topic)?;
    if call.allows_missing()? {
        return call.answer(&call.subscribe(topic).await?.0);
    }
    match call.find(&topic).await? {
        Some(subscription) => call.answer(&subscription),
        None => Err(no_such_subscription()),
    }
}

/// `DELETE …/topicSubscriptions/N`.
///
/// # Errors
/// As for every sender's call; 404 if there is none, unless that is allowed.
pub async fn delete(
    request: HttpRequest,
    path: Path<(String, String, String)>,
    public: Data<Public>,
) -> Result<HttpResponse, ApiError> {
    let (project_id, token, topic) = path.into_inner();
    let call = Call::to_change(&request, &project_id, &token, &public)?;
    let (topic, allows_missing) = (topic_of(&topic)?, call.allows_missing()?);
    let unsubscribed = public.node.unsubscribe(&call.address, &topic).await;
    match unsubscribed.map_err(store_error)? {
        Unsubscribed::NotThere if !allows_missing => Err(no_such_subscription()),
        Unsubscribed::Removed | Unsubscribed::NotThere => Ok(json_response("{}".to_owned())),
        Unsubscribed::Unregistered => Err(ApiError::unregistered()),
    }
}

/// `GET …/topicSubscriptions/N`.
///
/// # Errors
/// As for every sender's call; 404 if there is none.
pub async fn get(
    request: HttpRequest,
    path: Path<(String, String, String)>,
    public: Data<Public>,
) -> Result<HttpResponse, ApiError> {
    let (project_id, token, topic) = path.into_inner();
    let call = Call::of(&request, &project_id, &token, &public)?;
    match call.find(&topic_of(&topic)?).await? {
        Some(subscription) => call.answer(&subscription),
        None => Err(no_such_subscription()),
    }
}

/// `GET …/topicSubscriptions`: a page of them, in the order of names.
///
/// # Errors
/// As for every sender's call.
pub async fn list(
    request: HttpRequest,
    path: Path<(String, String)>,
    public: Data<Public>,
) -> Result<HttpResponse, ApiError> {
    let (project_id, token) = path.into_inner();
    let call = Call::of(&request, &project_id, &token, &public)?;
    let (size, start) = (call.page_size()?, call.page_start()?);
    let found = public.node.subscriptions(&call.address, &start, size + 1);
    let found = found.await.map_err(store_error)?;
    let found = found.ok_or_else(ApiError::unregistered)?;
    let page = found.get(..size).unwrap_or(&found);
    let last = page.last().filter(|_| found.len() > size);
    answer(&TopicSubscriptions {
        topic_subscriptions: page.iter().map(|it| call.shown(it)).collect(),
        next_page_token: last.map(|last| URL_SAFE_NO_PAD.encode(last.topic.as_str())),
    })
}

fn no_such_subscription() -> ApiError {
    ApiError::not_found("Requested entity was not found.")
}

/// A body may be missing, and must be an object if it is not.
async fn read_nothing(
    request: &HttpRequest,
    payload: Payload,
    public: &Public,
) -> Result<(), ApiError> {
    let limit = public.http.send_body_bytes;
    let body = body::read_json(request, payload, limit, public.body_patience()).await?;
    if !body.is_empty() {
        let Nothing {} = body::parse_object(&body)?;
    }
    Ok(())
}
