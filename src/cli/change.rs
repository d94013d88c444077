//! `frostgate stop`, `resume`, `keep` and `set`: what changes workspaces, one after another.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use hyper::Method;
use serde_json::{Map, Value};

use super::client::{ANSWER_MAX, Answer, Client, Output, Remote};
use super::policy::PolicyFlags;
use super::progress::wait_for_all;
use super::when::Now;
use super::workspace::{Workspace, state};
use super::{Environment, Misuse, Told, duration_from};
use crate::clock::local;
use crate::model::WorkspaceId;

/// Which workspaces, and which gateway has them.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Which workspaces
    #[arg(required = true, value_name = "ID", value_parser = WorkspaceId::parse)]
    pub(super) ids: Vec<WorkspaceId>,
    #[command(flatten)]
    pub(super) remote: Remote,
}

/// Whether to wait.
#[derive(Debug, Args)]
pub(super) struct Waiting {
    /// Wait until it has come about, and fail if it does not
    #[arg(long)]
    pub(super) wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration_from)]
    pub(super) timeout: Duration,
}

/// What is stopped, or resumed.
#[derive(Debug, Args)]
pub(super) struct Turn {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    waiting: Waiting,
}

/// What is kept awake, and for how long.
#[derive(Debug, Args)]
pub(super) struct Keep {
    #[command(flatten)]
    which: Which,
    /// For how long; 0: no longer
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = duration_from)]
    time: Duration,
}

/// What is changed in which policies.
#[derive(Debug, Args)]
pub(super) struct Set {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    policy: PolicyFlags,
}

pub(super) fn stop(turn: &Turn, environment: &Environment) -> anyhow::Result<()> {
    turn_all(turn, "stop", environment)
}

pub(super) fn resume(turn: &Turn, environment: &Environment) -> anyhow::Result<()> {
    turn_all(turn, "resume", environment)
}

fn turn_all(turn: &Turn, verb: &str, environment: &Environment) -> anyhow::Result<()> {
    let Turn { which, waiting } = turn;
    let client = Client::find(&which.remote.gateway, environment)?;
    let path = |id: &WorkspaceId| format!("/api/v1/workspaces/{id}/{verb}?wait={}", waiting.wait);
    let state = |workspace: &Workspace| state(workspace.phase, workspace.tier);
    if !waiting.wait {
        return each(which, |id| client.call(Method::PUT, &path(id), None::<&()>), state);
    }
    let calls: Vec<_> = which.ids.iter().map(|id| (id.clone(), path(id))).collect();
    let mut answers = wait_for_all(&client, &calls, waiting.timeout).into_iter();
    let mut answer = || answers.next().unwrap_or_else(|| bail!("it was not asked"));
    each(which, |_| answer(), state)
}

pub(super) fn keep(keep: &Keep, environment: &Environment) -> anyhow::Result<()> {
    let Keep { which, time } = keep;
    let client = Client::find(&which.remote.gateway, environment)?;
    let seconds = time.as_secs_f64();
    let change = |id: &WorkspaceId| {
        let path = format!("/api/v1/workspaces/{id}/keep?for={seconds}s");
        client.call(Method::PUT, &path, None::<&()>)
    };
    each(which, change, |workspace| match &workspace.kept_until {
        Some(until) => format!("not frozen before {}", local(until)),
        None => "frozen when idle".to_owned(),
    })
}

pub(super) fn set(set: &Set, environment: &Environment) -> anyhow::Result<()> {
    let Set { which, policy } = set;
    let fields: Map<String, Value> = policy.fields();
    if fields.is_empty() {
        let how = "say what is to change, such as --inactivity-timeout 30m; --help lists all";
        return Err(Misuse(how.to_owned()).into());
    }
    let client = Client::find(&which.remote.gateway, environment)?;
    let change = |id: &WorkspaceId| {
        client.block_on(client.ask(
            Method::PATCH,
            &format!("/api/v1/workspaces/{id}"),
            Some(&fields),
            ANSWER_MAX,
        ))
    };
    let now = Now::read();
    each(which, change, |workspace| match workspace.next(now) {
        next if next.is_empty() => "changed".to_owned(),
        next => format!("changed: {next}"),
    })
}

/// Changes one after another, and prints what each is then. One that can't be changed is told, and
/// keeps none of the others; the first such error says how it all ends.
pub(super) fn each(
    which: &Which,
    mut change: impl FnMut(&WorkspaceId) -> anyhow::Result<Answer>,
    tell: impl Fn(&Workspace) -> String,
) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    let mut failed = None;
    for id in &which.ids {
        match change(id) {
            Ok(answer) if which.remote.output == Output::Json => {
                writeln!(out, "{}", answer.text())?;
            }
            Ok(answer) => writeln!(out, "{id}: {}", tell(&answer.read()?))?,
            Err(error) => {
                let told = Told::of(&error);
                failed.get_or_insert(told);
            }
        }
    }
    failed.map_or(Ok(()), |told| Err(told.into()))
}
