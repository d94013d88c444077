//! Where a call comes from.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The address of the socket's other end.
    pub address: SocketAddr,
    /// Whether it speaks TLS with us.
    pub tls: bool,
}

/// With a call: it comes by the admin socket, from a process of root or of our own user. The system
/// vouches for that, and no browser can be made to do it.
#[derive(Debug, Clone, Copy)]
pub struct LocalAdmin;

impl Peer {
    /// The peer, or, if that is a trusted proxy, the nearest hop that isn't.
    pub(super) fn client_address(self, trusted_proxies: &[IpNet], headers: &HeaderMap) -> IpAddr {
        let mut address = self.address.ip().to_canonical();
        let said: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        for hop in said.iter().rev() {
            if !is_trusted(trusted_proxies, address) {
                break;
            }
            let Ok(earlier) = hop.trim().parse::<IpAddr>() else { break };
            address = earlier.to_canonical();
        }
        address
    }

    /// Whether the call came by HTTPS from the end user on, as far as can be known.
    pub(super) fn is_secure(self, trusted_proxies: &[IpNet], headers: &HeaderMap) -> bool {
        let trusted = is_trusted(trusted_proxies, self.address.ip().to_canonical());
        match headers.get("x-forwarded-proto").filter(|_| trusted) {
            Some(said) => {
                let first = said.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
                first.trim_ascii().eq_ignore_ascii_case(b"https")
            }
            None => self.tls,
        }
    }
}

fn is_trusted(trusted_proxies: &[IpNet], address: IpAddr) -> bool {
    trusted_proxies.iter().any(|network| network.contains(&address))
}
