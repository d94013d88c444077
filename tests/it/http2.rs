//! HTTP/2 without TLS, by prior knowledge, on the same port.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Gateway, Origin, PATIENCE, ok, until};

pub(crate) type Body = BoxBody<Bytes, std::convert::Infallible>;

pub(crate) async fn connect(gateway: &Gateway) -> SendRequest<Body> {
    let stream = TcpStream::connect(gateway.public()).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn get(path: &str) -> http::request::Builder {
    Request::builder().uri(format!("http://alice.localhost{path}"))
}

async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_connection_are_requests_of_their_own() {
    let origin = Origin::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            connection.send(ok(request.path())).await;
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let sender = connect(&gateway).await;
    let mut streams = JoinSet::new();
    for number in 0..100 {
        let mut sender = sender.clone();
        streams.spawn(async move {
            let path = format!("/{number}");
            let request = get(&path).body(Body::new(Empty::new())).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_2);
            assert!(response.headers()["via"].to_str().unwrap().starts_with("1.1 frostgate-"));
            assert_eq!(text(response).await, path);
        });
    }
    until("all are inside", || gateway.workspace("alice").view().inside == 100).await;
    let mut answered = 0;
    while let Some(ended) = streams.join_next().await {
        ended.unwrap();
        answered += 1;
    }
    assert_eq!(answered, 100);
    gateway.until_empty("alice", "a hundred streams").await;
    let received = origin.received();
    assert!(received.iter().all(|request| request.violation.is_none()));
    assert!(received[0].header("via").unwrap().starts_with("2.0 frostgate-"));
    assert_eq!(received[0].header("host"), Some("alice.localhost"));
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_cookies_and_trailers_pass() {
    let origin = Origin::answering(|request| {
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
        let length = request.body.len().to_string();
        format!("{answer}{:x}\r\n{length}\r\n0\r\nX-Sum: 42\r\n\r\n", length.len()).into_bytes()
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut sender = connect(&gateway).await;
    for method in ["POST", "GET"] {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-digest", "7".parse().unwrap());
        let frames = [Frame::data(Bytes::from(vec![b'x'; 1_000_000])), Frame::trailers(trailers)];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok)));
        let request = get("/")
            .method(method)
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .header("trailer", "x-digest")
            .body(Body::new(body))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let whole = response.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["x-sum"], "42");
        assert_eq!(whole.to_bytes(), "1000000");
        let received = &origin.take()[0];
        assert_eq!(received.header("cookie"), Some("a=1; b=2"));
        assert_eq!(received.header("transfer-encoding"), Some("chunked"));
        assert_eq!(received.trailers.to_ascii_lowercase(), "x-digest: 7\n");
    }
    let sized = get("/").method("PUT").body(Body::new(Full::from("abc"))).unwrap();
    assert_eq!(text(sender.send_request(sized).await.unwrap()).await, "3");
    assert_eq!(origin.take()[0].body, b"abc");
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_answer_resets_the_stream_and_not_the_connection() {
    let origin = Origin::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            if request.path() != "/short" {
                connection.send(ok("fine")).await;
                continue;
            }
            connection
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
                .await;
            return;
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut sender = connect(&gateway).await;
    let short = get("/short").body(Body::new(Empty::new())).unwrap();
    if let Ok(response) = sender.send_request(short).await {
        let error = response.into_body().collect().await.expect_err("it looks whole");
        assert!(!error.is_closed(), "{error:?}");
    }
    let fine = get("/").body(Body::new(Empty::new())).unwrap();
    assert_eq!(text(sender.send_request(fine).await.unwrap()).await, "fine");
    gateway.until_empty("alice", "a short answer").await;
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_resets_a_stream_gives_its_lease_back() {
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            connection.until_gone().await;
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut sender = connect(&gateway).await;
    for _ in 0..20 {
        let request = get("/").body(Body::new(Empty::new())).unwrap();
        let pending = sender.send_request(request);
        assert!(timeout(Duration::from_millis(20), pending).await.is_err());
    }
    gateway.until_empty("alice", "reset streams").await;
    drop(sender);
    gateway.stop().await;
}

// ---- Frames by hand ----------------------------------------------------------------------------

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Fields, each a literal that is not indexed, without Huffman.
pub(crate) fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in all {
        block.extend([0, name.len() as u8]);
        block.extend(name.as_bytes());
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    block
}

/// What became of stream 1: `:status` as text, `reset`, `goaway` or `closed`.
async fn outcome(gateway: &Gateway, request: &[u8]) -> String {
    outcome_at(gateway.public(), request).await
}

pub(crate) async fn outcome_at(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    drop(stream.write_all(request).await);
    let read = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return "closed".to_owned();
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if stream.read_exact(&mut payload).await.is_err() {
                return "closed".to_owned();
            }
            match (head[3], payload.first().copied().unwrap_or(0)) {
                (RST_STREAM, _) => return "reset".to_owned(),
                (GOAWAY, _) => return "goaway".to_owned(),
                // HPACK's static table: 8 to 14 are statuses; 8 with a literal is any other.
                (HEADERS, 0x88) => return "200".to_owned(),
                (HEADERS, 0x8c) => return "400".to_owned(),
                (HEADERS, 0x8d) => return "404".to_owned(),
                (HEADERS, first) => return format!("other {first:#x}"),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_reach_no_workspace() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::before(&origin).await;
    let base = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "alice.localhost"),
    ];
    let with = |more: &[(&str, &str)]| fields(&[&base[..], more].concat());
    let without = |name: &str| {
        let rest: Vec<_> = base.iter().copied().filter(|(found, _)| *found != name).collect();
        fields(&rest)
    };
    let replaced = |name: &str, value: &'static str| {
        let all: Vec<_> = base
            .iter()
            .map(|(found, old)| (*found, if *found == name { value } else { *old }))
            .collect();
        fields(&all)
    };
    let refused: Vec<(&str, Vec<u8>)> = vec![
        ("another host", with(&[("host", "bob.localhost")])),
        ("two hosts", with(&[("host", "alice.localhost"), ("host", "alice.localhost")])),
        ("no authority and no host", without(":authority")),
        ("a user in the authority", replaced(":authority", "x@alice.localhost")),
        ("a bad port", replaced(":authority", "alice.localhost:x")),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("an empty path", replaced(":path", "")),
        ("a path that is none", replaced(":path", "x")),
        ("an asterisk for GET", replaced(":path", "*")),
        ("a space in the path", replaced(":path", "/a b")),
        ("a line break in the path", replaced(":path", "/ HTTP/1.1\r\nX: y")),
        ("a bad method", replaced(":method", "GE T")),
        ("a method with a line break", replaced(":method", "GET / HTTP/1.1\r\n")),
        ("a pseudo-header twice", with(&[(":path", "/x")])),
        ("an unknown pseudo-header", with(&[(":x", "y")])),
        ("a status", with(&[(":status", "200")])),
        ("a pseudo-header behind a field", with(&[("a", "b"), (":protocol", "websocket")])),
        ("connection", with(&[("connection", "keep-alive")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", "keep-alive")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te", with(&[("te", "gzip")])),
        ("capitals", with(&[("X-Y", "z")])),
        ("a line break in a value", with(&[("x", "y\r\nz: 1")])),
        ("a NUL in a value", with(&[("x", "y\0z")])),
        ("a line break in a name", with(&[("x: y\r\nz", "1")])),
        ("a colon in a name", with(&[("x:y", "1")])),
        ("a bad length", with(&[("content-length", "x")])),
        ("two lengths", with(&[("content-length", "1"), ("content-length", "2")])),
        ("a length and no body", with(&[("content-length", "5")])),
    ];
    let mut complaints = Vec::new();
    for (name, block) in &refused {
        let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
        let outcome = outcome(&gateway, &bytes).await;
        if !matches!(outcome.as_str(), "reset" | "goaway" | "closed" | "400") {
            complaints.push(format!("{name}: {outcome}"));
        }
        if let Some(received) = origin.take().first() {
            complaints.push(format!("{name} was passed on: {:?}", received.head));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(refused.len() >= 30);
    // A host instead of an authority is as good (RFC 9113 §8.3.1), and so are both if they agree.
    let host = [("host", "alice.localhost")];
    let fine = [[&base[..3], &host[..]].concat(), [&base[..], &host[..]].concat()];
    for all in fine {
        let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&all));
        assert_eq!(outcome(&gateway, &bytes).await, "200");
        assert_eq!(origin.take()[0].all("host"), ["alice.localhost"]);
    }
    gateway.until_empty("alice", "malformed requests").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_as_long_as_it_says_is_never_a_whole_request() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::before(&origin).await;
    let head = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "alice.localhost"),
        ("content-length", "5"),
    ]);
    for body in [&b"abc"[..], b"abcdefgh"] {
        let bytes =
            [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, END_STREAM, 1, body)].concat();
        let outcome = outcome(&gateway, &bytes).await;
        assert!(matches!(outcome.as_str(), "reset" | "goaway" | "closed" | "400"), "{outcome}");
        assert!(origin.take().is_empty());
    }
    gateway.until_empty("alice", "wrong lengths").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_fields_than_over_http1_are_refused_and_crumbs_of_a_cookie_are_one() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::before(&origin).await;
    let mut sender = connect(&gateway).await;
    for (name, count, status) in [("a", 100, 200), ("a", 101, 431), ("cookie", 300, 200)] {
        let mut request = get("/").body(Body::new(Empty::new())).unwrap();
        for number in 0..count {
            let value = format!("b{number}=c").parse().unwrap();
            request.headers_mut().append(name, value);
        }
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{count} of {name}");
        drop(response.into_body().collect().await.unwrap());
        assert_eq!(origin.take().len(), usize::from(status == 200), "{count} of {name}");
    }
    drop(sender);
    gateway.stop().await;
}
