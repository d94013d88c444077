//! Free ports for workspaces that don't name one.
//!
//! Between the moment in which a port is found free and the one in which the workspace listens
//! there, a process outside could take it; then the workspace fails to start, and the next try gets
//! another port. The ports that the kernel gives to outgoing connections are not used: on a busy
//! gateway those come and go by the thousand. Workspaces among themselves can't collide: what is
//! leased is not leased again.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

/// Ports are picked at random, so a few tries are plenty unless they are used up.
const TRIES_MAX: usize = 32;
/// Below this are the ports of services that people know by their numbers.
const PORT_MIN: u16 = 10_000;
/// Where Linux begins with the ports of outgoing connections unless it is told otherwise.
const OUTGOING_MIN: u16 = 32_768;

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
        let end = outgoing_min();
        for _ in 0..TRIES_MAX {
            let port = PORT_MIN + random()? % (end - PORT_MIN);
            if TcpListener::bind((address, port)).is_ok() && self.take(port) {
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

/// The first port that the kernel may give to an outgoing connection.
fn outgoing_min() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let first = range.ok().and_then(|text| text.split_whitespace().next()?.parse().ok());
    // Where all ports are for outgoing connections, some of them have to do.
    first.filter(|first| *first > PORT_MIN + 2_000).unwrap_or(OUTGOING_MIN)
}

fn random() -> io::Result<u16> {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u16::from_ne_bytes(bytes))
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
