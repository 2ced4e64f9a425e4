//! The end of what was said in a busy group, for those who come to pull it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::message::Mark;

/// Most messages kept.
const MESSAGES: usize = 512;
/// Most bytes kept.
const BYTES: usize = 1 << 20;

/// Messages of one epoch, by seq, each an encoded `Envelope`.
#[derive(Debug, Default)]
pub(super) struct Tail {
    messages: BTreeMap<i64, (Arc<Mark>, Bytes)>,
    bytes: usize,
}

impl Tail {
    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Keeps one more; the oldest give way.
    pub(super) fn keep(&mut self, mark: &Arc<Mark>, envelope: &Bytes) {
        let epoch = self.messages.values().next().map_or(mark.epoch, |(first, _)| first.epoch);
        if epoch > mark.epoch {
            return;
        }
        if epoch < mark.epoch {
            *self = Self::default();
        }
        // Those of two gateways may come in another order than they have.
        if self.messages.insert(mark.seq, (Arc::clone(mark), envelope.clone())).is_none() {
            self.bytes += envelope.len();
        }
        while self.messages.len() > MESSAGES || self.bytes > BYTES {
            let Some((_, (_, bytes))) = self.messages.pop_first() else { break };
            self.bytes -= bytes.len();
        }
    }

    /// The messages from `from` on, if it reaches back so far and has no hole
    /// there; `None` where the log must be read.
    pub(super) fn from(&self, from: i64) -> Option<Vec<(Arc<Mark>, Bytes)>> {
        let (first, last) = (*self.messages.keys().next()?, *self.messages.keys().next_back()?);
        if from < first || from > last {
            return None;
        }
        let kept: Vec<_> = self.messages.range(from..).map(|(_, kept)| kept.clone()).collect();
        (i64::try_from(kept.len()) == Ok(last - from + 1)).then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ConversationId;

    fn keep(tail: &mut Tail, epoch: u64, seq: i64) {
        let conversation = ConversationId::parse("g:a").unwrap();
        tail.keep(&Arc::new(Mark { conversation, epoch, seq, id: seq }), &Bytes::from_static(b"x"));
    }

    fn seqs(tail: &Tail, from: i64) -> Option<Vec<i64>> {
        tail.from(from).map(|tail| tail.iter().map(|(mark, _)| mark.seq).collect())
    }

    #[test]
    fn it_is_whole_or_not_used() {
        let mut tail = Tail::default();
        assert_eq!(seqs(&tail, 1), None);
        (5..=9).for_each(|seq| keep(&mut tail, 7, seq));
        assert_eq!(seqs(&tail, 4), None, "it does not reach back so far");
        assert_eq!(seqs(&tail, 8), Some(vec![8, 9]));
        assert_eq!(seqs(&tail, 10), None, "nothing is there");
        keep(&mut tail, 7, 11);
        assert_eq!(seqs(&tail, 8), None, "10 is missing");
        assert_eq!(seqs(&tail, 11), Some(vec![11]));
        keep(&mut tail, 7, 10);
        assert_eq!(seqs(&tail, 8), Some(vec![8, 9, 10, 11]), "it came late");
        (12..2_000).for_each(|seq| keep(&mut tail, 7, seq));
        assert_eq!(seqs(&tail, 1_400), None, "bounded");
    }

    #[test]
    fn another_history_starts_it_anew() {
        let mut tail = Tail::default();
        (1..=3).for_each(|seq| keep(&mut tail, 7, seq));
        keep(&mut tail, 8, 3);
        keep(&mut tail, 7, 4);
        assert_eq!((seqs(&tail, 2), seqs(&tail, 3)), (None, Some(vec![3])));
    }
}
