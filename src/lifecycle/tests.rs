//! Orders in which a workspace's task, its gate and its driver can meet, one row each.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::check_in::CheckInKey;
use super::reconcile::Reconciler;
use super::registry::{MakeError, Newcomer};
use super::slots::Capacity;
use super::{CommandError, Limits, Options, Registry, Visit, Workspace};
use crate::clock::Clock;
use crate::driver::fake::{Action, Failure, Fake};
use crate::driver::{Found, Health, Status};
use crate::model::{Phase, Policy, PolicyOverrides, Runs, Spec, WorkspaceId};
use crate::store::{Intent, Memory, Origin, Record, Store, StoreError};

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);

/// A registry over a scripted driver.
struct Bench {
    fake: Fake,
    store: Arc<Memory>,
    registry: Arc<Registry>,
}

impl Bench {
    async fn new(slots: Option<usize>) -> Self {
        let store = Arc::new(Memory::new());
        let registry = open(store.clone(), slots).await;
        Self { fake: Fake::new(), store, registry }
    }

    /// The registry of the next life of the program.
    async fn restart(&self) -> Arc<Registry> {
        self.registry.close().await;
        open(self.store.clone(), None).await
    }

    fn newcomer(&self, id: &str, policy: Policy) -> Newcomer {
        let id = WorkspaceId::parse(id).unwrap();
        // Its health check answers for it: nobody listens anywhere.
        self.fake.set_endpoint(&id, None);
        self.fake.set_health(&id, Some(Health::Healthy));
        Newcomer {
            id,
            spec: Spec::new(Runs::Discovered { network: None }).into(),
            policy: Arc::new(policy),
            own_policy: PolicyOverrides::default(),
            driver: Arc::new(self.fake.clone()),
            origin: Origin::Config,
            project: None,
        }
    }

    /// What would be there after a restart.
    async fn on_record(&self) -> Vec<Record> {
        tokio::time::sleep(60 * SECOND).await;
        self.store.load().await.unwrap()
    }

    fn is_running(&self, id: &str) -> bool {
        self.fake.status(&WorkspaceId::parse(id).unwrap()) == Status::Running
    }

    fn add(&self, id: &str, policy: Policy) -> Arc<Workspace> {
        self.registry.add(self.newcomer(id, policy)).unwrap()
    }
}

async fn open(store: Arc<Memory>, slots: Option<usize>) -> Arc<Registry> {
    let options = Options {
        domain: "localhost".to_owned(),
        limits: Limits {
            held_max: 100,
            held_per_workspace_max: 100,
            capacity: Capacity { slots, memory: None },
            memory_low: None,
            starts_max: 1,
        },
        memory_assumed: 0,
        check_in_key: CheckInKey::new(&[7; 32]),
        public_port: 80,
        clock: Clock::MACHINE,
    };
    Registry::open(options, store, Handle::current()).await.unwrap()
}

fn phase(workspace: &Workspace) -> Phase {
    workspace.view().phase
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_frozen_one_is_answered_though_somebody_comes_at_that_moment() {
    let bench = Bench::new(None).await;
    let alice = bench.add("alice", Policy::default());
    tokio::time::sleep(SECOND).await;
    let (stopped, entered) =
        tokio::join!(timeout(PATIENCE, alice.stop()), alice.enter(Visit::Navigation));
    assert_eq!(stopped, Ok(Ok(())));
    assert!(entered.is_ok(), "{entered:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_overruled_by_another_admin_is_told() {
    let bench = Bench::new(None).await;
    let alice = bench.add("alice", Policy::default());
    bench.fake.set_latency(Action::Start, SECOND);
    bench.fake.set_latency(Action::Stop, SECOND);
    let (_, stopped, resumed) =
        tokio::join!(alice.resume(), timeout(PATIENCE, alice.stop()), alice.resume());
    let told = |words: &str| Ok(Err(CommandError::Failed(words.to_owned())));
    assert_eq!((stopped, resumed), (told("another call wants it to run"), Ok(())));
    let (first, resumed, last) =
        tokio::join!(alice.stop(), timeout(PATIENCE, alice.resume()), alice.stop());
    assert_eq!(resumed, told("another call wants it frozen"));
    assert_eq!((first, last, phase(&alice)), (Ok(()), Ok(()), Phase::Frozen));
}

#[tokio::test(start_paused = true)]
async fn an_admins_wake_stays_in_the_queue_for_a_slot_though_the_requests_leave() {
    let bench = Bench::new(Some(1)).await;
    let (alice, bob) = (bench.add("alice", Policy::default()), bench.add("bob", Policy::default()));
    let lease = alice.enter(Visit::Navigation).await.unwrap();
    let resume = async {
        tokio::time::sleep(SECOND / 2).await;
        timeout(PATIENCE, bob.resume()).await
    };
    let (left, resumed, ()) =
        tokio::join!(timeout(SECOND, bob.enter(Visit::Navigation)), resume, async {
            tokio::time::sleep(10 * SECOND).await;
            drop(lease);
        });
    assert!(left.is_err(), "{left:?}");
    assert_eq!((resumed, phase(&bob)), (Ok(Ok(())), Phase::Running));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_ready_with_nobody_inside_makes_room() {
    let bench = Bench::new(Some(1)).await;
    let (alice, bob) = (bench.add("alice", Policy::default()), bench.add("bob", Policy::default()));
    bench.fake.set_latency(Action::Start, 5 * SECOND);
    let (resumed, entered) = tokio::join!(alice.resume(), async {
        tokio::time::sleep(SECOND).await;
        timeout(15 * SECOND, bob.enter(Visit::Navigation)).await
    });
    assert_eq!(resumed, Ok(()));
    assert!(matches!(entered, Ok(Ok(_))), "{entered:?}");
}

#[tokio::test(start_paused = true)]
async fn one_whose_report_expires_makes_room() {
    let bench = Bench::new(Some(1)).await;
    let reporting = Policy { check_in_ttl: Some(10 * SECOND), ..Policy::default() };
    let (alice, bob) = (bench.add("alice", reporting), bench.add("bob", Policy::default()));
    alice.resume().await.unwrap();
    alice.check_in(true).await.unwrap();
    let begun = Instant::now();
    let entered = bob.enter(Visit::Navigation).await;
    assert!(entered.is_ok(), "{entered:?}");
    assert_eq!(begun.elapsed(), 11 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_being_looked_at_makes_room_after_that() {
    let bench = Bench::new(Some(1)).await;
    let (alice, bob) = (bench.add("alice", Policy::default()), bench.add("bob", Policy::default()));
    alice.resume().await.unwrap();
    bench.fake.fail_next(alice.id(), Action::Inspect, Failure::Hang);
    tokio::time::sleep(2 * SECOND).await;
    alice.changed();
    let entered = bob.enter(Visit::Navigation).await;
    assert!(entered.is_ok(), "{entered:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_never_became_ready_and_was_stopped_can_be_woken_at_once() {
    let bench = Bench::new(None).await;
    let alice = bench.add("alice", Policy { start_timeout: 5 * SECOND, ..Policy::default() });
    bench.fake.set_health(alice.id(), Some(Health::Starting));
    assert!(alice.resume().await.is_err());
    bench.fake.set_health(alice.id(), Some(Health::Healthy));
    assert_eq!(alice.stop().await, Ok(()));
    let entered = alice.enter(Visit::Navigation).await;
    assert!(entered.is_ok(), "{entered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_fails_at_once_is_told_why() {
    let bench = Bench::new(None).await;
    // Which of two things that are ready is taken first is for chance to say.
    for _ in 0..50 {
        let newcomer = bench.newcomer("alice", Policy::default());
        let refuse = Failure::Refuse("there is no such image".to_owned());
        bench.fake.fail_next(&newcomer.id, Action::Create, refuse);
        let made = bench.registry.make(newcomer).await;
        let Err(MakeError::Failed(CommandError::Impossible(why))) = made else {
            panic!("it was not told: {made:?}");
        };
        assert_eq!(why, "could not create workspace alice: there is no such image");
        assert!(bench.registry.get("alice").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_fails_is_answered_though_what_is_left_of_it_can_not_be_removed() {
    let bench = Bench::new(None).await;
    let newcomer = bench.newcomer("alice", Policy::default());
    let refuse = || Failure::Refuse("the engine is not well".to_owned());
    bench.fake.fail_next(&newcomer.id, Action::Create, refuse());
    bench.fake.fail_next(&newcomer.id, Action::Remove, refuse());
    let made = timeout(PATIENCE, bench.registry.make(newcomer)).await;
    assert!(matches!(made, Ok(Err(MakeError::Failed(_)))), "{made:?}");
    assert_eq!(phase(&bench.registry.get("alice").unwrap()), Phase::Removing);
    tokio::time::sleep(10 * SECOND).await;
    assert!(bench.registry.get("alice").is_none(), "the removal is tried again");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_made_when_another_of_its_id_has_just_gone_is_on_record() {
    let bench = Bench::new(None).await;
    let short_lived = Policy { max_storage_time: Some(10 * SECOND), ..Policy::default() };
    bench.registry.make(bench.newcomer("alice", short_lived)).await.unwrap();
    bench.store.set_latency(5 * SECOND);
    bench.fake.set_latency(Action::Remove, SECOND / 2);
    while bench.registry.get("alice").is_some() {
        tokio::time::sleep(SECOND / 10).await;
    }
    bench.registry.make(bench.newcomer("alice", Policy::default())).await.unwrap();
    assert_eq!(bench.on_record().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_report_during_a_change_of_policy_does_not_undo_it() {
    let bench = Bench::new(None).await;
    let alice = bench.registry.make(bench.newcomer("alice", Policy::default())).await.unwrap();
    alice.resume().await.unwrap();
    bench.store.set_latency(SECOND);
    let changes = PolicyOverrides { monitoring: Some(false), ..PolicyOverrides::default() };
    let (changed, reported) =
        tokio::join!(alice.change_policy(changes.clone()), alice.check_in(true));
    assert_eq!((changed, reported), (Ok(()), Ok(())));
    let record = bench.on_record().await.remove(0);
    assert_eq!((record.policy, record.state.reported_activity), (changes, true));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_policy_is_finished_for_whoever_hangs_up() {
    let bench = Bench::new(None).await;
    let alice = bench.registry.make(bench.newcomer("alice", Policy::default())).await.unwrap();
    bench.store.set_latency(SECOND);
    let changes = PolicyOverrides { monitoring: Some(false), ..PolicyOverrides::default() };
    let hung_up = tokio::time::timeout(SECOND / 2, alice.change_policy(changes.clone())).await;
    assert!(hung_up.is_err());
    tokio::time::sleep(2 * SECOND).await;
    assert!(!alice.policy().monitoring);
    assert_eq!(bench.on_record().await.remove(0).policy, changes);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_policy_brings_no_record_back_and_does_not_end_a_creation() {
    let bench = Bench::new(None).await;
    bench.fake.set_latency(Action::Create, 100 * SECOND);
    let changes = PolicyOverrides { monitoring: Some(false), ..PolicyOverrides::default() };
    let (made, ()) =
        tokio::join!(bench.registry.make(bench.newcomer("alice", Policy::default())), async {
            tokio::time::sleep(SECOND).await;
            let alice = bench.registry.get("alice").unwrap();
            alice.change_policy(changes.clone()).await.unwrap();
            let intents = bench.on_record().await.into_iter().map(|record| record.state.intent);
            assert_eq!(Vec::from_iter(intents), [Some(Intent::Create)]);
        });
    let alice = made.unwrap();
    alice.remove().await.unwrap();
    assert_eq!(alice.change_policy(changes.clone()).await, Err(CommandError::Gone));
    assert_eq!(bench.on_record().await, []);
}

#[tokio::test(start_paused = true)]
async fn one_that_has_vanished_while_nobody_looked_is_forgotten() {
    let bench = Bench::new(None).await;
    let records = ["here", "gone"]
        .map(|id| Newcomer { origin: Origin::Discovered, ..bench.newcomer(id, Policy::default()) });
    let found = |newcomer: &Newcomer| Found {
        is_ours: false,
        id: newcomer.id.clone(),
        spec: (*newcomer.spec).clone(),
        policy: PolicyOverrides::default(),
        warnings: Vec::new(),
    };
    bench.fake.set_found(records.iter().map(found).collect());
    for newcomer in records {
        bench.fake.start_outside(&newcomer.id);
        bench.registry.add(newcomer).unwrap();
    }
    assert_eq!(bench.on_record().await.len(), 2);
    let registry = bench.restart().await;
    bench.fake.remove_outside(&WorkspaceId::parse("gone").unwrap());
    let driver = Arc::new(bench.fake.clone());
    let policies = watch::channel(Arc::default()).1;
    Reconciler::new(registry.clone(), driver, policies).take_stock().await;
    let kept = bench.on_record().await.into_iter().map(|record| record.id.to_string());
    assert_eq!(Vec::from_iter(kept), ["here"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_something_of_one_that_can_not_be_stored_is_told() {
    let bench = Bench::new(None).await;
    let mut making = Box::pin(bench.registry.make(bench.newcomer("alice", Policy::default())));
    bench.store.fail_with(Some(StoreError::Full));
    assert!(futures_util::poll!(&mut making).is_pending());
    let alice = bench.registry.get("alice").unwrap();
    let (made, stopped) = tokio::join!(making, timeout(PATIENCE, alice.stop()));
    assert!(matches!(made, Err(MakeError::Store(StoreError::Full))), "{made:?}");
    assert_eq!(stopped, Ok(Err(CommandError::Gone)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_one_that_is_being_removed_is_answered_when_it_is_gone() {
    let bench = Bench::new(None).await;
    let alice = bench.add("alice", Policy::default());
    bench.fake.set_latency(Action::Remove, SECOND);
    let (removed, stopped) = tokio::join!(alice.remove(), async {
        tokio::time::sleep(SECOND / 2).await;
        alice.stop().await
    });
    assert_eq!((removed, stopped), (Ok(()), Ok(())));
    assert!(bench.registry.get("alice").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_told_to_those_whose_wish_it_ends_however_long_it_takes() {
    let bench = Bench::new(None).await;
    let alice = bench.add("alice", Policy::default());
    bench.fake.set_latency(Action::Start, 10 * SECOND);
    bench.fake.set_latency(Action::Remove, 10 * SECOND);
    let begun = Instant::now();
    let (resumed, removed) = tokio::join!(alice.resume(), async {
        tokio::time::sleep(SECOND).await;
        timeout(SECOND, alice.remove()).await
    });
    assert_eq!(resumed, Err(CommandError::Gone));
    assert!(removed.is_err() && begun.elapsed() < 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_runs_after_a_restart_is_counted_before_anybody_is_admitted() {
    let bench = Bench::new(Some(1)).await;
    let runs = bench.newcomer("alice", Policy::default());
    bench.fake.start_outside(&runs.id);
    bench.fake.set_latency(Action::Inspect, SECOND);
    let wanted = bench.add("bob", Policy::default());
    bench.registry.add(runs).unwrap();
    let waiting = tokio::spawn({
        let wanted = wanted.clone();
        async move { wanted.enter(Visit::Navigation).await }
    });
    for _ in 0..100 {
        tokio::time::sleep(SECOND / 10).await;
        let running = ["alice", "bob"].map(|id| bench.is_running(id));
        assert_ne!(running, [true, true], "two run in one slot");
    }
    assert!(waiting.await.unwrap().is_ok(), "the idle one has made room");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_stopped_before_it_was_looked_at_is_answered_when_it_is_frozen() {
    let bench = Bench::new(None).await;
    let runs = bench.newcomer("alice", Policy::default());
    bench.fake.start_outside(&runs.id);
    let alice = bench.registry.add(runs).unwrap();
    assert_eq!(timeout(PATIENCE, alice.stop()).await, Ok(Ok(())));
    assert!(!bench.is_running("alice"));
}
