//! The last bytes of a socket.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a close may take: the last bytes out, the peer's end in.
const LINGER: Duration = Duration::from_secs(2);

/// Writes `last`, ends our side and waits for the peer's, all within 2 s:
/// closing with unread bytes in the kernel would reset the connection and
/// lose what was written.
pub(super) async fn farewell(mut stream: TcpStream, last: impl IntoIterator<Item = Bytes>) {
    let part = async {
        for bytes in last {
            stream.write_all(&bytes).await?;
        }
        stream.shutdown().await?;
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A peer that is gone, or does not end, has had its time.
    let _ = timeout(LINGER, part).await;
}
