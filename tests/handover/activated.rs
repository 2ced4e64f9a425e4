//! Under a supervisor that opens the sockets and follows the process.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::{eventually, secs};
use crate::talker::connected;

/// Opens two sockets, says so as systemd does, and becomes the gateway.
const SUPERVISOR: &str = "
import fcntl, os, socket, sys
sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]
# First out of the way of the numbers they are to have.
for copy, number in [(fcntl.fcntl(s, fcntl.F_DUPFD, 10), n) for n, s in enumerate(sockets, 3)]:
    os.dup2(copy, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2')
os.execv(sys.argv[1], sys.argv[1:])
";

fn told(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let n = socket.recv(&mut bytes).expect("the supervisor is told in time");
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

fn run_file(data: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(data.join("run.json")).ok()?).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_supervisor_opens_the_sockets_and_follows_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let (notify, data) = (dir.path().join("notify"), dir.path().join("data"));
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let log = File::create(dir.path().join("log")).unwrap();
    let mut child = Command::new("python3")
        .args(["-c", SUPERVISOR, env!("CARGO_BIN_EXE_tidegate"), "serve", "--data-dir"])
        .arg(&data)
        .env("NOTIFY_SOCKET", &notify)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    assert_eq!(told(&socket), "READY=1\nSTATUS=serving");
    let run = run_file(&data).unwrap();
    assert_eq!(run["pid"], child.id());
    let listen = run["listen"].as_str().unwrap().parse().unwrap();
    assert_ne!(run["listen"], "127.0.0.1:7700", "the given one");
    let mut phone = connected(listen, 42).await;
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGUSR2).unwrap();
    assert_eq!(told(&socket), "STATUS=hot restart");
    let handed = told(&socket);
    let heir =
        handed.strip_prefix("MAINPID=").and_then(|rest| rest.lines().next()).expect(&handed).to_owned();
    assert!(handed.contains("\nREADY=1\n"), "{handed}");
    assert_eq!(told(&socket), "BARRIER=1");
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
    eventually("the new process is found", secs(15), || async {
        (run_file(&data)?["pid"] == heir.parse::<u64>().ok()?).then_some(())
    })
    .await;
    use tokio::io::AsyncWriteExt;
    phone.write_all(&crate::talker::client_frame(0x82, &[0])).await.unwrap();
    assert_eq!(crate::talker::server_frame(&mut phone).await, Some((2, vec![0])));
    drop(connected(listen, 43).await);
    let heir = Pid::from_raw(heir.parse().unwrap());
    kill(heir, Signal::SIGTERM).unwrap();
    assert_eq!(told(&socket), "STOPPING=1\nSTATUS=draining");
    drop(phone);
    eventually("it has ended", secs(15), || async { run_file(&data).is_none().then_some(()) }).await;
}
