//! Whether the listeners' ports are free, or Frostgate's already.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::Finding;
use crate::config::Config;
use crate::listen;

const CHECK: &str = "ports";
/// How long whoever has a port may take to say who it is.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Enough of its answer.
const ANSWER_BYTES: u64 = 16 * 1024;
/// By the wrong method, so that nothing comes of it, and at every listener's every host.
const QUESTION: &[u8] =
    b"GET /v1/check-in HTTP/1.1\r\nHost: frostgate-doctor.invalid\r\nConnection: close\r\n\r\n";
/// What only Frostgate answers, by HTTP, and by HTTP to a port for TLS.
const ANSWERS: [&str; 2] = ["\"error_code\":\"method_not_allowed\"", "400 This port speaks HTTPS"];

/// One finding for each address.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let listen = &config.listen;
    let public = listen.public.iter().map(|address| (*address, "listen.public"));
    let tls = listen.tls.iter().map(|address| (*address, "listen.tls"));
    let all = public.chain(tls).chain([(listen.admin, "listen.admin")]);
    let fixed = all.filter(|(address, _)| address.port() != 0);
    fixed.map(|(address, option)| of(address, option)).collect()
}

fn of(address: SocketAddr, option: &str) -> Finding {
    let shown = format!("{address} ({option})");
    let error = match listen::bind(address, false) {
        Ok(_) => return Finding::ok(CHECK, format!("{shown} is free")),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::AddrInUse if is_frostgate(address) => {
            Finding::ok(CHECK, format!("{shown} is Frostgate's"))
        }
        ErrorKind::AddrInUse => {
            let port = address.port();
            let fix = format!(
                "name another in {option}, or end that program: `ss -ltnp 'sport = :{port}'` shows it"
            );
            Finding::problem(CHECK, format!("{shown} is taken by another program"), fix)
        }
        ErrorKind::PermissionDenied => {
            let fix = "give the service CAP_NET_BIND_SERVICE, as by AmbientCapabilities= in its \
                       unit, or name a port from 1024 on";
            let detail = format!("{shown} may not be listened on by this user");
            Finding::problem(CHECK, detail, fix)
        }
        ErrorKind::AddrNotAvailable | ErrorKind::Unsupported => {
            let detail = format!("{shown} is no address of this machine");
            // Beside an IPv4 address, [::] is left out where there is no IPv6.
            if address.is_ipv6() && address.ip().is_unspecified() {
                return Finding::ok(CHECK, format!("{detail}, which has no IPv6"));
            }
            Finding::problem(CHECK, detail, format!("name one of its own in {option}"))
        }
        _ => Finding::problem(
            CHECK,
            format!("{shown} can't be listened on: {error}"),
            format!("name another in {option}"),
        ),
    }
}

fn is_frostgate(address: SocketAddr) -> bool {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let answer = ask(SocketAddr::new(ip, address.port()));
    answer.is_ok_and(|answer| ANSWERS.iter().any(|ours| answer.contains(ours)))
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.write_all(QUESTION)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
