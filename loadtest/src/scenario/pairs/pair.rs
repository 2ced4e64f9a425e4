//! One pair, and what is on its way between the two.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::Result;

use crate::frame::Template;

/// A message on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate {
    pub(super) due: Instant,
    pub(super) stored: Option<i64>,
    pub(super) delivered: Option<i64>,
    pub(super) is_refused: bool,
}

pub(super) struct Pair {
    pub(super) conversation: String,
    template: Template,
    /// Number of the oldest message on its way.
    first: u32,
    pub(super) fates: VecDeque<Fate>,
    /// Without an answer.
    pub(super) unanswered: u32,
    /// Number and seq of the newest one delivered.
    pub(super) last: Option<(u32, i64)>,
    /// To be confirmed.
    pub(super) confirm: i64,
}

impl Pair {
    pub(super) fn new(conversation: String, template: Template) -> Self {
        let fates = VecDeque::new();
        Self { conversation, template, first: 0, fates, unanswered: 0, last: None, confirm: 0 }
    }

    /// Writes the next message, which was `due` then; returns its number.
    pub(super) fn say(&mut self, due: Instant, out: &mut Vec<u8>) -> Result<u32> {
        let message = self.first + u32::try_from(self.fates.len())?;
        self.fates.push_back(Fate { due, stored: None, delivered: None, is_refused: false });
        self.unanswered += 1;
        self.template.write(message, out);
        Ok(message)
    }

    pub(super) fn fate(&mut self, message: u32) -> Option<&mut Fate> {
        self.fates.get_mut(usize::try_from(message.checked_sub(self.first)?).ok()?)
    }

    /// Forgets what both ends agree on; returns how often they do not agree
    /// on the seq.
    pub(super) fn close(&mut self) -> u64 {
        let mut wrong = 0;
        while let Some(fate) = self.fates.front() {
            match (fate.stored, fate.delivered) {
                (Some(stored), Some(delivered)) => wrong += u64::from(stored != delivered),
                _ if fate.is_refused => {}
                _ => break,
            }
            self.fates.pop_front();
            self.first += 1;
        }
        wrong
    }
}
