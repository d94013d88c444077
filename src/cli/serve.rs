//! `frostgate serve`: from the configuration to the last drained request.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tracing::info;

use crate::app::{App, Offer, Start};
use crate::config::Config;

use super::service_manager::ServiceManager;
use super::signals::{Signal, Signals};
use super::{Environment, Overrides, activation, control_plane, log};

/// What is served, and from where.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    overrides: Overrides,
    /// Take over from the Frostgate that serves from the same state directory, without losing a
    /// connection: it passes its sockets on, finishes what is under way, and ends
    #[arg(long)]
    takeover: bool,
}

/// Serves until a signal asks it to end, or another one takes over. Workspaces stay as they are.
pub(super) fn run(serve: Serve, environment: &Environment) -> anyhow::Result<()> {
    let config = serve.overrides.load(environment)?;
    log::start(environment, "info")?;
    let runtime = control_plane().context("could not start the control plane")?;
    let ended = runtime.block_on(begin(config, serve, environment.clone()));
    // Whoever waits for the end of a thread is not waited for: that would be until the grace is over.
    runtime.shutdown_background();
    ended
}

async fn begin(mut config: Config, serve: Serve, environment: Environment) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("could not listen for signals")?;
    let manager = ServiceManager::of(&environment);
    let inherited = activation::sockets(&environment)?;
    activation::adopt(&inherited, &mut config.listen)?;
    let offer = match serve.takeover {
        true => Offer::of(&config.state_dir).await.context("could not take over")?,
        false => None,
    };
    if serve.takeover && offer.is_none() {
        info!("there is nobody to take over from: starting as usual");
    }
    let (overrides, listen) = (serve.overrides, config.listen.clone());
    let is_activated = !inherited.is_empty();
    let source = Arc::new(move || {
        let mut config = overrides.load(&environment)?;
        if is_activated {
            // Where we listen is not for the file to say.
            config.listen.public.clone_from(&listen.public);
            config.listen.tls.clone_from(&listen.tls);
            config.listen.admin = listen.admin;
        }
        Ok(config)
    });
    let app = App::start_as(config, Start { source: Some(source), inherited, offer }).await?;
    tell(&app);
    manager.ready(&status(&app));
    go_on(app, &mut signals, &manager).await
}

async fn go_on(
    mut app: App,
    signals: &mut Signals,
    manager: &ServiceManager,
) -> anyhow::Result<()> {
    let mut alive = manager.keep_told(app.pulse());
    let signal = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => {
                    manager.reloading();
                    match app.reload().await {
                        Ok(_) => manager.ready(&status(&app)),
                        // Why is in the log.
                        Err(_) => manager.ready("serving; a new configuration was refused"),
                    }
                }
                Signal::End(name) => break name,
            },
            successor = app.successor() => {
                info!("another Frostgate takes over");
                manager.status("another Frostgate takes over");
                let handed_over = tokio::select! {
                    handed_over = app.hand_over(successor) => handed_over?,
                    signal = signals.end() => {
                        info!(signal, "ended before all requests had finished");
                        return Ok(());
                    }
                };
                match handed_over {
                    Some(still_ours) => {
                        app = still_ours;
                        alive = manager.keep_told(app.pulse());
                        manager.status(&status(&app));
                    }
                    None => {
                        manager.stopping("another Frostgate has taken over", Duration::ZERO);
                        info!("ended; another Frostgate has taken over");
                        return Ok(());
                    }
                }
            }
        }
    };
    info!(signal, "stopping: requests may finish, a second signal ends at once");
    manager.stopping("stopping: requests may finish", app.stop_max());
    tokio::select! {
        () = app.stop() => info!("stopped; workspaces were left as they are"),
        signal = signals.end() => info!(signal, "ended before all requests had finished"),
    }
    drop(alive);
    Ok(())
}

/// What `systemctl status` shows.
fn status(app: &App) -> String {
    let workspaces = app.registry().all().len();
    let addresses = app.public_addresses().iter().chain(app.tls_addresses());
    let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
    format!("serving at {}; workspaces: {workspaces}", addresses.join(", "))
}

fn tell(app: &App) {
    let token_file = app.token_file();
    info!(
        public = ?app.public_addresses(),
        tls = ?app.tls_addresses(),
        admin = %app.admin_address(),
        token_file = %token_file.display(),
        workspaces = app.registry().all().len(),
        "serving; the API's token is in {}",
        token_file.display()
    );
}
