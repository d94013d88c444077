//! What follows when its time has come: a freeze, the end of a drain, another try, a removal.

use std::time::Duration;

use tokio::time::Instant;

use super::{Census, Drain, Effect, Machine, SEVERED_MAX, State};
use crate::clock::spoken;
use crate::metrics::FreezeReason;
use crate::model::{FrozenStorage, Tier};

impl Machine {
    pub(super) fn on_deadline(&mut self, effects: &mut Vec<Effect>, census: Census, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.removal_due_at()) {
            let too_old = is_due(self.too_old_at());
            let (of, since) = if too_old { ("old", self.created) } else { ("frozen", self.since) };
            self.too_old = self.remove_wanted.is_none();
            self.remove_wanted = Some(format!("{of} for {}", spoken(now - since)));
            return;
        }
        if self.job.is_none() && is_due(self.look_again_at) {
            self.look_again_at = None;
            self.look_wanted = true;
        }
        match &self.state {
            State::Running { .. } => {
                let due = is_due(self.freeze_at(census));
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
            State::Failed { run: Some(_), .. } if is_due(self.unready_ends()) => {
                let why = "it never became ready";
                if self.policy.storage == FrozenStorage::None {
                    self.remove_wanted = Some(why.to_owned());
                } else {
                    effects.push(Effect::Hold);
                    self.freeze_now(effects, FreezeReason::Unready, why, now);
                }
            }
            State::Frozen { tier: Tier::Paused } => {
                let due = is_due(self.demote_at()).then_some("");
                self.step_down_wanted = self.step_down_wanted.or(due);
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

    pub(super) fn on_shut(
        &mut self,
        effects: &mut Vec<Effect>,
        shut: bool,
        census: Census,
        now: Instant,
    ) {
        let evicted = std::mem::take(&mut self.evicted);
        if !shut {
            return;
        }
        let idle = spoken(self.idle_since(census).map_or(Duration::ZERO, |since| now - since));
        let idle = format!("idle for {idle} since {}", self.last_activity(census));
        let (reason, why) = match evicted {
            false => (FreezeReason::Idle, idle),
            true => (FreezeReason::Evicted, format!("{idle}, and its slot was wanted")),
        };
        if self.policy.storage == FrozenStorage::None {
            self.remove_wanted = Some(why);
            return;
        }
        self.freeze_now(effects, reason, &why, now);
        if census.quiet > 0 {
            // They count for nothing, but are told before the driver is.
            effects.push(Effect::Sever);
            self.drain_until(Drain::Severed(now + SEVERED_MAX));
        }
    }
}
