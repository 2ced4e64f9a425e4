//! One of many clients: a socket, how far it is, and what is unfinished.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use anyhow::{Result, bail};

use super::Told;
use super::poller::Interest;
use crate::frame::parse;
use crate::scan::{Seen, scan};

/// How far a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The TCP connection is not made yet.
    Connecting,
    /// The answer to the upgrade is not there yet.
    Upgrading,
    /// It is, but not `Ready`.
    Waiting,
    /// Served.
    Served,
}

/// Some 80 bytes; buffers are held while something is unfinished only.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) stage: Stage,
    pub(super) interest: Interest,
    /// Reads nothing, as a phone does whose app is stopped.
    pub(super) deaf: bool,
    /// The beginning of a message whose end has not come.
    input: Vec<u8>,
    /// What the kernel has not taken yet.
    output: Vec<u8>,
}

impl Connection {
    pub(super) const fn new(stream: TcpStream, stage: Stage, output: Vec<u8>) -> Self {
        let interest = Interest::Write;
        Self { stream, stage, interest, deaf: false, input: Vec::new(), output }
    }

    /// What to watch for now.
    pub(super) fn wanted(&self) -> Interest {
        match (self.deaf, self.stage == Stage::Connecting || !self.output.is_empty()) {
            (true, false) => Interest::Nothing,
            (true, true) => Interest::Write,
            (false, true) if self.stage == Stage::Connecting => Interest::Write,
            (false, true) => Interest::Both,
            (false, false) => Interest::Read,
        }
    }

    /// Sends `bytes` behind what is unsent.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.output.is_empty() || self.stage == Stage::Connecting {
            self.output.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = write_some(&mut self.stream, bytes)?;
        self.output.extend_from_slice(bytes.get(sent..).unwrap_or_default());
        Ok(())
    }

    /// Sends what is unsent.
    pub(super) fn flush(&mut self) -> Result<()> {
        let sent = write_some(&mut self.stream, &self.output)?;
        if sent == self.output.len() {
            self.output = Vec::new();
        } else {
            self.output.drain(..sent);
        }
        Ok(())
    }

    /// Reads once and hands over what is whole; returns the bytes read.
    pub(super) fn read(&mut self, scratch: &mut [u8], sink: &mut impl FnMut(Told<'_>)) -> Result<usize> {
        let count = match self.stream.read(scratch) {
            Ok(0) => bail!("the server ended the connection"),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        let fresh = scratch.get(..count).unwrap_or_default();
        if self.input.is_empty() {
            let used = self.take(fresh, sink)?;
            self.input.extend_from_slice(fresh.get(used..).unwrap_or_default());
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(fresh);
            let used = self.take(&input, sink)?;
            if used < input.len() {
                input.drain(..used);
                self.input = input;
            }
        }
        Ok(count)
    }

    /// Takes what is whole; returns how much that was.
    fn take(&mut self, input: &[u8], sink: &mut impl FnMut(Told<'_>)) -> Result<usize> {
        let mut used = 0;
        if self.stage == Stage::Upgrading {
            let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(0) };
            if !input.starts_with(b"HTTP/1.1 101") {
                let line = input.split(|&byte| byte == b'\r').next().unwrap_or_default();
                bail!("refused: {}", String::from_utf8_lossy(line));
            }
            used = end + 4;
            self.stage = Stage::Waiting;
        }
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let Some((opcode, header, length)) = parse(rest)? else { return Ok(used) };
            let payload = rest.get(header..header + length).unwrap_or_default();
            match opcode {
                2 => scan(payload, |seen| {
                    if seen == Seen::Ready {
                        self.stage = Stage::Served;
                    }
                    sink(Told::Said(seen));
                })?,
                8 => {
                    let code = payload.first_chunk().map(|&code| u16::from_be_bytes(code));
                    let text = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                    bail!("closed by the server: {} {text}", code.unwrap_or_default());
                }
                10 => sink(Told::Said(Seen::Pong(payload))),
                _ => {}
            }
            used += header + length;
        }
    }
}

/// How much the kernel takes now.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}
