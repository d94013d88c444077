//! Free ports for workspaces that don't name one.
//!
//! Between the moment in which a port is found free and the one in which the workspace listens
//! there, a process outside could take it; then the workspace fails to start, and the next try gets
//! another port. The ports that the kernel gives to outgoing connections are not used: on a busy
//! gateway those come and go by the thousand. Workspaces among themselves can't collide, whichever
//! Frostgate of this machine they are of: a port is claimed by a socket whose name has it in it, and
//! which is gone with the process that made it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixDatagram};

use socket2::{Domain, Protocol, Socket, Type};

/// Ports are picked at random, so a few tries are plenty unless they are used up.
const TRIES_MAX: usize = 32;
/// Below this are the ports of services that people know by their numbers.
const PORT_MIN: u16 = 10_000;
/// Where Linux begins with the ports of outgoing connections unless it is told otherwise.
const OUTGOING_MIN: u16 = 32_768;

/// A port that no other workspace is given until this is dropped.
pub(super) struct PortLease {
    port: u16,
    /// `None`: somebody else has claimed it.
    _claim: Option<UnixDatagram>,
}

impl PortLease {
    /// A port that nobody has, at any address of this machine: a workspace may listen at all of them.
    pub(super) fn of_a_free_one() -> io::Result<Self> {
        let end = outgoing_min();
        for _ in 0..TRIES_MAX {
            let port = PORT_MIN + random()? % (end - PORT_MIN);
            let Ok(claim) = claim(port) else { continue };
            if is_free(port) {
                return Ok(Self { port, _claim: Some(claim) });
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// A port that was chosen elsewhere.
    pub(super) fn of(port: u16) -> Self {
        Self { port, _claim: claim(port).ok() }
    }

    pub(super) fn number(&self) -> u16 {
        self.port
    }
}

/// Names of this kind are of the network that the ports are of, and have no file.
fn claim(port: u16) -> io::Result<UnixDatagram> {
    let name = unix::SocketAddr::from_abstract_name(format!("frostgate-port-{port}"))?;
    UnixDatagram::bind_addr(&name)
}

/// Whether nobody has it. Nobody listens there to find out: a process that is just being started has
/// a copy of every socket for a moment, and one that listens would be in the workspace's way.
fn is_free(port: u16) -> bool {
    let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    // A machine may do without one of the two families.
    everywhere.into_iter().all(|address| {
        bind(SocketAddr::new(address, port))
            .map_or_else(|error| error.kind() != io::ErrorKind::AddrInUse, |_| true)
    })
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_leased_port_is_not_leased_again_until_it_is_given_back() {
        let leases: Vec<_> = (0..64).map(|_| PortLease::of_a_free_one().unwrap()).collect();
        let distinct: BTreeSet<_> = leases.iter().map(PortLease::number).collect();
        assert_eq!(distinct.len(), 64);
        assert!(distinct.iter().all(|port| claim(*port).is_err()));
        drop(leases);
        assert!(distinct.iter().any(|port| claim(*port).is_ok()));
    }

    #[test]
    fn a_port_that_somebody_has_is_not_free() {
        for address in ["127.0.0.1:0", "127.0.0.9:0", "0.0.0.0:0"] {
            let somebody = std::net::TcpListener::bind(address).unwrap();
            let port = somebody.local_addr().unwrap().port();
            assert!(!is_free(port), "{address}");
            drop(somebody);
            assert!(is_free(port), "{address}");
        }
    }
}
