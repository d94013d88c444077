//! After an admin's stop what open pages ask for by themselves does not wake a workspace, and
//! somebody who opens a page does.

use std::time::Duration;

use frostgate::config::Config;
use frostgate::model::{FreezeMode, Phase};
use tokio::time::Instant;

use crate::support::{Client, Gateway, PATIENCE, Reply, navigate, process, until};
use crate::websocket::UPGRADE;

const POLL: &str = "GET /boot HTTP/1.1\r\nSec-Fetch-Mode: cors\r\nAccept: text/html\r\n";
const HOST: &str = "Host: alice.localhost\r\n";

/// What a tab that somebody forgot sends.
const BACKGROUND: [&str; 5] = [
    POLL,
    "GET /events HTTP/1.1\r\nSec-Fetch-Mode: cors\r\nAccept: text/event-stream\r\n",
    "POST /boot HTTP/1.1\r\nSec-Fetch-Mode: no-cors\r\nContent-Length: 0\r\n",
    "GET /boot HTTP/1.1\r\nAccept: */*\r\n",
    "POST /boot HTTP/1.1\r\nAccept: text/html\r\nContent-Length: 0\r\n",
];

fn alice(config: &mut Config, environment: &[(&str, &str)]) {
    process(config, "alice", FreezeMode::Stop, PATIENCE * 9, environment);
}

async fn ask(gateway: &Gateway, request: &str) -> Reply {
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("{request}{HOST}\r\n")).await;
    client.reply().await
}

fn assert_held_off(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 503, "{what}: {reply:?}");
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&seconds), "{what}: {reply:?}");
}

async fn stop(gateway: &Gateway) {
    let stopped = gateway.call("PUT", "/workspaces/alice/stop").await;
    assert_eq!(stopped.status, 200, "{stopped:?}");
    assert!(stopped.json()["hold_off_until"].is_string(), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_tab_does_not_wake_what_an_admin_stopped_and_a_navigation_does() {
    let gateway = Gateway::start(|config| alice(config, &[])).await;
    let wakers = [
        "GET /boot HTTP/1.1\r\nSec-Fetch-Mode: navigate\r\n",
        "GET /boot HTTP/1.1\r\nAccept: application/xml, text/html;q=0.9\r\n",
    ];
    for waker in wakers {
        let first = ask(&gateway, POLL).await;
        assert_eq!(first.status, 200, "{first:?}");
        stop(&gateway).await;
        for request in BACKGROUND {
            assert_held_off(&ask(&gateway, request).await, request);
        }
        let mut socket = Client::connect(gateway.public()).await;
        socket.send(UPGRADE).await;
        assert_held_off(&socket.reply().await, "a WebSocket");
        let told = gateway.call("GET", "/api/v1/workspaces/alice/activity").await.json();
        let why = told["why"].as_str().unwrap();
        assert!(why.contains("only a page that is opened wakes it"), "{why}");
        assert_eq!(gateway.phase("alice"), Phase::Frozen);

        let woken = ask(&gateway, waker).await;
        assert_eq!(woken.status, 200, "{woken:?}");
        assert_ne!(first.body, woken.body);
        let shown = gateway.call("GET", "/workspaces/alice").await.json();
        assert!(shown["hold_off_until"].is_null(), "{shown}");
        assert_eq!(ask(&gateway, POLL).await.body, woken.body);
    }
    stop(&gateway).await;
    assert_eq!(gateway.call("PUT", "/workspaces/alice/resume").await.status, 200);
    assert_eq!(ask(&gateway, POLL).await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_begins_with_the_drain_and_a_navigation_meanwhile_waits_and_wakes_it() {
    let gateway = Gateway::start(|config| {
        alice(config, &[("DYING_MS", "300")]);
        config.policy.drain_grace = PATIENCE;
    })
    .await;
    let first = ask(&gateway, POLL).await;
    let mut inside = Client::connect(gateway.public()).await;
    inside.send(format!("GET /wait?ms=300 HTTP/1.1\r\n{HOST}\r\n")).await;
    until("it is inside", || gateway.workspace("alice").view().inside == 1).await;
    let refused_until_frozen = async {
        until("it is shut", || gateway.phase("alice") == Phase::Freezing).await;
        let mut refused = 0;
        while gateway.phase("alice") == Phase::Freezing {
            let reply = ask(&gateway, POLL).await;
            // Unless it has been frozen meanwhile, and woken by the navigation.
            if gateway.phase("alice") == Phase::Freezing {
                assert_held_off(&reply, "a poll during the freeze");
                refused += 1;
            }
        }
        refused
    };
    let navigates = async {
        until("it is shut", || gateway.phase("alice") == Phase::Freezing).await;
        navigate(gateway.public(), "alice.localhost", "/boot").await
    };
    let (stopped, refused, woken) = tokio::join!(
        gateway.call("PUT", "/workspaces/alice/stop"),
        refused_until_frozen,
        navigates
    );
    assert_eq!(stopped.status, 200, "{stopped:?}");
    assert!(refused > 0);
    assert_eq!(inside.reply().await.status, 200, "it had the time to finish");
    assert_eq!(woken.status, 200, "{woken:?}");
    assert_ne!(woken.body, first.body);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_before_the_stop_keeps_the_place() {
    let gateway = Gateway::start(|config| {
        let idle = Duration::from_millis(200);
        process(config, "alice", FreezeMode::Stop, idle, &[("DYING_MS", "500")]);
    })
    .await;
    assert_eq!(ask(&gateway, POLL).await.status, 200);
    gateway.until("alice", Phase::Freezing).await;
    let mut early = Client::connect(gateway.public()).await;
    early.send(format!("{POLL}{HOST}\r\n")).await;
    until("it waits", || gateway.workspace("alice").view().held == 1).await;
    let (stopped, late) = tokio::join!(gateway.call("PUT", "/workspaces/alice/stop"), async {
        until("it is held off", || gateway.workspace("alice").view().held_off_until.is_some())
            .await;
        ask(&gateway, POLL).await
    });
    assert_held_off(&late, "one that came after the stop");
    assert_eq!(stopped.status, 200, "{stopped:?}");
    assert_eq!(early.reply().await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_by_itself_and_can_be_switched_off() {
    let hold_off = Duration::from_millis(700);
    let gateway = Gateway::start(|config| {
        alice(config, &[]);
        config.policy.stop_hold_off = hold_off;
    })
    .await;
    assert_eq!(ask(&gateway, POLL).await.status, 200);
    let before = Instant::now();
    stop(&gateway).await;
    let mut reply = ask(&gateway, POLL).await;
    while reply.status == 503 {
        assert!(before.elapsed() < PATIENCE, "it never ends");
        reply = ask(&gateway, POLL).await;
    }
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(before.elapsed() >= hold_off, "it ended after {:?}", before.elapsed());

    let mut admin = Client::connect(gateway.admin()).await;
    let body = "{\"stop_hold_off\":0}";
    admin
        .send(format!(
            "PATCH /workspaces/alice HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            gateway.token(),
            body.len()
        ))
        .await;
    let changed = admin.reply().await;
    assert_eq!(changed.json()["policy"]["stop_hold_off"], 0.0, "{changed:?}");
    let stopped = gateway.call("PUT", "/workspaces/alice/stop").await;
    assert!(stopped.json()["hold_off_until"].is_null(), "{stopped:?}");
    assert_eq!(ask(&gateway, POLL).await.status, 200);
    gateway.stop().await;
}
