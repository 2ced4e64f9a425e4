//! Whether everybody has everything, and what was wrong.

use super::super::traveller::{Faults, Traveller};
use super::Crowd;
use crate::numbers::float;
use crate::round::Round;
use crate::scenario::lost;

impl Crowd {
    /// Whether somebody has not read yet what came while he did not read.
    pub(in super::super) fn is_behind(&self) -> bool {
        self.all.iter().any(Traveller::is_behind)
    }

    /// Whether everything sent was answered, and heard by whom it was for.
    pub(in super::super) fn is_settled(&self) -> bool {
        self.missing() == 0 && self.all.iter().all(Traveller::is_at_rest)
    }

    /// Messages that somebody should have and has not.
    fn missing(&self) -> u64 {
        let said = |index: usize| self.all.get(index).map_or(0, |one| u64::from(one.said));
        let mut missing = 0;
        for (index, one) in self.all.iter().enumerate() {
            // The first one talks to the group alone.
            let p2p = if index == 1 { 0 } else { said(index ^ 1) };
            let is_member = index > 0 && u32::try_from(index).is_ok_and(|index| index < self.shares.members);
            let group = if is_member { said(0) } else { 0 };
            missing += p2p.saturating_sub(one.heard.0.into()) + group.saturating_sub(one.group.0.into());
        }
        missing
    }

    /// Adds what was seen, and what was wrong with it.
    pub(in super::super) fn judge(self, round: &mut Round) {
        let unanswered = self.all.iter().filter(|one| !one.is_at_rest()).count();
        lost(round, "although only the process was replaced", &self.gone);
        let Faults { torn, doubled, lost, strange, refused, put_off, hinted } = self.faults;
        let problems = [
            ("messages were not what was sent", torn),
            ("things came twice", doubled),
            ("messages were missing when later ones came", lost),
            ("messages never came", self.missing()),
            (
                "clients wait for an answer, an echo or the rest",
                u64::try_from(unanswered).unwrap_or(u64::MAX),
            ),
            ("answers were to nothing that was asked", strange),
            ("sends were refused", refused),
            ("clients were told to pull", hinted),
        ];
        for (what, count) in problems.into_iter().filter(|(_, count)| *count > 0) {
            round.problem(format!("{count} {what}"));
        }
        round.add("putOff", float(put_off));
        round.add("messages", float(self.all.iter().map(|one| u64::from(one.said)).sum()));
        round.add("rttMaxMs", float(self.echo.at(1.0)) / 1_000.0);
        round.add_latencies("echo", self.echo);
        round.add_latencies("stored", self.stored);
    }
}
