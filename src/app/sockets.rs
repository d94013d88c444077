//! The sockets of all listeners, bound before anything is started: a port that is taken is told at
//! once, and nothing has to be undone.

use std::io;
use std::net::{SocketAddr, TcpListener};

use anyhow::Context;

use crate::config;
use crate::listen::tls::Tls;
use crate::listen::{self, Listener};

/// A socket for each worker.
type Shares = Vec<TcpListener>;

/// Bound, and not listened to by anybody yet.
pub(super) struct Sockets {
    public: Vec<Shares>,
    tls: Vec<Shares>,
    admin: TcpListener,
}

/// Where they are; a port 0 has become a real one.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) public: Vec<SocketAddr>,
    pub(super) tls: Vec<SocketAddr>,
    pub(super) admin: SocketAddr,
}

/// What the threads listen to.
pub(super) struct Listeners {
    /// Of each worker.
    pub(super) workers: Vec<Vec<Listener>>,
    pub(super) admin: Listener,
}

impl Sockets {
    pub(super) fn bind(options: &config::Listen, workers: usize) -> anyhow::Result<Self> {
        let admin = listen::bind(options.admin, false)
            .with_context(|| format!("could not listen on {}", options.admin))?;
        Ok(Self {
            public: bind_shared(&options.public, workers, "listen.public or --listen")?,
            tls: bind_shared(&options.tls, workers, "listen.tls or --listen-tls")?,
            admin,
        })
    }

    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        let of = |all: &[Shares]| -> io::Result<Vec<SocketAddr>> {
            all.iter().map(|shares| shares[0].local_addr()).collect()
        };
        Ok(Addresses {
            public: of(&self.public)?,
            tls: of(&self.tls)?,
            admin: self.admin.local_addr()?,
        })
    }

    /// `tls` is for those of `listen.tls`, `admin_tls` for the API's.
    pub(super) fn into_listeners(self, tls: Option<Tls>, admin_tls: Option<Tls>) -> Listeners {
        let mut workers: Vec<Vec<Listener>> = Vec::new();
        let plain = self.public.into_iter().map(|shares| (shares, None));
        let secure = self.tls.into_iter().map(|shares| (shares, tls.clone()));
        for (shares, tls) in plain.chain(secure) {
            workers.resize_with(shares.len(), Vec::new);
            for (worker, socket) in workers.iter_mut().zip(shares) {
                worker.push(Listener { socket, tls: tls.clone() });
            }
        }
        Listeners { workers, admin: Listener { socket: self.admin, tls: admin_tls } }
    }
}

/// One socket per worker for each address. Port 0 is chosen by the first and shared by the rest.
fn bind_shared(
    addresses: &[SocketAddr],
    workers: usize,
    option: &str,
) -> anyhow::Result<Vec<Shares>> {
    let advice = |address: SocketAddr| {
        format!("could not listen on {address}; name another address in {option}")
    };
    let mut bound = Vec::new();
    for address in addresses.iter().copied() {
        // First without sharing: another program on the port is a mistake to be told of.
        match listen::bind(address, false) {
            Ok(alone) => drop(alone),
            Err(error) if is_other_family(address, addresses) && is_without_family(&error) => {
                tracing::info!("this machine has no IPv6: not listening on {address}");
                continue;
            }
            Err(error) => return Err(error).with_context(|| advice(address)),
        }
        let first = listen::bind(address, true).with_context(|| advice(address))?;
        let address = first.local_addr()?;
        let mut shares = vec![first];
        for _ in 1..workers {
            shares.push(listen::bind(address, true).with_context(|| advice(address))?);
        }
        bound.push(shares);
    }
    Ok(bound)
}

/// Whether it is `[::]` beside an IPv4 address: everywhere, as far as there is an everywhere.
fn is_other_family(address: SocketAddr, all: &[SocketAddr]) -> bool {
    address.is_ipv6() && address.ip().is_unspecified() && all.iter().any(SocketAddr::is_ipv4)
}

fn is_without_family(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}
