//! What members say that they have, and what goes between gateways and to
//! Redis for it.

use std::time::Duration;

use anyhow::Result;
use tidegate::internal::Payload;
use tidegate::proto::{Ack, AckStatus, Receipt};

use super::crowd::Crowd;
use crate::frame::envelope;
use crate::ground::Side;
use crate::numbers::float;
use crate::round::Round;
use crate::scenario::{Stage, lost};
use crate::swarm::Swarm;

/// What members confirm is written behind, and told once a second.
const SETTLE: Duration = Duration::from_secs(4);

/// Counts of all gateways.
pub(super) struct Counts {
    /// Messages published to other gateways.
    bus: f64,
    /// Commands sent to Redis.
    redis: f64,
}

impl Counts {
    /// Now; `None` of a side that counts nothing.
    pub(super) fn now(side: &Side) -> Option<Self> {
        let sum =
            |series: &str| side.admins.iter().map(|admin| admin.metric(series).ok()).sum::<Option<f64>>();
        (!side.admins.is_empty()).then_some(())?;
        Some(Self {
            bus: sum("tidegate_bus_messages_total{direction=\"out\"}")?,
            redis: sum("tidegate_redis_commands_total")?,
        })
    }

    /// Adds what was counted since `earlier`, per `thing`.
    pub(super) fn add_since(&self, earlier: &Self, thing: &str, things: u32, round: &mut Round) {
        round.add(&format!("busMessagesPer{thing}"), (self.bus - earlier.bus) / f64::from(things.max(1)));
        round.add(
            &format!("redisCommandsPer{thing}"),
            (self.redis - earlier.redis) / f64::from(things.max(1)),
        );
    }
}

/// Everybody says what he has: the first `readers` that they have read it.
pub(super) fn confirm(
    stage: &mut Stage<'_>,
    swarm: &mut Swarm,
    crowd: &Crowd,
    readers: u32,
    round: &mut Round,
) -> Result<()> {
    let counts = Counts::now(stage.side);
    let before = stage.side.processes.sample();
    let mut confirmed = 0;
    for (index, (_, seq)) in (0_u32..).zip(&crowd.last).skip(1) {
        let conversation_id = crowd.group.clone();
        let payload = if index <= readers {
            Payload::Read(Receipt { conversation_id, read_seq: *seq, ..Receipt::default() })
        } else {
            let status = AckStatus::Delivered.into();
            Payload::Ack(Ack { conversation_id, seq: *seq, status, ..Ack::default() })
        };
        swarm.send(index, &envelope(payload))?;
        confirmed += 1;
    }
    lost(round, "while they confirmed", &stage.pass(swarm, SETTLE)?);
    let cost = stage.side.processes.sample().since(&before);
    round.add("cpuUsPerConfirmation", cost.cpu.as_secs_f64() * 1e6 / float(u64::from(confirmed.max(1))));
    if let Some((before, after)) = counts.zip(Counts::now(stage.side)) {
        after.add_since(&before, "Confirmation", confirmed, round);
    }
    Ok(())
}
