//! What is kept of workspaces across restarts, and who writes it down.
//!
//! Policies that were changed are stored before the change is answered. Phases and their reasons
//! go to a task that writes them behind the workspaces' backs, in order and in groups: no wake and
//! no freeze waits for a disk. What a crash can cost is the last lines of the journal; how things
//! are is found out from the drivers at every start, not believed from a file.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Change;
use super::machine::{Machine, Past};
use crate::clock::Clock;
use crate::model::{Phase, PolicyOverrides, Tier, WorkspaceId};
use crate::store::{Intent, JournalEntry, Origin, Record, RecordState, Store, StoreError};

/// Changes that may wait to be written: some for each of ten thousand workspaces that are taken in
/// at once. A disk that is further behind is broken; what does not fit is lost to the journal, and
/// said.
const BEHIND_MAX: usize = 100_000;
/// Changes that are handed to the store at once; so few are polled in their order.
const GROUP_MAX: usize = 30;
/// How long the last changes may take to be written when the program ends.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// See the module's head.
pub(super) struct Records {
    store: Arc<dyn Store>,
    pub(super) clock: Clock,
    /// What was found at the start, until its workspace is known again.
    found: Mutex<HashMap<WorkspaceId, Box<Record>>>,
    queue: mpsc::Sender<Note>,
}

/// Something to be written.
#[derive(Debug)]
enum Note {
    Known(Box<Record>),
    /// Somebody waits until it is stored.
    Keep(Box<Record>, oneshot::Sender<Result<(), StoreError>>),
    Changed(WorkspaceId, RecordState, Option<JournalEntry>),
    Gone(WorkspaceId),
    /// Everything before this has been handed to the store when it is dropped.
    Flush(mpsc::Sender<()>),
}

/// What is remembered of a workspace that is known again.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// What was changed of its policy.
    pub(super) policy: PolicyOverrides,
    /// How long ago it was first known.
    pub(super) age: Duration,
    /// The phase that it was in, its tier, and for how long.
    pub(super) phase: Option<(Phase, Option<Tier>, Duration)>,
    /// How long ago an admin stopped it, if it was not woken since.
    pub(super) stopped: Option<Duration>,
    /// Whether it was being stopped from paused.
    pub(super) stop_under_way: bool,
    /// For how long an admin wants it awake yet.
    pub(super) kept_for: Option<Duration>,
    /// Bytes of memory that it used right before it was stopped.
    pub(super) memory_saved: Option<u64>,
    /// Whether its last report said that it is active.
    pub(super) reported_activity: bool,
    /// How long ago it was active last.
    pub(super) active: Option<Duration>,
    /// Whether it was being created or removed: only known of what was created by a call, for only
    /// that has an id that nobody else gives.
    pub(super) cut_off: Option<&'static str>,
}

impl Remembered {
    /// What the rules are to know of it. A freeze is remembered for as long as it may take: older
    /// than that, whatever runs now was started since.
    pub(super) fn past(&self, freeze_max: Duration, now: Instant) -> Past {
        if let Some(why) = self.cut_off {
            return Past::Removing { why };
        }
        let stopped_at = self.stopped.map(|age| ago(now, age));
        if let (true, Some((_, _, age))) = (self.stop_under_way, self.phase) {
            return Past::SteppingDown { since: ago(now, age), stopped_at };
        }
        match self.phase {
            Some((Phase::Frozen, tier, age)) => {
                let tier = tier.unwrap_or(Tier::Stopped);
                Past::Frozen { tier, since: ago(now, age), stopped_at }
            }
            Some((Phase::Freezing, _, age)) if age < freeze_max => Past::Freezing { stopped_at },
            Some(_) => Past::Awake { reported_activity: self.reported_activity },
            None => Past::Unknown,
        }
    }
}

impl Records {
    /// Begins with what a store has. The task that writes is for the caller to run.
    pub(super) fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        found: Vec<Record>,
    ) -> (Arc<Self>, impl Future<Output = ()> + use<>) {
        let (queue, notes) = mpsc::channel(BEHIND_MAX);
        let found = found.into_iter().map(|record| (record.id.clone(), Box::new(record))).collect();
        let records = Self { store: store.clone(), clock, found: Mutex::new(found), queue };
        (Arc::new(records), write(store, notes))
    }

    /// A workspace is known: what is remembered of it. One that is new is written down.
    pub(super) fn recall(&self, id: &WorkspaceId, driver: &str, origin: Origin) -> Remembered {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = found.remove(id) else {
            self.note(Note::Known(Box::new(self.new_record(id, driver, origin))));
            return Remembered::default();
        };
        let now = self.clock.now();
        // The clock may have been set back meanwhile; nothing is younger than nothing.
        let age = |date: SystemTime| now.duration_since(date).unwrap_or_default();
        let state = &record.state;
        let phase = Some((state.phase, state.tier, age(state.since)));
        let cut_off = match (record.origin, state.intent, state.phase) {
            (Origin::Api, Some(Intent::Create), _) => {
                Some("a restart came in the middle of its creation")
            }
            (Origin::Api, _, Phase::Removing | Phase::Removed) => {
                Some("a restart came in the middle of its removal")
            }
            _ => None,
        };
        Remembered {
            policy: record.policy,
            age: age(record.created_at),
            phase,
            stopped: state.stopped_by_admin_at.map(age),
            kept_for: state.kept_until.and_then(|until| until.duration_since(now).ok()),
            memory_saved: state.memory_saved,
            stop_under_way: state.intent == Some(Intent::Stop),
            reported_activity: state.reported_activity,
            active: state.last_active.map(age),
            cut_off,
        }
    }

    /// Those that were created by a call, and are not known again yet.
    pub(super) fn created(&self) -> Vec<Record> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found
            .values()
            .filter(|record| record.origin == Origin::Api)
            .map(|one| (**one).clone())
            .collect()
    }

    /// Keeps what is remembered of a workspace that nobody wants any more, for when somebody does.
    pub(super) fn lay_by(&self, record: Record) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        self.noted(&record.id, record.state.clone());
        found.insert(record.id.clone(), Box::new(record));
    }

    /// Whether the configuration had a workspace of that id once, and has none now.
    pub(super) fn is_laid_by(&self, id: &WorkspaceId) -> bool {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(id).is_some_and(|record| record.origin == Origin::Config)
    }

    /// Forgets those that a driver found in an earlier life of this program and that are not among
    /// what it has now: whatever has such an id one day is another one, with a life of its own.
    pub(super) fn forget_missing(&self, driver: &str, listed: &HashSet<WorkspaceId>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|id, record| {
            let was_here = record.origin == Origin::Discovered && record.driver == driver;
            let is_missing = was_here && !listed.contains(id);
            if is_missing {
                self.gone(id);
            }
            !is_missing
        });
    }

    /// Keeps a record that is new, or has a policy that was changed, in its place among the changes:
    /// after the removal of another of the same id, and before its own. Durable when what is
    /// returned is ready.
    pub(super) fn keep(
        &self,
        record: Record,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (answer, stored) = oneshot::channel();
        let asked = self.queue.try_send(Note::Keep(Box::new(record), answer));
        async move {
            asked.map_err(|error| match error {
                TrySendError::Full(_) => {
                    StoreError::Disk { reason: "too many changes wait for it".to_owned() }
                }
                TrySendError::Closed(_) => StoreError::Closed,
            })?;
            stored.await.unwrap_or(Err(StoreError::Closed))
        }
    }

    /// Writes down that a phase was entered.
    pub(super) fn changed(&self, change: &Change, state: RecordState) {
        let Change { workspace, phase, tier, reason, took, at } = change;
        let at = self.clock.date_of(*at);
        let reason = reason.clone();
        let entry = JournalEntry { at, phase: *phase, tier: *tier, reason, took: *took };
        self.note(Note::Changed(workspace.clone(), state, Some(entry)));
    }

    /// Writes down how a workspace is, between phases.
    pub(super) fn noted(&self, id: &WorkspaceId, state: RecordState) {
        self.note(Note::Changed(id.clone(), state, None));
    }

    /// Forgets a workspace that is gone.
    pub(super) fn gone(&self, id: &WorkspaceId) {
        self.note(Note::Gone(id.clone()));
    }

    /// The last lines of a workspace's journal, the newest first.
    pub(super) async fn journal(
        &self,
        id: &WorkspaceId,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        self.flush().await;
        self.store.journal(id, limit).await
    }

    /// Returns when everything so far is stored, or can't be for now.
    pub(super) async fn flush(&self) {
        let (done, mut flushed) = mpsc::channel(1);
        let asked = self.queue.send(Note::Flush(done));
        let written = async { asked.await.is_ok() && flushed.recv().await.is_none() };
        if timeout(FLUSH_MAX, written).await.is_err() {
            tracing::warn!("the last changes are not written yet");
        }
    }

    /// Ends the store, so that another program may have it.
    pub(super) async fn close(&self) {
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store did not end as it should");
        }
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The record of a workspace that is not known yet.
    pub(super) fn new_record(&self, id: &WorkspaceId, driver: &str, origin: Origin) -> Record {
        let now = self.clock.now();
        Record {
            id: id.clone(),
            origin,
            driver: driver.to_owned(),
            project: None,
            spec: None,
            policy: PolicyOverrides::default(),
            created_at: now,
            state: RecordState {
                phase: Phase::Frozen,
                tier: Some(Tier::Stopped),
                since: now,
                last_active: None,
                reported_activity: false,
                intent: None,
                stopped_by_admin_at: None,
                kept_until: None,
                memory_saved: None,
                failure: None,
            },
        }
    }

    /// How a workspace is, as it is written down. `last_active`: when it was, as far as is known.
    pub(super) fn state_of(&self, machine: &Machine, last_active: Option<Instant>) -> RecordState {
        let intent = match (machine.is_made(), machine.is_stop_under_way()) {
            (false, _) => Some(Intent::Create),
            (true, true) => Some(Intent::Stop),
            (true, false) => None,
        };
        RecordState {
            phase: machine.phase(),
            tier: machine.tier(),
            since: self.clock.date_of(machine.since()),
            last_active: last_active.map(|at| self.clock.date_of(at)),
            reported_activity: machine.reported_activity(),
            intent,
            stopped_by_admin_at: machine.stopped_at().map(|at| self.clock.date_of(at)),
            kept_until: machine.kept_until().map(|at| self.clock.date_of(at)),
            memory_saved: None,
            failure: machine.failure().map(str::to_owned),
        }
    }

    fn note(&self, note: Note) {
        if let Err(error) = self.queue.try_send(note) {
            tracing::warn!(%error, "a change is lost to the journal");
        }
    }
}

async fn write(store: Arc<dyn Store>, mut notes: mpsc::Receiver<Note>) {
    let mut group = Vec::new();
    while notes.recv_many(&mut group, GROUP_MAX).await > 0 {
        let mut flushed = Vec::new();
        // Handed over in order, so that the store keeps their order, and waited for together.
        let written = group.drain(..).map(|note| {
            if let Note::Flush(done) = note {
                flushed.push(done);
                return None;
            }
            Some(write_one(&*store, note))
        });
        let written: Vec<_> = written.flatten().collect();
        join_all(written).await;
        drop(flushed);
    }
}

async fn write_one(store: &dyn Store, note: Note) {
    let written = match note {
        Note::Known(record) => store.put(*record).await,
        Note::Keep(record, answer) => {
            // Whoever hung up no longer wants to know.
            drop(answer.send(store.put(*record).await));
            Ok(())
        }
        Note::Changed(id, state, entry) => match store.transition(&id, state, entry).await {
            // It was removed meanwhile.
            Err(StoreError::Unknown { .. }) => Ok(()),
            written => written,
        },
        Note::Gone(id) => store.delete(&id).await,
        Note::Flush(_) => Ok(()),
    };
    if let Err(error) = written {
        tracing::error!(%error, "could not keep a change");
    }
}

/// A moment that long ago.
pub(super) fn ago(now: Instant, age: Duration) -> Instant {
    now.checked_sub(age).unwrap_or(now)
}
