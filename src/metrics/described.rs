//! Every metric: its name, its labels, what it tells. They are registered from here, and the reference
//! is written from here.

/// What is known of a metric before it has a value.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// Without the prefix `frostgate_`, and without the `_total` of counters.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, each with the values that it can have.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it tells.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only goes up, while Frostgate runs.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many were how large.
    Histogram,
}

impl Described {
    /// As it is asked for: `frostgate_freezes_total`.
    pub fn full_name(&self) -> String {
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("frostgate_{}{suffix}", self.name)
    }
}

/// All of them, in the order of the reference.
pub const ALL: &[&Described] = &[
    &BUILD_INFO,
    &WORKSPACES,
    &LIVE_CONNECTIONS,
    &HELD_REQUESTS,
    &SLOTS,
    &MEMORY_SAVED,
    &DEGRADED,
    &RELOAD,
    &REQUESTS,
    &WAKE_DURATION,
    &FREEZES,
    &FREEZE_ABORTS,
    &CHECK_INS,
    &DRIVER_CALLS,
    &DRIVER_SECONDS,
    &WORKSPACE_PHASE,
    &WORKSPACE_LIVE,
];

/// Which version runs.
pub const BUILD_INFO: Described = Described {
    name: "build_info",
    kind: Kind::Gauge,
    labels: &[("version", "of Frostgate")],
    help: "Which version runs; always 1",
};

/// Workspaces, by where they are in their lives.
pub const WORKSPACES: Described = Described {
    name: "workspaces",
    kind: Kind::Gauge,
    labels: &[("phase", "`starting`, `running`, `freezing`, `frozen`, `removing`, `failed`")],
    help: "Workspaces, by where they are in their lives",
};

/// Requests and tunnels inside of workspaces.
pub const LIVE_CONNECTIONS: Described = Described {
    name: "live_connections",
    kind: Kind::Gauge,
    labels: &[("kind", "`request`, `tunnel`")],
    help: "Requests and tunnels inside of workspaces",
};

/// Requests that wait until their workspace runs.
pub const HELD_REQUESTS: Described = Described {
    name: "held_requests",
    kind: Kind::Gauge,
    labels: &[],
    help: "Requests that wait until their workspace runs",
};

/// Slots, where their number is limited.
pub const SLOTS: Described = Described {
    name: "slots",
    kind: Kind::Gauge,
    labels: &[("state", "`free`, `taken`")],
    help: "Slots, where their number is limited",
};

/// Memory that stopped workspaces used right before they were stopped, as far as is known.
pub const MEMORY_SAVED: Described = Described {
    name: "memory_saved_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Memory that stopped workspaces used right before they were stopped, as far as is known",
};

/// 1: somebody has to look after this part, as /readyz?verbose says.
pub const DEGRADED: Described = Described {
    name: "degraded",
    kind: Kind::Gauge,
    labels: &[("part", "`configuration`, `certificates`, …, as `/readyz?verbose` has them")],
    help: "1: somebody has to look after this part, as /readyz?verbose says",
};

/// 0: the configuration that was read last has mistakes, and the one before is in force.
pub const RELOAD: Described = Described {
    name: "config_last_reload_successful",
    kind: Kind::Gauge,
    labels: &[],
    help: "0: the configuration that was read last has mistakes, and the one before is in force",
};

/// Requests that were answered at the public listeners.
pub const REQUESTS: Described = Described {
    name: "http_requests",
    kind: Kind::Counter,
    labels: &[("code", "the status of the answer")],
    help: "Requests that were answered at the public listeners; one that became a tunnel counts when it does",
};

/// How long wakes took, from when room was there until the workspace was ready.
pub const WAKE_DURATION: Described = Described {
    name: "wake_duration_seconds",
    kind: Kind::Histogram,
    labels: &[("tier", "it woke from: `paused`, `stopped`"), ("outcome", "`ready`, `failed`")],
    help: "How long wakes took, from when room was there until the workspace was ready",
};

/// Workspaces that were frozen.
pub const FREEZES: Described = Described {
    name: "freezes",
    kind: Kind::Counter,
    labels: &[
        ("tier", "`paused`, `stopped`"),
        ("reason", "`idle`, `evicted`, `admin`, `unready`, `step_down`, `interrupted`"),
    ],
    help: "Workspaces that were frozen",
};

/// Freezes that were due and did not come about.
pub const FREEZE_ABORTS: Described = Described {
    name: "freeze_aborts",
    kind: Kind::Counter,
    labels: &[("cause", "`visited`, `failed`")],
    help: "Freezes that were due and did not come about",
};

/// Reports of activity.
pub const CHECK_INS: Described = Described {
    name: "check_ins",
    kind: Kind::Counter,
    labels: &[("result", "`active`, `idle`, `unknown_sender`, `invalid`, `refused`")],
    help: "Reports of activity",
};

/// Calls of what runs workspaces.
pub const DRIVER_CALLS: Described = Described {
    name: "driver_calls",
    kind: Kind::Counter,
    labels: &[
        ("driver", "`docker`, `process`, `upstream`"),
        ("call", "`create`, `start`, `stop`, `pause`, `unpause`, `remove`, `inspect`, `list`"),
        (
            "outcome",
            "`ok`, `unreachable`, `interrupted`, `refused`, `timed_out`, `unsupported`, `given_up`",
        ),
    ],
    help: "Calls of what runs workspaces",
};

/// Time that these calls took together.
pub const DRIVER_SECONDS: Described = Described {
    name: "driver_call_seconds",
    kind: Kind::Counter,
    labels: &[("driver", "as above"), ("call", "as above")],
    help: "Time that these calls took together",
};

/// 1: the workspace is in this phase.
pub const WORKSPACE_PHASE: Described = Described {
    name: "workspace_phase",
    kind: Kind::Gauge,
    labels: &[("workspace", "its id"), ("phase", "as above")],
    help: "1: the workspace is in this phase. Told where metrics.per_workspace is on",
};

/// Requests and tunnels inside of the workspace.
pub const WORKSPACE_LIVE: Described = Described {
    name: "workspace_live_connections",
    kind: Kind::Gauge,
    labels: &[("workspace", "its id"), ("kind", "`request`, `tunnel`")],
    help: "Requests and tunnels inside of the workspace. Told where metrics.per_workspace is on",
};

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/metrics.md");

    fn page() -> String {
        let mut page = "\
# Metrics

`GET /metrics` of the admin listener tells them in OpenMetrics, to everybody who reaches it. Those
that name workspaces are told where `metrics.per_workspace` is on. Counters begin at zero when
Frostgate does.

| metric | kind | labels | tells |
|---|---|---|---|
"
        .to_owned();
        for described in ALL {
            let labels = described.labels.iter();
            let labels: Vec<_> =
                labels.map(|(name, values)| format!("`{name}`: {values}")).collect();
            page.push_str(&format!(
                "| `{}` | {} | {} | {} |\n",
                described.full_name(),
                format!("{:?}", described.kind).to_lowercase(),
                labels.join("<br>"),
                described.help
            ));
        }
        page
    }

    #[test]
    fn the_reference_has_every_metric() {
        if std::env::var_os("FROSTGATE_BLESS").is_some() {
            std::fs::write(PAGE, page()).unwrap();
        }
        let stored = std::fs::read_to_string(PAGE).unwrap_or_default();
        assert_eq!(stored, page(), "run FROSTGATE_BLESS=1 cargo test reference");
    }
}
