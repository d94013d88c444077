//! Whether local processes can be paused by the cgroup freezer. Containers are paused by their engine,
//! which has rights of its own.

use super::Finding;
use crate::config::{Config, Freezer};
use crate::driver::process::try_freezer;

const CHECK: &str = "cgroup freezer";

pub(super) fn check(config: &Config) -> Finding {
    if config.process.freezer == Freezer::Signal {
        return Finding::ok(CHECK, "not wanted: processes are paused by signals");
    }
    let tried = match try_freezer(&config.state_dir.join("process")) {
        Ok(place) => return Finding::ok(CHECK, place),
        Err(tried) => tried,
    };
    let fix = "give the service a cgroup of its own to work in, by Delegate=yes in its unit; in a \
               container mount /sys/fs/cgroup writable; or set process.freezer to \"signal\"";
    if config.process.freezer == Freezer::Cgroup {
        let detail = format!("it can't be used, so Frostgate does not start: {tried}");
        return Finding::problem(CHECK, detail, fix);
    }
    let detail = format!("local processes are paused by signals, which they notice: {tried}");
    Finding::warning(CHECK, detail, fix)
}
