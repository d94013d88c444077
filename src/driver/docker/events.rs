//! The engine's events, for as long as somebody listens.
//!
//! An event is a hint to look, so losing some is no harm as long as everything is looked at after a
//! gap. A stream that ends is noticed at once; one whose other end has silently gone is noticed by
//! a ping. Coming back sends [`DriverEvent::Resync`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bollard::models::{EventActor, EventMessage};
use bollard::query_parameters::{EventsOptions, EventsOptionsBuilder};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::Shared;
use super::engine::{EngineError, root_cause};
use super::labels::{self, Claim};
use super::names::ContainerRef;
use crate::clock::Clock;
use crate::driver::DriverEvent;
use crate::model::WorkspaceId;

const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// How soon a stream that is dead without having ended is noticed.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(5);
/// The engine replays this much at the start, so that nothing falls between asking how things are
/// and listening; bollard does not say when the engine has begun to listen.
const REPLAY: Duration = Duration::from_secs(2);

/// What may change a sighting. `exec_*` and `top` don't, and there are many of them.
const ACTIONS: [&str; 10] = [
    "create",
    "start",
    "die",
    "stop",
    "pause",
    "unpause",
    "destroy",
    "rename",
    "health_status",
    "oom",
];
/// A container's networks may change while it runs.
const NETWORK_ACTIONS: [&str; 2] = ["connect", "disconnect"];

/// Watches until the receiver is gone.
pub(super) async fn watch(shared: Arc<Shared>, events: mpsc::Sender<DriverEvent>) {
    let mut back_off = BACK_OFF_MIN;
    let mut lost_at: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let connected = tokio::select! {
            () = events.closed() => return,
            pinged = ping(&shared) => pinged,
        };
        let end = match connected {
            Ok(()) => {
                if let Some(lost_at) = lost_at.take() {
                    let duration_ms = millis(lost_at.elapsed());
                    tracing::info!(duration_ms, "the container engine answers again");
                }
                listen(&shared, &events).await
            }
            Err(reason) => End::Lost(reason),
        };
        let End::Lost(reason) = end else { return };
        if lost_at.is_none() {
            let engine = shared.engine.describe();
            tracing::warn!(%engine, %reason, "the container engine doesn't answer; trying again");
            lost_at = Some(Instant::now());
        }
        if began.elapsed() > BACK_OFF_MAX {
            back_off = BACK_OFF_MIN;
        }
        tokio::select! {
            () = events.closed() => return,
            () = sleep(back_off) => {}
        }
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

/// Why a stream is over.
enum End {
    /// Nobody listens any more.
    Closed,
    /// The engine is away.
    Lost(String),
}

/// One stream, from its first event to its end.
async fn listen(shared: &Shared, events: &mpsc::Sender<DriverEvent>) -> End {
    let client = match shared.engine.client(PING_LIMIT) {
        Ok(client) => client,
        Err(error) => return End::Lost(error.into_words()),
    };
    let mut stream = std::pin::pin!(client.events(Some(options())));
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if events.send(DriverEvent::Resync).await.is_err() {
        return End::Closed;
    }
    loop {
        tokio::select! {
            () = events.closed() => return End::Closed,
            _ = pings.tick() => if let Err(reason) = ping(shared).await {
                return End::Lost(reason);
            },
            event = stream.next() => match event {
                None => return End::Lost("the stream of events ended".to_owned()),
                Some(Err(error)) => return End::Lost(root_cause(&error)),
                Some(Ok(event)) => for id in changed(shared, event) {
                    if events.send(DriverEvent::Changed(id)).await.is_err() {
                        return End::Closed;
                    }
                },
            },
        }
    }
}

async fn ping(shared: &Shared) -> Result<(), String> {
    let answer = shared.engine.call(PING_LIMIT, |client| async move { client.ping().await }).await;
    answer.map(drop).map_err(EngineError::into_words)
}

fn options() -> EventsOptions {
    let actions = ACTIONS.into_iter().chain(NETWORK_ACTIONS).collect();
    let filters = HashMap::from([("type", vec!["container", "network"]), ("event", actions)]);
    let now = Clock::MACHINE.date_of(Instant::now()).duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = now.saturating_sub(REPLAY).as_secs().to_string();
    EventsOptionsBuilder::new().since(&since).filters(&filters).build()
}

/// Which workspaces an event is about: none, one, or two where a container changed its name.
fn changed(shared: &Shared, event: EventMessage) -> Vec<WorkspaceId> {
    let Some(EventActor { id, attributes: Some(attributes) }) = event.actor else {
        return Vec::new();
    };
    let action = event.action.unwrap_or_default();
    if NETWORK_ACTIONS.contains(&action.as_str()) {
        let container = attributes.get("container").and_then(|id| ContainerRef::from_engine(id));
        let known = container.and_then(|container| shared.directory.workspace_of(&container));
        return known.into_iter().collect();
    }
    let names = ["name", "oldName"].map(|key| attributes.get(key));
    let claims =
        names.into_iter().flatten().map(|name| labels::claim(&attributes, name, &shared.scope));
    let mut ids: Vec<WorkspaceId> = claims
        .filter_map(|claim| match claim {
            Claim::Workspace(id) => Some(id),
            Claim::None | Claim::Unusable(_) => None,
        })
        .collect();
    ids.dedup();
    if let Some(container) = id.as_deref().and_then(ContainerRef::from_engine) {
        note(shared, &action, &ids, &container);
    }
    ids
}

/// Keeps the directory in step, so that the look that follows needs no list.
fn note(shared: &Shared, action: &str, ids: &[WorkspaceId], container: &ContainerRef) {
    match (action, ids) {
        ("create", [id]) => shared.directory.learn(id, container.clone()),
        ("destroy" | "rename", ids) => {
            for id in ids {
                shared.directory.forget(id, container);
            }
        }
        _ => {}
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
