//! What people know who come from systems that freeze by self-report and by idle time: each
//! behaviour that they rely on, on a real engine, from the outside alone.
//!
//! The program serves port 80 of a network's own gateway, where reporter scripts post to, and what
//! is believed is what the engine tells.

#[path = "conformance/check_in.rs"]
mod check_in;
#[path = "conformance/freeze.rs"]
mod freeze;
#[path = "conformance/remove.rs"]
mod remove;
#[path = "conformance/restart.rs"]
mod restart;
#[path = "conformance/stop.rs"]
mod stop;
#[path = "conformance/wake.rs"]
mod wake;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::events::Events;
use crate::images::{Container, Engine, Network, unique};
use crate::support::{PATIENCE, Program, Reply, Setup};

/// What is too late, on a machine that is busy with something else.
const LATE: Duration = Duration::from_secs(5);

/// The program, and containers in a network of the test's own.
struct Town {
    engine: Engine,
    network: Network,
    program: Program,
    events: Events,
}

/// A workspace that a call has created.
struct Guest {
    id: String,
    container: Container,
}

impl Town {
    /// `configuration`: tables beside `[docker]` and the project.
    async fn start(engine: Engine, configuration: &str) -> Self {
        let network = Network::new(engine);
        let configuration = format!(
            "workers = 2\n\
             [docker]\nenable = true\nscope = \"{scope}\"\nnetwork = \"{network}\"\n\
             [projects.app]\nimage = \"{image}\"\nport = 80\nstop_grace = \"5s\"\n\
             drain_grace = \"500ms\"\nstop_hold_off = 0\n{configuration}",
            scope = unique("scope"),
            network = network.name,
            image = engine.image(),
        );
        let public = vec![SocketAddr::new(network.gateway, 80)];
        let setup = Setup { public, configuration, ..Setup::default() };
        let events = Events::listen(engine);
        Self { engine, network, program: Program::run(setup).await, events }
    }

    /// A workspace that runs.
    async fn guest(&self, policy: Value) -> Guest {
        self.guest_of("app", policy).await
    }

    /// One of another project.
    async fn guest_of(&self, project: &str, mut fields: Value) -> Guest {
        let id = unique("guest");
        let container = Container { name: format!("frostgate-{id}") };
        fields["project_id"] = json!(project);
        fields["id"] = json!(id);
        let reply = self.program.call("POST /api/v1/workspaces", &fields.to_string()).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        self.program.until(&id, "running").await;
        Guest { id, container }
    }

    /// How the API tells it.
    async fn told(&self, guest: &Guest) -> Value {
        let reply = self.program.call(&format!("GET /api/v1/workspaces/{}", guest.id), "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    async fn put(&self, guest: &Guest, verb: &str) -> Reply {
        self.program.call(&format!("PUT /api/v1/workspaces/{}/{verb}", guest.id), "").await
    }

    async fn patch(&self, guest: &Guest, fields: Value) {
        let line = format!("PATCH /api/v1/workspaces/{}", guest.id);
        let reply = self.program.call(&line, &fields.to_string()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    async fn boot(&self, guest: &Guest) -> String {
        let reply = self.program.get(&guest.id, "/boot").await;
        assert_eq!(reply.status, 200, "{reply:?}\n{}", self.program.log());
        reply.text()
    }

    /// Has a workspace report from inside, as its reporter script does: nobody visits it.
    fn reports(&self, guest: &Guest, form: &str) -> String {
        self.engine.docker(&["exec", &guest.container.name, "/workspace", "report", form])
    }

    /// How the engine says that it is; empty: it is gone.
    fn status(&self, guest: &Guest) -> String {
        let name = format!("name=^/{}$", guest.container.name);
        self.engine.docker(&["ps", "--all", "--filter", &name, "--format", "{{.State}}"])
    }

    async fn until_status(&self, guest: &Guest, status: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.status(guest) != status {
            let log = self.program.log();
            assert!(Instant::now() < deadline, "{} is never {status:?}:\n{log}", guest.id);
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The moments at which the engine did that with its container.
    fn moments(&self, guest: &Guest, event: &str) -> Vec<SystemTime> {
        self.events.moments(&guest.container.name, event)
    }

    /// From the last start of its container to its end, which is waited for.
    async fn lifetime(&self, guest: &Guest) -> Duration {
        self.until_status(guest, "exited").await;
        self.last(guest, "die").duration_since(self.last(guest, "start")).unwrap()
    }

    fn last(&self, guest: &Guest, event: &str) -> SystemTime {
        *self.moments(guest, event).last().unwrap_or_else(|| panic!("never a {event}"))
    }
}

fn assert_about(took: Duration, expected: Duration) {
    assert!((expected..expected + LATE).contains(&took), "{took:?} instead of {expected:?}");
}
