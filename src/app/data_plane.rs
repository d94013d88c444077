//! The threads that move bytes: each a server of its own, with its own listeners, connections and
//! upstream pools, on a runtime of one thread. Nothing of a warm request crosses from one to
//! another.

use std::net::TcpListener;
use std::rc::Rc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{self, LocalOptions};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::listen::{self, Serve};

/// How long goodbyes may take when the grace is over.
const CLOSE_MAX: Duration = Duration::from_millis(1_500);

/// What one thread serves, and how it ends.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) listeners: Vec<TcpListener>,
    pub(super) options: listen::Options,
    /// Turns true when no more is to be accepted.
    pub(super) draining: watch::Receiver<bool>,
    /// How long what is under way may take after that.
    pub(super) grace: Duration,
}

/// Starts a thread that serves what `make` makes there.
pub(super) fn start<S: Serve>(
    plan: Plan,
    make: impl FnOnce(TaskTracker) -> Rc<S> + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    let runtime_of_thread =
        || runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let name = plan.name.clone();
    Builder::new()
        .name(name.clone())
        .spawn(move || match runtime_of_thread() {
            Ok(runtime) => runtime.block_on(serve(plan, make)),
            Err(error) => tracing::error!(%error, "a thread has no runtime"),
        })
        .with_context(|| format!("could not start the thread {name}"))
}

async fn serve<S: Serve>(plan: Plan, make: impl FnOnce(TaskTracker) -> Rc<S>) {
    let Plan { listeners, options, mut draining, grace, .. } = plan;
    let served_now = TaskTracker::new();
    let served = make(served_now.clone());
    for listener in listeners {
        let (served, options) = (served.clone(), options.clone());
        let (draining, served_now) = (draining.clone(), served_now.clone());
        // It ends with the runtime at the latest.
        tokio::task::spawn_local(async move {
            if let Err(error) = listen::serve(listener, served, options, draining, served_now).await
            {
                tracing::error!(%error, "a listener failed");
            }
        });
    }
    // An error means that the program is gone, which means the same.
    drop(draining.wait_for(|draining| *draining).await);
    served_now.close();
    if tokio::time::timeout(grace, served_now.wait()).await.is_err() {
        let left = served_now.len();
        tracing::info!(left, "closing connections that did not end within the grace");
        served.close();
        // What is left then ends with the runtime.
        drop(tokio::time::timeout(CLOSE_MAX, served_now.wait()).await);
    }
}
