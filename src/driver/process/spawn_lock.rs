//! Tells a later Frostgate whether a child of an earlier one is still being born.
//!
//! Between fork and exec a child looks like its parent: it carries no token and is in no cgroup. If
//! Frostgate dies in that moment the child lives on, and whoever looks for it too early finds
//! nobody. So a lock is held while a process is spawned. The child inherits the lock with all other
//! descriptors, and exec closes it: when the lock is free, the child can be recognised, or is dead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use tokio::time::{Duration, Instant};

use super::freezer::Steps;

const FILE_NAME: &str = "spawning";

/// A child is this long between fork and exec only on a machine that hardly moves any more.
const BIRTH_LIMIT: Duration = Duration::from_secs(5);

/// Held by Frostgate and by the child that it spawns; free when both have let go.
pub(super) struct SpawnLock {
    _file: File,
}

impl SpawnLock {
    /// Only a Frostgate that has the workspace's turn asks for it.
    pub(super) fn take(directory: &Path) -> io::Result<Self> {
        let file = open(directory)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { _file: file })
    }
}

/// Returns when every child that was being born has been.
pub(super) async fn every_child_is_born(directory: &Path) -> io::Result<()> {
    let file = open(directory)?;
    let deadline = Instant::now() + BIRTH_LIMIT;
    let mut steps = Steps::default();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => steps.next().await,
            Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(()),
        }
    }
}

fn open(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options.open(directory.join(FILE_NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_held_until_the_last_holder_lets_go() {
        let name = format!("frostgate-spawn-lock-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let lock = SpawnLock::take(&directory).unwrap();
        let childs = lock._file.try_clone().unwrap();
        drop(lock);
        assert!(SpawnLock::take(&directory).is_err());
        let waited =
            tokio::time::timeout(Duration::from_millis(20), every_child_is_born(&directory));
        assert!(waited.await.is_err());
        drop(childs);
        every_child_is_born(&directory).await.unwrap();
        drop(SpawnLock::take(&directory).unwrap());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
