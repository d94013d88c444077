//! What concerns no single workspace.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::reply::Json;
use super::workspaces::Message;

/// How much there is of something, and how much of it is free.
#[derive(Debug, Serialize, ToSchema)]
struct Share {
    /// `null`: there is no limit.
    #[schema(examples(8))]
    all: Option<u64>,
    /// `null`: there is no limit.
    #[schema(examples(3))]
    free: Option<u64>,
}

/// How much room there is for workspaces.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    /// Workspaces that may run at a time.
    workspace_slots: Share,
    /// Memory that workspaces which run or are paused may count for.
    memory_bytes: Share,
}

/// That it lives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(examples("ok"))]
    status: &'static str,
}

/// Try a token.
#[utoipa::path(
    get,
    path = "/test",
    operation_id = "test",
    tag = "gateway",
    responses((status = 200, description = "The token is good", body = Message))
)]
pub(super) async fn test() -> Json<Message> {
    Json(Message { message: "You can use the Frostgate API" })
}

/// Tell how many slots there are, and how many are free.
#[utoipa::path(
    get,
    path = "/stats",
    operation_id = "getStats",
    tag = "gateway",
    responses((status = 200, description = "Slots and memory", body = Stats))
)]
pub(super) async fn stats(State(context): State<Context>) -> Json<Stats> {
    let share = |amounts: Option<(u64, u64)>| {
        let (all, free) = amounts.unzip();
        Share { all, free }
    };
    let slots = context.registry.slots().map(|(all, free)| (all as u64, free as u64));
    Json(Stats { workspace_slots: share(slots), memory_bytes: share(context.registry.memory()) })
}

/// Tell that the gateway lives.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "getHealth",
    tag = "gateway",
    responses((status = 200, description = "It does", body = Health))
)]
pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}
