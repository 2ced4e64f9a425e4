//! The suite both backends pass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::redis::testing::TestRedis;
use crate::redis::{Lease, LeaseRecord};
use crate::types::{Epoch, GatewayId};

fn gateway(name: &str, epoch: u64) -> GatewayRef {
    GatewayRef { id: GatewayId::new(name).unwrap(), epoch: Epoch(epoch) }
}

fn user(id: i64) -> UserId {
    UserId::new(id).unwrap()
}

fn binding(id: i64, device: &str, conn: u64, bound: u64) -> Binding {
    Binding { user: user(id), device: DeviceId::new(device).unwrap(), conn: ConnId(conn), bound, age: 0 }
}

async fn bind(routes: &Routes, binding: Binding) -> (u64, Option<Seat>) {
    match routes.bind(&[binding], false).await.unwrap().remove(0) {
        Bound::Held { bound, replaced } => (bound, replaced),
        other => panic!("{other:?}"),
    }
}

async fn seats(routes: &Routes, id: i64) -> Vec<(String, String, u64)> {
    let route = routes.query(&[user(id)]).await.unwrap().remove(0);
    let seat = |d: DeviceRoute| (d.device.to_string(), d.seat.gateway.id.to_string(), d.seat.conn.0);
    route.devices.into_iter().map(seat).collect()
}

fn seat(device: &str, gateway: &str, conn: u64) -> (String, String, u64) {
    (device.to_owned(), gateway.to_owned(), conn)
}

/// `a` and `b` are two gateways on one table, fresh for each run.
async fn suite(a: Routes, b: Routes, ttl: Duration) {
    // Nobody is nowhere.
    assert_eq!(routes_of(&a, &[1, 2]).await, vec![vec![], vec![]]);

    // First bind, then a refresh that changes nothing.
    let (bound, replaced) = bind(&a, binding(1, "phone", 1, 0)).await;
    assert!(bound > 0 && replaced.is_none());
    assert_eq!(bind(&a, binding(1, "phone", 1, bound)).await, (bound, None));
    assert_eq!(bind(&a, binding(1, "phone", 1, 0)).await, (bound, None), "its first bind stays");
    assert_eq!(seats(&b, 1).await, [seat("phone", "a", 1)]);

    // The same device elsewhere replaces it, and learns whom to kick.
    let (later, replaced) = bind(&b, binding(1, "phone", 9, 0)).await;
    assert!(later > bound);
    assert_eq!(replaced, Some(Seat { gateway: gateway("a", 1), conn: ConnId(1) }));

    // The old one's refresh and its late unbind change nothing.
    assert_eq!(a.bind(&[binding(1, "phone", 1, bound)], true).await.unwrap(), [Bound::Refused]);
    assert_eq!(a.unbind(&[binding(1, "phone", 1, bound)]).await.unwrap(), [Unbound::NotOurs]);
    assert_eq!(seats(&a, 1).await, [seat("phone", "b", 9)]);

    // Fenced by conn and bound too.
    assert_eq!(b.unbind(&[binding(1, "phone", 8, later)]).await.unwrap(), [Unbound::NotOurs]);
    assert_eq!(b.unbind(&[binding(1, "phone", 9, later - 1)]).await.unwrap(), [Unbound::NotOurs]);

    // A second device on the other gateway; newest first.
    bind(&a, binding(1, "tablet", 2, 0)).await;
    assert_eq!(seats(&b, 1).await, [seat("tablet", "a", 2), seat("phone", "b", 9)]);
    assert_eq!(b.unbind(&[binding(1, "phone", 9, later)]).await.unwrap(), [Unbound::Removed]);
    assert_eq!(seats(&b, 1).await, [seat("tablet", "a", 2)]);

    // A re-bind after a wipe keeps its time, and yields to a later one.
    let (first, _) = bind(&a, binding(2, "phone", 3, 0)).await;
    let unbound = a.unbind(&[binding(2, "phone", 3, first)]).await.unwrap();
    assert!(matches!(unbound[..], [Unbound::Last { at }] if at >= first));
    bind(&b, binding(2, "phone", 4, first + 1)).await;
    assert_eq!(a.bind(&[binding(2, "phone", 3, first)], true).await.unwrap(), [Bound::Refused]);

    // A first bind that is paid late is as old as its connection.
    bind(&b, binding(5, "phone", 1, 0)).await;
    let late = Binding { age: 60_000_000, ..binding(5, "phone", 2, 0) };
    assert_eq!(a.bind(&[late], true).await.unwrap(), [Bound::Refused]);
    assert_eq!(seats(&a, 5).await, [seat("phone", "b", 1)]);

    // Many users and devices in one call, in order.
    let many = [binding(3, "x", 5, 0), binding(3, "y", 6, 0), binding(4, "x", 7, 0)];
    assert!(a.bind(&many, false).await.unwrap().iter().all(|b| matches!(b, Bound::Held { .. })));
    let all = routes_of(&b, &[4, 99, 3]).await;
    assert_eq!((all[0].len(), all[1].len(), all[2].len()), (1, 0, 2));

    // What is not refreshed dies; what is refreshed lives.
    let start = Instant::now();
    while !seats(&a, 4).await.is_empty() {
        assert!(start.elapsed() < ttl * 10 + Duration::from_secs(40), "never dies");
        a.bind(&many[..2], true).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(seats(&a, 3).await.len(), 2);
}

async fn routes_of(routes: &Routes, ids: &[i64]) -> Vec<Vec<DeviceRoute>> {
    let users: Vec<_> = ids.iter().map(|&id| user(id)).collect();
    routes.query(&users).await.unwrap().into_iter().map(|route| route.devices).collect()
}

#[tokio::test]
async fn memory() {
    let ttl = Duration::from_secs(1);
    let table = Arc::new(MemoryTable::new(ttl));
    let on = |gateway| Routes::Memory(MemoryRoutes::new(Arc::clone(&table), gateway));
    suite(on(gateway("a", 1)), on(gateway("b", 1)), ttl).await;
}

async fn lease(client: &crate::redis::Client, gateway: &GatewayRef) -> Lease {
    let lease = Lease::new(client.clone(), TestRedis::keys(), gateway.id.clone(), gateway.epoch);
    let record =
        LeaseRecord { epoch: gateway.epoch.0, listen: "l".into(), admin: "a".into(), pid: 1, connections: 0 };
    lease.acquire(&record).await.unwrap();
    lease
}

#[tokio::test]
async fn redis() {
    let server = TestRedis::start();
    let client = server.client().await;
    let ttl = Duration::from_secs(1);
    let on = |gateway| Routes::Redis(RedisRoutes::new(client.clone(), TestRedis::keys(), gateway, ttl));
    let (a, b) = (gateway("a", 1), gateway("b", 1));
    lease(&client, &a).await;
    lease(&client, &b).await;
    suite(on(a), on(b), ttl).await;
}

#[tokio::test]
async fn redis_keys_are_as_promised() {
    let server = TestRedis::start();
    let client = server.client().await;
    let a = gateway("a", 1);
    let lease = lease(&client, &a).await;
    let routes = Routes::Redis(RedisRoutes::new(client.clone(), TestRedis::keys(), a, ROUTE_TTL));
    let b = gateway("b", 1);
    let other = Routes::Redis(RedisRoutes::new(client.clone(), TestRedis::keys(), b, ROUTE_TTL));
    let (phone, _) = bind(&routes, binding(42, "phone", 1, 0)).await;
    let get = |key: &str| client.command::<Option<String>>(::redis::cmd("GET").arg(key).to_owned());
    let ttl = |key: &str| client.command::<i64>(::redis::cmd("TTL").arg(key).to_owned());
    assert_eq!(get("route:42").await.unwrap().as_deref(), Some("a"));
    assert!((1..=120).contains(&ttl("route:42").await.unwrap()));
    assert!((1..=120).contains(&ttl("{route:42}:devices").await.unwrap()));

    // The newest bind names the route; when it leaves, a remaining one does.
    let (tablet, _) = bind(&other, binding(42, "tablet", 1, 0)).await;
    assert_eq!(get("route:42").await.unwrap().as_deref(), Some("b"));
    // b holds no lease: its devices are dead and skipped.
    assert_eq!(seats(&routes, 42).await, [seat("phone", "a", 1)]);
    assert_ne!(other.unbind(&[binding(42, "tablet", 1, tablet)]).await.unwrap(), [Unbound::NotOurs]);
    assert_eq!(get("route:42").await.unwrap().as_deref(), Some("a"));
    assert!((1..=120).contains(&ttl("route:42").await.unwrap()));
    assert_ne!(routes.unbind(&[binding(42, "phone", 1, phone)]).await.unwrap(), [Unbound::NotOurs]);
    assert_eq!(get("route:42").await.unwrap(), None);

    // What is broken harms nobody else: an entry that does not parse is
    // nobody's, a key of the wrong type is passed over.
    let run = |words: &[&str]| {
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]);
        command
    };
    client.command::<i64>(run(&["HSET", "{route:50}:devices", "phone", "a|x|1|1|9999999999"])).await.unwrap();
    client.command::<String>(run(&["SET", "{route:51}:devices", "x"])).await.unwrap();
    let outcome = routes
        .bind(&[binding(50, "phone", 1, 0), binding(51, "phone", 1, 0), binding(52, "phone", 1, 0)], false)
        .await
        .unwrap();
    assert!(matches!(outcome[..], [Bound::Held { .. }, Bound::Broken, Bound::Held { .. }]), "{outcome:?}");
    let found = routes_of(&routes, &[50, 51, 52]).await;
    assert_eq!((found[0].len(), found[1].len(), found[2].len()), (1, 0, 1));

    // A forgotten script is loaded again.
    client.command::<String>(::redis::cmd("SCRIPT").arg("FLUSH").to_owned()).await.unwrap();
    bind(&routes, binding(42, "phone", 1, 0)).await;

    // The lease: renewed, retaken when gone, lost when another epoch has it.
    use crate::redis::Renewal;
    let record =
        LeaseRecord { epoch: 1, listen: String::new(), admin: String::new(), pid: 1, connections: 5 };
    assert_eq!(lease.renew(&record).await.unwrap(), Renewal::Renewed);
    client.command::<i64>(::redis::cmd("DEL").arg("gateway:a").to_owned()).await.unwrap();
    assert_eq!(lease.renew(&record).await.unwrap(), Renewal::Retaken);
    let mut other = record.clone();
    other.epoch = 2;
    let usurper = serde_json::to_string(&other).unwrap();
    client.command::<String>(::redis::cmd("SET").arg("gateway:a").arg(usurper).to_owned()).await.unwrap();
    assert_eq!(lease.renew(&record).await.unwrap(), Renewal::Lost(Box::new(other)));
}
