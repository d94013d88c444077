//! `frostgate health`: whether the gateway lives and is ready, for people and for the health checks of
//! containers and service managers.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::client::{Answer, CallError, Client, Output, Remote};
use super::table::{BAD, Cell, DUBIOUS, GOOD, table};
use super::{Environment, FAILED, Told, duration_from};

/// Which gateway.
#[derive(Debug, Args)]
#[command(
    after_help = "It ends with 0 where it is ready, with 1 where it is not, and with 3 where \
    it does not answer. It takes no token."
)]
pub(super) struct Health {
    /// How long it may take to answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration_from)]
    timeout: Duration,
    #[command(flatten)]
    remote: Remote,
}

/// What `/readyz` tells.
#[derive(Debug, Deserialize)]
struct Readiness {
    status: String,
    checks: Option<Vec<Finding>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    name: String,
    status: String,
    detail: String,
}

/// As it is printed.
#[derive(Debug, Serialize)]
struct Report {
    alive: bool,
    ready: bool,
    checks: Vec<Finding>,
}

/// Asks both, prints the answers, and ends with 1 where the gateway is not ready.
pub(super) fn run(health: &Health, environment: &Environment) -> anyhow::Result<()> {
    let Health { timeout, remote } = health;
    // It takes no token to ask.
    let client = Client::find_unnamed(&remote.gateway, environment)?;
    let ask = |path| client.block_on(client.ask(Method::GET, path, None::<&()>, *timeout));
    ask("/healthz")?;
    let report = report(ask("/readyz?verbose"))?;
    let mut out = anstream::stdout();
    match remote.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string(&report)?)?,
        Output::Table => write!(out, "{}", told(&report, &client.place()))?,
    }
    if report.ready { Ok(()) } else { Err(Told { code: FAILED }.into()) }
}

/// One that says that it is not ready lives.
fn report(asked: anyhow::Result<Answer>) -> anyhow::Result<Report> {
    match asked {
        Ok(answer) => {
            let Readiness { status, checks } = answer.read()?;
            let checks = checks.unwrap_or_default();
            Ok(Report { alive: true, ready: status == "ready", checks })
        }
        Err(error) => match error.downcast_ref() {
            Some(CallError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. }) => {
                Ok(Report { alive: true, ready: false, checks: vec![] })
            }
            _ => Err(error),
        },
    }
}

fn told(report: &Report, place: &str) -> String {
    let ready =
        if report.ready { Cell::coloured("ready", GOOD) } else { Cell::coloured("not ready", BAD) };
    let first = [ready, Cell::new("gateway"), Cell::new(place)];
    let rows = report.checks.iter().map(|Finding { name, status, detail }| {
        let style = if status == "ok" { GOOD } else { DUBIOUS };
        [Cell::coloured(status, style), Cell::new(name), Cell::new(detail)]
    });
    table(std::iter::once(first).chain(rows))
}
