//! spin-docker's own calls and fields, over the same workspaces.
//!
//! What it calls a container is a workspace here, also one that is a local process. All values are
//! texts, and there are three status words. An `{id}` is the container's full id or the
//! workspace's.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Context;
use super::caller::Caller;
use super::fields::Fields;
use super::reply::{Failure, Json, Problem};
use super::workspaces::Id;
use crate::lifecycle::create::{Order, Template};
use crate::lifecycle::{CommandError, CreateError, Description, Workspace};
use crate::model::{FrozenStorage, Image, Phase, PolicyOverrides, ProjectId, Runs, Spec};

/// Workspaces that are described together.
const DESCRIBED_AT_ONCE: usize = 16;

/// What stands in a path.
const ID: &str = "Which container: its full id, or that of the workspace.";

/// A workspace as spin-docker would tell it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Container {
    /// In full; the workspace's id where there is no container.
    #[schema(examples("3f4e8b6f5d1c0a79e2b8d6c4a1f0e3d2c5b4a7968f7e6d5c4b3a29181706f5e4"))]
    container_id: String,
    /// With the slash that the engine puts before it.
    #[schema(examples("/frostgate-alice"))]
    name: String,
    /// Empty: it is made of none.
    #[schema(examples("nginx:alpine"))]
    image: String,
    /// The port of this machine at which its port 22 is published; empty: at none.
    #[schema(examples("32768"))]
    ssh_port: String,
    /// The same for the port that it listens on. End users need neither: see `url` of
    /// `/api/v1/workspaces/{id}`.
    #[schema(examples("32769"))]
    app_port: String,
    /// `running`, `stopping` or `stopped`.
    #[schema(examples("running"))]
    status: &'static str,
    /// `0` if it is idle: how many are inside, and one more if its own last report says so.
    #[schema(examples("0"))]
    active: String,
    /// Where it is told of.
    #[schema(examples(
        "/v1/containers/3f4e8b6f5d1c0a79e2b8d6c4a1f0e3d2c5b4a7968f7e6d5c4b3a29181706f5e4"
    ))]
    uri: String,
}

/// What to make a container from.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewContainer {
    /// One that the engine has.
    #[schema(min_length = 1, examples("nginx:alpine"))]
    image: String,
}

/// What a container is to be.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ContainerChange {
    status: WantedStatus,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum WantedStatus {
    Running,
    Stopped,
}

/// Whether to look first.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Audit {
    /// `true`: compare everything with what runs it, and answer then. May stand in the body instead.
    #[param(value_type = Option<bool>)]
    audit: Option<Switch>,
}

/// True or false, in letters of any size.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Switch(bool);

impl Container {
    async fn of(workspace: &Workspace) -> Self {
        let described = workspace.describe().await.unwrap_or_else(|error| {
            tracing::debug!(workspace = %workspace.id(), %error, "can't describe a workspace");
            None
        });
        let view = workspace.view();
        let id = workspace.id().to_string();
        let described = described.unwrap_or_else(|| Description {
            container_id: id.clone(),
            name: format!("/{id}"),
            image: image_of(workspace),
            ssh_port: None,
            app_port: None,
        });
        let port = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
        Self {
            uri: format!("/v1/containers/{}", described.container_id),
            container_id: described.container_id,
            name: described.name,
            image: described.image,
            ssh_port: port(described.ssh_port),
            app_port: port(described.app_port),
            status: status(view.phase),
            active: (u64::from(view.inside) + u64::from(view.reports_activity)).to_string(),
        }
    }
}

fn image_of(workspace: &Workspace) -> String {
    match &workspace.blueprint().spec.runs {
        Runs::Image(image) => image.name.clone(),
        Runs::Command { .. } | Runs::Discovered { .. } | Runs::Upstream(_) => String::new(),
    }
}

fn status(phase: Phase) -> &'static str {
    match phase {
        // Whoever connects is held until it is ready.
        Phase::Starting | Phase::Running => "running",
        Phase::Freezing | Phase::Removing => "stopping",
        Phase::Frozen | Phase::Removed | Phase::Failed => "stopped",
    }
}

/// List images, by names with tags.
///
/// Whoever may see some projects alone sees what those are made from.
#[utoipa::path(
    get,
    path = "/v1/images",
    operation_id = "listImages",
    tag = "containers",
    responses(
        (status = 200, description = "Those that the engine has", body = Vec<String>),
        Failure,
    )
)]
pub(super) async fn images(
    State(context): State<Context>,
    caller: Caller,
) -> Result<Json<Vec<String>>, Problem> {
    let images = context.creator.images().await;
    let mut images = images.map_err(|error| Problem::Failed(error.to_string()))?;
    if caller.scope.projects().is_some() {
        images.retain(|image| project_of(&context, &caller, image).is_some());
    }
    Ok(Json(images))
}

/// List containers.
#[utoipa::path(
    get,
    path = "/v1/containers",
    operation_id = "listContainers",
    tag = "containers",
    params(Audit),
    responses((status = 200, description = "All that the token may see", body = Vec<Container>))
)]
pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    RawQuery(query): RawQuery,
    fields: Fields,
) -> Result<Json<Vec<Container>>, Problem> {
    let mut fields = fields.or(Fields::of_query(query.as_deref())?);
    if let Some(Switch(true)) = (Audit { audit: fields.take("audit")? }).audit {
        context.registry.audit().await;
    }
    let all = context.registry.all().into_iter().filter(|workspace| caller.may_see(workspace));
    let described = all.map(|workspace| async move { Container::of(&workspace).await });
    Ok(Json(stream::iter(described).buffered(DESCRIBED_AT_ONCE).collect().await))
}

impl TryFrom<Value> for Switch {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("true") => return Ok(Self(true)),
            Some("false") => return Ok(Self(false)),
            _ => {}
        }
        value.as_bool().map(Self).ok_or_else(|| format!("{value} is neither true nor false"))
    }
}

/// Make a container from an image, and start it.
///
/// From the project of that image if there is one, else from the image itself, where the
/// configuration allows it. Answered once it is ready. It is frozen when idle, and kept. The image
/// may be named in the query instead.
#[utoipa::path(
    post,
    path = "/v1/containers",
    operation_id = "createContainer",
    tag = "containers",
    request_body = NewContainer,
    responses((status = 201, description = "It is ready", body = Container), CreateError)
)]
pub(super) async fn create(
    State(context): State<Context>,
    caller: Caller,
    RawQuery(query): RawQuery,
    fields: Fields,
) -> Result<(StatusCode, Json<Container>), Problem> {
    let NewContainer { image } = NewContainer::read(fields, Fields::of_query(query.as_deref())?)?;
    let kept =
        PolicyOverrides { storage: Some(FrozenStorage::Unlimited), ..PolicyOverrides::default() };
    let order = Order { id: None, from: template(&context, &caller, &image), policy: kept };
    caller.check_template(&order.from)?;
    let workspace = context.creator.create(order).await?;
    if let Err(error) = workspace.resume().await {
        // A container that never ran is of no use to whoever waits for it.
        workspace.remove().await?;
        return Err(Problem::Unmakeable(error.to_string()));
    }
    Ok((StatusCode::CREATED, Json(Container::of(&workspace).await)))
}

impl NewContainer {
    fn read(mut body: Fields, mut query: Fields) -> Result<Self, Problem> {
        let image: Option<String> = body.take("image")?.or(query.take("image")?);
        body.end()?;
        let image = image.filter(|image| !image.is_empty()).ok_or_else(|| {
            Problem::Invalid("image is missing: name one that GET /v1/images lists".to_owned())
        })?;
        Ok(Self { image })
    }
}

fn template(context: &Context, caller: &Caller, image: &str) -> Template {
    match project_of(context, caller, image) {
        Some(id) => Template::Project(id.to_string()),
        None => {
            let image = Image { publish_ports: true, ..Image::new(image) };
            Template::Spec(Box::new(Spec::new(Runs::Image(image))))
        }
    }
}

/// The project of an image, of those that the caller may see.
fn project_of<'a>(context: &'a Context, caller: &Caller, image: &str) -> Option<&'a ProjectId> {
    let is_of = |runs: &Runs| matches!(runs, Runs::Image(made_from) if made_from.name == image);
    let mut projects = context.creator.projects().iter();
    let found =
        projects.find(|(id, project)| caller.may_use(id.as_str()) && is_of(&project.spec.runs));
    found.map(|(id, _)| id)
}

/// Tell how a container is.
#[utoipa::path(
    get,
    path = "/v1/containers/{id}",
    operation_id = "getContainer",
    tag = "containers",
    params(("id" = String, Path, description = ID, example = "alice")),
    responses((status = 200, description = "The container", body = Container), Id)
)]
pub(super) async fn read(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<Json<Container>, Problem> {
    Ok(Json(Container::of(&*find(&context, &caller, id)?).await))
}

/// Stop or start a container.
///
/// A stop is answered when it has begun, a start when it is ready. The status may stand in the query
/// instead.
#[utoipa::path(
    patch,
    path = "/v1/containers/{id}",
    operation_id = "changeContainer",
    tag = "containers",
    params(("id" = String, Path, description = ID, example = "alice")),
    request_body = ContainerChange,
    responses((status = 200, description = "The container", body = Container), Id, CommandError)
)]
pub(super) async fn change(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
    RawQuery(query): RawQuery,
    fields: Fields,
) -> Result<Json<Container>, Problem> {
    let workspace = find(&context, &caller, id)?;
    let change = ContainerChange::read(fields, Fields::of_query(query.as_deref())?)?;
    match change.status {
        WantedStatus::Running => workspace.resume().await?,
        WantedStatus::Stopped => workspace.begin_stop().await?,
    }
    Ok(Json(Container::of(&workspace).await))
}

impl ContainerChange {
    fn read(mut body: Fields, mut query: Fields) -> Result<Self, Problem> {
        let status = body.take("status")?.or(query.take("status")?);
        body.end()?;
        let status = status.ok_or_else(|| {
            Problem::Invalid("status is missing: send \"stopped\" or \"running\"".to_owned())
        })?;
        Ok(Self { status })
    }
}

/// Remove a container. Answered once it is gone.
#[utoipa::path(
    delete,
    path = "/v1/containers/{id}",
    operation_id = "deleteContainer",
    tag = "containers",
    params(("id" = String, Path, description = ID, example = "alice")),
    responses((status = 204, description = "It is gone"), Id, CommandError)
)]
pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<StatusCode, Problem> {
    find(&context, &caller, id)?.remove().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn find(context: &Context, caller: &Caller, id: Id) -> Result<Arc<Workspace>, Problem> {
    let of_container = context.creator.by_container(&id.0);
    match of_container.filter(|workspace| caller.may_see(workspace)) {
        Some(workspace) => Ok(workspace),
        None => super::workspaces::find(context, caller, id),
    }
}
