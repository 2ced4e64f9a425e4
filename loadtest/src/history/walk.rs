//! One client's log, read from front to back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::event::{ClientLog, Event, How, Message, Position};
use super::ledger::Ledger;
use super::rules::{Rules, Verdict};
use super::violation::Violation;

/// A message that a client knows of: its place, and when it first heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) seq: i64,
    at: Duration,
    /// It was told so as its sender.
    acked: bool,
}

/// What a client knows of one conversation.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    /// By server name, since the last RESYNC.
    pub(super) known: BTreeMap<Arc<str>, Known>,
    /// By server name, ever: when it first heard.
    pub(super) heard: HashMap<Arc<str>, Duration>,
    /// Highest seq pushed on this connection.
    pushed: i64,
    /// Told that it is removed.
    removed: bool,
    /// What lies before is told to be trimmed.
    pub(super) trimmed: i64,
    /// Place of what it sent last, in order of sending.
    sent_up_to: i64,
}

/// What the walk leaves behind.
#[derive(Debug)]
pub(super) struct Walked<'a> {
    pub(super) log: &'a ClientLog,
    pub(super) name: String,
    pub(super) knowledge: BTreeMap<Arc<str>, Knowledge>,
    /// When it was served: from, to.
    pub(super) served: Vec<(Duration, Duration)>,
    /// What was acknowledged to it.
    pub(super) acked: Vec<Told>,
    /// What was pushed to it as it was stored.
    pushed: Vec<Told>,
}

/// A promise to a client that a message is stored.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) conversation: Arc<str>,
    pub(super) id: Arc<str>,
    seq: i64,
    pub(super) at: Duration,
    /// How durable, as far as it was said.
    level: u32,
}

/// Walks one log; judges all that needs no other one.
pub(super) fn walk<'a>(
    log: &'a ClientLog,
    ledger: &mut Ledger<'_>,
    rules: &Rules,
    verdict: &mut Verdict,
) -> Walked<'a> {
    let mut walk = Walk {
        walked: Walked {
            log,
            name: format!("{}/{}", log.user, log.device),
            knowledge: BTreeMap::new(),
            served: Vec::new(),
            acked: Vec::new(),
            pushed: Vec::new(),
        },
        since: None,
        sent: HashSet::new(),
    };
    for record in &log.records {
        walk.step(record.at, &record.event, ledger, verdict);
    }
    if let (Some(since), Some(last)) = (walk.since, log.records.last()) {
        walk.walked.served.push((since, last.at));
    }
    walk.close(ledger, rules, verdict);
    walk.walked
}

struct Walk<'a> {
    walked: Walked<'a>,
    /// Served since.
    since: Option<Duration>,
    /// Sends seen, to judge their order once each.
    sent: HashSet<(Arc<str>, Arc<str>)>,
}

impl Walk<'_> {
    fn of(&mut self, conversation: &Arc<str>) -> &mut Knowledge {
        self.walked.knowledge.entry(Arc::clone(conversation)).or_default()
    }

    fn step(&mut self, at: Duration, event: &Event, ledger: &mut Ledger<'_>, verdict: &mut Verdict) {
        match event {
            Event::Sent { conversation, client_msg_id, .. } => {
                self.sent(conversation, client_msg_id, ledger, verdict);
            }
            Event::Acked { conversation, client_msg_id, server_msg_id, seq, epoch, level, .. } => {
                ledger.named(conversation, *epoch, *seq, server_msg_id, &mut verdict.violations);
                let known = Known { seq: *seq, at, acked: true };
                self.learn(conversation, server_msg_id, known, |seq| {
                    ledger.keeps(conversation, server_msg_id, seq)
                });
                let user = self.walked.log.user;
                let mine = ledger
                    .stored(conversation, server_msg_id)
                    .is_none_or(|message| message.from == user && message.client_msg_id == *client_msg_id);
                if !mine {
                    verdict.violations.push(self.moved(conversation, *seq, server_msg_id));
                }
                let (conversation, id) = (Arc::clone(conversation), Arc::clone(server_msg_id));
                self.walked.acked.push(Told { conversation, id, seq: *seq, at, level: *level });
            }
            Event::Failed { conversation, client_msg_id, .. } => {
                let id = (self.walked.log.user, Arc::clone(conversation), Arc::clone(client_msg_id));
                if ledger.place(&id).is_some() {
                    verdict.violations.push(Violation::RefusedYetStored {
                        client: self.walked.name.clone(),
                        conversation: Arc::clone(conversation),
                        id: Arc::clone(client_msg_id),
                    });
                }
            }
            Event::Received { message, how } => self.received(at, message, *how, ledger, verdict),
            Event::Connected { .. } => {
                self.walked.knowledge.values_mut().for_each(|knowledge| knowledge.pushed = 0);
            }
            Event::Ready { .. } => self.since = Some(at),
            Event::Disconnected { why } => {
                verdict.disconnects += usize::from(why.is_some());
                self.walked.served.extend(self.since.take().map(|since| (since, at)));
            }
            Event::Resync { had, why, .. } => self.resync(had, why, ledger, verdict),
            Event::Trimmed { conversation, first_available } => {
                self.of(conversation).trimmed = *first_available;
            }
            Event::Joined { conversation, .. } => self.of(conversation).removed = false,
            Event::Removed { conversation } => self.of(conversation).removed = true,
        }
    }

    fn learn(
        &mut self,
        conversation: &Arc<str>,
        id: &Arc<str>,
        known: Known,
        in_place: impl Fn(i64) -> bool,
    ) {
        let knowledge = self.of(conversation);
        knowledge.heard.entry(Arc::clone(id)).or_insert(known.at);
        let entry = knowledge.known.entry(Arc::clone(id)).or_insert(known);
        entry.acked |= known.acked;
        if !in_place(known.seq) {
            // Told two places: the wrong one is to come to light.
            entry.seq = known.seq;
        }
    }

    fn sent(&mut self, conversation: &Arc<str>, id: &Arc<str>, ledger: &Ledger<'_>, verdict: &mut Verdict) {
        if !self.sent.insert((Arc::clone(conversation), Arc::clone(id))) {
            return;
        }
        let sent = (self.walked.log.user, Arc::clone(conversation), Arc::clone(id));
        let Some(seq) = ledger.place(&sent) else { return };
        let knowledge = self.of(conversation);
        if seq < knowledge.sent_up_to {
            let client = self.walked.name.clone();
            let (conversation, id) = (Arc::clone(conversation), Arc::clone(id));
            verdict.violations.push(Violation::SenderOrder { client, conversation, id });
        } else {
            knowledge.sent_up_to = seq;
        }
    }

    fn received(
        &mut self,
        at: Duration,
        message: &Message,
        how: How,
        ledger: &mut Ledger<'_>,
        verdict: &mut Verdict,
    ) {
        verdict.received += 1;
        let Message { conversation, seq, epoch, server_msg_id, .. } = message;
        let wrong = &mut verdict.violations;
        ledger.named(conversation, *epoch, *seq, server_msg_id, wrong);
        ledger.is_as_sent(message, wrong);
        let client = self.walked.name.clone();
        let user = self.walked.log.user;
        let knowledge = self.of(conversation);
        if knowledge.removed || !ledger.stays(conversation, user).any(|stay| stay.covers(*seq)) {
            let (client, conversation) = (client.clone(), Arc::clone(conversation));
            wrong.push(Violation::Forbidden { client, conversation, seq: *seq });
        }
        let new = !knowledge.known.contains_key(server_msg_id);
        verdict.repeated += usize::from(!new);
        if new && how != How::Pull {
            if *seq < knowledge.pushed {
                let (conversation, after) = (Arc::clone(conversation), knowledge.pushed);
                wrong.push(Violation::Order { client, conversation, seq: *seq, after });
            }
            knowledge.pushed = knowledge.pushed.max(*seq);
        }
        let as_stored = ledger.stored(conversation, server_msg_id).is_none_or(|stored| {
            stored.from == message.from && stored.client_msg_id == message.client_msg_id
        });
        if !as_stored {
            wrong.push(self.moved(conversation, *seq, server_msg_id));
        }
        let known = Known { seq: *seq, at, acked: false };
        self.learn(conversation, server_msg_id, known, |seq| ledger.keeps(conversation, server_msg_id, seq));
        if how == How::Live {
            let (conversation, id) = (Arc::clone(conversation), Arc::clone(server_msg_id));
            self.walked.pushed.push(Told { conversation, id, seq: *seq, at, level: 0 });
        }
    }

    fn resync(&mut self, had: &Position, why: &str, ledger: &Ledger<'_>, verdict: &mut Verdict) {
        let Position { conversation, epoch, seq, server_msg_id } = had;
        verdict.resyncs += 1;
        let knowledge = self.of(conversation);
        let known = std::mem::take(&mut knowledge.known);
        knowledge.pushed = 0;
        let gone = |(id, known): &(&Arc<str>, &Known)| !ledger.keeps(conversation, id, known.seq);
        verdict.announced += known.iter().filter(gone).filter(|(_, known)| known.acked).count();
        if !known.is_empty() && known.iter().find(gone).is_none() {
            verdict.violations.push(Violation::NeedlessResync {
                client: self.walked.name.clone(),
                conversation: Arc::clone(conversation),
                seq: *seq,
                id: Arc::clone(server_msg_id),
                epoch: *epoch,
                why: why.to_owned(),
            });
        }
    }

    /// At the end: what it still knows must be there.
    fn close(&mut self, ledger: &Ledger<'_>, rules: &Rules, verdict: &mut Verdict) {
        for (conversation, knowledge) in &self.walked.knowledge {
            for (id, known) in &knowledge.known {
                if ledger.keeps(conversation, id, known.seq) {
                    continue;
                }
                verdict.violations.push(match ledger.stored(conversation, id) {
                    Some(_) => self.moved(conversation, known.seq, id),
                    None => Violation::Silent {
                        client: self.walked.name.clone(),
                        conversation: Arc::clone(conversation),
                        seq: known.seq,
                        id: Arc::clone(id),
                    },
                });
            }
        }
        let may_lose = |level: u32| rules.may_lose && level < 2;
        let mut told = HashSet::new();
        let mut gone = |one: &&Told| {
            let kept = ledger.keeps(&one.conversation, &one.id, one.seq);
            !may_lose(one.level) && !kept && told.insert((Arc::clone(&one.conversation), Arc::clone(&one.id)))
        };
        for Told { conversation, id, seq, .. } in self.walked.acked.iter().filter(&mut gone) {
            let (client, conversation) = (self.walked.name.clone(), Arc::clone(conversation));
            verdict.violations.push(Violation::Lost { client, conversation, seq: *seq, id: Arc::clone(id) });
        }
        for Told { conversation, id, seq, .. } in self.walked.pushed.iter().filter(&mut gone) {
            let (client, conversation) = (self.walked.name.clone(), Arc::clone(conversation));
            let (seq, id) = (*seq, Arc::clone(id));
            verdict.violations.push(Violation::NeverStored { client, conversation, seq, id });
        }
    }

    fn moved(&self, conversation: &Arc<str>, seq: i64, id: &Arc<str>) -> Violation {
        Violation::Moved {
            client: self.walked.name.clone(),
            conversation: Arc::clone(conversation),
            seq,
            id: Arc::clone(id),
        }
    }
}
