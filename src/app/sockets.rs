//! The sockets of all listeners, bound before anything is started: a port that is taken is told at
//! once, and nothing has to be undone.
//!
//! Some may be there already: of a service manager that listens for us, or of a Frostgate that we
//! take over from. Connections that wait in their queues are served by us then, and none is lost.

use std::io;
use std::net::{SocketAddr, TcpListener};

use anyhow::Context;

use crate::config;
use crate::listen::tls::Tls;
use crate::listen::{self, Listener};

/// For whom a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// End users and check-ins.
    Public,
    /// End users by TLS.
    Tls,
    /// The API.
    Admin,
}

/// A socket that somebody else has bound.
#[derive(Debug)]
pub struct Inherited {
    /// For whom it is.
    pub role: Role,
    /// It listens already.
    pub socket: TcpListener,
}

/// The sockets of an address, each with the worker that serves it.
type Shares = Vec<(usize, TcpListener)>;

/// Bound, and not listened to by anybody yet.
pub(super) struct Sockets {
    workers: usize,
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

impl Role {
    const ALL: [(Self, &str); 3] =
        [(Self::Public, "public"), (Self::Tls, "tls"), (Self::Admin, "admin")];

    /// The role of that name: `public`, `tls` or `admin`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(role, _)| role)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }
}

impl Sockets {
    /// Binds what is not among the `inherited`. Those of other addresses are closed.
    pub(super) fn bind(
        options: &config::Listen,
        workers: usize,
        mut inherited: Vec<Inherited>,
    ) -> anyhow::Result<Self> {
        let admin = match take(&mut inherited, Role::Admin, options.admin)?.pop() {
            Some(admin) => admin,
            None => listen::bind(options.admin, false)
                .with_context(|| format!("could not listen on {}", options.admin))?,
        };
        let mut bind = |role, addresses: &[SocketAddr], option| {
            bind_shared(role, addresses, workers, &mut inherited, option)
        };
        let public = bind(Role::Public, &options.public, "listen.public or --listen")?;
        let tls = bind(Role::Tls, &options.tls, "listen.tls or --listen-tls")?;
        for Inherited { role, socket } in inherited {
            let address = socket.local_addr()?;
            tracing::warn!("no longer listening on {address}, which was {}", role.name());
        }
        Ok(Self { workers, public, tls, admin })
    }

    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        let of = |all: &[Shares]| -> io::Result<Vec<SocketAddr>> {
            all.iter().map(|shares| shares[0].1.local_addr()).collect()
        };
        Ok(Addresses {
            public: of(&self.public)?,
            tls: of(&self.tls)?,
            admin: self.admin.local_addr()?,
        })
    }

    /// The same sockets once more: what waits in their queues stays there while these are open.
    pub(super) fn copies(&self) -> io::Result<Vec<Inherited>> {
        let public = self.public.iter().flatten().map(|(_, socket)| (Role::Public, socket));
        let tls = self.tls.iter().flatten().map(|(_, socket)| (Role::Tls, socket));
        let all = public.chain(tls).chain([(Role::Admin, &self.admin)]);
        all.map(|(role, socket)| Ok(Inherited { role, socket: socket.try_clone()? })).collect()
    }

    /// `tls` is for those of `listen.tls`, `admin_tls` for the API's.
    pub(super) fn into_listeners(self, tls: Option<Tls>, admin_tls: Option<Tls>) -> Listeners {
        let mut workers: Vec<Vec<Listener>> = Vec::new();
        workers.resize_with(self.workers, Vec::new);
        let plain = self.public.into_iter().map(|shares| (shares, None));
        let secure = self.tls.into_iter().map(|shares| (shares, tls.clone()));
        for (shares, tls) in plain.chain(secure) {
            for (worker, socket) in shares {
                workers[worker].push(Listener { socket, tls: tls.clone() });
            }
        }
        Listeners { workers, admin: Listener { socket: self.admin, tls: admin_tls } }
    }
}

/// Takes those of that role and address out of the list; of a port 0, all of the first such port.
fn take(
    inherited: &mut Vec<Inherited>,
    role: Role,
    address: SocketAddr,
) -> io::Result<Vec<TcpListener>> {
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    let mut wanted = address;
    for one in inherited.drain(..) {
        let found = one.socket.local_addr()?;
        if one.role == role && found.ip() == wanted.ip() && wanted.port() == 0 {
            wanted = found;
        }
        if one.role == role && found == wanted {
            taken.push(one.socket);
        } else {
            left.push(one);
        }
    }
    *inherited = left;
    Ok(taken)
}

/// At least one socket per worker for each address. Port 0 is chosen by the first and shared by the
/// rest.
fn bind_shared(
    role: Role,
    addresses: &[SocketAddr],
    workers: usize,
    inherited: &mut Vec<Inherited>,
    option: &str,
) -> anyhow::Result<Vec<Shares>> {
    let advice = |address: SocketAddr| {
        format!("could not listen on {address}; name another address in {option}")
    };
    let mut bound = Vec::new();
    for address in addresses.iter().copied() {
        let taken = take(inherited, role, address)?;
        if !taken.is_empty() {
            bound.push(shared_out(taken, workers)?);
            continue;
        }
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
        let mut shares = vec![(0, first)];
        for worker in 1..workers {
            shares.push((worker, listen::bind(address, true).with_context(|| advice(address))?));
        }
        bound.push(shares);
    }
    Ok(bound)
}

/// Every socket has a worker, for each has a queue of its own; and every worker has a socket, from
/// which several may accept.
fn shared_out(sockets: Vec<TcpListener>, workers: usize) -> io::Result<Shares> {
    let mut shares = Shares::new();
    for worker in sockets.len()..workers {
        shares.push((worker, sockets[worker % sockets.len()].try_clone()?));
    }
    shares.extend(sockets.into_iter().enumerate().map(|(number, one)| (number % workers, one)));
    Ok(shares)
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
