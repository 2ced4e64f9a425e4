//! Who this gateway is, kept in the data directory: its id over restarts, its
//! epoch growing with each.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::GatewayError;
use crate::types::{Epoch, GatewayId, GatewayRef, unix_micros};

const IDENTITY: &str = "identity.json";
const LOCK: &str = "lock";
const RUN: &str = "run.json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    gateway_id: String,
    epoch: u64,
}

/// A data directory of one process.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    /// Held as long as a process has it open: also one it was handed to.
    lock: File,
    pub(super) own: GatewayRef,
}

impl DataDir {
    /// Opens or makes the directory, takes it for this process, and begins a
    /// new epoch.
    pub(super) fn open(path: &Path, configured: Option<&GatewayId>) -> Result<Self, GatewayError> {
        let failed = |why: String| GatewayError::DataDir { dir: path.display().to_string(), why };
        fs::create_dir_all(path).map_err(|error| failed(error.to_string()))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK))
            .map_err(|error| failed(error.to_string()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            failed("another gateway is running on it; give each its own with --data-dir".to_owned())
        })?;
        let stored = read(&path.join(IDENTITY)).map_err(failed)?;
        let id = match (configured, &stored) {
            (Some(id), _) => id.clone(),
            (None, Some(stored)) => GatewayId::new(&stored.gateway_id)
                .map_err(|error| failed(format!("{IDENTITY}: gatewayId: {error}")))?,
            (None, None) => draw().map_err(failed)?,
        };
        // Grows even if the clock went back.
        let now = u64::try_from(unix_micros()).unwrap_or(0);
        let epoch = Epoch(stored.map_or(now, |stored| now.max(stored.epoch.saturating_add(1))));
        let stored = Stored { gateway_id: id.to_string(), epoch: epoch.0 };
        let text = serde_json::to_string_pretty(&stored).map_err(|error| failed(error.to_string()))?;
        replace(&path.join(IDENTITY), &text).map_err(|error| failed(error.to_string()))?;
        Ok(Self { path: path.to_owned(), lock, own: GatewayRef { id, epoch } })
    }

    /// Goes on as the gateway of the process before this one, whose `lock`
    /// came along.
    pub(super) fn inherit(path: &Path, lock: OwnedFd, own: GatewayRef) -> Self {
        Self { path: path.to_owned(), lock: lock.into(), own }
    }

    /// The lock, for the process behind this one.
    pub(super) fn lock(&self) -> std::io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }

    /// Says where the gateway of this directory is reachable.
    pub(super) fn announce(&self, listen: SocketAddr, admin: SocketAddr) -> Result<(), GatewayError> {
        let text = json!({
            "pid": std::process::id(),
            "listen": listen.to_string(),
            "admin": admin.to_string(),
            "gatewayId": self.own.id.as_str(),
            "epoch": self.own.epoch.0,
        });
        replace(&self.path.join(RUN), &text.to_string()).map_err(|error| GatewayError::DataDir {
            dir: self.path.display().to_string(),
            why: error.to_string(),
        })
    }

    /// It no longer is.
    pub(super) fn withdraw(&self) {
        let _ = fs::remove_file(self.path.join(RUN));
    }
}

fn read(path: &Path) -> Result<Option<Stored>, String> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| format!("{IDENTITY}: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{IDENTITY}: {error}")),
    }
}

fn draw() -> Result<GatewayId, String> {
    GatewayId::new(&format!("gw-{:08x}", fastrand::u32(..))).map_err(|error| error.to_string())
}

/// Whole or not at all, also over a crash.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_stays_and_the_epoch_grows() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), None).unwrap();
        let busy = DataDir::open(dir.path(), None).unwrap_err();
        assert!(busy.to_string().contains("--data-dir"), "{busy}");
        let own = first.own.clone();
        drop(first);
        let second = DataDir::open(dir.path(), None).unwrap();
        assert_eq!(second.own.id, own.id);
        assert!(second.own.epoch > own.epoch);
        drop(second);
        let renamed = DataDir::open(dir.path(), Some(&GatewayId::new("gw-7").unwrap())).unwrap();
        assert_eq!(renamed.own.id.as_str(), "gw-7");
    }
}
