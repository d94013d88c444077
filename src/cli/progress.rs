//! Waiting for workspaces, and telling how it goes on a terminal.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use hyper::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::sleep;

use super::client::{Answer, Client};
use super::workspace::{Workspace, state};
use crate::model::WorkspaceId;

/// How many are waited for at once; a gateway has room for a thousand callers.
const AT_ONCE: usize = 32;
/// How often it is asked how it goes, where somebody watches.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How often what turns is drawn.
const TICK: Duration = Duration::from_millis(100);

/// Makes a call for each workspace, which is answered when it has come about, and tells meanwhile how
/// they are: on standard error, and only if that is a terminal. The answers are in the same order.
pub(super) fn wait_for_all(
    client: &Client,
    calls: &[(WorkspaceId, String)],
    limit: Duration,
) -> Vec<anyhow::Result<Answer>> {
    // Hidden by itself where there is no terminal.
    let bars = MultiProgress::new();
    let waits = calls.iter().map(|(id, path)| wait_for(client, id, path, limit, &bars));
    client.block_on(stream::iter(waits).buffered(AT_ONCE).collect())
}

async fn wait_for(
    client: &Client,
    id: &WorkspaceId,
    path: &str,
    limit: Duration,
    bars: &MultiProgress,
) -> anyhow::Result<Answer> {
    let bar = bars.add(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_prefix(id.to_string());
    bar.enable_steady_tick(TICK);
    let answer = tokio::select! {
        answer = client.ask(Method::PUT, path, None::<&()>, limit) => answer,
        never = tell(client, id, &bar) => match never {},
    };
    bar.finish_and_clear();
    answer
}

async fn tell(client: &Client, id: &WorkspaceId, bar: &ProgressBar) -> Infallible {
    if bar.is_hidden() {
        std::future::pending::<()>().await;
    }
    let path = format!("/api/v1/workspaces/{id}");
    loop {
        let asked = client.ask(Method::GET, &path, None::<&()>, LOOK_EVERY * 10).await;
        if let Ok(workspace) = asked.and_then(|answer| answer.read::<Workspace>()) {
            bar.set_message(match workspace.queue_position {
                Some(position) => format!("waiting for a slot, {position} before it"),
                None => state(workspace.phase, workspace.tier),
            });
        }
        sleep(LOOK_EVERY).await;
    }
}
