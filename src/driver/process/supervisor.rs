//! Begins runs, takes over those of an earlier Frostgate, and clears up when they end.
//!
//! Every run has a watcher, a task that wakes when its leader ends. What is left of the run is then
//! killed and its end recorded, in the workspace's turn. A leader that is our child stays a zombie
//! until that is done, so that its pid, which is the number of the group, means nobody else.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use rustix::process::Pid;
use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::freezer::{FREEZE_LIMIT, Hierarchy};
use super::group::{Identity, Leader, Motion, Run};
use super::launch::{self, Launch};
use super::port::PortLease;
use super::record::{self, Record, Stage, TOKEN_VARIABLE};
use super::spawn_lock::{SpawnLock, every_child_is_born};
use super::workspace::{Workspace, make_private_directory};
use super::{NOT_A_COMMAND, Options, failed, refused};
use crate::driver::{DriverError, DriverEvent, Sighting, Status};
use crate::model::{Blueprint, Runs, WorkspaceId};

/// How long KILL may take. Only a process in an uninterruptible wait of the kernel outlives it.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How a run ended whose leader died while no Frostgate looked.
const UNSEEN: &str = "ended while Frostgate was not running";

/// Owns every workspace of the driver.
pub(super) struct Supervisor {
    options: Options,
    hierarchy: Option<Hierarchy>,
    boot_id: String,
    workspaces: DashMap<WorkspaceId, Arc<Workspace>>,
    /// Where the ends of runs are told, once somebody watches.
    events: Mutex<Option<mpsc::Sender<DriverEvent>>>,
    /// Runs the watchers, whichever runtime asked for the start.
    runtime: Handle,
}

/// A workspace's turn, and the run that it has.
type Turn = (OwnedMutexGuard<()>, Arc<Run>);

impl Supervisor {
    /// `options.state_dir` is canonical.
    pub(super) fn new(
        options: Options,
        hierarchy: Option<Hierarchy>,
        boot_id: String,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            options,
            hierarchy,
            boot_id,
            workspaces: DashMap::new(),
            events: Mutex::new(None),
            runtime,
        })
    }

    pub(super) fn uses_cgroups(&self) -> bool {
        self.hierarchy.is_some()
    }

    /// A workspace that was created, started or found.
    pub(super) fn known(&self, id: &WorkspaceId) -> Option<Arc<Workspace>> {
        self.workspaces.get(id).map(|entry| Arc::clone(entry.value()))
    }

    pub(super) fn workspace(&self, id: &WorkspaceId) -> Arc<Workspace> {
        let new = || Arc::new(Workspace::new(id, &self.options.state_dir));
        Arc::clone(self.workspaces.entry(id.clone()).or_insert_with(new).value())
    }

    pub(super) fn forget(&self, id: &WorkspaceId) {
        self.workspaces.remove(id);
    }

    /// The turn of a workspace that runs or is paused.
    pub(super) async fn turn_of_running(
        &self,
        action: &'static str,
        id: &WorkspaceId,
    ) -> Result<Turn, DriverError> {
        let no_such = || refused(action, id, "there is no such workspace");
        let workspace = self.known(id).ok_or_else(no_such)?;
        let turn = Arc::clone(&workspace.turn).lock_owned().await;
        let run = workspace.run().filter(|run| run.motion() != Motion::Dead);
        let run = run.ok_or_else(|| refused(action, id, "it does not run"))?;
        Ok((turn, run))
    }

    pub(super) fn inspect(&self, id: &WorkspaceId) -> Sighting {
        let Some(workspace) = self.known(id) else {
            let exists = self.options.state_dir.join(id.as_str()).is_dir();
            let status = if exists { Status::Stopped } else { Status::Missing };
            return Sighting::down(status, None);
        };
        let Some(run) = workspace.run() else {
            return Sighting::down(Status::Stopped, workspace.exit());
        };
        let (status, leader) = match (run.motion(), &run.leader) {
            (Motion::Running, Some(leader)) => (Status::Running, leader),
            (Motion::Paused, Some(leader)) => (Status::Paused, leader),
            (Motion::Dead, Some(leader)) => return Sighting::down(Status::Stopped, leader.end()),
            (_, None) => return Sighting::down(Status::Stopped, Some(UNSEEN.to_owned())),
        };
        let Identity { pid, start_time } = leader.identity();
        Sighting {
            status,
            run: Some(format!("{}:{start_time}", pid.as_raw_pid())),
            endpoint: Some(SocketAddr::new(self.options.address, run.port.number())),
            // All share this machine's: only the token tells them apart.
            addresses: Vec::new(),
            health: None,
            exit: None,
        }
    }
}

/// Beginning a run.
impl Supervisor {
    pub(super) async fn start(self: &Arc<Self>, plan: &Blueprint) -> Result<(), DriverError> {
        let (action, id) = ("start", &plan.id);
        let workspace = self.workspace(id);
        let turn = Arc::clone(&workspace.turn).lock_owned().await;
        if let Some(run) = workspace.run() {
            match run.motion() {
                Motion::Running => return Ok(()),
                Motion::Paused => {
                    let outcome = run.unpause().await;
                    return outcome.map_err(|error| failed(action, id, FREEZE_LIMIT, error));
                }
                Motion::Dead => {
                    let outcome = self.finish(&workspace, &run).await;
                    outcome.map_err(|error| failed(action, id, KILL_LIMIT, error))?;
                }
            }
        }
        // From the intent to the record this must not be cut short by a caller who gives up, so it
        // takes the turn along to a thread where it may also wait for the disk.
        let (supervisor, plan) = (Arc::clone(self), plan.clone());
        let launched = spawn_blocking(move || {
            let _turn = turn;
            supervisor.launch(&workspace, &plan)
        });
        match launched.await {
            Ok(outcome) => outcome.map_err(|reason| refused(action, id, reason)),
            Err(panic) => Err(refused(action, id, panic)),
        }
    }

    /// Writes the intent, spawns, writes what came of it. An error is in words for the operator.
    fn launch(self: &Arc<Self>, place: &Arc<Workspace>, plan: &Blueprint) -> Result<(), String> {
        make_private_directory(&place.files())
            .map_err(|error| format!("its directory {:?}: {error}", place.files()))?;
        let port = match plan.spec.port {
            Some(port) => PortLease::of(port),
            None => PortLease::of_a_free_one().map_err(|error| format!("no free port: {error}"))?,
        };
        let cgroup = self.hierarchy.as_ref().map(|all| all.cgroup(plan.id.as_str()));
        if let Some(cgroup) = &cgroup {
            cgroup.create().map_err(|error| format!("its cgroup {cgroup:?}: {error}"))?;
        }
        let mut record = Record {
            token: record::new_token().map_err(|error| format!("its run token: {error}"))?,
            boot_id: self.boot_id.clone(),
            port: port.number(),
            cgroup,
            stage: Stage::Intended,
        };
        record
            .write(&place.directory)
            .map_err(|error| format!("its record in {:?}: {error}", place.directory))?;
        let spawned = SpawnLock::take(&place.directory)
            .map_err(|error| format!("its lock in {:?}: {error}", place.directory))
            .and_then(|_held| spawn(place, plan, &mut record));
        match spawned {
            Ok(leader) => {
                tracing::debug!(workspace = %plan.id, port = record.port, "spawned a workspace");
                self.take_charge(
                    place,
                    Run {
                        group: Some(leader.identity()),
                        leader: Some(leader),
                        record,
                        port,
                        watcher: OnceLock::new(),
                    },
                );
                Ok(())
            }
            Err(reason) => {
                place.record_end(record, &reason);
                place.has_ended(reason.clone());
                Err(reason)
            }
        }
    }

    /// Makes it the workspace's run and watches for its end.
    fn take_charge(self: &Arc<Self>, workspace: &Arc<Workspace>, run: Run) {
        let run = Arc::new(run);
        workspace.has_begun(Arc::clone(&run));
        let watched = Arc::clone(&run);
        let (supervisor, workspace) = (Arc::downgrade(self), Arc::clone(workspace));
        let watcher = self.runtime.spawn(async move {
            let run = watched;
            if let Some(leader) = &run.leader
                && let Err(error) = leader.gone().await
            {
                let id = &workspace.id;
                tracing::error!(workspace = %id, %error, "could not watch for a workspace's end");
                return;
            }
            let Some(supervisor) = supervisor.upgrade() else {
                return;
            };
            supervisor.clear_up(&workspace, &run).await;
        });
        // Set once: a run has one watcher.
        let _ = run.watcher.set(watcher.abort_handle());
    }
}

/// Spawns what the plan says and notes it in the record.
fn spawn(place: &Workspace, plan: &Blueprint, record: &mut Record) -> Result<Leader, String> {
    let Runs::Command { argv, directory } = &plan.spec.runs else {
        return Err(NOT_A_COMMAND.to_owned());
    };
    let ours = [
        ("PORT", record.port.to_string()),
        ("FROSTGATE_WORKSPACE", plan.id.to_string()),
        ("FROSTGATE_CHECK_IN_URL", plan.check_in.url(Ipv4Addr::LOCALHOST.into())),
        (TOKEN_VARIABLE, record.token.clone()),
    ];
    let files = place.files();
    let launch = Launch {
        argv,
        directory: directory.as_deref().unwrap_or(&files),
        environment: launch::environment(plan.environment(), ours),
        log: &place.log(),
        cgroup: record.cgroup.as_ref(),
    };
    let mut child = launch.spawn()?;
    let recorded = Leader::of_child(&child).and_then(|leader| {
        let Identity { pid, start_time } = leader.identity();
        let pid = pid.as_raw_pid();
        record.stage = Stage::Running { pid, start_time };
        record.write(&place.directory)?;
        Ok(leader)
    });
    recorded.map_err(|error| {
        // It can't be left running where the next Frostgate would not find it.
        let _ = child.kill();
        let _ = child.wait();
        format!("its record in {:?}: {error}", place.directory)
    })
}

/// Taking over from an earlier Frostgate, and leaving to a later one.
impl Supervisor {
    /// Looks at every directory of a workspace, once.
    pub(super) fn adopt_all(self: &Arc<Self>) -> io::Result<()> {
        for entry in fs::read_dir(&self.options.state_dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| WorkspaceId::parse(name).ok());
            if let Some(id) = id.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                self.adopt(&self.workspace(&id))?;
            }
        }
        Ok(())
    }

    fn adopt(self: &Arc<Self>, workspace: &Arc<Workspace>) -> io::Result<()> {
        let record = match Record::read(&workspace.directory) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            // Power was lost while it was written: then nothing runs either.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let id = &workspace.id;
                tracing::warn!(workspace = %id, %error, "could not understand the record of a run");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let group = match &record.stage {
            Stage::Ended { exit } => {
                workspace.has_ended(exit.clone());
                return Ok(());
            }
            _ if record.boot_id != self.boot_id => {
                workspace.has_ended("ended when the machine did".to_owned());
                return Ok(());
            }
            Stage::Intended => None,
            Stage::Running { pid, start_time } => {
                Pid::from_raw(*pid).map(|pid| Identity { pid, start_time: *start_time })
            }
        };
        let leader = group.map(Leader::find).transpose()?.flatten();
        match &leader {
            Some(_) => tracing::info!(workspace = %workspace.id, "adopted a running workspace"),
            // Whoever carries the token, or is in the cgroup or the group, is killed.
            None => tracing::info!(workspace = %workspace.id, "clearing up after a lost workspace"),
        }
        let port = PortLease::of(record.port);
        let run = Run { leader, group, port, record, watcher: OnceLock::new() };
        run.undo_half_a_pause();
        self.take_charge(workspace, run);
        Ok(())
    }

    /// Stops watching. What runs goes on.
    pub(super) fn let_go(&self) {
        for workspace in &self.workspaces {
            if let Some(run) = workspace.run()
                && let Some(watcher) = run.watcher.get()
            {
                watcher.abort();
            }
        }
        if let Some(hierarchy) = &self.hierarchy {
            hierarchy.remove_if_empty();
        }
    }
}

/// Ending a run.
impl Supervisor {
    /// In the workspace's turn. Returns when nothing of it runs.
    pub(super) async fn stop(
        &self,
        workspace: &Workspace,
        action: &'static str,
        grace: Duration,
    ) -> Result<(), DriverError> {
        let Some(run) = workspace.run() else {
            return Ok(());
        };
        let ended = async {
            if run.motion() != Motion::Dead {
                run.terminate(Instant::now() + grace).await?;
            }
            self.finish(workspace, &run).await
        };
        let outcome = ended.await;
        outcome.map_err(|error| failed(action, &workspace.id, KILL_LIMIT, error))
    }

    /// After the leader has ended, by itself or because it was told to.
    async fn clear_up(&self, workspace: &Workspace, run: &Arc<Run>) {
        let turn = workspace.turn.lock().await;
        if workspace.has(run)
            && let Err(error) = self.finish(workspace, run).await
        {
            let id = &workspace.id;
            tracing::error!(workspace = %id, %error, "could not kill what is left of a workspace");
        }
        drop(turn);
        self.tell(&workspace.id).await;
    }

    /// Kills what is left of a run, and notes how it ended. May be given up on and done again.
    async fn finish(&self, workspace: &Workspace, run: &Arc<Run>) -> io::Result<()> {
        if run.record.stage == Stage::Intended {
            every_child_is_born(&workspace.directory).await?;
        }
        if !run.kill(Instant::now() + KILL_LIMIT).await? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if let Some(cgroup) = &run.record.cgroup
            && let Err(error) = cgroup.remove().await
        {
            tracing::warn!(workspace = %workspace.id, %error, "could not remove an empty cgroup");
        }
        let leader = run.leader.as_ref();
        let exit = leader.and_then(Leader::bury).unwrap_or_else(|| UNSEEN.to_owned());
        tracing::debug!(workspace = %workspace.id, exit, "a workspace has ended");
        workspace.record_end(run.record.clone(), &exit);
        workspace.has_ended(exit);
        Ok(())
    }
}

/// Telling of it.
impl Supervisor {
    pub(super) fn report_to(&self, events: mpsc::Sender<DriverEvent>) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }

    async fn tell(&self, id: &WorkspaceId) {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(events) = events {
            // Nobody listens any more: that ends the watch, and is no error.
            let _ = events.send(DriverEvent::Changed(id.clone())).await;
        }
    }
}
