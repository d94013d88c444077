//! However a request ends, its lease and its place at the gate are given back.

use std::time::Duration;

use frostgate::model::{FreezeMode, Phase};
use tokio::time::sleep;

use crate::support::{Client, Gateway, Origin, PATIENCE, ok, process, until, upstream};

const HOST: &str = "Host: alice.localhost\r\n";
const JSON: &str = "application/json";
const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\n";

/// An upstream that does what the path says.
async fn obliging() -> Origin {
    Origin::start(|mut connection| async move {
        while let Some(request) = connection.head().await {
            let path = request.path().to_owned();
            match path.as_str() {
                "/half" => {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").await;
                    connection.until_gone().await;
                }
                "/endless" => {
                    connection.send("HTTP/1.1 200 OK\r\n\r\n").await;
                    while connection.send([b'x'; 10_000]).await {}
                }
                "/silent" => connection.until_gone().await,
                "/hang-up" => return,
                "/short" => {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").await;
                    return;
                }
                "/early" => {
                    connection.send(ok("early")).await;
                    connection.until_gone().await;
                }
                "/switch" => {
                    let head = "HTTP/1.1 101 Switching Protocols\r\n";
                    connection.send(format!("{head}{UPGRADE}\r\n")).await;
                    connection.until_gone().await;
                }
                _ => {
                    if connection.body(request).await.is_none() {
                        return;
                    }
                    connection.send(ok(&path)).await;
                }
            }
        }
    })
    .await
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// Read the answer and leave.
    Read,
    /// Leave at once.
    Leave,
    /// Leave in the middle of things.
    LeaveLater,
    /// Leave without a farewell: RST.
    Reset,
    /// Stop sending, and wait for the server to hang up.
    Finish,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_gives_the_lease_back() {
    use Then::{Finish, Leave, LeaveLater, Read, Reset};
    let origin = obliging().await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.upstream.response_timeout = Duration::from_millis(300);
        config.upstream.connect_timeout = Duration::from_millis(500);
    })
    .await;
    let body = "Content-Length: 100000\r\n\r\nbegin".to_owned();
    let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n".to_owned();
    let none = "\r\n".to_owned();
    let mut tried = 0;
    for (path, rest) in [
        ("/", &none),
        ("/half", &none),
        ("/endless", &none),
        ("/silent", &none),
        ("/hang-up", &none),
        ("/short", &none),
        ("/upload", &body),
        ("/upload", &chunks),
        ("/early", &body),
        ("/early", &chunks),
        ("/silent", &body),
        ("/hang-up", &body),
        ("/switch", &format!("{UPGRADE}\r\n")),
        ("/switch", &format!("{UPGRADE}\r\nat once")),
        ("/hang-up", &format!("{UPGRADE}\r\n")),
    ] {
        for then in [Read, Leave, LeaveLater, Reset, Finish] {
            let method = if rest.contains("begin") { "POST" } else { "GET" };
            let mut client = Client::connect(gateway.public()).await;
            client.send(format!("{method} {path} HTTP/1.1\r\n{HOST}{rest}")).await;
            match then {
                Read => {
                    let limit = if path == "/upload" { 50 } else { 1_000 };
                    drop(tokio::time::timeout(Duration::from_millis(limit), client.head()).await);
                }
                Leave => {}
                LeaveLater => sleep(Duration::from_millis(20)).await,
                Reset => {
                    sleep(Duration::from_millis(20)).await;
                    client.stream.set_zero_linger().unwrap();
                }
                Finish => {
                    use tokio::io::AsyncWriteExt;
                    drop(client.stream.shutdown().await);
                    sleep(Duration::from_millis(20)).await;
                }
            }
            drop(client);
            let after = format!("{method} {path}, {} bytes more, then {then:?}", rest.len());
            gateway.until_empty("alice", &after).await;
            tried += 1;
        }
    }
    assert_eq!(tried, 75);
    assert_eq!(gateway.get("alice", "/fine").await.text(), "/fine");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_at_the_gate_is_given_back_by_whoever_leaves_it() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE, &[("START_DELAY_MS", "9000")]);
        // Longer than anybody here waits for anything: who has left is noticed, not timed out.
        config.policy.hold_max = PATIENCE * 9;
        config.policy.start_timeout = PATIENCE * 9;
    })
    .await;
    let mut kinds = 0;
    // The body of an upload is not read while it waits, and may be anywhere.
    let uploads = [
        "Content-Length: 9\r\n\r\n",
        "Content-Length: 9\r\n\r\nabc",
        "Content-Length: 9\r\n\r\nabcdefghi",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ];
    for rest in uploads.into_iter().chain(["\r\n"]) {
        for resets in [false, true] {
            let mut client = Client::connect(gateway.public()).await;
            client.send(format!("POST /echo HTTP/1.1\r\n{HOST}{rest}")).await;
            until("it is held", || gateway.workspace("alice").view().held == 1).await;
            if resets {
                client.stream.set_zero_linger().unwrap();
            }
            drop(client);
            gateway.until_empty("alice", &format!("{rest:?} left, resets: {resets}")).await;
            kinds += 1;
        }
    }
    assert_eq!(kinds, 12);
    assert_eq!(gateway.phase("alice"), Phase::Starting, "the wake goes on");
    let changed = gateway.send("PATCH /workspaces/alice", JSON, "{\"hold_max\":\"300ms\"}").await;
    assert_eq!(changed.status, 200, "{changed:?}");
    // Who stays is told when the wait is over.
    let reply = gateway.get("alice", "/").await;
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(reply.header("retry-after").is_some());
    gateway.until_empty("alice", "a hold that timed out").await;
    gateway.stop().await;
}
