//! What a workspace's task has the driver do, one at a time: create, wake, adopt, freeze, remove,
//! look.
//!
//! Each job begins by looking at how things are, so that it may be repeated after anything, and
//! returns what came of it. None of them touches the gate or the phase.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::machine::{Job, Outcome, Seen};
use super::ready::{self, Probe};
use super::slots::Room;
use super::workspace::Workspace;
use crate::driver::{DriverError, Health, Sighting, Status};
use crate::model::{FreezeMode, Tier};

/// How long the driver may take to freeze or remove, beyond the workspace's own grace, and to look.
/// A healthy engine answers in milliseconds.
pub(super) const CALL_MAX: Duration = Duration::from_secs(30);
/// How long a workspace whose engine is away, or that was not ready in time, may take to show that
/// it serves.
const STILL_THERE_MAX: Duration = Duration::from_secs(1);
/// A health check or an address that is waited for is asked for again this often, should an event
/// have been lost. Events are what usually ends the wait.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a runtime takes to end a workspace beyond the workspace's own grace.
const END_MARGIN: Duration = Duration::from_secs(1);

/// A job under way.
pub(super) type Running = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A job that has ended.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    /// Where it listens now, if the job woke it.
    pub(super) endpoint: Option<SocketAddr>,
    /// A driver call whose effect was seen before it returned. It must end before the next begins.
    pub(super) rest: Option<Rest>,
    /// What the wait for room has brought.
    pub(super) room: Option<Room>,
}

/// See [`Done::rest`].
pub(super) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

impl From<Outcome> for Done {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, endpoint: None, rest: None, room: None }
    }
}

/// Tells the registry which addresses a workspace may check in from.
pub(super) type Announce = Arc<dyn Fn(&Workspace, &[IpAddr]) + Send + Sync>;

/// Begins a job. `kept`: the memory that the workspace has kept since it ran.
pub(super) fn begin(job: Job, workspace: Arc<Workspace>, announce: Announce, kept: u64) -> Running {
    Box::pin(async move {
        match job {
            Job::Create => create(&workspace).await.into(),
            Job::Queue => queue(&workspace, workspace.memory().saturating_sub(kept)).await,
            Job::Wake => wake(&workspace, &announce).await,
            Job::Adopt => adopt(&workspace, &announce).await,
            Job::Freeze(mode) => freeze(&workspace, mode).await.into(),
            Job::Remove => remove(&workspace).await.into(),
            Job::Look => look(&workspace, &announce).await.into(),
        }
    })
}

/// The driver keeps its own time: an image may have to be fetched first.
async fn create(workspace: &Workspace) -> Outcome {
    match workspace.driver.create(&workspace.blueprint()).await {
        Ok(()) => Outcome::Created,
        Err(error) => {
            Outcome::CreateFailed { reason: error.to_string(), refused: !is_away(&error) }
        }
    }
}

/// Waits for room, with so much memory on top of what it has. The rules know when to give up.
async fn queue(workspace: &Workspace, memory: u64) -> Done {
    let room = workspace.shared.slots.take(workspace.serial(), memory).await;
    Done { room: Some(room), ..Outcome::Admitted.into() }
}

/// Why a wake failed, and what is up nevertheless.
struct WakeError {
    reason: String,
    run: Option<String>,
}

impl From<DriverError> for WakeError {
    fn from(error: DriverError) -> Self {
        Self { reason: error.to_string(), run: None }
    }
}

/// What is up and ready.
struct Up {
    sighting: Sighting,
    rest: Option<Rest>,
}

impl From<WakeError> for Done {
    fn from(WakeError { reason, run }: WakeError) -> Self {
        Outcome::WakeFailed { reason, run }.into()
    }
}

impl From<Up> for Done {
    fn from(Up { sighting, rest }: Up) -> Self {
        let outcome = Outcome::Woken { run: sighting.run };
        Self { outcome, endpoint: sighting.endpoint, rest, room: None }
    }
}

impl From<Sighting> for Up {
    fn from(sighting: Sighting) -> Self {
        Self { sighting, rest: None }
    }
}

async fn wake(workspace: &Arc<Workspace>, announce: &Announce) -> Done {
    let mut seen_run = None;
    let brought_up = bring_up(workspace, announce, &mut seen_run);
    match in_time(workspace, brought_up).await {
        Some(Ok(up)) => up.into(),
        Some(Err(error)) => error.into(),
        None => unready(workspace, seen_run),
    }
}

/// What runs without our doing is waited for until it is ready, and never started.
async fn adopt(workspace: &Arc<Workspace>, announce: &Announce) -> Done {
    let mut seen_run = None;
    let found = async {
        match wait_until_ready(workspace, announce, &mut seen_run).await {
            Err(error) if is_away(&error) => still_there(workspace, error).await,
            found => Ok(found?),
        }
    };
    match in_time(workspace, found).await {
        Some(Ok(sighting)) if sighting.status == Status::Running => Up::from(sighting).into(),
        Some(Ok(sighting)) => Outcome::Down(seen(workspace, sighting)).into(),
        Some(Err(error)) => error.into(),
        None => unready(workspace, seen_run),
    }
}

/// What comes of it within `start_timeout`.
async fn in_time<T>(workspace: &Workspace, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(workspace.policy().start_timeout, work).await.ok()
}

fn unready(workspace: &Workspace, run: Option<String>) -> Done {
    let limit = crate::clock::spoken(workspace.policy().start_timeout);
    workspace.note_unready(run.clone());
    Outcome::WakeFailed { reason: format!("it was not ready within {limit}"), run }.into()
}

/// From whatever state it is in to ready.
async fn bring_up(
    workspace: &Arc<Workspace>,
    announce: &Announce,
    seen_run: &mut Option<String>,
) -> Result<Up, WakeError> {
    let driver = &workspace.driver;
    let blueprint = &*workspace.blueprint();
    let sighting = match driver.inspect(&blueprint.id).await {
        Ok(sighting) => sighting,
        Err(error) if is_away(&error) => {
            return Ok(still_there(workspace, error).await?.into());
        }
        Err(error) => return Err(error.into()),
    };
    match sighting.status {
        Status::Paused => {
            announce(workspace, &sighting.addresses);
            seen_run.clone_from(&sighting.run);
            return thaw(workspace, sighting).await;
        }
        // It has had its time. If it doesn't answer by now, more of the same would not help it.
        Status::Running if workspace.was_unready(&sighting.run) => {
            let patience = STILL_THERE_MAX.min(workspace.policy().start_timeout / 4);
            let ready = wait_until_ready(workspace, announce, seen_run);
            if let Ok(found) = tokio::time::timeout(patience, ready).await
                && let found = found?
                && found.status == Status::Running
            {
                return Ok(found.into());
            }
            driver.stop(&blueprint.id, workspace.policy().stop_grace).await?;
            start(workspace).await?;
        }
        Status::Running => {}
        Status::Missing => {
            driver.create(blueprint).await?;
            start(workspace).await?;
        }
        Status::Stopped => start(workspace).await?,
    }
    let sighting = wait_until_ready(workspace, announce, seen_run).await?;
    if sighting.status != Status::Running {
        let reason = sighting.exit.unwrap_or_else(|| "it ended before it was ready".to_owned());
        return Err(WakeError { reason, run: None });
    }
    Ok(sighting.into())
}

/// Starts it, when it is its turn: a herd of starts is slower than a queue of them.
async fn start(workspace: &Workspace) -> Result<(), WakeError> {
    let _turn = workspace.shared.starts.acquire().await;
    Ok(workspace.driver.start(&workspace.blueprint()).await?)
}

/// Returns when it is ready, which it is when it answers, at an address that is read afresh; or
/// does not run.
async fn wait_until_ready(
    workspace: &Workspace,
    announce: &Announce,
    seen_run: &mut Option<String>,
) -> Result<Sighting, DriverError> {
    loop {
        let sighting = workspace.driver.inspect(workspace.id()).await?;
        if sighting.status != Status::Running {
            return Ok(sighting);
        }
        seen_run.clone_from(&sighting.run);
        announce(workspace, &sighting.addresses);
        if !workspace.can_freeze() || sighting.health == Some(Health::Healthy) {
            return Ok(sighting);
        }
        let probed = async {
            match (sighting.health, sighting.endpoint) {
                (None, Some(endpoint)) => ready::until(probe(workspace, endpoint)).await,
                // Its own health check decides; or it has no address yet.
                (Some(_), _) | (None, None) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = probed => return Ok(sighting),
            () = workspace.nudge.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// From paused to ready. A paused workspace completes handshakes but answers nothing, so the first
/// byte of an answer proves that it has thawed. That is some milliseconds before the engine's own
/// call returns, and those who wait need not wait for that.
async fn thaw(workspace: &Arc<Workspace>, sighting: Sighting) -> Result<Up, WakeError> {
    let thawed = workspace.clone();
    let mut unpaused = Box::pin(async move { thawed.driver.unpause(thawed.id()).await });
    let Some(endpoint) = sighting.endpoint else {
        unpaused.await?;
        return Ok(sighting.into());
    };
    tokio::select! {
        biased;
        () = ready::answered(probe(workspace, endpoint)) => {
            let id = workspace.id().clone();
            let rest: Rest = Box::pin(async move {
                if let Err(error) = unpaused.await {
                    tracing::debug!(workspace = %id, %error, "it thawed, yet the call failed");
                }
            });
            Ok(Up { sighting, rest: Some(rest) })
        }
        result = &mut unpaused => {
            result?;
            ready::until(probe(workspace, endpoint)).await;
            Ok(sighting.into())
        }
    }
}

/// Whether the runtime said nothing, neither yes nor no.
fn is_away(error: &DriverError) -> bool {
    match error {
        DriverError::Unreachable { .. }
        | DriverError::Interrupted { .. }
        | DriverError::TimedOut { .. } => true,
        DriverError::Refused { .. } | DriverError::Unsupported { .. } => false,
    }
}

/// The runtime does not answer. If the workspace itself does, where it was last, it still runs and
/// goes on being served.
async fn still_there(workspace: &Workspace, error: DriverError) -> Result<Sighting, WakeError> {
    let Some(endpoint) = workspace.current_endpoint() else { return Err(error.into()) };
    let quick = tokio::time::timeout(STILL_THERE_MAX, ready::answered(probe(workspace, endpoint)));
    match quick.await {
        Ok(()) => {
            Ok(Sighting { endpoint: Some(endpoint), ..Sighting::down(Status::Running, None) })
        }
        Err(_) => Err(error.into()),
    }
}

fn probe(workspace: &Workspace, endpoint: SocketAddr) -> Probe<'_> {
    let spec = &workspace.blueprint().spec;
    Probe {
        endpoint,
        ready_path: spec.ready_path.clone(),
        host: workspace.id().as_str(),
        protocol: spec.protocol,
        accepts_early: workspace.driver.accepts_early(),
    }
}

async fn freeze(workspace: &Workspace, mode: FreezeMode) -> Outcome {
    // That it is being frozen is on record before it is.
    workspace.shared.records.flush().await;
    if mode == FreezeMode::Stop {
        workspace.note_memory().await;
    }
    let driver = &workspace.driver;
    let grace = workspace.policy().stop_grace;
    let (limit, call, tier) = match mode {
        FreezeMode::Stop => (CALL_MAX + grace, driver.stop(workspace.id(), grace), Tier::Stopped),
        FreezeMode::Pause => (CALL_MAX, driver.pause(workspace.id()), Tier::Paused),
    };
    match within(limit, "freeze", workspace, call).await {
        Ok(()) => Outcome::Frozen(tier),
        Err(error @ DriverError::Interrupted { .. }) if mode == FreezeMode::Stop => {
            see_it_end(workspace, error).await
        }
        Err(error) => Outcome::FreezeFailed { reason: error.to_string() },
    }
}

/// It may have been told to end, and nobody is to be sent to one that is ending. What still runs
/// when the time that it has for that is over goes on running.
async fn see_it_end(workspace: &Workspace, error: DriverError) -> Outcome {
    let over = Instant::now() + workspace.policy().stop_grace + END_MARGIN;
    loop {
        let inspected = timeout_at(over, workspace.driver.inspect(workspace.id())).await;
        if let Ok(Ok(Sighting { status: Status::Stopped | Status::Missing, .. })) = inspected {
            return Outcome::Frozen(Tier::Stopped);
        }
        tokio::select! {
            () = workspace.nudge.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = tokio::time::sleep_until(over) => {
                return Outcome::FreezeFailed { reason: error.to_string() };
            }
        }
    }
}

async fn remove(workspace: &Workspace) -> Outcome {
    // That it is being removed is on record before anything of it is gone.
    workspace.shared.records.flush().await;
    let limit = CALL_MAX + workspace.policy().stop_grace;
    match within(limit, "remove", workspace, workspace.driver.remove(workspace.id())).await {
        Ok(()) => Outcome::Removed,
        Err(error) => Outcome::RemoveFailed { reason: error.to_string() },
    }
}

async fn look(workspace: &Workspace, announce: &Announce) -> Outcome {
    let call = workspace.driver.inspect(workspace.id());
    match within(CALL_MAX, "inspect", workspace, call).await {
        Ok(sighting) => {
            if sighting.status == Status::Running {
                // They were forgotten at the last freeze, which may have failed, and its networks
                // may have changed since.
                announce(workspace, &sighting.addresses);
            }
            Outcome::Looked(seen(workspace, sighting))
        }
        Err(error) => {
            tracing::debug!(workspace = %workspace.id(), %error, "could not look at a workspace");
            Outcome::LookFailed
        }
    }
}

fn seen(workspace: &Workspace, sighting: Sighting) -> Seen {
    match sighting.status {
        Status::Running => Seen::Running {
            run: sighting.run,
            same_endpoint: sighting.endpoint == workspace.current_endpoint(),
        },
        Status::Paused => Seen::Paused,
        Status::Stopped => Seen::Stopped { exit: sighting.exit },
        Status::Missing => Seen::Missing,
    }
}

async fn within<T>(
    limit: Duration,
    action: &'static str,
    workspace: &Workspace,
    call: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, DriverError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(DriverError::TimedOut { action, id: workspace.id().clone(), limit }),
    }
}
