//! Policies as the API writes them: minutes as numbers, or durations such as `"90s"`.

mod values;

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{IntoResponses, ToSchema};

pub(super) use self::values::{Bytes, Minutes, Switch, Time};
use self::values::{Limit, NonZeroTime, Storage};
use super::fields::Fields;
use super::reply::{ErrorCode, Problem, Responses, problems};
use crate::clock::spoken;
use crate::model::{ConnectionActivity, FreezeMode, FrozenStorage, Policy, PolicyOverrides};

/// The name that counts, and another in use for the same.
const STORAGE: &str = "max_inactive_storage_time";
const STORAGE_ALIAS: &str = "max_inactivity_storage_time";

/// The policy that is in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Policy)]
pub(super) struct Representation {
    /// Idle time until it is frozen, or removed if it can't be frozen. `null`: never.
    inactivity_timeout: Option<Minutes>,
    /// Grace after each start, counted from when it is ready.
    initial_timeout: Minutes,
    /// How long it is kept while it is frozen. 0: it can't be frozen. `null`: for ever.
    max_inactive_storage_time: Option<Minutes>,
    /// Age at which it is removed, even in use. `null`: never.
    max_storage_time: Option<Minutes>,
    freeze_mode: FreezeMode,
    /// A paused workspace is stopped after this long. `null`: it stays paused.
    stop_after: Option<Minutes>,
    /// Age at which its own report of activity no longer counts. `null`: never while it runs.
    check_in_ttl: Option<Minutes>,
    /// How long a request may wait for it to be ready.
    hold_max: Minutes,
    /// How long somebody who opens a page waits for it before being shown a waiting page.
    page_after: Minutes,
    /// For how long after a stop only a navigation or a resume wakes it.
    stop_hold_off: Minutes,
    connection_activity: ConnectionActivity,
    /// Where `connection_activity` is `traffic`: as many bytes within `inactivity_timeout` are none.
    #[schema(examples(1024))]
    idle_bytes: u64,
    /// `false`: only calls freeze it.
    monitoring: bool,
}

/// Changes of a policy. What is left out stays as it is.
#[derive(Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(as = PolicyChanges)]
#[serde(deny_unknown_fields)]
pub(super) struct Changes {
    /// Idle time until it is frozen, or removed if it can't be frozen. 0 or `null`: never.
    inactivity_timeout: Option<Limit>,
    /// Grace after each start, counted from when it is ready.
    initial_timeout: Option<Time>,
    /// How long it is kept while it is frozen. 0: it can't be frozen, so idle means removed. `null`:
    /// for ever.
    max_inactive_storage_time: Option<Storage>,
    /// Another name for `max_inactive_storage_time`; only one of both may be sent.
    max_inactivity_storage_time: Option<Storage>,
    /// Age at which it is removed, even in use. 0 or `null`: never.
    max_storage_time: Option<Limit>,
    freeze_mode: Option<FreezeMode>,
    /// A paused workspace is stopped after this long. 0 or `null`: it stays paused.
    stop_after: Option<Limit>,
    /// Age at which its own report of activity no longer counts. 0 or `null`: never while it runs.
    check_in_ttl: Option<Limit>,
    /// How long a request may wait for it to be ready.
    hold_max: Option<NonZeroTime>,
    /// How long somebody who opens a page waits for it before being shown a waiting page; from
    /// `hold_max` on: nobody is.
    page_after: Option<Time>,
    /// For how long after a stop only a navigation or a resume wakes it.
    stop_hold_off: Option<Time>,
    connection_activity: Option<ConnectionActivity>,
    /// Where `connection_activity` is `traffic`: as many bytes within `inactivity_timeout` are none.
    idle_bytes: Option<Bytes>,
    /// `false`: only calls freeze it.
    monitoring: Option<Switch>,
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
            page_after: Minutes(policy.page_after),
            stop_hold_off: Minutes(policy.stop_hold_off),
            connection_activity: policy.connection_activity,
            idle_bytes: policy.idle_bytes,
            monitoring: policy.monitoring,
        }
    }
}

impl Changes {
    /// Those that a call's fields say.
    pub(super) fn read(fields: &mut Fields) -> Result<Self, Problem> {
        Ok(Self {
            inactivity_timeout: fields.take("inactivity_timeout")?,
            initial_timeout: fields.take("initial_timeout")?,
            max_inactive_storage_time: fields.take(STORAGE)?,
            max_inactivity_storage_time: fields.take(STORAGE_ALIAS)?,
            max_storage_time: fields.take("max_storage_time")?,
            freeze_mode: fields.take("freeze_mode")?,
            stop_after: fields.take("stop_after")?,
            check_in_ttl: fields.take("check_in_ttl")?,
            hold_max: fields.take("hold_max")?,
            page_after: fields.take("page_after")?,
            stop_hold_off: fields.take("stop_hold_off")?,
            connection_activity: fields.take("connection_activity")?,
            idle_bytes: fields.take("idle_bytes")?,
            monitoring: fields.take("monitoring")?,
        })
    }

    /// What they change.
    pub(super) fn overrides(&self) -> Result<PolicyOverrides, Problem> {
        Ok(PolicyOverrides {
            inactivity_timeout: self.inactivity_timeout.map(|Limit(time)| time),
            initial_timeout: self.initial_timeout.map(|Time(time)| time),
            freeze_mode: self.freeze_mode,
            check_in_ttl: self.check_in_ttl.map(|Limit(time)| time),
            hold_max: self.hold_max.map(|NonZeroTime(time)| time),
            page_after: self.page_after.map(|Time(time)| time),
            stop_hold_off: self.stop_hold_off.map(|Time(time)| time),
            connection_activity: self.connection_activity,
            idle_bytes: self.idle_bytes.map(|Bytes(bytes)| bytes),
            monitoring: self.monitoring.map(|Switch(on)| on),
            stop_after: self.stop_after.map(|Limit(time)| time),
            storage: self.storage()?,
            max_storage_time: self.max_storage_time.map(|Limit(time)| time),
            ..PolicyOverrides::default()
        })
    }

    fn storage(&self) -> Result<Option<FrozenStorage>, Problem> {
        let said = match (self.max_inactive_storage_time, self.max_inactivity_storage_time) {
            (Some(_), Some(_)) => {
                return Err(Problem::Invalid(format!(
                    "{STORAGE} and {STORAGE_ALIAS} are two names of one field; send one of them"
                )));
            }
            (said, None) | (None, said) => said,
        };
        Ok(said.map(|Storage(storage)| storage))
    }

    /// What the schema of changes can't say in types.
    pub(super) fn rule() -> Value {
        json!({ "not": { "required": [STORAGE, STORAGE_ALIAS] } })
    }
}

impl IntoResponses for Changes {
    fn responses() -> Responses {
        problems(&[ErrorCode::Contradiction])
    }
}

/// What can't be changed on its own, in words, if a policy contradicts itself.
pub(super) fn check(policy: &Policy) -> Result<(), Problem> {
    if let (Some(stop_after), FrozenStorage::Limited(limit)) = (policy.stop_after, policy.storage)
        && stop_after > limit
    {
        return Err(Problem::Contradiction(format!(
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
    use crate::api::fields::tests::fields;

    async fn read(body: Value) -> Result<PolicyOverrides, Problem> {
        let mut fields = fields("application/json", &body.to_string()).await?;
        let changes = Changes::read(&mut fields)?;
        fields.end()?;
        changes.overrides()
    }

    #[tokio::test]
    async fn both_spellings_of_the_storage_time_mean_the_same() {
        let limit = Some(FrozenStorage::Limited(Duration::from_secs(300)));
        let storage = async |body| read(body).await.map(|overrides| overrides.storage);
        assert_eq!(storage(json!({ STORAGE: 5 })).await, Ok(limit));
        assert_eq!(storage(json!({ STORAGE_ALIAS: "5" })).await, Ok(limit));
        assert!(storage(json!({ STORAGE: 5, STORAGE_ALIAS: 6 })).await.is_err());
        assert!(storage(json!({ STORAGE: 5, STORAGE_ALIAS: 5 })).await.is_err(), "which counts?");
        assert_eq!(storage(json!({ STORAGE: 0 })).await, Ok(Some(FrozenStorage::None)));
    }

    #[tokio::test]
    async fn a_policy_is_understood_as_it_is_told() {
        let told = serde_json::to_value(Representation::from(&Policy::default())).unwrap();
        let understood = read(told).await.unwrap();
        let other = Policy {
            inactivity_timeout: Some(Duration::from_secs(1)),
            storage: FrozenStorage::None,
            max_storage_time: Some(Duration::from_secs(1)),
            ..Policy::default()
        };
        assert_eq!(understood.over(&other), Policy::default());
    }

    #[tokio::test]
    async fn what_is_wrong_is_named() {
        for name in [
            "inactivity_timeout",
            "hold_max",
            STORAGE,
            "freeze_mode",
            "connection_activity",
            "idle_bytes",
            "monitoring",
        ] {
            let problem = read(json!({ name: "soon" })).await.unwrap_err();
            assert!(matches!(&problem, Problem::Invalid(why) if why.starts_with(name)));
        }
    }
}
