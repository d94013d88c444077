//! Requests at every moment around a freeze: none is lost, none is answered by a workspace that is
//! dying, none waits longer than the freeze and the start take.
//!
//! Plain `cargo test` takes steps of 10 ms. `FROSTGATE_FULL_SWEEP=1` takes steps of 1 ms, in a
//! minute or two for each mode, and prints what it saw.

use std::time::Duration;

use frostgate::lifecycle::Change;
use frostgate::model::{FreezeMode, Phase};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Guest, Stage};
use crate::images::engine;
use crate::support::{Client, PATIENCE};

const IDLE: Duration = Duration::from_millis(300);
const OFFSETS_MS: std::ops::RangeInclusive<i64> = -50..=300;
/// What the gateway may add to the freeze and the start of the engine.
const OWN_SHARE: Duration = Duration::from_millis(25);

/// What became of one request.
#[derive(Debug)]
struct Shot {
    /// From the moment at which the freeze was due until it was sent; it may be late.
    offset_us: i128,
    status: u16,
    answer: String,
    latency: Duration,
    /// What the freeze took, if there was one.
    freeze: Option<Duration>,
    /// What the start took, for each that there was.
    starts: Vec<Duration>,
    /// From when it was sent until the workspace ran again: a slow wake, or a slow answer?
    #[expect(dead_code, reason = "for people who read what went wrong")]
    ran_after: Option<Duration>,
}

impl Shot {
    fn is_well(&self) -> bool {
        let starts = usize::from(self.freeze.is_some());
        self.status == 200 && self.answer.len() == 16 && self.starts.len() == starts
    }

    /// Whether it was frozen although it was sent in time.
    fn lost_the_race(&self) -> bool {
        self.offset_us <= -1_000 && self.freeze.is_some()
    }

    /// What the gateway itself added.
    fn own(&self) -> Duration {
        let engines: Duration = self.freeze.iter().chain(&self.starts).sum();
        self.latency.saturating_sub(engines)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_lost_around_a_stop() {
    sweep(FreezeMode::Stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_lost_around_a_pause() {
    sweep(FreezeMode::Pause).await;
}

async fn sweep(mode: FreezeMode) {
    let Some(engine) = engine() else { return };
    let full = std::env::var("FROSTGATE_FULL_SWEEP").as_deref() == Ok("1");
    let (lanes, step) = if full { (6, 1) } else { (3, 10) };
    let stage = Stage::start(engine, |_| {}).await;
    let mut sweeps = JoinSet::new();
    for lane in 0..lanes {
        // One that dies slowly has time to answer what it shouldn't.
        let guest = stage.guest(mode, IDLE, &["--env", "DYING_MS=80"]).await;
        let offsets = OFFSETS_MS.step_by(step).skip(lane).step_by(lanes);
        let workspace = stage.gateway.workspace(&guest.id);
        let (address, changes) = (stage.gateway.public(), stage.gateway.app().changes());
        sweeps.spawn(async move {
            let mut shooter = Shooter { guest, address, workspace, changes };
            let mut shots = Vec::new();
            for offset in offsets {
                shots.push(shooter.shoot(offset).await);
            }
            shots
        });
    }
    let mut shots: Vec<Shot> = sweeps.join_all().await.into_iter().flatten().collect();
    shots.sort_by_key(Shot::own);
    let worst = shots.last().unwrap();
    let nearly_worst = shots[shots.len() * 99 / 100 - 1].own();
    let frozen = shots.iter().filter(|shot| shot.freeze.is_some()).count();
    let median = shots[shots.len() / 2].own();
    let late = shots.iter().filter(|shot| shot.own() > OWN_SHARE).count();
    let told = format!(
        "{mode:?}: {} requests, {frozen} met a freeze; on top of freeze and start: \
         p50 {median:?}, p99 {nearly_worst:?}, {late} above {OWN_SHARE:?}, worst {worst:?}",
        shots.len()
    );
    println!("{told}");
    assert!(frozen > shots.len() / 2, "{told}");
    let unwell: Vec<_> = shots.iter().filter(|shot| !shot.is_well()).collect();
    assert!(unwell.is_empty(), "{unwell:#?}");
    // A machine that is busy with something else stalls now and then, which no proxy can help.
    if full {
        assert!(nearly_worst <= OWN_SHARE, "{told}");
        let lost: Vec<_> = shots.iter().filter(|shot| shot.lost_the_race()).collect();
        assert!(lost.is_empty(), "{lost:#?}");
    }
    assert!(worst.own() <= OWN_SHARE * 20, "{told}");
    stage.stop().await;
}

struct Shooter {
    guest: Guest,
    address: std::net::SocketAddr,
    workspace: std::sync::Arc<frostgate::lifecycle::Workspace>,
    changes: broadcast::Receiver<Change>,
}

impl Shooter {
    /// Sends one request that far from the moment at which the workspace is due to be frozen.
    async fn shoot(&mut self, offset_ms: i64) -> Shot {
        let host = format!("{}.localhost", self.guest.id);
        let warm = crate::support::get(self.address, &host, "/boot").await;
        assert_eq!(warm.status, 200, "{warm:?}");
        let mut client = Client::connect(self.address).await;
        let due = self.due().await;
        while self.changes.try_recv().is_ok() {}
        let offset = Duration::from_millis(offset_ms.unsigned_abs());
        let at = if offset_ms < 0 { due - offset } else { due + offset };
        sleep(at.saturating_duration_since(Instant::now())).await;
        // One that may be repeated, and one that may not.
        let head = match offset_ms % 2 {
            0 => format!("GET /boot HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            _ => format!("POST /boot HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\nx"),
        };
        let sent = Instant::now();
        let offset_us = micros(sent.saturating_duration_since(due))
            - micros(due.saturating_duration_since(sent));
        client.send(head).await;
        let reply = client.reply().await;
        let latency = sent.elapsed();
        let (freeze, starts, ran_at) = self.what_happened().await;
        let ran_after = ran_at.map(|at| at.saturating_duration_since(sent));
        let (status, answer) = (reply.status, reply.text());
        Shot { offset_us, status, answer, latency, freeze, starts, ran_after }
    }

    /// What the freeze took, and each start, and when it ran again.
    async fn what_happened(&mut self) -> (Option<Duration>, Vec<Duration>, Option<Instant>) {
        let (mut freeze, mut starts, mut ran_at) = (None, Vec::new(), None);
        let deadline = Instant::now() + PATIENCE;
        // The start is told of when those who waited for it are let in already.
        loop {
            match self.changes.try_recv() {
                Ok(change) if change.workspace.as_str() != self.guest.id => {}
                Ok(change) => match change.phase {
                    Phase::Frozen => freeze = change.took,
                    Phase::Running => {
                        starts.extend(change.took);
                        ran_at = Some(change.at);
                    }
                    _ => {}
                },
                Err(_) if starts.is_empty() && freeze.is_some() => {
                    assert!(Instant::now() < deadline, "it was frozen and never runs again");
                    tokio::task::yield_now().await;
                }
                Err(_) => break,
            }
        }
        (freeze, starts, ran_at)
    }

    /// When it will be frozen.
    async fn due(&self) -> Instant {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(due) = self.workspace.view().freeze_at {
                return due;
            }
            assert!(Instant::now() < deadline, "it is never due to be frozen");
            tokio::task::yield_now().await;
        }
    }
}

fn micros(duration: Duration) -> i128 {
    i128::try_from(duration.as_micros()).unwrap()
}
