//! A workspace as the API tells it, as far as commands show it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::table::{Cell, style_of};
use super::when::Now;
use crate::model::{Phase, Tier};

/// One workspace. What an older gateway doesn't tell is empty.
#[derive(Debug, Deserialize)]
pub(super) struct Workspace {
    pub(super) id: String,
    pub(super) project: Option<Project>,
    pub(super) url: String,
    pub(super) driver: String,
    pub(super) phase: Phase,
    pub(super) tier: Option<Tier>,
    pub(super) since: String,
    pub(super) created_at: String,
    pub(super) last_usage: Option<String>,
    pub(super) live_connections: LiveConnections,
    pub(super) held: usize,
    pub(super) queue_position: Option<usize>,
    pub(super) reports_activity: bool,
    pub(super) hold_off_until: Option<String>,
    pub(super) freeze_at: Option<String>,
    pub(super) remove_at: Option<String>,
    #[serde(default)]
    pub(super) kept_until: Option<String>,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
    #[serde(default)]
    pub(super) memory_saved_bytes: Option<u64>,
    pub(super) policy: Map<String, Value>,
    pub(super) last_error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Project {
    pub(super) id: String,
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct LiveConnections {
    requests: u32,
    tunnels: u32,
    #[serde(default)]
    quiet_tunnels: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Usage {
    memory_bytes: u64,
    cpu_percent: Option<f64>,
}

impl Workspace {
    /// `frozen (stopped)`, in its colour.
    pub(super) fn state(&self) -> Cell {
        Cell::coloured(state(self.phase, self.tier), style_of(self.phase))
    }

    /// What comes next, if nothing happens: `freezes in 4:12`.
    pub(super) fn next(&self, now: Now) -> String {
        if let Some(position) = self.queue_position {
            return format!("waits for a slot, {position} before it");
        }
        let held = match self.held {
            0 => None,
            1 => Some("1 request waits".to_owned()),
            held => Some(format!("{held} requests wait")),
        };
        let kept = self.kept_until.as_deref().filter(|_| self.phase == Phase::Running);
        let freeze = || Some(format!("freezes in {}", now.until(self.freeze_at.as_deref()?)));
        let remove = || Some(format!("removed in {}", now.until(self.remove_at.as_deref()?)));
        held.or_else(|| Some(format!("kept awake for {}", now.until(kept?))))
            .or_else(freeze)
            .or_else(|| self.reports_activity.then(|| "reports activity".to_owned()))
            .or_else(remove)
            .unwrap_or_default()
    }

    /// `123 MiB, 1.5 % of a core`, while it runs; else what its freeze has saved.
    pub(super) fn memory(&self) -> String {
        if let Some(usage) = &self.usage {
            let cpu = usage.cpu_percent.map(|cpu| format!(", {cpu:.1} % of a core"));
            return format!("{}{}", size(usage.memory_bytes), cpu.unwrap_or_default());
        }
        match self.memory_saved_bytes {
            Some(saved) if saved > 0 => format!("{} saved", size(saved)),
            _ => String::new(),
        }
    }
}

impl LiveConnections {
    /// `2 requests, 1 tunnel`, or nothing.
    pub(super) fn in_words(&self) -> String {
        let counted = |number: u32, noun: &str| match number {
            0 => None,
            1 => Some(format!("1 {noun}")),
            _ => Some(format!("{number} {noun}s")),
        };
        let kinds = [
            counted(self.requests, "request"),
            counted(self.tunnels.saturating_sub(self.quiet_tunnels), "tunnel"),
            counted(self.quiet_tunnels, "quiet tunnel"),
        ];
        kinds.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// `frozen (stopped)`
pub(super) fn state(phase: Phase, tier: Option<Tier>) -> String {
    tier.map_or_else(|| phase.to_string(), |tier| format!("{phase} ({tier})"))
}

/// An amount of memory in the largest unit that leaves it a number of one or more.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fitting = UNITS.into_iter().find(|(unit, _)| bytes >= *unit);
    fitting.map_or_else(
        || format!("{bytes} B"),
        |(unit, name)| {
            let number = bytes as f64 / unit as f64;
            if number < 10.0 {
                format!("{number:.1} {name}")
            } else {
                format!("{number:.0} {name}")
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits_or_more_and_connections_their_kinds() {
        let sizes = [0, 1_023, 1_024, 10_752, 123 << 20, 3 << 29, 1 << 50].map(size);
        let words = ["0 B", "1023 B", "1.0 KiB", "10 KiB", "123 MiB", "1.5 GiB", "1024 TiB"];
        assert_eq!(sizes, words);
        let inside = |requests, tunnels, quiet_tunnels| {
            LiveConnections { requests, tunnels, quiet_tunnels }.in_words()
        };
        assert_eq!(inside(0, 0, 0), "");
        assert_eq!(inside(2, 3, 1), "2 requests, 2 tunnels, 1 quiet tunnel");
    }
}
