//! The table of contents: every call, and whose token may make it.

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{delete, get, patch, post, put};
use axum::{Json, Router};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use serde_json::json;

use super::caller::Need;
use super::reply::Problem;
use super::{
    Context, activity, auth, check_in, containers, overview, projects, readiness, tokens,
    workspaces,
};

/// Where workspaces report their activity.
pub const CHECK_IN_PATH: &str = "/v1/check-in";
/// Largest body of a call.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// All calls: for the admin listener, and for the public one's `admin_host`.
pub fn admin(context: Context) -> Router {
    // Every token, for what it may see.
    let looking = Router::new()
        .route("/workspaces", get(workspaces::list))
        .route("/workspaces/{id}", get(workspaces::read))
        .route("/workspaces/{id}/activity", get(activity::read));
    // `admin`, and `projects` for their own workspaces.
    let changing = Router::new()
        .route("/workspaces", post(workspaces::create))
        .route("/workspaces/{id}", patch(workspaces::change).delete(workspaces::delete))
        .route("/workspaces/{id}/remove", put(workspaces::remove))
        .route("/workspaces/{id}/stop", put(workspaces::stop))
        .route("/workspaces/{id}/resume", put(workspaces::resume));
    // Every token.
    let overview = Router::new()
        .route("/test", get(overview::test))
        .route("/stats", get(overview::stats))
        .route("/projects", get(projects::list));
    // `admin`.
    let governing = Router::new()
        .route("/tokens", get(tokens::list).post(tokens::add))
        .route("/tokens/{name}", delete(tokens::revoke))
        .route("/tokens/{name}/rotate", post(tokens::rotate));
    // spin-docker's own: every token, and as above.
    let looking_at_containers = Router::new()
        .route("/v1/images", get(containers::images))
        .route("/v1/containers", get(containers::list))
        .route("/v1/containers/{id}", get(containers::read));
    let changing_containers = Router::new()
        .route("/v1/containers", post(containers::create))
        .route("/v1/containers/{id}", patch(containers::change).delete(containers::delete));
    // Nobody's.
    let open = Router::new()
        .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
        .route("/readyz", get(readiness::read))
        .route(CHECK_IN_PATH, post(check_in::check_in));

    let for_need = |need: Need, calls: Router<Context>| {
        calls.route_layer(from_fn_with_state((context.clone(), need), auth::require))
    };
    // `/workspaces…` and `/api/v1/workspaces…` are the same.
    let workspaces = for_need(Need::Look, looking).merge(for_need(Need::Change, changing));
    let others = for_need(Need::Look, overview).merge(for_need(Need::Govern, governing));
    let containers = for_need(Need::Look, looking_at_containers)
        .merge(for_need(Need::Change, changing_containers));
    let calls = Router::new().nest("/api/v1", workspaces.clone().merge(others)).merge(workspaces);
    finish(calls.merge(containers).merge(open).fallback(async || Problem::UnknownCall), context)
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
        .layer(map_response(keep_private))
        .with_state(context)
}

/// Answers are for their caller alone: no cache keeps them, no page is told in a `Referer` how they
/// were asked for, and no browser takes them for a page.
async fn keep_private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
