//! Groups in Redis.

use super::super::{
    Audience, Change, Created, Description, History, Joined, MemberChange, MembersPage, Retention, Role,
    Roster, StoreError, Top, Trimmed,
};
use super::RedisStore;
use crate::types::{ConversationId, GatewayRef, UserId};

fn later<T>() -> Result<T, StoreError> {
    Err(StoreError::Broken("groups are not kept in redis yet".to_owned()))
}

#[expect(clippy::unused_async, unused_variables, reason = "until they are kept in redis")]
impl RedisStore {
    pub(crate) async fn tops(
        &self,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<Top>>, StoreError> {
        later()
    }
    pub(crate) async fn create(
        &self,
        group: &ConversationId,
        members: &[(UserId, Role)],
        history: History,
    ) -> Result<Created, StoreError> {
        later()
    }
    pub(crate) async fn delete(&self, group: &ConversationId) -> Result<Option<Audience>, StoreError> {
        later()
    }
    pub(crate) async fn describe(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<Description>, StoreError> {
        later()
    }
    pub(crate) async fn members(
        &self,
        group: &ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Option<MembersPage>, StoreError> {
        later()
    }
    pub(crate) async fn put_member(
        &self,
        group: &ConversationId,
        user: UserId,
        change: MemberChange,
    ) -> Result<Change, StoreError> {
        later()
    }
    pub(crate) async fn remove_member(
        &self,
        group: &ConversationId,
        user: UserId,
    ) -> Result<Change, StoreError> {
        later()
    }
    pub(crate) async fn block(
        &self,
        conversation: &ConversationId,
        user: UserId,
        blocked: bool,
    ) -> Result<Change, StoreError> {
        later()
    }
    pub(crate) async fn blacklist(&self, conversation: &ConversationId) -> Result<Vec<UserId>, StoreError> {
        later()
    }
    pub(crate) async fn roster(
        &self,
        group: &ConversationId,
        users: &[UserId],
    ) -> Result<Option<Roster>, StoreError> {
        later()
    }
    pub(crate) async fn join(
        &self,
        gateway: &GatewayRef,
        wanted: &[(ConversationId, UserId)],
    ) -> Result<Vec<Option<Joined>>, StoreError> {
        later()
    }
    pub(crate) async fn leave(
        &self,
        gateway: &GatewayRef,
        groups: &[ConversationId],
    ) -> Result<(), StoreError> {
        later()
    }
    pub(crate) async fn trim(
        &self,
        now: i64,
        retention: &Retention,
        cursor: &str,
    ) -> Result<Trimmed, StoreError> {
        later()
    }
}
