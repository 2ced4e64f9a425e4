//! Routes in Redis: keys and fencing as the module promises, one script call
//! per user and step, everything of one call in one round trip.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{FromRedisValue, RedisResult, Value};

use super::{Binding, Bound, DeviceRoute, Route, RouteError, Seat, Unbound};
use crate::redis::{BIND, Call, Client, Keys, Lease, RedisError, UNBIND, is_permanent, text};
use crate::types::{ConnId, DeviceId, Epoch, GatewayId, GatewayRef, UserId, unix_ms};

/// How long a lease that was seen is believed without looking again.
const LEASE_BELIEF: Duration = Duration::from_secs(2);
/// Clock difference forgiven between this gateway and Redis.
const SKEW_S: i64 = 30;

/// One gateway's routes in Redis.
#[derive(Debug)]
pub(crate) struct RedisRoutes {
    client: Client,
    keys: Keys,
    gateway: GatewayRef,
    lease: Lease,
    ttl: Duration,
    /// Leases seen lately: gateway → epoch, when. Absence is never kept.
    seen: Mutex<HashMap<GatewayId, (Epoch, Instant)>>,
}

impl RedisRoutes {
    /// For `gateway`; routes live `ttl`.
    #[must_use]
    pub(crate) fn new(client: Client, keys: Keys, gateway: GatewayRef, ttl: Duration) -> Self {
        let lease = Lease::new(client.clone(), keys.clone(), gateway.id.clone(), gateway.epoch);
        Self { client, keys, gateway, lease, ttl, seen: Mutex::default() }
    }

    pub(super) async fn bind(&self, bindings: &[Binding]) -> Result<Vec<Bound>, RouteError> {
        let of_one_user: Vec<_> = bindings.chunk_by(|a, b| a.user == b.user).collect();
        let mut calls: Vec<_> = of_one_user.iter().map(|chunk| self.bind_call(chunk)).collect();
        let replies = match (calls.pop(), calls.is_empty()) {
            // Of a connection that has come: many come at once.
            (Some(call), true) => vec![self.client.gathered(call).await?],
            (last, _) => {
                calls.extend(last);
                self.client.pipeline(calls).await?
            }
        };
        let mut outcomes = Vec::with_capacity(bindings.len());
        for (chunk, reply) in of_one_user.into_iter().zip(replies) {
            match parse_bound(reply) {
                Ok(bound) if bound.len() == chunk.len() => outcomes.extend(bound),
                Ok(_) => outcomes.extend(chunk.iter().map(|_| Bound::Broken)),
                Err(error) => {
                    skip(chunk.first().map(|b| b.user), error)?;
                    outcomes.extend(chunk.iter().map(|_| Bound::Broken));
                }
            }
        }
        Ok(outcomes)
    }

    fn bind_call(&self, bindings: &[Binding]) -> redis::Cmd {
        let keys = bindings
            .first()
            .map_or_else(Vec::new, |b| vec![self.keys.route(b.user), self.keys.devices(b.user)]);
        let call = Call::new(&BIND, &keys)
            .arg(self.gateway.id.as_str())
            .arg(self.gateway.epoch.0)
            .arg(self.ttl.as_secs().max(1));
        let add = |call: Call, b: &Binding| call.arg(b.device.as_str()).arg(b.conn.0).arg(b.bound).arg(b.age);
        bindings.iter().fold(call, add).into()
    }

    pub(super) async fn unbind(&self, bindings: &[Binding]) -> Result<Vec<Unbound>, RouteError> {
        #[cfg(feature = "planted-bugs")]
        if crate::planted::has(crate::planted::Bug::PlainUnbind) {
            return self.erase(bindings).await;
        }
        let call = |b: &Binding| {
            Call::new(&UNBIND, &[self.keys.route(b.user), self.keys.devices(b.user)])
                .arg(b.device.as_str())
                .arg(self.gateway.id.as_str())
                .arg(self.gateway.epoch.0)
                .arg(b.conn.0)
                .arg(b.bound)
                .into()
        };
        let replies = self.client.pipeline(bindings.iter().map(call).collect()).await?;
        let removed = |(binding, reply): (&Binding, _)| match read::<u64>(reply) {
            Ok(0) => Ok(Unbound::NotOurs),
            Ok(1) => Ok(Unbound::Removed),
            Ok(at) => Ok(Unbound::Last { at }),
            Err(error) => skip(Some(binding.user), error).map(|()| Unbound::NotOurs),
        };
        bindings.iter().zip(replies).map(removed).collect()
    }

    /// The planted bug *plain unbind*: late, and whoever's the route is by then.
    #[cfg(feature = "planted-bugs")]
    async fn erase(&self, bindings: &[Binding]) -> Result<Vec<Unbound>, RouteError> {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let erase = |b: &Binding| {
            let mut command = redis::cmd("DEL");
            command.arg(self.keys.route(b.user)).arg(self.keys.devices(b.user));
            command
        };
        self.client.pipeline(bindings.iter().map(erase).collect()).await?;
        Ok(vec![Unbound::Removed; bindings.len()])
    }

    pub(super) async fn query(&self, users: &[UserId]) -> Result<Vec<Route>, RouteError> {
        let get = |user: &UserId| {
            let mut command = redis::cmd("HGETALL");
            command.arg(self.keys.devices(*user));
            command
        };
        let replies = self.client.pipeline(users.iter().map(get).collect()).await?;
        let mut routes = Vec::with_capacity(users.len());
        for (user, reply) in users.iter().zip(replies) {
            let mut devices = parse_route(reply).or_else(|error| {
                skip(Some(*user), error)?;
                Ok::<_, RouteError>(Vec::new())
            })?;
            devices.sort_by_key(|device| std::cmp::Reverse(device.bound));
            routes.push(Route { devices });
        }
        let dead = self.dead(&routes).await?;
        for route in &mut routes {
            route.devices.retain(|device| !dead.contains(&device.seat.gateway));
        }
        Ok(routes)
    }

    pub(super) async fn gateways(&self) -> Result<Vec<(GatewayRef, u64)>, RouteError> {
        let live = self.lease.live().await?;
        Ok(live
            .into_iter()
            .map(|(id, r)| (GatewayRef { id, epoch: Epoch(r.epoch) }, r.connections))
            .collect())
    }

    /// Of the gateways these routes name, those without a lease of that epoch.
    async fn dead(&self, routes: &[Route]) -> Result<HashSet<GatewayRef>, RouteError> {
        let named: HashSet<&GatewayRef> = routes
            .iter()
            .flat_map(|r| &r.devices)
            .map(|d| &d.seat.gateway)
            .filter(|g| **g != self.gateway)
            .collect();
        let unsure: Vec<&GatewayRef> = {
            let seen = self.seen.lock();
            let believed = |gateway: &GatewayRef| {
                seen.get(&gateway.id)
                    .is_some_and(|(epoch, at)| *epoch == gateway.epoch && at.elapsed() < LEASE_BELIEF)
            };
            named.into_iter().filter(|gateway| !believed(gateway)).collect()
        };
        if unsure.is_empty() {
            return Ok(HashSet::new());
        }
        let ids: Vec<GatewayId> = unsure.iter().map(|gateway| gateway.id.clone()).collect();
        let records = self.lease.read(&ids).await?;
        let mut seen = self.seen.lock();
        let mut dead = HashSet::new();
        for (gateway, record) in unsure.into_iter().zip(records) {
            match record {
                Some(record) if record.epoch == gateway.epoch.0 => {
                    seen.insert(gateway.id.clone(), (gateway.epoch, Instant::now()));
                }
                _ => {
                    dead.insert(gateway.clone());
                }
            }
        }
        seen.retain(|_, (_, at)| at.elapsed() < LEASE_BELIEF);
        Ok(dead)
    }
}

fn read<T: FromRedisValue>(reply: RedisResult<Value>) -> Result<T, RouteError> {
    let value = reply.and_then(Value::extract_error).map_err(RedisError::from)?;
    Ok(T::from_redis_value(value).map_err(|error| RedisError::Server(error.into()))?)
}

fn unexpected() -> RouteError {
    let error = redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "reply about a route"));
    RouteError::Redis(error.into())
}

/// An error that is one user's entry's fault is logged and passed over; any
/// other one may go away, and is the whole call's.
fn skip(user: Option<UserId>, error: RouteError) -> Result<(), RouteError> {
    let RouteError::Redis(RedisError::Server(cause)) = &error else { return Err(error) };
    if !is_permanent(cause) {
        return Err(error);
    }
    tracing::error!(user = user.map(UserId::get), %error, "the route entry cannot be used");
    Ok(())
}

fn parse_bound(reply: RedisResult<Value>) -> Result<Vec<Bound>, RouteError> {
    let outcomes = read::<Vec<String>>(reply)?;
    outcomes.iter().map(|outcome| parse_outcome(outcome).ok_or_else(unexpected)).collect()
}

/// `outcome|bound`, and `|gateway|epoch|conn` of another holder.
fn parse_outcome(outcome: &str) -> Option<Bound> {
    let mut parts = outcome.split('|');
    let (code, bound) = (parts.next()?, parts.next()?.parse().ok()?);
    match code {
        "0" | "1" => Some(Bound::Held { bound, replaced: None }),
        "2" => Some(Bound::Held { bound, replaced: parse_seat(&mut parts) }),
        "3" => Some(Bound::Refused),
        _ => None,
    }
}

/// `gateway`, `epoch`, `conn`.
fn parse_seat<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Seat> {
    let id = GatewayId::new(parts.next()?).ok()?;
    let epoch = Epoch(parts.next()?.parse().ok()?);
    let conn = ConnId(parts.next()?.parse().ok()?);
    Some(Seat { gateway: GatewayRef { id, epoch }, conn })
}

/// A user's devices. Read where it lies: each message asks for two users'.
fn parse_route(reply: RedisResult<Value>) -> Result<Vec<DeviceRoute>, RouteError> {
    let value = reply.and_then(Value::extract_error).map_err(RedisError::from)?;
    let fields = value.as_map_iter().ok_or_else(unexpected)?;
    Ok(fields.filter_map(|(device, value)| parse_device(text(device)?, text(value)?)).collect())
}

/// `gateway|epoch|conn|bound|expiry`; what does not parse is nobody's.
fn parse_device(device: &str, value: &str) -> Option<DeviceRoute> {
    let mut parts = value.split('|');
    let seat = parse_seat(&mut parts)?;
    let bound = parts.next()?.parse().ok()?;
    let expiry: i64 = parts.next()?.parse().ok()?;
    let live = expiry + SKEW_S > unix_ms() / 1000;
    live.then_some(DeviceRoute { device: DeviceId::new(device).ok()?, seat, bound })
}
