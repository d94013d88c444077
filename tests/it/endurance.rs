//! `kill -9` of the program under load, two hundred times, with workspaces that are processes.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::fixture;
use crate::support::endurance::{Remains, World, endure_in_lanes};

const LANES: u32 = 4;
const ROUNDS: u32 = 50;

#[derive(Clone)]
struct Processes;

impl World for Processes {
    const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
    const LIFE_MAX: Duration = Duration::from_millis(600);

    fn configuration(&self, _: &str) -> String {
        format!(
            "workers = 1\n[docker]\nenable = false\n\
             [projects.app]\ncommand = [{:?}]\nstart_timeout = \"20s\"\nstop_hold_off = 0\n",
            fixture::binary()
        )
    }

    fn remains(&self, prefix: &str, state_dir: &Path) -> BTreeMap<String, Remains> {
        let mut remains: BTreeMap<String, Remains> = BTreeMap::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let process = entry.path();
            let Some(id) = workspace_of(&process).filter(|id| id.starts_with(prefix)) else {
                continue;
            };
            let what = remains.entry(id).or_default();
            match is_paused(&process) {
                None => {}
                Some(false) => what.running += 1,
                Some(true) => what.paused += 1,
            }
        }
        for directory in fs::read_dir(state_dir.join("process")).unwrap().flatten() {
            let id = directory.file_name().into_string().unwrap();
            remains.entry(id).or_default().others += 1;
        }
        remains
    }
}

/// Whose process it is. A dead one has no environment any more.
fn workspace_of(process: &Path) -> Option<String> {
    let environment = fs::read(process.join("environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let id = variables.find_map(|variable| variable.strip_prefix(b"FROSTGATE_WORKSPACE="))?;
    Some(String::from_utf8(id.to_vec()).unwrap())
}

/// By the cgroup freezer, of either version, or by a signal. `None`: it has ended meanwhile.
fn is_paused(process: &Path) -> Option<bool> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let state = status.lines().find_map(|line| line.strip_prefix("State:"))?.trim();
    let cgroups = fs::read_to_string(process.join("cgroup")).ok()?;
    let freezer = cgroups.lines().find_map(|line| line.split_once(":freezer:"));
    let freezer = freezer.map_or_else(String::new, |(_, path)| {
        let file = format!("/sys/fs/cgroup/freezer{path}/freezer.state");
        fs::read_to_string(file).unwrap_or_default()
    });
    match state.chars().next()? {
        'Z' | 'X' => None,
        'T' => Some(true),
        _ => Some(matches!(freezer.trim(), "FROZEN" | "FREEZING")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_crashes_under_load_lose_nothing_and_leave_nothing_behind() {
    endure_in_lanes(&Processes, LANES, ROUNDS).await;
}
