//! gRPC from end to end: workspaces that speak HTTP/2 without TLS.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use frostgate::config::Config;
use frostgate::model::{FreezeMode, Phase, Protocol};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http2::{END_HEADERS, END_STREAM, HEADERS, frame};
use crate::support::{
    Authority, Client, Gateway, Origin, PATIENCE, Program, Seen, Setup, callee, navigate, next, ok,
    relay, secure, serve_calls, tls, until, upstream,
};

const HOST: &str = "Host: alice.localhost\r\n";

/// Has alice speak HTTP/2.
fn by_http2(config: &mut Config) {
    let alice = config.workspaces.values_mut().next().unwrap();
    Arc::make_mut(&mut alice.spec).protocol = Protocol::H2c;
}

/// A gateway in front of an upstream, `alice`.
async fn before(origin: &Origin) -> Gateway {
    Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        by_http2(config);
    })
    .await
}

/// A gateway in front of a process that `origin` speaks for.
async fn before_process(origin: &Origin, configure: impl FnOnce(&mut Config)) -> Gateway {
    Gateway::start(|config| {
        relay(config, "alice", FreezeMode::Stop, PATIENCE * 9, origin);
        by_http2(config);
        configure(config);
    })
    .await
}

async fn connect_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

async fn connect(gateway: &Gateway) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(gateway.public()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    connect_over(stream).await
}

fn call(path: &str) -> http::request::Builder {
    Request::post(format!("http://alice.localhost{path}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
}

/// Begins a call that has more to say.
fn begin(sender: &SendRequest<Bytes>, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
    sender.clone().send_request(call(path).body(()).unwrap(), false).unwrap()
}

/// A whole call that says one thing.
fn say(sender: &SendRequest<Bytes>, call: http::request::Builder) -> ResponseFuture {
    let (answer, mut out) = sender.clone().send_request(call.body(()).unwrap(), false).unwrap();
    // It may have been answered in full already.
    drop(out.send_data(Bytes::from_static(b"hello"), true));
    answer
}

async fn answered(answer: ResponseFuture) -> Response<RecvStream> {
    timeout(PATIENCE, answer).await.expect("no answer").unwrap()
}

/// The rest of an answer.
async fn rest(body: &mut RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut whole = Vec::new();
    while let Some(data) = timeout(PATIENCE, next(body)).await.expect("no end")? {
        whole.extend(data);
    }
    Ok((whole, body.trailers().await?.unwrap_or_default()))
}

/// What a whole call says, and what it ends with.
async fn spoken(sender: &SendRequest<Bytes>, path: &str) -> (String, String) {
    let mut response = answered(say(sender, call(path))).await;
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    let (whole, trailers) = rest(response.body_mut()).await.unwrap();
    let status = trailers.get("grpc-status").or(response.headers().get("grpc-status"));
    let status = status.map_or("none", |status| status.to_str().unwrap()).to_owned();
    (String::from_utf8(whole).unwrap(), status)
}

/// How a call was refused, by a head and nothing behind it.
async fn refused(answer: ResponseFuture) -> String {
    let mut response = answered(answer).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc+proto");
    assert!(!response.headers()["grpc-message"].is_empty());
    assert!(response.body().is_end_stream(), "{response:?}");
    assert_eq!(rest(response.body_mut()).await.unwrap(), (vec![], HeaderMap::new()));
    response.headers()["grpc-status"].to_str().unwrap().to_owned()
}

fn cancelled(seen: &Seen) -> usize {
    seen.cancelled.load(Ordering::SeqCst)
}

fn inside(gateway: &Gateway) -> u32 {
    gateway.workspace("alice").view().inside
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_every_kind_pass_with_what_belongs_to_them() {
    let (origin, seen) = callee(100).await;
    let gateway = before(&origin).await;
    let sender = connect(&gateway).await;
    let of = |text: &str, status: &str| (text.to_owned(), status.to_owned());
    assert_eq!(spoken(&sender, "/unary").await, of("hello", "0"));
    assert_eq!(spoken(&sender, "/stream").await, of("one two three", "0"));
    assert_eq!(spoken(&sender, "/both").await, of("hello", "0"));
    assert_eq!(spoken(&sender, "/none").await, of("", "5"));
    assert_eq!(spoken(&sender, "/plain").await, of("plain", "none"));
    let heads = seen.heads();
    let (number, head) = &heads[0];
    assert!(heads.iter().all(|(other, _)| other == number), "more than one connection");
    assert_eq!(head.uri.to_string(), "http://alice.localhost/unary");
    assert_eq!(head.headers["te"], "trailers");
    assert_eq!(head.headers["content-type"], "application/grpc+proto");
    assert_eq!(head.headers["x-forwarded-host"], "alice.localhost");
    assert_eq!(head.headers["x-forwarded-for"], "127.0.0.1");
    assert!(head.headers["via"].to_str().unwrap().starts_with("2.0 frostgate-"));
    for gone in ["host", "connection", "transfer-encoding", "keep-alive", "upgrade"] {
        assert!(!head.headers.contains_key(gone), "{gone}: {head:?}");
    }
    let response = answered(say(&sender, call("/none"))).await;
    assert!(response.body().is_end_stream(), "more than trailers");
    assert!(response.headers()["via"].to_str().unwrap().starts_with("2.0 frostgate-"));
    gateway.until_empty("alice", "calls").await;
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_both_ways_as_they_come() {
    let (origin, _) = callee(100).await;
    let gateway = before(&origin).await;
    let sender = connect(&gateway).await;
    let (answer, mut out) = begin(&sender, "/both");
    out.send_data(Bytes::from_static(b"first"), false).unwrap();
    let mut body = answered(answer).await.into_body();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "first");
    for number in 0..50 {
        let message = format!("message {number}");
        out.send_data(Bytes::from(message.clone()), false).unwrap();
        let echo = timeout(PATIENCE, next(&mut body)).await.expect("no echo").unwrap();
        assert_eq!(echo.unwrap(), message);
    }
    assert_eq!(inside(&gateway), 1);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", "1".parse().unwrap());
    out.send_trailers(trailers).unwrap();
    let (more, trailers) = rest(&mut body).await.unwrap();
    assert_eq!((more, trailers["grpc-status"].to_str().unwrap()), (vec![], "0"));
    gateway.until_empty("alice", "a conversation").await;
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_pass_whole() {
    let (origin, _) = callee(100).await;
    let gateway = before(&origin).await;
    let sender = connect(&gateway).await;
    let sent: Vec<u8> = (0..3_000_000).map(|at| (at % 251) as u8).collect();
    let (answer, mut out) = begin(&sender, "/both");
    out.send_data(Bytes::from(sent.clone()), true).unwrap();
    let (received, trailers) = rest(answered(answer).await.body_mut()).await.unwrap();
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    assert_eq!(trailers["grpc-status"], "0");
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_http1_are_served_as_well_and_get_no_websocket() {
    let (origin, seen) = callee(100).await;
    let gateway = before(&origin).await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("GET /plain?a=b HTTP/1.1\r\n{HOST}\r\n")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "plain"));
    assert_eq!(reply.header("content-length"), Some("5"));
    client
        .send(format!(
            "POST /unary HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        ))
        .await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str(), reply.complete), (200, "abcde", true));
    client.send(format!("POST /unary HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc")).await;
    assert_eq!(client.reply().await.text(), "abc");
    let heads = seen.heads();
    assert_eq!(heads[0].1.uri.to_string(), "http://alice.localhost/plain?a=b");
    assert!(!heads[1].1.headers.contains_key("transfer-encoding"));
    assert_eq!(heads[2].1.headers["content-length"], "3");
    client
        .send(format!(
            "GET /ws HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
    assert_eq!(client.reply().await.status, 501);
    gateway.until_empty("alice", "clients of HTTP/1").await;
    drop(client);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_come_by_tls_too() {
    let authority = Authority::with(&["alice.localhost"]);
    let (origin, seen) = callee(100).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        by_http2(config);
        secure(config, &authority);
    })
    .await;
    let stream = tls(&authority.client(&["h2"]), gateway.tls(), "alice.localhost").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let sender = connect_over(stream).await;
    assert_eq!(spoken(&sender, "/both").await, ("hello".to_owned(), "0".to_owned()));
    assert_eq!(seen.heads()[0].1.headers["x-forwarded-proto"], "https");
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_as_many_connections_as_its_limit_on_streams_asks_for() {
    let (origin, seen) = callee(3).await;
    let gateway = before(&origin).await;
    let sender = connect(&gateway).await;
    let mut open = Vec::new();
    for answer in (0..10).map(|_| begin(&sender, "/open")).collect::<Vec<_>>() {
        let (answer, out) = answer;
        let mut body = answered(answer).await.into_body();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "one");
        open.push((body, out));
    }
    assert_eq!(inside(&gateway), 10);
    let connections: BTreeSet<usize> =
        seen.calls("/open").iter().map(|(number, _)| *number).collect();
    assert_eq!(connections.len(), 4, "{connections:?}");
    assert_eq!(seen.together.load(Ordering::SeqCst), 3);
    drop(open);
    gateway.until_empty("alice", "ten calls").await;
    until("all are cancelled", || cancelled(&seen) == 10).await;
    // Over what there is.
    assert_eq!(spoken(&sender, "/unary").await.0, "hello");
    let (number, _) = seen.calls("/unary")[0];
    assert!(connections.contains(&number), "{number} is not in {connections:?}");
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cancels_a_call_ends_it_there_and_nothing_else() {
    let (origin, seen) = callee(100).await;
    let gateway = before(&origin).await;
    let sender = connect(&gateway).await;
    let (neighbour, mut neighbours_out) = begin(&sender, "/both");
    neighbours_out.send_data(Bytes::from_static(b"a"), false).unwrap();
    let mut neighbour = answered(neighbour).await.into_body();
    assert_eq!(next(&mut neighbour).await.unwrap().unwrap(), "a");
    // One that has no answer yet; one in the middle of it, with its own part said or not; and one
    // whose workspace reads nothing, so that what the client says is stuck on the way.
    for (number, (path, is_said)) in
        [("/wait", true), ("/wait", false), ("/open", true), ("/open", false), ("/deaf", false)]
            .into_iter()
            .enumerate()
    {
        let (answer, mut out) = begin(&sender, path);
        let length = if path == "/deaf" { 1_000_000 } else { 5 };
        out.send_data(Bytes::from(vec![b'x'; length]), is_said).unwrap();
        let mut answer = std::pin::pin!(answer);
        let mut body = None;
        if path == "/wait" {
            let calls = || seen.calls(path).len() == 1 + number;
            until("it has arrived", calls).await;
        } else {
            let response = timeout(PATIENCE, answer.as_mut()).await.unwrap().unwrap();
            body = Some(response.into_body());
            assert_eq!(next(body.as_mut().unwrap()).await.unwrap().unwrap(), "one");
        }
        assert_eq!(inside(&gateway), 2, "{path}");
        out.send_reset(Reason::CANCEL);
        until(&format!("{path} is cancelled"), || cancelled(&seen) == 1 + number).await;
        until("one is left", || inside(&gateway) == 1).await;
        drop(body);
    }
    neighbours_out.send_data(Bytes::from_static(b"b"), true).unwrap();
    assert_eq!(rest(&mut neighbour).await.unwrap().0, b"b");
    let connections: BTreeSet<usize> = seen.heads().iter().map(|(number, _)| *number).collect();
    assert_eq!(connections.len(), 1, "{connections:?}");
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_short_is_reset_and_never_looks_whole() {
    let (origin, _) = callee(100).await;
    let gateway = before(&origin).await;
    let sender = connect(&gateway).await;
    let mut body = answered(say(&sender, call("/cut"))).await.into_body();
    let error = rest(&mut body).await.expect_err("it looks whole");
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{error:?}");
    assert_eq!(spoken(&sender, "/unary").await.1, "0");
    gateway.until_empty("alice", "a call that was cut short").await;
    drop(sender);
    gateway.stop().await;
}

/// Says goodbye when the second call arrives: after the first one, and before that.
async fn says_goodbye(stream: &mut TcpStream) {
    const GOAWAY: u8 = 7;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut last = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], last) {
            (HEADERS, 0) => {
                last = id;
                // `:status: 200`, from HPACK's static table.
                let answer = frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x88]);
                stream.write_all(&answer).await.unwrap();
            }
            (HEADERS, last) => {
                let goodbye = [last.to_be_bytes(), [0; 4]].concat();
                stream.write_all(&frame(GOAWAY, 0, 0, &goodbye)).await.unwrap();
                // Until the other side has taken it.
                while stream.read(&mut [0; 1_024]).await.is_ok_and(|read| read > 0) {}
                return;
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_workspace_has_not_looked_at_is_sent_again() {
    let seen = std::sync::Arc::<Seen>::default();
    let shared = seen.clone();
    let origin = Origin::start(move |mut connection| {
        let seen = shared.clone();
        async move {
            match connection.number {
                0 => says_goodbye(&mut connection.stream).await,
                _ => serve_calls(connection, 100, seen).await,
            }
        }
    })
    .await;
    let gateway = before(&origin).await;
    let sender = connect(&gateway).await;
    let first = answered(say(&sender, call("/first"))).await;
    assert_eq!(first.status(), 200);
    // A POST with a body, part of which was on its way.
    assert_eq!(spoken(&sender, "/unary").await, ("hello".to_owned(), "0".to_owned()));
    assert_eq!(seen.calls("/unary").len(), 1);
    assert_eq!(spoken(&sender, "/refused").await, ("hello".to_owned(), "0".to_owned()));
    assert_eq!(seen.calls("/refused").len(), 2);
    gateway.until_empty("alice", "calls that were sent again").await;
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_one_connection_wake_a_workspace_and_keep_it_awake_each() {
    let (origin, seen) = callee(100).await;
    let gateway = before_process(&origin, |config| {
        let alice = config.workspaces.values_mut().next().unwrap();
        Arc::make_mut(&mut alice.policy).inactivity_timeout = Some(Duration::from_millis(200));
    })
    .await;
    let sender = connect(&gateway).await;
    for _ in 0..2 {
        gateway.until("alice", Phase::Frozen).await;
        let mut calls = Vec::new();
        for (answer, mut out) in (0..5).map(|_| begin(&sender, "/both")).collect::<Vec<_>>() {
            out.send_data(Bytes::from_static(b"hello"), false).unwrap();
            let mut body = answered(answer).await.into_body();
            assert_eq!(next(&mut body).await.unwrap().unwrap(), "hello");
            calls.push((body, out));
        }
        for left in (0..5).rev() {
            assert_eq!(inside(&gateway), left + 1);
            let view = gateway.workspace("alice").view();
            assert_eq!((view.phase, view.freeze_at), (Phase::Running, None));
            let (mut body, mut out) = calls.pop().unwrap();
            out.send_data(Bytes::new(), true).unwrap();
            assert_eq!(rest(&mut body).await.unwrap().1["grpc-status"], "0");
            until("it is out", || inside(&gateway) == left).await;
        }
    }
    gateway.until("alice", Phase::Frozen).await;
    assert_eq!(seen.calls("/both").len(), 10);
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_call_is_given_up_at_its_deadline_and_told_what_is_left_of_it() {
    let (origin, seen) = callee(100).await;
    let gateway = before_process(&origin, |config| {
        let alice = config.workspaces.values_mut().next().unwrap();
        Arc::make_mut(&mut alice.spec)
            .environment
            .insert("START_DELAY_MS".to_owned(), "1500".to_owned());
    })
    .await;
    let sender = connect(&gateway).await;
    let short = say(&sender, call("/unary").header("grpc-timeout", "300m"));
    let long = say(&sender, call("/unary").header("grpc-timeout", "60S"));
    let view = || gateway.workspace("alice").view();
    until("both are held", || view().held == 2).await;
    assert_eq!(refused(short).await, "4");
    until("one is held", || view().held == 1 || view().phase == Phase::Running).await;
    assert_eq!(answered(long).await.status(), 200);
    let heads = seen.calls("/unary");
    assert_eq!(heads.len(), 1);
    let left = heads[0].1.headers["grpc-timeout"].to_str().unwrap();
    let left: u64 = left.strip_suffix('u').unwrap().parse().unwrap();
    assert!((1..59_000_000).contains(&left), "{left}");
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admins_stop_resets_what_is_being_answered_and_tells_what_waits() {
    let (origin, _) = callee(100).await;
    let gateway = before_process(&origin, |config| {
        config.policy.drain_grace = Duration::from_millis(300);
    })
    .await;
    let sender = connect(&gateway).await;
    let (open, _out) = begin(&sender, "/open");
    let mut body = answered(open).await.into_body();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "one");
    let (waiting, _waiting_out) = begin(&sender, "/wait");
    until("both are inside", || inside(&gateway) == 2).await;
    assert_eq!(gateway.call("PUT", "/workspaces/alice/stop").await.status, 200);
    assert_eq!(refused(waiting).await, "14");
    let error = rest(&mut body).await.expect_err("it looks whole");
    assert!(error.is_reset(), "{error:?}");
    gateway.until_empty("alice", "a stop").await;
    // The connection is as good as before; a background call is not let in so soon.
    assert_eq!(refused(say(&sender, call("/unary"))).await, "14");
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_told_in_terms_of_grpc_to_those_who_speak_it() {
    // Nobody listens there any more.
    let address = callee(1).await.0.address;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", address);
        by_http2(config);
        config.upstream.connect_timeout = Duration::from_millis(100);
    })
    .await;
    let sender = connect(&gateway).await;
    assert_eq!(refused(say(&sender, call("/unary"))).await, "14");
    let elsewhere = call("/unary").uri("http://nobody.localhost/unary");
    assert_eq!(refused(say(&sender, elsewhere)).await, "12");
    let looped = call("/unary").header("via", "x,".repeat(40));
    assert_eq!(refused(say(&sender, looped)).await, "13");
    let plain = Request::get("http://alice.localhost/").body(()).unwrap();
    let (plain, _) = sender.clone().send_request(plain, true).unwrap();
    assert_eq!(answered(plain).await.status(), 502);
    let page = navigate(gateway.public(), "alice.localhost", "/").await;
    assert_eq!(page.status, 502);
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_ready_when_it_speaks_http2_and_answers_what_it_is_asked() {
    let (origin, seen) = callee(100).await;
    let gateway = before_process(&origin, |config| {
        let alice = config.workspaces.values_mut().next().unwrap();
        Arc::make_mut(&mut alice.spec).ready_path = Some("/plain".to_owned());
    })
    .await;
    let sender = connect(&gateway).await;
    assert_eq!(spoken(&sender, "/unary").await.1, "0");
    let (_, probe) = &seen.heads()[0];
    assert_eq!((probe.method.as_str(), probe.uri.path()), ("GET", "/plain"));
    assert_eq!(probe.headers["user-agent"], "frostgate-probe");
    drop(sender);
    gateway.stop().await;

    let http1 = Origin::answering(|_| ok("fine")).await;
    let gateway = before_process(&http1, |config| {
        config.policy.start_timeout = Duration::from_secs(1);
    })
    .await;
    let sender = connect(&gateway).await;
    assert_eq!(refused(say(&sender, call("/unary"))).await, "14");
    gateway.until("alice", Phase::Failed).await;
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_protocol_of_an_upstream_counts_at_once() {
    let (by_http2, _) = callee(100).await;
    let by_http1 = Origin::answering(|request| ok(&format!("http1 {}", request.path()))).await;
    let configuration = |origin: &Origin, protocol| {
        let address = origin.address;
        let alice = format!("[workspaces.alice]\nupstream = \"{address}\"\n{protocol}");
        format!("[docker]\nenable = false\n{alice}")
    };
    let old = configuration(&by_http2, "protocol = \"h2c\"\n");
    let mut program = Program::run(Setup { configuration: old, ..Setup::default() }).await;
    assert_eq!(program.get("alice", "/plain").await.text(), "plain");
    program.configure(&configuration(&by_http1, ""));
    let told = program.call("POST /api/v1/reload", "").await;
    assert!(told.text().contains("workspaces.alice.protocol"), "{told:?}");
    assert_eq!(program.get("alice", "/plain").await.text(), "http1 /plain");
}
