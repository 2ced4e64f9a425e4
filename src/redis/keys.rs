//! Every key and channel, once. User ids are integers and conversation ids
//! validated, so nobody can steer a slot or forge a key.

use crate::types::{ConversationId, GatewayId, UserId};

/// Builds keys under one prefix.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    /// Under `prefix` (validated by the configuration; may be empty).
    #[must_use]
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// STRING: the gateway of a user's newest bind.
    #[must_use]
    pub(crate) fn route(&self, user: UserId) -> String {
        [self.prefix.as_str(), "route:", itoa::Buffer::new().format(user.get())].concat()
    }

    /// HASH: a user's devices; in the slot of [`Self::route`].
    #[must_use]
    pub(crate) fn devices(&self, user: UserId) -> String {
        ["{", &self.prefix, "route:", itoa::Buffer::new().format(user.get()), "}:devices"].concat()
    }

    /// STRING: a gateway's lease.
    #[must_use]
    pub(crate) fn lease(&self, gateway: &GatewayId) -> String {
        format!("{}gateway:{gateway}", self.prefix)
    }

    /// ZSET: gateway → expiry of its lease, unix ms.
    #[must_use]
    pub(crate) fn gateways(&self) -> String {
        format!("{}gateways", self.prefix)
    }

    /// Channel a gateway subscribes to.
    #[must_use]
    pub(crate) fn channel(&self, gateway: &GatewayId) -> String {
        format!("{}{}", self.prefix, gateway.channel())
    }

    /// STRING: who holds a node number of message ids.
    #[must_use]
    pub(crate) fn node(&self, node: u16) -> String {
        format!("{}node:{node}", self.prefix)
    }

    /// A key of a conversation, all in one slot. `log`: STREAM, ids
    /// `<seq>-0`. `meta`: HASH. `members`: HASH user → `role|sinceSeq|muteUntil`.
    /// `roster`: ZSET of their ids, 19 digits, all scores 0. `gateways`: HASH
    /// gateway → epoch. `cursors`: HASH user → `delivered|read`. `blacklist`:
    /// SET. `dedup:<period>`: HASH. `creating`: STRING, while it is made.
    /// `left:<nonce>`: ZSET, the roster of a group that was deleted.
    #[must_use]
    pub(crate) fn conversation(&self, conversation: &ConversationId, part: &str) -> String {
        [self.tag(conversation).as_str(), part].concat()
    }

    /// What all of them begin with.
    #[must_use]
    pub(crate) fn tag(&self, conversation: &ConversationId) -> String {
        ["{", &self.prefix, "c:", &conversation.text(), "}:"].concat()
    }

    /// Matches the logs of all conversations.
    #[must_use]
    pub(crate) fn every_log(&self) -> String {
        format!("{{{}c:*}}:log", self.prefix)
    }

    /// Whose log this key is.
    #[must_use]
    pub(crate) fn logged(&self, key: &str) -> Option<ConversationId> {
        let rest = key.strip_prefix('{')?.strip_prefix(self.prefix.as_str())?.strip_prefix("c:")?;
        ConversationId::parse(rest.strip_suffix("}:log")?).ok()
    }

    /// STRING: the gateway that removes old messages at the moment.
    #[must_use]
    pub(crate) fn retention(&self) -> String {
        format!("{}retention", self.prefix)
    }

    /// STRING: drawn when the data came from a backup; part of the history's
    /// name.
    #[must_use]
    pub(crate) fn restored(&self) -> String {
        format!("{}restored", self.prefix)
    }

    /// STRING: written so that what was written before it can be waited for.
    #[must_use]
    pub(crate) fn confirm(&self) -> String {
        format!("{}confirm", self.prefix)
    }

    /// A key of all that is known of who came. `.events`: STREAM, the log.
    /// `.events:ids:<period>`: SET. `.ledger`: HASH, positions in the log.
    /// `.dau:<day>…`: the people and numbers of a day. `.online`: STREAM of
    /// samples, ids `<unix ms>-0`. `.turn`: STRING, who does what one gateway
    /// has to do.
    #[must_use]
    pub(crate) fn census(&self, part: &str) -> String {
        format!("{}presence{part}", self.prefix)
    }

    /// ZSET: user → last heartbeat, unix ms.
    #[must_use]
    pub(crate) fn online_users(&self) -> String {
        format!("{}presence:online_users", self.prefix)
    }

    /// What belongs to [`Self::online_users`], in its slot. `since`: HASH user
    /// → version. `left`: ZSET user → last sign of life, unix ms. `clock`:
    /// HASH. `watching`: ZSET `gateway|epoch` → until when, unix ms. `leaving`:
    /// ZSET user → goodbye, unix ms.
    #[must_use]
    pub(crate) fn presence(&self, part: &str) -> String {
        format!("{{{}presence:online_users}}:{part}", self.prefix)
    }

    /// ZSET: a user's conversations → last-known activity, unix ms.
    #[must_use]
    pub(crate) fn conversations(&self, user: UserId) -> String {
        ["{", &self.prefix, "u:", itoa::Buffer::new().format(user.get()), "}:convs"].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_stands_inside_the_tag() {
        let keys = Keys::new("app1:");
        let user = UserId::new(42).unwrap();
        assert_eq!(keys.route(user), "app1:route:42");
        assert_eq!(keys.devices(user), "{app1:route:42}:devices");
        assert_eq!(keys.online_users(), "app1:presence:online_users");
        assert_eq!(keys.presence("left"), "{app1:presence:online_users}:left");
        assert_eq!(keys.channel(&GatewayId::new("gw-1").unwrap()), "app1:10065");
        let conversation = ConversationId::parse("p2p:1:2").unwrap();
        assert_eq!(Keys::default().conversation(&conversation, "log"), "{c:p2p:1:2}:log");
        assert_eq!(keys.logged(&keys.conversation(&conversation, "log")), Some(conversation));
        assert_eq!(keys.logged("{c:p2p:1:2}:log"), None, "another prefix");
    }
}
