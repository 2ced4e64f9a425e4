//! Connections and rooms as records, both ways.

use std::sync::Arc;

use super::HandoverError;
use crate::hub::{
    CarriedOutbox, CarriedRoom, CarriedTimes, Class, Ending, Frame, HeldConnection, OutboxLimits, Peer,
    PeerIdentity, Room,
};
use crate::message::{CarriedPlaces, Mark, Place, Pulling, id_check};
use crate::telemetry::FrameKind;
use crate::types::{CloseReason, ConnId, ConversationId, DeviceId, UserId};
use crate::wire::pb::{
    HandoverConnection, HandoverFrame, HandoverMark, HandoverMember, HandoverPlace, HandoverPulling,
    HandoverRoom,
};

fn broken(what: impl std::fmt::Display) -> HandoverError {
    HandoverError::State(what.to_string())
}

/// A connection that holds still.
pub(super) fn of_connection(held: &HeldConnection) -> HandoverConnection {
    let peer = &held.peer;
    let times = peer.times();
    let CarriedOutbox { queue, offset, places, ending } = peer.outbox.carry();
    let CarriedPlaces { places, complete, pulling, holdings } = places;
    let (rate, tokens, tokens_at) = held.tokens;
    HandoverConnection {
        conn: peer.identity.conn.0,
        user: peer.identity.user.get(),
        device: peer.identity.device.to_string(),
        expires_at: Some(peer.identity.expires_at).filter(|&at| at < PeerIdentity::NEVER),
        bound: peer.bound(),
        since: times.since,
        last_seen: times.last_seen,
        refreshed: times.refreshed,
        stalled: times.stalled,
        partial: times.partial,
        shedding: times.shedding,
        unread: held.unread.clone().into(),
        fragments: held.fragments.0,
        fragment_data: held.fragments.1.clone().into(),
        rate,
        tokens,
        tokens_at,
        outbox: queue.iter().map(of_frame).collect(),
        offset,
        places: places.iter().map(of_place).collect(),
        places_complete: complete,
        pulling: pulling.iter().map(of_pulling).collect(),
        ending: ending.map(|ending| ending.reason.row().label.to_owned()).unwrap_or_default(),
        ending_may_reconnect: ending.is_some_and(|ending| ending.may_reconnect),
        holdings: holdings.iter().map(of_place).collect(),
    }
}

/// Whether an inbound frame or message has begun and not ended.
pub(super) fn is_mid_frame(record: &HandoverConnection) -> bool {
    !record.unread.is_empty() || record.fragments > 0
}

/// The same connection here; `pause_ms` is forgiven.
pub(super) fn to_connection(
    record: HandoverConnection,
    limits: OutboxLimits,
    pause_ms: u64,
) -> Result<HeldConnection, HandoverError> {
    let identity = PeerIdentity {
        conn: ConnId(record.conn),
        user: UserId::new(record.user).map_err(broken)?,
        device: DeviceId::new(&record.device).map_err(broken)?,
        expires_at: record.expires_at.unwrap_or(PeerIdentity::NEVER),
    };
    let times = CarriedTimes {
        since: record.since,
        last_seen: record.last_seen,
        refreshed: record.refreshed,
        stalled: record.stalled,
        partial: record.partial,
        shedding: record.shedding,
    };
    let first = record.outbox.first().map_or(0, |frame| frame.bytes.len());
    if record.offset > 0 && usize::try_from(record.offset).map_err(broken)? >= first {
        return Err(broken("more of a frame was written than there is"));
    }
    let ending = match record.ending.as_str() {
        "" => None,
        label => {
            let reason = CloseReason::ALL.into_iter().find(|reason| reason.row().label == label);
            let reason = reason.unwrap_or(CloseReason::Internal);
            Some(Ending { reason, may_reconnect: record.ending_may_reconnect })
        }
    };
    let outbox = CarriedOutbox {
        offset: record.offset,
        queue: record.outbox.into_iter().map(to_frame).collect::<Result<_, _>>()?,
        places: CarriedPlaces {
            places: record.places.iter().map(to_place).collect(),
            complete: record.places_complete,
            pulling: record.pulling.into_iter().map(to_pulling).collect::<Result<_, _>>()?,
            holdings: record.holdings.iter().map(to_place).collect(),
        },
        ending,
    };
    let peer = Peer::resume(identity, record.bound, limits, times.forgiven(pause_ms), outbox);
    Ok(HeldConnection {
        peer: Arc::new(peer),
        unread: record.unread.into(),
        fragments: (record.fragments, record.fragment_data.into()),
        tokens: (record.rate, record.tokens, record.tokens_at),
    })
}

fn of_frame(frame: &Frame) -> HandoverFrame {
    let mark = frame.mark.as_ref().map(|mark| HandoverMark {
        conversation_id: mark.conversation.text(),
        epoch: mark.epoch,
        seq: mark.seq,
        id: mark.id,
    });
    let class = match frame.class {
        Class::Control => 0,
        Class::Push => 1,
        Class::Ephemeral => 2,
    };
    HandoverFrame { bytes: frame.bytes.clone(), class, kind: frame.kind.label().to_owned(), mark }
}

fn to_frame(frame: HandoverFrame) -> Result<Frame, HandoverError> {
    let mark = frame.mark.map(|mark| {
        let conversation = ConversationId::parse(&mark.conversation_id).map_err(broken)?;
        Ok(Arc::new(Mark { conversation, epoch: mark.epoch, seq: mark.seq, id: mark.id }))
    });
    let class = match frame.class {
        1 => Class::Push,
        2 => Class::Ephemeral,
        _ => Class::Control,
    };
    Ok(Frame { bytes: frame.bytes, class, kind: FrameKind::of(&frame.kind), mark: mark.transpose()? })
}

const fn of_place(place: &Place) -> HandoverPlace {
    HandoverPlace { key: place.key, epoch: place.epoch, seq: place.seq, id: 0, id_check: place.id }
}

/// Older builds write the whole id, and take none for an unknown one.
const fn to_place(place: &HandoverPlace) -> Place {
    let id = if place.id_check == 0 { id_check(place.id) } else { place.id_check };
    Place { key: place.key, epoch: place.epoch, seq: place.seq, id }
}

fn of_pulling(pulling: &Pulling) -> HandoverPulling {
    HandoverPulling {
        conversation_id: pulling.conversation.text(),
        top: pulling.top,
        epoch: pulling.epoch,
        told: pulling.told.1,
        told_epoch: pulling.told.0,
    }
}

fn to_pulling(pulling: HandoverPulling) -> Result<Pulling, HandoverError> {
    Ok(Pulling {
        conversation: ConversationId::parse(&pulling.conversation_id).map_err(broken)?,
        top: pulling.top,
        epoch: pulling.epoch,
        told: (pulling.told_epoch, pulling.told),
    })
}

/// A group with members online here.
pub(super) fn of_room(room: &Room) -> HandoverRoom {
    let CarriedRoom { mver, latest, members } = room.carry();
    let member = |(user, since, mver): (UserId, i64, u64)| HandoverMember { user: user.get(), since, mver };
    HandoverRoom {
        conversation_id: room.conversation.text(),
        mver,
        members: members.into_iter().map(member).collect(),
        latest_epoch: latest.0,
        latest_seq: latest.1,
    }
}

/// See [`of_room`].
pub(super) fn to_room(room: &HandoverRoom) -> Result<(ConversationId, CarriedRoom), HandoverError> {
    let conversation = ConversationId::parse(&room.conversation_id).map_err(broken)?;
    let member =
        |member: &HandoverMember| Ok((UserId::new(member.user).map_err(broken)?, member.since, member.mver));
    let members = room.members.iter().map(member).collect::<Result<_, HandoverError>>()?;
    Ok((conversation, CarriedRoom { mver: room.mver, latest: (room.latest_epoch, room.latest_seq), members }))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::hub::Start;
    use crate::telemetry::HintCause;

    const LIMITS: OutboxLimits = OutboxLimits { bytes: 10_000, frames: 100 };

    fn held() -> HeldConnection {
        let identity = PeerIdentity {
            conn: ConnId(77),
            user: UserId::new(42).unwrap(),
            device: DeviceId::new("phone").unwrap(),
            expires_at: 2_000_000_000,
        };
        let peer = Peer::new(identity, 123_456, LIMITS);
        let conversation = |peer: i64| ConversationId::parse(&format!("p2p:42:{peer}")).unwrap();
        let places = vec![Place::new(&conversation(43), 7, 4, 44), Place::new(&conversation(44), 8, 9, 99)];
        let ready = Frame::control(b"ready".as_slice().into(), FrameKind::Other);
        peer.outbox.open(vec![ready], Start { places, complete: true, pulling: Vec::new() }, LIMITS);
        let mark = Mark { conversation: conversation(43), epoch: 7, seq: 5, id: 55 };
        peer.offer(&Frame::copy(b"push".as_slice().into(), Arc::new(mark)), false);
        peer.hint(&conversation(44), 8, 12, 0, HintCause::Hot);
        peer.answer(Frame::ephemeral(b"typing".as_slice().into()));
        peer.seen(5_000);
        peer.stall(6_000);
        peer.set_partial(true, true, 7_000);
        peer.shed(8_000);
        HeldConnection {
            peer: Arc::new(peer),
            unread: vec![0x82, 0x85, 1],
            fragments: (2, b"half".to_vec()),
            tokens: (200, 1_234, 9_000),
        }
    }

    #[test]
    fn a_connection_goes_there_and_back_unchanged() {
        let here = held();
        let record = of_connection(&here);
        let there = to_connection(record.clone(), LIMITS, 0).unwrap();
        assert_eq!(of_connection(&there), record);
        assert_eq!(there.peer.outbox.backlog(), here.peer.outbox.backlog());
        let frames = there.peer.outbox.take(Waker::noop()).queue;
        assert_eq!(frames.iter().map(|f| &f.bytes[..]).take(2).collect::<Vec<_>>(), [&b"ready"[..], b"push"]);
    }

    #[test]
    fn who_has_no_end_has_none_there_either() {
        let record = HandoverConnection { expires_at: None, ..of_connection(&held()) };
        let there = to_connection(record.clone(), LIMITS, 0).unwrap();
        assert_eq!(there.peer.identity.expires_at, PeerIdentity::NEVER);
        assert_eq!(of_connection(&there).expires_at, None);
    }

    #[test]
    fn a_pause_is_forgiven_where_a_deadline_would_count_it() {
        let record = of_connection(&held());
        let there = of_connection(&to_connection(record.clone(), LIMITS, 500).unwrap());
        assert_eq!((there.last_seen, there.stalled, there.partial), (5_500, 6_500, 7_500));
        assert_eq!((there.shedding, there.since), (record.shedding, record.since));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let record = of_connection(&held());
        assert_eq!(
            to_connection(HandoverConnection { offset: 3, ..record.clone() }, LIMITS, 0)
                .unwrap()
                .peer
                .outbox
                .carry()
                .offset,
            3
        );
        let beyond = HandoverConnection { offset: 5, ..record.clone() };
        assert!(to_connection(beyond, LIMITS, 0).is_err());
        assert!(to_connection(HandoverConnection { user: 0, ..record.clone() }, LIMITS, 0).is_err());
        assert!(to_connection(HandoverConnection { device: "{}".into(), ..record }, LIMITS, 0).is_err());
    }
}
