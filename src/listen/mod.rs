//! Connections: accepting them, TLS, telling HTTP/1 from HTTP/2, and ending them in good order.
//!
//! A listener belongs to one thread and all its connections stay on that thread, so the data plane
//! is as many independent servers as there are cores, which the kernel deals connections to
//! (`SO_REUSEPORT`). What is served is for the caller to say; this knows no workspaces.

mod accept;
mod calm;
mod clients;
mod cut;
pub mod guard;
mod hang_up;
mod pace;
mod proxy_protocol;
mod sniff;
mod stream;
mod streams;
pub mod tls;
mod wrong_port;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub use accept::{bind, bind_local, serve, serve_local};
use calm::Calm;
pub use clients::Clients;
use guard::{Answers, Guarded};
pub use hang_up::HangUp;
use hang_up::Watched;
use pace::Paced;
use sniff::{First, Protocol, Sniffed};
use stream::Stream;
use streams::Streams;
use tls::{Session, Tls};

/// Most request headers: what nginx and Apache allow is about a hundred.
pub const HEADERS_MAX: usize = 100;
/// Largest request head over HTTP/1, and largest header list over HTTP/2.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Streams that one HTTP/2 connection may have at a time.
const STREAMS_MAX: u32 = 200;
/// What waits to be sent on one stream. All streams of a connection may have clients that take nothing.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Streams that a client may have reset and we have not forgotten yet (CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 50;
/// Silence on an HTTP/2 connection after which it is asked whether it lives, and the time that it
/// has to answer.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(20);

/// How long a connection may take to its first request when no more are accepted.
const FIRST_REQUEST_MAX: Duration = Duration::from_millis(500);
/// How long an HTTP/1 connection is still listened to when no more are accepted. A client that has
/// just been answered may be sending its next request, which would be lost if it met a closed
/// connection; what comes in time is answered, and told that it was the last one.
const LAST_REQUEST_MAX: Duration = Duration::from_millis(250);

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Limits on connections.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a client may be silent after it has connected, and again after a TLS handshake.
    pub first_byte_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long the head of a request may take, and a connection may idle between two.
    pub header_timeout: Duration,
    /// How long a client may take nothing of what it is sent.
    pub send_timeout: Duration,
    /// Who begins every connection with the PROXY protocol.
    pub proxy_protocol: Vec<IpNet>,
    /// `None`: a client may have as many connections as there are.
    pub clients: Option<Arc<Clients>>,
}

/// A socket that listens, and what connections to it begin with.
#[derive(Debug)]
pub struct Listener {
    /// Bound by [`bind`].
    pub socket: std::net::TcpListener,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
}

/// Who is connected to whom, and how.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The client, or the last proxy before us.
    pub peer: SocketAddr,
    /// Us.
    pub local: SocketAddr,
    /// Of a connection by a Unix socket, which has no addresses: whose process is at its other end,
    /// as the system vouches. `None`: it came by TCP.
    pub user: Option<u32>,
    /// What was agreed on in the TLS handshake; `None`: plain HTTP.
    pub tls: Option<Rc<Session>>,
    /// Tells of the client's leaving while a request's body is not read; never where the protocol
    /// tells of that itself.
    pub hang_up: HangUp,
}

/// What serves the requests of a connection.
pub trait Serve: 'static {
    /// What is remembered about a client for as long as its connection lasts.
    type Client: 'static;

    /// What bodies of answers are.
    type Body: Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + 'static;

    /// Meets a client that has connected.
    fn meet(&self, ends: Ends) -> Self::Client;

    /// Answers one of its requests.
    fn answer(
        self: Rc<Self>,
        client: Rc<Self::Client>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>>;

    /// The time for what is under way is over: ends it, as well as it can be ended.
    fn close(&self);
}

/// Serves one connection until it ends. When `draining` turns true it ends after the requests that
/// are under way.
async fn connection<S: Serve>(
    mut stream: TcpStream,
    mut ends: Ends,
    tls: Option<&Tls>,
    served: Rc<S>,
    options: &Options,
    mut draining: watch::Receiver<bool>,
) -> io::Result<()> {
    let peer = ends.peer.ip().to_canonical();
    if options.proxy_protocol.iter().any(|balancers| balancers.contains(&peer)) {
        let client = proxy_protocol::client(&mut stream);
        let client = within(options.first_byte_timeout, &mut draining, client).await;
        let client = client.inspect_err(|error| tracing::warn!(%peer, %error, "not let in"))?;
        ends.peer = client.unwrap_or(ends.peer);
    }
    let _admitted = match &options.clients {
        Some(clients) => Some(clients.admit(ends.peer.ip()).ok_or_else(has_too_many)?),
        None => None,
    };
    let first = Sniffed::read(stream);
    let (said, stream) = within(options.first_byte_timeout, &mut draining, first).await?;
    match (said, tls) {
        (First::Http(protocol), None) => {
            http(protocol, stream, ends, served, options, draining).await;
            Ok(())
        }
        // Apart, so that plain connections need no room for it.
        (First::Tls, Some(tls)) => {
            Box::pin(over_tls(stream, ends, tls, served, options, draining)).await
        }
        (First::Http(Protocol::Http1), Some(_)) => {
            Box::pin(wrong_port::refuse(stream, options, &mut draining)).await
        }
        (First::Http(Protocol::Http2), Some(_)) | (First::Tls, None) => {
            wrong_port::hang_up(stream).await
        }
    }
}

/// The same for one from this machine, by a Unix socket: no balancer is in front of it, and nobody on
/// the way.
async fn local_connection<S: Serve>(
    stream: UnixStream,
    ends: Ends,
    served: Rc<S>,
    options: &Options,
    mut draining: watch::Receiver<bool>,
) -> io::Result<()> {
    let first = Sniffed::read(stream);
    let (said, stream) = within(options.first_byte_timeout, &mut draining, first).await?;
    match said {
        First::Http(protocol) => http(protocol, stream, ends, served, options, draining).await,
        First::Tls => wrong_port::hang_up(stream).await?,
    }
    Ok(())
}

fn has_too_many() -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, "its client has too many connections")
}

async fn over_tls<S: Serve>(
    stream: Sniffed<TcpStream>,
    mut ends: Ends,
    tls: &Tls,
    served: Rc<S>,
    options: &Options,
    mut draining: watch::Receiver<bool>,
) -> io::Result<()> {
    let handshake = tls.accept(stream);
    let (stream, session) = within(options.handshake_timeout, &mut draining, handshake).await?;
    let first = Sniffed::read(stream);
    let (said, stream) = within(options.first_byte_timeout, &mut draining, first).await?;
    if let First::Http(protocol) = said
        && session.allows(protocol)
    {
        ends.tls = Some(Rc::new(session));
        http(protocol, stream, ends, served, options, draining).await;
    }
    Ok(())
}

/// Takes a step towards the first request, in its time. When `draining` is true, that is short:
/// nobody has asked for anything yet.
async fn within<T>(
    limit: Duration,
    draining: &mut watch::Receiver<bool>,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let no_longer = async {
        // An error means that the sender is gone, which means the same.
        drop(draining.wait_for(|draining| *draining).await);
        sleep(FIRST_REQUEST_MAX).await;
    };
    tokio::select! {
        biased;
        done = timeout(limit, step) => done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        () = no_longer => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Serves the requests of a connection.
async fn http<S: Serve>(
    protocol: Protocol,
    stream: impl Stream,
    ends: Ends,
    served: Rc<S>,
    options: &Options,
    draining: watch::Receiver<bool>,
) {
    let stream = Watched::new(stream, &ends.hang_up);
    let client = Rc::new(served.meet(ends));
    let answers = Arc::new(Answers::default());
    let stream = Paced::new(stream, options.send_timeout, answers.clone());
    match protocol {
        Protocol::Http1 => {
            let stream = Guarded::new(stream, answers.clone());
            serve_http1(stream, client, served, &answers, options, draining).await;
        }
        Protocol::Http2 => {
            serve_http2(Calm::new(stream), client, served, options, draining).await;
        }
    }
}

// How a connection ends is its client's affair: hyper's errors are clients that left, and answers
// that could not be finished.

async fn serve_http1<S: Serve>(
    stream: Guarded<impl Stream>,
    client: Rc<S::Client>,
    served: Rc<S>,
    answers: &Answers,
    options: &Options,
    draining: watch::Receiver<bool>,
) {
    let (unframed, is_last) = (Cell::new(false), Cell::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let (served, client) = (served.clone(), client.clone());
        let is_old = request.version() < Version::HTTP_11;
        let (unframed, is_last) = (&unframed, &is_last);
        async move {
            let mut response = served.answer(client, request).await;
            let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            answers.add(switches);
            unframed.set(is_old && response.body().size_hint().exact().is_none());
            if is_last.get() && !switches {
                response.headers_mut().insert(CONNECTION, CLOSE);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1(options).serve_connection(TokioIo::new(stream), service);
    let mut connection = connection.with_upgrades();
    let last_request = async {
        no_more(draining).await;
        is_last.set(true);
        sleep(LAST_REQUEST_MAX).await;
    };
    let ended = until_drained(Pin::new(&mut connection), last_request, |connection| {
        connection.graceful_shutdown();
    });
    let ended = ended.await;
    let Some(parts) = connection.into_parts() else { return };
    let stream = parts.io.into_inner();
    let is_over = stream.is_over();
    let stream = stream.into_inner();
    if ended.as_ref().is_err_and(hyper::Error::is_user) {
        cut::cut(stream, unframed.get()).await;
    } else if is_over || ended.is_err_and(|error| error.is_parse()) {
        // What is left of it is not read, and must not take the refusal away.
        cut::cut(stream, false).await;
    }
}

async fn serve_http2<S: Serve>(
    stream: Calm<impl Stream>,
    client: Rc<S::Client>,
    served: Rc<S>,
    options: &Options,
    draining: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let (served, client) = (served.clone(), client.clone());
        async move {
            let response = served.answer(client, request).await;
            Ok::<_, Infallible>(streams::noted(response))
        }
    });
    let streams = Streams::new(options.send_timeout);
    let connection = hyper::server::conn::http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        // WebSockets (RFC 8441).
        .enable_connect_protocol()
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // GOAWAY twice: what crosses with the first is served (RFC 9113 §6.8).
    let ended = until_drained(connection.as_mut(), no_more(draining), |connection| {
        connection.graceful_shutdown();
    });
    let is_idle = tokio::select! {
        _ = ended => false,
        () = streams.idle(options.header_timeout) => true,
    };
    if is_idle {
        connection.as_mut().graceful_shutdown();
        // A client that neither takes the goodbye nor leaves is left.
        drop(timeout(options.send_timeout, connection).await);
    }
}

fn http1(options: &Options) -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX);
    builder
}

/// Waits until no more connections are accepted.
async fn no_more(mut draining: watch::Receiver<bool>) {
    // An error means that the sender is gone, which means the same.
    drop(draining.wait_for(|draining| *draining).await);
}

/// Lets a connection go on until it ends; once `drained`, until it has no more requests.
async fn until_drained<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    drained: impl Future<Output = ()>,
    shut_down: impl Fn(Pin<&mut C>),
) -> hyper::Result<()> {
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drained => {
            shut_down(connection.as_mut());
            connection.await
        }
    };
    ended.inspect_err(|error| tracing::trace!(%error, "a connection ended early"))
}
