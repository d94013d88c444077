//! Workspaces that are kept awake for a while because somebody asked for that.

use std::time::Duration;

use frostgate::config::Config;
use frostgate::model::{FreezeMode, Phase};

use crate::support::{Gateway, PATIENCE, Reply, config, process, until};

const IDLE: Duration = Duration::from_millis(200);
const FORM: &str = "application/x-www-form-urlencoded";

fn alice(config: &mut Config) {
    process(config, "alice", FreezeMode::Stop, IDLE, &[]);
}

async fn keep(gateway: &Gateway, body: &str) -> Reply {
    gateway.send("PUT /api/v1/workspaces/alice/keep", FORM, body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_frozen_when_the_time_is_over_and_not_before() {
    let gateway = Gateway::start(alice).await;
    assert_eq!(keep(&gateway, "for=2s").await.status, 200);
    // That wakes nobody.
    assert_eq!(gateway.phase("alice"), Phase::Frozen);
    gateway.get("alice", "/").await;
    let until_then = gateway.workspace("alice").view().kept_until.expect("it is kept");
    let told = gateway.call("GET", "/api/v1/workspaces/alice/activity").await.json();
    assert!(told["why"].as_str().unwrap().contains("keeps it awake"), "{told}");
    assert_eq!(told["workspace"]["freeze_at"], told["workspace"]["kept_until"], "{told}");
    gateway.until("alice", Phase::Frozen).await;
    assert!(tokio::time::Instant::now() >= until_then, "it was frozen too early");
    assert!(gateway.workspace("alice").view().kept_until.is_none());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_if_nothing_is_said_and_no_longer_after_a_zero_or_a_stop() {
    let gateway = Gateway::start(alice).await;
    let kept = async || {
        let told = gateway.call("GET", "/api/v1/workspaces/alice").await.json();
        told["kept_until"].is_string()
    };
    for (end, path) in [("for=0", "/api/v1/workspaces/alice/keep"), ("", "/workspaces/alice/stop")]
    {
        gateway.get("alice", "/").await;
        let reply = keep(&gateway, "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let left = gateway.workspace("alice").view().kept_until.unwrap().elapsed();
        assert_eq!(left, Duration::ZERO, "an hour is over already");
        assert!(kept().await);
        let reply = gateway.send(&format!("PUT {path}"), FORM, end).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(!kept().await, "{path}");
        gateway.until("alice", Phase::Frozen).await;
    }
    for wrong in ["for=8d", "for=soon", "for=-1", "four=1h"] {
        let reply = keep(&gateway, wrong).await;
        assert_eq!(reply.status, 400, "{wrong}: {reply:?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_does_not_end_it() {
    let gateway = Gateway::start(alice).await;
    gateway.get("alice", "/").await;
    keep(&gateway, "for=1h").await;
    let directory = gateway.crash().await;
    let mut again = config(directory);
    alice(&mut again);
    let gateway = Gateway::start_as(again).await;
    gateway.until("alice", Phase::Running).await;
    let left = gateway.workspace("alice").view().kept_until.expect("it is kept");
    let left = left.saturating_duration_since(tokio::time::Instant::now());
    assert!(left > Duration::from_secs(50 * 60) && left <= Duration::from_secs(3_600), "{left:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_gives_its_slot_to_nobody() {
    let gateway = Gateway::start(|config| {
        config.limits.slots = 1;
        config.policy.hold_max = Duration::from_secs(2);
        process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
        process(config, "bob", FreezeMode::Stop, PATIENCE * 9, &[]);
    })
    .await;
    gateway.get("alice", "/").await;
    keep(&gateway, "for=1h").await;
    assert_eq!(gateway.get("bob", "/").await.status, 503);
    assert_eq!(gateway.phase("alice"), Phase::Running);
    keep(&gateway, "for=0").await;
    assert_eq!(gateway.get("bob", "/").await.status, 200);
    until("alice gave way", || gateway.phase("alice") == Phase::Frozen).await;
    gateway.stop().await;
}
