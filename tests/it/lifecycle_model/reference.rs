//! The reference: what somebody outside may rely on, whatever happens inside. It is told what goes
//! in and what comes out, in order, and says what may not have been.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use frostgate::driver::fake::Fake;
use frostgate::lifecycle::{Answer, Change, CommandError, Refusal, Registry, View};
use frostgate::model::{FrozenStorage, Phase, Policy, Tier, WorkspaceId};
use frostgate::store::{Memory, Record};
use tokio::sync::broadcast::{self, error::TryRecvError};
use tokio::time::Instant;

use super::judge::CALM_CALL_MAX;
use super::one::{One, TICK, Waiting};

/// Lines of the trace that are kept.
const TRACE_MAX: usize = 3_000;
/// How long what went wrong may have consequences: the longest call, then the longest back-off.
pub(super) const UPSET: Duration = Duration::from_secs(200);
/// A wake or a freeze while all is well: a drain, a stop, a start, a health check.
pub(super) const CALM_WAIT: Duration = Duration::from_secs(20);

/// What an admin, or whoever suspects it, asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Create,
    Stop,
    Resume,
    Remove,
    Suspect,
}

/// A call that is under way.
pub(super) struct Ask {
    pub(super) id: WorkspaceId,
    pub(super) wish: Wish,
    pub(super) since: Instant,
    incarnation: u32,
    /// Phases that the workspace has been in since.
    seen: Vec<Phase>,
}

/// See the module's head.
pub(super) struct Reference {
    pub(super) fake: Fake,
    pub(super) memory: Arc<Memory>,
    pub(super) slots: Option<usize>,
    pub(super) held_max: usize,
    pub(super) held_per_workspace_max: usize,
    began: Instant,
    changes: Option<broadcast::Receiver<Change>>,
    registry: Weak<Registry>,
    pub(super) all: BTreeMap<WorkspaceId, One>,
    pub(super) asks: BTreeMap<u64, Ask>,
    next: u64,
    pub(super) upset_until: Instant,
    pub(super) jumped_at: Option<Instant>,
    pub(super) store_fails: bool,
    pub(super) store_is_slow: bool,
    pub(super) violations: Vec<String>,
    trace: VecDeque<String>,
    /// What was seen, to know that the runs see something.
    pub(super) counts: BTreeMap<String, usize>,
}

impl Reference {
    pub(super) fn new(fake: Fake, memory: Arc<Memory>, slots: Option<usize>) -> Self {
        let now = Instant::now();
        Self {
            fake,
            memory,
            slots,
            held_max: 1_000,
            held_per_workspace_max: 1_000,
            began: now,
            changes: None,
            registry: Weak::new(),
            all: BTreeMap::new(),
            asks: BTreeMap::new(),
            next: 0,
            upset_until: now,
            jumped_at: None,
            store_fails: false,
            store_is_slow: false,
            violations: Vec::new(),
            trace: VecDeque::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn note(&mut self, words: String) {
        if self.trace.len() >= TRACE_MAX {
            self.trace.pop_front();
        }
        let at = (Instant::now() - self.began).as_secs_f64();
        if std::env::var("LIVE").is_ok() {
            eprintln!("{at:11.3} {words}");
        }
        self.trace.push_back(format!("{at:11.3} {words}"));
    }

    pub(super) fn trace(&self) -> String {
        Vec::from_iter(self.trace.iter().map(String::as_str)).join("\n")
    }

    pub(super) fn demand(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            let words = otherwise();
            self.note(format!("VIOLATION: {words}"));
            self.violations.push(words);
        }
    }

    pub(super) fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    pub(super) fn one(&mut self, id: &WorkspaceId) -> &mut One {
        self.all.get_mut(id).expect("every workspace of a run is known beforehand")
    }

    /// Takes in every phase that was told of since.
    pub(super) fn look(&mut self) {
        while let Some(changes) = &mut self.changes {
            match changes.try_recv() {
                Ok(change) => self.saw(change),
                Err(TryRecvError::Lagged(missed)) => {
                    self.demand(false, || format!("{missed} changes were missed"));
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Closed) => self.changes = None,
            }
        }
    }

    /// Whether nothing that went wrong can still have consequences for it.
    pub(super) fn is_calm(&self, id: &WorkspaceId, at: Instant) -> bool {
        let one = &self.all[id];
        let slow = one.under_way.is_some_and(|(_, since)| since.elapsed() > CALM_CALL_MAX);
        self.upset_until <= at && one.upset_until <= at && !slow
    }

    pub(super) fn upset(&mut self, id: &WorkspaceId, words: String) {
        self.look();
        self.note(format!("{id}: {words}"));
        let one = self.one(id);
        one.upset_until = one.upset_until.max(Instant::now() + UPSET);
        one.touched = Instant::now();
    }

    pub(super) fn upset_all(&mut self, words: String) {
        self.look();
        self.note(words);
        self.upset_until = self.upset_until.max(Instant::now() + UPSET);
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn stop_listening(&mut self) {
        self.changes = None;
        self.registry = Weak::new();
    }

    /// A life of the program begins.
    pub(super) fn begin(&mut self, registry: &Arc<Registry>) {
        self.changes = Some(registry.changes());
        self.registry = Arc::downgrade(registry);
    }

    pub(super) fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// Requests.
impl Reference {
    pub(super) fn comes(&mut self, id: &WorkspaceId, visitor: u64) {
        self.look();
        self.look_up(id);
        self.note(format!("{id}: request {visitor} comes"));
        let one = self.one(id);
        let now = Instant::now();
        one.wanted_at = Some(now);
        let waiting = Waiting {
            since: now,
            incarnation: one.incarnation,
            generation: one.generation,
            open: one.phase == Some(Phase::Running),
            hold_max: one
                .policies(now)
                .iter()
                .map(|policy| policy.hold_max)
                .min()
                .unwrap_or_default(),
        };
        one.waiting.insert(visitor, waiting);
    }

    pub(super) fn granted(&mut self, id: &WorkspaceId, visitor: u64, generation: u32) {
        self.look();
        self.note(format!("{id}: request {visitor} is inside, generation {generation}"));
        self.count("leases");
        let (now, fake) = (Instant::now(), self.fake.clone());
        let one = self.one(id);
        one.wanted_at = Some(now);
        one.touched = now;
        let Some(waiting) = one.waiting.remove(&visitor) else { return };
        if waiting.incarnation != one.incarnation {
            let just_now = one.since == now;
            let words = format!("{id}: request {visitor} was let into one that is gone");
            return self.demand(just_now, || words);
        }
        one.leases.insert(visitor, generation);
        let earliest = if waiting.open { waiting.generation } else { waiting.generation + 1 };
        let current = one.generation;
        let is_current = generation == current && one.phase == Some(Phase::Running);
        let ready_as = one.run.clone();
        self.demand((earliest..=current).contains(&generation), || {
            format!(
                "{id}: request {visitor} has a lease of {generation}, not {earliest}..={current}"
            )
        });
        let calm = self.is_calm(id, waiting.since);
        let sighting = fake.sighting(id);
        if self.is_calm(id, now) && is_current {
            self.demand(sighting.run.is_some() && sighting.run == ready_as, || {
                format!("{id}: request {visitor} is inside {ready_as:?}, but there is {sighting:?}")
            });
        }
        if calm && self.slots.is_none() {
            self.demand(now - waiting.since <= CALM_WAIT, || {
                format!("{id}: request {visitor} waited for {:?}", now - waiting.since)
            });
        }
    }

    pub(super) fn refused(&mut self, id: &WorkspaceId, visitor: u64, refusal: &Refusal) {
        self.look();
        self.note(format!("{id}: request {visitor} is refused: {refusal:?}"));
        self.count(match refusal {
            Refusal::Failed { .. } => "refused: failed",
            Refusal::Full => "refused: full",
            Refusal::HeldOff { .. } => "refused: held off",
            Refusal::TimedOut => "refused: timed out",
            Refusal::Removed => "refused: removed",
        });
        let now = Instant::now();
        let all_held: usize = self.all.values().map(|one| one.waiting.len()).sum();
        let full = all_held > self.held_max;
        let held_here_max = self.held_per_workspace_max;
        let calm_since = |since| self.is_calm(id, since);
        let one = &self.all[id];
        let Some(waiting) = one.waiting.get(&visitor).copied() else { return };
        let waited = now - waiting.since;
        let gone = one.incarnation != waiting.incarnation;
        let was_calm = calm_since(waiting.since);
        let explained = match refusal {
            Refusal::Removed => {
                let cancelled = one.creating && !one.acknowledged && !one.is_told;
                gone || cancelled
                    || matches!(one.phase, None | Some(Phase::Removing | Phase::Failed))
            }
            Refusal::Failed { .. } => {
                !was_calm
                    && (one.phase == Some(Phase::Failed)
                        || one.failed_at == Some(now)
                        || one.phase.is_none()
                        || gone)
            }
            // Whoever comes here opens a page.
            Refusal::HeldOff { .. } => false,
            Refusal::Full => full || one.waiting.len() > held_here_max,
            Refusal::TimedOut => {
                let patient = was_calm && self.slots.is_none() && !gone;
                waited + TICK >= waiting.hold_max && !(patient && waited > CALM_WAIT)
            }
        };
        let phase = one.phase;
        self.demand(explained, || {
            format!(
                "{id}: request {visitor} was refused after {waited:?} while {phase:?}: {refusal:?}"
            )
        });
        let one = self.one(id);
        one.waiting.remove(&visitor);
        one.wanted_at = Some(now);
        one.touched = now;
    }

    /// It ended, or its client left.
    pub(super) fn leaves(&mut self, id: &WorkspaceId, visitor: u64) {
        self.look();
        let now = Instant::now();
        let one = self.one(id);
        if one.waiting.remove(&visitor).is_some() {
            one.wanted_at = Some(now);
            self.note(format!("{id}: request {visitor} gives up"));
        } else if one.leases.remove(&visitor).is_some() {
            one.last_left = Some(now);
            self.note(format!("{id}: request {visitor} leaves"));
        }
        self.one(id).touched = now;
    }
}

/// Check-ins and policies.
impl Reference {
    /// `view`: how it was when that was answered.
    pub(super) fn reported(
        &mut self,
        id: &WorkspaceId,
        active: bool,
        asked: Instant,
        answer: &Answer,
        view: &View,
    ) {
        self.look();
        self.note(format!("{id}: reports {active}: {answer:?}"));
        let calm = self.is_calm(id, Instant::now());
        let now = Instant::now();
        match answer {
            Ok(()) => {
                // A start since may have cleared it.
                let Some(told) = view.check_in.filter(|told| told.at >= asked) else { return };
                let (at, is_true) = (told.at, told.active == active && told.at <= now);
                self.demand(is_true, || format!("{id}: reported {active}, and that is {told:?}"));
                let one = self.one(id);
                if let Some(before) = one.reported {
                    let ttl = one.policy.check_in_ttl;
                    one.report_ended = Some(ttl.map_or(at, |ttl| at.min(before + ttl)));
                }
                one.reported = active.then_some(at);
                one.touched = now;
            }
            Err(error) => {
                let one = self.one(id);
                let phase = one.phase;
                let just_now = one.since >= asked;
                self.demand(!calm || just_now || phase != Some(Phase::Running), || {
                    format!("{id}: a report was not taken while running: {error}")
                });
            }
        }
    }

    /// When it reported activity that is remembered from before this life of the program.
    pub(super) fn report_on_record(&self, id: &WorkspaceId) -> Option<Instant> {
        let view = self.registry.upgrade()?.get(id.as_str())?.view();
        view.check_in.filter(|told| told.active).map(|told| told.at)
    }

    /// Since when it is stopped, if it is now.
    pub(super) fn stopped_since(&self, id: &WorkspaceId) -> Option<Instant> {
        let view = self.registry.upgrade()?.get(id.as_str())?.view();
        (view.tier == Some(Tier::Stopped)).then_some(view.since)
    }

    pub(super) fn changes_policy(&mut self, id: &WorkspaceId, policy: Policy) {
        self.look();
        self.note(format!("{id}: its policy becomes {policy:?}"));
        self.one(id).doubtful.push((policy, None));
    }

    pub(super) fn changed_policy(&mut self, id: &WorkspaceId, incarnation: u32, answer: &Answer) {
        self.look();
        self.note(format!("{id}: its policy was changed: {answer:?}"));
        let (now, store_fails) = (Instant::now(), self.store_fails);
        let one = self.one(id);
        if one.incarnation != incarnation {
            return;
        }
        one.touched = now;
        let position = one.doubtful.iter().position(|(_, until)| until.is_none());
        let Some(position) = position else { return };
        let (policy, _) = one.doubtful.remove(position);
        let changed = match answer {
            Ok(()) => std::mem::replace(&mut one.policy, policy),
            Err(_) => policy,
        };
        one.doubtful.push((changed, Some(now)));
        let unavailable = *answer == Err(CommandError::Unavailable);
        let unmade = one.creating && !one.acknowledged && *answer == Err(CommandError::Gone);
        let going = unavailable && matches!(one.phase, None | Some(Phase::Removing));
        self.demand(answer.is_ok() || store_fails || going || unmade, || {
            format!("{id}: its policy could not be changed: {answer:?}")
        });
    }
}

/// Admins' calls.
impl Reference {
    pub(super) fn asks(&mut self, id: &WorkspaceId, wish: Wish) -> u64 {
        self.look();
        self.look_up(id);
        let ask = self.next();
        self.note(format!("{id}: call {ask}: {wish:?}"));
        let now = Instant::now();
        let one = self.one(id);
        one.touched = now;
        match wish {
            Wish::Stop => one.stop_asked = Some(now),
            Wish::Resume => one.resume_asked = true,
            Wish::Remove => one.removal_asked = true,
            Wish::Create | Wish::Suspect => {}
        }
        let incarnation = one.incarnation;
        let seen = one.phase.into_iter().collect();
        self.asks.insert(ask, Ask { id: id.clone(), wish, since: now, incarnation, seen });
        ask
    }

    pub(super) fn hangs_up(&mut self, ask: u64) {
        if self.asks.remove(&ask).is_some() {
            self.look();
            self.note(format!("call {ask} is hung up on"));
        }
    }

    pub(super) fn answered(&mut self, ask: u64, answer: &Answer) {
        self.look();
        let Some(asked) = self.asks.remove(&ask) else { return };
        let Ask { id, wish, since, incarnation, seen } = asked;
        self.note(format!("{id}: call {ask}: {wish:?} is answered: {answer:?}"));
        self.count(&format!("{wish:?}: {}", if answer.is_ok() { "done" } else { "not done" }));
        let now = Instant::now();
        let calm = self.is_calm(&id, since);
        let one = &self.all[&id];
        let gone = one.incarnation != incarnation || one.phase.is_none();
        let was = |phase: Phase| seen.contains(&phase);
        let can_freeze = |policy: &Policy| policy.storage != FrozenStorage::None;
        let explained = match (wish, answer) {
            (Wish::Stop, Ok(())) => gone || was(Phase::Frozen) || seen.is_empty(),
            (Wish::Stop, Err(CommandError::Impossible(_))) => {
                one.doubtful.iter().any(|_| true) || gone || !can_freeze(&one.policy)
            }
            (Wish::Resume, Ok(())) => was(Phase::Running),
            (Wish::Remove, Ok(())) => gone,
            (Wish::Stop | Wish::Resume, Err(_)) => {
                !calm
                    || gone
                    || was(Phase::Removing)
                    || self.slots.is_some()
                    || self.overruled(&id, since)
            }
            (Wish::Remove, Err(_)) => !calm || gone,
            (Wish::Suspect, _) => true,
            (Wish::Create, _) => true,
        };
        self.demand(explained, || {
            format!("{id}: {wish:?} was answered {answer:?}; phases meanwhile: {seen:?}")
        });
        let one = self.one(&id);
        match (wish, answer) {
            (Wish::Stop, Err(_)) => one.stop_asked = None,
            (Wish::Resume, Ok(())) if one.stop_asked.is_some_and(|at| at < since) => {
                one.stop_asked = None;
            }
            _ => {}
        }
        one.touched = now;
        if calm && wish == Wish::Remove && answer.is_ok() {
            self.expect_nothing_left(&id, incarnation);
        }
    }

    /// Whether another admin wanted the contrary meanwhile.
    fn overruled(&self, id: &WorkspaceId, since: Instant) -> bool {
        let one = &self.all[id];
        one.stop_asked.is_some_and(|at| at >= since) || one.resume_asked
    }

    fn expect_nothing_left(&mut self, id: &WorkspaceId, incarnation: u32) {
        let one = &self.all[id];
        if one.incarnation != incarnation + 1 || one.creating || one.phase.is_some() {
            return; // another has its id already
        }
        let stored = self.record(id);
        let store_fails = self.store_fails;
        self.demand(stored.is_none() || store_fails, || {
            format!("{id}: was removed; stored {stored:?}")
        });
    }

    pub(super) fn record(&self, id: &WorkspaceId) -> Option<Record> {
        self.memory.record(id)
    }

    pub(super) fn creates(&mut self, id: &WorkspaceId, policy: Policy) -> u64 {
        let ask = self.asks(id, Wish::Create);
        let now = Instant::now();
        let one = self.one(id);
        one.creating = true;
        one.created = Some(now);
        one.policy = policy;
        one.doubtful.clear();
        ask
    }

    pub(super) fn begins_creation(&mut self, ask: u64) {
        let id = self.asks[&ask].id.clone();
        self.one(&id).created = Some(Instant::now());
    }

    pub(super) fn created(&mut self, ask: u64, made: Result<(), &str>) {
        let Some(asked) = self.asks.get(&ask) else { return };
        let (id, incarnation, since) = (asked.id.clone(), asked.incarnation, asked.since);
        let answer = made.map_err(|error| CommandError::Failed(error.to_owned()));
        self.answered(ask, &answer);
        let calm = self.is_calm(&id, since);
        let (now, store_fails) = (Instant::now(), self.store_fails);
        let one = self.one(&id);
        let same = one.incarnation == incarnation;
        match made {
            Ok(()) if same => one.acknowledged = true,
            Ok(()) => {}
            Err(_) if same && one.phase != Some(Phase::Removing) => one.end(now),
            Err(_) => {}
        }
        let removed = one.incarnation != incarnation;
        let stored = self.record(&id);
        if made.is_ok() {
            self.demand(removed || stored.is_some() || store_fails, || {
                format!("{id}: was created, not stored")
            });
        } else {
            self.demand(!calm || removed || store_fails, || {
                format!("{id}: was not created: {made:?}")
            });
            let removing = self.all[&id].phase == Some(Phase::Removing);
            let trouble = removing || store_fails || !calm;
            self.demand(stored.is_none() || trouble, || format!("{id}: not created, yet stored"));
        }
    }
}

impl Reference {
    /// Makes sure that what the registry says of it was looked at once.
    pub(super) fn look_up(&mut self, id: &WorkspaceId) {
        if self.all[id].met {
            return;
        }
        if let Some(workspace) = self.registry.upgrade().and_then(|all| all.get(id.as_str())) {
            self.meet(&workspace, &workspace.view());
        }
    }

    pub(super) fn saw_phase(&mut self, id: &WorkspaceId, phase: Phase) {
        for ask in self.asks.values_mut().filter(|ask| ask.id == *id) {
            ask.seen.push(phase);
        }
    }
}
