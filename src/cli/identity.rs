//! Who a terminal client is and where it connects.

use anyhow::{Context, Result, bail};

use crate::client::Endpoint;
use crate::types::{ConversationId, DeviceId, UserId};
use crate::wire::pb::Ready;

/// Identity and address of a terminal client.
#[derive(Debug, Clone, clap::Args)]
pub struct IdentityArgs {
    /// The user to be (with --token, the user it must be)
    #[arg(long, value_name = "ID", value_parser = user, required_unless_present = "token")]
    user: Option<UserId>,
    /// The user to talk to, or the group, `g:NAME`
    #[arg(long, visible_alias = "group", value_name = "ID", value_parser = other)]
    to: Other,
    /// Name of this device; two devices of a user have different names
    /// [default: the command's own]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// WebSocket address of any gateway
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:7700/ws")]
    url: String,
    /// A JWT, for gateways that ask for one
    #[arg(long, value_name = "JWT")]
    token: Option<String>,
}

impl IdentityArgs {
    /// Where to connect, as `device` where none is named; fails on a malformed
    /// device id.
    pub(super) fn endpoint(&self, device: &str) -> Result<Endpoint> {
        let device = self.device.as_deref().unwrap_or(device);
        let device = DeviceId::new(device).with_context(|| format!("--device {device}"))?;
        let user = self.user.map(UserId::get);
        Ok(Endpoint { url: self.url.clone(), user, device, token: self.token.clone() })
    }

    /// Oneself and the peer, once the gateway said who one is.
    pub(super) fn parties(&self, ready: &Ready) -> Result<Parties> {
        // A gateway may leave it out when the query already said so.
        let told = if ready.user_id > 0 { Some(UserId::new(ready.user_id)?) } else { None };
        let me = told.or(self.user).context("the gateway did not say which user the token names")?;
        if self.user.is_some_and(|user| user != me) {
            bail!("the token is of user {me}");
        }
        let conversation = match &self.to {
            Other::User(peer) if *peer == me => bail!("--to {me} is oneself; a conversation has two users"),
            Other::User(peer) => ConversationId::between(me, *peer),
            Other::Group(group) => group.clone(),
        };
        Ok(Parties { me, conversation })
    }
}

/// Whom one talks to.
#[derive(Debug, Clone)]
enum Other {
    User(UserId),
    Group(ConversationId),
}

/// Who talks, and where.
#[derive(Debug, Clone)]
pub(super) struct Parties {
    pub(super) me: UserId,
    pub(super) conversation: ConversationId,
}

impl Parties {
    /// The other one; `None` in a group.
    pub(super) fn peer(&self) -> Option<UserId> {
        self.conversation.peer_of(self.me)
    }

    /// Whom one talks to, in words.
    pub(super) fn other(&self) -> String {
        self.peer().map_or_else(|| self.conversation.text(), |peer| format!("user {peer}"))
    }
}

/// A fresh client message id: 128 random bits in hex.
pub(super) fn new_client_msg_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn user(text: &str) -> Result<UserId, String> {
    UserId::parse(text).map_err(|error| error.to_string())
}

fn other(text: &str) -> Result<Other, String> {
    match ConversationId::parse(text) {
        Ok(group @ ConversationId::Group(_)) => Ok(Other::Group(group)),
        _ => UserId::parse(text).map(Other::User).map_err(|error| format!("{error}, or a group, g:<name>")),
    }
}
