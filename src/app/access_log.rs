//! The access log that is in use, as the configuration changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;

use crate::access_log::AccessLog;

/// See the module's head.
pub(super) struct InUse(Mutex<Current>);

struct Current {
    path: Option<PathBuf>,
    log: Option<Arc<AccessLog>>,
}

impl InUse {
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let current = Current { path: path.map(Path::to_owned), log: try_open(path)? };
        Ok(Self(Mutex::new(current)))
    }

    pub(super) fn log(&self) -> Option<Arc<AccessLog>> {
        self.lock().log.clone()
    }

    /// Another file from now on, or the same one, opened anew. On failure it stays as it was.
    pub(super) fn follow(&self, path: Option<&Path>) -> anyhow::Result<()> {
        let mut current = self.lock();
        if current.path.as_deref() == path {
            if let Some(log) = &current.log {
                log.reopen();
            }
            return Ok(());
        }
        let log = try_open(path)?;
        *current = Current { path: path.map(Path::to_owned), log };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn try_open(path: Option<&Path>) -> anyhow::Result<Option<Arc<AccessLog>>> {
    let Some(path) = path else { return Ok(None) };
    let log = AccessLog::open(path);
    log.map(Some).with_context(|| format!("could not open the access log {}", path.display()))
}
