//! Errors as RFC 9457 problem details.

use axum::Json;
use axum::body::Bytes;
use axum::extract::Query;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::route::RouteError;
use crate::store::StoreError;
use crate::types::{ConversationId, UserId};

/// A refused call.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    retry_after_s: Option<u32>,
    /// A further member, for programs.
    extra: Option<(&'static str, serde_json::Value)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let retry_after_s = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { status, detail: detail.into(), retry_after_s, extra: None }
    }

    /// The same with a further member.
    pub(super) fn with(self, name: &'static str, value: serde_json::Value) -> Self {
        Self { extra: Some((name, value)), ..self }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let (Some((name, value)), Some(body)) = (self.extra, body.as_object_mut()) {
            body.insert(name.to_owned(), value);
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<RouteError> for Problem {
    fn from(error: RouteError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            StoreError::Broken(why) => {
                tracing::error!(why, "admin call failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the store is broken; the log says how")
            }
        }
    }
}

/// A body as it arrived, or why it did not.
pub(super) type Body = Result<Bytes, BytesRejection>;

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// Reads a JSON object; what is wrong is named with its place.
pub(super) fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    parse_borrowed(&body?)
}

/// The same, of what the body itself holds.
pub(super) fn parse_borrowed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    // A sequence would do for a struct, field by field.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid("body: a JSON object is needed"));
    }
    serde_json::from_slice(body).map_err(|error| Problem::invalid(format!("body: {error}")))
}

/// The same where a call without a body asks for nothing special.
pub(super) fn parse_or_default<T: Default + DeserializeOwned>(body: Body) -> Result<T, Problem> {
    match body {
        Ok(bytes) if bytes.trim_ascii().is_empty() => Ok(T::default()),
        body => parse(body),
    }
}

/// Reads a user id of a path.
pub(super) fn parse_user(text: &str) -> Result<UserId, Problem> {
    UserId::parse(text).map_err(|error| Problem::invalid(format!("user: {error}")))
}

/// A query as it arrived, or what is wrong with it.
pub(super) type Asked<T> = Result<Query<T>, QueryRejection>;

/// Takes a query.
pub(super) fn asked<T>(query: Asked<T>) -> Result<T, Problem> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(QueryRejection::FailedToDeserializeQueryString(why)) => {
            Err(Problem::invalid(format!("query: {}", why.body_text())))
        }
        Err(other) => Err(Problem::new(other.status(), other.body_text())),
    }
}

/// Reads a conversation id of a path or a field.
pub(super) fn parse_conversation(field: &str, text: &str) -> Result<ConversationId, Problem> {
    ConversationId::parse(text).map_err(|error| Problem::invalid(format!("{field}: {error}")))
}

/// Reads the id of a group.
pub(super) fn parse_group(field: &str, text: &str) -> Result<ConversationId, Problem> {
    match parse_conversation(field, text)? {
        group @ ConversationId::Group(_) => Ok(group),
        ConversationId::P2p(..) => Err(Problem::invalid(format!(
            "{field}: must be a group, g:<name>; a p2p conversation has its two members"
        ))),
    }
}

/// The answer for what is not there.
pub(super) fn not_found(what: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("{what} not found"))
}

/// A page's size: `default` where none is asked for, else 1 to `most`.
pub(super) fn page_size(limit: Option<usize>, default: usize, most: usize) -> Result<usize, Problem> {
    match limit.unwrap_or(default) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(Problem::invalid(format!("limit must be 1-{most}"))),
    }
}
