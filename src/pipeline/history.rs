//! The verb *look back*: a range of a conversation, as it is or as one of its
//! members may see it.

use super::Ports;
use crate::store::{Page, Span, StoreError};
use crate::types::{ConversationId, UserId};
use crate::wire::pb::Direction;

impl Ports {
    /// What a user sees of a conversation: what has a larger seq; `None` = he
    /// is not in it.
    pub(crate) async fn visible(
        &self,
        user: UserId,
        conversation: &ConversationId,
    ) -> Result<Option<i64>, StoreError> {
        match conversation {
            ConversationId::P2p(..) => Ok(conversation.peer_of(user).map(|_| 0)),
            ConversationId::Group(_) => {
                let roster = self.store.roster(conversation, &[user]).await?;
                Ok(roster.and_then(|roster| roster.members.first().copied().flatten()).map(|m| m.since_seq))
            }
        }
    }

    /// The same, read once more behind a page that was read with `since`: who was
    /// out before one of its messages was stored is known to be by now.
    pub(super) async fn still_visible(
        &self,
        user: UserId,
        conversation: &ConversationId,
        since: i64,
    ) -> Result<Option<i64>, StoreError> {
        if !conversation.is_group() {
            return Ok(Some(since));
        }
        Ok(self.visible(user, conversation).await?.map(|now| now.max(since)))
    }

    /// Reads a span; `None` = there is no such conversation, or `viewer` is
    /// not in it. A viewer sees nothing from before he joined.
    pub(crate) async fn history(
        &self,
        conversation: &ConversationId,
        viewer: Option<UserId>,
        span: Span,
    ) -> Result<Option<Page>, StoreError> {
        let sees = match viewer {
            None => Some(0),
            Some(user) => self.visible(user, conversation).await?,
        };
        let Some(since) = sees else { return Ok(None) };
        let from = match span.direction {
            Direction::Forward => span.from.max(since.saturating_add(1)),
            Direction::Backward => span.from,
        };
        let page = self.store.page(conversation, Span { from, ..span }).await?;
        let sees = match viewer {
            None => Some(0),
            Some(user) => self.still_visible(user, conversation, since).await?,
        };
        let Some(since) = sees else { return Ok(None) };
        // Only what is there has an epoch.
        Ok((page.epoch != 0).then(|| seen_since(page, since, span.direction)))
    }
}

/// The part of a page above `since`.
pub(super) fn seen_since(mut page: Page, since: i64, direction: Direction) -> Page {
    if since == 0 {
        return page;
    }
    page.messages.retain(|message| message.seq > since);
    if direction == Direction::Backward {
        // What is visible may end where the log goes on.
        page.has_more &= page.messages.last().is_some_and(|oldest| oldest.seq > since + 1);
    }
    page.first_available = page.first_available.max(since + 1);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pb::Push;

    #[test]
    fn what_was_before_a_member_is_not_there_for_him() {
        let page = |seqs: &[i64]| {
            let messages = seqs.iter().map(|&seq| Push { seq, ..Push::default() }).collect();
            Page { epoch: 1, messages, top: 9, first_available: 1, has_more: true }
        };
        let seen = |seqs, direction| {
            let page = seen_since(page(seqs), 5, direction);
            let seqs: Vec<i64> = page.messages.iter().map(|message| message.seq).collect();
            (seqs, page.has_more, page.first_available)
        };
        assert_eq!(seen(&[6, 7], Direction::Forward), (vec![6, 7], true, 6));
        assert_eq!(seen(&[9, 8], Direction::Backward), (vec![9, 8], true, 6));
        assert_eq!(seen(&[7, 6], Direction::Backward), (vec![7, 6], false, 6));
        assert_eq!(seen(&[6, 5], Direction::Backward), (vec![6], false, 6));
        assert_eq!(seen(&[5, 4], Direction::Backward), (vec![], false, 6));
        assert_eq!(seen_since(page(&[1]), 0, Direction::Backward), page(&[1]));
    }
}
