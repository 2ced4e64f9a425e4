//! One conversation in memory.

#[cfg(test)]
mod damage;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::{
    Append, Appended, Audience, Description, History, Keep, Member, Page, Refused, Span, Top, complete,
};
use crate::types::{ConversationId, Epoch, GatewayId, GatewayRef, UserId, unix_micros, unix_ms};
use crate::wire::pb::{Direction, Push};

/// An id is remembered for at least this long.
const DEDUP_MS: i64 = 7 * 24 * 3600 * 1000;

#[derive(Debug)]
struct Original {
    seq: i64,
    content_hash: u64,
    server_msg_id: String,
    server_time: i64,
}

/// A conversation: its messages, and who is in it.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) epoch: u64,
    created_at: i64,
    /// Trimmed messages: the first one here has the seq after them.
    trimmed: i64,
    messages: std::collections::VecDeque<Push>,
    last_id: String,
    authors: BTreeSet<UserId>,
    originals: HashMap<(UserId, String), Original>,
    pub(super) cursors: HashMap<UserId, (i64, i64)>,
    /// Of a group; by user id, as they are told.
    pub(super) members: BTreeMap<UserId, Member>,
    pub(super) mver: u64,
    pub(super) history: History,
    pub(super) blacklist: BTreeSet<UserId>,
    pub(super) gateways: HashMap<GatewayId, Epoch>,
    /// The next append finds another server here.
    #[cfg(test)]
    replaced: bool,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            epoch: u64::try_from(unix_micros()).unwrap_or(1),
            created_at: unix_ms(),
            trimmed: 0,
            messages: std::collections::VecDeque::new(),
            last_id: String::new(),
            authors: BTreeSet::new(),
            originals: HashMap::new(),
            cursors: HashMap::new(),
            members: BTreeMap::new(),
            mver: 0,
            history: History::default(),
            blacklist: BTreeSet::new(),
            gateways: HashMap::new(),
            #[cfg(test)]
            replaced: false,
        }
    }

    pub(super) fn seq(&self) -> i64 {
        self.trimmed.saturating_add(i64::try_from(self.messages.len()).unwrap_or(i64::MAX))
    }

    pub(super) fn top(&self) -> Top {
        Top { epoch: self.epoch, seq: self.seq(), server_msg_id: self.last_id.clone() }
    }

    fn first_available(&self) -> i64 {
        if self.seq() == 0 { 0 } else { self.trimmed + 1 }
    }

    fn at(&self, seq: i64) -> Option<&Push> {
        let place = seq.checked_sub(self.trimmed)?.checked_sub(1)?;
        self.messages.get(usize::try_from(place).ok()?)
    }

    /// Appends, unless it is there already or the sender may not.
    pub(super) fn append(&mut self, append: &Append, is_group: bool) -> Appended {
        #[cfg(test)]
        self.raise_if_replaced();
        let key = (append.from, append.client_msg_id.clone());
        let original = self.originals.get(&key);
        if let Some(original) = original.filter(|original| original.content_hash == append.content_hash) {
            // Also where the sender may no longer: it is in the log.
            return Appended::Duplicate {
                seq: original.seq,
                epoch: self.epoch,
                server_msg_id: original.server_msg_id.clone(),
                server_time: original.server_time,
            };
        }
        if append.from != UserId::SYSTEM {
            if self.blacklist.contains(&append.from) {
                return Appended::Refused(Refused::Blocked);
            }
            match self.members.get(&append.from) {
                None if is_group => return Appended::Refused(Refused::NotFound),
                Some(member) if member.mute_until > unix_ms() => {
                    return Appended::Refused(Refused::Muted(member.mute_until));
                }
                _ => {}
            }
        }
        if original.is_some() {
            return Appended::Conflict;
        }
        let seq = self.seq() + 1;
        self.messages.push_back(complete(append.push.clone(), seq, self.epoch));
        self.last_id.clone_from(&append.server_msg_id);
        self.authors.insert(append.from);
        let original = Original {
            seq,
            content_hash: append.content_hash,
            server_msg_id: append.server_msg_id.clone(),
            server_time: append.server_time,
        };
        self.originals.insert(key, original);
        Appended::Stored { seq, epoch: self.epoch }
    }

    /// Whether both have written, and neither keeps the other out.
    pub(super) fn is_mutual(&self, id: &ConversationId) -> bool {
        let ConversationId::P2p(lo, hi) = id else { return false };
        self.blacklist.is_empty() && self.authors.contains(lo) && self.authors.contains(hi)
    }

    pub(super) fn page(&self, span: Span) -> Page {
        let top = self.seq();
        let first = self.trimmed + 1;
        let seqs: Box<dyn Iterator<Item = i64>> = match span.direction {
            Direction::Forward => Box::new(span.from.max(first)..=top),
            Direction::Backward if span.from <= 0 => Box::new((first..=top).rev()),
            Direction::Backward => Box::new((first..=span.from.min(top)).rev()),
        };
        // One more than asked for tells whether there is more.
        let found: Vec<&Push> =
            seqs.take(span.limit.saturating_add(1)).filter_map(|seq| self.at(seq)).collect();
        let keep = span.fitting(found.iter().map(|message| prost::Message::encoded_len(*message)));
        let has_more = found.len() > keep;
        let told = |message: &Push| complete(message.clone(), message.seq, self.epoch);
        let messages = found.into_iter().take(keep).map(told).collect();
        Page { epoch: self.epoch, messages, top, first_available: self.first_available(), has_more }
    }

    pub(super) fn audience(&self) -> Audience {
        let mut gateways: Vec<_> =
            self.gateways.iter().map(|(id, epoch)| GatewayRef { id: id.clone(), epoch: *epoch }).collect();
        gateways.sort_by(|a, b| a.id.cmp(&b.id));
        Audience { mver: self.mver, members: u64::try_from(self.members.len()).unwrap_or(u64::MAX), gateways }
    }

    pub(super) fn describe(&self, is_group: bool) -> Description {
        let members = if is_group { u64::try_from(self.members.len()).unwrap_or(u64::MAX) } else { 2 };
        Description {
            epoch: self.epoch,
            top: self.seq(),
            first_available: self.first_available(),
            mver: self.mver,
            members,
            created_at: self.created_at,
            history: self.history,
        }
    }

    /// Removes what is past its time; returns how many messages.
    pub(super) fn trim(&mut self, now: i64, keep: Keep) -> u64 {
        self.originals.retain(|_, original| now.saturating_sub(original.server_time) <= DEDUP_MS);
        let mut removed = 0;
        while let Some(first) = self.messages.front() {
            let old = keep.age_ms.is_some_and(|age| now.saturating_sub(first.server_time) > age);
            let many =
                keep.count.is_some_and(|count| i64::try_from(self.messages.len()).unwrap_or(0) > count);
            if !old && !many {
                break;
            }
            self.messages.pop_front();
            self.trimmed += 1;
            removed += 1;
        }
        removed
    }
}
