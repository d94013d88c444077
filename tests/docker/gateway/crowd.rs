//! Many more workspaces than there is room for, all wanted at once.

use std::collections::HashSet;
use std::time::Duration;

use frostgate::model::{Image, Phase, Runs};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Guest, Stage};
use crate::events::Events;
use crate::images::{Container, engine, unique};
use crate::support::{navigate, project, until};

const WORKSPACES: usize = 50;
const SLOTS: usize = 5;
/// How long it may take until everybody has had a turn, each a second at least.
const TURNS_MAX: Duration = Duration::from_secs(240);

/// Most containers that ran at the same time, as the engine tells, and who was started, in order.
fn told(events: &Events, guests: &[Guest]) -> (usize, Vec<usize>) {
    let (mut running, mut most, mut started) = (HashSet::new(), 0, Vec::new());
    for event in events.all() {
        let Some(number) = guests.iter().position(|guest| guest.container.name == event.name)
        else {
            continue;
        };
        match event.action.as_str() {
            "start" => {
                started.push(number);
                running.insert(number);
            }
            "die" => drop(running.remove(&number)),
            _ => {}
        }
        most = most.max(running.len());
    }
    (most, started)
}

/// As `until`, for what takes a while.
async fn patiently(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + TURNS_MAX;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_on_five_slots_are_all_served_in_order_and_never_more_than_five_run() {
    let Some(engine) = engine() else { return };
    let image = engine.image();
    let stage = Stage::start(engine, |config| {
        project(config, "app", Runs::Image(Image::new(image)));
        config.limits.slots = SLOTS;
        config.policy.inactivity_timeout = Some(Duration::from_secs(3_600));
        config.policy.hold_max = Duration::from_secs(300);
        config.policy.start_timeout = Duration::from_secs(300);
        // Visitors are to be served, not shown how long that takes.
        config.policy.page_after = Duration::from_secs(300);
    })
    .await;
    let gateway = &stage.gateway;
    let created = Events::listen(engine);
    let guests: Vec<Guest> = (0..WORKSPACES)
        .map(|_| {
            let id = unique("crowd");
            Guest { container: Container { name: format!("frostgate-{id}") }, id }
        })
        .collect();

    // All are made at once, and each has its turn to run, once.
    let creations = guests.iter().map(|guest| async {
        let fields = json!({ "project_id": "app", "id": guest.id,
                             "max_inactive_storage_time": "1h", "inactivity_timeout": "1h" });
        let reply = gateway.send("POST /workspaces", "application/json", &fields.to_string()).await;
        assert_eq!(reply.status, 201, "{reply:?}");
    });
    join_all(creations).await;
    let every_turn_is_over = || {
        let phases = || guests.iter().map(|guest| gateway.phase(&guest.id));
        let running = phases().filter(|phase| *phase == Phase::Running).count();
        running == SLOTS && phases().all(|phase| matches!(phase, Phase::Running | Phase::Frozen))
    };
    patiently("everyone has had a turn", every_turn_is_over).await;
    let (most, started) = told(&created, &guests);
    assert_eq!(most, SLOTS);
    assert_eq!(started.iter().collect::<HashSet<_>>().len(), WORKSPACES);
    assert_eq!(started.len(), WORKSPACES, "somebody was served twice: {started:?}");

    let stops = guests.iter().map(|guest| async {
        let reply = gateway.call("PUT", &format!("/workspaces/{}/stop", guest.id)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    });
    join_all(stops).await;
    assert!(guests.iter().all(|guest| gateway.phase(&guest.id) == Phase::Frozen));
    assert_eq!(gateway.app().registry().slots(), Some((SLOTS, SLOTS)));

    // Somebody comes to each, one after another; all wait at the same time.
    let thawed = Events::listen(engine);
    let mut visits = Vec::new();
    for guest in &guests {
        let (public, host) = (gateway.public(), format!("{}.localhost", guest.id));
        visits.push(tokio::spawn(async move { navigate(public, &host, "/boot").await }));
        let is_in_line = || gateway.phase(&guest.id) != Phase::Frozen;
        until("the visitor is in line", is_in_line).await;
    }
    let mut runs = HashSet::new();
    for visit in visits {
        let reply = visit.await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(runs.insert(reply.body), "two workspaces are one");
    }
    let (most, started) = told(&thawed, &guests);
    assert_eq!(most, SLOTS);
    assert_eq!(started.len(), WORKSPACES, "somebody was served twice: {started:?}");
    // Those that have a slot start at the same time, in whatever order the engine likes.
    for (place, number) in started.iter().enumerate() {
        assert!(place + SLOTS > *number, "{number} overtook others: {started:?}");
    }
    for guest in &guests {
        assert_eq!(gateway.call("DELETE", &format!("/workspaces/{}", guest.id)).await.status, 204);
        assert!(!engine.tries(&["container", "inspect", &guest.container.name]));
    }
    stage.stop().await;
}
