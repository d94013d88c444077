//! How everything is, in numbers, for Prometheus. They are of the moment in which they are asked for,
//! so nothing is counted on the way of a request. Told to everybody: they name no workspace.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Context;
use super::reply::Problem;
use crate::model::Phase;

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Where workspaces can be in their lives while they are known.
const PHASES: [Phase; 6] = [
    Phase::Starting,
    Phase::Running,
    Phase::Freezing,
    Phase::Frozen,
    Phase::Removing,
    Phase::Failed,
];

/// A gauge for each value of one label.
type Gauges = Family<[(&'static str, String); 1], Gauge>;

/// Tell how everything is, in OpenMetrics.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    tag = "gateway",
    responses((status = 200, description = "The metrics", body = String,
        content_type = "application/openmetrics-text"))
)]
pub(super) async fn read(State(context): State<Context>) -> Result<Response, Problem> {
    let mut registry = Registry::with_prefix("frostgate");
    version(&mut registry);
    workspaces(&mut registry, &context);
    slots(&mut registry, &context);
    parts(&mut registry, &context);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| Problem::Unavailable)?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn version(registry: &mut Registry) {
    let versions = Gauges::default();
    versions.get_or_create(&[("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1);
    registry.register("build_info", "Which version runs; always 1", versions);
}

fn workspaces(registry: &mut Registry, context: &Context) {
    let (phases, live) = (Gauges::default(), Gauges::default());
    let held: Gauge = Gauge::default();
    for phase in PHASES {
        phases.get_or_create(&[("phase", phase.to_string())]).set(0);
    }
    for workspace in context.registry.all() {
        let view = workspace.view();
        phases.get_or_create(&[("phase", view.phase.to_string())]).inc();
        for (kind, count) in [("request", view.requests()), ("tunnel", view.tunnels)] {
            live.get_or_create(&[("kind", kind.to_owned())]).inc_by(i64::from(count));
        }
        held.inc_by(i64::try_from(view.held).unwrap_or(i64::MAX));
    }
    registry.register("workspaces", "Workspaces, by where they are in their lives", phases);
    registry.register("live_connections", "Requests and tunnels inside of workspaces", live);
    registry.register("held_requests", "Requests that wait until their workspace runs", held);
}

fn slots(registry: &mut Registry, context: &Context) {
    let Some((all, free)) = context.registry.slots() else { return };
    let slots = Gauges::default();
    for (state, count) in [("free", free), ("taken", all.saturating_sub(free))] {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        slots.get_or_create(&[("state", state.to_owned())]).set(count);
    }
    registry.register("slots", "Slots, where their number is limited", slots);
}

fn parts(registry: &mut Registry, context: &Context) {
    let degraded = Gauges::default();
    for check in &*context.checks {
        let part = [("part", check.name().to_owned())];
        degraded.get_or_create(&part).set(check.is_degraded().into());
    }
    let help = "1: somebody has to look after this part, as /readyz?verbose says";
    registry.register("degraded", help, degraded);
}
