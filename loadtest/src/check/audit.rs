//! The conversations as they are when all is over, read by a device that saw
//! nothing of the run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidegate::internal::Payload;
use tidegate::proto::{Direction, ErrorCode, SyncReq, SyncResp};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::recorder::message;
use crate::frame::envelope;
use crate::history::FinalLog;
use crate::peer::Peer;
use crate::target::upgrade;

const ANSWER: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(200);
const PAGE: u32 = 500;

/// Reads a whole conversation as `user`, from the top backwards; tries every
/// gateway for 15 s.
pub(crate) async fn read(gateways: &[SocketAddr], user: i64, conversation: &Arc<str>) -> Result<FinalLog> {
    let end = Instant::now() + PATIENCE;
    let mut turn = gateways.iter().cycle();
    loop {
        let gateway = turn.next().context("no gateway")?;
        match read_from(*gateway, user, conversation).await {
            Ok(log) => return Ok(log),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("reading {conversation}")));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn read_from(gateway: SocketAddr, user: i64, conversation: &Arc<str>) -> Result<FinalLog> {
    let path = format!("/ws?user={user}&device=audit");
    let opening = async {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        Peer::open(stream, &upgrade(&gateway.to_string(), &path, "")).await
    };
    let mut peer = timeout(ANSWER, opening).await.context("connecting took too long")??;
    let mut log = FinalLog::default();
    let mut from = 0;
    loop {
        let request = SyncReq {
            request_id: from.to_string(),
            conversation_id: conversation.to_string(),
            from_seq: from,
            limit: PAGE,
            direction: Direction::Backward.into(),
            ..SyncReq::default()
        };
        peer.write(&envelope(Payload::Sync(request))).await?;
        let page = timeout(ANSWER, answer(&mut peer, &from.to_string())).await.context("no answer")??;
        if from == 0 {
            (log.epoch, log.top) = (page.epoch, page.top_seq);
        } else if page.epoch != log.epoch {
            bail!("another epoch between two pages");
        }
        log.first_available = page.first_available_seq;
        log.messages.extend(page.messages.iter().map(|push| message(conversation, push)));
        match log.messages.last() {
            Some(last) if page.has_more && last.seq > 1 => from = last.seq - 1,
            _ => break,
        }
    }
    log.messages.reverse();
    Ok(log)
}

async fn answer(peer: &mut Peer, request: &str) -> Result<SyncResp> {
    let mut found = None;
    loop {
        peer.each(|payload| {
            match payload {
                Some(Payload::SyncResp(page)) if page.request_id == request => found = Some(page),
                Some(Payload::Error(error)) if error.ref_request_id == request => {
                    if error.code() != ErrorCode::NotFound {
                        bail!("{:?}: {}", error.code(), error.message);
                    }
                    // Nothing was ever stored there.
                    found = Some(SyncResp::default());
                }
                _ => {}
            }
            Ok(())
        })?;
        if let Some(page) = found {
            return Ok(page);
        }
        peer.read().await?;
    }
}
