//! Workspaces on demand.

use std::collections::BTreeMap;

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Representation;
use crate::api::caller::Caller;
use crate::api::fields::Fields;
use crate::api::reply::{Json, Problem};
use crate::api::{Context, policy};
use crate::lifecycle::CreateError;
use crate::lifecycle::create::{Order, Template};
use crate::model::{Image, Protocol, Runs, Spec, WorkspaceId};

/// Processors that a spec may ask for: a hundredth is the least that an engine accepts.
const CPUS: std::ops::RangeInclusive<f64> = 0.01..=10_000.0;

/// A workspace to be created, from a project or, where the configuration allows it, from a spec.
#[derive(Debug, ToSchema)]
pub(in crate::api) struct NewWorkspace {
    /// The project to create it from.
    #[schema(examples("notebook"))]
    project_id: Option<String>,
    /// What it is made of, instead of what a project says. In forms, as JSON.
    spec: Option<InlineSpec>,
    /// What to call it; left out: 32 random digits, so that nobody can guess its address.
    id: Option<WorkspaceId>,
    #[serde(flatten)]
    policy: policy::Changes,
}

/// The workspace that was created.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Created {
    #[schema(examples("Workspace has been created"))]
    message: &'static str,
    workspace: Representation,
}

/// What may be said of a container without handing out the machine that it runs on.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(
    as = Spec,
    examples(json!({
        "image": "nginx:alpine",
        "command": ["nginx", "-g", "daemon off;"],
        "port": 80,
        "environment": { "GREETING": "hello" },
        "ready_path": "/health",
        "protocol": "http1",
        "memory": "512MiB",
        "cpus": 1.5,
        "isolate": true,
    }))
)]
#[serde(deny_unknown_fields)]
struct InlineSpec {
    #[schema(examples("nginx:alpine"))]
    image: String,
    /// Instead of the image's own.
    #[serde(default)]
    command: Vec<String>,
    /// Where it listens, inside the container; `null`: at the one port that the image exposes.
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65535, examples(80))]
    port: Option<Port>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// It is ready when a GET of this path is answered with 2xx or 3xx; `null`: any answer will do.
    #[schema(examples("/health"))]
    ready_path: Option<String>,
    /// What it speaks: HTTP/1.1, or HTTP/2 without TLS by prior knowledge, as gRPC servers do.
    #[serde(default)]
    #[schema(examples("http1"))]
    protocol: Protocol,
    /// `null`: any amount.
    memory: Option<policy::Bytes>,
    /// Processors; `null`: any number.
    #[schema(minimum = 0.01, maximum = 10000, examples(1.5))]
    cpus: Option<f64>,
    /// Whether it has a network to itself.
    #[serde(default)]
    isolate: bool,
}

/// Any of 1 to 65535. JSON has no integers of its own: `80.0` is one.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
struct Port(u16);

impl TryFrom<f64> for Port {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        let is_port = number.fract() == 0.0 && (1.0..=65535.0).contains(&number);
        is_port
            .then_some(Self(number as u16))
            .ok_or_else(|| format!("{number} is no port: send a whole number from 1 to 65535"))
    }
}

impl InlineSpec {
    fn into_spec(self) -> Result<Spec, Problem> {
        let nano_cpus = self.cpus.map(|cpus| {
            let nano = CPUS.contains(&cpus).then_some((cpus * 1e9).round() as u64);
            nano.ok_or_else(|| Problem::Invalid(format!("spec.cpus is {cpus}: send 0.01 or more")))
        });
        let image = Image {
            command: self.command,
            nano_cpus: nano_cpus.transpose()?,
            isolate: self.isolate,
            ..Image::new(self.image)
        };
        Ok(Spec {
            port: self.port.map(|Port(number)| number),
            environment: self.environment,
            ready_path: self.ready_path,
            protocol: self.protocol,
            memory: self.memory.map(|policy::Bytes(bytes)| bytes),
            ..Spec::new(Runs::Image(image))
        })
    }
}

/// Create a workspace.
///
/// Answered once it is made and its start has begun. Where that fails nothing is left of it.
#[utoipa::path(
    post,
    path = "/workspaces",
    operation_id = "createWorkspace",
    tag = "workspaces",
    request_body = NewWorkspace,
    responses((status = 201, description = "It is being started", body = Created), CreateError)
)]
pub(in crate::api) async fn create(
    State(context): State<Context>,
    caller: Caller,
    fields: Fields,
) -> Result<(StatusCode, Json<Created>), Problem> {
    let order = NewWorkspace::read(fields)?.order()?;
    caller.check_template(&order.from)?;
    policy::check(&context.creator.policy(&order)?)?;
    let workspace = context.creator.create(order).await?;
    let workspace = Representation::of(&workspace, &context);
    let message = "Workspace has been created";
    Ok((StatusCode::CREATED, Json(Created { message, workspace })))
}

impl NewWorkspace {
    fn read(mut fields: Fields) -> Result<Self, Problem> {
        let new = Self {
            project_id: fields.take("project_id")?,
            spec: fields.take_nested("spec")?,
            id: fields.take("id")?,
            policy: policy::Changes::read(&mut fields)?,
        };
        fields.end()?;
        Ok(new)
    }

    fn order(self) -> Result<Order, Problem> {
        let from = match (self.project_id, self.spec) {
            (Some(project), None) => Template::Project(project),
            (None, Some(spec)) => Template::Spec(Box::new(spec.into_spec()?)),
            (Some(_), Some(_)) => {
                let why = "project_id and spec exclude each other; send one";
                return Err(Problem::Invalid(why.to_owned()));
            }
            (None, None) => {
                let why =
                    "project_id is missing: name one of those that GET /api/v1/projects lists";
                return Err(Problem::Invalid(why.to_owned()));
            }
        };
        Ok(Order { id: self.id, from, policy: self.policy.overrides()? })
    }
}

/// What the schema of a new workspace can't say in types, beside the rule of its policy.
pub(in crate::api) fn rule() -> Value {
    json!({ "oneOf": [{ "required": ["project_id"] }, { "required": ["spec"] }] })
}
