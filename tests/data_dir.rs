//! A data directory that cannot be used ends the start with the reason, not
//! with a gateway that cannot store.

#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;

use std::path::Path;

use common::{Client, Gateway, Options, SmallDisk, secs};

/// What a start in this directory says before it gives up.
async fn refusal(dir: &Path) -> String {
    let (status, log) = Gateway::refusal(Options::new().data_dir(dir), secs(30)).await;
    assert!(!status.success());
    assert!(log.contains(dir.to_str().unwrap()), "{log}");
    log
}

#[tokio::test]
async fn one_of_another_gateway_is_refused() {
    let gateway = Gateway::start(Options::new()).await;
    let log = refusal(&gateway.data_dir()).await;
    assert!(log.contains("another gateway is running on it"), "{log}");
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    phone.store_text("p2p:42:43", "m-1", "the first one is not harmed").await;
}

#[tokio::test]
async fn one_of_a_newer_format_is_refused() {
    let mut gateway = Gateway::start(Options::new()).await;
    gateway.kill();
    std::fs::write(gateway.data_dir().join("store/version"), b"FJL\x04").unwrap();
    let log = refusal(&gateway.data_dir()).await;
    assert!(log.contains("another version of the storage engine"), "{log}");
}

#[tokio::test]
async fn a_damaged_one_is_refused_with_what_to_do() {
    let mut gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    for n in 0..5 {
        phone.store_text("p2p:42:43", &format!("m-{n}"), "x").await;
    }
    gateway.kill();
    let journal = gateway.data_dir().join("store/0.jnl");
    let mut content = std::fs::read(&journal).unwrap();
    let at = content.windows(3).position(|window| window == b"m-1").unwrap();
    *content.get_mut(at).unwrap() = b'?';
    std::fs::write(&journal, content).unwrap();
    let log = refusal(&gateway.data_dir()).await;
    assert!(log.contains("0.jnl is damaged at byte") && log.contains("--restored"), "{log}");
}

#[tokio::test]
async fn one_that_cannot_be_written_is_refused() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut gateway = Gateway::start(Options::new().data_dir(disk.path())).await;
    gateway.kill();
    disk.make_read_only();
    let log = refusal(disk.path()).await;
    assert!(log.contains("Read-only file system"), "{log}");
}
