//! What a row is: its key and its value.
//!
//! Numbers in keys are big-endian, so that rows of one conversation lie
//! together and in order. Values are protobuf messages: a field may be added.

use crate::store::{Member, Role};
use crate::types::{ConversationId, UserId};

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Space {
    /// Everything that is small.
    State,
    /// The messages.
    Messages,
    /// The senders' ids of what was stored in this period.
    Ids(i64),
    /// Who came and what was reported (`ledger::rows`).
    Ledger,
}

/// The store itself.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Identity {
    /// Of the layout of the rows.
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    /// Names this history of the whole store.
    #[prost(fixed64, tag = "2")]
    pub(super) lineage: u64,
    /// The number of the next conversation.
    #[prost(uint64, tag = "3")]
    pub(super) next_number: u64,
}

/// A conversation. Its row is written when anything but the end of the log
/// changes; the end is where the last message is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Head {
    /// Its place in the keys; never used again.
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(uint64, tag = "2")]
    pub(super) epoch: u64,
    /// Unix ms.
    #[prost(int64, tag = "3")]
    pub(super) created_at: i64,
    /// The store's history when it was last appended to.
    #[prost(fixed64, tag = "4")]
    pub(super) lineage: u64,
    /// The last seq that is gone.
    #[prost(int64, tag = "5")]
    pub(super) trimmed: i64,
    /// The last seq.
    #[prost(int64, tag = "6")]
    pub(super) top: i64,
    /// The message there.
    #[prost(string, tag = "7")]
    pub(super) last_id: String,
    #[prost(uint64, tag = "8")]
    pub(super) mver: u64,
    #[prost(uint64, tag = "9")]
    pub(super) members: u64,
    /// How many are on the blacklist.
    #[prost(uint64, tag = "10")]
    pub(super) blocked: u64,
    /// Whether new members see what was before.
    #[prost(bool, tag = "11")]
    pub(super) full_history: bool,
    /// When its users' indexes were last written, unix ms.
    #[prost(int64, tag = "12")]
    pub(super) indexed_at: i64,
    /// Who has written in a conversation of two: 1 the first of both, 2 the
    /// second.
    #[prost(uint32, tag = "13")]
    pub(super) authors: u32,
}

/// What a sender's id of a message stands for.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Original {
    #[prost(int64, tag = "1")]
    pub(super) seq: i64,
    #[prost(fixed64, tag = "2")]
    pub(super) content_hash: u64,
    #[prost(string, tag = "3")]
    pub(super) server_msg_id: String,
    #[prost(int64, tag = "4")]
    pub(super) server_time: i64,
}

/// A member's entry.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct MemberRow {
    #[prost(uint32, tag = "1")]
    role: u32,
    #[prost(int64, tag = "2")]
    since_seq: i64,
    #[prost(int64, tag = "3")]
    mute_until: i64,
}

impl From<Member> for MemberRow {
    fn from(member: Member) -> Self {
        let role = match member.role {
            Role::Member => 0,
            Role::Admin => 1,
            Role::Owner => 2,
        };
        Self { role, since_seq: member.since_seq, mute_until: member.mute_until }
    }
}

impl From<MemberRow> for Member {
    fn from(row: MemberRow) -> Self {
        let role = match row.role {
            2 => Role::Owner,
            1 => Role::Admin,
            _ => Role::Member,
        };
        Self { role, since_seq: row.since_seq, mute_until: row.mute_until }
    }
}

/// How far a user is.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct CursorRow {
    #[prost(int64, tag = "1")]
    pub(super) delivered: i64,
    #[prost(int64, tag = "2")]
    pub(super) read: i64,
}

/// When a conversation was last active, as its user's index knows.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Activity {
    /// Unix ms.
    #[prost(int64, tag = "1")]
    pub(super) at: i64,
}

/// What is kept of a group that was removed, for a while.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Former {
    #[prost(uint64, tag = "1")]
    pub(super) epoch: u64,
    #[prost(uint64, tag = "2")]
    pub(super) mver: u64,
    /// When it was removed, unix ms.
    #[prost(int64, tag = "3")]
    pub(super) at: i64,
}

const IDENTITY: u8 = 0;
const HEAD: u8 = 1;
const MEMBER: u8 = 2;
const CURSOR: u8 = 3;
const BLOCKED: u8 = 4;
const INDEX: u8 = 5;
const DOOMED: u8 = 6;
const FORMER: u8 = 7;

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(kind);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn of_user(kind: u8, number: u64, user: Option<UserId>) -> Vec<u8> {
    match user {
        Some(user) => key(kind, &[&number.to_be_bytes(), &user.get().to_be_bytes()]),
        None => key(kind, &[&number.to_be_bytes()]),
    }
}

/// The key of [`Identity`].
pub(super) fn identity() -> Vec<u8> {
    vec![IDENTITY]
}

/// The key of a [`Head`].
pub(super) fn head(conversation: &ConversationId) -> Vec<u8> {
    key(HEAD, &[conversation.text().as_bytes()])
}

/// Where heads begin.
pub(super) fn heads() -> Vec<u8> {
    vec![HEAD]
}

/// The key of a [`MemberRow`]; without a user, where those of the
/// conversation begin.
pub(super) fn member(number: u64, user: Option<UserId>) -> Vec<u8> {
    of_user(MEMBER, number, user)
}

/// The key of a [`CursorRow`].
pub(super) fn cursor(number: u64, user: Option<UserId>) -> Vec<u8> {
    of_user(CURSOR, number, user)
}

/// Whether it is the key of a [`CursorRow`], of all spaces: no other begins so
/// and is as long.
pub(super) fn is_cursor(key: &[u8]) -> bool {
    key.len() == 17 && key.first() == Some(&CURSOR)
}

/// The key of an entry of the blacklist, which has no value.
pub(super) fn blocked(number: u64, user: Option<UserId>) -> Vec<u8> {
    of_user(BLOCKED, number, user)
}

/// The key of an [`Activity`].
pub(super) fn index(user: UserId, conversation: &ConversationId) -> Vec<u8> {
    key(INDEX, &[&user.get().to_be_bytes(), conversation.text().as_bytes()])
}

/// Where a user's index begins.
pub(super) fn indexes(user: UserId) -> Vec<u8> {
    key(INDEX, &[&user.get().to_be_bytes()])
}

/// The key that says that the messages of a removed conversation are still to
/// be removed; it has no value.
pub(super) fn doomed(number: u64) -> Vec<u8> {
    key(DOOMED, &[&number.to_be_bytes()])
}

/// The key of a [`Former`].
pub(super) fn former(group: &ConversationId) -> Vec<u8> {
    key(FORMER, &[group.to_string().as_bytes()])
}

/// Where those begin.
pub(super) fn all_former() -> Vec<u8> {
    vec![FORMER]
}

/// Where the keys of what is to be removed begin.
pub(super) fn all_doomed() -> Vec<u8> {
    vec![DOOMED]
}

/// The key of a message.
pub(super) fn message(number: u64, seq: i64) -> [u8; 16] {
    let key = (u128::from(number) << 64) | u128::from(seq.cast_unsigned());
    key.to_be_bytes()
}

/// The conversation's number a message's key begins with.
pub(super) fn number(key: &[u8]) -> Option<u64> {
    key.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The key of an [`Original`].
pub(super) fn id(number: u64, from: UserId, client_msg_id: &str) -> Vec<u8> {
    [&number.to_be_bytes(), &from.get().to_be_bytes(), client_msg_id.as_bytes()].concat()
}

/// The number that a key of eight bytes more than `prefix` ends with.
pub(super) fn suffix(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The user a key ends with.
pub(super) fn user(key: &[u8]) -> Option<UserId> {
    UserId::new(i64::try_from(suffix(key)?).ok()?).ok()
}

/// The seq a message's key ends with.
pub(super) fn seq(key: &[u8]) -> Option<i64> {
    i64::try_from(suffix(key)?).ok()
}

/// The conversation a key ends with, behind `prefix` bytes.
pub(super) fn conversation(key: &[u8], prefix: usize) -> Option<ConversationId> {
    ConversationId::parse(std::str::from_utf8(key.get(prefix..)?).ok()?).ok()
}
