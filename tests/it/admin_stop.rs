//! What an admin's stop does to those who are still inside when their time is over.

use std::time::Duration;

use bytes::Bytes;
use frostgate::model::{FreezeMode, Phase};
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http2;
use crate::support::{Client, Connection, Gateway, Origin, PATIENCE, Reply, process, relay, until};
use crate::websocket;

const DRAIN: Duration = Duration::from_millis(300);
const HOST: &str = "Host: alice.localhost\r\n";
/// A Close frame of a server that says 1001, and the same of a client, with a mask of zeros.
pub(crate) const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];
pub(crate) const GOING_AWAY_MASKED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];
const EVENT: &str = "data: tick\n\n";

/// A gateway before a process that `origin` speaks for.
async fn before(origin: &Origin, mode: FreezeMode) -> Gateway {
    Gateway::start(|config| {
        relay(config, "alice", mode, PATIENCE * 9, origin);
        config.policy.drain_grace = DRAIN;
    })
    .await
}

/// Stops alice, whom somebody is inside of.
async fn stop(gateway: &Gateway) -> Reply {
    until("somebody is inside", || gateway.workspace("alice").view().inside > 0).await;
    let stopped = gateway.call("PUT", "/workspaces/alice/stop").await;
    assert_eq!((stopped.status, gateway.phase("alice")), (200, Phase::Frozen), "{stopped:?}");
    stopped
}

/// Answers that never end: events, and downloads with every kind of framing.
async fn endless(mut connection: Connection) {
    while let Some(request) = connection.request().await {
        let (kind, framing) = match request.path() {
            "/events" => ("Text/Event-Stream; charset=utf-8", "Transfer-Encoding: chunked"),
            "/chunked" => ("text/plain", "Transfer-Encoding: chunked"),
            "/sized" => ("text/plain", "Content-Length: 100000000"),
            "/sized-events" => ("text/event-stream", "Content-Length: 100000000"),
            _ => return connection.until_gone().await,
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n");
        connection.send(head).await;
        let part = match framing.contains("chunked") {
            true => format!("{:x}\r\n{EVENT}\r\n", EVENT.len()),
            false => EVENT.to_owned(),
        };
        while connection.send(&part).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_events_ends_cleanly_and_a_download_is_seen_to_be_cut() {
    let origin = Origin::start(endless).await;
    for mode in [FreezeMode::Stop, FreezeMode::Pause] {
        for (path, complete) in
            [("/events", true), ("/chunked", false), ("/sized", false), ("/sized-events", false)]
        {
            let gateway = before(&origin, mode).await;
            let mut client = Client::connect(gateway.public()).await;
            client.send(format!("GET {path} HTTP/1.1\r\n{HOST}\r\n")).await;
            let (reply, _) = tokio::join!(client.reply(), stop(&gateway));
            assert_eq!((reply.status, reply.complete), (200, complete), "{path}: {reply:?}");
            assert!(reply.text().starts_with(EVENT), "{path}: {reply:?}");
            if complete {
                // The connection is as good as before.
                client.send("GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n").await;
                assert_eq!(client.reply().await.status, 404);
            } else {
                let end = client.stream.read(&mut [0]).await;
                assert!(matches!(end, Ok(0)), "{path} ended in {end:?}, and not in a FIN");
            }
            drop(client);
            gateway.until_empty("alice", path).await;
            gateway.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_ends_with_its_connection_is_reset_unless_it_is_a_stream_of_events() {
    let origin = Origin::start(endless).await;
    for (path, complete) in [("/events", true), ("/chunked", false)] {
        let gateway = before(&origin, FreezeMode::Stop).await;
        let mut client = Client::connect(gateway.public()).await;
        client.send(format!("GET {path} HTTP/1.0\r\n{HOST}\r\n")).await;
        let mut received = Vec::new();
        let (end, _) = tokio::join!(client.stream.read_to_end(&mut received), stop(&gateway));
        assert!(String::from_utf8_lossy(&received).contains(EVENT), "{path}");
        assert_eq!(end.is_ok(), complete, "{path} ended in {end:?}");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_waits_for_an_answer_is_told_to_come_back_even_in_the_middle_of_an_upload() {
    let origin = Origin::start(|mut connection| async move {
        if connection.head().await.is_some() {
            connection.until_gone().await;
        }
    })
    .await;
    for rest in ["\r\n", "Content-Length: 100000000\r\n\r\n"] {
        let gateway = before(&origin, FreezeMode::Stop).await;
        let mut client = Client::connect(gateway.public()).await;
        client.send(format!("POST /upload HTTP/1.1\r\n{HOST}{rest}")).await;
        if rest.contains("Length") {
            client.send(vec![b'x'; 1_000]).await;
        }
        let (reply, _) = tokio::join!(client.reply(), stop(&gateway));
        assert_eq!((reply.status, reply.complete), (503, true), "{reply:?}");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_events_end_and_downloads_are_reset_and_the_connection_stays() {
    let origin = Origin::start(endless).await;
    let gateway = before(&origin, FreezeMode::Stop).await;
    let mut sender = http2::connect(&gateway).await;
    let mut bodies = Vec::new();
    for path in ["/events", "/chunked", "/sized"] {
        let request = http2::get(path).body(http2::Body::new(Empty::<Bytes>::new())).unwrap();
        let mut body = sender.send_request(request).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        bodies.push((path, body));
    }
    stop(&gateway).await;
    for (path, body) in bodies {
        let whole = body.collect().await;
        assert_eq!(whole.is_ok(), path == "/events", "{path}: {whole:?}");
    }
    assert!(sender.ready().await.is_ok(), "the connection ended with its streams");
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_of_a_websocket_are_told_that_it_goes_away() {
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let origin = websocket::switching(move |mut connection| {
        let told = told.clone();
        async move {
            connection.send([0x81, 2, b'h', b'i']).await;
            told.send(connection.bytes(8).await).await.unwrap();
            connection.send(GOING_AWAY).await;
            connection.until_gone().await;
        }
    })
    .await;
    for mode in [FreezeMode::Stop, FreezeMode::Pause] {
        // It takes a moment to die, as one does that closes its connections first.
        let gateway = Gateway::start(|config| {
            let relayed = [("RELAY_TO", &*origin.address.to_string()), ("DYING_MS", "1000")];
            process(config, "alice", mode, PATIENCE * 9, &relayed);
            config.policy.drain_grace = DRAIN;
        })
        .await;
        let mut client = websocket::opened(&gateway).await;
        assert_eq!(client.bytes(4).await, [0x81, 2, b'h', b'i']);
        let says_goodbye = async {
            let goodbye = client.bytes(4).await;
            client.send(GOING_AWAY_MASKED).await;
            goodbye
        };
        let (goodbye, _) = tokio::join!(says_goodbye, stop(&gateway));
        assert_eq!(goodbye, GOING_AWAY);
        assert_eq!(client.rest(PATIENCE).await.unwrap(), b"");
        // A paused one reads it when it wakes, or read it in time.
        assert_eq!(gateway.call("PUT", "/workspaces/alice/resume").await.status, 200);
        assert_eq!(heard.recv().await.unwrap().unwrap(), GOING_AWAY_MASKED);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_flood_of_frames_the_last_one_is_whole_and_the_goodbye_follows_it() {
    // Of every kind of length, so that reads end everywhere in them.
    let frames = [0, 1, 125, 126, 1_000, 65_535, 65_536, 100_000].map(|length: usize| {
        let mut frame = vec![0x82];
        match length {
            0..=125 => frame.push(length as u8),
            126..=0xffff => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // Every byte of a payload looks like a Close frame's begin.
        frame.extend(vec![0x88; length]);
        frame
    });
    let flood = frames.concat();
    let flooding = flood.clone();
    let origin = websocket::switching(move |mut connection| {
        let flood = flooding.clone();
        async move { while connection.send(&flood).await {} }
    })
    .await;
    for mode in [FreezeMode::Stop, FreezeMode::Pause] {
        let gateway = before(&origin, mode).await;
        let mut client = websocket::opened(&gateway).await;
        let (received, _) = tokio::join!(client.rest(PATIENCE), stop(&gateway));
        let received = received.expect("an end");
        let (frames_of_it, goodbye) = received.split_at(received.len() - GOING_AWAY.len());
        assert_eq!(goodbye, GOING_AWAY, "{mode:?}");
        let mut rest = frames_of_it;
        let mut whole = 0;
        while let Some(frame) = frames.iter().find(|frame| rest.starts_with(frame)) {
            rest = &rest[frame.len()..];
            whole += 1;
        }
        assert!(rest.is_empty(), "{} bytes of a frame that isn't whole", rest.len());
        assert!(whole > 100, "{whole} frames are no flood");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_not_finished_is_cut_and_nothing_is_put_into_it() {
    let origin = websocket::switching(|mut connection| async move {
        let header = [0x82, 127, 0, 0, 0, 0, 0, 0x98, 0x96, 0x80];
        connection.send([&header[..], &[b'x'; 500_000]].concat()).await;
        connection.until_gone().await;
    })
    .await;
    let gateway = before(&origin, FreezeMode::Stop).await;
    let mut client = websocket::opened(&gateway).await;
    assert_eq!(client.bytes(10).await[..2], [0x82, 127]);
    let (payload, _) = tokio::join!(client.rest(PATIENCE), stop(&gateway));
    assert!(payload.unwrap() == vec![b'x'; 500_000]);
    gateway.until_empty("alice", "a cut frame").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_answers_a_goodbye_is_left_after_a_moment() {
    let origin = websocket::switching(|mut connection| async move {
        connection.send([0x81, 0]).await;
        connection.until_gone().await;
    })
    .await;
    let gateway = before(&origin, FreezeMode::Stop).await;
    let mut client = websocket::opened(&gateway).await;
    // In the middle of a frame of its own, so its workspace can't be told anything.
    client.stream.write_all(&[0x82, 0xff]).await.unwrap();
    let (rest, _) = tokio::join!(client.rest(PATIENCE), stop(&gateway));
    assert_eq!(rest.unwrap(), [&[0x81, 0][..], &GOING_AWAY].concat());
    gateway.stop().await;
}
