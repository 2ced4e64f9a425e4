//! The new process's side.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::TcpStream;

use super::state::{FORMAT, OLDEST_FORMAT, Summary};
use super::{Channel, Facts, HandoverError};
use crate::pipeline::Ports;
use crate::types::{ConnId, Epoch, GatewayId, GatewayRef, continue_monotonic};
use crate::wire::pb::handover_message::Message;
use crate::wire::pb::{
    HandoverHello, HandoverReady, HandoverRefusal, HandoverStaged, HandoverStarted, HandoverTaken,
    HandoverWelcome,
};

/// Longest the old process may take for its part of a step. It has deadlines
/// of its own, and its end is seen at once.
const STEP: Duration = Duration::from_secs(60);
const SEND: Duration = Duration::from_secs(5);
/// Longest between having everything and the commit.
const VERDICT: Duration = Duration::from_secs(30);

/// What the new process begins with.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The same gateway, in the same epoch.
    pub own: GatewayRef,
    /// The WebSocket listener.
    pub listener: OwnedFd,
    /// The admin listener.
    pub admin: OwnedFd,
    /// The lock of the data directory, held.
    pub lock: OwnedFd,
    /// The node number in message ids.
    pub node: u16,
}

/// The state, not yet read.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(super) memory: OwnedFd,
    pub(super) summary: Summary,
    pub(super) connections: u64,
    /// The sockets of the connections in it.
    pub(super) sockets: HashMap<ConnId, TcpStream>,
}

/// A process that takes over from the one it was started by.
#[derive(Debug)]
pub(crate) struct Newcomer {
    channel: Channel,
    sockets: HashMap<ConnId, TcpStream>,
}

impl Newcomer {
    /// Says who this is, and takes what the process itself needs. Must run
    /// within a tokio runtime.
    pub(crate) async fn meet(facts: Facts) -> Result<(Self, Inherited), HandoverError> {
        let channel = Channel::inherited()?;
        let hello = HandoverHello {
            pid: std::process::id(),
            build: env!("TIDEGATE_COMMIT").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            oldest_format: OLDEST_FORMAT,
            newest_format: FORMAT,
            facts: facts.into_inner(),
        };
        channel.send(Message::Hello(hello), &[], SEND).await?;
        let (welcome, descriptors) = match channel.receive("the old process answers", STEP).await? {
            (Message::Welcome(welcome), descriptors) => (welcome, descriptors),
            (other, _) => return Err(HandoverError::Unexpected(format!("{other:?}"))),
        };
        continue_monotonic(welcome.monotonic_ms);
        let inherited = inherit(&welcome, descriptors)?;
        Ok((Self { channel, sockets: HashMap::new() }, inherited))
    }

    /// This process could serve; sockets may come.
    pub(crate) async fn ready(&self) -> Result<(), HandoverError> {
        self.channel.send(Message::Ready(HandoverReady {}), &[], SEND).await
    }

    /// Takes sockets until the state comes; the bus of `ports`, where there is
    /// one, is divided when that is asked for.
    pub(crate) async fn receive(&mut self, ports: Option<&Ports>) -> Result<Arrived, HandoverError> {
        loop {
            let (message, descriptors) = self.channel.receive("the state comes", STEP).await?;
            match message {
                Message::Sockets(sockets) => self.take(&sockets.conn_ids, descriptors).await?,
                Message::Gone(gone) => {
                    gone.conn_ids.iter().for_each(|conn| drop(self.sockets.remove(&ConnId(*conn))));
                }
                Message::Cut(cut) => {
                    if let Some(ports) = ports {
                        ports.bus.expect_mark(cut.mark);
                        if !ports.bus.publish_mark(cut.mark).await {
                            return Err(HandoverError::Unfit("redis does not take the mark".to_owned()));
                        }
                    }
                }
                Message::State(state) => {
                    let [memory] = <[OwnedFd; 1]>::try_from(descriptors)
                        .map_err(|_| HandoverError::Unexpected("a state without its memory".to_owned()))?;
                    let summary =
                        Summary { records: state.records, bytes: state.bytes, digest: state.digest };
                    let sockets = std::mem::take(&mut self.sockets);
                    return Ok(Arrived { memory, summary, connections: state.connections, sockets });
                }
                other => return Err(HandoverError::Unexpected(format!("{other:?}"))),
            }
        }
    }

    /// Registered now, so that it need not be done while everything stands
    /// still; nobody polls them yet.
    async fn take(&mut self, conns: &[u64], descriptors: Vec<OwnedFd>) -> Result<(), HandoverError> {
        if conns.len() != descriptors.len() {
            return Err(HandoverError::Truncated);
        }
        for (conn, descriptor) in conns.iter().zip(descriptors) {
            // Non-blocking it is already: that belongs to the socket, not to us.
            let stream = TcpStream::from_std(descriptor.into()).map_err(HandoverError::io("socket"))?;
            self.sockets.insert(ConnId(*conn), stream);
        }
        let sockets = u32::try_from(conns.len()).unwrap_or(u32::MAX);
        self.channel.send(Message::Taken(HandoverTaken { sockets }), &[], SEND).await
    }

    /// Everything is here and makes sense; waits for the commit.
    pub(crate) async fn staged(&self, connections: u64, digest: u32) -> Result<(), HandoverError> {
        let staged = HandoverStaged { connections, digest };
        self.channel.send(Message::Staged(staged), &[], SEND).await?;
        match self.channel.receive("the commit", VERDICT).await? {
            (Message::Commit(_), _) => Ok(()),
            (other, _) => Err(HandoverError::Unexpected(format!("{other:?}"))),
        }
    }

    /// It serves.
    pub(crate) async fn started(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // The old process may have gone; there is nothing more it could do.
        let _ = self.channel.send(Message::Started(HandoverStarted { micros }), &[], SEND).await;
    }

    /// It will not.
    pub(crate) async fn refuse(&self, why: &(dyn std::fmt::Display + Sync)) {
        let refusal = HandoverRefusal { why: why.to_string() };
        let _ = self.channel.send(Message::Refusal(refusal), &[], SEND).await;
    }
}

fn inherit(welcome: &HandoverWelcome, descriptors: Vec<OwnedFd>) -> Result<Inherited, HandoverError> {
    if welcome.descriptors.len() != descriptors.len() {
        return Err(HandoverError::Truncated);
    }
    if !(OLDEST_FORMAT..=FORMAT).contains(&welcome.format) {
        return Err(HandoverError::Unfit(format!("state format {} is not known here", welcome.format)));
    }
    let mut named: HashMap<&str, OwnedFd> =
        welcome.descriptors.iter().map(String::as_str).zip(descriptors).collect();
    let mut take = |name: &str| {
        let missing = || HandoverError::Unexpected(format!("no descriptor for {name}"));
        named.remove(name).ok_or_else(missing)
    };
    let id = GatewayId::new(&welcome.gateway_id).map_err(|e| HandoverError::Unexpected(e.to_string()))?;
    Ok(Inherited {
        own: GatewayRef { id, epoch: Epoch(welcome.epoch) },
        listener: take("websocket")?,
        admin: take("admin")?,
        lock: take("lock")?,
        node: u16::try_from(welcome.node).unwrap_or(0),
    })
}
