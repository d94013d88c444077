//! Whether there are enough descriptors for the connections that are allowed.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::config::Config;

const CHECK: &str = "descriptors";
/// One to the client and one to the workspace.
const PER_CONNECTION: u64 = 2;
/// For listeners, the store, the engine, and idle connections to workspaces.
const BESIDES: u64 = 500;

/// Those of the gateway's process, or else of this one, as a gateway that is started here has them.
pub(super) fn check(config: &Config, gateway: Option<i32>) -> Finding {
    let running = gateway.and_then(of_process);
    let whose = if running.is_some() { "the gateway" } else { "a gateway that is started here" };
    let limit = running.unwrap_or_else(|| getrlimit(Resource::Nofile).current);
    judged(limit, config.listen.connections_max as u64, whose)
}

/// `Max open files  1024  524288  files`: the limit that counts, and how far it may be raised.
fn of_process(pid: i32) -> Option<Option<u64>> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(None),
        number => Some(Some(number.parse().ok()?)),
    }
}

fn judged(limit: Option<u64>, connections: u64, whose: &str) -> Finding {
    let Some(limit) = limit else {
        return Finding::ok(CHECK, format!("{whose} may open any number"));
    };
    let needed = connections.saturating_mul(PER_CONNECTION).saturating_add(BESIDES);
    let detail = format!("{whose} may open {limit}; {connections} connections take up to {needed}");
    if limit >= needed {
        return Finding::ok(CHECK, detail);
    }
    let fix = format!(
        "allow more, as by LimitNOFILE={needed} in its unit or `ulimit -n {needed}`; or lower \
         listen.connections_max"
    );
    Finding::warning(CHECK, detail, fix)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn every_connection_takes_two() {
        let rows = [
            (None, 10_000, Status::Ok),
            (Some(20_500), 10_000, Status::Ok),
            (Some(1_024), 10_000, Status::Warning),
            (Some(1_024), 200, Status::Ok),
        ];
        for (limit, connections, status) in rows {
            assert_eq!(judged(limit, connections, "it").status, status, "{limit:?}");
        }
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(of_process(own), Some(getrlimit(Resource::Nofile).current));
    }
}
