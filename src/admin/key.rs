//! The API key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::AdminContext;
use super::problem::Problem;

/// Lets a call through that carries the configured key.
pub(super) async fn require(
    State(context): State<Arc<AdminContext>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(key) = &context.api_key else { return next.run(request).await };
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if given.is_some_and(|given| same(given.as_bytes(), key.expose().as_bytes())) {
        return next.run(request).await;
    }
    let mut refusal =
        Problem::new(StatusCode::UNAUTHORIZED, "this call needs `Authorization: Bearer <API key>`")
            .into_response();
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    refusal
}

/// Compares in a time that does not tell how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_same_is_the_same() {
        assert!(super::same(b"key", b"key"));
        assert!(!super::same(b"key", b"kez") && !super::same(b"key", b"keys") && !super::same(b"", b"k"));
    }
}
