//! The sections, key by key. The keys stand in the order in which `print` writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::model::{PolicyOverrides, Runs, Spec, WorkspaceId};

use super::section::{Findings, Section};
use super::tree::Tree;
use super::values::{self, Read};
use super::{Config, ConfigError, Workspace, check, usual_certificates_dir, usual_state_dir};

/// The configuration that the sources add up to, or everything that is wrong with it. `file` is the
/// one that was read.
pub(super) fn config(
    tree: Tree,
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let mut findings = Findings::default();
    let mut top = Section::top(tree.keys, &mut findings);
    state_dir(&mut top, &mut config, environment);
    top.inner("listen", |section| listen(section, &mut config));
    top.inner("tls", |section| tls(section, &mut config, file));
    top.inner("routing", |section| routing(section, &mut config));
    top.inner("upstream", |section| upstream(section, &mut config));
    top.inner("limits", |section| limits(section, &mut config));
    top.inner("policy", |mut section| {
        config.policy = overrides(&mut section).over(&config.policy);
        section.finish();
    });
    top.inner("api", |mut section| {
        section.read("inline_specs", &mut config.api.inline_specs, values::switch);
        let storage = &mut config.api.storage;
        section.read("max_inactive_storage_time", storage, values::frozen_storage);
        section.finish();
    });
    top.inner("docker", |section| docker(section, &mut config));
    top.inner("process", |mut section| {
        section.read("freezer", &mut config.process.freezer, values::freezer);
        section.finish();
    });
    top.each("workspaces", |name, section| workspace(name, section, &mut config));
    top.finish();
    check::whole(&config, &mut findings);
    if findings.problems.is_empty() {
        return Ok(config);
    }
    // In the order of the file; what stands on one line stays in the order of discovery.
    findings.problems.sort_by(|one, other| one.origin.cmp(&other.origin));
    Err(ConfigError::Invalid { problems: findings.problems })
}

fn state_dir(top: &mut Section<'_>, config: &mut Config, environment: &BTreeMap<String, String>) {
    let mut written = None;
    top.read("state_dir", &mut written, values::text_or_none);
    match written.map(PathBuf::from).or_else(|| usual_state_dir(environment)) {
        Some(directory) => config.state_dir = directory,
        None => top.problem(
            "state_dir",
            "must be set, because neither HOME nor XDG_STATE_HOME is an absolute path",
        ),
    }
}

fn listen(mut section: Section<'_>, config: &mut Config) {
    let listen = &mut config.listen;
    section.read("public", &mut listen.public, values::addresses);
    section.read("tls", &mut listen.tls, values::addresses_or_none);
    section.read("admin", &mut listen.admin, values::address);
    section.read("admin_tls", &mut listen.admin_tls, values::switch);
    section.read("workers", &mut listen.workers, values::threads);
    let timeout: Read<_> = values::positive_duration;
    section.read("first_byte_timeout", &mut listen.first_byte_timeout, timeout);
    section.read("handshake_timeout", &mut listen.handshake_timeout, timeout);
    section.read("header_timeout", &mut listen.header_timeout, timeout);
    section.read("connections_max", &mut listen.connections_max, values::count_from_one);
    section.read("drain_grace", &mut listen.drain_grace, values::any_duration);
    section.finish();
}

fn tls(mut section: Section<'_>, config: &mut Config, file: Option<&Path>) {
    let tls = &mut config.tls;
    let directory = section.optional("directory", values::text_or_none).flatten();
    section.read("certificates", &mut tls.certificates, values::certificates);
    // Whoever names certificates means these.
    let usual = || tls.certificates.is_empty().then(|| usual_certificates_dir(file));
    tls.directory = directory.map(PathBuf::from).or_else(usual);
    section.read("redirect", &mut tls.redirect, values::switch);
    section.read("hsts", &mut tls.hsts, values::any_duration);
    section.finish();
}

fn routing(mut section: Section<'_>, config: &mut Config) {
    let routing = &mut config.routing;
    section.read("domain", &mut routing.domain, values::host);
    section.read("paths", &mut routing.paths, values::switch);
    section.read("admin_host", &mut routing.admin_host, values::host_or_none);
    section.read("public_url", &mut routing.public_url, values::public_url_or_none);
    section.read("trusted_proxies", &mut routing.trusted_proxies, values::networks);
    section.finish();
}

fn upstream(mut section: Section<'_>, config: &mut Config) {
    let upstream = &mut config.upstream;
    let timeout: Read<_> = values::positive_duration;
    section.read("connect_timeout", &mut upstream.connect_timeout, timeout);
    section.read("response_timeout", &mut upstream.response_timeout, timeout);
    let idle_max = &mut upstream.idle_per_workspace_max;
    section.read("idle_per_workspace_max", idle_max, values::count);
    section.finish();
}

fn limits(mut section: Section<'_>, config: &mut Config) {
    let limits = &mut config.limits;
    let count: Read<_> = values::count_from_one;
    section.read("held_max", &mut limits.held_max, count);
    section.read("held_per_workspace_max", &mut limits.held_per_workspace_max, count);
    section.read("slots", &mut limits.slots, values::count);
    section.read("starts_max", &mut limits.starts_max, count);
    section.finish();
}

fn docker(mut section: Section<'_>, config: &mut Config) {
    let docker = &mut config.docker;
    section.read("enable", &mut docker.enable, values::docker_use);
    section.read("socket", &mut docker.socket, values::text_or_none);
    section.read("address", &mut docker.address, values::docker_address);
    section.read("network", &mut docker.network, values::text_or_none);
    section.read("scope", &mut docker.scope, values::scope);
    section.finish();
}

/// The keys of a policy, which are those of `[policy]` and of every workspace.
fn overrides(section: &mut Section<'_>) -> PolicyOverrides {
    let positive: Read<_> = values::positive_duration;
    PolicyOverrides {
        inactivity_timeout: section.optional("inactivity_timeout", values::any_duration),
        initial_timeout: section.optional("initial_timeout", values::any_duration),
        freeze_mode: section.optional("freeze_mode", values::freeze_mode),
        check_in_ttl: section.optional("check_in_ttl", values::any_duration),
        hold_max: section.optional("hold_max", positive),
        start_timeout: section.optional("start_timeout", positive),
        stop_grace: section.optional("stop_grace", values::any_duration),
        drain_grace: section.optional("drain_grace", values::any_duration),
        monitoring: section.optional("monitoring", values::switch),
        stop_after: section.optional("stop_after", values::any_duration),
        storage: section.optional("max_inactive_storage_time", values::frozen_storage),
        max_storage_time: section.optional("max_storage_time", values::any_duration),
    }
}

/// What a workspace's table says that it is made of, before it is clear what that makes it.
#[derive(Default)]
struct Parts {
    command: Option<Vec<String>>,
    image: Option<String>,
    upstream: Option<String>,
    directory: Option<PathBuf>,
    network: Option<String>,
}

fn workspace(name: &str, mut section: Section<'_>, config: &mut Config) {
    let id = WorkspaceId::parse(name);
    if let Err(invalid) = &id {
        section.problem_here(invalid.to_string());
    }
    let present = |key: &&str| section.has(key);
    let kinds: Vec<&str> = ["command", "image", "upstream"].into_iter().filter(present).collect();
    let others: Vec<&str> = ["directory", "port", "network"].into_iter().filter(present).collect();
    let parts = Parts {
        command: section.optional("command", values::command),
        image: section.optional("image", values::named),
        upstream: section.optional("upstream", values::host_and_port),
        directory: section.optional("directory", values::named).map(PathBuf::from),
        network: section.optional("network", values::text_or_none).flatten(),
    };
    let port = section.optional("port", values::port);
    let mut hosts = vec![];
    section.read("hosts", &mut hosts, values::hosts);
    let mut environment = BTreeMap::new();
    section.read("environment", &mut environment, values::environment);
    let ready_path = section.optional("ready_path", values::url_path);
    let policy = overrides(&mut section);
    check_kind(name, &kinds, &others, &mut section);
    section.finish();
    if let (Ok(id), Some(runs)) = (id, parts.runs()) {
        let spec = Spec { runs, port, environment, hosts, ready_path };
        config.workspaces.insert(id, Workspace { spec, policy });
    }
}

impl Parts {
    fn runs(self) -> Option<Runs> {
        let (directory, network) = (self.directory, self.network);
        match (self.command, self.image, self.upstream) {
            (Some(argv), None, None) => Some(Runs::Command { argv, directory }),
            (None, Some(image), None) => Some(Runs::Image { image, command: vec![], network }),
            (None, None, Some(upstream)) => Some(Runs::Upstream(upstream)),
            _ => None,
        }
    }
}

/// A workspace is one thing, and has no keys that only make sense for another.
fn check_kind(name: &str, kinds: &[&str], others: &[&str], section: &mut Section<'_>) {
    let [kind] = kinds else {
        let names: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
        let has = match names.as_slice() {
            [] => "none".to_owned(),
            names => names.join(" and "),
        };
        section.problem_here(format!(
            "workspace {name:?} needs exactly one of \"command\", \"image\" and \"upstream\", \
             and has {has}"
        ));
        return;
    };
    for other in others {
        let fitting: &[&str] = match *other {
            "directory" => &["command"],
            "network" => &["image"],
            _ => &["command", "image"],
        };
        if !fitting.contains(kind) {
            section.problem(other, &format!("does not go with {kind:?}"));
        }
    }
}
