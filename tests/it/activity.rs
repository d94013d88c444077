//! Why a workspace is awake or what froze it: the signals that count, one after the other.

use std::sync::Arc;
use std::time::Duration;

use frostgate::config::Config;
use frostgate::model::{FreezeMode, FrozenStorage, Phase, PolicyOverrides};
use serde_json::Value;

use crate::support::{Client, Gateway, Origin, PATIENCE, get, ok, process, until, upstream};

/// What differs from the default policy.
type Change = fn(&mut PolicyOverrides);

const HOUR: Duration = Duration::from_secs(3_600);

fn alice(config: &mut Config, change: impl FnOnce(&mut PolicyOverrides)) {
    process(config, "alice", FreezeMode::Stop, HOUR, &[]);
    change(Arc::make_mut(&mut config.workspaces.values_mut().next().unwrap().policy));
}

async fn activity(gateway: &Gateway) -> Value {
    let reply = gateway.call("GET", "/api/v1/workspaces/alice/activity").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn why(activity: &Value) -> &str {
    activity["why"].as_str().unwrap()
}

fn date(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_signal_is_told_as_it_is_now() {
    let gateway = Gateway::start(|config| {
        alice(config, |policy| {
            policy.initial_timeout = Some(HOUR * 2);
            policy.check_in_ttl = Some(HOUR * 5);
            policy.storage = Some(FrozenStorage::Limited(HOUR));
        });
    })
    .await;
    let none = &activity(&gateway).await["signals"];
    for signal in ["last_request_ended_at", "check_in", "initial_timeout_ends_at"] {
        assert!(none[signal].is_null(), "{signal} of one that never ran: {none}");
    }

    assert_eq!(gateway.get("alice", "/").await.status, 200);
    gateway.until_empty("alice", "its first request").await;
    let idle = activity(&gateway).await;
    assert!(why(&idle).starts_with("awake and idle: it will be frozen in "), "{idle}");
    let signals = &idle["signals"];
    assert_eq!((&signals["live_requests"], &signals["live_tunnels"]), (&0.into(), &0.into()));
    assert_eq!((&signals["held_requests"], &signals["monitoring"]), (&0.into(), &true.into()));
    let ready = date(&idle["workspace"]["since"]);
    let grace = date(&signals["initial_timeout_ends_at"]).duration_since(ready);
    assert!((grace.as_secs() - 7_200).abs() <= 1, "{idle}");
    assert!(date(&signals["last_request_ended_at"]) >= ready, "{idle}");
    // It will have been idle for its hour when the grace ends.
    assert_eq!(signals["next_deadline_at"], signals["initial_timeout_ends_at"], "{idle}");

    let address = gateway.public();
    let waiting = tokio::spawn(get(address, "alice.localhost", "/wait?ms=30000"));
    until("it is inside", || gateway.workspace("alice").view().inside == 1).await;
    let inside = activity(&gateway).await;
    assert_eq!(why(&inside), "awake: 1 request is inside");
    assert_eq!(inside["signals"]["live_requests"], 1);
    waiting.abort();
    gateway.until_empty("alice", "a client that left").await;

    let token = gateway.workspace("alice").blueprint().check_in.token.clone();
    let report = async |active: u32| {
        let mut client = Client::connect(gateway.admin()).await;
        let line = format!("POST /v1/check-in?token={token}&active={active} HTTP/1.1");
        client.send(format!("{line}\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(client.reply().await.status, 200);
    };
    report(3).await;
    let active = activity(&gateway).await;
    assert!(why(&active).starts_with("awake: it reports activity itself, for another 4h 59m"));
    let said = &active["signals"]["check_in"];
    assert_eq!(said["active"], true);
    let counts = date(&said["expires_at"]).duration_since(date(&said["at"]));
    assert_eq!(counts.as_secs_f64().round(), 18_000.0, "{active}");
    report(0).await;
    let said = activity(&gateway).await["signals"]["check_in"].clone();
    assert_eq!((&said["active"], &said["expires_at"]), (&false.into(), &Value::Null), "{said}");

    assert_eq!(gateway.call("PUT", "/workspaces/alice/stop").await.status, 200);
    let frozen = activity(&gateway).await;
    assert!(why(&frozen).starts_with("frozen: stopped by an admin; it will be removed in 59m"));
    assert!(frozen["signals"]["initial_timeout_ends_at"].is_null(), "{frozen}");
    assert_eq!(frozen["journal"][0]["phase"], "frozen");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_freezes_by_itself_says_why_not() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| upstream(config, "alice", origin.address)).await;
    gateway.until("alice", Phase::Running).await;
    let words = "awake: it is a fixed upstream, which can't be frozen";
    assert_eq!(why(&activity(&gateway).await), words);
    gateway.stop().await;

    let rows: [(Change, &str); 3] = [
        (
            |policy| policy.monitoring = Some(false),
            "awake: its monitoring is off, so only a call freezes it",
        ),
        (
            |policy| policy.inactivity_timeout = Some(Duration::ZERO),
            "awake: its inactivity_timeout is 0, so only a call freezes it",
        ),
        (
            |policy| policy.storage = Some(FrozenStorage::None),
            "awake and idle: it will be removed, for it can't be frozen, in 59m 59s",
        ),
    ];
    for (change, words) in rows {
        let gateway = Gateway::start(|config| alice(config, change)).await;
        assert_eq!(gateway.call("PUT", "/workspaces/alice/resume").await.status, 200);
        let told = activity(&gateway).await;
        // A slow day may take some of the last minute.
        assert_eq!(why(&told).split(" in 59m").next(), words.split(" in 59m").next());
        assert_eq!(told["signals"]["monitoring"], !words.contains("monitoring"));
        gateway.stop().await;
    }
    assert!(PATIENCE < HOUR);
}
