//! `tidegate send`: one message, sent and stored.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{sleep, timeout};

use super::identity::{IdentityArgs, new_client_msg_id};
use crate::client::{Client, ClientError, Endpoint};
use crate::types::valid_client_msg_id;
use crate::wire::pb::envelope::Payload;
use crate::wire::pb::{Ack, AckStatus, Error, ErrorCode, MessageType, SendMessageReq, send_message_req};

/// Flags of `tidegate send`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints one line, `stored <conversation> seq=… id=… level=…`, and exits with 0 once the \
message is stored.\nRepeating a --client-msg-id is safe: the message is stored once, the answer is the original one.\n\n\
Examples:\n  tidegate send --user 1 --to 2 \"hello\"\n  tidegate send --user 1 --to g:team \"hello all\"\n  tidegate send --user 1 --to 2 \"paid\" --client-msg-id order-4711"
)]
pub struct SendArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The text to send
    text: String,
    /// Id of the message, 1-64 of [A-Za-z0-9_.:-]; drawn at random by default
    #[arg(long, value_name = "ID")]
    client_msg_id: Option<String>,
}

impl SendArgs {
    /// Sends; fails when the message is refused or not stored within 10 s.
    pub async fn run(self) -> Result<()> {
        let id = self.client_msg_id.clone().unwrap_or_else(new_client_msg_id);
        if !valid_client_msg_id(&id) {
            bail!("--client-msg-id: must be 1-64 characters of [A-Za-z0-9_.:-]");
        }
        let endpoint = self.identity.endpoint("send")?;
        let ack = timeout(LIMIT, self.deliver(&endpoint, &id)).await;
        let ack = ack.with_context(|| {
            format!("not stored within {LIMIT:?}; send again with --client-msg-id {id}")
        })??;
        writeln!(std::io::stdout(), "{}", stored_line(&ack))?;
        Ok(())
    }

    async fn deliver(&self, endpoint: &Endpoint, id: &str) -> Result<Ack> {
        let mut connected = Client::connect(endpoint).await?;
        loop {
            let (mut client, ready) = connected;
            let request = SendMessageReq {
                conversation_id: self.identity.parties(&ready)?.conversation.text(),
                client_msg_id: id.to_owned(),
                r#type: MessageType::Text.into(),
                content: Some(send_message_req::Content::TextContent(self.text.clone())),
                meta: [].into(),
            };
            match exchange(&mut client, request).await {
                Ok(ack) => {
                    client.close().await;
                    return accept(ack);
                }
                Err(error) if !error.may_reconnect() => return Err(error.into()),
                // The same id again: the gateway stores it once.
                Err(_) => connected = reconnect(endpoint).await?,
            }
        }
    }
}

/// Sends and waits for the verdict, again as long as it is "retry later".
async fn exchange(client: &mut Client, request: SendMessageReq) -> Result<Ack, ClientError> {
    loop {
        client.send(Payload::Send(request.clone())).await?;
        let ack = verdict(client, &request.client_msg_id).await?;
        match &ack.error {
            Some(error) if retry_later(error) => sleep(retry_delay(error)).await,
            _ => return Ok(ack),
        }
    }
}

async fn verdict(client: &mut Client, id: &str) -> Result<Ack, ClientError> {
    loop {
        match client.next().await?.payload {
            Some(Payload::Ack(ack)) if ack.client_msg_id == id => return Ok(ack),
            Some(Payload::Error(error)) if error.ref_client_msg_id == id => {
                return Ok(Ack { status: AckStatus::Failed.into(), error: Some(error), ..Ack::default() });
            }
            _ => {}
        }
    }
}

async fn reconnect(endpoint: &Endpoint) -> Result<(Client, crate::wire::pb::Ready), ClientError> {
    loop {
        sleep(Duration::from_millis(fastrand::u64(100..400))).await;
        match Client::connect(endpoint).await {
            Err(error) if error.may_reconnect() => {}
            result => return result,
        }
    }
}

fn accept(ack: Ack) -> Result<Ack> {
    match &ack.error {
        Some(error) => bail!("refused: {}", refusal_words(error)),
        None if ack.status() == AckStatus::Stored => Ok(ack),
        None => bail!("refused without a reason"),
    }
}

/// Whether the same message may be sent again.
pub(super) fn retry_later(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::RetryLater | ErrorCode::RateLimited)
}

/// When to send it again; 500 ms where the gateway does not say, 30 s at most.
pub(super) fn retry_delay(error: &Error) -> Duration {
    let ms = if error.retry_after_ms == 0 { 500 } else { error.retry_after_ms.min(30_000) };
    Duration::from_millis(ms.into())
}

/// The code and the sentence of a refusal.
pub(super) fn refusal_words(error: &Error) -> String {
    let code = error.code().as_str_name().trim_start_matches("ERROR_CODE_");
    let message: String = error.message.chars().filter(|c| !c.is_control()).collect();
    if message.is_empty() { code.to_owned() } else { format!("{message} ({code})") }
}

fn stored_line(ack: &Ack) -> String {
    let duplicate = if ack.duplicate { " duplicate" } else { "" };
    let Ack { conversation_id, seq, server_msg_id, level, .. } = ack;
    format!("stored {conversation_id} seq={seq} id={server_msg_id} level={level}{duplicate}")
}

const LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: ErrorCode, message: &str, retry_after_ms: u32) -> Error {
        Error { code: code.into(), message: message.to_owned(), retry_after_ms, ..Error::default() }
    }

    #[test]
    fn the_line_says_what_was_stored() {
        let mut ack = Ack {
            conversation_id: "p2p:1:2".into(),
            seq: 3,
            server_msg_id: "m-9".into(),
            level: 2,
            ..Ack::default()
        };
        assert_eq!(stored_line(&ack), "stored p2p:1:2 seq=3 id=m-9 level=2");
        ack.duplicate = true;
        assert_eq!(stored_line(&ack), "stored p2p:1:2 seq=3 id=m-9 level=2 duplicate");
    }

    #[test]
    fn refusals_are_told_from_delays() {
        let later = error(ErrorCode::RetryLater, "", 0);
        assert!(retry_later(&later) && retry_delay(&later) == Duration::from_millis(500));
        assert_eq!(retry_delay(&error(ErrorCode::RateLimited, "", 70)), Duration::from_millis(70));
        let invalid = error(ErrorCode::Invalid, "no text", 0);
        assert!(!retry_later(&invalid));
        let ack = Ack { status: AckStatus::Failed.into(), error: Some(invalid), ..Ack::default() };
        assert_eq!(accept(ack).unwrap_err().to_string(), "refused: no text (INVALID)");
    }
}
