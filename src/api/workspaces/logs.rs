//! What a workspace's processes wrote.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt, future};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::time::{Duration, Instant, timeout_at};
use utoipa::IntoParams;

use super::{Id, find};
use crate::api::Context;
use crate::api::caller::Caller;
use crate::api::fields::Fields;
use crate::api::policy::Switch;
use crate::api::reply::{Failure, Problem};
use crate::lifecycle::CommandError;

/// Lines, unless the call says.
const LINES: usize = 100;
/// Most lines of the past.
const LINES_MAX: usize = 10_000;
/// For how long somebody may follow.
const FOLLOW_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// How much is wanted.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// The last lines of what was written.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 10_000, default = 100)]
    lines: Lines,
    /// Whether what is written from now on is wanted as well; then the answer does not end.
    #[param(value_type = Option<bool>, default = false)]
    follow: bool,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Lines(usize);

impl TryFrom<String> for Lines {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lines = text.parse().ok().filter(|lines| (1..=LINES_MAX).contains(lines));
        let wrong = || format!("{text:?} is no number of lines from 1 to {LINES_MAX}");
        lines.map(Self).ok_or_else(wrong)
    }
}

/// Read what a workspace wrote.
///
/// Standard output and standard error of its processes, as they wrote it. Logs may hold secrets, so
/// a token of the scope `read` is not enough.
#[utoipa::path(
    get,
    path = "/workspaces/{id}/logs",
    operation_id = "readWorkspaceLogs",
    tag = "workspaces",
    params(Id, Wanted),
    responses(
        (status = 200, description = "Its last lines", body = String, content_type = "text/plain"),
        Id,
        CommandError,
        Failure,
    )
)]
pub(in crate::api) async fn logs(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let workspace = find(&context, &caller, id)?;
    let mut query = Fields::of_query(query.as_deref())?;
    let wanted = Wanted {
        lines: query.take("lines")?.unwrap_or(Lines(LINES)),
        follow: query.take("follow")?.is_some_and(|Switch(on)| on),
    };
    let logs = workspace.logs(wanted.lines.0, wanted.follow).await;
    let logs = logs.map_err(|error| Problem::Failed(error.to_string()))?;
    let Some(logs) = logs else {
        let kind = workspace.driver_name();
        return Err(Problem::Conflict(format!(
            "nobody keeps the logs of a workspace of the kind {kind}"
        )));
    };
    let id = workspace.id().clone();
    // The head is sent long since: all that can be done is to say so where an admin looks.
    let logs = logs.inspect_err(move |error| {
        tracing::warn!(workspace = %id, %error, "could not read on in a workspace's log");
    });
    let mut draining = context.draining.clone();
    let until = Instant::now() + FOLLOW_MAX;
    let ends =
        async move { drop(timeout_at(until, draining.wait_for(|draining| *draining)).await) };
    let logs = logs.take_until(Box::pin(ends)).take_while(|piece| future::ready(piece.is_ok()));
    Ok(([(CONTENT_TYPE, TEXT)], Body::from_stream(logs)).into_response())
}
