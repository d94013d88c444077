//! How everything is, in numbers, for Prometheus: what can be told by looking, of the moment in which
//! it is asked for, and what was counted (`crate::metrics`). Told to everybody: they name no
//! workspace, unless the configuration wants that.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Context;
use super::readiness::CONFIGURATION;
use super::reply::Problem;
use crate::metrics::{described, register};
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

/// A gauge for each set of labels.
type Gauges<const N: usize> = Family<[(&'static str, String); N], Gauge>;

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
    context.registry.metrics().tell(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| Problem::Unavailable)?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn version(registry: &mut Registry) {
    let versions = Gauges::default();
    versions.get_or_create(&[("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1);
    register(registry, &described::BUILD_INFO, versions);
}

fn workspaces(registry: &mut Registry, context: &Context) {
    let (phases, live) = (Gauges::default(), Gauges::default());
    let (phase_of_each, live_of_each) = (Gauges::default(), Gauges::default());
    let (held, memory_saved): (Gauge, Gauge) = <(Gauge, Gauge)>::default();
    for phase in PHASES {
        phases.get_or_create(&[("phase", phase.to_string())]).set(0);
    }
    for workspace in context.registry.all() {
        let view = workspace.view();
        let phase = || ("phase", view.phase.to_string());
        let name = || ("workspace", workspace.id().to_string());
        phases.get_or_create(&[phase()]).inc();
        held.inc_by(i64::try_from(view.held).unwrap_or(i64::MAX));
        memory_saved.inc_by(view.memory_saved.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(0)));
        if context.metrics_per_workspace {
            phase_of_each.get_or_create(&[name(), phase()]).set(1);
        }
        for (kind, count) in [("request", view.requests()), ("tunnel", view.tunnels)] {
            let kind = ("kind", kind.to_owned());
            if context.metrics_per_workspace {
                live_of_each.get_or_create(&[name(), kind.clone()]).set(count.into());
            }
            live.get_or_create(&[kind]).inc_by(count.into());
        }
    }
    register(registry, &described::WORKSPACES, phases);
    register(registry, &described::LIVE_CONNECTIONS, live);
    register(registry, &described::HELD_REQUESTS, held);
    register(registry, &described::MEMORY_SAVED, memory_saved);
    if context.metrics_per_workspace {
        register(registry, &described::WORKSPACE_PHASE, phase_of_each);
        register(registry, &described::WORKSPACE_LIVE, live_of_each);
    }
}

fn slots(registry: &mut Registry, context: &Context) {
    let Some((all, free)) = context.registry.slots() else { return };
    let slots = Gauges::default();
    for (state, count) in [("free", free), ("taken", all.saturating_sub(free))] {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        slots.get_or_create(&[("state", state.to_owned())]).set(count);
    }
    register(registry, &described::SLOTS, slots);
}

fn parts(registry: &mut Registry, context: &Context) {
    let degraded = Gauges::default();
    for check in &*context.checks {
        let is_degraded = check.is_degraded();
        degraded.get_or_create(&[("part", check.name().to_owned())]).set(is_degraded.into());
        if check.name() == CONFIGURATION {
            let successful: Gauge = Gauge::default();
            successful.set((!is_degraded).into());
            register(registry, &described::RELOAD, successful);
        }
    }
    register(registry, &described::DEGRADED, degraded);
}
