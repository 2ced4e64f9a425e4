//! When a client sends.

use std::time::Duration;

use tokio::time::Instant;

/// As many in flight as allowed; back to back, or at a rate. At a rate, what
/// is late keeps the time it was due, so that a server that stalls is charged
/// for what it delayed.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Option<Duration>,
    due: Instant,
    end: Instant,
    free: u32,
}

impl Pace {
    /// From `begin` to `end`, `in_flight` at most at once, one `every` so
    /// often (`None` = back to back).
    pub(crate) const fn new(begin: Instant, end: Instant, in_flight: u32, every: Option<Duration>) -> Self {
        Self { every, due: begin, end, free: in_flight }
    }

    /// When the next one was due, if it is to be sent now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        if self.free == 0 || now < self.due || now >= self.end {
            return None;
        }
        self.free -= 1;
        match self.every {
            None => Some(now),
            Some(every) => {
                let due = self.due;
                self.due += every;
                Some(due)
            }
        }
    }

    /// One was answered.
    pub(crate) const fn answered(&mut self) {
        self.free += 1;
    }

    /// When to look again though nothing was answered.
    pub(crate) fn wake(&self) -> Instant {
        if self.free == 0 { self.end } else { self.due.min(self.end) }
    }

    /// Whether nothing will be sent any more.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_keeps_its_time() {
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(begin, begin + 10 * second, 1, Some(second));
        assert_eq!(pace.take(begin), Some(begin));
        assert_eq!(pace.take(begin + 3 * second), None, "one in flight");
        pace.answered();
        assert_eq!(pace.take(begin + 3 * second), Some(begin + second));
    }

    #[test]
    fn back_to_back_is_bounded_by_the_window_and_the_end() {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(1);
        let mut pace = Pace::new(begin, end, 2, None);
        assert_eq!([pace.take(begin), pace.take(begin), pace.take(begin)], [Some(begin), Some(begin), None]);
        pace.answered();
        assert_eq!(pace.take(end), None);
    }
}
