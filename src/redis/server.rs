//! What a server says of itself.

use super::RedisError;

/// From INFO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// Another one = another process.
    pub(super) run_id: String,
    /// Changes with every restart and every promotion.
    pub(super) replid: String,
}

impl Server {
    /// Reads INFO's sections `server` and `replication`; refuses what cannot
    /// be worked with.
    pub(super) fn parse(info: &str) -> Result<Self, RedisError> {
        // Valkey says which Redis it resembles, too.
        let valkey = field(info, "valkey_version");
        let (name, version, least) = if valkey.is_empty() {
            ("Redis", field(info, "redis_version"), 7)
        } else {
            ("Valkey", valkey, 8)
        };
        let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        if major < least {
            return Err(RedisError::TooOld(format!("{name} {version}")));
        }
        let replid = primary(info)?;
        Ok(Self { run_id: field(info, "run_id").to_owned(), replid })
    }
}

/// The replication id, unless it is a replica's.
pub(super) fn primary(info: &str) -> Result<String, RedisError> {
    if field(info, "role") == "master" {
        Ok(field(info, "master_replid").to_owned())
    } else {
        Err(RedisError::Replica)
    }
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_old_and_replicas_are_refused() {
        let info = |version: &str, role: &str| {
            format!("# Server\r\n{version}\r\nrun_id:r1\r\n\r\nrole:{role}\r\nmaster_replid:abc\r\n")
        };
        let good = Server { run_id: "r1".to_owned(), replid: "abc".to_owned() };
        for version in
            ["redis_version:7.0.15", "redis_version:8.2.3", "redis_version:7.2.4\r\nvalkey_version:8.0.0"]
        {
            assert_eq!(Server::parse(&info(version, "master")).unwrap(), good);
        }
        for (version, named) in [
            ("redis_version:6.2.14", "Redis 6.2.14"),
            ("redis_version:7.2.4\r\nvalkey_version:7.2.5", "Valkey 7.2.5"),
            ("", "Redis "),
        ] {
            let refused = Server::parse(&info(version, "master")).unwrap_err();
            assert!(matches!(refused, RedisError::TooOld(ref name) if name == named), "{refused}");
        }
        let replica = Server::parse(&info("redis_version:7.0.15", "slave"));
        assert!(matches!(replica, Err(RedisError::Replica)));
    }
}
