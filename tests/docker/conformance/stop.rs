//! Containers that are stopped, started and removed with the engine's own commands.

use serde_json::json;

use super::Town;
use crate::images::engine;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_to_a_container_outside_is_told_and_served() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let guest = town.guest(json!({ "max_inactive_storage_time": "1h" })).await;
    let name = guest.container.name.as_str();
    let boot = town.boot(&guest).await;
    let made = engine.docker(&["inspect", "--format", "{{.Id}}", name]);
    engine.docker(&["stop", name]);
    town.program.until(&guest.id, "frozen").await;
    engine.docker(&["start", name]);
    town.program.until(&guest.id, "running").await;
    let second = town.boot(&guest).await;
    assert_ne!(second, boot);
    assert_eq!(town.reports(&guest, "active=1"), "200", "it is known where it is now");
    engine.docker(&["stop", name]);
    town.program.until(&guest.id, "frozen").await;
    assert_ne!(town.boot(&guest).await, second);
    // It was made by a call, so it is made again from what the call said.
    engine.docker(&["rm", "--force", name]);
    town.program.until(&guest.id, "frozen").await;
    town.boot(&guest).await;
    assert_ne!(engine.docker(&["inspect", "--format", "{{.Id}}", name]), made);
}
