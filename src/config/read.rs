//! The sections, key by key. The keys stand in the order in which `print` writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{
    Image, NoWakeOverrides, PolicyOverrides, Project, ProjectId, Runs, Spec, WorkspaceId,
};
use crate::token::{Grant, TokenName};

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
    top.inner("waiting_page", |mut section| {
        let directory = section.optional("directory", values::text_or_none).flatten();
        config.waiting_page.directory = directory.map(PathBuf::from);
        section.finish();
    });
    top.inner("log", |mut section| {
        let access = section.optional("access", values::text_or_none).flatten();
        config.log.access = access.map(PathBuf::from);
        section.finish();
    });
    top.inner("metrics", |mut section| {
        section.read("per_workspace", &mut config.metrics.per_workspace, values::switch);
        section.finish();
    });
    top.inner("upstream", |section| upstream(section, &mut config));
    top.inner("limits", |section| limits(section, &mut config));
    top.inner("policy", |mut section| {
        config.policy = overrides(&mut section).over(&config.policy);
        section.finish();
    });
    top.inner("api", |mut section| {
        section.read("hosts", &mut config.api.hosts, values::hosts);
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
    top.each("tokens", |name, section| token(name, section, &mut config));
    let mut named = BTreeSet::new();
    top.each("projects", |name, section| {
        named.insert(name.to_owned());
        project(name, section, &mut config);
    });
    top.each("workspaces", |name, section| workspace(name, section, &named, &mut config));
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
    section.read("admin_socket", &mut listen.admin_socket, values::admin_socket);
    section.read("workers", &mut listen.workers, values::threads);
    let timeout: Read<_> = values::positive_duration;
    section.read("first_byte_timeout", &mut listen.first_byte_timeout, timeout);
    section.read("handshake_timeout", &mut listen.handshake_timeout, timeout);
    section.read("header_timeout", &mut listen.header_timeout, timeout);
    section.read("send_timeout", &mut listen.send_timeout, timeout);
    section.read("body_timeout", &mut listen.body_timeout, timeout);
    section.read("body_rate_min", &mut listen.body_rate_min, values::any_size);
    section.read("proxy_protocol", &mut listen.proxy_protocol, values::networks);
    section.read("connections_max", &mut listen.connections_max, values::count_from_one);
    let of_client = &mut listen.connections_per_client_max;
    section.read("connections_per_client_max", of_client, values::count);
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
    let inside_max = &mut limits.requests_per_workspace_max;
    section.read("requests_per_workspace_max", inside_max, values::count);
    section.read("slots", &mut limits.slots, values::count);
    section.read("memory_budget", &mut limits.memory_budget, values::memory_or_none);
    section.read("memory_assumed", &mut limits.memory_assumed, values::memory);
    section.read("memory_low", &mut limits.memory_low, values::memory_or_none);
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

fn token(name: &str, mut section: Section<'_>, config: &mut Config) {
    let written = section.present(&["hash", "scope", "projects"]);
    let hash = section.optional("hash", values::token_hash);
    let scope = section.optional("scope", values::scope_of_everything);
    let scope = section.optional("projects", values::scope_of_projects).or(scope);
    if !written.contains(&"hash") {
        section.problem_here(format!("token {name:?} needs its \"hash\""));
    }
    if written.contains(&"scope") == written.contains(&"projects") {
        section.problem_here(format!(
            "token {name:?} needs exactly one of \"scope\" and \"projects\""
        ));
    }
    match TokenName::parse(name) {
        Err(invalid) => section.problem_here(invalid.to_string()),
        Ok(name) if name == TokenName::of_state_dir() => section.problem_here(format!(
            "{:?} is the name of the token in the state directory; choose another",
            name.as_str()
        )),
        Ok(name) => {
            if let (Some(hash), Some(scope)) = (hash, scope) {
                config.tokens.insert(name, Grant { hash, scope });
            }
        }
    }
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
        page_after: section.optional("page_after", values::any_duration),
        no_wake: no_wake(section),
        start_timeout: section.optional("start_timeout", positive),
        stop_grace: section.optional("stop_grace", values::any_duration),
        drain_grace: section.optional("drain_grace", values::any_duration),
        stop_hold_off: section.optional("stop_hold_off", values::any_duration),
        connection_activity: section.optional("connection_activity", values::connection_activity),
        idle_bytes: section.optional("idle_bytes", values::any_size),
        monitoring: section.optional("monitoring", values::switch),
        stop_after: section.optional("stop_after", values::any_duration),
        storage: section.optional("max_inactive_storage_time", values::frozen_storage),
        max_storage_time: section.optional("max_storage_time", values::any_duration),
    }
}

fn no_wake(section: &mut Section<'_>) -> NoWakeOverrides {
    NoWakeOverrides {
        paths: section.optional("no_wake_paths", values::path_patterns),
        methods: section.optional("no_wake_methods", values::methods),
        user_agents: section.optional("no_wake_user_agents", values::user_agents),
        clients: section.optional("no_wake_clients", values::networks),
    }
}

/// The keys that say what a workspace is. A command beside an image overrides the image's own.
const KINDS: [&str; 4] = ["command", "image", "upstream", "project"];
/// The keys that only some kinds have.
const PARTS: [&str; 9] = [
    "directory",
    "port",
    "memory",
    "network",
    "isolate",
    "mounts",
    "cpus",
    "pull",
    "publish_ports",
];

fn project(name: &str, mut section: Section<'_>, config: &mut Config) {
    let id = ProjectId::parse(name);
    if let Err(invalid) = &id {
        section.problem_here(invalid.to_string());
    }
    section.refuse("upstream", "a service that is only routed to can't be made from a template");
    section.refuse("hosts", "a host name leads to one workspace, which has to claim it itself");
    let written = Written::of(&section);
    let title = section.optional("name", values::named);
    let runs = runs(&mut section);
    let spec = spec(&mut section, runs.map(Spec::new));
    let policy = overrides(&mut section);
    written.check(&format!("project {name:?}"), "\"command\" and \"image\"", &mut section);
    section.finish();
    if let (Ok(id), Some(spec)) = (id, spec) {
        let name = title.unwrap_or_else(|| name.to_owned());
        config.projects.insert(id, Project { name, spec: Arc::new(spec), policy });
    }
}

/// `named`: the keys of all projects, those with mistakes included.
fn workspace(name: &str, mut section: Section<'_>, named: &BTreeSet<String>, config: &mut Config) {
    let id = WorkspaceId::parse(name);
    if let Err(invalid) = &id {
        section.problem_here(invalid.to_string());
    }
    let written = Written::of(&section);
    let project = section.optional("project", values::project);
    if let Some(project) = project.as_ref().filter(|project| !named.contains(project.as_str())) {
        section.problem("project", &format!("there is no [projects.{project}]"));
    }
    let template = project.as_ref().and_then(|project| config.projects.get(project));
    let upstream = section.optional("upstream", values::host_and_port).map(Runs::Upstream);
    let runs = runs(&mut section).or(upstream);
    let base = template.map(|template| (*template.spec).clone()).or_else(|| runs.map(Spec::new));
    let spec = spec(&mut section, base);
    let mut hosts = vec![];
    section.read("hosts", &mut hosts, values::hosts);
    let own = overrides(&mut section);
    let policy = template.map_or_else(|| own.clone(), |template| template.policy.and(&own));
    let one_of = "\"command\", \"image\", \"upstream\" and \"project\"";
    written.check(&format!("workspace {name:?}"), one_of, &mut section);
    section.finish();
    if let (Ok(id), Some(spec)) = (id, spec) {
        let spec = Arc::new(Spec { hosts, ..spec });
        // Thousands of workspaces may set the same.
        let last = config.workspaces.values().next_back().map(|last| &last.policy);
        let shared = last.filter(|last| ***last == policy).cloned();
        let policy = shared.unwrap_or_else(|| Arc::new(policy));
        config.workspaces.insert(id, Workspace { project, spec, policy });
    }
}

/// What runs, if the keys are clear about it.
fn runs(section: &mut Section<'_>) -> Option<Runs> {
    let command = section.optional("command", values::command);
    let directory = section.optional("directory", values::named).map(PathBuf::from);
    match (image(section), command) {
        (Some(image), None) => Some(Runs::Image(image)),
        (Some(image), Some(command)) => Some(Runs::Image(Image { command, ..image })),
        (None, Some(argv)) => Some(Runs::Command { argv, directory }),
        (None, None) => None,
    }
}

fn image(section: &mut Section<'_>) -> Option<Image> {
    let name = section.optional("image", values::named);
    let mut image = Image::new(name.clone().unwrap_or_default());
    section.read("network", &mut image.network, values::text_or_none);
    section.read("isolate", &mut image.isolate, values::switch);
    if image.isolate && image.network.is_some() {
        section.problem("network", "does not go with \"isolate\", which makes one");
    }
    section.read("mounts", &mut image.mounts, values::mounts);
    image.nano_cpus = section.optional("cpus", values::cpus);
    section.read("pull", &mut image.pull, values::pull);
    section.read("publish_ports", &mut image.publish_ports, values::switch);
    name.map(|_| image)
}

/// What does not depend on what runs, on top of what is known already.
fn spec(section: &mut Section<'_>, base: Option<Spec>) -> Option<Spec> {
    let port = section.optional("port", values::port);
    let memory = section.optional("memory", values::memory);
    let environment = section.optional("environment", values::environment);
    let ready_path = section.optional("ready_path", values::url_path);
    let protocol = section.optional("protocol", values::protocol);
    let mut spec = base?;
    spec.port = port.or(spec.port);
    spec.memory = memory.or(spec.memory);
    spec.environment.extend(environment.unwrap_or_default());
    spec.ready_path = ready_path.or(spec.ready_path);
    spec.protocol = protocol.unwrap_or(spec.protocol);
    Some(spec)
}

/// Which keys a table has that contradict each other in some company, before they are read.
struct Written {
    kinds: Vec<&'static str>,
    parts: Vec<&'static str>,
}

impl Written {
    fn of(section: &Section<'_>) -> Self {
        Self { kinds: section.present(&KINDS), parts: section.present(&PARTS) }
    }

    /// A workspace is one thing, and has no keys that only make sense for another.
    fn check(&self, what: &str, one_of: &str, section: &mut Section<'_>) {
        let kind = match self.kinds[..] {
            [kind] | ["command", kind @ "image"] => kind,
            [] => {
                section.problem_here(format!("{what} needs exactly one of {one_of}, and has none"));
                return;
            }
            _ => {
                let names: Vec<String> =
                    self.kinds.iter().map(|kind| format!("{kind:?}")).collect();
                let has = names.join(" and ");
                section
                    .problem_here(format!("{what} needs exactly one of {one_of}, and has {has}"));
                return;
            }
        };
        for part in &self.parts {
            let fits = match *part {
                "directory" => kind == "command",
                "port" | "memory" => kind != "upstream",
                _ => kind == "image",
            };
            if !fits {
                section.problem(part, &format!("does not go with {kind:?}"));
            }
        }
    }
}
