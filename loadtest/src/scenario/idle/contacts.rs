//! Conversations of the clients, made before anything is measured: client i
//! has written to the clients behind it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::frame::{envelope, text};
use crate::scan::{Ack, Seen};
use crate::scenario::Stage;
use crate::swarm::{Swarm, Told};

/// Clients that write at once.
const SLICE: u32 = 500;
/// How long a slice may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Gives each of `clients` clients `each` conversations.
pub(super) fn make(stage: &mut Stage<'_>, clients: u32, each: u32) -> Result<()> {
    let reach = each.div_ceil(2);
    if u64::from(reach) * 2 >= u64::from(clients) {
        bail!("{clients} clients are too few for {each} conversations each");
    }
    let mut swarm = Swarm::new()?;
    stage.open(&mut swarm, clients)?;
    stage.begin("conversations");
    for first in (0..clients).step_by(usize::try_from(SLICE)?) {
        let slice = first..clients.min(first + SLICE);
        let mut open = u64::from(reach) * u64::try_from(slice.len())?;
        for index in slice {
            let frames: Vec<u8> =
                (1..=reach).flat_map(|step| message(stage, index, (index + step) % clients)).collect();
            swarm.send(index, &frames)?;
        }
        let (end, mut refused) = (Instant::now() + PATIENCE, None);
        while open > 0 {
            swarm.turn(end, |_, _, told| {
                if let Told::Said(Seen::Ack(ack)) = told
                    && !ack.client_msg_id.is_empty()
                {
                    open = open.saturating_sub(1);
                    stage.progress.count(1);
                    if ack.status != Ack::STORED {
                        refused = Some(ack.error);
                    }
                }
            })?;
            stage.progress.tick(Instant::now());
            if let Some(code) = refused {
                bail!("a first message was refused with error {code}");
            }
            if Instant::now() > end || swarm.open() == 0 {
                bail!("{open} first messages were not answered");
            }
        }
    }
    swarm.clear();
    stage.side.admin()?.settle(0, PATIENCE).map(drop)
}

fn message(stage: &Stage<'_>, from: u32, to: u32) -> Vec<u8> {
    let (one, other) = (stage.user(from.min(to)), stage.user(from.max(to)));
    let conversation = format!("p2p:{one}:{other}");
    envelope(text(&conversation, &format!("{}-{from}-{to}", stage.nonce), "hello"))
}
