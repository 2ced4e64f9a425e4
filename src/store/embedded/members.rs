//! The port's operations on groups.

use super::EmbeddedStore;
use super::committer::Durability;
use super::engine::EngineError;
use super::groups::{self, After};
use super::staged::Staged;
use crate::store::{
    Audience, Change, Created, Description, History, Joined, Member, MemberChange, MembersPage, Role, Roster,
    StoreError, Top,
};
use crate::types::{ConversationId, GatewayRef, UserId};

impl EmbeddedStore {
    pub(crate) async fn create(
        &self,
        group: &ConversationId,
        members: &[(UserId, Role)],
        history: History,
    ) -> Result<Created, StoreError> {
        let (group, members) = (group.clone(), members.to_vec());
        self.write(Durability::Synced, true, move |staged| groups::create(staged, &group, &members, history))
            .await
    }

    pub(crate) async fn delete(&self, group: &ConversationId) -> Result<Option<Audience>, StoreError> {
        let id = group.clone();
        let mver = self.write(Durability::Synced, true, move |staged| groups::delete(staged, &id)).await?;
        Ok(mver.map(|mver| Audience { mver, members: 0, gateways: self.shared.forget(group) }))
    }

    pub(crate) async fn describe(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<Description>, StoreError> {
        let id = conversation.clone();
        self.read(move |view| Ok(view.head(&id)?.map(|head| head.describe(&id)))).await
    }

    pub(crate) async fn members(
        &self,
        group: &ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Option<MembersPage>, StoreError> {
        let id = group.clone();
        self.read(move |view| view.members(&id, after, limit)).await
    }

    pub(crate) async fn put_member(
        &self,
        group: &ConversationId,
        user: UserId,
        change: MemberChange,
    ) -> Result<Change, StoreError> {
        self.change(group, move |staged, group| groups::put(staged, group, user, change)).await
    }

    pub(crate) async fn remove_member(
        &self,
        group: &ConversationId,
        user: UserId,
    ) -> Result<Change, StoreError> {
        self.change(group, move |staged, group| groups::remove(staged, group, user)).await
    }

    pub(crate) async fn block(
        &self,
        conversation: &ConversationId,
        user: UserId,
        blocked: bool,
    ) -> Result<Change, StoreError> {
        self.change(conversation, move |staged, id| groups::block(staged, id, user, blocked)).await
    }

    async fn change(
        &self,
        group: &ConversationId,
        change: impl FnOnce(&mut Staged, &ConversationId) -> Result<After, EngineError> + Send + 'static,
    ) -> Result<Change, StoreError> {
        let id = group.clone();
        let (changed, mver, members) =
            self.write(Durability::Synced, false, move |staged| change(staged, &id)).await?;
        Ok(Change { changed, audience: self.audience(group, mver, members) })
    }

    pub(crate) async fn blacklist(&self, conversation: &ConversationId) -> Result<Vec<UserId>, StoreError> {
        let id = conversation.clone();
        self.read(move |view| view.blacklist(&id)).await
    }

    pub(crate) async fn roster(
        &self,
        group: &ConversationId,
        users: &[UserId],
    ) -> Result<Option<Roster>, StoreError> {
        let (id, users) = (group.clone(), users.to_vec());
        let found = self.read(move |view| {
            let Some(head) = view.head(&id)? else { return Ok(None) };
            let members: Result<Vec<Option<Member>>, _> =
                users.iter().map(|user| view.member(&head, *user)).collect();
            Ok(Some((head.mver, head.members, members?)))
        });
        let roster = |(mver, count, members)| Roster { audience: self.audience(group, mver, count), members };
        Ok(found.await?.map(roster))
    }

    pub(crate) async fn join(
        &self,
        gateway: &GatewayRef,
        wanted: &[(ConversationId, UserId)],
    ) -> Result<Vec<Option<Joined>>, StoreError> {
        let (gateway, wanted) = (gateway.clone(), wanted.to_vec());
        self.read(move |view| {
            let join = |(group, user): &(ConversationId, UserId)| {
                let Some(head) = view.head(group)? else { return Ok(None) };
                let Some(member) = view.member(&head, *user)? else { return Ok(None) };
                view.shared.register(&gateway, group);
                // Read again: what came before the registration is in it. The
                // member is of the first reading.
                let Some(now) = view.head(group)?.filter(|now| now.number == head.number) else {
                    return Ok(None);
                };
                let top = Top { epoch: now.epoch, seq: now.top, server_msg_id: now.last_id.clone() };
                Ok(Some(Joined { member, mver: head.mver, members: now.members, top }))
            };
            wanted.iter().map(join).collect()
        })
        .await
    }

    #[expect(clippy::unused_async, reason = "the port's")]
    pub(crate) async fn leave(
        &self,
        gateway: &GatewayRef,
        groups: &[ConversationId],
    ) -> Result<(), StoreError> {
        groups.iter().for_each(|group| self.shared.unregister(gateway, group));
        Ok(())
    }
}
