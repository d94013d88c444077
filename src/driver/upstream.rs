//! Services that are routed to and counted but never frozen.
//!
//! Nothing is started here and nothing can be: a service is up as long as its name resolves, and
//! whether it answers is for the lifecycle's probe to find out.

use std::net::SocketAddr;
use std::time::Duration;

use dashmap::DashMap;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Call, Driver, DriverError, DriverEvent, Found, Sighting, Status};
use crate::model::{Blueprint, Runs, WorkspaceId};

/// How long a name server may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// The driver of [`Runs::Upstream`].
#[derive(Debug, Default)]
pub struct Upstream {
    /// `host:port` of each, from `create` to `remove`.
    places: DashMap<WorkspaceId, String>,
}

impl Upstream {
    /// Knows no service yet.
    pub fn new() -> Self {
        Self::default()
    }

    async fn look(&self, id: &WorkspaceId) -> Result<Sighting, DriverError> {
        let Some(place) = self.places.get(id).map(|entry| entry.value().clone()) else {
            return Ok(Sighting::down(Status::Missing, None));
        };
        let endpoint = resolve(&place).await;
        let endpoint = endpoint.map_err(|reason| DriverError::Unreachable {
            runtime: format!("upstream {place}"),
            reason,
        })?;
        Ok(Sighting {
            status: Status::Running,
            run: Some("fixed".to_owned()),
            endpoint: Some(endpoint),
            // Others may live at its address: only the token tells them apart.
            addresses: Vec::new(),
            health: None,
            exit: None,
        })
    }
}

async fn resolve(place: &str) -> Result<SocketAddr, String> {
    match timeout(LOOKUP_LIMIT, lookup_host(place)).await {
        Ok(Ok(mut found)) => found.next().ok_or_else(|| "its name has no address".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("its name was not resolved within {LOOKUP_LIMIT:?}")),
    }
}

impl Driver for Upstream {
    fn name(&self) -> &'static str {
        "upstream"
    }

    fn can_freeze(&self) -> bool {
        false
    }

    fn create<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        Box::pin(async move {
            let Runs::Upstream(place) = &blueprint.spec.runs else {
                return Err(DriverError::Refused {
                    action: "create",
                    id: blueprint.id.clone(),
                    reason: "it is not an upstream".to_owned(),
                });
            };
            self.places.insert(blueprint.id.clone(), place.clone());
            Ok(())
        })
    }

    /// It runs already.
    fn start<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        self.create(blueprint)
    }

    fn stop<'a>(&'a self, id: &'a WorkspaceId, _grace: Duration) -> Call<'a, ()> {
        Box::pin(async move { Err(unsupported(id, "stopped")) })
    }

    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(async move { Err(unsupported(id, "frozen")) })
    }

    /// It was never paused.
    fn unpause<'a>(&'a self, _id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Forgets it; the service itself goes on.
    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        Box::pin(async move {
            self.places.remove(id);
            Ok(())
        })
    }

    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Sighting> {
        Box::pin(self.look(id))
    }

    /// Upstreams come from the configuration only.
    fn list(&self) -> Call<'_, Vec<Found>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Nothing about an upstream ever changes.
    fn watch(&self, events: mpsc::Sender<DriverEvent>) -> Call<'_, ()> {
        Box::pin(async move {
            // Nobody listens any more: that ends the watch, and is no error.
            let _ = events.send(DriverEvent::Resync).await;
            Ok(())
        })
    }
}

fn unsupported(id: &WorkspaceId, what: &'static str) -> DriverError {
    DriverError::Unsupported { id: id.clone(), what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CheckInAccess, Spec};

    fn blueprint(place: &str) -> Blueprint {
        Blueprint {
            id: WorkspaceId::parse("wiki").unwrap(),
            spec: Spec::new(Runs::Upstream(place.to_owned())).into(),
            check_in: CheckInAccess { port: 80, token: "t".to_owned() },
        }
    }

    #[tokio::test]
    async fn an_upstream_runs_from_its_creation_to_its_removal() {
        let (driver, plan) = (Upstream::new(), blueprint("127.0.0.1:8080"));
        let missing = driver.inspect(&plan.id).await.unwrap();
        assert_eq!(missing.status, Status::Missing);
        driver.create(&plan).await.unwrap();
        driver.start(&plan).await.unwrap();
        let seen = driver.inspect(&plan.id).await.unwrap();
        assert_eq!(seen.status, Status::Running);
        assert_eq!(seen.run.as_deref(), Some("fixed"));
        assert_eq!(seen.endpoint, Some(SocketAddr::from(([127, 0, 0, 1], 8080))));
        driver.remove(&plan.id).await.unwrap();
        driver.remove(&plan.id).await.unwrap();
        let missing = driver.inspect(&plan.id).await.unwrap();
        assert_eq!(missing.status, Status::Missing);
    }

    #[tokio::test]
    async fn an_upstream_is_never_frozen() {
        let (driver, plan) = (Upstream::new(), blueprint("127.0.0.1:8080"));
        assert!(!driver.can_freeze());
        driver.create(&plan).await.unwrap();
        let stopped = driver.stop(&plan.id, Duration::ZERO).await.unwrap_err();
        assert_eq!(stopped.to_string(), "workspace wiki can't be stopped");
        let paused = driver.pause(&plan.id).await.unwrap_err();
        assert_eq!(paused.to_string(), "workspace wiki can't be frozen");
    }

    #[tokio::test]
    async fn a_place_that_can_not_be_resolved_is_named() {
        let (driver, plan) = (Upstream::new(), blueprint("no-port-here"));
        driver.create(&plan).await.unwrap();
        let error = driver.inspect(&plan.id).await.unwrap_err();
        assert!(error.to_string().contains("no-port-here"), "{error}");
    }
}
