//! The history of online numbers: one sample per aligned instant, shown in
//! steps.

/// Most steps of one answer.
const MOST_STEPS: i64 = 1_500;
/// Longest time one answer covers, ms.
const LONGEST_MS: i64 = 400 * 24 * 3_600_000;

/// How many were online at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Unix ms; unique.
    pub at: i64,
    /// How many.
    pub online: u64,
}

/// What is asked for is too much, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpanError {
    /// It ends before it begins.
    #[error("from must be before to")]
    Empty,
    /// A step is no multiple of the time between samples.
    #[error("step must be a multiple of {0} ms, the time between two samples")]
    Step(i64),
    /// Too long.
    #[error("from and to must lie at most 400 days apart")]
    Long,
    /// Too many steps.
    #[error("{0} steps; at most {MOST_STEPS}: choose a longer step")]
    Steps(i64),
}

/// What is asked for: steps of `step` ms, from the one that holds `from` to
/// the one before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Unix ms, on a step.
    pub from: i64,
    /// Unix ms, exclusive.
    pub to: i64,
    /// Ms.
    pub step: i64,
}

impl Span {
    /// Checks it; samples lie `every` ms apart.
    pub(crate) fn new(from: i64, to: i64, step: i64, every: i64) -> Result<Self, SpanError> {
        let every = every.max(1);
        if step < every || step % every != 0 {
            return Err(SpanError::Step(every));
        }
        if from >= to {
            return Err(SpanError::Empty);
        }
        if to.saturating_sub(from) > LONGEST_MS {
            return Err(SpanError::Long);
        }
        let from = aligned(from, step);
        let steps = (to.saturating_sub(from).saturating_add(step - 1)) / step;
        if steps > MOST_STEPS {
            return Err(SpanError::Steps(steps));
        }
        Ok(Self { from, to, step })
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    /// Where it begins, unix ms.
    pub at: i64,
    /// Samples in it; 0 = a gap: nobody was there to count.
    pub samples: u64,
    /// Of the samples.
    pub min: u64,
    /// Of the samples.
    pub avg: f64,
    /// Of the samples.
    pub max: u64,
}

/// The first of the largest samples.
pub(crate) type Peak = Sample;

/// Steps without omission, and the peak of all samples.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct History {
    /// In order.
    pub steps: Vec<Step>,
    /// `None` = there is no sample.
    pub peak: Option<Peak>,
}

/// The last instant at or before `at` that is a multiple of `every`, both ms.
#[must_use]
pub(crate) fn aligned(at: i64, every: i64) -> i64 {
    at.saturating_sub(at.rem_euclid(every.max(1)))
}

/// Divides samples, in any order, into the steps of `span`.
#[must_use]
pub(crate) fn rollup(span: Span, samples: impl IntoIterator<Item = Sample>) -> History {
    let count = (span.to.saturating_sub(span.from).saturating_add(span.step - 1)) / span.step;
    let steps =
        (0..count).map(|n| Step { at: span.from + n * span.step, samples: 0, min: 0, avg: 0.0, max: 0 });
    let mut steps: Vec<Step> = steps.collect();
    let mut sums = vec![0_u64; steps.len()];
    let mut peak: Option<Peak> = None;
    for sample in samples {
        let index = usize::try_from((sample.at - span.from).div_euclid(span.step)).unwrap_or(usize::MAX);
        let (Some(step), Some(sum)) = (steps.get_mut(index), sums.get_mut(index)) else { continue };
        if sample.at >= span.to {
            continue;
        }
        let online = sample.online;
        step.min = if step.samples == 0 { online } else { step.min.min(online) };
        step.max = step.max.max(online);
        step.samples += 1;
        *sum = sum.saturating_add(online);
        let is_higher = |known: Peak| (online, known.at) > (known.online, sample.at);
        if peak.is_none_or(is_higher) {
            peak = Some(sample);
        }
    }
    for (step, sum) in steps.iter_mut().zip(sums) {
        if step.samples > 0 {
            step.avg = ratio(sum, step.samples);
        }
    }
    History { steps, peak }
}

/// To a hundredth, without a number too large for it.
fn ratio(sum: u64, count: u64) -> f64 {
    let hundredths = u128::from(sum) * 100 / u128::from(count.max(1));
    f64::from(u32::try_from(hundredths / 100).unwrap_or(u32::MAX))
        + f64::from(u32::try_from(hundredths % 100).unwrap_or(0)) / 100.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;

    fn sample(minute: i64, online: u64) -> Sample {
        Sample { at: minute * MINUTE, online }
    }

    #[test]
    fn steps_gaps_and_the_peak() {
        let span = Span::new(10 * MINUTE + 5, 25 * MINUTE, 5 * MINUTE, MINUTE).unwrap();
        assert_eq!(span.from, 10 * MINUTE);
        let samples = [sample(10, 3), sample(11, 5), sample(12, 8), sample(20, 8), sample(25, 99)];
        let History { steps, peak } = rollup(span, samples);
        let told: Vec<_> = steps.iter().map(|s| (s.at / MINUTE, s.samples, s.min, s.avg, s.max)).collect();
        assert_eq!(told, [(10, 3, 3, 5.33, 8), (15, 0, 0, 0.0, 0), (20, 1, 8, 8.0, 8)]);
        assert_eq!(peak, Some(sample(12, 8)), "the first of two");
        assert_eq!(rollup(span, []).peak, None);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let day = 1_440 * MINUTE;
        assert_eq!(Span::new(5, 5, MINUTE, MINUTE), Err(SpanError::Empty));
        assert_eq!(Span::new(0, day, 90_000, MINUTE), Err(SpanError::Step(MINUTE)));
        assert_eq!(Span::new(0, day, 0, MINUTE), Err(SpanError::Step(MINUTE)));
        assert_eq!(Span::new(0, 401 * day, day, MINUTE), Err(SpanError::Long));
        assert_eq!(Span::new(0, 2 * day, MINUTE, MINUTE), Err(SpanError::Steps(2_880)));
        assert_eq!(Span::new(i64::MIN, i64::MAX, day, MINUTE), Err(SpanError::Long));
        assert!(Span::new(0, 400 * day, day, MINUTE).is_ok());
    }

    proptest! {
        #[test]
        fn every_sample_is_in_one_step(
            online in proptest::collection::btree_map(0_i64..300, 0_u64..1_000, 0..200),
            from in 0_i64..100, length in 1_i64..200, step in 1_i64..20,
        ) {
            let span = Span::new(from * MINUTE, (from + length) * MINUTE, step * MINUTE, MINUTE).unwrap();
            let all: Vec<_> = online.iter().map(|(minute, online)| sample(*minute, *online)).collect();
            let History { steps, peak } = rollup(span, all.iter().rev().copied());
            let within: Vec<_> = all.iter().filter(|s| (span.from..span.to).contains(&s.at)).collect();
            prop_assert_eq!(steps.iter().map(|s| s.samples).sum::<u64>(), u64::try_from(within.len()).unwrap());
            prop_assert_eq!(peak.map(|p| p.online), within.iter().map(|s| s.online).max());
            for step in steps {
                let of_it: Vec<_> = within
                    .iter()
                    .filter(|s| (step.at..step.at + span.step).contains(&s.at))
                    .map(|s| s.online)
                    .collect();
                prop_assert_eq!(step.max, of_it.iter().copied().max().unwrap_or(0));
                prop_assert_eq!(step.min, of_it.iter().copied().min().unwrap_or(0));
                let [min, max] = [step.min, step.max].map(|n| f64::from(u32::try_from(n).unwrap()));
                prop_assert!(step.samples == 0 || (step.avg >= min - 0.01 && step.avg <= max));
            }
        }
    }
}
