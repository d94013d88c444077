//! A store that lives as long as the process: for tests, and for the demo, which leaves nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{
    Call, HISTORY_AGE_MAX, JOURNAL_AGE_MAX, JOURNAL_LINES_MAX, JournalEntry, Moment, Record,
    RecordState, Store, StoreError, TokenRecord, Wake,
};
use crate::clock::Clock;
use crate::model::WorkspaceId;
use crate::token::TokenName;

/// Journals of workspaces that have no record any more.
const ORPHANED_JOURNALS_MAX: usize = 1_000;

/// The store in memory.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
    /// Calls that take their time do so one after another, in the order in which they came.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<WorkspaceId, Record>,
    /// Oldest line first.
    journals: BTreeMap<WorkspaceId, VecDeque<JournalEntry>>,
    history: BTreeMap<SystemTime, Moment>,
    tokens: BTreeMap<TokenName, TokenRecord>,
    failure: Option<StoreError>,
    latency: Duration,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// For tests: every call from now on fails with this; `None`: they succeed again.
    pub fn fail_with(&self, failure: Option<StoreError>) {
        self.lock().failure = failure;
    }

    /// For tests: every call from now on takes so long, and what is asked meanwhile waits for it.
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// For tests: a record as it stands right now, whatever calls are doing.
    pub fn record(&self, id: &WorkspaceId) -> Option<Record> {
        self.lock().records.get(id).cloned()
    }

    /// For tests: the same of a journal, the oldest line first.
    pub fn lines(&self, id: &WorkspaceId) -> Vec<JournalEntry> {
        self.lock().journals.get(id).into_iter().flatten().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call<'a, T>(
        &'a self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'a,
    ) -> Call<'a, T> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            let latency = self.lock().latency;
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            let mut state = self.lock();
            match &state.failure {
                Some(failure) => Err(failure.clone()),
                None => work(&mut state),
            }
        })
    }
}

impl Store for Memory {
    fn load(&self) -> Call<'_, Vec<Record>> {
        self.call(|state| Ok(state.records.values().cloned().collect()))
    }

    fn put(&self, record: Record) -> Call<'_, ()> {
        self.call(|state| {
            state.records.insert(record.id.clone(), record);
            Ok(())
        })
    }

    fn transition(
        &self,
        id: &WorkspaceId,
        state: RecordState,
        entry: Option<JournalEntry>,
    ) -> Call<'_, ()> {
        let id = id.clone();
        self.call(move |all| {
            let Some(record) = all.records.get_mut(&id) else {
                return Err(StoreError::Unknown { id });
            };
            record.state = state;
            if let Some(entry) = entry {
                all.write_journal(id, entry);
            }
            Ok(())
        })
    }

    fn delete(&self, id: &WorkspaceId) -> Call<'_, ()> {
        let id = id.clone();
        self.call(move |state| {
            state.records.remove(&id);
            state.forget_orphaned_journals();
            Ok(())
        })
    }

    fn journal(&self, id: &WorkspaceId, limit: usize) -> Call<'_, Vec<JournalEntry>> {
        let id = id.clone();
        self.call(move |state| {
            let oldest_kept = oldest_kept();
            let lines = state.journals.get(&id).into_iter().flatten();
            let kept = lines.filter(|line| line.at >= oldest_kept);
            Ok(kept.rev().take(limit).cloned().collect())
        })
    }

    fn note_moment(&self, moment: Moment) -> Call<'_, ()> {
        self.call(move |state| {
            let oldest = moment.at.checked_sub(HISTORY_AGE_MAX).unwrap_or(SystemTime::UNIX_EPOCH);
            state.history.retain(|at, _| *at >= oldest);
            state.history.insert(moment.at, moment);
            Ok(())
        })
    }

    fn history(&self, since: SystemTime) -> Call<'_, Vec<Moment>> {
        self.call(move |state| {
            Ok(state.history.range(since..).map(|(_, moment)| *moment).collect())
        })
    }

    fn wakes(&self, since: SystemTime) -> Call<'_, Vec<Wake>> {
        self.call(move |state| {
            let lines = state.journals.values().flatten().filter(|line| line.at >= since);
            let mut lines: Vec<_> = lines.collect();
            lines.sort_by_key(|line| std::cmp::Reverse(line.at));
            Ok(lines.into_iter().filter_map(|line| Wake::of(line.phase, line.took)).collect())
        })
    }

    fn put_token(&self, token: TokenRecord) -> Call<'_, ()> {
        self.call(|state| {
            state.tokens.insert(token.name.clone(), token);
            Ok(())
        })
    }

    fn tokens(&self) -> Call<'_, Vec<TokenRecord>> {
        self.call(|state| Ok(state.tokens.values().cloned().collect()))
    }

    fn delete_token(&self, name: &TokenName) -> Call<'_, bool> {
        let name = name.clone();
        self.call(move |state| Ok(state.tokens.remove(&name).is_some()))
    }
}

impl State {
    fn write_journal(&mut self, id: WorkspaceId, entry: JournalEntry) {
        let lines = self.journals.entry(id).or_default();
        lines.push_back(entry);
        if lines.len() > JOURNAL_LINES_MAX {
            lines.pop_front();
        }
    }

    /// Records bound the number of journals that are written; this bounds those that are left over.
    fn forget_orphaned_journals(&mut self) {
        if self.journals.len() <= self.records.len() + ORPHANED_JOURNALS_MAX {
            return;
        }
        let oldest = (self.journals.iter())
            .filter(|(id, _)| !self.records.contains_key(*id))
            .min_by_key(|(_, lines)| lines.back().map(|line| line.at))
            .map(|(id, _)| id.clone());
        if let Some(id) = oldest {
            self.journals.remove(&id);
        }
    }
}

fn oldest_kept() -> SystemTime {
    let now = Clock::MACHINE.date_of(Instant::now());
    now.checked_sub(JOURNAL_AGE_MAX).unwrap_or(SystemTime::UNIX_EPOCH)
}
