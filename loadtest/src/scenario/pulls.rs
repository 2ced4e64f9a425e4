//! What members of one conversation were told to pull, and when.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tidegate::internal::Payload;
use tidegate::proto::SyncReq;

use crate::frame::envelope;
use crate::scan::Seen;
use crate::swarm::{Swarm, Told};

/// Messages asked for at once.
const PAGE: u32 = 500;

/// Clients that are to pull.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    due: Vec<(Instant, u32)>,
    /// Clients told to pull, so often.
    pub(super) hints: u64,
}

impl Pulls {
    /// Takes what client `index` is told of it.
    pub(super) fn told(&mut self, index: u32, at: Instant, told: &Told<'_>) {
        match told {
            Told::Said(Seen::Hint { delay_ms, .. }) => {
                self.hints += 1;
                self.due.push((at + Duration::from_millis(*delay_ms), index));
            }
            Told::Said(Seen::PageEnd { has_more: true }) => self.due.push((at, index)),
            Told::Said(_) | Told::Gone(_) => {}
        }
    }

    /// Asks for what was announced and is due, behind the `last` seq of each
    /// client.
    pub(super) fn send(
        &mut self,
        swarm: &mut Swarm,
        conversation: &str,
        last: impl Fn(usize) -> Option<i64>,
    ) -> Result<()> {
        let now = Instant::now();
        for (at, index) in std::mem::take(&mut self.due) {
            if at > now {
                self.due.push((at, index));
                continue;
            }
            let last = last(usize::try_from(index)?).context("a client")?;
            let request = SyncReq {
                conversation_id: conversation.to_owned(),
                from_seq: last + 1,
                limit: PAGE,
                ..SyncReq::default()
            };
            swarm.send(index, &envelope(Payload::Sync(request)))?;
        }
        Ok(())
    }
}
