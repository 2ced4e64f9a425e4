//! The one task that turns the timer wheel.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::hub::{Ending, Peer};
use crate::pipeline::Pipeline;
use crate::session::{Context, Look, Pace, look_at};
use crate::telemetry::Recorder;
use crate::timer::Wheel;
use crate::types::{monotonic_ms, unix_ms};

const WIDTH_MS: u64 = 250;
/// Longer than any time between two looks, so that no entry goes round twice.
const SLOTS: usize = 256;
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Looks at every connection when its time has come, until arrivals end.
pub(super) async fn turn(
    context: Arc<Context>,
    mut arrivals: mpsc::Receiver<Arc<Peer>>,
    pace: Pace,
    recorder: Recorder,
) {
    let mut wheel = Wheel::new(SLOTS, WIDTH_MS, monotonic_ms());
    let mut tick = interval(Duration::from_millis(WIDTH_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut upkeep = interval(UPKEEP_EVERY);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut new = Vec::new();
    let mut due = Vec::new();
    loop {
        // All arms are cancel-safe.
        tokio::select! {
            arrived = arrivals.recv_many(&mut new, 1024) => {
                if arrived == 0 {
                    return;
                }
                for peer in new.drain(..) {
                    // Spread from the start: a wave of connects is no wave of refreshes.
                    wheel.insert(monotonic_ms() + fastrand::u64(0..5_000), peer);
                }
            }
            _ = upkeep.tick() => recorder.upkeep(),
            _ = tick.tick() => {
                wheel.advance(monotonic_ms(), &mut due);
                if context.freeze.is_holding() {
                    // Nobody can show that he lives.
                    due.drain(..).for_each(|peer| wheel.insert(monotonic_ms() + WIDTH_MS, peer));
                }
                for peer in due.drain(..) {
                    look(&context.pipeline, &mut wheel, peer, pace);
                }
            }
        }
    }
}

fn look(pipeline: &Pipeline, wheel: &mut Wheel<Arc<Peer>>, peer: Arc<Peer>, pace: Pace) {
    if peer.outbox.is_closed() {
        return;
    }
    let now_ms = monotonic_ms();
    match look_at(&peer, now_ms, unix_ms() / 1000, pace) {
        Look::End(reason) => {
            peer.outbox.end(Ending::of(reason));
        }
        Look::Alive { next_ms, refresh } => {
            if refresh {
                pipeline.refresh(&peer);
            }
            let pulse_ms = u64::try_from(pace.pulse.as_millis()).unwrap_or(u64::MAX);
            // Heard since the last look, or just before it.
            if now_ms.saturating_sub(peer.last_seen()) <= pulse_ms + 2 * WIDTH_MS {
                pipeline.pulse(&peer);
            }
            wheel.insert(next_ms.min(now_ms + pulse_ms), peer);
        }
    }
}
