//! One Frostgate per state directory: two would each freeze what the other serves.
//!
//! The kernel's lock on a file of its own, which ends with the process however that ends. SQLite's
//! own locks are held for a transaction only, so that backups can be made while Frostgate runs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::store::StoreError;

const FILE_NAME: &str = "frostgate.lock";

/// Holds the lock while it lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it, or says who has it.
    pub(super) fn take(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE_NAME);
        let unopened = |error: io::Error| StoreError::Unopened {
            file: path.clone(),
            reason: error.to_string(),
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(unopened)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let process = holder(&mut file);
                return Err(StoreError::InUse { directory: state_dir.to_owned(), process });
            }
            Err(TryLockError::Error(error)) => return Err(unopened(error)),
        }
        sign(&mut file).map_err(unopened)?;
        Ok(Self { _file: file })
    }
}

/// For the words of the error alone: who holds the lock, the kernel knows.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}
