//! The PROXY protocol: a load balancer that passes bytes on says first whose they are.
//!
//! Whoever could say it unasked could be anybody. So it is read from the balancers that the
//! operator names and from nobody else; these have to say it, on every connection. Versions 1 (a
//! line) and 2 (a block) tell themselves apart by how they begin.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What a block begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a line begins with.
const WORD: &[u8; 6] = b"PROXY ";
/// A block up to its length, which is the last part of it.
const PREFIX_BYTES: usize = 16;
/// What a block may be long: the addresses take 36 bytes, and the rest is for what balancers have
/// to say of TLS, which nobody here reads.
const BLOCK_MAX: usize = 4096;
/// What a line may be long, by the protocol's own account.
const LINE_MAX: usize = 107;

/// Reads what a balancer begins a connection with, and not a byte more. `None`: the connection is
/// the balancer's own, such as to ask whether we live.
pub(super) async fn client(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_block(stream, &mut header).await?;
        of_block(&header)
    } else if header.starts_with(WORD) {
        read_line(stream, &mut header).await?;
        of_line(&header)
    } else {
        Err(invalid("a connection from a load balancer begins without the PROXY protocol"))
    }
}

async fn read_block(stream: &mut TcpStream, header: &mut Vec<u8>) -> io::Result<()> {
    header.resize(PREFIX_BYTES, 0);
    stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if PREFIX_BYTES + length > BLOCK_MAX {
        return Err(invalid("a PROXY header is too long"));
    }
    header.resize(PREFIX_BYTES + length, 0);
    stream.read_exact(&mut header[PREFIX_BYTES..]).await?;
    Ok(())
}

async fn read_line(stream: &mut TcpStream, header: &mut Vec<u8>) -> io::Result<()> {
    let mut ahead = [0; LINE_MAX];
    while !header.ends_with(b"\n") {
        let room = &mut ahead[..LINE_MAX - header.len()];
        let there = stream.peek(room).await?;
        if there == 0 {
            return Err(invalid("a PROXY header is too long, or has no end"));
        }
        // What comes after the line is somebody else's to read.
        let line = memchr::memchr(b'\n', &room[..there]).map_or(there, |end| end + 1);
        let start = header.len();
        header.resize(start + line, 0);
        stream.read_exact(&mut header[start..]).await?;
    }
    Ok(())
}

fn of_line(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    match v1::Header::try_from(line).map_err(|_| invalid("a PROXY line is malformed"))?.addresses {
        v1::Addresses::Tcp4(ip) => Ok(Some((ip.source_address, ip.source_port).into())),
        v1::Addresses::Tcp6(ip) => Ok(Some((ip.source_address, ip.source_port).into())),
        v1::Addresses::Unknown => Ok(None),
    }
}

fn of_block(block: &[u8]) -> io::Result<Option<SocketAddr>> {
    let header = v2::Header::try_from(block).map_err(|_| invalid("a PROXY block is malformed"))?;
    match (header.command, header.addresses) {
        (v2::Command::Local, _) => Ok(None),
        (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
            Ok(Some((ip.source_address, ip.source_port).into()))
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
            Ok(Some((ip.source_address, ip.source_port).into()))
        }
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Ok(None),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
