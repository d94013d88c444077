//! The rules of a workspace's life: what follows from what, without a clock and without I/O.
//!
//! [`Machine::handle`] takes an event, who is inside, and the time, and says what to do. The
//! workspace's task does it and reports what came of it as the next event. The phase changes in
//! `Machine::go` alone, which knows the legal arrows.
//!
//! At most one job for the driver is under way at a time. What is asked meanwhile is remembered as
//! a wish (`look_wanted`, `resume_wanted`, `stop_wanted`, `remove_wanted`) and taken up when the
//! job is done, so events may come late, doubled or in any order.

mod effect;
mod event;
mod outside;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::spoken;
use crate::model::{FreezeMode, FrozenStorage, Phase, Policy, Tier};

pub use effect::{Effect, Job};
pub use event::{Event, Outcome, Seen};
pub use reading::{Evictable, Footprint};

/// First wait after a failed start; it doubles with every failure after that.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failed start, freeze or removal.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long those who were severed may take to be gone before it is frozen under them: tunnels say
/// goodbye first.
const SEVERED_MAX: Duration = Duration::from_secs(1);

/// A workspace that was in use less than this ago is not evicted: pages load in several requests,
/// with gaps between them.
const EVICT_IDLE_MIN: Duration = Duration::from_secs(1);
/// The same of one with quiet tunnels: somebody who reads, and types a line now and then, is not to
/// be thrown out as soon as others want the slot.
const EVICT_QUIET_MIN: Duration = Duration::from_secs(60);

const STOPPED_BY_ADMIN: &str = "stopped by an admin";
/// How long a workspace keeps its place in the queue when everybody who waited has left: somebody
/// who was told to try again in some seconds finds it where it was.
const PLACE_KEPT: Duration = Duration::from_secs(15);

/// Who is at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Leases that live.
    pub inside: u32,
    /// Tunnels that are open and don't keep it awake.
    pub quiet: u32,
    /// Requests that wait.
    pub held: usize,
    /// When the last lease ended.
    pub last_left: Option<Instant>,
}

/// What kind of workspace the rules are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// Whether its driver can freeze it.
    pub can_freeze: bool,
    /// Whether its driver found it: then it is gone when it is missing. One that we made ourselves
    /// is made again at the next wake.
    pub discovered: bool,
}

/// What is known of a workspace from before this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Nothing: the first look tells.
    Unknown,
    /// It was not frozen, and may run still.
    Awake {
        /// Whether its last report said that it is active.
        reported_activity: bool,
    },
    /// There is none: it is to be made, and started.
    New,
    /// It was frozen.
    Frozen {
        /// On this tier.
        tier: Tier,
        /// Since then.
        since: Instant,
        /// When an admin stopped it, if one did.
        stopped_at: Option<Instant>,
    },
    /// Its freeze was under way moments ago, and may be still.
    Freezing {
        /// When an admin stopped it, if one did.
        stopped_at: Option<Instant>,
    },
    /// It was being stopped from paused, and may be still. That was finished if it was long ago, and
    /// whatever runs now was started since; but nothing tells, and nobody is inside.
    SteppingDown {
        /// When it was frozen.
        since: Instant,
        /// When an admin stopped it, if one did.
        stopped_at: Option<Instant>,
    },
    /// Its creation or its removal was under way: nothing of it is to be left.
    Removing {
        /// Reads alone.
        why: &'static str,
    },
}

/// Everything that is remembered about a workspace's life.
#[derive(Debug)]
pub struct Machine {
    policy: Arc<Policy>,
    nature: Nature,
    state: State,
    since: Instant,
    created: Instant,
    job: Option<Job>,
    /// What it reported last.
    report: Option<Report>,
    /// When the report of activity before that stopped counting.
    report_ended: Option<Instant>,
    /// It reported activity in an earlier life of this program, and may run still.
    reported_before: bool,
    /// It was awake when this program ended, and was not looked at since.
    unseen: bool,
    look_wanted: bool,
    resume_wanted: bool,
    stop_wanted: bool,
    /// When an admin stopped it; forgotten as soon as it is neither being frozen nor frozen.
    stopped_at: Option<Instant>,
    /// Why it is to be removed, if it is.
    remove_wanted: Option<String>,
    /// Why it is to be stopped, if it is paused.
    step_down_wanted: Option<&'static str>,
    /// Why it is being stopped from paused.
    stepping_down: &'static str,
    /// The answer to come is to an eviction.
    evicted: bool,
    replaced: bool,
    /// Starts that failed in a row.
    failures: u32,
    /// Removals that failed in a row.
    removal_failures: u32,
    /// Freezes that failed in a row, and when the next may be tried.
    freeze_failures: u32,
    freeze_not_before: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// `made`: what it needs is there. `from`: where it falls back to if it leaves the queue for
    /// room. `leave_at`: when it does.
    Starting {
        why: String,
        made: bool,
        admitted: bool,
        from: Tier,
        by_admin: bool,
        leave_at: Option<Instant>,
    },
    Running {
        run: Option<String>,
        ready_at: Instant,
    },
    /// `drain`: who is waited for; after that the freeze is under way. `paused_since`: it was frozen
    /// already, and a restart came in the middle of its step down.
    Freezing {
        why: String,
        drain: Option<Drain>,
        paused_since: Option<Instant>,
    },
    Frozen {
        tier: Tier,
    },
    Failed {
        reason: String,
        retry_at: Instant,
        run: Option<String>,
    },
    /// `failure`: why it could not be removed when that was tried last. `retry_at`: when it is tried
    /// again.
    Removing {
        why: String,
        failure: Option<String>,
        retry_at: Option<Instant>,
    },
    Removed,
}

/// Those who are still inside of one that is to be frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    /// They may finish until then.
    Finishing(Instant),
    /// They were severed, and should be gone by then.
    Severed(Instant),
}

/// What the workspace reported last. When it no longer counts is a matter of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Report {
    active: bool,
    at: Instant,
}

/// What the workspace reported last, and how long that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckIn {
    /// Whether it said that it is active.
    pub active: bool,
    /// When.
    pub at: Instant,
    /// When that no longer counts; `None`: it counts until the next.
    pub expires_at: Option<Instant>,
}

impl Machine {
    /// A workspace of which nothing is known yet: it counts as stopped until the first look.
    pub fn new(
        policy: Arc<Policy>,
        nature: Nature,
        created: Instant,
        past: Past,
        now: Instant,
    ) -> Self {
        let (state, since, stopped_at) = match past {
            Past::Unknown | Past::Awake { .. } | Past::Removing { .. } => {
                (State::Frozen { tier: Tier::Stopped }, now, None)
            }
            Past::New => {
                let (why, from) = ("it was created".to_owned(), Tier::Stopped);
                let (made, admitted, by_admin) = (false, false, true);
                let leave_at = Some(now + policy.hold_max);
                (State::Starting { why, made, admitted, from, by_admin, leave_at }, now, None)
            }
            Past::Frozen { tier, since, stopped_at } => (State::Frozen { tier }, since, stopped_at),
            // What was begun is finished first: it may be ending, and would answer until it has.
            Past::Freezing { stopped_at } => {
                let why = "a restart came in the middle of its freeze".to_owned();
                (State::Freezing { why, drain: None, paused_since: None }, now, stopped_at)
            }
            Past::SteppingDown { since, stopped_at } => {
                let why = "a restart came in the middle of its stop".to_owned();
                (State::Freezing { why, drain: None, paused_since: Some(since) }, now, stopped_at)
            }
        };
        let remove_wanted = match past {
            Past::Removing { why } => Some(why.to_owned()),
            Past::Unknown
            | Past::Awake { .. }
            | Past::New
            | Past::Frozen { .. }
            | Past::Freezing { .. }
            | Past::SteppingDown { .. } => None,
        };
        Self {
            created,
            policy,
            nature,
            state,
            since,
            job: None,
            report: None,
            report_ended: None,
            reported_before: matches!(past, Past::Awake { reported_activity: true }),
            unseen: matches!(past, Past::Awake { .. }),
            look_wanted: false,
            resume_wanted: false,
            stop_wanted: false,
            stopped_at,
            remove_wanted,
            step_down_wanted: None,
            stepping_down: "",
            evicted: false,
            replaced: false,
            failures: 0,
            removal_failures: 0,
            freeze_failures: 0,
            freeze_not_before: None,
        }
    }

    /// The one way in. Effects are to be carried out in order.
    pub fn handle(&mut self, event: Event, census: Census, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Held => self.on_held(&mut effects, now),
            Event::Resume => self.on_resume(&mut effects, now),
            Event::Stop => self.on_stop(&mut effects, now),
            Event::Remove => {
                self.remove_wanted = Some("removed by an admin".to_owned());
                self.remove_again();
            }
            Event::Evict => self.on_evict(&mut effects, census, now),
            Event::StepDown => self.step_down_wanted = Some(", and its memory was wanted"),
            Event::Deserted => self.on_deserted(now),
            Event::Deadline => self.on_deadline(&mut effects, census, now),
            Event::Shut(shut) => self.on_shut(&mut effects, shut, census, now),
            Event::Emptied => self.drained(),
            Event::CheckIn(active) => self.on_check_in(active, now),
            Event::Changed => self.look_wanted = true,
            Event::Resync => self.on_resync(&mut effects, now),
            Event::Replaced => self.replaced = true,
            Event::Policy(policy) => self.on_policy(&mut effects, policy),
            Event::Finished(outcome) => self.on_finished(&mut effects, outcome, now),
        }
        self.take_up_wishes(&mut effects, census, now);
        self.assert_invariants();
        effects
    }

    fn inactivity_timeout(&self) -> Option<Duration> {
        let frozen_by_itself = self.policy.monitoring && self.nature.can_freeze;
        self.policy.inactivity_timeout.filter(|_| frozen_by_itself)
    }

    fn on_held(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        match &self.state {
            State::Failed { retry_at, .. } if now < *retry_at => {}
            State::Frozen { .. } | State::Failed { .. } => {
                self.wake(effects, "a request", false, now)
            }
            State::Starting { by_admin: false, .. } => self.leave_queue_at(None),
            // It is on its way, or the freeze has to end first; `take_up_wishes` comes back to it.
            State::Starting { .. } | State::Freezing { .. } => {}
            State::Running { .. } | State::Removing { .. } | State::Removed => {}
        }
    }

    fn on_resume(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        if std::mem::take(&mut self.stop_wanted) {
            let reason = "another call wants it to run".to_owned();
            effects.push(Effect::StopFailed { reason });
        }
        match &mut self.state {
            State::Frozen { .. } | State::Failed { .. } => {
                self.wake(effects, "an admin", true, now)
            }
            State::Freezing { .. } => {
                self.resume_wanted = true;
                self.stopped_at = None;
                effects.push(Effect::Hold);
            }
            State::Starting { .. } => {
                if let State::Starting { by_admin, .. } = &mut self.state {
                    *by_admin = true;
                }
                self.leave_queue_at(Some(now + self.policy.hold_max));
            }
            State::Running { .. } => {}
            // Whoever wants it to run is told that it is gone.
            State::Removing { .. } | State::Removed => {}
        }
    }

    fn on_stop(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        if !self.nature.can_freeze || self.policy.storage == FrozenStorage::None {
            let reason = "it can't be frozen: its max_inactive_storage_time is 0".to_owned();
            return effects.push(Effect::StopRefused { reason });
        }
        if std::mem::take(&mut self.resume_wanted) {
            let reason = "another call wants it frozen".to_owned();
            effects.push(Effect::ResumeFailed { reason });
        }
        match &self.state {
            State::Running { .. } => {
                // Before the gate shuts, so that nobody sits down between the two.
                self.hold_off(effects, now);
                self.drain(effects, now);
            }
            // It is let finish its start: those who wait for it are served first.
            State::Starting { .. } => self.stop_wanted = true,
            State::Failed { run: Some(_), .. } => {
                self.hold_off(effects, now);
                self.freeze_now(effects, STOPPED_BY_ADMIN, now);
            }
            State::Failed { run: None, .. } => {
                self.hold_off(effects, now);
                self.go(State::Frozen { tier: Tier::Stopped }, now);
                self.tell(effects, STOPPED_BY_ADMIN, None);
            }
            State::Freezing { .. } => self.hold_off(effects, now),
            State::Frozen { .. } => {
                self.hold_off(effects, now);
                self.tell(effects, STOPPED_BY_ADMIN, None);
            }
            // Whoever wants it stopped is answered when it is gone; nothing has failed.
            State::Removing { .. } | State::Removed => {}
        }
    }

    /// From now on only a navigation wakes it, for `stop_hold_off`.
    fn hold_off(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        self.stopped_at = Some(now);
        effects.extend(self.held_off_until().map(|until| Effect::HoldOff { until }));
    }

    fn on_policy(&mut self, effects: &mut Vec<Effect>, policy: Arc<Policy>) {
        self.policy = policy;
        effects.extend(self.held_off_until().map(|until| Effect::HoldOff { until }));
    }

    fn on_deadline(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        if self.removal_due_at().is_some_and(|at| at <= now) {
            let too_old = self.too_old_at().is_some_and(|at| at <= now);
            let (of, since) = if too_old { ("old", self.created) } else { ("frozen", self.since) };
            self.remove_wanted = Some(format!("{of} for {}", spoken(now - since)));
            return;
        }
        match &self.state {
            State::Running { .. } => {
                let due = self.freeze_at(census).is_some_and(|at| at <= now);
                let allowed = self.freeze_not_before.is_none_or(|at| at <= now);
                if due && allowed && self.job.is_none() {
                    let timeout = self.inactivity_timeout().unwrap_or_default();
                    let idle_before = now.checked_sub(timeout).unwrap_or(now);
                    effects.push(Effect::ShutIfIdle { idle_before });
                }
            }
            State::Freezing { drain: Some(Drain::Finishing(until)), .. } if *until <= now => {
                effects.push(Effect::Sever);
                self.drain_until(Drain::Severed(now + SEVERED_MAX));
            }
            State::Freezing { drain: Some(Drain::Severed(until)), .. } if *until <= now => {
                self.drained();
            }
            State::Failed { retry_at, .. } if census.held > 0 && *retry_at <= now => {
                self.wake(effects, "a request", false, now);
            }
            State::Failed { run: Some(_), .. } if self.deadline(census, now) <= Some(now) => {
                effects.push(Effect::Hold);
                self.freeze_now(effects, "it never became ready", now);
            }
            State::Frozen { tier: Tier::Paused } => {
                let due = self.deadline(census, now) <= Some(now);
                self.step_down_wanted = self.step_down_wanted.or(due.then_some(""));
            }
            State::Starting { leave_at: Some(at), by_admin, .. } if *at <= now => {
                let reason = match by_admin {
                    true => {
                        format!("no room was free within {}", spoken(self.policy.hold_max))
                    }
                    false => "everybody who waited for it to have room has left".to_owned(),
                };
                self.leave_queue(effects, reason, now);
            }
            State::Freezing { .. } | State::Failed { .. } | State::Starting { .. } => {}
            State::Removing { retry_at: Some(at), .. } if *at <= now => self.remove_again(),
            State::Frozen { tier: Tier::Stopped } | State::Removing { .. } | State::Removed => {}
        }
    }

    fn on_shut(&mut self, effects: &mut Vec<Effect>, shut: bool, census: Census, now: Instant) {
        let evicted = std::mem::take(&mut self.evicted);
        if !shut {
            return;
        }
        let idle = spoken(self.idle_since(census).map_or(Duration::ZERO, |since| now - since));
        let why = match evicted {
            false => format!("idle for {idle}"),
            true => format!("idle for {idle}, and its slot was wanted"),
        };
        if self.policy.storage == FrozenStorage::None {
            self.remove_wanted = Some(why);
            return;
        }
        self.freeze_now(effects, &why, now);
        if census.quiet > 0 {
            // They count for nothing, but are told before the driver is.
            effects.push(Effect::Sever);
            self.drain_until(Drain::Severed(now + SEVERED_MAX));
        }
    }

    fn on_check_in(&mut self, active: bool, now: Instant) {
        self.reported_before = false;
        if self.report.is_some_and(|report| report.active) {
            // From here on it was idle, unless the new report says otherwise.
            self.report_ended = Some(self.report_ends().map_or(now, |at| at.min(now)));
        }
        self.report = Some(Report { active, at: now });
    }

    /// What failed may have failed because the runtime was away, and is not put off any longer.
    fn on_resync(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        self.look_wanted = true;
        self.failures = 0;
        self.freeze_failures = 0;
        self.freeze_not_before = None;
        self.removal_failures = 0;
        self.remove_again();
        if matches!(self.state, State::Failed { .. }) {
            self.go(State::Frozen { tier: Tier::Stopped }, now);
            effects.push(Effect::Hold);
            self.tell(effects, "its runtime answers again", None);
        }
    }

    fn on_finished(&mut self, effects: &mut Vec<Effect>, outcome: Outcome, now: Instant) {
        self.job = None;
        match outcome {
            Outcome::Created => self.on_created(effects),
            // What was made of it must not stay.
            Outcome::CreateFailed { reason, refused } => {
                effects.push(Effect::CreateFailed { reason: reason.clone(), refused });
                self.remove_wanted = Some(reason);
            }
            Outcome::Admitted => self.on_admitted(),
            Outcome::Woken { run } => self.on_woken(effects, run, now),
            Outcome::WakeFailed { reason, run } => self.on_wake_failed(effects, reason, run, now),
            Outcome::Frozen(tier) => self.on_frozen(effects, tier, now),
            Outcome::FreezeFailed { reason } => self.on_freeze_failed(effects, reason, now),
            Outcome::Removed => {
                let why = match &self.state {
                    State::Removing { why, .. } => why.clone(),
                    _ => "removed".to_owned(),
                };
                self.go(State::Removed, now);
                self.tell(effects, &why, None);
            }
            Outcome::RemoveFailed { reason } => self.on_remove_failed(effects, reason, now),
            Outcome::Looked(seen) => self.on_looked(effects, seen, now),
            Outcome::LookFailed => {}
        }
    }

    /// What is to be removed is removed, if not now then later.
    fn on_remove_failed(&mut self, effects: &mut Vec<Effect>, reason: String, now: Instant) {
        let State::Removing { failure, retry_at, .. } = &mut self.state else { return };
        *retry_at = Some(now + backoff(self.removal_failures));
        self.removal_failures = self.removal_failures.saturating_add(1);
        let is_news = failure.as_ref() != Some(&reason);
        *failure = Some(reason.clone());
        if is_news {
            self.tell(effects, &format!("it is still to be removed: {reason}"), None);
        }
        effects.push(Effect::RemoveFailed { reason });
    }

    fn remove_again(&mut self) {
        if let State::Removing { retry_at, .. } = &mut self.state {
            *retry_at = None;
        }
    }

    fn on_created(&mut self, effects: &mut Vec<Effect>) {
        if let State::Starting { made, why, .. } = &mut self.state {
            *made = true;
            let why = why.clone();
            self.tell(effects, &why, None);
            effects.push(Effect::Created);
        }
    }

    fn on_admitted(&mut self) {
        if let State::Starting { admitted, leave_at, .. } = &mut self.state {
            *admitted = true;
            *leave_at = None;
        }
    }

    fn on_deserted(&mut self, now: Instant) {
        if let State::Starting { by_admin: false, leave_at: None, admitted: false, .. } = self.state
        {
            self.leave_queue_at(Some(now + PLACE_KEPT));
        }
    }

    /// When it leaves the queue for room, if it is in it.
    fn leave_queue_at(&mut self, at: Option<Instant>) {
        if let State::Starting { admitted: false, leave_at, .. } = &mut self.state {
            *leave_at = at;
        }
    }

    /// It goes without room, back to where it was.
    fn leave_queue(&mut self, effects: &mut Vec<Effect>, reason: String, now: Instant) {
        let State::Starting { from, .. } = self.state else { return };
        if self.job == Some(Job::Queue) {
            self.job = None;
            effects.push(Effect::GiveUp);
            self.go(State::Frozen { tier: from }, now);
            self.tell(effects, &reason, None);
            effects.push(Effect::ResumeFailed { reason });
        }
    }

    /// Frozen to make room, if nobody is inside and it may be frozen for idleness at all.
    fn on_evict(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        let from = self.evictable(census).and_then(|evictable| evictable.from);
        if from.is_some_and(|at| at <= now) {
            self.evicted = true;
            effects.push(Effect::ShutIfIdle { idle_before: now });
        }
    }

    fn on_woken(&mut self, effects: &mut Vec<Effect>, run: Option<String>, now: Instant) {
        let State::Starting { why, .. } = &self.state else { return };
        let why = why.clone();
        let took = now - self.since;
        self.failures = 0;
        self.go(State::Running { run, ready_at: now }, now);
        if self.reported_before {
            self.on_check_in(true, now);
        }
        effects.push(Effect::Open);
        self.tell(effects, &why, Some(took));
    }

    fn on_wake_failed(
        &mut self,
        effects: &mut Vec<Effect>,
        reason: String,
        run: Option<String>,
        now: Instant,
    ) {
        let retry_at = now + backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.go(State::Failed { reason: reason.clone(), retry_at, run }, now);
        effects.push(Effect::Refuse { retry_at: Some(retry_at) });
        self.tell(effects, &reason, None);
    }

    fn on_frozen(&mut self, effects: &mut Vec<Effect>, tier: Tier, now: Instant) {
        self.freeze_failures = 0;
        self.freeze_not_before = None;
        match &mut self.state {
            State::Freezing { why, paused_since, .. } => {
                let (why, paused_since) = (std::mem::take(why), *paused_since);
                let took = now - self.since;
                self.go(State::Frozen { tier }, now);
                self.since = paused_since.unwrap_or(now);
                self.tell(effects, &why, Some(took));
            }
            // A step down. It has been frozen since it was first.
            State::Frozen { tier: before } => {
                *before = tier;
                let why = self.why_stepping_down(now);
                self.tell(effects, &why, None);
            }
            // Somebody came while it was stepping down; the wake is next. That the stop is over is
            // on record before that.
            State::Starting { from, why, .. } => {
                *from = tier;
                let why = format!("{why}, and it is stopped now");
                self.tell(effects, &why, None);
            }
            _ => {}
        }
    }

    fn on_freeze_failed(&mut self, effects: &mut Vec<Effect>, reason: String, now: Instant) {
        self.freeze_not_before = Some(now + backoff(self.freeze_failures));
        self.freeze_failures = self.freeze_failures.saturating_add(1);
        effects.push(Effect::StopFailed { reason: reason.clone() });
        if matches!(self.state, State::Freezing { .. }) {
            // It may run, or not, or be half stopped. A wake finds out and serves those who wait.
            self.adopt(effects, &format!("the freeze failed: {reason}"), now);
        } else {
            self.look_wanted = true;
        }
    }

    /// Does what was put off, as far as it can be done now. The only place where jobs begin:
    /// which one is due follows from how things are, so no event can start a second one.
    fn take_up_wishes(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        if self.remove_wanted.is_some() && matches!(self.job, Some(Job::Queue | Job::Wake)) {
            // A wake may take as long as `start_timeout`, and nobody wants it any more.
            self.job = None;
            effects.push(Effect::GiveUp);
        }
        if self.job.is_some() {
            return;
        }
        if !matches!(self.state, State::Removing { .. } | State::Removed)
            && let Some(why) = self.remove_wanted.take()
        {
            effects.extend([Effect::Shut, Effect::Sever, Effect::Refuse { retry_at: None }]);
            self.go(State::Removing { why: why.clone(), failure: None, retry_at: None }, now);
            self.tell(effects, &why, None);
        }
        if self.replaced && !matches!(self.state, State::Removed) {
            return self.gone(effects, "replaced outside", now);
        }
        if self.stop_wanted && !matches!(self.state, State::Starting { .. }) {
            self.stop_wanted = false;
            self.on_stop(effects, now);
        }
        if matches!(self.state, State::Frozen { .. }) {
            if std::mem::take(&mut self.resume_wanted) {
                self.wake(effects, "an admin", true, now);
            } else if census.held > 0 {
                self.wake(effects, "a request", false, now);
            }
        }
        let step_down = std::mem::take(&mut self.step_down_wanted);
        let job = match &self.state {
            State::Starting { made: false, .. } => Some(Job::Create),
            State::Starting { admitted: false, .. } => Some(Job::Queue),
            State::Starting { admitted: true, .. } => Some(Job::Wake),
            State::Frozen { tier: Tier::Paused } if step_down.is_some() => {
                self.stepping_down = step_down.unwrap_or_default();
                Some(Job::Freeze(FreezeMode::Stop))
            }
            State::Freezing { drain: None, paused_since: Some(_), .. } => {
                Some(Job::Freeze(FreezeMode::Stop))
            }
            State::Freezing { drain: None, .. } => Some(Job::Freeze(self.policy.freeze_mode)),
            State::Removing { retry_at: None, .. } => Some(Job::Remove),
            State::Removing { retry_at: Some(_), .. } | State::Removed => None,
            State::Running { .. }
            | State::Freezing { .. }
            | State::Frozen { .. }
            | State::Failed { .. } => std::mem::take(&mut self.look_wanted).then_some(Job::Look),
        };
        self.job = job;
        if self.is_stepping_down() {
            // So that it is on record before the driver is told.
            let why = format!("being stopped: {}", self.why_stepping_down(now));
            self.tell(effects, &why, None);
        }
        effects.extend(job.map(Effect::Run));
    }

    /// From frozen or failed to running, by way of the queue for slots.
    fn wake(&mut self, effects: &mut Vec<Effect>, why: &str, by_admin: bool, now: Instant) {
        if !self.nature.can_freeze {
            // It runs whatever we do, and takes no room that could be given to another.
            return self.adopt(effects, why, now);
        }
        let from = self.tier().unwrap_or(Tier::Stopped);
        let (why, made, admitted) = (why.to_owned(), true, false);
        let leave_at = by_admin.then(|| now + self.policy.hold_max);
        let starting = State::Starting { why, made, admitted, from, by_admin, leave_at };
        self.set_out(effects, starting, now);
    }

    /// It runs, or may: it is found out how, and it keeps its slot or takes one by force.
    fn adopt(&mut self, effects: &mut Vec<Effect>, why: &str, now: Instant) {
        let (why, from, leave_at) = (why.to_owned(), Tier::Stopped, None);
        let (made, admitted, by_admin) = (true, true, true);
        let adopted = State::Starting { why, made, admitted, from, by_admin, leave_at };
        self.set_out(effects, adopted, now);
    }

    fn set_out(&mut self, effects: &mut Vec<Effect>, starting: State, now: Instant) {
        let State::Starting { why, .. } = &starting else { return };
        let why = why.clone();
        self.resume_wanted = false;
        // A start clears what was reported before it (DESIGN §2).
        self.report = None;
        self.report_ended = None;
        self.go(starting, now);
        effects.push(Effect::Hold);
        self.tell(effects, &why, None);
    }

    /// An admin's stop: nobody comes in any more; those inside get `drain_grace`.
    fn drain(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        effects.push(Effect::Shut);
        let drain = Some(Drain::Finishing(now + self.policy.drain_grace));
        let why = STOPPED_BY_ADMIN.to_owned();
        self.go(State::Freezing { why, drain, paused_since: None }, now);
        self.tell(effects, STOPPED_BY_ADMIN, None);
    }

    fn drain_until(&mut self, until: Drain) {
        if let State::Freezing { drain, .. } = &mut self.state {
            *drain = Some(until);
        }
    }

    /// Nobody is inside any more, or they have had their time.
    fn drained(&mut self) {
        if let State::Freezing { drain, .. } = &mut self.state {
            *drain = None;
        }
    }

    /// The gate is shut and nobody is inside.
    fn freeze_now(&mut self, effects: &mut Vec<Effect>, why: &str, now: Instant) {
        self.go(State::Freezing { why: why.to_owned(), drain: None, paused_since: None }, now);
        self.tell(effects, why, None);
    }

    fn why_stepping_down(&self, now: Instant) -> String {
        format!("paused for {}{}", spoken(now - self.since), self.stepping_down)
    }

    fn tell(&self, effects: &mut Vec<Effect>, reason: &str, took: Option<Duration>) {
        let (phase, tier) = (self.phase(), self.tier());
        effects.push(Effect::Tell { phase, tier, reason: reason.to_owned(), took });
    }

    /// The only place where the phase changes.
    fn go(&mut self, next: State, now: Instant) {
        let from = self.phase();
        self.state = next;
        self.since = now;
        let to = self.phase();
        assert!(is_legal(from, to), "a workspace can't go from {from} to {to}");
        if !matches!(to, Phase::Freezing | Phase::Frozen) {
            self.stopped_at = None;
        }
    }

    fn assert_invariants(&self) {
        match (&self.state, self.job) {
            (State::Starting { made: false, .. }, Some(Job::Create)) => {}
            (
                State::Starting { made: true, .. },
                Some(Job::Queue | Job::Wake | Job::Look | Job::Freeze(_)),
            ) => {}
            (State::Frozen { .. }, Some(Job::Freeze(FreezeMode::Stop))) => {}
            (State::Starting { .. }, job) => panic!("starting without a wake: {job:?}"),
            (State::Freezing { drain: None, .. }, Some(Job::Freeze(_) | Job::Look)) => {}
            (State::Freezing { drain: None, .. }, job) => {
                panic!("freezing without a freeze: {job:?}")
            }
            (State::Removing { retry_at: None, .. }, Some(Job::Remove)) => {}
            (State::Removing { retry_at: Some(_), .. }, None) => {}
            (State::Removing { .. }, job) => panic!("removing without a removal: {job:?}"),
            (_, None | Some(Job::Look)) => {}
            (_, Some(job)) => panic!("{job:?} under way while {}", self.phase()),
        }
    }
}

/// The arrows of DESIGN §3, and those that the world adds to them.
fn is_legal(from: Phase, to: Phase) -> bool {
    use Phase::{Failed, Freezing, Frozen, Removed, Removing, Running, Starting};
    match from {
        // Frozen: it has left the queue for a slot.
        Starting => matches!(to, Running | Failed | Frozen | Removing | Removed),
        // Starting: restarted outside. Frozen: died or stopped outside. Removed: gone outside.
        Running => matches!(to, Freezing | Frozen | Starting | Removing | Removed),
        // Starting: the freeze failed.
        Freezing => matches!(to, Frozen | Starting | Removing | Removed),
        Frozen => matches!(to, Starting | Removing | Removed),
        Failed => matches!(to, Starting | Freezing | Frozen | Removing | Removed),
        Removing => to == Removed,
        Removed => false,
    }
}

fn backoff(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests;
