//! All workspaces: by id, by host name, by the address they check in from.
//!
//! The maps are sharded (dashmap), and no guard of theirs ever leaves a function here: what comes
//! out is a handle.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::actor;
use super::check_in::{CheckInKey, canonical};
use super::deadlines::Deadlines;
use super::feed::Feed;
use super::history;
use super::jobs::Announce;
use super::pressure;
use super::reconcile::Audit;
use super::records::{Records, Remembered};
use super::slots::{self, Capacity, Slots};
use super::usage::{self, Usages};
use super::workspace::{Shared, Workspace};
use super::{Change, CommandError, Notice, Refusal};
use crate::clock::Clock;
use crate::driver::Driver;
use crate::metrics::Metrics;
use crate::model::{CheckInAccess, Phase, Policy, PolicyOverrides, ProjectId, Spec, WorkspaceId};
use crate::store::{Origin, Record, Store, StoreError};

/// Changes that a slow listener may fall behind by; after that it misses some and is told so.
const CHANGES_BEHIND_MAX: usize = 4_096;
/// The same for notices; who misses some looks at all that it has.
const NOTICES_BEHIND_MAX: usize = 4_096;

/// Removed workspaces that are remembered. Beyond that, what is left of one is taken for one that
/// lives.
const REMOVED_MAX: usize = 10_000;
/// How long an audit may take.
const AUDIT_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether all has settled; only before the end of the program.
const SETTLE_LOOK: Duration = Duration::from_millis(25);
/// Workspaces that are looked at together.
const LOOKS_AT_ONCE: usize = 16;

/// What the registry needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Workspaces are reached as `{id}.{domain}`; lower case.
    pub domain: String,
    /// How much of everything there may be.
    pub limits: Limits,
    /// Bytes of memory that a workspace counts for that does not say how much it may take.
    pub memory_assumed: u64,
    /// Makes the tokens that workspaces check in with.
    pub check_in_key: CheckInKey,
    /// The public listener's port, for the URL that workspaces check in at.
    pub public_port: u16,
    /// By which dates are kept.
    pub clock: Clock,
}

/// How much of everything there may be; can be changed while everything goes on.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most requests that may be held at all gates together.
    pub held_max: usize,
    /// Most requests that may be held at one gate.
    pub held_per_workspace_max: usize,
    /// How much may run at a time.
    pub capacity: Capacity,
    /// While this machine has fewer bytes of memory, what is paused is stopped; `None`: never.
    pub memory_low: Option<u64>,
    /// Most starts that may be under way at once.
    pub starts_max: usize,
}

/// See the module's head.
pub struct Registry {
    by_id: DashMap<WorkspaceId, Arc<Workspace>, RandomState>,
    by_host: DashMap<Box<str>, Arc<Workspace>, RandomState>,
    by_address: DashMap<IpAddr, Arc<Workspace>, RandomState>,
    by_serial: DashMap<u64, Arc<Workspace>, RandomState>,
    next_serial: AtomicU64,
    /// Those of calls that were removed in this life, by [`REMOVED_MAX`].
    removed: Mutex<HashSet<WorkspaceId>>,
    /// Held while one is added, so that what was found free stays free until it is taken.
    adding: Mutex<()>,
    check_in_key: CheckInKey,
    public_port: u16,
    domain: RwLock<Arc<str>>,
    starts_max: Mutex<usize>,
    memory_low: watch::Sender<Option<u64>>,
    shared: Arc<Shared>,
    /// Where the workspaces' tasks run.
    runtime: Handle,
    /// Whom to tell that everything is to be looked at.
    audits: Mutex<Vec<mpsc::Sender<Audit>>>,
    /// The workspaces' tasks, and the one that watches the deadlines.
    tasks: Mutex<JoinSet<()>>,
    /// The task that writes changes down; the last one to end.
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// A workspace to be registered.
pub struct Newcomer {
    /// Its id.
    pub id: WorkspaceId,
    /// What it is made of.
    pub spec: Arc<Spec>,
    /// The policy that it has where it sets nothing for itself.
    pub policy: Arc<Policy>,
    /// What it sets for itself from the beginning, if it is to be made.
    pub own_policy: PolicyOverrides,
    /// What runs it.
    pub driver: Arc<dyn Driver>,
    /// Who asked for it.
    pub origin: Origin,
    /// The project that it is created from.
    pub project: Option<ProjectId>,
}

/// Why a workspace was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is one of that id.
    #[error("there is a workspace {0} already")]
    IdTaken(WorkspaceId),
    /// A host of its own belongs to another.
    #[error("host {host:?} belongs to workspace {owner} already")]
    HostTaken {
        /// The host.
        host: String,
        /// Whose it is.
        owner: WorkspaceId,
    },
}

/// Why a workspace was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MakeError {
    /// Its name or a host of it belongs to another.
    #[error(transparent)]
    Taken(#[from] RegistryError),
    /// It could not be stored, so that a restart would lose it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be made, ever or just now. Nothing of it is left.
    #[error(transparent)]
    Failed(#[from] CommandError),
}

impl Registry {
    /// A registry that knows what `store` remembers, and whose tasks run on `runtime`.
    pub async fn open(
        options: Options,
        store: Arc<dyn Store>,
        runtime: Handle,
    ) -> Result<Arc<Self>, StoreError> {
        let found = store.load().await?;
        let (records, write) = Records::new(store, options.clock, found);
        let limits = options.limits;
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            deadlines: Deadlines::default(),
            starts: Semaphore::new(limits.starts_max),
            slots: Slots::new(limits.capacity),
            memory_assumed: options.memory_assumed,
            held: AtomicUsize::new(0),
            onlookers: AtomicU32::new(0),
            held_max: limits.held_max.into(),
            held_per_workspace_max: limits.held_per_workspace_max.into(),
            records,
            usages: Usages::default(),
            metrics: Arc::default(),
            policy_changes: tokio::sync::Mutex::new(()),
            changes: broadcast::channel(CHANGES_BEHIND_MAX).0,
            feed: Arc::default(),
            notices: broadcast::channel(NOTICES_BEHIND_MAX).0,
        });
        let registry = Arc::new(Self {
            by_id: DashMap::default(),
            by_host: DashMap::default(),
            by_address: DashMap::default(),
            by_serial: DashMap::default(),
            next_serial: AtomicU64::new(1),
            removed: Mutex::default(),
            adding: Mutex::new(()),
            check_in_key: options.check_in_key,
            public_port: options.public_port,
            domain: RwLock::new(options.domain.into()),
            starts_max: Mutex::new(limits.starts_max),
            memory_low: watch::Sender::new(limits.memory_low),
            shared,
            runtime,
            audits: Mutex::default(),
            tasks: Mutex::default(),
            writer: Mutex::default(),
        });
        let watched = Arc::downgrade(&registry);
        let shared = registry.shared.clone();
        registry.spawn(async move {
            shared.deadlines.run(|serial| tell_deadline(&watched, serial)).await;
        });
        *registry.writer.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(registry.runtime.spawn(write));
        let memory_low = registry.memory_low.subscribe();
        registry.spawn(pressure::relieve(memory_low, Arc::downgrade(&registry)));
        registry.spawn(usage::sample(registry.shared.clone(), Arc::downgrade(&registry)));
        registry.spawn(history::keep(Arc::downgrade(&registry)));
        registry.spawn(slots::evict(registry.shared.slots.clone(), Arc::downgrade(&registry)));
        Ok(registry)
    }

    /// How many slots there are and how many are free; `None`: there is no limit.
    pub fn slots(&self) -> Option<(usize, usize)> {
        self.shared.slots.count()
    }

    /// How many bytes of the memory budget there are and how many are free; `None`: there is none.
    pub fn memory(&self) -> Option<(u64, u64)> {
        self.shared.slots.memory()
    }

    /// The one that has been paused longest, of those that could be stopped now.
    pub(super) fn paused_longest(&self) -> Option<Arc<Workspace>> {
        let all = self.by_id.iter();
        let paused = all.filter_map(|one| Some((one.paused_since()?, one.value().clone())));
        paused.min_by_key(|(since, _)| *since).map(|(_, workspace)| workspace)
    }

    /// Registers a workspace that is there and begins its life with what is remembered of it. It
    /// counts as stopped until its first look, which begins at once.
    pub fn add(self: &Arc<Self>, newcomer: Newcomer) -> Result<Arc<Workspace>, RegistryError> {
        let workspace = self.enlist(newcomer, |newcomer| {
            let Newcomer { id, driver, origin, .. } = newcomer;
            Some(self.shared.records.recall(id, driver.name(), *origin))
        })?;
        self.begin(&workspace);
        Ok(workspace)
    }

    /// Registers what a runtime has of a workspace that was removed, to be removed again: it was
    /// still being made when its removal found nothing.
    pub(super) fn clear_away(self: &Arc<Self>, newcomer: Newcomer) -> Result<(), RegistryError> {
        let cut_off = Some("it was made after its removal");
        let workspace =
            self.enlist(newcomer, |_| Some(Remembered { cut_off, ..Remembered::default() }))?;
        self.begin(&workspace);
        Ok(())
    }

    /// Whether a call created it and it was removed, as far as is remembered.
    pub(super) fn has_removed(&self, id: &WorkspaceId) -> bool {
        self.lock_removed().contains(id)
    }

    /// Registers a workspace that is not there yet, and has it made and started. Returns when it is
    /// made, which outlives a restart from then on.
    pub async fn make(self: &Arc<Self>, newcomer: Newcomer) -> Result<Arc<Workspace>, MakeError> {
        let workspace = self.enlist(newcomer, |_| None)?;
        let unlisted = Unlisted { registry: self, workspace: &workspace };
        workspace.keep_new().await?;
        std::mem::forget(unlisted);
        let made = workspace.made();
        self.begin(&workspace);
        made.await?;
        Ok(workspace)
    }

    /// Brings what is known of all workspaces and what their runtimes have together, now. Returns
    /// when that is done, or takes too long.
    pub async fn audit(&self) {
        let reconcilers = self.lock_audits().clone();
        let lists = reconcilers.into_iter().map(|reconciler| async move {
            let (audit, done) = oneshot::channel();
            // Whoever is gone has nothing to list any more.
            if reconciler.send(audit).await.is_ok() {
                drop(done.await);
            }
        });
        let all_looked_at = async {
            join_all(lists).await;
            let looks =
                self.all().into_iter().map(|workspace| async move { workspace.suspect().await });
            stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE).for_each(|_| async {}).await;
        };
        if timeout(AUDIT_MAX, all_looked_at).await.is_err() {
            tracing::warn!("an audit takes too long; it goes on by itself");
        }
    }

    pub(super) fn listen_for_audits(&self, reconciler: mpsc::Sender<Audit>) {
        self.lock_audits().push(reconciler);
    }

    fn lock_audits(&self) -> std::sync::MutexGuard<'_, Vec<mpsc::Sender<Audit>>> {
        self.audits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that were made by a call in an earlier life of this program.
    pub(super) fn made_before(&self) -> Vec<Record> {
        self.shared.records.created()
    }

    /// What a driver has now: what it had once and is not among that is forgotten.
    pub(super) fn forget_missing(&self, driver: &str, listed: &HashSet<WorkspaceId>) {
        self.shared.records.forget_missing(driver, listed);
    }

    fn enlist(
        &self,
        newcomer: Newcomer,
        remember: impl FnOnce(&Newcomer) -> Option<Remembered>,
    ) -> Result<Arc<Workspace>, RegistryError> {
        let _one_at_a_time = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        if self.by_id.contains_key(&newcomer.id) {
            return Err(RegistryError::IdTaken(newcomer.id));
        }
        let hosts = self.free_hosts(&newcomer.id, &newcomer.spec)?;
        let token = self.check_in_key.token(&newcomer.id);
        let check_in = CheckInAccess { port: self.public_port, token };
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        let remembered = remember(&newcomer);
        let shared = self.shared.clone();
        let workspace = Arc::new(Workspace::new(serial, newcomer, check_in, remembered, shared));
        self.by_id.insert(workspace.id().clone(), workspace.clone());
        self.by_serial.insert(serial, workspace.clone());
        for host in hosts {
            self.by_host.insert(host, workspace.clone());
        }
        Ok(workspace)
    }

    fn begin(self: &Arc<Self>, workspace: &Arc<Workspace>) {
        let registry = Arc::downgrade(self);
        let living = workspace.clone();
        let uncounted = self.shared.slots.count_later();
        self.spawn(async move {
            let announce = announce_to(registry.clone());
            let farewells = actor::live(living.clone(), announce, uncounted).await;
            if let Some(registry) = registry.upgrade() {
                match living.view().phase {
                    Phase::Removed => registry.forget(&living),
                    _ => registry.unlist(&living),
                }
            }
            farewells.send();
        });
    }

    /// The workspace of that id.
    pub fn get(&self, id: &str) -> Option<Arc<Workspace>> {
        Some(self.by_id.get(id)?.value().clone())
    }

    /// The workspace that a host name, lower case and without a port, routes to.
    pub fn by_host(&self, host: &str) -> Option<Arc<Workspace>> {
        Some(self.by_host.get(host)?.value().clone())
    }

    /// The workspace that sends from an address.
    pub fn by_address(&self, address: IpAddr) -> Option<Arc<Workspace>> {
        Some(self.by_address.get(&canonical(address))?.value().clone())
    }

    /// The workspace that a check-in token is of.
    pub fn by_check_in_token(&self, token: &str) -> Option<Arc<Workspace>> {
        self.get(self.check_in_key.verify(token)?.as_str())
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Workspace>> {
        let mut all: Vec<_> = self.by_id.iter().map(|entry| entry.value().clone()).collect();
        all.sort_by(|one, other| one.id().cmp(other.id()));
        all
    }

    pub(super) fn records(&self) -> &Records {
        &self.shared.records
    }

    /// What happens to workspaces from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    /// The last of what happened, and what will.
    pub fn feed(&self) -> Arc<Feed> {
        self.shared.feed.clone()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// What concerns connections to workspaces from now on.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.shared.notices.subscribe()
    }

    fn domain(&self) -> Arc<str> {
        self.domain.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every workspace has its host name below another domain from now on, and for a moment below
    /// both.
    pub fn change_domain(&self, domain: &str) {
        let _one_at_a_time = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.domain();
        if *before == *domain {
            return;
        }
        *self.domain.write().unwrap_or_else(PoisonError::into_inner) = domain.into();
        for workspace in self.all() {
            let own = format!("{}.{domain}", workspace.id()).into_boxed_str();
            // What somebody named for another workspace stays its own.
            self.by_host.entry(own).or_insert_with(|| workspace.clone());
            let (id, serial) = (workspace.id(), workspace.serial());
            let old = format!("{id}.{before}");
            if !workspace.blueprint().spec.hosts.contains(&old) {
                self.by_host.remove_if(&*old, |_, owner| owner.serial() == serial);
            }
        }
    }

    /// There may be so much of everything from now on. Whoever has more keeps it.
    pub fn change_limits(self: &Arc<Self>, limits: &Limits) {
        let shared = &self.shared;
        shared.held_max.store(limits.held_max, Ordering::Relaxed);
        shared.held_per_workspace_max.store(limits.held_per_workspace_max, Ordering::Relaxed);
        shared.slots.resize(limits.capacity);
        self.memory_low.send_replace(limits.memory_low);
        let mut starts_max = self.starts_max.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *starts_max, limits.starts_max);
        shared.starts.add_permits(limits.starts_max.saturating_sub(before));
        let fewer = before.saturating_sub(limits.starts_max);
        if fewer > 0 {
            let shared = shared.clone();
            // Those under way are let finish.
            self.spawn(async move {
                let fewer = u32::try_from(fewer).unwrap_or(u32::MAX);
                if let Ok(permits) = shared.starts.acquire_many(fewer).await {
                    permits.forget();
                }
            });
        }
    }

    /// Has a workspace made from another spec from its next start on, and reached at its hosts at
    /// once. It must be of the same driver.
    pub async fn change_spec(
        &self,
        workspace: &Arc<Workspace>,
        spec: Arc<Spec>,
    ) -> Result<(), RegistryError> {
        {
            let _one_at_a_time = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
            let before = self.hosts_of(workspace.id(), &workspace.blueprint().spec);
            let hosts = self.hosts_of(workspace.id(), &spec);
            for host in &hosts {
                self.check_host(host, Some(workspace.serial()))?;
            }
            for host in hosts.iter().filter(|host| !before.contains(host)) {
                self.by_host.insert(host.clone(), workspace.clone());
            }
            for host in before.iter().filter(|host| !hosts.contains(host)) {
                self.by_host.remove_if(host, |_, owner| owner.serial() == workspace.serial());
            }
            workspace.replace_spec(spec);
        }
        if !workspace.can_freeze() {
            // It never starts again: what is behind it changes now.
            drop(workspace.driver.create(&workspace.blueprint()).await);
            workspace.follow_protocol();
            workspace.changed();
        }
        Ok(())
    }

    /// Lets go of a workspace that nobody wants any more: nothing is routed to it from now on, it is
    /// stopped as by an admin, and it is forgotten, except for what is on record of it. What it has
    /// (a container, a directory) is left alone. Returns when that is done.
    pub async fn release(&self, workspace: &Arc<Workspace>) {
        let serial = workspace.serial();
        for host in self.hosts_of(workspace.id(), &workspace.blueprint().spec) {
            self.by_host.remove_if(&host, |_, owner| owner.serial() == serial);
        }
        self.by_id.remove_if(workspace.id(), |_, owner| owner.serial() == serial);
        workspace.gate.refuse(Refusal::Removed);
        if workspace.can_freeze() {
            if let Err(error) = workspace.stop().await {
                tracing::warn!(workspace = %workspace.id(), %error, "could not stop what is no longer configured");
            }
            // Nobody is left who could wake it: there is no use in keeping its memory.
            drop(workspace.step_down().await);
        }
        let mut record = workspace.record(&workspace.lock_machine());
        // Nobody wanted it stopped for good; when it is wanted again, any request wakes it.
        record.state.stopped_by_admin_at = None;
        self.shared.records.lay_by(record);
        workspace.release();
    }

    /// Whether the configuration had such a workspace once, and has none now.
    pub(super) fn was_released(&self, id: &WorkspaceId) -> bool {
        self.shared.records.is_laid_by(id)
    }

    /// Whether such a workspace could be added, as things are.
    pub fn check_free(&self, id: &WorkspaceId, spec: &Spec) -> Result<(), RegistryError> {
        let known = self.get(id.as_str());
        if known.as_ref().is_some_and(|known| !known.is_configured()) {
            return Err(RegistryError::IdTaken(id.clone()));
        }
        let serial = known.map(|known| known.serial());
        let hosts = spec.hosts.iter().map(String::as_str);
        hosts.into_iter().try_for_each(|host| match self.by_host(host) {
            Some(owner) if !owner.is_configured() => self.check_host(host, serial),
            _ => Ok(()),
        })
    }

    fn check_host(&self, host: &str, own: Option<u64>) -> Result<(), RegistryError> {
        match self.by_host(host).filter(|owner| Some(owner.serial()) != own) {
            Some(owner) => {
                let (host, owner) = (host.to_owned(), owner.id().clone());
                Err(RegistryError::HostTaken { host, owner })
            }
            None => Ok(()),
        }
    }

    /// Microseconds from now until `tick` of a [`super::Refusal`].
    pub fn until(&self, tick: u64) -> std::time::Duration {
        self.shared.moment(tick).saturating_duration_since(Instant::now())
    }

    /// Waits until nothing is under way that nobody else can finish: wakes with those who wait for
    /// them, freezes, removals. At most for `limit`.
    pub async fn settle(&self, limit: Duration) {
        let settled = async {
            while self.all().iter().any(|workspace| workspace.is_under_way()) {
                tokio::time::sleep(SETTLE_LOOK).await;
            }
        };
        if timeout(limit, settled).await.is_err() {
            tracing::warn!("some workspaces are still on their way to be woken or frozen");
        }
    }

    /// Those somebody is inside of.
    pub fn visited(&self) -> Vec<WorkspaceId> {
        let all = self.by_id.iter();
        all.filter(|one| !one.is_empty()).map(|one| one.id().clone()).collect()
    }

    /// Ends all tasks and the store, and waits for that. Workspaces stay as they are. Nobody who
    /// waits is let in any more, and who is inside may stay.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.lock_tasks());
        tasks.shutdown().await;
        for workspace in self.all() {
            workspace.mailbox.close();
            workspace.gate.refuse(Refusal::Full);
        }
        self.shared.records.flush().await;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            writer.abort();
        }
        self.shared.records.close().await;
    }

    fn free_hosts(&self, id: &WorkspaceId, spec: &Spec) -> Result<Vec<Box<str>>, RegistryError> {
        let hosts = self.hosts_of(id, spec);
        hosts.iter().try_for_each(|host| self.check_host(host, None))?;
        Ok(hosts)
    }

    fn hosts_of(&self, id: &WorkspaceId, spec: &Spec) -> Vec<Box<str>> {
        let own = format!("{id}.{}", self.domain());
        let further = spec.hosts.iter().map(|host| host.as_str().into());
        std::iter::once(own.into_boxed_str()).chain(further).collect()
    }

    /// Takes a removed workspace out of every map that still has it, and off the record.
    fn forget(&self, workspace: &Workspace) {
        self.shared.records.gone(workspace.id());
        if workspace.is_created() {
            let mut removed = self.lock_removed();
            if removed.len() >= REMOVED_MAX {
                removed.clear();
            }
            removed.insert(workspace.id().clone());
        }
        self.unlist(workspace);
    }

    /// Takes it out of every map that still has it.
    fn unlist(&self, workspace: &Workspace) {
        let serial = workspace.serial();
        self.shared.deadlines.set(serial, None);
        self.by_serial.remove(&serial);
        for host in self.hosts_of(workspace.id(), &workspace.blueprint().spec) {
            self.by_host.remove_if(&host, |_, other| other.serial() == serial);
        }
        self.by_address.retain(|_, other| other.serial() != serial);
        workspace.gate.refuse(Refusal::Removed);
        self.by_id.remove_if(workspace.id(), |_, other| other.serial() == serial);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.lock_tasks();
        // What has ended is let go here, so that the set holds no more than what lives.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime);
    }

    fn lock_removed(&self) -> std::sync::MutexGuard<'_, HashSet<WorkspaceId>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({} workspaces)", self.by_id.len())
    }
}

/// A workspace that has no life yet: dropped, it is forgotten again.
struct Unlisted<'a> {
    registry: &'a Registry,
    workspace: &'a Workspace,
}

impl Drop for Unlisted<'_> {
    fn drop(&mut self) {
        {
            // Nobody will ever read what was asked of it meanwhile, nor keep anything of it.
            let _machine = self.workspace.lock_machine();
            self.workspace.mailbox.close();
        }
        self.registry.forget(self.workspace);
    }
}

fn tell_deadline(registry: &Weak<Registry>, serial: u64) {
    let Some(registry) = registry.upgrade() else { return };
    let workspace = registry.by_serial.get(&serial).map(|entry| entry.value().clone());
    if let Some(workspace) = workspace {
        workspace.deadline_passed();
    }
}

/// Keeps `by_address` true: exactly the addresses that a workspace has now. An address that was
/// another's a second ago is this one's from here on.
fn announce_to(registry: Weak<Registry>) -> Announce {
    Arc::new(move |workspace: &Workspace, addresses: &[IpAddr]| {
        let Some(registry) = registry.upgrade() else { return };
        let serial = workspace.serial();
        let addresses: Vec<_> = addresses.iter().copied().map(canonical).collect();
        for address in workspace.replace_addresses(addresses.clone()) {
            if !addresses.contains(&address) {
                registry.by_address.remove_if(&address, |_, other| other.serial() == serial);
            }
        }
        let handle = registry.by_serial.get(&serial).map(|entry| entry.value().clone());
        if let Some(handle) = handle {
            for address in addresses {
                registry.by_address.insert(address, handle.clone());
            }
        }
    })
}
