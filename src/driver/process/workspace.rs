//! One workspace as the driver keeps it: a directory, a turn, and the run that it has right now.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::spawn_blocking;

use super::group::Run;
use super::record::{Record, Stage};
use crate::model::WorkspaceId;

/// A workspace that has a directory, or is about to.
pub(super) struct Workspace {
    pub(super) id: WorkspaceId,
    /// Holds its record, its log and its files.
    pub(super) directory: PathBuf,
    /// Held by whoever changes it. Each holder has deadlines of its own, so the wait for it ends.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// `None`: nothing of it runs.
    run: Option<Arc<Run>>,
    /// How the last run ended.
    exit: Option<String>,
}

impl Workspace {
    pub(super) fn new(id: &WorkspaceId, state_dir: &Path) -> Self {
        Self {
            id: id.clone(),
            directory: state_dir.join(id.as_str()),
            turn: Arc::default(),
            now: Mutex::default(),
        }
    }

    /// Where it works unless its spec says otherwise.
    pub(super) fn files(&self) -> PathBuf {
        self.directory.join("files")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The run that it has, if only the remains of one.
    pub(super) fn run(&self) -> Option<Arc<Run>> {
        self.now().run.clone()
    }

    /// How its last run ended.
    pub(super) fn exit(&self) -> Option<String> {
        self.now().exit.clone()
    }

    pub(super) fn has(&self, run: &Arc<Run>) -> bool {
        let now = self.now();
        now.run.as_ref().is_some_and(|current| Arc::ptr_eq(current, run))
    }

    pub(super) fn has_begun(&self, run: Arc<Run>) {
        self.now().run = Some(run);
    }

    pub(super) fn has_ended(&self, exit: String) {
        *self.now() = Now { run: None, exit: Some(exit) };
    }

    /// Notes in its record that nothing of it runs any more. That the record can't be written
    /// does no harm: the next Frostgate looks for the run and finds nobody.
    pub(super) fn record_end(&self, mut record: Record, exit: &str) {
        record.stage = Stage::Ended { exit: exit.to_owned() };
        if let Err(error) = record.write(&self.directory) {
            let id = &self.id;
            tracing::warn!(workspace = %id, %error, "could not record how a workspace ended");
        }
    }

    /// Deletes what `create` made and what was written into it. Symbolic links are deleted, not
    /// followed.
    pub(super) async fn delete_directory(&self) -> io::Result<()> {
        let directory = self.directory.clone();
        let deleted = spawn_blocking(move || fs::remove_dir_all(directory)).await;
        match deleted.map_err(io::Error::other).flatten() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Nothing that is done under the lock can leave it half done.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Open to nobody else: a workspace's files are its owner's.
pub(super) fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
