//! What each kind of value accepts.
//!
//! A reader gives the value, or the words that complete "expected …" for the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::{
    ConnectionActivity, FreezeMode, FrozenStorage, Mount, NoWakeOverrides, ProjectId, Protocol,
    PublicUrl, Pull,
};
use crate::token::{Scope, TokenHash};
use crate::{duration, size};

use super::tree::{Node, Value};
use super::{AdminSocket, CertificatePair, DockerAddress, DockerUse, Freezer};

/// Reads one kind of value.
pub(super) type Read<T> = fn(&Value) -> Result<T, String>;

/// The upper end of every count: more than this is a mistake, and some counts allocate.
const COUNT_MAX: usize = 10_000_000;

/// A value in the words of an error.
pub(super) fn described(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".to_owned(),
        Value::List(items) => {
            let shown = items.iter().take(4).map(|item| described(&item.value));
            let more = (items.len() > 4).then(|| "…".to_owned());
            let shown: Vec<String> = shown.chain(more).collect();
            format!("[{}]", shown.join(", "))
        }
        Value::Text(text) | Value::Bare(text) => {
            let mut shown: String = text.chars().take(60).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            format!("{shown:?}")
        }
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Switch(on) => on.to_string(),
        Value::Odd(text) => text.clone(),
    }
}

/// Any text.
pub(super) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) | Value::Bare(text) => Ok(text.clone()),
        _ => Err("a text in quotes".to_owned()),
    }
}

/// A text that isn't empty.
pub(super) fn named(value: &Value) -> Result<String, String> {
    parsed(value, |text| (!text.is_empty()).then(|| text.to_owned()))
        .ok_or_else(|| "a text in quotes that isn't empty".to_owned())
}

/// A text, where an empty one means that there is none.
pub(super) fn text_or_none(value: &Value) -> Result<Option<String>, String> {
    text(value).map(|text| (!text.is_empty()).then_some(text))
}

/// `true` or `false`.
pub(super) fn switch(value: &Value) -> Result<bool, String> {
    match value {
        Value::Switch(on) => Ok(*on),
        Value::Bare(text) if text == "true" => Ok(true),
        Value::Bare(text) if text == "false" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// A whole number from 0.
pub(super) fn count(value: &Value) -> Result<usize, String> {
    whole_number(value, 0, COUNT_MAX)
}

/// A whole number from 1.
pub(super) fn count_from_one(value: &Value) -> Result<usize, String> {
    whole_number(value, 1, COUNT_MAX)
}

/// A number of threads; 0 leaves it to the machine.
pub(super) fn threads(value: &Value) -> Result<usize, String> {
    whole_number(value, 0, 1024)
}

/// A TCP port.
pub(super) fn port(value: &Value) -> Result<u16, String> {
    let number = whole_number(value, 1, usize::from(u16::MAX))?;
    u16::try_from(number).map_err(|_| "a port".to_owned())
}

fn whole_number(value: &Value, least: usize, most: usize) -> Result<usize, String> {
    let number = match value {
        Value::Integer(number) => usize::try_from(*number).ok(),
        Value::Bare(text) => text.parse().ok(),
        _ => None,
    };
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("a whole number from {least} to {most}"))
}

/// A duration, zero included.
pub(super) fn any_duration(value: &Value) -> Result<Duration, String> {
    read_duration(value).ok_or_else(|| {
        "a duration such as \"1.5s\", \"15m\" or \"1h30m\", or a number of seconds".to_owned()
    })
}

/// A duration that can't be zero: waiting needs an end, and a beginning.
pub(super) fn positive_duration(value: &Value) -> Result<Duration, String> {
    read_duration(value)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a duration above zero such as \"1.5s\" or \"15m\"".to_owned())
}

/// The word for a frozen workspace that is kept for ever.
pub(super) const UNLIMITED: &str = "unlimited";

/// How long a frozen workspace is kept; zero: it can't be frozen.
pub(super) fn frozen_storage(value: &Value) -> Result<FrozenStorage, String> {
    if let Value::Text(text) | Value::Bare(text) = value
        && text == UNLIMITED
    {
        return Ok(FrozenStorage::Unlimited);
    }
    let storage = read_duration(value).map(|duration| match duration {
        Duration::ZERO => FrozenStorage::None,
        limit => FrozenStorage::Limited(limit),
    });
    storage.ok_or_else(|| {
        "\"unlimited\", 0 for one that can't be frozen, or a duration such as \"7d\"".to_owned()
    })
}

fn read_duration(value: &Value) -> Option<Duration> {
    match value {
        Value::Text(text) => duration::parse(text).ok(),
        Value::Integer(seconds) => duration::from_seconds(*seconds as f64),
        Value::Float(seconds) => duration::from_seconds(*seconds),
        Value::Bare(text) => match text.parse() {
            Ok(seconds) => duration::from_seconds(seconds),
            Err(_) => duration::parse(text).ok(),
        },
        _ => None,
    }
}

/// Less than this no engine accepts, and no program can do with.
const MEMORY_MIN: u64 = 6 << 20;

fn read_size(value: &Value) -> Option<u64> {
    match value {
        Value::Text(text) | Value::Bare(text) => size::parse(text).ok(),
        Value::Integer(bytes) => u64::try_from(*bytes).ok(),
        _ => None,
    }
}

/// A size in bytes, zero included.
pub(super) fn any_size(value: &Value) -> Result<u64, String> {
    read_size(value).ok_or_else(|| "a size such as \"1KiB\", or a number of bytes".to_owned())
}

/// An amount of memory, in bytes.
pub(super) fn memory(value: &Value) -> Result<u64, String> {
    // The engine counts in signed numbers.
    let fits = |bytes: &u64| *bytes >= MEMORY_MIN && i64::try_from(*bytes).is_ok();
    read_size(value).filter(fits).ok_or_else(|| {
        "a size from 6MiB such as \"512MiB\" or \"2g\", or a number of bytes".to_owned()
    })
}

/// An amount of memory, in bytes; zero: none is set.
pub(super) fn memory_or_none(value: &Value) -> Result<u64, String> {
    if read_size(value) == Some(0) {
        return Ok(0);
    }
    memory(value).map_err(|words| format!("0 for none, or {words}"))
}

/// More processors than any machine has.
const CPUS_MAX: f64 = 4096.0;

/// A number of processors, in billionths of one.
pub(super) fn cpus(value: &Value) -> Result<u64, String> {
    let number = match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Bare(text) => text.parse().ok(),
        _ => None,
    };
    // A hundredth is the least that the engine accepts.
    let valid = number.filter(|number| (0.01..=CPUS_MAX).contains(number));
    let nano = valid.map(|number| (number * 1e9).round() as u64);
    nano.ok_or_else(|| "a number of processors from 0.01 such as 0.5 or 2".to_owned())
}

/// Directories and volumes.
pub(super) fn mounts(value: &Value) -> Result<Vec<Mount>, String> {
    let mounts = list(value, |item| parsed(item, |text| Mount::parse(text).ok()));
    let mounts = mounts.ok_or_else(|| {
        "a list of mounts such as [\"/srv/data:/data:ro\", \"cache-{id}:/var/cache\"]".to_owned()
    })?;
    let targets: BTreeSet<&str> = mounts.iter().map(Mount::target).collect();
    if targets.len() < mounts.len() {
        return Err("mounts that have a target each".to_owned());
    }
    Ok(mounts)
}

/// `missing`, `never` or `always`.
pub(super) fn pull(value: &Value) -> Result<Pull, String> {
    use Pull::{Always, Missing, Never};
    choice(value, &[("missing", Missing), ("never", Never), ("always", Always)])
}

/// The key of a project.
pub(super) fn project(value: &Value) -> Result<ProjectId, String> {
    parsed(value, |text| ProjectId::parse(text).ok())
        .ok_or_else(|| "the NAME of a [projects.NAME]".to_owned())
}

/// An address with a port.
pub(super) fn address(value: &Value) -> Result<SocketAddr, String> {
    parsed(value, |text| text.parse().ok()).ok_or_else(|| {
        "an address with a port such as \"127.0.0.1:8081\" or \"[::1]:8081\"".to_owned()
    })
}

/// At least one address.
pub(super) fn addresses(value: &Value) -> Result<Vec<SocketAddr>, String> {
    list(value, |item| address(item).ok()).filter(|addresses| !addresses.is_empty()).ok_or_else(
        || "a list of addresses with ports such as [\"0.0.0.0:80\", \"[::]:80\"]".to_owned(),
    )
}

/// Addresses, or none.
pub(super) fn addresses_or_none(value: &Value) -> Result<Vec<SocketAddr>, String> {
    list(value, |item| address(item).ok()).ok_or_else(|| {
        "a list of addresses with ports such as [\"0.0.0.0:443\", \"[::]:443\"]".to_owned()
    })
}

/// Networks, or none.
pub(super) fn networks(value: &Value) -> Result<Vec<IpNet>, String> {
    list(value, |item| parsed(item, NoWakeOverrides::client))
        .ok_or_else(|| "a list of networks such as [\"10.0.0.0/8\", \"fd00::/8\"]".to_owned())
}

/// Patterns of paths, or none.
pub(super) fn path_patterns(value: &Value) -> Result<Vec<String>, String> {
    list(value, |item| parsed(item, NoWakeOverrides::path)).ok_or_else(|| {
        "a list of paths without a query such as [\"/robots.txt\", \"/health/*\"]".to_owned()
    })
}

/// Methods, or none.
pub(super) fn methods(value: &Value) -> Result<Vec<String>, String> {
    list(value, |item| parsed(item, NoWakeOverrides::method))
        .ok_or_else(|| "a list of methods such as [\"HEAD\", \"OPTIONS\"]".to_owned())
}

/// Parts of `User-Agent`, or none.
pub(super) fn user_agents(value: &Value) -> Result<Vec<String>, String> {
    list(value, |item| parsed(item, NoWakeOverrides::user_agent)).ok_or_else(|| {
        "a list of parts of User-Agent such as [\"UptimeRobot\", \"kube-probe\"]".to_owned()
    })
}

/// A host name.
pub(super) fn host(value: &Value) -> Result<String, String> {
    parsed(value, host_name)
        .ok_or_else(|| "a host name without a port such as \"dev.example.com\"".to_owned())
}

/// A host name, or an empty text for none.
pub(super) fn host_or_none(value: &Value) -> Result<Option<String>, String> {
    match text_or_none(value) {
        Ok(None) => Ok(None),
        _ => host(value).map(Some),
    }
}

/// Host names, or none.
pub(super) fn hosts(value: &Value) -> Result<Vec<String>, String> {
    list(value, |item| host(item).ok()).ok_or_else(|| {
        "a list of host names without ports such as [\"alice.example.com\"]".to_owned()
    })
}

/// A program and its arguments.
pub(super) fn command(value: &Value) -> Result<Vec<String>, String> {
    // A variable is split at commas as every list is.
    list(value, |item| text(item).ok())
        .filter(|words| words.first().is_some_and(|program| !program.is_empty()))
        .filter(|words| !words.iter().any(|word| word.contains('\0')))
        .ok_or_else(|| {
            "a program and its arguments such as [\"python3\", \"server.py\"]".to_owned()
        })
}

/// Certificates with their keys, or none.
pub(super) fn certificates(value: &Value) -> Result<Vec<CertificatePair>, String> {
    let pair = |item: &Value| match item {
        Value::Table(keys) if keys.len() == 2 => {
            let path = |key: &str| named(&keys.get(key)?.value).ok().map(PathBuf::from);
            Some(CertificatePair { cert: path("cert")?, key: path("key")? })
        }
        _ => None,
    };
    list(value, pair)
        .ok_or_else(|| "a list of pairs such as [{ cert = \"a.crt\", key = \"a.key\" }]".to_owned())
}

/// Variables for a workspace.
pub(super) fn environment(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let expected = || "a table of texts such as { GREETING = \"hello\" }".to_owned();
    let Value::Table(keys) = value else {
        return Err(expected());
    };
    let entry = |(name, node): (&String, &Node)| {
        let text = text(&node.value).ok()?;
        let valid = !name.is_empty() && !name.contains(['=', '\0']) && !text.contains('\0');
        valid.then(|| (name.clone(), text))
    };
    keys.iter().map(entry).collect::<Option<_>>().ok_or_else(expected)
}

/// A path in a URL.
pub(super) fn url_path(value: &Value) -> Result<String, String> {
    let valid = |text: &str| {
        let graphic = text.bytes().all(|byte| byte.is_ascii_graphic());
        (text.starts_with('/') && graphic).then(|| text.to_owned())
    };
    parsed(value, valid).ok_or_else(|| "a path such as \"/healthz\"".to_owned())
}

/// `host:port`.
pub(super) fn host_and_port(value: &Value) -> Result<String, String> {
    let valid = |text: &str| {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then(|| address.to_string());
        }
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        Some(format!("{}:{port}", host_name(host)?))
    };
    parsed(value, valid).ok_or_else(|| "a host and a port such as \"127.0.0.1:9000\"".to_owned())
}

/// Scheme, host and port, or an empty text for none.
pub(super) fn public_url_or_none(value: &Value) -> Result<Option<PublicUrl>, String> {
    let valid = |text: &str| {
        let (secure, rest) = match text.split_once("://")? {
            ("https", rest) => (true, rest),
            ("http", rest) => (false, rest),
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (rest, PublicUrl::usual_port(secure)),
        };
        Some(PublicUrl { secure, domain: host_name(host)?, port })
    };
    match text_or_none(value) {
        Ok(None) => Ok(None),
        _ => parsed(value, valid)
            .map(Some)
            .ok_or_else(|| "a URL without a path such as \"https://dev.example.com\"".to_owned()),
    }
}

/// `http1` or `h2c`.
pub(super) fn protocol(value: &Value) -> Result<Protocol, String> {
    choice(value, &Protocol::NAMES)
}

/// `stop` or `pause`.
pub(super) fn freeze_mode(value: &Value) -> Result<FreezeMode, String> {
    choice(value, &[("stop", FreezeMode::Stop), ("pause", FreezeMode::Pause)])
}

/// `open` or `traffic`.
pub(super) fn connection_activity(value: &Value) -> Result<ConnectionActivity, String> {
    use ConnectionActivity::{Open, Traffic};
    choice(value, &[("open", Open), ("traffic", Traffic)])
}

/// `auto`, true or false.
pub(super) fn docker_use(value: &Value) -> Result<DockerUse, String> {
    match (switch(value), text(value).as_deref()) {
        (Ok(true), _) => Ok(DockerUse::Always),
        (Ok(false), _) => Ok(DockerUse::Never),
        (Err(_), Ok("auto")) => Ok(DockerUse::Auto),
        (Err(_), _) => Err("\"auto\", true or false".to_owned()),
    }
}

/// True, false, or an absolute path; an empty text is false.
pub(super) fn admin_socket(value: &Value) -> Result<AdminSocket, String> {
    match (switch(value), text_or_none(value)) {
        (Ok(true), _) => Ok(AdminSocket::InStateDir),
        (Ok(false), _) | (Err(_), Ok(None)) => Ok(AdminSocket::Nowhere),
        (Err(_), Ok(Some(path))) if path.starts_with('/') => {
            Ok(AdminSocket::At(PathBuf::from(path)))
        }
        (Err(_), _) => {
            Err("true, false or a path such as \"/run/frostgate/admin.sock\"".to_owned())
        }
    }
}

/// A name for one of several Frostgates on an engine, or an empty text.
pub(super) fn scope(value: &Value) -> Result<String, String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    parsed(value, |text| text.bytes().all(valid).then(|| text.to_owned()))
        .ok_or_else(|| "letters, digits, '-', '_' and '.'".to_owned())
}

/// The hash of a token.
pub(super) fn token_hash(value: &Value) -> Result<TokenHash, String> {
    parsed(value, TokenHash::parse)
        .ok_or_else(|| "\"sha256:\" and the 64 hexadecimal digits that sha256sum prints".to_owned())
}

/// A token's scope where it is limited to no project.
pub(super) fn scope_of_everything(value: &Value) -> Result<Scope, String> {
    let named = |text: &str| match text {
        "admin" => Some(Scope::Admin),
        "read" => Some(Scope::Read),
        _ => None,
    };
    parsed(value, named).ok_or_else(|| "\"admin\" or \"read\"".to_owned())
}

/// The projects that a token is limited to.
pub(super) fn scope_of_projects(value: &Value) -> Result<Scope, String> {
    list(value, |item| project(item).ok())
        .filter(|projects| !projects.is_empty())
        .map(|projects| Scope::Projects(projects.into_iter().collect()))
        .ok_or_else(|| "a list of names of projects such as [\"courses\"]".to_owned())
}

/// `container` or `published`.
pub(super) fn docker_address(value: &Value) -> Result<DockerAddress, String> {
    use DockerAddress::{Container, Published};
    choice(value, &[("container", Container), ("published", Published)])
}

/// `auto`, `cgroup` or `signal`.
pub(super) fn freezer(value: &Value) -> Result<Freezer, String> {
    use Freezer::{Auto, Cgroup, Signal};
    choice(value, &[("auto", Auto), ("cgroup", Cgroup), ("signal", Signal)])
}

fn choice<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Result<T, String> {
    let named = |text: &str| Some(choices.iter().find(|(name, _)| *name == text)?.1);
    parsed(value, named).ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        match names.split_last() {
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => "nothing".to_owned(),
        }
    })
}

fn parsed<T>(value: &Value, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    match value {
        Value::Text(text) | Value::Bare(text) => parse(text.trim()),
        _ => None,
    }
}

/// A list, each item of which has to be right; bare text is split at its commas.
fn list<T>(value: &Value, item: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    match value {
        Value::List(nodes) => nodes.iter().map(|node| item(&node.value)).collect(),
        Value::Bare(text) if text.trim().is_empty() => Some(vec![]),
        Value::Bare(text) => {
            text.split(',').map(|part| item(&Value::Bare(part.trim().to_owned()))).collect()
        }
        _ => None,
    }
}

/// A host name in lower case, as DNS and browsers write it.
fn host_name(text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    let label = |label: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(valid)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (name.len() <= 253 && name.split('.').all(label)).then_some(name)
}
