//! The rules, one row each, and random orders of everything that can happen.

use super::*;
use crate::model::FrozenStorage;

const IDLE: Duration = Duration::from_secs(60);

fn policy() -> Policy {
    Policy { inactivity_timeout: Some(IDLE), ..Policy::default() }
}

/// A machine with a clock of its own and a gate of three numbers.
struct Bench {
    machine: Machine,
    now: Instant,
    census: Census,
    open: bool,
    jobs: Vec<Job>,
    told: Vec<String>,
    /// Phases that were told of, in order, and whether with a time that it took.
    phases: Vec<(Phase, bool)>,
    refused: u32,
    refused_stops: u32,
    failed_stops: u32,
    severed: bool,
    held_off_until: Option<Instant>,
    slot_is_free: bool,
}

impl Bench {
    /// One that was looked at, and is stopped.
    fn new(policy: Policy, discovered: bool) -> Self {
        let mut bench = Self::with_past(policy, discovered, Past::Unknown);
        bench.handle(Event::Changed);
        bench.finish(Outcome::Looked(Seen::Stopped { exit: None }));
        bench.jobs.clear();
        bench
    }

    fn with_past(policy: Policy, discovered: bool, past: Past) -> Self {
        let now = Instant::now();
        let nature = Nature { can_freeze: true, discovered };
        let census =
            Census { inside: 0, quiet: 0, held: 0, last_left: None, last_was_tunnel: false };
        let machine = Machine::new(Arc::new(policy), nature, now, past, now);
        let (jobs, told, phases) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            machine,
            now,
            census,
            open: false,
            jobs,
            told,
            phases,
            refused: 0,
            refused_stops: 0,
            failed_stops: 0,
            severed: false,
            held_off_until: None,
            slot_is_free: true,
        }
    }

    /// One that has been woken by a request that has left.
    fn running() -> Self {
        let mut bench = Self::new(policy(), false);
        bench.census.held = 1;
        bench.handle(Event::Held);
        bench.finish(woken("run-1"));
        bench.leave();
        bench
    }

    fn handle(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let effects = self.machine.handle(event, self.census, self.now);
            for effect in effects {
                match effect {
                    Effect::ShutIfIdle { idle_before } => {
                        let left_after = self.census.last_left.is_some_and(|at| at > idle_before);
                        let idle = self.open && self.census.inside == 0 && !left_after;
                        self.open &= !idle;
                        next = Some(Event::Shut(idle));
                    }
                    Effect::Shut => {
                        self.open = false;
                        if self.is_empty() {
                            next = Some(Event::Emptied);
                        }
                    }
                    Effect::Sever => self.severed = true,
                    Effect::Open => {
                        self.open = true;
                        self.held_off_until = None;
                        self.census.inside += self.census.held as u32;
                        self.census.held = 0;
                    }
                    Effect::Refuse { .. } => {
                        self.refused += self.census.held as u32;
                        self.census.held = 0;
                    }
                    Effect::Run(Job::Queue) if self.slot_is_free => {
                        next = Some(Event::Finished(Outcome::Admitted));
                    }
                    Effect::Run(job) => self.jobs.push(job),
                    Effect::GiveUp | Effect::ResumeFailed { .. } => {}
                    Effect::Created | Effect::CreateFailed { .. } => {}
                    Effect::StopRefused { .. } => self.refused_stops += 1,
                    Effect::Tell { phase, reason, took, .. } => {
                        self.phases.push((phase, took.is_some()));
                        self.told.push(reason);
                    }
                    Effect::Hold => self.held_off_until = None,
                    Effect::HoldOff { until } => self.held_off_until = Some(until),
                    Effect::StopFailed { .. } | Effect::RemoveFailed { .. } => {
                        self.failed_stops += 1;
                    }
                }
            }
        }
    }

    fn job(&self) -> Option<Job> {
        self.machine.job
    }

    fn finish(&mut self, outcome: Outcome) {
        assert!(self.job().is_some(), "nothing is under way");
        self.handle(Event::Finished(outcome));
    }

    /// A start fails, and nothing is up.
    fn fail_wake(&mut self) {
        self.finish(wake_failed());
        self.finish(Outcome::Looked(Seen::Stopped { exit: None }));
    }

    fn leave(&mut self) {
        self.census.inside -= 1;
        self.census.last_left = Some(self.now);
        self.tell_if_empty();
    }

    /// A quiet tunnel ends.
    fn leave_quiet(&mut self) {
        self.census.quiet -= 1;
        self.tell_if_empty();
    }

    fn is_empty(&self) -> bool {
        (self.census.inside, self.census.quiet) == (0, 0)
    }

    fn tell_if_empty(&mut self) {
        if self.is_empty() && !self.open {
            self.handle(Event::Emptied);
        }
    }

    /// Lets time pass up to the deadline, and tells of it.
    fn pass(&mut self) {
        let at = self.machine.deadline(self.census, self.now).expect("there is a deadline");
        self.now = self.now.max(at);
        self.handle(Event::Deadline);
    }

    fn phase(&self) -> Phase {
        self.machine.phase()
    }
}

fn woken(run: &str) -> Outcome {
    Outcome::Woken { run: Some(run.to_owned()) }
}

fn running_as(run: &str) -> Outcome {
    Outcome::Looked(Seen::Running { run: Some(run.to_owned()), same_endpoint: true })
}

fn remove_failed() -> Outcome {
    Outcome::RemoveFailed { reason: "the engine is away".to_owned() }
}

fn create_failed() -> Outcome {
    Outcome::CreateFailed { reason: "there is no such image".to_owned(), refused: true }
}

fn wake_failed() -> Outcome {
    Outcome::WakeFailed { reason: "exited with code 1".to_owned(), run: None }
}

#[test]
fn a_freeze_is_told_of_although_somebody_waits_and_it_is_woken_at_once() {
    let mut bench = Bench::running();
    bench.pass();
    bench.census.held = 1;
    bench.handle(Event::Held);
    bench.phases.clear();
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!(bench.phases, [(Phase::Frozen, true), (Phase::Starting, false)]);
}

#[test]
fn what_failed_while_the_runtime_was_away_is_not_put_off_when_it_is_back() {
    let mut bench = Bench::new(policy(), true);
    for _ in 0..4 {
        bench.census.held = 1;
        bench.now += RETRY_MAX;
        bench.handle(Event::Held);
        bench.fail_wake();
    }
    assert_eq!(bench.phase(), Phase::Failed);
    bench.handle(Event::Resync);
    assert_eq!((bench.phase(), bench.job()), (Phase::Frozen, Some(Job::Look)));
    bench.finish(Outcome::Looked(Seen::Stopped { exit: None }));
    bench.census.held = 1;
    bench.handle(Event::Held);
    assert_eq!(bench.job(), Some(Job::Wake));
    bench.finish(woken("run-1"));
    bench.leave();
    bench.pass();
    bench.finish(Outcome::FreezeFailed { reason: "away".to_owned() });
    bench.finish(Outcome::Woken { run: None });
    let put_off = bench.machine.deadline(bench.census, bench.now);
    bench.handle(Event::Resync);
    bench.finish(running_as("run-1"));
    assert!(bench.machine.deadline(bench.census, bench.now) <= put_off);
    assert_eq!(bench.machine.freeze_not_before, None);
}

#[test]
fn a_run_that_was_found_while_the_engine_was_away_gets_its_name_later() {
    let mut bench = Bench::running();
    bench.pass();
    bench.finish(Outcome::FreezeFailed { reason: "away".to_owned() });
    bench.finish(Outcome::Woken { run: None });
    for run in ["run-1", "run-1", "run-2"] {
        assert_eq!(bench.phase(), Phase::Running, "{run}");
        bench.handle(Event::Changed);
        bench.finish(running_as(run));
    }
    assert_eq!(bench.phase(), Phase::Starting, "it was restarted outside");
}

#[test]
fn a_request_wakes_it_and_idleness_freezes_it_on_the_deadline() {
    let mut bench = Bench::running();
    let idle_since = bench.now;
    assert_eq!(bench.machine.freeze_at(bench.census), Some(idle_since + IDLE));
    bench.pass();
    assert_eq!(bench.now, idle_since + IDLE);
    assert_eq!(
        (bench.phase(), bench.job()),
        (Phase::Freezing, Some(Job::Freeze(FreezeMode::Stop)))
    );
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!((bench.phase(), bench.machine.tier()), (Phase::Frozen, Some(Tier::Stopped)));
    assert_eq!(bench.told.last().map(String::as_str), Some("idle for 1m since it was started"));
}

#[test]
fn a_visit_moves_the_deadline_without_an_event() {
    let mut bench = Bench::running();
    let first = bench.machine.deadline(bench.census, bench.now).unwrap();
    bench.now += IDLE / 2;
    bench.census.last_left = Some(bench.now);
    bench.now = first;
    bench.handle(Event::Deadline);
    assert_eq!(bench.phase(), Phase::Running);
    bench.pass();
    assert_eq!(bench.now, first + IDLE / 2);
    assert_eq!(bench.phase(), Phase::Freezing);
}

#[test]
fn it_is_never_frozen_with_somebody_inside() {
    let mut bench = Bench::running();
    bench.census.inside = 1;
    assert_eq!(bench.machine.freeze_at(bench.census), None);
    for _ in 0..5 {
        bench.pass();
        assert_eq!(bench.phase(), Phase::Running);
    }
    bench.leave();
    let left = bench.now;
    bench.pass();
    assert_eq!((bench.phase(), bench.now), (Phase::Freezing, left + IDLE));
}

#[test]
fn a_request_during_the_freeze_waits_for_it_and_causes_one_start() {
    let mut bench = Bench::running();
    bench.pass();
    bench.census.held = 3;
    bench.handle(Event::Held);
    bench.handle(Event::Held);
    assert_eq!(bench.phase(), Phase::Freezing);
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!((bench.phase(), bench.job()), (Phase::Starting, Some(Job::Wake)));
    bench.finish(woken("run-2"));
    assert_eq!((bench.phase(), bench.census.inside), (Phase::Running, 3));
    assert_eq!(bench.jobs.iter().filter(|job| **job == Job::Wake).count(), 2);
}

#[test]
fn the_initial_timeout_is_counted_from_readiness() {
    let initial_timeout = IDLE * 10;
    let mut bench = Bench::new(Policy { initial_timeout, ..policy() }, false);
    bench.handle(Event::Resume);
    bench.now += Duration::from_secs(5);
    bench.finish(woken("run-1"));
    let ready_at = bench.now;
    let freeze_at = |bench: &Bench| bench.machine.freeze_at(bench.census);
    assert_eq!(freeze_at(&bench), Some(ready_at + initial_timeout + IDLE), "nobody has come yet");
    // Whoever leaves within the grace does not shorten it; who leaves after it starts the clock.
    for (left_at, counted) in
        [(initial_timeout / 2, initial_timeout), (initial_timeout * 2, initial_timeout * 2 + IDLE)]
    {
        bench.census.inside = 1;
        bench.now = ready_at + left_at;
        bench.leave();
        assert_eq!(freeze_at(&bench), Some(ready_at + counted));
    }
}

#[test]
fn one_that_reported_activity_before_a_restart_is_active_until_it_says_otherwise() {
    let mut bench = Bench::with_past(policy(), false, Past::Awake { reported_activity: true });
    bench.handle(Event::Changed);
    bench.finish(running_as("run-1"));
    bench.finish(woken("run-1"));
    assert_eq!(bench.machine.freeze_at(bench.census), None);
    assert!(bench.machine.reported_activity());
    bench.handle(Event::CheckIn(false));
    assert_eq!(bench.machine.freeze_at(bench.census), Some(bench.now + IDLE));
    assert!(!bench.machine.reported_activity());
}

#[test]
fn a_report_from_before_a_restart_does_not_outlive_its_run() {
    let mut bench = Bench::with_past(policy(), false, Past::Awake { reported_activity: true });
    bench.handle(Event::Changed);
    bench.finish(Outcome::Looked(Seen::Stopped { exit: None }));
    // That it is not awake any more is news, and the last of it.
    assert_eq!((bench.told.len(), bench.phases[0].0), (1, Phase::Frozen));
    bench.handle(Event::Changed);
    bench.finish(Outcome::Looked(Seen::Stopped { exit: None }));
    assert_eq!(bench.told.len(), 1);
    bench.handle(Event::Resume);
    bench.finish(woken("run-2"));
    assert_eq!(bench.machine.freeze_at(bench.census), Some(bench.now + IDLE));
}

#[test]
fn check_ins_keep_it_awake_until_zero_or_expiry_and_a_start_clears_them() {
    let mut bench = Bench::running();
    bench.handle(Event::CheckIn(true));
    assert_eq!(bench.machine.freeze_at(bench.census), None);
    bench.now += IDLE * 5;
    bench.handle(Event::Deadline);
    assert_eq!(bench.phase(), Phase::Running);
    bench.handle(Event::CheckIn(false));
    assert_eq!(bench.machine.freeze_at(bench.census), Some(bench.now + IDLE));
    bench.handle(Event::CheckIn(true));
    bench.handle(Event::Changed);
    bench.finish(Outcome::Looked(Seen::Stopped { exit: None }));
    bench.handle(Event::Resume);
    bench.finish(woken("run-2"));
    assert_eq!(bench.machine.freeze_at(bench.census), Some(bench.now + IDLE));
}

#[test]
fn a_report_expires_after_its_ttl() {
    let check_in_ttl = Some(IDLE * 2);
    let mut bench = Bench::new(Policy { check_in_ttl, ..policy() }, false);
    bench.handle(Event::Resume);
    bench.finish(woken("run-1"));
    bench.handle(Event::CheckIn(true));
    let reported = bench.now;
    assert_eq!(bench.machine.freeze_at(bench.census), Some(reported + IDLE * 3));
    bench.pass();
    assert_eq!((bench.phase(), bench.now), (Phase::Freezing, reported + IDLE * 3));
}

#[test]
fn another_ttl_counts_for_the_report_that_was_made_already() {
    let mut bench = Bench::running();
    bench.handle(Event::CheckIn(true));
    let reported = bench.now;
    bench.now += IDLE / 2;
    let with_ttl = Policy { check_in_ttl: Some(IDLE * 2), ..policy() };
    bench.handle(Event::Policy(Arc::new(with_ttl)));
    bench.pass();
    assert_eq!((bench.phase(), bench.now), (Phase::Freezing, reported + IDLE * 3));
    assert_eq!(
        bench.told.last().map(String::as_str),
        Some("idle for 1m since it reported activity")
    );
}

#[test]
fn zero_never_overrides_a_live_connection() {
    let mut bench = Bench::running();
    bench.census.inside = 1;
    bench.handle(Event::CheckIn(false));
    bench.pass();
    assert_eq!(bench.phase(), Phase::Running);
}

#[test]
fn an_admins_stop_waits_for_those_inside_and_then_closes_them() {
    let mut bench = Bench::running();
    bench.census.inside = 1;
    bench.handle(Event::Stop);
    assert_eq!((bench.phase(), bench.job(), bench.open), (Phase::Freezing, None, false));
    let stopped = bench.now;
    bench.pass();
    assert_eq!((bench.now, bench.severed), (stopped + policy().drain_grace, true));
    // They are let go before the driver is told, but not for ever.
    assert_eq!(bench.job(), None);
    let severed = bench.now;
    bench.pass();
    assert_eq!(bench.now, severed + SEVERED_MAX);
    assert_eq!(bench.job(), Some(Job::Freeze(FreezeMode::Stop)));
}

#[test]
fn an_admins_stop_goes_on_when_the_last_one_leaves() {
    let mut bench = Bench::running();
    bench.census.inside = 1;
    bench.handle(Event::Stop);
    bench.leave();
    assert_eq!(bench.job(), Some(Job::Freeze(FreezeMode::Stop)));
    // The same of one that leaves because it was severed.
    let mut bench = Bench::running();
    bench.census.inside = 1;
    bench.handle(Event::Stop);
    bench.pass();
    bench.leave();
    assert_eq!((bench.severed, bench.job()), (true, Some(Job::Freeze(FreezeMode::Stop))));
}

#[test]
fn after_an_admins_stop_it_is_held_off_until_it_is_woken_whoever_wakes_it() {
    let hold_off = policy().stop_hold_off;
    let wakers: [fn(&mut Bench); 3] = [
        |bench| bench.handle(Event::Resume),
        |bench| {
            // A navigation; others get no seat.
            bench.census.held = 1;
            bench.handle(Event::Held);
        },
        |bench| {
            bench.handle(Event::Changed);
            bench.finish(running_as("found"));
        },
    ];
    for wake in wakers {
        let mut bench = Bench::running();
        bench.census.inside = 1;
        bench.handle(Event::Stop);
        let until = Some(bench.now + hold_off);
        assert_eq!((bench.phase(), bench.held_off_until), (Phase::Freezing, until));
        bench.now += Duration::from_secs(1);
        bench.leave();
        bench.finish(Outcome::Frozen(Tier::Stopped));
        assert_eq!((bench.machine.held_off_until(), bench.held_off_until), (until, until));
        wake(&mut bench);
        assert_eq!((bench.machine.held_off_until(), bench.held_off_until), (None, None));
        assert!(matches!(bench.job(), Some(Job::Wake | Job::Adopt)));
    }
}

#[test]
fn a_resume_during_the_freeze_ends_the_hold_off_and_another_stop_begins_one() {
    let mut bench = Bench::running();
    bench.handle(Event::Stop);
    bench.handle(Event::Resume);
    assert_eq!((bench.machine.stopped_at(), bench.held_off_until), (None, None));
    bench.handle(Event::Stop);
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!(bench.phase(), Phase::Frozen);
    assert_eq!(bench.held_off_until, Some(bench.now + policy().stop_hold_off));
}

#[test]
fn one_that_is_frozen_already_is_held_off_by_a_stop_and_idleness_holds_nobody_off() {
    let mut bench = Bench::running();
    bench.pass();
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!((bench.machine.stopped_at(), bench.held_off_until), (None, None));
    bench.now += IDLE;
    bench.handle(Event::Stop);
    assert_eq!((bench.phase(), bench.machine.stopped_at()), (Phase::Frozen, Some(bench.now)));
    assert!(bench.held_off_until.is_some());
    // So that it is on record.
    assert_eq!(bench.told.last().map(String::as_str), Some(STOPPED_BY_ADMIN));
}

#[test]
fn the_hold_off_follows_the_policy_and_outlives_a_restart() {
    let mut bench = Bench::running();
    bench.handle(Event::Stop);
    let stopped = bench.now;
    for hold_off in [Duration::ZERO, IDLE * 3] {
        let changed = Policy { stop_hold_off: hold_off, ..policy() };
        bench.handle(Event::Policy(Arc::new(changed)));
        assert_eq!(bench.held_off_until, Some(stopped + hold_off));
    }
    let stopped_at = Some(stopped);
    let frozen = Past::Frozen { tier: Tier::Stopped, since: stopped, stopped_at };
    for past in [frozen, Past::Freezing { stopped_at }] {
        let bench = Bench::with_past(policy(), false, past);
        let until = Some(stopped + policy().stop_hold_off);
        assert_eq!(bench.machine.held_off_until(), until);
    }
}

#[test]
fn a_stop_fails_no_removal() {
    let mut bench = Bench::new(policy(), false);
    bench.handle(Event::Resume);
    bench.handle(Event::Stop);
    bench.handle(Event::Remove);
    bench.handle(Event::Stop);
    assert_eq!((bench.phase(), bench.job()), (Phase::Removing, Some(Job::Remove)));
    bench.finish(Outcome::Removed);
    assert_eq!((bench.phase(), bench.failed_stops), (Phase::Removed, 0));
}

#[test]
fn a_stop_during_the_start_serves_those_who_wait_first() {
    let mut bench = Bench::new(policy(), false);
    bench.census.held = 1;
    bench.handle(Event::Held);
    bench.handle(Event::Stop);
    assert_eq!(bench.phase(), Phase::Starting);
    bench.finish(woken("run-1"));
    assert_eq!((bench.phase(), bench.census.inside), (Phase::Freezing, 1));
    assert_eq!(bench.job(), None, "they have drain_grace, like everybody");
    bench.leave();
    assert_eq!(bench.job(), Some(Job::Freeze(FreezeMode::Stop)));
}

#[test]
fn a_resume_during_the_freeze_follows_it() {
    let mut bench = Bench::running();
    bench.handle(Event::Stop);
    bench.handle(Event::Resume);
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!((bench.phase(), bench.job()), (Phase::Starting, Some(Job::Wake)));
}

#[test]
fn failed_starts_are_retried_by_requests_after_a_growing_pause() {
    let mut bench = Bench::new(policy(), false);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        bench.census.held = 1;
        bench.handle(Event::Held);
        bench.fail_wake();
        assert_eq!((bench.phase(), bench.census.held), (Phase::Failed, 0));
        let State::Failed { retry_at, .. } = bench.machine.state.clone() else { unreachable!() };
        pauses.push((retry_at - bench.now).as_secs());
        bench.now = retry_at;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(bench.refused, 8);
    bench.census.held = 1;
    bench.handle(Event::Held);
    bench.finish(woken("run-1"));
    assert_eq!(bench.machine.failures, 0);
}

#[test]
fn a_failed_freeze_finds_out_how_things_are_and_serves_on() {
    let mut bench = Bench::running();
    bench.pass();
    bench.census.held = 2;
    bench.finish(Outcome::FreezeFailed { reason: "no engine".to_owned() });
    assert_eq!((bench.phase(), bench.job()), (Phase::Starting, Some(Job::Adopt)));
    bench.finish(woken("run-1"));
    assert_eq!((bench.phase(), bench.census.inside), (Phase::Running, 2));
}

#[test]
fn what_was_taken_for_running_and_is_not_is_started_for_nobody_and_by_way_of_the_queue() {
    for held in [0, 1] {
        let mut bench = Bench::new(policy(), false);
        bench.handle(Event::Changed);
        bench.finish(running_as("run-1"));
        assert_eq!(
            (bench.job(), bench.machine.footprint()),
            (Some(Job::Adopt), Footprint::Running)
        );
        bench.census.held = held;
        bench.slot_is_free = false;
        bench.handle(Event::Held);
        bench.finish(Outcome::Down(Seen::Stopped { exit: None }));
        let (phase, job) = match held {
            0 => (Phase::Frozen, None),
            _ => (Phase::Starting, Some(Job::Queue)),
        };
        assert_eq!((bench.phase(), bench.job()), (phase, job));
        assert_eq!(bench.machine.footprint(), Footprint::Nothing);
    }
}

#[test]
fn an_admins_resume_of_what_was_taken_for_running_holds() {
    let mut bench = Bench::new(policy(), false);
    bench.handle(Event::Changed);
    bench.finish(running_as("run-1"));
    bench.handle(Event::Resume);
    bench.finish(Outcome::Down(Seen::Missing));
    assert_eq!((bench.phase(), bench.job()), (Phase::Starting, Some(Job::Wake)));
}

#[test]
fn one_that_may_be_up_keeps_its_slot_until_that_is_known() {
    let mut bench = Bench::new(policy(), false);
    bench.handle(Event::Resume);
    bench.finish(wake_failed());
    assert_eq!((bench.phase(), bench.job()), (Phase::Failed, Some(Job::Look)));
    assert_eq!(bench.machine.footprint(), Footprint::Running);
    bench.finish(Outcome::LookFailed);
    assert_eq!(bench.machine.footprint(), Footprint::Running);
    bench.pass();
    assert_eq!(bench.job(), Some(Job::Look), "it is looked at again");
    bench.finish(Outcome::Looked(Seen::Stopped { exit: None }));
    assert_eq!((bench.phase(), bench.machine.footprint()), (Phase::Failed, Footprint::Nothing));
}

#[test]
fn one_that_is_up_and_not_ready_keeps_its_slot_when_it_is_tried_again() {
    let run = Some("run-1".to_owned());
    let tries: [fn(&mut Bench); 2] = [
        |bench| {
            bench.now += RETRY_MAX;
            bench.census.held = 1;
            bench.handle(Event::Held);
        },
        |bench| bench.handle(Event::Resync),
    ];
    for (try_again, job) in tries.into_iter().zip([Job::Wake, Job::Adopt]) {
        let mut bench = Bench::new(policy(), false);
        bench.handle(Event::Resume);
        bench.finish(Outcome::WakeFailed { reason: "not ready".to_owned(), run: run.clone() });
        bench.slot_is_free = false;
        try_again(&mut bench);
        assert_eq!((bench.job(), bench.machine.footprint()), (Some(job), Footprint::Running));
    }
}

#[test]
fn before_its_first_look_it_is_neither_woken_nor_called_frozen() {
    let now = Instant::now();
    let pasts = [
        Past::Unknown,
        Past::Awake { reported_activity: false },
        Past::Frozen { tier: Tier::Stopped, since: now, stopped_at: None },
    ];
    for past in pasts {
        let mut bench = Bench::with_past(policy(), false, past);
        bench.census.held = 1;
        bench.handle(Event::Held);
        assert_eq!((bench.job(), bench.machine.is_known()), (Some(Job::Look), false));
        bench.handle(Event::Stop);
        assert_eq!(bench.held_off_until, None, "it may run");
        bench.finish(running_as("run-1"));
        assert_eq!((bench.job(), bench.machine.is_known()), (Some(Job::Adopt), true));
        bench.finish(woken("run-1"));
        assert_eq!(bench.phase(), Phase::Freezing);
    }
}

#[test]
fn what_was_being_frozen_or_removed_at_a_crash_counts_as_running() {
    let since = Instant::now();
    let pasts = [
        Past::Freezing { stopped_at: None },
        Past::SteppingDown { since, stopped_at: None },
        Past::Removing { why: "a crash" },
    ];
    for past in pasts {
        let mut bench = Bench::with_past(policy(), false, past);
        bench.handle(Event::Changed);
        assert_eq!(bench.machine.footprint(), Footprint::Running, "{past:?}");
    }
    let mut frozen = Bench::new(policy(), false);
    frozen.handle(Event::Remove);
    assert_eq!(frozen.machine.footprint(), Footprint::Nothing, "it holds what it held");
}

#[test]
fn what_happens_outside_is_followed() {
    // (what is seen while running, the phase that follows, whether the gate is open)
    let rows = [
        (running_as("run-1"), Phase::Running, true),
        (running_as("run-2"), Phase::Starting, false),
        (Outcome::Looked(Seen::Paused), Phase::Frozen, false),
        (Outcome::Looked(Seen::Stopped { exit: None }), Phase::Frozen, false),
        (Outcome::Looked(Seen::Missing), Phase::Frozen, false),
        (Outcome::LookFailed, Phase::Running, true),
    ];
    for (seen, phase, open) in rows {
        let mut bench = Bench::running();
        bench.handle(Event::Changed);
        assert_eq!(bench.job(), Some(Job::Look));
        bench.finish(seen.clone());
        assert_eq!((bench.phase(), bench.open), (phase, open), "{seen:?}");
    }
}

#[test]
fn one_that_was_paused_and_is_missing_is_as_good_as_stopped() {
    let frozen = Past::Frozen { tier: Tier::Paused, since: Instant::now(), stopped_at: None };
    let mut bench = Bench::with_past(policy(), false, frozen);
    bench.handle(Event::Changed);
    bench.finish(Outcome::Looked(Seen::Missing));
    assert_eq!((bench.phase(), bench.machine.tier()), (Phase::Frozen, Some(Tier::Stopped)));
}

#[test]
fn a_discovered_one_that_is_missing_is_removed() {
    let mut bench = Bench::new(policy(), true);
    bench.handle(Event::Changed);
    bench.census.held = 1;
    bench.finish(Outcome::Looked(Seen::Missing));
    assert_eq!((bench.phase(), bench.refused), (Phase::Removed, 1));
}

#[test]
fn one_that_is_up_but_never_ready_is_frozen_in_the_end() {
    let mut bench = Bench::new(policy(), false);
    bench.handle(Event::Resume);
    let run = Some("run-1".to_owned());
    bench.finish(Outcome::WakeFailed { reason: "not ready".to_owned(), run });
    let failed = bench.now;
    bench.pass();
    assert_eq!((bench.phase(), bench.now), (Phase::Freezing, failed + IDLE));
}

#[test]
fn one_that_is_never_ready_and_can_not_be_frozen_is_removed() {
    let mut bench = Bench::new(Policy { storage: FrozenStorage::None, ..policy() }, false);
    bench.handle(Event::Resume);
    let run = Some("run-1".to_owned());
    bench.finish(Outcome::WakeFailed { reason: "not ready".to_owned(), run });
    bench.pass();
    assert_eq!(bench.phase(), Phase::Removing);
}

#[test]
fn monitoring_off_or_no_timeout_means_never_by_itself() {
    let off = Policy { monitoring: false, ..policy() };
    let none = Policy { inactivity_timeout: None, ..policy() };
    for policy in [off, none] {
        let mut bench = Bench::new(policy, false);
        bench.handle(Event::Resume);
        bench.finish(woken("run-1"));
        assert_eq!(bench.machine.deadline(bench.census, bench.now), None);
    }
}

#[test]
fn a_paused_one_is_stopped_and_then_removed() {
    let policy = Policy {
        freeze_mode: FreezeMode::Pause,
        stop_after: Some(IDLE * 2),
        storage: FrozenStorage::Limited(IDLE * 5),
        ..policy()
    };
    let mut bench = Bench::new(policy, false);
    bench.handle(Event::Resume);
    bench.finish(woken("run-1"));
    bench.pass();
    bench.finish(Outcome::Frozen(Tier::Paused));
    let frozen = bench.now;
    assert_eq!(bench.machine.remove_at(), Some(frozen + IDLE * 5));
    bench.pass();
    assert_eq!((bench.now, bench.job()), (frozen + IDLE * 2, Some(Job::Freeze(FreezeMode::Stop))));
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!((bench.phase(), bench.machine.tier()), (Phase::Frozen, Some(Tier::Stopped)));
    bench.pass();
    assert_eq!((bench.now, bench.phase()), (frozen + IDLE * 5, Phase::Removing));
    bench.finish(Outcome::Removed);
    assert_eq!(bench.told.last().map(String::as_str), Some("frozen for 5m"));
}

#[test]
fn a_request_during_the_step_down_waits_for_it_and_wakes_it() {
    let policy = Policy { freeze_mode: FreezeMode::Pause, stop_after: Some(IDLE), ..policy() };
    let mut bench = Bench::new(policy, false);
    bench.handle(Event::Resume);
    bench.finish(woken("run-1"));
    bench.pass();
    bench.finish(Outcome::Frozen(Tier::Paused));
    bench.pass();
    bench.census.held = 1;
    bench.handle(Event::Held);
    assert_eq!(bench.job(), Some(Job::Freeze(FreezeMode::Stop)));
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!((bench.phase(), bench.job()), (Phase::Starting, Some(Job::Wake)));
    bench.finish(woken("run-2"));
    assert_eq!((bench.phase(), bench.census.inside), (Phase::Running, 1));
}

#[test]
fn one_that_cannot_be_frozen_is_removed_when_idle_and_keeps_running_at_a_stop() {
    let mut bench = Bench::new(Policy { storage: FrozenStorage::None, ..policy() }, false);
    bench.handle(Event::Resume);
    bench.finish(woken("run-1"));
    bench.handle(Event::Stop);
    assert_eq!((bench.phase(), bench.refused_stops), (Phase::Running, 1));
    bench.pass();
    assert_eq!((bench.phase(), bench.job()), (Phase::Removing, Some(Job::Remove)));
}

#[test]
fn it_is_removed_at_its_age_even_in_use() {
    let mut bench = Bench::new(Policy { max_storage_time: Some(IDLE), ..policy() }, false);
    let created = bench.now;
    bench.handle(Event::Resume);
    bench.finish(woken("run-1"));
    bench.census.inside = 1;
    bench.pass();
    assert_eq!((bench.now, bench.phase()), (created + IDLE, Phase::Removing));
    assert!(bench.severed);
}

#[test]
fn a_wake_waits_for_a_slot_and_gives_up_when_everybody_has_left() {
    let mut bench = Bench::new(policy(), false);
    bench.slot_is_free = false;
    bench.census.held = 1;
    bench.handle(Event::Held);
    assert_eq!((bench.phase(), bench.job()), (Phase::Starting, Some(Job::Queue)));
    assert_eq!(bench.machine.deadline(bench.census, bench.now), None, "somebody waits for it");
    for _ in 0..2 {
        bench.census.held = 0;
        bench.handle(Event::Deserted);
        let kept_until = bench.now + PLACE_KEPT;
        assert_eq!(bench.machine.deadline(bench.census, bench.now), Some(kept_until));
        bench.now += PLACE_KEPT / 2;
        bench.handle(Event::Deserted);
        assert_eq!(bench.machine.deadline(bench.census, bench.now), Some(kept_until));
        bench.census.held = 1;
        bench.handle(Event::Held);
        assert_eq!(bench.job(), Some(Job::Queue), "it has kept its place");
    }
    bench.census.held = 0;
    bench.handle(Event::Deserted);
    bench.pass();
    assert_eq!((bench.phase(), bench.job()), (Phase::Frozen, None));
    assert_eq!(bench.machine.footprint(), Footprint::Nothing);
    bench.census.held = 1;
    bench.handle(Event::Held);
    bench.finish(Outcome::Admitted);
    assert_eq!(bench.job(), Some(Job::Wake));
    assert_eq!(bench.machine.footprint(), Footprint::Running);
}

#[test]
fn an_admins_wake_waits_for_room_as_long_as_a_request_would() {
    let mut bench = Bench::new(policy(), false);
    bench.slot_is_free = false;
    bench.handle(Event::Resume);
    bench.handle(Event::Deserted);
    let until = bench.now + policy().hold_max;
    assert_eq!(bench.machine.deadline(bench.census, bench.now), Some(until));
    bench.pass();
    assert_eq!((bench.now, bench.phase(), bench.job()), (until, Phase::Frozen, None));
}

#[test]
fn a_paused_one_is_stopped_when_its_memory_is_wanted_and_keeps_it_while_it_waits_for_a_slot() {
    let mut bench = Bench::with_past(
        Policy { freeze_mode: FreezeMode::Pause, ..policy() },
        false,
        Past::Frozen { tier: Tier::Paused, since: Instant::now(), stopped_at: None },
    );
    assert_eq!(bench.machine.footprint(), Footprint::Memory);
    bench.handle(Event::Changed);
    bench.finish(Outcome::Looked(Seen::Paused));
    bench.slot_is_free = false;
    bench.census.held = 1;
    bench.handle(Event::Held);
    assert_eq!((bench.job(), bench.machine.footprint()), (Some(Job::Queue), Footprint::Memory));
    bench.census.held = 0;
    bench.handle(Event::Deserted);
    bench.pass();
    bench.handle(Event::StepDown);
    assert!(bench.machine.is_stepping_down());
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!(bench.machine.footprint(), Footprint::Nothing);
    let told = bench.told.last().unwrap();
    assert!(told.ends_with("and its memory was wanted"), "{told}");
}

#[test]
fn a_removal_does_not_wait_for_a_start() {
    let mut bench = Bench::new(policy(), false);
    bench.census.held = 1;
    bench.handle(Event::Held);
    assert_eq!(bench.job(), Some(Job::Wake));
    bench.handle(Event::Remove);
    assert_eq!((bench.phase(), bench.job()), (Phase::Removing, Some(Job::Remove)));
    assert_eq!(bench.refused, 1);
}

#[test]
fn a_freeze_that_a_crash_cut_in_half_is_finished_before_anybody_is_let_in() {
    let mut bench = Bench::with_past(policy(), false, Past::Freezing { stopped_at: None });
    bench.census.held = 1;
    bench.handle(Event::Changed);
    assert_eq!(
        (bench.phase(), bench.job()),
        (Phase::Freezing, Some(Job::Freeze(FreezeMode::Stop)))
    );
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!((bench.phase(), bench.job()), (Phase::Starting, Some(Job::Wake)));
}

#[test]
fn a_step_down_is_on_record_while_it_is_under_way_and_finished_after_a_crash() {
    let policy = Policy { freeze_mode: FreezeMode::Pause, stop_after: Some(IDLE), ..policy() };
    let mut bench = Bench::new(policy.clone(), false);
    bench.handle(Event::Resume);
    bench.finish(woken("run-1"));
    bench.pass();
    bench.finish(Outcome::Frozen(Tier::Paused));
    let frozen = bench.now;
    assert!(!bench.machine.is_stop_under_way());
    bench.pass();
    assert!(bench.machine.is_stop_under_way());
    assert_eq!(bench.told.last().map(String::as_str), Some("being stopped: paused for 1m"));
    // Whoever comes now does not undo it, and it stays on record.
    bench.census.held = 1;
    bench.handle(Event::Held);
    assert_eq!((bench.phase(), bench.machine.is_stop_under_way()), (Phase::Starting, true));
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!((bench.job(), bench.machine.is_stop_under_way()), (Some(Job::Wake), false));
    assert_eq!(bench.told.last().map(String::as_str), Some("a request, and it is stopped now"));

    let past = Past::SteppingDown { since: frozen, stopped_at: None };
    let mut bench = Bench::with_past(policy, false, past);
    bench.now += IDLE * 3;
    bench.census.held = 1;
    bench.handle(Event::Changed);
    assert_eq!(bench.job(), Some(Job::Freeze(FreezeMode::Stop)), "it may be ending");
    bench.census.held = 0;
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!((bench.phase(), bench.machine.tier()), (Phase::Frozen, Some(Tier::Stopped)));
    assert_eq!(bench.machine.since(), frozen, "it has been frozen since it was first");
}

#[test]
fn a_freeze_says_what_was_last_to_end() {
    for (by_tunnel, words) in [(false, "a request ended"), (true, "a WebSocket closed")] {
        let mut bench = Bench::running();
        bench.census.inside = 1;
        bench.now += IDLE / 2;
        bench.leave();
        bench.census.last_was_tunnel = by_tunnel;
        bench.pass();
        assert_eq!(bench.phase(), Phase::Freezing);
        assert_eq!(bench.told.last(), Some(&format!("idle for 1m since {words}")));
    }
}

#[test]
fn only_an_idle_one_is_evicted() {
    let mut bench = Bench::running();
    bench.census.inside = 1;
    bench.handle(Event::Evict);
    assert_eq!(bench.phase(), Phase::Running);
    bench.leave();
    bench.handle(Event::CheckIn(true));
    bench.handle(Event::Evict);
    assert_eq!(bench.phase(), Phase::Running);
    bench.handle(Event::CheckIn(false));
    bench.now += IDLE / 2;
    bench.handle(Event::Evict);
    assert_eq!(bench.phase(), Phase::Freezing);
    let told = bench.told.last().map(String::as_str);
    assert_eq!(told, Some("idle for 30 s since it was started, and its slot was wanted"));
}

#[test]
fn quiet_tunnels_keep_nothing_awake_and_are_severed_before_the_driver_is_told() {
    for leaves in [true, false] {
        let mut bench = Bench::running();
        let idle_since = bench.now;
        bench.census.quiet = 1;
        bench.pass();
        assert_eq!((bench.now, bench.phase()), (idle_since + IDLE, Phase::Freezing));
        assert_eq!((bench.severed, bench.job()), (true, None));
        assert_eq!(bench.told.last().map(String::as_str), Some("idle for 1m since it was started"));
        if leaves {
            bench.leave_quiet();
        } else {
            let severed = bench.now;
            bench.pass();
            assert_eq!(bench.now, severed + SEVERED_MAX);
        }
        assert_eq!(bench.job(), Some(Job::Freeze(FreezeMode::Stop)));
    }
}

#[test]
fn an_admins_stop_gives_quiet_tunnels_their_time_too() {
    let mut bench = Bench::running();
    bench.census.quiet = 2;
    bench.handle(Event::Stop);
    assert_eq!((bench.phase(), bench.job()), (Phase::Freezing, None));
    bench.leave_quiet();
    assert_eq!((bench.severed, bench.job()), (false, None));
    let stopped = bench.now;
    bench.pass();
    assert_eq!((bench.now, bench.severed), (stopped + policy().drain_grace, true));
    bench.leave_quiet();
    assert_eq!(bench.job(), Some(Job::Freeze(FreezeMode::Stop)));
}

#[test]
fn one_with_quiet_tunnels_is_evicted_later_than_one_without() {
    let timeout = Some(EVICT_QUIET_MIN * 5);
    for (quiet, timeout, from) in [
        (0, timeout, EVICT_IDLE_MIN),
        (1, timeout, EVICT_QUIET_MIN),
        (1, Some(EVICT_QUIET_MIN / 2), EVICT_QUIET_MIN / 2),
    ] {
        let mut bench = Bench::running();
        bench.handle(Event::Policy(Arc::new(Policy { inactivity_timeout: timeout, ..policy() })));
        bench.census.quiet = quiet;
        let idle_since = bench.now;
        let evictable = bench.machine.evictable(bench.census).unwrap();
        assert_eq!(evictable, Evictable { idle_since, from: Some(idle_since + from) });
        bench.now += from - Duration::from_millis(1);
        bench.handle(Event::Evict);
        assert_eq!(bench.phase(), Phase::Running, "{quiet} quiet ones");
        bench.now = idle_since + from;
        bench.handle(Event::Evict);
        assert_eq!((bench.phase(), bench.severed), (Phase::Freezing, quiet > 0));
    }
}

#[test]
fn another_policy_counts_from_now_on() {
    let mut bench = Bench::running();
    let idle_since = bench.now;
    let changed = Policy { inactivity_timeout: Some(IDLE * 3), ..policy() };
    bench.handle(Event::Policy(Arc::new(changed)));
    assert_eq!(bench.machine.deadline(bench.census, bench.now), Some(idle_since + IDLE * 3));
    bench.handle(Event::Policy(Arc::new(Policy { monitoring: false, ..policy() })));
    assert_eq!(bench.machine.deadline(bench.census, bench.now), None);
}

#[test]
fn one_is_evicted_when_it_is_idle_and_nothing_is_done_to_it_and_not_again_at_once() {
    let mut bench = Bench::running();
    bench.handle(Event::Changed);
    let from = |bench: &Bench| bench.machine.evictable(bench.census).unwrap().from;
    assert_eq!(from(&bench), None, "it is being looked at");
    bench.finish(running_as("run-1"));
    assert_eq!(from(&bench), Some(bench.now + EVICT_IDLE_MIN));
    bench.now += EVICT_IDLE_MIN;
    bench.handle(Event::Evict);
    bench.finish(Outcome::FreezeFailed { reason: "the engine is not well".to_owned() });
    bench.finish(woken("run-1"));
    assert_eq!(from(&bench), Some(bench.now + RETRY_FIRST));
    bench.handle(Event::Evict);
    assert_eq!(bench.phase(), Phase::Running);
}

/// A generator of numbers that is the same everywhere (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

#[test]
fn a_created_one_is_made_first_and_then_woken_without_being_asked() {
    let mut bench = Bench::with_past(policy(), false, Past::New);
    bench.handle(Event::Changed);
    assert_eq!((bench.phase(), bench.job()), (Phase::Starting, Some(Job::Create)));
    bench.finish(Outcome::Created);
    assert_eq!(bench.job(), Some(Job::Wake));
    bench.finish(woken("run-1"));
    assert_eq!(bench.phase(), Phase::Running);
}

#[test]
fn nothing_stays_of_one_that_could_not_be_made() {
    let mut bench = Bench::with_past(policy(), false, Past::New);
    bench.handle(Event::Changed);
    bench.census.held = 1;
    bench.handle(Event::Held);
    bench.finish(create_failed());
    assert_eq!((bench.phase(), bench.job()), (Phase::Removing, Some(Job::Remove)));
    assert_eq!((bench.census.held, bench.refused), (0, 1));
    bench.finish(Outcome::Removed);
    assert_eq!(bench.phase(), Phase::Removed);
}

#[test]
fn what_could_not_be_removed_is_removed_later_and_not_all_the_time() {
    let max_storage_time = Some(IDLE);
    let mut bench = Bench::new(Policy { max_storage_time, ..policy() }, false);
    bench.now += IDLE;
    bench.handle(Event::Deadline);
    let began = bench.now;
    for _ in 0..10 {
        assert_eq!((bench.phase(), bench.job()), (Phase::Removing, Some(Job::Remove)));
        bench.finish(remove_failed());
        assert_eq!(bench.job(), None);
        bench.pass();
    }
    assert!(bench.now - began > RETRY_MAX * 4, "{:?}", bench.now - began);
    assert_eq!(bench.told.len(), 2, "the same is said once: {:?}", bench.told);
    bench.finish(remove_failed());
    for wish in [Event::Resync, Event::Remove] {
        bench.handle(wish);
        assert_eq!(bench.job(), Some(Job::Remove), "it was put off");
        bench.finish(remove_failed());
    }
    bench.pass();
    bench.finish(Outcome::Removed);
    assert_eq!(bench.phase(), Phase::Removed);
}

#[test]
fn what_a_crash_cut_off_in_its_making_or_removal_is_removed() {
    let mut bench = Bench::with_past(policy(), false, Past::Removing { why: "a crash" });
    bench.handle(Event::Changed);
    assert_eq!((bench.phase(), bench.job()), (Phase::Removing, Some(Job::Remove)));
}

#[test]
fn one_that_is_too_old_is_removed_whatever_is_done_to_it() {
    let short_lived = Policy { max_storage_time: Some(IDLE), ..policy() };
    let mut bench = Bench::new(short_lived, false);
    bench.slot_is_free = false;
    bench.handle(Event::Resume);
    assert_eq!(bench.job(), Some(Job::Queue));
    bench.pass();
    assert_eq!((bench.phase(), bench.job()), (Phase::Removing, Some(Job::Remove)));

    let mut bench = Bench::running();
    bench.handle(Event::Changed);
    bench.now += IDLE;
    bench.handle(Event::Policy(Arc::new(Policy { max_storage_time: Some(IDLE), ..policy() })));
    bench.pass();
    assert_eq!(bench.job(), Some(Job::Look), "that is not cut short");
    assert_eq!(bench.machine.deadline(bench.census, bench.now), None);
    bench.finish(running_as("run-1"));
    assert_eq!(bench.phase(), Phase::Removing);
}

#[test]
fn a_removal_that_failed_is_tried_again_after_a_growing_wait_and_when_it_is_asked_for() {
    let mut bench = Bench::running();
    bench.handle(Event::Policy(Arc::new(Policy { max_storage_time: Some(IDLE), ..policy() })));
    bench.pass();
    for wait in [1, 2, 4] {
        let failed_at = bench.now;
        bench.finish(Outcome::RemoveFailed { reason: "the engine is not well".to_owned() });
        assert_eq!((bench.phase(), bench.job()), (Phase::Removing, None));
        bench.pass();
        assert_eq!(bench.now, failed_at + Duration::from_secs(wait));
    }
    assert_eq!(bench.machine.failure(), Some("the engine is not well"));
    for event in [Event::Remove, Event::Resync] {
        bench.finish(Outcome::RemoveFailed { reason: "still".to_owned() });
        bench.handle(event);
        assert_eq!(bench.job(), Some(Job::Remove));
    }
    bench.finish(Outcome::Removed);
    assert_eq!(bench.phase(), Phase::Removed);
    assert_eq!(bench.phases.iter().filter(|(phase, _)| *phase == Phase::Removing).count(), 3);
}

#[test]
fn one_that_is_about_to_be_removed_for_its_age_is_kept_if_its_policy_is_changed() {
    let old = Policy { max_storage_time: Some(IDLE), ..policy() };
    for asked in [false, true] {
        let mut bench = Bench::new(old.clone(), false);
        bench.handle(Event::Changed);
        bench.now += IDLE;
        bench.handle(Event::Deadline);
        if asked {
            bench.handle(Event::Remove);
        }
        bench.handle(Event::Policy(Arc::new(policy())));
        bench.finish(Outcome::Looked(Seen::Stopped { exit: None }));
        let phase = if asked { Phase::Removing } else { Phase::Frozen };
        assert_eq!(bench.phase(), phase, "{asked}");
    }
}

#[test]
fn a_step_down_that_fails_fails_no_admins_stop() {
    let mut bench = Bench::new(policy(), false);
    bench.handle(Event::Changed);
    bench.finish(Outcome::Looked(Seen::Paused));
    bench.handle(Event::StepDown);
    bench.census.held = 1;
    bench.handle(Event::Held);
    bench.handle(Event::Stop);
    bench.finish(Outcome::FreezeFailed { reason: "the engine is not well".to_owned() });
    assert_eq!((bench.phase(), bench.failed_stops), (Phase::Starting, 0));
    bench.finish(woken("run-1"));
    assert_eq!(bench.phase(), Phase::Freezing, "it is carried out");
}

#[test]
fn one_that_is_sent_away_wakes_nothing() {
    let mut bench = Bench::new(policy(), false);
    bench.census.held = 1;
    bench.handle(Event::Held);
    bench.handle(Event::Stop);
    bench.finish(wake_failed());
    assert_eq!((bench.phase(), bench.refused), (Phase::Freezing, 1), "it may be up");
    bench.finish(Outcome::Frozen(Tier::Stopped));
    assert_eq!((bench.phase(), bench.job()), (Phase::Frozen, Some(Job::Look)));
}

#[test]
fn a_start_that_failed_and_brought_it_up_is_not_tried_again_for_nobody() {
    let mut bench = Bench::new(policy(), false);
    bench.handle(Event::Resume);
    bench.finish(wake_failed());
    bench.finish(running_as("run-1"));
    assert_eq!((bench.phase(), bench.job()), (Phase::Failed, None));
    assert_eq!(bench.machine.footprint(), Footprint::Running);
    bench.pass();
    assert_eq!(bench.phase(), Phase::Freezing);
}

#[test]
fn what_can_not_be_frozen_is_made_and_takes_no_room() {
    let mut bench = Bench::new(policy(), false);
    bench.machine.nature.can_freeze = false;
    bench.slot_is_free = false;
    bench.handle(Event::Resume);
    assert_eq!((bench.job(), bench.machine.footprint()), (Some(Job::Wake), Footprint::Nothing));
    bench.finish(woken("fixed"));
    assert_eq!((bench.phase(), bench.machine.footprint()), (Phase::Running, Footprint::Nothing));
}

#[test]
fn a_deadline_that_comes_during_a_look_stops_no_paused_one() {
    let paused = Policy { freeze_mode: FreezeMode::Pause, ..policy() };
    let mut bench = Bench::new(paused, false);
    bench.handle(Event::Changed);
    bench.finish(Outcome::Looked(Seen::Paused));
    bench.handle(Event::Changed);
    bench.handle(Event::Deadline);
    bench.finish(Outcome::Looked(Seen::Paused));
    assert_eq!((bench.job(), bench.machine.tier()), (None, Some(Tier::Paused)));
}

#[test]
fn one_that_is_looked_at_is_not_removed_for_having_been_frozen() {
    let none = Policy { storage: FrozenStorage::None, ..policy() };
    let mut bench = Bench::new(none, false);
    bench.handle(Event::Changed);
    bench.now += IDLE * 2;
    bench.handle(Event::Deadline);
    bench.finish(running_as("run-1"));
    assert_eq!((bench.phase(), bench.job()), (Phase::Starting, Some(Job::Adopt)), "it runs");
}

#[test]
fn one_that_is_left_within_its_grace_is_frozen_when_that_ends() {
    let mut bench = Bench::new(Policy { initial_timeout: IDLE * 3, ..policy() }, false);
    bench.handle(Event::Resume);
    bench.finish(woken("run-1"));
    let grace_ends = bench.now + IDLE * 3;
    let deadline = bench.machine.deadline(bench.census, bench.now);
    assert_eq!(deadline, Some(grace_ends), "nobody tells when somebody has come and gone");
    bench.census.last_left = Some(bench.now + IDLE);
    bench.now = grace_ends;
    bench.handle(Event::Deadline);
    assert_eq!(bench.phase(), Phase::Freezing);
}

/// Anything may happen in any order; the invariants are asserted after every event by the machine
/// itself. In the end, when all goes well again, everybody who waits is served.
fn random_life(seed: u64) {
    let mut dice = Dice(seed);
    let storage = match dice.roll(3) {
        0 => FrozenStorage::Limited(IDLE * 20),
        _ => FrozenStorage::Unlimited,
    };
    let freeze_mode = if dice.roll(2) == 0 { FreezeMode::Stop } else { FreezeMode::Pause };
    let stop_after = Some(IDLE * 2);
    let mut bench = Bench::new(Policy { storage, freeze_mode, stop_after, ..policy() }, false);
    let since = bench.now;
    let past = match dice.roll(8) {
        0 | 1 => Some(Past::New),
        2 => Some(Past::Awake { reported_activity: true }),
        3 => Some(Past::Frozen { tier: Tier::Paused, since, stopped_at: None }),
        4 => Some(Past::Freezing { stopped_at: None }),
        _ => None,
    };
    if let Some(past) = past {
        bench = Bench::with_past(policy(), false, past);
        bench.handle(Event::Changed);
    }
    for step in 0..200 {
        if bench.phase() == Phase::Removed {
            return;
        }
        bench.now += Duration::from_millis(dice.roll(30_000));
        bench.slot_is_free = dice.roll(3) > 0;
        match dice.roll(17) {
            15 if bench.census.inside > 0 => {
                bench.census.quiet += 1;
                bench.leave();
            }
            16 if bench.census.quiet > 0 => bench.leave_quiet(),
            12 => bench.handle(Event::Evict),
            13 => {
                bench.census.held = 0;
                bench.handle(Event::Deserted);
            }
            0 => bench.handle(Event::Resume),
            1 => bench.handle(Event::Stop),
            2 => bench.handle(Event::Changed),
            9 => bench.handle(Event::Resync),
            3 => bench.handle(Event::CheckIn(dice.roll(2) == 0)),
            4 | 5 => bench.handle(Event::Deadline),
            6 if bench.census.inside > 0 => bench.leave(),
            7 | 8 if bench.open => bench.census.inside += 1,
            7 | 8 => {
                bench.census.held += 1;
                bench.handle(Event::Held);
            }
            _ => {
                let run = format!("run-{step}");
                let outcome = match (bench.job(), dice.roll(5)) {
                    (None, _) => continue,
                    (Some(Job::Adopt), 1) => Outcome::Down(Seen::Stopped { exit: None }),
                    (Some(Job::Adopt), 2) => Outcome::Down(Seen::Paused),
                    (Some(Job::Wake | Job::Adopt), 0) => wake_failed(),
                    (Some(Job::Wake | Job::Adopt), _) => woken(&run),
                    (Some(Job::Freeze(_)), 0) => {
                        Outcome::FreezeFailed { reason: "it failed".to_owned() }
                    }
                    (Some(Job::Freeze(_)), _) => Outcome::Frozen(Tier::Stopped),
                    (Some(Job::Remove), 0) => remove_failed(),
                    (Some(Job::Remove), _) => Outcome::Removed,
                    (Some(Job::Create), 0) => create_failed(),
                    (Some(Job::Create), _) => Outcome::Created,
                    (Some(Job::Queue), _) => Outcome::Admitted,
                    (Some(Job::Look), 0) => Outcome::LookFailed,
                    (Some(Job::Look), 1) => Outcome::Looked(Seen::Paused),
                    (Some(Job::Look), 2) => Outcome::Looked(Seen::Stopped { exit: None }),
                    (Some(Job::Look), 3) => Outcome::Looked(Seen::Missing),
                    (Some(Job::Look), _) => running_as(&run),
                };
                bench.finish(outcome);
            }
        }
        assert_eq!(bench.open, bench.phase() == Phase::Running, "seed {seed}, step {step}");
    }
    for _ in 0..40 {
        match bench.job() {
            None if bench.census.held == 0 => break,
            None if bench.machine.deadline(bench.census, bench.now).is_some() => bench.pass(),
            None => bench.handle(Event::Held),
            Some(Job::Create) => bench.finish(Outcome::Created),
            Some(Job::Queue) => bench.finish(Outcome::Admitted),
            Some(Job::Wake) => bench.finish(woken("the last run")),
            Some(Job::Adopt) => bench.finish(Outcome::Down(Seen::Stopped { exit: None })),
            Some(Job::Freeze(_)) => bench.finish(Outcome::Frozen(Tier::Stopped)),
            Some(Job::Remove) => bench.finish(Outcome::Removed),
            Some(Job::Look) => bench.finish(Outcome::LookFailed),
        }
    }
    assert_eq!(bench.census.held, 0, "seed {seed}: somebody waits for ever: {:?}", bench.machine);
}

#[test]
fn whatever_happens_in_whatever_order_the_invariants_hold() {
    for seed in 0..2_000 {
        let outcome = std::panic::catch_unwind(|| random_life(seed));
        assert!(outcome.is_ok(), "failing seed: {seed}");
    }
}
