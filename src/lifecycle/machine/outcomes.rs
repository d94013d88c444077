//! What follows from what came of a job.

use tokio::time::Instant;

use super::outside::MADE_AGAIN;
use super::{Effect, Footprint, Machine, Outcome, Seen, Stage, State, backoff};
use crate::model::Tier;

impl Machine {
    pub(super) fn on_finished(
        &mut self,
        effects: &mut Vec<Effect>,
        outcome: Outcome,
        now: Instant,
    ) {
        self.job = None;
        self.unknown = false;
        if outcome != Outcome::LookFailed {
            self.look_failures = 0;
            self.look_again_at = None;
        }
        match outcome {
            Outcome::Created => self.on_created(effects),
            // What was made of it must not stay.
            Outcome::CreateFailed { reason, refused } => {
                effects.push(Effect::CreateFailed { reason: reason.clone(), refused });
                self.remove_wanted = Some(reason);
            }
            Outcome::Admitted => self.on_admitted(),
            Outcome::Woken { run } => self.on_woken(effects, run, now),
            Outcome::Down(seen) => self.on_down(effects, seen, now),
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
            Outcome::LookFailed => {
                self.look_again_at = Some(now + backoff(self.look_failures));
                self.look_failures = self.look_failures.saturating_add(1);
            }
        }
    }

    /// What is to be removed is removed, if not now then later.
    pub(super) fn on_remove_failed(
        &mut self,
        effects: &mut Vec<Effect>,
        reason: String,
        now: Instant,
    ) {
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

    pub(super) fn remove_again(&mut self) {
        if let State::Removing { retry_at, .. } = &mut self.state {
            *retry_at = None;
        }
    }

    pub(super) fn on_created(&mut self, effects: &mut Vec<Effect>) {
        if let State::Starting { stage, why, .. } = &mut self.state {
            *stage = Stage::Queued;
            let why = why.clone();
            self.tell(effects, &why, None);
            effects.push(Effect::Created);
        }
    }

    pub(super) fn on_admitted(&mut self) {
        if let State::Starting { stage, leave_at, .. } = &mut self.state {
            *stage = Stage::Waking;
            *leave_at = None;
        }
    }

    pub(super) fn on_woken(
        &mut self,
        effects: &mut Vec<Effect>,
        run: Option<String>,
        now: Instant,
    ) {
        let State::Starting { why, stage, .. } = &self.state else { return };
        let (why, is_adopted) = (why.clone(), *stage == Stage::Adopting);
        let took = now - self.since;
        self.failures = 0;
        self.resume_wanted = false;
        self.go(State::Running { run, ready_at: now }, now);
        // What was started since has not reported anything.
        if std::mem::take(&mut self.reported_before) && is_adopted {
            self.on_check_in(true, now);
        }
        effects.push(Effect::Open);
        self.tell(effects, &why, Some(took));
    }

    pub(super) fn on_wake_failed(
        &mut self,
        effects: &mut Vec<Effect>,
        reason: String,
        run: Option<String>,
        now: Instant,
    ) {
        let retry_at = now + backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        // Nothing was done to one that had no room. Of what was done, all that is known is that it
        // failed.
        let is_tried = self.footprint() == Footprint::Running;
        let unsure = is_tried && run.is_none();
        self.look_wanted |= unsure;
        self.resume_wanted = false;
        self.go(State::Failed { reason: reason.clone(), retry_at, run, unsure }, now);
        effects.push(Effect::Refuse { retry_at: Some(retry_at) });
        self.tell(effects, &reason, None);
    }

    /// It was taken for running, and is not. Whoever waits wakes it, by way of the queue.
    pub(super) fn on_down(&mut self, effects: &mut Vec<Effect>, seen: Seen, now: Instant) {
        self.reported_before = false;
        self.unseen = false;
        let (tier, why) = match seen {
            Seen::Missing if self.nature.discovered => {
                return self.gone(effects, "removed outside", now);
            }
            Seen::Missing => (Tier::Stopped, MADE_AGAIN.to_owned()),
            Seen::Paused => (Tier::Paused, "it is paused".to_owned()),
            Seen::Stopped { exit } => {
                (Tier::Stopped, exit.unwrap_or_else(|| "it does not run any more".to_owned()))
            }
            Seen::Running { run, .. } => return self.on_woken(effects, run, now),
        };
        self.go(State::Frozen { tier }, now);
        self.tell(effects, &why, None);
    }

    pub(super) fn on_frozen(&mut self, effects: &mut Vec<Effect>, tier: Tier, now: Instant) {
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

    pub(super) fn on_freeze_failed(
        &mut self,
        effects: &mut Vec<Effect>,
        reason: String,
        now: Instant,
    ) {
        self.freeze_not_before = Some(now + backoff(self.freeze_failures));
        self.freeze_failures = self.freeze_failures.saturating_add(1);
        if matches!(self.state, State::Freezing { .. }) {
            effects.push(Effect::StopFailed { reason: reason.clone() });
            // It may run, or not, or be half stopped. A wake finds out and serves those who wait.
            self.adopt(effects, &format!("the freeze failed: {reason}"), now);
        } else {
            // A step down, which no admin has asked for.
            self.look_wanted = true;
        }
    }
}
