//! The values of a policy, as calls write them and answers tell them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::{Object, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::model::FrozenStorage;
use crate::{duration, size};

/// Minutes that a number may say: a hundred years.
const MINUTES_MAX: f64 = 100.0 * 365.0 * 24.0 * 60.0;

/// Bytes that a number may say: as far as every program counts without a gap.
const BYTES_MAX: f64 = 9_007_199_254_740_992.0;

/// The texts that are read as sizes, as far as a pattern can tell what 64 bits can hold.
const SIZE: &str = "^([0-9]{1,15}|[0-9]{1,6} ?([bB]|[kmgtKMGT]([iI]?[bB])?))$";

/// The texts that are read as times, as far as a pattern can tell: minutes, or up to three numbers
/// with units. It keeps the sum below a hundred years, which is the limit.
const TIME: &str = r"^((0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?|(([0-9]{1,4}(\.[0-9]{1,6})?d|[0-9]{1,5}(\.[0-9]{1,6})?h|[0-9]{1,7}(\.[0-9]{1,6})?m|[0-9]{1,9}(\.[0-9]{1,6})?s|[0-9]{1,12}(\.[0-9]{1,6})?ms) ?){1,3})$";

/// A time in minutes, fractions included.
#[derive(Debug, Clone, Copy, ToSchema)]
#[schema(value_type = f64, minimum = 0, examples(15))]
pub(in crate::api) struct Minutes(pub(in crate::api) Duration);

/// An integer where it is one.
impl Serialize for Minutes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = self.0.as_secs();
        if self.0.subsec_nanos() == 0 && seconds.is_multiple_of(60) {
            return serializer.serialize_u64(seconds / 60);
        }
        serializer.serialize_f64(self.0.as_secs_f64() / 60.0)
    }
}

/// A time that a call says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(in crate::api) struct Time(pub(in crate::api) Duration);

/// A time after which something happens; zero, or `null` as answers have it: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Limit(pub(super) Duration);

/// A time that is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct NonZeroTime(pub(super) Duration);

/// How long something is kept; `null` as answers have it, or `"unlimited"`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Storage(pub(super) FrozenStorage);

/// An amount of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(in crate::api) struct Bytes(pub(in crate::api) u64);

/// Whether something is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(in crate::api) struct Switch(pub(in crate::api) bool);

impl TryFrom<Value> for Time {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let read = match &value {
            Value::Number(minutes) => minutes.as_f64().and_then(from_minutes),
            Value::String(text) => from_text(text.trim()),
            _ => None,
        };
        read.map(Self).ok_or_else(|| {
            format!("{value} is no time: send minutes from 0 on, or a duration such as \"90s\"")
        })
    }
}

/// Nothing that is more than zero becomes zero.
fn from_minutes(minutes: f64) -> Option<Duration> {
    let exact = (0.0..=MINUTES_MAX).contains(&minutes);
    let least = if minutes > 0.0 { Duration::from_nanos(1) } else { Duration::ZERO };
    exact.then(|| Duration::from_secs_f64(minutes * 60.0).max(least))
}

/// A text that is a number is what a form makes of it.
fn from_text(text: &str) -> Option<Duration> {
    match serde_json::from_str(text) {
        Ok(minutes) => from_minutes(minutes),
        Err(_) => duration::parse(text).ok(),
    }
}

/// In a form it is a text.
fn is_null(value: &Value) -> bool {
    value.is_null() || value == "null"
}

impl TryFrom<Value> for Limit {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        if is_null(&value) {
            return Ok(Self(Duration::ZERO));
        }
        Time::try_from(value).map(|Time(time)| Self(time))
    }
}

impl TryFrom<Value> for NonZeroTime {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match Time::try_from(value)? {
            Time(Duration::ZERO) => Err("0 is no time to wait: send at least \"1s\"".to_owned()),
            Time(time) => Ok(Self(time)),
        }
    }
}

impl TryFrom<Value> for Storage {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        if is_null(&value) || value == "unlimited" {
            return Ok(Self(FrozenStorage::Unlimited));
        }
        Ok(Self(match Time::try_from(value)? {
            Time(Duration::ZERO) => FrozenStorage::None,
            Time(limit) => FrozenStorage::Limited(limit),
        }))
    }
}

impl TryFrom<Value> for Bytes {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let read = match &value {
            Value::Number(number) => number.as_f64().and_then(whole),
            Value::String(text) => size::parse(text).ok(),
            _ => None,
        };
        let read = read.filter(|bytes| *bytes as f64 <= BYTES_MAX);
        read.map(Self).ok_or_else(|| {
            format!("{value} is no size: send a whole number of bytes, or one such as \"64KiB\"")
        })
    }
}

/// JSON has no integers of its own: `80.0` is one.
fn whole(number: f64) -> Option<u64> {
    let is_whole = number.fract() == 0.0 && (0.0..=BYTES_MAX).contains(&number);
    is_whole.then_some(number as u64)
}

impl TryFrom<Value> for Switch {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value.as_str().unwrap_or_default() {
            "true" | "True" | "1" => return Ok(Self(true)),
            "false" | "False" | "0" => return Ok(Self(false)),
            _ => {}
        }
        value.as_bool().map(Self).ok_or_else(|| format!("{value} is neither true nor false"))
    }
}

fn minutes() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some("Minutes, fractions included."))
        .maximum(Some(MINUTES_MAX))
}

fn text(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("Minutes, or a duration with the units `ms`, `s`, `m`, `h` and `d`."))
        .pattern(Some(pattern))
}

fn words<const N: usize>(words: [&str; N]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

fn null() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Null)
}

fn time() -> OneOfBuilder {
    OneOfBuilder::new()
        .item(minutes().minimum(Some(0)).examples([15]))
        .item(text(TIME).examples(["90s", "1h30m"]))
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        time().description(Some("A time, at most a hundred years.")).into()
    }
}

impl ToSchema for Time {}

impl PartialSchema for Limit {
    fn schema() -> RefOr<Schema> {
        let description = "A time after which something happens. 0 or `null`: never.";
        time().item(null()).item(words(["null"])).description(Some(description)).into()
    }
}

impl ToSchema for Limit {}

impl PartialSchema for NonZeroTime {
    fn schema() -> RefOr<Schema> {
        // With a digit that is not zero.
        let pattern = TIME.replacen('^', "^(?=.*[1-9])", 1);
        OneOfBuilder::new()
            .item(minutes().exclusive_minimum(Some(0)).examples([1]))
            .item(text(&pattern).examples(["60s"]))
            .description(Some("A time that is not 0, at most a hundred years."))
            .into()
    }
}

impl ToSchema for NonZeroTime {}

impl PartialSchema for Storage {
    fn schema() -> RefOr<Schema> {
        let description = "How long it is kept. 0: not at all. `null` or `unlimited`: for ever.";
        let forever = words(["null", "unlimited"]);
        time().item(null()).item(forever).description(Some(description)).into()
    }
}

impl ToSchema for Storage {}

impl PartialSchema for Bytes {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(SIZE));
        OneOfBuilder::new()
            .item(number.maximum(Some(BYTES_MAX)))
            .item(text.examples(["64KiB", "2g"]))
            .description(Some("An amount of data: bytes, or a number with a unit."))
            .into()
    }
}

impl ToSchema for Bytes {}

impl PartialSchema for Switch {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::Boolean))
            .item(words(["true", "false", "True", "False", "1", "0"]))
            .description(Some("Whether it is on."))
            .into()
    }
}

impl ToSchema for Switch {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn time(value: Value) -> Option<Duration> {
        Time::try_from(value).ok().map(|Time(time)| time)
    }

    #[test]
    fn times_are_minutes_or_durations() {
        for (value, seconds) in [
            (json!(5), 300.0),
            (json!(0.5), 30.0),
            (json!("5"), 300.0),
            (json!(" 0.5 "), 30.0),
            (json!("1e-1"), 6.0),
            (json!("90s"), 90.0),
            (json!("1h 30m"), 5400.0),
            (json!(0), 0.0),
            (json!("0"), 0.0),
        ] {
            assert_eq!(time(value.clone()), Some(Duration::from_secs_f64(seconds)), "{value}");
        }
        for value in [
            json!(-1),
            json!(52_560_001),
            json!(1e99),
            json!("-1"),
            json!("NaN"),
            json!("inf"),
            json!("1h30"),
            json!("."),
            json!("soon"),
            json!(""),
            json!(true),
            json!(null),
            json!([5]),
        ] {
            assert_eq!(time(value.clone()), None, "{value}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (value, bytes) in
            [(json!(0), 0), (json!(1500), 1500), (json!(2.0), 2), (json!("2KiB"), 2048)]
        {
            assert_eq!(Bytes::try_from(value.clone()), Ok(Bytes(bytes)), "{value}");
        }
        for value in [json!(-1), json!(1.5), json!(1e16), json!("few"), json!(""), json!(null)] {
            assert!(Bytes::try_from(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn what_is_more_than_zero_is_a_time_to_wait() {
        for value in [json!(5e-324), json!(1), json!("0.000001ms")] {
            assert!(NonZeroTime::try_from(value.clone()).is_ok(), "{value}");
        }
        for value in [json!(0), json!(-0.0), json!("0"), json!("0.0s")] {
            assert!(NonZeroTime::try_from(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn null_means_never_and_for_ever() {
        for value in [json!(null), json!("null")] {
            assert_eq!(Limit::try_from(value), Ok(Limit(Duration::ZERO)));
        }
        for value in [json!(null), json!("null"), json!("unlimited")] {
            assert_eq!(Storage::try_from(value), Ok(Storage(FrozenStorage::Unlimited)));
        }
        assert!(Time::try_from(Value::Null).is_err());
    }

    #[test]
    fn the_longest_texts_that_the_pattern_allows_are_read() {
        let fraction = "9".repeat(6);
        let parts = [(4, "d"), (5, "h"), (7, "m"), (9, "s"), (12, "ms")];
        let longest =
            parts.map(|(digits, unit)| format!("{}.{fraction}{unit} ", "9".repeat(digits)));
        for part in &longest {
            assert!(time(json!(part.repeat(3))).is_some(), "{part}");
        }
        assert!(time(json!("9999999.999999")).is_some());
    }
}
