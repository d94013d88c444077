//! All workspaces: by id, by host name, by the address they check in from.
//!
//! The maps are sharded (dashmap), and no guard of theirs ever leaves a function here: what comes
//! out is a handle.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::actor;
use super::check_in::{CheckInKey, canonical};
use super::deadlines::Deadlines;
use super::jobs::Announce;
use super::pressure;
use super::reconcile::Audit;
use super::records::{Records, Remembered};
use super::slots::{self, Capacity, Slots};
use super::workspace::{Shared, Workspace};
use super::{Change, CommandError, Notice, Refusal};
use crate::clock::Clock;
use crate::driver::Driver;
use crate::model::{CheckInAccess, Policy, PolicyOverrides, ProjectId, Spec, WorkspaceId};
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
/// Workspaces that are looked at together.
const LOOKS_AT_ONCE: usize = 16;

/// What the registry needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Workspaces are reached as `{id}.{domain}`; lower case.
    pub domain: String,
    /// Most requests that may be held at all gates together.
    pub held_max: usize,
    /// Most requests that may be held at one gate.
    pub held_per_workspace_max: usize,
    /// How much may run at a time.
    pub capacity: Capacity,
    /// Bytes of memory that a workspace counts for that does not say how much it may take.
    pub memory_assumed: u64,
    /// While this machine has fewer bytes of memory, what is paused is stopped; `None`: never.
    pub memory_low: Option<u64>,
    /// Most starts that may be under way at once.
    pub starts_max: usize,
    /// Makes the tokens that workspaces check in with.
    pub check_in_key: CheckInKey,
    /// The public listener's port, for the URL that workspaces check in at.
    pub public_port: u16,
    /// By which dates are kept.
    pub clock: Clock,
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
    options: Options,
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
    pub spec: Spec,
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
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            deadlines: Deadlines::default(),
            starts: Semaphore::new(options.starts_max),
            slots: Slots::new(options.capacity),
            memory_assumed: options.memory_assumed,
            held: AtomicUsize::new(0),
            held_max: options.held_max,
            held_per_workspace_max: options.held_per_workspace_max,
            records,
            policy_changes: tokio::sync::Mutex::new(()),
            changes: broadcast::channel(CHANGES_BEHIND_MAX).0,
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
            options,
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
        if let Some(low) = registry.options.memory_low {
            registry.spawn(pressure::relieve(low, Arc::downgrade(&registry)));
        }
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
        let token = self.options.check_in_key.token(&newcomer.id);
        let check_in = CheckInAccess { port: self.options.public_port, token };
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
        self.spawn(async move {
            let farewells = actor::live(living.clone(), announce_to(registry.clone())).await;
            if let Some(registry) = registry.upgrade() {
                registry.forget(&living);
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
        self.get(self.options.check_in_key.verify(token)?.as_str())
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Workspace>> {
        let mut all: Vec<_> = self.by_id.iter().map(|entry| entry.value().clone()).collect();
        all.sort_by(|one, other| one.id().cmp(other.id()));
        all
    }

    /// What happens to workspaces from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    /// What concerns connections to workspaces from now on.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.shared.notices.subscribe()
    }

    /// The domain below which every workspace has a host name.
    pub fn domain(&self) -> &str {
        &self.options.domain
    }

    /// Microseconds from now until `tick` of a [`super::Refusal`].
    pub fn until(&self, tick: u64) -> std::time::Duration {
        self.shared.moment(tick).saturating_duration_since(Instant::now())
    }

    /// Ends all tasks, and waits for that. Workspaces stay as they are.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.lock_tasks());
        tasks.shutdown().await;
        self.shared.records.flush().await;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            writer.abort();
        }
    }

    fn free_hosts(&self, id: &WorkspaceId, spec: &Spec) -> Result<Vec<Box<str>>, RegistryError> {
        let hosts = self.hosts_of(id, spec);
        for host in &hosts {
            if let Some(owner) = self.by_host(host) {
                let (host, owner) = (host.to_string(), owner.id().clone());
                return Err(RegistryError::HostTaken { host, owner });
            }
        }
        Ok(hosts)
    }

    fn hosts_of(&self, id: &WorkspaceId, spec: &Spec) -> Vec<Box<str>> {
        let own = format!("{id}.{}", self.options.domain);
        let further = spec.hosts.iter().map(|host| host.as_str().into());
        std::iter::once(own.into_boxed_str()).chain(further).collect()
    }

    /// Takes a removed workspace out of every map that still has it.
    fn forget(&self, workspace: &Workspace) {
        let serial = workspace.serial();
        self.shared.deadlines.set(serial, None);
        self.by_serial.remove(&serial);
        for host in self.hosts_of(workspace.id(), &workspace.blueprint().spec) {
            self.by_host.remove_if(&host, |_, other| other.serial() == serial);
        }
        self.by_address.retain(|_, other| other.serial() != serial);
        self.shared.records.gone(workspace.id());
        if workspace.is_created() {
            let mut removed = self.lock_removed();
            if removed.len() >= REMOVED_MAX {
                removed.clear();
            }
            removed.insert(workspace.id().clone());
        }
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
        // Nobody will ever read what was asked of it meanwhile.
        self.workspace.mailbox.close();
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
