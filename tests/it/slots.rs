//! Slots: never more running than there are, the one idle longest makes room, and wakes queue in
//! order of arrival.

use std::time::Duration;

use frostgate::model::{FreezeMode, Phase};
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
async fn while_all_are_in_use_wakes_queue_and_give_up_after_hold_max() {
    let gateway = Gateway::start(|config| {
        config.limits.slots = 1;
        for id in ["a", "b", "c"] {
            process(config, id, FreezeMode::Stop, PATIENCE * 9, &[]);
        }
        let b = config.workspaces.get_mut("b").unwrap();
        b.policy.hold_max = Some(Duration::from_millis(300));
    })
    .await;
    let mut busy = Client::connect(gateway.public()).await;
    busy.send("GET /wait?ms=60000 HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
    gateway.until("a", Phase::Running).await;
    let refused = gateway.get("b", "/").await;
    assert_eq!(refused.status, 504, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    gateway.until("b", Phase::Frozen).await;
    // The busy one leaves; whoever queues then gets the slot, though nobody asked again.
    let queued = tokio::spawn(get(gateway.public(), "c.localhost", "/"));
    until("c queues", || gateway.workspace("c").view().queue_position == Some(0)).await;
    drop(busy);
    assert_eq!(queued.await.unwrap().status, 200);
    assert_eq!(gateway.phase("a"), Phase::Frozen);
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
