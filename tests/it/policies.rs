//! Policies: tiers, storage times, and changes while it runs.

use std::sync::Arc;
use std::time::Duration;

use frostgate::config::Config;
use frostgate::model::{FreezeMode, FrozenStorage, Phase, PolicyOverrides, Tier};
use tokio::time::Instant;

use crate::support::{Client, Gateway, PATIENCE, process, until};

const IDLE: Duration = Duration::from_millis(200);
const SECOND: Duration = Duration::from_secs(1);

fn alice(config: &mut Config, mode: FreezeMode, change: impl FnOnce(&mut PolicyOverrides)) {
    process(config, "alice", mode, IDLE, &[]);
    change(Arc::make_mut(&mut config.workspaces.values_mut().next().unwrap().policy));
}

pub(crate) async fn patch(gateway: &Gateway, body: &str) -> crate::support::Reply {
    let mut client = Client::connect(gateway.admin()).await;
    let token = gateway.token();
    let length = body.len();
    client
        .send(format!(
            "PATCH /api/v1/workspaces/alice HTTP/1.1\r\nHost: admin\r\n\
             Authorization: Bearer {token}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    client.reply().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_goes_down_by_tiers_and_wakes_from_each() {
    let gateway = Gateway::start(|config| {
        alice(config, FreezeMode::Pause, |policy| {
            policy.stop_after = Some(SECOND / 2);
            policy.storage = Some(FrozenStorage::Limited(SECOND * 2));
        });
    })
    .await;
    let tier = || gateway.workspace("alice").view().tier;
    let first = gateway.get("alice", "/boot").await;
    until("it is paused", || tier() == Some(Tier::Paused)).await;
    assert_eq!(gateway.get("alice", "/boot").await.body, first.body, "it kept its memory");
    until("it is stopped", || tier() == Some(Tier::Stopped)).await;
    let second = gateway.get("alice", "/boot").await;
    assert!(second.status == 200 && second.body != first.body, "{second:?}");
    until("it is paused again", || tier() == Some(Tier::Paused)).await;
    let frozen = Instant::now();
    let registry = gateway.app().registry();
    until("it is removed", || registry.get("alice").is_none()).await;
    let stored = frozen.elapsed();
    assert!(stored > SECOND && stored < SECOND * 3, "removed after {stored:?}");
    assert_eq!(gateway.get("alice", "/").await.status, 404);
    assert!(!gateway.state_dir().join("process/alice").exists(), "something is left of it");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_frozen_refuses_a_stop_and_is_removed_when_idle() {
    let gateway = Gateway::start(|config| {
        alice(config, FreezeMode::Stop, |policy| {
            policy.inactivity_timeout = Some(SECOND);
            policy.storage = Some(FrozenStorage::None);
        });
    })
    .await;
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    let refused = gateway.call("PUT", "/workspaces/alice/stop").await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(gateway.phase("alice"), Phase::Running);
    let registry = gateway.app().registry();
    until("it is removed", || registry.get("alice").is_none()).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_removed_at_its_age_even_with_an_open_tunnel() {
    let gateway = Gateway::start(|config| {
        alice(config, FreezeMode::Stop, |policy| policy.max_storage_time = Some(SECOND));
    })
    .await;
    let mut client = Client::connect(gateway.public()).await;
    client.send("GET /wait?ms=60000 HTTP/1.1\r\nHost: alice.localhost\r\n\r\n").await;
    let registry = gateway.app().registry();
    until("it is removed", || registry.get("alice").is_none()).await;
    assert_eq!(client.reply().await.status, 503);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_policy_counts_at_once_and_a_wrong_one_changes_nothing() {
    let gateway = Gateway::start(|config| {
        alice(config, FreezeMode::Stop, |policy| policy.inactivity_timeout = Some(PATIENCE * 9));
    })
    .await;
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    for wrong in ["inactivity_timeout=-1", "inactivity_timeout=soon", "colour=red", "hold_max=0"] {
        let refused = patch(&gateway, wrong).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        let field = wrong.split('=').next().unwrap();
        assert!(refused.text().contains(field), "{refused:?}");
    }
    let changed = patch(&gateway, "inactivity_timeout=200ms&freeze_mode=pause").await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.json()["policy"]["freeze_mode"], "pause");
    assert!(changed.json()["freeze_at"].is_string());
    gateway.until("alice", Phase::Frozen).await;
    assert_eq!(gateway.workspace("alice").view().tier, Some(Tier::Paused));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_workspace_is_gone_with_all_that_it_had() {
    let gateway = Gateway::start(|config| alice(config, FreezeMode::Stop, |_| {})).await;
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    assert_eq!(gateway.call("DELETE", "/api/v1/workspaces/alice").await.status, 204);
    assert_eq!(gateway.call("GET", "/api/v1/workspaces/alice").await.status, 404);
    assert_eq!(gateway.get("alice", "/").await.status, 404);
    assert!(!gateway.state_dir().join("process/alice").exists());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_ages_and_the_journal_outlive_a_crash() {
    let configure = |config: &mut Config| {
        alice(config, FreezeMode::Stop, |policy| {
            policy.storage = Some(FrozenStorage::Limited(PATIENCE));
            policy.max_storage_time = Some(PATIENCE * 9);
        });
    };
    let gateway = Gateway::start(configure).await;
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    assert_eq!(patch(&gateway, "hold_max=7s&inactivity_timeout=0.5s").await.status, 200);
    gateway.until("alice", Phase::Frozen).await;
    let frozen_since = gateway.call("GET", "/workspaces/alice").await.json()["since"].clone();
    let told = gateway.call("GET", "/api/v1/workspaces/alice/activity").await.json();
    assert!(told["why"].as_str().unwrap().starts_with("frozen: idle for"), "{told}");
    let remove_at = gateway.workspace("alice").view().remove_at.unwrap();

    let state_dir = gateway.crash().await;
    let mut config = crate::support::config(state_dir);
    configure(&mut config);
    let gateway = Gateway::start_as(config).await;
    let policy = gateway.workspace("alice").policy();
    assert_eq!(policy.hold_max, Duration::from_secs(7));
    assert_eq!(policy.inactivity_timeout, Some(SECOND / 2));
    until("it was looked at", || gateway.phase("alice") == Phase::Frozen).await;
    let again = gateway.call("GET", "/workspaces/alice").await.json();
    assert_eq!(again["since"].as_str().unwrap()[..21], frozen_since.as_str().unwrap()[..21]);
    let remove_at_again = gateway.workspace("alice").view().remove_at.unwrap();
    let moved = remove_at_again.max(remove_at) - remove_at_again.min(remove_at);
    assert!(moved < SECOND / 2, "the restart moved its removal by {moved:?}");
    let told = gateway.call("GET", "/api/v1/workspaces/alice/activity").await.json();
    assert!(told["journal"].as_array().unwrap().len() >= 4, "{told}");
    gateway.stop().await;
}
