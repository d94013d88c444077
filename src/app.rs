//! The whole program, put together: the only place where the parts meet the configuration.
//!
//! The control plane (workspaces' tasks, drivers, reconciliation) runs on the runtime that
//! [`App::start`] is called on. The data plane is one thread per core; the admin listener has a
//! thread to itself, so that no call of the API can hold up a request.

mod access_log;
mod admin_socket;
mod certificates;
mod data_plane;
mod drivers;
mod files;
mod handover;
mod pulse;
mod reload;
mod serving;
mod settings;
mod sockets;
mod waiting_page;

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{Keyring, ReloadError, Reloaded};
use crate::config::{Config, TOKEN_FILE};
use crate::driver::docker::Docker;
use crate::lifecycle::reconcile::Reconciler;
use crate::lifecycle::{Change, Registry};
use crate::listen::tls::{Certificates, Tls};
use crate::listen::{Clients, Listener};
use crate::proxy::{Proxy, Template};
use crate::secrets;
use crate::store::{Sqlite, Store, StoreError};
use crate::token::Token;
use admin_socket::SocketFile;
use data_plane::Plan;
use drivers::Drivers;
use handover::{Door, Leases};
use reload::{Parts, Reloader};
use serving::{Admin, Public};
use sockets::{Addresses, Sockets};

pub use handover::{Offer, Successor};
pub use pulse::Pulse;
pub use reload::Source;
pub use sockets::{Inherited, Role};

/// Connections to the admin listener at a time: people, scripts and dashboards of one team.
const ADMIN_CONNECTIONS_MAX: usize = 1_000;
/// The rest of a drain: what is closed after the grace needs `data_plane::CLOSE_MAX` to be gone, and
/// its thread a moment.
const DRAIN_SLACK: Duration = Duration::from_secs(3);

/// How long connections that were accepted may take to say what they want, when all is handed over;
/// more than `listen` gives them. What comes later and needs a wake is refused.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long wakes and freezes that are under way then may take to be finished.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// How long to wait for another Frostgate to let go of the state directory, and how often to look.
const STORE_FREE_MAX: Duration = Duration::from_secs(15);
const STORE_FREE_PAUSE: Duration = Duration::from_millis(50);

/// The running program.
pub struct App {
    reloader: Arc<Reloader>,
    draining: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    /// Whether they do something.
    pulse: Pulse,
    /// The reconcilers, and who keeps the certificates up to date.
    followers: JoinSet<()>,
    /// `None`: nobody can take over.
    door: Option<Door>,
    /// By which admins on this machine find us; goes with us.
    _admin_socket: Option<SocketFile>,
}

/// How a program begins.
#[derive(Default)]
pub struct Start {
    /// Where the configuration can be read again; `None`: nowhere.
    pub source: Option<Source>,
    /// Sockets that are bound already.
    pub inherited: Vec<Inherited>,
    /// Whom it takes over from.
    pub offer: Option<Offer>,
}

impl App {
    /// Binds every listener and starts serving. Returns once all ports are bound.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        Self::start_as(config, Start::default()).await
    }

    /// The same, and goes on from what is there already.
    pub async fn start_as(config: Config, start: Start) -> anyhow::Result<Self> {
        let Start { source, mut inherited, mut offer } = start;
        secrets::make_state_dir(&config.state_dir)?;
        secrets::read_or_make(&config.token_file(), |random| Token::new(random).text().to_owned())?;
        let workers = match config.listen.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let certificates = certificates::open(&config)?.map(Arc::new);
        inherited.extend(offer.iter_mut().flat_map(Offer::take_sockets));
        let sockets = Sockets::bind(&config.listen, workers, inherited)?;
        let (addresses, copies) = (sockets.addresses()?, sockets.copies()?);

        let process_before = offer.as_ref().and_then(Offer::process);

        // From here on it is ours to decide, and nobody else's.
        let predecessor = match offer {
            Some(offer) => Some(offer.accept().await),
            None => None,
        };
        let store = open_store(&config.state_dir).await?;
        let (socket_file, admin_socket) =
            SocketFile::open_configured(&config, process_before)?.unzip();
        let options = settings::lifecycle_options(&config, &addresses)?;
        let keyring =
            Keyring::open(config.token_file(), config.tokens.clone(), store.clone()).await?;
        let registry = Registry::open(options, store, Handle::current()).await?;
        let drivers = Drivers::make(&config, registry.metrics())?;
        drivers.check(&config).await?;
        let creator = Arc::new(settings::creator(&config, &registry, &drivers));
        add_configured(&config, &registry, &drivers)?;
        creator.restore();
        let (draining, drained) = watch::channel(false);
        let parts = Parts {
            registry,
            drivers,
            keyring: Arc::new(keyring),
            certificates,
            certificates_moved: Arc::new(Notify::new()),
            page: Arc::new(Template::open(config.waiting_page.directory.clone())),
            addresses,
            access_log: access_log::InUse::open(config.log.access.as_deref())?,
            clients: Clients::new(config.listen.connections_per_client_max),
            pseudonym: settings::pseudonym()?,
            state_dir: config.state_dir.clone(),
            draining: drained.clone(),
            source,
        };
        let reloader = Reloader::new(config.clone(), creator, parts);
        let (threads, followers) = (Vec::new(), JoinSet::new());
        let pulse = Pulse::new(drained.clone());
        let mut app = Self {
            reloader,
            draining,
            threads,
            pulse,
            followers,
            door: None,
            _admin_socket: socket_file,
        };
        app.follow().await;
        app.start_threads(&config, sockets, admin_socket, &drained)?;
        if let Some(predecessor) = predecessor {
            app.followers.spawn(predecessor.look_after(app.registry().clone()));
        }
        app.door = Door::open(&config.state_dir, copies)
            .inspect_err(|error| tracing::warn!("nobody can take over from us: {error:#}"))
            .ok();
        Ok(app)
    }

    /// Takes in what runs already, and follows what happens outside.
    async fn follow(&mut self) {
        let parts = self.reloader.parts();
        for driver in parts.drivers.all() {
            let policies = self.reloader.policies();
            let mut reconciler = Reconciler::new(parts.registry.clone(), driver, policies);
            reconciler.take_stock().await;
            self.followers.spawn(reconciler.follow());
        }
        if let Some(certificates) = parts.certificates.clone() {
            let moved = parts.certificates_moved.clone();
            self.followers.spawn(files::follow(certificates, moved));
        }
        if parts.page.directory().is_some() {
            self.followers.spawn(files::follow(parts.page.clone(), Arc::new(Notify::new())));
        }
    }

    fn start_threads(
        &mut self,
        config: &Config,
        sockets: Sockets,
        admin_socket: Option<UnixListener>,
        draining: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let certificates = self.reloader.parts().certificates.clone();
        let tls = certificates.map(Tls::new).transpose()?;
        let admin_tls = tls.clone().filter(|_| config.listen.admin_tls);
        let listeners = sockets.into_listeners(tls, admin_tls);
        let workers = listeners.workers.len().max(1);
        let connections_max = config.listen.connections_max.div_ceil(workers);
        for (number, listeners) in listeners.workers.into_iter().enumerate() {
            let plan = self.plan(format!("worker-{number}"), listeners, connections_max, draining);
            let (registry, seed) = (self.registry().clone(), settings::seed()?);
            self.threads.push(data_plane::start(plan, move |serving, tunnels| {
                let (options, elsewhere) = (serving.proxy.clone(), serving.elsewhere.clone());
                Public::new(Proxy::new(registry, options, elsewhere, tunnels, seed))
            })?);
        }
        let admin = vec![listeners.admin];
        let mut plan = self.plan("admin".to_owned(), admin, ADMIN_CONNECTIONS_MAX, draining);
        plan.local = admin_socket;
        self.threads.push(data_plane::start(plan, |serving, _| Admin::new(serving.admin.clone()))?);
        Ok(())
    }

    fn plan(
        &mut self,
        name: String,
        listeners: Vec<Listener>,
        connections_max: usize,
        draining: &watch::Receiver<bool>,
    ) -> Plan {
        let (serving, draining) = (self.reloader.serving(), draining.clone());
        let beat = self.pulse.beat();
        Plan { name, listeners, local: None, serving, connections_max, draining, beat }
    }

    /// The certificates of a configuration, if they can be used; `None`: it has no TLS.
    pub fn certificates(config: &Config) -> anyhow::Result<Option<Certificates>> {
        certificates::open(config)
    }

    /// The engine that a configuration wants, if one is likely to be there.
    pub fn engine(config: &Config) -> anyhow::Result<Option<Docker>> {
        drivers::engine(config)
    }

    /// Where end users arrive.
    pub fn public_addresses(&self) -> &[SocketAddr] {
        &self.addresses().public
    }

    /// Where they arrive by TLS.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.addresses().tls
    }

    /// Where the API is served.
    pub fn admin_address(&self) -> SocketAddr {
        self.addresses().admin
    }

    fn addresses(&self) -> &Addresses {
        &self.reloader.parts().addresses
    }

    /// Reads the configuration again, and the certificates, and applies them without closing a
    /// connection. Where there is anything wrong, everything stays as it was. That is told in the
    /// log as well.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.reloader.clone().reload().await
    }

    /// Has the certificates alone read again, whether they have changed or not. Those that can't be
    /// used are told in the log, and leave what was there before. Blocks on the disk.
    pub fn reload_certificates(&self) {
        if let Some(certificates) = &self.reloader.parts().certificates {
            certificates.reload();
        }
    }

    /// All workspaces.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.reloader.parts().registry
    }

    /// What happens, as it happens.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.registry().changes()
    }

    /// Where the API's token is.
    pub fn token_file(&self) -> PathBuf {
        self.reloader.parts().state_dir.join(TOKEN_FILE)
    }

    /// Whether its threads are alive, for whoever watches over them.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// How long the end may take, once it is asked for.
    pub fn stop_max(&self) -> Duration {
        self.reloader.serving().borrow().grace + DRAIN_SLACK + SETTLE_MAX
    }

    /// Waits until another Frostgate wants to take over. Cancel-safe.
    pub async fn successor(&self) -> Successor {
        match &self.door {
            Some(door) => door.knock().await,
            None => std::future::pending().await,
        }
    }

    /// Hands everything over. Returns when those inside have left, or had the grace for that; with
    /// a program that goes on in the place of this one, if the other one came to nothing.
    pub async fn hand_over(mut self, mut successor: Successor) -> anyhow::Result<Option<Self>> {
        let sockets = self.door.take().map(Door::into_sockets).unwrap_or_default();
        self.draining.send_replace(true);
        tokio::time::sleep(LAST_WORDS).await;
        self.registry().settle(SETTLE_MAX).await;
        self.followers.shutdown().await;
        self.registry().close().await;
        let registry = self.registry().clone();
        match successor.succeed(&registry).await {
            Ok(inside) => {
                drop(sockets);
                tokio::select! {
                    () = self.drained() => {}
                    () = async {
                        successor.keep_told(&registry, inside).await;
                        std::future::pending().await
                    } => {}
                }
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%error, "the other Frostgate came to nothing; going on");
                drop(successor);
                self.go_on(sockets).await.map(Some)
            }
        }
    }

    /// Begins anew with the same sockets, while those inside finish.
    async fn go_on(mut self, inherited: Vec<Inherited>) -> anyhow::Result<Self> {
        let source = self.reloader.parts().source.clone();
        let config = self.reloader.config().await;
        let app =
            Box::pin(Self::start_as(config, Start { source, inherited, offer: None })).await?;
        let leases = Leases::of(app.registry(), self.registry().visited());
        tokio::spawn(async move {
            self.drained().await;
            drop(leases);
        });
        Ok(app)
    }

    /// Accepts no more, lets what is under way end within the grace, and stops. Workspaces are
    /// left as they are.
    pub async fn stop(mut self) {
        if let Some(door) = self.door.take() {
            door.shut(&self.reloader.parts().state_dir);
        }
        self.draining.send_replace(true);
        self.drained().await;
        self.followers.shutdown().await;
        self.registry().close().await;
    }

    /// Waits until all threads have ended, which they do after the grace.
    async fn drained(&mut self) {
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let name = thread.thread().name().unwrap_or_default().to_owned();
                if thread.join().is_err() {
                    tracing::error!("the thread {name} ended in a panic");
                }
            }
        });
        let grace = self.reloader.serving().borrow().grace;
        if tokio::time::timeout(grace + DRAIN_SLACK, joined).await.is_err() {
            tracing::warn!("some threads did not end in time");
        }
    }

    /// Removes every workspace that is a local process, and what it has.
    pub async fn remove_processes(&self) {
        let all = self.registry().all();
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

fn add_configured(
    config: &Config,
    registry: &Arc<Registry>,
    drivers: &Drivers,
) -> anyhow::Result<()> {
    let policy = Arc::new(config.policy.clone());
    for (id, workspace) in &config.workspaces {
        let driver = drivers.for_spec(&workspace.spec);
        let driver = driver.with_context(|| format!("workspace {id} can't be run"))?;
        registry.add(settings::newcomer(id, workspace, &policy, driver))?;
    }
    Ok(())
}
