//! The system under test: everything but sockets, over an engine and a disk that outlive it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use frostgate::clock::Clock;
use frostgate::driver::fake::{Action, Fake};
use frostgate::driver::{Call, Driver, DriverError, DriverEvent, Found, Sighting};
use frostgate::lifecycle::check_in::CheckInKey;
use frostgate::lifecycle::create::{self, Creator};
use frostgate::lifecycle::reconcile::Reconciler;
use frostgate::lifecycle::registry::Newcomer;
use frostgate::lifecycle::slots::Capacity;
use frostgate::lifecycle::{Limits, Options, Registry};
use frostgate::model::{
    Blueprint, Image, Policy, PolicyOverrides, Project, ProjectId, Runs, Spec, WorkspaceId,
};
use frostgate::store::{self, Memory, Store, StoreError};
use frostgate::token::TokenName;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::judge::Ended;
use super::reference::Reference;

/// A wall clock that is paused with the other one.
static EPOCH: LazyLock<(Instant, SystemTime)> =
    LazyLock::new(|| (Instant::now(), SystemTime::now()));

fn paused_wall() -> SystemTime {
    let (moment, date) = *EPOCH;
    let now = Instant::now();
    if now >= moment { date + (now - moment) } else { date - (moment - now) }
}

pub(super) fn moment_of(date: SystemTime) -> Instant {
    let (moment, epoch) = *EPOCH;
    match date.duration_since(epoch) {
        Ok(later) => moment + later,
        Err(earlier) => moment - earlier.duration(),
    }
}

/// The reference, as everybody who tells it something holds it.
#[derive(Clone)]
pub(super) struct Model(Arc<Mutex<Reference>>);

impl Model {
    pub(super) fn new(reference: Reference) -> Self {
        Self(Arc::new(Mutex::new(reference)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Reference> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fake driver, with the reference looking on.
struct Watched {
    fake: Fake,
    model: Model,
}

/// A call under way.
struct Watch<'a> {
    model: &'a Model,
    id: &'a WorkspaceId,
    action: Action,
    ended: bool,
}

impl Watched {
    async fn watch<T>(
        &self,
        id: &WorkspaceId,
        action: Action,
        call: Call<'_, T>,
        sighting: impl FnOnce(&T) -> Option<Sighting>,
    ) -> Result<T, DriverError> {
        self.model.lock().call_begins(id, action);
        let mut watch = Watch { model: &self.model, id, action, ended: false };
        let answer = call.await;
        watch.ended = true;
        let ended = match &answer {
            Ok(answer) => Ended::Done(sighting(answer)),
            Err(error) => Ended::Failed(error.to_string()),
        };
        self.model.lock().call_ended(id, action, ended);
        answer
    }

    fn act<'a>(&'a self, id: &'a WorkspaceId, action: Action, call: Call<'a, ()>) -> Call<'a, ()> {
        Box::pin(self.watch(id, action, call, |()| None))
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.model.lock().call_ended(self.id, self.action, Ended::Dropped);
        }
    }
}

impl Driver for Watched {
    /// It takes images, as that one does.
    fn name(&self) -> &'static str {
        "docker"
    }

    fn create<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        self.act(&blueprint.id, Action::Create, self.fake.create(blueprint))
    }

    fn start<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        self.act(&blueprint.id, Action::Start, self.fake.start(blueprint))
    }

    fn stop<'a>(&'a self, id: &'a WorkspaceId, grace: Duration) -> Call<'a, ()> {
        self.act(id, Action::Stop, self.fake.stop(id, grace))
    }

    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        self.act(id, Action::Pause, self.fake.pause(id))
    }

    fn unpause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        self.act(id, Action::Unpause, self.fake.unpause(id))
    }

    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        self.act(id, Action::Remove, self.fake.remove(id))
    }

    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Sighting> {
        let call = self.fake.inspect(id);
        Box::pin(self.watch(id, Action::Inspect, call, |seen| Some(seen.clone())))
    }

    fn list(&self) -> Call<'_, Vec<Found>> {
        self.fake.list()
    }

    fn watch(&self, events: mpsc::Sender<DriverEvent>) -> Call<'_, ()> {
        self.fake.watch(events)
    }
}

/// A store that is cut off when its program crashes: what it was doing then is not done any more.
struct Disk {
    memory: Arc<Memory>,
    cut_off: AtomicBool,
}

impl Disk {
    fn call<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&'a Memory) -> store::Call<'a, T> + Send + 'a,
    ) -> store::Call<'a, T> {
        Box::pin(async move {
            let mut work = work(&self.memory);
            std::future::poll_fn(|context| match self.cut_off.load(Ordering::Relaxed) {
                true => Poll::Ready(Err(StoreError::Closed)),
                false => work.as_mut().poll(context),
            })
            .await
        })
    }
}

impl Store for Disk {
    fn load(&self) -> store::Call<'_, Vec<store::Record>> {
        self.call(|memory| memory.load())
    }

    fn put(&self, record: store::Record) -> store::Call<'_, ()> {
        self.call(|memory| memory.put(record))
    }

    fn transition(
        &self,
        id: &WorkspaceId,
        state: store::RecordState,
        entry: Option<store::JournalEntry>,
    ) -> store::Call<'_, ()> {
        let id = id.clone();
        self.call(move |memory| memory.transition(&id, state, entry))
    }

    fn delete(&self, id: &WorkspaceId) -> store::Call<'_, ()> {
        let id = id.clone();
        self.call(move |memory| memory.delete(&id))
    }

    fn journal(&self, id: &WorkspaceId, limit: usize) -> store::Call<'_, Vec<store::JournalEntry>> {
        let id = id.clone();
        self.call(move |memory| memory.journal(&id, limit))
    }

    fn note_moment(&self, moment: store::Moment) -> store::Call<'_, ()> {
        self.call(move |memory| memory.note_moment(moment))
    }

    fn history(&self, since: SystemTime) -> store::Call<'_, Vec<store::Moment>> {
        self.call(move |memory| memory.history(since))
    }

    fn wakes(&self, since: SystemTime) -> store::Call<'_, Vec<store::Wake>> {
        self.call(move |memory| memory.wakes(since))
    }

    fn put_token(&self, token: store::TokenRecord) -> store::Call<'_, ()> {
        self.call(|memory| memory.put_token(token))
    }

    fn tokens(&self) -> store::Call<'_, Vec<store::TokenRecord>> {
        self.call(|memory| memory.tokens())
    }

    fn delete_token(&self, name: &TokenName) -> store::Call<'_, bool> {
        let name = name.clone();
        self.call(move |memory| memory.delete_token(&name))
    }
}

/// What the program is told at every start.
pub(super) struct Setup {
    pub(super) slots: Option<usize>,
    pub(super) held_per_workspace_max: usize,
    pub(super) policy: Policy,
    pub(super) configured: Vec<(WorkspaceId, PolicyOverrides)>,
    pub(super) project: PolicyOverrides,
}

pub(super) const PROJECT: &str = "python";

pub(super) fn spec() -> Spec {
    Spec { port: Some(80), ..Spec::new(Runs::Image(Image::new("python:3"))) }
}

/// One life of the program.
pub(super) struct Life {
    pub(super) registry: Arc<Registry>,
    pub(super) creator: Arc<Creator>,
    disk: Arc<Disk>,
    followers: JoinSet<()>,
}

impl Life {
    pub(super) async fn begin(
        setup: &Setup,
        model: &Model,
        fake: &Fake,
        memory: &Arc<Memory>,
    ) -> Self {
        let disk = Arc::new(Disk { memory: memory.clone(), cut_off: AtomicBool::new(false) });
        let options = Options {
            domain: "localhost".to_owned(),
            limits: Limits {
                held_max: 1_000,
                held_per_workspace_max: setup.held_per_workspace_max,
                capacity: Capacity { slots: setup.slots, memory: None },
                memory_low: None,
                starts_max: 2,
            },
            memory_assumed: 0,
            check_in_key: CheckInKey::new(&[7; 32]),
            public_port: 80,
            clock: Clock::new(paused_wall),
        };
        let registry = Registry::open(options, disk.clone(), Handle::current()).await.unwrap();
        model.lock().begin(&registry);
        let mut followers = JoinSet::new();
        let (mut changes, onlooker) = (registry.changes(), model.clone());
        // Whatever is told is looked at in the moment in which it happens.
        followers.spawn(async move {
            while changes.recv().await.is_ok() {
                onlooker.lock().look();
            }
        });
        let driver: Arc<dyn Driver> =
            Arc::new(Watched { fake: fake.clone(), model: model.clone() });
        let project = Project {
            name: "Python".to_owned(),
            spec: spec().into(),
            policy: setup.project.clone(),
        };
        let policy = Arc::new(setup.policy.clone());
        let creator = Arc::new(Creator::new(
            registry.clone(),
            vec![driver.clone()],
            create::Options {
                projects: [(ProjectId::parse(PROJECT).unwrap(), project)].into(),
                policy: policy.clone(),
                inline_specs: false,
            },
        ));
        for (id, own) in &setup.configured {
            let newcomer = Newcomer {
                id: id.clone(),
                spec: spec().into(),
                policy: own.applied_to(&policy),
                own_policy: PolicyOverrides::default(),
                driver: driver.clone(),
                origin: store::Origin::Config,
                project: None,
            };
            registry.add(newcomer).unwrap();
        }
        creator.restore();
        let policies = watch::channel(policy).1;
        let mut reconciler = Reconciler::new(registry.clone(), driver, policies);
        reconciler.take_stock().await;
        followers.spawn(reconciler.follow());
        Self { registry, creator, disk, followers }
    }

    /// As by SIGTERM: what is known is stored.
    pub(super) async fn stop(mut self) {
        self.followers.shutdown().await;
        self.registry.close().await;
    }

    /// As by a power cut: nothing is stored any more, and nobody is told anything.
    pub(super) async fn crash(mut self) {
        self.disk.cut_off.store(true, Ordering::Relaxed);
        self.followers.abort_all();
        self.registry.close().await;
    }
}
