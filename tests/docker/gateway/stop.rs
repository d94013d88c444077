//! An admin's stop and resume, with people inside.

use std::time::Duration;

use frostgate::model::{FreezeMode, Phase, Tier};
use tokio::time::Instant;

use super::{Guest, MODES, NEVER, Stage, assert_on_time};
use crate::images::engine;
use crate::support::{Client, PATIENCE, Reply, navigate, until};

const DRAIN: Duration = Duration::from_millis(800);
/// A WebSocket's Close frame with 1001.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

impl Stage {
    async fn put(&self, guest: &Guest, verb: &str) -> Reply {
        self.gateway.call("PUT", &format!("/workspaces/{}/{verb}", guest.id)).await
    }

    /// A request that is under way.
    async fn begin(&self, guest: &Guest, path: &str) -> Client {
        let before = self.gateway.workspace(&guest.id).view().inside;
        let mut client = Client::connect(self.gateway.public()).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}.localhost\r\n\r\n", guest.id);
        client.send(head).await;
        let inside = || self.gateway.workspace(&guest.id).view().inside > before;
        until("it is inside", inside).await;
        client
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_inside_may_finish_and_are_cut_off_when_their_time_is_over() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |config| config.policy.drain_grace = DRAIN).await;
    for mode in MODES {
        let guest = stage.guest(mode, NEVER, &[]).await;
        let boot = stage.boot(&guest).await;
        let mut websocket = stage.websocket(&guest).await;
        let mut quick = stage.begin(&guest, "/slow?ms=300").await;
        let mut slow = stage.begin(&guest, "/slow?ms=20000").await;
        let began = Instant::now();
        let (stopped, held) = tokio::join!(stage.put(&guest, "stop"), async {
            until("it is shut", || stage.gateway.phase(&guest.id) == Phase::Freezing).await;
            // What an open page asks for is refused; who opens one waits for the freeze, and wakes
            // it again.
            assert_eq!(stage.get(&guest, "/boot").await.status, 503);
            let host = format!("{}.localhost", guest.id);
            navigate(stage.gateway.public(), &host, "/boot").await.text()
        });
        assert_eq!(stopped.status, 200, "{stopped:?}");
        assert!(began.elapsed() >= DRAIN);
        let quick = quick.reply().await;
        assert!(quick.status == 200 && quick.complete, "{quick:?}");
        let slow = slow.reply().await;
        assert!(!slow.complete, "a severed answer must not look whole: {slow:?}");
        assert_eq!(websocket.rest(PATIENCE).await.unwrap(), GOING_AWAY);
        assert_eq!(held == boot, mode == FreezeMode::Pause);
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_waits_no_longer_than_the_last_one_inside_and_a_resume_until_it_runs() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |config| {
        config.policy.drain_grace = Duration::from_secs(30);
    })
    .await;
    for mode in MODES {
        let guest = stage.guest(mode, NEVER, &[]).await;
        let boot = stage.boot(&guest).await;
        let mut slow = stage.begin(&guest, "/slow?ms=1000").await;
        let began = Instant::now();
        let (stopped, slow) = tokio::join!(stage.put(&guest, "stop"), slow.reply());
        assert_eq!((stopped.status, slow.complete), (200, true), "{stopped:?} {slow:?}");
        assert_on_time(began.elapsed(), Duration::from_millis(900));
        let (tier, status) = match mode {
            FreezeMode::Stop => (Tier::Stopped, "exited"),
            FreezeMode::Pause => (Tier::Paused, "paused"),
        };
        assert_eq!(stage.gateway.workspace(&guest.id).view().tier, Some(tier));
        assert_eq!(stage.inspect(&guest, "{{.State.Status}}"), status);
        assert_eq!(stage.put(&guest, "stop").await.status, 200, "it is frozen already");
        for _ in 0..2 {
            assert_eq!(stage.put(&guest, "resume").await.status, 200);
            assert_eq!(stage.gateway.phase(&guest.id), Phase::Running);
        }
        assert_eq!(stage.boot(&guest).await == boot, mode == FreezeMode::Pause);
    }
    stage.stop().await;
}
