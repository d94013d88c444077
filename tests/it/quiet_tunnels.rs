//! Tunnels that count by their traffic: pings keep nothing awake, use does, and who is still there
//! when the workspace is frozen is told so.

use std::sync::Arc;
use std::time::Duration;

use frostgate::config::Config;
use frostgate::model::{ConnectionActivity, FreezeMode, Phase, PolicyOverrides};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::admin_stop::{GOING_AWAY, GOING_AWAY_MASKED};
use crate::policies::patch;
use crate::support::{Client, Gateway, Origin, PATIENCE, process, relay, until};
use crate::websocket::{UPGRADE, opened, switching};

const IDLE: Duration = Duration::from_millis(600);
const SECOND: Duration = Duration::from_secs(1);

/// Pings its client every few milliseconds, and reads the pongs.
async fn pinging() -> Origin {
    switching(|mut connection| async move {
        while connection.send([0x89, 0]).await && connection.bytes(6).await.is_some() {
            sleep(Duration::from_millis(50)).await;
        }
        connection.until_gone().await;
    })
    .await
}

/// Answers pings until something else comes, says goodbye, and returns that, up to the end.
async fn pong(client: &mut Client) -> Vec<u8> {
    loop {
        let frame = client.bytes(2).await;
        if frame != [0x89, 0] {
            client.send(GOING_AWAY_MASKED).await;
            return [frame, client.rest(PATIENCE).await.unwrap()].concat();
        }
        client.send([0x8a, 0x80, 0, 0, 0, 0]).await;
    }
}

fn policy(config: &mut Config, change: impl Fn(&mut PolicyOverrides)) {
    config
        .workspaces
        .values_mut()
        .for_each(|workspace| change(Arc::make_mut(&mut workspace.policy)));
}

fn traffic(config: &mut Config) {
    policy(config, |policy| {
        policy.connection_activity = Some(ConnectionActivity::Traffic);
        policy.idle_bytes = Some(1_000);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_with_pings_alone_is_frozen_in_time_and_told_so() {
    let origin = pinging().await;
    for mode in [FreezeMode::Stop, FreezeMode::Pause] {
        let gateway = Gateway::start(|config| {
            relay(config, "alice", mode, IDLE, &origin);
            traffic(config);
        })
        .await;
        let mut client = opened(&gateway).await;
        let open = Instant::now();
        until("it is quiet", || gateway.workspace("alice").view().quiet_tunnels == 1).await;
        let shown = gateway.call("GET", "/workspaces/alice/activity").await.json();
        let live = &shown["workspace"]["live_connections"];
        assert_eq!((&live["requests"], &live["tunnels"]), (&0.into(), &1.into()), "{shown}");
        assert!(shown["workspace"]["freeze_at"].is_string(), "{shown}");
        assert!(shown["why"].as_str().unwrap().contains("though 1 tunnel is open"), "{shown}");
        assert_eq!(pong(&mut client).await, GOING_AWAY);
        drop(client);
        gateway.until("alice", Phase::Frozen).await;
        let frozen = open.elapsed();
        assert!(frozen > IDLE - IDLE / 10 && frozen < IDLE + SECOND, "frozen after {frozen:?}");
        gateway.until_empty("alice", "a freeze").await;
        // Whoever comes back wakes it.
        drop(opened(&gateway).await);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_counts_by_being_open_keeps_it_awake_whatever_passes() {
    let origin = pinging().await;
    let gateway =
        Gateway::start(|config| relay(config, "alice", FreezeMode::Stop, IDLE, &origin)).await;
    let mut client = opened(&gateway).await;
    let closed = timeout(IDLE * 4, pong(&mut client)).await;
    assert!(closed.is_err(), "it was frozen: {closed:?}");
    let view = gateway.workspace("alice").view();
    assert_eq!((view.phase, view.inside, view.quiet_tunnels), (Phase::Running, 1, 0));
    drop(client);
    gateway.until("alice", Phase::Frozen).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_keeps_it_awake_either_way_and_its_end_starts_the_clock() {
    let origin = switching(|mut connection| async move {
        let (mut reading, mut writing) = connection.stream.split();
        drop(tokio::io::copy(&mut reading, &mut writing).await);
    })
    .await;
    let gateway = Gateway::start(|config| {
        relay(config, "alice", FreezeMode::Stop, IDLE, &origin);
        traffic(config);
    })
    .await;
    let mut client = opened(&gateway).await;
    // Less than enough at once, and more within the time.
    let frame = [&[0x82, 126, 1, 144][..], &[b'x'; 400]].concat();
    let begun = Instant::now();
    while begun.elapsed() < IDLE * 4 {
        client.send(&frame).await;
        assert!(client.bytes(frame.len()).await == frame);
        sleep(IDLE / 8).await;
    }
    assert_eq!(gateway.phase("alice"), Phase::Running);
    assert_eq!(gateway.workspace("alice").view().quiet_tunnels, 1);
    let last = Instant::now();
    assert_eq!(client.bytes(4).await, GOING_AWAY);
    let idle = last.elapsed();
    assert!(idle > IDLE / 2 && idle < IDLE + SECOND, "frozen after {idle:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_policy_counts_for_tunnels_that_are_open() {
    let origin = pinging().await;
    let gateway =
        Gateway::start(|config| relay(config, "alice", FreezeMode::Stop, IDLE, &origin)).await;
    let mut client = opened(&gateway).await;
    let quiet = || gateway.workspace("alice").view().quiet_tunnels;
    let (closed, ()) = tokio::join!(pong(&mut client), async {
        for (value, expected) in [("traffic", 1), ("open", 0), ("traffic", 1), ("open", 0)] {
            let body = format!("connection_activity={value}&idle_bytes=1000");
            assert_eq!(patch(&gateway, &body).await.status, 200);
            until(&format!("it is {value}"), || quiet() == expected).await;
        }
        sleep(IDLE * 2).await;
        assert_eq!(gateway.phase("alice"), Phase::Running);
        assert_eq!(patch(&gateway, "connection_activity=traffic").await.status, 200);
        gateway.until("alice", Phase::Frozen).await;
    });
    assert_eq!(closed, GOING_AWAY);
    gateway.until_empty("alice", "a freeze").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admins_stop_gives_quiet_tunnels_their_grace() {
    const GRACE: Duration = Duration::from_millis(700);
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
        traffic(config);
        config.policy.drain_grace = GRACE;
    })
    .await;
    let mut client = opened(&gateway).await;
    until("it is quiet", || gateway.workspace("alice").view().quiet_tunnels == 1).await;
    let begun = Instant::now();
    let (stopped, echoes) = tokio::join!(gateway.call("PUT", "/workspaces/alice/stop"), async {
        until("it is shut", || gateway.phase("alice") == Phase::Freezing).await;
        let mut echoes = 0;
        while begun.elapsed() < GRACE / 2 {
            client.send([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await;
            assert_eq!(client.bytes(4).await, [0x81, 2, b'h', b'i']);
            echoes += 1;
        }
        assert_eq!(client.bytes(4).await, GOING_AWAY);
        assert!(begun.elapsed() >= GRACE, "severed after {:?}", begun.elapsed());
        drop(client);
        echoes
    });
    assert_eq!(stopped.status, 200, "{stopped:?}");
    assert!(echoes > 0);
    // And no longer than they need.
    assert_eq!(gateway.call("PUT", "/workspaces/alice/resume").await.status, 200);
    assert_eq!(patch(&gateway, "stop_hold_off=0").await.status, 200);
    let client = opened(&gateway).await;
    let begun = Instant::now();
    let (stopped, ()) = tokio::join!(gateway.call("PUT", "/workspaces/alice/stop"), async {
        until("it is shut", || gateway.phase("alice") == Phase::Freezing).await;
        drop(client);
    });
    assert_eq!(stopped.status, 200, "{stopped:?}");
    assert!(begun.elapsed() < GRACE, "it waited for nobody: {:?}", begun.elapsed());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_taken_from_one_whose_tunnels_have_been_quiet_for_long_enough() {
    let gateway = Gateway::start(|config| {
        config.limits.slots = 1;
        for id in ["alice", "bob"] {
            process(config, id, FreezeMode::Stop, IDLE, &[]);
        }
        traffic(config);
        // It is not for idleness that it is frozen.
        policy(config, |policy| policy.initial_timeout = Some(PATIENCE * 9));
    })
    .await;
    let mut client = opened(&gateway).await;
    until("it is quiet", || gateway.workspace("alice").view().quiet_tunnels == 1).await;
    let (bob, goodbye) = tokio::join!(gateway.get("bob", "/"), client.bytes(4));
    assert_eq!((bob.status, &goodbye[..]), (200, &GOING_AWAY[..]));
    assert_eq!(gateway.phase("alice"), Phase::Frozen);
    gateway.stop().await;
}

/// A message that counts, at every offset around the freeze: it is answered, and the workspace
/// stays up, or the tunnel is closed between two frames.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_around_the_freeze_are_answered_or_the_tunnel_is_closed_in_good_order() {
    const LANES: i64 = 8;
    const BEFORE: i64 = -30;
    const AFTER: i64 = 40;
    let gateway = Gateway::start(|config| {
        for lane in 0..LANES {
            process(config, &format!("lane-{lane}"), FreezeMode::Pause, IDLE, &[]);
        }
        traffic(config);
    })
    .await;
    let address = gateway.public();
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let workspace = gateway.workspace(&format!("lane-{lane}"));
        lanes.spawn(async move {
            let message = [&[0x82, 0xfe, 7, 208, 0, 0, 0, 0][..], &[b'x'; 2_000]].concat();
            let echo = [&[0x82, 126, 7, 208][..], &[b'x'; 2_000]].concat();
            let (mut answered, mut closed) = (0, 0);
            for offset in (BEFORE..=AFTER).filter(|offset| (offset - BEFORE) % LANES == lane) {
                let mut client = Client::connect(address).await;
                client.send(UPGRADE.replace("alice", workspace.id().as_str())).await;
                assert!(client.head().await.starts_with("HTTP/1.1 101"));
                let quiet_until = || {
                    let view = workspace.view();
                    view.freeze_at.filter(|_| view.quiet_tunnels == 1)
                };
                until("it is quiet", || quiet_until().is_some()).await;
                let freeze_at = quiet_until().unwrap();
                let distance = Duration::from_millis(offset.unsigned_abs());
                sleep_until(if offset < 0 { freeze_at - distance } else { freeze_at + distance })
                    .await;
                client.send(&message).await;
                let begin = client.bytes(echo.len()).await;
                if begin == echo {
                    let in_time = Instant::now() < freeze_at;
                    let again = workspace.view().freeze_at;
                    let counted = again.is_some_and(|again| again > freeze_at + IDLE / 2);
                    if !counted {
                        // It found the gate shut, and was answered by one about to be frozen.
                        assert!(!in_time, "at {offset} ms it did not count");
                        assert_eq!(client.bytes(4).await, GOING_AWAY, "at {offset} ms");
                    }
                    answered += 1;
                } else {
                    assert_eq!(begin, GOING_AWAY, "at {offset} ms");
                    closed += 1;
                }
                drop(client);
                until("it is empty", || workspace.view().tunnels == 0).await;
            }
            (answered, closed)
        });
    }
    let (mut answered, mut closed) = (0, 0);
    while let Some(lane) = lanes.join_next().await {
        let lane = lane.unwrap();
        answered += lane.0;
        closed += lane.1;
    }
    eprintln!("{answered} answered, {closed} closed");
    assert_eq!(answered + closed, AFTER - BEFORE + 1);
    assert!(answered > 0 && closed > 0, "{answered} answered, {closed} closed: no race was run");
    gateway.stop().await;
}
