//! The table of contents.

use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::json;

use super::reply::Problem;
use super::{Context, activity, auth, check_in, overview, projects, readiness, workspaces};

/// Where workspaces report their activity.
pub const CHECK_IN_PATH: &str = "/v1/check-in";
/// Largest body of a call.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// All calls: for the admin listener, and for the public one's `admin_host`.
pub fn admin(context: Context) -> Router {
    // `/workspaces…` and `/api/v1/workspaces…` are the same.
    let workspaces = Router::new()
        .route("/workspaces", get(workspaces::list).post(workspaces::create))
        .route(
            "/workspaces/{id}",
            get(workspaces::read).patch(workspaces::change).delete(workspaces::delete),
        )
        .route("/workspaces/{id}/remove", put(workspaces::remove))
        .route("/workspaces/{id}/activity", get(activity::read))
        .route("/workspaces/{id}/stop", put(workspaces::stop))
        .route("/workspaces/{id}/resume", put(workspaces::resume));
    let overview = Router::new()
        .route("/test", get(overview::test))
        .route("/stats", get(overview::stats))
        .route("/projects", get(projects::list));
    let guarded = Router::new()
        .nest("/api/v1", workspaces.clone().merge(overview))
        .merge(workspaces)
        .route_layer(from_fn_with_state(context.clone(), auth::require));
    let open = Router::new()
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .route("/readyz", get(readiness::read))
        .route(CHECK_IN_PATH, post(check_in::check_in));
    finish(guarded.merge(open).fallback(async || Problem::UnknownCall), context)
}

/// What the public listener serves of them.
pub fn check_in_only(context: Context) -> Router {
    let check_in = Router::new().route(CHECK_IN_PATH, post(check_in::check_in));
    finish(check_in.fallback(async || Problem::NoWorkspaceHere), context)
}

fn finish(router: Router<Context>, context: Context) -> Router {
    router
        .method_not_allowed_fallback(async || Problem::WrongMethod)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(context)
}
