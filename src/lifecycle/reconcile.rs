//! Brings what we know and what the runtime has together: at the start, whenever the driver says
//! that something changed, and in full after every lost event stream.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::registry::Registry;
use super::workspace::Workspace;
use crate::driver::{Driver, DriverEvent, Found};
use crate::model::{Policy, WorkspaceId};

/// Events come in bursts (a `docker compose up` is a dozen); one listing answers them all.
const LIST_AFTER: Duration = Duration::from_millis(100);
/// How long one listing may take.
const LIST_MAX: Duration = Duration::from_secs(30);
/// Events that may wait to be looked at. The driver waits when there are more.
const EVENTS_MAX: usize = 1_024;
/// Warnings that are remembered as said. Beyond that some are said twice.
const WARNED_MAX: usize = 10_000;

/// Follows one driver, until the task is aborted.
pub async fn follow(registry: Arc<Registry>, driver: Arc<dyn Driver>, policy: Policy) {
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let watching = driver.clone();
    let watch = async move { watching.watch(sender).await };
    let react = async {
        let mut reconciler =
            Reconciler { registry, driver: driver.clone(), policy, warned: HashSet::new() };
        let mut list_at = None;
        loop {
            let list_due = async {
                match list_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => {
                        if reconciler.react(&event) {
                            list_at.get_or_insert(Instant::now() + LIST_AFTER);
                        }
                    }
                    None => return,
                },
                () = list_due => {
                    let again = reconciler.list().await;
                    list_at = again.then(|| Instant::now() + LIST_AFTER);
                }
            }
        }
    };
    tokio::join!(
        async {
            if let Err(error) = watch.await {
                tracing::error!(driver = driver.name(), %error, "can't watch a driver");
            }
        },
        react
    );
}

struct Reconciler {
    registry: Arc<Registry>,
    driver: Arc<dyn Driver>,
    policy: Policy,
    /// What was warned of, so that it is said once.
    warned: HashSet<String>,
}

impl Reconciler {
    /// Tells those concerned to look. `true`: the runtime's own list is wanted.
    fn react(&mut self, event: &DriverEvent) -> bool {
        match event {
            DriverEvent::Changed(id) => match self.ours(id) {
                Some(workspace) => {
                    workspace.changed();
                    workspace.discovered
                }
                None => true,
            },
            DriverEvent::Resync => {
                let all = self.registry.all();
                let ours = all.iter().filter(|one| one.driver_name() == self.driver.name());
                ours.for_each(|workspace| workspace.changed());
                true
            }
        }
    }

    /// Takes in what the runtime has. `true`: another list is wanted soon.
    async fn list(&mut self) -> bool {
        let listed = tokio::time::timeout(LIST_MAX, self.driver.list()).await;
        let found = match listed {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(driver = self.driver.name(), %error, "can't list workspaces");
                return false;
            }
            Err(_) => {
                tracing::warn!(driver = self.driver.name(), "listing workspaces takes too long");
                return true;
            }
        };
        let mut again = false;
        for one in found {
            again |= self.bring_in(one);
        }
        again
    }

    fn bring_in(&mut self, found: Found) -> bool {
        for warning in &found.warnings {
            self.warn_once(&found.id, warning);
        }
        let known = self.registry.get(found.id.as_str());
        match known {
            // Labels can't change: another container of the same id has taken its place. The old
            // workspace ends; the next list brings in the new one.
            Some(known) if known.discovered && known.blueprint.spec != found.spec => {
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

    fn add(&mut self, found: Found) {
        let policy = found.policy.over(&self.policy);
        let driver = self.driver.clone();
        let id = found.id.clone();
        match self.registry.add(found.id, found.spec, policy, driver, true) {
            Ok(workspace) => {
                tracing::info!(workspace = %workspace.id(), "found workspace {}", workspace.id());
            }
            Err(error) => {
                self.warn_once(&id, &format!("it can't be taken in: {error}"));
            }
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
