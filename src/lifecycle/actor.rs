//! A workspace's own task: it takes what comes, asks the rules what follows, and does it.
//!
//! The task owns the wake and the freeze. No client's leaving, no admin's disconnect, and no lost
//! event can stop them half-way.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::jobs::{self, Announce, Rest, Running};
use super::machine::{Effect, Event};
use super::workspace::{Answer, Command, CommandError, Inbox, Workspace};
use super::{Change, Ending, Refusal};
use crate::model::Phase;

/// Leads the workspace's life. Returns when it is removed.
pub(super) async fn live(workspace: Arc<Workspace>, announce: Announce) {
    let mut actor = Actor {
        workspace,
        announce,
        job: None,
        rest: None,
        endpoint: None,
        waiting: Vec::new(),
        suspects: Vec::new(),
    };
    actor.handle(Event::Changed);
    while actor.workspace.lock_machine().phase() != Phase::Removed {
        actor.step().await;
    }
    actor.workspace.mailbox.close();
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
    /// Admins' calls to be answered when what they want has come about.
    waiting: Vec<(Wish, oneshot::Sender<Answer>)>,
    /// Requests that could not reach it and wait for a look.
    suspects: Vec<oneshot::Sender<Answer>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Frozen,
    Running,
    Removed,
}

/// What ended the wait.
enum Woken {
    Job(jobs::Done),
    Rest,
    Mail,
}

impl Actor {
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
                self.handle(Event::Finished(done.outcome));
            }
            Woken::Rest => self.rest = None,
            Woken::Mail => self.read_mail(),
        }
        self.answer_suspects();
    }

    fn read_mail(&mut self) {
        let inbox = self.workspace.mailbox.take();
        let Inbox { commands, changed, deadline, emptied, replaced, .. } = inbox;
        if emptied && self.workspace.gate.census().inside == 0 {
            self.handle(Event::Emptied);
        }
        for command in commands {
            self.obey(command);
        }
        if changed {
            self.handle(Event::Changed);
        }
        if replaced {
            self.handle(Event::Replaced);
        }
        if deadline {
            self.handle(Event::Deadline);
        }
        if self.workspace.gate.held() > 0 {
            self.handle(Event::Held);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Stop(answer) => {
                self.waiting.push((Wish::Frozen, answer));
                self.handle(Event::Stop);
            }
            Command::Resume(answer) => {
                self.waiting.push((Wish::Running, answer));
                self.handle(Event::Resume);
            }
            Command::Remove(answer) => {
                self.waiting.push((Wish::Removed, answer));
                self.handle(Event::Remove);
            }
            Command::CheckIn { active, answer } => {
                let taken = self.workspace.lock_machine().takes_check_ins();
                if taken {
                    self.handle(Event::CheckIn(active));
                }
                let refusal = || CommandError::Impossible("it is being frozen".to_owned());
                // Whoever hung up no longer wants to know.
                drop(answer.send(if taken { Ok(()) } else { Err(refusal()) }));
            }
            Command::Suspect(answer) => {
                self.suspects.push(answer);
                self.handle(Event::Changed);
            }
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
            self.settle();
        }
        let census = self.workspace.census();
        let deadline = self.workspace.lock_machine().deadline(census, Instant::now());
        self.workspace.shared.deadlines.set(self.workspace.serial(), deadline);
    }

    /// Does what the rules said. An effect may have an answer, which is an event.
    fn carry_out(&mut self, effect: Effect, now: Instant) -> Option<Event> {
        let workspace = &self.workspace;
        match effect {
            Effect::ShutIfIdle { idle_before } => {
                let shut = workspace.gate.shut_if_idle(workspace.shared.tick(idle_before));
                if shut {
                    self.end_generation(false);
                }
                return Some(Event::Shut(shut));
            }
            Effect::Shut => {
                workspace.gate.shut();
                self.end_generation(false);
            }
            Effect::Sever => self.end_generation(true),
            Effect::Open => {
                let let_in = workspace.open(self.endpoint);
                tracing::debug!(workspace = %workspace.id(), let_in, "opened the gate");
            }
            Effect::Refuse { retry_at } => {
                let refusal = match retry_at {
                    Some(at) => Refusal::Failed { retry_at: workspace.shared.tick(at) },
                    None => Refusal::Removed,
                };
                workspace.gate.refuse(refusal);
            }
            Effect::Hold => workspace.gate.hold(),
            Effect::Run(job) => {
                let (workspace, announce) = (workspace.clone(), self.announce.clone());
                let before = self.rest.take();
                self.job = Some(match before {
                    None => jobs::begin(job, workspace, announce),
                    Some(rest) => Box::pin(async move {
                        rest.await;
                        jobs::begin(job, workspace, announce).await
                    }),
                });
            }
            Effect::Tell { reason, took } => self.tell(reason, took, now),
            Effect::StopFailed { reason } => self.fail_stops(&reason),
        }
        None
    }

    /// Connections to the run that ends are of no more use. Nobody may be listening: fine.
    fn end_generation(&self, sever: bool) {
        let generation = self.workspace.gate.census().generation;
        if sever {
            self.workspace.sever(generation);
        }
        let ending = Ending { serial: self.workspace.serial(), generation, sever };
        drop(self.workspace.shared.endings.send(ending));
        (self.announce)(&self.workspace, &[]);
    }

    fn tell(&self, reason: String, took: Option<std::time::Duration>, at: Instant) {
        let (phase, tier) = {
            let machine = self.workspace.lock_machine();
            (machine.phase(), machine.tier())
        };
        let workspace = self.workspace.id().clone();
        let took_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        if phase == Phase::Failed {
            tracing::warn!(%workspace, took_ms, "{workspace} {phase}: {reason}");
        } else {
            tracing::info!(%workspace, took_ms, "{workspace} {phase}: {reason}");
        }
        let change = Change { workspace, phase, tier, reason, took, at };
        drop(self.workspace.shared.changes.send(change));
    }

    /// Answers the admins whose wish has come about, or can't any more.
    fn settle(&mut self) {
        let (phase, failure) = {
            let machine = self.workspace.lock_machine();
            (machine.phase(), machine.failure().map(str::to_owned))
        };
        for (wish, answer) in std::mem::take(&mut self.waiting) {
            let verdict = match (wish, phase) {
                (Wish::Frozen, Phase::Frozen | Phase::Removed)
                | (Wish::Running, Phase::Running)
                | (Wish::Removed, Phase::Removed) => Some(Ok(())),
                (Wish::Running, Phase::Failed) => {
                    Some(Err(CommandError::Failed(failure.clone().unwrap_or_default())))
                }
                (Wish::Running, Phase::Removed) => Some(Err(CommandError::Unavailable)),
                (Wish::Frozen | Wish::Running | Wish::Removed, _) => None,
            };
            match verdict {
                Some(result) => drop(answer.send(result)),
                None if answer.is_closed() => {}
                None => self.waiting.push((wish, answer)),
            }
        }
    }

    fn fail_stops(&mut self, reason: &str) {
        let waiting = std::mem::take(&mut self.waiting);
        for (wish, answer) in waiting {
            match wish {
                Wish::Frozen | Wish::Removed => {
                    drop(answer.send(Err(CommandError::Failed(reason.to_owned()))));
                }
                Wish::Running => self.waiting.push((wish, answer)),
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
