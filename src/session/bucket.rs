//! A token bucket for one connection's frames. Pure.

/// Holds two seconds' worth of frames.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// Frames per second; 0 = unlimited.
    rate: u32,
    /// Thousandths of frames left.
    left: u32,
    at_ms: u64,
}

impl Bucket {
    pub(super) fn new(rate: Option<u32>, now_ms: u64) -> Self {
        let rate = rate.unwrap_or(0);
        Self { rate, left: rate.saturating_mul(2_000), at_ms: now_ms }
    }

    /// Frames per second (0 = any), thousandths of frames left, and as of when.
    pub(super) const fn parts(&self) -> (u32, u32, u64) {
        (self.rate, self.left, self.at_ms)
    }

    /// Goes on with the [parts](Self::parts) of another one.
    pub(super) const fn resume((rate, left, at_ms): (u32, u32, u64)) -> Self {
        Self { rate, left, at_ms }
    }

    /// Takes one frame; `false` = there is none left.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        if self.rate == 0 {
            return true;
        }
        let elapsed = u32::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(u32::MAX);
        self.at_ms = now_ms;
        // Frames per second times milliseconds is thousandths of frames.
        self.left =
            self.left.saturating_add(self.rate.saturating_mul(elapsed)).min(self.rate.saturating_mul(2_000));
        match self.left.checked_sub(1_000) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::new(Some(10), 0);
        assert_eq!((0..100).filter(|_| bucket.take(0)).count(), 20);
        assert_eq!((0..100).filter(|i| bucket.take(i * 100)).count(), 99, "10 a second, every 100 ms");
        assert!((0..1000).all(|_| Bucket::new(None, 0).take(0)));
    }
}
