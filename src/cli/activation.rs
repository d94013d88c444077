//! Sockets of a service manager that listens for us (systemd's socket activation): they stay open over
//! a restart, so that who connects meanwhile waits and is not refused.
//!
//! `LISTEN_FDS` says how many there are, and `LISTEN_FDNAMES` what each is for: `public`, `tls` or
//! `admin`, as `FileDescriptorName=` in the socket unit says.

use anyhow::{Context, bail};
use listenfd::ListenFd;

use crate::app::{Inherited, Role};
use crate::config::Listen;

use super::Environment;

const NAMES: &str = "LISTEN_FDNAMES";

/// Those that are for this process.
pub(super) fn sockets(environment: &Environment) -> anyhow::Result<Vec<Inherited>> {
    let mut passed = ListenFd::from_env();
    let names = environment.get(NAMES).map(|names| names.split(':').collect::<Vec<_>>());
    let mut sockets = Vec::new();
    for number in 0..passed.len() {
        let socket = passed.take_tcp_listener(number);
        let socket =
            socket.with_context(|| format!("the socket {number} that was passed to us"))?;
        let Some(socket) = socket else { continue };
        let name = names.as_ref().and_then(|names| names.get(number)).copied().unwrap_or("public");
        let Some(role) = Role::parse(name) else {
            bail!(
                "the service manager passes a socket that is called {name:?}; name it public, tls \
                 or admin, by FileDescriptorName= in its unit"
            );
        };
        socket.set_nonblocking(true)?;
        sockets.push(Inherited { role, socket });
    }
    Ok(sockets)
}

/// They come in the place of the addresses that the configuration has for the same.
pub(super) fn adopt(sockets: &[Inherited], listen: &mut Listen) -> std::io::Result<()> {
    let of = |role: Role| -> std::io::Result<Vec<_>> {
        let ours = sockets.iter().filter(|one| one.role == role);
        ours.map(|one| one.socket.local_addr()).collect()
    };
    let (public, tls, admin) = (of(Role::Public)?, of(Role::Tls)?, of(Role::Admin)?);
    if !public.is_empty() {
        listen.public = public;
    }
    if !tls.is_empty() {
        listen.tls = tls;
    }
    if let Some(admin) = admin.first() {
        listen.admin = *admin;
    }
    Ok(())
}
