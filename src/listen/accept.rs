//! Accepting connections, whatever happens to the ones before.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::{Ends, HangUp, Listener, Options, Serve, connection, local_connection};

/// Connections that may wait in the kernel to be accepted.
const BACKLOG: i32 = 4096;
/// A client that is gone without a word is found out after about two minutes, lest a tunnel that
/// nobody holds keep a workspace awake for ever.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 4;
/// Pause after an accept that failed for want of descriptors or memory: time for some to be freed.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);
/// Such failures come in floods; they are logged this often at most.
const EXHAUSTED_LOG_EVERY: Duration = Duration::from_secs(10);

/// Of a Unix socket: for its owner alone.
const LOCAL_MODE: u32 = 0o600;
/// What stands for the address of somebody who has none: this machine, at no port.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Binds a listening socket. With `shared`, others of this program may bind the same address, and
/// the kernel deals connections out among them. IPv6 sockets take IPv6 only, so that `0.0.0.0` and
/// `[::]` can be bound side by side.
pub fn bind(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted connections inherit both.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds a Unix socket that nobody but its owner, and root, may connect to. Nothing may be at the path.
pub fn bind_local(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before anybody can connect.
    fs::set_permissions(path, fs::Permissions::from_mode(LOCAL_MODE))?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

/// Serves every connection to a listener, on this thread, until `draining` turns true: then
/// accepts no more than those that have arrived. Each has a place in the `room`, from its first byte
/// on; when there is none left, the next one waits for it, and the rest in the kernel's queue.
/// `connections` knows who is still being served. `options` count for those that come.
pub async fn serve<S: Serve>(
    listener: Listener,
    served: Rc<S>,
    options: Rc<RefCell<Rc<Options>>>,
    room: Arc<Semaphore>,
    draining: watch::Receiver<bool>,
    connections: TaskTracker,
) -> io::Result<()> {
    let Listener { socket, tls } = listener;
    let socket = TcpListener::from_std(socket)?;
    let local = socket.local_addr()?;
    let stop = draining.clone();
    admit_all(socket, room, stop, |(stream, peer): (TcpStream, SocketAddr), place| {
        let local = local_end(&stream, local);
        let ends = Ends { peer, local, user: None, tls: None, hang_up: HangUp::default() };
        let (served, options, tls) = (served.clone(), options.borrow().clone(), tls.clone());
        let draining = draining.clone();
        connections.spawn_local(async move {
            let ended = connection(stream, ends, tls.as_ref(), served, &options, draining).await;
            tell(ended);
            drop(place);
        });
    })
    .await
}

/// The same for a Unix socket, whose connections are known by their user.
pub async fn serve_local<S: Serve>(
    socket: UnixListener,
    served: Rc<S>,
    options: Rc<RefCell<Rc<Options>>>,
    room: Arc<Semaphore>,
    draining: watch::Receiver<bool>,
    connections: TaskTracker,
) -> io::Result<()> {
    let socket = tokio::net::UnixListener::from_std(socket)?;
    let stop = draining.clone();
    admit_all(socket, room, stop, |stream: UnixStream, place| {
        // One that nobody vouches for is gone already.
        let Ok(user) = stream.peer_cred() else { return };
        let user = Some(user.uid());
        let ends =
            Ends { peer: NOWHERE, local: NOWHERE, user, tls: None, hang_up: HangUp::default() };
        let (served, options) = (served.clone(), options.borrow().clone());
        let draining = draining.clone();
        connections.spawn_local(async move {
            tell(local_connection(stream, ends, served, &options, draining).await);
            drop(place);
        });
    })
    .await
}

/// A socket at which connections arrive.
trait Arrivals {
    type Arrived;

    /// The next one. Cancel-safe.
    async fn next(&self) -> io::Result<Self::Arrived>;

    /// Those in the kernel's queue.
    fn rest(self) -> io::Result<impl Iterator<Item = Self::Arrived>>;
}

impl Arrivals for TcpListener {
    type Arrived = (TcpStream, SocketAddr);

    async fn next(&self) -> io::Result<Self::Arrived> {
        self.accept().await
    }

    fn rest(self) -> io::Result<impl Iterator<Item = Self::Arrived>> {
        let socket = self.into_std()?;
        Ok(std::iter::from_fn(move || {
            let (stream, peer) = socket.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            Some((TcpStream::from_std(stream).ok()?, peer))
        }))
    }
}

impl Arrivals for tokio::net::UnixListener {
    type Arrived = UnixStream;

    async fn next(&self) -> io::Result<Self::Arrived> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn rest(self) -> io::Result<impl Iterator<Item = Self::Arrived>> {
        let socket = self.into_std()?;
        Ok(std::iter::from_fn(move || {
            let (stream, _) = socket.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            UnixStream::from_std(stream).ok()
        }))
    }
}

async fn admit_all<A: Arrivals>(
    socket: A,
    room: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
    admit: impl Fn(A::Arrived, OwnedSemaphorePermit),
) -> io::Result<()> {
    let mut quiet_until = tokio::time::Instant::now();
    loop {
        let arrived = tokio::select! {
            arrived = socket.next() => arrived,
            _ = stop.wait_for(|draining| *draining) => break,
        };
        let arrived = match arrived {
            Ok(arrived) => arrived,
            Err(error) if is_exhaustion(&error) => {
                if tokio::time::Instant::now() >= quiet_until {
                    quiet_until = tokio::time::Instant::now() + EXHAUSTED_LOG_EVERY;
                    tracing::warn!(%error, "can't accept connections; serving those there are");
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
            // This one connection failed before it was accepted; the next may not.
            Err(_) => continue,
        };
        let place = tokio::select! {
            // Where there is one, whoever has just been accepted gets it, also at the very end.
            biased;
            place = room.clone().acquire_owned() => place,
            _ = stop.wait_for(|draining| *draining) => return Ok(()),
        };
        // The semaphore is never closed.
        let Ok(place) = place else { return Ok(()) };
        admit(arrived, place);
    }
    // Those in the kernel's queue have connected as far as they know, and would be reset.
    let mut rest = socket.rest()?;
    while let Ok(place) = room.clone().try_acquire_owned()
        && let Some(arrived) = rest.next()
    {
        admit(arrived, place);
    }
    Ok(())
}

fn tell(ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection ended before its first request");
    }
}

/// Which of our addresses was connected to; where the listener has only one, that one.
fn local_end(stream: &TcpStream, bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() { stream.local_addr().unwrap_or(bound) } else { bound }
}

/// Out of descriptors (EMFILE, ENFILE), memory or buffers: nothing is wrong with the listener.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS))
}
