//! A driver whose calls are counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{
    Call, Consumption, Description, Driver, DriverError, DriverEvent, Found, Logs, Sighting,
};
use crate::metrics::Metrics;
use crate::model::{Blueprint, WorkspaceId};

/// See the module's head. Does what the driver inside does.
pub struct Counted {
    driver: Arc<dyn Driver>,
    metrics: Arc<Metrics>,
}

impl Counted {
    /// Counts the calls of `driver`.
    pub fn new(driver: Arc<dyn Driver>, metrics: Arc<Metrics>) -> Self {
        Self { driver, metrics }
    }

    fn count<'a, T>(&'a self, call: &'static str, under_way: Call<'a, T>) -> Call<'a, T>
    where
        T: Send + 'a,
    {
        let count = Count { of: self, call, began: Instant::now(), outcome: "given_up" };
        Box::pin(async move {
            // All of it is in here, so that it is dropped with this.
            let mut count = count;
            let result = under_way.await;
            count.outcome = match &result {
                Ok(_) => "ok",
                Err(DriverError::Unreachable { .. }) => "unreachable",
                Err(DriverError::Interrupted { .. }) => "interrupted",
                Err(DriverError::Refused { .. }) => "refused",
                Err(DriverError::TimedOut { .. }) => "timed_out",
                Err(DriverError::Unsupported { .. }) => "unsupported",
            };
            result
        })
    }
}

/// Counted when it is dropped: somebody may give up waiting.
struct Count<'a> {
    of: &'a Counted,
    call: &'static str,
    began: Instant,
    outcome: &'static str,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        let Self { of, call, began, outcome } = self;
        of.metrics.driver_call(of.driver.name(), call, outcome, began.elapsed());
    }
}

impl Driver for Counted {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn can_freeze(&self) -> bool {
        self.driver.can_freeze()
    }

    fn accepts_early(&self) -> bool {
        self.driver.accepts_early()
    }

    fn create<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        self.count("create", self.driver.create(blueprint))
    }

    fn start<'a>(&'a self, blueprint: &'a Blueprint) -> Call<'a, ()> {
        self.count("start", self.driver.start(blueprint))
    }

    fn stop<'a>(&'a self, id: &'a WorkspaceId, grace: Duration) -> Call<'a, ()> {
        self.count("stop", self.driver.stop(id, grace))
    }

    fn pause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        self.count("pause", self.driver.pause(id))
    }

    fn unpause<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        self.count("unpause", self.driver.unpause(id))
    }

    fn remove<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, ()> {
        self.count("remove", self.driver.remove(id))
    }

    fn inspect<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Sighting> {
        self.count("inspect", self.driver.inspect(id))
    }

    fn list(&self) -> Call<'_, Vec<Found>> {
        self.count("list", self.driver.list())
    }

    fn consumption<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Option<Consumption>> {
        self.driver.consumption(id)
    }

    fn logs<'a>(
        &'a self,
        id: &'a WorkspaceId,
        lines: usize,
        follow: bool,
    ) -> Call<'a, Option<Logs>> {
        self.driver.logs(id, lines, follow)
    }

    fn describe<'a>(&'a self, id: &'a WorkspaceId) -> Call<'a, Option<Description>> {
        self.driver.describe(id)
    }

    fn workspace_of(&self, container_id: &str) -> Option<WorkspaceId> {
        self.driver.workspace_of(container_id)
    }

    fn images(&self) -> Call<'_, Vec<String>> {
        self.driver.images()
    }

    fn watch(&self, events: mpsc::Sender<DriverEvent>) -> Call<'_, ()> {
        self.driver.watch(events)
    }
}
