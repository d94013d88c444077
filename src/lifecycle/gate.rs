//! The gate: the one place that hands out leases, holds requests while the workspace is not
//! running, and shuts if and only if nobody is inside.
//!
//! Whether it is open, for which generation, and how many are inside stand in one atomic word, so
//! that to enter is one compare-and-swap and to look and shut is another: no request can slip in
//! between the look and the shut. Everything slower (opening, shutting, waiting) happens under the
//! lock of the waiting room, and the word opens and shuts under that lock only. So whoever finds
//! the gate shut, takes the lock and looks again either gets in or has a seat that the next
//! opening will see. No wake-up can be lost between the two, which a gate made of an atomic beside
//! a channel can't promise. `tests/it/gate_model.rs` checks all this under loom; for its sake this
//! file uses nothing of the crate but `super::sync`.
//!
//! The gate knows no clock. Moments are ticks: microseconds on a clock of the caller's choice.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::PoisonError;
use std::task::{Poll, Waker};

use super::sync::{AtomicU64, Mutex, Ordering};

/// Set while the gate is open.
const OPEN: u64 = 1 << 63;
/// The generation stands in 31 bits above the count.
const GENERATION_SHIFT: u32 = 32;
const GENERATION_MAX: u32 = (1 << 31) - 1;
/// Set while somebody wants to know when the last one leaves, though the gate is open.
const WATCHED: u64 = 1 << 31;
/// How many are inside: the lower 31 bits. No machine has memory for so many requests.
const COUNT: u64 = WATCHED - 1;

/// See the module's head.
pub struct Gate {
    /// `OPEN | generation << 32 | WATCHED | count`.
    word: AtomicU64,
    /// The tick at which somebody left last. Written before the count goes down, so that whoever
    /// sees nobody inside sees when the last one left, too.
    last_release: AtomicU64,
    /// How many are inside and don't count: see [`Gate::join_quiet`].
    quiet: AtomicU64,
    room: Mutex<Room>,
}

/// Where those wait who came while the gate was shut.
struct Room {
    seats: BTreeMap<u64, Seat>,
    next_seat: u64,
    refusing: Option<Refusal>,
}

enum Seat {
    Waiting(Option<Waker>),
    /// Counted in the word already, by `open`.
    Granted(u32),
    Refused(Refusal),
}

/// Who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Somebody opens a page.
    Navigation,
    /// Anything else, such as what an open page asks for by itself.
    Background,
}

/// Why somebody was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The workspace could not be started; the next try is possible from this tick on.
    Failed {
        /// The tick from which on a request is held again and starts a new try.
        retry_at: u64,
    },
    /// An admin has stopped the workspace, and only a navigation wakes it before this tick.
    HeldOff {
        /// The tick from which on everybody is held again.
        until: u64,
    },
    /// As many wait as may wait.
    Full,
    /// It wasn't ready within `hold_max`.
    TimedOut,
    /// The workspace is gone.
    Removed,
}

/// What a gate looks like at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Whether requests get in.
    pub open: bool,
    /// Which run of the workspace it is or was open for.
    pub generation: u32,
    /// Leases that live.
    pub inside: u32,
    /// Those who are inside and don't count.
    pub quiet: u32,
    /// The tick at which the last lease ended.
    pub last_release: u64,
}

/// A way in: at once, or by a seat in the waiting room.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// Inside; the generation it is for. Must be given back by [`Gate::release`].
    Inside(u32),
    /// To be polled by [`Gate::poll_seat`] and given back by [`Gate::leave_seat`] if abandoned.
    Seat(u64),
}

impl Gate {
    /// A shut gate with nobody inside.
    pub fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            last_release: AtomicU64::new(0),
            quiet: AtomicU64::new(0),
            room: Mutex::new(Room { seats: BTreeMap::new(), next_seat: 0, refusing: None }),
        }
    }

    /// Enters if the gate is open. The whole cost of a warm request.
    pub fn try_enter(&self) -> Option<u32> {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & OPEN != 0 {
            match self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(generation_of(word)),
                Err(seen) => word = seen,
            }
        }
        None
    }

    /// Enters, or takes one of `held_max` seats. Whoever gets a seat must tell the workspace's
    /// task, which decides whether that means a wake.
    pub fn enter_or_sit(&self, now: u64, held_max: usize, visit: Visit) -> Result<Entry, Refusal> {
        if let Some(generation) = self.try_enter() {
            return Ok(Entry::Inside(generation));
        }
        let mut room = self.lock();
        // It may have opened since; it can't while we have the lock.
        if let Some(generation) = self.try_enter() {
            return Ok(Entry::Inside(generation));
        }
        match &room.refusing {
            Some(Refusal::Failed { retry_at }) if *retry_at <= now => {}
            Some(Refusal::HeldOff { until }) if *until <= now || visit == Visit::Navigation => {}
            Some(refusal) => return Err(refusal.clone()),
            None => {}
        }
        if room.seats.len() >= held_max {
            return Err(Refusal::Full);
        }
        let seat = room.next_seat;
        room.next_seat += 1;
        room.seats.insert(seat, Seat::Waiting(None));
        Ok(Entry::Seat(seat))
    }

    /// Whether the one on `seat` may go in. When this is ready the seat is free again.
    pub fn poll_seat(&self, seat: u64, waker: &Waker) -> Poll<Result<u32, Refusal>> {
        let mut room = self.lock();
        match room.seats.get_mut(&seat) {
            Some(Seat::Waiting(slot)) => {
                if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    *slot = Some(waker.clone());
                }
                Poll::Pending
            }
            Some(Seat::Granted(generation)) => {
                let generation = *generation;
                room.seats.remove(&seat);
                Poll::Ready(Ok(generation))
            }
            Some(Seat::Refused(refusal)) => {
                let refusal = refusal.clone();
                room.seats.remove(&seat);
                Poll::Ready(Err(refusal))
            }
            // Only a seat that was given back already is unknown.
            None => Poll::Ready(Err(Refusal::TimedOut)),
        }
    }

    /// Gives a seat back. `true`: see [`Gate::release`].
    pub fn leave_seat(&self, seat: u64, now: u64) -> bool {
        let left = self.lock().seats.remove(&seat);
        match left {
            Some(Seat::Granted(_)) => self.release(now),
            Some(Seat::Waiting(_) | Seat::Refused(_)) | None => false,
        }
    }

    /// Leaves. `true`: that was the last one, and the gate is shut or watched: somebody may be
    /// waiting for just that.
    pub fn release(&self, now: u64) -> bool {
        self.last_release.fetch_max(now, Ordering::Relaxed);
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before & COUNT != 0, "a lease was released twice");
        before & COUNT == 1 && (before & OPEN == 0 || before & WATCHED != 0)
    }

    /// Begins to be inside without being counted, which keeps nobody from shutting. Whoever is
    /// counted does this first and then [leaves](Gate::release); whoever wants to be counted again
    /// [enters](Gate::try_enter) first. So a shut gate with nobody inside has nobody quiet inside
    /// that its [census](Gate::census) doesn't show. To be noticed for a moment is to enter and
    /// leave.
    pub fn join_quiet(&self) {
        self.quiet.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends it. `true`: that was the last one, for which somebody may be waiting.
    pub fn leave_quiet(&self) -> bool {
        let before = self.quiet.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before != 0, "somebody quiet left twice");
        before == 1
    }

    /// Opens for `generation` and lets everybody in who waits, all in one step, so that the gate
    /// can't shut again before they were inside. Leases of earlier generations that still live
    /// stay counted. Returns how many were let in.
    pub fn open(&self, generation: u32) -> usize {
        assert!(generation <= GENERATION_MAX, "a workspace was woken two thousand million times");
        let mut room = self.lock();
        room.refusing = None;
        let mut wakers = Vec::new();
        let mut granted = 0;
        for seat in room.seats.values_mut() {
            if let Seat::Waiting(waker) = seat {
                wakers.extend(waker.take());
                *seat = Seat::Granted(generation);
                granted += 1;
            }
        }
        let state = OPEN | u64::from(generation) << GENERATION_SHIFT;
        self.update(|word| state | (word & WATCHED) | ((word & COUNT) + granted as u64));
        drop(room);
        wakers.into_iter().for_each(Waker::wake);
        granted
    }

    /// Looks and shuts in one step: shuts if nobody is inside and nobody has left after
    /// `idle_before`. `false`: it stays open.
    pub fn shut_if_idle(&self, idle_before: u64) -> bool {
        let _room = self.lock();
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & OPEN == 0 || word & COUNT != 0 {
                return false;
            }
            match self.word.compare_exchange_weak(
                word,
                word & !OPEN,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(seen) => word = seen,
            }
        }
        // Somebody may have come and gone since we were asked. Now that nobody can enter, the
        // time of the last release is final. Those who found the gate shut in the meantime wait
        // for our lock and will find it open.
        if self.last_release.load(Ordering::Relaxed) > idle_before {
            self.word.fetch_or(OPEN, Ordering::Release);
            return false;
        }
        true
    }

    /// Whether to be told when the last one leaves while it is open.
    pub fn watch(&self, watched: bool) {
        if watched {
            self.word.fetch_or(WATCHED, Ordering::AcqRel);
        } else {
            self.word.fetch_and(!WATCHED, Ordering::AcqRel);
        }
    }

    /// Shuts, whoever is inside.
    pub fn shut(&self) {
        let _room = self.lock();
        self.word.fetch_and(!OPEN, Ordering::AcqRel);
    }

    /// Sends everybody away who waits and, until [`Gate::hold`] or [`Gate::open`] or the refusal's
    /// own time, everybody who comes. Returns how many were sent away.
    pub fn refuse(&self, refusal: Refusal) -> usize {
        let mut room = self.lock();
        let mut wakers = Vec::new();
        let mut refused = 0;
        for seat in room.seats.values_mut() {
            if let Seat::Waiting(waker) = seat {
                wakers.extend(waker.take());
                *seat = Seat::Refused(refusal.clone());
                refused += 1;
            }
        }
        room.refusing = Some(refusal);
        drop(room);
        wakers.into_iter().for_each(Waker::wake);
        refused
    }

    /// Lets nobody but navigations take seats before this tick, or [`Gate::hold`] or
    /// [`Gate::open`]. Those who wait already keep theirs.
    pub fn hold_off(&self, until: u64) {
        self.lock().refusing = Some(Refusal::HeldOff { until });
    }

    /// Lets those who come take seats again.
    pub fn hold(&self) {
        self.lock().refusing = None;
    }

    /// How many wait.
    pub fn held(&self) -> usize {
        let room = self.lock();
        room.seats.values().filter(|seat| matches!(seat, Seat::Waiting(_))).count()
    }

    /// What the gate looks like.
    pub fn census(&self) -> Census {
        let word = self.word.load(Ordering::Acquire);
        Census {
            open: word & OPEN != 0,
            generation: generation_of(word),
            inside: (word & COUNT) as u32,
            // After the count: who gives that up is quiet before.
            quiet: self.quiet.load(Ordering::Acquire) as u32,
            last_release: self.last_release.load(Ordering::Relaxed),
        }
    }

    fn update(&self, change: impl Fn(u64) -> u64) {
        let mut word = self.word.load(Ordering::Relaxed);
        while let Err(seen) =
            self.word.compare_exchange_weak(word, change(word), Ordering::AcqRel, Ordering::Relaxed)
        {
            word = seen;
        }
    }

    /// A panic under this lock leaves nothing half done that the next one could trip over.
    fn lock(&self) -> impl std::ops::DerefMut<Target = Room> + '_ {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({:?})", self.census())
    }
}

fn generation_of(word: u64) -> u32 {
    ((word & !OPEN) >> GENERATION_SHIFT) as u32
}
