//! What a waiting page hears: server-sent events, one for each that is new.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::{EVENTS, Sight};
use crate::lifecycle::{Onlooker, Refusal, Workspace};
use crate::proxy::reply::{Body, Problem};
use std::sync::Arc;

/// How long a page is told of what is new; then its browser asks again, if it is still there.
const LISTEN_MAX: Duration = Duration::from_secs(5 * 60);
/// How often something is sent when nothing is new, so that nobody takes it for a dead connection.
const BEAT_EVERY: Duration = Duration::from_secs(15);

/// Proxies that buffer answers are asked not to.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Answers a request for something of ours at a workspace's host; `path` is below [`super::RESERVED`].
pub(in crate::proxy) fn answer<B>(
    request: &Request<B>,
    path: &str,
    workspace: &Arc<Workspace>,
    mut draining: watch::Receiver<bool>,
) -> Result<Response<Body>, Problem> {
    if path != EVENTS {
        return Err(Problem::NothingThere);
    }
    if request.method() != Method::GET {
        return Err(Problem::OnlyGet);
    }
    let onlooker = workspace.look_on();
    let onlooker = onlooker.map_err(|refusal: Refusal| Problem::NotLetIn(refusal, None))?;
    let listener =
        Listener { onlooker, name: workspace.id().to_string(), until: Instant::now() + LISTEN_MAX };
    let events = stream::unfold(Some(listener), |listener| async {
        let (event, listener) = listener?.next().await?;
        Some((Ok(Frame::data(Bytes::from(event))), listener))
    });
    // Its browser comes back by itself, and finds whoever serves then.
    let ends = async move { drop(draining.wait_for(|draining| *draining).await) };
    let events = events.take_until(Box::pin(ends));
    let mut response = Response::new(Body::Other(StreamBody::new(events).boxed_unsync()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

struct Listener {
    onlooker: Onlooker,
    name: String,
    until: Instant,
}

impl Listener {
    /// The next event, and who hears the one after it, if there is one.
    async fn next(mut self) -> Option<(String, Option<Self>)> {
        let news = timeout_at(self.until, timeout(BEAT_EVERY, self.onlooker.next()));
        match news.await {
            Ok(Ok(progress)) => {
                let sight = Sight::of(&self.name, progress);
                // JSON has no line breaks, which would end the event.
                let data = serde_json::to_string(&sight).ok()?;
                let goes_on = sight.busy && sight.state != "ready";
                Some((format!("data: {data}\n\n"), goes_on.then_some(self)))
            }
            Ok(Err(_)) => Some((": still here\n\n".to_owned(), Some(self))),
            Err(_) => None,
        }
    }
}
