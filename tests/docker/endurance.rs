//! `kill -9` of the program under load, with workspaces that are containers.
//!
//! Plain `cargo test` kills twenty times, `FROSTGATE_FULL_SWEEP=1` two hundred times.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::images::{Engine, engine};
use crate::support::endurance::{Remains, World, common_prefix, endure_in_lanes};

const LANES: u32 = 2;
/// Looks at the engine that find nothing more, and how often one is taken.
const QUIET_LOOKS: u32 = 3;
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Each gateway has the containers of its own scope, which is called as their ids begin.
#[derive(Clone)]
struct Containers(Engine);

impl World for Containers {
    /// They come by their network's gateway.
    const HOST: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const LIFE_MAX: Duration = Duration::from_secs(3);

    fn configuration(&self, prefix: &str) -> String {
        format!(
            "workers = 1\n[docker]\nenable = true\nscope = \"{prefix}\"\n\
             [projects.app]\nimage = \"{}\"\nport = 80\nstop_hold_off = 0\n",
            self.0.image()
        )
    }

    fn remains(&self, prefix: &str, _: &Path) -> BTreeMap<String, Remains> {
        let scope = format!("label=frostgate.scope={prefix}");
        let format = r#"{{.Label "frostgate.id"}} {{.State}}"#;
        let listed = self.0.docker(&["ps", "--all", "--filter", &scope, "--format", format]);
        let mut remains: BTreeMap<String, Remains> = BTreeMap::new();
        for line in listed.lines() {
            let (id, state) = line.split_once(' ').unwrap();
            let what = remains.entry(id.to_owned()).or_default();
            match state {
                "running" => what.running += 1,
                "paused" => what.paused += 1,
                _ => what.others += 1,
            }
        }
        remains
    }
}

/// Takes away what a test that failed has left, and what the engine still makes for it.
struct Swept(Engine);

impl Drop for Swept {
    fn drop(&mut self) {
        let ours = format!("name=^/frostgate-{}", common_prefix());
        let left = || self.0.docker(&["ps", "--all", "--quiet", "--filter", &ours]);
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            let left = left();
            quiet = if left.is_empty() { quiet + 1 } else { 0 };
            for container in left.lines() {
                self.0.tries(&["rm", "--force", "--volumes", container]);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_under_load_lose_no_container_and_leave_none_behind() {
    let Some(engine) = engine() else { return };
    let full = std::env::var("FROSTGATE_FULL_SWEEP").as_deref() == Ok("1");
    let rounds = if full { 100 } else { 10 };
    let _swept = Swept(engine);
    endure_in_lanes(&Containers(engine), LANES, rounds).await;
}
