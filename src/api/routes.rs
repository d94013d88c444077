//! The table of contents: every call, and whose token may make it.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, StatusCode};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::caller::Need;
use super::openapi::Document;
use super::reply::Problem;
use super::{
    Context, activity, auth, check_in, containers, events, history, metrics, openapi, overview,
    projects, readiness, reload, session, tokens, workspaces,
};

/// Where workspaces report their activity.
pub const CHECK_IN_PATH: &str = "/v1/check-in";
/// Largest body of a call.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// All calls: for the admin listener, and for the public one's `admin_host`.
pub fn admin(context: Context) -> Router {
    // Every token, for what it may see.
    let looking = Calls::new()
        .at("/workspaces", routes!(workspaces::list))
        .at("/workspaces/{id}", routes!(workspaces::read))
        .at("/workspaces/{id}/activity", routes!(activity::read));
    // `admin`, and `projects` for their own workspaces.
    let changing = Calls::new()
        .at("/workspaces", routes!(workspaces::create))
        .at("/workspaces/{id}", routes!(workspaces::change, workspaces::delete))
        .at("/workspaces/{id}/keep", routes!(workspaces::keep))
        .at("/workspaces/{id}/logs", routes!(workspaces::logs))
        .at("/workspaces/{id}/remove", routes!(workspaces::remove))
        .at("/workspaces/{id}/stop", routes!(workspaces::stop))
        .at("/workspaces/{id}/resume", routes!(workspaces::resume));
    // Every token.
    let overview = Calls::new()
        .at("/events", routes!(events::follow))
        .at("/history", routes!(history::read))
        .at("/session", routes!(session::read, session::end))
        .at("/test", routes!(overview::test))
        .at("/stats", routes!(overview::stats))
        .at("/projects", routes!(projects::list));
    // `admin`.
    let governing = Calls::new()
        .at("/reload", routes!(reload::reload))
        .at("/tokens", routes!(tokens::list, tokens::add))
        .at("/tokens/{name}", routes!(tokens::revoke))
        .at("/tokens/{name}/rotate", routes!(tokens::rotate));
    // Nobody's: it is shown in the body.
    let login = Calls::new().at("/session", routes!(session::begin));
    // spin-docker's own: every token, and as above.
    let looking_at_containers = Calls::new()
        .at("/v1/images", routes!(containers::images))
        .at("/v1/containers", routes!(containers::list))
        .at("/v1/containers/{id}", routes!(containers::read));
    let changing_containers = Calls::new()
        .at("/v1/containers", routes!(containers::create))
        .at("/v1/containers/{id}", routes!(containers::change, containers::delete));
    // Nobody's.
    let open = Calls::new()
        .at("/healthz", routes!(overview::health))
        .at("/metrics", routes!(metrics::read))
        .at("/openapi.json", routes!(openapi::read))
        .at("/readyz", routes!(readiness::read))
        .at(CHECK_IN_PATH, routes!(check_in::check_in));

    let workspaces = looking.need(Need::Look, &context).and(changing.need(Need::Change, &context));
    let others = overview.need(Need::Look, &context).and(governing.need(Need::Govern, &context));
    let containers = looking_at_containers
        .need(Need::Look, &context)
        .and(changing_containers.need(Need::Change, &context));
    let calls = Calls::below("/api/v1", workspaces.clone().and(others).and(login))
        .and(containers)
        .and(open);
    let (router, description) = calls.0.split_for_parts();
    // `/workspaces…` and `/api/v1/workspaces…` are the same.
    let aliases = Router::from(workspaces.0).route("/api/v1/openapi.json", get(openapi::read));
    let router = router.merge(aliases).layer(Extension(Document::of(description)));
    finish(router.fallback(async || Problem::UnknownCall), context)
}

/// What the public listener serves of them.
pub fn check_in_only(context: Context) -> Router {
    let check_in = Calls::new().at(CHECK_IN_PATH, routes!(check_in::check_in));
    finish(Router::from(check_in.0).fallback(async || Problem::NoWorkspaceHere), context)
}

fn finish(router: Router<Context>, context: Context) -> Router {
    router
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(map_response(keep_private))
        .with_state(context)
}

/// Says by which methods there is a call, in the header `Allow`, which the router adds.
async fn other_method(method: Method) -> Response {
    match method {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => Problem::WrongMethod.into_response(),
    }
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

/// Calls, with what they say of themselves.
#[derive(Clone)]
struct Calls(OpenApiRouter<Context>);

impl Calls {
    fn new() -> Self {
        Self(OpenApiRouter::default())
    }

    fn below(prefix: &str, calls: Self) -> Self {
        Self(OpenApiRouter::default().nest(prefix, calls.0))
    }

    fn and(self, others: Self) -> Self {
        Self(self.0.merge(others.0))
    }

    /// Adds those of one path, which is the one that they name themselves.
    fn at(self, path: &str, calls: UtoipaMethodRouter<Context>) -> Self {
        let (_, described, _) = &calls;
        assert!(described.paths.keys().eq([path]), "another path than {path} is described");
        Self(self.0.routes(calls))
    }

    /// Lets those through who have a token that is good for it.
    fn need(mut self, need: Need, context: &Context) -> Self {
        openapi::describe_need(self.0.get_openapi_mut(), need);
        Self(self.0.route_layer(from_fn_with_state((context.clone(), need), auth::require)))
    }
}
