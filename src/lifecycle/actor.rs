//! A workspace's own task: it takes what comes, asks the rules what follows, and does it.
//!
//! The task owns the wake and the freeze. No client's leaving, no admin's disconnect, and no lost
//! event can stop them half-way.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::feed::What;
use super::jobs::{self, Announce, Rest, Running};
use super::machine::{Effect, Event, Footprint, Job, Outcome};
use super::mailbox::{Answer, Command, CommandError, Inbox};
use super::slots::{Room, Uncounted};
use super::workspace::Workspace;
use super::{Change, Ending, Notice, Refusal};
use crate::metrics::{FreezeAbort, WakeOutcome};
use crate::model::{Phase, Tier};
use crate::store::RecordState;

/// Leads the workspace's life. Returns when it is removed, with those who are to hear of that when
/// nothing knows it any more; or when it is let go of, as soon as no job is under way. If it ends in
/// any other way, those who ask for something are told.
pub(super) fn live(
    workspace: Arc<Workspace>,
    announce: Announce,
    uncounted: Uncounted,
) -> impl Future<Output = Farewells> {
    let mut actor = Actor {
        workspace,
        announce,
        job: None,
        rest: None,
        endpoint: None,
        waking: None,
        room: None,
        uncounted: Some(uncounted),
        waiting: Vec::new(),
        farewells: Farewells::default(),
        creation_failure: None,
        suspects: Vec::new(),
        released: false,
    };
    async move {
        // Whoever has it made asked before its life began, and must hear of a failure at once.
        actor.read_mail();
        if !actor.workspace.can_freeze() {
            // It runs without us, so there is no reason to wait for a request.
            actor.handle(Event::Resume);
        }
        while !actor.is_over() {
            actor.step().await;
        }
        std::mem::take(&mut actor.farewells)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.workspace.mailbox.close();
    }
}

/// Answers that wait for the workspace to be forgotten.
#[derive(Default)]
pub(super) struct Farewells(Vec<(oneshot::Sender<Answer>, Answer)>);

impl Farewells {
    /// Whoever hung up no longer wants to know.
    pub(super) fn send(self) {
        self.0.into_iter().for_each(|(answer, result)| drop(answer.send(result)));
    }
}

struct Actor {
    workspace: Arc<Workspace>,
    announce: Announce,
    /// The one job under way.
    job: Option<Running>,
    /// The end of a driver call that the last job did not wait for.
    rest: Option<Rest>,
    /// Where the job that has just ended found it listening.
    endpoint: Option<std::net::SocketAddr>,
    /// From which tier it is being woken, and since when.
    waking: Option<(Tier, Instant)>,
    room: Option<Room>,
    /// Until it is known what room it has.
    uncounted: Option<Uncounted>,
    /// Admins' calls to be answered when what they want has come about.
    waiting: Vec<(Wish, oneshot::Sender<Answer>)>,
    farewells: Farewells,
    /// Why its creation failed, if it did.
    creation_failure: Option<CommandError>,
    /// Requests that could not reach it and wait for a look.
    suspects: Vec<oneshot::Sender<Answer>>,
    /// Nobody wants it any more; what it has is to stay.
    released: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Created,
    /// An admin's stop is on its way.
    StopBegun,
    Frozen,
    Running,
    Removed,
    /// Frozen to make room, or found in use.
    Evicted,
    /// Stopped if it was paused.
    SteppedDown,
}

/// What ended the wait.
enum Woken {
    Job(jobs::Done),
    Rest,
    Mail,
}

impl Actor {
    fn is_over(&self) -> bool {
        let removed = self.workspace.lock_machine().phase() == Phase::Removed;
        removed || self.released && self.job.is_none()
    }

    async fn step(&mut self) {
        let woken = tokio::select! {
            done = wait_for(&mut self.job) => Woken::Job(done),
            () = wait_for(&mut self.rest) => Woken::Rest,
            () = self.workspace.mailbox.rung() => Woken::Mail,
        };
        match woken {
            Woken::Job(done) => {
                self.job = None;
                self.rest = done.rest;
                self.endpoint = done.endpoint;
                if let Some(room) = done.room {
                    self.room = Some(room.and(self.room.take()));
                }
                self.count(&done.outcome);
                self.handle(Event::Finished(done.outcome));
            }
            Woken::Rest => self.rest = None,
            Woken::Mail => self.read_mail(),
        }
        self.answer_suspects();
    }

    /// Before the rules hear of it, which then know no longer what was under way.
    fn count(&mut self, outcome: &Outcome) {
        let metrics = &self.workspace.shared.metrics;
        let waking = self.waking.take();
        let count_wake = |ended| {
            if let Some((from, since)) = waking {
                metrics.wake(from, ended, since.elapsed());
            }
        };
        match outcome {
            Outcome::Woken { .. } => count_wake(WakeOutcome::Ready),
            Outcome::WakeFailed { .. } => count_wake(WakeOutcome::Failed),
            Outcome::Frozen(tier) => {
                metrics.freeze(*tier, self.workspace.lock_machine().freeze_reason());
            }
            Outcome::FreezeFailed { .. } => metrics.freeze_abort(FreezeAbort::Failed),
            _ => {}
        }
    }

    fn read_mail(&mut self) {
        let inbox = self.workspace.mailbox.take();
        let Inbox { commands, changed, resync, deadline, emptied, replaced, released, .. } = inbox;
        self.released |= released;
        if emptied && self.workspace.is_empty() {
            self.handle(Event::Emptied);
        }
        for command in commands {
            self.obey(command);
        }
        if resync {
            self.handle(Event::Resync);
        } else if changed {
            self.handle(Event::Changed);
        }
        if replaced {
            self.handle(Event::Replaced);
        }
        if deadline {
            self.handle(Event::Deadline);
        }
        // Onlookers keep its place in the queue, and wake nobody.
        let looked_at = || {
            let starting = self.workspace.lock_machine().phase() == Phase::Starting;
            starting && self.workspace.onlookers.are_there()
        };
        self.handle(match self.workspace.census().held {
            0 if !looked_at() => Event::Deserted,
            _ => Event::Held,
        });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Created(answer) => self.waiting.push((Wish::Created, answer)),
            Command::Stop(answer) => {
                self.promise(Wish::Frozen, answer);
                self.handle(Event::Stop);
            }
            Command::BeginStop(answer) => {
                self.waiting.push((Wish::StopBegun, answer));
                self.handle(Event::Stop);
                self.answer(Ok(()), |wish| wish == Wish::StopBegun);
            }
            Command::Resume(answer) => {
                self.promise(Wish::Running, answer);
                self.handle(Event::Resume);
            }
            Command::BeginResume(answer) => {
                self.handle(Event::Resume);
                // Whoever hung up no longer wants to know.
                drop(answer.send(Ok(())));
            }
            Command::Remove(answer) => {
                self.waiting.push((Wish::Removed, answer));
                self.handle(Event::Remove);
            }
            Command::CheckIn { active, answer } => {
                let (taken, before) = {
                    let machine = self.workspace.lock_machine();
                    (machine.takes_check_ins(), machine.reported_activity())
                };
                if taken {
                    self.handle(Event::CheckIn(active));
                    if active != before {
                        let at = self.workspace.shared.records.clock.now();
                        self.workspace.tell_of(at, What::CheckIn { active });
                        let state = self.workspace.state(&self.workspace.lock_machine());
                        self.workspace.shared.records.noted(self.workspace.id(), state);
                    }
                }
                let refusal = || CommandError::Impossible("it is being frozen".to_owned());
                // Whoever hung up no longer wants to know.
                drop(answer.send(if taken { Ok(()) } else { Err(refusal()) }));
            }
            Command::Keep { until, answer } => {
                self.handle(Event::Keep(until));
                let state = self.workspace.state(&self.workspace.lock_machine());
                self.workspace.shared.records.noted(self.workspace.id(), state);
                // Whoever hung up no longer wants to know.
                drop(answer.send(Ok(())));
            }
            Command::Evict(answer) => {
                self.waiting.push((Wish::Evicted, answer));
                self.handle(Event::Evict);
            }
            Command::StepDown(answer) => {
                self.waiting.push((Wish::SteppedDown, answer));
                self.handle(Event::StepDown);
            }
            Command::Policy { policy, answer } => {
                self.workspace.replace_policy(policy.clone());
                let notice = Notice::PolicyChanged { serial: self.workspace.serial() };
                drop(self.workspace.shared.notices.send(notice));
                self.handle(Event::Policy(policy));
                drop(answer.send(Ok(())));
            }
            Command::Suspect(answer) => {
                self.suspects.push(answer);
                self.handle(Event::Changed);
            }
        }
    }

    /// Answers when it comes about. What is so already need not come about once more, which may
    /// take for ever: somebody may wait at the gate of one that is frozen.
    fn promise(&mut self, wish: Wish, answer: oneshot::Sender<Answer>) {
        let (phase, is_known) = {
            let machine = self.workspace.lock_machine();
            (machine.phase(), machine.is_known())
        };
        match (wish, phase) {
            (Wish::Frozen, Phase::Frozen) | (Wish::Running, Phase::Running) if is_known => {
                drop(answer.send(Ok(())));
            }
            _ => self.waiting.push((wish, answer)),
        }
    }

    /// One event, and everything that follows from it at once.
    fn handle(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let now = Instant::now();
            let census = self.workspace.census();
            let effects = self.workspace.lock_machine().handle(event, census, now);
            for effect in effects {
                if let Some(answer) = self.carry_out(effect, now) {
                    next = Some(answer);
                }
            }
        }
        let (footprint, phase, is_known) = {
            let machine = self.workspace.lock_machine();
            (machine.footprint(), machine.phase(), machine.is_known())
        };
        // Not before: room may be for the event that came last, and an answer may follow from it.
        self.fit_room(footprint);
        if is_known {
            self.uncounted = None;
        }
        self.settle(phase);
        if self.workspace.lock_machine().has_taken_up_wakes() && self.workspace.onlookers.served() {
            // Whoever wanted it is not at the gate.
            self.workspace.mailbox.ring();
        }
        let census = self.workspace.census();
        let deadline = self.workspace.lock_machine().deadline(census, Instant::now());
        self.workspace.shared.deadlines.set(self.workspace.serial(), deadline);
        if self.workspace.evictable().is_some() {
            self.workspace.shared.slots.look_again();
        }
    }

    /// Does what the rules said. An effect may have an answer, which is an event.
    fn carry_out(&mut self, effect: Effect, now: Instant) -> Option<Event> {
        let workspace = &self.workspace;
        match effect {
            Effect::ShutIfIdle { idle_before } => {
                let shut = workspace.gate.shut_if_idle(workspace.shared.tick(idle_before));
                if shut {
                    self.end_generation(false);
                } else {
                    workspace.shared.metrics.freeze_abort(FreezeAbort::Visited);
                }
                return Some(Event::Shut(shut));
            }
            Effect::Shut => {
                workspace.gate.shut();
                self.end_generation(false);
                // Who left before it shut told nobody.
                return workspace.is_empty().then_some(Event::Emptied);
            }
            Effect::Sever => self.end_generation(true),
            Effect::Open => {
                workspace.onlookers.wake_ends(workspace.shared.tick(now));
                let let_in = workspace.open(self.endpoint);
                tracing::debug!(workspace = %workspace.id(), let_in, "opened the gate");
                if let_in == 0 {
                    workspace.shared.slots.look_again();
                }
            }
            Effect::Refuse { retry_at } => {
                let refusal = match retry_at {
                    Some(at) => Refusal::Failed { retry_at: workspace.shared.tick(at) },
                    None => Refusal::Removed,
                };
                workspace.gate.refuse(refusal);
            }
            Effect::Hold => workspace.gate.hold(),
            Effect::HoldOff { until } => workspace.gate.hold_off(workspace.shared.tick(until)),
            Effect::GiveUp => {
                self.job = None;
                self.waking = None;
            }
            Effect::Run(Job::Queue) => {
                return self.take_room();
            }
            Effect::Run(job) => {
                if job == Job::Wake {
                    let from = workspace.lock_machine().waking_from();
                    workspace.onlookers.wake_begins(workspace.shared.tick(now), from);
                    self.waking = from.map(|from| (from, now));
                }
                let kept = self.kept();
                let (workspace, announce) = (workspace.clone(), self.announce.clone());
                let before = self.rest.take();
                self.job = Some(match before {
                    None => jobs::begin(job, workspace, announce, kept),
                    Some(rest) => Box::pin(async move {
                        rest.await;
                        jobs::begin(job, workspace, announce, kept).await
                    }),
                });
            }
            Effect::Tell { phase, tier, reason, took } => {
                if phase == Phase::Frozen {
                    // Whoever listens there next is somebody else.
                    workspace.vacate();
                    // Its room goes to whoever has waited longest, which may not be itself.
                    self.fit_room(match tier {
                        Some(Tier::Paused) => Footprint::Memory,
                        Some(Tier::Stopped) | None => Footprint::Nothing,
                    });
                }
                let workspace = self.workspace.id().clone();
                self.tell(Change { workspace, phase, tier, reason, took, at: now });
                // Not before: whoever is answered has what came about kept first.
                self.settle(phase);
            }
            Effect::Created => self.answer(Ok(()), |wish| wish == Wish::Created),
            Effect::CreateFailed { reason, refused: true } => {
                self.creation_failure = Some(CommandError::Impossible(reason));
            }
            Effect::CreateFailed { reason, refused: false } => {
                self.creation_failure = Some(CommandError::Failed(reason));
            }
            Effect::StopFailed { reason } => self.fail_stops(&CommandError::Failed(reason)),
            Effect::ResumeFailed { reason } => self.fail_resumes(&CommandError::Failed(reason)),
            Effect::StopRefused { reason } => self.fail_stops(&CommandError::Impossible(reason)),
            Effect::RemoveFailed { reason } => {
                self.answer(Err(CommandError::Failed(reason)), |wish| {
                    matches!(wish, Wish::Removed | Wish::Frozen)
                });
                // It goes on being removed; nobody waits for that as long as it may take.
                self.answer(Err(self.why_not_created()), |wish| wish == Wish::Created);
            }
        }
        None
    }

    /// Room, at once if there is some; else it waits in the queue.
    fn take_room(&mut self) -> Option<Event> {
        let slots = &self.workspace.shared.slots;
        let memory = self.workspace.memory();
        if !slots.could_hold(memory) {
            let reason = format!("it needs {memory} bytes of memory, more than memory_budget has");
            return Some(Event::Finished(Outcome::WakeFailed { reason, run: None }));
        }
        let kept = self.kept();
        if !self.has_slot() {
            match slots.try_take(memory - kept) {
                Some(room) => self.room = Some(room.and(self.room.take())),
                None => {
                    let (workspace, announce) = (self.workspace.clone(), self.announce.clone());
                    self.job = Some(jobs::begin(Job::Queue, workspace, announce, kept));
                    return None;
                }
            }
        }
        Some(Event::Finished(Outcome::Admitted))
    }

    fn has_slot(&self) -> bool {
        self.room.as_ref().is_some_and(Room::has_slot)
    }

    /// The memory that it has already.
    fn kept(&self) -> u64 {
        self.room.as_ref().map_or(0, Room::memory)
    }

    /// Gives back what it doesn't need for that, and takes by force what it has without having
    /// asked: it was found running, or paused.
    fn fit_room(&mut self, footprint: Footprint) {
        let slots = &self.workspace.shared.slots;
        let memory = self.workspace.memory();
        match (footprint, &mut self.room) {
            (Footprint::Nothing, room) => *room = None,
            (Footprint::Memory, Some(room)) => room.keep_memory_only(),
            (Footprint::Memory, room @ None) => *room = Some(slots.keep_by_force(memory)),
            (Footprint::Running, Some(room)) if room.has_slot() => {}
            (Footprint::Running, room) => {
                let kept = room.as_ref().map_or(0, Room::memory);
                *room = Some(slots.take_by_force(memory - kept).and(room.take()));
            }
        }
    }

    /// Connections to the run that ends are of no more use. Nobody may be listening: fine.
    fn end_generation(&self, sever: bool) {
        let generation = self.workspace.gate.census().generation;
        if sever {
            self.workspace.sever(generation);
        }
        let ending = Ending { serial: self.workspace.serial(), generation, sever };
        drop(self.workspace.shared.notices.send(Notice::Ended(ending)));
        (self.announce)(&self.workspace, &[]);
    }

    fn tell(&self, change: Change) {
        let Change { workspace, phase, reason, took, .. } = &change;
        let took_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let words = change.state();
        let state = {
            let machine = self.workspace.lock_machine();
            // A step down in tier leaves the time of the freeze as it was.
            let since = if machine.phase() == *phase { machine.since() } else { change.at };
            let records = &self.workspace.shared.records;
            let state = self.workspace.state(&machine);
            RecordState {
                phase: *phase,
                tier: change.tier,
                since: records.clock.date_of(since),
                ..state
            }
        };
        if state.failure.is_some() {
            tracing::warn!(%workspace, took_ms, "{workspace} {words}: {reason}");
        } else {
            tracing::info!(%workspace, took_ms, "{workspace} {words}: {reason}");
        }
        self.workspace.shared.records.changed(&change, state);
        let at = self.workspace.shared.records.clock.date_of(change.at);
        let (tier, took) = (change.tier, change.took);
        let what = What::Phase { phase: change.phase, tier, reason: change.reason.clone(), took };
        self.workspace.tell_of(at, what);
        drop(self.workspace.shared.changes.send(change));
        self.workspace.onlookers.tell();
    }

    /// Answers the admins whose wish has come about, or can't any more, now that it is or was in
    /// that phase.
    fn settle(&mut self, phase: Phase) {
        let (failure, is_known) = {
            let machine = self.workspace.lock_machine();
            (machine.failure().map(str::to_owned), machine.is_known())
        };
        for (wish, answer) in std::mem::take(&mut self.waiting) {
            let verdict = match (wish, phase) {
                (Wish::Frozen, Phase::Frozen) if !is_known => None,
                (Wish::Frozen, Phase::Frozen | Phase::Removed)
                | (Wish::Running, Phase::Running)
                | (Wish::Removed, Phase::Removed) => Some(Ok(())),
                (Wish::Created, Phase::Removed) => Some(Err(self.why_not_created())),
                (Wish::Running, Phase::Failed) => {
                    Some(Err(CommandError::Failed(failure.clone().unwrap_or_default())))
                }
                (Wish::Running, Phase::Removing | Phase::Removed) => Some(Err(CommandError::Gone)),
                (Wish::SteppedDown, _) if self.workspace.lock_machine().is_stepping_down() => None,
                (Wish::SteppedDown, _) => Some(Ok(())),
                (Wish::Evicted, Phase::Freezing) => None,
                (Wish::Evicted, _) => Some(Ok(())),
                (Wish::StopBegun, _) => None,
                (Wish::Created | Wish::Frozen | Wish::Running | Wish::Removed, _) => None,
            };
            match verdict {
                Some(result) if phase == Phase::Removed => self.farewells.0.push((answer, result)),
                Some(result) => drop(answer.send(result)),
                None if answer.is_closed() => {}
                None => self.waiting.push((wish, answer)),
            }
        }
    }

    fn why_not_created(&self) -> CommandError {
        let removed = || CommandError::Failed("it was removed before it was made".to_owned());
        self.creation_failure.clone().unwrap_or_else(removed)
    }

    fn fail_stops(&mut self, error: &CommandError) {
        self.answer(Err(error.clone()), |wish| {
            matches!(wish, Wish::Frozen | Wish::StopBegun | Wish::Evicted | Wish::SteppedDown)
        });
    }

    fn fail_resumes(&mut self, error: &CommandError) {
        self.answer(Err(error.clone()), |wish| wish == Wish::Running);
    }

    fn answer(&mut self, result: Answer, is_concerned: impl Fn(Wish) -> bool) {
        for (wish, answer) in std::mem::take(&mut self.waiting) {
            if is_concerned(wish) {
                drop(answer.send(result.clone()));
            } else {
                self.waiting.push((wish, answer));
            }
        }
    }

    /// When no job is under way, everything that there was to find out has been.
    fn answer_suspects(&mut self) {
        if self.job.is_none() {
            for answer in self.suspects.drain(..) {
                drop(answer.send(Ok(())));
            }
        }
    }
}

/// Waits for what is there, and for ever where nothing is.
async fn wait_for<F: Future + Unpin>(slot: &mut Option<F>) -> F::Output {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
