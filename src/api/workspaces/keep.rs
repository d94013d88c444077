//! Keeping a workspace awake for a while.

use std::time::Duration;

use axum::extract::{RawQuery, State};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{Id, Representation, find};
use crate::api::Context;
use crate::api::caller::Caller;
use crate::api::fields::Fields;
use crate::api::policy::Time;
use crate::api::reply::{Json, Problem};
use crate::lifecycle::CommandError;

/// For how long, unless the call says.
const FOR: Duration = Duration::from_secs(60 * 60);
/// For longer than this a policy is the better place to say so.
const FOR_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// For how long a workspace is to be kept awake.
#[derive(Debug, Default, ToSchema)]
#[schema(as = Keep)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Keep {
    /// From now on; at most seven days, and an hour if nothing is said. 0: no longer. May stand in
    /// the query as well.
    r#for: Option<Time>,
}

/// Keep a workspace awake for a while.
///
/// Until then it is not frozen for idleness, nor to make room for another. One that is frozen is not
/// woken by this. An admin's stop ends it.
#[utoipa::path(
    put,
    path = "/workspaces/{id}/keep",
    operation_id = "keepWorkspace",
    tag = "workspaces",
    params(Id),
    request_body = Option<Keep>,
    responses(
        (status = 200, description = "The workspace as it is now", body = Representation),
        Id,
        CommandError,
    )
)]
pub(in crate::api) async fn keep(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
    RawQuery(query): RawQuery,
    body: Fields,
) -> Result<Json<Representation>, Problem> {
    let workspace = find(&context, &caller, id)?;
    let mut fields = body.or(Fields::of_query(query.as_deref())?);
    let keep = Keep { r#for: fields.take("for")? };
    fields.end()?;
    let length = keep.r#for.map_or(FOR, |Time(time)| time);
    if length > FOR_MAX {
        let why = "for: it can't be kept awake for more than seven days; change its \
                   inactivity_timeout or its monitoring instead";
        return Err(Problem::Invalid(why.to_owned()));
    }
    let until = (!length.is_zero()).then(|| Instant::now() + length);
    workspace.keep_awake_until(until).await?;
    Ok(Json(Representation::of(&workspace, &context)))
}
