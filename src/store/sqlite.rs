//! The store in one file, `frostgate.db` in the state directory, through SQLite.
//!
//! A single file needs no server, survives `kill -9` and power cuts, and can be looked into with
//! any SQLite shell. It is in WAL mode and fully synchronous: a commit has returned when the disk
//! has it. One thread owns the connection (`writer`); this is the handle that everybody else has.

mod columns;
mod lock;
mod rows;
mod schema;
mod writer;

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{
    Call, HISTORY_AGE_MAX, JournalEntry, Moment, Record, RecordState, Store, StoreError,
    TokenRecord, Wake,
};
use crate::model::WorkspaceId;
use crate::token::TokenName;
use lock::Lock;
use writer::{Asked, Job, Writer};

const FILE_NAME: &str = "frostgate.db";

/// Calls that wait for the thread. Further ones wait until there is room.
const QUEUE_MAX: usize = 1_024;

/// How long a call waits for its answer, room in the queue included. A disk that takes longer is
/// broken, and whoever waits should say so.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How long a commit waits for another program that holds the database, such as a backup.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// The WAL is cut back to this after a burst.
const WAL_BYTES_KEPT: u32 = 16 * 1024 * 1024;

/// Statements that stay prepared: more than there are in [`rows`].
const STATEMENTS_KEPT: usize = 32;

/// The store in a file. Clones of a handle to it are made with [`Arc`].
#[derive(Debug)]
pub struct Sqlite {
    /// `None`: it is closed.
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    commits: Arc<AtomicU64>,
}

impl Sqlite {
    /// Opens the store of a state directory that exists, makes it if it is new and upgrades it if
    /// it is old. Blocks; for the start.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let lock = Lock::take(state_dir)?;
        let file = state_dir.join(FILE_NAME);
        let unopened = |reason: String| StoreError::Unopened { file: file.clone(), reason };
        make_private(&file).map_err(|error| unopened(error.to_string()))?;
        let connection = connect(&file)?;

        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let commits = Arc::new(AtomicU64::new(0));
        let writer = Writer::new(connection, Arc::clone(&commits));
        let work = move || {
            // The lock ends last: when another may have it, this connection is closed.
            let _lock = lock;
            writer.run(receiver);
        };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(work);
        let thread = thread.map_err(|error| unopened(error.to_string()))?;
        let (jobs, thread) = (Mutex::new(Some(sender)), Mutex::new(Some(thread)));
        Ok(Self { jobs, thread, commits })
    }

    /// Transactions that were committed since it was opened.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Call<'_, T> {
        Box::pin(async move {
            let jobs = lock_of(&self.jobs).clone().ok_or(StoreError::Closed)?;
            let (sender, receiver) = oneshot::channel();
            let asked = async {
                let job = Box::new(Asked::new(work, sender));
                jobs.send(job).await.map_err(|_| StoreError::Closed)?;
                receiver.await.unwrap_or(Err(StoreError::Closed))
            };
            let stalled = |_| Err(StoreError::Stalled { limit: ANSWER_MAX });
            timeout(ANSWER_MAX, asked).await.unwrap_or_else(stalled)
        })
    }
}

/// What was asked is done, and the file is closed, when this returns: it can be opened again.
impl Drop for Sqlite {
    fn drop(&mut self) {
        drop(lock_of(&self.jobs).take());
        join(lock_of(&self.thread).take());
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread {
        // A panic was told when it happened.
        _ = thread.join();
    }
}

/// Neither is left half changed by a panic.
fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for Sqlite {
    fn load(&self) -> Call<'_, Vec<Record>> {
        self.call(rows::load)
    }

    fn put(&self, record: Record) -> Call<'_, ()> {
        self.call(move |connection| rows::put(connection, &record))
    }

    fn transition(
        &self,
        id: &WorkspaceId,
        state: RecordState,
        entry: Option<JournalEntry>,
    ) -> Call<'_, ()> {
        let id = id.clone();
        self.call(move |connection| rows::transition(connection, &id, &state, entry.as_ref()))
    }

    fn delete(&self, id: &WorkspaceId) -> Call<'_, ()> {
        let id = id.clone();
        self.call(move |connection| rows::delete(connection, &id))
    }

    fn journal(&self, id: &WorkspaceId, limit: usize) -> Call<'_, Vec<JournalEntry>> {
        let id = id.clone();
        self.call(move |connection| rows::journal(connection, &id, limit))
    }

    fn note_moment(&self, moment: Moment) -> Call<'_, ()> {
        let oldest = moment.at.checked_sub(HISTORY_AGE_MAX).unwrap_or(SystemTime::UNIX_EPOCH);
        self.call(move |connection| rows::note_moment(connection, &moment, oldest))
    }

    fn history(&self, since: SystemTime) -> Call<'_, Vec<Moment>> {
        self.call(move |connection| rows::history(connection, since))
    }

    fn wakes(&self, since: SystemTime) -> Call<'_, Vec<Wake>> {
        self.call(move |connection| rows::wakes(connection, since))
    }

    fn put_token(&self, token: TokenRecord) -> Call<'_, ()> {
        self.call(move |connection| rows::put_token(connection, &token))
    }

    fn tokens(&self) -> Call<'_, Vec<TokenRecord>> {
        self.call(rows::tokens)
    }

    fn close(&self) -> Call<'_, ()> {
        drop(lock_of(&self.jobs).take());
        let thread = lock_of(&self.thread).take();
        Box::pin(async move {
            let joined = tokio::task::spawn_blocking(move || join(thread)).await;
            joined.map_err(|_| StoreError::Closed)
        })
    }

    fn delete_token(&self, name: &TokenName) -> Call<'_, bool> {
        let name = name.clone();
        self.call(move |connection| rows::delete_token(connection, &name))
    }
}

/// Makes the file before SQLite does, which would make it readable by others. The files that SQLite
/// puts beside it take its mode.
fn make_private(file: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(file)?;
    fs::set_permissions(file, Permissions::from_mode(0o600))
}

fn connect(file: &Path) -> Result<Connection, StoreError> {
    let unopened = |error: rusqlite::Error| StoreError::Unopened {
        file: file.to_owned(),
        reason: StoreError::from(error).to_string(),
    };
    let mut connection = Connection::open(file).map_err(unopened)?;
    connection.busy_timeout(BUSY_MAX).map_err(unopened)?;
    // Before anything is written: a file that is refused stays as it is.
    let found = schema::version(&connection).map_err(unopened)?;
    let known = u32::try_from(schema::MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(StoreError::Newer { file: file.to_owned(), found, known });
    }
    let prepared =
        configure(&connection).and_then(|()| schema::upgrade(&mut connection, schema::MIGRATIONS));
    prepared.map_err(unopened)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        // Not wrong, only slower: some network file systems can't share memory.
        tracing::warn!(mode, "the state directory's file system has no WAL; saving is slower");
    }
    // As FULL where there is a WAL; without one it is what a power cut takes to be survived.
    connection.pragma_update(None, "synchronous", "extra")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { reason },
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig) => Self::Refused { reason },
            Some(_) => Self::Disk { reason },
            // No error of SQLite, but a value that does not fit its column.
            None if matches!(error, rusqlite::Error::ToSqlConversionFailure(_)) => {
                Self::Refused { reason }
            }
            None => Self::Damaged { reason },
        }
    }
}

#[cfg(test)]
mod tests;
