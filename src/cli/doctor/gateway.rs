//! Whether a gateway runs by this configuration, how it is, and who may call it without a token.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hyper::Method;
use rustix::net::sockopt::socket_peercred;
use serde::Deserialize;

use super::Finding;
use crate::cli::Environment;
use crate::cli::client::{CallError, Client, Gateway};
use crate::config::Config;

const CHECK: &str = "gateway";
const SOCKET: &str = "admin socket";
/// How long it may take to say how it is.
const ANSWER_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// What was found.
pub(super) struct Look {
    pub(super) findings: Vec<Finding>,
    /// The gateway's process, where that can be told.
    pub(super) process: Option<i32>,
}

#[derive(Deserialize)]
struct Readiness {
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    status: String,
    detail: String,
}

pub(super) fn look(
    file: Option<PathBuf>,
    config: &Config,
    environment: &Environment,
) -> anyhow::Result<Look> {
    let socket = config.admin_socket();
    let process = socket.as_deref().and_then(listener);
    let (mut findings, is_running) = ask(file, environment)?;
    if let Some(path) = &socket {
        findings.push(permissions(path, process.is_some(), is_running));
    }
    Ok(Look { findings, process })
}

/// How the gateway of this machine's own configuration is, whatever the environment names; and whether
/// it is.
fn ask(file: Option<PathBuf>, environment: &Environment) -> anyhow::Result<(Vec<Finding>, bool)> {
    let mut environment = environment.clone();
    environment.remove("FROSTGATE_URL");
    let client = match Client::find_unnamed(&Gateway::of(file), &environment) {
        Ok(client) => client,
        Err(error) if error.is::<CallError>() => {
            let detail = "none runs here, or where it would be asked can't be told: its port is 0";
            return Ok((vec![Finding::ok(CHECK, detail)], false));
        }
        Err(error) => {
            let fix = "see the check of the certificates";
            return Ok((vec![Finding::warning(CHECK, format!("{error:#}"), fix)], false));
        }
    };
    let place = client.place();
    let asked = client.ask(Method::GET, "/readyz?verbose", None::<&()>, ANSWER_MAX);
    let readiness = client.block_on(asked).and_then(|answer| answer.read::<Readiness>());
    Ok(match readiness {
        Ok(Readiness { checks }) => {
            let mut findings = vec![Finding::ok(CHECK, format!("it answers at {place}"))];
            let degraded = checks.into_iter().flatten().filter(|check| check.status != "ok");
            findings.extend(degraded.map(|Check { name, detail, .. }| {
                Finding::warning(CHECK, format!("its {name}: {detail}"), "its log says more")
            }));
            (findings, true)
        }
        Err(error) => (vec![absent(&place, &error)], false),
    })
}

fn absent(place: &str, error: &anyhow::Error) -> Finding {
    if let Some(CallError::Unreachable { reason, .. }) = error.downcast_ref() {
        let detail = format!("none answers at {place}: {reason}");
        return Finding::warning(CHECK, detail, "start one with `frostgate serve`");
    }
    let detail = format!("who answers at {place} is no Frostgate: {error:#}");
    Finding::problem(CHECK, detail, "end that program, or name another address in listen.admin")
}

/// The process that listens there.
fn listener(path: &Path) -> Option<i32> {
    let stream = UnixStream::connect(path).ok()?;
    Some(socket_peercred(&stream).ok()?.pid.as_raw_pid())
}

fn permissions(path: &Path, is_open: bool, is_running: bool) -> Finding {
    let shown = path.display();
    let remove =
        format!("end what uses {shown} and remove it, or name another in listen.admin_socket");
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            Finding::problem(SOCKET, format!("{shown} is there, and is no socket"), remove)
        }
        Ok(there) if there.permissions().mode() & 0o077 != 0 => {
            let mode = there.permissions().mode() & 0o777;
            let detail = format!("{shown} can be opened by others (mode {mode:o})");
            Finding::problem(SOCKET, detail, format!("chmod 600 {shown}"))
        }
        Ok(_) if is_open => Finding::ok(SOCKET, format!("{shown} is open to its owner alone")),
        Ok(_) if is_running => {
            let detail = format!("{shown} can't be opened by this user");
            Finding::warning(SOCKET, detail, "ask as the user that serves, or use a token")
        }
        Ok(_) => {
            let detail = format!("{shown} was left behind; the next start replaces it");
            Finding::ok(SOCKET, detail)
        }
        Err(_) if is_running => {
            let detail = format!("the gateway has none at {shown}");
            Finding::warning(SOCKET, detail, "its log says why; a shorter path may help")
        }
        Err(_) => Finding::ok(SOCKET, format!("{shown} is made when a gateway starts")),
    }
}
