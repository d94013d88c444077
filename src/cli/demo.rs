//! `frostgate demo`: the main job in a minute, without Docker, on this machine alone.
//!
//! Three workspaces that ship in this program are served, frozen when idle and woken by requests,
//! while each change is told on the terminal. Nothing is left behind.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::app::App;
use crate::clock::{Clock, spoken};
use crate::config::{Config, Docker, DockerUse, Listen, Workspace};
use crate::lifecycle::Change;
use crate::model::{FreezeMode, Phase, Policy, PolicyOverrides, Runs, Spec, WorkspaceId};

use super::signals::Signals;
use super::{Environment, control_plane, log, sample};

/// The sample workspaces, and how each is frozen.
const WORKSPACES: [(&str, FreezeMode); 3] =
    [("hello", FreezeMode::Stop), ("notes", FreezeMode::Pause), ("clock", FreezeMode::Stop)];

/// How long removing the workspaces may take: longer than their own grace, shorter than patience.
const REMOVE_MAX: Duration = Duration::from_secs(15);

/// The demo's flags.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Where to serve; the API is on the port above. 0: any free ports
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(..=65534))]
    port: u16,
    /// How long a workspace is idle before it is frozen
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = idle_time)]
    idle: Duration,
}

fn idle_time(text: &str) -> Result<Duration, String> {
    match crate::duration::parse(text) {
        Ok(duration) if duration.is_zero() => Err("a workspace can't be idle for no time".into()),
        Ok(duration) => Ok(duration),
        Err(invalid) => Err(invalid.to_string()),
    }
}

/// Runs the demo until Ctrl-C.
pub(super) fn run(demo: &Demo, environment: &Environment) -> anyhow::Result<()> {
    log::start(environment, "warn")?;
    let runtime = control_plane().context("could not start the control plane")?;
    runtime.block_on(play(demo))
}

async fn play(demo: &Demo) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("could not listen for signals")?;
    let public = public_addresses(demo.port);
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, port_above(demo.port)));
    check_free(public.iter().chain([&admin]))?;
    let state = TemporaryDirectory::create()?;
    let config = config(demo, public, admin, &state.path)?;
    let token_file = config.token_file();
    let app = App::start(config).await.context("could not start the demo")?;
    let mut changes = app.changes();
    let outcome = tokio::select! {
        told = tell_story(&app, demo.idle, &token_file, &mut changes) => told,
        // SIGHUP too: the terminal was closed, and the workspaces would outlive it.
        _ = signals.next() => Ok(()),
    };
    // Without a terminal there is nobody to tell, and the removal counts.
    let _ = say("\nRemoving the workspaces …");
    let removal = async {
        app.remove_processes().await;
        app.stop().await;
    };
    tokio::select! {
        removed = tokio::time::timeout(REMOVE_MAX, removal) => {
            removed.context("the workspaces could not be removed in time")?;
        }
        _ = signals.end() => bail!("ended before the workspaces were removed"),
    }
    outcome?;
    say("Nothing is left.")
}

/// Both loopback addresses: browsers resolve `*.localhost` to either. A machine without IPv6 does
/// without; and port 0, which means two different ports on two addresses, takes one.
fn public_addresses(port: u16) -> Vec<SocketAddr> {
    let mut addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    if port != 0 && TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    }
    addresses
}

fn port_above(port: u16) -> u16 {
    if port == 0 { 0 } else { port.saturating_add(1) }
}

/// Finds out that a port is taken before anything is started. The listeners themselves could not:
/// they share their port between threads (`SO_REUSEPORT`), and so with a second demo as well.
fn check_free<'a>(addresses: impl Iterator<Item = &'a SocketAddr>) -> anyhow::Result<()> {
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
                "port {} is in use by another program; choose other ports with --port, \
                 such as --port {}",
                address.port(),
                if address.port() < 9000 { 9000 } else { 8000 },
            ),
            Err(error) => {
                return Err(error).with_context(|| format!("could not listen on {address}"));
            }
        }
    }
    Ok(())
}

fn config(
    demo: &Demo,
    public: Vec<SocketAddr>,
    admin: SocketAddr,
    state_dir: &Path,
) -> anyhow::Result<Config> {
    let program = std::env::current_exe().context("could not find the path of this program")?;
    let program = program.to_str().context("the path of this program is not UTF-8")?;
    let mut workspaces = BTreeMap::new();
    for (name, freeze_mode) in WORKSPACES {
        let argv = [program, "sample", "--name", name].map(str::to_owned).to_vec();
        let spec = Spec {
            // A probe of the page would count as a visit.
            ready_path: Some(sample::READY_PATH.to_owned()),
            ..Spec::new(Runs::Command { argv, directory: None })
        };
        let policy =
            PolicyOverrides { freeze_mode: Some(freeze_mode), ..PolicyOverrides::default() };
        workspaces.insert(
            WorkspaceId::parse(name)?,
            Workspace { project: None, spec: spec.into(), policy: policy.into() },
        );
    }
    Ok(Config {
        state_dir: state_dir.to_owned(),
        listen: Listen {
            public,
            admin,
            workers: 2,
            // Whoever presses Ctrl-C wants it to end; an open clock would keep it for longer.
            drain_grace: Duration::from_secs(1),
            ..Listen::default()
        },
        policy: Policy {
            inactivity_timeout: Some(demo.idle),
            stop_grace: Duration::from_secs(2),
            ..Policy::default()
        },
        docker: Docker { enable: DockerUse::Never, ..Docker::default() },
        workspaces,
        ..Config::default()
    })
}

fn introduce(app: &App, idle: Duration, token_file: &Path) -> anyhow::Result<()> {
    let port = app.public_addresses().first().map_or(0, SocketAddr::port);
    let api = app.admin_address();
    let idle = spoken(idle);
    let mut text = format!(
        "Frostgate's demo. Three small workspaces run on this machine; each is frozen when it\n\
         has been idle for {idle}, and woken by the next request, which waits for it.\n\n"
    );
    for (name, freeze_mode) in WORKSPACES {
        let how = match freeze_mode {
            FreezeMode::Stop => "stopped when idle: its memory is free",
            FreezeMode::Pause => "paused when idle: wakes in a moment",
        };
        text.push_str(&format!("  http://{name}.localhost:{port}/   {how}\n"));
    }
    text.push_str(&format!(
        "\nOpen one, wait for {idle}, reload it. Where names below localhost don't resolve, use\n\
         http://{public}/w/hello/ instead. The API, with its token:\n\n  \
         curl -H \"Authorization: Bearer $(cat {token})\" http://{api}/api/v1/workspaces\n\n\
         Ctrl-C ends the demo and removes everything. What happens, as it happens:\n",
        public = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        token = token_file.display(),
    ));
    say(&text)
}

/// Introduces the demo, then tells each change until it ends.
async fn tell_story(
    app: &App,
    idle: Duration,
    token_file: &Path,
    changes: &mut broadcast::Receiver<Change>,
) -> anyhow::Result<()> {
    introduce(app, idle, token_file)?;
    loop {
        match changes.recv().await {
            Ok(change) => {
                if let Some(line) = line(&change) {
                    say(&line)?;
                }
            }
            Err(RecvError::Lagged(missed)) => say(&format!("({missed} changes were not shown)"))?,
            Err(RecvError::Closed) => bail!("the gateway ended by itself"),
        }
    }
}

/// A change as a line; `None` for those on the way to another, which follows at once.
fn line(change: &Change) -> Option<String> {
    let state = match change.phase {
        Phase::Starting | Phase::Freezing | Phase::Removing => return None,
        Phase::Running | Phase::Frozen | Phase::Removed | Phase::Failed => change.state(),
    };
    let after = match (change.phase, change.took) {
        // Only a wake is waited for by somebody; how long a freeze took is nobody's concern.
        (Phase::Running, Some(took)) => format!(" after {}", spoken(took)),
        _ => String::new(),
    };
    let time = Clock::MACHINE.time_of_day(change.at);
    Some(format!("{time}  {:<5}  {state}{after}: {}", change.workspace.as_str(), change.reason))
}

/// Prints a line at once, even where the output is a pipe.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("could not write to the terminal")
}

/// A directory of the demo's own, which goes with it.
struct TemporaryDirectory {
    path: PathBuf,
}

impl TemporaryDirectory {
    /// Fails where the name exists, so that nobody can prepare the directory for us, and lets
    /// nobody else in: the token is in it.
    fn create() -> anyhow::Result<Self> {
        let number = getrandom::u64().context("could not get a random number")?;
        let path = std::env::temp_dir().join(format!("frostgate-demo-{number:016x}"));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("could not create {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "could not delete the demo's files");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tier;
    use tokio::time::Instant;

    fn told(phase: Phase, tier: Option<Tier>, reason: &str, took: Option<u64>) -> Option<String> {
        let change = Change {
            workspace: WorkspaceId::parse("hello").expect("an id"),
            phase,
            tier,
            reason: reason.to_owned(),
            took: took.map(Duration::from_millis),
            at: Instant::now(),
        };
        // The time of day is the clock's.
        line(&change).map(|line| line[8..].to_owned())
    }

    #[test]
    fn changes_are_told_in_one_line_and_passing_phases_are_not() {
        let frozen = told(Phase::Frozen, Some(Tier::Stopped), "idle for 15 s", Some(4));
        assert_eq!(frozen.as_deref(), Some("  hello  frozen (stopped): idle for 15 s"));
        let running = told(Phase::Running, None, "a request", Some(23));
        assert_eq!(running.as_deref(), Some("  hello  running after 23 ms: a request"));
        assert_eq!(told(Phase::Starting, None, "a request", None), None);
    }

    #[test]
    fn a_taken_port_is_told_with_the_flag_that_helps() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = holder.local_addr().expect("an address");
        let error = check_free([&address].into_iter()).expect_err("it is taken").to_string();
        let start = format!("port {} is in use by another program; choose", address.port());
        assert!(error.starts_with(&start) && error.contains("--port"), "{error}");
    }

    #[test]
    fn the_demos_directory_is_private_and_goes_with_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = TemporaryDirectory::create().expect("a directory");
        let path = directory.path.clone();
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        std::fs::write(path.join("token"), "x").expect("a file");
        drop(directory);
        assert!(!path.exists());
    }
}
