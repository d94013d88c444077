//! The main job, on local processes: idle ones are frozen on time, and thawed for whoever comes.

use std::sync::Arc;
use std::time::Duration;

use frostgate::model::{FreezeMode, Phase, Tier};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Client, Gateway, PATIENCE, get, process, until};

const MODES: [FreezeMode; 2] = [FreezeMode::Stop, FreezeMode::Pause];
const IDLE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_workspace_is_frozen_on_time_and_thawed_by_a_request() {
    for mode in MODES {
        let gateway = Gateway::start(|config| process(config, "alice", mode, IDLE, &[])).await;
        let first = gateway.get("alice", "/boot").await;
        assert_eq!(first.status, 200, "{first:?}");
        let answered = Instant::now();
        gateway.until("alice", Phase::Frozen).await;
        let idle = answered.elapsed();
        assert!(idle >= IDLE && idle < IDLE + Duration::from_secs(1), "frozen after {idle:?}");
        let (tier, same_run) = match mode {
            FreezeMode::Stop => (Tier::Stopped, false),
            FreezeMode::Pause => (Tier::Paused, true),
        };
        assert_eq!(gateway.workspace("alice").view().tier, Some(tier));
        let second = gateway.get("alice", "/boot").await;
        assert_eq!(second.status, 200, "{second:?}");
        assert_eq!(first.body == second.body, same_run, "{mode:?}");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_requests_to_a_frozen_workspace_cause_one_start() {
    let gateway =
        Gateway::start(|config| process(config, "alice", FreezeMode::Stop, PATIENCE, &[])).await;
    let address = gateway.public();
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        requests.spawn(get(address, "alice.localhost", "/boot"));
    }
    let mut runs = std::collections::HashSet::new();
    while let Some(reply) = requests.join_next().await {
        let reply = reply.unwrap();
        assert_eq!(reply.status, 200);
        runs.insert(reply.body);
    }
    assert_eq!(runs.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_is_held_and_arrives_whole() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE, &[("START_DELAY_MS", "200")]);
    })
    .await;
    let body: Vec<u8> = (0..10_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let mut client = Client::connect(gateway.public()).await;
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (reading, mut writing) = client.stream.into_split();
    let sent = body.clone();
    let upload = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        writing.write_all(head.as_bytes()).await.unwrap();
        writing.write_all(&sent).await.unwrap();
        writing
    });
    let mut received = Vec::new();
    let mut reading = reading;
    let all = async {
        use tokio::io::AsyncReadExt;
        while received.len() < body.len() {
            assert!(reading.read_buf(&mut received).await.unwrap() > 0, "the answer is short");
        }
    };
    tokio::time::timeout(PATIENCE * 3, all).await.unwrap();
    let _open = upload.await.unwrap();
    assert!(received.starts_with(b"HTTP/1.1 200 OK"));
    client = Client::connect(gateway.public()).await;
    drop(client);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_tunnel_keeps_it_awake_and_its_end_starts_the_clock() {
    for mode in MODES {
        let gateway = Gateway::start(|config| process(config, "alice", mode, IDLE, &[])).await;
        let mut client = Client::connect(gateway.public()).await;
        client
            .send(
                "GET /ws HTTP/1.1\r\nHost: alice.localhost\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        assert_eq!(gateway.workspace("alice").view().tunnels, 1);
        tokio::time::sleep(IDLE * 4).await;
        assert_eq!(gateway.phase("alice"), Phase::Running, "frozen under an open tunnel");
        // A masked text frame "hi", with an all-zero mask; the echo comes unmasked.
        client.send([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await;
        assert_eq!(client.bytes(4).await, [0x81, 0x02, b'h', b'i']);
        drop(client);
        let closed = Instant::now();
        gateway.until("alice", Phase::Frozen).await;
        let idle = closed.elapsed();
        assert!(idle >= IDLE && idle < IDLE + Duration::from_secs(1), "frozen after {idle:?}");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_response_keeps_it_awake_until_its_last_byte() {
    let gateway =
        Gateway::start(|config| process(config, "alice", FreezeMode::Stop, IDLE, &[])).await;
    let reply = gateway.get("alice", "/slow?ms=1200").await;
    assert!(reply.status == 200 && reply.complete, "{reply:?}");
    assert_eq!(gateway.phase("alice"), Phase::Running);
    gateway.until("alice", Phase::Frozen).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_breaks_nothing() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE, &[("START_DELAY_MS", "300")]);
    })
    .await;
    let mut client = Client::connect(gateway.public()).await;
    client.send("GET / HTTP/1.1\r\nHost: alice.localhost\r\n\r\n").await;
    // Whoever leaves before the workspace's task has heard of them wakes nothing, rightly.
    until("it is being woken", || gateway.phase("alice") != Phase::Frozen).await;
    drop(client);
    until("its place is free", || gateway.workspace("alice").view().held == 0).await;
    gateway.until("alice", Phase::Running).await;
    assert_eq!(gateway.workspace("alice").view().inside, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_dies_is_started_again_by_the_next_request() {
    let gateway =
        Gateway::start(|config| process(config, "alice", FreezeMode::Stop, PATIENCE, &[])).await;
    let first = gateway.get("alice", "/boot").await;
    let died = gateway.get("alice", "/die").await;
    assert!(!died.complete, "a truncated answer must not look whole: {died:?}");
    let second = gateway.get("alice", "/boot").await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_ne!(first.body, second.body);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_says_so_and_is_tried_again_after_a_pause() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE, &[]);
        for workspace in config.workspaces.values_mut() {
            Arc::make_mut(&mut workspace.spec).runs = frostgate::model::Runs::Command {
                argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), "exit 7".to_owned()],
                directory: None,
            };
        }
    })
    .await;
    for _ in 0..2 {
        let reply = gateway.get("alice", "/").await;
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.header("retry-after").is_some());
        assert!(!reply.text().contains("exit"), "the reason is for admins");
    }
    let view = gateway.workspace("alice").view();
    assert_eq!(view.phase, Phase::Failed);
    assert!(view.failure.as_deref().unwrap().contains('7'), "{view:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_workspaces_are_adopted_after_a_crash_of_the_gateway() {
    for mode in MODES {
        let gateway = Gateway::start(|config| process(config, "alice", mode, PATIENCE, &[])).await;
        let first = gateway.get("alice", "/boot").await;
        let state_dir = gateway.crash().await;
        let mut config = crate::support::config(state_dir);
        process(&mut config, "alice", mode, PATIENCE, &[]);
        let gateway = Gateway::start_as(config).await;
        gateway.until("alice", Phase::Running).await;
        let second = gateway.get("alice", "/boot").await;
        assert_eq!(first.body, second.body, "it was started anew");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admins_stop_drains_then_closes_what_is_left_and_is_not_undone_by_it() {
    for mode in MODES {
        let gateway = Gateway::start(|config| {
            process(config, "alice", mode, PATIENCE, &[]);
            config.policy.drain_grace = Duration::from_millis(300);
        })
        .await;
        let first = gateway.get("alice", "/boot").await;
        let address = gateway.public();
        let quick = tokio::spawn(get(address, "alice.localhost", "/wait?ms=150"));
        let endless = tokio::spawn(get(address, "alice.localhost", "/wait?ms=60000"));
        let mut tunnel = Client::connect(address).await;
        tunnel
            .send(
                "GET /ws HTTP/1.1\r\nHost: alice.localhost\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
        assert!(tunnel.head().await.starts_with("HTTP/1.1 101"));
        until("three are inside", || gateway.workspace("alice").view().inside == 3).await;
        let stopped = gateway.call("PUT", "/workspaces/alice/stop").await;
        assert_eq!(stopped.status, 200, "{stopped:?}");
        assert_eq!(stopped.json()["phase"], "frozen");
        let quick = quick.await.unwrap();
        assert!(quick.status == 200 && quick.complete, "{quick:?}");
        let endless = endless.await.unwrap();
        assert_eq!(endless.status, 503, "{endless:?}");
        assert!(tunnel.is_hung_up_on(PATIENCE).await);
        assert_eq!(gateway.workspace("alice").view().inside, 0);
        assert_eq!(gateway.phase("alice"), Phase::Frozen, "the stop was undone");
        let again = gateway.call("PUT", "/api/v1/workspaces/alice/stop").await;
        assert_eq!(again.status, 200, "{again:?}");
        let resumed = gateway.call("PUT", "/api/v1/workspaces/alice/resume").await;
        assert_eq!((resumed.status, resumed.json()["phase"].as_str()), (200, Some("running")));
        let second = gateway.get("alice", "/boot").await;
        assert_eq!(first.body == second.body, mode == FreezeMode::Pause);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_runs_but_never_answers_is_started_anew_by_a_later_request() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE, &[]);
        let alice = config.workspaces.values_mut().next().unwrap();
        Arc::make_mut(&mut alice.policy).start_timeout = Some(Duration::from_millis(400));
        let binary = crate::fixture::binary();
        let script = format!(
            "if [ -f tried ]; then exec {}; else touch tried; exec sleep 1000; fi",
            binary.display()
        );
        Arc::make_mut(&mut alice.spec).runs = frostgate::model::Runs::Command {
            argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
            directory: None,
        };
    })
    .await;
    assert_eq!(gateway.get("alice", "/").await.status, 503);
    let deadline = Instant::now() + PATIENCE;
    while gateway.get("alice", "/").await.status != 200 {
        assert!(Instant::now() < deadline, "it was never started anew");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    gateway.stop().await;
}
