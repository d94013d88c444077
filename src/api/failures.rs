//! Wrong tokens, counted, so that whoever tries many is told to stop and does not fill the log.
//!
//! This guards no token: 256 bits can't be guessed at any rate. A right token therefore always
//! passes, and nobody is locked out by a neighbour behind the same address. What is limited is how
//! often one hears that a token is wrong.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures of one client in a minute: more than somebody makes who mistypes, less than a script.
const PER_CLIENT_MAX: u32 = 20;
/// Failures of all clients in a minute, and so clients that are remembered.
const ALTOGETHER_MAX: u32 = 1_000;
/// How long failures are remembered.
const WINDOW: Duration = Duration::from_secs(60);

/// The failures of this minute.
#[derive(Debug, Default)]
pub struct Failures {
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    altogether: u32,
    by_client: HashMap<IpAddr, u32>,
}

impl Failures {
    /// Notes a failure. An error is one too many, and says for how long there are too many.
    pub(super) fn note(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let client = network(client);
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.as_ref().is_some_and(|window| now >= window.since + WINDOW) {
            *window = None;
        }
        let window = window.get_or_insert_with(|| Window {
            since: now,
            altogether: 0,
            by_client: HashMap::new(),
        });
        let of_client = window.by_client.get(&client).copied().unwrap_or(0);
        if of_client >= PER_CLIENT_MAX || window.altogether >= ALTOGETHER_MAX {
            return Err(window.since + WINDOW - now);
        }
        window.by_client.insert(client, of_client + 1);
        window.altogether += 1;
        if of_client + 1 == PER_CLIENT_MAX {
            tracing::warn!(%client, "{PER_CLIENT_MAX} wrong tokens within a minute");
        }
        if window.altogether == ALTOGETHER_MAX {
            tracing::warn!("{ALTOGETHER_MAX} wrong tokens within a minute, from many addresses");
        }
        Ok(())
    }
}

/// Whom an address stands for: whoever has one address of IPv6 has the 2^64 of its network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_failures_of_one_client_concern_no_other_and_are_forgotten() {
        let (failures, begin) = (Failures::default(), Instant::now());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..PER_CLIENT_MAX {
            assert_eq!(failures.note(one, begin), Ok(()));
        }
        assert_eq!(failures.note(one, begin + WINDOW / 2), Err(WINDOW / 2));
        assert_eq!(failures.note(other, begin + WINDOW / 2), Ok(()));
        assert_eq!(failures.note(one, begin + WINDOW), Ok(()));
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let (failures, now) = (Failures::default(), Instant::now());
        for host in 0..PER_CLIENT_MAX {
            let address = Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host as u16]);
            assert_eq!(failures.note(address.into(), now), Ok(()));
        }
        let neighbour = Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 9, 9, 9, 9]);
        let stranger = Ipv6Addr::from([0x2001, 0xdb8, 0, 1, 9, 9, 9, 9]);
        assert_eq!(failures.note(neighbour.into(), now), Err(WINDOW));
        assert_eq!(failures.note(stranger.into(), now), Ok(()));
    }

    #[test]
    fn a_crowd_of_clients_is_limited_and_takes_bounded_memory() {
        let (failures, now) = (Failures::default(), Instant::now());
        for client in 0..ALTOGETHER_MAX * 2 {
            let noted = failures.note(IpAddr::from(client.to_be_bytes()), now);
            assert_eq!(noted.is_ok(), client < ALTOGETHER_MAX, "{client}");
        }
        let window = failures.window.lock().unwrap();
        let remembered = window.as_ref().map(|window| window.by_client.len());
        assert_eq!(remembered, Some(ALTOGETHER_MAX as usize));
    }
}
