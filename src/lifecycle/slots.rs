//! Room for running workspaces, and the queue of those that wait for some: slots, each for one that
//! runs, and a budget of memory.
//!
//! Whoever wakes takes room first and gives it back when the driver has confirmed that nothing of
//! it runs, so it can't be oversold. (One that was found running takes it by force: it runs
//! already. So nobody is admitted before every workspace that is known was looked at once.) A paused workspace has given its slot back, and keeps its memory. Free room goes to
//! whoever has waited longest, and nobody who needs less overtakes. While anybody waits, the evictor
//! freezes the workspace that has been idle longest, one at a time; for memory it first stops the
//! one that has been paused longest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::machine::Evictable;
use super::registry::Registry;
use super::workspace::Workspace;
use crate::clock::sleep_until;

/// How much there is; `None`: as much as is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Workspaces that may run at a time.
    pub slots: Option<usize>,
    /// Bytes of memory for all that run or are paused.
    pub memory: Option<u64>,
}

/// All slots, and the memory.
#[derive(Debug)]
pub(super) struct Slots {
    state: Mutex<State>,
    /// Rung when somebody begins to wait, or when it may have become possible to evict somebody.
    bell: Notify,
}

#[derive(Debug)]
struct State {
    capacity: Capacity,
    taken: usize,
    memory_taken: u64,
    /// Workspaces of which it is not known whether they run. While there is one, nobody is admitted.
    uncounted: usize,
    queue: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    serial: u64,
    memory: u64,
    admitted: oneshot::Sender<Room>,
}

/// What the first in the queue waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Slot,
    Memory,
}

/// A workspace of which it is not known yet whether it runs, and so what room it has. Dropped when
/// that is known.
#[derive(Debug)]
pub(super) struct Uncounted(Arc<Slots>);

/// What a workspace has of it: a slot while it runs, and its memory. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Room {
    slots: Arc<Slots>,
    runs: bool,
    memory: u64,
}

impl Slots {
    pub(super) fn new(capacity: Capacity) -> Arc<Self> {
        let queue = VecDeque::new();
        let state = State { capacity, taken: 0, memory_taken: 0, uncounted: 0, queue };
        Arc::new(Self { state: Mutex::new(state), bell: Notify::new() })
    }

    /// There is more or less from now on. Whoever runs goes on running.
    pub(super) fn resize(self: &Arc<Self>, capacity: Capacity) {
        self.lock().capacity = capacity;
        self.admit();
        self.look_again();
    }

    /// How many slots there are, and how many of them are free.
    pub(super) fn count(&self) -> Option<(usize, usize)> {
        let state = self.lock();
        let all = state.capacity.slots?;
        Some((all, all.saturating_sub(state.taken)))
    }

    /// How many bytes of memory there are, and how many of them are free.
    pub(super) fn memory(&self) -> Option<(u64, u64)> {
        let state = self.lock();
        let all = state.capacity.memory?;
        Some((all, all.saturating_sub(state.memory_taken)))
    }

    /// Whether a workspace of so much memory could run if it were alone.
    pub(super) fn could_hold(&self, memory: u64) -> bool {
        self.lock().capacity.memory.is_none_or(|all| memory <= all)
    }

    /// There is a workspace that may have room already.
    pub(super) fn count_later(self: &Arc<Self>) -> Uncounted {
        self.lock().uncounted += 1;
        Uncounted(self.clone())
    }

    /// How many wait before this one; `None`: it doesn't wait.
    pub(super) fn position(&self, serial: u64) -> Option<usize> {
        self.lock().queue.iter().position(|waiting| waiting.serial == serial)
    }

    /// Room to run in, with so much memory on top of what it has: at once, if it is free and nobody
    /// waits for it.
    pub(super) fn try_take(self: &Arc<Self>, memory: u64) -> Option<Room> {
        let mut state = self.lock();
        if !state.queue.is_empty() || !state.admits(memory) {
            return None;
        }
        state.take(memory);
        Some(Room { slots: self.clone(), runs: true, memory })
    }

    /// Room for one that runs already, whether there is any or not.
    pub(super) fn take_by_force(self: &Arc<Self>, memory: u64) -> Room {
        self.lock().take(memory);
        Room { slots: self.clone(), runs: true, memory }
    }

    /// The memory of one that was found paused, whether there is any or not.
    pub(super) fn keep_by_force(self: &Arc<Self>, memory: u64) -> Room {
        self.lock().memory_taken += memory;
        Room { slots: self.clone(), runs: false, memory }
    }

    /// Room, in order of arrival. Whoever drops the future leaves the queue.
    pub(super) async fn take(self: &Arc<Self>, serial: u64, memory: u64) -> Room {
        let place = {
            let mut state = self.lock();
            let (admitted, place) = oneshot::channel();
            state.queue.push_back(Waiting { serial, memory, admitted });
            place
        };
        let leave = Leave { slots: self, serial };
        // Some may have been freed since it was tried.
        self.admit();
        self.bell.notify_one();
        let room = place.await;
        std::mem::forget(leave);
        match room {
            Ok(room) => room,
            // The queue never drops anybody who waits.
            Err(_) => std::future::pending().await,
        }
    }

    /// Somebody may have become idle.
    pub(super) fn look_again(&self) {
        if !self.lock().queue.is_empty() {
            self.bell.notify_one();
        }
    }

    /// Gives free room to those who wait.
    fn admit(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let Some(memory) = state.queue.front().map(|first| first.memory) else { return };
            if !state.admits(memory) {
                return;
            }
            let Some(first) = state.queue.pop_front() else { return };
            state.take(memory);
            drop(state);
            // One that has left meanwhile gives it back, which brings the next one's turn.
            drop(first.admitted.send(Room { slots: self.clone(), runs: true, memory }));
        }
    }

    fn give_back(self: &Arc<Self>, slots: usize, memory: u64) {
        {
            let mut state = self.lock();
            state.taken -= slots;
            state.memory_taken -= memory;
        }
        self.admit();
    }

    fn lack(&self) -> Option<Lack> {
        self.lock().lack()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, memory: u64) {
        self.taken += 1;
        self.memory_taken += memory;
    }

    /// Whether one that needs so much memory may run now.
    fn admits(&self, memory: u64) -> bool {
        let is_limited = self.capacity != Capacity::default();
        !(is_limited && self.uncounted > 0) && self.lacks(memory).is_none()
    }

    /// What the first in the queue waits for; `None`: nobody waits, or nothing is lacking.
    fn lack(&self) -> Option<Lack> {
        self.lacks(self.queue.front()?.memory)
    }

    /// What one that needs so much memory would have to wait for.
    fn lacks(&self, memory: u64) -> Option<Lack> {
        let Capacity { slots, memory: budget } = self.capacity;
        if budget.is_some_and(|budget| self.memory_taken + memory > budget) {
            return Some(Lack::Memory);
        }
        slots.is_some_and(|slots| self.taken >= slots).then_some(Lack::Slot)
    }
}

impl Room {
    /// Whether it is room to run in.
    pub(super) fn has_slot(&self) -> bool {
        self.runs
    }

    /// The memory that is its own.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    /// It is paused: its slot is free, its memory is not.
    pub(super) fn keep_memory_only(&mut self) {
        if std::mem::take(&mut self.runs) {
            self.slots.give_back(1, 0);
        }
    }

    /// Adds what it had while it was paused.
    pub(super) fn and(mut self, before: Option<Self>) -> Self {
        if let Some(mut before) = before {
            self.memory += std::mem::take(&mut before.memory);
        }
        self
    }
}

impl Drop for Uncounted {
    fn drop(&mut self) {
        self.0.lock().uncounted -= 1;
        self.0.admit();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.slots.give_back(usize::from(self.runs), self.memory);
    }
}

/// Takes one that gives up out of the queue.
struct Leave<'a> {
    slots: &'a Arc<Slots>,
    serial: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.slots.lock().queue.retain(|waiting| waiting.serial != self.serial);
        // Whoever was behind one that needed more may have enough.
        self.slots.admit();
    }
}

/// Makes room while anybody waits for some. Runs for ever.
pub(super) async fn evict(slots: Arc<Slots>, registry: Weak<Registry>) {
    loop {
        slots.bell.notified().await;
        let Some(registry) = registry.upgrade() else { return };
        while let Some(lack) = slots.lack() {
            // From now on the last one to leave a workspace is told of, which costs a warm request
            // more than nothing; so it ends with the need.
            registry.all().iter().for_each(|workspace| workspace.gate.watch(true));
            if lack == Lack::Memory
                && let Some(paused) = registry.paused_longest()
            {
                // Stopped or not: either way the next look shows something else.
                drop(paused.step_down().await);
                continue;
            }
            let candidates = candidates(&registry);
            let now = Instant::now();
            let due = candidates.iter().filter(|one| one.from.is_none_or(|at| at <= now));
            let idle_longest = due.min_by_key(|one| one.idle_since);
            // One that something is being done to is waited for: it rings when that is over.
            if let Some(Candidate { workspace, from: Some(_), .. }) = idle_longest {
                tracing::debug!(workspace = %workspace.id(), "evicting the one idle longest");
                // Frozen, found in use, or busy: either way the next look shows something else.
                drop(workspace.evict().await);
                continue;
            }
            let next = candidates.iter().filter_map(|one| one.from).filter(|at| *at > now).min();
            tokio::select! {
                () = sleep_until(next) => {}
                () = slots.bell.notified() => {}
            }
        }
        registry.all().iter().for_each(|workspace| workspace.gate.watch(false));
    }
}

/// A workspace that may be evicted, though not before `from`.
struct Candidate {
    workspace: Arc<Workspace>,
    idle_since: Instant,
    from: Option<Instant>,
}

fn candidates(registry: &Registry) -> Vec<Candidate> {
    let candidates = registry.all().into_iter().filter_map(|workspace| {
        let Evictable { idle_since, from } = workspace.evictable()?;
        Some(Candidate { workspace, idle_since, from })
    });
    candidates.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn one_slot() -> Capacity {
        Capacity { slots: Some(1), memory: None }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_never_oversold_and_nobody_who_needs_less_overtakes() {
        let slots = Slots::new(Capacity { slots: None, memory: Some(10) });
        assert!(slots.could_hold(10) && !slots.could_hold(11));
        let (six, four) = (slots.try_take(6).unwrap(), slots.try_take(4).unwrap());
        let (order, mut arrived) = tokio::sync::mpsc::unbounded_channel();
        for (serial, memory) in [(0, 8), (1, 1)] {
            let (slots, order) = (slots.clone(), order.clone());
            tokio::spawn(async move {
                order.send((serial, slots.take(serial, memory).await)).unwrap();
            });
            tokio::task::yield_now().await;
        }
        drop(four);
        tokio::task::yield_now().await;
        assert_eq!(slots.memory(), Some((10, 4)), "the first needs more than that");
        drop(six);
        let (first, _room) = arrived.recv().await.unwrap();
        let (second, _other) = arrived.recv().await.unwrap();
        assert_eq!((first, second, slots.memory()), (0, 1, Some((10, 1))));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_behind_one_that_gives_up_gets_what_is_free() {
        let slots = Slots::new(Capacity { slots: None, memory: Some(10) });
        let _six = slots.try_take(6).unwrap();
        let large = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take(0, 9).await }
        });
        tokio::task::yield_now().await;
        let small = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take(1, 4).await }
        });
        tokio::task::yield_now().await;
        large.abort();
        assert_eq!(small.await.unwrap().memory(), 4);
    }

    #[test]
    fn a_paused_one_keeps_its_memory_and_nothing_else() {
        let slots = Slots::new(Capacity { slots: Some(1), memory: Some(10) });
        let mut paused = slots.try_take(6).unwrap();
        paused.keep_memory_only();
        assert!(!paused.has_slot());
        assert_eq!((slots.count(), slots.memory()), (Some((1, 1)), Some((10, 4))));
        let room = slots.try_take(0).unwrap().and(Some(paused));
        assert_eq!((room.memory(), slots.memory()), (6, Some((10, 4))));
        drop(room);
        assert_eq!((slots.count(), slots.memory()), (Some((1, 1)), Some((10, 10))));
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_given_in_order_of_arrival_and_never_oversold() {
        let slots = Slots::new(one_slot());
        let first = slots.try_take(0).unwrap();
        assert!(slots.try_take(0).is_none());
        let (order, mut arrived) = tokio::sync::mpsc::unbounded_channel();
        for serial in 0..5 {
            let (of_task, order) = (slots.clone(), order.clone());
            tokio::spawn(async move {
                let slot = of_task.take(serial, 0).await;
                order.send(serial).unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(slot);
            });
            tokio::task::yield_now().await;
            assert_eq!(slots.position(serial), Some(serial as usize));
        }
        assert_eq!(slots.count(), Some((1, 0)));
        drop(first);
        for serial in 0..5 {
            assert_eq!(arrived.recv().await, Some(serial));
            assert!(slots.lock().taken <= 1);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(slots.count(), Some((1, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gives_up_leaves_the_queue_and_no_slot_behind() {
        let slots = Slots::new(one_slot());
        let first = slots.try_take(0).unwrap();
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take(7, 0).await }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.is_err());
        assert_eq!(slots.position(7), None);
        drop(first);
        assert_eq!(slots.count(), Some((1, 1)));
    }

    #[test]
    fn one_that_runs_already_takes_one_by_force() {
        let slots = Slots::new(one_slot());
        let (one, other) = (slots.take_by_force(0), slots.take_by_force(0));
        drop(one);
        assert!(slots.try_take(0).is_none(), "it was oversold");
        drop(other);
        assert!(slots.try_take(0).is_some());
    }
}
