//! One client: a raw socket and what arrived on it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use tidegate::internal::{Frames, Payload, decode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frame::parse;

/// How long the kernel may take to accept a write.
const WRITE: Duration = Duration::from_secs(20);

/// A connected client. Holds no buffer while nothing is unfinished.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: TcpStream,
    inbox: BytesMut,
}

impl Peer {
    /// Upgrades `stream` by `request`; what came behind the answer is kept.
    pub(crate) async fn open(stream: TcpStream, request: &str) -> Result<Self> {
        let mut peer = Self { stream, inbox: BytesMut::new() };
        peer.write(request.as_bytes()).await?;
        let head = loop {
            peer.read().await?;
            if let Some(end) = peer.inbox.windows(4).position(|window| window == b"\r\n\r\n") {
                break peer.inbox.split_to(end + 4);
            }
        };
        if !head.starts_with(b"HTTP/1.1 101") {
            let line = head.as_ref().split(|&byte| byte == b'\r').next().unwrap_or_default();
            bail!("refused: {}", String::from_utf8_lossy(line));
        }
        Ok(peer)
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(WRITE, self.stream.write_all(bytes)).await.context("writing took too long")??;
        Ok(())
    }

    /// Waits for bytes and keeps them. Cancel-safe; the end of the connection
    /// is an error.
    pub(crate) async fn read(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.inbox).await? == 0 {
            bail!("the server ended the connection");
        }
        Ok(())
    }

    /// Hands over whole envelopes, in order; `None` = heartbeat.
    pub(crate) fn each(&mut self, mut sink: impl FnMut(Option<Payload>) -> Result<()>) -> Result<()> {
        self.each_message(|message| {
            for frame in Frames::new(message) {
                let frame = frame?;
                sink(if frame.is_empty() { None } else { decode(frame)?.payload })?;
            }
            Ok(())
        })
    }

    /// Hands over whole WebSocket messages, in order.
    pub(crate) fn each_message(&mut self, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while let Some((opcode, header, length)) = parse(&self.inbox)? {
            let payload = self.inbox.get(header..header + length).unwrap_or_default();
            match opcode {
                2 => sink(payload)?,
                8 => {
                    let code = payload.first_chunk().map(|&code| u16::from_be_bytes(code));
                    let text = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                    bail!("closed by the server: {} {text}", code.unwrap_or_default());
                }
                _ => {}
            }
            self.inbox.advance(header + length);
        }
        if self.inbox.is_empty() && self.inbox.capacity() > 4096 {
            self.inbox = BytesMut::new();
        }
        Ok(())
    }
}
