//! spin-docker's own calls and fields, over the same workspaces.
//!
//! What it calls a container is a workspace here, also one that is a local process. All values are
//! texts, and there are three status words. An `{id}` is the container's full id or the
//! workspace's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde::Serialize;

use super::Context;
use super::caller::Caller;
use super::fields::Fields;
use super::reply::Problem;
use super::workspaces::Id;
use crate::lifecycle::create::{Order, Template};
use crate::lifecycle::{Description, Workspace};
use crate::model::{FrozenStorage, Image, Phase, PolicyOverrides, ProjectId, Runs, Spec};

/// Workspaces that are described together.
const DESCRIBED_AT_ONCE: usize = 16;

/// A workspace as spin-docker would tell it.
#[derive(Debug, Serialize)]
pub(super) struct Container {
    /// In full; the workspace's id where there is no container.
    container_id: String,
    /// With the slash that the engine puts before it.
    name: String,
    image: String,
    /// The port of this machine at which its port 22 is published; empty: at none.
    ssh_port: String,
    /// The same for the port that it listens on. End users need neither: see `url` of
    /// `/api/v1/workspaces/{id}`.
    app_port: String,
    /// `running`, `stopping` or `stopped`.
    status: &'static str,
    /// `0` if it is idle: how many are inside, and one more if its own last report says so.
    active: String,
    uri: String,
}

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

/// `GET /v1/images`: their names, with tags. Whoever may see some projects alone sees what those
/// are made from.
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

/// `GET /v1/containers`. `audit=true`, in the query or the body: after everything has been compared
/// with its runtime.
pub(super) async fn list(
    State(context): State<Context>,
    caller: Caller,
    RawQuery(query): RawQuery,
    fields: Fields,
) -> Result<Json<Vec<Container>>, Problem> {
    let fields = fields.or(Fields::of_query(query.as_deref())?);
    if audit(&fields)? {
        context.registry.audit().await;
    }
    let all = context.registry.all().into_iter().filter(|workspace| caller.may_see(workspace));
    let described = all.map(|workspace| async move { Container::of(&workspace).await });
    Ok(Json(stream::iter(described).buffered(DESCRIBED_AT_ONCE).collect().await))
}

fn audit(fields: &Fields) -> Result<bool, Problem> {
    match fields.get("audit").map(str::to_ascii_lowercase).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            Err(Problem::Invalid(format!("audit is {other:?}: send \"true\" or \"false\"")))
        }
    }
}

/// `POST /v1/containers`: makes one from `image` and starts it; 201 once it is ready. From the
/// project of that image if there is one, else from the image itself, where that is allowed. It is
/// frozen when idle, and kept.
pub(super) async fn create(
    State(context): State<Context>,
    caller: Caller,
    RawQuery(query): RawQuery,
    fields: Fields,
) -> Result<(StatusCode, Json<Container>), Problem> {
    let fields = fields.or(Fields::of_query(query.as_deref())?);
    let image = fields.get("image").filter(|image| !image.is_empty());
    let image = image.ok_or_else(|| {
        Problem::Invalid("image is missing: name one that GET /v1/images lists".to_owned())
    })?;
    let kept =
        PolicyOverrides { storage: Some(FrozenStorage::Unlimited), ..PolicyOverrides::default() };
    let order = Order { id: None, from: template(&context, &caller, image), policy: kept };
    caller.check_template(&order.from)?;
    let workspace = context.creator.create(order).await?;
    if let Err(error) = workspace.resume().await {
        // A container that never ran is of no use to whoever waits for it.
        workspace.remove().await?;
        return Err(Problem::Unmakeable(error.to_string()));
    }
    Ok((StatusCode::CREATED, Json(Container::of(&workspace).await)))
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

/// `GET /v1/containers/{id}`
pub(super) async fn read(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<Json<Container>, Problem> {
    Ok(Json(Container::of(&*find(&context, &caller, id)?).await))
}

/// `PATCH /v1/containers/{id}` with `status=stopped`, which is answered when it has begun, or
/// `status=running`, which is answered when it is ready.
pub(super) async fn change(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
    RawQuery(query): RawQuery,
    fields: Fields,
) -> Result<Json<Container>, Problem> {
    let workspace = find(&context, &caller, id)?;
    let fields = fields.or(Fields::of_query(query.as_deref())?);
    match fields.get("status") {
        Some("running") => workspace.resume().await?,
        Some("stopped") => workspace.begin_stop().await?,
        other => {
            return Err(Problem::Invalid(format!(
                "status is {:?}: send \"stopped\" or \"running\"",
                other.unwrap_or_default()
            )));
        }
    }
    Ok(Json(Container::of(&workspace).await))
}

/// `DELETE /v1/containers/{id}`: 204 once it is gone.
pub(super) async fn delete(
    State(context): State<Context>,
    caller: Caller,
    id: Id,
) -> Result<StatusCode, Problem> {
    find(&context, &caller, id)?.remove().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn find(context: &Context, caller: &Caller, id: Id) -> Result<Arc<Workspace>, Problem> {
    if let Ok(Path(container_id)) = &id
        && let Some(workspace) = context.creator.by_container(container_id)
        && caller.may_see(&workspace)
    {
        return Ok(workspace);
    }
    super::workspaces::find(context, caller, id)
}
