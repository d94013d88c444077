//! Whether the container engine can be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;

use super::Finding;
use crate::app::App;
use crate::config::{Config, DockerUse};
use crate::driver::docker::{self, About};

const CHECK: &str = "engine";

/// What there is to say of it, and what it says of itself.
pub(super) fn check(config: &Config) -> anyhow::Result<(Vec<Finding>, Option<About>)> {
    let alone = |finding| Ok((vec![finding], None));
    let engine = match App::engine(config) {
        Ok(Some(engine)) => engine,
        Ok(None) if config.docker.enable == DockerUse::Never => {
            return alone(Finding::ok(CHECK, "none is wanted: docker.enable is false"));
        }
        Ok(None) => {
            let socket = docker::DEFAULT_SOCKET;
            let detail =
                format!("none is used: there is no {socket}, and docker.socket names none");
            return alone(Finding::ok(CHECK, detail));
        }
        Err(error) => {
            let fix = "correct docker.socket, or the variable DOCKER_HOST";
            return alone(Finding::problem(CHECK, format!("{error:#}"), fix));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not ask the engine")?;
    match runtime.block_on(engine.about()) {
        Ok(about) => {
            let cgroups = match about.cgroup_version.as_str() {
                "" => String::new(),
                version => format!(", cgroups of version {version}"),
            };
            let detail = format!(
                "{} answers: version {}, API {}{cgroups}",
                about.place, about.version, about.api_version
            );
            let mut findings = vec![Finding::ok(CHECK, detail)];
            findings.extend(socket_of(config).as_deref().and_then(open_to_all));
            Ok((findings, Some(about)))
        }
        Err(error) => {
            let words = error.to_string();
            let fix = fix(&words);
            alone(Finding::problem(CHECK, words, fix))
        }
    }
}

fn fix(words: &str) -> &'static str {
    if words.contains("ermission denied") {
        "let the user that serves open the engine's socket, as by `usermod -aG docker USER`; \
         whoever may do that is root on this machine"
    } else {
        "start it, as by `systemctl start docker`, or name its socket in docker.socket; or set \
         docker.enable to false"
    }
}

/// Its path, where it has one.
fn socket_of(config: &Config) -> Option<String> {
    let variable = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let named = config.docker.socket.clone().or(variable);
    let named = named.unwrap_or_else(|| docker::DEFAULT_SOCKET.to_owned());
    let path = named.strip_prefix("unix://").unwrap_or(&named);
    path.starts_with('/').then(|| path.to_owned())
}

fn open_to_all(path: &str) -> Option<Finding> {
    let mode = fs::metadata(Path::new(path)).ok()?.permissions().mode();
    (mode & 0o002 != 0).then(|| {
        let detail = format!("everybody on this machine may open {path}, and so be root on it");
        Finding::warning(CHECK, detail, format!("chmod o-rw {path}"))
    })
}
