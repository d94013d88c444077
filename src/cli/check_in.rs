//! `frostgate check-in`: a workspace's report of its own activity, from where it runs.
//!
//! One report, for scripts; or with `--watch` a reporter, which looks every second at what Frostgate
//! can't see from outside: connections that don't pass through it, sessions, processes, the use of
//! the processor. It reports at once when that changes between something and nothing, and again every
//! interval, so that a report may expire (`check_in_ttl`) whose sender has died.
//!
//! When it is told to end it takes back what it said last: nobody would, and the workspace would stay
//! awake for nothing. Its own connections end with each report, before it looks again, so that it
//! never sees itself.

mod connections;
mod processes;
mod route;
mod sight;
mod target;

use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args};
use ipnet::IpNet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::signals::Signals;
use super::{Environment, Misuse, duration_from, log};
use crate::model::NoWakeOverrides;
use sight::{Sight, Watched};
use target::Target;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the last report may take.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// Before a report that came to nothing is repeated; it doubles up to the interval.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The flags that report once. Whatever is for a reporter conflicts with them; that it requires --watch
/// would not be enforced, because that conflicts with them too.
const ONCE: [&str; 2] = ["active", "idle"];

/// What is reported, and to whom.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["active", "idle", "watch"]).required(true))]
pub(super) struct CheckIn {
    /// Report so much activity, once; 0 is idle
    #[arg(long, value_name = "NUMBER")]
    active: Option<u32>,
    /// Report that nothing is going on, once
    #[arg(long)]
    idle: bool,
    /// Go on watching and reporting, until SIGTERM or SIGINT: then what was reported is taken back
    #[arg(long)]
    watch: bool,
    /// How often a report is repeated, and over which time the use of the processor counts
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration_from,
        conflicts_with_all = ONCE)]
    interval: Duration,
    /// Where to report [default: FROSTGATE_CHECK_IN_URL, else the default gateway]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The port at the default gateway
    #[arg(long, value_name = "PORT", default_value_t = 80, conflicts_with = "url",
        value_parser = clap::value_parser!(u16).range(1..))]
    gateway_port: u16,
    #[command(flatten)]
    watched: WatchedFlags,
}

/// What keeps the workspace awake; at least one for --watch.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is watched")]
struct WatchedFlags {
    /// Established TCP connections to this port of the workspace, such as 5432. Not for a port that
    /// Frostgate passes requests to: it counts these itself, and keeps idle connections. May be given
    /// several times, or with commas
    #[arg(long, value_name = "PORT", value_delimiter = ',', conflicts_with_all = ONCE,
        value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// SSH sessions: established connections to the port of SSH, which is 22 unless it is said
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true,
        default_missing_value = "22", conflicts_with_all = ONCE,
        value_parser = clap::value_parser!(u16).range(1..))]
    ssh: Option<u16>,
    /// Connections from these addresses don't count, such as 127.0.0.1 or 10.0.0.0/8; may be given
    /// several times, or with commas
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', conflicts_with_all = ONCE,
        value_parser = network)]
    except: Vec<IpNet>,
    /// Processes of which the program's name, or the whole command line, is this, where * stands for
    /// any characters: rsync, '*train.py*'. The reporter itself doesn't count, nor what has check-in
    /// in its command line, as the shell that started it. May be given several times
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ONCE)]
    process: Vec<String>,
    /// The use of the processor by all processes that it sees but itself, over the interval, if it is
    /// more than so many percent of one core
    #[arg(long, value_name = "PERCENT", conflicts_with_all = ONCE, value_parser = percent)]
    cpu: Option<f64>,
}

fn network(text: &str) -> Result<IpNet, String> {
    NoWakeOverrides::client(text).ok_or_else(|| "expected a network such as 10.0.0.0/8".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse().ok();
    let number = number.filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a number above 0, such as 5".to_owned())
}

/// Reports once, or until it is told to end.
pub(super) fn run(check_in: &CheckIn, environment: &Environment) -> anyhow::Result<()> {
    let target = target(check_in, environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the reporter")?;
    if !check_in.watch {
        let active = if check_in.idle { 0 } else { check_in.active.unwrap_or_default() };
        return runtime.block_on(target.report(active));
    }
    let watched = watched(check_in)?;
    log::start(environment, "info")?;
    runtime.block_on(async {
        let signals = Signals::listen().context("could not listen for signals")?;
        let sight = Sight::new(watched, check_in.interval);
        Reporter::new(sight, target, check_in.interval).report_until(signals).await
    })
}

fn target(check_in: &CheckIn, environment: &Environment) -> anyhow::Result<Target> {
    let variable = || environment.get("FROSTGATE_CHECK_IN_URL").filter(|url| !url.is_empty());
    match check_in.url.as_ref().or_else(variable) {
        Some(url) => Target::at(url),
        None => Ok(Target::gateway(check_in.gateway_port)),
    }
}

fn watched(check_in: &CheckIn) -> anyhow::Result<Watched> {
    let WatchedFlags { port, ssh, except, process, cpu } = &check_in.watched;
    if port.is_empty() && ssh.is_none() && process.is_empty() && cpu.is_none() {
        let how = "say what is to be watched: --port, --ssh, --process or --cpu";
        return Err(Misuse(how.to_owned()).into());
    }
    if check_in.interval < LOOK_EVERY {
        return Err(Misuse("the interval has to be a second at least".to_owned()).into());
    }
    Ok(Watched {
        ports: port.clone(),
        ssh: *ssh,
        except: except.clone(),
        processes: process.clone(),
        cpu: *cpu,
    })
}

/// Who looks, and says what there is to see.
struct Reporter {
    sight: Sight,
    target: Target,
    interval: Duration,
    /// Whether it was active when it was looked at last.
    active: Option<bool>,
    /// What the other side knows; `None`: that can't be told.
    reported: Option<bool>,
    /// When to report though nothing has changed.
    due: Instant,
    /// What is waited for after the next failure; `None`: the last report arrived.
    retry_after: Option<Duration>,
}

impl Reporter {
    fn new(sight: Sight, target: Target, interval: Duration) -> Self {
        let (active, reported, retry_after) = (None, None, None);
        Self { sight, target, interval, active, reported, due: Instant::now(), retry_after }
    }

    async fn report_until(mut self, mut signals: Signals) -> anyhow::Result<()> {
        info!(interval = ?self.interval, "watching, and reporting to {}", self.target);
        let signal = tokio::select! {
            // It ends between two looks, or in the middle of a report, which can be repeated.
            signal = signals.end() => signal,
            never = self.go_on() => match never {},
        };
        if self.reported != Some(false) && self.active == Some(true) {
            let goodbye = timeout(GOODBYE_MAX, self.target.report(0)).await;
            let taken_back = matches!(goodbye, Ok(Ok(())));
            info!(signal, taken_back, "ending, and taking back that it is active");
        } else {
            info!(signal, "ending");
        }
        Ok(())
    }

    async fn go_on(&mut self) -> std::convert::Infallible {
        loop {
            let seen = self.sight.look(Instant::now());
            let active = seen.amount() > 0;
            if self.active.replace(active) != Some(active) {
                info!(active, "{seen}");
            }
            let has_changed = self.retry_after.is_none() && self.reported != Some(active);
            if has_changed || Instant::now() >= self.due {
                self.report(seen.amount()).await;
            }
            sleep_until((Instant::now() + LOOK_EVERY).min(self.due)).await;
        }
    }

    async fn report(&mut self, amount: u32) {
        match self.target.report(amount).await {
            Ok(()) => {
                if self.retry_after.take().is_some() {
                    info!("reports arrive again");
                }
                self.reported = Some(amount > 0);
                self.due = Instant::now() + self.interval;
            }
            Err(error) => {
                let pause = self.retry_after.map_or(RETRY_AFTER, |pause| pause * 2);
                let pause = pause.min(self.interval);
                if self.retry_after.replace(pause).is_none() {
                    warn!("{error:#}; trying again");
                }
                // It may have arrived all the same.
                self.reported = None;
                self.due = Instant::now() + pause;
            }
        }
    }
}
