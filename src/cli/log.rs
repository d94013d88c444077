//! Logs go to standard error: as text to a person, as JSON to everything else.

use std::io::IsTerminal;

use anyhow::Context;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use super::Environment;

/// Libraries whose logs aren't ours to pass on: up to which level they are, each.
///
/// The finer ones hold what goes over the wire, environments and tokens included. And the warnings of
/// those who read what clients send are a line for each piece of nonsense, so that anybody could fill
/// a disk with them.
const LIBRARIES: [(&str, Level); 3] =
    [("bollard", Level::INFO), ("h2", Level::ERROR), ("hyper", Level::ERROR)];

/// Starts logging. `FROSTGATE_LOG` is the filter, such as `debug` or `frostgate::proxy=trace`;
/// without it, `level` is.
pub(super) fn start(environment: &Environment, level: &str) -> anyhow::Result<()> {
    let wanted = environment.get("FROSTGATE_LOG").filter(|filter| !filter.trim().is_empty());
    let filter = wanted.map_or(level, String::as_str);
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("FROSTGATE_LOG is not a filter for logs: {filter:?}"))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    let lines = lines.with_filter(filter.and(filter_fn(is_for_logs)));
    // Only a second start in one process fails, as in tests; the first one's logs go on.
    registry().with(lines).try_init().or(Ok(()))
}

/// Whatever the filter says: no wish for more detail is a wish for secrets in a log.
fn is_for_logs(metadata: &Metadata<'_>) -> bool {
    let library = LIBRARIES.iter().find(|(name, _)| metadata.target().starts_with(name));
    library.is_none_or(|(_, most)| metadata.level() <= most)
}
