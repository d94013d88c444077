//! `frostgate create`: a workspace from a project.

use std::io::Write;

use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Environment;
use super::change::Waiting;
use super::client::{ANSWER_MAX, Client, Output, Remote};
use super::policy::PolicyFlags;
use super::progress::wait_for_all;
use super::workspace::{Workspace, state};
use crate::model::{ProjectId, WorkspaceId};

/// What is created.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The project that it is made from
    #[arg(value_parser = ProjectId::parse)]
    project: ProjectId,
    /// What to call it [default: 32 random digits, so that nobody can guess its address]
    #[arg(long, value_name = "ID", value_parser = WorkspaceId::parse)]
    id: Option<WorkspaceId>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    policy: PolicyFlags,
}

#[derive(Deserialize)]
struct Created {
    workspace: Value,
}

/// Creates it, and prints its id and address.
pub(super) fn run(create: &Create, environment: &Environment) -> anyhow::Result<()> {
    let Create { project, id, waiting, remote, policy } = create;
    let mut fields: Map<String, Value> = policy.fields();
    fields.insert("project_id".to_owned(), Value::from(project.to_string()));
    fields.extend(id.iter().map(|id| ("id".to_owned(), Value::from(id.to_string()))));
    let client = Client::find(&remote.gateway, environment)?;
    let call = client.ask(Method::POST, "/api/v1/workspaces", Some(&fields), ANSWER_MAX);
    let Created { mut workspace } = client.block_on(call)?.read()?;
    if waiting.wait {
        let id = workspace["id"].as_str().and_then(|id| WorkspaceId::parse(id).ok());
        let id = id.ok_or_else(|| anyhow::anyhow!("the gateway's answer names no workspace"))?;
        let path = format!("/api/v1/workspaces/{id}/resume?wait=true");
        let answers = wait_for_all(&client, &[(id, path)], waiting.timeout);
        for answer in answers {
            workspace = answer?.read()?;
        }
    }
    let mut out = anstream::stdout();
    if remote.output == Output::Json {
        writeln!(out, "{workspace}")?;
        return Ok(());
    }
    let workspace: Workspace = serde_json::from_value(workspace)?;
    let state = state(workspace.phase, workspace.tier);
    writeln!(out, "{}: {state} at {}", workspace.id, workspace.url)?;
    Ok(())
}
