//! Making a container of ours: ask what has to be known, then create it, or adopt what an earlier
//! attempt left.

use std::net::IpAddr;

use bollard::query_parameters::{CreateContainerOptionsBuilder, InspectNetworkOptions};

use super::engine::{CREATE_LIMIT, EngineError, QUICK_LIMIT};
use super::labels::Claim;
use super::names::{ContainerRef, ImageName, NetworkName};
use super::recipe::{Recipe, Surroundings};
use super::{Address, Docker, labels, recipe, sighting};
use crate::driver::Status;
use crate::model::{Blueprint, Runs, WorkspaceId};

/// The network that containers join by default: Docker's name for it, and Podman's.
const DEFAULT_NETWORKS: [&str; 2] = ["bridge", "podman"];

impl Docker {
    /// Makes the workspace's container, unless it is there already.
    pub(super) async fn make(&self, blueprint: &Blueprint) -> Result<(), EngineError> {
        if self.see(&blueprint.id).await?.status != Status::Missing {
            return Ok(());
        }
        let recipe = self.recipe(blueprint)?;
        let surroundings = Surroundings {
            gateway: self.gateway(recipe.network.as_ref()).await?,
            address: self.address,
            scope: &self.shared.scope,
            port: self.port(&recipe).await?,
        };
        let body = recipe::body(&recipe, &surroundings);
        let name = ContainerRef::ours(&blueprint.id);
        let options = CreateContainerOptionsBuilder::new().name(name.as_str()).build();
        let created = self
            .engine()
            .call(CREATE_LIMIT, |client| async move {
                client.create_container(Some(options), body).await
            })
            .await;
        match created {
            Ok(created) => {
                if let Some(container) = ContainerRef::from_engine(&created.id) {
                    self.shared.directory.learn(&blueprint.id, container);
                }
                Ok(())
            }
            Err(error) if error.status() == Some(404) => Err(no_image(&recipe.image, error)),
            Err(error) if error.status() == Some(409) => {
                self.adopt(&blueprint.id, &name, error).await
            }
            Err(error) => Err(error),
        }
    }

    fn recipe<'a>(&self, blueprint: &'a Blueprint) -> Result<Recipe<'a>, EngineError> {
        let (image, command, network) = match &blueprint.spec.runs {
            Runs::Image { image, command, network } => (image, command, network),
            Runs::Discovered { .. } => {
                return Err(EngineError::refused(
                    "its container is gone, and whoever made it has to make it again",
                ));
            }
            Runs::Command { .. } | Runs::Upstream(_) => {
                return Err(EngineError::refused("it is no container"));
            }
        };
        let image = ImageName::parse(image)
            .ok_or_else(|| EngineError::refused(format!("{image:?} is not an image's name")))?;
        let network = match network {
            None => self.network.clone(),
            Some(name) => Some(NetworkName::parse(name).ok_or_else(|| {
                EngineError::refused(format!("{name:?} is not a network's name"))
            })?),
        };
        Ok(Recipe { blueprint, image, command, network })
    }

    /// This machine's address in the network, for check-ins.
    async fn gateway(&self, network: Option<&NetworkName>) -> Result<Option<IpAddr>, EngineError> {
        let names: &[&str] = match network.map(NetworkName::as_str) {
            Some(name) if recipe::is_shared(name) => return Ok(None),
            Some(name) => &[name],
            None => &DEFAULT_NETWORKS,
        };
        for &name in names {
            let inspect = |client: bollard::Docker| async move {
                client.inspect_network(name, None::<InspectNetworkOptions>).await
            };
            match self.engine().call(QUICK_LIMIT, inspect).await {
                Ok(inspected) => return Ok(recipe::gateway(&inspected)),
                Err(error) if error.status() != Some(404) => return Err(error),
                Err(_) => {}
            }
        }
        match network.map(NetworkName::as_str) {
            None => Ok(None),
            Some(name) => Err(EngineError::refused(format!(
                "there is no network {name}; `docker network create {name}` makes it"
            ))),
        }
    }

    /// The port to publish, if any is: the blueprint's, else the image's only one.
    async fn port(&self, recipe: &Recipe<'_>) -> Result<Option<u16>, EngineError> {
        if self.address == Address::Container || recipe.blueprint.spec.port.is_some() {
            return Ok(recipe.blueprint.spec.port);
        }
        let image = recipe.image.as_str();
        let inspect = |client: bollard::Docker| async move { client.inspect_image(image).await };
        let inspected = match self.engine().call(QUICK_LIMIT, inspect).await {
            Err(error) if error.status() == Some(404) => {
                return Err(no_image(&recipe.image, error));
            }
            inspected => inspected?,
        };
        let exposed = inspected.config.and_then(|config| config.exposed_ports).unwrap_or_default();
        let port = sighting::only_tcp_port(&exposed);
        port.map(Some).map_err(|reason| EngineError::refused(format!("{reason} by its image")))
    }

    /// Our name is taken: by an earlier attempt whose answer was lost, or by a stranger.
    async fn adopt(
        &self,
        id: &WorkspaceId,
        name: &ContainerRef,
        refusal: EngineError,
    ) -> Result<(), EngineError> {
        let Some(inspected) = self.engine().inspect(name).await? else {
            return Err(refusal);
        };
        let state = inspected.state.as_ref();
        if state.is_none_or(|state| sighting::status(state) == Status::Missing) {
            return Err(refusal);
        }
        let labels = inspected.config.and_then(|config| config.labels).unwrap_or_default();
        let claim = labels::claim(&labels, name.as_str(), &self.shared.scope);
        if claim != Claim::Workspace(id.clone()) {
            return Err(EngineError::refused(format!(
                "a container that is not ours has the name {}; rename or remove it",
                name.as_str()
            )));
        }
        if let Some(container) = inspected.id.as_deref().and_then(ContainerRef::from_engine) {
            self.shared.directory.learn(id, container);
        }
        Ok(())
    }
}

/// A 404 to a `create` is a missing image, which people can do something about.
fn no_image(image: &ImageName, error: EngineError) -> EngineError {
    let image = image.as_str();
    match error {
        EngineError::Refused { reason, .. } if reason.to_lowercase().contains("image") => {
            EngineError::refused(format!(
                "there is no image {image} on this machine; `docker pull {image}` fetches it"
            ))
        }
        other => other,
    }
}
