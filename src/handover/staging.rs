//! The state, read, proved and put in place, without anything being set off.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tracing::debug;

use super::child::Arrived;
use super::{HandoverError, presence, record, state};
use crate::bus::{Cause, Heard, Numbers};
use crate::census::CarriedPeople;
use crate::hub::{CarriedRoom, Hub, Peer};
use crate::pipeline::Ports;
use crate::route::{Binding, Routes};
use crate::session::{Connection, Context};
use crate::telemetry::{carry_counter, metrics};
use crate::types::{ConnId, ConversationId, GatewayId, monotonic_ms};
use crate::wire::pb::handover_record::Record;
use crate::wire::pb::{HandoverCounter, HandoverGateway, HandoverSeen, HandoverTop};

/// Routes put in place at a time.
const ROUTES: usize = 1_000;

/// Everything of the process before this one, ready to go on.
pub(crate) struct Staged {
    connections: Vec<Connection>,
    peers: Vec<Arc<Peer>>,
    gateway: HandoverGateway,
    counters: Vec<HandoverCounter>,
    /// Connections in the middle of an inbound message, and with unsent bytes.
    unfinished: (u64, u64),
    /// Of the state.
    pub(crate) digest: u32,
}

/// Reads what has `arrived` and puts it in place: connections into the hub,
/// rooms, routes that were in memory. Each connection takes one of `permits`.
pub(crate) async fn stage(
    arrived: Arrived,
    context: &Arc<Context>,
    permits: &Arc<Semaphore>,
) -> Result<Staged, HandoverError> {
    let ports = context.pipeline.ports();
    let begun = Instant::now();
    let Arrived { memory, summary, connections: announced, mut sockets } = arrived;
    let mut gateway = None;
    let (mut connections, mut peers) = (Vec::new(), Vec::new());
    let mut unfinished = (0, 0);
    let (mut counters, mut tops, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    let mut present = presence::Arriving::default();
    state::read(memory, &summary, |record| {
        match record {
            Record::Gateway(record) => gateway = Some(record),
            Record::Connection(record) => {
                // The gateway's own record comes first.
                let frozen_at = gateway.as_ref().map_or(0, |gateway| gateway.frozen_at_ms);
                let pause_ms = monotonic_ms().saturating_sub(frozen_at);
                let conn = ConnId(record.conn);
                unfinished.0 += u64::from(record::is_mid_frame(&record));
                unfinished.1 += u64::from(!record.outbox.is_empty());
                let stream = sockets
                    .remove(&conn)
                    .ok_or_else(|| HandoverError::State(format!("connection {conn} has no socket")))?;
                let permit = Arc::clone(permits).try_acquire_owned().map_err(|_| {
                    HandoverError::Unfit("more connections than this process may have".to_owned())
                })?;
                let held = record::to_connection(record, ports.hub.limits(), pause_ms)?;
                let peer = Arc::clone(&held.peer);
                ports.hub.register(&peer);
                peers.push(peer);
                connections.push(Connection::resume(stream, Arc::clone(context), held, permit));
            }
            Record::Room(record) => groups.push(restore_room(&ports.hub, record::to_room(&record)?)),
            Record::Counter(counter) => counters.push(counter),
            Record::Top(top) => tops.push(top),
            Record::Online(record) => present.online(&record)?,
            Record::Watched(record) => present.watched(&record)?,
            Record::Watcher(record) => present.watcher(&record)?,
            Record::Seen(HandoverSeen { day, province, city, people }) => {
                if let Some(census) = &context.census {
                    census.resume(CarriedPeople { day, province, city, people });
                }
            }
        }
        Ok(())
    })?;
    let gateway = gateway.ok_or_else(|| HandoverError::State("nothing about the gateway".to_owned()))?;
    if u64::try_from(connections.len()) != Ok(announced) {
        return Err(HandoverError::State(format!("{} connections of {announced}", connections.len())));
    }
    present.place(ports, &peers);
    let read = begun.elapsed();
    prove(ports, &tops).await?;
    let proved = begun.elapsed();
    ports.store.register(&ports.own, &groups);
    bind(ports, &peers).await?;
    context.last_conn.fetch_max(gateway.last_conn, Ordering::AcqRel);
    {
        let mut ids = ports.ids.lock();
        ids.resume_after(gateway.last_message_ms);
        if let (Ok(node), true) = (u16::try_from(gateway.node), matches!(ports.routes, Routes::Redis(_))) {
            ids.set_node(node);
        }
    }
    ports.bus.mark_passed().await;
    debug!(?read, ?proved, staged = ?begun.elapsed(), "staged");
    Ok(Staged { connections, peers, gateway, counters, unfinished, digest: summary.digest })
}

fn restore_room(hub: &Hub, (group, room): (ConversationId, CarriedRoom)) -> ConversationId {
    hub.rooms.open(&group, monotonic_ms()).resume(&room);
    group
}

/// The store is the one that the other process wrote, up to its end.
async fn prove(ports: &Ports, tops: &[HandoverTop]) -> Result<(), HandoverError> {
    let name = |top: &HandoverTop| {
        ConversationId::parse(&top.conversation_id).map_err(|e| HandoverError::State(e.to_string()))
    };
    let names = tops.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    let found = ports.store.tops(&names).await;
    let found = found.map_err(|error| HandoverError::Unfit(format!("store: {error}")))?;
    for (told, found) in tops.iter().zip(found) {
        let reached = found.is_some_and(|found| (found.epoch, found.seq) >= (told.epoch, told.seq));
        if !reached {
            let what = &told.conversation_id;
            return Err(HandoverError::State(format!("the store ends before {what} {}", told.seq)));
        }
    }
    Ok(())
}

/// Routes in Redis are still there; those in memory went with the process.
async fn bind(ports: &Ports, peers: &[Arc<Peer>]) -> Result<(), HandoverError> {
    if matches!(ports.routes, Routes::Redis(_)) {
        return Ok(());
    }
    for peers in peers.chunks(ROUTES) {
        let bindings: Vec<Binding> = peers.iter().map(|peer| crate::pipeline::binding(peer)).collect();
        let bound = ports.routes.bind(&bindings, true).await;
        bound.map_err(|error| HandoverError::Unfit(format!("routes: {error}")))?;
    }
    Ok(())
}

impl Staged {
    /// Connections in it.
    pub(crate) fn connections(&self) -> u64 {
        u64::try_from(self.connections.len()).unwrap_or(u64::MAX)
    }

    /// Whether something was to be made up for, with the routes bound anew.
    pub(crate) const fn is_disturbed(&self) -> bool {
        self.gateway.disturbed_since > 0
    }

    /// Everything goes on here. What was still to be read from the logs is
    /// read from here.
    pub(crate) async fn start(self, context: &Arc<Context>) {
        let ports = context.pipeline.ports();
        let Self { connections, peers, gateway, counters, unfinished, .. } = self;
        let moved = u64::try_from(connections.len()).unwrap_or(u64::MAX);
        // First: what a connection says is numbered behind what the other
        // process said.
        ports.bus.resume(standing(&gateway)).await;
        for connection in connections {
            tokio::spawn(connection);
        }
        ports.pulse.go_on();
        for HandoverCounter { name, labels, value } in counters {
            let labels: Vec<_> = labels.into_iter().map(|label| (label.name, label.value)).collect();
            carry_counter(name, &labels, value);
        }
        let m = metrics();
        m.handovers_done.increment(1);
        m.handover_moved.increment(moved);
        m.handover_mid_frame.increment(unfinished.0);
        m.handover_with_unsent.increment(unfinished.1);
        let pause_ms = monotonic_ms().saturating_sub(gateway.frozen_at_ms);
        m.handover_pause_seconds.record(Duration::from_millis(pause_ms));
        for hole in &gateway.holes {
            if let Ok(conversation) = ConversationId::parse(hole) {
                ports.hub.gaps.note(&conversation, monotonic_ms(), None);
            }
        }
        if gateway.disturbed_since > 0 {
            ports.bus.disturbances().hold(Cause::Resubscribed, gateway.disturbed_since);
        }
        // Their deadlines are far: nobody waits for this.
        let arrivals = context.arrivals.clone();
        tokio::spawn(async move {
            for peer in peers {
                let _ = arrivals.send(peer).await;
            }
        });
    }
}

fn standing(gateway: &HandoverGateway) -> Option<(Numbers, Vec<Heard>)> {
    let sent = gateway.bus_sent.iter();
    let sent = sent.filter_map(|sent| Some((GatewayId::new(&sent.gateway).ok()?, sent.counter))).collect();
    let heard = gateway.bus_heard.iter().filter_map(|heard| {
        let source = GatewayId::new(&heard.gateway).ok()?;
        let (epoch, counter) = (heard.epoch, heard.counter);
        Some(Heard { source, epoch, counter, whole_at: heard.whole_at })
    });
    let heard = heard.collect();
    // 0 = the other process had no bus that numbers.
    (gateway.bus_floor > 0).then_some((Numbers { floor: gateway.bus_floor, sent }, heard))
}
