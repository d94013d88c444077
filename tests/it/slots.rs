//! Slots: never more running than there are, the one idle longest makes room, and wakes queue in
//! order of arrival.

use std::sync::Arc;
use std::time::Duration;

use frostgate::lifecycle::Change;
use frostgate::model::{FreezeMode, Phase, Tier};
use tokio::task::JoinSet;

use crate::support::{Client, Gateway, PATIENCE, get, process, until};

fn running(gateway: &Gateway) -> usize {
    let all = gateway.app().registry().all();
    all.iter().filter(|workspace| workspace.view().phase == Phase::Running).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_idle_longest_makes_room() {
    let gateway = Gateway::start(|config| {
        config.limits.slots = 2;
        for id in ["a", "b", "c"] {
            process(config, id, FreezeMode::Stop, PATIENCE * 9, &[]);
        }
    })
    .await;
    for id in ["a", "b", "a"] {
        assert_eq!(gateway.get(id, "/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(gateway.app().registry().slots(), Some((2, 0)));
    assert_eq!(gateway.get("c", "/").await.status, 200);
    assert_eq!(gateway.phase("b"), Phase::Frozen, "b was idle longest");
    assert_eq!((gateway.phase("a"), gateway.phase("c")), (Phase::Running, Phase::Running));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_make_room_than_is_needed_however_long_that_takes() {
    let gateway = Gateway::start(|config| {
        config.limits.slots = 3;
        for id in ["a", "b", "c", "d"] {
            process(config, id, FreezeMode::Stop, PATIENCE * 9, &[("DYING_MS", "700")]);
        }
    })
    .await;
    for id in ["a", "b", "c"] {
        assert_eq!(gateway.get(id, "/").await.status, 200);
    }
    let freezes = gateway.app().changes();
    // All three may be evicted by then.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(gateway.get("d", "/").await.status, 200);
    assert_eq!(running(&gateway), 3);
    assert_eq!(gateway.phase("a"), Phase::Frozen, "a was idle longest");
    assert_eq!(frozen(freezes), 1);
    gateway.stop().await;
}

/// How many freezes have begun.
fn frozen(mut changes: tokio::sync::broadcast::Receiver<Change>) -> usize {
    let mut freezes = 0;
    while let Ok(change) = changes.try_recv() {
        freezes += usize::from(change.phase == Phase::Freezing);
    }
    freezes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_all_are_in_use_wakes_queue_and_give_up_after_hold_max() {
    let gateway = Gateway::start(|config| {
        config.limits.slots = 1;
        for id in ["a", "b", "c"] {
            process(config, id, FreezeMode::Stop, PATIENCE * 9, &[]);
        }
        let b = config.workspaces.get_mut("b").unwrap();
        Arc::make_mut(&mut b.policy).hold_max = Some(Duration::from_millis(300));
    })
    .await;
    let mut busy = Client::connect(gateway.public()).await;
    busy.send("GET /wait?ms=60000 HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
    gateway.until("a", Phase::Running).await;
    let refused = gateway.get("b", "/").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some() && refused.text().contains("is next"));
    // It keeps its place for whoever comes again.
    let queued = tokio::spawn(get(gateway.public(), "c.localhost", "/"));
    until("c queues", || gateway.workspace("c").view().queue_position == Some(1)).await;
    let refused = gateway.get("b", "/").await;
    assert_eq!((refused.status, refused.text().contains("is next")), (503, true), "{refused:?}");
    // The busy one leaves; those who queue get the slot in turn, though nobody asks again.
    drop(busy);
    assert_eq!(queued.await.unwrap().status, 200);
    assert_eq!(gateway.phase("a"), Phase::Frozen);
    assert_eq!(gateway.phase("b"), Phase::Frozen);
    assert_eq!(gateway.get("b", "/").await.status, 503, "c was in use less than a second ago");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_workspaces_on_three_slots_are_all_served_and_never_oversold() {
    let gateway = Gateway::start(|config| {
        config.limits.slots = 3;
        for number in 0..12 {
            process(config, &format!("w{number}"), FreezeMode::Stop, PATIENCE * 9, &[]);
        }
    })
    .await;
    let address = gateway.public();
    let mut requests = JoinSet::new();
    for number in 0..12 {
        requests.spawn(async move {
            get(address, &format!("w{number}.localhost"), "/wait?ms=50").await.status
        });
    }
    let mut served = 0;
    let mut most = 0;
    while served < 12 {
        tokio::select! {
            Some(status) = requests.join_next() => {
                assert_eq!(status.unwrap(), 200);
                served += 1;
            }
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        most = most.max(running(&gateway));
        assert!(most <= 3, "{most} run on three slots");
    }
    assert_eq!(most, 3);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_of_memory_stops_what_is_paused_before_it_freezes_what_runs() {
    let gateway = Gateway::start(|config| {
        config.limits.memory_budget = 100 << 20;
        config.policy.stop_hold_off = Duration::ZERO;
        config.limits.memory_assumed = 30 << 20;
        for id in ["a", "b", "c", "large", "huge"] {
            process(config, id, FreezeMode::Pause, PATIENCE * 9, &[]);
        }
        let mut memory = |id: &str, bytes| {
            Arc::make_mut(&mut config.workspaces.get_mut(id).unwrap().spec).memory = Some(bytes);
        };
        memory("large", 60 << 20);
        memory("huge", 101 << 20);
    })
    .await;
    let tier = |id: &str| gateway.workspace(id).view().tier;
    let free = || gateway.app().registry().memory().unwrap().1 >> 20;
    for id in ["a", "b", "c"] {
        assert_eq!(gateway.get(id, "/").await.status, 200);
    }
    assert_eq!(free(), 10);
    for id in ["b", "a"] {
        let stopped = gateway.call("PUT", &format!("/workspaces/{id}/stop")).await;
        assert_eq!((stopped.status, tier(id)), (200, Some(Tier::Paused)));
    }
    assert_eq!(free(), 10, "what is paused keeps its memory");
    assert_eq!(gateway.get("large", "/").await.status, 200);
    assert_eq!((tier("a"), tier("b")), (Some(Tier::Stopped), Some(Tier::Stopped)));
    assert_eq!((gateway.phase("c"), free()), (Phase::Running, 10));
    // Nothing is paused any more: the one idle longest is frozen, and its memory taken.
    assert_eq!(gateway.get("a", "/").await.status, 200);
    assert_eq!((tier("c"), gateway.phase("large")), (Some(Tier::Stopped), Phase::Running));
    let refused = gateway.get("huge", "/").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let why = gateway.workspace("huge").view().failure.unwrap();
    assert!(why.contains("memory_budget"), "{why}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_memory_is_low_what_is_paused_is_stopped_and_what_runs_is_not() {
    let gateway = Gateway::start(|config| {
        // More than any machine has.
        config.limits.memory_low = 1 << 60;
        for id in ["a", "b", "c"] {
            process(config, id, FreezeMode::Pause, PATIENCE * 9, &[]);
        }
    })
    .await;
    for id in ["a", "b", "c"] {
        assert_eq!(gateway.get(id, "/").await.status, 200);
    }
    for id in ["b", "a"] {
        let stopped = gateway.call("PUT", &format!("/workspaces/{id}/stop")).await;
        assert_eq!(stopped.status, 200);
    }
    let tier = |id: &str| gateway.workspace(id).view().tier;
    let stopped = Some(Tier::Stopped);
    until("both are stopped", || (tier("a"), tier("b")) == (stopped, stopped)).await;
    assert_eq!(gateway.phase("c"), Phase::Running);
    let journal = gateway.call("GET", "/workspaces/b/activity").await.json();
    let reason = journal["journal"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("its memory was wanted"), "{reason}");
    gateway.stop().await;
}
