//! How many instructions the hot paths take, which unlike time is the same on
//! a busy machine: counted by callgrind and held against
//! `benches/instructions.txt`. The kernel's are not in it.
//!
//! `cargo bench --profile dev --bench instructions` fails where one takes a
//! tenth more than it did; `-- --accept` takes the figures of this run as what
//! is to hold. They depend on the compiler and the profile: where the file
//! names others they are only told. It is held against the build of the tests,
//! which is there anyway: work that is added shows in it as well.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tidegate::internal::{
    Crowd, Event, Frames, Inbound, Payload, Standing, Wheel, decode, encode, parse_header, reply, unmask,
};
use tidegate::proto::{MessageType, Push, SendMessageReq, push, send_message_req};
use tidegate_loadtest::frame::envelope;
use tokio::net::{TcpListener, TcpStream};

const TIMES: u64 = 1_000;
const MEMBERS: i64 = 64;
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
/// More than this many per cent more is a regression; as many less is worth
/// a new baseline.
const TOLERANCE: i64 = 10;

/// What is counted, and how many of it one turn does.
const PATHS: &[(&str, u64)] = &[
    ("header", 1),
    ("unmask 1 KiB", 1),
    ("receive a send", 1),
    ("encode a push", 1),
    ("place, next and repeated", 1),
    ("wheel, in and out", 1),
    ("hub look-up", 1),
    ("outbox, in and out", 1),
    ("fan-out, a recipient", MEMBERS.unsigned_abs()),
];

/// The only thing that is counted.
#[inline(never)]
fn measured(turn: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        turn();
    }
}

fn count(path: &str) -> Result<()> {
    let send = Payload::Send(SendMessageReq {
        conversation_id: "p2p:1000001:1000002".into(),
        client_msg_id: "0b7c1b0e-6a0c-4a5c-9d6b-1f1d2a3b4c5d".into(),
        r#type: MessageType::Text.into(),
        content: Some(send_message_req::Content::TextContent("x".repeat(64))),
        ..SendMessageReq::default()
    });
    let pushed = reply(
        "",
        Payload::Push(Push {
            conversation_id: "p2p:1000001:1000002".into(),
            server_msg_id: "7123456789012345678".into(),
            seq: 4_711,
            epoch: 1_790_000_000_000_000,
            from_user_id: 1_000_001,
            r#type: MessageType::Text.into(),
            content: Some(push::Content::TextContent("x".repeat(64))),
            ..Push::default()
        }),
    );
    let arrived = envelope(send);
    let mut buffer = vec![0; 1_024];
    let mut inbound = Inbound::default();
    let mut received = arrived.clone();
    let mut wheel = Wheel::new(512, 100, 0);
    let (mut due, mut now) = (Vec::new(), 0);
    let mut crowd = Crowd::new(MEMBERS).context("a crowd")?;
    let mut standing = Standing::new(20).context("a standing")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clients = runtime.block_on(sockets(&crowd))?;
    crowd.say();
    match path {
        "header" => measured(&mut || {
            let _ = black_box(parse_header(black_box(&arrived)));
        }),
        "unmask 1 KiB" => measured(&mut || unmask(black_box(&mut buffer), [1, 2, 3, 4])),
        "receive a send" => measured(&mut || {
            received.copy_from_slice(&arrived);
            let fed = inbound.feed(&mut received, 1 << 17, |event| {
                if let Event::Message(message) = event {
                    for frame in Frames::new(message).flatten() {
                        drop(black_box(decode(frame)));
                    }
                }
                ControlFlow::Continue(())
            });
            assert!(fed.is_ok());
        }),
        "encode a push" => measured(&mut || drop(black_box::<Bytes>(encode(black_box(&pushed))))),
        "place, next and repeated" => measured(&mut || assert!(standing.offer())),
        "wheel, in and out" => measured(&mut || {
            wheel.insert(now + 30_000, ());
            now += 100;
            wheel.advance(now, &mut due);
            due.clear();
        }),
        "hub look-up" => measured(&mut || assert!(crowd.look_up(black_box(MEMBERS / 2)))),
        "outbox, in and out" => measured(&mut || assert_eq!(crowd.answer(), 1)),
        "fan-out, a recipient" => measured(&mut || {
            black_box(crowd.say());
        }),
        other => bail!("no such path: {other}"),
    }
    drop(clients);
    Ok(())
}

async fn sockets(crowd: &Crowd) -> Result<Vec<TcpStream>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (mut servers, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..MEMBERS {
        clients.push(TcpStream::connect(listener.local_addr()?).await?);
        let (server, _) = listener.accept().await?;
        server.writable().await?;
        servers.push(Arc::new(server));
    }
    crowd.attach(servers);
    Ok(clients)
}

/// Instructions of one path, once.
fn callgrind(path: &str, many: u64) -> Result<u64> {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured*"])
        .arg(std::env::current_exe()?)
        .args(["--count", path])
        .output()
        .context("valgrind (apt-get install valgrind)")?;
    let said = String::from_utf8_lossy(&run.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    match collected.and_then(|(_, number)| number.trim().parse::<u64>().ok()) {
        Some(count) if run.status.success() && count > 0 => Ok(count / TIMES / many),
        _ => bail!("{path} was not counted:\n{said}"),
    }
}

fn compiler() -> Result<String> {
    let version = Command::new("rustc").arg("--version").output().context("rustc")?.stdout;
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    Ok(format!("{}, {profile}", String::from_utf8(version)?.trim()))
}

fn check(accept: bool) -> Result<bool> {
    let compiler = compiler()?;
    let baseline = std::fs::read_to_string(BASELINE).unwrap_or_default();
    let named = baseline.lines().next().unwrap_or_default();
    let known: BTreeMap<&str, i64> = baseline
        .lines()
        .filter_map(|line| line.rsplit_once('\t'))
        .filter_map(|(path, count)| Some((path, count.parse().ok()?)))
        .collect();
    let (mut written, mut holds) = (format!("{compiler}\n"), true);
    for (path, many) in PATHS {
        let count = i64::try_from(callgrind(path, *many)?)?;
        writeln!(written, "{path}\t{count}")?;
        let verdict = match known.get(path) {
            None => "new".to_owned(),
            Some(was) => {
                let by = (count - was) * 100 / was.max(&1);
                holds &= by <= TOLERANCE;
                format!("{was:>8} {by:>+4} %{}", if by > TOLERANCE { "  too many" } else { "" })
            }
        };
        println!("{path:<26} {count:>8} {verdict}");
    }
    if accept {
        std::fs::write(BASELINE, written)?;
    } else if named != compiler {
        println!("the baseline is of {named}, and this of {compiler}: not compared");
        return Ok(true);
    }
    Ok(accept || holds)
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, path] = arguments.as_slice()
        && flag == "--count"
    {
        count(path)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Others, as `cargo test --benches` gives them, ask for nothing.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(ExitCode::SUCCESS);
    }
    let holds = check(arguments.iter().any(|argument| argument == "--accept"))?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
