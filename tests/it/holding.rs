//! What is held: uploads with their bodies unread, whoever leaves, and what is said of the wait.

use std::time::Duration;

use bytes::Bytes;
use frostgate::config::Config;
use frostgate::model::{FreezeMode, Phase, PolicyOverrides, Runs, Spec};
use http_body_util::{BodyExt, Full};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::support::{
    Authority, Client, Gateway, Origin, PATIENCE, add, get, navigate, process, relay, secure, tls,
    until,
};

const HOST: &str = "Host: alice.localhost\r\n";
const MIB: usize = 1 << 20;
/// More than all buffers between a client and a workspace hold.
const UPLOAD: usize = 48 * MIB;

/// A workspace that takes so long to start that whoever waits can be looked at.
fn slow(config: &mut Config, start_ms: &str) {
    let environment = [("START_DELAY_MS", start_ms)];
    process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &environment);
    config.policy.hold_max = PATIENCE * 9;
}

fn held(gateway: &Gateway) -> usize {
    gateway.workspace("alice").view().held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_waits_unread_and_arrives_whole() {
    let gateway = Gateway::start(|config| slow(config, "1500")).await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("POST /digest HTTP/1.1\r\n{HOST}Content-Length: {UPLOAD}\r\n\r\n")).await;
    until("it is held", || held(&gateway) == 1).await;
    let body: Vec<u8> = (0..UPLOAD).map(|at| (at % 251) as u8).collect();
    let mut sent = 0;
    // As much as fits on the way, and then no more for some time.
    while held(&gateway) == 1 {
        let next = &body[sent..(sent + MIB).min(UPLOAD)];
        match timeout(Duration::from_millis(200), client.stream.write(next)).await {
            Ok(wrote) => sent += wrote.unwrap(),
            Err(_) => break,
        }
    }
    assert!(sent < UPLOAD, "all of it was taken while nobody could have it");
    client.stream.write_all(&body[sent..]).await.unwrap();
    let reply = client.reply().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.text().contains(&UPLOAD.to_string()), "{reply:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_over_tls_or_resets_a_stream_gives_its_place_up() {
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = Gateway::start(|config| {
        secure(config, &authority);
        slow(config, "9000");
        config.policy.start_timeout = PATIENCE * 9;
    })
    .await;
    let connector = authority.client(&["http/1.1"]);
    let mut client = Client::over(tls(&connector, gateway.tls(), "alice.localhost").await);
    client.send(format!("POST /echo HTTP/1.1\r\n{HOST}Content-Length: 9\r\n\r\nabc")).await;
    until("it is held", || held(&gateway) == 1).await;
    drop(client);
    gateway.until_empty("alice", "an upload by TLS").await;

    let mut sender = crate::http2::connect(&gateway).await;
    let body = crate::http2::Body::new(Full::new(Bytes::from_static(b"abc")));
    let request = crate::http2::get("/echo").method("POST").body(body).unwrap();
    let answer = sender.send_request(request);
    let waited = tokio::spawn(timeout(PATIENCE * 9, answer));
    until("it is held", || held(&gateway) == 1).await;
    waited.abort();
    gateway.until_empty("alice", "a stream that was reset").await;
    assert_eq!(gateway.phase("alice"), Phase::Starting);
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stays_is_served_though_others_leave() {
    let gateway = Gateway::start(|config| slow(config, "1500")).await;
    let upload = format!("POST /echo HTTP/1.1\r\n{HOST}Content-Length: 6\r\n\r\nabc");
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(gateway.public()).await;
        client.send(&upload).await;
        clients.push(client);
    }
    until("all are held", || held(&gateway) == 6).await;
    clients.truncate(3);
    until("half of them have left", || held(&gateway) == 3).await;
    for client in &mut clients {
        client.send("def").await;
    }
    for client in &mut clients {
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "abcdef"), "{reply:?}");
        // The connection is as good as before.
        client.send(format!("GET /boot HTTP/1.1\r\n{HOST}\r\n")).await;
        assert_eq!(client.reply().await.status, 200);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_held_request_says_how_long_it_waited() {
    let timed = b"HTTP/1.1 200 OK\r\nServer-Timing: app;dur=7\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::answering(|_| timed.to_vec()).await;
    let gateway = Gateway::start(|config| {
        relay(config, "alice", FreezeMode::Stop, PATIENCE * 9, &origin);
    })
    .await;
    let durations = |head: &str| -> Vec<(String, f64)> {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let ours = lines.filter(|(name, _)| name.eq_ignore_ascii_case("server-timing"));
        let entries = ours.flat_map(|(_, value)| value.split(',').map(str::to_owned));
        let read = entries.map(|entry| {
            let (name, duration) = entry.trim().split_once(";dur=").unwrap();
            (name.to_owned(), duration.parse().unwrap())
        });
        read.collect()
    };
    let first = durations(&gateway.get("alice", "/").await.head);
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["app", "hold", "wake"]);
    assert!(first.iter().all(|(_, duration)| *duration > 0.0), "{first:?}");
    let second = durations(&gateway.get("alice", "/").await.head);
    assert_eq!(second, [("app".to_owned(), 7.0)], "it did not wait");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reason_of_a_failure_is_for_admins() {
    let gateway = Gateway::start(|config| {
        let argv = vec!["/nonexistent/secret-program".to_owned()];
        let spec = Spec::new(Runs::Command { argv, directory: None });
        add(config, "alice", spec, PolicyOverrides::default());
    })
    .await;
    let plain = gateway.get("alice", "/").await;
    let page = navigate(gateway.public(), "alice.localhost", "/").await;
    let events = get(gateway.public(), "alice.localhost", "/.well-known/frostgate/wake").await;
    assert_eq!((plain.status, page.status, events.status), (503, 503, 200));
    assert!(plain.header("retry-after").is_some() && page.header("retry-after").is_some());
    assert!(page.text().contains("could not be started"), "{page:?}");
    assert!(events.text().contains("\"state\":\"failed\""), "{events:?}");
    for reply in [plain, page, events] {
        let all = format!("{}{}", reply.head, reply.text());
        for secret in ["secret-program", "nonexistent", "No such file", "os error"] {
            assert!(!all.contains(secret), "{all}");
        }
    }
    let told = gateway.call("GET", "/api/v1/workspaces/alice").await;
    assert!(told.text().contains("secret-program"), "admins are told: {told:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_a_held_http2_request_waits_too() {
    let gateway = Gateway::start(|config| slow(config, "700")).await;
    let mut sender = crate::http2::connect(&gateway).await;
    let bytes = Bytes::from(vec![7; 4 * MIB]);
    let body = crate::http2::Body::new(Full::new(bytes.clone()));
    let request = crate::http2::get("/echo").method("POST").body(body).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), bytes);
    gateway.stop().await;
}
