//! What follows when somebody wants something of it: requests, admins, the workspace itself, others
//! that want its room.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Census, Effect, Footprint, Job, Machine, PLACE_KEPT, Report, STOPPED_BY_ADMIN, Stage, State,
};
use crate::metrics::FreezeReason;
use crate::model::{FrozenStorage, Policy, Tier};

impl Machine {
    pub(super) fn on_held(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        match &self.state {
            State::Failed { retry_at, .. } if now < *retry_at => {}
            // It is looked at first; `take_up_wishes` comes back to it.
            State::Frozen { .. } if self.unknown => {}
            State::Frozen { .. } | State::Failed { .. } => {
                self.wake(effects, "a request", false, now)
            }
            State::Starting { by_admin: false, .. } => self.leave_queue_at(None),
            // It is on its way, or the freeze has to end first; `take_up_wishes` comes back to it.
            State::Starting { .. } | State::Freezing { .. } => {}
            State::Running { .. } | State::Removing { .. } | State::Removed => {}
        }
    }

    pub(super) fn on_resume(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        if std::mem::take(&mut self.stop_wanted) {
            let reason = "another call wants it to run".to_owned();
            effects.push(Effect::StopFailed { reason });
        }
        match &mut self.state {
            State::Frozen { .. } if self.unknown => self.resume_wanted = true,
            State::Frozen { .. } | State::Failed { .. } => {
                self.wake(effects, "an admin", true, now)
            }
            State::Freezing { .. } => {
                self.resume_wanted = true;
                self.stopped_at = None;
                effects.push(Effect::Hold);
            }
            State::Starting { stage: Stage::Adopting, .. } => self.resume_wanted = true,
            State::Starting { by_admin, .. } => {
                *by_admin = true;
                self.leave_queue_at(Some(now + self.policy.hold_max));
            }
            State::Running { .. } => {}
            // Whoever wants it to run is told that it is gone.
            State::Removing { .. } | State::Removed => {}
        }
    }

    pub(super) fn on_stop(&mut self, effects: &mut Vec<Effect>, now: Instant) {
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
            State::Frozen { .. } if self.unknown => self.stop_wanted = true,
            State::Failed { run: Some(_), .. } | State::Failed { unsure: true, .. } => {
                self.hold_off(effects, now);
                self.freeze_now(effects, FreezeReason::Admin, STOPPED_BY_ADMIN, now);
            }
            State::Failed { .. } => {
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

    /// From now on only a navigation wakes it, for `stop_hold_off`. Who stops it no longer wants
    /// it awake.
    pub(super) fn hold_off(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        self.stopped_at = Some(now);
        self.kept_until = None;
        effects.extend(self.held_off_until().map(|until| Effect::HoldOff { until }));
    }

    pub(super) fn on_policy(&mut self, effects: &mut Vec<Effect>, policy: Arc<Policy>) {
        self.policy = policy;
        if std::mem::take(&mut self.too_old) {
            // If it still is, its deadline says so again.
            self.remove_wanted = None;
        }
        effects.extend(self.held_off_until().map(|until| Effect::HoldOff { until }));
    }

    /// Frozen to make room, if nobody is inside and it may be frozen for idleness at all.
    pub(super) fn on_evict(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        let from = self.evictable(census).and_then(|evictable| evictable.from);
        if from.is_some_and(|at| at <= now) {
            self.evicted = true;
            effects.push(Effect::ShutIfIdle { idle_before: now });
        }
    }

    pub(super) fn on_deserted(&mut self, now: Instant) {
        if matches!(
            &self.state,
            State::Starting { by_admin: false, leave_at: None, stage: Stage::Queued, .. }
        ) {
            self.leave_queue_at(Some(now + PLACE_KEPT));
        }
    }

    /// When it leaves the queue for room, if it is in it.
    pub(super) fn leave_queue_at(&mut self, at: Option<Instant>) {
        if let State::Starting { stage: Stage::Making | Stage::Queued, leave_at, .. } =
            &mut self.state
        {
            *leave_at = at;
        }
    }

    /// It goes without room, back to where it was.
    pub(super) fn leave_queue(&mut self, effects: &mut Vec<Effect>, reason: String, now: Instant) {
        let State::Starting { from, .. } = self.state else { return };
        if self.job == Some(Job::Queue) {
            self.job = None;
            effects.push(Effect::GiveUp);
            self.go(State::Frozen { tier: from }, now);
            self.tell(effects, &reason, None);
            effects.push(Effect::ResumeFailed { reason });
        }
    }

    pub(super) fn on_check_in(&mut self, active: bool, now: Instant) {
        self.reported_before = false;
        if self.report.is_some_and(|report| report.active) {
            // From here on it was idle, unless the new report says otherwise.
            self.report_ended = Some(self.report_ends().map_or(now, |at| at.min(now)));
        }
        self.report = Some(Report { active, at: now });
    }

    /// What failed may have failed because the runtime was away, and is not put off any longer.
    pub(super) fn on_resync(&mut self, effects: &mut Vec<Effect>, now: Instant) {
        self.look_wanted = true;
        self.failures = 0;
        self.freeze_failures = 0;
        self.freeze_not_before = None;
        self.removal_failures = 0;
        self.remove_again();
        if !matches!(self.state, State::Failed { .. }) {
            return;
        }
        if self.footprint() == Footprint::Running {
            self.adopt(effects, "its runtime answers again", now);
        } else {
            self.go(State::Frozen { tier: Tier::Stopped }, now);
            effects.push(Effect::Hold);
            self.tell(effects, "its runtime answers again", None);
        }
    }
}
