//! The thread that owns the connection.
//!
//! A durable commit costs a write to the disk's own memory cells, some milliseconds, however much
//! is in it. So the thread takes whatever has queued up while it committed the last time as one
//! transaction, and a thousand changes at once cost a handful of commits. Nobody is answered before
//! the commit has returned: an answer is a promise.
//!
//! Each job has a savepoint of its own in the group's transaction, so that one that fails is undone
//! alone and is the only one to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::rows;
use crate::clock::Clock;
use crate::store::{JOURNAL_AGE_MAX, StoreError};

/// Jobs that share a commit at most: so that the first of them does not wait for long.
pub(super) const GROUP_MAX: usize = 1_024;

/// How often old lines of the journal are looked for, and how soon again where there were many.
const TRIM_EVERY: Duration = Duration::from_secs(60 * 60);
const TRIM_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Something to be done in a transaction, and answered once that is committed.
pub(super) trait Job: Send {
    /// Does it. An error is kept for the answer, and returned for the group's sake.
    fn carry_out(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError>;

    /// Tells whoever waits: what came of it, or why the group it was in was not committed.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// A closure as a job.
pub(super) struct Asked<T, F> {
    work: Option<F>,
    result: Result<T, StoreError>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Asked<T, F> {
    /// `answer` is sent what `work` returns.
    pub(super) fn new(work: F, answer: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { work: Some(work), result: Err(StoreError::Closed), answer }
    }
}

impl<T, F> Job for Asked<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn carry_out(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        if let Some(work) = self.work.take() {
            self.result = in_savepoint(transaction, work);
        }
        self.result.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        // Whoever asked may have given up waiting.
        _ = self.answer.send(committed.and(self.result));
    }
}

fn in_savepoint<T>(
    transaction: &mut Transaction<'_>,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let savepoint = transaction.savepoint()?;
    let result = work(&savepoint)?;
    savepoint.commit()?;
    Ok(result)
}

/// What the thread works with.
pub(super) struct Writer {
    connection: Connection,
    commits: Arc<AtomicU64>,
    trim_due: Instant,
}

impl Writer {
    /// Counts what it commits in `commits`.
    pub(super) fn new(connection: Connection, commits: Arc<AtomicU64>) -> Self {
        Self { connection, commits, trim_due: Instant::now() }
    }

    /// Works until nobody can ask any more and everything that was asked is done.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
        let _obituary = Obituary;
        let mut group = Vec::new();
        while jobs.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let committed = self.commit(&mut group);
            for job in group.drain(..) {
                job.answer(committed.clone());
            }
            self.trim_journal_if_due();
        }
    }

    fn commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let mut transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in group {
            let done = job.carry_out(&mut transaction);
            // Where the disk is full or fails, SQLite may give the whole transaction up by itself.
            if let Err(error) = done
                && transaction.is_autocommit()
            {
                return Err(error);
            }
        }
        transaction.commit()?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// After a group and not by a timer: where nothing is written, nothing grows.
    fn trim_journal_if_due(&mut self) {
        let now = Instant::now();
        if now < self.trim_due {
            return;
        }
        let oldest = Clock::MACHINE.date_of(now).checked_sub(JOURNAL_AGE_MAX);
        let more = match rows::trim(&self.connection, oldest.unwrap_or(SystemTime::UNIX_EPOCH)) {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "could not delete old lines of the journal");
                false
            }
        };
        self.trim_due = now + if more { TRIM_AGAIN_AFTER } else { TRIM_EVERY };
    }
}

/// Says so if the thread dies of a bug; whoever waits, and whoever comes later, is told
/// [`StoreError::Closed`], because the ends of the channels die with it.
struct Obituary;

impl Drop for Obituary {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("the store has died; nothing is saved until Frostgate is restarted");
        }
    }
}
