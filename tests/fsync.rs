//! A STORED leaves the socket after its message was synced to disk, also where
//! a sync failed before: what the kernel was asked, in order.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test says no"
)]

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::payload::text;
use common::{Client, Gateway, Options, SOON, eventually, secs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidegate::proto::envelope::Payload;

const CALLS: &str = "trace=fsync,fdatasync,write,writev,sendto,sendmsg,pwrite64";

/// strace, attached.
struct Trace(Child);

impl Trace {
    async fn of(gateway: &Gateway, file: &Path) -> Self {
        Self::with(gateway, file, &[]).await
    }

    /// With further options.
    async fn with(gateway: &Gateway, file: &Path, options: &[&str]) -> Self {
        let said = file.with_extension("said");
        let child = Command::new("strace")
            .args(["-f", "-yy", "-s", "20000", "-e", CALLS])
            .args(options)
            .arg("-o")
            .arg(file)
            .args(["-p", &gateway.process_id().to_string()])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&said).unwrap())
            .spawn()
            .expect("strace, which ./test setup installs");
        let trace = Self(child);
        eventually("strace is attached", SOON, || async {
            std::fs::read_to_string(&said).unwrap().contains("attached").then_some(())
        })
        .await;
        trace
    }

    fn end(mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT);
        let _ = self.0.wait();
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Per id: the line of its write to a journal, of the end of the next sync of
/// that journal by the same thread, and of its first write to a socket.
fn lines_of(trace: &str, ids: &[String]) -> Vec<(usize, usize, usize)> {
    let lines: Vec<&str> = trace.lines().collect();
    let thread = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    // A sync that was interrupted in the listing ends where it is resumed.
    let mut ends: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, line) in lines.iter().enumerate() {
        let is_sync = line.contains("sync(") && line.contains(".jnl>") && line.ends_with("= 0");
        let is_resumed = line.contains("sync resumed>") && line.ends_with("= 0");
        if is_sync || is_resumed {
            ends.entry(thread(line)).or_default().push(at);
        }
    }
    ids.iter()
        .map(|id| {
            let names = |line: &&str, place: &str| line.contains(place) && line.contains(id.as_str());
            let written = lines.iter().position(|line| names(line, ".jnl>,")).expect("it was written");
            let of_thread = &ends[&thread(lines[written])];
            let synced = *of_thread.iter().find(|end| **end > written).expect("it was synced");
            // The sender's ack is the first to name it: its push comes later.
            let told = lines.iter().position(|line| names(line, "TCP:[")).expect("it was told");
            (written, synced, told)
        })
        .collect()
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_synced() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phones = Vec::new();
    for user in [1, 3, 5, 7] {
        phones.push((user, Client::connect(&gateway, user, "phone").await));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace");
    let trace = Trace::of(&gateway, &file).await;
    let mut ids = Vec::new();
    for round in 0..25 {
        for (user, phone) in &mut phones {
            let id = format!("order-{user}-{round}-end");
            phone.send(Payload::Send(text(&format!("p2p:{user}:{}", *user + 1), &id, "x"))).await;
            ids.push(id);
        }
        if round % 5 == 4 {
            for (user, phone) in &mut phones {
                for earlier in round - 4..=round {
                    phone.expect_stored(&format!("order-{user}-{earlier}-end")).await;
                }
            }
        }
    }
    let metric = gateway.http().get("/metrics").await.text();
    trace.end();
    let commits = metric
        .lines()
        .find_map(|line| line.strip_prefix("tidegate_store_commits_total ")?.parse::<f64>().ok())
        .unwrap();
    assert!((5.0..=100.0).contains(&commits), "{commits} commits of 100 messages");
    let text = eventually("the trace is written", secs(5), || async {
        let text = std::fs::read_to_string(&file).unwrap();
        ids.iter().all(|id| text.contains(id.as_str())).then_some(text)
    })
    .await;
    for (id, (written, synced, told)) in ids.iter().zip(lines_of(&text, &ids)) {
        assert!(written < synced && synced < told, "{id}: written {written}, synced {synced}, told {told}");
    }
}

#[tokio::test]
async fn what_a_failed_sync_left_is_written_again_before_it_is_acknowledged() {
    let gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    phone.store_text("p2p:42:43", "m-before", "x").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trace");
    // The kernel is not even asked: as if it had dropped what it could not write.
    let trace = Trace::with(&gateway, &file, &["-e", "inject=fdatasync:error=EIO:when=1"]).await;
    // The gateway tries again by itself, as a phone would.
    let ack = phone.store_text("p2p:42:43", "m-in-doubt", "x").await;
    assert_eq!(ack.seq, 2);
    let text = eventually("the trace is written", secs(5), || async {
        let text = std::fs::read_to_string(&file).unwrap();
        text.contains(&ack.server_msg_id).then_some(text)
    })
    .await;
    trace.end();
    let lines: Vec<&str> = text.lines().collect();
    let at = |what: &str, from: usize, is: &dyn Fn(&str) -> bool| {
        let found = lines[from..].iter().position(|line| is(line));
        from + found.unwrap_or_else(|| panic!("{what}, behind line {from} of\n{text}"))
    };
    let in_journal = |line: &str| line.contains(".jnl>") && line.contains("m-in-doubt");
    let failed = at("the sync fails", 0, &|line| line.contains("(INJECTED)"));
    let again = at("it is written again", failed, &|line| in_journal(line));
    let is_synced = |line: &str| line.contains("sync") && line.ends_with("= 0");
    let synced = at("and synced", again, &is_synced);
    let told =
        at("and acknowledged", failed, &|line| line.contains("TCP:[") && line.contains(&ack.server_msg_id));
    assert!(synced < told, "synced in line {synced}, acknowledged in line {told}:\n{text}");
}

#[tokio::test]
async fn a_commit_that_filled_the_disk_half_way_is_made_once() {
    let mut gateway = Gateway::start(Options::new()).await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    phone.store_text("p2p:42:43", "m-before", "x").await;
    let dir = tempfile::tempdir().unwrap();
    let journal = gateway.data_dir().join("store/0.jnl");
    // The first write of the commit is done, the second finds no room.
    let full = ["-P", journal.to_str().unwrap(), "-e", "inject=write:error=ENOSPC:when=2"];
    let trace = Trace::with(&gateway, &dir.path().join("trace"), &full).await;
    let long = "y".repeat(30_000);
    let ack = phone.store_text("p2p:42:43", "m-half", &long).await;
    trace.end();
    let text = std::fs::read_to_string(dir.path().join("trace")).unwrap();
    assert!(text.contains("ENOSPC") && text.contains("(INJECTED)"), "{text}");
    assert_eq!((ack.seq, ack.duplicate), (2, false));
    assert!(gateway.log().contains("cut off what was being written"), "{}", gateway.log());
    phone.store_text("p2p:42:43", "m-behind", "x").await;
    gateway.kill();
    let gateway = gateway.restart().await;
    let mut phone = Client::connect(&gateway, 42, "phone").await;
    let ids: Vec<_> = phone.pull("p2p:42:43").await.into_iter().map(|push| push.client_msg_id).collect();
    assert_eq!(ids, ["m-before", "m-half", "m-behind"]);
}
