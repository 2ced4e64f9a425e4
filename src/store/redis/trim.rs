//! Removing old messages: one gateway at a time goes through all logs, a part
//! of them per step.

use prost::Message;

use super::super::{Retention, StoreError, Trimmed};
use super::read::{self, Entries};
use super::{RedisStore, parse};
use crate::types::ConversationId;
use crate::wire::pb::Push;

/// Keys looked through per step.
const SCAN: usize = 500;
/// Messages removed per command: about a millisecond of one.
const PIECE: i64 = 5_000;
/// A round nobody goes on with is free for another gateway after this, ms.
const ROUND_MS: i64 = 60_000;

/// A log on its way to its cutoff.
struct Log {
    conversation: ConversationId,
    key: String,
    /// What is below goes; what is from here on is too young, if not too much.
    old: i64,
    young: i64,
    first: i64,
    top: i64,
}

impl RedisStore {
    pub(crate) async fn trim(
        &self,
        now: i64,
        retention: &Retention,
        cursor: &str,
    ) -> Result<Trimmed, StoreError> {
        if !self.takes_round().await? {
            return Ok(Trimmed::default());
        }
        let mut scan = redis::cmd("SCAN");
        scan.arg(if cursor.is_empty() { "0" } else { cursor });
        scan.arg("MATCH").arg(self.keys.every_log()).arg("COUNT").arg(SCAN).arg("TYPE").arg("stream");
        let (next, keys): (String, Vec<String>) = self.one(scan).await?;
        let mut logs = self.look_at(keys).await?;
        let conversations = u64::try_from(logs.len()).unwrap_or(u64::MAX);
        self.find_cutoffs(now, retention, &mut logs).await?;
        let mut messages = 0;
        for log in logs {
            let keep = retention.of(&log.conversation).count;
            let most = keep.map_or(0, |count| log.top.saturating_sub(count).saturating_add(1));
            let cutoff = log.old.max(most).min(log.top.saturating_add(1));
            let mut from = log.first;
            while from < cutoff {
                from = from.saturating_add(PIECE).min(cutoff);
                let mut trim = redis::cmd("XTRIM");
                trim.arg(&log.key).arg("MINID").arg(from);
                messages += self.one::<u64>(trim).await?;
            }
        }
        let cursor = if next == "0" { String::new() } else { next };
        Ok(Trimmed { messages, conversations, cursor })
    }

    /// Whether the round is this gateway's; it keeps it by going on.
    async fn takes_round(&self) -> Result<bool, StoreError> {
        let mut take = redis::cmd("SET");
        take.arg(self.keys.retention()).arg(&self.name).arg("NX").arg("PX").arg(ROUND_MS);
        let mut holder = redis::cmd("GET");
        holder.arg(self.keys.retention());
        let [_, holder] = self.some([take, holder]).await?;
        if parse::<Option<String>>(holder)?.as_ref() != Some(&self.name) {
            return Ok(false);
        }
        let mut keep = redis::cmd("PEXPIRE");
        keep.arg(self.keys.retention()).arg(ROUND_MS);
        self.one::<bool>(keep).await
    }

    async fn look_at(&self, keys: Vec<String>) -> Result<Vec<Log>, StoreError> {
        let ours: Vec<_> = keys.into_iter().filter_map(|key| Some((self.keys.logged(&key)?, key))).collect();
        let mut commands = Vec::with_capacity(ours.len() * 2);
        for (conversation, key) in &ours {
            let mut top = redis::cmd("HGET");
            top.arg(self.keys.conversation(conversation, "meta")).arg("top");
            commands.extend([top, read::first(key)]);
        }
        let mut replies = self.ask(commands).await?.into_iter();
        let mut logs = Vec::with_capacity(ours.len());
        for (conversation, key) in ours {
            let (Some(top), Some(first)) = (replies.next(), replies.next()) else { break };
            let read = || Ok((parse::<Option<i64>>(top)?.unwrap_or(0), read::first_available(first, 0)?));
            match read() {
                Ok((top, first)) if first > 0 => {
                    logs.push(Log { conversation, key, old: first, young: top + 1, first, top });
                }
                // Empty: all of it was removed.
                Ok(_) => {}
                Err(StoreError::Broken(why)) => {
                    tracing::error!(%conversation, why, "not looked through for old messages");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(logs)
    }

    /// By bisection, all logs in step: `old` ends up at the first message that
    /// is young enough.
    async fn find_cutoffs(
        &self,
        now: i64,
        retention: &Retention,
        logs: &mut [Log],
    ) -> Result<(), StoreError> {
        let mut first = true;
        loop {
            let mut open: Vec<(&mut Log, i64, i64)> = Vec::new();
            for log in logs.iter_mut() {
                let Some(age) = retention.of(&log.conversation).age_ms else { continue };
                if log.old < log.young {
                    // Most logs have nothing that old: the first one tells.
                    let middle = if first { log.old } else { log.old + (log.young - log.old) / 2 };
                    open.push((log, middle, age));
                }
            }
            if open.is_empty() {
                return Ok(());
            }
            let probe = |(log, middle, _): &(&mut Log, i64, i64)| {
                let mut probe = redis::cmd("XRANGE");
                probe.arg(&log.key).arg(*middle).arg("+").arg("COUNT").arg(1);
                probe
            };
            let replies = self.ask(open.iter().map(probe).collect()).await?;
            for ((log, middle, age), reply) in open.into_iter().zip(replies) {
                let entries: Entries = parse(reply)?;
                // What cannot be read stays until it is too much.
                let at = entries.first().and_then(|(_, fields)| {
                    Some(Push::decode(fields.get("m")?.as_slice()).ok()?.server_time)
                });
                if at.is_some_and(|at| now.saturating_sub(at) > age) {
                    log.old = middle + 1;
                } else {
                    log.young = middle;
                }
            }
            first = false;
        }
    }
}
