//! The verb *repair*: what connections here miss of a conversation is read and
//! handed to them.

use super::Ports;
use crate::store::Top;
use crate::types::ConversationId;

impl Ports {
    /// Compares the end of a log with what connections here got of it, and
    /// repairs.
    #[expect(clippy::unused_async, reason = "until positions per connection are kept")]
    pub(crate) async fn catch_up(&self, _conversation: &ConversationId, _top: &Top) {}
}
