//! What presence costs Redis: one round trip a second, however many there are.

use super::common::{Client, Gateway, Options, Redis};
use super::*;

const CLIENTS: i64 = 100;
const SPAN: Duration = secs(10);

async fn rounds(gateway: &Gateway) -> u64 {
    let text = gateway.http().get("/metrics").await.success().text();
    let name = "tidegate_presence_flush_duration_seconds_count ";
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

/// Calls about presence since the log was emptied; what a script calls itself
/// is logged too, and left out.
async fn calls(redis: &Redis) -> usize {
    type Entry = (i64, i64, i64, Vec<Vec<u8>>, String, String);
    let log: Vec<Entry> = redis.query(&["SLOWLOG", "GET", "-1"]).await;
    let is_call = |words: &[Vec<u8>]| {
        words[0].eq_ignore_ascii_case(b"evalsha") && words.iter().any(|w| w == b"presence:online_users")
    };
    log.iter().filter(|entry| is_call(&entry.3)).count()
}

#[tokio::test]
async fn a_round_trip_a_second_is_enough() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(open(Options::cluster(&redis, "gw-a"))).await;
    let mut clients = Vec::new();
    for user in 1..=CLIENTS {
        clients.push(Client::connect(&gateway, user, "phone").await);
    }
    let all: Vec<i64> = (1..=CLIENTS).collect();
    for watcher in clients.iter_mut().take(10) {
        watcher.watch(&all).await;
    }
    count_becomes(&gateway, 100).await;
    for setting in [["slowlog-max-len", "100000"], ["slowlog-log-slower-than", "0"]] {
        let _: String = redis.query(&[&["CONFIG", "SET"][..], &setting].concat()).await;
    }
    let (began, said) = (Instant::now(), rounds(&gateway).await);
    while began.elapsed() < SPAN {
        for client in &mut clients {
            client.beat().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (said, calls) = (rounds(&gateway).await - said, calls(&redis).await);
    let seconds = began.elapsed().as_secs() + 1;
    println!("{said} rounds, {calls} calls in {seconds} s with {CLIENTS} clients");
    assert!((1..=seconds).contains(&said), "{said} rounds in {seconds} s");
    // What is said and what is looked at, in one go.
    let most = usize::try_from(2 * said + 2).unwrap();
    assert!((1..=most).contains(&calls), "{calls} calls in {said} rounds");
}
