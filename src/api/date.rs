//! Dates, as answers tell them.

use std::time::SystemTime;

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::clock::{Clock, rfc3339};

/// A date as RFC 3339 has it, in UTC and with milliseconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2026-11-20T10:20:37.125Z"))]
pub(super) struct Date(String);

impl From<Instant> for Date {
    fn from(moment: Instant) -> Self {
        Self(Clock::MACHINE.rfc3339(moment))
    }
}

impl From<SystemTime> for Date {
    fn from(date: SystemTime) -> Self {
        Self(rfc3339(date))
    }
}
