//! Presence in Redis: one script call for what a gateway has to say, as a
//! rule, and everything of one step in one round trip.

use redis::{Cmd, FromRedisValue, RedisResult, Value};

use super::online::since;
use super::{
    Change, Farewell, Found, Headcount, Heard, Look, MOST_GONE, PresenceError, Rules, Step, Stepped, WATCHING,
};
use crate::redis::{Call, Client, Keys, PRESENCE, PRESENCE_COUNT, PRESENCE_LOOK, RedisError};
use crate::types::{Epoch, GatewayId, GatewayRef, UserId};

/// Most users of one script call: others have to get a word in.
const CHUNK: usize = 500;

/// One gateway's presence in Redis.
#[derive(Debug)]
pub(crate) struct RedisPresence {
    client: Client,
    keys: [String; 6],
    gateway: GatewayRef,
    rules: Rules,
}

impl RedisPresence {
    /// Of one gateway, in a Redis of the test's own.
    #[cfg(test)]
    pub(crate) fn of_its_own(client: Client, gateway: GatewayRef) -> Self {
        Self::new(client, &Keys::default(), gateway, Rules::default())
    }

    /// For `gateway`.
    #[must_use]
    pub(crate) fn new(client: Client, keys: &Keys, gateway: GatewayRef, rules: Rules) -> Self {
        let of = |part| keys.presence(part);
        let keys = [keys.online_users(), of("since"), of("left"), of("clock"), of("watching"), of("leaving")];
        Self { client, keys, gateway, rules }
    }

    pub(super) async fn step(&self, step: Step<'_>) -> Result<(Stepped, Look), PresenceError> {
        let (mut heard, mut farewells) = (step.heard.chunks(CHUNK), step.farewells.chunks(CHUNK));
        let mut commands = Vec::new();
        // Farewells come last. There is one call at least: it finds the gone.
        let mut watching = step.watching;
        for heard in heard.by_ref() {
            commands.push(self.call(heard, &[], std::mem::take(&mut watching)));
        }
        for farewells in farewells.by_ref() {
            commands.push(self.call(&[], farewells, std::mem::take(&mut watching)));
        }
        if commands.is_empty() {
            commands.push(self.call(&[], &[], watching));
        }
        let steps = commands.len();
        commands.extend(step.look.chunks(CHUNK).map(|users| self.look_at(users)));
        let mut replies = self.client.pipeline(commands).await?.into_iter();
        let mut stepped = Stepped::default();
        for reply in replies.by_ref().take(steps) {
            let (online, changes, watching): (u64, Vec<String>, Vec<String>) = read(reply)?;
            stepped.online = online;
            stepped.changes.extend(changes.chunks(4).filter_map(parse_change));
            if !watching.is_empty() {
                stepped.watching = watching.iter().filter_map(|gateway| parse_gateway(gateway)).collect();
            }
        }
        Ok((stepped, gather(step.look, replies)?))
    }

    fn call(&self, heard: &[Heard], farewells: &[Farewell], watching: bool) -> Cmd {
        let Rules { window_ms, grace_ms, hold_ms } = self.rules;
        let gateway =
            if watching { format!("{}|{}", self.gateway.id, self.gateway.epoch) } else { String::new() };
        let call = Call::new(&PRESENCE, &self.keys).arg(window_ms).arg(grace_ms).arg(hold_ms).arg(MOST_GONE);
        let life = u64::try_from(WATCHING.as_millis()).unwrap_or(u64::MAX);
        let call = call.arg(gateway).arg(life).arg(heard.len());
        let heard = heard.iter().flat_map(|heard| [heard.user.get(), heard.age_ms]);
        let left = farewells.iter().flat_map(|left| [left.user.get(), left.at]);
        // All at once: a call that is handed on for each is a copy for each.
        call.arg(heard.chain(left).collect::<Vec<i64>>()).into()
    }

    pub(super) async fn look(&self, users: &[UserId]) -> Result<Look, PresenceError> {
        let commands = users.chunks(CHUNK).map(|users| self.look_at(users)).collect();
        gather(users, self.client.pipeline(commands).await?.into_iter())
    }

    fn look_at(&self, users: &[UserId]) -> Cmd {
        let keys = self.keys.get(..4).unwrap_or_default();
        let users: Vec<i64> = users.iter().map(|user| user.get()).collect();
        Call::new(&PRESENCE_LOOK, keys).arg(users).into()
    }

    pub(super) async fn count(&self, window_ms: i64) -> Result<Headcount, PresenceError> {
        let keys = self.keys.get(..1).unwrap_or_default();
        let call = Call::new(&PRESENCE_COUNT, keys).arg(window_ms);
        let (users, as_of) = self.client.command(call).await?;
        Ok(Headcount { users, as_of })
    }
}

fn gather(
    users: &[UserId],
    replies: impl Iterator<Item = RedisResult<Value>>,
) -> Result<Look, PresenceError> {
    let mut look = Look { found: Vec::with_capacity(users.len()), is_settled: true };
    for (users, reply) in users.chunks(CHUNK).zip(replies) {
        let (settled, last, found): (u8, u64, Vec<String>) = read(reply)?;
        look.is_settled &= settled == 1;
        look.found
            .extend(users.iter().zip(found.chunks(3)).map(|(user, found)| parse_found(*user, found, last)));
    }
    Ok(look)
}

/// What does not parse is nobody's.
fn parse_found(user: UserId, parts: &[String], last: u64) -> Found {
    let part = |at: usize| parts.get(at).map(String::as_str).unwrap_or_default();
    let heard: Option<i64> = part(0).parse().ok();
    let left: Option<i64> = part(2).parse().ok();
    match heard {
        Some(heard) => {
            let last_seen = left.unwrap_or(heard);
            match part(1).parse() {
                Ok(version) => Found { user, online: true, since: since(version), last_seen, version },
                // Said to be online by somebody else, who has no version.
                Err(_) => Found { user, online: true, since: heard, last_seen, version: 1 },
            }
        }
        None => Found::gone(user, left.unwrap_or(0), last),
    }
}

fn parse_change(parts: &[String]) -> Option<Change> {
    let [user, online, since, version] = parts else { return None };
    Some(Change {
        user: UserId::parse(user).ok()?,
        online: online == "1",
        since: since.parse().ok()?,
        version: version.parse().ok()?,
    })
}

fn parse_gateway(text: &str) -> Option<GatewayRef> {
    let (id, epoch) = text.rsplit_once('|')?;
    Some(GatewayRef { id: GatewayId::new(id).ok()?, epoch: Epoch(epoch.parse().ok()?) })
}

fn read<T: FromRedisValue>(reply: RedisResult<Value>) -> Result<T, PresenceError> {
    let value = reply.and_then(Value::extract_error).map_err(RedisError::from)?;
    Ok(T::from_redis_value(value).map_err(|error| RedisError::Server(error.into()))?)
}
