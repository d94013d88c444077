//! When idle workspaces are stopped, and when they are not.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{LATE, Town, assert_about};
use crate::images::engine;
use crate::support::Client;

const KEPT: &str = "1h";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_never_active_is_stopped_after_both_timeouts_and_not_deleted() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let policy = json!({ "max_inactive_storage_time": KEPT, "initial_timeout": "2s",
                         "inactivity_timeout": "1s" });
    let guest = town.guest(policy).await;
    assert_about(town.lifetime(&guest).await, Duration::from_secs(3));
    sleep(LATE / 2).await;
    assert_eq!(town.status(&guest), "exited");
    assert_eq!(town.told(&guest).await["phase"], "frozen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_start_gives_a_fresh_grace() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let (grace, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    let policy = json!({ "max_inactive_storage_time": KEPT, "initial_timeout": "2s",
                         "inactivity_timeout": "1s" });
    let guest = town.guest(policy).await;
    sleep(grace / 2).await;
    assert_eq!(town.put(&guest, "stop").await.status, 200);
    // What was left of the first grace is over before the second one is.
    sleep(grace / 4).await;
    assert_eq!(town.put(&guest, "resume").await.status, 200);
    assert_about(town.lifetime(&guest).await, grace + timeout);
    // Whoever visits it within its grace does not shorten that.
    town.boot(&guest).await;
    assert_about(town.lifetime(&guest).await, grace);
    engine.docker(&["start", &guest.container.name]);
    assert_about(town.lifetime(&guest).await, grace + timeout);
    assert_eq!(town.moments(&guest, "start").len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_keeps_the_files_and_gives_the_slot_back() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "[limits]\nslots = 3\n").await;
    let free = async || {
        let stats = town.program.call("GET /api/v1/stats", "").await.json();
        assert_eq!(stats["workspace_slots"]["all"], 3);
        stats["workspace_slots"]["free"].as_u64().unwrap()
    };
    assert_eq!(free().await, 3);
    let guest = town.guest(json!({ "max_inactive_storage_time": KEPT })).await;
    assert_eq!(free().await, 2);
    let scratch = tempfile(&guest.id);
    std::fs::write(&scratch, &guest.id).unwrap();
    let inside = format!("{}:/kept", guest.container.name);
    engine.docker(&["cp", scratch.to_str().unwrap(), &inside]);
    std::fs::remove_file(&scratch).unwrap();
    town.patch(&guest, json!({ "inactivity_timeout": "500ms" })).await;
    town.until_status(&guest, "exited").await;
    town.program.until(&guest.id, "frozen").await;
    assert_eq!(free().await, 3);
    town.patch(&guest, json!({ "inactivity_timeout": "1h" })).await;
    town.boot(&guest).await;
    assert_eq!(free().await, 2);
    engine.docker(&["cp", &inside, scratch.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&scratch).unwrap(), guest.id);
    std::fs::remove_file(&scratch).unwrap();
}

fn tempfile(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("frostgate-{name}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_websocket_keeps_it_and_its_end_starts_the_clock() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let timeout = Duration::from_secs(1);
    let guest = town.guest(json!({ "max_inactive_storage_time": KEPT })).await;
    let mut websocket = Client::websocket(town.program.public, &guest.id).await.unwrap();
    town.patch(&guest, json!({ "inactivity_timeout": "1s" })).await;
    sleep(timeout * 4).await;
    assert_eq!(town.status(&guest), "running");
    // A masked text frame "hi", with an all-zero mask; the echo comes unmasked.
    websocket.send([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await;
    assert_eq!(websocket.bytes(4).await, [0x81, 0x02, b'h', b'i']);
    let closed = std::time::SystemTime::now();
    drop(websocket);
    town.until_status(&guest, "exited").await;
    assert_about(town.last(&guest, "die").duration_since(closed).unwrap(), timeout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_monitoring_it_is_stopped_by_calls_alone() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "[policy]\nmonitoring = false\n").await;
    let policy = json!({ "max_inactive_storage_time": KEPT, "inactivity_timeout": "500ms" });
    let guest = town.guest(policy).await;
    assert_eq!(town.told(&guest).await["freeze_at"], serde_json::Value::Null);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(town.status(&guest), "running");
    assert_eq!(town.put(&guest, "stop").await.status, 200);
    assert_eq!(town.status(&guest), "exited");
    town.boot(&guest).await;
    // It is honoured at once, both ways.
    town.patch(&guest, json!({ "monitoring": true, "inactivity_timeout": "2s" })).await;
    assert_ne!(town.told(&guest).await["freeze_at"], serde_json::Value::Null);
    town.patch(&guest, json!({ "monitoring": false })).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(town.status(&guest), "running");
    town.patch(&guest, json!({ "monitoring": true })).await;
    town.until_status(&guest, "exited").await;
}
