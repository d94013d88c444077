//! Workspaces in containers, by Docker Engine or by Podman's compatible socket.
//!
//! Two kinds: containers that we make from an image, and containers that somebody else made and
//! labelled with `frostgate.enable=true`. Once they exist they are treated alike.
//!
//! The engine refuses what is so already in its own ways: a start of a paused container is a 409,
//! an unpause of a running one a 500, and Podman won't stop a paused one at all. Every such refusal
//! is settled in one place (`settle`): look how it is, and if it is as it should be, all
//! is well. Nothing is looked up beforehand, so that the usual case costs one call.

mod about;
mod consumption;
mod create;
mod images;
mod logs;
mod private_network;
mod pull;
mod recipe;

mod directory;
mod engine;
mod events;
mod labels;
mod names;
mod sighting;

use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use futures_util::{StreamExt, stream};
use tokio::sync::{RwLock, mpsc};

pub use self::about::About;
use self::directory::{Claimed, Directory};
use self::engine::{Act, Engine, EngineError, Socket};
use self::names::{ContainerRef, NetworkName};
use self::pull::Pulls;
use super::{
    Call, Consumption, Description, Driver, DriverError, DriverEvent, Found, Logs, Sighting, Status,
};
use crate::model::{Blueprint, Runs, WorkspaceId};

/// Where an engine usually listens.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// How many containers of a list are inspected at once.
const INSPECTED_AT_ONCE: usize = 4;

/// Reads labels that may be anything.
pub(crate) fn try_labels(bytes: &[u8]) {
    labels::try_with(bytes);
}

/// How the driver finds its engine and its workspaces.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A path, `unix:///path` or `tcp://host:port`; `None`: `DOCKER_HOST`, else
    /// `/var/run/docker.sock`.
    pub socket: Option<String>,
    /// How workspaces are dialled.
    pub address: Address,
    /// The network that new containers join and whose address is dialled, unless the workspace
    /// names another one.
    pub network: Option<String>,
    /// The scope of the containers that are taken, by their label `frostgate.scope`; empty: those
    /// without one. It keeps several Frostgates on one engine apart.
    pub scope: String,
}

/// How a container is dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// By its own address in a network of this machine. Linux only.
    #[default]
    Container,
    /// By the port that is published on this machine; ours are published on 127.0.0.1.
    Published,
}

/// The driver.
pub struct Docker {
    shared: Arc<Shared>,
    pulls: Pulls,
    address: Address,
    network: Option<NetworkName>,
}

/// What the tasks that watch the events and that pull images need too.
struct Shared {
    engine: Engine,
    directory: Directory,
    scope: String,
    /// Read while a container is being made, written while what nobody has made is swept up.
    making: RwLock<()>,
}

impl Docker {
    /// Reads the options. The engine need not be there yet.
    pub fn connect(options: Options) -> Result<Self, DriverError> {
        let from_environment = || std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let text = options.socket.or_else(from_environment);
        let text = text.unwrap_or_else(|| DEFAULT_SOCKET.to_owned());
        let misread =
            |runtime, reason: &str| DriverError::Unreachable { runtime, reason: reason.to_owned() };
        let socket = Socket::parse(&text).ok_or_else(|| {
            let accepted = "not an absolute path, unix:///path or tcp://host:port";
            misread(format!("Docker Engine at {text:?}"), accepted)
        })?;
        let network = match options.network {
            None => None,
            Some(name) => Some(NetworkName::parse(&name).ok_or_else(|| {
                misread(format!("network {name:?}"), "not a name that a network can have")
            })?),
        };
        let engine = Engine::new(socket);
        let shared = Shared {
            engine,
            directory: Directory::default(),
            scope: options.scope,
            making: RwLock::new(()),
        };
        let (shared, pulls) = (Arc::new(shared), Pulls::default());
        Ok(Self { shared, pulls, address: options.address, network })
    }

    fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// The workspace's container. Asks the engine only if it isn't known.
    async fn locate(&self, id: &WorkspaceId) -> Result<Option<ContainerRef>, EngineError> {
        if let Some(container) = self.shared.directory.find(id) {
            return Ok(Some(container));
        }
        let (claimed, _) = directory::settle(self.engine().labelled().await?, &self.shared.scope);
        self.shared.directory.replace(&claimed);
        Ok(self.shared.directory.find(id))
    }

    /// After a 404: the container that has taken its place, or itself if it is there after all.
    async fn locate_again(
        &self,
        id: &WorkspaceId,
        container: &ContainerRef,
    ) -> Result<Option<ContainerRef>, EngineError> {
        self.shared.directory.forget(id, container);
        self.locate(id).await
    }

    /// Does `act`. `false`: there is no such container.
    async fn act(&self, id: &WorkspaceId, act: Act) -> Result<bool, EngineError> {
        let Some(container) = self.locate(id).await? else {
            return Ok(false);
        };
        match self.act_on(&container, act).await {
            Err(error) if error.status() == Some(404) => {
                match self.locate_again(id, &container).await? {
                    None => Ok(false),
                    // It is there, so something else wasn't: a program or a network to start with.
                    Some(same) if same == container => Err(error),
                    Some(successor) => self.act_on(&successor, act).await.map(|()| true),
                }
            }
            done => done.map(|()| true),
        }
    }

    async fn act_on(&self, container: &ContainerRef, act: Act) -> Result<(), EngineError> {
        match self.engine().act(container, act).await {
            Err(error) if matches!(error.status(), Some(409 | 500)) => {
                self.settle(container, act, error).await
            }
            done => done,
        }
    }

    /// The engine refused: it may be as it should be, or need a step in between.
    async fn settle(
        &self,
        container: &ContainerRef,
        act: Act,
        refusal: EngineError,
    ) -> Result<(), EngineError> {
        let inspected = self.engine().inspect(container).await?;
        let state = inspected.and_then(|inspected| inspected.state);
        let status = state.map_or(Status::Missing, |state| sighting::status(&state));
        match (act, status) {
            (Act::Start | Act::Unpause, Status::Running)
            | (Act::Pause, Status::Paused)
            | (Act::Stop { .. }, Status::Stopped | Status::Missing) => Ok(()),
            (Act::Start, Status::Paused) => self.engine().act(container, Act::Unpause).await,
            // Podman does neither to a paused container.
            (Act::Stop { .. } | Act::Remove, Status::Paused) => {
                self.engine().act(container, Act::Unpause).await?;
                self.engine().act(container, act).await
            }
            (Act::Remove, Status::Missing) => self.engine().gone(container).await,
            // While the other removal still kills it, the engine calls it running.
            (Act::Remove, _) if refusal.is_in_progress() => self.engine().gone(container).await,
            (Act::Start | Act::Unpause | Act::Pause, Status::Stopped | Status::Missing)
            | (Act::Pause | Act::Stop { .. }, Status::Running)
            | (Act::Unpause, Status::Paused)
            | (Act::Remove, Status::Running | Status::Stopped) => Err(refusal),
        }
    }

    /// The workspace's container, as the engine describes it now.
    async fn inspected(
        &self,
        id: &WorkspaceId,
    ) -> Result<Option<(ContainerRef, ContainerInspectResponse)>, EngineError> {
        let Some(mut container) = self.locate(id).await? else {
            return Ok(None);
        };
        let mut inspected = self.engine().inspect(&container).await?;
        if inspected.is_none() {
            let Some(successor) = self.locate_again(id, &container).await? else {
                return Ok(None);
            };
            container = successor;
            inspected = self.engine().inspect(&container).await?;
        }
        Ok(inspected.map(|inspected| (container, inspected)))
    }

    async fn see(&self, id: &WorkspaceId) -> Result<Sighting, EngineError> {
        let Some((container, inspected)) = self.inspected(id).await? else {
            return Ok(Sighting::down(Status::Missing, None));
        };
        let seen = sighting::seen(&inspected, self.address, self.network.as_ref());
        self.shared.directory.note_pid(id, &container, sighting::pid(&inspected));
        if self.shared.directory.is_news(id, seen.warning.as_deref()) {
            let reason = seen.warning.as_deref().unwrap_or_default();
            tracing::warn!(workspace = %id, ?container, reason, "a container can't be dialled");
        }
        Ok(seen.sighting)
    }

    /// Starts it. `false`: there is no such container.
    async fn start_it(&self, blueprint: &Blueprint) -> Result<bool, EngineError> {
        let id = &blueprint.id;
        let isolated = matches!(&blueprint.spec.runs, Runs::Image(image) if image.isolate);
        match self.act(id, Act::Start).await {
            Err(error) if isolated && error.is_missing_network() => {
                self.rejoin_private_network(id).await?;
                self.act(id, Act::Start).await
            }
            done => done,
        }
    }

    async fn found(&self, claimed: Claimed) -> Found {
        let mut reading = labels::read(&claimed.labels);
        reading.warnings.extend(claimed.warnings);
        if reading.spec.port.is_none() {
            // The list doesn't say which ports are exposed. A container that has just gone, or an
            // engine that fails here, is the next look's business.
            if let Ok(Some(inspected)) = self.engine().inspect(&claimed.container).await {
                reading.warnings.extend(sighting::port(&inspected).err());
            }
        }
        Found {
            id: claimed.id,
            spec: reading.spec,
            policy: reading.policy,
            is_ours: claimed.labels.contains_key(labels::MANAGED),
            warnings: reading.warnings,
        }
    }

    /// An error with the workspace's name to it.
    fn failed(&self, action: &'static str, id: &WorkspaceId, error: EngineError) -> DriverError {
        match error {
            EngineError::Unreachable(_) => self.engine().unreachable(error),
            EngineError::Interrupted(reason) => {
                DriverError::Interrupted { action, id: id.clone(), reason }
            }
            EngineError::Refused { reason, .. } => {
                DriverError::Refused { action, id: id.clone(), reason }
            }
            EngineError::TimedOut(limit) => DriverError::TimedOut { action, id: id.clone(), limit },
        }
    }

    /// What `act` came to with a container that has to exist.
    fn must(
        &self,
        id: &WorkspaceId,
        act: Act,
        done: Result<bool, EngineError>,
    ) -> Result<(), DriverError> {
        let missing = || EngineError::refused("its container is gone");
        let done = done.and_then(|is_there| is_there.then_some(()).ok_or_else(missing));
        done.map_err(|error| self.failed(act.verb(), id, error))
    }

    /// `act` on a container that may as well be gone.
    async fn may(&self, id: &WorkspaceId, act: Act) -> Result<(), DriverError> {
        let done = self.act(id, act).await.map(drop);
        done.map_err(|error| self.failed(act.verb(), id, error))
    }
}

impl Driver for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn accepts_early(&self) -> bool {
        self.address == Address::Published
    }

    fn create<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        Box::pin(async move {
            let made = self.make(blueprint).await;
            made.map_err(|error| self.failed("create", &blueprint.id, error))
        })
    }

    fn start<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        Box::pin(
            async move { self.must(&blueprint.id, Act::Start, self.start_it(blueprint).await) },
        )
    }

    fn stop<'a>(&'a self, id: &'a WorkspaceId, grace: Duration) -> Call<'a, ()> {
        Box::pin(self.may(id, Act::Stop { grace }))
    }

    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(async move { self.must(id, Act::Pause, self.act(id, Act::Pause).await) })
    }

    fn unpause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(async move { self.must(id, Act::Unpause, self.act(id, Act::Unpause).await) })
    }

    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(async move {
            self.may(id, Act::Remove).await?;
            if let Some(container) = self.shared.directory.find(id) {
                self.shared.directory.forget(id, &container);
            }
            let removed = self.remove_private_network(id).await;
            removed.map_err(|error| self.failed(Act::Remove.verb(), id, error))
        })
    }

    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Sighting> {
        Box::pin(async move {
            let seen = self.see(id).await;
            seen.map_err(|error| self.failed("inspect", id, error))
        })
    }

    fn list(&self) -> Call<'_, Vec<Found>> {
        Box::pin(async move {
            let listed = self.engine().labelled().await;
            let listed = listed.map_err(|error| self.engine().unreachable(error))?;
            let (claimed, unusable) = directory::settle(listed, &self.shared.scope);
            self.shared.directory.replace(&claimed);
            if let Err(error) = self.sweep_private_networks().await {
                tracing::debug!(reason = error.into_words(), "could not sweep up unused networks");
            }
            for container in unusable {
                let (container, reason) = (container.container, container.reason);
                tracing::warn!(%container, %reason, "a labelled container can't be a workspace");
            }
            let found = stream::iter(claimed).map(|claimed| self.found(claimed));
            Ok(found.buffered(INSPECTED_AT_ONCE).collect().await)
        })
    }

    fn consumption<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Option<Consumption>> {
        Box::pin(async move {
            let seen = self.consumption_of(id).await;
            seen.map_err(|error| self.failed("measure", id, error))
        })
    }

    fn logs<'a>(
        &'a self,
        id: &'a WorkspaceId,
        lines: usize,
        follow: bool,
    ) -> Call<'a, Option<Logs>> {
        Box::pin(async move {
            let logs = self.logs_of(id, lines, follow).await;
            logs.map_err(|error| self.failed("read the logs of", id, error))
        })
    }

    fn describe<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Option<Description>> {
        Box::pin(async move {
            let inspected = self.inspected(id).await;
            let inspected = inspected.map_err(|error| self.failed("describe", id, error))?;
            Ok(inspected.map(|(_, inspected)| sighting::description(&inspected)))
        })
    }

    fn workspace_of(&self, container_id: &str) -> Option<WorkspaceId> {
        self.shared.directory.workspace_of(&ContainerRef::from_engine(container_id)?)
    }

    fn images(&self) -> Call<'_, Vec<String>> {
        Box::pin(async move {
            self.image_names().await.map_err(|error| self.engine().unreachable(error))
        })
    }

    fn watch(&self, events: mpsc::Sender<DriverEvent>) -> Call<'_, ()> {
        Box::pin(async move {
            // It ends by itself when the receiver, which the lifecycle owns, is dropped.
            tokio::spawn(events::watch(Arc::clone(&self.shared), events));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_can_not_be_used_are_refused_at_once() {
        let connect = |socket: &str, network: Option<&str>| {
            Docker::connect(Options {
                socket: Some(socket.to_owned()),
                network: network.map(str::to_owned),
                ..Options::default()
            })
        };
        assert!(connect("/nowhere/docker.sock", Some("back")).is_ok());
        assert!(connect("ssh://host", None).is_err());
        assert!(connect("/nowhere/docker.sock", Some("../x")).is_err());
    }
}
