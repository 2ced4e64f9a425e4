//! A good history with one thing changed, anything, is not good any more.

use proptest::prelude::*;

use super::super::{Event, How, Rules, check};
use super::story::{CHAT, GROUP, Story};

#[derive(Debug, Clone)]
enum Step {
    Say {
        group: bool,
        from: u8,
    },
    /// Away for so many messages of the chat.
    Away {
        user: u8,
        missed: u8,
    },
    Fork {
        lost: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<bool>(), 1..=2_u8).prop_map(|(group, from)| Step::Say { group, from }),
        1 => (1..=2_u8, 1..4_u8).prop_map(|(user, missed)| Step::Away { user, missed }),
        1 => (1..3_u8).prop_map(|lost| Step::Fork { lost }),
    ];
    prop::collection::vec(step, 3..40)
}

fn tell(steps: &[Step]) -> Story {
    let mut story = Story::new();
    let mut count = 0;
    let mut id = || {
        count += 1;
        format!("m{count}")
    };
    // Both chat members know something worth losing.
    story.say(CHAT, 1, &id());
    story.say(CHAT, 2, &id());
    story.say(GROUP, 2, &id());
    for step in steps {
        match *step {
            Step::Say { group, from } => {
                story.say(if group { GROUP } else { CHAT }, from.into(), &id());
            }
            Step::Away { user, missed } => {
                story.disconnect(user.into());
                let next = story.log(CHAT).top + 1;
                for _ in 0..missed {
                    let message = story.store(CHAT, i64::from(3 - user), &id());
                    story.ack(&message);
                }
                story.connect(user.into());
                story.replay(user.into(), CHAT, next);
            }
            Step::Fork { lost } => {
                let there = story.log(CHAT).messages.len();
                story.fork(CHAT, usize::from(lost).min(there - 1));
                [1, 2].into_iter().for_each(|user| story.resync(user, CHAT));
                // The log is never empty at the end.
                story.say(CHAT, 1, &id());
            }
        }
    }
    story
}

#[derive(Debug, Clone, Copy)]
enum Tampering {
    DropReception,
    ChangeReceivedSeq,
    ChangeReceivedName,
    ChangeReceivedContent,
    ChangeReceivedSender,
    ChangeAckedSeq,
    ChangeAckedName,
    DropSent,
    DropStored,
    DropNewest,
    StoreAgain,
    SwapLive,
    SwapStored,
    ToStranger,
    DropResync,
}

use Tampering::*;

const ALL: [Tampering; 15] = [
    DropReception,
    ChangeReceivedSeq,
    ChangeReceivedName,
    ChangeReceivedContent,
    ChangeReceivedSender,
    ChangeAckedSeq,
    ChangeAckedName,
    DropSent,
    DropStored,
    DropNewest,
    StoreAgain,
    SwapLive,
    SwapStored,
    ToStranger,
    DropResync,
];

/// Changes one thing; `false` = there was nothing of the kind.
fn tamper(story: &mut Story, how: Tampering, pick: usize) -> bool {
    let stored: Vec<_> = story.history.logs.values().flat_map(|log| &log.messages).cloned().collect();
    let final_ids: Vec<_> = stored.iter().map(|message| message.server_msg_id.clone()).collect();
    // Of what is lost, and of what is known twice, less is promised.
    let matters = |event: &Event| match event {
        Event::Received { message, .. } => final_ids.contains(&message.server_msg_id),
        Event::Acked { server_msg_id, .. } => final_ids.contains(server_msg_id),
        _ => true,
    };
    let wanted = |event: &Event| match how {
        DropReception
        | ChangeReceivedSeq
        | ChangeReceivedName
        | ChangeReceivedContent
        | ChangeReceivedSender => matches!(event, Event::Received { .. }),
        ChangeAckedSeq | ChangeAckedName => matches!(event, Event::Acked { .. }),
        DropSent => matches!(event, Event::Sent { client_msg_id, .. }
            if stored.iter().any(|message| message.client_msg_id == *client_msg_id)),
        DropResync => matches!(event, Event::Resync { .. }),
        _ => false,
    };
    let mut places = Vec::new();
    for (client, log) in story.history.clients.iter().enumerate() {
        // What was before a RESYNC is excused or told again.
        let resync = |record: &super::super::Record| matches!(record.event, Event::Resync { .. });
        let since = if matches!(how, DropReception | ChangeReceivedSeq | ChangeAckedSeq) {
            log.records.iter().rposition(resync).unwrap_or(0)
        } else {
            0
        };
        let chosen = log.records.iter().enumerate().skip(since);
        places.extend(
            chosen
                .filter(|(_, record)| wanted(&record.event) && matters(&record.event))
                .map(|(place, _)| (client, place)),
        );
    }
    let place = (!places.is_empty()).then(|| places[pick % places.len()]);
    let Some(log) = story.history.logs.get_mut(CHAT) else { return false };
    match how {
        DropStored | DropNewest => {
            let place =
                if matches!(how, DropNewest) { log.messages.len() - 1 } else { pick % log.messages.len() };
            log.messages.remove(place);
            if matches!(how, DropNewest) {
                log.top -= 1;
            }
        }
        StoreAgain => {
            let mut again = log.messages[pick % log.messages.len()].clone();
            log.top += 1;
            (again.seq, again.server_msg_id) = (log.top, "again".into());
            log.messages.push(again);
        }
        SwapStored => {
            if log.messages.len() < 2 {
                return false;
            }
            let place = pick % (log.messages.len() - 1);
            let seq = log.messages[place].seq;
            log.messages[place].seq = log.messages[place + 1].seq;
            log.messages[place + 1].seq = seq;
        }
        ToStranger => {
            let message = log.messages[pick % log.messages.len()].clone();
            story.receive(3, &message, How::Live);
        }
        SwapLive => {
            let records = &mut story.history.clients[1].records;
            let live = |event: &Event| {
                matches!(event, Event::Received { how: How::Live, message }
                if &*message.conversation == CHAT)
            };
            let neighbours: Vec<usize> = (1..records.len())
                .filter(|&place| live(&records[place - 1].event) && live(&records[place].event))
                .collect();
            if neighbours.is_empty() {
                return false;
            }
            let place = neighbours[pick % neighbours.len()];
            records.swap(place - 1, place);
        }
        DropReception | DropSent | DropResync => {
            let Some((client, place)) = place else { return false };
            let records = &mut story.history.clients[client].records;
            let Event::Resync { .. } = records[place].event else {
                records.remove(place);
                return true;
            };
            // Only a RESYNC behind which something known is gone must be told.
            let gone = |event: &Event| match event {
                Event::Received { message, .. } => {
                    &*message.conversation == CHAT && !final_ids.contains(&message.server_msg_id)
                }
                Event::Acked { conversation, server_msg_id, .. } => {
                    &**conversation == CHAT && !final_ids.contains(server_msg_id)
                }
                _ => false,
            };
            let last = !records[place + 1..].iter().any(|r| matches!(r.event, Event::Resync { .. }));
            if !last || !records[..place].iter().any(|record| gone(&record.event)) {
                return false;
            }
            let before = records[..place].iter().rposition(|r| matches!(r.event, Event::Resync { .. }));
            if !records[before.unwrap_or(0)..place].iter().any(|record| gone(&record.event)) {
                return false;
            }
            records.remove(place);
        }
        _ => {
            let Some((client, place)) = place else { return false };
            match &mut story.history.clients[client].records[place].event {
                Event::Received { message, .. } => match how {
                    ChangeReceivedSeq => message.seq += 1,
                    ChangeReceivedName => message.server_msg_id = "forged".into(),
                    ChangeReceivedContent => message.digest += 1,
                    _ => message.from = 3 - message.from.min(2),
                },
                Event::Acked { seq, server_msg_id, .. } => match how {
                    ChangeAckedSeq => *seq += 1,
                    _ => *server_msg_id = "forged".into(),
                },
                _ => return false,
            }
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_changed_is_noticed(steps in steps(), how in 0..ALL.len(), pick in 0..1000_usize) {
        let rules = Rules { may_lose: true, ..Rules::default() };
        let mut story = tell(&steps);
        let good = check(&story.history, &rules);
        prop_assert!(good.is_kept(), "{good}");
        if tamper(&mut story, ALL[how], pick) {
            let verdict = check(&story.history, &rules);
            prop_assert!(!verdict.violations.is_empty(), "{:?} was not noticed", ALL[how]);
        }
    }
}
