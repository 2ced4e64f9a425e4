//! Groups, indexes, tops and retention: what every backend does alike.

use super::*;
use crate::types::{Epoch, GatewayId, GatewayRef};

fn group(name: &str) -> ConversationId {
    ConversationId::parse(&format!("g:{name}")).unwrap()
}

fn gateway(name: &str, epoch: u64) -> GatewayRef {
    GatewayRef { id: GatewayId::new(name).unwrap(), epoch: Epoch(epoch) }
}

fn said(to: &ConversationId, from: UserId, id: &str) -> Append {
    let mut append = append(1, 2, id, id);
    append.conversation = to.clone();
    append.from = from;
    append.server_msg_id = format!("s-{from}-{id}");
    append.push.conversation_id = to.to_string();
    append.push.from_user_id = from.get();
    append.push.server_msg_id.clone_from(&append.server_msg_id);
    append
}

async fn say(store: &Store, to: &ConversationId, from: UserId, id: &str) -> Appended {
    store.append(&[&said(to, from, id)]).await.outcomes.remove(0).unwrap()
}

async fn say_many(store: &Store, to: &ConversationId, from: UserId, ids: std::ops::Range<i64>) -> i64 {
    let batch: Vec<_> = ids.map(|id| said(to, from, &format!("m{id}"))).collect();
    match append_all(store, &batch).await.pop().unwrap().unwrap() {
        Appended::Stored { seq, .. } => seq,
        other => panic!("{other:?}"),
    }
}

fn member(role: Role, since_seq: i64) -> Member {
    Member { role, since_seq, mute_until: 0 }
}

/// Everything the suite asks of groups, on an empty store.
pub(super) async fn suite_groups(store: &Store) {
    creation(store).await;
    membership(store).await;
    muting(store).await;
    blocking(store).await;
    interest(store).await;
    standing(store).await;
    paging(store).await;
    indexes(store).await;
    removal(store).await;
    retention(store).await;
}

async fn creation(store: &Store) {
    let team = group("made");
    assert_eq!(store.describe(&team).await.unwrap(), None);
    assert_eq!(store.tops(std::slice::from_ref(&team)).await.unwrap(), [None]);
    assert_eq!(say(store, &team, user(1), "early").await, Appended::Refused(Refused::NotFound));
    assert_eq!(say(store, &team, UserId::SYSTEM, "early").await, Appended::Refused(Refused::NotFound));

    let members = [(user(1), Role::Owner), (user(2), Role::Member)];
    let Created::New(made) = store.create(&team, &members, History::SinceJoining).await.unwrap() else {
        panic!("not new")
    };
    assert!(made.epoch > 0 && made.created_at > 0);
    let expected = Description {
        epoch: made.epoch,
        top: 0,
        first_available: 0,
        mver: 1,
        members: 2,
        created_at: made.created_at,
        history: History::SinceJoining,
    };
    assert_eq!(made, expected);
    assert_eq!(store.describe(&team).await.unwrap(), Some(expected.clone()));
    let top = Top { epoch: made.epoch, seq: 0, server_msg_id: String::new() };
    assert_eq!(store.tops(std::slice::from_ref(&team)).await.unwrap(), [Some(top)]);
    assert_eq!(store.known(std::slice::from_ref(&team)).await.unwrap(), [false]);

    // The same members in another order and role are the same group.
    let again = [(user(2), Role::Admin), (user(1), Role::Member)];
    assert_eq!(store.create(&team, &again, History::Full).await.unwrap(), Created::Same(expected));
    for others in [&[(user(1), Role::Owner)][..], &[(user(1), Role::Owner), (user(3), Role::Member)]] {
        assert_eq!(store.create(&team, others, History::SinceJoining).await.unwrap(), Created::Other);
    }
    let roster = store.roster(&team, &[user(2), user(1), user(3)]).await.unwrap().unwrap();
    assert_eq!(roster.members, [Some(member(Role::Member, 0)), Some(member(Role::Owner, 0)), None]);
    assert_eq!((roster.audience.mver, roster.audience.members), (1, 2));

    // A member's send, a stranger's, and the system's, which is never a member.
    let appends = store.append(&[&said(&team, user(1), "a")]).await;
    assert!(matches!(appends.outcomes[0], Ok(Appended::Stored { seq: 1, epoch }) if epoch == made.epoch));
    let audience = appends.audiences.get(&team).unwrap();
    assert_eq!((audience.mver, audience.members, audience.gateways.len()), (1, 2, 0));
    assert_eq!(say(store, &team, user(3), "a").await, Appended::Refused(Refused::NotFound));
    assert!(matches!(say(store, &team, UserId::SYSTEM, "a").await, Appended::Stored { seq: 2, .. }));
    let again = store.append(&[&said(&team, user(1), "a")]).await;
    assert!(matches!(again.outcomes[0], Ok(Appended::Duplicate { seq: 1, .. })));
    assert!(again.audiences.contains_key(&team), "a duplicate has an audience too");
    let top = Top { epoch: made.epoch, seq: 2, server_msg_id: "s-0-a".to_owned() };
    assert_eq!(store.tops(&[team.clone(), group("none")]).await.unwrap(), [Some(top), None]);
    let described = store.describe(&team).await.unwrap().unwrap();
    assert_eq!((described.top, described.first_available), (2, 1));

    // An empty one is a group too.
    let empty = group("made-empty");
    assert!(matches!(store.create(&empty, &[], History::Full).await.unwrap(), Created::New(_)));
    assert_eq!(store.members(&empty, None, 5).await.unwrap(), Some(MembersPage::default()));
}

async fn membership(store: &Store) {
    let team = group("changing");
    let put = async |id, change| store.put_member(&team, user(id), change).await.unwrap();
    let nothing = MemberChange::default();
    assert_eq!(put(1, nothing).await, Change { changed: Changed::NotFound, audience: Audience::default() });
    store.create(&team, &[(user(1), Role::Owner)], History::SinceJoining).await.unwrap();
    assert_eq!(say_many(store, &team, user(1), 0..3).await, 3);

    // Joins see what comes after, or all, as the group or the change says.
    let joined = put(2, nothing).await;
    assert_eq!(joined.changed, Changed::Joined(member(Role::Member, 3)));
    assert_eq!((joined.audience.mver, joined.audience.members), (2, 2));
    let full = MemberChange { history: Some(History::Full), role: Some(Role::Admin), ..nothing };
    assert_eq!(put(3, full).await.changed, Changed::Joined(member(Role::Admin, 0)));
    assert!(matches!(say(store, &team, user(2), "in").await, Appended::Stored { seq: 4, .. }));

    // What changes nothing counts for nothing; history is of new members only.
    let same = put(2, MemberChange { history: Some(History::Full), ..nothing }).await;
    assert_eq!((same.changed, same.audience.mver), (Changed::Same, 3));
    let promoted = put(2, MemberChange { role: Some(Role::Admin), ..nothing }).await;
    let (before, after) = (member(Role::Member, 3), member(Role::Admin, 3));
    assert_eq!((promoted.changed, promoted.audience.mver), (Changed::Updated { before, after }, 4));

    // Out is out; back in is a new beginning, positions included.
    let at_4 = Progress { conversation: team.clone(), user: user(2), delivered: 4, read: 4 };
    let cursor = store.advance(std::slice::from_ref(&at_4)).await.unwrap().remove(0).unwrap();
    assert_eq!((cursor.delivered, cursor.read), (4, 4));
    assert_eq!(cursor.audience.unwrap().mver, 4);
    let removed = store.remove_member(&team, user(2)).await.unwrap();
    assert_eq!((removed.changed, removed.audience.mver, removed.audience.members), (Changed::Removed, 5, 2));
    let again = store.remove_member(&team, user(2)).await.unwrap();
    assert_eq!((again.changed, again.audience.mver), (Changed::NotFound, 5));
    assert_eq!(say(store, &team, user(2), "out").await, Appended::Refused(Refused::NotFound));
    // What is in the log stays acknowledged, whoever asks again.
    assert!(matches!(say(store, &team, user(2), "in").await, Appended::Duplicate { .. }));
    assert_eq!(store.advance(&[at_4]).await.unwrap(), [None]);
    assert_eq!(store.positions(user(2), std::slice::from_ref(&team)).await.unwrap(), []);
    assert!(!store.index(&[user(2)], 0, 0, 9).await.unwrap().concat().contains(&team));
    assert_eq!(store.roster(&team, &[user(2)]).await.unwrap().unwrap().members, [None]);
    assert_eq!(say_many(store, &team, user(1), 3..5).await, 6);
    assert_eq!(put(2, nothing).await.changed, Changed::Joined(member(Role::Member, 6)));
    let position = store.positions(user(2), std::slice::from_ref(&team)).await.unwrap().remove(0);
    assert_eq!((position.seq, position.read_seq, position.unread), (6, 0, 0));

    let none = group("changing-none");
    assert_eq!(store.remove_member(&none, user(1)).await.unwrap().changed, Changed::NotFound);
    assert_eq!(store.roster(&none, &[user(1)]).await.unwrap(), None);
    assert_eq!(store.members(&none, None, 1).await.unwrap(), None);
}

async fn muting(store: &Store) {
    let team = group("quiet");
    store.create(&team, &[(user(1), Role::Owner), (user(2), Role::Member)], History::Full).await.unwrap();
    let mute = async |until| {
        let change = MemberChange { mute_until: Some(until), ..MemberChange::default() };
        store.put_member(&team, user(2), change).await.unwrap().changed
    };
    let until = unix_ms() + 3_600_000;
    assert!(matches!(mute(until).await, Changed::Updated { after, .. } if after.mute_until == until));
    assert_eq!(say(store, &team, user(2), "a").await, Appended::Refused(Refused::Muted(until)));
    assert!(matches!(say(store, &team, user(1), "a").await, Appended::Stored { seq: 1, .. }));
    // Past its time it binds no more.
    assert!(matches!(mute(unix_ms() - 1).await, Changed::Updated { .. }));
    assert!(matches!(say(store, &team, user(2), "a").await, Appended::Stored { seq: 2, .. }));
    assert!(matches!(mute(0).await, Changed::Updated { after, .. } if after.mute_until == 0));
    assert_eq!(mute(0).await, Changed::Same);
}

async fn blocking(store: &Store) {
    let team = group("closed");
    store.create(&team, &[(user(1), Role::Owner), (user(2), Role::Member)], History::Full).await.unwrap();
    let block = async |id, blocked| store.block(&team, user(id), blocked).await.unwrap();
    let out = block(2, true).await;
    assert_eq!((out.changed, out.audience.mver, out.audience.members), (Changed::Removed, 2, 1));
    let kept_out = store.put_member(&team, user(2), MemberChange::default()).await.unwrap();
    assert_eq!((kept_out.changed, kept_out.audience.mver), (Changed::Blocked, 2));
    assert_eq!(say(store, &team, user(2), "a").await, Appended::Refused(Refused::Blocked));
    // Before he was in.
    let early = block(9, true).await;
    assert_eq!((early.changed, early.audience.mver), (Changed::Blocked, 2));
    assert_eq!(block(9, true).await.changed, Changed::Same);
    assert_eq!(store.blacklist(&team).await.unwrap(), [user(2), user(9)]);
    assert_eq!(block(9, false).await.changed, Changed::Blocked);
    assert_eq!(block(9, false).await.changed, Changed::Same);
    assert_eq!(block(2, false).await.changed, Changed::Blocked);
    assert_eq!(store.blacklist(&team).await.unwrap(), []);
    let back = store.put_member(&team, user(2), MemberChange::default()).await.unwrap();
    assert!(matches!(back.changed, Changed::Joined(_)));
    assert_eq!(store.block(&group("closed-none"), user(1), true).await.unwrap().changed, Changed::NotFound);

    // Between two, also before the first message, which it does not make.
    let pair = ConversationId::between(user(21), user(22));
    let barred = store.block(&pair, user(21), true).await.unwrap();
    assert_eq!((barred.changed, barred.audience.mver), (Changed::Blocked, 0));
    assert_eq!(store.known(std::slice::from_ref(&pair)).await.unwrap(), [false]);
    assert_eq!(say(store, &pair, user(21), "a").await, Appended::Refused(Refused::Blocked));
    assert!(matches!(say(store, &pair, user(22), "a").await, Appended::Stored { seq: 1, .. }));
    assert!(matches!(say(store, &pair, UserId::SYSTEM, "a").await, Appended::Stored { seq: 2, .. }));
    assert_eq!(store.describe(&pair).await.unwrap().unwrap().members, 2);
    assert_eq!(store.block(&pair, user(21), false).await.unwrap().changed, Changed::Blocked);
    assert!(matches!(say(store, &pair, user(21), "a").await, Appended::Stored { seq: 3, .. }));
}

async fn interest(store: &Store) {
    let team = group("watched");
    store.create(&team, &[(user(1), Role::Owner), (user(2), Role::Member)], History::Full).await.unwrap();
    say(store, &team, user(1), "a").await;
    let (here, there) = (gateway("gw-here", 7), gateway("gw-there", 3));
    let wanted = [
        (team.clone(), user(1)),
        (team.clone(), user(9)),
        (group("watched-none"), user(1)),
        (team.clone(), user(2)),
    ];
    let mut joined = store.join(&here, &wanted).await.unwrap();
    assert!(joined[1].is_none() && joined[2].is_none());
    let second = joined.remove(3).unwrap();
    let first = joined.remove(0).unwrap();
    assert_eq!((first.member, second.member), (member(Role::Owner, 0), member(Role::Member, 0)));
    assert_eq!((first.mver, first.members, first.top.seq), (1, 2, 1));
    assert_eq!(first.top.server_msg_id, "s-1-a");
    let gateways = async || store.roster(&team, &[]).await.unwrap().unwrap().audience.gateways;
    assert_eq!(gateways().await, std::slice::from_ref(&here));
    store.join(&there, &wanted[..1]).await.unwrap();
    assert_eq!(gateways().await, [here.clone(), there.clone()]);
    // Who is not a member registers nothing.
    store.join(&gateway("gw-stranger", 1), &wanted[1..2]).await.unwrap();
    assert_eq!(gateways().await.len(), 2);
    let appends = store.append(&[&said(&team, user(2), "b")]).await;
    assert_eq!(appends.audiences.get(&team).unwrap().gateways, [here.clone(), there.clone()]);
    // Only its own epoch's interest is taken back.
    store.leave(&gateway("gw-here", 6), std::slice::from_ref(&team)).await.unwrap();
    assert_eq!(gateways().await.len(), 2);
    store.leave(&here, &[team.clone(), group("watched-none")]).await.unwrap();
    assert_eq!(gateways().await, std::slice::from_ref(&there));
    let later = gateway("gw-there", 4);
    store.join(&later, &wanted[..1]).await.unwrap();
    assert_eq!(gateways().await, [later]);
}

async fn standing(store: &Store) {
    let team = group("read");
    store.create(&team, &[(user(31), Role::Owner)], History::SinceJoining).await.unwrap();
    say_many(store, &team, user(31), 0..5).await;
    store.put_member(&team, user(32), MemberChange::default()).await.unwrap();
    let of = async |id| store.positions(user(id), std::slice::from_ref(&team)).await.unwrap();
    let late = of(32).await.remove(0);
    assert_eq!((late.seq, late.read_seq, late.unread), (5, 0, 0), "what was before is not unread");
    assert_eq!(say_many(store, &team, user(31), 5..9).await, 9);
    assert_eq!(of(32).await[0].unread, 4);
    assert_eq!(of(31).await[0].unread, 9);
    let at = |id, delivered, read| Progress { conversation: team.clone(), user: user(id), delivered, read };
    let cursors = store.advance(&[at(32, 7, 6), at(33, 1, 1), at(31, 99, 0)]).await.unwrap();
    let told: Vec<_> = cursors.iter().map(|c| c.as_ref().map(|c| (c.delivered, c.read))).collect();
    assert_eq!(told, [Some((7, 6)), None, Some((9, 0))]);
    let position = of(32).await.remove(0);
    assert_eq!((position.read_seq, position.unread), (6, 3));
    assert_eq!((position.peer_delivered_seq, position.peer_read_seq), (0, 0));
    assert_eq!(position.conversation_id, "g:read");
    assert_eq!(of(33).await, []);
    let unborn = Progress { conversation: ConversationId::between(user(31), user(39)), ..at(31, 4, 4) };
    assert_eq!(store.advance(&[unborn]).await.unwrap(), [Some(Cursor::default())]);
    let none = Progress { conversation: group("read-none"), ..at(31, 1, 1) };
    assert_eq!(store.advance(&[none]).await.unwrap(), [None]);
}

async fn paging(store: &Store) {
    let team = group("large");
    // By number, not by text.
    let ids: Vec<i64> = vec![2, 10, 100, 9_000_000_000, i64::MAX];
    let members: Vec<_> = ids.iter().rev().map(|id| (user(*id), Role::Member)).collect();
    store.create(&team, &members, History::Full).await.unwrap();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.members(&team, after, 2).await.unwrap().unwrap();
        seen.extend(page.members.iter().map(|(user, _)| user.get()));
        after = page.members.last().map(|(user, _)| *user);
        if !page.has_more {
            break;
        }
        assert_eq!(page.members.len(), 2);
    }
    assert_eq!(seen, ids);
    let rest = store.members(&team, Some(user(50)), 5).await.unwrap().unwrap();
    assert_eq!((rest.members.len(), rest.has_more), (3, false));
}

async fn indexes(store: &Store) {
    let me = user(41);
    let before = unix_ms();
    store.create(&group("seen"), &[(me, Role::Owner)], History::Full).await.unwrap();
    say(store, &ConversationId::between(me, user(42)), me, "a").await;
    store.create(&group("seen-too"), &[(user(42), Role::Owner)], History::Full).await.unwrap();
    store.put_member(&group("seen-too"), me, MemberChange::default()).await.unwrap();
    let of = async |since, offset, limit| {
        let mut lists = store.index(&[user(49), me], since, offset, limit).await.unwrap();
        assert_eq!(lists.remove(0), []);
        lists.remove(0).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let all = of(0, 0, 9).await;
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(sorted, ["g:seen", "g:seen-too", "p2p:41:42"]);
    assert_eq!(of(before, 0, 9).await, all);
    assert_eq!(of(unix_ms() + 60_000, 0, 9).await, [""; 0]);
    assert_eq!(of(0, 1, 1).await, all[1..2]);
    assert_eq!(of(0, 3, 5).await, [""; 0]);
}

async fn removal(store: &Store) {
    let team = group("gone");
    let members = [(user(51), Role::Owner), (user(52), Role::Member)];
    let Created::New(first) = store.create(&team, &members, History::Full).await.unwrap() else {
        panic!("not new")
    };
    let here = gateway("gw-here", 7);
    store.join(&here, &[(team.clone(), user(51))]).await.unwrap();
    say_many(store, &team, user(51), 0..3).await;
    let at = Progress { conversation: team.clone(), user: user(51), delivered: 2, read: 2 };
    store.advance(std::slice::from_ref(&at)).await.unwrap();
    store.block(&team, user(53), true).await.unwrap();
    let audience = store.delete(&team).await.unwrap().unwrap();
    assert_eq!(audience, Audience { mver: 2, members: 0, gateways: vec![here] });
    assert_eq!(store.delete(&team).await.unwrap(), None);
    assert_eq!(store.describe(&team).await.unwrap(), None);
    assert_eq!(store.tops(std::slice::from_ref(&team)).await.unwrap(), [None]);
    let span = Span { from: 1, limit: 9, max_bytes: 1 << 20, direction: Direction::Forward };
    assert_eq!(store.page(&team, span).await.unwrap(), Page::default());
    assert_eq!(store.index(&[user(51), user(52)], 0, 0, 9).await.unwrap(), [vec![], vec![]]);
    assert_eq!(say(store, &team, user(51), "m0").await, Appended::Refused(Refused::NotFound));

    // Made again it is another one: nothing of the first shines through.
    let Created::New(second) = store.create(&team, &members[..1], History::Full).await.unwrap() else {
        panic!("not new")
    };
    assert!(second.epoch > first.epoch);
    assert_eq!((second.top, second.members), (0, 1));
    // Its changes are counted on: a gateway trusts what has the larger count.
    assert_eq!(second.mver, 3);
    store.put_member(&team, user(52), MemberChange::default()).await.unwrap();
    assert_eq!(store.delete(&team).await.unwrap().unwrap().mver, 5);
    let Created::New(second) = store.create(&team, &members[..1], History::Full).await.unwrap() else {
        panic!("not new")
    };
    assert_eq!(second.mver, 6);
    assert_eq!(store.blacklist(&team).await.unwrap(), []);
    assert!(matches!(say(store, &team, user(51), "m0").await, Appended::Stored { seq: 1, .. }));
    let position = store.positions(user(51), std::slice::from_ref(&team)).await.unwrap().remove(0);
    assert_eq!((position.read_seq, position.unread), (0, 1));
    assert_eq!(store.page(&team, span).await.unwrap().messages.len(), 1);
}

async fn trim(store: &Store, now: i64, retention: &Retention) -> (u64, u64) {
    let mut cursor = String::new();
    let (mut messages, mut conversations) = (0, 0);
    for _ in 0..10_000 {
        let step = store.trim(now, retention, &cursor).await.unwrap();
        messages += step.messages;
        conversations += step.conversations;
        if step.cursor.is_empty() {
            return (messages, conversations);
        }
        cursor = step.cursor;
    }
    panic!("no end")
}

async fn retention(store: &Store) {
    let team = group("kept");
    let pair = ConversationId::between(user(61), user(62));
    store.create(&team, &[(user(61), Role::Owner)], History::Full).await.unwrap();
    assert_eq!(say_many(store, &team, user(61), 0..50).await, 50);
    assert_eq!(say_many(store, &pair, user(61), 0..50).await, 50);
    let any = Keep { age_ms: None, count: None };
    let now = unix_ms();
    let (removed, looked_at) = trim(store, now, &Retention { p2p: any, group: any }).await;
    assert_eq!(removed, 0);
    assert!(looked_at >= 2);

    // By count, in groups only.
    let ten = Keep { count: Some(10), ..any };
    assert!(trim(store, now, &Retention { p2p: any, group: ten }).await.0 >= 40);
    let first = async |id: &ConversationId| {
        let span = Span { from: 1, limit: 100, max_bytes: 1 << 20, direction: Direction::Forward };
        let page = store.page(id, span).await.unwrap();
        (page.first_available, page.messages.first().map_or(0, |m| m.seq), page.messages.len(), page.top)
    };
    assert_eq!(first(&team).await, (41, 41, 10, 50));
    assert_eq!(first(&pair).await, (1, 1, 50, 50));
    assert_eq!(store.describe(&team).await.unwrap().unwrap().first_available, 41);
    let span = Span { from: 42, limit: 9, max_bytes: 1 << 20, direction: Direction::Backward };
    let page = store.page(&team, span).await.unwrap();
    assert_eq!((seqs(&page), page.has_more), (vec![42, 41], false));
    // A trimmed message's id is still known, and it is not counted twice.
    assert!(matches!(say(store, &team, user(61), "m0").await, Appended::Duplicate { seq: 1, .. }));
    assert_eq!(trim(store, now, &Retention { p2p: any, group: ten }).await.0, 0);

    // By age: everything, but the end of the log stays known.
    let hour = Keep { age_ms: Some(3_600_000), ..any };
    assert_eq!(trim(store, now + 1_800_000, &Retention { p2p: hour, group: any }).await.0, 0);
    trim(store, now + 7_200_000, &Retention { p2p: hour, group: any }).await;
    assert_eq!(first(&pair).await, (51, 0, 0, 50));
    assert_eq!(first(&team).await, (41, 41, 10, 50));
    let top = store.tops(std::slice::from_ref(&pair)).await.unwrap().remove(0).unwrap();
    assert_eq!((top.seq, top.server_msg_id.as_str()), (50, "s-61-m49"));
    assert_eq!(store.known(std::slice::from_ref(&pair)).await.unwrap(), [true]);
    assert!(matches!(say(store, &pair, user(61), "m49").await, Appended::Duplicate { seq: 50, .. }));
    assert!(matches!(say(store, &pair, user(61), "new").await, Appended::Stored { seq: 51, .. }));
    assert_eq!(first(&pair).await, (51, 51, 1, 51));
}
