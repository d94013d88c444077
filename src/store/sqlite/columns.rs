//! How values stand in columns: so that an operator can read the file, and SQL can compare dates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use serde::Serialize;
use serde::de::value::{Error as WordError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};

/// An enum without fields, as its word.
pub(super) struct Word<T>(pub(super) T);

/// Anything else that has an inside, as JSON.
pub(super) struct Json<T>(pub(super) T);

/// Milliseconds since 1970, less than none before it.
pub(super) struct Date(pub(super) SystemTime);

/// Milliseconds.
pub(super) struct Milliseconds(pub(super) Duration);

impl<T: Serialize> ToSql for Word<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match serde_json::to_value(&self.0).map_err(unwritable)? {
            serde_json::Value::String(word) => Ok(word.into()),
            other => Err(unwritable(format!("{other} is not a word"))),
        }
    }
}

impl<T: DeserializeOwned> FromSql for Word<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let word: StrDeserializer<'_, WordError> = value.as_str()?.into_deserializer();
        T::deserialize(word).map(Self).map_err(FromSqlError::other)
    }
}

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(serde_json::to_string(&self.0).map_err(unwritable)?.into())
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}

impl ToSql for Date {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let milliseconds = match self.0.duration_since(UNIX_EPOCH) {
            Ok(after) => whole_milliseconds(after),
            Err(before) => -whole_milliseconds(before.duration()),
        };
        Ok(milliseconds.into())
    }
}

impl FromSql for Date {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let milliseconds = value.as_i64()?;
        let distance = Duration::from_millis(milliseconds.unsigned_abs());
        let date = if milliseconds < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        };
        date.map(Self).ok_or(FromSqlError::OutOfRange(milliseconds))
    }
}

impl ToSql for Milliseconds {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(whole_milliseconds(self.0).into())
    }
}

impl FromSql for Milliseconds {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let milliseconds = value.as_i64()?;
        let milliseconds =
            u64::try_from(milliseconds).map_err(|_| FromSqlError::OutOfRange(milliseconds))?;
        Ok(Self(Duration::from_millis(milliseconds)))
    }
}

/// Longer than 292 million years counts as that.
fn whole_milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn unwritable(
    error: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.into())
}
