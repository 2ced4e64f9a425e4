//! Whether there is enough of everything for two processes at a time.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use super::HandoverError;
use super::precopy::IN_FLIGHT;

/// Descriptors for the control socket, pipes, the state and the like.
const SOME: u64 = 16;
/// Memory of one connection in the new process, bytes, with what the kernel
/// and the allocator add.
const PER_CONNECTION: u64 = 4 * 1024;
/// Memory of the new process without any, bytes.
const BASE: u64 = 48 << 20;

/// Refuses where the descriptors or the memory for `connections`, with
/// `queued` bytes in their outboxes, are not there.
pub(super) fn check(connections: u64, queued: u64) -> Result<(), HandoverError> {
    let open = u64::try_from(fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)).unwrap_or(u64::MAX);
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    descriptors(open, u64::try_from(IN_FLIGHT).unwrap_or(u64::MAX), limit)?;
    // Once in the state and once in the outboxes that are made of it.
    let needed = BASE + connections * PER_CONNECTION + queued * 2;
    let free = [available_memory(), group_memory()].into_iter().flatten().min();
    memory(needed, free)
}

fn descriptors(open: u64, in_flight: u64, limit: u64) -> Result<(), HandoverError> {
    if open.saturating_add(in_flight).saturating_add(SOME) <= limit {
        return Ok(());
    }
    Err(HandoverError::Unfit(format!(
        "the descriptor limit is too low: {open} of {limit} are open, and {} more are needed for a while",
        in_flight + SOME
    )))
}

fn memory(needed: u64, free: Option<u64>) -> Result<(), HandoverError> {
    match free {
        Some(free) if free < needed => Err(HandoverError::Unfit(format!(
            "not enough memory for two processes: about {} MiB are needed, {} MiB are free",
            needed >> 20,
            free >> 20
        ))),
        _ => Ok(()),
    }
}

fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// What the control group of this process may still use; `None` = any amount.
fn group_memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let read = |name: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup{group}/{name}")).ok()?.trim().parse().ok()
    };
    Some(read("memory.max")?.saturating_sub(read("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_is_said_before_anything_changes() {
        assert!(descriptors(100, 200, 316).is_ok());
        let error = descriptors(101, 200, 316).unwrap_err().to_string();
        assert!(error.contains("101 of 316") && error.contains("216 more"), "{error}");
        assert!(memory(100 << 20, None).is_ok() && memory(100 << 20, Some(100 << 20)).is_ok());
        assert!(memory(100 << 20, Some(99 << 20)).is_err());
    }
}
