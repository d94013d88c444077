//! `frostgate sample`: a small workspace that ships in the program, so that the demo and a first
//! look need nothing else.
//!
//! Its page shows what a freeze keeps and what it costs: one counter lives in memory and starts
//! again after a stop, the other lives in a file and goes on. A WebSocket clock, opened by a click,
//! is a live connection that keeps the workspace awake. Every link is relative, because the page
//! may be served below `/w/{id}/`.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use crate::clock::{Clock, spoken};

use super::Environment;
use super::signals::Signals;

const PAGE: &str = include_str!("sample.html");

/// Answers without counting a visit.
pub(super) const READY_PATH: &str = "/ready";

/// Connections at a time; a sample needs a few.
const CONNECTIONS_MAX: usize = 256;

/// How long a request's head may take, and an idle connection may stay.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait after an accept that failed, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sample's flags.
#[derive(Debug, Args)]
pub(super) struct Sample {
    /// What the page is called
    #[arg(long, default_value = "hello")]
    name: String,
}

/// Serves on `$PORT` until SIGTERM.
pub(super) fn run(sample: &Sample, environment: &Environment) -> anyhow::Result<()> {
    let port = environment.get("PORT").context("PORT is not set: it says where to listen")?;
    let port: u16 = port.parse().with_context(|| format!("PORT is not a port: {port:?}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the sample")?;
    runtime.block_on(async {
        let mut signals = Signals::listen().context("could not listen for signals")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("could not listen on {address}"))?;
        let workspace = Workspace::new(sample.name.clone(), PathBuf::from("visits"));
        tokio::select! {
            never = serve(listener, Arc::new(workspace)) => match never {},
            _ = signals.next() => Ok(()),
        }
    })
}

/// What the page tells of.
struct Workspace {
    name: String,
    started: Instant,
    visits_file: PathBuf,
    visits: Mutex<Visits>,
}

/// How often the page was loaded.
#[derive(Clone, Copy)]
struct Visits {
    since_start: u64,
    ever: u64,
}

impl Workspace {
    fn new(name: String, visits_file: PathBuf) -> Self {
        // No file yet, or one that somebody edited: a sample counts from zero then.
        let kept = std::fs::read_to_string(&visits_file).ok();
        let ever = kept.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self {
            name,
            started: Instant::now(),
            visits_file,
            visits: Mutex::new(Visits { since_start: 0, ever }),
        }
    }

    /// Counts a visit, on disk too: the next stop may be the next thing that happens. The file is
    /// a few bytes long, so that writing it in place holds nobody up.
    fn visit(&self) -> Visits {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.since_start = visits.since_start.saturating_add(1);
        visits.ever = visits.ever.saturating_add(1);
        if let Err(error) = std::fs::write(&self.visits_file, visits.ever.to_string()) {
            eprintln!("could not keep the count in {}: {error}", self.visits_file.display());
        }
        *visits
    }

    fn page(&self) -> String {
        let visits = self.visit();
        PAGE.replace("{{since_start}}", &visits.since_start.to_string())
            .replace("{{ever}}", &visits.ever.to_string())
            .replace("{{uptime}}", &spoken(self.started.elapsed()))
            // Last, so that a name can't be taken for one of the others.
            .replace("{{name}}", &escaped(&self.name))
    }
}

async fn serve(listener: TcpListener, workspace: Arc<Workspace>) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let workspace = Arc::clone(&workspace);
        // Connections end with the process, which a signal ends at once.
        tokio::spawn(async move {
            let _place = place;
            converse(stream, workspace).await;
        });
    }
}

async fn converse(stream: TcpStream, workspace: Arc<Workspace>) {
    let service = service_fn(move |request| {
        let workspace = Arc::clone(&workspace);
        async move { Ok::<_, Infallible>(answer(request, &workspace)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A client that goes away is not an error.
    let _ = connection.await;
}

fn answer(request: Request<Incoming>, workspace: &Workspace) -> Response<Full<Bytes>> {
    let readable = [Method::GET, Method::HEAD].contains(request.method());
    match request.uri().path() {
        "/" | "/clock" if !readable => {
            let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "Try GET.");
            let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            response
        }
        "/" => reply(StatusCode::OK, "text/html; charset=utf-8", workspace.page()),
        "/clock" => open_clock(request),
        READY_PATH => reply(StatusCode::OK, "text/plain", "ready"),
        _ => reply(StatusCode::NOT_FOUND, "text/plain", "There is only one page here."),
    }
}

fn reply(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

/// Answers the WebSocket handshake, RFC 6455 section 4.2.2.
fn open_clock(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let wants_websocket = request
        .headers()
        .get(UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let key = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| wants_websocket);
    let accept = key.map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = accept.and_then(|accept| accept.try_into().ok()) else {
        return reply(StatusCode::UPGRADE_REQUIRED, "text/plain", "This is a WebSocket.");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            tell_time(upgraded).await;
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, hyper::header::HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// Sends the time every second until the visitor closes.
async fn tell_time(upgraded: Upgraded) {
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    // After a pause of an hour there is one time to tell, not 3600.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            moment = seconds.tick() => {
                let time = Message::text(Clock::MACHINE.time_of_day(moment));
                // A visitor who does not read within a second's ticks is gone or asleep.
                let sent = tokio::time::timeout(HEADER_TIMEOUT, socket.send(time)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            message = socket.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
}

/// Text that means itself in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A sample on a free port, with its own file for the visits.
    async fn started() -> (SocketAddr, PathBuf) {
        let number = getrandom::u64().expect("randomness");
        let file = std::env::temp_dir().join(format!("frostgate-visits-{number:016x}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let workspace = Workspace::new("<hello>".to_owned(), file.clone());
        tokio::spawn(serve(listener, Arc::new(workspace)));
        (address, file)
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut response = String::new();
        stream.read_to_string(&mut response).await.expect("a response");
        response
    }

    #[tokio::test]
    async fn a_stop_keeps_the_count_in_the_file_and_loses_the_one_in_memory() {
        let (address, file) = started().await;
        assert!(get(address, "/").await.contains("<b id=\"ever\">1</b>"));
        let page = get(address, "/").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains("<b id=\"since-start\">2</b>"), "{page}");
        assert!(page.contains("&lt;hello&gt;") && !page.contains("{{"), "{page}");
        let again = Workspace::new("hello".to_owned(), file.clone());
        let visits = again.visit();
        assert_eq!((visits.since_start, visits.ever), (1, 3));
        std::fs::remove_file(file).expect("the file is there");
    }

    #[tokio::test]
    async fn only_the_page_counts_visits() {
        let (address, file) = started().await;
        assert!(get(address, READY_PATH).await.starts_with("HTTP/1.1 200 "));
        assert!(get(address, "/favicon.ico").await.starts_with("HTTP/1.1 404 "));
        assert!(get(address, "/clock").await.starts_with("HTTP/1.1 426 "));
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn the_clock_tells_the_time_every_second() {
        let (address, _) = started().await;
        let stream = TcpStream::connect(address).await.expect("a connection");
        let url = format!("ws://{address}/clock");
        let (mut socket, _) =
            tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket");
        let told = async {
            let one = socket.next().await.expect("a message").expect("a text");
            let other = socket.next().await.expect("a message").expect("a text");
            (one.into_text().expect("a text"), other.into_text().expect("a text"))
        };
        let deadline = Duration::from_secs(10);
        let (one, other) = tokio::time::timeout(deadline, told).await.expect("in time");
        assert_eq!((one.len(), other.len()), ("12:04:11".len(), "12:04:12".len()));
        assert_ne!(one, other);
    }

    #[test]
    fn the_page_has_relative_links_and_no_outside_assets() {
        for absolute in ["href=\"/", "src=", "url(", "https://", "http://"] {
            assert!(!PAGE.contains(absolute), "{absolute}");
        }
    }
}
