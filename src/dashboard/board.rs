//! What all viewers are told from: every workspace's row as it was seen last, and since when it has
//! been like that.
//!
//! It is looked at afresh when a viewer asks and the last look is some time ago, so nothing is done
//! while nobody watches, and a crowd has it done once. Each change of a row counts the version up; a
//! viewer who was told up to some version is told what is newer.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::Viewer;
use super::row::{Almanac, Date, Row};
use crate::lifecycle::{Feed, Registry};
use crate::model::WorkspaceId;

/// People who watch at a time: a team, with a few screens each.
const VIEWERS_MAX: usize = 200;
/// How old a look may be. A little less than the second after which viewers ask.
const LOOK_AGE_MAX: Duration = Duration::from_millis(900);
/// Rows that are gone and remembered, for those who have not been told. Whoever was told nothing for
/// longer is told everything anew.
const GONE_MAX: usize = 10_000;

/// See the module's head.
pub struct Board {
    registry: Arc<Registry>,
    viewers: AtomicUsize,
    sheet: Mutex<Sheet>,
}

/// The rows as they were seen last.
struct Sheet {
    almanac: Almanac,
    version: u64,
    looked_at: Option<Instant>,
    rows: HashMap<WorkspaceId, Known>,
    /// The oldest first.
    gone: VecDeque<Gone>,
    /// Up to which version it is no longer known what is gone.
    forgotten: u64,
}

struct Known {
    row: Row,
    /// The same, as it is sent.
    text: Box<str>,
    /// Of which version it is.
    version: u64,
    /// Of the last version in which it was seen.
    seen: u64,
}

struct Gone {
    id: WorkspaceId,
    project: Option<Box<str>>,
    version: u64,
}

/// What a viewer was not told yet.
#[derive(Debug)]
pub(super) struct News {
    /// Up to which version they are told with this.
    pub(super) version: u64,
    /// As JSON; `None`: there is nothing.
    pub(super) text: Option<String>,
}

/// A viewer's place; it is free again when this is dropped.
pub(super) struct Seat(Arc<Board>);

impl Drop for Seat {
    fn drop(&mut self) {
        if self.0.viewers.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Rows take memory, and there may be many. A viewer who comes right now reads them anew.
            self.0.lock().clear();
        }
    }
}

impl Board {
    /// A board for these workspaces.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, viewers: AtomicUsize::new(0), sheet: Mutex::new(Sheet::new()) }
    }

    /// A place to watch from, if one is free.
    pub(super) fn take_seat(self: &Arc<Self>) -> Option<Seat> {
        let before = self.viewers.fetch_add(1, Ordering::AcqRel);
        let seat = Seat(self.clone());
        (before < VIEWERS_MAX).then_some(seat)
    }

    /// What happens to workspaces.
    pub(super) fn happenings(&self) -> Arc<Feed> {
        self.registry.feed()
    }

    /// Our time.
    pub(super) fn now(&self) -> Date {
        self.lock().almanac.now()
    }

    /// What is new for somebody who was told up to a version; 0: nothing yet. Takes a moment where
    /// there are many workspaces.
    pub(super) fn news(&self, viewer: &Viewer, told: u64) -> News {
        let mut sheet = self.lock();
        if sheet.looked_at.is_none_or(|at| at.elapsed() >= LOOK_AGE_MAX) {
            sheet.look(&self.registry);
        }
        sheet.news(viewer, told)
    }

    /// The same, and has these looked at in any case.
    pub(super) fn news_of(&self, ids: &[WorkspaceId], viewer: &Viewer, told: u64) -> News {
        let mut sheet = self.lock();
        sheet.look_at(&self.registry, ids);
        sheet.news(viewer, told)
    }

    fn lock(&self) -> MutexGuard<'_, Sheet> {
        self.sheet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sheet {
    fn new() -> Self {
        Self {
            almanac: Almanac::new(),
            version: 0,
            looked_at: None,
            rows: HashMap::new(),
            gone: VecDeque::new(),
            forgotten: 0,
        }
    }

    /// Forgets all; who was told anything is told everything anew.
    fn clear(&mut self) {
        let version = self.version + 1;
        *self = Self { version, forgotten: version, ..Self::new() };
    }

    fn look(&mut self, registry: &Registry) {
        self.looked_at = Some(Instant::now());
        self.version += 1;
        let all = registry.all();
        for workspace in &all {
            self.note(Row::of(workspace, self.almanac), workspace.id());
        }
        if self.rows.len() > all.len() {
            let version = self.version;
            let unseen = self.rows.iter().filter(|(_, known)| known.seen != version);
            let unseen: Vec<_> = unseen.map(|(id, _)| id.clone()).collect();
            unseen.iter().for_each(|id| self.forget(id));
        }
    }

    fn look_at(&mut self, registry: &Registry, ids: &[WorkspaceId]) {
        self.version += 1;
        for id in ids {
            match registry.get(id.as_str()) {
                Some(workspace) => self.note(Row::of(&workspace, self.almanac), id),
                None => self.forget(id),
            }
        }
    }

    fn note(&mut self, row: Row, id: &WorkspaceId) {
        let version = self.version;
        if let Some(known) = self.rows.get_mut(id) {
            known.seen = version;
            if known.row == row {
                return;
            }
        }
        let text = serde_json::to_string(&row).expect("a row is of texts and numbers").into();
        self.rows.insert(id.clone(), Known { row, text, version, seen: version });
    }

    fn forget(&mut self, id: &WorkspaceId) {
        let Some(known) = self.rows.remove(id) else { return };
        let gone = Gone { id: id.clone(), project: known.row.project, version: self.version };
        self.gone.push_back(gone);
        if self.gone.len() > GONE_MAX
            && let Some(oldest) = self.gone.pop_front()
        {
            self.forgotten = oldest.version;
        }
    }

    fn news(&self, viewer: &Viewer, told: u64) -> News {
        // A whole sheet says of what is gone by leaving it out.
        let reset = told <= self.forgotten;
        let rows = self.rows.values().filter(|known| {
            (reset || known.version > told) && viewer.sees(known.row.project.as_deref())
        });
        let rows: Vec<&str> = rows.map(|known| &*known.text).collect();
        let newer = self.gone.iter().rev().take_while(|gone| !reset && gone.version > told);
        // One that has come again since is there.
        let newer = newer.filter(|gone| !self.rows.contains_key(&gone.id));
        let gone = newer.filter(|gone| viewer.sees(gone.project.as_deref()));
        let gone: Vec<_> = gone.map(|gone| &gone.id).collect();
        let is_news = reset || !rows.is_empty() || !gone.is_empty();
        let text = is_news.then(|| self.text(reset, &rows, &gone));
        News { version: self.version, text }
    }

    /// Rows are put together as they are: they were made once, for everybody.
    fn text(&self, reset: bool, rows: &[&str], gone: &[&WorkspaceId]) -> String {
        #[derive(Serialize)]
        struct Head<'a> {
            now: Date,
            reset: bool,
            gone: &'a [&'a WorkspaceId],
        }
        let head = Head { now: self.almanac.now(), reset, gone };
        let head = serde_json::to_string(&head).expect("a head is of texts and numbers");
        let head = head.trim_end_matches('}');
        format!("{head},\"rows\":[{}]}}", rows.join(","))
    }
}
