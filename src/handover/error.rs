//! Why a handover did not come about.

/// See the module. Before the commit each of these leaves the old process
/// serving.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    /// The control socket or a file failed.
    #[error("{step}: {source}")]
    Io {
        /// Doing what.
        step: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The other process is gone.
    #[error("the other process has ended")]
    Gone,
    /// The other process will not.
    #[error("the other process refuses: {0}")]
    Refused(String),
    /// It took too long.
    #[error("not in time: {0}")]
    Deadline(&'static str),
    /// Descriptors were lost on the way: the receiver's limit is too low.
    #[error("descriptors were lost on the way; the descriptor limit is too low")]
    Truncated,
    /// Something came that makes no sense here.
    #[error("unexpected: {0}")]
    Unexpected(String),
    /// The state is not what was sent, or of an unknown kind.
    #[error("state: {0}")]
    State(String),
    /// There is not enough of something, or the program is not usable.
    #[error("{0}")]
    Unfit(String),
}

impl HandoverError {
    /// For `map_err`: what was being done when I/O failed.
    pub(crate) fn io<E: Into<std::io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Io { step, source: error.into() }
    }

    /// A metric label.
    #[must_use]
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Gone => "gone",
            Self::Refused(_) => "refused",
            Self::Deadline(_) => "deadline",
            Self::Truncated => "descriptors",
            Self::Unexpected(_) | Self::State(_) => "state",
            Self::Unfit(_) => "unfit",
        }
    }
}
