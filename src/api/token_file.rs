//! The token in the state directory, followed as its file changes.
//!
//! An operator who replaces the file, or deletes it, wants the old token dead now and not at the
//! next restart. The file is looked at when somebody calls, once a second at most, and read when
//! it is another than before.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::clock::Clock;
use crate::secrets::{self, SecretError};
use crate::token::{Token, TokenHash};

/// How long what was seen is believed.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How long a call waits for a look. A disk that takes longer is no reason to refuse it.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// See the module's head.
#[derive(Clone)]
pub(super) struct TokenFile {
    path: PathBuf,
    known: Arc<Mutex<Option<Known>>>,
    /// Whoever reads or writes the file has it; a disk that hangs keeps one of them, not a crowd.
    disk: Arc<AsyncMutex<Disk>>,
}

/// The token that was in the file last.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) hash: TokenHash,
    pub(super) since: SystemTime,
}

/// How the file was when it was looked at last.
struct Disk {
    looked_at: Instant,
    stamp: Option<Stamp>,
}

/// What differs between two contents of the file. No program can set back the time of change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl TokenFile {
    /// Looks at the file for the first time. Blocks; for the start.
    pub(super) fn open(path: PathBuf) -> Self {
        let mut disk = Disk { looked_at: Instant::now(), stamp: None };
        let known = disk.look(&path, None);
        Self { path, known: Arc::new(Mutex::new(known)), disk: Arc::new(AsyncMutex::new(disk)) }
    }

    /// The token that counts now; `None`: there is none in the file.
    pub(super) async fn current(&self) -> Option<Known> {
        if let Ok(disk) = self.disk.clone().try_lock_owned()
            && disk.looked_at.elapsed() >= LOOK_PAUSE
        {
            let file = self.clone();
            let look = spawn_blocking(move || file.look_again(disk));
            if timeout(LOOK_MAX, look).await.is_err() {
                tracing::warn!("the disk with the admin token does not answer");
            }
        }
        *self.lock_known()
    }

    /// Puts a new token into the file, in place of the one before. Durable when it returns.
    pub(super) async fn rotate(&self) -> Result<(Token, Known), SecretError> {
        let disk = self.disk.clone().lock_owned().await;
        let file = self.clone();
        let rotated = spawn_blocking(move || file.rotate_now(disk)).await;
        rotated.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn rotate_now(&self, mut disk: OwnedMutexGuard<Disk>) -> Result<(Token, Known), SecretError> {
        let token = Token::new(secrets::random()?);
        let known = Known { hash: token.hash(), since: Clock::MACHINE.date_of(Instant::now()) };
        secrets::write(&self.path, token.text())?;
        disk.stamp = Stamp::of(&self.path);
        *self.lock_known() = Some(known);
        Ok((token, known))
    }

    fn look_again(&self, mut disk: OwnedMutexGuard<Disk>) {
        let before = *self.lock_known();
        let now = disk.look(&self.path, before);
        let hash = |known: Option<Known>| known.map(|known| known.hash);
        if hash(before) != hash(now) {
            let path = self.path.display();
            match now {
                Some(_) => tracing::info!("the admin token is another from now on: {path}"),
                None => {
                    tracing::warn!("there is no admin token any more: nothing usable in {path}")
                }
            }
        }
        *self.lock_known() = now;
    }

    fn lock_known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// The token in the file, which is the one `before` if the file has not changed.
    fn look(&mut self, path: &Path, before: Option<Known>) -> Option<Known> {
        self.looked_at = Instant::now();
        // Before it is read: what changes in between is seen the next time.
        let stamp = Stamp::of(path);
        if std::mem::replace(&mut self.stamp, stamp) == stamp && stamp.is_some() {
            return before;
        }
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        let since = modified.unwrap_or_else(|_| Clock::MACHINE.date_of(self.looked_at));
        match secrets::read(path) {
            Ok(token) => token.map(|token| Known { hash: TokenHash::of(&token), since }),
            Err(error) => {
                tracing::warn!(%error, "the admin token can't be used");
                None
            }
        }
    }
}

impl Stamp {
    /// `None`: there is no file, or none that can be seen.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Some(Self { inode: metadata.ino(), size: metadata.len(), changed })
    }
}
