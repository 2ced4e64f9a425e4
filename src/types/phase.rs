//! The life phases of the process.

/// Where the process is in its life; held in one `watch`, changed by
/// `gateway` only, shown in `/readyz`, `/v1/status` and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Binding, or waiting for the lease and the channel subscription.
    Starting,
    /// Accepting sockets.
    Running,
    /// No longer accepting; sockets are being asked to leave.
    Draining,
    /// The lease was taken by another gateway of the same id.
    Superseded,
}

impl Phase {
    /// The word used in JSON and the log.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Superseded => "superseded",
        }
    }
}
