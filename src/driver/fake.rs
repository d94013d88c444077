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

/// How long a creation that never ends is waited for: the driver keeps the time of those itself.
const CREATE_MAX: Duration = Duration::from_secs(60);
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
    /// Never answers, unless it is a creation, which the driver gives up after a minute.
    Hang,
    /// [`DriverError::Interrupted`] when it would have succeeded.
    Interrupt {
        /// Whether it was carried out all the same.
        carried_out: bool,
    },
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
    /// What every call does while the runtime is away.
    away: Option<Failure>,
    /// After how long a call is carried out that its caller gave up.
    carry_on_after: Option<Duration>,
    found: Vec<Found>,
    /// Events that the watch has not sent yet; a workspace is in it once at most.
    changed: BTreeSet<WorkspaceId>,
    resync: bool,
    /// Whether events are lost.
    deaf: bool,
    event_delay: Duration,
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
    /// How long after a start its health check finds it healthy.
    healthy_after: Option<Duration>,
    started_at: Option<Instant>,
    exit: Option<String>,
}

/// What a call does to the workspace that it is for.
type Change = fn(&mut Workspace) -> Result<(), &'static str>;

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

    /// Failures that have not come to pass yet never will.
    pub fn fail_no_more(&self) {
        self.script().failures.clear();
    }

    /// A call that its caller gives up is carried out this long after that; `None`: never.
    pub fn carry_on_after(&self, delay: Option<Duration>) {
        self.script().carry_on_after = delay;
    }

    /// How long events take. What happens meanwhile is merged into them.
    pub fn set_event_delay(&self, delay: Duration) {
        self.script().event_delay = delay;
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

    /// Its health check has no verdict for this long after every start, and is fine from then on.
    pub fn set_healthy_after(&self, id: &WorkspaceId, delay: Duration) {
        self.workspace(id, |workspace| workspace.healthy_after = Some(delay));
        self.changed(id);
    }

    /// What [`Driver::list`] answers, as far as it exists.
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
        let mut script = self.script();
        if !script.deaf {
            script.changed.insert(id.clone());
            self.shared.news.notify_one();
        }
    }

    /// Sends [`DriverEvent::Resync`], as after a lost event stream.
    pub fn resync(&self) {
        self.script().resync = true;
        self.shared.news.notify_one();
    }

    /// The stream of events breaks, and what was on its way is lost too.
    pub fn lose_events(&self) {
        let mut script = self.script();
        script.deaf = true;
        script.changed.clear();
    }

    /// Its runtime goes away: calls that begin from now on do this, and events are lost.
    pub fn go_away(&self, failure: Failure) {
        self.lose_events();
        self.script().away = Some(failure);
    }

    /// Its runtime answers again, and so does the stream of events.
    pub fn come_back(&self) {
        let mut script = self.script();
        script.away = None;
        script.deaf = false;
        drop(script);
        self.resync();
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

    /// How it is, without a call that would be written down.
    pub fn sighting(&self, id: &WorkspaceId) -> Sighting {
        self.script().sighting(id)
    }

    /// Whether it runs, without a call that would be written down.
    pub fn status(&self, id: &WorkspaceId) -> Status {
        self.sighting(id).status
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
        let mut healthy_after = None;
        self.workspace(id, |workspace| {
            let generation = workspace.generation;
            change(workspace);
            healthy_after = workspace.healthy_after.filter(|_| workspace.generation != generation);
        });
        self.changed(id);
        if let Some(delay) = healthy_after {
            self.later(delay, id, Self::changed);
        }
    }

    /// Something that the runtime does by itself.
    fn later(
        &self,
        delay: Duration,
        id: &WorkspaceId,
        act: impl FnOnce(&Self, &WorkspaceId) + Send + 'static,
    ) {
        let (shared, id) = (Arc::downgrade(&self.shared), id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(shared) = shared.upgrade() {
                act(&Self { shared }, &id);
            }
        });
    }

    /// A call from begin to end: waits, fails as it was told to, or makes the change.
    async fn call(
        &self,
        id: &WorkspaceId,
        action: Action,
        change: Option<Change>,
    ) -> Result<(), DriverError> {
        let attempt = Attempt::begin(self, id, action, change);
        let (latency, failure) = {
            let mut script = self.script();
            let latency = script.latencies.get(&action).copied().unwrap_or_default();
            let away = script.away.clone();
            let queue = script.failures.get_mut(&(id.clone(), action));
            (latency, away.or_else(|| queue?.pop_front()))
        };
        let failure = match failure {
            Some(Failure::Hang) if action == Action::Create => {
                Some(Failure::TimeOut { limit: CREATE_MAX, carried_out: false })
            }
            failure => failure,
        };
        let wait = match &failure {
            Some(Failure::TimeOut { limit, .. }) => *limit,
            Some(
                Failure::Refuse(_)
                | Failure::Unreachable
                | Failure::Hang
                | Failure::Interrupt { .. },
            )
            | None => latency,
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let answer = match failure {
            None => self.carry_out(id, action, change),
            Some(Failure::Hang) => std::future::pending().await,
            Some(failure) => {
                if failure.is_carried_out() {
                    let _ = self.carry_out(id, action, change); // nobody is told
                }
                Err(failure.into_error(id, action))
            }
        };
        attempt.answered();
        answer
    }

    /// A real runtime would send an event of it.
    fn carry_out(
        &self,
        id: &WorkspaceId,
        action: Action,
        change: Option<Change>,
    ) -> Result<(), DriverError> {
        let Some(change) = change else { return Ok(()) };
        let mut outcome = Ok(());
        self.outside(id, |workspace| outcome = change(workspace));
        outcome.map_err(|reason| refused(id, action, reason))
    }
}

impl Failure {
    fn is_carried_out(&self) -> bool {
        match self {
            Self::TimeOut { carried_out, .. } | Self::Interrupt { carried_out } => *carried_out,
            Self::Refuse(_) | Self::Unreachable | Self::Hang => false,
        }
    }

    fn into_error(self, id: &WorkspaceId, action: Action) -> DriverError {
        let (id, action, reason) = (id.clone(), action.verb(), "the test said so".to_owned());
        match self {
            Self::Refuse(reason) => DriverError::Refused { action, id, reason },
            Self::Unreachable | Self::Hang => {
                DriverError::Unreachable { runtime: "the fake runtime".to_owned(), reason }
            }
            Self::Interrupt { .. } => DriverError::Interrupted { action, id, reason },
            Self::TimeOut { limit, .. } => DriverError::TimedOut { action, id, limit },
        }
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
    change: Option<Change>,
    edge: Edge,
}

impl<'a> Attempt<'a> {
    fn begin(fake: &'a Fake, id: &'a WorkspaceId, action: Action, change: Option<Change>) -> Self {
        let mut script = fake.script();
        script.write(id, action, Edge::Begin);
        *script.counts.entry((id.clone(), action)).or_default() += 1;
        if let Some(other) = script.under_way.insert(id.clone(), action) {
            let words = format!("{id}: {} during {}", action.verb(), other.verb());
            script.violations.push(words);
        }
        Self { fake, id, action, change, edge: Edge::Dropped }
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
        let carried_on = script.carry_on_after.filter(|_| self.edge == Edge::Dropped);
        drop(script);
        if let (Some(delay), Some(change)) = (carried_on, self.change) {
            let action = self.action;
            self.fake.later(delay, self.id, move |fake, id| {
                let _ = fake.carry_out(id, action, Some(change)); // nobody is told
            });
        }
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

    fn found(&self) -> Vec<Found> {
        let exists = |id| self.workspaces.get(id).is_some_and(|one| one.exists);
        self.found.iter().filter(|one| exists(&one.id)).cloned().collect()
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
            health: workspace.health(),
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
            healthy_after: None,
            started_at: None,
            exit: None,
        }
    }
}

impl Workspace {
    fn start(&mut self) {
        self.exists = true;
        if self.life == Life::Stopped {
            self.generation += 1;
            self.started_at = Some(Instant::now());
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

    fn health(&self) -> Option<Health> {
        let (Some(delay), Some(started_at)) = (self.healthy_after, self.started_at) else {
            return self.health;
        };
        let healthy = started_at.elapsed() >= delay;
        Some(if healthy { Health::Healthy } else { Health::Starting })
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
        let create: Change = |workspace| {
            workspace.exists = true;
            Ok(())
        };
        Box::pin(self.call(&blueprint.id, Action::Create, Some(create)))
    }

    fn start<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        let start: Change = |workspace| {
            if !workspace.exists {
                return Err("there is no such workspace");
            }
            workspace.start();
            Ok(())
        };
        Box::pin(self.call(&blueprint.id, Action::Start, Some(start)))
    }

    fn stop<'a>(&'a self, id: &'a WorkspaceId, _grace: Duration) -> Call<'a, ()> {
        let stop: Change = |workspace| {
            workspace.stop("killed by signal 15");
            Ok(())
        };
        Box::pin(self.call(id, Action::Stop, Some(stop)))
    }

    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        let pause: Change = |workspace| workspace.only_if_up(Workspace::pause);
        Box::pin(self.call(id, Action::Pause, Some(pause)))
    }

    fn unpause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        let unpause: Change = |workspace| workspace.only_if_up(Workspace::unpause);
        Box::pin(self.call(id, Action::Unpause, Some(unpause)))
    }

    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        let remove: Change = |workspace| {
            workspace.remove();
            Ok(())
        };
        Box::pin(self.call(id, Action::Remove, Some(remove)))
    }

    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Sighting> {
        Box::pin(async move {
            self.call(id, Action::Inspect, None).await?;
            Ok(self.sighting(id))
        })
    }

    fn list(&self) -> Call<'_, Vec<Found>> {
        Box::pin(async {
            let away = self.script().away.clone();
            match away {
                Some(Failure::Hang) => std::future::pending().await,
                Some(_) => Err(DriverError::Unreachable {
                    runtime: "the fake runtime".to_owned(),
                    reason: "the test said so".to_owned(),
                }),
                None => Ok(self.script().found()),
            }
        })
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
            // The one that watched in an earlier life must not take the news.
            if let Some(before) = owner.replace(watch.abort_handle()) {
                before.abort();
            }
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
        let Some(shared) = fake.upgrade() else { return };
        let delay = Fake { shared }.script().event_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CheckInAccess, Runs, Spec};

    fn blueprint() -> Blueprint {
        Blueprint {
            id: WorkspaceId::parse("a").unwrap(),
            spec: Spec::new(Runs::Discovered { network: None }).into(),
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

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_may_be_carried_out_all_the_same() {
        let (fake, plan) = (Fake::new(), blueprint());
        fake.set_latency(Action::Create, Duration::from_secs(2));
        for (delay, expected) in
            [(None, Status::Missing), (Some(Duration::from_secs(3)), Status::Stopped)]
        {
            fake.carry_on_after(delay);
            let limit = Duration::from_secs(1);
            assert!(tokio::time::timeout(limit, fake.create(&plan)).await.is_err());
            assert_eq!(fake.status(&plan.id), Status::Missing);
            tokio::time::sleep(Duration::from_secs(4)).await;
            assert_eq!(fake.status(&plan.id), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_health_check_takes_its_time_after_every_start() {
        let (fake, plan) = (Fake::new(), blueprint());
        fake.set_healthy_after(&plan.id, Duration::from_secs(5));
        fake.start_outside(&plan.id);
        let health = || fake.sighting(&plan.id).health;
        assert_eq!(health(), Some(Health::Starting));
        let (sender, mut events) = mpsc::channel(9);
        fake.watch(sender).await.unwrap();
        let begun = Instant::now();
        while health() != Some(Health::Healthy) {
            assert!(events.recv().await.is_some());
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(5), "an event told of it");
    }

    #[tokio::test]
    async fn while_its_runtime_is_away_calls_fail_and_events_are_lost() {
        let (fake, plan) = (Fake::new(), blueprint());
        let (sender, mut events) = mpsc::channel(9);
        fake.watch(sender).await.unwrap();
        assert_eq!(events.recv().await, Some(DriverEvent::Resync));
        fake.go_away(Failure::Unreachable);
        fake.start_outside(&plan.id);
        let failed = fake.inspect(&plan.id).await;
        assert!(matches!(failed, Err(DriverError::Unreachable { .. })), "{failed:?}");
        assert!(fake.list().await.is_err());
        assert!(events.try_recv().is_err());
        fake.come_back();
        assert_eq!(events.recv().await, Some(DriverEvent::Resync));
        assert_eq!(fake.inspect(&plan.id).await.unwrap().status, Status::Running);
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
