//! Members of one conversation as its readers see it: in order, without a
//! hole, pulled when told.

use std::time::Instant;

use anyhow::Result;

use super::pulls::Pulls;
use crate::scan::{Push, Seen};
use crate::swarm::{Swarm, Told};

/// How far each client is.
#[derive(Debug)]
pub(super) struct Followers {
    conversation: String,
    last: Vec<i64>,
    pub(super) pulls: Pulls,
    /// Copies that were new.
    pub(super) copies: u64,
    /// Copies that were not.
    pub(super) repeated: u64,
    /// Copies with a hole before them.
    pub(super) holes: u64,
    /// Kicked or lost, and why.
    pub(super) gone: Vec<String>,
}

impl Followers {
    /// Clients 0 to `count`, in a conversation without a message.
    pub(super) fn new(conversation: &str, count: u32) -> Result<Self> {
        Ok(Self {
            conversation: conversation.to_owned(),
            last: vec![0; usize::try_from(count)?],
            pulls: Pulls::default(),
            copies: 0,
            repeated: 0,
            holes: 0,
            gone: Vec::new(),
        })
    }

    /// Whether client `index` has everything up to `seq`.
    pub(super) fn has(&self, index: u32, seq: i64) -> bool {
        usize::try_from(index).ok().and_then(|place| self.last.get(place)).is_some_and(|last| *last >= seq)
    }

    /// Takes what a client is told; whether it was a message it did not have.
    pub(super) fn told(&mut self, index: u32, at: Instant, told: &Told<'_>) -> bool {
        self.pulls.told(index, at, told);
        match told {
            Told::Said(Seen::Push(push, _)) => return self.push(index, push),
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
        let last = |client: usize| self.last.get(client).copied();
        self.pulls.send(swarm, &self.conversation, last)
    }
}
