//! HTTP/1.0 and 1.1 as RFC 9110 and 9112 want it of a proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frostgate::model::FreezeMode;
use tokio::time::{sleep, timeout};

use crate::support::{Client, Gateway, Origin, PATIENCE, ok, process, until, upstream};

const HOST: &str = "Host: alice.localhost\r\n";
const SOON: Duration = Duration::from_millis(300);

async fn pair() -> (Gateway, Origin) {
    let origin = Origin::answering(|request| ok(request.path())).await;
    (Gateway::before(&origin).await, origin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_serves_one_request_after_another() {
    let (gateway, origin) = pair().await;
    let mut client = Client::connect(gateway.public()).await;
    for number in 0..20 {
        client.send(format!("GET /{number} HTTP/1.1\r\n{HOST}\r\n")).await;
        assert_eq!(client.reply().await.text(), format!("/{number}"));
    }
    let connections: Vec<_> = origin.take().iter().map(|request| request.connection).collect();
    assert_eq!(connections.len(), 20);
    assert!(connections.iter().all(|connection| *connection == connections[0]), "{connections:?}");
    client.send(format!("GET /last HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")).await;
    let last = client.reply().await;
    assert_eq!(last.header("connection"), Some("close"));
    assert!(client.is_hung_up_on(PATIENCE).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_one_write_are_answered_in_order() {
    let (gateway, _origin) = pair().await;
    let mut client = Client::connect(gateway.public()).await;
    let post = format!("POST /1 HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc");
    let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let all = format!(
        "GET /0 HTTP/1.1\r\n{HOST}\r\n{post}GET /2 HTTP/1.1\r\n{HOST}\r\n\
         POST /3 HTTP/1.1\r\n{HOST}{chunked}GET /4 HTTP/1.1\r\n{HOST}\r\n"
    );
    client.send(all).await;
    for number in 0..5 {
        assert_eq!(client.reply().await.text(), format!("/{number}"));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_is_answered_as_such() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let origin = Origin::answering(move |request| match request.path() {
        "/chunked" => chunked.into(),
        path => ok(path),
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("GET /chunked HTTP/1.0\r\n{HOST}\r\n")).await;
    let reply = client.reply().await;
    assert!(reply.head.starts_with("HTTP/1.0 200"), "{reply:?}");
    assert_eq!(reply.header("transfer-encoding"), None, "{reply:?}");
    assert_eq!(reply.text(), "abc");
    let mut client = Client::connect(gateway.public()).await;
    for _ in 0..2 {
        client.send(format!("GET /kept HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!(reply.header("connection"), Some("keep-alive"));
        assert_eq!(reply.text(), "/kept");
    }
    // Without a host it is for no workspace.
    let mut client = Client::connect(gateway.public()).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 404);
    assert!(origin.received().iter().all(|request| request.line().ends_with("HTTP/1.1")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_keep_the_connection_in_step() {
    let origin = Origin::answering(|request| {
        let head = match request.path() {
            "/head" => "200 OK\r\nContent-Length: 1000000",
            "/head-chunked" => "200 OK\r\nTransfer-Encoding: chunked",
            "/204" => "204 No Content",
            "/205" => "205 Reset Content\r\nContent-Length: 0",
            "/304" => "304 Not Modified\r\nContent-Length: 12\r\nETag: \"x\"",
            _ => "200 OK\r\nContent-Length: 0",
        };
        format!("HTTP/1.1 {head}\r\n\r\n").into_bytes()
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut client = Client::connect(gateway.public()).await;
    let cases = [
        ("HEAD /head", "200", Some("1000000")),
        ("HEAD /head-chunked", "200", None),
        ("GET /204", "204", None),
        ("GET /205", "205", Some("0")),
        // The length of what is not sent may be left out, and hyper leaves it out here.
        ("GET /304", "304", None),
        ("HEAD /304", "304", Some("12")),
        ("GET /empty", "200", Some("0")),
    ];
    for (line, status, length) in cases {
        client.send(format!("{line} HTTP/1.1\r\n{HOST}\r\n")).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {head}");
        let found = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!(found, length, "{line}: {head}");
    }
    assert_eq!(origin.received().len(), cases.len());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_are_passed_on_byte_for_byte() {
    let (gateway, origin) = pair().await;
    let targets = [
        "/",
        "//",
        "//x//y/",
        "/a/../b/./c",
        "/%2e%2E/%2f%2F%5c",
        "/%zz%",
        "/?",
        "/a?b=c&d=%20+e?f=/g",
        "/;a=b,c'(d)*!$&",
        "/~user/[x]|y\\z",
        "/{\"a\":1}",
        "/?a=[b]|c\\{d}^`",
        "/\u{fc}\u{20ac}",
    ];
    for target in targets {
        let mut client = Client::connect(gateway.public()).await;
        client.send(format!("GET {target} HTTP/1.1\r\n{HOST}\r\n")).await;
        let reply = client.reply().await;
        let received = origin.take();
        assert_eq!(reply.status, 200, "{target}: {reply:?}");
        assert_eq!(received[0].line(), format!("GET {target} HTTP/1.1"));
    }
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n")).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(origin.take()[0].line(), "OPTIONS * HTTP/1.1");
    client.send("GET http://alice.localhost/x?y HTTP/1.1\r\nHost: alice.localhost\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    let received = origin.take();
    assert_eq!(received[0].line(), "GET /x?y HTTP/1.1");
    assert_eq!(received[0].header("host"), Some("alice.localhost"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_of_any_name_pass_but_not_those_for_proxies() {
    let (gateway, origin) = pair().await;
    let passed =
        ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "get"];
    for method in passed {
        let mut client = Client::connect(gateway.public()).await;
        client.send(format!("{method} /x HTTP/1.1\r\n{HOST}\r\n")).await;
        assert_eq!(client.reply().await.status, 200, "{method}");
        assert_eq!(origin.take()[0].line(), format!("{method} /x HTTP/1.1"));
    }
    for line in ["TRACE /", "CONNECT alice.localhost:80", "CONNECT /"] {
        let mut client = Client::connect(gateway.public()).await;
        client.send(format!("{line} HTTP/1.1\r\nHost: alice.localhost:80\r\n\r\n")).await;
        let status = client.reply().await.status;
        assert!(matches!(status, 400 | 405), "{line}: {status}");
        assert!(origin.take().is_empty(), "{line}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_and_paths_find_their_workspace() {
    let (origin, other) =
        (Origin::answering(|_| ok("alice")).await, Origin::answering(|_| ok("bob")).await);
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        upstream(config, "bob", other.address);
        for workspace in config.workspaces.values_mut() {
            if workspace.spec.runs == frostgate::model::Runs::Upstream(other.address.to_string()) {
                Arc::make_mut(&mut workspace.spec).hosts = vec!["bob.example.com".to_owned()];
            }
        }
    })
    .await;
    let by_host = [
        ("alice.localhost", "alice"),
        ("alice.localhost:8080", "alice"),
        ("ALICE.LocalHost", "alice"),
        ("alice.localhost.", "alice"),
        ("alice.localhost.:80", "alice"),
        ("bob.localhost", "bob"),
        ("bob.example.com", "bob"),
        ("BOB.example.com:443", "bob"),
    ];
    for (host, expected) in by_host {
        let reply = crate::support::get(gateway.public(), host, "/w/bob/").await;
        assert_eq!(reply.text(), expected, "{host}");
        let received = if expected == "alice" { origin.take() } else { other.take() };
        assert_eq!(received[0].header("host"), Some(host));
        assert_eq!(received[0].path(), "/w/bob/", "a workspace's own paths are its own");
    }
    let unknown = [
        "localhost",
        "carol.localhost",
        "x.alice.localhost",
        "alice.localhost..",
        "alice",
        "127.0.0.1",
        "[::1]:80",
    ];
    for host in unknown {
        let reply = crate::support::get(gateway.public(), host, "/").await;
        assert_eq!(reply.status, 404, "{host}: {reply:?}");
        let by_path = crate::support::get(gateway.public(), host, "/w/alice//x/../y?z=/w/").await;
        assert_eq!(by_path.text(), "alice", "{host}");
        let received = origin.take();
        assert_eq!(received[0].path(), "//x/../y?z=/w/");
        assert_eq!(received[0].header("x-forwarded-prefix"), Some("/w/alice"));
    }
    let redirect = crate::support::get(gateway.public(), "localhost", "/w/alice?a=b").await;
    assert_eq!((redirect.status, redirect.header("location")), (308, Some("/w/alice/?a=b")));
    for path in
        ["/w/", "/w//", "/w/carol/", "/w/../alice/", "/w/%61lice/", "/W/alice/", "/w/ALICE/"]
    {
        let reply = crate::support::get(gateway.public(), "localhost", path).await;
        assert_eq!(reply.status, 404, "{path}");
    }
    assert!(origin.take().is_empty() && other.take().is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_both_ways() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
          3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n"
            .to_vec()
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut client = Client::connect(gateway.public()).await;
    let body = "Transfer-Encoding: chunked\r\nTrailer: X-Digest\r\n\r\n2\r\nhi\r\n0\r\nX-Digest: 7\r\n\r\n";
    client.send(format!("POST / HTTP/1.1\r\n{HOST}TE: trailers\r\n{body}")).await;
    let head = client.head().await;
    assert!(head.contains("trailer: X-Sum"), "{head}");
    let rest = client.rest(SOON).await;
    assert!(rest.is_none(), "the connection is closed");
    let rest = String::from_utf8(client.bytes(24).await).unwrap();
    assert!(
        rest.to_ascii_lowercase().starts_with("3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n"),
        "{rest:?}"
    );
    let received = origin.take();
    assert_eq!(received[0].trailers.to_ascii_lowercase(), "x-digest: 7\n");
    assert_eq!(received[0].body, b"hi");
    // Who does not ask for them gets the body alone, whole.
    client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
    let reply = client.reply().await;
    assert!(reply.complete && reply.text() == "abc", "{reply:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trailer_says_nothing_that_only_a_head_may_say() {
    let (gateway, origin) = pair().await;
    let mut client = Client::connect(gateway.public()).await;
    let names =
        ["Host", "X-Forwarded-For", "x_real_ip", "Connection", "Via", "Authorization", "Cookie"];
    let trailers: String = names.iter().map(|name| format!("{name}: evil\r\n")).collect();
    let listed = names.join(", ");
    client
        .send(format!(
            "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTrailer: {listed}, X-Digest\r\n\r\n\
             2\r\nhi\r\n0\r\n{trailers}X-Digest: 7\r\n\r\n"
        ))
        .await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(origin.take()[0].trailers.to_ascii_lowercase(), "x-digest: 7\n");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_request_keeps_its_body_unread_and_gets_no_100_before_it_is_let_in() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE, &[("START_DELAY_MS", "600")]);
    })
    .await;
    let mut client = Client::connect(gateway.public()).await;
    client
        .send(format!(
            "POST /echo HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ))
        .await;
    until("it is held", || gateway.workspace("alice").view().held == 1).await;
    assert!(client.rest(SOON).await.is_none());
    assert_eq!(gateway.workspace("alice").view().held, 1);
    let proceed = client.head().await;
    assert!(proceed.starts_with("HTTP/1.1 100"), "{proceed}");
    assert_eq!(gateway.workspace("alice").view().held, 0);
    client.send("hello").await;
    assert_eq!(client.reply().await.text(), "hello");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_passes_while_the_upload_goes_on() {
    let origin = Origin::start(|mut connection| async move {
        if connection.head().await.is_some() {
            connection.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await;
            connection.until_gone().await;
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 100000000\r\n\r\nbegin")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (413, "no"));
    drop(client);
    gateway.until_empty("alice", "an early answer").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_body_looks_truncated() {
    let origin = Origin::start(|mut connection| async move {
        let Some(request) = connection.request().await else { return };
        let body = match request.path() {
            "/length" => "Content-Length: 10\r\n\r\nabc",
            "/chunked" => "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "/chunk" => "Transfer-Encoding: chunked\r\n\r\n9\r\nabc",
            "/bad-chunk" => "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n",
            _ => "\r\nabc",
        };
        connection.send(format!("HTTP/1.1 200 OK\r\n{body}")).await;
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    for path in ["/length", "/chunked", "/chunk", "/bad-chunk"] {
        let reply = gateway.get("alice", path).await;
        assert!(reply.status == 200 || reply.status == 0, "{path}: {reply:?}");
        assert!(!reply.complete, "{path}: {reply:?}");
    }
    let until_close = gateway.get("alice", "/until-close").await;
    assert!(until_close.complete && until_close.text() == "abc", "{until_close:?}");
    gateway.until_empty("alice", "truncated answers").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_slows_the_workspace_down() {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = taken.clone();
    let origin = Origin::start(move |mut connection| {
        let counted = counted.clone();
        async move {
            if connection.request().await.is_none() {
                return;
            }
            let size = 200_000_000_u64;
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")).await;
            let block = vec![b'x'; 100_000];
            for _ in 0..size / 100_000 {
                if !connection.send(&block).await {
                    return;
                }
                counted.fetch_add(100_000, Ordering::Relaxed);
            }
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
    client.head().await;
    let mut before = u64::MAX;
    while before != taken.load(Ordering::Relaxed) {
        before = taken.load(Ordering::Relaxed);
        sleep(SOON).await;
    }
    // What the kernel's four socket buffers hold, and hyper's two.
    assert!(before < 20_000_000, "{before} bytes were taken for a client that reads none");
    let whole = client.bytes(200_000_000 - 1).await;
    assert_eq!(whole.len(), 200_000_000 - 1);
    drop(client);
    gateway.until_empty("alice", "a slow reader").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_workspace_slows_the_upload_down() {
    let origin = Origin::start(|mut connection| async move {
        let Some(request) = connection.head().await else { return };
        sleep(SOON * 3).await;
        connection.body(request).await;
        connection.send(ok("done")).await;
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let client = Client::connect(gateway.public()).await;
    let (mut reading, mut writing) = client.stream.into_split();
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let upload = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let size = 100_000_000;
        let head = format!("POST / HTTP/1.1\r\n{HOST}Content-Length: {size}\r\n\r\n");
        writing.write_all(head.as_bytes()).await.unwrap();
        let block = vec![b'x'; 100_000];
        for _ in 0..size / 100_000 {
            writing.write_all(&block).await.unwrap();
            counted.fetch_add(100_000, Ordering::Relaxed);
        }
        writing
    });
    sleep(SOON * 2).await;
    let buffered = sent.load(Ordering::Relaxed);
    assert!(buffered < 20_000_000, "{buffered} bytes were taken that nobody reads");
    let _writing = timeout(PATIENCE, upload).await.unwrap().unwrap();
    let mut answer = Vec::new();
    let answered = async {
        use tokio::io::AsyncReadExt;
        while !answer.ends_with(b"done") {
            assert!(reading.read_buf(&mut answer).await.unwrap() > 0);
        }
    };
    timeout(PATIENCE, answered).await.unwrap();
    assert_eq!(origin.received()[0].body.len(), 100_000_000);
    gateway.stop().await;
}
