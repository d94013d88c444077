//! The whole program, put together: the only place where the parts meet the configuration.
//!
//! The control plane (workspaces' tasks, drivers, reconciliation) runs on the runtime that
//! [`App::start`] is called on. The data plane is one thread per core; the admin listener has a
//! thread to itself, so that no call of the API can hold up a request.

mod certificates;
mod data_plane;
mod sockets;

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{self, CHECK_IN_PATH, Failures, Keyring, Peer};
use crate::clock::Clock;
use crate::config::{self, Config, DockerAddress, DockerUse};
use crate::driver::Driver;
use crate::driver::docker::{self, Docker};
use crate::driver::process::{self, Process};
use crate::driver::upstream::Upstream;
use crate::lifecycle::check_in::CheckInKey;
use crate::lifecycle::create::{self, Creator};
use crate::lifecycle::reconcile::Reconciler;
use crate::lifecycle::registry::Newcomer;
use crate::lifecycle::slots::Capacity;
use crate::lifecycle::{self, Change, Registry};
use crate::listen::tls::{Certificates, Tls};
use crate::listen::{self, Ends, Listener, Serve};
use crate::model::{Policy, PolicyOverrides, PublicUrl};
use crate::proxy::{self, Body, Elsewhere, Proxy, Redirect};
use crate::secrets::{self, SecretError};
use crate::store::{Origin, Sqlite, Store, StoreError};
use crate::token::Token;
use data_plane::Plan;
use sockets::{Addresses, Sockets};

/// Connections to the admin listener at a time: people, scripts and dashboards of one team.
const ADMIN_CONNECTIONS_MAX: usize = 1_000;
/// The rest of a drain: what is closed after the grace needs `data_plane::CLOSE_MAX` to be gone, and
/// its thread a moment.
const DRAIN_SLACK: Duration = Duration::from_secs(3);

/// How long to wait for another Frostgate to let go of the state directory, and how often to look.
const STORE_FREE_MAX: Duration = Duration::from_secs(15);
const STORE_FREE_PAUSE: Duration = Duration::from_millis(50);

/// The running program.
pub struct App {
    registry: Arc<Registry>,
    addresses: Addresses,
    /// `None`: nothing speaks TLS.
    certificates: Option<Arc<Certificates>>,
    draining: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    /// The reconcilers, and who keeps the certificates up to date.
    followers: JoinSet<()>,
    drain_grace: Duration,
}

impl App {
    /// Binds every listener and starts serving. Returns once all ports are bound.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        secrets::make_state_dir(&config.state_dir)?;
        secrets::read_or_make(&config.token_file(), |random| Token::new(random).text().to_owned())?;
        let workers = match config.listen.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let certificates = certificates::open(&config)?.map(Arc::new);
        let sockets = Sockets::bind(&config.listen, workers)?;
        let addresses = sockets.addresses()?;
        let public_url = public_url(&config, &addresses);

        let store = open_store(&config.state_dir).await?;
        let options = lifecycle_options(&config, &addresses)?;
        let keyring =
            Keyring::open(config.token_file(), config.tokens.clone(), store.clone()).await?;
        let registry = Registry::open(options, store, Handle::current()).await?;
        let drivers = Drivers::make(&config)?;
        drivers.check(&config).await?;
        let policy = Arc::new(config.policy.clone());
        let creator = Arc::new(creator(&config, &registry, &drivers));
        add_configured(&config, &policy, &registry, &creator)?;
        creator.restore();
        let mut followers = JoinSet::new();
        for driver in drivers.all() {
            let mut reconciler = Reconciler::new(registry.clone(), driver, policy.clone());
            reconciler.take_stock().await;
            followers.spawn(reconciler.follow());
        }

        let mut checks = Vec::new();
        if let Some(certificates) = &certificates {
            followers.spawn(certificates::follow(certificates.clone()));
            checks.push(certificates::check(certificates.clone()));
        }
        let context = api::Context {
            registry: registry.clone(),
            creator,
            keyring: Arc::new(keyring),
            failures: Arc::new(Failures::default()),
            trusted_proxies: config.routing.trusted_proxies.clone().into(),
            public_url: Arc::new(public_url),
            checks: checks.into(),
        };
        let (draining, drained) = watch::channel(false);
        let mut app = Self {
            registry,
            addresses,
            certificates,
            draining,
            threads: Vec::new(),
            followers,
            drain_grace: config.listen.drain_grace,
        };
        app.start_threads(&config, context, sockets, drained)?;
        Ok(app)
    }

    fn start_threads(
        &mut self,
        config: &Config,
        context: api::Context,
        sockets: Sockets,
        draining: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let tls = self.certificates.clone().map(Tls::new).transpose()?;
        let admin_tls = tls.clone().filter(|_| config.listen.admin_tls);
        let listeners = sockets.into_listeners(tls, admin_tls);
        self.start_data_plane(config, &context, listeners.workers, &draining)?;
        self.start_admin(config, context, listeners.admin, draining)
    }

    fn start_data_plane(
        &mut self,
        config: &Config,
        context: &api::Context,
        workers: Vec<Vec<Listener>>,
        draining: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let elsewhere = elsewhere(context, config.routing.admin_host.clone());
        let options = proxy_options(config, &context.public_url)?;
        let connections_max = config.listen.connections_max.div_ceil(workers.len().max(1));
        for (number, listeners) in workers.into_iter().enumerate() {
            let plan = Plan {
                name: format!("worker-{number}"),
                listeners,
                options: listen_options(config),
                connections_max,
                draining: draining.clone(),
                grace: config.listen.drain_grace,
            };
            let (registry, options) = (self.registry.clone(), options.clone());
            let elsewhere = elsewhere.clone();
            self.threads.push(data_plane::start(plan, move |tunnels| {
                Proxy::new(registry, options, elsewhere, tunnels)
            })?);
        }
        Ok(())
    }

    fn start_admin(
        &mut self,
        config: &Config,
        context: api::Context,
        listener: Listener,
        draining: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let plan = Plan {
            name: "admin".to_owned(),
            listeners: vec![listener],
            options: listen_options(config),
            connections_max: ADMIN_CONNECTIONS_MAX,
            draining,
            grace: config.listen.drain_grace,
        };
        let router = api::admin(context);
        self.threads.push(data_plane::start(plan, move |_| Rc::new(Admin { router }))?);
        Ok(())
    }

    /// The certificates of a configuration, if they can be used; `None`: it has no TLS.
    pub fn certificates(config: &Config) -> anyhow::Result<Option<Certificates>> {
        certificates::open(config)
    }

    /// Where end users arrive.
    pub fn public_addresses(&self) -> &[SocketAddr] {
        &self.addresses.public
    }

    /// Where they arrive by TLS.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.addresses.tls
    }

    /// Where the API is served.
    pub fn admin_address(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// Has the certificates read again, whether they have changed or not. Those that can't be used
    /// are told in the log, and leave what was there before. Blocks on the disk.
    pub fn reload_certificates(&self) {
        if let Some(certificates) = &self.certificates {
            certificates.reload();
        }
    }

    /// All workspaces.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// What happens, as it happens.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.registry.changes()
    }

    /// Accepts no more, lets what is under way end within the grace, and stops. Workspaces are
    /// left as they are.
    pub async fn stop(mut self) {
        self.draining.send_replace(true);
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let name = thread.thread().name().unwrap_or_default().to_owned();
                if thread.join().is_err() {
                    tracing::error!("the thread {name} ended in a panic");
                }
            }
        });
        if tokio::time::timeout(self.drain_grace + DRAIN_SLACK, joined).await.is_err() {
            tracing::warn!("some threads did not end in time");
        }
        self.followers.shutdown().await;
        self.registry.close().await;
    }

    /// Removes every workspace that is a local process, and what it has.
    pub async fn remove_processes(&self) {
        let all = self.registry.all();
        let ours = all.into_iter().filter(|workspace| workspace.driver_name() == "process");
        let mut removals: JoinSet<()> = ours
            .map(|workspace| async move {
                if let Err(error) = workspace.remove().await {
                    tracing::warn!(workspace = %workspace.id(), %error, "could not remove it");
                }
            })
            .collect();
        while removals.join_next().await.is_some() {}
    }
}

/// Opens the store, once a Frostgate that is just ending there has let go of it.
async fn open_store(state_dir: &Path) -> anyhow::Result<Arc<dyn Store>> {
    let deadline = Instant::now() + STORE_FREE_MAX;
    let mut said = false;
    loop {
        let state_dir = state_dir.to_owned();
        match tokio::task::spawn_blocking(move || Sqlite::open(&state_dir)).await? {
            Ok(store) => return Ok(Arc::new(store)),
            Err(error @ StoreError::InUse { .. }) if Instant::now() < deadline => {
                if !std::mem::replace(&mut said, true) {
                    let limit = STORE_FREE_MAX.as_secs();
                    tracing::warn!(%error, "waiting {limit} s at most for the other one to end");
                }
                tokio::time::sleep(STORE_FREE_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What runs workspaces here.
struct Drivers {
    process: Arc<dyn Driver>,
    upstream: Arc<dyn Driver>,
    docker: Option<Arc<dyn Driver>>,
}

impl Drivers {
    fn make(config: &Config) -> anyhow::Result<Self> {
        let process = Process::open(process::Options {
            state_dir: config.state_dir.join("process"),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            freezer: match config.process.freezer {
                config::Freezer::Auto => process::Freezer::Auto,
                config::Freezer::Cgroup => process::Freezer::Cgroup,
                config::Freezer::Signal => process::Freezer::Signal,
            },
        })?;
        let docker = match config.docker.enable {
            DockerUse::Never => None,
            DockerUse::Auto if !an_engine_is_likely(config) => None,
            DockerUse::Auto | DockerUse::Always => Some(connect_docker(config)?),
        };
        Ok(Self { process: Arc::new(process), upstream: Arc::new(Upstream::new()), docker })
    }

    /// An engine that must be there, is.
    async fn check(&self, config: &Config) -> anyhow::Result<()> {
        if let (DockerUse::Always, Some(docker)) = (config.docker.enable, &self.docker) {
            docker.list().await.context(
                "docker.enable is true, but its engine does not answer; start it, or set \
                 docker.socket, or docker.enable to \"auto\"",
            )?;
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = Arc<dyn Driver>> {
        let always = [self.process.clone(), self.upstream.clone()];
        always.into_iter().chain(self.docker.clone())
    }
}

fn creator(config: &Config, registry: &Arc<Registry>, drivers: &Drivers) -> Creator {
    let options = create::Options {
        projects: config.projects.clone(),
        policy: Arc::new(Policy { storage: config.api.storage, ..config.policy.clone() }),
        inline_specs: config.api.inline_specs,
    };
    Creator::new(registry.clone(), drivers.all().collect(), options)
}

fn add_configured(
    config: &Config,
    policy: &Arc<Policy>,
    registry: &Arc<Registry>,
    creator: &Creator,
) -> anyhow::Result<()> {
    for (id, workspace) in &config.workspaces {
        let driver = creator.driver_for(&workspace.spec.runs);
        registry.add(Newcomer {
            id: id.clone(),
            spec: workspace.spec.clone(),
            policy: workspace.policy.applied_to(policy),
            own_policy: PolicyOverrides::default(),
            driver: driver.with_context(|| format!("workspace {id} can't be run"))?,
            origin: Origin::Config,
            project: workspace.project.clone(),
        })?;
    }
    Ok(())
}

/// Whether somebody named an engine, or there is a socket where it usually is.
fn an_engine_is_likely(config: &Config) -> bool {
    let named = config.docker.socket.is_some() || std::env::var_os("DOCKER_HOST").is_some();
    named || std::path::Path::new(docker::DEFAULT_SOCKET).exists()
}

fn connect_docker(config: &Config) -> anyhow::Result<Arc<dyn Driver>> {
    let docker = Docker::connect(docker::Options {
        socket: config.docker.socket.clone(),
        address: match config.docker.address {
            DockerAddress::Container => docker::Address::Container,
            DockerAddress::Published => docker::Address::Published,
        },
        network: config.docker.network.clone(),
        scope: config.docker.scope.clone(),
    })?;
    Ok(Arc::new(docker))
}

/// Where end users find workspaces, as far as we can tell: HTTPS where we speak it.
fn public_url(config: &Config, addresses: &Addresses) -> PublicUrl {
    let (secure, all) = match addresses.tls.as_slice() {
        [] => (false, addresses.public.as_slice()),
        tls => (true, tls),
    };
    let port = all.first().map_or(PublicUrl::usual_port(secure), SocketAddr::port);
    let ours = PublicUrl { secure, domain: config.routing.domain.clone(), port };
    config.routing.public_url.clone().unwrap_or(ours)
}

fn lifecycle_options(config: &Config, addresses: &Addresses) -> anyhow::Result<lifecycle::Options> {
    let key_file = config.state_dir.join("check-in.key");
    let key = secrets::read_or_make(&key_file, |random| secrets::hex(&random))?;
    let key = secrets::from_hex(&key).ok_or(SecretError::Damaged { path: key_file })?;
    Ok(lifecycle::Options {
        domain: config.routing.domain.clone(),
        held_max: config.limits.held_max,
        held_per_workspace_max: config.limits.held_per_workspace_max,
        capacity: Capacity {
            slots: Some(config.limits.slots).filter(|slots| *slots > 0),
            memory: Some(config.limits.memory_budget).filter(|bytes| *bytes > 0),
        },
        memory_assumed: config.limits.memory_assumed,
        memory_low: Some(config.limits.memory_low).filter(|bytes| *bytes > 0),
        starts_max: config.limits.starts_max,
        check_in_key: CheckInKey::new(&key),
        public_port: addresses.public.first().map_or(0, SocketAddr::port),
        clock: Clock::MACHINE,
    })
}

fn listen_options(config: &Config) -> listen::Options {
    listen::Options {
        first_byte_timeout: config.listen.first_byte_timeout,
        handshake_timeout: config.listen.handshake_timeout,
        header_timeout: config.listen.header_timeout,
    }
}

fn proxy_options(config: &Config, public_url: &PublicUrl) -> anyhow::Result<proxy::Options> {
    let mut instance = [0; 4];
    getrandom::fill(&mut instance).context("the system has no random bytes")?;
    let instance = u32::from_ne_bytes(instance);
    let redirect = Redirect {
        port: public_url.port,
        domain: config.routing.domain.clone(),
        // Workspaces report by plain HTTP, to an address that no certificate is for.
        except: CHECK_IN_PATH,
    };
    Ok(proxy::Options {
        paths: config.routing.paths,
        admin_host: config.routing.admin_host.clone(),
        trusted_proxies: config.routing.trusted_proxies.clone(),
        redirect: config.tls.redirect.then_some(redirect),
        hsts: config.tls.hsts,
        connect_timeout: config.upstream.connect_timeout,
        response_timeout: config.upstream.response_timeout,
        idle_per_workspace_max: config.upstream.idle_per_workspace_max,
        pseudonym: format!("frostgate-{instance:08x}"),
    })
}

/// What the public listener serves on hosts that are no workspace's: check-ins, and, where the
/// host is the admin's, the whole API.
fn elsewhere(context: &api::Context, admin_host: Option<String>) -> Elsewhere {
    let admin = api::admin(context.clone());
    let check_in_only = api::check_in_only(context.clone());
    Arc::new(move |peer, request| {
        let is_admin = admin_host.as_deref().is_some_and(|host| proxy::is_for_host(&request, host));
        let router = if is_admin { admin.clone() } else { check_in_only.clone() };
        Box::pin(async move {
            let response = call(router, peer, request).await;
            response.map(|body| Body::Other(body.map_err(Into::into).boxed_unsync()))
        })
    })
}

async fn call(
    mut router: axum::Router,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<axum::body::Body> {
    let mut request = request.map(axum::body::Body::new);
    request.extensions_mut().insert(Peer(peer));
    match tower_service::Service::call(&mut router, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The admin listener.
struct Admin {
    router: axum::Router,
}

impl Serve for Admin {
    type Client = Ends;
    type Body = axum::body::Body;

    fn meet(&self, ends: Ends) -> Ends {
        ends
    }

    async fn answer(
        self: Rc<Self>,
        ends: Rc<Ends>,
        request: Request<Incoming>,
    ) -> Response<Self::Body> {
        call(self.router.clone(), ends.peer, request).await
    }

    /// Calls are answered in a moment, or wait for what the end of the program ends as well.
    fn close(&self) {}
}
