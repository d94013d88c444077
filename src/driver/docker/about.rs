//! What an engine says of itself, for whoever looks for what is wrong.

use std::time::SystemTime;

use bollard::Docker as Client;

use super::Docker;
use super::engine::{EngineError, QUICK_LIMIT};
use crate::driver::DriverError;

/// What an engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Where it was asked, in words.
    pub place: String,
    /// Its version, such as `29.3.1`.
    pub version: String,
    /// The newest version of its API, such as `1.53`.
    pub api_version: String,
    /// The version of the cgroups that it freezes containers with: `1` or `2`; empty if it doesn't
    /// say.
    pub cgroup_version: String,
    /// What its clock showed when it answered; `None`: it doesn't say.
    pub clock: Option<SystemTime>,
}

impl Docker {
    /// Asks the engine what it is.
    pub async fn about(&self) -> Result<About, DriverError> {
        self.ask_about().await.map_err(|error| self.engine().unreachable(error))
    }

    async fn ask_about(&self) -> Result<About, EngineError> {
        let version = async |client: Client| client.version().await;
        let version = self.engine().call(QUICK_LIMIT, version).await?;
        let info = async |client: Client| client.info().await;
        let info = self.engine().call(QUICK_LIMIT, info).await?;
        let clock = info.system_time.and_then(|date| date.parse::<jiff::Timestamp>().ok());
        Ok(About {
            place: self.engine().describe(),
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
            cgroup_version: info.cgroup_version.map(|one| one.to_string()).unwrap_or_default(),
            clock: clock.map(SystemTime::from),
        })
    }
}
