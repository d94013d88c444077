//! Making a container of ours: ask what has to be known, then create it, or adopt what an earlier
//! attempt left. An attempt that is refused takes away what it has made on its way.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveVolumeOptions};

use super::engine::{CREATE_LIMIT, EngineError, QUICK_LIMIT};
use super::labels::Claim;
use super::names::{ContainerRef, ImageName, NetworkName, VolumeName};
use super::recipe::{Recipe, Surroundings};
use super::{Address, Docker, images, labels, recipe, sighting};
use crate::driver::Status;
use crate::model::{Blueprint, MountSource, Runs, WorkspaceId};

/// The network that containers join by default: Docker's name for it, and Podman's.
const DEFAULT_NETWORKS: [&str; 2] = ["bridge", "podman"];

impl Docker {
    /// Makes the workspace's container, unless it is there already.
    pub(super) async fn make(&self, blueprint: &Blueprint) -> Result<(), EngineError> {
        if self.see(&blueprint.id).await?.status != Status::Missing {
            return Ok(());
        }
        let recipe = self.recipe(blueprint)?;
        let image = self.image(&recipe.name, recipe.image.pull).await?;
        let _no_sweep = self.shared.making.read().await;
        let new_volumes = self.missing_volumes(&recipe).await?;
        let made = self.make_from(&recipe, &image).await;
        // Where the answer is lost, the engine may still be at it: then what there is belongs to
        // the next attempt, or to the removal.
        if matches!(made, Err(EngineError::Refused { .. }))
            && let Err(error) = self.take_back(&recipe, new_volumes).await
        {
            let (workspace, reason) = (&blueprint.id, error.into_words());
            tracing::warn!(%workspace, reason, "could not clear up after a failed attempt");
        }
        made
    }

    async fn make_from(
        &self,
        recipe: &Recipe<'_>,
        image: &ImageInspect,
    ) -> Result<(), EngineError> {
        let id = &recipe.blueprint.id;
        let surroundings = Surroundings {
            published: self.published(recipe, image)?,
            gateway: self.gateway(recipe).await?,
            scope: &self.shared.scope,
        };
        let body = recipe::body(recipe, &surroundings);
        let name = ContainerRef::ours(id);
        let options = CreateContainerOptionsBuilder::new().name(name.as_str()).build();
        let created = self
            .engine()
            .call(CREATE_LIMIT, |client| async move {
                client.create_container(Some(options), body).await
            })
            .await;
        match created {
            Ok(created) => {
                for warning in created.warnings {
                    tracing::warn!(workspace = %id, warning, "the engine warns of a new container");
                }
                if let Some(container) = ContainerRef::from_engine(&created.id) {
                    self.shared.directory.learn(id, container);
                }
                Ok(())
            }
            Err(error) if error.status() == Some(409) => self.adopt(id, &name, error).await,
            Err(error) => Err(in_our_words(&recipe.name, error)),
        }
    }

    fn recipe<'a>(&self, blueprint: &'a Blueprint) -> Result<Recipe<'a>, EngineError> {
        let image = match &blueprint.spec.runs {
            Runs::Image(image) => image,
            Runs::Discovered { .. } => {
                return Err(EngineError::refused(
                    "its container is gone, and whoever made it has to make it again",
                ));
            }
            Runs::Command { .. } | Runs::Upstream(_) => {
                return Err(EngineError::refused("it is no container"));
            }
        };
        let name = ImageName::parse(&image.name).ok_or_else(|| {
            EngineError::refused(format!("{:?} is not an image's name", image.name))
        })?;
        let network = match &image.network {
            _ if image.isolate => Some(NetworkName::ours(&blueprint.id)),
            None => self.network.clone(),
            Some(name) => Some(NetworkName::parse(name).ok_or_else(|| {
                EngineError::refused(format!("{name:?} is not a network's name"))
            })?),
        };
        Ok(Recipe { blueprint, image, name, network })
    }

    /// This machine's address in the container's network, for check-ins.
    async fn gateway(&self, recipe: &Recipe<'_>) -> Result<Option<IpAddr>, EngineError> {
        if recipe.image.isolate {
            let network = self.private_network(&recipe.blueprint.id).await?;
            return Ok(recipe::gateway(&network));
        }
        let Some(name) = &recipe.network else {
            for name in DEFAULT_NETWORKS.into_iter().filter_map(NetworkName::parse) {
                if let Some(network) = self.engine().network(&name).await? {
                    return Ok(recipe::gateway(&network));
                }
            }
            return Ok(None);
        };
        if name.is_shared() {
            return Ok(None);
        }
        let network = self.engine().network(name).await?.ok_or_else(|| {
            let name = name.as_str();
            EngineError::refused(format!(
                "there is no network {name}; `docker network create {name}` makes it"
            ))
        })?;
        Ok(recipe::gateway(&network))
    }

    /// The container's ports that are published on this machine: `80/tcp`.
    fn published(
        &self,
        recipe: &Recipe<'_>,
        image: &ImageInspect,
    ) -> Result<BTreeSet<String>, EngineError> {
        let config = image.config.as_ref();
        let exposed = config.and_then(|config| config.exposed_ports.as_deref()).unwrap_or_default();
        let mut published = BTreeSet::new();
        let own = recipe.blueprint.spec.port;
        if recipe.image.publish_ports {
            published.extend(exposed.iter().cloned());
            published.extend(own.map(|port| format!("{port}/tcp")));
        }
        if self.address == Address::Published {
            let port = own.map_or_else(|| sighting::only_tcp_port(exposed), Ok);
            let port =
                port.map_err(|reason| EngineError::refused(format!("{reason} by its image")))?;
            published.insert(format!("{port}/tcp"));
        }
        Ok(published)
    }

    /// The volumes that the engine will make for the container.
    async fn missing_volumes(&self, recipe: &Recipe<'_>) -> Result<Vec<VolumeName>, EngineError> {
        let mut missing = Vec::new();
        for mount in &recipe.image.mounts {
            let MountSource::Volume(name) = mount.source(&recipe.blueprint.id) else {
                continue;
            };
            let volume = VolumeName::parse(&name)
                .ok_or_else(|| EngineError::refused(format!("{name:?} is not a volume's name")))?;
            if !self.engine().has_volume(&volume).await? {
                missing.push(volume);
            }
        }
        Ok(missing)
    }

    /// After a refusal: nothing is left of what was made for a container that is not there.
    async fn take_back(
        &self,
        recipe: &Recipe<'_>,
        new_volumes: Vec<VolumeName>,
    ) -> Result<(), EngineError> {
        let id = &recipe.blueprint.id;
        if self.see(id).await?.status != Status::Missing {
            return Ok(());
        }
        for volume in &new_volumes {
            let name = volume.as_str();
            let removed = self.engine().call(QUICK_LIMIT, |client| async move {
                client.remove_volume(name, None::<RemoveVolumeOptions>).await
            });
            match removed.await {
                Err(error) if matches!(error.status(), Some(404 | 409)) => {}
                removed => removed?,
            }
        }
        self.remove_private_network(id).await
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

/// What people can do something about is told in words that say what.
fn in_our_words(image: &ImageName, error: EngineError) -> EngineError {
    let EngineError::Refused { status, reason } = error else {
        return error;
    };
    if status == Some(404) && reason.to_lowercase().contains("image") {
        return images::missing(image);
    }
    if let Some((_, path)) = reason.split_once(MISSING_DIRECTORY) {
        return EngineError::refused(format!(
            "there is no {path} on the engine's machine to be mounted; make that directory first"
        ));
    }
    EngineError::Refused { status, reason }
}

/// How the engine says that a directory to be mounted is not there.
const MISSING_DIRECTORY: &str = "bind source path does not exist: ";
