//! Whether the names of workspaces lead to this machine.

use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::Finding;
use crate::config::Config;
use crate::secrets;

const CHECK: &str = "wildcard DNS";
/// How long a name may take; resolvers that are not there take half a minute.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// Looks up a workspace that nobody has.
pub(super) fn check(config: &Config) -> Finding {
    let domain = &config.routing.domain;
    let nobody = secrets::random().map(|bytes| secrets::hex(&bytes[..4])).unwrap_or_default();
    let name = format!("doctor-{nobody}.{domain}");
    let addresses = look_up(&name);
    let is_localhost = domain == "localhost" || domain.ends_with(".localhost");
    match addresses {
        Err(_) if is_localhost => Finding::ok(
            CHECK,
            format!(
                "browsers and curl find every name below {domain} on this machine by themselves"
            ),
        ),
        Err(reason) => {
            let detail = format!("*.{domain} leads nowhere: {reason}");
            let fix = format!(
                "add a DNS record *.{domain} with the address of this machine, or name another \
                 domain in [routing]; localhost needs none"
            );
            Finding::problem(CHECK, detail, fix)
        }
        Ok(addresses) => match addresses.iter().find(|address| !is_ours(**address)) {
            None => {
                let address = addresses.first().map(IpAddr::to_string).unwrap_or_default();
                Finding::ok(CHECK, format!("*.{domain} leads to {address}, which is this machine"))
            }
            Some(other) => {
                let detail =
                    format!("*.{domain} leads to {other}, which is no address of this machine");
                let fix = "fine if a router or a proxy in front passes it on to here; otherwise \
                           correct the DNS record";
                Finding::warning(CHECK, detail, fix)
            }
        },
    }
}

fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let (tell, told) = mpsc::channel();
    let name = name.to_owned();
    // It can't be given up on; it ends with the program.
    thread::spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        let addresses = found.map(|found| found.map(|address| address.ip()).collect());
        drop(tell.send(addresses.map_err(|error| error.to_string())));
    });
    let answer: Result<Vec<IpAddr>, String> = told
        .recv_timeout(ANSWER_MAX)
        .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_MAX.as_secs())));
    answer.and_then(
        |addresses| if addresses.is_empty() { Err("no address".to_owned()) } else { Ok(addresses) },
    )
}

/// Only what a machine has can be bound there.
fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_told_apart() {
        assert!(is_ours(IpAddr::from([127, 0, 0, 1])) && is_ours(IpAddr::from([127, 1, 2, 3])));
        assert!(!is_ours(IpAddr::from([192, 0, 2, 1])), "which is for documentation alone");
    }
}
