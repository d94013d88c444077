//! The cgroup freezer, in both of its versions: one cgroup per workspace.
//!
//! Frozen processes keep their memory and can't tell that they slept; unlike SIGSTOP nobody inside
//! can resist, notice or undo it, and no child can slip out. Whether a machine offers it is found
//! out by trying, because what mount tables and capabilities promise is often not kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How long a freeze may take. Only a thread in an uninterruptible wait of the kernel, as on a dead
/// network disk, is not frozen at once.
pub(super) const FREEZE_LIMIT: Duration = Duration::from_secs(5);

/// A cgroup can't be removed until the last of its dead has been buried by the kernel.
const REMOVE_LIMIT: Duration = Duration::from_secs(1);

/// Cgroups nest; what a workspace makes below its own is followed this deep.
const DEPTH_MAX: usize = 8;

/// Which of the kernel's two interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Version {
    V1,
    V2,
}

/// Where cgroups for workspaces can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    version: Version,
    directory: PathBuf,
}

impl Hierarchy {
    /// Tries what this machine offers, version 2 first: it kills what is frozen, and all at once.
    /// `key` keeps the Frostgates of one machine apart.
    pub(super) fn detect(key: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut tried = Vec::new();
        for candidate in candidates(&mounts, &own, key) {
            match candidate.try_out() {
                Ok(()) => return Ok(candidate),
                Err(error) => {
                    candidate.remove_if_empty();
                    tried.push(format!("{}: {error}", candidate.directory.display()));
                }
            }
        }
        if tried.is_empty() {
            tried.push("no cgroup freezer is mounted".to_owned());
        }
        Err(tried.join("; "))
    }

    /// Its kind and place, in words.
    pub(super) fn describe(&self) -> String {
        let version = match self.version {
            Version::V1 => 1,
            Version::V2 => 2,
        };
        format!("version {version}, in {}", self.directory.display())
    }

    /// The cgroup of one workspace; nothing is made yet.
    pub(super) fn cgroup(&self, name: &str) -> Cgroup {
        Cgroup { version: self.version, path: self.directory.join(name) }
    }

    /// The name has a dot, which no workspace id has.
    fn try_out(&self) -> io::Result<()> {
        let cgroup = self.cgroup("try.out");
        cgroup.create()?;
        // To move a process needs the right to write here and to the cgroup it comes from.
        let procs = fs::OpenOptions::new().write(true).open(cgroup.procs_path());
        let outcome = procs.and_then(|_| cgroup.set_frozen().and_then(|()| cgroup.thaw()));
        let _ = fs::remove_dir(&cgroup.path);
        outcome
    }

    /// Takes the directory itself away, if no workspace is in it.
    pub(super) fn remove_if_empty(&self) {
        let _ = fs::remove_dir(&self.directory);
        if self.version == Version::V1 {
            // The directory that all Frostgates share; it goes with the last of them.
            let _ = self.directory.parent().map(fs::remove_dir);
        }
    }
}

/// The places worth trying, best first.
fn candidates(mountinfo: &str, own_cgroups: &str, key: &str) -> Vec<Hierarchy> {
    let own_v2 = own_cgroups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let mut found: Vec<_> = mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mount_point = Path::new(left.split(' ').nth(4)?);
            let mut right = right.split(' ');
            let kind = right.next()?;
            let mut is_freezer = || right.nth(1)?.split(',').find(|name| *name == "freezer");
            match kind {
                "cgroup2" => Some(Hierarchy {
                    version: Version::V2,
                    directory: mount_point.join(own_v2).join(format!("frostgate-{key}")),
                }),
                "cgroup" => is_freezer().map(|_| Hierarchy {
                    version: Version::V1,
                    directory: mount_point.join("frostgate").join(key),
                }),
                _ => None,
            }
        })
        .collect();
    found.sort_by_key(|hierarchy| hierarchy.version == Version::V1);
    found
}

/// The cgroup of one workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cgroup {
    version: Version,
    path: PathBuf,
}

impl Cgroup {
    /// Makes it, or takes it over thawed.
    pub(super) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        self.thaw()
    }

    /// A process joins by writing its pid here.
    pub(super) fn procs_path(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Everybody inside, zombies left out by the kernel.
    pub(super) fn pids(&self) -> Vec<Pid> {
        let mut pids = Vec::new();
        for directory in self.directories() {
            let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            let parsed = text.lines().filter_map(|line| line.parse().ok());
            pids.extend(parsed.filter_map(Pid::from_raw));
        }
        pids
    }

    /// Freezes and waits until it is so; on failure it is thawed again.
    pub(super) async fn freeze(&self) -> io::Result<()> {
        let outcome = self.freeze_and_wait().await;
        if outcome.is_err() {
            let _ = self.thaw();
        }
        outcome
    }

    async fn freeze_and_wait(&self) -> io::Result<()> {
        self.set_frozen()?;
        let deadline = Instant::now() + FREEZE_LIMIT;
        let mut steps = Steps::default();
        while !self.is_frozen()? {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            steps.next().await;
        }
        Ok(())
    }

    fn set_frozen(&self) -> io::Result<()> {
        match self.version {
            Version::V1 => self.write("freezer.state", "FROZEN"),
            Version::V2 => self.write("cgroup.freeze", "1"),
        }
    }

    /// Does nothing where it isn't frozen.
    pub(super) fn thaw(&self) -> io::Result<()> {
        match self.version {
            Version::V1 => self.write("freezer.state", "THAWED"),
            Version::V2 => self.write("cgroup.freeze", "0"),
        }
    }

    /// Whether everybody inside is frozen.
    pub(super) fn is_frozen(&self) -> io::Result<bool> {
        match self.version {
            Version::V1 => {
                let state = fs::read_to_string(self.path.join("freezer.state"))?;
                Ok(state.trim() == "FROZEN")
            }
            Version::V2 => {
                let events = fs::read_to_string(self.path.join("cgroup.events"))?;
                Ok(events.lines().any(|line| line == "frozen 1"))
            }
        }
    }

    /// Whether everybody inside is frozen, or about to be: a freeze goes on even if whoever asked
    /// for it has died.
    pub(super) fn is_meant_to_freeze(&self) -> io::Result<bool> {
        let file = match self.version {
            Version::V1 => "freezer.self_freezing",
            Version::V2 => "cgroup.freeze",
        };
        Ok(fs::read_to_string(self.path.join(file))?.trim() == "1")
    }

    /// Kills everybody at once where the kernel can do that (version 2, Linux 5.14); whoever calls
    /// kills one by one as well.
    pub(super) fn kill(&self) {
        if self.version == Version::V2 {
            let _ = self.write("cgroup.kill", "1");
        }
    }

    /// Takes an empty cgroup away, with what the workspace made below it.
    pub(super) async fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + REMOVE_LIMIT;
        let mut steps = Steps::default();
        loop {
            for directory in self.directories().iter().rev() {
                let _ = fs::remove_dir(directory);
            }
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Ok(()) => return Ok(()),
                Err(_) => steps.next().await,
            }
        }
    }

    /// Itself and the cgroups below, parents first.
    fn directories(&self) -> Vec<PathBuf> {
        let mut all = vec![self.path.clone()];
        let mut level = 0..1;
        for _ in 0..DEPTH_MAX {
            for index in level.clone() {
                let entries = fs::read_dir(&all[index]).into_iter().flatten().flatten();
                let below =
                    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                all.extend(below.map(|entry| entry.path()).collect::<Vec<_>>());
            }
            level = level.end..all.len();
        }
        all
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        // Without `create`: a missing cgroup must not become a plain file somewhere.
        let mut file = fs::OpenOptions::new().write(true).open(self.path.join(file))?;
        io::Write::write_all(&mut file, value.as_bytes())
    }
}

/// Pauses between two looks at something that tells no events: 1 ms, growing to 10 ms.
#[derive(Default)]
pub(super) struct Steps {
    taken: u32,
}

impl Steps {
    pub(super) async fn next(&mut self) {
        self.taken += 1;
        tokio::time::sleep(Duration::from_millis(self.taken.min(10).into())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        32 30 0:28 / /sys/fs/cgroup/freezer rw,relatime shared:9 - cgroup cgroup rw,freezer\n\
        33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_two_is_tried_below_our_own_cgroup_and_before_version_one() {
        let own = "6:freezer:/\n0::/system.slice/frostgate.service\n";
        let found = candidates(HYBRID, own, "abcd");
        let places: Vec<_> = found.iter().map(|one| one.directory.to_str()).collect();
        let v2 = "/sys/fs/cgroup/unified/system.slice/frostgate.service/frostgate-abcd";
        assert_eq!(places, [Some(v2), Some("/sys/fs/cgroup/freezer/frostgate/abcd")]);
    }

    #[test]
    fn without_a_mount_there_is_nothing_to_try() {
        assert_eq!(candidates("", "0::/\n", "abcd"), []);
        assert_eq!(candidates("garbage - cgroup2", "", "abcd"), []);
    }

    /// Every version that this machine offers, with a real process in it.
    #[tokio::test]
    async fn a_frozen_process_stands_still_until_it_is_thawed() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let key = format!("unit-{}", std::process::id());
        for hierarchy in candidates(&mounts, &own, &key) {
            if let Err(error) = hierarchy.try_out() {
                eprintln!("SKIPPED: {:?} can't be used: {error}", hierarchy.directory);
                continue;
            }
            let cgroup = hierarchy.cgroup("sleeper");
            cgroup.create().unwrap();
            let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            cgroup.write("cgroup.procs", &child.id().to_string()).unwrap();
            assert!(!cgroup.is_frozen().unwrap());
            cgroup.freeze().await.unwrap();
            cgroup.freeze().await.unwrap();
            assert!(cgroup.is_frozen().unwrap() && cgroup.is_meant_to_freeze().unwrap());
            assert_eq!(cgroup.pids(), [Pid::from_child(&child)]);
            cgroup.thaw().unwrap();
            cgroup.thaw().unwrap();
            assert!(!cgroup.is_meant_to_freeze().unwrap());
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(cgroup.pids(), []);
            cgroup.remove().await.unwrap();
            cgroup.remove().await.unwrap();
            hierarchy.remove_if_empty();
        }
    }
}
