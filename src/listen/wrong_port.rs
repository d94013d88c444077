//! Clients that speak plain HTTP where TLS is spoken, and the other way round.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::{Options, http1, within};

const WORDS: &str =
    "400 This port speaks HTTPS; begin the address with https:// instead of http://.\n";
/// Tells a client that has sent a plain request to a TLS port what to do.
pub(super) async fn refuse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    options: &Options,
    draining: &mut watch::Receiver<bool>,
) -> io::Result<()> {
    let service = service_fn(async |_| {
        let mut response = Response::new(Full::new(Bytes::from_static(WORDS.as_bytes())));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok::<_, Infallible>(response)
    });
    let connection =
        http1(options).keep_alive(false).serve_connection(TokioIo::new(stream), service);
    // Its head has the same time as every other one, and the rest goes at once.
    let limit = options.header_timeout;
    within(limit, draining, async { connection.await.map_err(io::Error::other) }).await
}

/// Ends a connection so that its client sees an end: to a bare close with bytes left unread the
/// system would add a reset, and nothing before it.
pub(super) async fn hang_up(mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
    stream.shutdown().await
}
