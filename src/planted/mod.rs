//! Bugs planted on purpose, to see that the tests for lost messages find
//! them. Only in builds with the feature `planted-bugs`, which is off and in no
//! release; there, `TIDEGATE_PLANTED_BUG` names the one that is active.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use parking_lot::Mutex;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Messages are delivered before they are in the log.
    PublishBeforeAppend,
    /// A late unbind erases whatever route is there.
    PlainUnbind,
    /// Acks claim a disk that was not waited for.
    AckBeforeDurable,
    /// Positions are believed without proof.
    ResumeWithoutEpoch,
}

static ACTIVE: LazyLock<Option<Bug>> =
    LazyLock::new(|| match std::env::var("TIDEGATE_PLANTED_BUG").ok()?.as_str() {
        "publish_before_append" => Some(Bug::PublishBeforeAppend),
        "plain_unbind" => Some(Bug::PlainUnbind),
        "ack_before_durable" => Some(Bug::AckBeforeDurable),
        "resume_without_epoch" => Some(Bug::ResumeWithoutEpoch),
        _ => None,
    });

/// Whether this one is active.
pub(crate) fn has(bug: Bug) -> bool {
    *ACTIVE == Some(bug)
}

/// Where conversations end, as far as this process has seen: epoch, seq.
static TOPS: LazyLock<Mutex<BTreeMap<String, (u64, i64)>>> = LazyLock::new(Mutex::default);

/// A message was stored.
pub(crate) fn stored(conversation: &str, epoch: u64, seq: i64) {
    TOPS.lock().insert(conversation.to_owned(), (epoch, seq));
}

/// Where the conversation ends, perhaps.
pub(crate) fn top(conversation: &str) -> Option<(u64, i64)> {
    TOPS.lock().get(conversation).copied()
}
