//! What happened, and what should not have.

use parking_lot::Mutex;

use crate::types::{ConversationId, monotonic_ms};

#[derive(Debug)]
struct Line {
    at: u64,
    /// `None` = it concerns all.
    conversation: Option<ConversationId>,
    text: String,
}

#[derive(Debug, Default)]
struct State {
    origin: Option<u64>,
    lines: Vec<Line>,
    violations: Vec<(Option<ConversationId>, String)>,
}

/// Everything that was noted in one run.
#[derive(Debug, Default)]
pub(super) struct Trace {
    state: Mutex<State>,
}

impl Trace {
    /// Something happened.
    pub(super) fn note(&self, conversation: Option<&ConversationId>, text: String) {
        let mut state = self.state.lock();
        let now = monotonic_ms();
        let at = now - *state.origin.get_or_insert(now);
        state.lines.push(Line { at, conversation: conversation.cloned(), text });
    }

    /// Something happened that must not.
    pub(super) fn violation(&self, conversation: Option<&ConversationId>, text: String) {
        self.note(conversation, format!("VIOLATION: {text}"));
        self.state.lock().violations.push((conversation.cloned(), text));
    }

    /// The first violations, and all that was noted of the first one's
    /// conversation; `None` = there was none.
    pub(super) fn verdict(&self) -> Option<String> {
        let state = self.state.lock();
        let (conversation, _) = state.violations.first()?;
        let mut report = String::new();
        for (conversation, text) in state.violations.iter().take(5) {
            let name = conversation.as_ref().map(ToString::to_string).unwrap_or_default();
            report += &format!("{name}: {text}\n");
        }
        let concerns = |line: &&Line| {
            line.conversation.is_none() || conversation.is_none() || line.conversation == *conversation
        };
        for line in state.lines.iter().filter(concerns) {
            report += &format!("{:>7} {}\n", line.at, line.text);
        }
        Some(report)
    }

    /// Names this course of events.
    pub(super) fn digest(&self) -> u64 {
        let state = self.state.lock();
        let text: String = state.lines.iter().map(|line| format!("{} {}\n", line.at, line.text)).collect();
        crate::types::fnv1a64(text.as_bytes())
    }
}
