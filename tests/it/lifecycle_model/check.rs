//! What must hold whenever nothing is about to happen, and when all has been well for a while.

use std::sync::Arc;
use std::time::Duration;

use frostgate::driver::Status;
use frostgate::lifecycle::{Registry, View, Workspace};
use frostgate::model::{Phase, Tier, WorkspaceId};
use tokio::time::Instant;

use super::judge::LATE_MAX;
use super::one::{Origin, TICK};
use super::reference::{CALM_WAIT, Reference, Wish};

/// Every call of an admin has its answer after this.
const ANSWER_MAX: Duration = Duration::from_secs(600);
/// A removal or a step down while all is well.
const CALM_CALLS: Duration = Duration::from_secs(5);

impl Reference {
    /// To be called when every task waits for something.
    pub(super) fn check(&mut self, registry: &Registry) {
        self.look();
        let now = Instant::now();
        for id in Vec::from_iter(self.all.keys().cloned()) {
            match registry.get(id.as_str()) {
                Some(workspace) => self.check_one(&workspace, now),
                None => {
                    // Whoever wanted it hung up before it was more than a wish.
                    let asked =
                        self.asks.values().any(|ask| ask.id == id && ask.wish == Wish::Create);
                    let one = self.one(&id);
                    if one.creating && !one.acknowledged && !one.is_told && !asked {
                        one.end(now);
                    }
                    if one.origin == Origin::Discovered {
                        one.created = None; // it was gone when the program came back
                    }
                    let one = &self.all[&id];
                    let (phase, lost) = (one.phase, one.acknowledged);
                    self.demand(phase.is_none() && !lost, || {
                        format!("{id}: is gone while {phase:?}")
                    });
                }
            }
        }
        for violation in self.fake.violations() {
            self.demand(false, || violation);
        }
        let overdue = self.asks.iter().find(|(_, ask)| ask.since + ANSWER_MAX < now);
        if let Some((ask, asked)) = overdue {
            let words = format!("{}: call {ask} ({:?}) has no answer", asked.id, asked.wish);
            self.demand(false, || words);
        }
    }

    fn check_one(&mut self, workspace: &Arc<Workspace>, now: Instant) {
        let id = workspace.id().clone();
        let view = workspace.view();
        self.look_up(&id);
        let one = &self.all[&id];
        let seen = (one.phase, one.tier, one.leases.len(), one.waiting.len());
        let is = (Some(view.phase), view.tier, view.inside as usize, view.held);
        self.demand(seen == is, || format!("{id}: is {is:?}, and was seen as {seen:?}"));
        let one = &self.all[&id];
        let overdue = one.waiting.iter().find(|(_, waiting)| {
            waiting.since + waiting.hold_max.max(CALM_WAIT * 6) + LATE_MAX < now
        });
        let overdue = overdue.map(|(visitor, _)| *visitor);
        self.demand(overdue.is_none(), || format!("{id}: request {overdue:?} waits for ever"));
        let one = &self.all[&id];
        let failed = one
            .failed_at
            .filter(|_| one.waiting.values().any(|waiting| Some(waiting.since) < one.failed_at));
        self.demand(failed.is_none(), || format!("{id}: has failed, and somebody waits still"));
        self.check_deadlines(&id, &view, now);
    }

    fn check_deadlines(&mut self, id: &WorkspaceId, view: &View, now: Instant) {
        let one = &self.all[id];
        let Some(policy) = one.sure_policy(now) else { return };
        let near = |one: Option<Instant>, other: Option<Instant>| match (one, other) {
            (Some(one), Some(other)) => one.max(other) - one.min(other) <= TICK,
            (one, other) => one.is_none() && other.is_none(),
        };
        let began = self.began();
        let spoken = move |at: Option<Instant>| at.map(|at| at.saturating_duration_since(began));
        let freeze_at = one.freeze_at(policy).filter(|_| view.phase == Phase::Running);
        let remove_at = one
            .remove_at(policy)
            .filter(|_| !matches!(view.phase, Phase::Removing | Phase::Removed));
        let (told, due) = ((view.freeze_at, view.remove_at), (freeze_at, remove_at));
        self.demand(near(told.0, due.0), || {
            format!("{id}: freeze_at is told as {:?}, due at {:?}", spoken(told.0), spoken(due.0))
        });
        self.demand(near(told.1, due.1), || {
            format!("{id}: remove_at is told as {:?}, due at {:?}", spoken(told.1), spoken(due.1))
        });
        if view.phase == Phase::Running {
            let late = self.idle_too_long(id, now);
            self.demand(!late, || format!("{id}: should be frozen since {:?}", spoken(freeze_at)));
        }
        self.check_progress(id, remove_at, now);
    }

    /// Nothing stays where it may not stay while all is well.
    fn check_progress(&mut self, id: &WorkspaceId, remove_at: Option<Instant>, now: Instant) {
        let one = &self.all[id];
        let (phase, tier) = (one.phase, one.tier);
        let until = match (phase, tier) {
            (Some(Phase::Starting), _) if self.slots.is_some() => None,
            (Some(Phase::Starting | Phase::Freezing), _) => Some(one.since + CALM_WAIT),
            (Some(Phase::Removing), _) => Some(one.since + CALM_CALLS),
            (Some(Phase::Frozen), Some(Tier::Paused)) => {
                one.policy.stop_after.map(|after| one.since.max(one.touched) + after + CALM_CALLS)
            }
            _ => None,
        };
        let due = remove_at.map(|due| due.max(one.touched) + CALM_CALLS);
        let limits = [until, due];
        let passed = limits
            .into_iter()
            .flatten()
            .any(|limit| limit < now && self.is_calm(id, limit - CALM_CALLS));
        let since = one.since;
        self.demand(!passed, || {
            format!("{id}: is {phase:?} {tier:?} for {:?}, which is over", now - since)
        });
    }

    /// The first look at a workspace in this life of the program, or at all.
    pub(super) fn meet(&mut self, workspace: &Arc<Workspace>, view: &View) {
        let id = workspace.id().clone();
        self.note(format!("{id}: is met as {:?} {:?}", view.phase, view.tier));
        let now = Instant::now();
        let created = super::world::moment_of(workspace.created_at());
        let policy = (*workspace.policy()).clone();
        let began = self.began();
        let one = self.one(&id);
        one.met = true;
        let mut expected = Vec::from_iter(one.policies(now).into_iter().cloned());
        let mut known = one.created;
        if one.origin == Origin::Discovered && one.removed_outside {
            // Another may have taken its place.
            expected.push(one.first_policy.clone());
            known = None;
        }
        one.removed_outside = false;
        (one.phase, one.tier, one.since) = (Some(view.phase), view.tier, view.since);
        one.doubtful.clear();
        one.policy = policy.clone();
        one.created = Some(created);
        let stale = one.journal_lost || std::mem::take(&mut one.stale);
        self.demand(stale || expected.contains(&policy), || {
            format!("{id}: its policy is {policy:?}, not {expected:?}")
        });
        self.demand(
            stale || known.is_none_or(|known| known.max(created) - known.min(created) <= TICK),
            || {
                format!(
                    "{id}: was created at {:?}, and now at {:?}",
                    known.map(|at| at - began),
                    created - began
                )
            },
        );
    }

    /// To be called when all has been well for longer than anything may take.
    pub(super) fn check_settled(&mut self, registry: &Registry) {
        self.check(registry);
        let now = Instant::now();
        for id in Vec::from_iter(self.all.keys().cloned()) {
            let status = self.fake.status(&id);
            let one = &self.all[&id];
            let fits = match (one.phase, one.tier) {
                (None, _) => one.origin != Origin::Discovered || status == Status::Missing,
                (Some(Phase::Running), _) => status == Status::Running,
                (Some(Phase::Frozen), Some(Tier::Paused)) => status == Status::Paused,
                (Some(Phase::Frozen), _) => {
                    let gone = one.origin != Origin::Discovered && status == Status::Missing;
                    status == Status::Stopped || gone
                }
                // The next request tries again.
                (Some(Phase::Failed), _) => true,
                (Some(Phase::Removing | Phase::Freezing | Phase::Starting), _)
                    if now - one.since <= CALM_CALLS =>
                {
                    true
                }
                (Some(_), _) => !self.is_calm(&id, now),
            };
            let (phase, tier) = (one.phase, one.tier);
            self.demand(fits, || {
                format!("{id}: is {phase:?} {tier:?}, and its engine has it {status:?}")
            });
            self.check_journal(&id);
            let stored = self.record(&id).is_some();
            let listed = self.all[&id].phase.is_some();
            let store_failed = self.all[&id].journal_lost;
            self.demand(stored == listed || store_failed, || {
                format!("{id}: listed {listed}, stored {stored}")
            });
        }
    }

    /// The journal has every phase, in order, and the last one is the phase.
    fn check_journal(&mut self, id: &WorkspaceId) {
        let Some(lines) = self.journal(id) else { return };
        let one = &self.all[id];
        let may_be_under_way = Instant::now() - one.since <= CALM_CALLS;
        if one.journal_lost || may_be_under_way {
            return;
        }
        let told = &one.told[one.told.len().saturating_sub(100)..];
        let differs = lines != told;
        let (lines, told) = (format!("{lines:?}"), format!("{told:?}"));
        self.demand(!differs, || format!("{id}: its journal is {lines}, and it was {told}"));
    }

    pub(super) fn journal(&self, id: &WorkspaceId) -> Option<Vec<(Phase, Option<Tier>)>> {
        let lines = self.memory.lines(id);
        Some(lines.into_iter().map(|line| (line.phase, line.tier)).collect())
    }

    /// The program has ended, in whatever way; `lost`: what was not stored yet is lost.
    pub(super) fn life_ended(&mut self, lost: bool) {
        self.look();
        self.stop_listening();
        self.asks.clear();
        for id in Vec::from_iter(self.all.keys().cloned()) {
            let on_record =
                self.record(&id).map(|record| super::world::moment_of(record.created_at));
            if lost {
                let one = self.one(&id);
                // The one before may have gone too late to be forgotten.
                one.stale = one.created != on_record || one.phase.is_none();
                one.created = on_record;
            }
            if lost && let Some(lines) = self.journal(&id) {
                let one = &self.all[&id];
                let told = &one.told[one.told.len().saturating_sub(100)..];
                let kept = lines.len().min(told.len());
                let fits =
                    (0..=kept).any(|cut| lines[lines.len() - (kept - cut)..] == told[..kept - cut]);
                let _ = fits;
                self.one(&id).told = lines;
            }
            let one = self.one(&id);
            one.forget_life();
            if one.origin == Origin::Created && on_record.is_none() {
                let lost = one.acknowledged && !one.removal_asked;
                self.demand(!lost, || format!("{id}: was created, and is not on record"));
                let one = self.one(&id);
                one.end(Instant::now());
            }
        }
    }
}
