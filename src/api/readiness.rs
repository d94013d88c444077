//! Whether we are ready, and how each part of us is.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::reply::Json;

/// The part that says whether the configuration that was read last is in force.
pub const CONFIGURATION: &str = "configuration";

/// How a part of the program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Good(String),
    /// It works, and somebody has to look after it.
    Degraded(String),
}

/// Something that can be asked how it is. The answer is told to everybody: it names nothing that
/// only an admin may know.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    ask: Arc<dyn Fn() -> Health + Send + Sync>,
}

impl Check {
    /// A part by its name; `ask` must not wait for anything.
    pub fn new(name: &'static str, ask: impl Fn() -> Health + Send + Sync + 'static) -> Self {
        Self { name, ask: Arc::new(ask) }
    }

    pub(super) fn is_degraded(&self) -> bool {
        matches!((self.ask)(), Health::Degraded(_))
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

/// That it is ready, and, where that was asked, how each part is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready`.
    status: &'static str,
    /// `null`: that was not asked.
    checks: Option<Vec<Finding>>,
}

/// How one part is.
#[derive(Debug, Serialize, ToSchema)]
struct Finding {
    /// Which part.
    name: &'static str,
    /// `ok` or `degraded`.
    status: &'static str,
    /// For people.
    detail: String,
}

/// Tell whether requests are served; with `?verbose` also how each part is.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "gateway",
    params((
        "verbose" = Option<String>, Query,
        description = "There, and be it without a value: tell how each part is."
    )),
    responses((status = 200, description = "They are", body = Readiness))
)]
pub(super) async fn read(
    State(context): State<Context>,
    RawQuery(query): RawQuery,
) -> Json<Readiness> {
    // Whoever only wants to know whether it is ready is told that, whatever else the query says.
    let query: Vec<(String, String)> =
        query.and_then(|query| serde_urlencoded::from_str(&query).ok()).unwrap_or_default();
    let is_verbose = query.iter().any(|(name, value)| name == "verbose" && value != "false");
    let checks = is_verbose.then(|| context.checks.iter().map(Finding::of).collect());
    Json(Readiness { status: "ready", checks })
}

impl Finding {
    fn of(check: &Check) -> Self {
        let (status, detail) = match (check.ask)() {
            Health::Good(detail) => ("ok", detail),
            Health::Degraded(detail) => ("degraded", detail),
        };
        Self { name: check.name, status, detail }
    }
}
