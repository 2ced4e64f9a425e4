//! Replies, read where they lie.

use redis::Value;

/// A text, unless it is something else.
#[must_use]
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}
