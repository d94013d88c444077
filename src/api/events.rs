//! What happens to workspaces, as it happens: server-sent events.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use utoipa::{IntoParams, ToSchema};

use super::Context;
use super::caller::Caller;
use super::date::Date;
use super::fields::Fields;
use super::reply::{ErrorCode, Problem, Responses, problems};
use crate::clock::Clock;
use crate::lifecycle::{Feed, Happening, What};
use crate::model::{Phase, Tier, WorkspaceId};

/// Followers at a time.
const FOLLOWERS_MAX: usize = 256;

/// After so long a stream ends, and who comes back is asked for a token that is still good.
const STREAM_MAX: Duration = Duration::from_secs(60 * 60);

/// When nothing happens, something is sent all the same: whatever stands in between sees that the
/// stream lives, and a follower who is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const LAST_EVENT_ID: &str = "last-event-id";
/// Some proxies collect what they pass on unless they are told not to.
const NOT_COLLECTED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Which events are wanted.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Those of this workspace alone.
    #[param(example = "alice")]
    workspace: Option<WorkspaceId>,
    /// Those of these kinds alone, with commas between them: `phase`, `check_in`.
    #[param(value_type = Option<String>, pattern = "^(phase|check_in)(,(phase|check_in))*$",
        example = "phase")]
    types: Option<Kinds>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Kinds(Vec<Kind>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Phase,
    CheckIn,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Phase, Self::CheckIn];

    fn of(what: &What) -> Self {
        match what {
            What::Phase { .. } => Self::Phase,
            What::CheckIn { .. } => Self::CheckIn,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Phase => "phase",
            Self::CheckIn => "check_in",
        }
    }
}

impl TryFrom<String> for Kinds {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let kind = |word: &str| {
            let known = Kind::ALL.into_iter().find(|kind| kind.word() == word.trim());
            known.ok_or_else(|| format!("{word:?} is no type: there are phase and check_in"))
        };
        text.split(',').map(kind).collect::<Result<_, _>>().map(Self)
    }
}

/// A phase that a workspace entered, as an event of the type `phase` tells it.
#[derive(Debug, Serialize, ToSchema)]
struct PhaseEvent<'a> {
    at: Date,
    workspace: &'a WorkspaceId,
    phase: Phase,
    tier: Option<Tier>,
    #[schema(examples("a request"))]
    reason: &'a str,
    /// What the wake or the freeze that ended then took, in milliseconds; `null`: none ended.
    #[schema(examples(185))]
    took_ms: Option<u128>,
}

/// A report that differs from the one before, as an event of the type `check_in` tells it.
#[derive(Debug, Serialize, ToSchema)]
struct CheckInEvent<'a> {
    at: Date,
    workspace: &'a WorkspaceId,
    active: bool,
}

/// That there are too many followers.
struct Crowd;

impl utoipa::IntoResponses for Crowd {
    fn responses() -> Responses {
        problems(&[ErrorCode::Unavailable])
    }
}

/// Follow what happens to workspaces.
///
/// Server-sent events of the types `phase`, `check_in`, and `lost`: some were missed, so that how
/// things are has to be read anew. Who sends the last id in `Last-Event-ID` goes on behind it.
#[utoipa::path(
    get,
    path = "/events",
    operation_id = "followEvents",
    tag = "workspaces",
    params(Wanted),
    responses(
        (status = 200, description = "Events, for an hour at most", body = String,
            content_type = "text/event-stream"),
        Crowd,
    )
)]
pub(super) async fn follow(
    State(context): State<Context>,
    caller: Caller,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut query = Fields::of_query(query.as_deref())?;
    let wanted = Wanted { workspace: query.take("workspace")?, types: query.take("types")? };
    let place = context.followers.places.clone().try_acquire_owned();
    let place = place.map_err(|_| Problem::Unavailable)?;
    let feed = context.registry.feed();
    let name = context.followers.name.clone();
    let last = headers.get(LAST_EVENT_ID).map(|id| name.number(id));
    let (next, lost) = match last {
        None => (feed.newest(), false),
        Some(Some(number)) => (number, false),
        Some(None) => (feed.newest(), true),
    };
    let greeting = match lost {
        false => "retry: 1000\n\n".to_owned(),
        true => format!("retry: 1000\n\n{}", lost_events()),
    };
    let follower = Follower {
        name,
        feed,
        caller,
        wanted,
        next,
        until: Instant::now() + STREAM_MAX,
        _place: place,
    };
    let events = stream::unfold((Some(greeting), follower), async |(greeting, mut follower)| {
        let text = match greeting {
            Some(greeting) => greeting,
            None => follower.events().await?,
        };
        Some((Ok::<_, Infallible>(Bytes::from(text)), (None, follower)))
    });
    let mut draining = context.draining.clone();
    // Who comes back finds whoever serves then.
    let ends = async move { drop(draining.wait_for(|draining| *draining).await) };
    let body = Body::from_stream(events.take_until(Box::pin(ends)));
    Ok(([(CONTENT_TYPE, EVENT_STREAM), NOT_COLLECTED], body).into_response())
}

fn lost_events() -> &'static str {
    "event: lost\ndata: {}\n\n"
}

/// Those who follow what happens, as far as there is room for them.
#[derive(Debug)]
pub struct Followers {
    places: Arc<Semaphore>,
    name: FeedName,
}

impl Default for Followers {
    fn default() -> Self {
        let began = Clock::MACHINE.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = FeedName(format!("{:x}", began.as_micros()).into());
        Self { places: Arc::new(Semaphore::new(FOLLOWERS_MAX)), name }
    }
}

/// Tells the ids of this life of the program from those of others.
#[derive(Debug, Clone)]
struct FeedName(Arc<str>);

impl FeedName {
    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.0)
    }

    /// `None`: it is of another life, or none.
    fn number(&self, id: &HeaderValue) -> Option<u64> {
        let (name, number) = id.to_str().ok()?.rsplit_once('-')?;
        number.parse().ok().filter(|_| name == &*self.0)
    }
}

struct Follower {
    name: FeedName,
    feed: Arc<Feed>,
    caller: Caller,
    wanted: Wanted,
    /// The number of the last that was told.
    next: u64,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// What is next to be sent; `None`: it is over.
    async fn events(&mut self) -> Option<String> {
        let events = timeout(KEEP_ALIVE, self.feed.after(self.next));
        let Ok(events) = timeout_at(self.until, events).await else { return None };
        let Ok(events) = events else { return Some(":\n\n".to_owned()) };
        let Some(events) = events else {
            self.next = self.feed.newest();
            return Some(lost_events().to_owned());
        };
        let mut text = String::new();
        for happening in &events {
            self.next = happening.number;
            if self.wants(happening) {
                self.write(&mut text, happening);
            }
        }
        if text.is_empty() {
            text.push_str(":\n\n");
        }
        Some(text)
    }

    fn wants(&self, happening: &Happening) -> bool {
        let Happening { workspace, project, what, .. } = happening;
        let may_see = self.caller.scope.projects().is_none()
            || project.as_ref().is_some_and(|project| self.caller.may_use(project.as_str()));
        may_see
            && self.wanted.workspace.as_ref().is_none_or(|wanted| wanted == workspace)
            && self.wanted.types.as_ref().is_none_or(|kinds| kinds.0.contains(&Kind::of(what)))
    }

    fn write(&self, text: &mut String, happening: &Happening) {
        let Happening { number, at, workspace, what, .. } = happening;
        let at = Date::from(*at);
        let data = match what {
            What::Phase { phase, tier, reason, took } => {
                let took_ms = took.map(|took| took.as_millis());
                let (phase, tier) = (*phase, *tier);
                serde_json::to_string(&PhaseEvent { at, workspace, phase, tier, reason, took_ms })
            }
            What::CheckIn { active } => {
                serde_json::to_string(&CheckInEvent { at, workspace, active: *active })
            }
        };
        let (id, kind) = (self.name.id(*number), Kind::of(what).word());
        // Neither fails: JSON of such values, and a String that is written to.
        let data = data.unwrap_or_default();
        let _ = write!(text, "id: {id}\nevent: {kind}\ndata: {data}\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_another_life_are_known_for_such() {
        let name = FeedName("a1".into());
        let number = |id: &'static str| name.number(&HeaderValue::from_static(id));
        assert_eq!(name.id(7), "a1-7");
        assert_eq!(number("a1-7"), Some(7));
        for other in ["a2-7", "a1-", "7", "", "a1-x", "a1-7-"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
