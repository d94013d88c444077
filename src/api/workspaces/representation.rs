//! A workspace as the API tells it.

use serde::Serialize;
use tokio::time::Instant;

use crate::api::Context;
use crate::api::policy::{self, Minutes};
use crate::clock::{Clock, rfc3339};
use crate::lifecycle::Workspace;
use crate::model::{Phase, Tier};

/// See the module's head. Dates are RFC 3339.
#[derive(Debug, Serialize)]
pub(in crate::api) struct Representation {
    id: String,
    /// The project that it was created from; `null`: from none.
    project: Option<Project>,
    /// Where end users find it.
    url: String,
    driver: &'static str,
    /// The phase, as a number and a word of few, for programs.
    state: State,
    phase: Phase,
    tier: Option<Tier>,
    /// When it entered its phase.
    since: String,
    /// When it was first known.
    created_at: String,
    /// `null`: a workspace that is gone is not shown.
    terminated_at: Option<String>,
    /// When it was active last; `null`: not since Frostgate was started.
    last_usage: Option<String>,
    /// As in `policy`; `null`: never.
    inactivity_timeout: Option<Minutes>,
    /// As in `policy`. 0: it can't be frozen. `null`: it is kept for ever.
    max_inactive_storage_time: Option<Minutes>,
    /// As in `policy`; `null`: never.
    max_storage_time: Option<Minutes>,
    live_connections: LiveConnections,
    /// Requests that wait at its gate.
    held: usize,
    /// How many workspaces wait for a slot before it; `null`: it doesn't wait for one.
    queue_position: Option<usize>,
    /// Whether its own last check-in says that it is active.
    reports_activity: bool,
    /// Until when only a navigation or a resume wakes it, because an admin stopped it; else `null`.
    hold_off_until: Option<String>,
    /// When it will be frozen if nothing happens. `null` while it is in use, doesn't run, or is
    /// never frozen by itself.
    freeze_at: Option<String>,
    /// When it will be removed as things are. `null`: never.
    remove_at: Option<String>,
    policy: policy::Representation,
    /// Why it failed.
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct LiveConnections {
    requests: u32,
    tunnels: u32,
    /// Tunnels that don't keep it awake by being open.
    quiet_tunnels: u32,
}

/// A project, in a workspace or in a list.
#[derive(Debug, Serialize)]
pub(in crate::api) struct Project {
    pub(in crate::api) id: String,
    /// For people.
    pub(in crate::api) name: String,
}

/// A state, as programs that know other systems want it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct State {
    code: u8,
    name: &'static str,
}

/// Every state.
const STATES: [(Phase, State); 7] = [
    (Phase::Starting, State { code: 1, name: "starting" }),
    (Phase::Running, State { code: 2, name: "running" }),
    (Phase::Freezing, State { code: 3, name: "stopping" }),
    (Phase::Frozen, State { code: 4, name: "stopped" }),
    (Phase::Removing, State { code: 5, name: "removing" }),
    (Phase::Removed, State { code: 6, name: "removed" }),
    (Phase::Failed, State { code: 7, name: "failed" }),
];

impl State {
    fn of(phase: Phase) -> Self {
        let found = STATES.into_iter().find(|(of, _)| *of == phase);
        found.map_or(Self { code: 0, name: "unknown" }, |(_, state)| state)
    }
}

/// The phase that a state's code or name, or its own name, is of.
pub(super) fn phase_named(text: &str) -> Option<Phase> {
    let is_named = |phase: Phase, state: State| {
        text == state.name || text == phase.to_string() || text == state.code.to_string()
    };
    STATES.into_iter().find(|(phase, state)| is_named(*phase, *state)).map(|(phase, _)| phase)
}

impl Representation {
    pub(in crate::api) fn of(workspace: &Workspace, context: &Context) -> Self {
        let view = workspace.view();
        let policy = workspace.policy();
        let date = |at: Instant| Clock::MACHINE.rfc3339(at);
        Self {
            id: workspace.id().to_string(),
            project: workspace.project().map(|id| Project::of(id, context)),
            url: context.public_url.of_workspace(workspace.id()),
            driver: workspace.driver_name(),
            state: State::of(view.phase),
            phase: view.phase,
            tier: view.tier,
            since: date(view.since),
            created_at: rfc3339(workspace.created_at()),
            terminated_at: None,
            last_usage: view.last_active.map(date),
            inactivity_timeout: policy.inactivity_timeout.map(Minutes),
            max_inactive_storage_time: policy::stored(&policy),
            max_storage_time: policy.max_storage_time.map(Minutes),
            live_connections: LiveConnections {
                requests: view.requests(),
                tunnels: view.tunnels,
                quiet_tunnels: view.quiet_tunnels,
            },
            held: view.held,
            queue_position: view.queue_position,
            reports_activity: view.reports_activity,
            hold_off_until: view.held_off_until.map(date),
            freeze_at: view.freeze_at.map(date),
            remove_at: view.remove_at.map(date),
            policy: (&*policy).into(),
            last_error: view.failure,
        }
    }
}

impl Project {
    /// One that the configuration no longer has is named by its id.
    fn of(id: &str, context: &Context) -> Self {
        let project = context.creator.projects().get(id);
        let name = project.map_or(id, |project| project.name.as_str());
        Self { id: id.to_owned(), name: name.to_owned() }
    }
}
