//! What a client is told when its request can't be answered by its workspace. The one place where
//! failures become HTTP; nothing internal is in it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;

use super::headers::Unforwardable;
use super::upstream::ResponseBody;
use crate::lifecycle::Refusal;

/// When to try again, where nothing better is known.
const RETRY_SECONDS: u64 = 5;

/// What bodies can fail with; the listener cuts the answer short then, visibly.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// A workspace's.
    Workspace(Box<ResponseBody>),
    /// Our own words.
    Text(Full<Bytes>),
    /// Somebody else's, e.g. the API's.
    Other(UnsyncBoxBody<Bytes, BoxError>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Workspace(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Text(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Other(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Workspace(body) => body.is_end_stream(),
            Self::Text(body) => body.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Workspace(body) => body.size_hint(),
            Self::Text(body) => body.size_hint(),
            Self::Other(body) => body.size_hint(),
        }
    }
}

/// Why a request is not answered by a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// Whom it is for can't be told.
    NoClearHost,
    /// It can't be passed on as it is.
    Unforwardable(Unforwardable),
    /// Its body ended early, or its framing is wrong.
    BadBody,
    /// CONNECT and TRACE are not for workspaces.
    MethodNotAllowed,
    /// `/w/{id}` without its slash.
    AddSlash(String),
    /// The gate did not let it in. With the time until a new try makes sense, where that is known.
    NotLetIn(Refusal, Option<Duration>),
    /// Its workspace waits for room to run, with so many before it.
    Queued(usize),
    /// The workspace is up, but could not be connected to, or broke off before it answered.
    Broken,
    /// An admin stopped the workspace before it answered.
    Stopped,
    /// It did not begin to answer in time.
    Silent,
}

impl Problem {
    pub(super) fn into_response(self) -> Response<Body> {
        use Unforwardable::{Ambiguous, Loop, UnknownEncoding};
        match self {
            Self::NoClearHost => closing(bad_request("The Host of this request is not clear.")),
            Self::Unforwardable(Ambiguous) => {
                closing(bad_request("This request can be read in more than one way."))
            }
            Self::Unforwardable(UnknownEncoding) => closing(text(
                StatusCode::NOT_IMPLEMENTED,
                "The only transfer coding that is understood here is chunked.",
            )),
            Self::Unforwardable(Loop) => {
                text(StatusCode::LOOP_DETECTED, "This request has come back to where it was.")
            }
            Self::BadBody => closing(bad_request("The body of this request is not whole.")),
            Self::MethodNotAllowed => {
                let mut response =
                    text(StatusCode::METHOD_NOT_ALLOWED, "This method is not passed on.");
                let allowed =
                    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
                response.headers_mut().insert(ALLOW, allowed);
                response
            }
            Self::AddSlash(location) => {
                let mut response = text(StatusCode::PERMANENT_REDIRECT, "It is one slash further.");
                if let Ok(location) = HeaderValue::from_str(&location) {
                    response.headers_mut().insert(LOCATION, location);
                }
                response
            }
            Self::NotLetIn(refusal, retry) => not_let_in(&refusal, retry),
            Self::Queued(before) => {
                let words = match before {
                    0 => "All workspaces that may run are in use. This one is next.".to_owned(),
                    before => format!(
                        "All workspaces that may run are in use. {before} others are before this one."
                    ),
                };
                retry_after(text(StatusCode::SERVICE_UNAVAILABLE, &words), RETRY_SECONDS)
            }
            Self::Stopped => {
                let words = "The workspace was stopped before it answered.";
                retry_after(text(StatusCode::SERVICE_UNAVAILABLE, words), RETRY_SECONDS)
            }
            Self::Broken => {
                text(StatusCode::BAD_GATEWAY, "The workspace did not answer this request.")
            }
            Self::Silent => {
                text(StatusCode::GATEWAY_TIMEOUT, "The workspace did not answer in time.")
            }
        }
    }
}

fn not_let_in(refusal: &Refusal, retry: Option<Duration>) -> Response<Body> {
    let (status, words) = match refusal {
        Refusal::Failed { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "The workspace could not be started.")
        }
        Refusal::HeldOff { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The workspace was stopped. It wakes when its page is opened.",
        ),
        Refusal::Full => {
            (StatusCode::SERVICE_UNAVAILABLE, "Too many requests wait for workspaces.")
        }
        Refusal::TimedOut => {
            (StatusCode::GATEWAY_TIMEOUT, "The workspace did not become ready in time.")
        }
        Refusal::Removed => return text(StatusCode::NOT_FOUND, "This workspace is gone."),
    };
    let seconds = retry.map_or(RETRY_SECONDS, |wait| wait.as_secs() + 1);
    retry_after(text(status, words), seconds)
}

fn retry_after(mut response: Response<Body>, seconds: u64) -> Response<Body> {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn bad_request(words: &'static str) -> Response<Body> {
    text(StatusCode::BAD_REQUEST, words)
}

/// What follows on this connection can't be trusted to be where it seems to be.
fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn text(status: StatusCode, words: &str) -> Response<Body> {
    let line = Bytes::from(format!("{} {words}\n", status.as_u16()));
    let mut response = Response::new(Body::Text(Full::new(line)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
