//! What the service manager that has started us is told (systemd's `Type=notify`): that we serve, read
//! the configuration again, or end, and that we are alive.
//!
//! It is one line of text in a datagram, sent to the socket that `NOTIFY_SOCKET` names; the standard
//! library can do all of that. Without that variable there is nobody to tell.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio_util::task::AbortOnDropHandle;

use crate::app::Pulse;

use super::Environment;

/// How long a service manager may take to have room for another datagram.
const SEND_MAX: Duration = Duration::from_secs(1);

/// So many times within the time that is allowed, it is told that we are alive: one that comes late
/// is not the last one.
const BEATS: u32 = 3;

/// Whoever is told.
pub(super) struct ServiceManager {
    /// `None`: there is nobody.
    socket: Option<UnixDatagram>,
    /// Within which time it wants to hear that we are alive, again and again; `None`: it does not.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names. One that can't be reached is no reason not to serve.
    pub(super) fn of(environment: &Environment) -> Self {
        let named = environment.get("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = named.and_then(|name| {
            connected(name)
                .inspect_err(|error| {
                    tracing::warn!(%error, "the service manager can't be told anything: {name}");
                })
                .ok()
        });
        let watchdog = watchdog(environment).filter(|_| socket.is_some());
        Self { socket, watchdog }
    }

    /// That we serve.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// That the configuration is read again; [`ServiceManager::ready`] says that it has been.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::try_from(now).unwrap_or_default().as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reading the configuration"));
    }

    /// That we end, which may take so long.
    pub(super) fn stopping(&self, status: &str, most: Duration) {
        let most = most.as_micros();
        self.tell(&format!("STOPPING=1\nSTATUS={status}\nEXTEND_TIMEOUT_USEC={most}"));
    }

    /// What we do, in words for people.
    pub(super) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// From now on, that we are alive, for as long as all threads are, and what is returned is kept.
    pub(super) fn keep_told(&self, pulse: Pulse) -> Option<AbortOnDropHandle<()>> {
        let pause = self.watchdog? / BEATS;
        let socket = self.socket.as_ref()?.try_clone().ok()?;
        // On the control plane's own thread: if that one hangs, nobody says anything either.
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                pulse.turn().await;
                send(&socket, "WATCHDOG=1");
                tokio::time::sleep(pause).await;
            }
        })))
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            send(socket, state);
        }
    }
}

fn send(socket: &UnixDatagram, state: &str) {
    if let Err(error) = socket.send(state.as_bytes()) {
        tracing::debug!(%error, "could not tell the service manager: {state}");
    }
}

/// A name that begins with `@` is one of the abstract namespace, which no file stands for.
fn connected(name: &str) -> std::io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(SEND_MAX))?;
    Ok(socket)
}

/// `WATCHDOG_USEC`, unless `WATCHDOG_PID` says that another process is meant.
fn watchdog(environment: &Environment) -> Option<Duration> {
    let number = |name: &str| environment.get(name).map(|text| text.parse::<u64>());
    if let Some(pid) = number("WATCHDOG_PID")
        && pid != Ok(u64::from(std::process::id()))
    {
        return None;
    }
    let limit = number("WATCHDOG_USEC")?.ok()?;
    (limit > 0).then(|| Duration::from_micros(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let number = getrandom::u64().expect("randomness");
        let path = std::env::temp_dir().join(format!("frostgate-notify-{number:016x}"));
        let name = format!("@{}", path.display());
        let abstract_name = SocketAddr::from_abstract_name(&name[1..]).expect("a name");
        for (name, socket) in [
            (path.to_str().expect("UTF-8"), UnixDatagram::bind(&path)),
            (&name, UnixDatagram::bind_addr(&abstract_name)),
        ] {
            let socket = socket.expect("a socket");
            let manager = ServiceManager::of(&environment(&[("NOTIFY_SOCKET", name)]));
            manager.ready("serving");
            let mut text = [0; 100];
            let length = socket.recv(&mut text).expect("a message");
            assert_eq!(&text[..length], b"READY=1\nSTATUS=serving");
        }
        std::fs::remove_file(&path).expect("the socket's file");
        // Nobody is there, and nothing of it fails.
        ServiceManager::of(&environment(&[("NOTIFY_SOCKET", "/nowhere")])).ready("");
        ServiceManager::of(&Environment::new()).ready("");
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let pid = std::process::id().to_string();
        let of = |pairs: &[(&str, &str)]| watchdog(&environment(pairs));
        let wanted = Some(Duration::from_secs(3));
        assert_eq!(of(&[("WATCHDOG_USEC", "3000000")]), wanted);
        assert_eq!(of(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", &pid)]), wanted);
        assert_eq!(of(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")]), None);
        for none in ["0", "", "-1", "soon"] {
            assert_eq!(of(&[("WATCHDOG_USEC", none)]), None);
        }
        assert_eq!(of(&[]), None);
    }
}
