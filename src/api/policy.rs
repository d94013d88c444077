//! Policies as the API writes them: minutes as numbers, or durations such as `"90s"`.

use std::time::Duration;

use serde::Serialize;

use super::fields::Fields;
use super::reply::Problem;
use crate::clock::spoken;
use crate::model::{ConnectionActivity, FreezeMode, FrozenStorage, Policy, PolicyOverrides};
use crate::{duration, size};

/// Minutes that a number may say: a hundred years.
const MINUTES_MAX: f64 = 100.0 * 365.0 * 24.0 * 60.0;

/// The name that counts, and another in use for the same.
const STORAGE: &str = "max_inactive_storage_time";
const STORAGE_ALIAS: &str = "max_inactivity_storage_time";

/// Every field of a policy that a call may name.
const FIELD_NAMES: [&str; 13] = [
    "inactivity_timeout",
    "initial_timeout",
    STORAGE,
    STORAGE_ALIAS,
    "max_storage_time",
    "freeze_mode",
    "stop_after",
    "check_in_ttl",
    "hold_max",
    "stop_hold_off",
    "connection_activity",
    "idle_bytes",
    "monitoring",
];

/// A policy as the API tells it. Times in minutes, fractions included; `null`: never.
#[derive(Debug, Serialize)]
pub(super) struct Representation {
    inactivity_timeout: Option<Minutes>,
    initial_timeout: Minutes,
    /// 0: it can't be frozen. `null`: it is kept for ever.
    max_inactive_storage_time: Option<Minutes>,
    max_storage_time: Option<Minutes>,
    freeze_mode: FreezeMode,
    stop_after: Option<Minutes>,
    check_in_ttl: Option<Minutes>,
    hold_max: Minutes,
    stop_hold_off: Minutes,
    connection_activity: ConnectionActivity,
    idle_bytes: u64,
    monitoring: bool,
}

/// A time in minutes: an integer where it is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Minutes(pub(super) Duration);

impl Serialize for Minutes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = self.0.as_secs();
        if self.0.subsec_nanos() == 0 && seconds.is_multiple_of(60) {
            return serializer.serialize_u64(seconds / 60);
        }
        serializer.serialize_f64(self.0.as_secs_f64() / 60.0)
    }
}

/// How long it is kept while it is frozen; `None`: for ever.
pub(super) fn stored(policy: &Policy) -> Option<Minutes> {
    match policy.storage {
        FrozenStorage::None => Some(Minutes(Duration::ZERO)),
        FrozenStorage::Limited(limit) => Some(Minutes(limit)),
        FrozenStorage::Unlimited => None,
    }
}

impl From<&Policy> for Representation {
    fn from(policy: &Policy) -> Self {
        Self {
            inactivity_timeout: policy.inactivity_timeout.map(Minutes),
            initial_timeout: Minutes(policy.initial_timeout),
            max_inactive_storage_time: stored(policy),
            max_storage_time: policy.max_storage_time.map(Minutes),
            freeze_mode: policy.freeze_mode,
            stop_after: policy.stop_after.map(Minutes),
            check_in_ttl: policy.check_in_ttl.map(Minutes),
            hold_max: Minutes(policy.hold_max),
            stop_hold_off: Minutes(policy.stop_hold_off),
            connection_activity: policy.connection_activity,
            idle_bytes: policy.idle_bytes,
            monitoring: policy.monitoring,
        }
    }
}

/// Refuses fields that are neither of a policy nor among `others`.
pub(super) fn only(fields: &Fields, others: &[&str]) -> Result<(), Problem> {
    fields.only(others.iter().chain(&FIELD_NAMES).copied())
}

/// The overrides that a call's fields say. Fields that are of no policy are left alone.
pub(super) fn overrides(fields: &Fields) -> Result<PolicyOverrides, Problem> {
    Ok(PolicyOverrides {
        inactivity_timeout: time(fields, "inactivity_timeout")?,
        initial_timeout: time(fields, "initial_timeout")?,
        freeze_mode: freeze_mode(fields)?,
        check_in_ttl: time(fields, "check_in_ttl")?,
        hold_max: time(fields, "hold_max")?,
        stop_hold_off: time(fields, "stop_hold_off")?,
        connection_activity: connection_activity(fields)?,
        idle_bytes: bytes(fields, "idle_bytes")?,
        monitoring: switch(fields, "monitoring")?,
        stop_after: time(fields, "stop_after")?,
        storage: storage(fields)?,
        max_storage_time: time(fields, "max_storage_time")?,
        ..PolicyOverrides::default()
    })
}

fn storage(fields: &Fields) -> Result<Option<FrozenStorage>, Problem> {
    let read = |name| -> Result<Option<FrozenStorage>, Problem> {
        match fields.get(name) {
            Some("unlimited" | "null") => Ok(Some(FrozenStorage::Unlimited)),
            _ => Ok(time(fields, name)?.map(|limit| match limit {
                Duration::ZERO => FrozenStorage::None,
                limit => FrozenStorage::Limited(limit),
            })),
        }
    };
    match (read(STORAGE)?, read(STORAGE_ALIAS)?) {
        (Some(one), Some(other)) if one != other => Err(Problem::Invalid(format!(
            "{STORAGE} and {STORAGE_ALIAS} are two names of one field and say different things; \
             send one of them"
        ))),
        (one, other) => Ok(one.or(other)),
    }
}

fn time(fields: &Fields, name: &str) -> Result<Option<Duration>, Problem> {
    let Some(text) = fields.get(name) else { return Ok(None) };
    let minutes = text.parse::<f64>().ok().filter(|minutes| (0.0..=MINUTES_MAX).contains(minutes));
    let parsed = match minutes {
        Some(minutes) => Some(Duration::from_secs_f64(minutes * 60.0)),
        None if text.parse::<f64>().is_ok() => None,
        None => duration::parse(text).ok(),
    };
    parsed.map(Some).ok_or_else(|| {
        Problem::Invalid(format!(
            "{name} is {text:?}: send minutes as a number from 0 on, or a duration such as \"90s\""
        ))
    })
}

fn freeze_mode(fields: &Fields) -> Result<Option<FreezeMode>, Problem> {
    match fields.get("freeze_mode") {
        None => Ok(None),
        Some("stop") => Ok(Some(FreezeMode::Stop)),
        Some("pause") => Ok(Some(FreezeMode::Pause)),
        Some(other) => {
            Err(Problem::Invalid(format!("freeze_mode is {other:?}: send \"stop\" or \"pause\"")))
        }
    }
}

fn connection_activity(fields: &Fields) -> Result<Option<ConnectionActivity>, Problem> {
    match fields.get("connection_activity") {
        None => Ok(None),
        Some("open") => Ok(Some(ConnectionActivity::Open)),
        Some("traffic") => Ok(Some(ConnectionActivity::Traffic)),
        Some(other) => Err(Problem::Invalid(format!(
            "connection_activity is {other:?}: send \"open\" or \"traffic\""
        ))),
    }
}

fn bytes(fields: &Fields, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = fields.get(name) else { return Ok(None) };
    let parsed = size::parse(text).map(Some);
    parsed.map_err(|error| Problem::Invalid(format!("{name}: {error}")))
}

fn switch(fields: &Fields, name: &str) -> Result<Option<bool>, Problem> {
    match fields.get(name) {
        None => Ok(None),
        Some("true" | "True" | "1") => Ok(Some(true)),
        Some("false" | "False" | "0") => Ok(Some(false)),
        Some(other) => {
            Err(Problem::Invalid(format!("{name} is {other:?}: send \"true\" or \"false\"")))
        }
    }
}

/// What can't be changed on its own, in words, if a policy contradicts itself.
pub(super) fn check(policy: &Policy) -> Result<(), Problem> {
    if policy.hold_max.is_zero() {
        let why = "hold_max is 0: a request must be able to wait; send at least \"1s\"";
        return Err(Problem::Invalid(why.to_owned()));
    }
    if let (Some(stop_after), FrozenStorage::Limited(limit)) = (policy.stop_after, policy.storage)
        && stop_after > limit
    {
        return Err(Problem::Invalid(format!(
            "stop_after is {}, longer than the {} of {STORAGE}: it would be removed before",
            spoken(stop_after),
            spoken(limit)
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<PolicyOverrides, Problem> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        overrides(&Fields(pairs.collect()))
    }

    #[test]
    fn times_are_minutes_or_durations() {
        let minutes = |text| read(&[("inactivity_timeout", text)]).unwrap().inactivity_timeout;
        assert_eq!(minutes("5"), Some(Duration::from_secs(300)));
        assert_eq!(minutes("0.5"), Some(Duration::from_secs(30)));
        assert_eq!(minutes("90s"), Some(Duration::from_secs(90)));
        assert_eq!(minutes("0"), Some(Duration::ZERO));
        for bad in ["-1", "NaN", "inf", "soon", "", "1e99"] {
            let problem = read(&[("inactivity_timeout", bad)]).unwrap_err();
            assert!(
                matches!(&problem, Problem::Invalid(why) if why.contains("inactivity_timeout"))
            );
        }
    }

    #[test]
    fn what_tunnels_are_worth_is_a_word_and_a_size() {
        let read = |name, value| read(&[(name, value)]);
        let traffic = read("connection_activity", "traffic").unwrap();
        assert_eq!(traffic.connection_activity, Some(ConnectionActivity::Traffic));
        for (text, bytes) in [("0", 0), ("1500", 1500), ("2KiB", 2048)] {
            assert_eq!(read("idle_bytes", text).unwrap().idle_bytes, Some(bytes), "{text}");
        }
        for (name, bad) in
            [("idle_bytes", "-1"), ("idle_bytes", "few"), ("connection_activity", "")]
        {
            let problem = read(name, bad).unwrap_err();
            assert!(matches!(&problem, Problem::Invalid(why) if why.contains(name)), "{problem:?}");
        }
    }

    #[test]
    fn both_spellings_of_the_storage_time_mean_the_same() {
        let limit = Some(FrozenStorage::Limited(Duration::from_secs(300)));
        assert_eq!(read(&[(STORAGE, "5")]).unwrap().storage, limit);
        assert_eq!(read(&[(STORAGE_ALIAS, "5")]).unwrap().storage, limit);
        assert_eq!(read(&[(STORAGE, "5"), (STORAGE_ALIAS, "5m")]).unwrap().storage, limit);
        assert!(read(&[(STORAGE, "5"), (STORAGE_ALIAS, "6")]).is_err());
        assert_eq!(read(&[(STORAGE, "0")]).unwrap().storage, Some(FrozenStorage::None));
        assert_eq!(read(&[(STORAGE, "null")]).unwrap().storage, Some(FrozenStorage::Unlimited));
    }
}
