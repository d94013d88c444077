//! When workspaces are removed, and when they can't be frozen.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Town, assert_about};
use crate::images::engine;
use crate::support::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_storage_time_a_stop_is_refused_and_idle_means_removed() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    for policy in [json!({}), json!({ "max_inactive_storage_time": 0 })] {
        let guest = town.guest(policy).await;
        let boot = town.boot(&guest).await;
        let refused = town.put(&guest, "stop").await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert_eq!(town.boot(&guest).await, boot, "it was stopped");
        town.patch(&guest, json!({ "inactivity_timeout": "500ms" })).await;
        town.until_status(&guest, "").await;
        town.program.until(&guest.id, "unknown").await;
        assert_eq!(town.program.get(&guest.id, "/").await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_greatest_age_removes_it_in_use_or_frozen() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let age = Duration::from_secs(4);
    let began = Instant::now();
    let policy = json!({ "max_inactive_storage_time": "1h", "max_storage_time": "4s" });
    let used = town.guest(policy.clone()).await;
    let frozen = town.guest(policy).await;
    let mut websocket = Client::websocket(town.program.public, &used.id).await.unwrap();
    assert_eq!(town.put(&frozen, "stop").await.status, 200);
    assert_eq!((town.status(&used).as_str(), town.status(&frozen).as_str()), ("running", "exited"));
    assert!(websocket.is_hung_up_on(age * 4).await, "somebody is in one that is removed");
    for guest in [used, frozen] {
        town.until_status(&guest, "").await;
        town.program.until(&guest.id, "unknown").await;
        assert!(began.elapsed() >= age, "it was removed early");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_has_been_frozen_for_its_storage_time_is_removed_and_a_thaw_starts_that_anew() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let storage = Duration::from_secs(4);
    let policy = json!({ "max_inactive_storage_time": "4s", "inactivity_timeout": "1h" });
    let guest = town.guest(policy).await;
    assert_eq!(town.told(&guest).await["remove_at"], Value::Null);
    assert_eq!(town.put(&guest, "stop").await.status, 200);
    sleep(storage / 2).await;
    town.boot(&guest).await;
    assert_eq!(town.told(&guest).await["remove_at"], Value::Null);
    assert_eq!(town.put(&guest, "stop").await.status, 200);
    town.until_status(&guest, "").await;
    let stored = town.last(&guest, "destroy").duration_since(town.last(&guest, "die")).unwrap();
    // It is frozen once the engine says so, a moment after its end.
    assert_about(stored, storage);
}
