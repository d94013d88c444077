//! What Frostgate must know of a run to find it again after a restart or its own sudden death.
//!
//! One file per workspace, `<state>/<id>/run.json`, replaced as a whole. It is written before the
//! process is spawned, with a random token that the process carries in its environment, so that a
//! crash between the spawn and the next write leaves an orphan that can be found by the token.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::freezer::Cgroup;

const FILE_NAME: &str = "run.json";

/// The variable in which every process of a run carries the run's token.
pub(super) const TOKEN_VARIABLE: &str = "FROSTGATE_RUN";

/// One run of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Random; marks the processes of this run. Not a secret: it opens nothing.
    pub(super) token: String,
    /// Which boot of the machine the run belongs to.
    pub(super) boot_id: String,
    /// What it was told to listen on.
    pub(super) port: u16,
    /// Where its processes are kept, if a cgroup freezer is used.
    pub(super) cgroup: Option<Cgroup>,
    /// How far it has come.
    pub(super) stage: Stage,
}

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// It is about to be spawned, or Frostgate died just after it was.
    Intended,
    /// It was spawned.
    Running {
        /// Its first process, which leads the group.
        pid: i32,
        /// The tick at which that started.
        start_time: u64,
    },
    /// Nothing of it runs any more.
    Ended {
        /// How it ended, in words.
        exit: String,
    },
}

impl Record {
    /// The variable as it stands in the environment of the run's processes.
    pub(super) fn mark(&self) -> String {
        format!("{TOKEN_VARIABLE}={}", self.token)
    }

    /// `None`: the workspace was never started. What can't be understood is `InvalidData`.
    pub(super) fn read(directory: &Path) -> io::Result<Option<Self>> {
        match fs::read(directory.join(FILE_NAME)) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(record) => Ok(Some(record)),
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the record: a reader sees the old one or the new one, never a part. It is not forced
    /// to the disk, which a wake would wait for: what is lost with the power is the record of a run
    /// that is lost as well.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join("run.json.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&new)?.write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, directory.join(FILE_NAME))
    }
}

/// 128 random bits in hexadecimal digits.
pub(super) fn new_token() -> io::Result<String> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(io::Error::other)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_replaced_as_a_whole() {
        let name = format!("frostgate-record-{}", new_token().unwrap());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        assert_eq!(Record::read(&directory).unwrap(), None);
        let mut record = Record {
            token: new_token().unwrap(),
            boot_id: "b".to_owned(),
            port: 4000,
            cgroup: None,
            stage: Stage::Intended,
        };
        for stage in [
            Stage::Intended,
            Stage::Running { pid: 7, start_time: 99 },
            Stage::Ended { exit: "exited with code 1".to_owned() },
        ] {
            record.stage = stage;
            record.write(&directory).unwrap();
            assert_eq!(Record::read(&directory).unwrap().as_ref(), Some(&record));
        }
        for cut_off in ["", "{", "{}"] {
            fs::write(directory.join(FILE_NAME), cut_off).unwrap();
            let error = Record::read(&directory).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{cut_off:?}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn tokens_differ() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 32);
    }
}
