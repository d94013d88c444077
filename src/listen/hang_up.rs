//! Noticing that a client has hung up while nothing is read from it.
//!
//! hyper hears of that when it reads, and it doesn't read while a request's body waits for somebody
//! who wants it. A second look at the socket, by a descriptor of its own, is told by the kernel when
//! the other end is shut, whatever has not been read yet, and takes nothing from it. It is made for
//! those who wait and for nobody else; all others pay for a flag that is looked at when something
//! is flushed.
//!
//! What can't be noticed: a client that ends in the middle of sending more than all buffers on the
//! way can hold. Its own system keeps the end back until the rest has been taken.

use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::stream::Stream;

/// Tells when the client of one connection has hung up.
#[derive(Debug, Clone, Default)]
pub struct HangUp(Arc<Request>);

/// Asks the connection's stream for a descriptor: nobody else has the socket.
#[derive(Debug, Default)]
struct Request {
    open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    asking: Option<Waker>,
    given: Option<OwnedFd>,
}

/// A connection's stream, which can be asked for a second look at its socket.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    request: Arc<Request>,
}

impl HangUp {
    /// Returns when the client has hung up, or has shut its sending side. To be waited for by a
    /// request of the connection, and while nothing is read from it.
    pub async fn happens(&self) {
        let socket = poll_fn(|context| self.0.poll_socket(context)).await;
        if until_shut(socket).await.is_err() {
            // Without descriptors nothing can be told; the wait ends by its own deadline.
            std::future::pending().await
        }
    }
}

async fn until_shut(socket: OwnedFd) -> io::Result<()> {
    // Nothing is asked of it but when it is shut, which a Unix socket tells in the same way.
    let socket = TcpStream::from_std(std::net::TcpStream::from(socket))?;
    loop {
        if socket.ready(Interest::READABLE).await?.is_read_closed() {
            return Ok(());
        }
        // Something has arrived that is not for us. To say that there is nothing is to be told of
        // what arrives next.
        drop(socket.try_io(Interest::READABLE, || -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }));
    }
}

impl Request {
    fn poll_socket(&self, context: &mut Context<'_>) -> Poll<OwnedFd> {
        let mut state = self.lock();
        if let Some(socket) = state.given.take() {
            return Poll::Ready(socket);
        }
        state.asking = Some(context.waker().clone());
        // The connection flushes when it has polled its request, and finds this.
        self.open.store(true, Ordering::Release);
        Poll::Pending
    }

    /// Off the usual path.
    #[cold]
    fn give(&self, socket: BorrowedFd<'_>) {
        self.open.store(false, Ordering::Release);
        let mut state = self.lock();
        // If there are no descriptors left, there is nothing to look with.
        state.given = socket.try_clone_to_owned().ok();
        if let Some(asking) = state.asking.take().filter(|_| state.given.is_some()) {
            asking.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Stream> Watched<S> {
    pub(super) fn new(stream: S, hang_up: &HangUp) -> Self {
        Self { stream, request: hang_up.0.clone() }
    }

    fn look(&self) {
        if self.request.open.load(Ordering::Relaxed) {
            self.request.give(self.stream.socket());
        }
    }
}

impl<S: Stream> Stream for Watched<S> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.stream.socket()
    }
}

impl<S: Stream> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Stream> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
