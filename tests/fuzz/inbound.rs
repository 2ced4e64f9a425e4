//! The WebSocket parser and assembler: cut anywhere, the same bytes say the
//! same, and what is kept of them is bounded.

use std::ops::ControlFlow;

use tidegate::internal::{Event, Inbound, Violation};

use crate::mutate::Random;

/// A control frame at its largest.
const MAX_CONTROL: usize = 125 + 6;
/// What may come beyond a message's payload before it is whole: the headers
/// of 64 fragments, and a control frame between them.
const SLACK: usize = 65 * 14 + MAX_CONTROL;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Message(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message(message) => Self::Message(message.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong => Self::Pong,
            Event::Close(code) => Self::Close(code),
        }
    }
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Ready for more; whether something is unfinished.
    Open(bool),
    Closed,
    Broken(Violation),
}

/// Holds `bytes` against every promise, under a tight, a small and the usual
/// limit.
pub(crate) fn target(bytes: &[u8]) {
    // The cuts follow from the input, so that the input alone repeats a run.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut random = Random::new(hash);
    for limit in [16, 1024, 131_072] {
        let whole = run(bytes, limit, bytes.len());
        let split = run_cut(bytes, limit, &mut || 1 + random.below(bytes.len().min(40)));
        assert_eq!(whole, split, "cut into pieces, limit {limit}");
        let single = run(bytes, limit, 1);
        assert_eq!(whole, single, "byte by byte, limit {limit}");
        let length = |seen: &Seen| if let Seen::Message(message) = seen { message.len() } else { 0 };
        let longest = whole.0.iter().map(length).max().unwrap_or(0);
        assert!(longest <= limit, "a message of {longest} bytes under a limit of {limit}");
        stops_after(bytes, limit, whole.0.len());
    }
}

fn run(bytes: &[u8], limit: usize, size: usize) -> (Vec<Seen>, End) {
    run_cut(bytes, limit, &mut || size)
}

fn run_cut(bytes: &[u8], limit: usize, cut: &mut impl FnMut() -> usize) -> (Vec<Seen>, End) {
    let mut inbound = Inbound::default();
    let mut seen = Vec::new();
    let mut at = 0;
    // Bytes taken in since the last whole message, control frames aside.
    let mut kept = 0_usize;
    while at < bytes.len() {
        let end = (at + cut().max(1)).min(bytes.len());
        let mut piece = bytes[at..end].to_vec();
        kept += end - at;
        at = end;
        let fed = inbound.feed(&mut piece, limit, |event| {
            kept = if matches!(event, Event::Message(_)) { 0 } else { kept.saturating_sub(MAX_CONTROL) };
            seen.push(event.into());
            ControlFlow::Continue(())
        });
        match fed {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return (seen, End::Closed),
            Err(violation) => return (seen, End::Broken(violation)),
        }
        assert!(kept <= limit + SLACK, "{kept} bytes kept under a limit of {limit}");
    }
    (seen, End::Open(inbound.is_partial()))
}

/// A sink that breaks is heard: nothing follows.
fn stops_after(bytes: &[u8], limit: usize, events: usize) {
    if events == 0 {
        return;
    }
    let wanted = events.div_ceil(2);
    let mut inbound = Inbound::default();
    let mut count = 0;
    let fed = inbound.feed(&mut bytes.to_vec(), limit, |_| {
        count += 1;
        if count == wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((fed, count), (Ok(ControlFlow::Break(())), wanted), "the sink had enough");
}
