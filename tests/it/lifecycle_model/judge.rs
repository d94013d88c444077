//! What may follow from what: phases and driver calls.

use frostgate::driver::fake::Action;
use frostgate::driver::{Health, Sighting, Status};
use frostgate::lifecycle::Change;
use frostgate::model::{FrozenStorage, Phase, Policy, Tier, WorkspaceId};
use frostgate::store::Intent;
use std::time::Duration;
use tokio::time::Instant;

use super::one::{Course, One, Origin, TICK, is_legal};
use super::reference::{Reference, UPSET, Wish};

/// What DESIGN §2 allows a deadline to be late.
pub(super) const LATE_MAX: Duration = Duration::from_secs(1);
/// A call that takes longer is not that of a healthy engine.
pub(super) const CALM_CALL_MAX: Duration = Duration::from_secs(2);

/// How a driver call ended.
pub(super) enum Ended {
    Done(Option<Sighting>),
    Failed(String),
    Dropped,
}

/// Begins the reason of a paused one that is on its way to stopped.
const BEING_STOPPED: &str = "being stopped: ";

/// A stop of one that is frozen already is told, for it holds requests off; and so is it that a paused
/// one is being stopped.
fn told_again(from: Option<Phase>, tier: Option<Tier>, reason: &str) -> bool {
    let stepping_down = tier == Some(Tier::Paused) && reason.starts_with(BEING_STOPPED);
    from == Some(Phase::Frozen) && (stepping_down || reason == "stopped by an admin")
}

/// So is the end of such a stop if somebody has come meanwhile.
fn stepped_down(from: Phase, phase: Phase, reason: &str) -> bool {
    (from, phase) == (Phase::Starting, Phase::Starting)
        && reason.ends_with(", and it is stopped now")
}

impl Reference {
    pub(super) fn saw(&mut self, change: Change) {
        let Change { workspace: id, phase, tier, reason, at, .. } = change;
        let words = tier.map_or(String::new(), |tier| format!(" ({tier})"));
        self.note(format!("{id}: {phase}{words}: {reason}"));
        self.count(&format!("phase: {phase}"));
        self.saw_phase(&id, phase);
        let is_met = self.all[&id].met;
        self.look_up(&id);
        let one = self.one(&id);
        let from = one.phase.filter(|_| one.is_told || (is_met && !one.creating));
        if let Some(from) = from {
            let is_legal = is_legal(from, phase) || stepped_down(from, phase, &reason);
            self.demand(is_legal, || format!("{id}: from {from} to {phase}"));
        }
        let explained = match phase {
            Phase::Starting if from.is_some_and(|from| stepped_down(from, phase, &reason)) => true,
            Phase::Starting => self.may_start(&id, from, at),
            Phase::Running => self.may_be_ready(&id, at),
            Phase::Freezing => self.may_freeze(&id, from, at),
            Phase::Frozen => {
                self.one(&id).stepping_down = reason.starts_with(BEING_STOPPED);
                told_again(from, tier, &reason) || self.may_be_frozen(&id, from, tier, at)
            }
            Phase::Failed => !self.is_calm(&id, at),
            Phase::Removing => self.may_be_removed(&id, from, at),
            Phase::Removed => self.may_be_gone(&id, from, at),
        };
        self.demand(explained, || format!("{id}: {phase}{words} for no reason ({reason})"));
        self.enter(&id, from, phase, tier, at);
    }

    fn enter(
        &mut self,
        id: &WorkspaceId,
        from: Option<Phase>,
        phase: Phase,
        tier: Option<Tier>,
        at: Instant,
    ) {
        let reported = self.report_on_record(id);
        let since = self.stopped_since(id);
        let one = self.one(id);
        one.told.push((phase, tier));
        one.is_told = true;
        if one.wants_a_slot(at) {
            one.slot_wanted_until = Some(at);
        }
        // What was looked up already knows since when it is as it was found.
        if from.map_or(one.phase, Some) != Some(phase) {
            one.since = at;
        }
        (one.phase, one.tier, one.touched) = (Some(phase), tier, at);
        match phase {
            Phase::Starting => {
                one.course = Course::default();
                // A start clears what was reported before it.
                if from.is_some_and(|from| from != Phase::Starting) {
                    one.reported = None;
                    one.report_ended = None;
                }
            }
            Phase::Running => {
                one.generation += 1;
                one.ready_at = at;
                one.resume_asked = false;
                one.run = one.course.sighting.take().and_then(|sighting| sighting.run);
                if one.generation == 1 {
                    // What is on record of its reports counts from now on.
                    one.reported = reported;
                }
            }
            Phase::Freezing => {
                let grace = one.policies(at).iter().map(|policy| policy.drain_grace).min();
                let drain_until = one.stop_asked.and(grace).map(|grace| at + grace);
                let from_failed = from == Some(Phase::Failed);
                one.course = Course { drain_until, from_failed, ..Course::default() };
            }
            Phase::Frozen => {
                one.stop_asked = None;
                one.course = Course::default();
                if let Some(since) =
                    since.filter(|_| from.is_none_or(|from| from == Phase::Freezing))
                {
                    // A stop that a restart has cut in half counts from the pause.
                    one.since = since.min(one.since);
                }
            }
            Phase::Failed => {
                one.failed_at = Some(at);
                one.upset_until = one.upset_until.max(at + UPSET);
            }
            Phase::Removing => one.course = Course::default(),
            Phase::Removed => one.end(at),
        }
    }

    fn may_start(&self, id: &WorkspaceId, from: Option<Phase>, at: Instant) -> bool {
        let one = &self.all[id];
        let wanted = !one.waiting.is_empty() || one.wanted_at == Some(at) || one.resume_asked;
        match from {
            Some(Phase::Frozen | Phase::Failed) => wanted || !self.is_calm(id, at),
            Some(_) => !self.is_calm(id, at),
            None => true,
        }
    }

    fn may_be_ready(&self, id: &WorkspaceId, at: Instant) -> bool {
        let one = &self.all[id];
        let seen = one.course.sighting.as_ref();
        let evident = seen.is_some_and(|seen| match seen.status {
            Status::Running => seen.health == Some(Health::Healthy),
            Status::Paused => one.course.unpaused,
            Status::Stopped | Status::Missing => false,
        });
        let late = self.slots.is_none()
            && self.is_calm(id, one.since)
            && at - one.since > super::reference::CALM_WAIT;
        evident && !late
    }

    fn may_freeze(&mut self, id: &WorkspaceId, from: Option<Phase>, at: Instant) -> bool {
        let calm = self.is_calm(id, at);
        let one = &self.all[id];
        let stop_asked = self.asks.values().any(|ask| ask.id == *id && ask.wish == Wish::Stop);
        if one.stop_asked.is_some() || stop_asked {
            return one.may(at, |policy| policy.storage != FrozenStorage::None);
        }
        match from {
            Some(Phase::Running) if self.may_be_idle(one, at) => {
                let late = calm && self.idle_too_long(id, at);
                !late
            }
            Some(Phase::Running) => self.may_be_evicted(id, at),
            Some(Phase::Failed) => one.may(at, |policy| one.unready_for_long(policy, at)),
            Some(_) => false,
            None => true,
        }
    }

    fn may_be_idle(&self, one: &One, at: Instant) -> bool {
        one.may(at, |policy| one.freeze_at(policy).is_some_and(|due| due <= at + TICK))
    }

    /// Whether it should have been frozen for idleness a while ago.
    pub(super) fn idle_too_long(&self, id: &WorkspaceId, at: Instant) -> bool {
        let one = &self.all[id];
        let Some(policy) = one.sure_policy(at) else {
            return false;
        };
        let due = one.freeze_at(policy).map(|due| due.max(one.touched));
        due.is_some_and(|due| due + LATE_MAX < at && self.is_calm(id, due))
    }

    fn may_be_evicted(&mut self, id: &WorkspaceId, at: Instant) -> bool {
        let somebody_waits = self.all.values().any(|one| one.wants_a_slot(at));
        let since = |one: &One| {
            let policies = one.policies(at);
            policies.into_iter().filter_map(|policy| one.evictable_since(policy, at)).max()
        };
        let Some(idle_since) = since(&self.all[id]) else { return false };
        self.count("evictions");
        let others = self.all.iter().filter(|(other, one)| {
            let known = one.sure_policy(at).is_some() && one.under_way.is_none();
            *other != id && known && self.is_calm(other, at)
        });
        let idle_longer: Vec<_> = others
            .filter(|(_, one)| since(one).is_some_and(|since| since < idle_since))
            .map(|(other, _)| other.clone())
            .collect();
        self.demand(idle_longer.is_empty(), || format!("{id}: evicted before {idle_longer:?}"));
        self.slots.is_some() && somebody_waits
    }

    fn may_be_frozen(
        &self,
        id: &WorkspaceId,
        from: Option<Phase>,
        tier: Option<Tier>,
        at: Instant,
    ) -> bool {
        let one = &self.all[id];
        let calm = self.is_calm(id, at);
        let agrees = match self.fake.status(id) {
            Status::Running => false,
            Status::Paused => tier == Some(Tier::Paused),
            Status::Stopped | Status::Missing => tier == Some(Tier::Stopped),
        };
        match (from, tier) {
            (Some(Phase::Freezing), _) => agrees || !calm,
            // It left the queue for a slot.
            (Some(Phase::Starting), _) => one.course.starts == 0 && (self.slots.is_some() || !calm),
            (Some(Phase::Failed), _) => one.stop_asked.is_some() || !calm,
            (Some(Phase::Frozen), Some(Tier::Stopped)) if calm => {
                agrees
                    && one.may(at, |policy| {
                        policy.stop_after.is_some_and(|after| one.since + after <= at + TICK)
                    })
            }
            (Some(_), _) => !calm,
            (None, _) => true,
        }
    }

    fn may_be_removed(&self, id: &WorkspaceId, from: Option<Phase>, at: Instant) -> bool {
        let one = &self.all[id];
        let too_old = |policy: &Policy| one.remove_at(policy).is_some_and(|due| due <= at + TICK);
        let idle = |policy: &Policy| {
            policy.storage == FrozenStorage::None
                && one.freeze_at(policy).is_some_and(|due| due <= at + TICK)
        };
        let unready = |policy: &Policy| {
            let unready = one.phase == Some(Phase::Failed) && one.unready_for_long(policy, at);
            policy.storage == FrozenStorage::None && unready
        };
        let not_made = one.creating && !one.acknowledged && !self.is_calm(id, at);
        from == Some(Phase::Removing) && !self.is_calm(id, at)
            || one.removal_asked
            || from.is_none()
            || not_made
            || one.may(at, |policy| too_old(policy) || idle(policy) || unready(policy))
    }

    fn may_be_gone(&self, id: &WorkspaceId, from: Option<Phase>, at: Instant) -> bool {
        let calm = self.is_calm(id, at);
        match from {
            Some(Phase::Removing) => !calm || self.fake.status(id) == Status::Missing,
            Some(_) => !calm && self.all[id].origin == Origin::Discovered,
            None => true,
        }
    }
}

/// Driver calls.
impl Reference {
    pub(super) fn call_begins(&mut self, id: &WorkspaceId, action: Action) {
        self.look();
        self.note(format!("{id}: driver: {action:?} …"));
        let now = Instant::now();
        let calm = self.is_calm(id, now);
        let one = self.one(id);
        one.under_way = Some((action, now));
        let phase = one.phase;
        let allowed = match (action, phase) {
            (_, None) | (Action::Inspect, _) => true,
            (Action::Create | Action::Start | Action::Unpause, Some(phase)) => {
                phase == Phase::Starting
            }
            (Action::Pause, Some(phase)) => phase == Phase::Freezing,
            (Action::Stop, Some(Phase::Frozen)) => one.tier == Some(Tier::Paused),
            (Action::Stop, Some(phase)) => {
                let starting = phase == Phase::Starting;
                phase == Phase::Freezing || (starting && (!calm || one.stepping_down))
            }
            (Action::Remove, Some(phase)) => phase == Phase::Removing,
        };
        self.demand(allowed, || format!("{id}: {action:?} while {phase:?}"));
        match action {
            Action::Stop | Action::Pause if phase == Some(Phase::Freezing) => self.freezes(id, now),
            Action::Start | Action::Unpause => self.starts(id, now),
            _ => {}
        }
        if !matches!((phase, action), (Some(Phase::Starting), Action::Stop | Action::Inspect)) {
            self.one(id).course.calls += 1;
        }
    }

    /// Nobody is inside any more, or they have had their time; and it stands on record.
    fn freezes(&mut self, id: &WorkspaceId, now: Instant) {
        let one = &self.all[id];
        let inside = one.leases.len();
        let had_their_time = one.course.drain_until.is_some_and(|until| until <= now);
        let may = inside == 0 || had_their_time || one.course.from_failed;
        self.demand(may, || format!("{id}: is being frozen with {inside} inside"));
        let stored = self.record(id).map(|record| record.state);
        let stepping_down = stored.as_ref().is_some_and(|was| was.intent == Some(Intent::Stop));
        let stored = stored.map(|state| state.phase);
        let one = &self.all[id];
        // A jump of the clock ends the wait for the disk.
        let trouble = self.store_is_slow || one.journal_lost || self.jumped_at >= Some(one.since);
        self.demand(stored == Some(Phase::Freezing) || stepping_down || trouble, || {
            format!("{id}: is being frozen, but on record it is {stored:?}")
        });
    }

    fn starts(&mut self, id: &WorkspaceId, now: Instant) {
        let one = self.one(id);
        one.course.starts += 1;
        let starts = one.course.starts;
        self.demand(starts == 1, || format!("{id}: is started {starts} times for one wake"));
        let Some(slots) = self.slots else { return };
        let up = self.all.iter().filter(|(other, one)| {
            let starts = one.phase == Some(Phase::Starting) && one.course.starts > 0;
            let up = self.fake.status(other) == Status::Running || starts;
            *other != id && one.phase.is_some() && up && self.is_calm(other, now)
        });
        let up = Vec::from_iter(up.map(|(other, _)| other.to_string()));
        self.demand(up.len() < slots, || format!("{id}: {up:?} run already in {slots} slots"));
    }

    pub(super) fn call_ended(&mut self, id: &WorkspaceId, action: Action, ended: Ended) {
        self.look();
        let now = Instant::now();
        let one = self.one(id);
        one.stepping_down &= action != Action::Stop;
        let took = one.under_way.take().map_or(Duration::ZERO, |(_, since)| now - since);
        one.touched = now;
        let words = match &ended {
            Ended::Done(None) => "done".to_owned(),
            Ended::Done(Some(seen)) => {
                format!("{:?} {:?} {:?}", seen.status, seen.run, seen.health)
            }
            Ended::Failed(reason) => reason.clone(),
            Ended::Dropped => "dropped".to_owned(),
        };
        match ended {
            Ended::Done(Some(sighting)) => {
                one.course.sighting = Some(sighting);
                one.course.unpaused = false;
            }
            Ended::Done(None) => one.course.unpaused |= action == Action::Unpause,
            Ended::Failed(_) | Ended::Dropped => one.upset_until = one.upset_until.max(now + UPSET),
        }
        if took > CALM_CALL_MAX {
            one.upset_until = one.upset_until.max(now + UPSET);
        }
        self.note(format!("{id}: driver: … {action:?}: {words}"));
    }
}
