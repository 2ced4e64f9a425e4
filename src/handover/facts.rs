//! What must be the same in both processes.

use crate::config::Config;
use crate::types::{GatewayId, fnv1a64};
use crate::wire::pb::HandoverFact;

/// Names and values, told by the new process and judged by the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts(Vec<HandoverFact>);

impl Facts {
    /// Of a configuration.
    #[must_use]
    pub(crate) fn of(config: &Config) -> Self {
        let data_dir = config.data_dir.canonicalize().unwrap_or_else(|_| config.data_dir.clone());
        // A password is in it: only whether it is the same is told.
        let redis = config.redis.as_ref().map_or_else(String::new, |redis| {
            format!("{:016x} {}", fnv1a64(redis.url.expose().as_bytes()), redis.prefix)
        });
        let fact = |name: &str, value: String| HandoverFact { name: name.to_owned(), value };
        Self(vec![
            fact("listen", config.listen.to_string()),
            fact("admin.listen", config.admin.to_string()),
            fact("gateway_id", config.gateway_id.as_ref().map_or_else(String::new, GatewayId::to_string)),
            fact("data_dir", data_dir.display().to_string()),
            fact("redis", redis),
        ])
    }

    /// To be sent.
    pub(super) fn into_inner(self) -> Vec<HandoverFact> {
        self.0
    }

    /// The first one that `theirs` says otherwise, if any; one that only one
    /// side knows is not judged.
    pub(super) fn conflict(&self, theirs: &[HandoverFact]) -> Option<&str> {
        let differs = |ours: &&HandoverFact| {
            theirs.iter().any(|theirs| theirs.name == ours.name && theirs.value != ours.value)
        };
        self.0.iter().find(differs).map(|fact| fact.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_know_can_conflict() {
        let fact = |name: &str, value: &str| HandoverFact { name: name.into(), value: value.into() };
        let ours = Facts(vec![fact("listen", "a"), fact("redis", "b")]);
        assert_eq!(ours.conflict(&[fact("listen", "a"), fact("colour", "red")]), None);
        assert_eq!(ours.conflict(&[fact("redis", "c")]), Some("redis"));
    }
}
