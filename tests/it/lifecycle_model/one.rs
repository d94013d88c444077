//! What is known of one workspace from outside, and what its policy makes of that.

use std::collections::BTreeMap;
use std::time::Duration;

use frostgate::driver::Sighting;
use frostgate::driver::fake::Action;
use frostgate::model::{FrozenStorage, Phase, Policy, Tier};
use tokio::time::Instant;

/// Timers count milliseconds, and the gate's clock microseconds.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// A workspace in use less than this ago keeps its slot.
const EVICT_IDLE_MIN: Duration = Duration::from_secs(1);

/// Who asked for a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Configured,
    Discovered,
    Created,
}

/// A request that waits for a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) since: Instant,
    /// The workspace's, when it came.
    pub(super) incarnation: u32,
    pub(super) generation: u32,
    pub(super) open: bool,
    pub(super) hold_max: Duration,
}

/// How a phase came about and what it did, as far as that matters for what may follow.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    /// Starts and unpauses since it is starting.
    pub(super) starts: u32,
    /// Calls other than inspections in this phase.
    pub(super) calls: u32,
    /// The last look at it, and whether it was unpaused after that.
    pub(super) sighting: Option<Sighting>,
    pub(super) unpaused: bool,
    /// Until when an admin's stop waits for those inside.
    pub(super) drain_until: Option<Instant>,
    pub(super) from_failed: bool,
}

/// See the module's head.
pub(super) struct One {
    pub(super) origin: Origin,
    /// What it has where nothing was changed.
    pub(super) first_policy: Policy,
    pub(super) policy: Policy,
    /// Others that may hold just now: one that is being set, or until this moment the one before.
    pub(super) doubtful: Vec<(Policy, Option<Instant>)>,
    /// Counts the workspaces that had this id.
    pub(super) incarnation: u32,
    pub(super) created: Option<Instant>,
    pub(super) phase: Option<Phase>,
    pub(super) tier: Option<Tier>,
    pub(super) since: Instant,
    pub(super) course: Course,
    /// How often it has been ready in this life of the program, and as which run.
    pub(super) generation: u32,
    pub(super) ready_at: Instant,
    pub(super) run: Option<String>,
    pub(super) waiting: BTreeMap<u64, Waiting>,
    pub(super) leases: BTreeMap<u64, u32>,
    pub(super) last_left: Option<Instant>,
    /// When it reported activity that has not been taken back, and when such a report ended.
    pub(super) reported: Option<Instant>,
    pub(super) report_ended: Option<Instant>,
    pub(super) under_way: Option<(Action, Instant)>,
    /// It is being stopped from paused.
    pub(super) stepping_down: bool,
    /// When something came or ended that may move a deadline.
    pub(super) touched: Instant,
    /// What admins have asked for and not been answered, or were and it still holds.
    pub(super) stop_asked: Option<Instant>,
    pub(super) resume_asked: bool,
    pub(super) removal_asked: bool,
    /// It was asked to be created, and nothing has ended it since; whether that was answered.
    pub(super) creating: bool,
    pub(super) acknowledged: bool,
    /// When a request came, left or was served last.
    pub(super) wanted_at: Option<Instant>,
    pub(super) failed_at: Option<Instant>,
    /// When it waited for a slot last.
    pub(super) slot_wanted_until: Option<Instant>,
    pub(super) upset_until: Instant,
    /// What the journal should say, and whether lines of it are lost.
    pub(super) told: Vec<(Phase, Option<Tier>)>,
    /// Whether it was told of in this incarnation and life.
    pub(super) is_told: bool,
    /// Whether it was looked at in this incarnation and life.
    pub(super) met: bool,
    pub(super) journal_lost: bool,
    /// Its container was removed by others since it was met.
    pub(super) removed_outside: bool,
    /// What is on record may be of another that had its id.
    pub(super) stale: bool,
}

impl One {
    pub(super) fn new(origin: Origin, policy: Policy, now: Instant) -> Self {
        Self {
            origin,
            first_policy: policy.clone(),
            policy,
            doubtful: Vec::new(),
            incarnation: 0,
            created: None,
            phase: None,
            tier: None,
            since: now,
            course: Course::default(),
            generation: 0,
            ready_at: now,
            run: None,
            waiting: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_left: None,
            reported: None,
            report_ended: None,
            under_way: None,
            stepping_down: false,
            touched: now,
            stop_asked: None,
            resume_asked: false,
            removal_asked: false,
            creating: false,
            acknowledged: false,
            wanted_at: None,
            failed_at: None,
            slot_wanted_until: None,
            upset_until: now,
            told: Vec::new(),
            is_told: false,
            met: false,
            journal_lost: false,
            removed_outside: false,
            stale: false,
        }
    }

    /// The policies that it may have at this moment.
    pub(super) fn policies(&self, now: Instant) -> Vec<&Policy> {
        let doubtful = self.doubtful.iter();
        let possible = doubtful.filter(|(_, until)| until.is_none_or(|until| until >= now));
        std::iter::once(&self.policy).chain(possible.map(|(policy, _)| policy)).collect()
    }

    pub(super) fn may(&self, now: Instant, allows: impl Fn(&Policy) -> bool) -> bool {
        self.policies(now).into_iter().any(allows)
    }

    /// The policy, if there is no doubt which.
    pub(super) fn sure_policy(&self, now: Instant) -> Option<&Policy> {
        Some(&self.policy).filter(|_| self.policies(now).len() == 1)
    }

    /// Since when, or from when on, it is idle; `None`: not before something happens.
    pub(super) fn idle_since(&self, policy: &Policy) -> Option<Instant> {
        if !self.leases.is_empty() {
            return None;
        }
        let reported_until = match (self.reported, policy.check_in_ttl) {
            (Some(_), None) => return None,
            (Some(at), Some(ttl)) => Some(at + ttl),
            (None, _) => None,
        };
        let ends = [self.last_left, self.report_ended, reported_until];
        Some(ends.into_iter().flatten().fold(self.ready_at, Instant::max))
    }

    /// One that nobody has used since it was ready is idle from the end of its grace on.
    pub(super) fn freeze_at(&self, policy: &Policy) -> Option<Instant> {
        let timeout = policy.inactivity_timeout.filter(|_| policy.monitoring)?;
        let (idle_since, grace_ends) =
            (self.idle_since(policy)?, self.ready_at + policy.initial_timeout);
        let idle_since = if idle_since > self.ready_at { idle_since } else { grace_ends };
        Some(grace_ends.max(idle_since + timeout))
    }

    /// Whether one that failed has been up for nothing for as long as it may be idle.
    pub(super) fn unready_for_long(&self, policy: &Policy, at: Instant) -> bool {
        let timeout = policy.inactivity_timeout.filter(|_| policy.monitoring);
        timeout.is_some_and(|timeout| self.since + timeout <= at + TICK)
    }

    /// DESIGN §4: by age in any phase, and by the time that it has been frozen.
    pub(super) fn remove_at(&self, policy: &Policy) -> Option<Instant> {
        let too_old = self.created.zip(policy.max_storage_time).map(|(at, limit)| at + limit);
        let frozen_for = match policy.storage {
            FrozenStorage::Limited(limit) => Some(limit),
            FrozenStorage::None => policy.inactivity_timeout.filter(|_| policy.monitoring),
            FrozenStorage::Unlimited => None,
        };
        let frozen_too_long = match self.phase {
            Some(Phase::Frozen) => frozen_for.map(|limit| self.since + limit),
            _ => None,
        };
        too_old.into_iter().chain(frozen_too_long).min()
    }

    /// Since when its slot may be taken from it.
    pub(super) fn evictable_since(&self, policy: &Policy, now: Instant) -> Option<Instant> {
        let by_itself = policy.monitoring && policy.inactivity_timeout.is_some();
        let running = self.phase == Some(Phase::Running);
        if !by_itself || !running || policy.storage == FrozenStorage::None {
            return None;
        }
        self.idle_since(policy).filter(|since| *since + EVICT_IDLE_MIN <= now)
    }

    /// Whether it waits for a slot, or did at this moment.
    pub(super) fn wants_a_slot(&self, now: Instant) -> bool {
        let waits = self.phase == Some(Phase::Starting) && self.course.calls == 0;
        waits || self.slot_wanted_until == Some(now)
    }

    /// Nobody knows it any more. Its container may be another's from now on.
    pub(super) fn end(&mut self, now: Instant) {
        let ended = Self::new(self.origin, self.first_policy.clone(), now);
        *self = Self {
            incarnation: self.incarnation + 1,
            waiting: std::mem::take(&mut self.waiting),
            under_way: self.under_way,
            upset_until: self.upset_until,
            wanted_at: self.wanted_at,
            told: std::mem::take(&mut self.told),
            journal_lost: self.journal_lost,
            ..ended
        };
    }

    /// The program has ended, and with it everything that it had in memory.
    pub(super) fn forget_life(&mut self) {
        self.phase = None;
        self.is_told = false;
        self.met = false;
        self.generation = 0;
        self.run = None;
        self.course = Course::default();
        self.waiting.clear();
        self.leases.clear();
        self.last_left = None;
        self.reported = None;
        self.report_ended = None;
        self.under_way = None;
        self.stop_asked = None;
        self.resume_asked = false;
        self.wanted_at = None;
        self.failed_at = None;
    }
}

/// The arrows of DESIGN §3, and those of its text.
pub(super) fn is_legal(from: Phase, to: Phase) -> bool {
    use Phase::{Failed, Freezing, Frozen, Removed, Removing, Running, Starting};
    match (from, to) {
        // Whatever the phase, it may be removed, by an admin, by age or outside.
        (Removed, _) => false,
        // Told once more when it has to be tried again.
        (Removing, Removed | Removing) => true,
        (Removing, _) => false,
        (_, Removing | Removed) => true,
        // Ready, or not in time, or nobody waits for its slot any more.
        (Starting, Running | Failed | Frozen) => true,
        // Idle, stopped or evicted; ended outside; restarted outside.
        (Running, Freezing | Frozen | Starting) => true,
        // Done, or failed, which is found out by a wake.
        (Freezing, Frozen | Starting) => true,
        // A step down; a wake.
        (Frozen, Frozen | Starting) => true,
        // Tried again; stopped, though it may be up; found stopped, or its runtime is back.
        (Failed, Starting | Freezing | Frozen) => true,
        (Starting | Running | Freezing | Frozen | Failed, _) => false,
    }
}
