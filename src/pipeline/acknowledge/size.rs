//! How large groups are, as far as it decides who is told what. Pure.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::ConversationId;

/// Most groups remembered.
const MOST: usize = 20_000;
/// A size is looked up again after this time: a large group may have shrunk.
/// One that grew is seen with the next position written there.
const VALID: Duration = Duration::from_secs(600);

/// Whom positions in a conversation concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everybody in it.
    All,
    /// Only the one whose they are.
    Own,
    /// Not known: the next position written there tells.
    Unknown,
}

/// The sizes of the groups heard of lately.
#[derive(Debug)]
pub(super) struct Sizes {
    /// Members up to which everybody is told.
    limit: u64,
    known: HashMap<ConversationId, (u64, Instant)>,
}

impl Sizes {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, known: HashMap::new() }
    }

    pub(super) fn reach(&self, conversation: &ConversationId, now: Instant) -> Reach {
        if matches!(conversation, ConversationId::P2p(..)) {
            return Reach::All;
        }
        match self.known.get(conversation) {
            Some((_, at)) if now.saturating_duration_since(*at) >= VALID => Reach::Unknown,
            Some((members, _)) if *members > self.limit => Reach::Own,
            Some(_) => Reach::All,
            None => Reach::Unknown,
        }
    }

    pub(super) fn learn(&mut self, group: &ConversationId, members: u64, now: Instant) {
        if self.known.len() >= MOST && !self.known.contains_key(group) {
            // Learning all of them anew costs a write each.
            self.known.clear();
        }
        self.known.insert(group.clone(), (members, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_decides_until_it_is_old() {
        let (mut sizes, now) = (Sizes::new(200), Instant::now());
        let id = |text| ConversationId::parse(text).unwrap();
        assert_eq!(sizes.reach(&id("p2p:1:2"), now), Reach::All);
        assert_eq!(sizes.reach(&id("g:a"), now), Reach::Unknown);
        for (members, reach) in [(200, Reach::All), (201, Reach::Own), (3, Reach::All)] {
            sizes.learn(&id("g:a"), members, now);
            assert_eq!(sizes.reach(&id("g:a"), now), reach);
        }
        assert_eq!(sizes.reach(&id("g:a"), now + VALID), Reach::Unknown);
    }

    #[test]
    fn however_many_groups_there_are_memory_is_bounded() {
        let (mut sizes, now) = (Sizes::new(200), Instant::now());
        for n in 0..MOST + 5 {
            sizes.learn(&ConversationId::parse(&format!("g:{n}")).unwrap(), 1, now);
            assert!(sizes.known.len() <= MOST);
        }
    }
}
