//! The gate under loom: every order in which threads can use it, with loom's atomics and locks in
//! place of the real ones. The same source, included once more.

mod sync {
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "../../src/lifecycle/gate.rs"]
#[expect(unreachable_pub, dead_code, reason = "written for the library, which exports it")]
mod gate;

use std::future::poll_fn;

use gate::{Entry, Gate, Refusal, Visit};
use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::Notify;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

/// A workspace reduced to what matters: a gate, and whether it is up.
struct World {
    gate: Gate,
    up: AtomicBool,
    bell: Notify,
    done: AtomicUsize,
}

impl World {
    fn new() -> Arc<Self> {
        let gate = Gate::new();
        gate.open(1);
        let (up, bell, done) = (AtomicBool::new(true), Notify::new(), AtomicUsize::new(0));
        Arc::new(Self { gate, up, bell, done })
    }

    /// A request: enters or waits, finds the workspace up, leaves.
    fn visit(&self, now: u64) {
        match self.gate.enter_or_sit(now, 10, Visit::Background) {
            Ok(Entry::Inside(_)) => {}
            Ok(Entry::Seat(seat)) => {
                self.bell.notify();
                let entered =
                    block_on(poll_fn(|context| self.gate.poll_seat(seat, context.waker())));
                assert_eq!(entered, Ok(2));
            }
            Err(refusal) => panic!("refused: {refusal:?}"),
        }
        assert!(self.up.load(Ordering::Acquire), "inside while the workspace is down");
        self.gate.release(now);
        self.done.fetch_add(1, Ordering::Release);
        self.bell.notify();
    }

    /// The workspace's task: freezes if it can, and wakes if somebody waits, until all were served.
    fn freeze_and_wake(&self, visitors: usize) {
        if self.gate.shut_if_idle(u64::MAX) {
            self.up.store(false, Ordering::Release);
            while self.gate.held() == 0 && self.done.load(Ordering::Acquire) < visitors {
                self.bell.wait();
            }
            if self.gate.held() > 0 {
                self.up.store(true, Ordering::Release);
                self.gate.open(2);
            }
        }
    }
}

fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(check);
}

#[test]
fn nobody_is_inside_while_it_is_down_and_nobody_waits_for_ever() {
    model(3, || {
        let world = World::new();
        let visitor = {
            let world = world.clone();
            thread::spawn(move || world.visit(1))
        };
        world.freeze_and_wake(1);
        visitor.join().unwrap();
    });
}

#[test]
fn two_visitors_and_a_freeze_in_any_order() {
    model(2, || {
        let world = World::new();
        let visitors: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || world.visit(1))
            })
            .collect();
        world.freeze_and_wake(2);
        for visitor in visitors {
            visitor.join().unwrap();
        }
        assert_eq!(world.gate.census().inside, 0);
    });
}

#[test]
fn a_visit_just_before_the_freeze_postpones_it() {
    model(3, || {
        let gate = Arc::new(Gate::new());
        gate.open(1);
        let visitor = {
            let gate = gate.clone();
            thread::spawn(move || {
                if gate.try_enter().is_some() {
                    gate.release(20);
                    return true;
                }
                false
            })
        };
        let shut = gate.shut_if_idle(10);
        let visited = visitor.join().unwrap();
        // Shut means that the visitor found it shut: its visit at 20 was after 10.
        assert_eq!(shut, !visited, "shut: {shut}, visited: {visited}");
    });
}

#[test]
fn whoever_drains_is_told_when_the_last_one_leaves() {
    model(3, || {
        let gate = Arc::new(Gate::new());
        gate.open(1);
        assert!(gate.try_enter().is_some());
        let leaver = {
            let gate = gate.clone();
            thread::spawn(move || gate.release(1))
        };
        gate.shut();
        let empty_at_once = gate.census().inside == 0;
        let told = leaver.join().unwrap();
        assert!(empty_at_once || told, "nobody noticed that the last one left");
    });
}

#[test]
fn one_that_leaves_its_seat_takes_no_lease_with_it() {
    model(3, || {
        let gate = Arc::new(Gate::new());
        let entry = gate.enter_or_sit(0, 10, Visit::Background);
        let Ok(Entry::Seat(seat)) = entry else { panic!("it is shut") };
        let opener = {
            let gate = gate.clone();
            thread::spawn(move || gate.open(1))
        };
        gate.leave_seat(seat, 1);
        opener.join().unwrap();
        assert_eq!(gate.census().inside, 0);
    });
}

#[test]
fn a_refusal_reaches_everybody_who_waits() {
    model(3, || {
        let gate = Arc::new(Gate::new());
        let refuser = {
            let gate = gate.clone();
            thread::spawn(move || gate.refuse(Refusal::Removed))
        };
        let refused = match gate.enter_or_sit(0, 10, Visit::Background) {
            Err(refusal) => refusal,
            Ok(Entry::Seat(seat)) => {
                block_on(poll_fn(|context| gate.poll_seat(seat, context.waker()))).unwrap_err()
            }
            Ok(Entry::Inside(_)) => panic!("it is shut"),
        };
        assert_eq!(refused, Refusal::Removed);
        refuser.join().unwrap();
    });
}

#[test]
fn whoever_comes_after_a_stop_is_inside_or_refused_and_never_waits_to_undo_it() {
    model(3, || {
        let gate = Arc::new(Gate::new());
        gate.open(1);
        let stopper = {
            let gate = gate.clone();
            thread::spawn(move || {
                gate.hold_off(100);
                gate.shut();
            })
        };
        match gate.enter_or_sit(1, 10, Visit::Background) {
            Ok(Entry::Inside(1)) | Err(Refusal::HeldOff { until: 100 }) => {}
            other => panic!("{other:?}"),
        }
        stopper.join().unwrap();
        assert_eq!(gate.held(), 0);
        assert!(matches!(gate.enter_or_sit(1, 10, Visit::Navigation), Ok(Entry::Seat(_))));
        assert!(matches!(gate.enter_or_sit(100, 10, Visit::Background), Ok(Entry::Seat(_))));
    });
}

#[test]
fn whoever_is_quiet_or_becomes_so_is_seen_by_whoever_shuts() {
    for becomes_quiet in [true, false] {
        model(3, move || {
            let gate = Arc::new(Gate::new());
            gate.open(1);
            if becomes_quiet {
                assert!(gate.try_enter().is_some());
            } else {
                gate.join_quiet();
            }
            let tunnel = {
                let gate = gate.clone();
                thread::spawn(move || {
                    if becomes_quiet {
                        gate.join_quiet();
                        gate.release(1);
                    } else if gate.try_enter().is_some() {
                        gate.leave_quiet();
                    }
                })
            };
            gate.shut();
            let seen = gate.census();
            assert!(seen.inside + seen.quiet > 0, "an open tunnel was overlooked: {seen:?}");
            tunnel.join().unwrap();
        });
    }
}

#[test]
fn a_freeze_for_idleness_knows_of_every_quiet_tunnel() {
    model(3, || {
        let gate = Arc::new(Gate::new());
        gate.open(1);
        assert!(gate.try_enter().is_some());
        let tunnel = {
            let gate = gate.clone();
            thread::spawn(move || {
                gate.join_quiet();
                gate.release(1);
            })
        };
        if gate.shut_if_idle(10) {
            assert_eq!(gate.census().quiet, 1);
        }
        tunnel.join().unwrap();
    });
}

#[test]
fn bytes_that_count_either_postpone_the_freeze_or_find_the_gate_shut() {
    model(3, || {
        let gate = Arc::new(Gate::new());
        gate.open(1);
        gate.join_quiet();
        let tunnel = {
            let gate = gate.clone();
            thread::spawn(move || {
                let noticed = gate.try_enter().is_some();
                if noticed {
                    gate.release(20);
                }
                // Here they are passed on.
                noticed
            })
        };
        let shut = gate.shut_if_idle(10);
        let noticed = tunnel.join().unwrap();
        assert_eq!(shut, !noticed, "shut: {shut}, noticed: {noticed}");
    });
}
