//! What the old process writes down.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::parent::Estate;
use super::state::{Batch, Summary, Writer};
use super::{HandoverError, presence, record};
use crate::census::CarriedPeople;
use crate::hub::HeldConnection;
use crate::types::{ConnId, UserId};
use crate::wire::pb::handover_record::Record;
use crate::wire::pb::{
    HandoverBusNumber, HandoverBusSource, HandoverCounter, HandoverFact, HandoverGateway, HandoverSeen,
    HandoverTop,
};

/// Users whose conversations are looked at to prove the store.
const PROOFS: usize = 32;

impl Estate {
    /// What is no connection's own.
    pub(super) async fn write_common(
        &self,
        writer: &mut Writer<BufWriter<File>>,
        (frozen_at_ms, frozen_at): (u64, i64),
        held: &HashMap<ConnId, HeldConnection>,
    ) -> Result<(), HandoverError> {
        let ports = self.ports();
        let (numbers, heard) = ports.bus.standing().await.unwrap_or_default();
        let source = |heard: crate::bus::Heard| HandoverBusSource {
            gateway: heard.source.to_string(),
            epoch: heard.epoch,
            counter: heard.counter,
            whole_at: heard.whole_at,
        };
        let sent = numbers.sent.into_iter();
        let (last_message_ms, node) = {
            let ids = ports.ids.lock();
            (ids.last_ms(), ids.node())
        };
        let gateway = HandoverGateway {
            last_conn: self.context.last_conn.load(Ordering::Acquire),
            last_message_ms,
            node: u32::from(node),
            frozen_at_ms,
            frozen_at,
            bus_floor: numbers.floor,
            bus_sent: sent
                .map(|(gateway, counter)| HandoverBusNumber { gateway: gateway.to_string(), counter })
                .collect(),
            bus_heard: heard.into_iter().map(source).collect(),
            holes: ports.hub.gaps.all().iter().map(ToString::to_string).collect(),
            disturbed_since: ports.bus.disturbances().open_since().unwrap_or(0),
        };
        let mut write = |record| writer.record(record).map_err(HandoverError::io("state"));
        write(Record::Gateway(gateway))?;
        for (name, labels, value) in self.recorder.counters() {
            let label = |(name, value)| HandoverFact { name, value };
            let labels = labels.into_iter().map(label).collect();
            write(Record::Counter(HandoverCounter { name, labels, value }))?;
        }
        for room in ports.hub.rooms.all() {
            write(Record::Room(record::of_room(&room)))?;
        }
        for top in self.tops(held).await? {
            write(Record::Top(top))?;
        }
        for record in presence::records(ports) {
            writer.skippable(record).map_err(HandoverError::io("state"))?;
        }
        let people = self.context.census.as_ref().map(|census| census.carry()).unwrap_or_default();
        for CarriedPeople { day, province, city, people } in people {
            let seen = HandoverSeen { day, province, city, people };
            writer.skippable(Record::Seen(seen)).map_err(HandoverError::io("state"))?;
        }
        Ok(())
    }

    /// Where some conversations end: the new process has to find the same.
    async fn tops(&self, held: &HashMap<ConnId, HeldConnection>) -> Result<Vec<HandoverTop>, HandoverError> {
        let store = &self.ports().store;
        let users: Vec<UserId> = held.values().take(PROOFS).map(|held| held.peer.identity.user).collect();
        let indexes = store.index(&users, 0, 0, 1).await.map_err(|error| unfit("store", &error))?;
        let conversations: Vec<_> = indexes.into_iter().flatten().collect();
        let tops = store.tops(&conversations).await.map_err(|error| unfit("store", &error))?;
        let top = |(conversation, top): (crate::types::ConversationId, Option<crate::store::Top>)| {
            let top = top?;
            Some(HandoverTop {
                conversation_id: conversation.text(),
                epoch: top.epoch,
                seq: top.seq,
                server_msg_id: top.server_msg_id,
            })
        };
        Ok(conversations.into_iter().zip(tops).filter_map(top).collect())
    }
}

/// The state, and what it was written of.
pub(super) struct Written {
    pub(super) held: HashMap<ConnId, HeldConnection>,
    pub(super) memory: OwnedFd,
    pub(super) summary: Summary,
    pub(super) mid_frame: u64,
    pub(super) with_unsent: u64,
}

/// Writes all of them, half of them on a thread of its own, and seals the
/// state.
pub(super) fn write_connections(
    writer: Writer<BufWriter<File>>,
    held: HashMap<ConnId, HeldConnection>,
) -> std::io::Result<Written> {
    let writer = Mutex::new(writer);
    let all: Vec<_> = held.values().collect();
    let (here, there) = all.split_at(all.len() / 2);
    let (here, there) = std::thread::scope(|scope| {
        let other = std::thread::Builder::new().name("handover".to_owned());
        let other = other.spawn_scoped(scope, || write_some(&writer, there))?;
        let here = write_some(&writer, here)?;
        let there = other.join().map_err(|_| std::io::Error::other("half of it was not written"))??;
        Ok::<_, std::io::Error>((here, there))
    })?;
    let (memory, summary) = writer.into_inner().seal()?;
    Ok(Written { held, memory, summary, mid_frame: here.0 + there.0, with_unsent: here.1 + there.1 })
}

/// How many of them are in the middle of a message, and have unsent bytes.
fn write_some(
    writer: &Mutex<Writer<BufWriter<File>>>,
    held: &[&HeldConnection],
) -> std::io::Result<(u64, u64)> {
    let (mut mid_frame, mut with_unsent) = (0, 0);
    let mut batch = Batch::default();
    for held in held {
        let record = record::of_connection(held);
        mid_frame += u64::from(record::is_mid_frame(&record));
        with_unsent += u64::from(!record.outbox.is_empty());
        batch.record(Record::Connection(record))?;
        if batch.is_full() {
            writer.lock().append(&mut batch)?;
        }
    }
    writer.lock().append(&mut batch)?;
    Ok((mid_frame, with_unsent))
}

pub(super) fn unfit(what: &str, error: &dyn std::error::Error) -> HandoverError {
    HandoverError::Unfit(format!("{what}: {error}"))
}
