//! The verb *repair*: what a delivery showed to be missing is read from the
//! log, once per gateway and conversation.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Ports;
use super::proof::{current, place_at, resync_required};
use super::standing::{Judgement, Standing};
use crate::hub::{Frame, Held, Offered, Peer};
use crate::message::{Mark, Place, Proof, id_check, message_id};
use crate::store::{Page, Span, StoreError, Top};
use crate::task::spawn_core;
use crate::telemetry::{FrameKind, HintCause, metrics};
use crate::types::{ConversationId, monotonic_ms};
use crate::wire::pb::{Direction, Position, Push};
use crate::wire::{Payload, encode, reply};

/// Most conversations read at a time.
const CONCURRENT: usize = 32;
/// Most messages filled in; beyond, clients are told to pull.
const MAX_MESSAGES: usize = 500;
/// Most bytes filled in.
const MAX_BYTES: usize = 1 << 20;
/// A read that has not ended by then is tried again.
const UNDER_WAY_MS: u64 = 30_000;
/// Pause after a store that did not answer.
const RETRY_MS: u64 = 300;

pub(super) fn start(ports: &Arc<Ports>, stop: &CancellationToken) {
    spawn_core("repair", stop, run(Arc::clone(ports)));
}

async fn run(ports: Arc<Ports>) {
    let permits = Arc::new(Semaphore::new(CONCURRENT));
    loop {
        let now = monotonic_ms();
        let (due, next) = ports.hub.gaps.due(now);
        for conversation in due {
            ports.hub.gaps.take_on(&conversation, now + UNDER_WAY_MS);
            let ports = Arc::clone(&ports);
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            tokio::spawn(async move {
                ports.repair(&conversation, permit).await;
                ports.hub.gaps.done(&conversation);
            });
        }
        let pause = next.map_or(UNDER_WAY_MS, |next| next.saturating_sub(monotonic_ms()).max(1));
        tokio::select! {
            biased;
            () = ports.hub.gaps.opened.notified() => {}
            () = sleep(Duration::from_millis(pause)) => {}
        }
    }
}

impl Ports {
    /// Looks whether connections here lack something of a log that ends at
    /// `top`, or have something that is not in it.
    pub(crate) fn catch_up(&self, conversation: &ConversationId, top: &Top) {
        let id = id_check(message_id(&top.server_msg_id));
        let fits = |place: Place| {
            (place.epoch, place.seq) == (top.epoch, top.seq) && (place.id == id || place.id == 0)
                || (place.seq == 0 && top.seq == 0)
        };
        let places = self.connections_in(conversation);
        let mut behind = false;
        for peer in places {
            match peer.outbox.standing(conversation) {
                Some((place, holdings)) => behind |= !fits(place) || !holdings.is_empty(),
                // What it has is not known here, but by the client.
                None if top.seq > 0 => peer.hint(conversation, top.epoch, top.seq, 0, HintCause::Gap),
                None => {}
            }
        }
        if behind {
            self.hub.gaps.note(conversation, monotonic_ms(), None);
        }
    }

    /// Gives the `permit` back when it is done, or has to wait.
    async fn repair(&self, conversation: &ConversationId, permit: Option<OwnedSemaphorePermit>) {
        match self.try_repair(conversation, permit).await {
            Ok(()) => {}
            Err(StoreError::Unavailable) => {
                metrics().repairs_failed.increment(1);
                self.hub.gaps.postpone(conversation, monotonic_ms() + RETRY_MS + fastrand::u64(0..RETRY_MS));
            }
            Err(StoreError::Broken(why)) => {
                metrics().repairs_failed.increment(1);
                tracing::error!(%conversation, why, "a hole could not be filled");
                let held = self.hub.gaps.close(conversation);
                self.offer_held(conversation, &held, Some((0, 0)));
            }
        }
    }

    async fn try_repair(
        &self,
        conversation: &ConversationId,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(), StoreError> {
        self.reload_for(conversation).await?;
        if !self.hub.gaps.held(conversation).is_empty() && self.release(conversation) {
            return Ok(());
        }
        self.hub.gaps.begin(conversation);
        let standings = self.standings(conversation);
        let Some(from) = standings.iter().map(Standing::from).min() else {
            self.hub.gaps.close(conversation);
            return Ok(());
        };
        let span = Span {
            from: from.max(1),
            limit: MAX_MESSAGES + 1,
            max_bytes: MAX_BYTES,
            direction: Direction::Forward,
        };
        // In the log by now, if it is to be found at all; what comes while it
        // is read may not be.
        let waiting: HashSet<(u64, i64)> = self.hub.gaps.held(conversation).iter().filter_map(of).collect();
        #[cfg(test)]
        self.hub.gaps.read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let page = self.store.page(conversation, span).await?;
        // Whose it is that was stored from here is known once it is delivered.
        let ids = page.messages.iter().map(|push| message_id(&push.server_msg_id)).collect();
        let flying = self.in_flight.of(&ids);
        let permit = permit.filter(|_| flying.is_empty());
        self.in_flight.landed(flying).await;
        // Read behind it: who was removed before one of these was stored is
        // out by now.
        self.reload(conversation).await?;
        let is_out =
            |peer: &Peer| conversation.is_group() && !self.is_in_room(peer.identity.user, conversation);
        let judged: Vec<(Standing, Judgement)> = standings
            .into_iter()
            .filter(|standing| !is_out(&standing.peer))
            .map(|standing| {
                let judgement = standing.judge(&page);
                (standing, judgement)
            })
            .collect();
        let lost = judged.iter().any(|(_, judgement)| matches!(judgement, Judgement::Lost(..)));
        let held = self.hub.gaps.held(conversation);
        let position =
            if lost { self.resume_point(conversation, &held, &page).await? } else { Position::default() };
        let copies: Vec<(&Push, Frame)> = page.messages.iter().filter_map(copy).collect();
        let held = self.hub.gaps.held(conversation);
        let (mut hinted, mut again) = (false, false);
        for (standing, judgement) in judged {
            match judgement {
                Judgement::Valid => hinted |= !fill(&standing, conversation, &page, &copies, &held),
                // The page ends before its place: another one begins there.
                Judgement::Unreached => again |= is_behind(&standing.peer, conversation, &page),
                Judgement::Lost(lost, proof) => resync(&standing.peer, conversation, &lost, proof, &position),
            }
        }
        if hinted { &metrics().repairs_hinted } else { &metrics().repairs_filled }.increment(1);
        let held = self.hub.gaps.close(conversation);
        let was_waiting = |held: &Held| of(held).is_some_and(|mark| waiting.contains(&mark));
        let (read, late): (Vec<_>, Vec<_>) = held.into_iter().partition(was_waiting);
        self.offer_held(conversation, &read, Some((page.epoch, page.top)));
        self.offer_late(conversation, late);
        if again {
            self.hub.gaps.note(conversation, monotonic_ms(), None);
        }
        drop(permit);
        Ok(())
    }

    /// Where connections go on whose history is another one: before the first
    /// message that waits, or at the end.
    async fn resume_point(
        &self,
        conversation: &ConversationId,
        held: &[Held],
        page: &Page,
    ) -> Result<Position, StoreError> {
        let marks = held.iter().filter_map(|held| held.frame.mark.as_ref());
        let first = marks.filter(|mark| mark.epoch == page.epoch).map(|mark| mark.seq).min();
        let position = current(&self.store, conversation).await?;
        let Some(before) = first.map(|seq| seq - 1).filter(|before| *before < position.seq) else {
            return Ok(position);
        };
        let span = Span { from: before, limit: 1, max_bytes: MAX_BYTES, direction: Direction::Forward };
        let there = self.store.page(conversation, span).await?;
        if there.epoch != position.epoch || page.epoch != position.epoch {
            // It changes as it is read.
            return Err(StoreError::Unavailable);
        }
        let at = there.messages.first().filter(|message| message.seq == before);
        let server_msg_id = at.map(|message| message.server_msg_id.clone()).unwrap_or_default();
        Ok(Position { seq: before, server_msg_id, ..position })
    }
}

/// Epoch and seq of a message that waits.
fn of(held: &Held) -> Option<(u64, i64)> {
    held.frame.mark.as_ref().map(|mark| (mark.epoch, mark.seq))
}

fn copy(push: &Push) -> Option<(&Push, Frame)> {
    let mark = Mark::of(push)?;
    Some((push, Frame::copy(encode(&reply("", Payload::Push(push.clone()))), Arc::new(mark))))
}

/// Whether a connection has not got to the end of the log as it was read.
fn is_behind(peer: &Peer, conversation: &ConversationId, page: &Page) -> bool {
    let place = peer.outbox.place(conversation);
    place.is_some_and(|place| (place.epoch, place.seq) < (page.epoch, page.top))
}

/// Hands over what a connection lacks; `false` = it was told to pull.
fn fill(
    standing: &Standing,
    conversation: &ConversationId,
    page: &Page,
    copies: &[(&Push, Frame)],
    waiting: &[Held],
) -> bool {
    let peer = &standing.peer;
    let place = standing.go_on(conversation, page);
    let mut whole = true;
    for (push, frame) in copies.iter().filter(|(push, _)| push.seq > place.seq) {
        // Any other message of the same device may have come over another
        // connection, or without an answer.
        let own = waiting.iter().any(|held| held.is_own(peer) && of(held) == Some((push.epoch, push.seq)));
        whole &= !matches!(peer.offer(frame, own), Offered::Hole | Offered::OtherHistory);
    }
    // What is behind the page may have come meanwhile.
    whole &= !page.has_more || !is_behind(peer, conversation, page);
    if !whole {
        peer.hint(conversation, page.epoch, page.top, 0, HintCause::Gap);
    }
    whole
}

/// Tells a client that what it has is of another history, unless it was told;
/// it goes on behind `position`.
fn resync(peer: &Peer, conversation: &ConversationId, lost: &Place, proof: Proof, position: &Position) {
    let to = place_at(conversation, position);
    let error = || {
        Frame::control(
            encode(&reply("", Payload::Error(resync_required(proof, position.clone())))),
            FrameKind::Other,
        )
    };
    peer.outbox.resync(conversation, lost, &to, peer.limits(), error);
}

#[cfg(test)]
mod tests;
