//! Established TCP connections, as the kernel's tables have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// `TCP_ESTABLISHED`: both ends are there, and neither has said goodbye.
const ESTABLISHED: &str = "01";

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connection {
    /// Of this machine, or this container.
    pub(super) local_port: u16,
    /// The other end; an IPv4 address that came over an IPv6 socket is one.
    pub(super) peer: IpAddr,
}

/// All of this network namespace.
pub(super) fn established() -> Vec<Connection> {
    // Without IPv6 there is one table only.
    let tables = TABLES.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    tables.flat_map(|table| of_table(&table)).collect()
}

fn of_table(table: &str) -> Vec<Connection> {
    table.lines().skip(1).filter_map(connection).collect()
}

/// `0: 0100007F:1538 0100007F:D2A4 01 …`: number, own end, other end, state.
fn connection(line: &str) -> Option<Connection> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (_, local_port) = end(fields.next()?)?;
    let (peer, _) = end(fields.next()?)?;
    (fields.next()? == ESTABLISHED).then_some(Connection { local_port, peer })
}

fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    Some((self::address(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// Words of 32 bits, each as its bytes are in memory.
fn address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(digits.get(8 * at..8 * at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let bytes: [u8; 16] = words.try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn both_tables_are_read_and_what_is_not_established_is_not() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 020011AC:1538 010011AC:D2A4 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 020011AC:1538 010011AC:D2A6 06 00000000:00000000 00:00000000 00000000     0        0 0 3
   3: 0000000000000000FFFF0000020011AC:0016 0000000000000000FFFF0000010200C0:0400 01 0 0 0 0 0 1
   4: B80D01200000000000000000 nonsense
";
        let expected = [
            Connection { local_port: 5432, peer: IpAddr::from([172, 17, 0, 1]) },
            Connection { local_port: 22, peer: IpAddr::from([192, 0, 2, 1]) },
        ];
        assert_eq!(of_table(table), expected);
    }

    #[test]
    fn a_connection_is_seen_while_it_is_there() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                eprintln!("SKIPPED: there is no {host}");
                continue;
            };
            let address = listener.local_addr().unwrap();
            let seen = || {
                let ours = |one: &Connection| one.local_port == address.port();
                established().into_iter().filter(ours).collect::<Vec<_>>()
            };
            assert_eq!(seen(), []);
            let client = TcpStream::connect(address).unwrap();
            let accepted = listener.accept().unwrap();
            let connection = Connection { local_port: address.port(), peer: address.ip() };
            assert_eq!(seen(), [connection]);
            drop((client, accepted));
            assert_eq!(seen(), []);
        }
    }
}
