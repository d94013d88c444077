//! The engine is away, or hangs.

use std::time::Duration;

use frostgate::model::{FreezeMode, Image, Phase, Runs, Tier};
use tokio::time::{Instant, sleep, timeout};

use super::{Guest, IDLE, NEVER, Stage, change};
use crate::images::{Container, Engine, engine, unique};
use crate::relay::Relay;
use crate::support::{PATIENCE, get, project, until};

/// A gateway whose engine is behind a relay.
async fn behind_a_relay(
    engine: Engine,
    configure: impl FnOnce(&mut frostgate::config::Config),
) -> (Stage, Relay) {
    let relay = Relay::new(&unique("relay"));
    let socket = relay.path().to_str().unwrap().to_owned();
    let stage = Stage::start(engine, |config| {
        config.docker.socket = Some(socket);
        configure(config);
    })
    .await;
    (stage, relay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn running_workspaces_are_served_while_the_engine_is_away_and_frozen_when_it_is_back() {
    let Some(engine) = engine() else { return };
    let (stage, mut relay) = behind_a_relay(engine, |_| {}).await;
    let stop = stage.guest(FreezeMode::Stop, IDLE, &[]).await;
    let pause = stage.guest(FreezeMode::Pause, IDLE, &[]).await;
    let stopped_meanwhile = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    // The last two run and are answered at once, so that none is idle for long when it is cut.
    for guest in [&stopped_meanwhile, &pause, &stop, &pause] {
        stage.boot(guest).await;
    }
    let boots = [stage.boot(&stop).await, stage.boot(&pause).await];
    relay.cut().await;
    let mut changes = stage.gateway.app().changes();
    let cut = Instant::now();
    let mut requests = 0;
    while cut.elapsed() < IDLE * 2 {
        assert_eq!([stage.boot(&stop).await, stage.boot(&pause).await], boots);
        requests += 1;
        sleep(IDLE / 10).await;
    }
    assert!(requests > 5, "hardly anything was asked");
    // Now both are idle. Their freezes fail, and they are served on.
    for guest in [&stop, &pause] {
        change(&mut changes, guest, Phase::Freezing).await;
        change(&mut changes, guest, Phase::Running).await;
    }
    assert_eq!([stage.boot(&stop).await, stage.boot(&pause).await], boots);
    stage.docker(&["stop", &stopped_meanwhile.container.name]);
    relay.restore();
    let restored = Instant::now();
    stage.until_frozen(&stopped_meanwhile, Tier::Stopped).await;
    stage.until_frozen(&stop, Tier::Stopped).await;
    stage.until_frozen(&pause, Tier::Paused).await;
    let took = restored.elapsed();
    assert!(took < Duration::from_secs(8), "they were frozen {took:?} after the engine came back");
    for guest in [&stop, &pause, &stopped_meanwhile] {
        stage.boot(guest).await;
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_running_may_check_in_by_address_after_the_engine_was_away() {
    let Some(engine) = engine() else { return };
    let (stage, mut relay) = behind_a_relay(engine, |config| {
        config.listen.public = vec![std::net::SocketAddr::from(([0, 0, 0, 0], 0))];
    })
    .await;
    let guest = stage.guest(FreezeMode::Stop, IDLE, &[]).await;
    stage.boot(&guest).await;
    let mut changes = stage.gateway.app().changes();
    relay.cut().await;
    change(&mut changes, &guest, Phase::Freezing).await;
    change(&mut changes, &guest, Phase::Running).await;
    let _inside = stage.websocket(&guest).await;
    relay.restore();
    let registry = stage.gateway.app().registry();
    let address = stage.inspect(&guest, "{{.NetworkSettings.IPAddress}}").parse().unwrap();
    let is_known =
        || registry.by_address(address).is_some_and(|one| *one.id().as_str() == guest.id);
    until("its address is known again", is_known).await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_sent_to_one_that_is_ending_while_the_engine_is_away() {
    let Some(engine) = engine() else { return };
    let (stage, mut relay) = behind_a_relay(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, IDLE, &["--env", "DYING_MS=2000"]).await;
    let boot = stage.boot(&guest).await;
    let address = stage.inspect(&guest, "{{.NetworkSettings.IPAddress}}");
    let endpoint = format!("{address}:80").parse().unwrap();
    stage.until(&guest, Phase::Freezing).await;
    let deadline = Instant::now() + PATIENCE;
    while get(endpoint, "x", "/boot").await.status != 500 {
        assert!(Instant::now() < deadline, "it was never told to end");
    }
    relay.cut().await;
    let (next, ()) = tokio::join!(stage.boot(&guest), async {
        let is_held = || stage.gateway.workspace(&guest.id).view().held == 1;
        until("the request is held", is_held).await;
        relay.restore();
    });
    assert_ne!(next, boot);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_to_a_frozen_one_is_told_so_while_the_engine_is_away() {
    let Some(engine) = engine() else { return };
    let (stage, mut relay) = behind_a_relay(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, IDLE, &[]).await;
    let paused = stage.guest(FreezeMode::Pause, IDLE, &[]).await;
    stage.boot(&paused).await;
    stage.until_frozen(&paused, Tier::Paused).await;
    relay.cut().await;
    for guest in [&guest, &paused] {
        let began = Instant::now();
        let reply = stage.get(guest, "/boot").await;
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    relay.restore();
    for guest in [&guest, &paused] {
        // A start that failed is not tried again at once.
        let deadline = Instant::now() + Duration::from_secs(5);
        while stage.get(guest, "/boot").await.status != 200 {
            assert!(Instant::now() < deadline, "{} is not thawed", guest.id);
            sleep(Duration::from_millis(50)).await;
        }
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_waits_for_ever_for_an_engine_that_hangs() {
    let Some(engine) = engine() else { return };
    for (hold_max, start_timeout, status) in [(3, 30, 504), (30, 3, 503)] {
        let (stage, relay) = behind_a_relay(engine, |config| {
            config.policy.hold_max = Duration::from_secs(hold_max);
            config.policy.start_timeout = Duration::from_secs(start_timeout);
        })
        .await;
        let running = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
        let frozen = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
        let boot = stage.boot(&running).await;
        relay.stall();
        let began = Instant::now();
        let reply = stage.get(&frozen, "/boot").await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        super::assert_on_time(began.elapsed(), Duration::from_secs(3));
        assert_eq!(stage.boot(&running).await, boot);
        relay.go_on();
        let deadline = Instant::now() + Duration::from_secs(10);
        while stage.get(&frozen, "/boot").await.status != 200 {
            assert!(Instant::now() < deadline, "{} is not thawed", frozen.id);
            sleep(Duration::from_millis(50)).await;
        }
        stage.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_creation_is_answered_while_the_engine_is_away_and_nothing_stays_of_it() {
    let Some(engine) = engine() else { return };
    let image = engine.image();
    let (stage, mut relay) = behind_a_relay(engine, |config| {
        project(config, "app", Runs::Image(Image::new(image)));
    })
    .await;
    let gateway = &stage.gateway;
    let id = unique("unmade");
    let _container = Container { name: format!("frostgate-{id}") };
    let body = format!("project_id=app&id={id}&max_inactive_storage_time=60");
    let create = || gateway.send("POST /workspaces", "application/x-www-form-urlencoded", &body);
    relay.cut().await;
    let began = Instant::now();
    let reply = timeout(PATIENCE, create()).await.expect("it is never answered");
    assert!(reply.status >= 500, "{reply:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    relay.restore();
    until("nothing is known of it", || stage.workspace(&id).is_none()).await;
    let reply = create().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    gateway.until(&id, Phase::Running).await;
    assert_eq!(gateway.call("DELETE", &format!("/workspaces/{id}")).await.status, 204);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_to_be_removed_while_the_engine_is_away_goes_when_it_is_back() {
    let Some(engine) = engine() else { return };
    let image = engine.image();
    let (stage, mut relay) = behind_a_relay(engine, |config| {
        project(config, "app", Runs::Image(Image::new(image)));
    })
    .await;
    let gateway = &stage.gateway;
    let guests = [unique("old"), unique("unwanted")].map(|id| {
        let container = Container { name: format!("frostgate-{id}") };
        Guest { id, container }
    });
    for (guest, age) in guests.iter().zip(["3s", "1h"]) {
        let body = format!("project_id=app&id={}&max_storage_time={age}", guest.id);
        let kind = "application/x-www-form-urlencoded";
        let reply = gateway.send("POST /workspaces", kind, &body).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        stage.until(guest, Phase::Running).await;
    }
    relay.cut().await;
    let mut changes = gateway.app().changes();
    let unwanted = gateway.call("DELETE", &format!("/workspaces/{}", guests[1].id)).await;
    assert!(unwanted.status >= 500, "{unwanted:?}");
    change(&mut changes, &guests[0], Phase::Removing).await;
    // It is tried again and again, but not all the time.
    sleep(Duration::from_secs(3)).await;
    let mut tries = 0;
    while changes.try_recv().is_ok() {
        tries += 1;
    }
    assert!(tries < 10, "{tries} changes");
    for guest in &guests {
        assert_eq!(stage.get(guest, "/").await.status, 404);
        assert_eq!(stage.inspect(guest, "{{.State.Status}}"), "running");
    }
    relay.restore();
    for guest in &guests {
        until("nothing is known of it", || stage.workspace(&guest.id).is_none()).await;
        assert!(!engine.tries(&["container", "inspect", &guest.container.name]));
    }
    stage.stop().await;
}
