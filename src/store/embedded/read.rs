//! Reading: pages, tops, positions, indexes.

use std::sync::Arc;

use prost::Message;

use super::EmbeddedStore;
use super::engine::{Engine, EngineError};
use super::rows::{self, Activity, CursorRow, Head, MemberRow, Space};
use super::shared::Shared;
use crate::store::{Member, MembersPage, Page, Span, StoreError, Top, complete, position};
use crate::types::{ConversationId, UserId};
use crate::wire::pb::{Direction, Position, Push};

/// Times a page is read again because messages were trimmed from under it.
const TRIES: usize = 5;

/// The store as a reader sees it.
pub(super) struct View {
    pub(super) engine: Arc<Engine>,
    pub(super) shared: Arc<Shared>,
}

impl View {
    pub(super) fn head(&self, conversation: &ConversationId) -> Result<Option<Arc<Head>>, EngineError> {
        self.shared.heads.get(&self.engine, conversation)
    }

    fn row<T: Message + Default>(&self, key: &[u8]) -> Result<Option<T>, EngineError> {
        let row = self.engine.get(Space::State, key)?;
        Ok(row.map(|row| T::decode(&row[..])).transpose()?)
    }

    pub(super) fn member(&self, head: &Head, user: UserId) -> Result<Option<Member>, EngineError> {
        let row = self.row::<MemberRow>(&rows::member(head.number, Some(user)))?;
        Ok(row.map(Member::from))
    }

    fn cursor(&self, head: &Head, user: UserId) -> Result<(i64, i64), EngineError> {
        let row = self.row::<CursorRow>(&rows::cursor(head.number, Some(user)))?.unwrap_or_default();
        Ok((row.delivered, row.read))
    }

    pub(super) fn members(
        &self,
        group: &ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Option<MembersPage>, EngineError> {
        let Some(head) = self.head(group)? else { return Ok(None) };
        let after = after.map(|user| rows::member(head.number, Some(user)));
        let prefix = rows::member(head.number, None);
        let rows = self.engine.scan(Space::State, &prefix, after.as_deref(), limit.saturating_add(1))?;
        let has_more = rows.len() > limit;
        let entry = |(key, row): (Vec<u8>, Vec<u8>)| {
            let user = rows::user(&key).ok_or_else(|| EngineError::Damaged(format!("{group}: a member")))?;
            Ok((user, MemberRow::decode(&row[..])?.into()))
        };
        let members = rows.into_iter().take(limit).map(entry).collect::<Result<_, EngineError>>()?;
        Ok(Some(MembersPage { members, has_more }))
    }

    pub(super) fn blacklist(&self, conversation: &ConversationId) -> Result<Vec<UserId>, EngineError> {
        let Some(head) = self.head(conversation)? else { return Ok(Vec::new()) };
        let prefix = rows::blocked(head.number, None);
        let rows = self.engine.scan(Space::State, &prefix, None, usize::MAX)?;
        Ok(rows.iter().filter_map(|(key, _)| rows::user(key)).collect())
    }

    fn top(&self, conversation: &ConversationId) -> Result<Option<Top>, EngineError> {
        Ok(self.head(conversation)?.map(|head| head.end()))
    }

    fn index(
        &self,
        user: UserId,
        since: i64,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<ConversationId>, EngineError> {
        let prefix = rows::indexes(user);
        let mut found = Vec::new();
        for (key, row) in self.engine.scan(Space::State, &prefix, None, usize::MAX)? {
            let at = Activity::decode(&row[..])?.at;
            if at >= since
                && let Some(conversation) = rows::conversation(&key, prefix.len())
            {
                found.push((at, conversation));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found.into_iter().skip(offset).take(limit).map(|(_, conversation)| conversation).collect())
    }

    fn position(&self, user: UserId, conversation: &ConversationId) -> Result<Option<Position>, EngineError> {
        let Some(head) = self.head(conversation)? else { return Ok(None) };
        let (since, peer) = match conversation {
            ConversationId::P2p(..) => match conversation.peer_of(user) {
                Some(peer) => (0, self.cursor(&head, peer)?),
                None => return Ok(None),
            },
            ConversationId::Group(_) => match self.member(&head, user)? {
                Some(member) => (member.since_seq, (0, 0)),
                None => return Ok(None),
            },
        };
        Ok(Some(position(conversation, head.end(), since, self.cursor(&head, user)?, peer)))
    }

    fn is_mutual(&self, conversation: &ConversationId) -> Result<bool, EngineError> {
        let head = self.head(conversation)?;
        Ok(head.is_some_and(|head| head.authors == 3 && head.blocked == 0))
    }

    fn page(&self, conversation: &ConversationId, span: Span) -> Result<Page, EngineError> {
        for _ in 0..TRIES {
            let Some(head) = self.head(conversation)? else { break };
            let page = self.page_of(&head, span)?;
            let now = self.head(conversation)?;
            // Otherwise what is missing could be taken for a hole.
            if now.is_some_and(|now| (now.number, now.trimmed) == (head.number, head.trimmed)) {
                return Ok(page);
            }
        }
        Ok(Page::default())
    }

    fn page_of(&self, head: &Head, span: Span) -> Result<Page, EngineError> {
        let (top, first) = (head.top, head.trimmed.saturating_add(1));
        let (from, to) = match span.direction {
            Direction::Forward => (span.from.max(first), top),
            Direction::Backward if span.from <= 0 => (first, top),
            Direction::Backward => (first, span.from.min(top)),
        };
        let mut page = Page {
            epoch: head.epoch,
            messages: Vec::new(),
            top,
            first_available: head.first_available(),
            has_more: false,
        };
        if from > to {
            return Ok(page);
        }
        let keys = (&rows::message(head.number, from)[..], &rows::message(head.number, to)[..]);
        let mut found: Vec<(i64, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        // One more than asked for tells whether there is more.
        self.engine.messages(keys, span.direction == Direction::Backward, |key, row| {
            bytes += row.len();
            found.push((rows::seq(key).unwrap_or(0), row.to_vec()));
            found.len() <= span.limit && (bytes <= span.max_bytes || found.len() < 2)
        })?;
        let keep = span.fitting(found.iter().map(|(_, row)| row.len()));
        page.has_more = found.len() > keep;
        let message = |(seq, row): (i64, Vec<u8>)| Ok(complete(Push::decode(&row[..])?, seq, head.epoch));
        page.messages = found.into_iter().take(keep).map(message).collect::<Result<_, EngineError>>()?;
        Ok(page)
    }
}

impl Head {
    fn end(&self) -> Top {
        Top { epoch: self.epoch, seq: self.top, server_msg_id: self.last_id.clone() }
    }
}

impl EmbeddedStore {
    pub(crate) async fn known(&self, conversations: &[ConversationId]) -> Result<Vec<bool>, StoreError> {
        let tops = self.tops(conversations).await?;
        Ok(tops.into_iter().map(|top| top.is_some_and(|top| top.seq > 0)).collect())
    }

    pub(crate) async fn mutual(&self, conversations: &[ConversationId]) -> Result<Vec<bool>, StoreError> {
        let ids = conversations.to_vec();
        self.read(move |view| ids.iter().map(|id| view.is_mutual(id)).collect()).await
    }

    pub(crate) async fn tops(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<Top>>, StoreError> {
        let kept = |id| self.shared.heads.kept(id).map(|head| Some(head.end()));
        if self.shared.is_open()
            && let Some(all) = conversations.iter().map(kept).collect()
        {
            return Ok(all);
        }
        let ids = conversations.to_vec();
        self.read(move |view| ids.iter().map(|id| view.top(id)).collect()).await
    }

    pub(crate) async fn page(&self, conversation: &ConversationId, span: Span) -> Result<Page, StoreError> {
        let id = conversation.clone();
        self.read(move |view| view.page(&id, span)).await
    }

    pub(crate) async fn index(
        &self,
        users: &[UserId],
        since: i64,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<Vec<ConversationId>>, StoreError> {
        let users = users.to_vec();
        self.read(move |view| users.iter().map(|user| view.index(*user, since, offset, limit)).collect())
            .await
    }

    pub(crate) async fn positions(
        &self,
        user: UserId,
        conversations: &[ConversationId],
    ) -> Result<Vec<Position>, StoreError> {
        let ids = conversations.to_vec();
        self.read(move |view| ids.iter().filter_map(|id| view.position(user, id).transpose()).collect()).await
    }
}
