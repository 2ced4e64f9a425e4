//! One connection of the floor.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;

use anyhow::{Result, bail};
use tidegate::internal::{HEARTBEAT_ECHO, Payload, encode, reply, unmask};
use tidegate::proto::Ready;

/// The answer to every upgrade, which always has the same key, and `Ready`.
static WELCOME: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let ready = Ready { session_id: "1".into(), gateway_id: "floor".into(), ..Ready::default() };
    let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: tidegate.v1\r\n\r\n";
    [&head[..], &encode(&reply("", Payload::Ready(ready)))].concat()
});

/// A client, upgraded or about to be.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) stream: TcpStream,
    is_upgraded: bool,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Guest {
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self { stream, is_upgraded: false, input: Vec::new(), output: Vec::new() }
    }

    /// Whether it takes part.
    pub(super) const fn is_upgraded(&self) -> bool {
        self.is_upgraded
    }

    /// Whether something waits for room in the socket.
    pub(super) const fn is_behind(&self) -> bool {
        !self.output.is_empty()
    }

    /// Reads once, answers heartbeats, and hands over every other message.
    pub(super) fn read(&mut self, scratch: &mut [u8], mut message: impl FnMut(&[u8])) -> Result<()> {
        let count = match self.stream.read(scratch) {
            Ok(0) => bail!("left"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let fresh = scratch.get_mut(..count).unwrap_or_default();
        if self.input.is_empty() {
            let used = self.take(fresh, &mut message)?;
            self.input.extend_from_slice(fresh.get(used..).unwrap_or_default());
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(fresh);
            let used = self.take(&mut input, &mut message)?;
            if used < input.len() {
                input.drain(..used);
                self.input = input;
            }
        }
        Ok(())
    }

    fn take(&mut self, input: &mut [u8], message: &mut impl FnMut(&[u8])) -> Result<usize> {
        if !self.is_upgraded {
            let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(0) };
            self.is_upgraded = true;
            self.write(&WELCOME)?;
            return Ok(end + 4);
        }
        let (mut used, mut echoes) = (0, Vec::new());
        loop {
            let rest = input.get_mut(used..).unwrap_or_default();
            let Some((header, mask, length)) = parse(rest)? else { break };
            let payload = rest.get_mut(header..header + length).unwrap_or_default();
            unmask(payload, mask);
            if payload == [0] {
                echoes.extend_from_slice(&HEARTBEAT_ECHO);
            } else {
                message(payload);
            }
            used += header + length;
        }
        if !echoes.is_empty() {
            self.write(&echoes)?;
        }
        Ok(used)
    }

    /// Sends, behind what waits already.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.output.is_empty() {
            self.output.extend_from_slice(bytes);
            return Ok(());
        }
        match self.stream.write(bytes) {
            Ok(sent) => self.output.extend_from_slice(bytes.get(sent..).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.output.extend_from_slice(bytes),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) -> Result<()> {
        let output = std::mem::take(&mut self.output);
        if output.is_empty() { Ok(()) } else { self.write(&output) }
    }
}

/// A client's binary frame at the start of `input`: header bytes, mask and
/// payload bytes; `None` = more bytes are needed.
fn parse(input: &[u8]) -> Result<Option<(usize, [u8; 4], usize)>> {
    let &[first, second, ref rest @ ..] = input else { return Ok(None) };
    if first == 0x88 {
        bail!("left");
    }
    if first != 0x82 || second & 0x80 == 0 {
        bail!("a frame the load generator does not send");
    }
    let (extended, length) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(&length) => (2, usize::from(u16::from_be_bytes(length))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(&length) => (8, usize::try_from(u64::from_be_bytes(length))?),
            None => return Ok(None),
        },
        short => (0, usize::from(short)),
    };
    let Some(&mask) = rest.get(extended..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
    let header = 2 + extended + 4;
    Ok((input.len() >= header + length).then_some((header, mask, length)))
}
