//! What follows when a workspace is found in another state than ours: somebody stopped, started,
//! paused or removed it, or it ended by itself. All of these are legal arrows, not errors.

use tokio::time::Instant;

use super::{Effect, Machine, Seen, State};
use crate::model::Tier;

/// What a missing one is told of that we made ourselves.
pub(super) const MADE_AGAIN: &str = "removed outside; it is made again when needed";

impl Machine {
    pub(super) fn on_looked(&mut self, effects: &mut Vec<Effect>, seen: Seen, now: Instant) {
        if !matches!(seen, Seen::Running { .. }) {
            self.reported_before = false;
        }
        let is_news = std::mem::take(&mut self.unseen);
        match (&self.state, seen) {
            (State::Running { run, .. }, Seen::Running { run: seen, same_endpoint }) => {
                // A run that was found while the engine was away has no name until now.
                if (run.is_some() && *run != seen) || !same_endpoint {
                    effects.push(Effect::Shut);
                    self.adopt(effects, "it was restarted outside", now);
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
                self.adopt(effects, "it was found running", now);
            }
            (State::Failed { unsure: true, .. }, Seen::Running { run: seen, .. }) => {
                // The start that failed has brought it up. Whoever comes next tries again.
                if let State::Failed { run, unsure, .. } = &mut self.state {
                    (*run, *unsure) = (seen, false);
                }
            }
            (State::Failed { run, .. }, Seen::Running { run: seen, .. }) => {
                if run.is_none() || *run != seen {
                    self.adopt(effects, "it was found running", now);
                }
            }
            (State::Frozen { tier }, Seen::Paused) => {
                if *tier != Tier::Paused {
                    self.state = State::Frozen { tier: Tier::Paused };
                    self.tell(effects, "found paused", None);
                }
            }
            (State::Frozen { tier }, Seen::Stopped { exit }) => {
                if *tier != Tier::Stopped {
                    self.state = State::Frozen { tier: Tier::Stopped };
                    self.tell(effects, "stopped outside", None);
                } else if is_news {
                    let why = exit.unwrap_or_else(|| "found stopped".to_owned());
                    self.tell(effects, &why, None);
                }
            }
            (State::Failed { .. }, Seen::Paused) => {
                self.go(State::Frozen { tier: Tier::Paused }, now);
                effects.push(Effect::Hold);
                self.tell(effects, "paused outside", None);
            }
            (State::Failed { .. }, Seen::Stopped { .. }) => self.nothing_is_up(),
            (
                State::Running { .. } | State::Frozen { .. } | State::Failed { .. },
                Seen::Missing,
            ) => {
                self.on_missing(effects, is_news, now);
            }
            // A job that decides about the phase is under way, or it is over.
            (State::Starting { .. } | State::Freezing { .. }, _) => {}
            (State::Removing { .. } | State::Removed, _) => {}
        }
    }

    fn on_missing(&mut self, effects: &mut Vec<Effect>, is_news: bool, now: Instant) {
        match &self.state {
            _ if self.nature.discovered => self.gone(effects, "removed outside", now),
            State::Running { .. } => self.fell(effects, Tier::Stopped, MADE_AGAIN, now),
            State::Frozen { tier: Tier::Paused } => {
                self.state = State::Frozen { tier: Tier::Stopped };
                self.tell(effects, MADE_AGAIN, None);
            }
            State::Frozen { .. } if is_news => self.tell(effects, MADE_AGAIN, None),
            _ => self.nothing_is_up(),
        }
    }

    pub(super) fn gone(&mut self, effects: &mut Vec<Effect>, why: &str, now: Instant) {
        effects.extend([Effect::Shut, Effect::Sever, Effect::Refuse { retry_at: None }]);
        self.go(State::Removed, now);
        self.tell(effects, why, None);
    }

    /// Of one that failed nothing is left that runs.
    fn nothing_is_up(&mut self) {
        if let State::Failed { run, unsure, .. } = &mut self.state {
            (*run, *unsure) = (None, false);
        }
    }

    /// It stopped running without our doing.
    fn fell(&mut self, effects: &mut Vec<Effect>, tier: Tier, why: &str, now: Instant) {
        effects.push(Effect::Shut);
        self.go(State::Frozen { tier }, now);
        self.tell(effects, why, None);
    }
}
