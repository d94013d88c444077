//! What the page hears: server-sent events, for as long as it is open.
//!
//! First `hello`, which says who watches and what time it is here; then `rows`, with all that there
//! are; then `rows` again with those alone that are new, at once when a phase changes and otherwise
//! every second, and `phase` with what a change was for. `bye` says that the session has ended. A page
//! that loses the connection asks again and is told everything anew, so nothing has to be repeated.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use super::board::{Board, News, Seat};
use super::row::Date;
use super::{Door, Options, Viewer};
use crate::lifecycle::{self, Happening, What};
use crate::model::{Phase, ProjectId, PublicUrl, Tier, WorkspaceId};

/// How often it is looked for what is new.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What happens within this time is told together.
const GATHER: Duration = Duration::from_millis(50);
/// How often something is sent when nothing is new, so that the page knows that we are there.
const BEAT_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked whether the viewer may still look.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Changes that are told one by one. Where more come at once, the rows say it all.
const PHASES_MAX: usize = 100;

/// Proxies that buffer answers are asked not to.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Lets somebody watch who may.
pub(super) async fn answer(State(options): State<Options>, request: Request) -> Response {
    let Options { board, door, public_url, draining } = options;
    let (head, _) = request.into_parts();
    let viewer = match door(head.clone()).await {
        Ok(viewer) => viewer,
        Err(refusal) => return refusal,
    };
    let Some(seat) = board.take_seat() else {
        let words = "Too many people are watching. Please try again in a moment.\n";
        let retry = [(RETRY_AFTER, HeaderValue::from_static("5"))];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, words).into_response();
    };
    let now = Instant::now();
    let happenings = board.happenings();
    let feed = Feed {
        heard: happenings.newest(),
        happenings,
        said: vec![hello(&viewer, &public_url, board.now())],
        board,
        seat,
        door,
        head,
        viewer,
        draining,
        told: 0,
        look_at: now,
        check_at: now + CHECK_EVERY,
        beat_at: now + BEAT_EVERY,
    };
    let events = stream::unfold(Some(feed), |feed| async {
        let (events, feed) = feed?.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(events)), feed))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

struct Feed {
    board: Arc<Board>,
    #[expect(dead_code, reason = "it is held while this is")]
    seat: Seat,
    door: Door,
    /// What the viewer came with, to be shown at the door again.
    head: Parts,
    viewer: Viewer,
    draining: watch::Receiver<bool>,
    happenings: Arc<lifecycle::Feed>,
    /// Up to which number of them.
    heard: u64,
    /// Events that are to be sent.
    said: Vec<String>,
    /// Up to which version of the board.
    told: u64,
    look_at: Instant,
    check_at: Instant,
    beat_at: Instant,
}

/// What there is to be done.
enum Heard {
    TheEnd,
    /// `None`: more than is remembered.
    Happened(Option<Vec<Arc<Happening>>>),
    NothingForAWhile,
}

/// Who watches what.
#[derive(Serialize)]
struct Hello<'a> {
    now: Date,
    version: &'static str,
    name: &'a str,
    scope: &'static str,
    may_change: bool,
    /// Where a workspace is, with `{id}` for its id.
    url: String,
}

fn hello(viewer: &Viewer, public_url: &PublicUrl, now: Date) -> String {
    let domain = format!("{{id}}.{}", public_url.domain);
    let hello = Hello {
        now,
        version: env!("CARGO_PKG_VERSION"),
        name: &viewer.name,
        scope: viewer.scope,
        may_change: viewer.may_change,
        url: format!("{}/", PublicUrl { domain, ..public_url.clone() }),
    };
    event("hello", &hello)
}

/// A workspace has entered a phase.
#[derive(Serialize)]
struct PhaseEntered<'a> {
    id: &'a WorkspaceId,
    phase: &'a Phase,
    tier: &'a Option<Tier>,
    reason: &'a str,
    took_ms: Option<u128>,
}

#[derive(Serialize)]
struct Beat {
    now: Date,
}

/// JSON has no line breaks, which would end the event.
fn event(name: &str, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).expect("events are of texts and numbers");
    format!("event: {name}\ndata: {data}\n\n")
}

impl Feed {
    /// The next events, and who hears those after them, if there are any.
    async fn next(mut self) -> Option<(String, Option<Self>)> {
        while self.said.is_empty() {
            match self.hear().await {
                Heard::TheEnd => return None,
                Heard::Happened(happened) => self.tell(happened).await?,
                Heard::NothingForAWhile => {
                    self.look(Vec::new()).await?;
                    self.look_at = Instant::now() + LOOK_EVERY;
                }
            }
            if Instant::now() >= self.check_at && !self.may_look().await {
                return Some((event("bye", &Beat { now: self.board.now() }), None));
            }
            if self.said.is_empty() && Instant::now() >= self.beat_at {
                self.said.push(event("beat", &Beat { now: self.board.now() }));
            }
        }
        self.beat_at = Instant::now() + BEAT_EVERY;
        let events = std::mem::take(&mut self.said).concat();
        Some((events, Some(self)))
    }

    async fn hear(&mut self) -> Heard {
        // An error means that the program is gone, which means the same.
        let draining = async { drop(self.draining.wait_for(|draining| *draining).await) };
        let happened = async {
            drop(self.happenings.after(self.heard).await);
            // Others often come with it.
            sleep(GATHER).await;
            self.happenings.after(self.heard).await
        };
        tokio::select! {
            () = draining => Heard::TheEnd,
            happened = happened => Heard::Happened(happened),
            () = sleep_until(self.look_at) => Heard::NothingForAWhile,
        }
    }

    /// Tells of what happened. `None`: there will be no more.
    async fn tell(&mut self, happened: Option<Vec<Arc<Happening>>>) -> Option<()> {
        let Some(happened) = happened else {
            // The next look finds what became of it.
            self.heard = self.happenings.newest();
            return Some(());
        };
        self.heard = happened.last().map_or(self.heard, |last| last.number);
        self.look(happened.iter().map(|one| one.workspace.clone()).collect()).await?;
        for one in happened.iter().skip(happened.len().saturating_sub(PHASES_MAX)) {
            let project = one.project.as_ref().map(ProjectId::as_str);
            if let What::Phase { phase, tier, reason, took } = &one.what
                && self.viewer.sees(project)
            {
                let took_ms = took.map(|took| took.as_millis());
                let entered = PhaseEntered { id: &one.workspace, phase, tier, reason, took_ms };
                self.said.push(event("phase", &entered));
            }
        }
        Some(())
    }

    /// Looks for what is new, beside the thread that serves requests. `None`: the program ends.
    async fn look(&mut self, ids: Vec<WorkspaceId>) -> Option<()> {
        let (board, viewer, told) = (self.board.clone(), self.viewer.clone(), self.told);
        let look = spawn_blocking(move || match &*ids {
            [] => board.news(&viewer, told),
            ids => board.news_of(ids, &viewer, told),
        });
        let News { version, text } = look.await.ok()?;
        self.told = version;
        self.said.extend(text.map(|text| format!("event: rows\ndata: {text}\n\n")));
        Some(())
    }

    /// Whether the viewer is who they were, and may look.
    async fn may_look(&mut self) -> bool {
        self.check_at = Instant::now() + CHECK_EVERY;
        (self.door)(self.head.clone()).await.is_ok_and(|viewer| viewer == self.viewer)
    }
}
