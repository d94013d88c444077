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

/// The same where others need only finish.
const CROWDED_RETRY_SECONDS: u64 = 1;
/// The same for what wakes nobody: it has to wait for somebody else.
const FROZEN_RETRY_SECONDS: u64 = 60;

/// What bodies can fail with; the listener cuts the answer short then, visibly.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

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
            Self::Workspace(body) => Pin::new(body).poll_frame(context),
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
    /// It came too slowly for its workspace to wait for.
    SlowBody,
    /// As many are inside the workspace as may be.
    Crowded,
    /// CONNECT and TRACE are not for workspaces.
    MethodNotAllowed,
    /// It is for a host that its connection is not good for.
    Misdirected,
    /// It came by plain HTTP; this is its place by HTTPS.
    OnlyByHttps(String),
    /// `/w/{id}` without its slash.
    AddSlash(String),
    /// It is one that wakes nobody, and its workspace does not run.
    WakesNobody,
    /// It waited, and its client has gone.
    ClientLeft,
    /// It is for something of ours that there is not.
    NothingThere,
    /// It is for something of ours that can be read only.
    OnlyGet,
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
    /// It is a call that waited until its own deadline.
    DeadlinePassed,
    /// It asks for a WebSocket, and its workspace speaks HTTP/2.
    NoWebSockets,
}

impl Problem {
    /// The answer by HTTP.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = self.told();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let status = response.status().as_u16();
        response.map(|words| Body::Text(Full::new(Bytes::from(format!("{status} {words}\n")))))
    }

    /// The same as a status, what goes with it, and words.
    pub(super) fn told(self) -> Response<String> {
        use Unforwardable::{Ambiguous, Loop, TooManyFields, UnknownEncoding};
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
            Self::Unforwardable(TooManyFields) => text(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "This request has too many header fields.",
            ),
            Self::BadBody => closing(bad_request("The body of this request is not whole.")),
            Self::SlowBody => closing(text(
                StatusCode::REQUEST_TIMEOUT,
                "The body of this request came too slowly.",
            )),
            Self::Crowded => {
                let words = "As many requests are inside the workspace as may be.";
                retry_after(text(StatusCode::SERVICE_UNAVAILABLE, words), CROWDED_RETRY_SECONDS)
            }
            Self::MethodNotAllowed => {
                let mut response =
                    text(StatusCode::METHOD_NOT_ALLOWED, "This method is not passed on.");
                let allowed =
                    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
                response.headers_mut().insert(ALLOW, allowed);
                response
            }
            Self::Misdirected => text(
                StatusCode::MISDIRECTED_REQUEST,
                "The certificate of this connection is not for this host; open another one.",
            ),
            Self::OnlyByHttps(location) => moved("It is at the same place by HTTPS.", &location),
            Self::AddSlash(location) => moved("It is one slash further.", &location),
            Self::WakesNobody => {
                let words = "The workspace is frozen, and this request does not wake it.";
                retry_after(text(StatusCode::SERVICE_UNAVAILABLE, words), FROZEN_RETRY_SECONDS)
            }
            Self::ClientLeft => closing(bad_request("The client has hung up.")),
            Self::NothingThere => text(StatusCode::NOT_FOUND, "There is nothing here."),
            Self::OnlyGet => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "This can be read only.");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
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
            Self::DeadlinePassed => {
                let words = "The workspace did not become ready before the call's deadline.";
                text(StatusCode::GATEWAY_TIMEOUT, words)
            }
            Self::NoWebSockets => text(
                StatusCode::NOT_IMPLEMENTED,
                "The workspace speaks HTTP/2, over which it is passed no WebSockets.",
            ),
        }
    }
}

fn moved(words: &'static str, location: &str) -> Response<String> {
    let mut response = text(StatusCode::PERMANENT_REDIRECT, words);
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn not_let_in(refusal: &Refusal, retry: Option<Duration>) -> Response<String> {
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

fn retry_after(mut response: Response<String>, seconds: u64) -> Response<String> {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn bad_request(words: &'static str) -> Response<String> {
    text(StatusCode::BAD_REQUEST, words)
}

/// What follows on this connection can't be trusted to be where it seems to be.
fn closing(mut response: Response<String>) -> Response<String> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn text(status: StatusCode, words: &str) -> Response<String> {
    let mut response = Response::new(words.to_owned());
    *response.status_mut() = status;
    response
}
