//! One history per kind of violation.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Event, History, How, Injection, Rules, Stay, Verdict, check};
use super::story::{CHAT, GROUP, Story, arc};

fn judge(story: &Story) -> Verdict {
    check(&story.history, &Rules::default())
}

/// The labels, without their counts.
fn labels(story: &Story) -> Vec<&'static str> {
    judge(story).labels().into_iter().map(|(label, _)| label).collect()
}

fn lossy(story: &Story) -> Verdict {
    check(&story.history, &Rules { may_lose: true, ..Rules::default() })
}

fn talk() -> Story {
    let mut story = Story::new();
    for round in 0..3 {
        story.say(CHAT, 1, &format!("a{round}"));
        story.say(CHAT, 2, &format!("b{round}"));
        story.say(GROUP, 3, &format!("c{round}"));
    }
    story
}

#[test]
fn good_histories_pass() {
    let mut story = talk();
    // Away, back, and what was missed comes in order; some of it twice.
    story.disconnect(2);
    let missed = story.store(CHAT, 1, "missed");
    story.ack(&missed);
    story.connect(2);
    story.replay(2, CHAT, 6);
    story.receive(2, &missed, How::Live);
    // An ack that comes behind the other's next message, and comes again.
    let mine = story.store(CHAT, 1, "late-ack");
    story.receive(2, &mine, How::Live);
    story.say(CHAT, 2, "overtakes");
    story.ack(&mine);
    story.ack(&mine);
    // Live ahead of a pull that fills the hole.
    let [one, two] = ["h1", "h2"].map(|id| {
        let message = story.store(CHAT, 1, id);
        story.ack(&message);
        message
    });
    story.receive(2, &two, How::Live);
    story.receive(2, &one, How::Pull);
    let verdict = judge(&story);
    assert!(verdict.is_kept(), "{verdict}");
    assert_eq!((verdict.acked, verdict.repeated, verdict.disconnects), (14, 1, 1));
    assert!(check(&History::default(), &Rules::default()).is_kept());
}

#[test]
fn a_loss_that_is_told_passes_only_where_the_store_may_lose() {
    let mut story = talk();
    story.fork(CHAT, 2);
    [1, 2].into_iter().for_each(|user| story.resync(user, CHAT));
    story.say(CHAT, 2, "new");
    let verdict = lossy(&story);
    assert!(verdict.is_kept(), "{verdict}");
    assert_eq!((verdict.announced, verdict.resyncs), (2, 2));
    assert_eq!(labels(&story), ["lost", "never stored"]);
    // Said to be on disk, it may not be lost at all.
    let durable = |record: &mut super::super::Record| {
        if let Event::Acked { level, .. } = &mut record.event {
            *level = 2;
        }
    };
    story.history.clients[0].records.iter_mut().for_each(durable);
    assert_eq!(lossy(&story).labels(), [("lost", 1)]);
}

#[test]
fn a_silent_loss_is_found_for_each_who_knows() {
    let mut story = talk();
    story.fork(CHAT, 1);
    story.resync(1, CHAT);
    let verdict = lossy(&story);
    assert_eq!(verdict.labels(), [("silent loss", 1)], "{verdict}");
    assert!(verdict.violations[0].to_string().contains("2/d knows p2p:1:2 6"), "{verdict}");
}

#[test]
fn seqs_used_again_without_a_new_epoch_are_found() {
    let mut story = talk();
    let lost = story.log(CHAT).messages.pop().unwrap();
    story.log(CHAT).top -= 1;
    let other = story.say(CHAT, 1, "reuse");
    assert_eq!(lost.seq, other.seq);
    let found = lossy(&story);
    assert!(found.count("two messages") > 0 && found.count("silent loss") > 0, "{found}");
}

#[test]
fn what_a_member_does_not_have_is_missing() {
    let mut story = talk();
    let message = story.store(GROUP, 1, "lost-wake-up");
    story.ack(&message);
    story.receive(2, &message, How::Live);
    assert_eq!(labels(&story), ["missing"]);
    // Not acknowledged: a hole only if later ones are there.
    let mut story = talk();
    story.store(CHAT, 1, "unacked");
    assert!(judge(&story).is_kept());
    let later = story.store(CHAT, 1, "later");
    story.receive(2, &later, How::Live);
    story.ack(&later);
    assert_eq!(judge(&story).labels(), [("hole", 2)]);
}

#[test]
fn a_trimmed_range_that_is_told_is_no_hole() {
    let mut story = talk();
    story.disconnect(2);
    story.say(CHAT, 1, "old");
    let new = story.store(CHAT, 1, "new");
    story.ack(&new);
    story.history.clients[1].records.pop();
    story.connect(2);
    story.receive(2, &new, How::Pull);
    assert_eq!(labels(&story), ["missing"], "kept, so it must be there");
    story.note(2, Event::Trimmed { conversation: arc(CHAT), first_available: new.seq });
    let log = story.log(CHAT);
    log.messages.retain(|message| message.seq == new.seq);
    log.first_available = new.seq;
    assert!(judge(&story).is_kept(), "{}", judge(&story));
}

#[test]
fn pushes_out_of_order_are_found() {
    let mut story = talk();
    let [one, two] = ["one", "two"].map(|id| {
        let message = story.store(CHAT, 1, id);
        story.ack(&message);
        message
    });
    story.receive(2, &two, How::Live);
    story.receive(2, &one, How::Live);
    assert_eq!(labels(&story), ["order"]);
    // A new connection begins anew.
    let mut story = talk();
    let one = story.store(CHAT, 1, "one");
    story.ack(&one);
    story.say(CHAT, 1, "two");
    story.disconnect(2);
    story.connect(2);
    story.receive(2, &one, How::Replay);
    assert!(judge(&story).is_kept());
}

#[test]
fn stored_in_another_order_than_sent_is_found() {
    let mut story = talk();
    let [mut one, mut two] = ["one", "two"].map(|id| story.store(CHAT, 1, id));
    let log = story.log(CHAT);
    log.messages.truncate(log.messages.len() - 2);
    (one.seq, two.seq) = (two.seq, one.seq);
    log.messages.extend([two.clone(), one.clone()]);
    [&two, &one].into_iter().for_each(|message| {
        story.ack(message);
        story.receive(2, message, How::Live);
    });
    assert_eq!(labels(&story), ["sender order"]);
}

#[test]
fn twice_moved_and_altered_are_found() {
    let mut story = talk();
    let again = story.store(CHAT, 1, "a0");
    story.history.clients[0].records.pop();
    story.ack(&again);
    story.receive(2, &again, How::Live);
    let found = judge(&story);
    assert!(found.count("twice") == 1 && found.count("content") > 0, "{found}");

    let mut story = talk();
    let mut message = story.say(CHAT, 1, "moved");
    message.seq += 5;
    story.ack(&message);
    assert_eq!(labels(&story), ["moved", "lost"]);
    story.note(1, Event::resync(&arc(CHAT)));
    assert_eq!(lossy(&story).count("moved"), 0, "told to forget it");

    let mut story = talk();
    let mut message = story.store(CHAT, 1, "altered");
    story.ack(&message);
    message.digest += 1;
    story.receive(2, &message, How::Live);
    assert_eq!(labels(&story), ["content"]);
}

#[test]
fn refused_yet_stored_and_log_holes_are_found() {
    let mut story = talk();
    let failed =
        |id: &str| Event::Failed { conversation: arc(CHAT), client_msg_id: arc(id), code: "INTERNAL".into() };
    story.note(1, failed("never-stored"));
    assert!(judge(&story).is_kept());
    story.note(1, failed("a1"));
    assert_eq!(labels(&story), ["refused yet stored"]);

    let mut story = talk();
    story.log(CHAT).messages.remove(2);
    assert!(judge(&story).count("log hole") == 1);
}

#[test]
fn what_is_not_his_to_see_is_found() {
    let mut story = talk();
    let message = story.say(CHAT, 1, "private");
    story.receive(3, &message, How::Live);
    assert_eq!(labels(&story), ["forbidden"]);

    // Joined later, without what was before.
    let mut story = talk();
    let since = story.log(GROUP).top;
    let before = story.log(GROUP).messages[0].clone();
    let stays = story.history.members.get_mut(GROUP).unwrap();
    stays[2].until_seq = Some(since);
    story.note(3, Event::Removed { conversation: arc(GROUP) });
    let unseen = story.store(GROUP, 1, "unseen");
    story.ack(&unseen);
    story.receive(2, &unseen, How::Live);
    assert!(judge(&story).is_kept(), "{}", judge(&story));
    story.receive(3, &unseen, How::Live);
    assert_eq!(labels(&story), ["forbidden"], "removed");
    story.history.clients[2].records.pop();
    let stays = story.history.members.get_mut(GROUP).unwrap();
    stays.push(Stay { user: 3, since_seq: unseen.seq, until_seq: None });
    story.note(3, Event::Joined { conversation: arc(GROUP), since_seq: unseen.seq });
    let seen = story.store(GROUP, 1, "seen");
    story.ack(&seen);
    [2, 3].into_iter().for_each(|user| story.receive(user, &seen, How::Live));
    assert!(judge(&story).is_kept(), "{}", judge(&story));
    assert!(before.seq < since);
    story.receive(3, &unseen, How::Pull);
    assert_eq!(labels(&story), ["forbidden"], "from before joining again");
}

#[test]
fn late_and_needless_are_found() {
    let rules = Rules { live_within: Some(Duration::from_millis(500)), ..Rules::default() };
    let mut story = talk();
    let message = story.store(CHAT, 1, "slow");
    story.ack(&message);
    story.wait(400);
    story.receive(2, &message, How::Pull);
    assert!(check(&story.history, &rules).is_kept());
    let message = story.store(CHAT, 1, "slower");
    story.ack(&message);
    story.wait(600);
    story.receive(2, &message, How::Live);
    let verdict = check(&story.history, &rules);
    assert_eq!(verdict.labels(), [("late", 1)], "{verdict}");
    assert!(judge(&story).is_kept(), "not judged unless asked");

    let mut story = talk();
    story.resync(2, CHAT);
    assert_eq!(labels(&story), ["needless resync"]);
}

#[test]
fn too_little_is_void() {
    let mut story = talk();
    let hit = |in_flight| Injection { at: Duration::ZERO, what: "kill".into(), in_flight };
    story.history.injections = vec![hit(150), hit(99)];
    let rules = Rules { least_acked: 10, least_injections: 2, least_in_flight: 100, ..Rules::default() };
    let verdict = check(&story.history, &rules);
    assert_eq!((verdict.violations.len(), verdict.void.len()), (0, 2), "{verdict}");
    story.history.injections.push(hit(100));
    story.say(CHAT, 1, "the tenth");
    assert!(check(&story.history, &rules).is_kept());
    assert_eq!(Arc::strong_count(&arc(CHAT)), 1);
}
