//! What a container uses: from its cgroup where that can be read, else from the engine.
//!
//! To read two files takes microseconds. The engine takes up to a second, because it looks at its
//! containers once a second; but it can be asked from another machine, or from inside a container.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{ContainerMemoryStats, ContainerStatsResponse};
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt;

use super::Docker;
use super::engine::{EngineError, QUICK_LIMIT};
use super::names::ContainerRef;
use crate::driver::Consumption;
use crate::model::WorkspaceId;

/// Where cgroups usually are.
const CGROUPS: &str = "/sys/fs/cgroup";

impl Docker {
    /// `None`: it doesn't run.
    pub(super) async fn consumption_of(
        &self,
        id: &WorkspaceId,
    ) -> Result<Option<Consumption>, EngineError> {
        let Some(container) = self.locate(id).await? else { return Ok(None) };
        let pid = self.shared.directory.pid(id, &container);
        if let Some(seen) = pid.and_then(|pid| of_process(pid, &container)) {
            return Ok(Some(seen));
        }
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let name = container.as_str();
        let stats = self.engine().call(QUICK_LIMIT, |client| async move {
            client.stats(name, Some(options)).next().await.transpose()
        });
        match stats.await {
            Ok(stats) => Ok(stats.as_ref().and_then(of_stats)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Of the cgroup that a container's first process is in.
fn of_process(pid: u32, container: &ContainerRef) -> Option<Consumption> {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    // The pid may be somebody else's by now, or mean another here than it does to the engine.
    of_cgroup(Path::new(CGROUPS), &lines, container.as_str())
}

fn of_cgroup(root: &Path, lines: &str, container: &str) -> Option<Consumption> {
    let directory = |controller: &str| -> Option<PathBuf> {
        lines.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let is_it = controllers.split(',').any(|name| name == controller);
            let below = if controller.is_empty() { root.to_owned() } else { root.join(controller) };
            let own = is_it && path.contains(container);
            own.then(|| below.join(path.trim_start_matches('/')))
        })
    };
    if let (Some(memory), Some(cpu)) = (directory("memory"), directory("cpuacct")) {
        let used = number(&memory.join("memory.usage_in_bytes"))?;
        let cached = field(&memory.join("memory.stat"), "total_inactive_file").unwrap_or_default();
        let cpu_time = Duration::from_nanos(number(&cpu.join("cpuacct.usage"))?);
        return Some(Consumption { memory_bytes: used.saturating_sub(cached), cpu_time });
    }
    let unified = directory("")?;
    let used = number(&unified.join("memory.current"))?;
    let cached = field(&unified.join("memory.stat"), "inactive_file").unwrap_or_default();
    let cpu_time = Duration::from_micros(field(&unified.join("cpu.stat"), "usage_usec")?);
    Some(Consumption { memory_bytes: used.saturating_sub(cached), cpu_time })
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A container that doesn't run has statistics without numbers.
fn of_stats(stats: &ContainerStatsResponse) -> Option<Consumption> {
    let memory = stats.memory_stats.as_ref()?;
    let cpu_time = stats.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage?;
    Some(Consumption {
        memory_bytes: memory.usage?.saturating_sub(cached(memory)),
        cpu_time: Duration::from_nanos(cpu_time),
    })
}

/// As `docker stats` has it, for cgroups of version 1 and 2.
fn cached(memory: &ContainerMemoryStats) -> u64 {
    let stats = memory.stats.as_ref();
    let of = |name: &str| stats.and_then(|stats| stats.get(name)).copied();
    of("total_inactive_file").or_else(|| of("inactive_file")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "c0ffee";

    fn cgroups(files: &[(&str, &str)]) -> PathBuf {
        let random = std::process::id();
        let root = std::env::temp_dir().join(format!("frostgate-cgroups-{random}-{}", files.len()));
        for (name, text) in files {
            let file = root.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    #[test]
    fn both_versions_of_cgroups_are_read_without_what_is_only_cached() {
        let expected =
            Some(Consumption { memory_bytes: 700, cpu_time: Duration::from_micros(5_000) });
        let one = cgroups(&[
            ("memory/docker/c0ffee/memory.usage_in_bytes", "1000\n"),
            ("memory/docker/c0ffee/memory.stat", "inactive_file 1\ntotal_inactive_file 300\n"),
            ("cpuacct/docker/c0ffee/cpuacct.usage", "5000000\n"),
        ]);
        let lines = "5:memory:/docker/c0ffee\n3:cpu,cpuacct:/docker/c0ffee\n0::/docker/c0ffee\n";
        assert_eq!(of_cgroup(&one, lines, ID), expected);
        let two = cgroups(&[
            ("system.slice/docker-c0ffee.scope/memory.current", "1000\n"),
            ("system.slice/docker-c0ffee.scope/memory.stat", "anon 5\ninactive_file 300\n"),
            ("system.slice/docker-c0ffee.scope/cpu.stat", "usage_usec 5000\nuser_usec 1\n"),
            ("another/memory.current", "1\n"),
        ]);
        let lines = "0::/system.slice/docker-c0ffee.scope\n";
        assert_eq!(of_cgroup(&two, lines, ID), expected);
        // The pid is another's by now.
        assert_eq!(of_cgroup(&two, "0::/another\n", ID), None);
        fs::remove_dir_all(one).unwrap();
        fs::remove_dir_all(two).unwrap();
    }
}
