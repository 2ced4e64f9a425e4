//! What groups are to be told, gathered so that each is told once a second.
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::group::News;
use crate::store::Audience;
use crate::types::{ConversationId, UserId};

/// Shortest time between two tellings of one group.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Which of a user's two positions; in the order they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Position {
    Delivered,
    Read,
}

#[derive(Debug, Default)]
struct Group {
    audience: Arc<Audience>,
    /// The latest only: positions are cumulative.
    news: BTreeMap<(UserId, Position), News>,
    told_at: Option<Instant>,
}

impl Group {
    fn has_rested(&self, now: Instant) -> bool {
        self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY)
    }
}

/// One group's turn.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) group: ConversationId,
    pub(super) audience: Arc<Audience>,
    pub(super) news: Vec<News>,
}

/// Groups with news, and those told within the last second.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    groups: BTreeMap<ConversationId, Group>,
}

impl Gathering {
    /// `user` has reached another position.
    pub(super) fn add(
        &mut self,
        group: &ConversationId,
        audience: &Arc<Audience>,
        (user, position): (UserId, Position),
        news: News,
    ) {
        let group = self.groups.entry(group.clone()).or_default();
        if audience.mver >= group.audience.mver {
            group.audience = Arc::clone(audience);
        }
        group.news.insert((user, position), news);
    }

    /// What is to be told now: at once where nothing was told lately.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Telling> {
        let mut tellings = Vec::new();
        self.groups.retain(|conversation, group| {
            if !group.has_rested(now) {
                return true;
            }
            if group.news.is_empty() {
                return false;
            }
            group.told_at = Some(now);
            tellings.push(Telling {
                group: conversation.clone(),
                audience: Arc::clone(&group.audience),
                news: std::mem::take(&mut group.news).into_values().collect(),
            });
            true
        });
        tellings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{OutboxLimits, Peer, PeerIdentity};
    use crate::telemetry::FrameKind;
    use crate::types::{ConnId, DeviceId};
    use crate::wire::pb::Receipt;
    use crate::wire::{Payload, reply};

    fn news(user: i64, read_seq: i64) -> News {
        let identity = PeerIdentity {
            conn: ConnId(1),
            user: UserId::new(user).unwrap(),
            device: DeviceId::new("d").unwrap(),
            expires_at: PeerIdentity::NEVER,
        };
        let from = Arc::new(Peer::new(identity, 1, OutboxLimits { bytes: 1, frames: 1 }));
        let envelope = reply("", Payload::Read(Receipt { read_seq, ..Receipt::default() }));
        News { envelope, kind: FrameKind::Receipt, from }
    }

    #[test]
    fn a_group_is_told_at_once_and_then_once_a_second() {
        let (mut gathering, start) = (Gathering::default(), Instant::now());
        let group = ConversationId::parse("g:a").unwrap();
        let audience = |mver| Arc::new(Audience { mver, members: 3, gateways: Vec::new() });
        let add = |gathering: &mut Gathering, user, position, seq, mver| {
            let key = (UserId::new(user).unwrap(), position);
            gathering.add(&group, &audience(mver), key, news(user, seq));
        };
        add(&mut gathering, 1, Position::Read, 1, 5);
        assert_eq!(gathering.take(start).len(), 1, "the first at once");
        for (user, position, seq) in
            [(2, Position::Read, 1), (1, Position::Delivered, 2), (2, Position::Read, 3)]
        {
            add(&mut gathering, user, position, seq, 4);
        }
        assert!(gathering.take(start + TELL_EVERY / 2).is_empty());
        let mut tellings = gathering.take(start + TELL_EVERY);
        let telling = tellings.pop().expect("its turn");
        assert!(tellings.is_empty());
        assert_eq!(telling.audience.mver, 5, "the newest set of members");
        let seqs: Vec<i64> = telling
            .news
            .iter()
            .map(|news| match &news.envelope.payload {
                Some(Payload::Read(receipt)) => receipt.read_seq,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seqs, [2, 3], "the latest of each");
        assert!(gathering.take(start + TELL_EVERY * 2).is_empty());
        assert!(gathering.groups.is_empty(), "nothing is kept of a quiet group");
    }
}
