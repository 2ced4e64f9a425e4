//! The way of counting daily users is changed by a hot restart: by its commit,
//! and not before.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Gateway, Options, Redis, eventually, secs};
use crate::failing::{refused, wrapped};
use crate::moving::{everybody_goes_on, settle, talkers};
use crate::patient;

const USERS: u64 = 20;
const EXACT: &str = "export TIDEGATE_PRESENCE_DAU=exact";

/// Daily users of today and their error; near midnight, of the fuller day.
async fn told(gateway: &Gateway) -> (u64, Option<Value>) {
    let reply = gateway.http().patient().get("/v1/presence/dau").await.success().json();
    let days = reply["days"].as_array().unwrap();
    let day = days.iter().max_by_key(|day| day["dau"].as_u64()).unwrap();
    (day["dau"].as_u64().unwrap(), day.get("error").cloned())
}

async fn becomes(gateway: &Gateway, error: Option<Value>) {
    let expected = &(USERS, error);
    eventually("they are counted", secs(60), || async { (told(gateway).await == *expected).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_refused_changes_no_numbers() {
    let redis = Redis::start().await;
    let mut gateway = Gateway::start(patient(Options::cluster(&redis, "gw-1"))).await;
    let dir = tempfile::tempdir().unwrap();
    let talkers = talkers(&gateway, USERS.try_into().unwrap(), Duration::from_millis(20)).await;
    let estimated = Some(json!(0.0081));
    becomes(&gateway, estimated.clone()).await;
    let narrow = format!("{EXACT} TIDEGATE_LIMITS_MAX_CONNECTIONS=5");
    let narrow = wrapped(dir.path(), "narrow", &narrow);
    for _ in 0..2 {
        let said = refused(&gateway, &narrow).await;
        assert!(said.contains("more connections than this process may have"), "{said}");
        assert_eq!(told(&gateway).await, (USERS, estimated.clone()));
        let sets: Vec<String> = redis.query(&["KEYS", "presence.dau:*:s*"]).await;
        assert_eq!(sets, Vec::<String>::new());
    }
    let body = json!({ "binary": wrapped(dir.path(), "exact", EXACT) });
    let report = gateway.http().patient().post("/v1/upgrade", &body).await.success().json();
    gateway.adopt(u32::try_from(report["pid"].as_u64().unwrap()).unwrap()).await;
    becomes(&gateway, None).await;
    everybody_goes_on(&talkers, 2).await;
    settle(talkers).await;
}
