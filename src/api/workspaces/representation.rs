//! A workspace as the API tells it.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Context;
use crate::api::date::Date;
use crate::api::policy::{self, Minutes};
use crate::lifecycle::Workspace;
use crate::model::{Phase, Tier, WorkspaceId};

/// A workspace: a container or a local process that is frozen when nobody is inside.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Workspace)]
pub(in crate::api) struct Representation {
    id: WorkspaceId,
    /// The project that it was created from; `null`: from none.
    project: Option<Project>,
    /// Where end users find it.
    #[schema(format = "uri", examples("http://alice.localhost:8080/"))]
    url: String,
    /// What runs it: `docker`, `process`, or `upstream` for what is only routed to.
    #[schema(examples("docker"))]
    driver: &'static str,
    /// The phase, as a number and a word of few, for programs.
    state: State,
    phase: Phase,
    /// Where it is on its way down while it is frozen; `null`: it isn't.
    tier: Option<Tier>,
    /// When it entered its phase.
    since: Date,
    /// When it was first known.
    created_at: Date,
    /// Always `null`: a workspace that is gone is not shown.
    terminated_at: Option<Date>,
    /// When it was active last; `null`: not since Frostgate was started.
    last_usage: Option<Date>,
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
    hold_off_until: Option<Date>,
    /// Until when it is kept awake because somebody asked for that; else `null`.
    kept_until: Option<Date>,
    /// What it uses of the machine; `null`: it does not run, or was not looked at yet: that begins
    /// when somebody asks, and ends a minute after.
    usage: Option<Usage>,
    /// The memory that it used right before it was stopped; 0 while it is paused; `null`: it is not
    /// frozen, or nobody knows.
    memory_saved_bytes: Option<u64>,
    /// When it will be frozen if nothing happens. `null` while it is in use, doesn't run, or is
    /// never frozen by itself.
    freeze_at: Option<Date>,
    /// When it will be removed as things are. `null`: never.
    remove_at: Option<Date>,
    policy: policy::Representation,
    /// Why it failed; `null`: it didn't.
    #[schema(examples("it was not ready within 60 s"))]
    last_error: Option<String>,
}

/// Who is inside.
#[derive(Debug, Serialize, ToSchema)]
struct LiveConnections {
    /// Requests that are being answered.
    requests: u32,
    /// WebSockets and other tunnels.
    tunnels: u32,
    /// Tunnels that don't keep it awake by being open.
    quiet_tunnels: u32,
}

/// What a workspace uses of the machine.
#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    /// Without what is only cached.
    #[schema(examples(52_428_800))]
    memory_bytes: u64,
    /// Of one core, in the last seconds; `null`: that is not known yet.
    #[schema(examples(1.5))]
    cpu_percent: Option<f64>,
}

/// A template that workspaces are created from.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Project {
    #[schema(examples("notebook"))]
    pub(in crate::api) id: String,
    /// For people.
    #[schema(examples("Notebook"))]
    pub(in crate::api) name: String,
}

/// A phase, as programs that know other systems want it.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct State {
    /// 1, starting; 2, running; 3, stopping; 4, stopped; 5, removing; 6, removed; 7, failed.
    #[schema(minimum = 1, maximum = 7, examples(2))]
    code: u8,
    #[schema(examples("running"))]
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

/// Every name that [`phase_named`] knows, once.
pub(super) fn state_names() -> BTreeSet<String> {
    let names = STATES.into_iter().map(|(phase, state)| [phase.to_string(), state.name.to_owned()]);
    names.flatten().collect()
}

impl Representation {
    pub(in crate::api) fn of(workspace: &Workspace, context: &Context) -> Self {
        let view = workspace.view();
        let policy = workspace.policy();
        Self {
            id: workspace.id().clone(),
            project: workspace.project().map(|id| Project::of(id, context)),
            url: context.public_url.of_workspace(workspace.id()),
            driver: workspace.driver_name(),
            state: State::of(view.phase),
            phase: view.phase,
            tier: view.tier,
            since: view.since.into(),
            created_at: workspace.created_at().into(),
            terminated_at: None,
            last_usage: view.last_active.map(Date::from),
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
            hold_off_until: view.held_off_until.map(Date::from),
            kept_until: view.kept_until.map(Date::from),
            usage: workspace.usage().map(|usage| Usage {
                memory_bytes: usage.memory_bytes,
                // A tenth of a percent is as much as two looks can tell.
                cpu_percent: usage.cpu_percent.map(|percent| (percent * 10.0).round() / 10.0),
            }),
            memory_saved_bytes: view.memory_saved,
            freeze_at: view.freeze_at.map(Date::from),
            remove_at: view.remove_at.map(Date::from),
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
