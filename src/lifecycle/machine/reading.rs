//! What can be read off the rules: phase, deadlines, signals. Nothing here changes anything.

use tokio::time::Instant;

use super::{
    Census, CheckIn, Drain, EVICT_IDLE_MIN, EVICT_QUIET_MIN, Job, Machine, Report, Stage, State,
};
use crate::metrics::FreezeReason;
use crate::model::{FreezeMode, FrozenStorage, Phase, Tier};

/// What a workspace takes of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footprint {
    /// Disk alone.
    Nothing,
    /// Memory, without CPU.
    Memory,
    /// Both.
    Running,
}

/// A workspace whose slot may be taken from it, now or soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evictable {
    /// Since when it is idle, or from when on it will be.
    pub idle_since: Instant,
    /// Not before this; `None`: something is being done to it, which will not take long.
    pub from: Option<Instant>,
}

impl Machine {
    /// When [`super::Event::Deadline`] is wanted. While somebody is inside this is the earliest moment at
    /// which the workspace could be idle for long enough: there it looks again. So a request costs
    /// no timer, and the freeze is on time all the same.
    pub fn deadline(&self, census: Census, now: Instant) -> Option<Instant> {
        // When that is known there is no more to be told.
        let remove_at = self.removal_due_at().filter(|_| self.remove_wanted.is_none());
        // When the job is done there is a new deadline; a look takes milliseconds.
        match (&self.state, self.job) {
            (_, None) => {}
            (State::Starting { leave_at, .. }, Some(Job::Queue)) => {
                return leave_at.iter().copied().chain(remove_at).min();
            }
            (_, Some(_)) => return remove_at,
        }
        let of_phase = match &self.state {
            State::Running { ready_at, .. } => {
                // Of who comes and goes from now on nobody tells either.
                let unused = self.idle_since(census).is_none_or(|since| since == *ready_at);
                let timeout = self.inactivity_timeout().filter(|_| unused);
                let earliest = timeout.map(|timeout| {
                    self.not_while_kept((now + timeout).max(self.grace_ends(*ready_at)))
                });
                let earliest = self.freeze_at(census).into_iter().chain(earliest).min();
                earliest.map(|at| self.not_too_soon(at))
            }
            State::Freezing { drain, .. } => {
                drain.map(|(Drain::Finishing(until) | Drain::Severed(until))| until)
            }
            State::Failed { retry_at, .. } if census.held > 0 => Some(*retry_at),
            State::Failed { run: Some(_), .. } => self.unready_ends(),
            State::Frozen { tier: Tier::Paused } => self.demote_at(),
            State::Removing { retry_at, .. } => *retry_at,
            State::Starting { .. }
            | State::Frozen { tier: Tier::Stopped }
            | State::Failed { .. }
            | State::Removed => None,
        };
        let look_again_at = self.look_again_at.filter(|_| self.can_be_looked_at());
        of_phase.into_iter().chain(remove_at).chain(look_again_at).min()
    }

    /// Whether a look may change anything: there is no job that finds out by itself.
    pub(super) fn can_be_looked_at(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Frozen { .. } | State::Failed { .. })
    }

    /// When it will be removed, whatever happens; `None`: never, as things are.
    pub fn remove_at(&self) -> Option<Instant> {
        if matches!(self.state, State::Removing { .. } | State::Removed) || !self.nature.can_freeze
        {
            return None;
        }
        let frozen_too_long = match (&self.state, self.policy.storage) {
            (State::Frozen { .. }, FrozenStorage::Limited(limit)) => Some(self.since + limit),
            // It ended without being frozen; from then on it is idle.
            (State::Frozen { .. }, FrozenStorage::None) => {
                let timeout = self.inactivity_timeout();
                timeout.map(|timeout| self.not_while_kept(self.since + timeout))
            }
            _ => None,
        };
        self.too_old_at().into_iter().chain(frozen_too_long).min()
    }

    /// The same, as far as it can be told now: while something is done to it, it may turn out that it
    /// is not frozen at all. It is too old whatever is done to it.
    pub(super) fn removal_due_at(&self) -> Option<Instant> {
        match self.job {
            None => self.remove_at(),
            Some(_) => self.remove_at().and(self.too_old_at()),
        }
    }

    pub(super) fn too_old_at(&self) -> Option<Instant> {
        self.policy.max_storage_time.map(|limit| self.created + limit)
    }

    fn grace_ends(&self, ready_at: Instant) -> Instant {
        ready_at + self.policy.initial_timeout
    }

    /// When one that is paused is stopped.
    pub(super) fn demote_at(&self) -> Option<Instant> {
        Some(self.not_too_soon(self.since + self.policy.stop_after?))
    }

    /// When one is frozen that is up and serves nobody.
    pub(super) fn unready_ends(&self) -> Option<Instant> {
        Some(self.not_too_soon(self.since + self.inactivity_timeout()?))
    }

    /// After freezes that failed the next is put off.
    fn not_too_soon(&self, at: Instant) -> Instant {
        self.freeze_not_before.map_or(at, |limit| at.max(limit))
    }

    /// When it will be frozen if nothing happens; `None`: it is in use, or is never frozen, or
    /// does not run.
    pub fn freeze_at(&self, census: Census) -> Option<Instant> {
        let State::Running { ready_at, .. } = &self.state else { return None };
        let (idle_since, timeout) = (self.idle_since(census)?, self.inactivity_timeout()?);
        let grace_ends = self.grace_ends(*ready_at);
        // One that nobody has used yet is idle from the end of its grace on.
        let idle_since = if idle_since > *ready_at { idle_since } else { grace_ends };
        Some(self.not_while_kept(grace_ends.max(idle_since + timeout)))
    }

    /// An admin wants it awake until then.
    fn not_while_kept(&self, at: Instant) -> Instant {
        self.kept_until.map_or(at, |until| at.max(until))
    }

    /// Until when an admin wants it awake; `None`: nobody does. May have passed.
    pub fn kept_until(&self) -> Option<Instant> {
        self.kept_until
    }

    /// With what is remembered from an earlier life of this program.
    pub fn kept_awake_until(self, until: Option<Instant>) -> Self {
        Self { kept_until: until, ..self }
    }

    /// Since when it is idle, or from when on it will be if nothing happens; `None`: it is in use,
    /// and nobody knows for how long.
    pub(super) fn idle_since(&self, census: Census) -> Option<Instant> {
        let State::Running { ready_at, .. } = &self.state else { return None };
        let report_counts_on = self.reported_at().is_some() && self.policy.check_in_ttl.is_none();
        if census.inside > 0 || report_counts_on {
            return None;
        }
        let ends = [census.last_left, self.report_ends()];
        Some(ends.into_iter().flatten().fold(*ready_at, Instant::max))
    }

    /// What it was that made it idle when it ended, in words.
    pub(super) fn last_activity(&self, census: Census) -> &'static str {
        let State::Running { ready_at, .. } = &self.state else { return "it does not run" };
        let (left, reported) = (census.last_left, self.report_ends());
        match left.max(reported) {
            last if last <= Some(*ready_at) => "it was started",
            last if last == reported => "it reported activity",
            _ if census.last_was_tunnel => "a WebSocket closed",
            _ => "a request ended",
        }
    }

    /// When the last report of activity stops counting, or has; `None`: there is none, or it counts
    /// on.
    pub(super) fn report_ends(&self) -> Option<Instant> {
        match self.reported_at() {
            Some(at) => Some(at + self.policy.check_in_ttl?),
            None => self.report_ended,
        }
    }

    /// When it reported activity that it has not taken back.
    fn reported_at(&self) -> Option<Instant> {
        self.report.filter(|report| report.active).map(|report| report.at)
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Starting { .. } => Phase::Starting,
            State::Running { .. } => Phase::Running,
            State::Freezing { .. } => Phase::Freezing,
            State::Frozen { .. } => Phase::Frozen,
            State::Failed { .. } => Phase::Failed,
            State::Removing { .. } => Phase::Removing,
            State::Removed => Phase::Removed,
        }
    }

    /// On which tier it is frozen.
    pub fn tier(&self) -> Option<Tier> {
        match &self.state {
            State::Frozen { tier } => Some(*tier),
            _ => None,
        }
    }

    /// When it entered its phase.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// When an admin stopped it, if it was not woken since.
    pub fn stopped_at(&self) -> Option<Instant> {
        self.stopped_at
    }

    /// Until when only a navigation or a resume wakes it, because an admin stopped it. May have
    /// passed.
    pub fn held_off_until(&self) -> Option<Instant> {
        Some(self.stopped_at? + self.policy.stop_hold_off)
    }

    /// Why it failed, or could not be removed yet. For admins.
    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed { reason, .. } => Some(reason),
            State::Removing { failure, .. } => failure.as_deref(),
            _ => None,
        }
    }

    /// What it takes of this machine, as far as is known.
    pub fn footprint(&self) -> Footprint {
        if !self.nature.can_freeze {
            // It runs whatever we do, and takes no room that could be given to another.
            return Footprint::Nothing;
        }
        match &self.state {
            State::Starting { stage: Stage::Making | Stage::Queued, from: tier, .. }
            | State::Frozen { tier } => match tier {
                Tier::Paused => Footprint::Memory,
                Tier::Stopped => Footprint::Nothing,
            },
            State::Failed { run: None, unsure: false, .. } | State::Removed => Footprint::Nothing,
            State::Starting { stage: Stage::Waking | Stage::Adopting, .. }
            | State::Running { .. }
            | State::Freezing { .. }
            | State::Failed { .. } => Footprint::Running,
            State::Removing { holds, .. } => *holds,
        }
    }

    /// Whether it waits for room.
    pub fn waits_for_room(&self) -> bool {
        matches!(self.state, State::Starting { stage: Stage::Queued, .. })
    }

    /// The tier that it is being woken from; `None`: it is not being woken.
    pub fn waking_from(&self) -> Option<Tier> {
        match self.state {
            State::Starting { stage: Stage::Waking, from, .. } => Some(from),
            _ => None,
        }
    }

    /// Whether a wake that was wanted has begun or has come to an end. If not, it is remembered: a
    /// freeze has to end first, or it is being found out how it is.
    pub fn has_taken_up_wakes(&self) -> bool {
        !matches!(
            self.state,
            State::Frozen { .. }
                | State::Freezing { .. }
                | State::Starting { stage: Stage::Adopting, .. }
        )
    }

    /// When a start that failed may be tried again; `None`: none has failed.
    pub fn retry_at(&self) -> Option<Instant> {
        match self.state {
            State::Failed { retry_at, .. } => Some(retry_at),
            _ => None,
        }
    }

    /// Whether it is known how it is; if not, it is being found out.
    pub fn is_known(&self) -> bool {
        !self.unknown
    }

    /// Why it is being frozen, or stopped from paused.
    pub fn freeze_reason(&self) -> FreezeReason {
        match self.state {
            State::Freezing { .. } => self.freezing_for,
            _ => FreezeReason::StepDown,
        }
    }

    /// Whether it is being stopped from paused.
    pub fn is_stepping_down(&self) -> bool {
        matches!((&self.state, self.job), (State::Frozen { .. }, Some(Job::Freeze(_))))
    }

    /// Whether that was begun, though somebody may have come since.
    pub fn is_stop_under_way(&self) -> bool {
        let stops = self.job == Some(Job::Freeze(FreezeMode::Stop));
        stops && matches!(self.state, State::Frozen { .. } | State::Starting { .. })
    }

    /// Since when it is paused, if it could be stopped now.
    pub fn paused_since(&self) -> Option<Instant> {
        let paused = matches!(self.state, State::Frozen { tier: Tier::Paused });
        (paused && self.job.is_none()).then_some(self.since)
    }

    /// Whether what it needs was made, by us or by others.
    pub fn is_made(&self) -> bool {
        !matches!(self.state, State::Starting { stage: Stage::Making, .. })
    }

    /// When it was active last, as far as is known; `now` while it is.
    pub fn last_active(&self, census: Census, now: Instant) -> Option<Instant> {
        if census.inside > 0 || self.reports_activity(now) {
            return Some(now);
        }
        census.last_left.max(self.report_ends())
    }

    /// Whether its last report said that it is active; that may have expired since.
    pub fn reported_activity(&self) -> bool {
        self.reported_at().is_some() || self.reported_before
    }

    /// Whether the workspace itself says that it is active.
    pub fn reports_activity(&self, now: Instant) -> bool {
        let Some(at) = self.reported_at() else { return false };
        self.policy.check_in_ttl.is_none_or(|ttl| now < at + ttl)
    }

    /// What it reported last, since it was started.
    pub fn check_in(&self) -> Option<CheckIn> {
        let Report { active, at } = self.report?;
        let ttl = self.policy.check_in_ttl.filter(|_| active);
        Some(CheckIn { active, at, expires_at: ttl.map(|ttl| at + ttl) })
    }

    /// The end of the grace after its start; `None`: it has none, or does not run.
    pub fn initial_timeout_ends(&self) -> Option<Instant> {
        let State::Running { ready_at, .. } = &self.state else { return None };
        (!self.policy.initial_timeout.is_zero()).then(|| self.grace_ends(*ready_at))
    }

    /// Whether a report that comes now can be believed in: a workspace that is being stopped
    /// can't be kept running by its own word.
    pub fn takes_check_ins(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Starting { .. })
    }

    /// Whether its slot may be taken from it: it is idle, and may be frozen for that at all.
    pub fn evictable(&self, census: Census) -> Option<Evictable> {
        let timeout = self.inactivity_timeout()?;
        if self.policy.storage == FrozenStorage::None {
            return None;
        }
        let idle_since = self.idle_since(census)?;
        let idle_min = match census.quiet {
            0 => EVICT_IDLE_MIN,
            _ => EVICT_QUIET_MIN.min(timeout),
        };
        let from = self.freeze_not_before.max(Some(self.not_while_kept(idle_since + idle_min)));
        Some(Evictable { idle_since, from: from.filter(|_| self.job.is_none()) })
    }
}
