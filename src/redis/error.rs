//! What can go wrong with a Redis, and whether it passes.
//!
//! | answer | means | then |
//! |---|---|---|
//! | none in time | unknown | tried again, idempotent |
//! | NOSCRIPT | the scripts are forgotten | loaded, and run again at once |
//! | OOM, MISCONF, NOREPLICAS, BUSY | nothing was done | tried again |
//! | LOADING, MASTERDOWN, READONLY, UNBLOCKED | not a primary that serves | the connection is given up |
//! | WRONGTYPE, ERR | the data are not what they should be | not tried again |

use redis::{ErrorKind, RedisResult, ServerErrorKind, Value};

/// Why a round trip gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// No connection at the moment.
    #[error("redis is not reachable")]
    Down,
    /// No answer in time: whether it was done is unknown.
    #[error("redis did not answer in time")]
    Timeout,
    /// What was written may not be as durable as it has to be.
    #[error("redis did not confirm a write at level {0}")]
    Unconfirmed(u32),
    /// It cannot be written to, and what is read may be old.
    #[error("this redis is a replica; a primary is needed")]
    Replica,
    /// Its history is another one than a moment ago.
    #[error("this redis has another history than before")]
    OtherHistory,
    /// It lacks what the gateway is made of.
    #[error("this is {0}; Redis 7.0 or Valkey 8.0, or newer, is needed")]
    TooOld(String),
    /// The connection broke or the server answered with an error.
    #[error("redis: {0}")]
    Server(#[from] redis::RedisError),
}

/// Whether an answer of the server will be the same next time: a wrong type,
/// a script that fails. A server that is full, loading, or read-only recovers.
pub(crate) fn is_permanent(error: &redis::RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType)
        || matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError))
        || matches!(error.code(), Some("WRONGTYPE" | "ERR"))
}

/// The server does not know a script.
pub(super) fn forgot_script(code: &str) -> bool {
    code == "NOSCRIPT"
}

/// The server is none to write to, or none any more.
pub(super) fn is_demoted(error: &redis::RedisError) -> bool {
    error.code().is_some_and(ends_session)
}

/// The same, by the first word of its answer.
pub(super) fn ends_session(code: &str) -> bool {
    matches!(code, "READONLY" | "LOADING" | "MASTERDOWN" | "UNBLOCKED")
}

/// The first word of an error answer.
pub(super) fn code(result: &RedisResult<Value>) -> Option<&str> {
    match result {
        Err(error) => error.code(),
        Ok(Value::ServerError(error)) => Some(error.code()),
        Ok(_) => None,
    }
}
