//! `frostgate serve`: from the configuration to the last drained request.

use anyhow::Context;
use tracing::info;

use crate::app::App;
use crate::config::Config;

use super::signals::Signals;
use super::{Environment, control_plane, log};

/// Serves until a signal asks it to end. Workspaces stay as they are.
pub(super) fn run(config: Config, environment: &Environment) -> anyhow::Result<()> {
    log::start(environment, "info")?;
    let runtime = control_plane().context("could not start the control plane")?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("could not listen for signals")?;
    let token_file = config.token_file();
    let workspaces = config.workspaces.len();
    let app = App::start(config).await?;
    info!(
        public = ?app.public_addresses(),
        tls = ?app.tls_addresses(),
        admin = %app.admin_address(),
        token_file = %token_file.display(),
        workspaces,
        "serving; the API's token is in {}",
        token_file.display()
    );
    let signal = signals.next().await;
    info!(signal, "stopping: requests may finish, a second signal ends at once");
    tokio::select! {
        () = app.stop() => info!("stopped; workspaces were left as they are"),
        signal = signals.next() => info!(signal, "ended before all requests had finished"),
    }
    Ok(())
}
