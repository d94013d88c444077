//! A workspace is not to be trusted: whatever it answers, its client gets that answer, whole, or
//! sees that it is not, and no other client gets anything of it.

use std::time::Duration;

use crate::support::{Client, Gateway, Origin, PATIENCE, ok};

const HOST: &str = "Host: alice.localhost\r\n";

/// Answers that a client could read in another way than the gateway does: 502, and the connection
/// to the workspace is not used again.
const UNCLEAR: &[(&str, &str)] = &[
    (
        "both framings",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "both framings, turned",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\n",
    ),
    ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    ("equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    ("lengths in a line", "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc"),
    ("a length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
    ("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc"),
    (
        "a coding",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a coding until the end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
    (
        "a coding in HTTP/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    ("a folded line", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
    ("a bare CR", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n"),
    ("a NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
    ("a space before a colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
    ("no status", "HTTP/1.1 OK\r\n\r\n"),
    ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\n"),
    ("a status below all", "HTTP/1.1 099 Odd\r\n\r\n"),
    ("HTTP/2.0", "HTTP/2.0 200 OK\r\n\r\n"),
    ("HTTP/0.9", "hello, world\r\n\r\n"),
    ("no head at all", "\0\x01\x02\x03\r\n\r\n"),
    (
        "a switch that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nxyz",
    ),
    ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
    ("nothing", ""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unclear_answer_is_a_502() {
    let origin = Origin::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            match request.path().strip_prefix("/unclear/") {
                Some(number) => {
                    let (_, answer) = UNCLEAR[number.parse::<usize>().unwrap()];
                    connection.send(answer).await;
                    return;
                }
                None => drop(connection.send(ok("fine")).await),
            }
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut complaints = Vec::new();
    for (number, (name, _)) in UNCLEAR.iter().enumerate() {
        let mut client = Client::connect(gateway.public()).await;
        // A POST, as that is never repeated.
        client
            .send(format!("POST /unclear/{number} HTTP/1.1\r\n{HOST}Content-Length: 1\r\n\r\nx"))
            .await;
        let reply = client.reply().await;
        if reply.status != 502 {
            complaints.push(format!("{name}: {reply:?}"));
        }
        client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
        let next = client.reply().await;
        if next.status != 0 && next.text() != "fine" {
            complaints.push(format!("{name}, then: {next:?}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(UNCLEAR.len() >= 20);
    gateway.until_empty("alice", "unclear answers").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_answered_by_nonsense_is_not_sent_again() {
    let origin = Origin::start(|mut connection| async move {
        if let Some(request) = connection.request().await {
            let number = request.path().trim_start_matches('/').parse::<usize>().unwrap();
            connection.send(UNCLEAR[number].1).await;
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut answered = 0;
    for (number, (name, answer)) in UNCLEAR.iter().enumerate() {
        // What broke off may have been a connection that was dead.
        if !answer.contains("\r\n\r\n") {
            continue;
        }
        let reply = gateway.get("alice", &format!("/{number}")).await;
        assert_eq!(reply.status, 502, "{name}");
        assert_eq!(origin.take().len(), 1, "{name}");
        answered += 1;
    }
    assert!(answered >= 20);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_an_answer_is_nobodys() {
    // A second answer behind the first, for whoever comes next over the same connection.
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let origin = Origin::answering(move |request| match request.path() {
        "/head" => [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", poison.as_bytes()].concat(),
        "/204" => [b"HTTP/1.1 204 No Content\r\n\r\n", poison.as_bytes()].concat(),
        "/304" => [b"HTTP/1.1 304 Not Modified\r\n\r\n", poison.as_bytes()].concat(),
        "/chunked" => {
            let first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
            [&first[..], poison.as_bytes()].concat()
        }
        "/evil" => [ok("evil"), poison.into()].concat(),
        path => ok(path),
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut tried = 0;
    for line in ["GET /evil", "HEAD /head", "GET /204", "GET /304", "GET /chunked"] {
        for _ in 0..20 {
            let mut client = Client::connect(gateway.public()).await;
            client.send(format!("{line} HTTP/1.1\r\n{HOST}\r\n")).await;
            let head = client.head().await;
            assert!(head.starts_with("HTTP/1.1 "), "{line}: {head}");
            let reply = gateway.get("alice", "/innocent").await;
            assert_eq!(reply.text(), "/innocent", "after {line}");
            let rest = client.rest(Duration::from_millis(1)).await.unwrap_or_default();
            assert!(!String::from_utf8_lossy(&rest).contains("poison"), "{line}: {rest:?}");
            tried += 1;
        }
    }
    assert_eq!(tried, 100);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_not_asked_for_is_nobodys() {
    let origin = Origin::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            connection.send(ok(request.path())).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            connection.send(ok("unasked")).await;
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    for number in 0..10 {
        let path = format!("/{number}");
        assert_eq!(gateway.get("alice", &path).await.text(), path);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_heads_and_interim_answers_end() {
    let origin = Origin::start(|mut connection| async move {
        let Some(request) = connection.request().await else { return };
        match request.path() {
            "/interim" => {
                connection
                    .send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
                    .await;
                connection.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n").await;
                connection.send(ok("after all")).await;
            }
            "/fields" => {
                connection.send("HTTP/1.1 200 OK\r\n").await;
                while connection.send("X: y\r\n".repeat(1_000)).await {}
            }
            _ => {
                connection.send("HTTP/1.1 200 OK\r\nX: ").await;
                while connection.send("y".repeat(10_000)).await {}
            }
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let reply = gateway.get("alice", "/interim").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "after all"), "{reply:?}");
    for path in ["/fields", "/value"] {
        let reply = tokio::time::timeout(PATIENCE, gateway.get("alice", path)).await.unwrap();
        assert_eq!(reply.status, 502, "{path}");
    }
    gateway.until_empty("alice", "endless heads").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_versions_and_odd_statuses_are_told_in_ours() {
    let origin = Origin::answering(|request| match request.path() {
        "/1.0" => b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        "/599" => b"HTTP/1.1 599 Very Own\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/reason" => b"HTTP/1.1 200 <script>\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n".to_vec(),
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    for (path, line) in
        [("/1.0", "HTTP/1.1 200 OK"), ("/599", "HTTP/1.1 599 "), ("/none", "HTTP/1.1 200 ")]
    {
        let reply = gateway.get("alice", path).await;
        assert!(reply.complete && reply.head.starts_with(line), "{path}: {}", reply.head);
    }
    gateway.stop().await;
}
