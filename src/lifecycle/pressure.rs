//! Memory pressure: while the machine has little memory left, paused workspaces are stopped, the one
//! that has been paused longest first.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::watch;

use super::registry::Registry;

/// How often the machine is asked how much memory it has. It tells nobody by itself.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Stops paused workspaces while fewer than `low` bytes are available; `None`: never. Runs until
/// nobody can change that any more.
pub(super) async fn relieve(mut low: watch::Receiver<Option<u64>>, registry: Weak<Registry>) {
    while let Ok(Some(low)) = low.wait_for(Option::is_some).await.map(|low| *low) {
        let Some(registry) = registry.upgrade() else { return };
        while available().is_some_and(|bytes| bytes < low)
            && let Some(paused) = registry.paused_longest()
        {
            tracing::info!(workspace = %paused.id(), "memory is low: stopping what is paused");
            // One that could not be stopped is tried again, but not at once.
            if paused.step_down().await.is_err() {
                break;
            }
        }
        drop(registry);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Bytes of memory that could be given to programs without swapping, as Linux estimates it; `None`:
/// it doesn't say.
fn available() -> Option<u64> {
    of(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_how_much_is_available() {
        let text = "MemTotal:       24557828 kB\nMemAvailable:   20000000 kB\nCached: 1 kB\n";
        assert_eq!(of(text), Some(20_000_000 * 1_024));
        assert_eq!(of("MemTotal: 1 kB\n"), None);
        assert!(available().is_some());
    }
}
