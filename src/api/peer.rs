//! Where a call comes from.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// Who calls: the address of the socket's other end.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// With a call: it comes by the admin socket, from a process of root or of our own user. The system
/// vouches for that, and no browser can be made to do it.
#[derive(Debug, Clone, Copy)]
pub struct LocalAdmin;

impl Peer {
    /// The peer, or, if that is a trusted proxy, the nearest hop that isn't.
    pub(super) fn client_address(self, trusted_proxies: &[IpNet], headers: &HeaderMap) -> IpAddr {
        let is_trusted =
            |address: &IpAddr| trusted_proxies.iter().any(|network| network.contains(address));
        let mut address = self.0.ip().to_canonical();
        let said: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        for hop in said.iter().rev() {
            if !is_trusted(&address) {
                break;
            }
            let Ok(earlier) = hop.trim().parse::<IpAddr>() else { break };
            address = earlier.to_canonical();
        }
        address
    }
}
