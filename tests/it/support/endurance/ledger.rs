//! What was promised about every workspace, and what is not known because nobody answered.

use std::collections::{BTreeMap, BTreeSet};

/// How a workspace is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Frozen by calls alone.
    Steady,
    /// Frozen by itself, all the time.
    Lively,
    /// Removed when it is idle.
    Fleeting,
}

/// How far it is, as far as was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was asked for.
    Ordered,
    /// It was made.
    Lives,
    /// Its removal was asked for.
    Doomed,
    /// Nothing of it may be left.
    Gone,
}

/// One workspace.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) fate: Fate,
    /// Its `hold_max` in minutes: the last one that was acknowledged, and one that wasn't yet.
    pub(super) holds: BTreeSet<u64>,
    /// What its own last report may be.
    pub(super) reports: BTreeSet<bool>,
    /// The run that was seen last, as long as nothing may have ended it.
    pub(super) boot: Option<String>,
    /// Stops that were asked for.
    pub(super) stops: u32,
    /// One is under way, or nobody said how it ended.
    pub(super) stopping: bool,
}

impl Entry {
    /// Whether it must be there.
    pub(super) fn must_live(&self) -> bool {
        self.fate == Fate::Lives && self.kind != Kind::Fleeting
    }

    /// Whether it may be there.
    pub(super) fn may_live(&self) -> bool {
        self.fate != Fate::Gone
    }
}

/// All workspaces of a gateway, of those that are gone too.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) entries: BTreeMap<String, Entry>,
    /// Whose every run is.
    boots: BTreeMap<String, String>,
    /// Visits that were answered with 200, and with something else.
    pub(super) served: u32,
    pub(super) turned_away: u32,
    /// Calls that changed something.
    pub(super) changes: u32,
}

impl Ledger {
    pub(super) fn order(&mut self, id: &str, kind: Kind, hold: u64) {
        let entry = Entry {
            kind,
            fate: Fate::Ordered,
            holds: BTreeSet::from([hold]),
            reports: BTreeSet::from([false]),
            boot: None,
            stops: 0,
            stopping: false,
        };
        assert!(self.entries.insert(id.to_owned(), entry).is_none(), "{id} twice");
    }

    pub(super) fn entry(&mut self, id: &str) -> &mut Entry {
        self.entries.get_mut(id).unwrap()
    }

    /// Somebody was answered by that run. `stops`: how many there had been when they asked.
    pub(super) fn saw(&mut self, id: &str, boot: &str, stops: u32) {
        self.served += 1;
        let owner = self.boots.entry(boot.to_owned()).or_insert_with(|| id.to_owned());
        assert_eq!(owner, id, "two workspaces have one run");
        let entry = self.entry(id);
        if entry.kind != Kind::Steady || entry.stopping || entry.stops != stops {
            return;
        }
        match &entry.boot {
            Some(before) => assert_eq!(before, boot, "{id} was started anew for no reason"),
            None => entry.boot = Some(boot.to_owned()),
        }
    }

    /// A stop is asked for: nothing is known of its run and its report from here on.
    pub(super) fn stop(&mut self, id: &str) {
        let entry = self.entry(id);
        entry.stops += 1;
        entry.stopping = true;
        entry.boot = None;
        entry.reports = BTreeSet::from([false, true]);
    }
}
