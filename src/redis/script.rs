//! The Lua scripts and their digests.

use std::sync::LazyLock;

/// A script known to the server by its digest.
#[derive(Debug)]
pub struct Script {
    /// The text.
    pub code: &'static str,
    /// Hex SHA-1 of the text.
    pub sha: String,
}

fn script(code: &'static str) -> Script {
    Script { code, sha: redis::Script::new(code).get_hash().to_owned() }
}

/// One script call in a pipeline.
#[derive(Debug)]
pub struct Call {
    command: redis::Cmd,
}

impl Call {
    /// Calls `script` on `keys`; arguments follow by [`Call::arg`].
    #[must_use]
    pub fn new(script: &Script, keys: &[String]) -> Self {
        Self::with_room(script, keys, 8, 64)
    }

    /// The same, with room for that many arguments of that many bytes in all.
    #[must_use]
    pub fn with_room(script: &Script, keys: &[String], arguments: usize, bytes: usize) -> Self {
        let fixed = script.sha.len() + 16 + keys.iter().map(String::len).sum::<usize>();
        let mut command = redis::Cmd::with_capacity(arguments + keys.len() + 3, bytes + fixed);
        command.arg("EVALSHA");
        command.arg(&script.sha).arg(keys.len()).arg(keys);
        Self { command }
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, value: impl redis::ToRedisArgs) -> Self {
        self.command.arg(value);
        self
    }
}

impl From<Call> for redis::Cmd {
    fn from(call: Call) -> Self {
        call.command
    }
}

/// Bind, refresh and re-bind of a user's devices on one gateway.
pub(crate) static BIND: LazyLock<Script> = LazyLock::new(|| script(include_str!("bind.lua")));
/// Compare-and-delete of one device.
pub(crate) static UNBIND: LazyLock<Script> = LazyLock::new(|| script(include_str!("unbind.lua")));
/// Takes or renews a gateway's lease.
pub(super) static LEASE: LazyLock<Script> = LazyLock::new(|| script(include_str!("lease.lua")));
/// Text of the append script: what every message costs Redis at least.
pub const APPEND_TEXT: &str = include_str!("append.lua");
/// Dedup + seq + append, in one step.
pub(crate) static APPEND: LazyLock<Script> = LazyLock::new(|| script(APPEND_TEXT));
/// Raises what a user has received and read.
pub(crate) static POSITION: LazyLock<Script> = LazyLock::new(|| script(include_str!("position.lua")));

/// Registers a gateway's interest in a group.
pub(crate) static JOIN: LazyLock<Script> = LazyLock::new(|| script(include_str!("join.lua")));
/// Takes it back.
pub(crate) static LEAVE: LazyLock<Script> = LazyLock::new(|| script(include_str!("leave.lua")));
/// One step of making a group.
pub(crate) static CREATE: LazyLock<Script> = LazyLock::new(|| script(include_str!("create.lua")));
/// Removes a group.
pub(crate) static DELETE: LazyLock<Script> = LazyLock::new(|| script(include_str!("delete.lua")));
/// Changes one user's membership, or his place on the blacklist.
pub(crate) static MEMBER: LazyLock<Script> = LazyLock::new(|| script(include_str!("member.lua")));
/// Heartbeats and farewells of a gateway, and who is gone.
pub(crate) static PRESENCE: LazyLock<Script> = LazyLock::new(|| script(include_str!("presence.lua")));
/// What is known of users.
pub(crate) static PRESENCE_LOOK: LazyLock<Script> =
    LazyLock::new(|| script(include_str!("presence_look.lua")));
/// How many are online.
pub(crate) static PRESENCE_COUNT: LazyLock<Script> =
    LazyLock::new(|| script(include_str!("presence_count.lua")));

/// Appends to the log of who came and what was reported.
pub(crate) static RECORD: LazyLock<Script> = LazyLock::new(|| script(include_str!("record.lua")));
/// Raises a position in that log.
pub(crate) static SINK: LazyLock<Script> = LazyLock::new(|| script(include_str!("sink.lua")));
/// Puts a recount in the place of a day's numbers.
pub(crate) static RECOUNT: LazyLock<Script> = LazyLock::new(|| script(include_str!("recount.lua")));

/// All of them, to be loaded on connecting.
pub(super) fn all() -> [&'static Script; 16] {
    [
        &BIND,
        &UNBIND,
        &LEASE,
        &APPEND,
        &POSITION,
        &JOIN,
        &LEAVE,
        &CREATE,
        &DELETE,
        &MEMBER,
        &PRESENCE,
        &PRESENCE_LOOK,
        &PRESENCE_COUNT,
        &RECORD,
        &SINK,
        &RECOUNT,
    ]
}
