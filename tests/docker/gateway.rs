//! The whole gateway on a real engine: what end users, admins and operators see.
//!
//! Every test has a gateway of its own that takes the containers of its own scope only, so that
//! they can run side by side on one engine.

#[path = "gateway/addresses.rs"]
mod addresses;
#[path = "gateway/check_in.rs"]
mod check_in;
#[path = "gateway/containers.rs"]
mod containers;
#[path = "gateway/crash.rs"]
mod crash;
#[path = "gateway/crowd.rs"]
mod crowd;
#[path = "gateway/faults.rs"]
mod faults;
#[path = "gateway/freeze_and_wake.rs"]
mod freeze_and_wake;
#[path = "gateway/observed.rs"]
mod observed;
#[path = "gateway/outside.rs"]
mod outside;
#[path = "gateway/projects.rs"]
mod projects;
#[path = "gateway/races.rs"]
mod races;
#[path = "gateway/ready.rs"]
mod ready;
#[path = "gateway/reporter.rs"]
mod reporter;
#[path = "gateway/stop.rs"]
mod stop;

use std::sync::Arc;
use std::time::Duration;

use frostgate::config::{Config, DockerUse};
use frostgate::lifecycle::{Change, Workspace};
use frostgate::model::{FreezeMode, Phase, Tier};
use tokio::sync::broadcast;
use tokio::time::timeout;

use crate::images::{Container, Engine, unique};
use crate::support::{Client, Gateway, PATIENCE, Reply, until};

const MODES: [FreezeMode; 2] = [FreezeMode::Stop, FreezeMode::Pause];
const IDLE: Duration = Duration::from_millis(700);
/// Never, as a label says it.
const NEVER: Duration = Duration::ZERO;

/// A gateway, and the engine that it has containers of its scope in.
struct Stage {
    engine: Engine,
    gateway: Gateway,
    scope: String,
}

/// A labelled container.
struct Guest {
    id: String,
    container: Container,
}

impl Stage {
    async fn start(engine: Engine, configure: impl FnOnce(&mut Config)) -> Self {
        let scope = unique("scope");
        let gateway = Gateway::start(|config| {
            use_engine(config, &scope);
            configure(config);
        })
        .await;
        Self { engine, gateway, scope }
    }

    /// A container that the gateway has found. `arguments` are those of `docker create`.
    async fn guest(&self, mode: FreezeMode, idle: Duration, arguments: &[&str]) -> Guest {
        self.guest_of(&self.engine.image(), mode, idle, arguments).await
    }

    async fn guest_of(
        &self,
        image: &str,
        mode: FreezeMode,
        idle: Duration,
        arguments: &[&str],
    ) -> Guest {
        let id = unique("guest");
        let labels = labels(&self.scope, &id, mode, idle);
        let mut whole: Vec<&str> =
            labels.iter().flat_map(|label| ["--label", label.as_str()]).collect();
        whole.extend(arguments);
        let container = self.engine.container_of(image, &format!("frostgate-{id}"), &whole);
        until("the container is found", || self.workspace(&id).is_some()).await;
        Guest { id, container }
    }

    fn workspace(&self, id: &str) -> Option<Arc<Workspace>> {
        self.gateway.app().registry().get(id)
    }

    async fn get(&self, guest: &Guest, path: &str) -> Reply {
        self.gateway.get(&guest.id, path).await
    }

    async fn post(&self, guest: &Guest, path: &str, body: &[u8]) -> Reply {
        let mut client = Client::connect(self.gateway.public()).await;
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: {}.localhost\r\nContent-Length: {}\r\n\r\n",
                guest.id,
                body.len()
            ))
            .await;
        client.send(body).await;
        client.reply().await
    }

    /// The boot id of a run that answers with 200.
    async fn boot(&self, guest: &Guest) -> String {
        let reply = self.get(guest, "/boot").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.text()
    }

    async fn until(&self, guest: &Guest, phase: Phase) {
        self.gateway.until(&guest.id, phase).await;
    }

    async fn until_frozen(&self, guest: &Guest, tier: Tier) {
        let frozen = || self.gateway.workspace(&guest.id).view().tier == Some(tier);
        until(&format!("{} is {tier:?}", guest.id), frozen).await;
    }

    /// A WebSocket to a guest.
    async fn websocket(&self, guest: &Guest) -> Client {
        Client::websocket(self.gateway.public(), &guest.id).await.unwrap()
    }

    fn docker(&self, arguments: &[&str]) -> String {
        self.engine.docker(arguments)
    }

    /// What `docker inspect` says of a guest's container.
    fn inspect(&self, guest: &Guest, format: &str) -> String {
        self.docker(&["inspect", "--format", format, &guest.container.name])
    }

    async fn stop(self) {
        self.gateway.stop().await;
    }
}

fn use_engine(config: &mut Config, scope: &str) {
    config.docker.enable = DockerUse::Always;
    config.docker.scope = scope.to_owned();
    config.policy.inactivity_timeout = None;
    config.policy.stop_grace = Duration::from_secs(5);
}

fn labels(scope: &str, id: &str, mode: FreezeMode, idle: Duration) -> Vec<String> {
    let mode = match mode {
        FreezeMode::Stop => "stop",
        FreezeMode::Pause => "pause",
    };
    vec![
        "frostgate.enable=true".to_owned(),
        format!("frostgate.scope={scope}"),
        format!("frostgate.id={id}"),
        format!("frostgate.freeze={mode}"),
        format!("frostgate.inactivity-timeout={}ms", idle.as_millis()),
    ]
}

/// The next change of a guest to that phase.
async fn change(changes: &mut broadcast::Receiver<Change>, guest: &Guest, phase: Phase) -> Change {
    let wanted = async {
        loop {
            let change = changes.recv().await.unwrap();
            if change.workspace.as_str() == guest.id && change.phase == phase {
                return change;
            }
        }
    };
    let waited = timeout(PATIENCE, wanted).await;
    waited.unwrap_or_else(|_| panic!("{} never became {phase}", guest.id))
}

/// Asserts that something took `least`, and not much more, also on a machine that is busy.
fn assert_on_time(took: Duration, least: Duration) {
    let most = least + Duration::from_secs(10);
    assert!((least..most).contains(&took), "{took:?} is not within {least:?} and {most:?}");
}
