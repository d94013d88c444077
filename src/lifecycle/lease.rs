//! Leases, and those who wait for one: what a request holds of a workspace.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::gate::Refusal;
use super::workspace::{Shared, Workspace};

/// Proof that somebody is inside. The workspace is up, at the endpoint of the lease's generation,
/// and can't be frozen for idleness while the lease lives. Belongs to the task that moves the
/// bytes, and is dropped by it after the last one.
#[derive(Debug)]
pub struct Lease {
    pub(super) workspace: Arc<Workspace>,
    pub(super) generation: u32,
}

impl Lease {
    /// Whose it is.
    pub fn workspace(&self) -> &Arc<Workspace> {
        &self.workspace
    }

    /// Which run of the workspace it is for.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Where that run listens. `None`: it was frozen under those inside.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.workspace.endpoint(self.generation)
    }

    /// The same lease, shown as a tunnel.
    pub fn into_tunnel(self) -> TunnelLease {
        self.workspace.tunnels.fetch_add(1, Ordering::Relaxed);
        let (workspace, generation) = (self.workspace.clone(), self.generation);
        TunnelLease { workspace, generation, counted: Some(self) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let shared = &self.workspace.shared;
        if self.workspace.gate.release(shared.tick(Instant::now())) {
            self.workspace.mailbox.flag(|inbox| inbox.emptied = true);
        }
    }
}

/// The place of an upgraded connection. It counts as every lease does, or is quiet: then it doesn't
/// keep the workspace awake by being there, but [by what passes through it](Self::note_activity).
#[derive(Debug)]
pub struct TunnelLease {
    workspace: Arc<Workspace>,
    generation: u32,
    /// `None`: it is quiet.
    counted: Option<Lease>,
}

impl TunnelLease {
    /// Whose it is.
    pub fn workspace(&self) -> &Arc<Workspace> {
        &self.workspace
    }

    /// Which run of the workspace it is for.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether it is quiet from now on. What is quiet while the gate shuts stays so.
    pub fn set_quiet(&mut self, quiet: bool) {
        if quiet && self.counted.is_some() {
            self.workspace.gate.join_quiet();
            self.counted = None;
        } else if !quiet && self.counted.is_none() {
            self.counted = self.workspace.try_enter();
            if self.counted.is_some() {
                self.leave_quiet();
            }
        }
    }

    /// It was active at this moment. Before what it does is done: then either the workspace stays
    /// up for it, or it has been shut already, and the tunnel is about to be severed.
    pub fn note_activity(&self) {
        drop(self.workspace.try_enter());
    }

    fn leave_quiet(&self) {
        if self.workspace.gate.leave_quiet() {
            self.workspace.mailbox.flag(|inbox| inbox.emptied = true);
        }
    }
}

impl Drop for TunnelLease {
    fn drop(&mut self) {
        match self.counted.take() {
            None => self.leave_quiet(),
            Some(lease) => {
                drop(lease);
                let left = self.workspace.gate.census().last_release;
                self.workspace.last_tunnel.store(left, Ordering::Relaxed);
            }
        }
        self.workspace.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that waits at the gate.
pub(super) struct Held<'a> {
    pub(super) workspace: &'a Arc<Workspace>,
    pub(super) seat: Option<u64>,
}

impl Future for Held<'_> {
    type Output = Result<Lease, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // A future that is polled after it was ready has no seat; it waits for ever, as futures may.
        let Some(seat) = self.seat else { return Poll::Pending };
        let entered = std::task::ready!(self.workspace.gate.poll_seat(seat, context.waker()));
        self.seat = None;
        let workspace = self.workspace;
        Poll::Ready(entered.map(|generation| Lease { workspace: workspace.clone(), generation }))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(seat) = self.seat.take() else { return };
        let now = self.workspace.shared.tick(Instant::now());
        if self.workspace.gate.leave_seat(seat, now) {
            self.workspace.mailbox.flag(|inbox| inbox.emptied = true);
        } else {
            // If it was the last one, the workspace needs no slot any more.
            self.workspace.mailbox.ring();
        }
    }
}

/// A place among all that are held anywhere.
pub(super) struct HeldAmongAll<'a>(&'a Shared);

impl<'a> HeldAmongAll<'a> {
    pub(super) fn join(shared: &'a Shared) -> Result<Self, Refusal> {
        let place = Self(shared);
        if shared.held.fetch_add(1, Ordering::Relaxed) >= shared.held_max.load(Ordering::Relaxed) {
            return Err(Refusal::Full);
        }
        Ok(place)
    }
}

impl Drop for HeldAmongAll<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}
