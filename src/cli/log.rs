//! Logs go to standard error: as text to a person, as JSON to everything else.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use super::Environment;

/// Libraries whose finer logs hold what goes over the wire, environments and tokens included.
const WIRE_LOGS: [&str; 2] = ["bollard=info", "hyper=info"];

/// Starts logging. `FROSTGATE_LOG` is the filter, such as `debug` or `frostgate::proxy=trace`;
/// without it, `level` is.
pub(super) fn start(environment: &Environment, level: &str) -> anyhow::Result<()> {
    let wanted = environment.get("FROSTGATE_LOG").filter(|filter| !filter.trim().is_empty());
    let filter = wanted.map_or(level, String::as_str);
    let mut filter = EnvFilter::try_new(filter)
        .with_context(|| format!("FROSTGATE_LOG is not a filter for logs: {filter:?}"))?;
    for capped in WIRE_LOGS {
        // Whatever the filter says: no wish for more detail is a wish for secrets in a log.
        filter = filter.add_directive(capped.parse()?);
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    // Only a second start in one process fails, as in tests; the first one's logs go on.
    started.or(Ok(()))
}
