//! What the server says, read in place: no more of an envelope than a client
//! at full speed has to know, and nothing allocated.

mod fields;

use anyhow::Result;

use self::fields::{Fields, each, take_bytes};
use crate::history::How;

/// One thing the server said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Seen<'a> {
    /// The echo of `00`.
    Heartbeat,
    /// The connection is served.
    Ready,
    /// The answer to a send, or what somebody else confirms.
    Ack(Ack<'a>),
    /// A message, alone or one of a batch, and on which way it came.
    Push(Push<'a>, How),
    /// A batch of a replay is over; its messages came as pushes.
    ReplayEnd {
        /// Of which conversation.
        conversation: &'a [u8],
        /// There is more to come.
        more: bool,
    },
    /// A page of a pull is over; its messages came as pushes.
    PageEnd {
        /// There is more behind it.
        has_more: bool,
    },
    /// A conversation is to be pulled.
    Hint {
        /// Which.
        conversation: &'a [u8],
        /// When, in milliseconds.
        delay_ms: u64,
    },
    /// Refused.
    Error {
        /// The code's number.
        code: u64,
        /// The conversation it is about.
        conversation: &'a [u8],
        /// In words.
        message: &'a [u8],
    },
    /// The connection will be ended.
    Kick {
        /// The reason's number.
        reason: u64,
    },
    /// The answer to a ping.
    Pong(&'a [u8]),
    /// The connection is better made anew.
    GoAway,
    /// An opaque payload.
    Custom {
        /// What it is about.
        topic: &'a [u8],
        /// The payload.
        payload: &'a [u8],
    },
    /// Anything else.
    Other,
}

/// An acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ack<'a> {
    /// The sender's name of the message; empty = what another user confirms.
    pub(crate) client_msg_id: &'a [u8],
    /// The store's name of it.
    pub(crate) server_msg_id: &'a [u8],
    /// Its conversation.
    pub(crate) conversation: &'a [u8],
    /// Its place.
    pub(crate) seq: i64,
    /// In which history.
    pub(crate) epoch: u64,
    /// `AckStatus` as a number.
    pub(crate) status: u64,
    /// It had been stored before.
    pub(crate) duplicate: bool,
    /// How durable.
    pub(crate) level: u64,
    /// `ErrorCode` as a number, when it is refused.
    pub(crate) error: u64,
}

impl Ack<'_> {
    /// Stored.
    pub(crate) const STORED: u64 = 2;
    /// Refused.
    pub(crate) const FAILED: u64 = 5;
    /// Errors that leave open what becomes of it: RATE_LIMITED, RETRY_LATER.
    pub(crate) const PUT_OFF: [u64; 2] = [4, 6];
}

/// A stored message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Push<'a> {
    /// Its conversation.
    pub(crate) conversation: &'a [u8],
    /// The store's name of it.
    pub(crate) server_msg_id: &'a [u8],
    /// Its place.
    pub(crate) seq: i64,
    /// In which history.
    pub(crate) epoch: u64,
    /// Its sender.
    pub(crate) from: i64,
    /// The sender's name of it.
    pub(crate) client_msg_id: &'a [u8],
    /// Its text.
    pub(crate) text: &'a [u8],
}

/// Hands over what one WebSocket message says, in order.
pub(crate) fn scan<'a>(message: &'a [u8], mut sink: impl FnMut(Seen<'a>)) -> Result<()> {
    let mut rest = message;
    while !rest.is_empty() {
        let frame = take_bytes(&mut rest)?;
        if frame.is_empty() {
            sink(Seen::Heartbeat);
            continue;
        }
        let mut fields = Fields(frame);
        while let Some((number, value)) = fields.next()? {
            if number != HEADER {
                payload(number, value.bytes(), &mut sink)?;
            }
        }
    }
    Ok(())
}

/// `Envelope.header`.
const HEADER: u64 = 1;

fn payload<'a>(kind: u64, body: &'a [u8], sink: &mut impl FnMut(Seen<'a>)) -> Result<()> {
    match kind {
        11 => sink(Seen::Ack(ack(body)?)),
        16 => sink(Seen::Ready),
        18 => sink(Seen::Push(push(body)?, How::Live)),
        19 => {
            let (mut replay, mut more, mut conversation): (bool, bool, &[u8]) = (false, false, &[]);
            each(body, |number, value| match number {
                2 => replay = value.number() != 0,
                3 => more = value.number() != 0,
                4 => conversation = value.bytes(),
                _ => {}
            })?;
            pushes(body, 1, if replay { How::Replay } else { How::Live }, sink)?;
            if replay {
                sink(Seen::ReplayEnd { conversation, more });
            }
        }
        21 => {
            pushes(body, 4, How::Pull, sink)?;
            let mut has_more = false;
            each(body, |number, value| has_more |= number == 7 && value.number() != 0)?;
            sink(Seen::PageEnd { has_more });
        }
        22 => {
            let (mut conversation, mut delay_ms): (&[u8], u64) = (&[], 0);
            each(body, |number, value| match number {
                1 => conversation = value.bytes(),
                4 => delay_ms = value.number(),
                _ => {}
            })?;
            sink(Seen::Hint { conversation, delay_ms });
        }
        23 => sink(Seen::GoAway),
        24 => {
            let mut reason = 0;
            each(body, |number, value| reason = if number == 1 { value.number() } else { reason })?;
            sink(Seen::Kick { reason });
        }
        25 => {
            let (mut code, mut message, mut conversation): (u64, &[u8], &[u8]) = (0, &[], &[]);
            each(body, |number, value| match number {
                1 => code = value.number(),
                2 => message = value.bytes(),
                6 => conversation = value.bytes(),
                _ => {}
            })?;
            sink(Seen::Error { code, conversation, message });
        }
        28 => {
            let (mut topic, mut payload): (&[u8], &[u8]) = (&[], &[]);
            each(body, |number, value| match number {
                1 => topic = value.bytes(),
                2 => payload = value.bytes(),
                _ => {}
            })?;
            sink(Seen::Custom { topic, payload });
        }
        _ => sink(Seen::Other),
    }
    Ok(())
}

/// The messages of a batch or page, which are its fields `messages`.
fn pushes<'a>(body: &'a [u8], messages: u64, how: How, sink: &mut impl FnMut(Seen<'a>)) -> Result<()> {
    let mut fields = Fields(body);
    while let Some((number, value)) = fields.next()? {
        if number == messages {
            sink(Seen::Push(push(value.bytes())?, how));
        }
    }
    Ok(())
}

fn push(body: &[u8]) -> Result<Push<'_>> {
    let mut push = Push::default();
    each(body, |number, value| match number {
        1 => push.conversation = value.bytes(),
        2 => push.server_msg_id = value.bytes(),
        3 => push.seq = value.number().cast_signed(),
        4 => push.epoch = value.number(),
        5 => push.from = value.number().cast_signed(),
        7 => push.client_msg_id = value.bytes(),
        9 => push.text = value.bytes(),
        _ => {}
    })?;
    Ok(push)
}

fn ack(body: &[u8]) -> Result<Ack<'_>> {
    let mut ack = Ack::default();
    let mut error: &[u8] = &[];
    each(body, |number, value| match number {
        1 => ack.client_msg_id = value.bytes(),
        2 => ack.server_msg_id = value.bytes(),
        3 => ack.seq = value.number().cast_signed(),
        4 => ack.status = value.number(),
        5 => ack.conversation = value.bytes(),
        7 => ack.duplicate = value.number() != 0,
        8 => error = value.bytes(),
        10 => ack.epoch = value.number(),
        11 => ack.level = value.number(),
        _ => {}
    })?;
    each(error, |number, value| {
        if number == 1 {
            ack.error = value.number();
        }
    })?;
    Ok(ack)
}

#[cfg(test)]
mod tests {
    use tidegate::internal::{Payload, encode, reply};
    use tidegate::proto::{self, AckStatus, PushBatch, SyncResp, push};

    use super::*;

    fn told(payload: Payload) -> Vec<String> {
        let frame = encode(&reply("trace", payload));
        let (_, header, _) = crate::frame::parse(&frame).unwrap().unwrap();
        let mut all = Vec::new();
        scan(&frame[header..], |seen| all.push(format!("{seen:?}"))).unwrap();
        all
    }

    fn message(seq: i64) -> proto::Push {
        proto::Push {
            conversation_id: "p2p:1:2".into(),
            server_msg_id: "s".into(),
            seq,
            epoch: 9,
            from_user_id: 1,
            client_msg_id: "c".into(),
            content: Some(push::Content::TextContent("hi".into())),
            ..proto::Push::default()
        }
    }

    fn seen(seq: i64, how: How) -> String {
        let push = Push {
            conversation: b"p2p:1:2",
            server_msg_id: b"s",
            seq,
            epoch: 9,
            from: 1,
            client_msg_id: b"c",
            text: b"hi",
        };
        format!("{:?}", Seen::Push(push, how))
    }

    #[test]
    fn messages_are_read_on_every_way() {
        assert_eq!(told(Payload::Push(message(3))), [seen(3, How::Live)]);
        let batch = PushBatch {
            messages: vec![message(1), message(2)],
            replay: true,
            conversation_id: "p2p:1:2".into(),
            ..PushBatch::default()
        };
        let end = format!("{:?}", Seen::ReplayEnd { conversation: b"p2p:1:2", more: false });
        assert_eq!(told(Payload::PushBatch(batch)), [seen(1, How::Replay), seen(2, How::Replay), end]);
        let page = SyncResp { messages: vec![message(4)], has_more: true, ..SyncResp::default() };
        let end = format!("{:?}", Seen::PageEnd { has_more: true });
        assert_eq!(told(Payload::SyncResp(page)), [seen(4, How::Pull), end]);
    }

    #[test]
    fn answers_and_refusals_are_read() {
        let error = proto::Error { code: 6, ..proto::Error::default() };
        let status = AckStatus::Failed.into();
        let ack =
            proto::Ack { client_msg_id: "c".into(), status, error: Some(error), ..proto::Ack::default() };
        let expected = Ack { client_msg_id: b"c", status: Ack::FAILED, error: 6, ..Ack::default() };
        assert_eq!(told(Payload::Ack(ack)), [format!("{:?}", Seen::Ack(expected))]);
        assert!(scan(&[5, 1], |_| {}).is_err(), "cut short");
        let mut all = Vec::new();
        scan(&[0, 0], |seen| all.push(format!("{seen:?}"))).unwrap();
        assert_eq!(all, ["Heartbeat", "Heartbeat"]);
    }
}
