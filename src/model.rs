//! The words that everything else is written in: workspace ids, specs, policies, phases.
//!
//! Values are parsed once, at the edge, into types that can't be wrong; nothing inside checks them
//! again. In particular a [`WorkspaceId`] is safe to put into a host name, a path of the engine's
//! API or a file name, because no other characters can be in one.
//!
//! [`Spec`] and [`PolicyOverrides`] are kept as JSON, where a duration is a number of milliseconds.
//! What was written by an older or newer version is readable: an unknown field is passed over, and
//! a missing one has its default, so a field that is added later must have one.

mod image;
mod no_wake;
mod public_url;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::image::{Image, InvalidMount, Mount, MountSource, Pull};
pub(crate) use self::no_wake::fits;
pub use self::no_wake::{Caller, NoWake, NoWakeOverrides};
pub use self::public_url::PublicUrl;

/// What stands for the workspace's id in the texts of a spec that several workspaces share.
const ID_PLACEHOLDER: &str = "{id}";

/// A workspace's name: a DNS label (RFC 1123), lower case, 1 to 63 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct WorkspaceId(Arc<str>);

/// A project's name in the configuration, in URLs and in records: a label as a workspace's id is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ProjectId(Arc<str>);

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not {kind}: 1 to 63 of the characters a-z, 0-9 and '-', \
     beginning and ending with a letter or digit"
)]
pub struct InvalidId {
    kind: &'static str,
    text: String,
}

/// A DNS label as it stands; upper case is refused, not folded.
pub(crate) fn label(kind: &'static str, text: &str) -> Result<Arc<str>, InvalidId> {
    let bytes = text.as_bytes();
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let valid = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric);
    if valid {
        Ok(text.into())
    } else {
        Err(InvalidId { kind, text: text.chars().take(100).collect() })
    }
}

impl ProjectId {
    /// Parses a label.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        label("a project id", text).map(Self)
    }

    /// The label itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that a map of projects can be asked with a text. Hashes and orders as the text does.
impl std::borrow::Borrow<str> for ProjectId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ProjectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl WorkspaceId {
    /// Parses a label.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        label("a workspace id", text).map(Self)
    }

    /// `text` with this id wherever it says `{id}`.
    fn fill_in(&self, text: &str) -> String {
        text.replace(ID_PLACEHOLDER, self.as_str())
    }

    /// The nearest id to a name that follows other rules, such as a container's:
    /// `/My_App.1` becomes `my-app-1`.
    pub fn from_foreign_name(name: &str) -> Result<Self, InvalidId> {
        let folded: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        Self::parse(folded.trim_matches('-'))
    }

    /// The label itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that a map of ids can be asked with a text. Hashes and orders as the text does.
impl std::borrow::Borrow<str> for WorkspaceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WorkspaceId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// What a workspace is made of. The driver reads it; nobody else looks inside [`Runs`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// What runs.
    pub runs: Runs,
    /// The port it listens on, inside the container; for a process, the port it is told to use
    /// (`None`: a free one at every start). `None` for an image: its one exposed port.
    pub port: Option<u16>,
    /// Bytes of memory that it may use; `None`: any number. A container is held to it, a process
    /// isn't.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Environment on top of what Frostgate sets itself; see [`Blueprint::environment`].
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Host names that route here, beside `{id}.{domain}`; lower case, no port.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Ready means that a GET of this path is answered with 2xx or 3xx. `None`: the container's
    /// own health check, or any answer on the port.
    pub ready_path: Option<String>,
    /// What it speaks on its port.
    #[serde(default)]
    pub protocol: Protocol,
}

impl Spec {
    /// What runs, and nothing else: the defaults for all the rest.
    pub fn new(runs: Runs) -> Self {
        Self {
            runs,
            port: None,
            memory: None,
            environment: BTreeMap::new(),
            hosts: Vec::new(),
            ready_path: None,
            protocol: Protocol::default(),
        }
    }
}

/// What a workspace speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
}

impl Protocol {
    /// Every protocol, by its name.
    pub const NAMES: [(&str, Self); 2] = [("http1", Self::Http1), ("h2c", Self::H2c)];

    /// The one of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(name, _)| *name == text).map(|(_, protocol)| protocol)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "http1",
            Self::H2c => "h2c",
        })
    }
}

/// A template that workspaces are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// As people see it.
    pub name: String,
    /// What its workspaces are made of. It has no hosts: they lead to one workspace each.
    pub spec: Arc<Spec>,
    /// What its workspaces set for themselves unless they say otherwise.
    pub policy: PolicyOverrides,
}

/// What runs behind a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runs {
    /// A local process, by the process driver.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// Its working directory; `None`: a directory of its own in the state directory.
        directory: Option<std::path::PathBuf>,
    },
    /// A container made from an image, by the Docker driver.
    Image(Image),
    /// A container that somebody else made and labelled.
    Discovered {
        /// The network whose address is dialled; `None`: the only one, or the driver's choice.
        network: Option<String>,
    },
    /// A service that is routed to and counted but never frozen: `host:port`.
    Upstream(String),
}

/// Everything a driver needs to make and start a workspace.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// Its id.
    pub id: WorkspaceId,
    /// What it is made of.
    pub spec: Arc<Spec>,
    /// Where it reports its activity.
    pub check_in: CheckInAccess,
}

impl Blueprint {
    /// The spec's environment, with the workspace's id wherever a value says `{id}`.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let filled_in = |(name, value): (&String, &String)| (name.clone(), self.id.fill_in(value));
        self.spec.environment.iter().map(filled_in).collect()
    }
}

/// What a workspace needs to report for itself. The driver makes `FROSTGATE_CHECK_IN_URL` of it,
/// because only the driver knows which address of this machine a workspace can reach.
#[derive(Clone)]
pub struct CheckInAccess {
    /// The public listener's port.
    pub port: u16,
    /// Proves which workspace reports. A secret.
    pub token: String,
}

impl CheckInAccess {
    /// The URL to report to, for a workspace that reaches this machine as `host`.
    pub fn url(&self, host: IpAddr) -> String {
        let authority = SocketAddr::new(host, self.port);
        format!("http://{authority}/v1/check-in?token={}", self.token)
    }
}

impl fmt::Debug for CheckInAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckInAccess {{ port: {}, token: … }}", self.port)
    }
}

/// When and how a workspace is frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Idle time until it is frozen; `None`: never by itself.
    pub inactivity_timeout: Option<Duration>,
    /// Grace after each start: idle time counts from this long after readiness.
    pub initial_timeout: Duration,
    /// How it is frozen.
    pub freeze_mode: FreezeMode,
    /// Age at which a non-zero check-in no longer counts; `None`: never while it runs.
    pub check_in_ttl: Option<Duration>,
    /// How long a request may wait at the gate.
    pub hold_max: Duration,
    /// How long somebody who opens a page waits for it before being shown a waiting page; from
    /// `hold_max` on: nobody is.
    pub page_after: Duration,
    /// What doesn't wake it.
    pub no_wake: NoWake,
    /// How long a wake may take before it has failed.
    pub start_timeout: Duration,
    /// How long a workspace gets to end by itself, after TERM, before it is killed.
    pub stop_grace: Duration,
    /// How long an admin's stop waits for the requests inside before it closes them.
    pub drain_grace: Duration,
    /// How long after an admin's stop only a navigation or a resume wakes it.
    pub stop_hold_off: Duration,
    /// What an open tunnel is worth.
    pub connection_activity: ConnectionActivity,
    /// Where tunnels are worth their traffic: bytes, both ways together, up to which what passes
    /// within `inactivity_timeout` is no activity.
    pub idle_bytes: u64,
    /// `false`: only explicit calls freeze it.
    pub monitoring: bool,
    /// A paused workspace is stopped after this long; `None`: it stays paused.
    pub stop_after: Option<Duration>,
    /// How long it is kept while frozen.
    pub storage: FrozenStorage,
    /// Age at which it is removed, in any phase, even in use; `None`: never.
    pub max_storage_time: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            inactivity_timeout: Some(Duration::from_secs(15 * 60)),
            initial_timeout: Duration::ZERO,
            freeze_mode: FreezeMode::Stop,
            check_in_ttl: None,
            hold_max: Duration::from_secs(60),
            page_after: Duration::from_secs(3),
            no_wake: NoWake::default(),
            start_timeout: Duration::from_secs(60),
            stop_grace: Duration::from_secs(10),
            drain_grace: Duration::from_secs(10),
            stop_hold_off: Duration::from_secs(60),
            connection_activity: ConnectionActivity::Open,
            // A ping and its pong are 8 bytes and what they carry, up to a dozen each; every 30 s,
            // that is less than this in 15 minutes. Somebody who types a line sends more.
            idle_bytes: 1024,
            monitoring: true,
            stop_after: None,
            storage: FrozenStorage::Unlimited,
            max_storage_time: None,
        }
    }
}

/// The part of a policy that one workspace sets for itself; `None` leaves the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyOverrides {
    /// See [`Policy::inactivity_timeout`]; zero means never.
    #[serde(with = "milliseconds")]
    pub inactivity_timeout: Option<Duration>,
    /// See [`Policy::initial_timeout`].
    #[serde(with = "milliseconds")]
    pub initial_timeout: Option<Duration>,
    /// See [`Policy::freeze_mode`].
    pub freeze_mode: Option<FreezeMode>,
    /// See [`Policy::check_in_ttl`]; zero means never.
    #[serde(with = "milliseconds")]
    pub check_in_ttl: Option<Duration>,
    /// See [`Policy::hold_max`].
    #[serde(with = "milliseconds")]
    pub hold_max: Option<Duration>,
    /// See [`Policy::page_after`].
    #[serde(with = "milliseconds")]
    pub page_after: Option<Duration>,
    /// See [`Policy::no_wake`].
    pub no_wake: NoWakeOverrides,
    /// See [`Policy::start_timeout`].
    #[serde(with = "milliseconds")]
    pub start_timeout: Option<Duration>,
    /// See [`Policy::stop_grace`].
    #[serde(with = "milliseconds")]
    pub stop_grace: Option<Duration>,
    /// See [`Policy::drain_grace`].
    #[serde(with = "milliseconds")]
    pub drain_grace: Option<Duration>,
    /// See [`Policy::stop_hold_off`].
    #[serde(with = "milliseconds")]
    pub stop_hold_off: Option<Duration>,
    /// See [`Policy::connection_activity`].
    pub connection_activity: Option<ConnectionActivity>,
    /// See [`Policy::idle_bytes`].
    pub idle_bytes: Option<u64>,
    /// See [`Policy::monitoring`].
    pub monitoring: Option<bool>,
    /// See [`Policy::stop_after`]; zero means never.
    #[serde(with = "milliseconds")]
    pub stop_after: Option<Duration>,
    /// See [`Policy::storage`].
    pub storage: Option<FrozenStorage>,
    /// See [`Policy::max_storage_time`]; zero means never.
    #[serde(with = "milliseconds")]
    pub max_storage_time: Option<Duration>,
}

impl PolicyOverrides {
    /// These overrides, and `later` ones that win where both say something.
    pub fn and(&self, later: &Self) -> Self {
        Self {
            inactivity_timeout: later.inactivity_timeout.or(self.inactivity_timeout),
            initial_timeout: later.initial_timeout.or(self.initial_timeout),
            freeze_mode: later.freeze_mode.or(self.freeze_mode),
            check_in_ttl: later.check_in_ttl.or(self.check_in_ttl),
            hold_max: later.hold_max.or(self.hold_max),
            page_after: later.page_after.or(self.page_after),
            no_wake: self.no_wake.and(&later.no_wake),
            start_timeout: later.start_timeout.or(self.start_timeout),
            stop_grace: later.stop_grace.or(self.stop_grace),
            drain_grace: later.drain_grace.or(self.drain_grace),
            stop_hold_off: later.stop_hold_off.or(self.stop_hold_off),
            connection_activity: later.connection_activity.or(self.connection_activity),
            idle_bytes: later.idle_bytes.or(self.idle_bytes),
            monitoring: later.monitoring.or(self.monitoring),
            stop_after: later.stop_after.or(self.stop_after),
            storage: later.storage.or(self.storage),
            max_storage_time: later.max_storage_time.or(self.max_storage_time),
        }
    }

    /// The same, shared with all that override nothing.
    pub fn applied_to(&self, base: &Arc<Policy>) -> Arc<Policy> {
        if *self == Self::default() { base.clone() } else { Arc::new(self.over(base)) }
    }

    /// The policy that results from these overrides on top of `base`.
    pub fn over(&self, base: &Policy) -> Policy {
        let unless_zero = |value: Duration| (!value.is_zero()).then_some(value);
        Policy {
            inactivity_timeout: self
                .inactivity_timeout
                .map_or(base.inactivity_timeout, unless_zero),
            initial_timeout: self.initial_timeout.unwrap_or(base.initial_timeout),
            freeze_mode: self.freeze_mode.unwrap_or(base.freeze_mode),
            check_in_ttl: self.check_in_ttl.map_or(base.check_in_ttl, unless_zero),
            hold_max: self.hold_max.unwrap_or(base.hold_max),
            page_after: self.page_after.unwrap_or(base.page_after),
            no_wake: self.no_wake.over(&base.no_wake),
            start_timeout: self.start_timeout.unwrap_or(base.start_timeout),
            stop_grace: self.stop_grace.unwrap_or(base.stop_grace),
            drain_grace: self.drain_grace.unwrap_or(base.drain_grace),
            stop_hold_off: self.stop_hold_off.unwrap_or(base.stop_hold_off),
            connection_activity: self.connection_activity.unwrap_or(base.connection_activity),
            idle_bytes: self.idle_bytes.unwrap_or(base.idle_bytes),
            monitoring: self.monitoring.unwrap_or(base.monitoring),
            stop_after: self.stop_after.map_or(base.stop_after, unless_zero),
            storage: self.storage.unwrap_or(base.storage),
            max_storage_time: self.max_storage_time.map_or(base.max_storage_time, unless_zero),
        }
    }
}

/// How long a workspace is kept while it is frozen: the API's `max_inactive_storage_time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrozenStorage {
    /// It can't be frozen. Idle means removed, and it can't be stopped by an admin.
    None,
    /// It is removed when it has been frozen for this long.
    Limited(Duration),
    /// It is kept.
    Unlimited,
}

/// What an open tunnel is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionActivity {
    /// It is activity.
    Open,
    /// What passes through it is, if that is enough.
    Traffic,
}

/// How a workspace is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FreezeMode {
    /// Stopped: memory, CPU and the slot are free, the disk is kept.
    Stop,
    /// The cgroup freezer: memory is kept, wakes in milliseconds.
    Pause,
}

/// Where a frozen workspace is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// In memory, without CPU.
    Paused,
    /// On disk.
    Stopped,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// Where a workspace is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It was asked to run and is not ready yet.
    Starting,
    /// It is ready and the gate is open.
    Running,
    /// The gate is shut, and the freeze is on its way.
    Freezing,
    /// It does not run; a request wakes it.
    Frozen,
    /// It is being removed.
    Removing,
    /// It is gone.
    Removed,
    /// It could not be started; the next request after a back-off tries again.
    Failed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Freezing => "freezing",
            Self::Frozen => "frozen",
            Self::Removing => "removing",
            Self::Removed => "removed",
            Self::Failed => "failed",
        })
    }
}

/// An optional duration as a number of milliseconds.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let in_range = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        duration.map(in_range).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dns_labels_are_ids() {
        let too_long = "a".repeat(64);
        for good in ["a", "0", "alice", "a-b", "x1-y2", &"a".repeat(63)] {
            assert!(WorkspaceId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "a_b", "ä", "a b", "..", &too_long] {
            assert!(WorkspaceId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_environment_tells_workspaces_of_one_spec_apart() {
        let mut spec = Spec::new(Runs::Upstream("127.0.0.1:1".to_owned()));
        spec.environment.insert("NAME".to_owned(), "{id} of {team}, {id}".to_owned());
        let check_in = CheckInAccess { port: 80, token: "t".to_owned() };
        let blueprint =
            Blueprint { id: WorkspaceId::parse("a-1").unwrap(), spec: spec.into(), check_in };
        assert_eq!(blueprint.environment()["NAME"], "a-1 of {team}, a-1");
    }

    #[test]
    fn foreign_names_are_folded_into_labels() {
        let folded = |name| WorkspaceId::from_foreign_name(name).map(|id| id.to_string());
        assert_eq!(folded("/My_App.1").as_deref(), Ok("my-app-1"));
        assert!(folded("___").is_err());
    }

    #[test]
    fn a_zero_timeout_means_never() {
        let overrides = PolicyOverrides {
            inactivity_timeout: Some(Duration::ZERO),
            ..PolicyOverrides::default()
        };
        assert_eq!(overrides.over(&Policy::default()).inactivity_timeout, None);
    }

    #[test]
    fn a_spec_of_another_version_is_readable() {
        let text = r#"{"runs":{"image":{"image":"a:1","later":1}},"later":[]}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        assert_eq!(spec, Spec::new(Runs::Image(Image::new("a:1"))));
    }

    #[test]
    fn overrides_are_kept_in_milliseconds_and_readable_from_another_version() {
        let overrides: PolicyOverrides =
            serde_json::from_str(r#"{"hold_max":1500,"later":true}"#).unwrap();
        let expected = PolicyOverrides {
            hold_max: Some(Duration::from_millis(1500)),
            ..PolicyOverrides::default()
        };
        assert_eq!(overrides, expected);
        let text = serde_json::to_string(&overrides).unwrap();
        assert!(text.contains(r#""hold_max":1500"#), "{text}");
        assert_eq!(serde_json::from_str::<PolicyOverrides>(&text).unwrap(), expected);
    }

    #[test]
    fn the_token_is_not_in_the_debug_text() {
        let access = CheckInAccess { port: 80, token: "secret".to_owned() };
        assert!(!format!("{access:?}").contains("secret"));
        let url = access.url(IpAddr::from([172, 17, 0, 1]));
        assert_eq!(url, "http://172.17.0.1:80/v1/check-in?token=secret");
    }
}
