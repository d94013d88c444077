//! The rules of a workspace's life: what follows from what, without a clock and without I/O.
//!
//! [`Machine::handle`] takes an event, who is inside, and the time, and says what to do. The
//! workspace's task does it and reports what came of it as the next event. The phase changes in
//! `Machine::go` alone, which knows the legal arrows.
//!
//! At most one job for the driver is under way at a time. What is asked meanwhile is remembered as
//! a wish (`look_wanted`, `resume_wanted`, `stop_wanted`, `remove_wanted`) and taken up when the
//! job is done, so events may come late, doubled or in any order.

mod asked;
mod due;
mod effect;
mod event;
mod outcomes;
mod outside;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::spoken;
use crate::metrics::FreezeReason;
use crate::model::{FreezeMode, Phase, Policy, Tier};

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
    /// Whether that was a tunnel's.
    pub last_was_tunnel: bool,
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
    /// Nobody has found out yet how it is.
    unknown: bool,
    look_wanted: bool,
    /// Looks that failed in a row, and when the next is taken.
    look_failures: u32,
    look_again_at: Option<Instant>,
    resume_wanted: bool,
    stop_wanted: bool,
    /// Until when an admin wants it awake.
    kept_until: Option<Instant>,
    /// When an admin stopped it; forgotten as soon as it is neither being frozen nor frozen.
    stopped_at: Option<Instant>,
    /// Why it is to be removed, if it is.
    remove_wanted: Option<String>,
    /// That is so because of its age, which its policy may yet forgive.
    too_old: bool,
    /// Why it is to be stopped, if it is paused.
    step_down_wanted: Option<&'static str>,
    /// Why it is being stopped from paused.
    stepping_down: &'static str,
    /// Why it is being frozen.
    freezing_for: FreezeReason,
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
    /// `from`: where it falls back to if it leaves the queue for room. `leave_at`: when it does.
    Starting {
        why: String,
        stage: Stage,
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
    /// `run`: the one that is up, if one is. `unsure`: it may be up, and is to be looked at.
    Failed {
        reason: String,
        retry_at: Instant,
        run: Option<String>,
        unsure: bool,
    },
    /// `holds`: what it takes of this machine until it is gone. `failure`: why it could not be
    /// removed when that was tried last. `retry_at`: when it is tried again.
    Removing {
        why: String,
        holds: Footprint,
        failure: Option<String>,
        retry_at: Option<Instant>,
    },
    Removed,
}

/// How far one is that starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// What it needs is being made, for the first time.
    Making,
    /// It waits for room.
    Queued,
    /// It has room, and is made to run.
    Waking,
    /// It runs without our doing, or may; it has the room that it takes. If it doesn't run after
    /// all, nothing starts it unless somebody wants that.
    Adopting,
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
                let (stage, by_admin) = (Stage::Making, true);
                let leave_at = Some(now + policy.hold_max);
                (State::Starting { why, stage, from, by_admin, leave_at }, now, None)
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
            unknown: !matches!(past, Past::New),
            look_wanted: false,
            look_failures: 0,
            look_again_at: None,
            resume_wanted: false,
            stop_wanted: false,
            kept_until: None,
            stopped_at,
            remove_wanted,
            too_old: false,
            step_down_wanted: None,
            stepping_down: "",
            freezing_for: FreezeReason::Interrupted,
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
                self.too_old = false;
                self.remove_again();
            }
            Event::Evict => self.on_evict(&mut effects, census, now),
            Event::StepDown => self.step_down_wanted = Some(", and its memory was wanted"),
            Event::Deserted => self.on_deserted(now),
            Event::Deadline => self.on_deadline(&mut effects, census, now),
            Event::Shut(shut) => self.on_shut(&mut effects, shut, census, now),
            Event::Emptied => self.drained(),
            Event::CheckIn(active) => self.on_check_in(active, now),
            Event::Keep(until) => self.kept_until = until,
            Event::Changed => self.look_wanted = true,
            Event::Resync => self.on_resync(&mut effects, now),
            Event::Replaced => self.replaced = true,
            Event::Policy(policy) => self.on_policy(&mut effects, policy),
            Event::Finished(outcome) => self.on_finished(&mut effects, outcome, now),
        }
        // Those who waited may have been sent away just now.
        let refused = effects.iter().any(|effect| matches!(effect, Effect::Refuse { .. }));
        let held = if refused { 0 } else { census.held };
        self.take_up_wishes(&mut effects, Census { held, ..census }, now);
        self.assert_invariants();
        effects
    }

    fn inactivity_timeout(&self) -> Option<Duration> {
        let frozen_by_itself = self.policy.monitoring && self.nature.can_freeze;
        self.policy.inactivity_timeout.filter(|_| frozen_by_itself)
    }

    /// Does what was put off, as far as it can be done now. The only place where jobs begin:
    /// which one is due follows from how things are, so no event can start a second one.
    fn take_up_wishes(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        let is_starting = matches!(self.job, Some(Job::Queue | Job::Wake | Job::Adopt));
        if self.remove_wanted.is_some() && is_starting {
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
            let holds = if self.unknown { Footprint::Running } else { self.footprint() };
            let (failure, retry_at) = (None, None);
            self.go(State::Removing { why: why.clone(), holds, failure, retry_at }, now);
            self.tell(effects, &why, None);
        }
        if self.replaced && !matches!(self.state, State::Removed) {
            return self.gone(effects, "replaced outside", now);
        }
        let is_known = !self.unknown && !matches!(self.state, State::Starting { .. });
        if self.stop_wanted && is_known {
            self.stop_wanted = false;
            self.on_stop(effects, now);
        }
        if matches!(self.state, State::Frozen { .. }) && !self.unknown {
            if self.resume_wanted {
                self.wake(effects, "an admin", true, now);
            } else if census.held > 0 {
                self.wake(effects, "a request", false, now);
            }
        }
        let step_down = std::mem::take(&mut self.step_down_wanted);
        let job = match &self.state {
            State::Starting { stage: Stage::Making, .. } => Some(Job::Create),
            State::Starting { stage: Stage::Queued, .. } => Some(Job::Queue),
            State::Starting { stage: Stage::Waking, .. } => Some(Job::Wake),
            State::Starting { stage: Stage::Adopting, .. } => Some(Job::Adopt),
            // Before anything else is done: it may run, and have room already.
            State::Frozen { .. } if self.unknown => {
                self.look_wanted = false;
                Some(Job::Look)
            }
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
        let from = self.tier().unwrap_or(Tier::Stopped);
        // What may be up has room already, and what can't be frozen takes none that could be
        // given to another.
        let has_room = self.footprint() == Footprint::Running || !self.nature.can_freeze;
        let stage = if has_room { Stage::Waking } else { Stage::Queued };
        let why = why.to_owned();
        let leave_at = by_admin.then(|| now + self.policy.hold_max);
        self.resume_wanted = false;
        self.set_out(effects, State::Starting { why, stage, from, by_admin, leave_at }, now);
    }

    /// It runs, or may: it is found out how, and it keeps its slot or takes one by force.
    fn adopt(&mut self, effects: &mut Vec<Effect>, why: &str, now: Instant) {
        let (why, stage, from) = (why.to_owned(), Stage::Adopting, Tier::Stopped);
        let (by_admin, leave_at) = (true, None);
        self.set_out(effects, State::Starting { why, stage, from, by_admin, leave_at }, now);
    }

    fn set_out(&mut self, effects: &mut Vec<Effect>, starting: State, now: Instant) {
        let State::Starting { why, .. } = &starting else { return };
        let why = why.clone();
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
        self.freezing_for = FreezeReason::Admin;
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
    fn freeze_now(
        &mut self,
        effects: &mut Vec<Effect>,
        reason: FreezeReason,
        why: &str,
        now: Instant,
    ) {
        self.freezing_for = reason;
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
            (State::Starting { stage: Stage::Making, .. }, Some(Job::Create)) => {}
            (State::Starting { stage: Stage::Queued, .. }, Some(Job::Queue)) => {}
            (State::Starting { stage: Stage::Waking, .. }, Some(Job::Wake)) => {}
            (State::Starting { stage: Stage::Adopting, .. }, Some(Job::Adopt)) => {}
            // What was under way when somebody came is waited for.
            (State::Starting { .. }, Some(Job::Look | Job::Freeze(_))) => {}
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
        // Frozen: it has left the queue for a slot, or was taken for running and is not.
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
