//! A driver made of a script, for tests of orders that no real runtime can be made to give.
//!
//! Calls take as long as they are told to (in tokio's time, which a test may pause), fail when they
//! are told to, and things happen behind the lifecycle's back when the test says so. Every call is
//! written down, and two at once for one workspace are a violation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Call, Driver, DriverError, DriverEvent, Found, Health, Sighting, Status};
use crate::model::{Blueprint, WorkspaceId};

/// Calls beyond this are counted but no longer written down.
const LOG_MAX: usize = 1_000_000;

/// The calls of a driver that concern one workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// [`Driver::create`].
    Create,
    /// [`Driver::start`].
    Start,
    /// [`Driver::stop`].
    Stop,
    /// [`Driver::pause`].
    Pause,
    /// [`Driver::unpause`].
    Unpause,
    /// [`Driver::remove`].
    Remove,
    /// [`Driver::inspect`].
    Inspect,
}

impl Action {
    fn verb(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Remove => "remove",
            Self::Inspect => "inspect",
        }
    }
}

/// What a call does instead of succeeding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// [`DriverError::Refused`] with this reason.
    Refuse(String),
    /// [`DriverError::Unreachable`].
    Unreachable,
    /// Never answers.
    Hang,
    /// [`DriverError::TimedOut`] after this time.
    TimeOut {
        /// How long it takes.
        limit: Duration,
        /// Whether it was carried out all the same.
        carried_out: bool,
    },
}

/// Where a call stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It was made.
    Begin,
    /// It was answered.
    End,
    /// Its caller gave up on it.
    Dropped,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Instant,
    /// Whose.
    pub id: WorkspaceId,
    /// Which call.
    pub action: Action,
    /// Its begin or its end.
    pub edge: Edge,
}

/// The scripted driver. Clones share their script.
#[derive(Clone, Default)]
pub struct Fake {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    /// Wakes the watch when `changed` has grown.
    news: Arc<Notify>,
    watch: Mutex<Option<AbortHandle>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let watch = self.watch.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = watch.take() {
            watch.abort();
        }
    }
}

#[derive(Default)]
struct Script {
    workspaces: BTreeMap<WorkspaceId, Workspace>,
    latencies: BTreeMap<Action, Duration>,
    failures: BTreeMap<(WorkspaceId, Action), VecDeque<Failure>>,
    found: Vec<Found>,
    /// Events that the watch has not sent yet; a workspace is in it once at most.
    changed: BTreeSet<WorkspaceId>,
    resync: bool,
    log: Vec<Line>,
    counts: BTreeMap<(WorkspaceId, Action), usize>,
    under_way: BTreeMap<WorkspaceId, Action>,
    violations: Vec<String>,
}

#[derive(Clone)]
struct Workspace {
    exists: bool,
    life: Life,
    /// Differs after every start.
    generation: u64,
    endpoint: Option<SocketAddr>,
    health: Option<Health>,
    exit: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Stopped,
    Running,
    Paused,
}

/// What the test says beforehand.
impl Fake {
    /// Knows no workspace, and answers at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long calls of this kind take from now on.
    pub fn set_latency(&self, action: Action, latency: Duration) {
        self.script().latencies.insert(action, latency);
    }

    /// The next call of this kind fails so; said twice, the next two do.
    pub fn fail_next(&self, id: &WorkspaceId, action: Action, failure: Failure) {
        let mut script = self.script();
        let queue = script.failures.entry((id.clone(), action)).or_default();
        queue.push_back(failure);
    }

    /// Where the workspace listens whenever it runs; `None`: it has no address. Unless told
    /// otherwise it is `127.0.0.1:9`, where nobody answers.
    pub fn set_endpoint(&self, id: &WorkspaceId, endpoint: Option<SocketAddr>) {
        self.workspace(id, |workspace| workspace.endpoint = endpoint);
    }

    /// What its own health check says.
    pub fn set_health(&self, id: &WorkspaceId, health: Option<Health>) {
        self.workspace(id, |workspace| workspace.health = health);
        self.changed(id);
    }

    /// What [`Driver::list`] answers.
    pub fn set_found(&self, found: Vec<Found>) {
        self.script().found = found;
    }
}

/// What happens behind the lifecycle's back. Each sends [`DriverEvent::Changed`].
impl Fake {
    /// Its main process ends.
    pub fn die(&self, id: &WorkspaceId) {
        self.outside(id, |workspace| workspace.stop("exited with code 1"));
    }

    /// Somebody stops it.
    pub fn stop_outside(&self, id: &WorkspaceId) {
        self.outside(id, |workspace| workspace.stop("exited with code 0"));
    }

    /// Somebody starts it, or makes it and starts it.
    pub fn start_outside(&self, id: &WorkspaceId) {
        self.outside(id, Workspace::start);
    }

    /// Somebody pauses it.
    pub fn pause_outside(&self, id: &WorkspaceId) {
        self.outside(id, Workspace::pause);
    }

    /// Somebody unpauses it.
    pub fn unpause_outside(&self, id: &WorkspaceId) {
        self.outside(id, Workspace::unpause);
    }

    /// Somebody removes it.
    pub fn remove_outside(&self, id: &WorkspaceId) {
        self.outside(id, Workspace::remove);
    }

    /// Sends [`DriverEvent::Changed`], whether anything has changed or not.
    pub fn changed(&self, id: &WorkspaceId) {
        self.script().changed.insert(id.clone());
        self.shared.news.notify_one();
    }

    /// Sends [`DriverEvent::Resync`], as after a lost event stream.
    pub fn resync(&self) {
        self.script().resync = true;
        self.shared.news.notify_one();
    }
}

/// What the test asks afterwards.
impl Fake {
    /// Every call so far.
    pub fn log(&self) -> Vec<Line> {
        self.script().log.clone()
    }

    /// How many calls of this kind were made for this workspace.
    pub fn count(&self, id: &WorkspaceId, action: Action) -> usize {
        let key = (id.clone(), action);
        self.script().counts.get(&key).copied().unwrap_or_default()
    }

    /// Promises of the driver's border that were broken: calls that overlapped.
    pub fn violations(&self) -> Vec<String> {
        self.script().violations.clone()
    }

    /// Whether it runs, without a call that would be written down.
    pub fn status(&self, id: &WorkspaceId) -> Status {
        self.script().sighting(id).status
    }

    /// Panics if a promise was broken.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        assert_eq!(self.violations(), Vec::<String>::new());
    }
}

impl Fake {
    fn script(&self) -> MutexGuard<'_, Script> {
        // A test that panicked elsewhere is told there.
        self.shared.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn workspace(&self, id: &WorkspaceId, change: impl FnOnce(&mut Workspace)) {
        change(self.script().workspaces.entry(id.clone()).or_default());
    }

    fn outside(&self, id: &WorkspaceId, change: impl FnOnce(&mut Workspace)) {
        self.workspace(id, change);
        self.changed(id);
    }

    /// A call from begin to end: waits, fails as it was told to, or makes the change.
    async fn call<T>(
        &self,
        id: &WorkspaceId,
        action: Action,
        carry_out: impl FnOnce(&Self) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let attempt = Attempt::begin(self, id, action);
        let (latency, failure) = {
            let mut script = self.script();
            let latency = script.latencies.get(&action).copied().unwrap_or_default();
            let queue = script.failures.get_mut(&(id.clone(), action));
            (latency, queue.and_then(VecDeque::pop_front))
        };
        let wait = match &failure {
            Some(Failure::TimeOut { limit, .. }) => *limit,
            Some(Failure::Refuse(_) | Failure::Unreachable | Failure::Hang) | None => latency,
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let answer = match failure {
            None => carry_out(self),
            Some(Failure::Refuse(reason)) => Err(refused(id, action, &reason)),
            Some(Failure::Unreachable) => Err(DriverError::Unreachable {
                runtime: "the fake runtime".to_owned(),
                reason: "the test said so".to_owned(),
            }),
            Some(Failure::Hang) => std::future::pending().await,
            Some(Failure::TimeOut { limit, carried_out }) => {
                if carried_out {
                    let _ = carry_out(self); // whatever came of it, nobody is told
                }
                Err(DriverError::TimedOut { action: action.verb(), id: id.clone(), limit })
            }
        };
        attempt.answered();
        answer
    }

    /// A call that changes the workspace, of which a real runtime would send an event.
    async fn change(
        &self,
        id: &WorkspaceId,
        action: Action,
        change: impl FnOnce(&mut Workspace) -> Result<(), &'static str>,
    ) -> Result<(), DriverError> {
        let carry_out = |fake: &Self| {
            let mut outcome = Ok(());
            fake.outside(id, |workspace| outcome = change(workspace));
            outcome.map_err(|reason| refused(id, action, reason))
        };
        self.call(id, action, carry_out).await
    }
}

fn refused(id: &WorkspaceId, action: Action, reason: &str) -> DriverError {
    DriverError::Refused { action: action.verb(), id: id.clone(), reason: reason.to_owned() }
}

/// A call that is under way; its end is written down even if its caller drops it.
struct Attempt<'a> {
    fake: &'a Fake,
    id: &'a WorkspaceId,
    action: Action,
    edge: Edge,
}

impl<'a> Attempt<'a> {
    fn begin(fake: &'a Fake, id: &'a WorkspaceId, action: Action) -> Self {
        let mut script = fake.script();
        script.write(id, action, Edge::Begin);
        *script.counts.entry((id.clone(), action)).or_default() += 1;
        if let Some(other) = script.under_way.insert(id.clone(), action) {
            let words = format!("{id}: {} during {}", action.verb(), other.verb());
            script.violations.push(words);
        }
        Self { fake, id, action, edge: Edge::Dropped }
    }

    fn answered(mut self) {
        self.edge = Edge::End;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut script = self.fake.script();
        script.under_way.remove(self.id);
        script.write(self.id, self.action, self.edge);
    }
}

impl Script {
    fn write(&mut self, id: &WorkspaceId, action: Action, edge: Edge) {
        if self.log.len() < LOG_MAX {
            self.log.push(Line { at: Instant::now(), id: id.clone(), action, edge });
        }
    }

    /// The events that are due.
    fn take_news(&mut self) -> Vec<DriverEvent> {
        let resync = std::mem::take(&mut self.resync).then_some(DriverEvent::Resync);
        let changed = std::mem::take(&mut self.changed);
        let changed = changed.into_iter().map(DriverEvent::Changed);
        resync.into_iter().chain(changed).collect()
    }

    fn sighting(&self, id: &WorkspaceId) -> Sighting {
        let Some(workspace) = self.workspaces.get(id).filter(|one| one.exists) else {
            return Sighting::down(Status::Missing, None);
        };
        let status = match workspace.life {
            Life::Stopped => return Sighting::down(Status::Stopped, workspace.exit.clone()),
            Life::Running => Status::Running,
            Life::Paused => Status::Paused,
        };
        Sighting {
            status,
            run: Some(format!("fake-{}", workspace.generation)),
            endpoint: workspace.endpoint,
            addresses: workspace.endpoint.iter().map(SocketAddr::ip).collect(),
            health: workspace.health,
            exit: None,
        }
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            exists: false,
            life: Life::Stopped,
            generation: 0,
            endpoint: Some(SocketAddr::from(([127, 0, 0, 1], 9))),
            health: None,
            exit: None,
        }
    }
}

impl Workspace {
    fn start(&mut self) {
        self.exists = true;
        if self.life == Life::Stopped {
            self.generation += 1;
            self.exit = None;
        }
        self.life = Life::Running;
    }

    fn stop(&mut self, exit: &str) {
        if self.life != Life::Stopped {
            self.life = Life::Stopped;
            self.exit = Some(exit.to_owned());
        }
    }

    fn pause(&mut self) {
        if self.life == Life::Running {
            self.life = Life::Paused;
        }
    }

    fn unpause(&mut self) {
        if self.life == Life::Paused {
            self.life = Life::Running;
        }
    }

    fn remove(&mut self) {
        self.stop("killed by signal 9");
        self.exists = false;
    }

    fn only_if_up(&mut self, change: impl FnOnce(&mut Self)) -> Result<(), &'static str> {
        match self.life {
            Life::Stopped => Err("it does not run"),
            Life::Running | Life::Paused => {
                change(self);
                Ok(())
            }
        }
    }
}

impl Driver for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn create<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        Box::pin(self.change(&blueprint.id, Action::Create, |workspace| {
            workspace.exists = true;
            Ok(())
        }))
    }

    fn start<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        Box::pin(self.change(&blueprint.id, Action::Start, |workspace| {
            if !workspace.exists {
                return Err("there is no such workspace");
            }
            workspace.start();
            Ok(())
        }))
    }

    fn stop<'a>(&'a self, id: &'a WorkspaceId, _grace: Duration) -> Call<'a, ()> {
        Box::pin(self.change(id, Action::Stop, |workspace| {
            workspace.stop("killed by signal 15");
            Ok(())
        }))
    }

    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(self.change(id, Action::Pause, |one| one.only_if_up(Workspace::pause)))
    }

    fn unpause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(self.change(id, Action::Unpause, |one| one.only_if_up(Workspace::unpause)))
    }

    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(self.change(id, Action::Remove, |workspace| {
            workspace.remove();
            Ok(())
        }))
    }

    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Sighting> {
        Box::pin(self.call(id, Action::Inspect, |fake| Ok(fake.script().sighting(id))))
    }

    fn list(&self) -> Call<'_, Vec<Found>> {
        Box::pin(async { Ok(self.script().found.clone()) })
    }

    /// Returns as soon as the watch has begun.
    fn watch(&self, events: mpsc::Sender<DriverEvent>) -> Call<'_, ()> {
        Box::pin(async move {
            self.resync();
            let watch = tokio::spawn(forward(
                Arc::downgrade(&self.shared),
                Arc::clone(&self.shared.news),
                events,
            ));
            let mut owner = self.shared.watch.lock().unwrap_or_else(PoisonError::into_inner);
            *owner = Some(watch.abort_handle());
            Ok(())
        })
    }
}

/// Sends what has changed, until the fake is gone or nobody listens any more.
async fn forward(fake: Weak<Shared>, news: Arc<Notify>, events: mpsc::Sender<DriverEvent>) {
    while let Some(shared) = fake.upgrade() {
        let news_so_far = Fake { shared }.script().take_news();
        for event in news_so_far {
            if events.send(event).await.is_err() {
                return;
            }
        }
        news.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CheckInAccess, Runs, Spec};

    fn blueprint() -> Blueprint {
        Blueprint {
            id: WorkspaceId::parse("a").unwrap(),
            spec: Spec::new(Runs::Discovered { network: None }),
            check_in: CheckInAccess { port: 80, token: "t".to_owned() },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_take_their_time_and_every_start_is_a_new_run() {
        let (fake, plan) = (Fake::new(), blueprint());
        fake.set_latency(Action::Start, Duration::from_secs(3));
        fake.create(&plan).await.unwrap();
        let begun = Instant::now();
        fake.start(&plan).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        let first = fake.inspect(&plan.id).await.unwrap().run;
        fake.start(&plan).await.unwrap();
        assert_eq!(fake.inspect(&plan.id).await.unwrap().run, first);
        fake.stop(&plan.id, Duration::ZERO).await.unwrap();
        fake.start(&plan).await.unwrap();
        assert_ne!(fake.inspect(&plan.id).await.unwrap().run, first);
        assert_eq!(fake.count(&plan.id, Action::Start), 3);
        fake.assert_no_violations();
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_comes_once_and_a_time_out_may_have_been_carried_out() {
        let (fake, plan) = (Fake::new(), blueprint());
        fake.create(&plan).await.unwrap();
        let refuse = Failure::Refuse("no".to_owned());
        fake.fail_next(&plan.id, Action::Start, refuse);
        let limit = Duration::from_secs(9);
        let carried_out = true;
        let time_out = Failure::TimeOut { limit, carried_out };
        fake.fail_next(&plan.id, Action::Start, time_out);
        let refused = fake.start(&plan).await.unwrap_err();
        assert_eq!(refused.to_string(), "could not start workspace a: no");
        assert_eq!(fake.status(&plan.id), Status::Stopped);
        let late = fake.start(&plan).await.unwrap_err();
        assert!(matches!(late, DriverError::TimedOut { .. }));
        assert_eq!(fake.status(&plan.id), Status::Running);
    }

    #[tokio::test(start_paused = true)]
    async fn two_calls_at_once_are_a_violation_and_a_dropped_one_is_over() {
        let (fake, plan) = (Fake::new(), blueprint());
        fake.fail_next(&plan.id, Action::Stop, Failure::Hang);
        let stop = fake.stop(&plan.id, Duration::ZERO);
        let dropped = tokio::time::timeout(Duration::from_secs(1), stop).await;
        assert!(dropped.is_err());
        assert_eq!(fake.log().last().unwrap().edge, Edge::Dropped);
        fake.assert_no_violations();
        fake.set_latency(Action::Create, Duration::from_secs(1));
        let (first, second) = tokio::join!(fake.create(&plan), fake.create(&plan));
        first.and(second).unwrap();
        assert_eq!(fake.violations(), ["a: create during create"]);
    }

    #[tokio::test]
    async fn what_happens_outside_is_told_after_the_first_resync() {
        let (fake, plan) = (Fake::new(), blueprint());
        let (sender, mut events) = mpsc::channel(1);
        fake.watch(sender).await.unwrap();
        assert_eq!(events.recv().await, Some(DriverEvent::Resync));
        fake.start_outside(&plan.id);
        assert_eq!(events.recv().await, Some(DriverEvent::Changed(plan.id.clone())));
        fake.die(&plan.id);
        assert_eq!(events.recv().await, Some(DriverEvent::Changed(plan.id.clone())));
        let seen = fake.inspect(&plan.id).await.unwrap();
        assert_eq!(seen.exit.as_deref(), Some("exited with code 1"));
        fake.resync();
        assert_eq!(events.recv().await, Some(DriverEvent::Resync));
        drop(fake);
        assert_eq!(events.recv().await, None);
    }
}
