//! What the operator wants: `frostgate.toml`, the environment and the flags, as one [`Config`].
//!
//! Later sources win: defaults, then the file, then `FROSTGATE_…` variables, then flags. Everything
//! is read into the types that the rest of the program uses ([`Policy`], [`Spec`], addresses), so
//! that nothing inside has to doubt it. All mistakes are told at once, each with the place where it
//! stands: who has five typos wants to hear of five.
//!
//! - `tree`: the sources, put on top of each other; every value remembers where it came from
//! - `section`: reads the keys of one table and notes what is wrong with them
//! - `values`: what each kind of value accepts
//! - `read`: the sections, key by key
//! - `check`: what only shows when all values are known
//! - `print`: the effective configuration as TOML
//! - `changes`: what differs between two

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::{
    FrozenStorage, Policy, PolicyOverrides, Project, ProjectId, PublicUrl, Spec, WorkspaceId,
};
use crate::token::{Grant, TokenName};

mod changes;
mod check;
mod print;
mod read;
mod section;
mod tree;
mod values;

/// Where the state is kept when Frostgate runs as root.
const SYSTEM_STATE_DIR: &str = "/var/lib/frostgate";

/// Where certificates are, beside the configuration.
const CERTIFICATES_DIR: &str = "certs";

/// The admin API's token, in the state directory.
pub const TOKEN_FILE: &str = "token";

/// The admin API's own socket, in the state directory.
const ADMIN_SOCKET_FILE: &str = "admin.sock";

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where tokens, records and the workspaces' own directories are kept.
    pub state_dir: PathBuf,
    /// The listeners.
    pub listen: Listen,
    /// Certificates, and who has to come by TLS.
    pub tls: Tls,
    /// How requests find their workspace.
    pub routing: Routing,
    /// What those see who open a workspace that is not ready yet.
    pub waiting_page: WaitingPage,
    /// What is written down of requests.
    pub log: Log,
    /// What Prometheus is told.
    pub metrics: Metrics,
    /// The connections to workspaces.
    pub upstream: Upstream,
    /// How much may wait.
    pub limits: Limits,
    /// The policy of every workspace that sets nothing else.
    pub policy: Policy,
    /// What the API may do.
    pub api: Api,
    /// The Docker driver.
    pub docker: Docker,
    /// The process driver.
    pub process: Process,
    /// The tokens that open the API, beside the one in the state directory and those made by calls.
    pub tokens: BTreeMap<TokenName, Grant>,
    /// The templates that workspaces are made from.
    pub projects: BTreeMap<ProjectId, Project>,
    /// The workspaces that are configured here, beside those discovered by labels.
    pub workspaces: BTreeMap<WorkspaceId, Workspace>,
}

/// The listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// Where end users and check-ins arrive. An IPv6 address takes IPv6 only.
    pub public: Vec<SocketAddr>,
    /// Where end users arrive by TLS.
    pub tls: Vec<SocketAddr>,
    /// Where the API is served.
    pub admin: SocketAddr,
    /// Whether it is served by TLS.
    pub admin_tls: bool,
    /// Where it is served to admins on this machine, who need no token there.
    pub admin_socket: AdminSocket,
    /// Threads that move bytes; 0: one for each core.
    pub workers: usize,
    /// How long a new connection may stay silent.
    pub first_byte_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a request's head may take, and how long a connection may idle between requests.
    pub header_timeout: Duration,
    /// How long a client may take nothing of what it is sent.
    pub send_timeout: Duration,
    /// How long a client may be silent in the middle of a body that its workspace reads.
    pub body_timeout: Duration,
    /// Bytes that a client sends of such a body in a second, on average and after that time; 0: any
    /// number.
    pub body_rate_min: u64,
    /// The load balancers that begin every connection with the address of its client, in the PROXY
    /// protocol.
    pub proxy_protocol: Vec<IpNet>,
    /// Connections at a time, over all public listeners.
    pub connections_max: usize,
    /// The same of one client, which is an IPv4 address or 64 bits of an IPv6 one; 0: any number.
    pub connections_per_client_max: usize,
    /// How long requests may go on after SIGTERM.
    pub drain_grace: Duration,
}

/// Where the API is served to admins on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminSocket {
    /// In the state directory.
    #[default]
    InStateDir,
    /// There.
    At(PathBuf),
    /// Nowhere.
    Nowhere,
}

/// Certificates, and who has to come by TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// Where every `NAME.crt` or `NAME.pem` is used, with its `NAME.key`; `None`: only those that
    /// are named.
    pub directory: Option<PathBuf>,
    /// Those that are named. The first is for whoever names no host, or one that none is for.
    pub certificates: Vec<CertificatePair>,
    /// Whether plain requests are redirected to HTTPS.
    pub redirect: bool,
    /// How long browsers are to come by HTTPS only; zero: they are told nothing.
    pub hsts: Duration,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificatePair {
    /// The certificate, and those that vouch for it after it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How requests find their workspace.
#[derive(Clone, Debug, PartialEq)]
pub struct Routing {
    /// Workspaces are at `{id}.{domain}`.
    pub domain: String,
    /// Whether they are at `/w/{id}/` too, on every host that is not a workspace's.
    pub paths: bool,
    /// The host name at which the public listener serves the API; `None`: at none.
    pub admin_host: Option<String>,
    /// Where end users reach workspaces; `None`: at the domain and our own ports.
    pub public_url: Option<PublicUrl>,
    /// The proxies whose `X-Forwarded-…` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// What those see who open a workspace that is not ready yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WaitingPage {
    /// Where the operator's own `waiting.html` is; `None`: the built-in one is used.
    pub directory: Option<PathBuf>,
}

/// What is written down of requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// The file with a line for each; `-`: standard output; `None`: nothing is.
    pub access: Option<PathBuf>,
}

/// What Prometheus is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Whether some of it names workspaces.
    pub per_workspace: bool,
}

/// The connections to workspaces.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a workspace may take until the head of its response.
    pub response_timeout: Duration,
    /// Idle connections that are kept, per core and workspace.
    pub idle_per_workspace_max: usize,
}

/// How much may wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Requests that wait at the gates of all workspaces together.
    pub held_max: usize,
    /// Requests that wait at the gate of one.
    pub held_per_workspace_max: usize,
    /// Requests inside one, open WebSockets among them; 0: any number.
    pub requests_per_workspace_max: usize,
    /// Workspaces that may run at a time; 0: any number.
    pub slots: usize,
    /// Bytes of memory for all that run or are paused; 0: any number.
    pub memory_budget: u64,
    /// What a workspace counts for in that budget that has no `memory` of its own, in bytes.
    pub memory_assumed: u64,
    /// While this machine has fewer bytes of memory available, the workspace paused longest is
    /// stopped; 0: never.
    pub memory_low: u64,
    /// Workspaces that are started at the same time; the others queue.
    pub starts_max: usize,
}

/// What the API may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// Whether a creation may bring an image of its own instead of a project.
    pub inline_specs: bool,
    /// Names at which browsers may find the dashboard, beside IP addresses, `localhost`, the domain
    /// and `admin_host`; lower case.
    pub hosts: Vec<String>,
    /// How long a created workspace is kept while it is frozen, where neither its project nor the
    /// call says.
    pub storage: FrozenStorage,
}

/// The Docker driver.
#[derive(Clone, Debug, PartialEq)]
pub struct Docker {
    /// Whether it is used.
    pub enable: DockerUse,
    /// The engine's socket, a path or a `unix://` or `tcp://` address; `None`: `DOCKER_HOST`, else
    /// the usual path.
    pub socket: Option<String>,
    /// Which of a container's addresses is dialled.
    pub address: DockerAddress,
    /// The network whose address is dialled; `None`: the only one, or the driver's choice.
    pub network: Option<String>,
    /// Containers of this scope are taken, by their label; empty: those without that label.
    pub scope: String,
}

/// Whether the Docker driver is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DockerUse {
    /// If its socket is there.
    Auto,
    /// It is; without its engine Frostgate does not start.
    Always,
    /// It is not.
    Never,
}

/// Which of a container's addresses is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DockerAddress {
    /// The container's own, on its network.
    Container,
    /// The port published on this machine.
    Published,
}

/// The process driver.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// How it pauses a process group.
    pub freezer: Freezer,
}

/// How processes are paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freezer {
    /// By cgroup where that works, else by signal.
    Auto,
    /// By the cgroup freezer, which a process can't see or escape.
    Cgroup,
    /// By SIGSTOP to the group.
    Signal,
}

/// A workspace of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Workspace {
    /// The project that it is made from, if any; `spec` and `policy` have what that says.
    pub project: Option<ProjectId>,
    /// What it is made of.
    pub spec: Arc<Spec>,
    /// What it sets for itself.
    pub policy: Arc<PolicyOverrides>,
}

/// What the command line says about the configuration; empty where it says nothing.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--listen`, once for each public address.
    pub listen: Vec<String>,
    /// `--listen-tls`, once for each.
    pub listen_tls: Vec<String>,
    /// `--admin`.
    pub admin: Option<String>,
    /// `--state-dir`.
    pub state_dir: Option<String>,
    /// `--domain`.
    pub domain: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("could not read the configuration {path}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It was read and is wrong; one line for each problem, in the order of the file.
    #[error("{}", joined(.problems))]
    Invalid {
        /// Each with its place.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    origin: tree::Origin,
    text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

fn joined(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

impl Config {
    /// Reads the file at `path`, or else the first of the usual places ([`Config::find`]), then the
    /// environment, then the flags. No file at all is fine.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let environment: BTreeMap<String, String> = environment.collect();
        let mut config_tree = tree::Tree::default();
        let file = Self::find(path, &environment);
        if let Some(path) = &file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            config_tree.add_file(path, &text)?;
        }
        config_tree.add_environment(&environment);
        config_tree.add_flags(flags);
        read::config(config_tree, file.as_deref(), &environment)
    }

    /// Which file is read: `path`, else `FROSTGATE_CONFIG`, else the first that exists of
    /// `./frostgate.toml`, `$XDG_CONFIG_HOME/frostgate/frostgate.toml` (`~/.config` where it is
    /// unset) and `/etc/frostgate/frostgate.toml`.
    pub fn find(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Option<PathBuf> {
        let named = environment.get("FROSTGATE_CONFIG").filter(|path| !path.is_empty());
        if let Some(path) = path.map(Path::to_owned).or(named.map(PathBuf::from)) {
            return Some(path);
        }
        let own = home(environment, "XDG_CONFIG_HOME", ".config");
        let usual = [
            Some(PathBuf::from("frostgate.toml")),
            own.map(|directory| directory.join("frostgate/frostgate.toml")),
            Some(PathBuf::from("/etc/frostgate/frostgate.toml")),
        ];
        usual.into_iter().flatten().find(|path| path.is_file())
    }

    /// The effective configuration as TOML that reads back to the same one.
    pub fn to_toml(&self) -> String {
        print::config(self)
    }

    /// What differs in another configuration, a line for each key. Names no variable of a workspace.
    pub fn changes(&self, after: &Self) -> Vec<String> {
        changes::between(self, after)
    }

    /// Where the API is served to admins on this machine; `None`: nowhere.
    pub fn admin_socket(&self) -> Option<PathBuf> {
        match &self.listen.admin_socket {
            AdminSocket::InStateDir => Some(self.state_dir.join(ADMIN_SOCKET_FILE)),
            AdminSocket::At(path) => Some(path.clone()),
            AdminSocket::Nowhere => None,
        }
    }

    /// Where the admin API's token is kept, readable by the owner alone.
    pub fn token_file(&self) -> PathBuf {
        self.state_dir.join(TOKEN_FILE)
    }
}

/// The directory that an XDG variable names, or its default below the home directory. Relative
/// paths count as unset, as the specification asks.
fn home(
    environment: &BTreeMap<String, String>,
    variable: &str,
    below_home: &str,
) -> Option<PathBuf> {
    let directory = |name: &str| {
        let path = PathBuf::from(environment.get(name)?);
        path.is_absolute().then_some(path)
    };
    directory(variable).or_else(|| Some(directory("HOME")?.join(below_home)))
}

/// Where the state is kept unless the configuration says; `None` for a user without a home.
fn usual_state_dir(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from(SYSTEM_STATE_DIR));
    }
    Some(home(environment, "XDG_STATE_HOME", ".local/state")?.join("frostgate"))
}

/// Where certificates are unless the configuration says: beside its file, or where Frostgate is
/// started if there is none.
fn usual_certificates_dir(file: Option<&Path>) -> PathBuf {
    file.and_then(Path::parent).unwrap_or(Path::new("")).join(CERTIFICATES_DIR)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from(SYSTEM_STATE_DIR),
            listen: Listen::default(),
            tls: Tls::default(),
            routing: Routing::default(),
            waiting_page: WaitingPage::default(),
            log: Log::default(),
            metrics: Metrics::default(),
            upstream: Upstream::default(),
            limits: Limits::default(),
            policy: Policy::default(),
            api: Api::default(),
            docker: Docker::default(),
            process: Process::default(),
            tokens: BTreeMap::new(),
            projects: BTreeMap::new(),
            workspaces: BTreeMap::new(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            public: vec![
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080)),
            ],
            tls: vec![],
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            admin_tls: false,
            admin_socket: AdminSocket::default(),
            workers: 0,
            first_byte_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            body_rate_min: 256,
            proxy_protocol: vec![],
            connections_max: 10_000,
            connections_per_client_max: 0,
            drain_grace: Duration::from_secs(10),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            directory: Some(usual_certificates_dir(None)),
            certificates: vec![],
            redirect: false,
            hsts: Duration::ZERO,
        }
    }
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            // Browsers resolve every name below it to this machine.
            domain: "localhost".to_owned(),
            paths: true,
            admin_host: None,
            public_url: None,
            trusted_proxies: vec![],
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5 * 60),
            idle_per_workspace_max: 64,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            held_max: 10_000,
            held_per_workspace_max: 1_000,
            requests_per_workspace_max: 0,
            // A herd of containers that start at once is slower than the same herd in fours.
            starts_max: 4,
            slots: 0,
            memory_budget: 0,
            memory_assumed: 512 << 20,
            memory_low: 0,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { inline_specs: false, hosts: vec![], storage: FrozenStorage::None }
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            enable: DockerUse::Auto,
            socket: None,
            address: DockerAddress::Container,
            network: None,
            scope: String::new(),
        }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self { freezer: Freezer::Auto }
    }
}

#[cfg(test)]
mod tests;
