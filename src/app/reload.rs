//! A new configuration, applied while everything goes on.
//!
//! It is read and checked as a whole first, and applied only if nothing is wrong with it; what can't
//! be changed without a restart stays as it is, and that is told. One is applied at a time.
//!
//! What becomes of workspaces:
//!
//! - One that the file no longer has is not routed to any more, stopped as by an admin, and forgotten.
//!   Its container or directory is left alone, and what is on record of it too: when the file has it
//!   again, it goes on from there.
//! - One whose spec has changed has the new one from its next start on, and its hosts at once. One
//!   that another driver runs now is let go of and taken in anew.
//! - One whose policy has changed has the new one at once; what calls have changed of it stays.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::api::{
    self, Check, Failures, Followers, Health, Keyring, ReloadError, Reloaded, Sessions,
};
use crate::config::{self, Config, ConfigError};
use crate::dashboard::{self, Board};
use crate::driver::Driver;
use crate::lifecycle::{Creator, Registry, Workspace};
use crate::listen::Clients;
use crate::listen::tls::Certificates;
use crate::model::{Policy, WorkspaceId};
use crate::proxy::Template;

use super::access_log;
use super::certificates;
use super::drivers::Drivers;
use super::serving::{Serving, elsewhere};
use super::settings;
use super::sockets::Addresses;

/// Reads the configuration: file, environment and flags.
pub type Source = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// What a configuration is applied to.
pub(super) struct Parts {
    pub(super) registry: Arc<Registry>,
    pub(super) drivers: Drivers,
    pub(super) keyring: Arc<Keyring>,
    /// `None`: nothing speaks TLS.
    pub(super) certificates: Option<Arc<Certificates>>,
    /// Told when they are elsewhere.
    pub(super) certificates_moved: Arc<Notify>,
    /// What a page shows while its workspace wakes.
    pub(super) page: Arc<Template>,
    pub(super) addresses: Addresses,
    /// Who is connected to the public listeners.
    pub(super) clients: Arc<Clients>,
    /// Where requests are written down.
    pub(super) access_log: access_log::InUse,
    /// Our name in `Via`.
    pub(super) pseudonym: String,
    pub(super) state_dir: PathBuf,
    /// Turns true when no more is to be accepted.
    pub(super) draining: watch::Receiver<bool>,
    /// `None`: the configuration was made by a program.
    pub(super) source: Option<Source>,
}

/// What outlives a configuration, beside what it is applied to.
struct Lasting {
    failures: Arc<Failures>,
    sessions: Arc<Sessions>,
    followers: Arc<Followers>,
    board: Arc<Board>,
    checks: Arc<[Check]>,
}

/// Applies configurations.
pub(super) struct Reloader {
    parts: Parts,
    lasting: Lasting,
    serving: watch::Sender<Arc<Serving>>,
    policies: watch::Sender<Arc<Policy>>,
    state: tokio::sync::Mutex<State>,
    verdict: Arc<Mutex<Verdict>>,
    /// For the call that has this done.
    own: Weak<Self>,
}

struct State {
    /// What is in force.
    config: Config,
    /// Workspaces that are being let go of.
    releases: HashMap<WorkspaceId, JoinHandle<()>>,
}

/// What came of the last configuration.
#[derive(Default)]
struct Verdict {
    /// How many of its keys wait for a restart.
    needs_restart: usize,
    /// How many mistakes the last one had that was refused.
    mistakes: usize,
}

impl Reloader {
    /// `config` is in force already, as far as it concerns what is in `parts`.
    pub(super) fn new(config: Config, creator: Arc<Creator>, parts: Parts) -> Arc<Self> {
        let verdict = Arc::new(Mutex::new(Verdict::default()));
        let mut checks = vec![check(verdict.clone())];
        checks.extend(parts.certificates.clone().map(certificates::check));
        let board = Arc::new(Board::new(parts.registry.clone()));
        let (failures, sessions, followers) = Default::default();
        let lasting = Lasting { failures, sessions, followers, board, checks: checks.into() };
        let policies = watch::Sender::new(Arc::new(config.policy.clone()));
        Arc::new_cyclic(|reloader| {
            let context = context(&config, &parts, creator, &lasting, reloader);
            let serving = serving(&config, &parts, context, lasting.board.clone());
            let serving = watch::Sender::new(Arc::new(serving));
            let state = State { config, releases: HashMap::new() };
            let state = tokio::sync::Mutex::new(state);
            let own = reloader.clone();
            Self { parts, lasting, serving, policies, state, verdict, own }
        })
    }

    /// What is served, as it changes.
    pub(super) fn serving(&self) -> watch::Receiver<Arc<Serving>> {
        self.serving.subscribe()
    }

    /// The policy of workspaces that set nothing else, as it changes.
    pub(super) fn policies(&self) -> watch::Receiver<Arc<Policy>> {
        self.policies.subscribe()
    }

    /// The configuration that is in force.
    pub(super) async fn config(&self) -> Config {
        self.state.lock().await.config.clone()
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Reads the configuration and applies it. Whoever drops the future stops nothing.
    pub(super) async fn reload(self: Arc<Self>) -> Result<Reloaded, ReloadError> {
        let applied = tokio::spawn(async move {
            // Read in its turn, so that the last one that asks sees what is in the file then.
            let mut state = self.state.lock().await;
            let done = self.read_and_apply(&mut state).await;
            self.tell(&done);
            done
        });
        match applied.await {
            Ok(done) => done,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    async fn read_and_apply(&self, state: &mut State) -> Result<Reloaded, ReloadError> {
        let source = self.parts.source.clone().ok_or(ReloadError::NoSource)?;
        let read = tokio::task::spawn_blocking(move || {
            let config = source().map_err(|error| mistakes(&error))?;
            let certificates = certificates::open(&config);
            let certificates = certificates.map_err(|error| vec![format!("{error:#}")])?;
            Ok((config, certificates))
        });
        let read = read.await.unwrap_or_else(|error| Err(vec![error.to_string()]));
        let (wanted, certificates) = read.map_err(ReloadError::Invalid)?;
        let new = with_the_unchangeable_of(&state.config, &wanted);
        self.check(&new)?;
        let changed = state.config.changes(&new);
        self.apply(state, &new, certificates).await;
        state.config = new;
        Ok(Reloaded { changed, needs_restart: state.config.changes(&wanted) })
    }

    /// What only shows beside the workspaces that there are.
    fn check(&self, new: &Config) -> Result<(), ReloadError> {
        let mut wrong = Vec::new();
        for (id, workspace) in &new.workspaces {
            if let Err(error) = self.parts.drivers.for_spec(&workspace.spec) {
                wrong.push(format!("[workspaces.{id}] can't be run: {error}"));
            }
            if let Err(error) = self.parts.registry.check_free(id, &workspace.spec) {
                wrong.push(format!("[workspaces.{id}]: {error}"));
            }
        }
        // Last, for it is done by that.
        if wrong.is_empty()
            && let Err(error) = self.parts.access_log.follow(new.log.access.as_deref())
        {
            wrong.push(format!("log.access: {error:#}"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(ReloadError::Invalid(wrong)) }
    }

    async fn apply(&self, state: &mut State, new: &Config, certificates: Option<Certificates>) {
        let Parts { registry, drivers, keyring, .. } = &self.parts;
        if let (Some(ours), Some(new)) = (self.parts.certificates.clone(), certificates) {
            // It fails at the end of the program, when nobody needs them.
            drop(tokio::task::spawn_blocking(move || ours.follow(new)).await);
            self.parts.certificates_moved.notify_one();
        }
        keyring.configure(new.tokens.clone());
        self.parts.clients.change_max(new.listen.connections_per_client_max);
        registry.change_limits(&settings::limits(new));
        self.let_go(state, new);
        registry.change_domain(&new.routing.domain);
        self.change_workspaces(state, new).await;
        let created_policy = settings::created_policy(new);
        for workspace in registry.all().into_iter().filter(|workspace| workspace.is_created()) {
            rebase(&workspace, &created_policy).await;
        }
        self.policies.send_if_modified(|policy| {
            let differs = **policy != new.policy;
            *policy = Arc::new(new.policy.clone());
            differs
        });
        let creator = Arc::new(settings::creator(new, registry, drivers));
        let context = context(new, &self.parts, creator, &self.lasting, &self.own);
        let serving = serving(new, &self.parts, context, self.lasting.board.clone());
        self.serving.send_replace(Arc::new(serving));
    }

    /// Lets go of what is no longer configured.
    fn let_go(&self, state: &mut State, new: &Config) {
        state.releases.retain(|_, release| !release.is_finished());
        for id in state.config.workspaces.keys().filter(|id| !new.workspaces.contains_key(*id)) {
            if let Some(workspace) = self.configured(id) {
                tracing::info!(workspace = %id, "{id} is no longer configured: stopping it");
                let registry = self.parts.registry.clone();
                let release = tokio::spawn(async move { registry.release(&workspace).await });
                state.releases.insert(id.clone(), release);
            }
        }
    }

    async fn change_workspaces(&self, state: &mut State, new: &Config) {
        let policy = Arc::new(new.policy.clone());
        for (id, wanted) in &new.workspaces {
            // Checked before.
            let Ok(driver) = self.parts.drivers.for_spec(&wanted.spec) else { continue };
            match self.configured(id) {
                Some(known) if known.driver_name() == driver.name() => {
                    self.change(&known, wanted, &policy).await;
                }
                Some(known) => {
                    self.parts.registry.release(&known).await;
                    self.add(id, wanted, &policy, driver);
                }
                None => {
                    if let Some(release) = state.releases.remove(id) {
                        // A panic was told when it happened.
                        drop(release.await);
                    }
                    self.add(id, wanted, &policy, driver);
                }
            }
        }
    }

    async fn change(
        &self,
        known: &Arc<Workspace>,
        wanted: &config::Workspace,
        policy: &Arc<Policy>,
    ) {
        if known.blueprint().spec != wanted.spec
            && let Err(error) = self.parts.registry.change_spec(known, wanted.spec.clone()).await
        {
            tracing::error!(workspace = %known.id(), %error, "could not change a workspace");
        }
        rebase(known, &wanted.policy.applied_to(policy)).await;
    }

    fn add(
        &self,
        id: &WorkspaceId,
        wanted: &config::Workspace,
        policy: &Arc<Policy>,
        driver: Arc<dyn Driver>,
    ) {
        let newcomer = settings::newcomer(id, wanted, policy, driver);
        if let Err(error) = self.parts.registry.add(newcomer) {
            // Somebody was faster than our check.
            tracing::error!(workspace = %id, %error, "could not take in a workspace");
        }
    }

    fn configured(&self, id: &WorkspaceId) -> Option<Arc<Workspace>> {
        self.parts.registry.get(id.as_str()).filter(|workspace| workspace.is_configured())
    }

    fn tell(&self, done: &Result<Reloaded, ReloadError>) {
        let mut verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        match done {
            Ok(Reloaded { changed, needs_restart }) => {
                *verdict = Verdict { needs_restart: needs_restart.len(), mistakes: 0 };
                tracing::info!(?changed, "read the configuration again");
                if !needs_restart.is_empty() {
                    tracing::warn!(?needs_restart, "some of the configuration needs a restart");
                }
            }
            Err(error) => {
                if let ReloadError::Invalid(mistakes) = error {
                    verdict.mistakes = mistakes.len();
                }
                tracing::error!(%error, "the configuration before stays in force");
            }
        }
    }
}

/// The words for everybody: the mistakes themselves are for admins.
fn check(verdict: Arc<Mutex<Verdict>>) -> Check {
    Check::new(api::CONFIGURATION, move || {
        let verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner);
        match *verdict {
            Verdict { mistakes: 0, needs_restart: 0 } => Health::Good("in force".to_owned()),
            Verdict { mistakes: 0, needs_restart } => {
                let words = format!("in force, but for {needs_restart} that need a restart");
                Health::Degraded(words)
            }
            Verdict { mistakes, .. } => Health::Degraded(format!(
                "the last one that was read has mistakes ({mistakes}); the one before is in force"
            )),
        }
    })
}

fn mistakes(error: &ConfigError) -> Vec<String> {
    match error {
        ConfigError::Invalid { problems } => problems.iter().map(ToString::to_string).collect(),
        ConfigError::Unreadable { source, .. } => vec![format!("{error}: {source}")],
    }
}

/// The configuration that is wanted, short of what takes a restart.
fn with_the_unchangeable_of(now: &Config, wanted: &Config) -> Config {
    let mut new = wanted.clone();
    new.state_dir.clone_from(&now.state_dir);
    new.listen.public.clone_from(&now.listen.public);
    new.listen.tls.clone_from(&now.listen.tls);
    new.listen.admin = now.listen.admin;
    new.listen.admin_tls = now.listen.admin_tls;
    new.listen.admin_socket.clone_from(&now.listen.admin_socket);
    new.listen.workers = now.listen.workers;
    new.listen.connections_max = now.listen.connections_max;
    new.limits.memory_assumed = now.limits.memory_assumed;
    new.waiting_page = now.waiting_page.clone();
    new.docker = now.docker.clone();
    new.process = now.process.clone();
    for (id, workspace) in &mut new.workspaces {
        if let Some(known) = now.workspaces.get(id) {
            workspace.project.clone_from(&known.project);
        }
    }
    new
}

async fn rebase(workspace: &Arc<Workspace>, base: &Arc<Policy>) {
    if workspace.base_policy() != *base {
        // Who is gone meanwhile needs no policy.
        drop(workspace.rebase_policy(base.clone()).await);
    }
}

fn context(
    config: &Config,
    parts: &Parts,
    creator: Arc<Creator>,
    lasting: &Lasting,
    reloader: &Weak<Reloader>,
) -> api::Context {
    let reloader = reloader.clone();
    let public_url = settings::public_url(config, &parts.addresses);
    api::Context {
        registry: parts.registry.clone(),
        creator,
        keyring: parts.keyring.clone(),
        failures: lasting.failures.clone(),
        sessions: lasting.sessions.clone(),
        hosts: settings::hosts(config, &public_url).into(),
        trusted_proxies: config.routing.trusted_proxies.clone().into(),
        public_url: Arc::new(public_url),
        followers: lasting.followers.clone(),
        draining: parts.draining.clone(),
        metrics_per_workspace: config.metrics.per_workspace,
        checks: lasting.checks.clone(),
        reload: Arc::new(move || {
            let reloader = reloader.upgrade();
            Box::pin(async move {
                // It is gone at the end of the program.
                reloader.ok_or(ReloadError::NoSource)?.reload().await
            })
        }),
    }
}

fn serving(config: &Config, parts: &Parts, context: api::Context, board: Arc<Board>) -> Serving {
    let dashboard = dashboard::routes(settings::dashboard_options(&context, board));
    let check_in_only = api::check_in_only(context.clone());
    let (listen, public_url) =
        (settings::listen_options(config, parts), context.public_url.clone());
    let admin = api::admin(context).merge(dashboard);
    Serving {
        listen,
        proxy: settings::proxy_options(config, &public_url, parts),
        elsewhere: elsewhere(check_in_only, admin.clone(), config.routing.admin_host.clone()),
        admin,
        grace: config.listen.drain_grace,
    }
}
