//! When a container is ready, and what those who wait are told when it never is.

use std::time::Duration;

use frostgate::config::DockerAddress;
use frostgate::model::{FreezeMode, Phase};
use tokio::time::Instant;

use super::{NEVER, Stage, assert_on_time};
use crate::images::engine;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn its_own_health_check_decides() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let image = engine.image_with_health_check();
    let late = ["--env", "START_DELAY_MS=500"];
    let guest = stage.guest_of(&image, FreezeMode::Stop, NEVER, &late).await;
    stage.boot(&guest).await;
    assert_eq!(stage.inspect(&guest, "{{.State.Health.Status}}"), "healthy");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ready_path_decides() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |config| config.policy.start_timeout = SECOND * 2).await;
    let good = ["--label", "frostgate.ready-path=/boot", "--env", "START_DELAY_MS=300"];
    let good = stage.guest(FreezeMode::Stop, NEVER, &good).await;
    stage.boot(&good).await;
    let bad = ["--label", "frostgate.ready-path=/no-such-path"];
    let bad = stage.guest(FreezeMode::Stop, NEVER, &bad).await;
    let began = Instant::now();
    let reply = stage.get(&bad, "/boot").await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_on_time(began.elapsed(), SECOND * 2);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_ends_at_its_start_is_reported_at_once() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    for command in ["/workspace probe", "/no-such-program"] {
        let image = format!("{} {command}", engine.image());
        let guest = stage.guest_of(&image, FreezeMode::Stop, NEVER, &[]).await;
        let began = Instant::now();
        let reply = stage.get(&guest, "/").await;
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        assert!(began.elapsed() < SECOND * 3, "after {:?}", began.elapsed());
        let view = stage.gateway.workspace(&guest.id).view();
        assert_eq!(view.phase, Phase::Failed);
        let failure = view.failure.unwrap();
        assert!(failure.contains("code 1") || failure.contains("no-such-program"), "{failure}");
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_never_listens_is_given_up_at_the_start_timeout() {
    let Some(engine) = engine() else { return };
    for address in [DockerAddress::Container, DockerAddress::Published] {
        let stage = Stage::start(engine, |config| {
            config.docker.address = address;
            config.policy.start_timeout = SECOND * 2;
        })
        .await;
        let deaf = ["--publish", "127.0.0.1::80", "--env", "START_DELAY_MS=600000"];
        let guest = stage.guest(FreezeMode::Stop, NEVER, &deaf).await;
        let began = Instant::now();
        let reply = stage.get(&guest, "/").await;
        assert_eq!(reply.status, 503, "{address:?}: {reply:?}");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        assert_on_time(began.elapsed(), SECOND * 2);
        stage.stop().await;
    }
}
