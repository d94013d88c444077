//! `kill -9` of the program, and its next start.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::Town;
use crate::images::engine;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_what_was_set_and_freezes_nothing_that_was_active() {
    let Some(engine) = engine() else { return };
    let mut town = Town::start(engine, "").await;
    let policy = json!({ "max_inactive_storage_time": 7, "max_storage_time": 90,
                         "inactivity_timeout": "1h" });
    let active = town.guest(policy.clone()).await;
    let idle = town.guest(policy.clone()).await;
    let frozen = town.guest(policy).await;
    assert_eq!(town.put(&frozen, "stop").await.status, 200);
    assert_eq!(town.reports(&active, "active=1"), "200");
    for guest in [&active, &idle] {
        town.patch(guest, json!({ "inactivity_timeout": "3s" })).await;
    }
    let names = ["policy", "project", "created_at", "url"];
    let before = town.told(&active).await;
    let boot = town.boot(&active).await;

    town.program = town.program.kill_and_start().await;

    let after = town.told(&active).await;
    for name in names {
        assert_eq!(before[name], after[name], "{name}");
    }
    assert_eq!(after["policy"]["max_inactive_storage_time"], 7);
    assert_eq!(after["policy"]["inactivity_timeout"], 0.05);
    assert_eq!(town.told(&frozen).await["phase"], "frozen");
    town.until_status(&idle, "exited").await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(town.status(&active), "running");
    assert_eq!(town.told(&active).await["reports_activity"], true);
    assert_eq!(town.boot(&active).await, boot);
    assert_eq!(town.moments(&active, "start").len(), 1);
    assert_eq!(town.reports(&active, "active=0"), "200");
    town.until_status(&active, "exited").await;
}
