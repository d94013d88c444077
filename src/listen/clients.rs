//! How many connections each client has, so that none takes the places of all the others.
//!
//! All threads share this; it is asked once for a connection, and not at all where there is no
//! limit. Where one is set later, those who are connected then are not counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

/// The clients that are connected.
#[derive(Debug)]
pub struct Clients {
    connections_max: AtomicUsize,
    connections: Mutex<HashMap<Client, usize, RandomState>>,
}

/// Who counts as one: an IPv4 address, or a network of the size that one subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6(u64),
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl Clients {
    /// Nobody yet. Each may have so many connections.
    pub fn new(connections_max: usize) -> Arc<Self> {
        Arc::new(Self { connections_max: connections_max.into(), connections: Mutex::default() })
    }

    /// From now on each may have so many. Those that have more keep them.
    pub fn change_max(&self, connections_max: usize) {
        self.connections_max.store(connections_max, Ordering::Relaxed);
    }

    /// A place for one more connection of that client; `None`: it has as many as it may.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admitted> {
        let client = Client::from(address);
        let mut connections = self.lock();
        let count = connections.entry(client).or_default();
        if *count >= self.connections_max.load(Ordering::Relaxed) {
            return None;
        }
        *count += 1;
        Some(Admitted { clients: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Client, usize, RandomState>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among its client's, given back when it ends.
#[derive(Debug)]
pub(super) struct Admitted {
    clients: Arc<Clients>,
    client: Client,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut connections = self.clients.lock();
        if let Some(count) = connections.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_subscribers_network() {
        let clients = Clients::new(2);
        let admit = |address: &str| clients.admit(address.parse().unwrap());
        let first = admit("192.0.2.1").unwrap();
        let _mapped = admit("::ffff:192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none() && admit("192.0.2.2").is_some());
        drop(first);
        assert!(admit("192.0.2.1").is_some());
        let _one = admit("2001:db8::1").unwrap();
        let _neighbour = admit("2001:db8::ffff:0:0:1").unwrap();
        assert!(admit("2001:db8::2").is_none() && admit("2001:db8:0:1::2").is_some());
        drop((_mapped, _one, _neighbour));
        assert!(clients.lock().is_empty(), "those who left are remembered");
    }
}
