//! The default gateway, as the kernel's routing table has it.

use std::net::{IpAddr, Ipv4Addr};

const TABLE: &str = "/proc/net/route";
/// Of a route: it is up, and leads through a gateway (`RTF_UP` and `RTF_GATEWAY`).
const USABLE: u32 = 0x1 | 0x2;

/// Where packets go that are for nobody here; of several ways the first, as the kernel does.
pub(super) fn default_gateway() -> Option<IpAddr> {
    of_table(&std::fs::read_to_string(TABLE).ok()?)
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, addresses as the bytes are in memory.
fn of_table(table: &str) -> Option<IpAddr> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut hexadecimal = || u32::from_str_radix(fields.next()?, 16).ok();
        let (destination, gateway, flags) = (hexadecimal()?, hexadecimal()?, hexadecimal()?);
        let metric: u32 = fields.nth(2)?.parse().ok()?;
        let mask = u32::from_str_radix(fields.next()?, 16).ok()?;
        let is_default = destination == 0 && mask == 0 && flags & USABLE == USABLE;
        is_default.then(|| (metric, Ipv4Addr::from(gateway.to_ne_bytes())))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_gateway_of_the_shortest_default_route_is_found() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n";
        let own = "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let far = "eth1\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        let near = "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        let found = |lines: &[&str]| of_table(&[&[head], lines].concat().concat());
        assert_eq!(found(&[own, far, near]), Some(IpAddr::from([172, 17, 0, 1])));
        assert_eq!(found(&[far, own]), Some(IpAddr::from([192, 0, 2, 1])));
        assert_eq!(found(&[own]), None);
        assert_eq!(of_table("nonsense\nnonsense"), None);
    }
}
