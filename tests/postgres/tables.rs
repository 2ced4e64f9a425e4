//! What stands in the tables.

use serde_json::{Value, json};

use crate::common::{Gateway, Options, eventually, secs};
use crate::server::Postgres;
use crate::{are_copied, copying, now, report};

#[tokio::test]
async fn an_event_is_there_as_it_was_told() {
    let postgres = Postgres::start().await;
    let gateway = Gateway::start(copying(Options::new(), &postgres)).await;
    let at = now() - 5_000;
    let whole = json!({
        "installId": "install-1",
        "eventName": "opened",
        "eventTime": at,
        "eventId": "e-1",
        "properties": {"screen": "home", "deep": [1, {"x": null}]},
    });
    // JSON, but no jsonb.
    let strange = ["{\"nul\":\"a\\u0000b\"}", "{\"huge\":1e999999}", "{\"half\":\"\\ud800\"}"];
    let body = strange.iter().zip(2..).fold(whole.to_string(), |body, (properties, n)| {
        format!(
            "{body},{{\"installId\":\"install-{n}\",\"eventName\":\"opened\",\"eventTime\":{at},\
             \"properties\":{properties}}}"
        )
    });
    let reply = gateway
        .http()
        .send(hyper::Method::POST, "/v1/analytics/events", format!("{{\"events\":[{body}]}}").into())
        .await;
    let told = reply.success().json();
    let accepted = told["accepted"].as_i64().unwrap();
    assert!(accepted >= 2, "{told}");
    let database = postgres.connect().await.unwrap();
    are_copied(&database, accepted).await;
    let read = "SELECT install_id, event_id, (extract(epoch FROM event_time) * 1000)::bigint,
                       properties::text, properties_raw, received_at > event_time
                FROM analytics_event_log WHERE event_name = 'opened' ORDER BY install_id";
    let rows = database.query(read, &[]).await.unwrap();
    let first = &rows[0];
    assert_eq!(
        (first.get::<_, &str>(0), first.get::<_, &str>(1), first.get::<_, i64>(2)),
        ("install-1", "e-1", at)
    );
    let properties: Value = serde_json::from_str(first.get(3)).unwrap();
    assert_eq!(properties, whole["properties"]);
    assert!(first.get::<_, bool>(5));
    let apart = &rows[1];
    assert_eq!((apart.get::<_, Option<&str>>(3), apart.get::<_, &str>(4)), (None, strange[0]));
}

#[tokio::test]
async fn daily_and_online_numbers_are_copied() {
    let postgres = Postgres::start().await;
    let gateway = Gateway::start(copying(Options::new(), &postgres)).await;
    let told = |n: u64| json!({"installId": format!("install-{n:04}"), "eventName": "opened", "eventTime": now(), "properties": {}});
    report(&gateway, &(0..100).map(told).collect::<Vec<_>>()).await;
    let database = postgres.connect().await.unwrap();
    let read =
        "SELECT users FROM analytics_daily_active_users WHERE grouping = 'total' ORDER BY day DESC LIMIT 1";
    eventually("a hundred came today", secs(60), || async {
        let row = database.query_opt(read, &[]).await.ok()??;
        (row.get::<_, i64>(0) == 100).then_some(())
    })
    .await;
    report(&gateway, &(50..150).map(told).collect::<Vec<_>>()).await;
    eventually("and fifty more", secs(60), || async {
        (database.query_one(read, &[]).await.ok()?.get::<_, i64>(0) == 150).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tables_of_a_newer_program_are_left_alone() {
    let postgres = Postgres::start().await;
    let database = postgres.connect().await.unwrap();
    database
        .batch_execute("CREATE TABLE analytics_schema (version integer NOT NULL); INSERT INTO analytics_schema VALUES (99)")
        .await
        .unwrap();
    let gateway = Gateway::start(copying(Options::new(), &postgres)).await;
    eventually("it says why", secs(30), || async {
        gateway.log().contains("the tables are of version 99").then_some(())
    })
    .await;
    assert_eq!(gateway.http().get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_program_started_again_uses_its_tables() {
    let postgres = Postgres::start().await;
    let gateway = Gateway::start(copying(Options::new(), &postgres)).await;
    report(&gateway, &[crate::event(1)]).await;
    let database = postgres.connect().await.unwrap();
    eventually("tables are made", secs(60), || async {
        database.query_one("SELECT 1 FROM analytics_event_log", &[]).await.ok().map(drop)
    })
    .await;
    let gateway = gateway.restart().await;
    report(&gateway, &[crate::event(2)]).await;
    are_copied(&database, 2).await;
    crate::are_there_once(&database, 2).await;
}
