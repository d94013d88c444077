//! Whether we are ready, and how each part of us is.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use super::Context;

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
}

/// What is in the query.
#[derive(Debug, Deserialize)]
pub(super) struct Detail {
    /// There, and be it without a value: tell how each part is.
    verbose: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Finding>>,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    /// `ok` or `degraded`.
    status: &'static str,
    /// For people.
    detail: String,
}

/// `GET /readyz`: 200 while requests are served; with `?verbose` also how each part is.
pub(super) async fn read(
    State(context): State<Context>,
    Query(detail): Query<Detail>,
) -> Json<Readiness> {
    let is_verbose = detail.verbose.is_some_and(|value| value != "false");
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
