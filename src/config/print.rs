//! The effective configuration as TOML, in the order in which people think of it. What is printed
//! reads back to the same configuration.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use toml::Value;

use crate::model::{
    ConnectionActivity, FreezeMode, FrozenStorage, Image, NoWakeOverrides, Policy, PolicyOverrides,
    Pull, Runs, Spec,
};

use super::{AdminSocket, CertificatePair, Config, DockerAddress, DockerUse, Freezer, values};

/// Every option and its value.
pub(super) fn config(config: &Config) -> String {
    let mut page = Page::default();
    page.line("state_dir", text(config.state_dir.display()));
    listen(config, &mut page);
    tls(config, &mut page);
    page.header("routing");
    page.line("domain", text(&config.routing.domain));
    page.line("paths", config.routing.paths);
    page.line("admin_host", text(config.routing.admin_host.as_deref().unwrap_or_default()));
    let public_url = config.routing.public_url.as_ref();
    page.line("public_url", text(public_url.map(ToString::to_string).unwrap_or_default()));
    page.line("trusted_proxies", texts(&config.routing.trusted_proxies));
    page.header("waiting_page");
    let directory = config.waiting_page.directory.as_deref().unwrap_or(Path::new(""));
    page.line("directory", text(directory.display()));
    page.header("log");
    let access = config.log.access.as_deref().unwrap_or(Path::new(""));
    page.line("access", text(access.display()));
    page.header("metrics");
    page.line("per_workspace", config.metrics.per_workspace);
    page.header("upstream");
    page.line("connect_timeout", span(config.upstream.connect_timeout));
    page.line("response_timeout", span(config.upstream.response_timeout));
    page.line("idle_per_workspace_max", count(config.upstream.idle_per_workspace_max));
    page.header("limits");
    page.line("held_max", count(config.limits.held_max));
    page.line("held_per_workspace_max", count(config.limits.held_per_workspace_max));
    let inside_max = config.limits.requests_per_workspace_max;
    page.line("requests_per_workspace_max", count(inside_max));
    page.line("slots", count(config.limits.slots));
    page.line("memory_budget", size(config.limits.memory_budget));
    page.line("memory_assumed", size(config.limits.memory_assumed));
    page.line("memory_low", size(config.limits.memory_low));
    page.line("starts_max", count(config.limits.starts_max));
    page.header("policy");
    overrides(&everything(&config.policy), &mut page);
    page.header("api");
    page.line("hosts", texts(&config.api.hosts));
    page.line("inline_specs", config.api.inline_specs);
    page.line("max_inactive_storage_time", storage(config.api.storage));
    drivers(config, &mut page);
    for (name, grant) in &config.tokens {
        page.header(&format!("tokens.{name}"));
        page.line("hash", text(grant.hash));
        match grant.scope.projects() {
            Some(projects) => {
                let projects: Vec<_> = projects.iter().collect();
                page.line("projects", texts(&projects));
            }
            None => page.line("scope", text(grant.scope.word())),
        }
    }
    for (id, project) in &config.projects {
        page.header(&format!("projects.{id}"));
        page.line("name", text(&project.name));
        runs(&project.spec.runs, &mut page);
        spec(&project.spec, &mut page);
        overrides(&project.policy, &mut page);
    }
    for (id, workspace) in &config.workspaces {
        page.header(&format!("workspaces.{id}"));
        match &workspace.project {
            Some(project) => page.line("project", text(project)),
            None => runs(&workspace.spec.runs, &mut page),
        }
        spec(&workspace.spec, &mut page);
        overrides(&workspace.policy, &mut page);
    }
    page.text
}

fn listen(config: &Config, page: &mut Page) {
    page.header("listen");
    page.line("public", texts(&config.listen.public));
    page.line("tls", texts(&config.listen.tls));
    page.line("admin", text(config.listen.admin));
    page.line("admin_tls", config.listen.admin_tls);
    page.line(
        "admin_socket",
        match &config.listen.admin_socket {
            AdminSocket::InStateDir => Value::Boolean(true),
            AdminSocket::At(path) => text(path.display()),
            AdminSocket::Nowhere => Value::Boolean(false),
        },
    );
    page.line("workers", count(config.listen.workers));
    page.line("first_byte_timeout", span(config.listen.first_byte_timeout));
    page.line("handshake_timeout", span(config.listen.handshake_timeout));
    page.line("header_timeout", span(config.listen.header_timeout));
    page.line("send_timeout", span(config.listen.send_timeout));
    page.line("body_timeout", span(config.listen.body_timeout));
    page.line("body_rate_min", size(config.listen.body_rate_min));
    page.line("proxy_protocol", texts(&config.listen.proxy_protocol));
    page.line("connections_max", count(config.listen.connections_max));
    let of_client = config.listen.connections_per_client_max;
    page.line("connections_per_client_max", count(of_client));
    page.line("drain_grace", span(config.listen.drain_grace));
}

fn tls(config: &Config, page: &mut Page) {
    page.header("tls");
    let directory = config.tls.directory.as_deref().unwrap_or(Path::new(""));
    page.line("directory", text(directory.display()));
    let pair = |pair: &CertificatePair| {
        let fields = [("cert", &pair.cert), ("key", &pair.key)];
        let fields = fields.map(|(key, path)| (key.to_owned(), text(path.display())));
        Value::Table(fields.into_iter().collect())
    };
    page.line("certificates", Value::Array(config.tls.certificates.iter().map(pair).collect()));
    page.line("redirect", config.tls.redirect);
    page.line("hsts", span(config.tls.hsts));
}

fn drivers(config: &Config, page: &mut Page) {
    page.header("docker");
    page.line(
        "enable",
        match config.docker.enable {
            DockerUse::Auto => text("auto"),
            DockerUse::Always => Value::Boolean(true),
            DockerUse::Never => Value::Boolean(false),
        },
    );
    page.line("socket", text(config.docker.socket.as_deref().unwrap_or_default()));
    page.line(
        "address",
        text(match config.docker.address {
            DockerAddress::Container => "container",
            DockerAddress::Published => "published",
        }),
    );
    page.line("network", text(config.docker.network.as_deref().unwrap_or_default()));
    page.line("scope", text(&config.docker.scope));
    page.header("process");
    page.line(
        "freezer",
        text(match config.process.freezer {
            Freezer::Auto => "auto",
            Freezer::Cgroup => "cgroup",
            Freezer::Signal => "signal",
        }),
    );
}

fn runs(runs: &Runs, page: &mut Page) {
    match runs {
        Runs::Command { argv, directory } => {
            page.line("command", texts(argv));
            page.line_if("directory", directory.as_ref().map(|path| text(path.display())));
        }
        Runs::Image(container) => image(container, page),
        Runs::Upstream(upstream) => page.line("upstream", text(upstream)),
        // Containers that somebody else labelled are found, never configured.
        Runs::Discovered { .. } => {}
    }
}

fn image(image: &Image, page: &mut Page) {
    page.line("image", text(&image.name));
    page.line_if("command", some_texts(&image.command));
    page.line_if("network", image.network.as_ref().map(text));
    page.line("isolate", image.isolate);
    page.line_if("mounts", some_texts(&image.mounts));
    // Billionths have few enough digits to be exact in the printed number.
    page.line_if("cpus", image.nano_cpus.map(|nano| Value::Float(nano as f64 / 1e9)));
    page.line(
        "pull",
        text(match image.pull {
            Pull::Missing => "missing",
            Pull::Never => "never",
            Pull::Always => "always",
        }),
    );
    page.line("publish_ports", image.publish_ports);
}

fn spec(spec: &Spec, page: &mut Page) {
    page.line_if("port", spec.port.map(|port| Value::Integer(port.into())));
    page.line_if("memory", spec.memory.map(size));
    page.line_if("hosts", some_texts(&spec.hosts));
    page.line_if("environment", environment(&spec.environment));
    page.line_if("ready_path", spec.ready_path.as_ref().map(text));
    page.line("protocol", text(spec.protocol));
}

fn storage(storage: FrozenStorage) -> Value {
    match storage {
        FrozenStorage::None => span(Duration::ZERO),
        FrozenStorage::Limited(limit) => span(limit),
        FrozenStorage::Unlimited => text(values::UNLIMITED),
    }
}

fn overrides(policy: &PolicyOverrides, page: &mut Page) {
    let mode = |mode| match mode {
        FreezeMode::Stop => text("stop"),
        FreezeMode::Pause => text("pause"),
    };
    let activity = |activity| match activity {
        ConnectionActivity::Open => text("open"),
        ConnectionActivity::Traffic => text("traffic"),
    };
    page.line_if("inactivity_timeout", policy.inactivity_timeout.map(span));
    page.line_if("initial_timeout", policy.initial_timeout.map(span));
    page.line_if("freeze_mode", policy.freeze_mode.map(mode));
    page.line_if("check_in_ttl", policy.check_in_ttl.map(span));
    page.line_if("hold_max", policy.hold_max.map(span));
    page.line_if("page_after", policy.page_after.map(span));
    let rules = &policy.no_wake;
    page.line_if("no_wake_paths", rules.paths.as_deref().map(texts));
    page.line_if("no_wake_methods", rules.methods.as_deref().map(texts));
    page.line_if("no_wake_user_agents", rules.user_agents.as_deref().map(texts));
    page.line_if("no_wake_clients", rules.clients.as_deref().map(texts));
    page.line_if("start_timeout", policy.start_timeout.map(span));
    page.line_if("stop_grace", policy.stop_grace.map(span));
    page.line_if("drain_grace", policy.drain_grace.map(span));
    page.line_if("stop_hold_off", policy.stop_hold_off.map(span));
    page.line_if("connection_activity", policy.connection_activity.map(activity));
    page.line_if("idle_bytes", policy.idle_bytes.map(size));
    page.line_if("monitoring", policy.monitoring.map(Value::Boolean));
    page.line_if("stop_after", policy.stop_after.map(span));
    page.line_if("max_inactive_storage_time", policy.storage.map(storage));
    page.line_if("max_storage_time", policy.max_storage_time.map(span));
}

/// The overrides that make exactly this policy of any other.
fn everything(policy: &Policy) -> PolicyOverrides {
    PolicyOverrides {
        inactivity_timeout: Some(policy.inactivity_timeout.unwrap_or_default()),
        initial_timeout: Some(policy.initial_timeout),
        freeze_mode: Some(policy.freeze_mode),
        check_in_ttl: Some(policy.check_in_ttl.unwrap_or_default()),
        hold_max: Some(policy.hold_max),
        page_after: Some(policy.page_after),
        no_wake: NoWakeOverrides::everything(&policy.no_wake),
        start_timeout: Some(policy.start_timeout),
        stop_grace: Some(policy.stop_grace),
        drain_grace: Some(policy.drain_grace),
        stop_hold_off: Some(policy.stop_hold_off),
        connection_activity: Some(policy.connection_activity),
        idle_bytes: Some(policy.idle_bytes),
        monitoring: Some(policy.monitoring),
        stop_after: Some(policy.stop_after.unwrap_or_default()),
        storage: Some(policy.storage),
        max_storage_time: Some(policy.max_storage_time.unwrap_or_default()),
    }
}

/// The text so far.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn header(&mut self, name: &str) {
        self.text.push_str(&format!("\n[{name}]\n"));
    }

    fn line(&mut self, key: &str, value: impl Into<Value>) {
        self.text.push_str(&format!("{key} = {}\n", value.into()));
    }

    fn line_if(&mut self, key: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.line(key, value);
        }
    }
}

fn text(value: impl Display) -> Value {
    Value::String(value.to_string())
}

fn texts(values: &[impl Display]) -> Value {
    Value::Array(values.iter().map(text).collect())
}

fn some_texts(values: &[impl Display]) -> Option<Value> {
    (!values.is_empty()).then(|| texts(values))
}

fn count(value: usize) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

fn environment(variables: &BTreeMap<String, String>) -> Option<Value> {
    let entry = |(name, value): (&String, &String)| (name.clone(), text(value));
    (!variables.is_empty()).then(|| Value::Table(variables.iter().map(entry).collect()))
}

/// A size in the largest unit that it is a whole number of: `512MiB`.
fn size(bytes: u64) -> Value {
    if bytes == 0 {
        return Value::Integer(0);
    }
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fitting = units.into_iter().find(|(shift, _)| bytes.is_multiple_of(1 << shift));
    Value::String(match fitting {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    })
}

/// A duration in the fewest units, exactly: `15m`, `1h30m`, `1.5s`, `250ms`.
fn span(duration: Duration) -> Value {
    let seconds = duration.as_secs();
    let nanoseconds = duration.subsec_nanos();
    let mut written = String::new();
    let whole = [("d", seconds / 86_400), ("h", seconds / 3600 % 24), ("m", seconds / 60 % 60)];
    for (unit, number) in whole {
        if number > 0 {
            written.push_str(&format!("{number}{unit}"));
        }
    }
    let rest = seconds % 60;
    if rest == 0 && nanoseconds > 0 && nanoseconds.is_multiple_of(1_000_000) {
        written.push_str(&format!("{}ms", nanoseconds / 1_000_000));
    } else if nanoseconds > 0 {
        let fraction = format!("{nanoseconds:09}");
        written.push_str(&format!("{rest}.{}s", fraction.trim_end_matches('0')));
    } else if rest > 0 || written.is_empty() {
        written.push_str(&format!("{rest}s"));
    }
    Value::String(written)
}
