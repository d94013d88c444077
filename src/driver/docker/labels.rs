//! What a container's labels say of the workspace that it is.
//!
//! Labels are typed by hand into compose files, so what can't be used is never an error: the
//! workspace works without it, and a warning says which label, what it says and what it may say.

use std::collections::HashMap;
use std::time::Duration;

use super::names::NetworkName;
use crate::model::{
    ConnectionActivity, FreezeMode, NoWakeOverrides, PolicyOverrides, Protocol, Runs, Spec,
    WorkspaceId,
};
use crate::{duration, size};

pub(super) const ENABLE: &str = "frostgate.enable";
pub(super) const ID: &str = "frostgate.id";
pub(super) const PORT: &str = "frostgate.port";
pub(super) const HOST: &str = "frostgate.host";
pub(super) const NETWORK: &str = "frostgate.network";
pub(super) const READY_PATH: &str = "frostgate.ready-path";
pub(super) const PROTOCOL: &str = "frostgate.protocol";
pub(super) const MEMORY: &str = "frostgate.memory";
pub(super) const SCOPE: &str = "frostgate.scope";
/// On the containers that we made ourselves.
pub(super) const MANAGED: &str = "frostgate.managed";
const INACTIVITY_TIMEOUT: &str = "frostgate.inactivity-timeout";
const PAGE_AFTER: &str = "frostgate.page-after";
const NO_WAKE_PATHS: &str = "frostgate.no-wake-paths";
const NO_WAKE_METHODS: &str = "frostgate.no-wake-methods";
const NO_WAKE_USER_AGENTS: &str = "frostgate.no-wake-user-agents";
const NO_WAKE_CLIENTS: &str = "frostgate.no-wake-clients";
const STOP_HOLD_OFF: &str = "frostgate.stop-hold-off";
const CONNECTION_ACTIVITY: &str = "frostgate.connection-activity";
const IDLE_BYTES: &str = "frostgate.idle-bytes";
const FREEZE: &str = "frostgate.freeze";

const PREFIX: &str = "frostgate.";
const KNOWN: [&str; 20] = [
    ENABLE,
    ID,
    PORT,
    HOST,
    INACTIVITY_TIMEOUT,
    PAGE_AFTER,
    NO_WAKE_PATHS,
    NO_WAKE_METHODS,
    NO_WAKE_USER_AGENTS,
    NO_WAKE_CLIENTS,
    STOP_HOLD_OFF,
    CONNECTION_ACTIVITY,
    IDLE_BYTES,
    FREEZE,
    READY_PATH,
    PROTOCOL,
    NETWORK,
    MEMORY,
    SCOPE,
    MANAGED,
];

/// A container with more warnings than this has labels that are not worth reading out.
const WARNINGS_MAX: usize = 20;

/// A container's labels, or an event's attributes, which hold them too.
pub(super) type Labels = HashMap<String, String>;

/// By which whatever we make for a workspace is known again; see [`claim`].
pub(super) fn ours(id: &WorkspaceId, scope: &str) -> Labels {
    let mut labels = HashMap::from([
        (ID.to_owned(), id.to_string()),
        (ENABLE.to_owned(), "true".to_owned()),
        (MANAGED.to_owned(), "true".to_owned()),
    ]);
    if !scope.is_empty() {
        labels.insert(SCOPE.to_owned(), scope.to_owned());
    }
    labels
}

/// Reads labels that may be anything: a name, and lines of `label=value`.
pub(super) fn try_with(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (name, lines) = text.split_once('\n').unwrap_or(("", &text));
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    let labels = pairs.map(|(label, value)| (label.to_owned(), value.to_owned())).collect();
    drop(claim(&labels, name, ""));
    let Reading { spec, warnings, .. } = read(&labels);
    assert!(warnings.len() <= WARNINGS_MAX + 1, "{warnings:?}");
    for host in &spec.hosts {
        assert!(!host.contains(['/', ':', ' ', '\0']), "{host:?}");
    }
    assert!(spec.ready_path.is_none_or(|path| path.starts_with('/')));
}

/// Everything that the labels say, apart from the id.
pub(super) struct Reading {
    pub(super) spec: Spec,
    pub(super) policy: PolicyOverrides,
    pub(super) warnings: Vec<String>,
}

/// Whether a container takes part, and as which workspace.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It doesn't: no label, `frostgate.enable=false`, or another Frostgate's scope.
    None,
    /// It does.
    Workspace(WorkspaceId),
    /// It would like to and can't: why, in words for the operator.
    Unusable(String),
}

/// Reads which workspace a container is: its label, else its name folded into a DNS label.
///
/// Of several Frostgates on one engine each takes the containers of its own scope, for two that
/// count the visitors of one container freeze it under each other's. No label is the empty scope.
pub(super) fn claim(labels: &Labels, name: &str, scope: &str) -> Claim {
    if labels.get(SCOPE).map_or("", |label| label.trim()) != scope {
        return Claim::None;
    }
    match labels.get(ENABLE).map(|value| value.trim()) {
        Some("true") => {}
        None | Some("false") => return Claim::None,
        Some(other) => {
            return Claim::Unusable(format!("label {ENABLE}={other:?} is neither true nor false"));
        }
    }
    let by_label = labels.get(ID).and_then(|id| WorkspaceId::parse(id).ok());
    match by_label.map_or_else(|| WorkspaceId::from_foreign_name(name), Ok) {
        Ok(id) => Claim::Workspace(id),
        Err(_) => Claim::Unusable(format!("its name can't be a workspace id; set the label {ID}")),
    }
}

/// Reads the other labels.
pub(super) fn read(labels: &Labels) -> Reading {
    let mut reader = Reader { labels, warnings: Vec::new() };
    reader.warn_of_unknown_labels();
    reader.value(ID, "1 to 63 of a-z, 0-9 and '-'", |text| WorkspaceId::parse(text).ok());
    let runs = Runs::Discovered {
        network: reader.value(NETWORK, "the name of one of its networks", |text| {
            NetworkName::parse(text).map(|name| name.as_str().to_owned())
        }),
    };
    let spec = Spec {
        port: port(labels).or_else(|| reader.value(PORT, "a port from 1 to 65535", parse_port)),
        memory: reader.size(MEMORY, "a size such as 512MiB"),
        hosts: reader.hosts(),
        ready_path: reader.value(READY_PATH, "a path such as /healthz", parse_path),
        protocol: reader.value(PROTOCOL, "http1 or h2c", Protocol::parse).unwrap_or_default(),
        ..Spec::new(runs)
    };
    let policy =
        PolicyOverrides {
            inactivity_timeout: reader.duration(INACTIVITY_TIMEOUT),
            page_after: reader.duration(PAGE_AFTER),
            no_wake: reader.no_wake(),
            stop_hold_off: reader.duration(STOP_HOLD_OFF),
            connection_activity: reader.value(CONNECTION_ACTIVITY, "open or traffic", |text| {
                match text {
                    "open" => Some(ConnectionActivity::Open),
                    "traffic" => Some(ConnectionActivity::Traffic),
                    _ => None,
                }
            }),
            idle_bytes: reader.size(IDLE_BYTES, "a size such as 1KiB"),
            freeze_mode: reader.value(FREEZE, "stop or pause", |text| match text {
                "stop" => Some(FreezeMode::Stop),
                "pause" => Some(FreezeMode::Pause),
                _ => None,
            }),
            ..PolicyOverrides::default()
        };
    reader.warnings.truncate(WARNINGS_MAX);
    Reading { spec, policy, warnings: reader.warnings }
}

/// The labelled port, if there is a usable one.
pub(super) fn port(labels: &Labels) -> Option<u16> {
    labels.get(PORT).and_then(|text| parse_port(text.trim()))
}

struct Reader<'a> {
    labels: &'a Labels,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn value<T>(
        &mut self,
        label: &str,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.labels.get(label)?.trim();
        let value = parse(text);
        if value.is_none() {
            let text = shortened(text);
            self.warnings.push(format!("label {label}={text:?} is not {accepted}"));
        }
        value
    }

    fn no_wake(&mut self) -> NoWakeOverrides {
        NoWakeOverrides {
            paths: self.list(NO_WAKE_PATHS, "a path such as /health/*", NoWakeOverrides::path),
            methods: self.list(NO_WAKE_METHODS, "a method", NoWakeOverrides::method),
            user_agents: self.list(
                NO_WAKE_USER_AGENTS,
                "part of a User-Agent",
                NoWakeOverrides::user_agent,
            ),
            clients: self.list(
                NO_WAKE_CLIENTS,
                "a network such as 10.0.0.0/8",
                NoWakeOverrides::client,
            ),
        }
    }

    /// What can be used of a list; an empty label is an empty list.
    fn list<T>(
        &mut self,
        label: &str,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let text = self.labels.get(label)?;
        let mut items = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match parse(part) {
                Some(item) => items.push(item),
                None => {
                    let part = shortened(part);
                    self.warnings.push(format!("label {label}: {part:?} is not {accepted}"));
                }
            }
        }
        Some(items)
    }

    fn hosts(&mut self) -> Vec<String> {
        let Some(text) = self.labels.get(HOST) else {
            return Vec::new();
        };
        let mut hosts = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let host = part.to_ascii_lowercase();
            if is_host(&host) {
                hosts.push(host);
            } else {
                let part = shortened(part);
                self.warnings.push(format!(
                    "label {HOST}: {part:?} is not a host name without scheme, port or path"
                ));
            }
        }
        hosts
    }

    fn size(&mut self, label: &str, accepted: &str) -> Option<u64> {
        self.value(label, accepted, |text| size::parse(text).ok())
    }

    fn duration(&mut self, label: &str) -> Option<Duration> {
        match duration::parse(self.labels.get(label)?) {
            Ok(duration) => Some(duration),
            Err(reason) => {
                self.warnings.push(format!("label {label}: {reason}"));
                None
            }
        }
    }

    fn warn_of_unknown_labels(&mut self) {
        let mut unknown: Vec<&str> = self
            .labels
            .keys()
            .map(String::as_str)
            .filter(|label| label.starts_with(PREFIX) && !KNOWN.contains(label))
            .collect();
        unknown.sort_unstable();
        for label in unknown {
            let nearest = nearest(label);
            let label = shortened(label);
            self.warnings.push(format!("label {label:?} is not known; did you mean {nearest}?"));
        }
    }
}

/// The known label that shares most letter pairs, which weigh more than a common begin:
/// `idle-timeout` is nearer to `inactivity-timeout` that way than to `idle-bytes`.
fn nearest(label: &str) -> &'static str {
    let likeness = |known: &str| {
        2.0 * strsim::sorensen_dice(&label[PREFIX.len()..], &known[PREFIX.len()..])
            + strsim::jaro(&label[PREFIX.len()..], &known[PREFIX.len()..])
    };
    // Managed is ours to set, so it is never what somebody meant to write.
    let meant = KNOWN.into_iter().filter(|known| *known != MANAGED);
    meant.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or(ENABLE)
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn parse_path(text: &str) -> Option<String> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    (text.starts_with('/') && visible && text.len() <= 2048).then(|| text.to_owned())
}

fn is_host(host: &str) -> bool {
    host.len() <= 253 && host.split('.').all(|label| WorkspaceId::parse(label).is_ok())
}

/// A label's value may be megabytes long; a warning may not.
fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_container_takes_part_only_if_it_says_so() {
        let claim = |pairs: &[(&str, &str)], name| claim(&labels(pairs), name, "");
        let workspace = |id| Claim::Workspace(WorkspaceId::parse(id).unwrap());
        assert_eq!(claim(&[], "a"), Claim::None);
        assert_eq!(claim(&[(ENABLE, "false")], "a"), Claim::None);
        assert!(matches!(claim(&[(ENABLE, "yes")], "a"), Claim::Unusable(_)));
        assert_eq!(claim(&[(ENABLE, "true")], "/My_App.1"), workspace("my-app-1"));
        assert_eq!(claim(&[(ENABLE, "true"), (ID, "alice")], "/x"), workspace("alice"));
        assert_eq!(claim(&[(ENABLE, "true"), (ID, "../x")], "/fallback"), workspace("fallback"));
        assert!(matches!(claim(&[(ENABLE, "true")], "___"), Claim::Unusable(_)));
    }

    #[test]
    fn a_container_is_in_one_scope() {
        let labels_of = |scope| labels(&[(ENABLE, "true"), (ID, "a"), (SCOPE, scope)]);
        let ours = Claim::Workspace(WorkspaceId::parse("a").unwrap());
        let unscoped = labels(&[(ENABLE, "true"), (ID, "a")]);
        assert_eq!(claim(&labels_of("x"), "a", "x"), ours);
        assert_eq!(claim(&labels_of(""), "a", ""), ours);
        assert_eq!(claim(&labels_of("x"), "a", ""), Claim::None);
        assert_eq!(claim(&labels_of("x"), "a", "y"), Claim::None);
        assert_eq!(claim(&unscoped, "a", "x"), Claim::None);
    }

    #[test]
    fn every_label_is_read() {
        let reading = read(&labels(&[
            (ENABLE, "true"),
            (ID, "alice"),
            (PORT, "8080"),
            (HOST, "Alice.example, alice.test"),
            (INACTIVITY_TIMEOUT, "1.5s"),
            (PAGE_AFTER, "0s"),
            (NO_WAKE_PATHS, "/health/*, /ping"),
            (NO_WAKE_METHODS, "head"),
            (NO_WAKE_USER_AGENTS, "UptimeRobot"),
            (NO_WAKE_CLIENTS, "10.1.2.3/8"),
            (STOP_HOLD_OFF, "2m"),
            (CONNECTION_ACTIVITY, "traffic"),
            (IDLE_BYTES, "2KiB"),
            (FREEZE, "pause"),
            (READY_PATH, "/healthz"),
            (PROTOCOL, "h2c"),
            (NETWORK, "back"),
            (MEMORY, "512MiB"),
            ("com.example.other", "x"),
        ]));
        assert_eq!(reading.warnings, Vec::<String>::new());
        let network = Some("back".to_owned());
        assert_eq!(reading.spec.runs, Runs::Discovered { network });
        assert_eq!((reading.spec.port, reading.spec.memory), (Some(8080), Some(512 << 20)));
        assert_eq!(reading.spec.hosts, ["alice.example", "alice.test"]);
        assert_eq!(reading.spec.ready_path.as_deref(), Some("/healthz"));
        assert_eq!(reading.spec.protocol, Protocol::H2c);
        assert_eq!(reading.policy.inactivity_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(reading.policy.page_after, Some(Duration::ZERO));
        let no_wake = NoWakeOverrides {
            paths: Some(vec!["/health/*".to_owned(), "/ping".to_owned()]),
            methods: Some(vec!["HEAD".to_owned()]),
            user_agents: Some(vec!["UptimeRobot".to_owned()]),
            clients: Some(vec!["10.0.0.0/8".parse().unwrap()]),
        };
        assert_eq!(reading.policy.no_wake, no_wake);
        assert_eq!(reading.policy.stop_hold_off, Some(Duration::from_secs(120)));
        assert_eq!(reading.policy.connection_activity, Some(ConnectionActivity::Traffic));
        assert_eq!(reading.policy.idle_bytes, Some(2048));
        assert_eq!(reading.policy.freeze_mode, Some(FreezeMode::Pause));
    }

    #[test]
    fn the_reference_has_every_label_and_no_other() {
        let page = include_str!("../../../docs/reference/labels.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `frostgate."));
        let mut told: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        let mut known: Vec<&str> =
            KNOWN.iter().filter_map(|one| one.strip_prefix(PREFIX)).collect();
        known.retain(|name| PREFIX.to_owned() + name != MANAGED);
        told.sort_unstable();
        known.sort_unstable();
        assert_eq!(told, known);
    }

    #[test]
    fn what_can_not_be_used_is_a_warning_that_says_what_can() {
        let rows = [
            (PORT, "0", "1 to 65535"),
            (PORT, "http", "1 to 65535"),
            (HOST, "http://a.example", "host name"),
            (HOST, "a.example:80", "host name"),
            (INACTIVITY_TIMEOUT, "soon", "15m"),
            (STOP_HOLD_OFF, "60", "15m"),
            (PAGE_AFTER, "late", "15m"),
            (NO_WAKE_PATHS, "health", "/health/*"),
            (NO_WAKE_METHODS, "G T", "method"),
            (NO_WAKE_CLIENTS, "home", "10.0.0.0/8"),
            (CONNECTION_ACTIVITY, "bytes", "open or traffic"),
            (IDLE_BYTES, "few", "1KiB"),
            (FREEZE, "kill", "stop or pause"),
            (READY_PATH, "healthz", "/healthz"),
            (PROTOCOL, "h2", "http1 or h2c"),
            (NETWORK, "../x", "networks"),
            (MEMORY, "much", "512MiB"),
            (ID, "Not An Id", "a-z"),
        ];
        for (label, value, accepted) in rows {
            let reading = read(&labels(&[(label, value)]));
            let [warning] = &reading.warnings[..] else {
                panic!("{label}: {:?}", reading.warnings)
            };
            assert!(warning.contains(label), "{warning}");
            assert!(warning.contains(value), "{warning}");
            assert!(warning.contains(accepted), "{warning}");
        }
    }

    #[test]
    fn an_unknown_label_is_answered_with_the_nearest_one() {
        let rows = [
            ("frostgate.idle-timeout", INACTIVITY_TIMEOUT),
            ("frostgate.inactivity_timeout", INACTIVITY_TIMEOUT),
            ("frostgate.hosts", HOST),
            ("frostgate.enabled", ENABLE),
            ("frostgate.ports", PORT),
            ("frostgate.proto", PROTOCOL),
            ("frostgate.idle-byte", IDLE_BYTES),
            ("frostgate.stop-holdoff", STOP_HOLD_OFF),
            ("frostgate.connections", CONNECTION_ACTIVITY),
            ("frostgate.readypath", READY_PATH),
        ];
        for (label, meant) in rows {
            let reading = read(&labels(&[(label, "x")]));
            assert_eq!(
                reading.warnings,
                [format!("label {label:?} is not known; did you mean {meant}?")]
            );
        }
        assert_eq!(read(&labels(&[("frostgate.", "")])).warnings.len(), 1);
    }
}
