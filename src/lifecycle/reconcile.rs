//! Brings what we know and what the runtime has together: at the start, whenever the driver says
//! that something changed, and in full after every lost event stream.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::registry::{Newcomer, Registry};
use super::workspace::Workspace;
use crate::clock::sleep_until;
use crate::driver::{Driver, DriverError, DriverEvent, Found};
use crate::model::{Policy, PolicyOverrides, WorkspaceId};
use crate::store::Origin;

/// Events come in bursts (a `docker compose up` is a dozen); one listing answers them all.
const LIST_AFTER: Duration = Duration::from_millis(100);
/// After a listing that failed. The engine is not well, and says so in the log each time.
const LIST_AGAIN: Duration = Duration::from_secs(5);
/// How long the first requests may wait for the first listing.
const TAKE_STOCK_MAX: Duration = Duration::from_secs(5);
/// How long one listing may take.
const LIST_MAX: Duration = Duration::from_secs(30);
/// Events that may wait to be looked at. The driver waits when there are more.
const EVENTS_MAX: usize = 1_024;
/// Audits that may wait for one driver.
const AUDITS_MAX: usize = 16;
/// Warnings that are remembered as said. Beyond that some are said twice.
const WARNED_MAX: usize = 10_000;

/// Keeps what we know of one driver's workspaces and what its runtime has together.
pub struct Reconciler {
    registry: Arc<Registry>,
    driver: Arc<dyn Driver>,
    /// What workspaces have that set nothing else, as it changes, and what it is now.
    policies: watch::Receiver<Arc<Policy>>,
    policy: Arc<Policy>,
    /// What it was before, until all that set nothing else have the new one.
    policy_before: Option<Arc<Policy>>,
    /// Those who want everything looked at now, until they are dropped.
    audits: mpsc::Receiver<Audit>,
    /// What was warned of, so that it is said once.
    warned: HashSet<String>,
}

/// Dropped when the runtime's own list has been taken in.
pub(super) type Audit = oneshot::Sender<()>;

impl Reconciler {
    /// `policies` tells what workspaces have that set nothing else.
    pub fn new(
        registry: Arc<Registry>,
        driver: Arc<dyn Driver>,
        mut policies: watch::Receiver<Arc<Policy>>,
    ) -> Self {
        let (sender, audits) = mpsc::channel(AUDITS_MAX);
        registry.listen_for_audits(sender);
        let policy = policies.borrow_and_update().clone();
        let warned = HashSet::new();
        Self { registry, driver, policies, policy, policy_before: None, audits, warned }
    }

    /// Takes in what the runtime has now. Before the first request comes, for that would be told
    /// that there is no such workspace; but a runtime that is away keeps nobody from serving.
    pub async fn take_stock(&mut self) {
        if tokio::time::timeout(TAKE_STOCK_MAX, self.list()).await.is_err() {
            tracing::warn!(driver = self.driver.name(), "starting before its workspaces are known");
        }
    }

    /// Follows the driver, until the task is aborted.
    pub async fn follow(mut self) {
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        let driver = self.driver.clone();
        let watch = async {
            if let Err(error) = driver.watch(sender).await {
                tracing::error!(driver = driver.name(), %error, "can't watch a driver");
            }
        };
        let react = async {
            let mut list_at = None;
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Some(event) => {
                            if self.react(&event) {
                                list_at.get_or_insert(Instant::now() + LIST_AFTER);
                            }
                        }
                        None => return,
                    },
                    Ok(()) = self.policies.changed() => {
                        let policy = self.policies.borrow_and_update().clone();
                        let before = std::mem::replace(&mut self.policy, policy);
                        self.policy_before.get_or_insert(before);
                        let again = self.list().await;
                        list_at = again.map(|wait| Instant::now() + wait);
                    }
                    Some(_audit) = self.audits.recv() => {
                        let again = self.list().await;
                        list_at = again.map(|wait| Instant::now() + wait);
                    }
                    () = sleep_until(list_at) => {
                        let again = self.list().await;
                        list_at = again.map(|wait| Instant::now() + wait);
                    }
                }
            }
        };
        tokio::join!(watch, react);
    }

    /// Tells those concerned to look. `true`: the runtime's own list is wanted.
    fn react(&mut self, event: &DriverEvent) -> bool {
        match event {
            DriverEvent::Changed(id) => match self.ours(id) {
                Some(workspace) => {
                    workspace.changed();
                    workspace.is_discovered()
                }
                None => true,
            },
            DriverEvent::Resync => {
                let all = self.registry.all();
                let ours = all.iter().filter(|one| one.driver_name() == self.driver.name());
                ours.for_each(|workspace| workspace.resync());
                true
            }
        }
    }

    /// Takes in what the runtime has. Returns when another list is wanted, if one is.
    async fn list(&mut self) -> Option<Duration> {
        let listed = tokio::time::timeout(LIST_MAX, self.driver.list()).await;
        let found = match listed {
            Ok(Ok(found)) => found,
            // That its runtime is away the driver says itself, once.
            Ok(Err(DriverError::Unreachable { .. })) => return Some(LIST_AGAIN),
            Ok(Err(error)) => {
                // No event need come when it has recovered.
                tracing::warn!(driver = self.driver.name(), %error, "can't list workspaces");
                return Some(LIST_AGAIN);
            }
            Err(_) => {
                tracing::warn!(driver = self.driver.name(), "listing workspaces takes too long");
                return Some(LIST_AGAIN);
            }
        };
        let listed = found.iter().map(|one| one.id.clone()).collect();
        self.registry.forget_missing(self.driver.name(), &listed);
        let mut again = false;
        for one in found {
            again |= self.bring_in(one).await;
        }
        self.policy_before = None;
        again.then_some(LIST_AFTER)
    }

    async fn bring_in(&mut self, found: Found) -> bool {
        for warning in &found.warnings {
            self.warn_once(&found.id, warning);
        }
        let known = self.registry.get(found.id.as_str());
        match known {
            Some(known) if known.is_discovered() && self.is_of_before(&known, &found) => {
                // Who is gone meanwhile needs no policy.
                drop(known.rebase_policy(found.policy.applied_to(&self.policy)).await);
                false
            }
            // Labels can't change: another container of the same id has taken its place. The old
            // workspace ends; the next list brings in the new one.
            Some(known) if known.is_discovered() && self.differs(&known, &found) => {
                known.replace();
                true
            }
            Some(_) => false,
            None => {
                self.add(found);
                false
            }
        }
    }

    fn differs(&self, known: &Workspace, found: &Found) -> bool {
        *known.blueprint().spec != found.spec
            || *known.base_policy() != found.policy.over(&self.policy)
    }

    /// Whether it differs in nothing but the policy that was changed under it.
    fn is_of_before(&self, known: &Workspace, found: &Found) -> bool {
        let before = self.policy_before.as_ref();
        *known.blueprint().spec == found.spec
            && before.is_some_and(|before| *known.base_policy() == found.policy.over(before))
    }

    fn add(&mut self, found: Found) {
        let policy = found.policy.applied_to(&self.policy);
        let driver = self.driver.clone();
        let id = found.id.clone();
        if found.is_ours && self.registry.was_released(&id) {
            let what = "it was made for a workspace that is no longer configured; it is left alone";
            return self.warn_once(&id, what);
        }
        let is_left_over = found.is_ours && self.registry.has_removed(&id);
        let newcomer = Newcomer {
            id: found.id,
            spec: found.spec.into(),
            policy,
            own_policy: PolicyOverrides::default(),
            driver,
            origin: Origin::Discovered,
            project: None,
        };
        let added = match is_left_over {
            true => self.registry.clear_away(newcomer),
            false => self.registry.add(newcomer).map(|_| ()),
        };
        match added {
            Ok(()) => tracing::info!(workspace = %id, "found workspace {id}"),
            Err(error) => self.warn_once(&id, &format!("it can't be taken in: {error}")),
        }
    }

    fn warn_once(&mut self, id: &WorkspaceId, warning: &str) {
        if self.warned.len() >= WARNED_MAX {
            self.warned.clear();
        }
        if self.warned.insert(format!("{id}: {warning}")) {
            tracing::warn!(workspace = %id, "{id}: {warning}");
        }
    }

    fn ours(&self, id: &WorkspaceId) -> Option<Arc<Workspace>> {
        let workspace = self.registry.get(id.as_str())?;
        (workspace.driver_name() == self.driver.name()).then_some(workspace)
    }
}
