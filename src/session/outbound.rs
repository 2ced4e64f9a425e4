//! The writing half of a connection: the outbox, drained into vectored writes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use crate::hub::{Class, Frame};
use crate::telemetry::metrics;

/// Most frames of one vectored write; the kernel takes 1024, but a stack full
/// of slices costs more than a second call.
const MAX_SLICES: usize = 64;

/// What one attempt to write did.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Written {
    /// Bytes of frames that left whole.
    pub(super) bytes: usize,
    /// Frames that left whole.
    pub(super) frames: usize,
    /// Whether anything left at all.
    pub(super) moved: bool,
}

/// Writes `queue` as far as the kernel takes it, removing what left whole;
/// `offset` is how much of the first frame left before. Ready once the queue
/// is empty.
pub(super) fn poll_flush(
    stream: &TcpStream,
    queue: &mut VecDeque<Frame>,
    offset: &mut u32,
    cx: &mut Context<'_>,
    written: &mut Written,
) -> Poll<io::Result<()>> {
    let mut copies = 0_u32;
    let mut total = 0_u64;
    let outcome = loop {
        if queue.is_empty() {
            break Poll::Ready(Ok(()));
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let skipped = usize::try_from(*offset).unwrap_or(usize::MAX);
        let mut skip = skipped;
        for (slice, frame) in slices.iter_mut().zip(queue.iter()) {
            *slice = IoSlice::new(frame.bytes.get(std::mem::take(&mut skip)..).unwrap_or_default());
        }
        let filled = slices.get(..queue.len().min(MAX_SLICES)).unwrap_or_default();
        match poll_write(stream, cx, filled) {
            Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(n)) => {
                total += u64::try_from(n).unwrap_or(0);
                written.moved = true;
                let mut left = skipped + n;
                while let Some(front) = queue.front() {
                    let size = front.bytes.len();
                    if left < size {
                        break;
                    }
                    left -= size;
                    written.bytes += size;
                    written.frames += 1;
                    copies += u32::from(front.class == Class::Push);
                    metrics().count_out(front.kind, 1);
                    queue.pop_front();
                }
                // Of one frame, which is bounded.
                *offset = u32::try_from(left).unwrap_or(u32::MAX);
            }
            Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
            Poll::Pending => break Poll::Pending,
        }
    };
    if total > 0 {
        metrics().bytes_out.increment(total);
    }
    if written.frames > 1 {
        metrics().batched_frames.increment(u64::try_from(written.frames).unwrap_or(u64::MAX));
    }
    if copies > 0 {
        metrics().copies_written.increment(u64::from(copies));
        metrics().copies_queued.decrement(copies);
    }
    outcome
}

fn poll_write(stream: &TcpStream, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let written = match slices {
            [one] => stream.try_write(one),
            many => stream.try_write_vectored(many),
        };
        match written {
            // Not ready after all: once more, to be woken.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

/// Counts frames that will never be written.
pub(super) fn count_dropped<'a>(frames: impl IntoIterator<Item = &'a Frame>, slow: bool) {
    let copies = frames.into_iter().filter(|frame| frame.class == Class::Push).count();
    if copies == 0 {
        return;
    }
    let dropped = if slow { &metrics().copies_dropped_slow } else { &metrics().copies_dropped_closed };
    dropped.increment(u64::try_from(copies).unwrap_or(u64::MAX));
    metrics().copies_queued.decrement(u32::try_from(copies).unwrap_or(u32::MAX));
}
