//! What is told of containers: their memory and CPU, and what they wrote.

use std::time::Duration;

use frostgate::model::FreezeMode;

use super::{NEVER, Stage};
use crate::images::engine;
use crate::support::PATIENCE;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_container_s_memory_and_cpu_are_told_and_kept_when_it_is_stopped() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    stage.boot(&guest).await;
    let told = async || {
        let path = format!("/workspaces/{}", guest.id);
        stage.gateway.call("GET", &path).await.json()
    };
    let mut usage = told().await["usage"].take();
    for _ in 0..PATIENCE.as_millis() / 50 {
        if usage["cpu_percent"].is_number() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        usage = told().await["usage"].take();
    }
    let memory = usage["memory_bytes"].as_u64().unwrap();
    assert!((10_000..1 << 30).contains(&memory), "{usage}");
    assert!(usage["cpu_percent"].is_number(), "{usage}");
    stage.gateway.call("PUT", &format!("/workspaces/{}/stop", guest.id)).await;
    let saved = told().await["memory_saved_bytes"].as_u64().unwrap();
    assert!((10_000..1 << 30).contains(&saved), "{saved}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_container_wrote_is_read_and_followed() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    let boot = stage.boot(&guest).await;
    let workspace = stage.gateway.workspace(&guest.id);
    let path = format!("/workspaces/{}/logs?lines=1", guest.id);
    let line = stage.gateway.call("GET", &path).await.text();
    assert!(line.starts_with(&format!("boot {boot} ")), "{line}");
    let mut logs = workspace.logs(1, true).await.unwrap().unwrap();
    let mut next = async || {
        let piece = futures_util::StreamExt::next(&mut logs);
        let piece = tokio::time::timeout(PATIENCE * 3, piece).await.expect("a piece of the log");
        piece.map(|piece| String::from_utf8_lossy(&piece.unwrap()).into_owned())
    };
    assert_eq!(next().await, Some(line));
    // Whoever follows is told what it writes, and that it has ended.
    stage.gateway.call("PUT", &format!("/workspaces/{}/stop", guest.id)).await;
    assert_eq!(next().await, None);
    stage.stop().await;
}
