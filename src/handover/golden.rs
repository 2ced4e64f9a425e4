//! States as other builds wrote them, kept as files: what one of them wrote is
//! read for as long as its format is, whichever is older.
//!
//! A file is never written anew; another format gets files of its own.

use std::fs;
use std::path::PathBuf;

use prost::Message;

use super::state::{FORMAT, Summary, Writer, read_from};
use crate::hub::OutboxLimits;
use crate::message::id_check;
use crate::wire::pb::handover_record::Record;
use crate::wire::pb::{
    HandoverBusNumber, HandoverBusSource, HandoverConnection, HandoverCounter, HandoverFact, HandoverFrame,
    HandoverGateway, HandoverHeard, HandoverMark, HandoverMember, HandoverOnline, HandoverPlace,
    HandoverPulling, HandoverRecord, HandoverRoom, HandoverSeen, HandoverTop, HandoverWatched,
    HandoverWatcher,
};

/// As this build's format 1 has it.
const OF_FORMAT_1: &str = "format-1.state";
/// The same from a build that knows more: fields and records on top.
const OF_A_NEWER_BUILD: &str = "format-1-newer.state";
/// What came to format 1 with presence; whoever does not know it skips it.
const PRESENCE: &str = "format-1-presence.state";
/// The same from a build that knows more.
const PRESENCE_OF_A_NEWER_BUILD: &str = "format-1-presence-newer.state";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/handover/golden").join(name)
}

/// Every field of every record, with a value of its own.
fn records() -> Vec<Record> {
    let mark = HandoverMark { conversation_id: "p2p:42:43".into(), epoch: 7, seq: 5, id: -6 };
    let place = |seq| HandoverPlace { key: u64::MAX - 1, epoch: 7, seq, id: -9, id_check: 0 };
    vec![
        Record::Gateway(HandoverGateway {
            last_conn: 77,
            last_message_ms: 1_795_263_022_449,
            node: 1_023,
            frozen_at_ms: 123_456,
            frozen_at: 1_795_263_022_450,
            bus_floor: 99,
            bus_sent: vec![HandoverBusNumber { gateway: "gw-2".into(), counter: 101 }],
            bus_heard: vec![HandoverBusSource { gateway: "gw-2".into(), epoch: 3, counter: 4, whole_at: 5 }],
            holes: vec!["g:team".into()],
            disturbed_since: 6,
        }),
        Record::Connection(HandoverConnection {
            conn: 12,
            user: 42,
            device: "phone".into(),
            expires_at: Some(2_000_000_000),
            bound: 1_795_263_022_449_504,
            since: 1,
            last_seen: 2,
            refreshed: 3,
            stalled: 4,
            partial: 5,
            shedding: 6,
            unread: vec![0x02, 0x85, 1, 2].into(),
            fragments: 1,
            fragment_data: b"half".as_slice().into(),
            rate: 200,
            tokens: 399_000,
            tokens_at: 7,
            outbox: vec![
                HandoverFrame {
                    bytes: b"\x82\x01a".as_slice().into(),
                    class: 0,
                    kind: "ack".into(),
                    mark: None,
                },
                HandoverFrame {
                    bytes: b"\x82\x01b".as_slice().into(),
                    class: 1,
                    kind: "push".into(),
                    mark: Some(mark),
                },
            ],
            offset: 2,
            places: vec![place(5)],
            places_complete: true,
            pulling: vec![HandoverPulling {
                conversation_id: "g:team".into(),
                top: 9,
                epoch: 8,
                told: 7,
                told_epoch: 8,
            }],
            ending: "kicked".into(),
            ending_may_reconnect: true,
            holdings: vec![place(6)],
        }),
        Record::Room(HandoverRoom {
            conversation_id: "g:team".into(),
            mver: 3,
            members: vec![HandoverMember { user: 42, since: 1, mver: 2 }],
            latest_epoch: 8,
            latest_seq: 9,
        }),
        Record::Counter(HandoverCounter {
            name: "tidegate_frames_total".into(),
            labels: vec![HandoverFact { name: "kind".into(), value: "ack".into() }],
            value: 11,
        }),
        Record::Top(HandoverTop {
            conversation_id: "p2p:42:43".into(),
            epoch: 7,
            seq: 5,
            server_msg_id: "249771101284990976".into(),
        }),
    ]
}

/// The same of presence.
fn presence() -> Vec<Record> {
    let heard = |user, version| HandoverHeard { user, at: 1_795_263_022_451, version };
    vec![
        Record::Online(HandoverOnline {
            heard: vec![heard(42, 1_795_263_022_449_504), heard(i64::MAX, 8)],
            left: vec![heard(43, 0)],
            version: 1_795_263_022_449_505,
            stepped: 1_795_263_022_452,
            held: 1_795_263_022_453,
        }),
        Record::Watched(HandoverWatched {
            user: 42,
            online: true,
            since: 1_795_263_022_454,
            version: 9,
            devices: vec!["phone".into(), "tablet".into()],
        }),
        Record::Watcher(HandoverWatcher { conn: 12, users: vec![42, 43] }),
        Record::Seen(HandoverSeen {
            day: "2026-11-21".into(),
            province: "Guangdong".into(),
            city: "深圳".into(),
            people: vec![42, u64::MAX - 2],
        }),
    ]
}

/// Which files have a record of each kind: one that is new gets files of its
/// own.
const fn file_with(record: &Record) -> &'static str {
    match record {
        Record::Gateway(_)
        | Record::Connection(_)
        | Record::Room(_)
        | Record::Counter(_)
        | Record::Top(_) => OF_FORMAT_1,
        Record::Online(_) | Record::Watched(_) | Record::Watcher(_) | Record::Seen(_) => PRESENCE,
    }
}

/// The summary is kept in front of the state.
fn file(written: (Vec<u8>, Summary)) -> Vec<u8> {
    let (bytes, Summary { records, bytes: length, digest }) = written;
    [&records.to_le_bytes()[..], &length.to_le_bytes(), &digest.to_le_bytes(), &bytes].concat()
}

fn read_file(name: &str) -> Vec<Record> {
    let bytes = fs::read(path(name)).unwrap();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let digest = u32::from_le_bytes(bytes[16..20].try_into().unwrap());
    let summary = Summary { records: number(0), bytes: number(8), digest };
    let mut records = Vec::new();
    read_from(&bytes[20..], &summary, &mut |record| {
        records.push(record);
        Ok(())
    })
    .unwrap();
    records
}

fn of_this_build() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), 1).unwrap();
    records().into_iter().for_each(|record| writer.record(record).unwrap());
    file(writer.finish().unwrap())
}

fn presence_of_this_build() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), 1).unwrap();
    presence().into_iter().for_each(|record| writer.skippable(record).unwrap());
    file(writer.finish().unwrap())
}

/// A message with a field that this build does not know, 1000, a varint.
fn with_more(mut message: Vec<u8>) -> Vec<u8> {
    prost::encoding::uint64::encode(1_000, &4_711, &mut message);
    message
}

fn of_a_newer_build() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), 1).unwrap();
    // A record of a kind that is not known here, and may be skipped.
    let mut unknown = HandoverRecord { record: None, skippable: true }.encode_to_vec();
    prost::encoding::bytes::encode(9, &b"what is this".to_vec(), &mut unknown);
    writer.bytes(&unknown).unwrap();
    for record in records() {
        let encoded = match record {
            Record::Connection(connection) => {
                let mut encoded = Vec::new();
                prost::encoding::bytes::encode(2, &with_more(connection.encode_to_vec()), &mut encoded);
                encoded
            }
            record => HandoverRecord { record: Some(record), skippable: false }.encode_to_vec(),
        };
        writer.bytes(&with_more(encoded)).unwrap();
    }
    file(writer.finish().unwrap())
}

fn presence_of_a_newer_build() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), 1).unwrap();
    for record in presence() {
        let (tag, message) = match record {
            Record::Online(record) => (6, record.encode_to_vec()),
            Record::Watched(record) => (7, record.encode_to_vec()),
            Record::Watcher(record) => (8, record.encode_to_vec()),
            Record::Seen(record) => (10, record.encode_to_vec()),
            other => panic!("{other:?}"),
        };
        let mut encoded = HandoverRecord { record: None, skippable: true }.encode_to_vec();
        prost::encoding::bytes::encode(tag, &with_more(message), &mut encoded);
        writer.bytes(&with_more(encoded)).unwrap();
    }
    file(writer.finish().unwrap())
}

#[test]
fn every_kind_of_record_is_in_a_file() {
    assert!(records().iter().all(|record| file_with(record) == OF_FORMAT_1));
    assert!(presence().iter().all(|record| file_with(record) == PRESENCE));
}

#[test]
fn what_an_older_build_wrote_is_read() {
    assert_eq!(read_file(OF_FORMAT_1), records());
    assert_eq!(read_file(PRESENCE), presence());
}

#[test]
fn what_a_newer_build_writes_in_this_format_is_read() {
    assert_eq!(read_file(OF_A_NEWER_BUILD), records());
    assert_eq!(read_file(PRESENCE_OF_A_NEWER_BUILD), presence());
}

#[test]
fn an_older_build_reads_what_this_one_writes() {
    // Byte by byte what the older one wrote itself.
    assert_eq!(FORMAT, 1, "another format: files of its own, and this one still written for older builds");
    assert_eq!(of_this_build(), fs::read(path(OF_FORMAT_1)).unwrap());
    assert_eq!(presence_of_this_build(), fs::read(path(PRESENCE)).unwrap());
}

#[test]
fn the_connection_of_the_file_goes_on_as_it_was() {
    let limits = OutboxLimits { bytes: 10_000, frames: 100 };
    for record in read_file(OF_FORMAT_1) {
        let Record::Connection(mut record) = record else { continue };
        let held = super::record::to_connection(record.clone(), limits, 0).unwrap();
        for place in record.places.iter_mut().chain(&mut record.holdings) {
            // A place keeps less of an id than this file's builds did.
            (place.id, place.id_check) = (0, id_check(place.id));
        }
        assert_eq!(super::record::of_connection(&held), record);
        return;
    }
    panic!("no connection");
}

#[test]
#[ignore = "writes the files that are not there yet, once"]
fn write_the_files() {
    let files = [
        (OF_FORMAT_1, of_this_build()),
        (OF_A_NEWER_BUILD, of_a_newer_build()),
        (PRESENCE, presence_of_this_build()),
        (PRESENCE_OF_A_NEWER_BUILD, presence_of_a_newer_build()),
    ];
    for (name, bytes) in files.into_iter().filter(|(name, _)| !path(name).exists()) {
        fs::write(path(name), bytes).unwrap();
    }
}
