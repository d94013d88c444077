//! Workspaces on demand.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Representation;
use crate::api::caller::Caller;
use crate::api::fields::Fields;
use crate::api::reply::Problem;
use crate::api::{Context, policy};
use crate::lifecycle::create::{Order, Template};
use crate::model::{Image, Runs, Spec, WorkspaceId};
use crate::size;

/// What a creation may say beside the fields of a policy.
const FIELD_NAMES: [&str; 3] = ["project_id", "spec", "id"];

/// Processors that a spec may ask for: a hundredth is the least that an engine accepts.
const CPUS: std::ops::RangeInclusive<f64> = 0.01..=10_000.0;

/// What is answered.
#[derive(Debug, Serialize)]
pub(in crate::api) struct Created {
    message: &'static str,
    workspace: Representation,
}

/// A spec of the caller's own: what may be said of a container without handing out the host.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InlineSpec {
    image: String,
    #[serde(default)]
    command: Vec<String>,
    port: Option<u16>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    ready_path: Option<String>,
    /// With a unit, such as `512MiB`.
    memory: Option<String>,
    cpus: Option<f64>,
    #[serde(default)]
    isolate: bool,
}

impl InlineSpec {
    fn into_spec(self) -> Result<Spec, Problem> {
        let nano_cpus = self.cpus.map(|cpus| {
            let nano = CPUS.contains(&cpus).then_some((cpus * 1e9).round() as u64);
            nano.ok_or_else(|| Problem::Invalid(format!("spec.cpus is {cpus}: send 0.01 or more")))
        });
        let memory = self.memory.map(|text| {
            size::parse(&text).map_err(|error| Problem::Invalid(format!("spec.memory: {error}")))
        });
        let image = Image {
            command: self.command,
            nano_cpus: nano_cpus.transpose()?,
            isolate: self.isolate,
            ..Image::new(self.image)
        };
        Ok(Spec {
            port: self.port,
            environment: self.environment,
            ready_path: self.ready_path,
            memory: memory.transpose()?,
            ..Spec::new(Runs::Image(image))
        })
    }
}

/// `POST /api/v1/workspaces`: 201 once it is made and its start has begun. Where that fails nothing
/// is left of it.
pub(in crate::api) async fn create(
    State(context): State<Context>,
    caller: Caller,
    fields: Fields,
) -> Result<(StatusCode, Json<Created>), Problem> {
    policy::only(&fields, &FIELD_NAMES)?;
    let order =
        Order { id: id(&fields)?, from: template(&fields)?, policy: policy::overrides(&fields)? };
    caller.check_template(&order.from)?;
    policy::check(&context.creator.policy(&order)?)?;
    let workspace = context.creator.create(order).await?;
    let workspace = Representation::of(&workspace, &context);
    let message = "Workspace has been created";
    Ok((StatusCode::CREATED, Json(Created { message, workspace })))
}

fn id(fields: &Fields) -> Result<Option<WorkspaceId>, Problem> {
    let Some(text) = fields.get("id") else { return Ok(None) };
    let parsed = WorkspaceId::parse(text);
    parsed.map(Some).map_err(|error| Problem::Invalid(format!("id: {error}")))
}

fn template(fields: &Fields) -> Result<Template, Problem> {
    match (fields.get("project_id"), fields.get("spec")) {
        (Some(project), None) => Ok(Template::Project(project.to_owned())),
        (None, Some(text)) => {
            let spec: InlineSpec = serde_json::from_str(text).map_err(|error| {
                Problem::Invalid(format!("spec is not an object with an \"image\": {error}"))
            })?;
            Ok(Template::Spec(Box::new(spec.into_spec()?)))
        }
        (Some(_), Some(_)) => {
            Err(Problem::Invalid("project_id and spec exclude each other; send one".to_owned()))
        }
        (None, None) => Err(Problem::Invalid(
            "project_id is missing: name one of those that GET /api/v1/projects lists".to_owned(),
        )),
    }
}
