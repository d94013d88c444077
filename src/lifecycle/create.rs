//! Workspaces on demand: made from a project of the configuration, or from a spec of the caller's
//! own where that is allowed, and brought back at every start.
//!
//! A workspace keeps what its project said when it was made: to change a project, or to delete it,
//! changes no workspace that lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::registry::{MakeError, Newcomer, Registry};
use super::workspace::Workspace;
use crate::driver::{Driver, DriverError};
use crate::model::{
    FrozenStorage, Policy, PolicyOverrides, Project, ProjectId, Runs, Spec, WorkspaceId,
};
use crate::store::{Origin, Record};

/// Bytes of an id that we choose. Who can guess one can knock at its door.
const ID_BYTES: usize = 16;

/// How long a runtime may take to list its images.
const LIST_MAX: Duration = Duration::from_secs(30);

/// What a creation needs to know.
pub struct Options {
    /// By id.
    pub projects: BTreeMap<ProjectId, Project>,
    /// The policy of what is created, where neither a project nor the call says otherwise.
    pub policy: Arc<Policy>,
    /// Whether a call may bring a spec of its own.
    pub inline_specs: bool,
}

/// Creates workspaces.
pub struct Creator {
    registry: Arc<Registry>,
    drivers: Vec<Arc<dyn Driver>>,
    options: Options,
}

/// A workspace that somebody wants.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its id; `None`: any.
    pub id: Option<WorkspaceId>,
    /// What it is made from.
    pub from: Template,
    /// What it sets for itself.
    pub policy: PolicyOverrides,
}

/// What a workspace is made from.
#[derive(Debug, Clone)]
pub enum Template {
    /// The project of that id.
    Project(String),
    /// A spec of the caller's own.
    Spec(Box<Spec>),
}

/// Why a workspace was not created. Nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// There is no such project.
    #[error("there is no project {0:?}")]
    UnknownProject(String),
    /// The configuration does not allow it.
    #[error(
        "a workspace is created from a project here; name one as \"project_id\", or set \
         inline_specs = true in [api]"
    )]
    InlineSpec,
    /// Nothing here runs such workspaces.
    #[error("there is no {0} driver here that could run it")]
    NoDriver(&'static str),
    /// The system has no random bytes for an id.
    #[error("the system has no random bytes")]
    NoRandomness,
    /// It could not be registered, stored or made.
    #[error(transparent)]
    Make(#[from] MakeError),
}

impl Creator {
    /// `drivers`: at most one of each name.
    pub fn new(registry: Arc<Registry>, drivers: Vec<Arc<dyn Driver>>, options: Options) -> Self {
        Self { registry, drivers, options }
    }

    /// All projects, by id.
    pub fn projects(&self) -> &BTreeMap<ProjectId, Project> {
        &self.options.projects
    }

    /// Whether a call may bring a spec of its own.
    pub fn allows_inline_specs(&self) -> bool {
        self.options.inline_specs
    }

    /// The policy that an order leads to; for whoever wants to check it first.
    pub fn policy(&self, order: &Order) -> Result<Policy, CreateError> {
        let (_, own_policy, _) = self.resolve(order)?;
        Ok(own_policy.over(&self.options.policy))
    }

    /// Makes and starts a workspace. Returns when it is made; the start goes on.
    pub async fn create(&self, order: Order) -> Result<Arc<Workspace>, CreateError> {
        let (spec, own_policy, project) = self.resolve(&order)?;
        let id = order.id.map_or_else(random_id, Ok)?;
        let driver = self.driver_for(&spec.runs)?;
        let newcomer = Newcomer {
            id,
            spec,
            policy: self.options.policy.clone(),
            own_policy,
            driver,
            origin: Origin::Api,
            project,
        };
        Ok(self.registry.make(newcomer).await?)
    }

    /// Brings back what was created in an earlier life of this program. What can't be run here
    /// stays on record.
    pub fn restore(&self) {
        for record in self.registry.made_before() {
            let Record { id, spec: Some(spec), project, .. } = record else { continue };
            let added =
                self.driver_for(&spec.runs).map_err(|error| error.to_string()).and_then(|driver| {
                    let newcomer = Newcomer {
                        id: id.clone(),
                        spec,
                        policy: self.options.policy.clone(),
                        own_policy: PolicyOverrides::default(),
                        driver,
                        origin: Origin::Api,
                        project: project.and_then(|text| ProjectId::parse(&text).ok()),
                    };
                    self.registry.add(newcomer).map_err(|error| error.to_string())
                });
            if let Err(error) = added {
                tracing::error!(workspace = %id, error, "can't bring back a created workspace");
            }
        }
    }

    /// What it is made of, what it sets for itself, and its project.
    fn resolve(
        &self,
        order: &Order,
    ) -> Result<(Arc<Spec>, PolicyOverrides, Option<ProjectId>), CreateError> {
        let (spec, template, project) = match &order.from {
            Template::Project(id) => {
                let unknown = || CreateError::UnknownProject(id.clone());
                let found = self.options.projects.get_key_value(id.as_str());
                let (id, project) = found.ok_or_else(unknown)?;
                (project.spec.clone(), project.policy.clone(), Some(id.clone()))
            }
            Template::Spec(spec) if self.options.inline_specs => {
                (Arc::new((**spec).clone()), PolicyOverrides::default(), None)
            }
            Template::Spec(_) => return Err(CreateError::InlineSpec),
        };
        let base = template.over(&self.options.policy);
        let mut own_policy = template.and(&order.policy);
        // It must not come to depend on a setting that can change under it whether its data is kept.
        own_policy.storage = Some(own_policy.storage.unwrap_or(base.storage));
        // The seed's example: with a storage time of 5 it is frozen after 5 minutes of inactivity.
        if let (None, Some(FrozenStorage::Limited(limit))) =
            (order.policy.inactivity_timeout, order.policy.storage)
        {
            let usual = base.inactivity_timeout.unwrap_or(limit);
            own_policy.inactivity_timeout = Some(usual.min(limit));
        }
        Ok((spec, own_policy, project))
    }

    /// The images that a workspace could be made from, as the runtimes name them.
    pub async fn images(&self) -> Result<Vec<String>, DriverError> {
        let mut images = Vec::new();
        for driver in &self.drivers {
            let listed = timeout(LIST_MAX, driver.images()).await;
            images.extend(listed.unwrap_or_else(|_| Err(too_slow(&**driver)))?);
        }
        Ok(images)
    }

    /// The workspace that a container is of, by its runtime's id of it.
    pub fn by_container(&self, container_id: &str) -> Option<Arc<Workspace>> {
        let id = self.drivers.iter().find_map(|driver| driver.workspace_of(container_id))?;
        self.registry.get(id.as_str())
    }

    fn driver_for(&self, runs: &Runs) -> Result<Arc<dyn Driver>, CreateError> {
        driver_for(self.drivers.iter().cloned(), runs)
    }
}

/// Which of the drivers runs such workspaces.
pub fn driver_for(
    mut drivers: impl Iterator<Item = Arc<dyn Driver>>,
    runs: &Runs,
) -> Result<Arc<dyn Driver>, CreateError> {
    let name = match runs {
        Runs::Command { .. } => "process",
        Runs::Image(_) | Runs::Discovered { .. } => "docker",
        Runs::Upstream(_) => "upstream",
    };
    drivers.find(|driver| driver.name() == name).ok_or(CreateError::NoDriver(name))
}

fn too_slow(driver: &dyn Driver) -> DriverError {
    let reason = format!("no answer within {} s", LIST_MAX.as_secs());
    DriverError::Unreachable { runtime: driver.name().to_owned(), reason }
}

fn random_id() -> Result<WorkspaceId, CreateError> {
    let mut random = [0; ID_BYTES];
    getrandom::fill(&mut random).map_err(|_| CreateError::NoRandomness)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    WorkspaceId::parse(&digits).map_err(|_| CreateError::NoRandomness)
}

impl std::fmt::Debug for Creator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Creator({} projects)", self.options.projects.len())
    }
}
