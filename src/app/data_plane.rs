//! The threads that move bytes: each a server of its own, with its own listeners, connections and
//! upstream pools, on a runtime of one thread. Nothing of a warm request crosses from one to
//! another.

use std::cell::RefCell;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{self, LocalOptions};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::pulse::Beat;
use super::serving::{Renew, Serving};
use crate::listen::{self, Listener};

/// How long goodbyes may take when the grace is over.
const CLOSE_MAX: Duration = Duration::from_millis(1_500);

/// What one thread serves, and how it ends.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) listeners: Vec<Listener>,
    /// For callers on this machine alone.
    pub(super) local: Option<UnixListener>,
    /// What is served, and by which options, as it changes.
    pub(super) serving: watch::Receiver<Arc<Serving>>,
    /// Connections at a time, to all of the thread's listeners together.
    pub(super) connections_max: usize,
    /// Turns true when no more is to be accepted.
    pub(super) draining: watch::Receiver<bool>,
    /// Says that the thread is alive.
    pub(super) beat: Beat,
}

/// Starts a thread that serves what `make` makes there.
pub(super) fn start<S: Renew>(
    plan: Plan,
    make: impl FnOnce(&Serving, TaskTracker) -> Rc<S> + Send + 'static,
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

async fn serve<S: Renew>(plan: Plan, make: impl FnOnce(&Serving, TaskTracker) -> Rc<S>) {
    let Plan { listeners, local, mut serving, connections_max, mut draining, beat, .. } = plan;
    let served_now = TaskTracker::new();
    let first = serving.borrow_and_update().clone();
    let served = make(&first, served_now.clone());
    let options = Rc::new(RefCell::new(Rc::new(served.listen_options(&first))));
    let room = Arc::new(Semaphore::new(connections_max));
    tokio::task::spawn_local(beat.go());
    tokio::task::spawn_local(follow(serving.clone(), served.clone(), options.clone()));
    for listener in listeners {
        let (served, options, room) = (served.clone(), options.clone(), room.clone());
        let (draining, connections) = (draining.clone(), served_now.clone());
        // Waited for as its connections are: it accepts what has arrived before it ends.
        served_now.spawn_local(async move {
            let ended = listen::serve(listener, served, options, room, draining, connections);
            if let Err(error) = ended.await {
                tracing::error!(%error, "a listener failed");
            }
        });
    }
    if let Some(socket) = local {
        let (served, draining) = (served.clone(), draining.clone());
        let connections = served_now.clone();
        served_now.spawn_local(async move {
            let ended =
                listen::serve_local(socket, served, options, room, draining, connections).await;
            if let Err(error) = ended {
                tracing::error!(%error, "the admin socket failed");
            }
        });
    }
    // An error means that the program is gone, which means the same.
    drop(draining.wait_for(|draining| *draining).await);
    served_now.close();
    let grace = serving.borrow().grace;
    if tokio::time::timeout(grace, served_now.wait()).await.is_err() {
        let left = served_now.len();
        tracing::info!(left, "closing connections that did not end within the grace");
        served.close();
        // What is left then ends with the runtime.
        drop(tokio::time::timeout(CLOSE_MAX, served_now.wait()).await);
    }
}

/// Serves what is to be served, as that changes. Ends with the runtime at the latest.
async fn follow<S: Renew>(
    mut serving: watch::Receiver<Arc<Serving>>,
    served: Rc<S>,
    options: Rc<RefCell<Rc<listen::Options>>>,
) {
    while serving.changed().await.is_ok() {
        let new = serving.borrow_and_update().clone();
        options.replace(Rc::new(served.listen_options(&new)));
        served.renew(&new);
    }
}
