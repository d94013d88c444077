//! Free ports for workspaces that don't name one.
//!
//! The kernel picks: we bind port 0, read the port and let go of it. Until the workspace listens
//! there, a process outside could take it; then the workspace fails to start, and the next try gets
//! another port. Workspaces among themselves can't collide: what is leased is not leased again.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

/// The kernel picks at random, so a few tries are plenty unless the ports are used up.
const TRIES_MAX: usize = 32;

/// The ports that workspaces have.
#[derive(Clone, Default)]
pub(super) struct Ports {
    taken: Arc<Mutex<HashSet<u16>>>,
}

/// A port that nobody else is given until this is dropped.
pub(super) struct PortLease {
    port: u16,
    ports: Ports,
}

impl Ports {
    /// A port on `address` that nobody listens on.
    pub(super) fn lease_free(&self, address: IpAddr) -> io::Result<PortLease> {
        for _ in 0..TRIES_MAX {
            let port = TcpListener::bind((address, 0))?.local_addr()?.port();
            if self.take(port) {
                return Ok(self.lease(port));
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// A port that was chosen elsewhere.
    pub(super) fn lease(&self, port: u16) -> PortLease {
        self.take(port);
        PortLease { port, ports: self.clone() }
    }

    fn take(&self, port: u16) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(port)
    }
}

impl PortLease {
    pub(super) fn number(&self) -> u16 {
        self.port
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        let taken = &self.ports.taken;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leased_port_is_not_leased_again_until_it_is_given_back() {
        let ports = Ports::default();
        let address = IpAddr::from([127, 0, 0, 1]);
        let leases: Vec<_> = (0..64).map(|_| ports.lease_free(address).unwrap()).collect();
        let distinct: HashSet<_> = leases.iter().map(PortLease::number).collect();
        assert_eq!(distinct.len(), 64);
        drop(leases);
        assert!(ports.take(*distinct.iter().next().unwrap()));
    }
}
