//! Requests at every offset around the freeze: 1 ms steps from 50 ms before the deadline to 300 ms
//! after it, on local processes that, while they are being stopped, would still accept and answer.

use std::time::Duration;

use frostgate::model::FreezeMode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::support::{Gateway, get, process};

const IDLE: Duration = Duration::from_millis(300);
/// How long a workspace answers "dying" after TERM.
const DYING: &str = "60";
const BEFORE: i64 = -50;
const AFTER: i64 = 300;
/// Workspaces that share the offsets out among them.
const LANES: i64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_at_any_offset_around_a_stop() {
    sweep(FreezeMode::Stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_at_any_offset_around_a_pause() {
    sweep(FreezeMode::Pause).await;
}

async fn sweep(mode: FreezeMode) {
    let gateway = Gateway::start(|config| {
        for lane in 0..LANES {
            process(config, &format!("lane-{lane}"), mode, IDLE, &[("DYING_MS", DYING)]);
        }
    })
    .await;
    let address = gateway.public();
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        lanes.spawn(async move {
            let host = format!("lane-{lane}.localhost");
            assert_eq!(get(address, &host, "/boot").await.status, 200);
            let mut answered = Instant::now();
            let mut latencies = Vec::new();
            for offset in (BEFORE..=AFTER).filter(|offset| (offset - BEFORE) % LANES == lane) {
                let freeze_at = answered + IDLE;
                let wait = Duration::from_millis(offset.unsigned_abs());
                sleep_until(if offset < 0 { freeze_at - wait } else { freeze_at + wait }).await;
                let sent = Instant::now();
                let reply = get(address, &host, "/boot").await;
                answered = Instant::now();
                assert_eq!(reply.status, 200, "at {offset} ms: {reply:?}");
                assert!(!reply.text().contains("dying"), "a dying run answered at {offset} ms");
                latencies.push((answered - sent, offset));
            }
            latencies
        });
    }
    let mut latencies = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        latencies.extend(lane.unwrap());
    }
    assert_eq!(latencies.len() as i64, AFTER - BEFORE + 1);
    latencies.sort_unstable();
    let (slowest, offset) = latencies[latencies.len() - 1];
    let median = latencies[latencies.len() / 2].0;
    eprintln!(
        "{mode:?}: {} requests, none lost; p50 {median:?}, slowest {slowest:?} at {offset} ms",
        latencies.len()
    );
    gateway.stop().await;
}
