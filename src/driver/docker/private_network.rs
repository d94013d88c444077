//! The networks that isolated workspaces have to themselves.
//!
//! The engine keeps its bridge networks apart, so who is alone in one reaches no other container
//! and is reached by none; this machine is in all of them. It is as tight as the engine makes it:
//! Docker 20.10 takes the rule out of the firewall for some milliseconds whenever it makes a network.
//!
//! Such a network is made before its container, is known by its labels and goes with it. What a
//! crash leaves in between is adopted by the next attempt, and otherwise swept up at the next look
//! at everything.

use std::collections::HashSet;

use bollard::models::{
    NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest, NetworkInspect,
};

use super::engine::{CREATE_LIMIT, EngineError, QUICK_LIMIT};
use super::labels::{self, Claim};
use super::names::NetworkName;
use super::{Docker, directory};
use crate::model::WorkspaceId;

impl Docker {
    /// The workspace's network. It is made if there is none.
    pub(super) async fn private_network(
        &self,
        id: &WorkspaceId,
    ) -> Result<NetworkInspect, EngineError> {
        let name = NetworkName::ours(id);
        let found = match self.engine().network(&name).await? {
            Some(found) => Some(found),
            None => {
                self.make_network(id, &name).await?;
                self.engine().network(&name).await?
            }
        };
        let name = name.as_str();
        match found {
            Some(found) if self.is_of(id, &found) => Ok(found),
            Some(_) => Err(EngineError::refused(format!(
                "a network that is not ours has the name {name}; remove it"
            ))),
            None => Err(EngineError::refused(format!("its network {name} was removed at once"))),
        }
    }

    async fn make_network(&self, id: &WorkspaceId, name: &NetworkName) -> Result<(), EngineError> {
        let request = NetworkCreateRequest {
            name: name.as_str().to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels::ours(id, &self.shared.scope)),
            ..NetworkCreateRequest::default()
        };
        let created = self
            .engine()
            .call(CREATE_LIMIT, |client| async move { client.create_network(request).await })
            .await;
        match created {
            Ok(_) => Ok(()),
            // Made by an earlier attempt whose answer was lost.
            Err(error) if error.status() == Some(409) => Ok(()),
            Err(EngineError::Refused { reason, .. }) if reason.contains("address pool") => {
                Err(EngineError::refused(format!(
                    "the engine has no subnet left for a network of its own ({reason}); remove \
                     networks that nobody needs, or give it more and smaller subnets by \
                     \"default-address-pools\" in its daemon.json"
                )))
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the workspace's network, if it has one.
    pub(super) async fn remove_private_network(&self, id: &WorkspaceId) -> Result<(), EngineError> {
        let name = NetworkName::ours(id);
        match self.engine().network(&name).await? {
            Some(found) if self.is_of(id, &found) => self.remove_network(&name).await.map(drop),
            Some(_) | None => Ok(()),
        }
    }

    /// Connects the workspace's container to its network anew: somebody may have pruned networks
    /// while it was stopped, and the engine looks for the old one by its number for ever.
    pub(super) async fn rejoin_private_network(&self, id: &WorkspaceId) -> Result<(), EngineError> {
        let Some(container) = self.locate(id).await? else {
            return Ok(());
        };
        self.private_network(id).await?;
        let (name, network) = (container.as_str(), NetworkName::ours(id));
        let network = network.as_str();
        let leave = NetworkDisconnectRequest { container: name.to_owned(), force: Some(true) };
        let join = NetworkConnectRequest { container: name.to_owned(), endpoint_config: None };
        let rejoined = self.engine().call(QUICK_LIMIT, |client| async move {
            client.disconnect_network(network, leave).await?;
            client.connect_network(network, join).await
        });
        rejoined.await?;
        tracing::warn!(
            workspace = %id,
            "its network had been removed and was made anew; if that has another address, \
             FROSTGATE_CHECK_IN_URL in the container is wrong until the workspace is removed, and \
             only check-ins to the default gateway arrive"
        );
        Ok(())
    }

    /// Removes networks of ours whose workspace has no container.
    pub(super) async fn sweep_private_networks(&self) -> Result<(), EngineError> {
        // While a container is being made, its network is still without one.
        let Ok(_nothing_is_made) = self.shared.making.try_write() else {
            return Ok(());
        };
        let networks = self.engine().labelled_networks().await?;
        let mut unused: Vec<WorkspaceId> = networks
            .into_iter()
            .filter_map(|network| {
                let name = network.name.unwrap_or_default();
                match labels::claim(&network.labels?, &name, &self.shared.scope) {
                    Claim::Workspace(id) if name == NetworkName::ours(&id).as_str() => Some(id),
                    Claim::Workspace(_) | Claim::None | Claim::Unusable(_) => None,
                }
            })
            .collect();
        if unused.is_empty() {
            return Ok(());
        }
        let (claimed, _) = directory::settle(self.engine().labelled().await?, &self.shared.scope);
        let used: HashSet<WorkspaceId> = claimed.into_iter().map(|claimed| claimed.id).collect();
        unused.retain(|id| !used.contains(id));
        for id in unused {
            if self.remove_network(&NetworkName::ours(&id)).await? {
                tracing::info!(workspace = %id, "removed a network that had lost its container");
            }
        }
        Ok(())
    }

    /// `false`: it is still in use.
    async fn remove_network(&self, name: &NetworkName) -> Result<bool, EngineError> {
        let network = name.as_str();
        let removed = self
            .engine()
            .call(QUICK_LIMIT, |client| async move { client.remove_network(network).await })
            .await;
        match removed {
            Err(error) if error.status() == Some(404) => Ok(true),
            // Somebody has connected a container of theirs. It is swept up once that has gone.
            Err(error) if matches!(error.status(), Some(403 | 409)) => {
                tracing::debug!(network, reason = error.into_words(), "a network is still in use");
                Ok(false)
            }
            removed => removed.map(|()| true),
        }
    }

    fn is_of(&self, id: &WorkspaceId, network: &NetworkInspect) -> bool {
        let (name, labels) = (network.name.as_deref().unwrap_or_default(), network.labels.as_ref());
        let claim = labels.map(|labels| labels::claim(labels, name, &self.shared.scope));
        claim == Some(Claim::Workspace(id.clone()))
    }
}
