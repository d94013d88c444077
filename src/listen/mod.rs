//! Connections: accepting them, telling HTTP/1 from HTTP/2, and ending them in good order.
//!
//! A listener belongs to one thread and all its connections stay on that thread, so the data plane
//! is as many independent servers as there are cores, which the kernel deals connections to
//! (`SO_REUSEPORT`). What is served is for the caller to say; this knows no workspaces.

mod accept;
mod cut;
mod sniff;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

pub use accept::{bind, serve};
use sniff::{Protocol, Sniffed};

/// Most request headers: what nginx and Apache allow is about a hundred.
const HEADERS_MAX: usize = 100;
/// Largest request head over HTTP/1, and largest header list over HTTP/2.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Streams that one HTTP/2 connection may have at a time.
const STREAMS_MAX: u32 = 200;
/// Streams that a client may have reset and we have not forgotten yet (CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 50;
/// Silence on an HTTP/2 connection after which it is asked whether it lives, and the time that it
/// has to answer.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(20);

/// Limits on connections.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a client may be silent after it has connected.
    pub first_byte_timeout: Duration,
    /// How long the head of a request may take, and a connection may idle between two.
    pub header_timeout: Duration,
    /// Connections at a time, on this thread. More wait in the kernel's queue.
    pub connections_max: usize,
}

/// Who is connected to whom.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The client, or the last proxy before us.
    pub peer: SocketAddr,
    /// Us.
    pub local: SocketAddr,
}

/// What serves the requests of a connection.
pub trait Serve: 'static {
    /// What is remembered about a client for as long as its connection lasts.
    type Client: 'static;

    /// What bodies of answers are.
    type Body: Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
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
    stream: TcpStream,
    ends: Ends,
    served: Rc<S>,
    options: &Options,
    draining: watch::Receiver<bool>,
) -> io::Result<()> {
    let sniffed = timeout(options.first_byte_timeout, Sniffed::read(stream)).await;
    let Ok(sniffed) = sniffed else { return Ok(()) };
    let (protocol, sniffed) = sniffed?;
    let io = TokioIo::new(sniffed);
    let client = Rc::new(served.meet(ends));
    // How a connection ends is its client's affair: hyper's errors here are clients that left, and
    // answers that could not be finished.
    match protocol {
        Protocol::Http1 => {
            let unframed = Cell::new(false);
            let service = service_fn(|request: Request<Incoming>| {
                let (served, client) = (served.clone(), client.clone());
                let is_old = request.version() < Version::HTTP_11;
                let unframed = &unframed;
                async move {
                    let response = served.answer(client, request).await;
                    unframed.set(is_old && response.body().size_hint().exact().is_none());
                    Ok::<_, Infallible>(response)
                }
            });
            let mut connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(options.header_timeout)
                .max_headers(HEADERS_MAX)
                .max_header_size(HEAD_BYTES_MAX)
                .serve_connection(io, service)
                .with_upgrades();
            let ended = until_drained(Pin::new(&mut connection), draining, |connection| {
                connection.graceful_shutdown();
            });
            if ended.await.is_err_and(|error| error.is_user())
                && let Some(parts) = connection.into_parts()
            {
                cut::cut(parts.io.into_inner(), unframed.get()).await;
            }
        }
        Protocol::Http2 => {
            let service = service_fn(move |request| {
                let (served, client) = (served.clone(), client.clone());
                async move { Ok::<_, Infallible>(served.answer(client, request).await) }
            });
            let connection = hyper::server::conn::http2::Builder::new(LocalExecutor)
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HEAD_BYTES_MAX as u32)
                .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
                .keep_alive_interval(PING_AFTER)
                .keep_alive_timeout(PING_MAX)
                .serve_connection(io, service);
            let connection = std::pin::pin!(connection);
            drop(
                until_drained(connection, draining, |connection| connection.graceful_shutdown())
                    .await,
            );
        }
    }
    Ok(())
}

/// Lets a connection go on until it ends; once `draining`, until it has no more requests.
async fn until_drained<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    mut draining: watch::Receiver<bool>,
    shut_down: impl Fn(Pin<&mut C>),
) -> hyper::Result<()> {
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // An error means that the sender is gone, which means the same.
        _ = draining.wait_for(|draining| *draining) => {
            shut_down(connection.as_mut());
            connection.await
        }
    };
    ended.inspect_err(|error| tracing::trace!(%error, "a connection ended early"))
}

/// Runs the streams of an HTTP/2 connection on the thread of the connection.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        // It ends with the connection or the thread's `LocalSet`, whichever is first.
        tokio::task::spawn_local(future);
    }
}
