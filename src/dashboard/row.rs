//! A workspace as the feed tells it: no more than a row of the table shows.
//!
//! Dates are milliseconds since 1970 and say when something is due or was, never how long until
//! then, so a row in which nothing happens stays what it is while the page counts down.

use std::time::SystemTime;

use serde::Serialize;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::lifecycle::{View, Workspace};
use crate::model::{FrozenStorage, Phase, Policy, Tier, WorkspaceId};

/// Milliseconds since 1970.
pub(super) type Date = u64;

/// What memory is told in: nobody sees less, and a row with nothing but that is not sent again.
const MEMORY_STEP: u64 = 256 * 1024;

/// Turns moments into dates, the same moment always into the same one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Almanac {
    moment: Instant,
    date: Date,
}

impl Almanac {
    pub(super) fn new() -> Self {
        Self { moment: Instant::now(), date: date(Clock::MACHINE.now()) }
    }

    pub(super) fn now(self) -> Date {
        self.date_of(Instant::now())
    }

    fn date_of(self, moment: Instant) -> Date {
        let milliseconds =
            |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match moment.checked_duration_since(self.moment) {
            Some(after) => self.date.saturating_add(milliseconds(after)),
            None => self.date.saturating_sub(milliseconds(self.moment - moment)),
        }
    }
}

fn date(date: SystemTime) -> Date {
    let since = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a row shows. What is not there is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    id: WorkspaceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) project: Option<Box<str>>,
    driver: &'static str,
    phase: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<Tier>,
    since: Date,
    /// Who is inside, by kind.
    #[serde(skip_serializing_if = "is_zero")]
    requests: u32,
    #[serde(skip_serializing_if = "is_zero")]
    tunnels: u32,
    #[serde(skip_serializing_if = "is_zero")]
    quiet: u32,
    #[serde(skip_serializing_if = "is_zero")]
    held: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<usize>,
    /// When it was active last; left out while it is, and where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<Date>,
    /// What that activity was.
    #[serde(skip_serializing_if = "Option::is_none")]
    activity: Option<Activity>,
    /// What keeps it awake, if it runs and no freeze is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    awake: Option<Awake>,
    #[serde(skip_serializing_if = "Option::is_none")]
    freeze_at: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remove_at: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_off_until: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_until: Option<Date>,
    /// Bytes that it uses, and percent of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<f64>,
    /// Bytes that are free because it is frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<u64>,
    /// Idle means removed.
    #[serde(skip_serializing_if = "is_false")]
    transient: bool,
    /// It can't be frozen.
    #[serde(skip_serializing_if = "is_false")]
    fixed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Box<str>>,
}

/// What somebody did last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Activity {
    /// A request or a tunnel ended.
    Visit,
    /// Its own report.
    Report,
    /// Before this program was started.
    Earlier,
}

/// What keeps a workspace awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Awake {
    Inside,
    Report,
    Fixed,
    Unmonitored,
    Never,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

impl Row {
    pub(super) fn of(workspace: &Workspace, almanac: Almanac) -> Self {
        let (view, policy) = (workspace.view(), workspace.policy());
        let date_of = |moment: Instant| almanac.date_of(moment);
        let is_active = view.inside > 0 || view.reports_activity;
        let last = view.last_active.filter(|_| !is_active);
        // Others use nothing, and there are many of them.
        let usage = (view.phase == Phase::Running).then(|| workspace.usage()).flatten();
        Self {
            id: workspace.id().clone(),
            project: workspace.project().map(Box::from),
            driver: workspace.driver_name(),
            phase: view.phase,
            tier: view.tier,
            since: date_of(view.since),
            requests: view.requests(),
            tunnels: view.tunnels.saturating_sub(view.quiet_tunnels),
            quiet: view.quiet_tunnels,
            held: u32::try_from(view.held).unwrap_or(u32::MAX),
            queue: view.queue_position,
            active: last.map(date_of),
            activity: last.map(|last| activity(&view, last)),
            awake: awake(workspace, &view, &policy),
            freeze_at: view.freeze_at.map(date_of),
            remove_at: view.remove_at.map(date_of),
            held_off_until: view.held_off_until.map(date_of),
            kept_until: view.kept_until.map(date_of),
            memory: usage.map(|usage| usage.memory_bytes / MEMORY_STEP * MEMORY_STEP),
            cpu: usage.and_then(|usage| Some((usage.cpu_percent? * 10.0).round() / 10.0)),
            saved: view.memory_saved,
            transient: policy.storage == FrozenStorage::None,
            fixed: !workspace.can_freeze(),
            failure: view.failure.map(Box::from),
        }
    }
}

fn activity(view: &View, last: Instant) -> Activity {
    match view.last_left {
        Some(left) if left == last => Activity::Visit,
        _ if view.check_in.is_some() => Activity::Report,
        _ => Activity::Earlier,
    }
}

fn awake(workspace: &Workspace, view: &View, policy: &Policy) -> Option<Awake> {
    if view.phase != Phase::Running {
        return None;
    }
    match () {
        () if view.inside > 0 => Some(Awake::Inside),
        () if view.reports_activity => Some(Awake::Report),
        () if view.freeze_at.is_some() => None,
        () if !workspace.can_freeze() => Some(Awake::Fixed),
        () if !policy.monitoring => Some(Awake::Unmonitored),
        () => Some(Awake::Never),
    }
}
