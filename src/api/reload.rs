//! Has the gateway read its configuration again.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::Context;
use super::caller::Caller;
use super::reply::{ErrorCode, Json, Problem, Responses, problems};

/// Reads the configuration again and applies it. Whoever drops the future stops nothing.
pub type Reload = Arc<dyn Fn() -> Reloading + Send + Sync>;

/// A configuration that is being read and applied.
pub type Reloading = Pin<Box<dyn Future<Output = Result<Reloaded, ReloadError>> + Send>>;

/// What came of a new configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// What is different from now on, a line for each key.
    #[schema(examples(json!(["limits.slots: 4 -> 8", "workspaces.alice: added"])))]
    pub changed: Vec<String>,
    /// What was changed in the file and counts after a restart only, a line for each key.
    #[schema(examples(json!(["listen.workers: 0 -> 4"])))]
    pub needs_restart: Vec<String>,
}

/// Why everything stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// This gateway was not started from a file.
    #[error("this gateway has no configuration that it could read again")]
    NoSource,
    /// It can't be used. A line for each mistake.
    #[error("the configuration is wrong and was not applied: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// Read the configuration again and apply it.
///
/// No request is lost and no connection is closed by that. A configuration with mistakes is refused
/// as a whole, and `message` names them all.
#[utoipa::path(
    post,
    path = "/reload",
    operation_id = "reload",
    tag = "gateway",
    responses((status = 200, description = "It is applied", body = Reloaded), ReloadError)
)]
pub(super) async fn reload(
    State(context): State<Context>,
    caller: Caller,
) -> Result<Json<Reloaded>, Problem> {
    tracing::info!(by = %caller.name, "asked to read the configuration again");
    (context.reload)().await.map(Json).map_err(|error| match error {
        ReloadError::NoSource => Problem::Conflict(error.to_string()),
        ReloadError::Invalid(_) => Problem::BadConfiguration(error.to_string()),
    })
}

impl IntoResponses for ReloadError {
    fn responses() -> Responses {
        problems(&[ErrorCode::Conflict, ErrorCode::InvalidConfiguration])
    }
}
