//! What runs workspaces here, as the configuration says.

use std::sync::Arc;

use anyhow::Context;

use crate::config::{self, Config, DockerAddress, DockerUse};
use crate::driver::Driver;
use crate::driver::counted::Counted;
use crate::driver::docker::{self, Docker};
use crate::driver::process::{self, Process};
use crate::driver::upstream::Upstream;
use crate::lifecycle::CreateError;
use crate::lifecycle::create;
use crate::metrics::Metrics;
use crate::model::Spec;

/// What runs workspaces here.
pub(super) struct Drivers {
    process: Arc<dyn Driver>,
    upstream: Arc<dyn Driver>,
    docker: Option<Arc<dyn Driver>>,
}

impl Drivers {
    /// Their calls are counted.
    pub(super) fn make(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let process = Process::open(process::Options {
            state_dir: config.state_dir.join("process"),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            freezer: match config.process.freezer {
                config::Freezer::Auto => process::Freezer::Auto,
                config::Freezer::Cgroup => process::Freezer::Cgroup,
                config::Freezer::Signal => process::Freezer::Signal,
            },
        })?;
        let counted = |driver: Arc<dyn Driver>| -> Arc<dyn Driver> {
            Arc::new(Counted::new(driver, metrics.clone()))
        };
        Ok(Self {
            process: counted(Arc::new(process)),
            upstream: counted(Arc::new(Upstream::new())),
            docker: engine(config)?.map(|docker| counted(Arc::new(docker))),
        })
    }

    /// An engine that must be there, is.
    pub(super) async fn check(&self, config: &Config) -> anyhow::Result<()> {
        if let (DockerUse::Always, Some(docker)) = (config.docker.enable, &self.docker) {
            docker.list().await.context(
                "docker.enable is true, but its engine does not answer; start it, or set \
                 docker.socket, or docker.enable to \"auto\"",
            )?;
        }
        Ok(())
    }

    /// What runs workspaces of that spec.
    pub(super) fn for_spec(&self, spec: &Spec) -> Result<Arc<dyn Driver>, CreateError> {
        create::driver_for(self.all(), &spec.runs)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Arc<dyn Driver>> {
        let always = [self.process.clone(), self.upstream.clone()];
        always.into_iter().chain(self.docker.clone())
    }
}

/// Whether somebody named an engine, or there is a socket where it usually is.
fn an_engine_is_likely(config: &Config) -> bool {
    let named = config.docker.socket.is_some() || std::env::var_os("DOCKER_HOST").is_some();
    named || std::path::Path::new(docker::DEFAULT_SOCKET).exists()
}

/// The engine that the configuration wants, as far as one is likely to be there; it is not asked yet.
pub(super) fn engine(config: &Config) -> anyhow::Result<Option<Docker>> {
    match config.docker.enable {
        DockerUse::Never => Ok(None),
        DockerUse::Auto if !an_engine_is_likely(config) => Ok(None),
        DockerUse::Auto | DockerUse::Always => connect_docker(config).map(Some),
    }
}

fn connect_docker(config: &Config) -> anyhow::Result<Docker> {
    let docker = Docker::connect(docker::Options {
        socket: config.docker.socket.clone(),
        address: match config.docker.address {
            DockerAddress::Container => docker::Address::Container,
            DockerAddress::Published => docker::Address::Published,
        },
        network: config.docker.network.clone(),
        scope: config.docker.scope.clone(),
    })?;
    Ok(docker)
}
