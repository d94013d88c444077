//! The waiting page: what somebody sees who opens a workspace that takes its time.
//!
//! It says how far the workspace is, hears of what is new over [`events`], and loads itself again
//! when the workspace is there; without JavaScript it does so every few seconds. It looks like
//! [`template`] says. The page and its events are ours: they are no activity and wake nobody, and
//! their place, [`RESERVED`], is never passed on, so that no workspace can stand in front of it.
//!
//! Nothing that comes with a request is on it, and nothing that is for admins only.

mod events;
mod template;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use tokio::time::Instant;

use super::reply::Body;
use crate::lifecycle::{Progress, Workspace};

pub(super) use events::answer;
pub use template::Template;

/// What is below this path is answered here, on every host of a workspace.
pub(super) const RESERVED: &str = "/.well-known/frostgate/";
/// Where the page hears of what is new.
const EVENTS: &str = "/.well-known/frostgate/wake";

/// How often a browser without JavaScript looks again, and what programs are told.
const REFRESH_SECONDS: u64 = 5;

/// What is to be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Sight {
    /// For templates and scripts: `preparing`, `queued`, `waking`, `ready`, `failed`, `asleep`,
    /// `full` or `gone`.
    state: &'static str,
    title: String,
    text: Cow<'static, str>,
    /// What can be done, as the words on a button; empty: nothing but wait.
    action: &'static str,
    /// Whether something goes on, so that waiting leads somewhere.
    busy: bool,
    /// For how long it is being woken.
    elapsed_ms: u64,
    /// How long that takes usually; 0: nobody knows.
    usual_ms: u64,
    /// When the action makes sense.
    retry_ms: u64,
}

impl Sight {
    /// How far a workspace is, in words.
    pub(super) fn of(name: &str, progress: Progress) -> Self {
        let now = Instant::now();
        let waking = |state, text| Self {
            state,
            title: format!("{name} is waking up"),
            text,
            action: "",
            busy: true,
            elapsed_ms: 0,
            usual_ms: 0,
            retry_ms: 0,
        };
        match progress {
            Progress::Preparing => {
                waking("preparing", "It was put to sleep while nobody was here.".into())
            }
            Progress::Queued { before } => waking("queued", in_queue(before)),
            Progress::Waking { since, usual } => Self {
                elapsed_ms: milliseconds(now.saturating_duration_since(since)),
                usual_ms: usual.map_or(0, milliseconds),
                ..waking("waking", usual.map_or("This takes a moment.".into(), usually))
            },
            Progress::Ready => waking("ready", "It is ready.".into()),
            Progress::Failed { retry_at } => Self {
                retry_ms: milliseconds(retry_at.saturating_duration_since(now)),
                ..still(
                    "failed",
                    format!("{name} could not be started"),
                    "Please try again in a moment. If it keeps failing, tell the people who run it.",
                )
            },
            Progress::Asleep => Self {
                action: "Wake it up",
                ..still("asleep", format!("{name} is asleep"), "Nobody was here for a while.")
            },
            Progress::Gone => {
                Self { action: "", ..still("gone", format!("{name} is gone"), "It was removed.") }
            }
        }
    }

    /// More people wait than may wait.
    pub(super) fn full(name: &str) -> Self {
        let words = "Many people are waiting just now. Please try again in a moment.";
        Self {
            retry_ms: milliseconds(Duration::from_secs(REFRESH_SECONDS)),
            ..still("full", format!("{name} has to wait"), words)
        }
    }

    /// When to try again, in seconds.
    fn retry_seconds(&self) -> u64 {
        if self.busy { REFRESH_SECONDS } else { self.retry_ms.div_ceil(1_000).max(1) }
    }
}

fn still(state: &'static str, title: String, text: &'static str) -> Sight {
    Sight {
        state,
        title,
        text: text.into(),
        action: "Try again",
        busy: false,
        elapsed_ms: 0,
        usual_ms: 0,
        retry_ms: 0,
    }
}

fn in_queue(before: usize) -> Cow<'static, str> {
    match before {
        0 => "All places are taken. It gets the next one that is free.".into(),
        1 => "All places are taken. One other is before it.".into(),
        before => format!("All places are taken. {before} others are before it.").into(),
    }
}

fn usually(time: Duration) -> Cow<'static, str> {
    match time.as_secs_f64().round() as u64 {
        0 | 1 => "This usually takes about a second.".into(),
        seconds @ 2..90 => format!("This usually takes about {seconds} seconds.").into(),
        seconds => format!("This usually takes about {} minutes.", (seconds + 30) / 60).into(),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The page. `prefix`: what the workspace's paths begin with on this host.
pub(super) fn page(
    template: &Template,
    workspace: &Workspace,
    prefix: Option<&str>,
    sight: &Sight,
) -> Response<Body> {
    let mut random = [0; 16];
    // Without one the page is shown all the same, and looks plain: no two are alike.
    let nonce = getrandom::fill(&mut random)
        .map(|()| random.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        .unwrap_or_default();
    let html = template.render(&template::Context {
        name: workspace.id().as_str(),
        sight,
        events: &format!("{}{EVENTS}", prefix.unwrap_or_default()),
        refresh: sight.busy.then_some(REFRESH_SECONDS),
        nonce: &nonce,
        lang: "en",
    });
    let mut response = Response::new(Body::Text(Full::new(Bytes::from(html))));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
         img-src data:; font-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(RETRY_AFTER, HeaderValue::from(sight.retry_seconds()));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_fit_the_numbers() {
        let queued = |before| Sight::of("a", Progress::Queued { before }).text;
        assert!(queued(0).ends_with("the next one that is free."));
        assert!(queued(1).contains("One other is"));
        assert!(queued(7).contains("7 others are"));
        let rows = [(400, "a second"), (8_400, "8 seconds"), (89_000, "89 seconds")];
        for (time, words) in rows.into_iter().chain([(95_000, "2 minutes")]) {
            assert!(usually(Duration::from_millis(time)).contains(words), "{time}");
        }
    }
}
