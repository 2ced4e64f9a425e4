//! A send, checked.

use prost::Message;

use crate::types::{ConversationId, UserId, fnv1a64, valid_client_msg_id};
use crate::wire::pb::send_message_req::Content as SendContent;
use crate::wire::pb::{ErrorCode, MediaRef, MessageType, Push, SendMessageReq, push::Content};

const MAX_META_ENTRIES: usize = 64;
const MAX_META_KEY: usize = 64;
const MAX_META_VALUE: usize = 4096;
const MAX_MEDIA_FIELD: usize = 2048;

/// Why a send is refused; names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DraftError {
    /// A field is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The sender may not.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such conversation for this sender.
    #[error("conversation not found")]
    NotFound,
}

impl DraftError {
    /// The code of the refusal.
    #[must_use]
    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::Invalid,
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::NotFound => ErrorCode::NotFound,
        }
    }
}

/// A message that may be stored.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Where.
    pub conversation: ConversationId,
    /// The message, still without id, seq, epoch and time.
    pub push: Push,
    /// Digest of type, content and meta.
    pub content_hash: u64,
}

impl Draft {
    /// Checks every field of a client's send.
    pub(crate) fn from_client(
        request: SendMessageReq,
        from: UserId,
        device: &str,
    ) -> Result<Self, DraftError> {
        if request.r#type == i32::from(MessageType::System) {
            return Err(DraftError::Forbidden("type SYSTEM is the system's"));
        }
        Self::new(request, from, device)
    }

    /// Checks every field of a send by the backend, on behalf of a user or of
    /// the system.
    pub(crate) fn new(request: SendMessageReq, from: UserId, device: &str) -> Result<Self, DraftError> {
        if !valid_client_msg_id(&request.client_msg_id) {
            return Err(invalid("clientMsgId must be 1-64 characters of [A-Za-z0-9_.:-]"));
        }
        let conversation = ConversationId::parse(&request.conversation_id)
            .map_err(|error| DraftError::Invalid(format!("conversationId: {error}")))?;
        match conversation {
            ConversationId::P2p(lo, hi) if from == lo || from == hi || from == UserId::SYSTEM => {}
            // Who is in a group is known where it is kept.
            ConversationId::Group(_) => {}
            // The same answer for what does not exist and what is not yours.
            ConversationId::P2p(..) => return Err(DraftError::NotFound),
        }
        match MessageType::try_from(request.r#type) {
            Ok(MessageType::Unspecified) => return Err(invalid("type must be set")),
            Ok(_) => {}
            Err(_) => return Err(invalid("type is not a MessageType")),
        }
        let content = match request.content {
            None => return Err(invalid("content must be set: textContent, mediaRef or binaryContent")),
            Some(SendContent::TextContent(text)) if text.is_empty() => {
                return Err(invalid("textContent is empty"));
            }
            Some(SendContent::TextContent(text)) => Content::TextContent(text),
            Some(SendContent::MediaRef(media)) => Content::MediaRef(check_media(media)?),
            Some(SendContent::BinaryContent(bytes)) if bytes.is_empty() => {
                return Err(invalid("binaryContent is empty"));
            }
            Some(SendContent::BinaryContent(bytes)) => Content::BinaryContent(bytes),
        };
        if request.meta.len() > MAX_META_ENTRIES {
            return Err(invalid("meta has more than 64 entries"));
        }
        if request
            .meta
            .iter()
            .any(|(k, v)| k.is_empty() || k.len() > MAX_META_KEY || v.len() > MAX_META_VALUE)
        {
            return Err(invalid("meta keys must be 1-64 bytes and values at most 4096"));
        }
        let mut push =
            Push { r#type: request.r#type, content: Some(content), meta: request.meta, ..Push::default() };
        let content_hash = fnv1a64(&push.encode_to_vec());
        push.conversation_id = request.conversation_id;
        push.client_msg_id = request.client_msg_id;
        push.from_user_id = from.get();
        push.from_device_id = device.to_owned();
        Ok(Self { conversation, push, content_hash })
    }
}

fn invalid(message: &str) -> DraftError {
    DraftError::Invalid(message.to_owned())
}

fn check_media(media: MediaRef) -> Result<MediaRef, DraftError> {
    if media.media_id.is_empty() && media.url.is_empty() {
        return Err(invalid("mediaRef needs a mediaId or a url"));
    }
    let texts = [&media.media_id, &media.url, &media.md5, &media.mime, &media.thumbnail_url];
    if texts.iter().any(|text| text.len() > MAX_MEDIA_FIELD) {
        return Err(invalid("mediaRef fields must be at most 2048 bytes"));
    }
    if media.size < 0 || media.duration < 0 || media.width < 0 || media.height < 0 {
        return Err(invalid("mediaRef size, duration, width and height must not be negative"));
    }
    Ok(media)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: i64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn request() -> SendMessageReq {
        SendMessageReq {
            conversation_id: "p2p:1:2".to_owned(),
            client_msg_id: "m-1".to_owned(),
            r#type: MessageType::Text.into(),
            content: Some(SendContent::TextContent("hi".to_owned())),
            ..Default::default()
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Spoil = fn(&mut SendMessageReq);
        let cases: [(Spoil, &str); 7] = [
            (|r| r.client_msg_id.clear(), "clientMsgId"),
            (|r| r.client_msg_id = "a b".to_owned(), "clientMsgId"),
            (|r| r.conversation_id = "p2p:2:1".to_owned(), "conversationId"),
            (|r| r.r#type = 0, "type"),
            (|r| r.r#type = 99, "type"),
            (|r| r.content = None, "content"),
            (|r| drop(r.meta.insert(String::new(), String::new())), "meta"),
        ];
        for (spoil, field) in cases {
            let mut bad = request();
            spoil(&mut bad);
            let error = Draft::from_client(bad, user(1), "d").unwrap_err();
            assert_eq!(error.code(), ErrorCode::Invalid);
            assert!(error.to_string().contains(field), "{error} names {field}");
        }
    }

    #[test]
    fn only_members_and_the_system_send() {
        assert!(Draft::from_client(request(), user(2), "d").is_ok());
        assert!(Draft::new(request(), UserId::SYSTEM, "").is_ok());
        assert_eq!(Draft::from_client(request(), user(3), "d").unwrap_err(), DraftError::NotFound);
    }

    #[test]
    fn the_digest_is_of_the_content_only() {
        let hash = |request| Draft::from_client(request, user(1), "d").unwrap().content_hash;
        let mut same = request();
        same.client_msg_id = "m-2".to_owned();
        let mut other = request();
        other.content = Some(SendContent::TextContent("ho".to_owned()));
        assert_eq!(hash(request()), hash(same));
        assert_ne!(hash(request()), hash(other));
    }
}
