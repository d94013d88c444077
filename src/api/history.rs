//! How it went in the last hours: how many ran and were frozen, what that saved, how wakes were.

use std::time::Duration;

use axum::extract::{RawQuery, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Context;
use super::caller::Caller;
use super::date::Date;
use super::fields::Fields;
use super::reply::{Failure, Json, Problem};
use crate::clock::Clock;
use crate::lifecycle::HISTORY_STEP;
use crate::store::{HISTORY_AGE_MAX, Moment, Wake};

/// Hours, unless the call says.
const HOURS: u64 = 24;
const HOURS_MAX: u64 = HISTORY_AGE_MAX.as_secs() / 3_600;
/// Points of an answer; of more, every second, third, … is told.
const POINTS_MAX: usize = 1_440;

/// How much is wanted.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// How far back.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 168, default = 24)]
    hours: Hours,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Hours(u64);

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hours = text.parse().ok().filter(|hours| (1..=HOURS_MAX).contains(hours));
        hours.map(Self).ok_or_else(|| format!("{text:?} is no number from 1 to {HOURS_MAX}"))
    }
}

/// How it went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History {
    /// Between two points, while Frostgate runs.
    #[schema(examples(60))]
    step_seconds: u64,
    /// The oldest first.
    points: Vec<Point>,
    wakes: Wakes,
}

/// How many workspaces there were of each kind; fixed upstreams are none.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HistoryPoint)]
struct Point {
    at: Date,
    /// Those that ran, or were about to.
    #[schema(examples(3))]
    running: u32,
    /// Those that were frozen.
    #[schema(examples(7))]
    frozen: u32,
    /// The memory that was free because some were stopped, as far as is known.
    memory_saved_bytes: u64,
}

/// How the wakes were.
#[derive(Debug, Serialize, ToSchema)]
struct Wakes {
    /// Those that succeeded.
    #[schema(examples(12))]
    count: usize,
    /// What half of them took at most, in milliseconds; `null`: there was none.
    #[schema(examples(185))]
    p50_ms: Option<u128>,
    /// The same of nineteen out of twenty.
    #[schema(examples(400))]
    p95_ms: Option<u128>,
    /// Those that failed.
    failed: usize,
}

/// Tell how it went.
#[utoipa::path(
    get,
    path = "/history",
    operation_id = "getHistory",
    tag = "gateway",
    params(Wanted),
    responses((status = 200, description = "The last hours", body = History), Failure)
)]
pub(super) async fn read(
    State(context): State<Context>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<History>, Problem> {
    if caller.scope.projects().is_some() {
        // It is of all workspaces together.
        return Err(caller.refusal("\"read\" or \"admin\""));
    }
    let mut query = Fields::of_query(query.as_deref())?;
    let wanted = Wanted { hours: query.take("hours")?.unwrap_or(Hours(HOURS)) };
    let since = Clock::MACHINE.now() - Duration::from_secs(wanted.hours.0 * 3_600);
    let history = context.registry.history(since).await;
    let history = history.map_err(|error| Problem::Failed(error.to_string()))?;
    let every = history.moments.len().div_ceil(POINTS_MAX).max(1);
    Ok(Json(History {
        step_seconds: HISTORY_STEP.as_secs() * every as u64,
        points: history.moments.iter().step_by(every).map(Point::from).collect(),
        wakes: Wakes::of(&history.wakes),
    }))
}

impl From<&Moment> for Point {
    fn from(moment: &Moment) -> Self {
        let Moment { at, running, frozen, memory_saved } = *moment;
        Self { at: at.into(), running, frozen, memory_saved_bytes: memory_saved }
    }
}

impl Wakes {
    fn of(wakes: &[Wake]) -> Self {
        let mut took: Vec<u128> = wakes
            .iter()
            .filter_map(|wake| match wake {
                Wake::Ready(took) => Some(took.as_millis()),
                Wake::Failed => None,
            })
            .collect();
        took.sort_unstable();
        // The smallest that so many percent are not above.
        let percentile = |percent: usize| {
            let rank = (took.len() * percent).div_ceil(100);
            took.get(rank.checked_sub(1)?).copied()
        };
        Self {
            count: took.len(),
            p50_ms: percentile(50),
            p95_ms: percentile(95),
            failed: wakes.len() - took.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_wakes_that_succeeded() {
        let ready = |milliseconds| Wake::Ready(Duration::from_millis(milliseconds));
        let told = |wakes: &[Wake]| {
            let Wakes { count, p50_ms, p95_ms, failed } = Wakes::of(wakes);
            (count, p50_ms, p95_ms, failed)
        };
        assert_eq!(told(&[]), (0, None, None, 0));
        assert_eq!(told(&[ready(7), Wake::Failed]), (1, Some(7), Some(7), 1));
        let hundred: Vec<Wake> = (1..=100).rev().map(ready).collect();
        assert_eq!(told(&hundred), (100, Some(50), Some(95), 0));
    }
}
