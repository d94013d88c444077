//! The flags that say a policy, as `create` and `set` take them.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::{duration, size};

/// What is to differ in a policy. Times are such as 90s, 30m or 1h30m.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Policy")]
pub(super) struct PolicyFlags {
    /// Idle time until it is frozen, or removed if it can't be frozen; "never": not by itself
    #[arg(long, value_name = "TIME", value_parser = limit)]
    inactivity_timeout: Option<Value>,
    /// Grace after each start, counted from when it is ready
    #[arg(long, value_name = "TIME", value_parser = time)]
    initial_timeout: Option<Value>,
    /// How long it is kept while it is frozen, then it is removed; 0: it can't be frozen, so idle
    /// means removed; "unlimited": for ever
    #[arg(long, value_name = "TIME", value_parser = storage)]
    max_inactive_storage_time: Option<Value>,
    /// Age at which it is removed, even in use; or "never"
    #[arg(long, value_name = "TIME", value_parser = limit)]
    max_storage_time: Option<Value>,
    /// Whether a freeze frees its memory, or keeps it and wakes in milliseconds
    #[arg(long, value_enum)]
    freeze_mode: Option<FreezeMode>,
    /// A paused workspace is stopped after this long; or "never"
    #[arg(long, value_name = "TIME", value_parser = limit)]
    stop_after: Option<Value>,
    /// Age at which its own report of activity no longer counts; or "never"
    #[arg(long, value_name = "TIME", value_parser = limit)]
    check_in_ttl: Option<Value>,
    /// How long a request may wait for it to be ready
    #[arg(long, value_name = "TIME", value_parser = time)]
    hold_max: Option<Value>,
    /// How long somebody who opens a page waits for it before being shown a waiting page
    #[arg(long, value_name = "TIME", value_parser = time)]
    page_after: Option<Value>,
    /// For how long after a stop only a page that is opened, or a resume, wakes it
    #[arg(long, value_name = "TIME", value_parser = time)]
    stop_hold_off: Option<Value>,
    /// Whether an open WebSocket keeps it awake, or only what passes through it
    #[arg(long, value_enum)]
    connection_activity: Option<ConnectionActivity>,
    /// For traffic: as many bytes within inactivity_timeout are no activity, such as 4KiB
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    idle_bytes: Option<Value>,
    /// Whether it is frozen when idle; off: by a call alone
    #[arg(long, value_enum)]
    monitoring: Option<Switch>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FreezeMode {
    Stop,
    Pause,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ConnectionActivity {
    Open,
    Traffic,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl PolicyFlags {
    /// The fields as the API takes them.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let fields = [
            ("inactivity_timeout", self.inactivity_timeout.clone()),
            ("initial_timeout", self.initial_timeout.clone()),
            ("max_inactive_storage_time", self.max_inactive_storage_time.clone()),
            ("max_storage_time", self.max_storage_time.clone()),
            ("freeze_mode", self.freeze_mode.map(name)),
            ("stop_after", self.stop_after.clone()),
            ("check_in_ttl", self.check_in_ttl.clone()),
            ("hold_max", self.hold_max.clone()),
            ("page_after", self.page_after.clone()),
            ("stop_hold_off", self.stop_hold_off.clone()),
            ("connection_activity", self.connection_activity.map(name)),
            ("idle_bytes", self.idle_bytes.clone()),
            ("monitoring", self.monitoring.map(|switch| Value::from(matches!(switch, Switch::On)))),
        ];
        let said = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        said.collect()
    }
}

fn name(word: impl ValueEnum) -> Value {
    Value::from(word.to_possible_value().map(|value| value.get_name().to_owned()))
}

/// The API reads a bare number as minutes; here it would be anybody's guess.
fn time(text: &str) -> Result<Value, String> {
    match duration::parse(text) {
        Ok(_) => Ok(Value::from(text)),
        Err(_) => Err("expected a time such as 90s, 30m or 1h30m".to_owned()),
    }
}

fn limit(text: &str) -> Result<Value, String> {
    if text == "never" { Ok(Value::from(0)) } else { time(text).map_err(|why| why + ", or never") }
}

fn storage(text: &str) -> Result<Value, String> {
    let unlimited = text == "unlimited";
    if unlimited { Ok(Value::Null) } else { time(text).map_err(|why| why + ", or unlimited") }
}

fn bytes(text: &str) -> Result<Value, String> {
    size::parse(text).map(Value::from).map_err(|invalid| invalid.to_string())
}
