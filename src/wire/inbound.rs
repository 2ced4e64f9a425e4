//! The receiving side of one connection: bytes cut anywhere in, whole
//! WebSocket messages out.

use std::ops::ControlFlow;

use super::websocket::{Header, OpCode, Violation, parse_close, parse_header, unmask};

/// Most fragments of one message.
const MAX_FRAGMENTS: u32 = 64;

/// What came in whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A binary message.
    Message(&'a [u8]),
    /// To be answered with the same payload.
    Ping(&'a [u8]),
    /// An answer to a ping of ours, or unsolicited: a sign of life.
    Pong,
    /// The peer ends; echo this code.
    Close(Option<u16>),
}

#[derive(Debug)]
struct Fragments {
    data: Vec<u8>,
    count: u32,
}

/// Holds what is unfinished, and nothing when nothing is: an idle connection
/// costs no buffer.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Raw bytes of an unfinished frame, still masked.
    tail: Vec<u8>,
    /// Payload of an unfinished fragmented message.
    fragments: Option<Box<Fragments>>,
}

impl Inbound {
    /// Whether a frame or a fragmented message has begun and not ended.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.tail.is_empty() || self.fragments.is_some()
    }

    /// What is unfinished: the raw bytes, and of a fragmented message how many
    /// fragments there are and what they hold.
    #[must_use]
    pub(crate) fn unfinished(&self) -> (&[u8], u32, &[u8]) {
        let fragments = self.fragments.as_deref();
        (&self.tail, fragments.map_or(0, |f| f.count), fragments.map_or(&[], |f| &f.data))
    }

    /// Goes on with what was [unfinished](Self::unfinished) elsewhere.
    #[must_use]
    pub(crate) fn resume(tail: Vec<u8>, count: u32, data: Vec<u8>) -> Self {
        let fragments = (count > 0).then(|| Box::new(Fragments { data, count }));
        Self { tail, fragments }
    }

    /// Takes bytes off the wire and yields every message they complete, in
    /// order. `input` is scratch space: it is unmasked in place. A sink that
    /// breaks ends the connection, so the rest of the bytes is dropped; so
    /// does a violation.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        max_message: usize,
        mut sink: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        if self.tail.is_empty() {
            let (flow, used) = self.consume(input, max_message, &mut sink)?;
            if flow.is_continue() {
                self.tail.extend_from_slice(input.get(used..).unwrap_or_default());
            }
            return Ok(flow);
        }
        let mut tail = std::mem::take(&mut self.tail);
        tail.extend_from_slice(input);
        let (flow, used) = self.consume(&mut tail, max_message, &mut sink)?;
        if flow.is_continue() && used < tail.len() {
            tail.drain(..used);
            self.tail = tail;
        }
        Ok(flow)
    }

    /// Parses whole frames; returns how many bytes they took.
    fn consume(
        &mut self,
        input: &mut [u8],
        max_message: usize,
        sink: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<(ControlFlow<()>, usize), Violation> {
        let mut used = 0;
        while let Some(rest) = input.get_mut(used..) {
            let Some(header) = parse_header(rest)? else { break };
            let length = self.admit(&header, max_message)?;
            let end = header.size + length;
            let Some(payload) = rest.get_mut(header.size..end) else { break };
            unmask(payload, header.mask);
            used += end;
            if self.accept(&header, payload, sink)?.is_break() {
                return Ok((ControlFlow::Break(()), used));
            }
        }
        Ok((ControlFlow::Continue(()), used))
    }

    /// Judges a frame by its header, before any of its payload is kept.
    fn admit(&self, header: &Header, max_message: usize) -> Result<usize, Violation> {
        let open = self.fragments.as_deref();
        match (header.opcode, open) {
            (OpCode::Text, _) => return Err(Violation::Text),
            (OpCode::Continuation, None) => return Err(Violation::Framing("continuation of nothing")),
            (OpCode::Binary, Some(_)) => {
                return Err(Violation::Framing("new message inside a fragmented one"));
            }
            _ => {}
        }
        let length = usize::try_from(header.length).map_err(|_| Violation::TooLarge)?;
        if !header.opcode.is_control() {
            let before = open.map_or(0, |fragments| fragments.data.len());
            if length > max_message.saturating_sub(before) {
                return Err(Violation::TooLarge);
            }
        }
        Ok(length)
    }

    fn accept(
        &mut self,
        header: &Header,
        payload: &[u8],
        sink: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        match header.opcode {
            OpCode::Ping => return Ok(sink(Event::Ping(payload))),
            OpCode::Pong => return Ok(sink(Event::Pong)),
            OpCode::Close => {
                let code = parse_close(payload)?;
                // Whatever follows a Close is ignored.
                let _ = sink(Event::Close(code));
                return Ok(ControlFlow::Break(()));
            }
            OpCode::Binary if header.fin => return Ok(sink(Event::Message(payload))),
            OpCode::Binary | OpCode::Continuation | OpCode::Text => {}
        }
        let fragments =
            self.fragments.get_or_insert_with(|| Box::new(Fragments { data: Vec::new(), count: 0 }));
        fragments.count += 1;
        if fragments.count > MAX_FRAGMENTS {
            return Err(Violation::Fragments);
        }
        fragments.data.extend_from_slice(payload);
        if header.fin {
            let whole = self.fragments.take();
            return Ok(sink(Event::Message(whole.as_deref().map_or(&[][..], |f| &f.data))));
        }
        Ok(ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 70_000;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Owned {
        Message(Vec<u8>),
        Ping(Vec<u8>),
        Pong,
        Close(Option<u16>),
    }

    fn run(bytes: &[u8], cuts: &[usize]) -> (Vec<Owned>, Option<Violation>, bool) {
        let mut inbound = Inbound::default();
        let mut seen = Vec::new();
        let mut at = 0;
        let mut ends: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        for end in ends {
            let mut piece = bytes[at..end].to_vec();
            at = end;
            let fed = inbound.feed(&mut piece, MAX, |event| {
                seen.push(match event {
                    Event::Message(m) => Owned::Message(m.to_vec()),
                    Event::Ping(p) => Owned::Ping(p.to_vec()),
                    Event::Pong => Owned::Pong,
                    Event::Close(c) => Owned::Close(c),
                });
                ControlFlow::Continue(())
            });
            match fed {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return (seen, None, false),
                Err(violation) => return (seen, Some(violation), false),
            }
        }
        (seen, None, inbound.is_partial())
    }

    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            n @ 0..=125 => out.push(0x80 | u8::try_from(n).unwrap()),
            n @ 126..=65_535 => {
                out.push(0xfe);
                out.extend(u16::try_from(n).unwrap().to_be_bytes());
            }
            n => {
                out.push(0xff);
                out.extend(u64::try_from(n).unwrap().to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        out.extend(mask);
        let mut body = payload.to_vec();
        unmask(&mut body, mask);
        out.extend(body);
        out
    }

    fn valid_frames() -> impl Strategy<Value = Vec<u8>> {
        let payload = proptest::collection::vec(any::<u8>(), 0..300);
        let unit = prop_oneof![
            payload.clone().prop_map(|p| client_frame(0x82, &p)),
            proptest::collection::vec(any::<u8>(), 0..126).prop_map(|p| client_frame(0x89, &p)),
            (payload.clone(), payload).prop_map(|(a, b)| {
                [client_frame(0x02, &a), client_frame(0x8a, b""), client_frame(0x80, &b)].concat()
            }),
        ];
        proptest::collection::vec(unit, 1..8).prop_map(|units| units.concat())
    }

    proptest! {
        #[test]
        fn any_split_of_valid_bytes_gives_the_same(bytes in valid_frames(), cuts in proptest::collection::vec(any::<usize>(), 0..20)) {
            let whole = run(&bytes, &[]);
            prop_assert_eq!(whole.1, None);
            prop_assert!(!whole.2, "nothing is left over");
            prop_assert_eq!(whole, run(&bytes, &cuts));
        }

        #[test]
        fn any_split_of_any_bytes_gives_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..200), cuts in proptest::collection::vec(any::<usize>(), 0..20)) {
            prop_assert_eq!(run(&bytes, &[]), run(&bytes, &cuts));
        }
    }

    #[test]
    fn what_is_unfinished_goes_on_elsewhere() {
        let half = client_frame(0x02, b"ab");
        let rest = client_frame(0x80, b"cd");
        for cut in 0..half.len() + rest.len() {
            let bytes = [half.clone(), rest.clone()].concat();
            let mut inbound = Inbound::default();
            let mut seen = Vec::new();
            let (first, second) = bytes.split_at(cut);
            let _ = inbound.feed(&mut first.to_vec(), MAX, |_| ControlFlow::Continue(())).unwrap();
            let (tail, count, data) = inbound.unfinished();
            let mut moved = Inbound::resume(tail.to_vec(), count, data.to_vec());
            assert_eq!(moved.is_partial(), cut > 0, "{cut}");
            let fed = moved.feed(&mut second.to_vec(), MAX, |event| {
                seen.extend(if let Event::Message(message) = event { Some(message.to_vec()) } else { None });
                ControlFlow::Continue(())
            });
            assert!(fed.is_ok());
            assert_eq!(seen, [b"abcd"], "{cut}");
        }
    }

    #[test]
    fn too_large_is_refused_on_the_header() {
        let mut header = vec![0x82, 0xff];
        header.extend(70_001_u64.to_be_bytes());
        assert_eq!(run(&header, &[]).1, Some(Violation::TooLarge));
    }

    #[test]
    fn fragments_are_bounded_in_sum_and_count() {
        let half = vec![0; 40_000];
        let bytes = [client_frame(0x02, &half), client_frame(0x80, &half)].concat();
        assert_eq!(run(&bytes, &[]).1, Some(Violation::TooLarge));
        let mut tiny = client_frame(0x02, b"");
        for _ in 0..64 {
            tiny.extend(client_frame(0x00, b""));
        }
        assert_eq!(run(&tiny, &[]).1, Some(Violation::Fragments));
    }

    #[test]
    fn order_of_frames_is_enforced() {
        let framing = |bytes: Vec<u8>| matches!(run(&bytes, &[]).1, Some(Violation::Framing(_)));
        assert!(framing(client_frame(0x80, b"x")));
        assert!(framing([client_frame(0x02, b"x"), client_frame(0x82, b"y")].concat()));
        assert_eq!(run(&client_frame(0x81, b"x"), &[]).1, Some(Violation::Text));
    }

    #[test]
    fn what_follows_a_close_is_ignored() {
        let bytes = [client_frame(0x88, &[3, 0xe8]), client_frame(0x82, b"x")].concat();
        assert_eq!(run(&bytes, &[]), (vec![Owned::Close(Some(1000))], None, false));
    }
}
