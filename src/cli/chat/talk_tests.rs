use super::*;
use crate::types::{ConversationId, UserId};
use crate::wire::pb::{
    ConversationChange, ConversationEvent, Direction, Position, PushBatch, SyncReq, SyncResp, Typing, push,
};

const C: &str = "p2p:1:2";

fn talk() -> Talk {
    talk_in(C)
}

fn talk_in(conversation: &str) -> Talk {
    let conversation = ConversationId::parse(conversation).unwrap();
    Talk::new(Parties { me: UserId::new(1).unwrap(), conversation })
}

fn ready(positions: Vec<Position>) -> Ready {
    Ready { gateway_id: "gw-1".into(), user_id: 1, conversations: positions, ..Ready::default() }
}

fn position(seq: i64, read_seq: i64) -> Position {
    Position { conversation_id: C.into(), epoch: 9, seq, read_seq, ..Position::default() }
}

fn message(from: i64, seq: i64) -> Push {
    Push {
        conversation_id: C.into(),
        server_msg_id: format!("m{seq}"),
        seq,
        from_user_id: from,
        content: Some(push::Content::TextContent(format!("t{seq}"))),
        ..Push::default()
    }
}

fn peer(seq: i64, fresh: bool) -> Line {
    Line::Peer { from: 2, text: format!("t{seq}"), at_ms: 0, fresh }
}

fn delivered(seq: i64) -> Payload {
    let status = AckStatus::Delivered.into();
    Payload::Ack(Ack { status, conversation_id: C.into(), seq, ..Ack::default() })
}

fn read(seq: i64) -> Payload {
    Payload::Read(Receipt { conversation_id: C.into(), read_seq: seq, ..Receipt::default() })
}

fn sync_of(out: &[Payload]) -> SyncReq {
    let found = out
        .iter()
        .find_map(|payload| if let Payload::Sync(sync) = payload { Some(sync.clone()) } else { None });
    found.expect("a SyncReq")
}

fn page(request: &SyncReq, messages: Vec<Push>, has_more: bool) -> Payload {
    Payload::SyncResp(SyncResp {
        request_id: request.request_id.clone(),
        conversation_id: C.into(),
        messages,
        has_more,
        ..SyncResp::default()
    })
}

fn sent_ids(out: &[Payload]) -> Vec<String> {
    out.iter()
        .filter_map(|p| if let Payload::Send(send) = p { Some(send.client_msg_id.clone()) } else { None })
        .collect()
}

#[test]
fn a_push_is_shown_once_and_acknowledged() {
    let (mut talk, now) = (talk(), Instant::now());
    talk.connected(&ready(vec![]), now);
    talk.on(Payload::Push(message(2, 1)), now);
    talk.on(
        Payload::PushBatch(PushBatch {
            messages: vec![message(2, 1), message(2, 2)],
            ..PushBatch::default()
        }),
        now,
    );
    assert_eq!(talk.take_lines(), [peer(1, true), peer(2, true)]);
    assert_eq!(talk.take_out(), [delivered(1), read(1), delivered(2), read(2)]);
    let mut other = message(2, 3);
    other.conversation_id = "p2p:2:3".into();
    talk.on(Payload::Push(other), now);
    assert_eq!((talk.take_lines(), talk.take_out()), (vec![], vec![]));
}

#[test]
fn history_comes_before_live_messages() {
    let (mut talk, now) = (talk(), Instant::now());
    talk.connected(&ready(vec![position(3, 1)]), now);
    let out = talk.take_out();
    let request = sync_of(&out);
    assert_eq!((request.direction(), request.from_seq, request.limit), (Direction::Backward, 0, 20));
    talk.on(Payload::Push(message(2, 4)), now);
    assert_eq!(talk.take_lines(), []);
    talk.on(page(&request, vec![message(2, 3), message(1, 2), message(2, 1)], false), now);
    let own = Line::Own { text: "t2".into(), at_ms: 0, fresh: false };
    assert_eq!(talk.take_lines(), [peer(1, false), own, peer(3, true), peer(4, true)]);
    assert_eq!(talk.take_out(), [delivered(4), read(4)]);
}

#[test]
fn a_gateway_without_history_is_no_trouble() {
    let (mut talk, now) = (talk(), Instant::now());
    talk.connected(&ready(vec![position(3, 3)]), now);
    let ref_request_id = sync_of(&talk.take_out()).request_id;
    let code = ErrorCode::Unsupported.into();
    talk.on(Payload::Error(Error { code, ref_request_id, ..Error::default() }), now);
    talk.on(Payload::Push(message(2, 4)), now);
    assert_eq!(talk.take_lines(), [peer(4, true)]);
}

#[test]
fn an_unanswered_pull_does_not_hold_messages_back_for_ever() {
    let (mut talk, now) = (talk(), Instant::now());
    talk.connected(&ready(vec![position(3, 3)]), now);
    talk.on(Payload::Push(message(2, 4)), now);
    let wake = talk.wake().unwrap();
    talk.tick(wake);
    assert_eq!(talk.take_lines(), [peer(4, true)]);
    assert_eq!(talk.wake(), None);
}

#[test]
fn messages_survive_a_reconnect_under_the_same_id() {
    let (mut talk, now) = (talk(), Instant::now());
    talk.connected(&ready(vec![]), now);
    talk.say("a".into(), "hello".into(), 0);
    talk.tick(now);
    assert_eq!(sent_ids(&talk.take_out()), ["a"]);
    talk.disconnected();
    talk.say("b".into(), "again".into(), 0);
    talk.tick(now);
    assert_eq!(talk.take_out(), []);
    talk.connected(&ready(vec![position(1, 0)]), now);
    talk.tick(now);
    assert_eq!(sent_ids(&talk.take_out()), ["a", "b"]);
    let stored =
        Ack { client_msg_id: "a".into(), server_msg_id: "m1".into(), seq: 1, status: 2, ..Ack::default() };
    talk.on(Payload::Ack(stored), now);
    assert_eq!(talk.state().pending, 1);
}

#[test]
fn what_was_missed_is_pulled_page_by_page() {
    let (mut talk, now) = (talk(), Instant::now());
    talk.connected(&ready(vec![]), now);
    talk.on(Payload::Push(message(2, 1)), now);
    talk.disconnected();
    let mut top = position(4, 1);
    top.epoch = 0;
    talk.connected(&ready(vec![top]), now);
    talk.take_lines();
    let first = sync_of(&talk.take_out());
    assert_eq!((first.direction(), first.from_seq), (Direction::Forward, 2));
    talk.on(page(&first, vec![message(2, 2), message(2, 3)], true), now);
    let second = sync_of(&talk.take_out());
    assert_eq!(second.from_seq, 4);
    talk.on(page(&second, vec![message(2, 4)], false), now);
    assert_eq!(talk.take_lines(), [peer(2, true), peer(3, true), peer(4, true)]);
    assert!(talk.pull.is_none());
}

#[test]
fn retry_later_is_a_delay_and_other_errors_are_final() {
    let (mut talk, now) = (talk(), Instant::now());
    talk.connected(&ready(vec![]), now);
    talk.say("a".into(), "hello".into(), 0);
    talk.tick(now);
    talk.take_out();
    let answer = |code: ErrorCode| {
        let error = Error { code: code.into(), retry_after_ms: 100, ..Error::default() };
        let status = AckStatus::Failed.into();
        Payload::Ack(Ack { client_msg_id: "a".into(), status, error: Some(error), ..Ack::default() })
    };
    talk.on(answer(ErrorCode::RetryLater), now);
    talk.tick(now);
    assert_eq!((talk.take_out(), talk.state().pending), (vec![], 1));
    let later = talk.wake().unwrap();
    assert_eq!(later, now + Duration::from_millis(100));
    talk.tick(later);
    assert_eq!(sent_ids(&talk.take_out()), ["a"]);
    talk.take_lines();
    talk.on(answer(ErrorCode::Invalid), later);
    assert_eq!(talk.take_lines(), [Line::Failed { why: "INVALID".into() }]);
    assert_eq!(talk.state().pending, 0);
}

#[test]
fn the_push_of_an_own_message_stands_in_for_its_ack() {
    let (mut talk, now) = (talk(), Instant::now());
    talk.connected(&ready(vec![]), now);
    talk.say("a".into(), "hello".into(), 0);
    talk.tick(now);
    talk.take_lines();
    let mut own = message(1, 1);
    own.client_msg_id = "a".into();
    talk.on(Payload::Push(own), now);
    assert_eq!(talk.take_lines(), [Line::Tick(Change { tick: super::super::outbox::Tick::Stored, seq: 1 })]);
}

#[test]
fn typing_is_the_peers_and_passes() {
    let (mut talk, now) = (talk(), Instant::now());
    talk.connected(&ready(vec![]), now);
    let typing = |by_user_id| Payload::Typing(Typing { conversation_id: C.into(), active: true, by_user_id });
    talk.on(typing(1), now);
    assert!(!talk.state().typing);
    talk.on(typing(2), now);
    assert!(talk.state().typing);
    talk.tick(now + TYPING_LASTS);
    assert!(!talk.state().typing);
}

#[test]
fn another_history_starts_over_and_keeps_what_was_shown() {
    let (mut talk, now) = (talk(), Instant::now());
    talk.connected(&ready(vec![position(0, 0)]), now);
    talk.on(Payload::Push(message(2, 1)), now);
    talk.take_lines();
    let (code, mut current) = (ErrorCode::ResyncRequired.into(), position(1, 0));
    current.epoch = 10;
    let error = Error { code, conversation_id: C.into(), current: Some(current), ..Error::default() };
    talk.on(Payload::Error(error), now);
    let request = sync_of(&talk.take_out());
    assert_eq!((request.direction(), request.epoch), (Direction::Backward, 10));
    talk.on(page(&request, vec![message(2, 1)], false), now);
    assert_eq!(talk.take_lines(), []);
}

#[test]
fn a_group_shows_who_writes_and_who_comes_and_goes() {
    const TEAM: &str = "g:team";
    let (mut talk, now) = (talk_in(TEAM), Instant::now());
    talk.connected(&ready(vec![]), now);
    // Whether it is there, only a pull tells.
    let request = sync_of(&talk.take_out());
    let (code, ref_request_id) = (ErrorCode::NotFound.into(), request.request_id);
    talk.on(Payload::Error(Error { code, ref_request_id, ..Error::default() }), now);
    assert_eq!(talk.take_lines(), [Line::Notice("there is no g:team, or you are not in it".into())]);
    let event = |change: ConversationChange, user_id, mute_until| {
        let (conversation_id, change, role) = (TEAM.into(), change.into(), "admin".into());
        let event = ConversationEvent { conversation_id, change, user_id, role, mute_until, since_seq: 0 };
        Payload::ConversationEvent(event)
    };
    talk.on(event(ConversationChange::Joined, 1, 0), now);
    assert_eq!(talk.take_lines(), [Line::Notice("you joined g:team, role admin".into())]);
    let request = sync_of(&talk.take_out());
    let messages: Vec<_> = [(7, 1), (0, 2)]
        .map(|(from, seq)| Push { conversation_id: TEAM.into(), ..message(from, seq) })
        .into();
    talk.on(page(&request, messages, false), now);
    let shown = |from, seq| Line::Peer { from, text: format!("t{seq}"), at_ms: 0, fresh: true };
    assert_eq!(talk.take_lines(), [shown(7, 1), shown(0, 2)]);
    for (change, user, until, words) in [
        (ConversationChange::Joined, 8, 0, "user 8 joined g:team, role admin"),
        (ConversationChange::Role, 8, 0, "user 8 has role admin in g:team"),
        (ConversationChange::Muted, 8, 9, "user 8 may not write in g:team for now"),
        (ConversationChange::Muted, 1, 0, "you may write in g:team again"),
        (ConversationChange::Removed, 1, 0, "you left g:team"),
        (ConversationChange::Deleted, 0, 0, "g:team is gone"),
    ] {
        talk.on(event(change, user, until), now);
        assert_eq!(talk.take_lines(), [Line::Notice(words.into())]);
    }
}
