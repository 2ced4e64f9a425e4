//! Members of one conversation as its readers see it: in order, without a
//! hole, pulled when told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tidegate::internal::Payload;
use tidegate::proto::SyncReq;

use crate::frame::envelope;
use crate::scan::{Push, Seen};
use crate::swarm::{Swarm, Told};

/// Messages asked for at once.
const PAGE: u32 = 500;

/// How far each client is.
#[derive(Debug)]
pub(super) struct Followers {
    conversation: String,
    last: Vec<i64>,
    pulls: Vec<(Instant, u32)>,
    /// Copies that were new.
    pub(super) copies: u64,
    /// Copies that were not.
    pub(super) repeated: u64,
    /// Copies with a hole before them.
    pub(super) holes: u64,
    /// Clients told to pull, so often.
    pub(super) hints: u64,
    /// Kicked or lost, and why.
    pub(super) gone: Vec<String>,
}

impl Followers {
    /// Clients 0 to `count`, in a conversation without a message.
    pub(super) fn new(conversation: &str, count: u32) -> Result<Self> {
        Ok(Self {
            conversation: conversation.to_owned(),
            last: vec![0; usize::try_from(count)?],
            pulls: Vec::new(),
            copies: 0,
            repeated: 0,
            holes: 0,
            hints: 0,
            gone: Vec::new(),
        })
    }

    /// Whether client `index` has everything up to `seq`.
    pub(super) fn has(&self, index: u32, seq: i64) -> bool {
        usize::try_from(index).ok().and_then(|place| self.last.get(place)).is_some_and(|last| *last >= seq)
    }

    /// Takes what a client is told; whether it was a message it did not have.
    pub(super) fn told(&mut self, index: u32, at: Instant, told: &Told<'_>) -> bool {
        match told {
            Told::Said(Seen::Push(push, _)) => return self.push(index, push),
            Told::Said(Seen::Hint { delay_ms, .. }) => {
                self.hints += 1;
                self.pulls.push((at + Duration::from_millis(*delay_ms), index));
            }
            Told::Said(Seen::PageEnd { has_more: true }) => self.pulls.push((at, index)),
            Told::Said(Seen::Kick { reason }) => self.gone.push(format!("kicked: reason {reason}")),
            Told::Gone(why) => self.gone.push(format!("{why:#}")),
            Told::Said(_) => {}
        }
        false
    }

    fn push(&mut self, index: u32, push: &Push<'_>) -> bool {
        if push.conversation != self.conversation.as_bytes() {
            return false;
        }
        let Some(last) = usize::try_from(index).ok().and_then(|place| self.last.get_mut(place)) else {
            return false;
        };
        if push.seq <= *last {
            self.repeated += 1;
            return false;
        }
        self.holes += u64::from(push.seq != *last + 1);
        *last = push.seq;
        self.copies += 1;
        true
    }

    /// Asks for what was announced and is due.
    pub(super) fn pull(&mut self, swarm: &mut Swarm) -> Result<()> {
        let now = Instant::now();
        for (at, index) in std::mem::take(&mut self.pulls) {
            if at > now {
                self.pulls.push((at, index));
                continue;
            }
            let last = self.last.get(usize::try_from(index)?).context("a client")?;
            let request = SyncReq {
                conversation_id: self.conversation.clone(),
                from_seq: last + 1,
                limit: PAGE,
                ..SyncReq::default()
            };
            swarm.send(index, &envelope(Payload::Sync(request)))?;
        }
        Ok(())
    }
}
