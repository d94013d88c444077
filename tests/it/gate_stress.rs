//! The gate under real threads: what a paused clock and a single thread can't show.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use frostgate::lifecycle::gate::{Entry, Gate, Visit};

const VISITORS: u64 = 4;
const VISITS: u64 = 30_000;
/// Below this the race would hardly have been run.
const FREEZES: u64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_enters_against_continuous_freezes() {
    let gate = Arc::new(Gate::new());
    let up = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let freezes = Arc::new(AtomicU64::new(0));

    // A thread of its own that does nothing else, so that it freezes whenever it can.
    let freezer = std::thread::spawn({
        let (gate, up, freezes) = (gate.clone(), up.clone(), freezes.clone());
        let over = over.clone();
        move || {
            let mut generation = 0;
            while !over.load(Ordering::Relaxed) {
                if gate.held() > 0 {
                    generation += 1;
                    up.store(true, Ordering::SeqCst);
                    gate.open(generation);
                }
                if gate.shut_if_idle(u64::MAX) {
                    up.store(false, Ordering::SeqCst);
                    freezes.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });

    let started = Instant::now();
    let visitors: Vec<_> = (0..VISITORS)
        .map(|visitor| {
            let (gate, up, freezes) = (gate.clone(), up.clone(), freezes.clone());
            tokio::spawn(async move {
                let mut visit = 0;
                while visit < VISITS || freezes.load(Ordering::Relaxed) < FREEZES {
                    assert!(started.elapsed() < Duration::from_secs(600), "hardly any freezes");
                    visit += 1;
                    match gate.enter_or_sit(visit, 1_000, Visit::Background).unwrap() {
                        Entry::Inside(_) => {}
                        Entry::Seat(seat) => {
                            let seated = poll_fn(|context| gate.poll_seat(seat, context.waker()));
                            let waited =
                                tokio::time::timeout(Duration::from_secs(30), seated).await;
                            waited.expect("a wake-up was lost").unwrap();
                        }
                    }
                    assert!(up.load(Ordering::SeqCst), "inside while the workspace is down");
                    if (visit + visitor).is_multiple_of(3) {
                        tokio::task::yield_now().await;
                        assert!(up.load(Ordering::SeqCst), "frozen with somebody inside");
                    }
                    gate.release(visit);
                    if visit.is_multiple_of(2) {
                        tokio::task::yield_now().await;
                    }
                }
                visit
            })
        })
        .collect();
    let mut enters = 0;
    for visitor in visitors {
        enters += visitor.await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    freezer.join().unwrap();
    let freezes = freezes.load(Ordering::Relaxed);
    eprintln!("{enters} enters against {freezes} freezes in {:?}", started.elapsed());
    assert!(enters >= 100_000 && freezes >= FREEZES);
}
