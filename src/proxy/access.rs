//! What the access log says of a request.

use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use http_body::Body as _;

use super::headers::Client;
use super::reply::Body;
use super::{Proxy, route};
use crate::access_log::{self, Line};
use crate::lifecycle::Workspace;

/// How long a request that was answered had to wait; goes with the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited {
    pub(super) hold: Duration,
    pub(super) wake: Option<Duration>,
}

/// The line of a request that has arrived, if it gets one.
pub(super) fn line<B>(
    proxy: &Proxy,
    client: &Client,
    request: &Request<B>,
    id: &HeaderValue,
) -> Option<Box<Line>> {
    let log = proxy.options.access_log.as_ref()?;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Some(Box::new(log.line(access_log::Request {
        request_id: text(id),
        client: client.origin(request.headers(), |address| proxy.trusts(address)),
        method: request.method().to_string(),
        protocol: format!("{:?}", request.version()),
        host: route::host_value(request).as_ref().map(text).unwrap_or_default(),
        path: request.uri().path().to_owned(),
        user_agent: request.headers().get(USER_AGENT).map(text),
    })))
}

/// It is for that workspace.
pub(super) fn note_workspace(line: &mut Option<Box<Line>>, workspace: &Arc<Workspace>) {
    if let Some(line) = line {
        line.answer.workspace = Some(workspace.id().to_string());
    }
}

/// It is answered; the line is written when that has been sent. What became a tunnel has its line at
/// once: it may be open for days.
pub(super) fn answered(line: Option<Box<Line>>, response: &mut Response<Body>) {
    let Some(mut line) = line else { return };
    line.answer.status = response.status().as_u16();
    if let Some(Waited { hold, wake }) = response.extensions_mut().remove() {
        line.answer.hold = Some(hold);
        line.answer.wake = wake;
    }
    match response.body_mut() {
        Body::Workspace(body) => body.note_in(line),
        body @ (Body::Text(_) | Body::Other(_)) => {
            line.answer.bytes = body.size_hint().exact().unwrap_or_default();
        }
    }
}
