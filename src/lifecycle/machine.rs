//! The rules of a workspace's life: what follows from what, without a clock and without I/O.
//!
//! [`Machine::handle`] takes an event, who is inside, and the time, and says what to do. The
//! workspace's task does it and reports what came of it as the next event. The phase changes in
//! `Machine::go` alone, which knows the legal arrows.
//!
//! At most one job for the driver is under way at a time. What is asked meanwhile is remembered as
//! a wish (`look_wanted`, `resume_wanted`, `stop_wanted`, `remove_wanted`) and taken up when the
//! job is done, so events may come late, doubled or in any order.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::spoken;
use crate::model::{FreezeMode, Phase, Policy, Tier};

/// First wait after a failed start; it doubles with every failure after that.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failed start or freeze.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody waits at the gate.
    Held,
    /// An admin wants it to run.
    Resume,
    /// An admin wants it frozen.
    Stop,
    /// It is to be removed with all that it has.
    Remove,
    /// The deadline that [`Machine::deadline`] named has passed.
    Deadline,
    /// The answer to [`Effect::ShutIfIdle`].
    Shut(bool),
    /// The last one left a shut gate.
    Emptied,
    /// The workspace reports: active, or not.
    CheckIn(bool),
    /// The driver says that something may have changed.
    Changed,
    /// The driver has found its runtime, for the first time or again.
    Resync,
    /// Another of the same id has taken its place outside.
    Replaced,
    /// A job is done.
    Finished(Outcome),
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is ready, as this run of it, at an endpoint that the task keeps.
    Woken {
        /// See [`crate::driver::Sighting::run`].
        run: Option<String>,
    },
    /// It could not be woken.
    WakeFailed {
        /// For admins.
        reason: String,
        /// The run that is up but not ready, if one is.
        run: Option<String>,
    },
    /// It is frozen.
    Frozen(Tier),
    /// It could not be frozen. How it is now must be found out.
    FreezeFailed {
        /// For admins.
        reason: String,
    },
    /// It is gone.
    Removed,
    /// It could not be removed.
    RemoveFailed {
        /// For admins.
        reason: String,
    },
    /// How it is.
    Looked(Seen),
    /// It could not be looked at; nothing follows from that.
    LookFailed,
}

/// How a workspace was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Running.
    Running {
        /// Which run of it.
        run: Option<String>,
        /// Whether it still listens where the task thinks it does.
        same_endpoint: bool,
    },
    /// Paused.
    Paused,
    /// There, but not running.
    Stopped {
        /// How it ended, if that is known.
        exit: Option<String>,
    },
    /// Not there.
    Missing,
}

/// What the task is to do. In the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Shut the gate if nobody is inside and nobody left after this moment; answer with
    /// [`Event::Shut`].
    ShutIfIdle {
        /// Latest moment at which somebody may have left.
        idle_before: Instant,
    },
    /// Shut the gate, whoever is inside.
    Shut,
    /// Close the connections of those who are inside still.
    Sever,
    /// Open the gate for a new generation at the endpoint that was found.
    Open,
    /// Send away those who wait, and those who come before `retry_at`.
    Refuse {
        /// `None`: for good.
        retry_at: Option<Instant>,
    },
    /// Let those who come wait again.
    Hold,
    /// Have the driver do something.
    Run(Job),
    /// Tell the world about a phase that was entered. By the time this is carried out the next one
    /// may have begun: a workspace that was frozen is woken at once if somebody waits.
    Tell {
        /// Which one.
        phase: Phase,
        /// On which tier it is frozen, if it is.
        tier: Option<Tier>,
        /// Reads alone: `idle for 15m`.
        reason: String,
        /// What a wake or a freeze took.
        took: Option<Duration>,
    },
    /// A freeze that an admin may be waiting for has failed.
    StopFailed {
        /// For admins.
        reason: String,
    },
}

/// Something for the driver to do; one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Make it run and wait until it is ready, from whatever state it is in.
    Wake,
    /// Freeze it.
    Freeze(FreezeMode),
    /// Remove it.
    Remove,
    /// Find out how it is.
    Look,
}

/// Who is at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Leases that live.
    pub inside: u32,
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

/// Everything that is remembered about a workspace's life.
#[derive(Debug)]
pub struct Machine {
    policy: Policy,
    nature: Nature,
    state: State,
    since: Instant,
    job: Option<Job>,
    check_in: Option<CheckIn>,
    /// When the report that counted last stopped counting.
    check_in_ended: Option<Instant>,
    look_wanted: bool,
    resume_wanted: bool,
    stop_wanted: bool,
    remove_wanted: bool,
    replaced: bool,
    /// Starts that failed in a row.
    failures: u32,
    /// Freezes that failed in a row, and when the next may be tried.
    freeze_failures: u32,
    freeze_not_before: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Starting {
        why: String,
    },
    Running {
        run: Option<String>,
        ready_at: Instant,
    },
    /// `drain_until`: an admin's stop waits for those inside; after that the freeze is under way.
    Freezing {
        why: String,
        drain_until: Option<Instant>,
    },
    Frozen {
        tier: Tier,
    },
    Failed {
        reason: String,
        retry_at: Instant,
        run: Option<String>,
    },
    Removing,
    Removed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CheckIn {
    expires_at: Option<Instant>,
}

impl Machine {
    /// A workspace of which nothing is known yet: it counts as stopped until the first look.
    pub fn new(policy: Policy, nature: Nature, now: Instant) -> Self {
        Self {
            policy,
            nature,
            state: State::Frozen { tier: Tier::Stopped },
            since: now,
            job: None,
            check_in: None,
            check_in_ended: None,
            look_wanted: false,
            resume_wanted: false,
            stop_wanted: false,
            remove_wanted: false,
            replaced: false,
            failures: 0,
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
            Event::Stop => self.on_stop(&mut effects, census, now),
            Event::Remove => self.remove_wanted = true,
            Event::Deadline => self.on_deadline(&mut effects, census, now),
            Event::Shut(shut) => self.on_shut(&mut effects, shut, census, now),
            Event::Emptied => self.drained(),
            Event::CheckIn(active) => self.on_check_in(active, now),
            Event::Changed => self.look_wanted = true,
            Event::Resync => self.on_resync(&mut effects, now),
            Event::Replaced => self.replaced = true,
            Event::Finished(outcome) => self.on_finished(&mut effects, outcome, census, now),
        }
        self.take_up_wishes(&mut effects, census, now);
        self.assert_invariants();
        effects
    }

    /// When [`Event::Deadline`] is wanted. While somebody is inside this is the earliest moment at
    /// which the workspace could be idle for long enough: there it looks again. So a request costs
    /// no timer, and the freeze is on time all the same.
    pub fn deadline(&self, census: Census, now: Instant) -> Option<Instant> {
        let not_too_soon = |at: Instant| self.freeze_not_before.map_or(at, |limit| at.max(limit));
        match &self.state {
            // When the job is done there is a new deadline; a look takes milliseconds.
            _ if self.job.is_some() => None,
            State::Running { .. } => {
                let earliest = || Some(now + self.inactivity_timeout()?);
                self.freeze_at(census).or_else(earliest).map(not_too_soon)
            }
            State::Freezing { drain_until, .. } => *drain_until,
            State::Failed { retry_at, .. } if census.held > 0 => Some(*retry_at),
            // It is up and serves nobody.
            State::Failed { run: Some(_), .. } => {
                self.inactivity_timeout().map(|timeout| not_too_soon(self.since + timeout))
            }
            State::Starting { .. }
            | State::Frozen { .. }
            | State::Failed { .. }
            | State::Removing
            | State::Removed => None,
        }
    }

    /// When it will be frozen if nothing happens; `None`: it is in use, or is never frozen, or
    /// does not run.
    pub fn freeze_at(&self, census: Census) -> Option<Instant> {
        let State::Running { ready_at, .. } = &self.state else { return None };
        let timeout = self.inactivity_timeout()?;
        if census.inside > 0 {
            return None;
        }
        let reported_until = match self.check_in {
            Some(CheckIn { expires_at }) => Some(expires_at?),
            None => self.check_in_ended,
        };
        let idle_since =
            [census.last_left, reported_until].into_iter().flatten().fold(*ready_at, Instant::max);
        Some((*ready_at + self.policy.initial_timeout).max(idle_since + timeout))
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Starting { .. } => Phase::Starting,
            State::Running { .. } => Phase::Running,
            State::Freezing { .. } => Phase::Freezing,
            State::Frozen { .. } => Phase::Frozen,
            State::Failed { .. } => Phase::Failed,
            State::Removing => Phase::Removing,
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

    /// Why it failed, for admins.
    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Whether the workspace itself says that it is active.
    pub fn reports_activity(&self, now: Instant) -> bool {
        self.live_check_in(now).is_some()
    }

    /// Whether a report that comes now can be believed in: a workspace that is being stopped
    /// can't be kept running by its own word.
    pub fn takes_check_ins(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Starting { .. })
    }

    fn inactivity_timeout(&self) -> Option<Duration> {
        let frozen_by_itself = self.policy.monitoring && self.nature.can_freeze;
        self.policy.inactivity_timeout.filter(|_| frozen_by_itself)
    }

    fn live_check_in(&self, now: Instant) -> Option<CheckIn> {
        self.check_in.filter(|report| report.expires_at.is_none_or(|at| at > now))
    }

    fn on_held(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        match &self.state {
            State::Failed { retry_at, .. } if now < *retry_at => {}
            State::Frozen { .. } | State::Failed { .. } => self.wake(effects, "a request", now),
            // It is on its way, or the freeze has to end first; `take_up_wishes` comes back to it.
            State::Starting { .. } | State::Freezing { .. } => {}
            State::Running { .. } | State::Removing | State::Removed => {}
        }
    }

    fn on_resume(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        self.stop_wanted = false;
        match &self.state {
            State::Frozen { .. } | State::Failed { .. } => self.wake(effects, "an admin", now),
            State::Freezing { .. } => self.resume_wanted = true,
            State::Starting { .. } | State::Running { .. } => {}
            State::Removing | State::Removed => {}
        }
    }

    fn on_stop(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        if !self.nature.can_freeze {
            let reason = "it can't be frozen".to_owned();
            return effects.push(Effect::StopFailed { reason });
        }
        self.resume_wanted = false;
        match &self.state {
            State::Running { .. } => self.drain(effects, census, now),
            // It is let finish its start: those who wait for it are served first.
            State::Starting { .. } => self.stop_wanted = true,
            State::Failed { run: Some(_), .. } => {
                self.freeze_now(effects, "stopped by an admin", now);
            }
            State::Failed { run: None, .. } => {
                self.go(State::Frozen { tier: Tier::Stopped }, now);
                effects.push(Effect::Hold);
                self.tell(effects, "stopped by an admin", None);
            }
            State::Freezing { .. } | State::Frozen { .. } => {}
            State::Removing | State::Removed => {
                let reason = "it is being removed".to_owned();
                effects.push(Effect::StopFailed { reason });
            }
        }
    }

    fn on_deadline(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        match &self.state {
            State::Running { .. } => {
                let due = self.freeze_at(census).is_some_and(|at| at <= now);
                let allowed = self.freeze_not_before.is_none_or(|at| at <= now);
                if due && allowed {
                    let timeout = self.inactivity_timeout().unwrap_or_default();
                    let idle_before = now.checked_sub(timeout).unwrap_or(now);
                    effects.push(Effect::ShutIfIdle { idle_before });
                }
            }
            State::Freezing { drain_until: Some(until), .. } if *until <= now => {
                effects.push(Effect::Sever);
                self.drained();
            }
            State::Failed { retry_at, .. } if census.held > 0 && *retry_at <= now => {
                self.wake(effects, "a request", now);
            }
            State::Failed { run: Some(_), .. } if self.deadline(census, now) <= Some(now) => {
                self.freeze_now(effects, "it never became ready", now);
            }
            State::Freezing { .. } | State::Failed { .. } | State::Starting { .. } => {}
            State::Frozen { .. } | State::Removing | State::Removed => {}
        }
    }

    fn on_shut(&mut self, effects: &mut Vec<Effect>, shut: bool, census: Census, now: Instant) {
        let State::Running { ready_at, .. } = &self.state else { return };
        if !shut {
            return;
        }
        let idle_since = census.last_left.unwrap_or(*ready_at).max(*ready_at);
        let why = format!("idle for {}", spoken(now - idle_since));
        self.freeze_now(effects, &why, now);
    }

    fn on_check_in(&mut self, active: bool, now: Instant) {
        if self.live_check_in(now).is_some() {
            // From here on it was idle, unless the new report says otherwise.
            self.check_in_ended = Some(now);
        } else if let Some(CheckIn { expires_at: Some(at) }) = self.check_in {
            self.check_in_ended = Some(at);
        }
        self.check_in =
            active.then(|| CheckIn { expires_at: self.policy.check_in_ttl.map(|ttl| now + ttl) });
    }

    /// What failed may have failed because the runtime was away, and is not put off any longer.
    fn on_resync(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        self.look_wanted = true;
        self.failures = 0;
        self.freeze_failures = 0;
        self.freeze_not_before = None;
        if matches!(self.state, State::Failed { .. }) {
            self.go(State::Frozen { tier: Tier::Stopped }, now);
            effects.push(Effect::Hold);
            self.tell(effects, "its runtime answers again", None);
        }
    }

    fn on_finished(
        &mut self,
        effects: &mut Vec<Effect>,
        outcome: Outcome,
        census: Census,
        now: Instant,
    ) {
        self.job = None;
        match outcome {
            Outcome::Woken { run } => self.on_woken(effects, run, now),
            Outcome::WakeFailed { reason, run } => self.on_wake_failed(effects, reason, run, now),
            Outcome::Frozen(tier) => self.on_frozen(effects, tier, now),
            Outcome::FreezeFailed { reason } => self.on_freeze_failed(effects, reason, now),
            Outcome::Removed => {
                self.go(State::Removed, now);
                self.tell(effects, "removed", None);
            }
            Outcome::RemoveFailed { reason } => {
                effects.push(Effect::StopFailed { reason: reason.clone() });
                let retry_at = now + RETRY_MAX;
                self.go(State::Failed { reason: reason.clone(), retry_at, run: None }, now);
                self.tell(effects, &reason, None);
            }
            Outcome::Looked(seen) => self.on_looked(effects, seen, census, now),
            Outcome::LookFailed => {}
        }
    }

    fn on_woken(&mut self, effects: &mut Vec<Effect>, run: Option<String>, now: Instant) {
        let State::Starting { why } = &self.state else { return };
        let why = why.clone();
        let took = now - self.since;
        self.failures = 0;
        self.go(State::Running { run, ready_at: now }, now);
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
        let State::Freezing { why, .. } = &self.state else { return };
        let why = why.clone();
        let took = now - self.since;
        self.freeze_failures = 0;
        self.freeze_not_before = None;
        self.go(State::Frozen { tier }, now);
        self.tell(effects, &why, Some(took));
    }

    fn on_freeze_failed(&mut self, effects: &mut Vec<Effect>, reason: String, now: Instant) {
        self.freeze_not_before = Some(now + backoff(self.freeze_failures));
        self.freeze_failures = self.freeze_failures.saturating_add(1);
        effects.push(Effect::StopFailed { reason: reason.clone() });
        // It may run, or not, or be half stopped. A wake finds out and serves those who wait.
        self.wake(effects, &format!("the freeze failed: {reason}"), now);
    }

    fn on_looked(&mut self, effects: &mut Vec<Effect>, seen: Seen, census: Census, now: Instant) {
        match (&self.state, seen) {
            (State::Running { run, .. }, Seen::Running { run: seen, same_endpoint }) => {
                // A run that was found while the engine was away has no name until now.
                if (run.is_some() && *run != seen) || !same_endpoint {
                    effects.push(Effect::Shut);
                    self.wake(effects, "it was restarted outside", now);
                } else if let State::Running { run, .. } = &mut self.state {
                    *run = seen;
                }
            }
            (State::Running { .. }, Seen::Paused) => {
                self.fell(effects, Tier::Paused, "paused outside", now);
            }
            (State::Running { .. }, Seen::Stopped { exit }) => {
                let why = exit.unwrap_or_else(|| "stopped outside".to_owned());
                self.fell(effects, Tier::Stopped, &why, now);
            }
            (State::Frozen { .. }, Seen::Running { .. }) => {
                self.wake(effects, "it was found running", now);
            }
            (State::Failed { run, .. }, Seen::Running { run: seen, .. }) => {
                if *run != seen {
                    self.wake(effects, "it was found running", now);
                }
            }
            (State::Frozen { tier }, Seen::Paused) => {
                if *tier != Tier::Paused {
                    self.state = State::Frozen { tier: Tier::Paused };
                    self.tell(effects, "found paused", None);
                }
            }
            (State::Frozen { tier }, Seen::Stopped { .. }) => {
                if *tier != Tier::Stopped {
                    self.state = State::Frozen { tier: Tier::Stopped };
                    self.tell(effects, "stopped outside", None);
                }
            }
            (State::Failed { .. }, Seen::Paused) => {
                self.go(State::Frozen { tier: Tier::Paused }, now);
                effects.push(Effect::Hold);
                self.tell(effects, "paused outside", None);
            }
            (State::Failed { .. }, Seen::Stopped { .. }) => self.forget_failed_run(),
            (
                State::Running { .. } | State::Frozen { .. } | State::Failed { .. },
                Seen::Missing,
            ) => {
                self.on_missing(effects, census, now);
            }
            // A job that decides about the phase is under way, or it is over.
            (State::Starting { .. } | State::Freezing { .. }, _) => {}
            (State::Removing | State::Removed, _) => {}
        }
    }

    fn on_missing(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        if self.nature.discovered {
            self.gone(effects, census, "removed outside", now);
        } else if let State::Running { .. } = self.state {
            self.fell(effects, Tier::Stopped, "removed outside; it is made again when needed", now);
        } else {
            self.forget_failed_run();
        }
    }

    fn gone(&mut self, effects: &mut Vec<Effect>, census: Census, why: &str, now: Instant) {
        effects.push(Effect::Shut);
        if census.inside > 0 {
            effects.push(Effect::Sever);
        }
        effects.push(Effect::Refuse { retry_at: None });
        self.go(State::Removed, now);
        self.tell(effects, why, None);
    }

    fn forget_failed_run(&mut self) {
        if let State::Failed { run, .. } = &mut self.state {
            *run = None;
        }
    }

    /// It stopped running without our doing.
    fn fell(&mut self, effects: &mut Vec<Effect>, tier: Tier, why: &str, now: Instant) {
        effects.push(Effect::Shut);
        self.go(State::Frozen { tier }, now);
        self.tell(effects, why, None);
    }

    /// Does what was put off, as far as it can be done now. The only place where jobs begin:
    /// which one is due follows from how things are, so no event can start a second one.
    fn take_up_wishes(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        if self.job.is_some() {
            return;
        }
        if self.remove_wanted && !matches!(self.state, State::Removing | State::Removed) {
            effects.extend([Effect::Shut, Effect::Sever, Effect::Refuse { retry_at: None }]);
            self.go(State::Removing, now);
            self.tell(effects, "being removed", None);
        }
        if self.replaced && !matches!(self.state, State::Removed) {
            return self.gone(effects, census, "replaced outside", now);
        }
        if self.stop_wanted && !matches!(self.state, State::Starting { .. }) {
            self.stop_wanted = false;
            self.on_stop(effects, census, now);
        }
        if matches!(self.state, State::Frozen { .. }) {
            if std::mem::take(&mut self.resume_wanted) {
                self.wake(effects, "an admin", now);
            } else if census.held > 0 {
                self.wake(effects, "a request", now);
            }
        }
        let job = match &self.state {
            State::Starting { .. } => Some(Job::Wake),
            State::Freezing { drain_until: None, .. } => Some(Job::Freeze(self.policy.freeze_mode)),
            State::Removing => Some(Job::Remove),
            State::Removed => None,
            State::Running { .. }
            | State::Freezing { .. }
            | State::Frozen { .. }
            | State::Failed { .. } => std::mem::take(&mut self.look_wanted).then_some(Job::Look),
        };
        self.job = job;
        effects.extend(job.map(Effect::Run));
    }

    fn wake(&mut self, effects: &mut Vec<Effect>, why: &str, now: Instant) {
        self.resume_wanted = false;
        // A start clears what was reported before it (DESIGN §2).
        self.check_in = None;
        self.check_in_ended = None;
        self.go(State::Starting { why: why.to_owned() }, now);
        effects.push(Effect::Hold);
        self.tell(effects, why, None);
    }

    /// An admin's stop: nobody comes in any more; those inside get `drain_grace`.
    fn drain(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        effects.push(Effect::Shut);
        self.go(
            State::Freezing {
                why: "stopped by an admin".to_owned(),
                drain_until: Some(now + self.policy.drain_grace),
            },
            now,
        );
        self.tell(effects, "stopped by an admin", None);
        if census.inside == 0 {
            self.drained();
        }
    }

    /// Nobody is inside any more, or they have had their time.
    fn drained(&mut self) {
        if let State::Freezing { drain_until, .. } = &mut self.state {
            *drain_until = None;
        }
    }

    /// The gate is shut and nobody is inside.
    fn freeze_now(&mut self, effects: &mut Vec<Effect>, why: &str, now: Instant) {
        self.go(State::Freezing { why: why.to_owned(), drain_until: None }, now);
        self.tell(effects, why, None);
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
    }

    fn assert_invariants(&self) {
        match (&self.state, self.job) {
            (State::Starting { .. }, Some(Job::Wake | Job::Look)) => {}
            (State::Starting { .. }, job) => panic!("starting without a wake: {job:?}"),
            (State::Freezing { drain_until: None, .. }, Some(Job::Freeze(_) | Job::Look)) => {}
            (State::Freezing { drain_until: None, .. }, job) => {
                panic!("freezing without a freeze: {job:?}")
            }
            (State::Removing, Some(Job::Remove)) => {}
            (State::Removing, job) => panic!("removing without a removal: {job:?}"),
            (_, None | Some(Job::Look)) => {}
            (_, Some(job)) => panic!("{job:?} under way while {}", self.phase()),
        }
    }
}

/// The arrows of DESIGN §3, and those that the world adds to them.
fn is_legal(from: Phase, to: Phase) -> bool {
    use Phase::{Failed, Freezing, Frozen, Removed, Removing, Running, Starting};
    match from {
        Starting => matches!(to, Running | Failed | Removing | Removed),
        // Starting: restarted outside. Frozen: died or stopped outside. Removed: gone outside.
        Running => matches!(to, Freezing | Frozen | Starting | Removing | Removed),
        // Starting: the freeze failed.
        Freezing => matches!(to, Frozen | Starting | Removing | Removed),
        Frozen => matches!(to, Starting | Removing | Removed),
        Failed => matches!(to, Starting | Freezing | Frozen | Removing | Removed),
        Removing => matches!(to, Removed | Failed),
        Removed => false,
    }
}

fn backoff(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests;
