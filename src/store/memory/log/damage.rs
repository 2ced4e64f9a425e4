//! What can happen to a log that no caller asked for.

use super::Log;
use crate::types::unix_micros;
use crate::wire::pb::Push;

impl Log {
    /// A replica that lags behind takes over: the last messages are gone, and
    /// the next append raises the epoch. Returns how many there were.
    pub(in super::super) fn lose_tail(&mut self, most: usize) -> usize {
        let lost = most.min(self.messages.len());
        self.messages.truncate(self.messages.len() - lost);
        self.last_id = self.messages.back().map(|last| last.server_msg_id.clone()).unwrap_or_default();
        let top = self.seq();
        self.originals.retain(|_, original| original.seq <= top);
        for member in self.members.values_mut() {
            member.since_seq = member.since_seq.min(top);
        }
        self.replaced = true;
        lost
    }

    pub(super) fn raise_if_replaced(&mut self) {
        if std::mem::take(&mut self.replaced) {
            self.raise();
        }
    }

    /// Another history begins, with all that is here.
    pub(in super::super) fn raise(&mut self) {
        let now = u64::try_from(unix_micros()).unwrap_or(0);
        self.epoch = now.max(self.epoch + 1);
    }

    /// What is here is no longer known by its sender's name for it.
    pub(in super::super) fn forget_originals(&mut self) {
        self.originals.clear();
    }

    /// Everything that is here.
    pub(in super::super) fn all(&self) -> Vec<Push> {
        self.messages.iter().cloned().collect()
    }
}
