//! Floods over HTTP/2: they are ended, cost others nothing, and leave nothing behind.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http2::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    fields, frame,
};
use crate::support::{Gateway, Origin, PATIENCE, Program, Setup, ok, upstream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PRIORITY: u8 = 2;
const CONTINUATION: u8 = 9;
/// A kind of frame that nobody knows.
const UNKNOWN: u8 = 0x42;
const ACK: u8 = 1;
/// RFC 9113 §7.
const ENHANCE_YOUR_CALM: u32 = 11;

fn head() -> Vec<u8> {
    fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "alice.localhost"),
    ])
}

/// Sends a flood as fast as it is taken, and reads what comes: the reason of the goodbye, or `None`
/// if there was no goodbye.
async fn goodbye(address: SocketAddr, flood: Vec<u8>) -> Option<u32> {
    let (mut reading, mut writing) = TcpStream::connect(address).await.unwrap().into_split();
    let sending = tokio::spawn(async move {
        let begun = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        drop(writing.write_all(&begun).await);
        drop(writing.write_all(&flood).await);
        drop(writing.shutdown().await);
    });
    let read = async {
        loop {
            let mut header = [0; 9];
            reading.read_exact(&mut header).await.ok()?;
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; length as usize];
            reading.read_exact(&mut payload).await.ok()?;
            if header[3] == GOAWAY {
                return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
    };
    let reason = timeout(PATIENCE, read).await.unwrap();
    sending.abort();
    reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_too_many_frames_that_ask_for_nothing_is_told_to_calm_down() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::before(&origin).await;
    let answered = frame(HEADERS, END_HEADERS | END_STREAM, 1, &head());
    let floods = [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("answers to no ping", frame(PING, ACK, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("windows of settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])),
        ("resets of what has ended", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("what nobody knows", frame(UNKNOWN, 0, 0, &[0; 100])),
    ];
    for (name, one) in floods {
        let few = [answered.clone(), one.repeat(100), frame(GOAWAY, 0, 0, &[0; 8])].concat();
        assert_ne!(goodbye(gateway.public(), few).await, Some(ENHANCE_YOUR_CALM), "few {name}");
        let many = [answered.clone(), one.repeat(60_000)].concat();
        assert_eq!(goodbye(gateway.public(), many).await, Some(ENHANCE_YOUR_CALM), "{name}");
        gateway.until_empty("alice", name).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_from_clients_fills_no_log() {
    let configuration = "[docker]\nenable = false\n".to_owned();
    let program = Program::run(Setup { configuration, log: "trace", ..Setup::default() }).await;
    let resets = (0..200_u32).flat_map(|n| {
        let opened = frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &head());
        [opened, frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()
    });
    let floods = [
        frame(PING, ACK, 0, &[0; 8]).repeat(1_000),
        resets.collect(),
        b"GET / HTTP/1.1\r\nHost: \x01\r\n\r\n".repeat(100),
    ];
    for flood in floods {
        let _how = goodbye(program.public, flood).await;
    }
    let log = program.log();
    for library in ["h2::", "hyper::"] {
        assert!(!log.contains(library), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_served_during_floods_and_nobody_is_left_inside() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.listen.header_timeout = Duration::from_secs(1);
    })
    .await;
    let head = head();
    let reset = |stream: u32| {
        let opened = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        [opened, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let floods: Vec<(&str, Vec<u8>)> = vec![
        ("rapid resets", (0..20_000).flat_map(|n| reset(2 * n + 1)).collect()),
        ("settings", frame(SETTINGS, 0, 0, &[]).repeat(20_000)),
        ("pings", frame(PING, 0, 0, &[0; 8]).repeat(20_000)),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(20_000)),
        ("empty data", frame(DATA, 0, 1, &[]).repeat(20_000)),
        (
            "continuations",
            [frame(HEADERS, 0, 1, &head), frame(CONTINUATION, 0, 1, &[0; 1]).repeat(20_000)]
                .concat(),
        ),
        ("a wide window", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
    ];
    for (name, flood) in floods {
        let mut stream = TcpStream::connect(gateway.public()).await.unwrap();
        let send = async {
            stream.write_all(PREFACE).await?;
            stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
            stream.write_all(&flood).await
        };
        drop(timeout(Duration::from_secs(2), send).await);
        // Others are served meanwhile.
        let reply = timeout(PATIENCE, gateway.get("alice", "/")).await.unwrap();
        assert_eq!(reply.status, 200, "during {name}");
        drop(stream);
        gateway.until_empty("alice", name).await;
    }
    gateway.stop().await;
}
