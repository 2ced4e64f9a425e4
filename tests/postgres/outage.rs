//! A database that is away, and a gateway that goes away: nothing is lost and
//! nothing is doubled.

use std::time::Instant;

use crate::common::{Gateway, Options, Redis, eventually, secs};
use crate::server::Postgres;
use crate::{are_copied, are_there_once, copying, event, report};

/// How long it is away.
const AWAY: std::time::Duration = std::time::Duration::from_secs(30);

async fn survives(options: Options, mut postgres: Postgres) {
    let gateway = Gateway::start(copying(options, &postgres)).await;
    let mut next = 0;
    let mut some = async |count: u64| {
        report(&gateway, &(next..next + count).map(event).collect::<Vec<_>>()).await;
        next += count;
        i64::try_from(next).unwrap()
    };
    let sent = some(300).await;
    are_copied(&postgres.connect().await.unwrap(), sent).await;
    postgres.stop();
    let since = Instant::now();
    while since.elapsed() < AWAY {
        some(50).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    eventually("it is told how far behind it is", secs(30), || async {
        let text = gateway.http().get("/metrics").await.text();
        let lag = text
            .lines()
            .find_map(|line| line.strip_prefix("tidegate_analytics_sink_lag_seconds{sink=\"postgres\"} "))?;
        (lag.parse::<f64>().unwrap() > 5.0).then_some(())
    })
    .await;
    postgres.start_again().await;
    let sent = some(300).await;
    let database = postgres.connect().await.unwrap();
    are_copied(&database, sent).await;
    are_there_once(&database, sent).await;
}

#[tokio::test]
async fn thirty_seconds_without_a_database_lose_and_double_nothing_alone() {
    survives(Options::new(), Postgres::start().await).await;
}

#[tokio::test]
async fn thirty_seconds_without_a_database_lose_and_double_nothing_on_redis() {
    let redis = Redis::start().await;
    survives(Options::cluster(&redis, "gw-1"), Postgres::start().await).await;
}

#[tokio::test]
async fn another_gateway_goes_on_where_one_was_killed() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let mut a = Gateway::start(copying(Options::cluster(&redis, "gw-a"), &postgres)).await;
    let b = Gateway::start(copying(Options::cluster(&redis, "gw-b"), &postgres)).await;
    let database = postgres.connect().await.unwrap();
    let mut sent = 0;
    for round in 0..20_u64 {
        let events: Vec<_> = (round * 100..(round + 1) * 100).map(event).collect();
        report(&b, &events).await;
        sent += 100;
        if round == 5 {
            // Whichever of the two copies: here it is the first, most times.
            a.kill();
        }
    }
    are_copied(&database, sent).await;
    are_there_once(&database, sent).await;
}

#[tokio::test]
async fn a_database_that_was_not_there_at_first_gets_everything() {
    let mut postgres = Postgres::start().await;
    postgres.stop();
    let gateway = Gateway::start(copying(Options::new(), &postgres)).await;
    report(&gateway, &(0..10).map(event).collect::<Vec<_>>()).await;
    assert_eq!(gateway.http().get("/readyz").await.status, 200, "nobody waits for a sink");
    postgres.start_again().await;
    let database = postgres.connect().await.unwrap();
    eventually("tables are made", secs(60), || async {
        database.query_one("SELECT count(*) FROM analytics_event_log", &[]).await.ok().map(drop)
    })
    .await;
    are_copied(&database, 10).await;
    are_there_once(&database, 10).await;
}
