//! `frostgate logs`: what a workspace's processes wrote to standard output and error.

use std::io::{self, Write};

use clap::Args;
use http_body_util::BodyExt;

use super::Environment;
use super::client::{Client, Gateway};
use crate::model::WorkspaceId;

/// Whose logs, and how much of them.
#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Which workspace
    #[arg(value_parser = WorkspaceId::parse)]
    id: WorkspaceId,
    /// How many of the last lines are shown
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    lines: u32,
    /// Go on with what is written from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// Prints them as they come.
pub(super) fn run(logs: &Logs, environment: &Environment) -> anyhow::Result<()> {
    let Logs { id, lines, follow, gateway } = logs;
    let client = Client::find(gateway, environment)?;
    let path = format!("/api/v1/workspaces/{id}/logs?lines={lines}&follow={follow}");
    client.block_on(async {
        let mut body = client.open(&path, None).await?.into_body();
        let mut out = io::stdout();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                // As it is: whoever wrote it knows about terminals.
                out.write_all(data)?;
                out.flush()?;
            }
        }
        Ok(())
    })
}
