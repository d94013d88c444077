//! Slots: room for running workspaces, and the queue of those that wait for some.
//!
//! Whoever wakes takes a slot first and gives it back when the driver has confirmed that nothing of
//! it runs, so slots can't be oversold. (One that was found running takes one by force: it runs
//! already.) A free slot goes to whoever has waited longest. While anybody waits, the evictor
//! freezes the workspace that has been idle longest, one at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::machine::Evictable;
use super::registry::Registry;
use super::workspace::Workspace;

/// A workspace that was in use less than this ago is not evicted: pages load in several requests,
/// with gaps between them.
const EVICT_IDLE_MIN: Duration = Duration::from_secs(1);

/// All slots.
#[derive(Debug)]
pub(super) struct Slots {
    state: Mutex<State>,
    /// Rung when somebody begins to wait, or when it may have become possible to evict somebody.
    bell: Notify,
}

#[derive(Debug)]
struct State {
    /// How many there are; `None`: as many as are wanted.
    all: Option<usize>,
    taken: usize,
    queue: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    serial: u64,
    admitted: oneshot::Sender<Slot>,
}

/// Room for one running workspace; dropped, it is free.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Slots {
    pub(super) fn new(all: Option<usize>) -> Arc<Self> {
        let state = State { all, taken: 0, queue: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state), bell: Notify::new() })
    }

    /// How many there are, and how many of them are free.
    pub(super) fn count(&self) -> Option<(usize, usize)> {
        let state = self.lock();
        let all = state.all?;
        Some((all, all.saturating_sub(state.taken)))
    }

    /// How many wait before this one; `None`: it doesn't wait.
    pub(super) fn position(&self, serial: u64) -> Option<usize> {
        self.lock().queue.iter().position(|waiting| waiting.serial == serial)
    }

    /// A slot, at once, if one is free and nobody waits for it.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.lock();
        if !state.queue.is_empty() || !state.has_room() {
            return None;
        }
        state.taken += 1;
        Some(Slot(self.clone()))
    }

    /// A slot for one that runs already, whether there is one or not.
    pub(super) fn take_by_force(self: &Arc<Self>) -> Slot {
        self.lock().taken += 1;
        Slot(self.clone())
    }

    /// A slot, in order of arrival. Whoever drops the future leaves the queue.
    pub(super) async fn take(self: &Arc<Self>, serial: u64) -> Slot {
        let place = {
            let mut state = self.lock();
            let (admitted, place) = oneshot::channel();
            state.queue.push_back(Waiting { serial, admitted });
            place
        };
        // One may have been freed since it was tried.
        self.admit();
        let leave = Leave { slots: self, serial };
        self.bell.notify_one();
        let slot = place.await;
        std::mem::forget(leave);
        match slot {
            Ok(slot) => slot,
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

    /// Gives free slots to those who wait.
    fn admit(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            if !state.has_room() {
                return;
            }
            let Some(first) = state.queue.pop_front() else { return };
            state.taken += 1;
            drop(state);
            // One that has left meanwhile gives its slot back, which brings the next one's turn.
            drop(first.admitted.send(Slot(self.clone())));
        }
    }

    fn release(self: &Arc<Self>) {
        self.lock().taken -= 1;
        self.admit();
    }

    fn somebody_waits(&self) -> bool {
        !self.lock().queue.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.all.is_none_or(|all| self.taken < all)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Takes one that gives up out of the queue.
struct Leave<'a> {
    slots: &'a Slots,
    serial: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.slots.lock().queue.retain(|waiting| waiting.serial != self.serial);
    }
}

/// Makes room while anybody waits for some. Runs for ever.
pub(super) async fn evict(slots: Arc<Slots>, registry: Weak<Registry>) {
    loop {
        slots.bell.notified().await;
        let Some(registry) = registry.upgrade() else { return };
        while slots.somebody_waits() {
            // From now on the last one to leave a workspace is told of, which costs a warm request
            // more than nothing; so it ends with the need.
            registry.all().iter().for_each(|workspace| workspace.gate.watch(true));
            let candidates = candidates(&registry);
            let due = candidates.iter().filter(|one| one.from <= Instant::now());
            if let Some(idle_longest) = due.min_by_key(|one| one.idle_since) {
                let workspace = &idle_longest.workspace;
                tracing::debug!(workspace = %workspace.id(), "evicting the one idle longest");
                // Frozen, found in use, or busy: either way the next look shows something else.
                drop(workspace.evict().await);
                continue;
            }
            let later = async {
                match candidates.iter().map(|one| one.from).min() {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = later => {}
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
    from: Instant,
}

fn candidates(registry: &Registry) -> Vec<Candidate> {
    let candidates = registry.all().into_iter().filter_map(|workspace| {
        let Evictable { idle_since, from } = workspace.evictable()?;
        Some(Candidate { workspace, idle_since, from: from.max(idle_since + EVICT_IDLE_MIN) })
    });
    candidates.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slots_are_given_in_order_of_arrival_and_never_oversold() {
        let slots = Slots::new(Some(1));
        let first = slots.try_take().unwrap();
        assert!(slots.try_take().is_none());
        let (order, mut arrived) = tokio::sync::mpsc::unbounded_channel();
        for serial in 0..5 {
            let (of_task, order) = (slots.clone(), order.clone());
            tokio::spawn(async move {
                let slot = of_task.take(serial).await;
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
        let slots = Slots::new(Some(1));
        let first = slots.try_take().unwrap();
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take(7).await }
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
        let slots = Slots::new(Some(1));
        let (one, other) = (slots.take_by_force(), slots.take_by_force());
        drop(one);
        assert!(slots.try_take().is_none(), "it was oversold");
        drop(other);
        assert!(slots.try_take().is_some());
    }
}
