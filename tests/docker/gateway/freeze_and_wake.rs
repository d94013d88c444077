//! The main job: idle containers are frozen on time, and thawed for whoever comes.

use std::collections::HashSet;
use std::time::Duration;

use frostgate::model::{FreezeMode, Image, Phase, PolicyOverrides, Runs, Spec, Tier};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{IDLE, MODES, NEVER, Stage, assert_on_time, change};
use crate::events::Events;
use crate::images::{Container, engine, unique};
use crate::support::{self, get, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_idle_container_is_frozen_on_time_and_thawed_by_a_request() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    for mode in MODES {
        let guest = stage.guest(mode, IDLE, &[]).await;
        assert_eq!(stage.gateway.phase(&guest.id), Phase::Frozen);
        let first = stage.boot(&guest).await;
        let answered = Instant::now();
        let mut changes = stage.gateway.app().changes();
        let freezing = change(&mut changes, &guest, Phase::Freezing).await;
        assert_on_time(freezing.at - answered, IDLE - IDLE / 20);
        let (tier, status) = match mode {
            FreezeMode::Stop => (Tier::Stopped, "exited"),
            FreezeMode::Pause => (Tier::Paused, "paused"),
        };
        stage.until_frozen(&guest, tier).await;
        assert_eq!(stage.inspect(&guest, "{{.State.Status}}"), status);
        let second = stage.boot(&guest).await;
        assert_eq!(first == second, mode == FreezeMode::Pause, "{mode:?}");
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_upload_is_held_and_arrives_whole() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let body: Vec<u8> = (0..10_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let hash = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for mode in MODES {
        let guest = stage.guest(mode, IDLE, &[]).await;
        if mode == FreezeMode::Pause {
            stage.boot(&guest).await;
            stage.until_frozen(&guest, Tier::Paused).await;
        }
        let reply = stage.post(&guest, "/digest", &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.text(), format!("{} {hash:016x}", body.len()));
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_requests_to_a_frozen_container_cause_one_start() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    for mode in MODES {
        let guest = stage.guest(mode, IDLE, &[]).await;
        let event = match mode {
            FreezeMode::Stop => "start",
            FreezeMode::Pause => {
                stage.boot(&guest).await;
                stage.until_frozen(&guest, Tier::Paused).await;
                "unpause"
            }
        };
        let events = Events::listen(engine);
        let address = stage.gateway.public();
        let mut requests = JoinSet::new();
        for _ in 0..100 {
            let host = format!("{}.localhost", guest.id);
            requests.spawn(async move { get(address, &host, "/boot").await });
        }
        let mut runs = HashSet::new();
        for reply in requests.join_all().await {
            assert_eq!(reply.status, 200, "{reply:?}");
            runs.insert(reply.body);
        }
        assert_eq!(runs.len(), 1);
        // A paused one answers before the engine has told anybody.
        let moments = || events.moments(&guest.container.name, event);
        until("the engine tells of it", || !moments().is_empty()).await;
        assert_eq!(moments().len(), 1, "{event}");
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_open_websocket_keeps_it_awake_and_its_end_starts_the_clock() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    for mode in MODES {
        let guest = stage.guest(mode, IDLE, &[]).await;
        let mut websocket = stage.websocket(&guest).await;
        let mut changes = stage.gateway.app().changes();
        sleep(IDLE * 4).await;
        assert_eq!(stage.gateway.phase(&guest.id), Phase::Running, "frozen under a WebSocket");
        assert_eq!(stage.gateway.workspace(&guest.id).view().tunnels, 1);
        // A masked text frame "hi", with an all-zero mask; the echo comes unmasked.
        websocket.send([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await;
        assert_eq!(websocket.bytes(4).await, [0x81, 0x02, b'h', b'i']);
        drop(websocket);
        let closed = Instant::now();
        let freezing = change(&mut changes, &guest, Phase::Freezing).await;
        assert_on_time(freezing.at - closed, IDLE - IDLE / 20);
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_configured_image_is_made_for_the_first_request_and_kept() {
    let Some(engine) = engine() else { return };
    let id = unique("image");
    let container = Container { name: format!("frostgate-{id}") };
    let image = engine.image();
    let stage = Stage::start(engine, |config| {
        let spec = Spec {
            port: Some(8080),
            environment: [("GREETING".to_owned(), "hello".to_owned())].into(),
            ..Spec::new(Runs::Image(Image::new(image)))
        };
        let policy =
            PolicyOverrides { inactivity_timeout: Some(IDLE), ..PolicyOverrides::default() };
        support::add(config, &id, spec, policy);
    })
    .await;
    let guest = super::Guest { id, container };
    let first = stage.boot(&guest).await;
    let made = stage.inspect(&guest, "{{.Id}}");
    let environment = stage.inspect(&guest, "{{range .Config.Env}}{{println .}}{{end}}");
    assert!(environment.contains("FROSTGATE_CHECK_IN_URL=http://"), "{environment}");
    assert!(environment.contains("GREETING=hello"), "{environment}");
    stage.until_frozen(&guest, Tier::Stopped).await;
    assert_ne!(stage.boot(&guest).await, first);
    assert_eq!(stage.inspect(&guest, "{{.Id}}"), made);
    // Removed behind our back it is made again.
    stage.docker(&["rm", "--force", &guest.container.name]);
    stage.until_frozen(&guest, Tier::Stopped).await;
    stage.boot(&guest).await;
    assert_ne!(stage.inspect(&guest, "{{.Id}}"), made);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_never_to_be_frozen_is_not() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    stage.boot(&guest).await;
    assert_eq!(stage.gateway.workspace(&guest.id).view().freeze_at, None);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_forgotten_tab_that_only_pings_keeps_no_container_awake() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    for mode in MODES {
        let labels = ["connection-activity=traffic", "idle-bytes=1KiB"];
        let labels = labels.map(|label| format!("frostgate.{label}"));
        let guest = stage.guest(mode, IDLE, &["--label", &labels[0], "--label", &labels[1]]).await;
        let boot = stage.boot(&guest).await;
        let mut tab = stage.websocket(&guest).await;
        let opened = Instant::now();
        // A ping is answered by a pong, until the server goes away.
        let goodbye = loop {
            tab.send([0x89, 0x80, 0, 0, 0, 0]).await;
            let frame = tab.bytes(2).await;
            if frame != [0x8a, 0] {
                break [frame, tab.bytes(2).await].concat();
            }
            sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(goodbye, [0x88, 2, 0x03, 0xe9]);
        assert_on_time(opened.elapsed(), IDLE - IDLE / 10);
        stage.until(&guest, Phase::Frozen).await;
        assert_eq!(stage.boot(&guest).await == boot, mode == FreezeMode::Pause);
    }
    stage.stop().await;
}
