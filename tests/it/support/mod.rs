//! A whole gateway for a test, on ports of its own, with a state directory of its own.

mod browser;
mod callee;
mod client;
mod dice;
pub(crate) mod endurance;
mod load;
mod origin;
pub(crate) mod pages;
mod program;
mod tls;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use frostgate::app::App;
use frostgate::config::{self, Config, DockerUse};
use frostgate::lifecycle::Workspace;
use frostgate::model::{
    FreezeMode, Phase, PolicyOverrides, Project, ProjectId, Runs, Spec, WorkspaceId,
};
use tokio::time::{Instant, sleep};

pub(crate) use browser::{Browser, Habits, PLAIN_NAME};
pub(crate) use callee::{Seen, callee, next, serve as serve_calls};
pub(crate) use client::{Client, Reply, get, navigate};
pub(crate) use dice::Dice;
pub(crate) use load::Load;
pub(crate) use origin::{Connection, Origin, Received, ok};
pub(crate) use program::{Program, Setup};
pub(crate) use tls::{Authority, gullible, secure, tls, try_tls};

use crate::fixture;

/// How long a test waits for what must come about.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway; its workspaces and its state go with it.
pub(crate) struct Gateway {
    app: Option<App>,
    state_dir: PathBuf,
    remove_state: bool,
}

impl Gateway {
    /// A gateway with what `configure` says, on top of ports and directories for tests.
    pub(crate) async fn start(configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(unique_state_dir());
        configure(&mut config);
        Self::start_as(config).await
    }

    pub(crate) async fn start_as(config: Config) -> Self {
        let state_dir = config.state_dir.clone();
        let app = App::start(config).await.unwrap();
        Self { app: Some(app), state_dir, remove_state: true }
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    pub(crate) fn public(&self) -> SocketAddr {
        self.app().public_addresses()[0]
    }

    pub(crate) fn tls(&self) -> SocketAddr {
        self.app().tls_addresses()[0]
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.app().admin_address()
    }

    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.state_dir.join("token")).unwrap().trim().to_owned()
    }

    pub(crate) fn state_dir(&self) -> &std::path::Path {
        &self.state_dir
    }

    pub(crate) fn workspace(&self, id: &str) -> Arc<Workspace> {
        self.app().registry().get(id).unwrap()
    }

    pub(crate) fn phase(&self, id: &str) -> Phase {
        self.workspace(id).view().phase
    }

    /// A GET of a workspace, over a connection of its own.
    pub(crate) async fn get(&self, id: &str, path: &str) -> Reply {
        get(self.public(), &format!("{id}.localhost"), path).await
    }

    /// A gateway in front of one upstream, `alice`.
    pub(crate) async fn before(origin: &Origin) -> Self {
        Self::start(|config| upstream(config, "alice", origin.address)).await
    }

    /// Waits until nobody is inside a workspace or waits at its gate.
    pub(crate) async fn until_empty(&self, id: &str, after: &str) {
        let is_empty = || {
            let view = self.workspace(id).view();
            (view.inside, view.tunnels, view.held) == (0, 0, 0)
        };
        until(&format!("{id} is empty after {after}"), is_empty).await;
    }

    /// Waits until the workspace is in that phase.
    pub(crate) async fn until(&self, id: &str, phase: Phase) {
        let deadline = Instant::now() + PATIENCE;
        while self.phase(id) != phase {
            let view = self.workspace(id).view();
            assert!(Instant::now() < deadline, "waited in vain until {id} is {phase}: {view:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// A call of the admin API with the admin's token.
    pub(crate) async fn call(&self, method: &str, path: &str) -> Reply {
        let mut client = Client::connect(self.admin()).await;
        let token = self.token();
        client
            .send(format!(
                "{method} {path} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {token}\r\n\
                 Content-Length: 0\r\n\r\n"
            ))
            .await;
        client.reply().await
    }

    /// The same with a body of that kind.
    pub(crate) async fn send(&self, line: &str, kind: &str, body: &str) -> Reply {
        let mut client = Client::connect(self.admin()).await;
        let (token, length) = (self.token(), body.len());
        client
            .send(format!(
                "{line} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        client.reply().await
    }

    /// Ends as a crash would: nothing is drained, and workspaces are left alone.
    pub(crate) async fn crash(mut self) -> PathBuf {
        self.remove_state = false;
        drop(self.app.take());
        std::mem::take(&mut self.state_dir)
    }

    /// Removes the workspaces and stops.
    pub(crate) async fn stop(mut self) {
        let app = self.app.take().unwrap();
        app.remove_processes().await;
        app.stop().await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.remove_state && self.app.is_none() {
            drop(std::fs::remove_dir_all(&self.state_dir));
        }
    }
}

/// A configuration for tests: two workers, ports of the system's choice, no Docker.
pub(crate) fn config(state_dir: PathBuf) -> Config {
    let mut config = Config { state_dir, ..Config::default() };
    config.listen.public = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.listen.admin = SocketAddr::from(([127, 0, 0, 1], 0));
    config.listen.workers = 2;
    config.listen.drain_grace = Duration::from_secs(2);
    config.docker.enable = DockerUse::Never;
    config
}

pub(crate) fn unique_state_dir() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("frostgate-it-{}-{number}", std::process::id()))
}

/// Adds the test workspace as a local process of that id.
pub(crate) fn process(
    config: &mut Config,
    id: &str,
    mode: FreezeMode,
    idle: Duration,
    environment: &[(&str, &str)],
) {
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    add(
        config,
        id,
        Spec { environment: environment.collect(), ..Spec::new(local_process()) },
        PolicyOverrides {
            inactivity_timeout: Some(idle),
            freeze_mode: Some(mode),
            ..PolicyOverrides::default()
        },
    );
}

/// Adds a local process that passes everything on to `origin`, so that the test is the workspace,
/// and it can be frozen all the same.
pub(crate) fn relay(config: &mut Config, id: &str, mode: FreezeMode, idle: Duration, to: &Origin) {
    process(config, id, mode, idle, &[("RELAY_TO", &to.address.to_string())]);
}

/// The test workspace as a local process.
pub(crate) fn local_process() -> Runs {
    let argv = vec![fixture::binary().to_str().unwrap().to_owned()];
    Runs::Command { argv, directory: None }
}

/// Adds a project.
pub(crate) fn project(config: &mut Config, id: &str, runs: Runs) {
    let name = format!("The {id}");
    let project =
        Project { name, spec: Spec::new(runs).into(), policy: PolicyOverrides::default() };
    config.projects.insert(ProjectId::parse(id).unwrap(), project);
}

/// Adds a fixed upstream.
pub(crate) fn upstream(config: &mut Config, id: &str, address: SocketAddr) {
    let spec = Spec::new(Runs::Upstream(address.to_string()));
    add(config, id, spec, PolicyOverrides::default());
}

pub(crate) fn add(config: &mut Config, id: &str, spec: Spec, policy: PolicyOverrides) {
    let (id, spec, policy) = (WorkspaceId::parse(id).unwrap(), spec.into(), policy.into());
    config.workspaces.insert(id, config::Workspace { project: None, spec, policy });
}

/// Waits until `condition` holds, and says what didn't if it never does.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Says why a test does nothing.
pub(crate) fn skipped(why: &str) {
    // Not `println!`: the harness would swallow it.
    let line = format!("SKIPPED: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
