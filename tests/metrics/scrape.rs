//! `/metrics` as numbers, and what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::common::{Gateway, Http, SOON, eventually};

/// A series as it is written in these tests: `name{label=value,…}`.
pub(crate) type Series = &'static str;

/// One scrape. A histogram shows as its `_count`.
#[derive(Debug)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// 0 for what is not there yet.
    pub(crate) fn get(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }

    /// The sum over the labels of one name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.0.iter().filter(|(series, _)| name_of(series) == name).map(|(_, value)| value).sum()
    }

    pub(crate) fn series(&self) -> BTreeSet<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// A series without its labels.
pub(crate) fn name_of(series: &str) -> &str {
    series.split('{').next().unwrap()
}

/// One gateway's metrics, compared to what they were.
pub(crate) struct Metrics {
    http: Http,
    before: Scrape,
}

impl Metrics {
    pub(crate) async fn of(gateway: &Gateway) -> Self {
        let http = gateway.http();
        let before = scrape(&http).await;
        Self { http, before }
    }

    pub(crate) async fn now(&self) -> Scrape {
        scrape(&self.http).await
    }

    /// By how much a counter grew.
    pub(crate) async fn grown(&self, series: Series) -> f64 {
        self.now().await.get(series) - self.before.get(series)
    }

    /// Waits until every one of these counters is above what it was.
    pub(crate) async fn moved(&self, all: &[Series]) {
        self.moved_within(all, SOON).await;
    }

    pub(crate) async fn moved_within(&self, all: &[Series], deadline: Duration) {
        for series in all {
            eventually(&format!("{series} moves"), deadline, || async {
                (self.grown(series).await > 0.0).then_some(())
            })
            .await;
        }
    }

    /// Waits until a gauge has this value.
    pub(crate) async fn becomes(&self, series: Series, value: f64) {
        self.becomes_within(series, value, SOON).await;
    }

    pub(crate) async fn becomes_within(&self, series: Series, value: f64, deadline: Duration) {
        eventually(&format!("{series} becomes {value}"), deadline, || async {
            (self.now().await.get(series) == value).then_some(())
        })
        .await;
    }

    /// Checks both laws of conservation, once everything has come to rest.
    pub(crate) async fn are_conserved(&self) {
        self.becomes("tidegate_messages_in_flight", 0.0).await;
        eventually("both laws hold", SOON, || async {
            let now = self.now().await;
            let messages = now.get("tidegate_messages_stored_total")
                + now.get("tidegate_messages_duplicate_total")
                + now.sum("tidegate_messages_refused_total")
                + now.get("tidegate_messages_in_flight");
            let copies = now.get("tidegate_copies_written_total")
                + now.get("tidegate_copies_queued")
                + now.get("tidegate_copies_replaced_by_hint_total")
                + now.sum("tidegate_copies_dropped_total");
            let received = now.get("tidegate_messages_received_total");
            let enqueued = now.get("tidegate_copies_enqueued_total");
            println!("messages: {received} = {messages}; copies: {enqueued} = {copies}");
            (received == messages && enqueued == copies).then_some(())
        })
        .await;
    }
}

async fn scrape(http: &Http) -> Scrape {
    let text = http.get("/metrics").await.success().text();
    let mut series = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
        let name = name_of(key);
        if name.ends_with("_bucket") || name.ends_with("_seconds_sum") {
            continue;
        }
        let key = if name == "tidegate_build_info" { name.to_owned() } else { key.replace('"', "") };
        assert!(series.insert(key, value.parse().unwrap()).is_none(), "twice: {line}");
    }
    Scrape(series)
}
