//! The process's allocator, and what it keeps of memory that nobody uses.
//!
//! Chosen by measurement (`benches/README.md`): glibc's takes a third more for
//! an idle connection, because a task is aligned to 128 bytes, and keeps what
//! left.

#[cfg(not(feature = "jemalloc"))]
pub(crate) use self::mimalloc::before_wait;

/// Pages of 4 KiB only, for this process and those it starts: of one of 2 MiB
/// nothing goes back while a few bytes of it are in use.
pub(crate) fn begin() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages stay as the system has them");
    }
}

/// Its own thread gives back what the others have freed, also while they idle.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A thread is about to wait: here, there is nothing to do.
#[cfg(feature = "jemalloc")]
pub(crate) const fn before_wait() {}

#[cfg(not(feature = "jemalloc"))]
mod mimalloc {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    #[global_allocator]
    static ALLOCATOR: ::mimalloc::MiMalloc = ::mimalloc::MiMalloc;

    /// Between two looks of one thread, at least, and at most …
    const PAUSE: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(10);
    /// … and so many times what the last one took: it walks through the thread's
    /// pages that are not full, and what others have freed of them.
    const SHARE: u32 = 100;

    thread_local! {
        static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// A thread is about to wait: what others have freed of its memory goes back
    /// to the system. By itself it would look only when it asks for more, which
    /// one that idles does not: of 15,000 connections nearly all would be kept
    /// when all have left. One that is never woken does not look either.
    pub(crate) fn before_wait() {
        let now = Instant::now();
        if NEXT.get().is_none_or(|next| now >= next) {
            collect();
            NEXT.set(Some(now + (now.elapsed() * SHARE).clamp(PAUSE, MOST)));
        }
    }

    #[expect(unsafe_code, reason = "a call of the allocator that the crate leaves to C")]
    fn collect() {
        // SAFETY: takes no pointer and may be called at any time by any thread
        // (mimalloc's `mi_collect`); `false` asks for nothing that is in use.
        unsafe { libmimalloc_sys::mi_collect(false) };
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const MANY: usize = 50_000;

        /// Anonymous memory that is resident, KiB.
        fn resident() -> usize {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        }

        #[test]
        fn what_another_thread_has_freed_is_given_back_by_one_that_waits() {
            let before = resident();
            let all: Vec<_> = (0..MANY).map(|_| vec![1_u8; 1_000]).collect();
            let taken = resident() - before;
            assert!(taken > MANY * 9 / 10, "{taken} KiB");
            std::thread::spawn(move || drop(all)).join().unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let kept = || resident().saturating_sub(before);
            while kept() > taken / 4 {
                assert!(Instant::now() < deadline, "{} of {taken} KiB are kept", kept());
                before_wait();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
