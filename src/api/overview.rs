//! What concerns no single workspace.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Context;

/// `GET /api/v1/test`: is my token good?
pub(super) async fn test() -> Json<Value> {
    Json(json!({ "message": "You can use the Frostgate API" }))
}

/// `GET /api/v1/stats`: how many slots there are, and how many are free; `null`: no limit.
pub(super) async fn stats(State(context): State<Context>) -> Json<Value> {
    let (all, free) = context.registry.slots().unzip();
    let (memory, memory_free) = context.registry.memory().unzip();
    Json(json!({
        "workspace_slots": { "all": all, "free": free },
        "memory_bytes": { "all": memory, "free": memory_free },
    }))
}
