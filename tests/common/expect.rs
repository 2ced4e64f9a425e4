//! What a client may wait for, by name.

use std::time::Duration;

use tidegate::proto::envelope::Payload;
use tidegate::proto::{
    Ack, AckStatus, ConversationHint, Error, ErrorCode, Kick, KickReason, Push, SyncReq, SyncResp,
};
use tokio::time::{Instant, sleep};

use super::{Client, SOON};

impl Client {
    /// The next live message.
    pub async fn expect_push(&mut self) -> Push {
        self.expect(
            "a Push",
            |payload| if let Payload::Push(push) = payload { Some(push.clone()) } else { None },
        )
        .await
    }

    /// The hint to pull a conversation.
    pub async fn expect_hint(&mut self, conversation: &str) -> ConversationHint {
        self.expect(&format!("a hint for {conversation}"), |payload| match payload {
            Payload::Hint(hint) => (hint.conversation_id == conversation).then(|| hint.clone()),
            _ => None,
        })
        .await
    }

    /// A range, read once.
    pub async fn sync(&mut self, request: SyncReq) -> SyncResp {
        let request_id = format!("{}-{}", request.conversation_id, request.from_seq);
        self.send(Payload::Sync(SyncReq { request_id: request_id.clone(), ..request })).await;
        self.expect("a range", |payload| match payload {
            Payload::SyncResp(range) => (range.request_id == request_id).then(|| range.clone()),
            _ => None,
        })
        .await
    }

    /// Everything of a conversation from `from_seq` on, until there is no more.
    pub async fn pull_from(&mut self, conversation: &str, mut from_seq: i64) -> Vec<Push> {
        let mut all = Vec::new();
        loop {
            let conversation_id = conversation.to_owned();
            let range = self.sync(SyncReq { conversation_id, from_seq, limit: 100, ..SyncReq::default() });
            let range = range.await;
            all.extend(range.messages);
            if !range.has_more {
                return all;
            }
            from_seq = all.last().map_or(from_seq, |last| last.seq + 1);
        }
    }

    /// The answer to the message of this id.
    pub async fn expect_ack(&mut self, id: &str) -> Ack {
        self.expect(&format!("the Ack of {id:?}"), |payload| match payload {
            Payload::Ack(ack) if ack.client_msg_id == id && ack.status() != AckStatus::Delivered => {
                Some(ack.clone())
            }
            _ => None,
        })
        .await
    }

    /// That answer, which must be STORED.
    pub async fn expect_stored(&mut self, id: &str) -> Ack {
        let ack = self.expect_ack(id).await;
        assert_eq!(ack.status(), AckStatus::Stored, "{ack:?}");
        ack
    }

    /// A text message that is sent again, whenever it is told to be, until it
    /// is stored.
    pub async fn insist(&mut self, conversation: &str, id: &str, text: &str) -> Ack {
        let end = Instant::now() + 2 * SOON;
        loop {
            self.send_text(conversation, id, text).await;
            let ack = self.expect_ack(id).await;
            let Some(error) = ack.error.as_ref() else { return ack };
            assert_eq!(error.code(), ErrorCode::RetryLater, "{ack:?}");
            assert!(Instant::now() < end, "not stored in time: {ack:?}");
            sleep(Duration::from_millis(error.retry_after_ms.into())).await;
        }
    }

    /// That answer, which must be FAILED; returns why.
    pub async fn expect_failed(&mut self, id: &str) -> ErrorCode {
        let ack = self.expect_ack(id).await;
        assert_eq!(ack.status(), AckStatus::Failed, "{ack:?}");
        ack.error.as_ref().unwrap_or_else(|| panic!("no error in {ack:?}")).code()
    }

    /// The DELIVERED ack that says `seq`; lower ones may come before.
    pub async fn expect_delivered(&mut self, conversation: &str, seq: i64) -> Ack {
        self.expect(&format!("DELIVERED up to {seq}"), |payload| match payload {
            Payload::Ack(ack) => (ack.status() == AckStatus::Delivered
                && ack.conversation_id == conversation
                && ack.seq == seq)
                .then(|| ack.clone()),
            _ => None,
        })
        .await
    }

    /// An Error.
    pub async fn expect_error(&mut self) -> Error {
        self.expect(
            "an Error",
            |payload| if let Payload::Error(error) = payload { Some(error.clone()) } else { None },
        )
        .await
    }

    /// A Kick for `reason`, then the end; returns the close code.
    pub async fn expect_kick(&mut self, reason: KickReason) -> (Kick, Option<u16>) {
        let pick = |payload: &Payload| if let Payload::Kick(kick) = payload { Some(*kick) } else { None };
        let kick = self.expect("a Kick", pick).await;
        assert_eq!(kick.reason(), reason);
        (kick, self.expect_close().await)
    }
}
