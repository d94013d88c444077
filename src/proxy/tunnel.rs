//! A tunnel: bytes both ways between a client and its workspace after a switch of protocols.
//!
//! All tunnels of a thread read into one buffer of the thread, so an idle one holds none. Only
//! what the other side does not take at once is kept, and then nothing more is read until it has.
//!
//! A tunnel that must end before its ends want it to is [parted](Tunnel::part): both are told so
//! in the words of their protocol, which is WebSocket, as no other is switched to.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::frames::{Frames, GOING_AWAY, GOING_AWAY_MASKED};

/// Large, because a copy through a small one costs several times as much on large messages.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Reads in a row after which others get a turn.
const READS_IN_A_ROW: usize = 16;
/// How long both ends may take, together, to come to the end of a frame, take our goodbye and say
/// theirs.
const PART_MAX: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Both ends, and how far each direction is.
pub(super) struct Tunnel<A, B> {
    client: A,
    workspace: B,
    up: Direction,
    down: Direction,
}

impl<A, B> Tunnel<A, B>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(client: A, workspace: B) -> Self {
        Self { client, workspace, up: Direction::default(), down: Direction::default() }
    }

    /// Moves bytes until an end has nothing more to send, or one has failed. The next call passes
    /// that end on and goes on with the other direction, until the tunnel [is over](Self::is_over).
    /// Whoever drops the future may go on with another. `passing` is told how many bytes are about
    /// to be passed on, either way.
    pub(super) async fn run(&mut self, mut passing: impl FnMut(usize)) -> io::Result<()> {
        let Self { client, workspace, up, down } = self;
        let ended = (up.ended, down.ended);
        poll_fn(|context| {
            let upwards = up.poll_move(context, client, workspace, &mut passing)?;
            let downwards = down.poll_move(context, workspace, client, &mut passing)?;
            let is_over = upwards.is_ready() && downwards.is_ready();
            if is_over || (up.ended, down.ended) != ended {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Whether both directions have ended, and that was passed on.
    pub(super) fn is_over(&self) -> bool {
        self.up.shut && self.down.shut
    }

    /// Tells both ends that it is over, drops the lease, hears them out, and closes. One that is in
    /// the middle of a frame which does not come to its end in time is closed without a word:
    /// whatever we said would be taken for a part of it.
    pub(super) async fn part<L>(mut self, lease: L) {
        let parting = async move {
            self.tell().await;
            drop(lease);
            self.hear_out().await;
        };
        // Who doesn't answer is left.
        drop(timeout(PART_MAX, parting).await);
    }

    async fn tell(&mut self) {
        let Self { client, workspace, up, down } = self;
        poll_fn(|context| {
            let client_told = down.poll_tell(context, workspace, client, GOING_AWAY);
            let workspace_told = up.poll_tell(context, client, workspace, GOING_AWAY_MASKED);
            when_both(client_told, workspace_told)
        })
        .await;
    }

    /// What they still send is for nobody.
    async fn hear_out(&mut self) {
        let Self { client, workspace, up, down } = self;
        poll_fn(|context| {
            // Each is closed when it has said goodbye itself.
            let mut client_closed = up.poll_hear(context, client);
            if client_closed.is_ready() {
                client_closed = down.poll_close(context, client);
            }
            let mut workspace_closed = down.poll_hear(context, workspace);
            if workspace_closed.is_ready() {
                workspace_closed = up.poll_close(context, workspace);
            }
            when_both(client_closed, workspace_closed)
        })
        .await;
    }
}

/// Ends that fail are gone, which is as good as done.
fn when_both(one: Poll<io::Result<()>>, other: Poll<io::Result<()>>) -> Poll<()> {
    if one.is_ready() && other.is_ready() { Poll::Ready(()) } else { Poll::Pending }
}

#[derive(Default)]
struct Direction {
    frames: Frames,
    /// Read and not taken yet.
    pending: Vec<u8>,
    written: usize,
    ended: bool,
    shut: bool,
    /// Nothing but what is pending is passed on any more.
    parting: bool,
}

impl Direction {
    fn poll_move<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        passing: &mut impl FnMut(usize),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..READS_IN_A_ROW {
            if self.shut {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_write_pending(context, writer))?;
            if self.ended {
                ready!(self.poll_close(context, writer))?;
                continue;
            }
            match self.poll_read(context, reader, writer, SCRATCH_BYTES, passing)? {
                // Whoever runs the tunnel looks at that first.
                Poll::Ready(()) if self.ended => return Poll::Pending,
                Poll::Ready(()) => {}
                Poll::Pending => {
                    // What was written must not wait for more to come.
                    ready!(Pin::new(&mut *writer).poll_flush(context))?;
                    return Poll::Pending;
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Goes on to the end of the frame that is under way, and puts `goodbye` behind it, where one
    /// may stand. Ready when the writer has it, or won't have anything any more.
    fn poll_tell<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        goodbye: &[u8],
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.poll_write_pending(context, writer))?;
            if self.parting {
                return Pin::new(writer).poll_flush(context);
            }
            let left = usize::try_from(self.frames.left()).unwrap_or(usize::MAX);
            if left > 0 && !self.ended {
                ready!(self.poll_read(context, reader, writer, left, &mut |_| ()))?;
                continue;
            }
            self.parting = true;
            if left == 0 && !self.shut && !self.frames.closed() {
                self.pending.extend(goodbye);
            }
        }
    }

    /// Reads on for nobody, until the reader has said goodbye as well, or is gone.
    fn poll_hear<R: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
    ) -> Poll<io::Result<()>> {
        while !self.ended && !self.frames.closed() {
            ready!(poll_scratch(context, reader, SCRATCH_BYTES, |_, read| {
                self.frames.pass(read);
                self.ended = read.is_empty();
            }))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(writer).poll_shutdown(context))?;
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_pending<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let rest = &self.pending[self.written..];
            let written = ready!(Pin::new(&mut *writer).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        if !self.pending.is_empty() {
            self.pending = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, at most `limit` bytes, and writes at once what the writer takes; the rest is
    /// pending.
    fn poll_read<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        limit: usize,
        passing: &mut impl FnMut(usize),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let moved = poll_scratch(context, reader, limit, |context, read| {
            if read.is_empty() {
                self.ended = true;
                return Ok(());
            }
            self.frames.pass(read);
            passing(read.len());
            let written = match Pin::new(writer).poll_write(context, read)? {
                Poll::Ready(written) => written,
                Poll::Pending => 0,
            };
            self.pending.extend_from_slice(&read[written..]);
            Ok(())
        });
        moved.map(io::Result::flatten)
    }
}

/// Reads once, at most `limit` bytes, and gives `take` what came: nothing at the reader's end.
fn poll_scratch<R: AsyncRead + Unpin, T>(
    context: &mut Context<'_>,
    reader: &mut R,
    limit: usize,
    take: impl FnOnce(&mut Context<'_>, &[u8]) -> T,
) -> Poll<io::Result<T>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let limit = limit.min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..limit]);
        ready!(Pin::new(reader).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(take(context, buffer.filled())))
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    /// A tunnel that is told to part when the sender is used. With what its ends hold.
    fn tunnel(room: usize) -> (DuplexStream, DuplexStream, Parter, JoinHandle<()>) {
        let (client, near) = duplex(room);
        let (far, workspace) = duplex(room);
        let (parter, part) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let mut tunnel = Tunnel::new(near, far);
            let run = async {
                while !tunnel.is_over() {
                    tunnel.run(|_| ()).await.unwrap();
                }
                std::future::pending().await
            };
            tokio::select! {
                () = run => {}
                Ok(()) = part => {}
            }
            tunnel.part(()).await;
        });
        (client, workspace, parter, task)
    }

    type Parter = tokio::sync::oneshot::Sender<()>;

    #[tokio::test]
    async fn bytes_move_both_ways_past_a_slow_reader_and_a_half_close() {
        let (mut client, near) = duplex(1_000);
        let (far, mut workspace) = duplex(100);
        let tunnel = tokio::spawn(async move {
            let mut tunnel = Tunnel::new(near, far);
            while !tunnel.is_over() {
                tunnel.run(|_| ()).await.unwrap();
            }
        });
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let upload = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut received = Vec::new();
        workspace.read_to_end(&mut received).await.unwrap();
        assert!(received == expected);
        workspace.write_all(b"after the client's end").await.unwrap();
        drop(workspace);
        assert_eq!(upload.await.unwrap(), b"after the client's end");
        tunnel.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn both_ends_of_a_tunnel_that_parts_are_told_between_frames_and_heard_out() {
        let (mut client, mut workspace, parter, task) = tunnel(1_000);
        client.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
        workspace.write_all(&[0x81, 2, b'h', b'o']).await.unwrap();
        let (mut by_client, mut by_workspace) = ([0; 4], [0; 8]);
        client.read_exact(&mut by_client).await.unwrap();
        workspace.read_exact(&mut by_workspace).await.unwrap();
        parter.send(()).unwrap();
        let mut goodbye = [0; GOING_AWAY.len()];
        client.read_exact(&mut goodbye).await.unwrap();
        assert_eq!(goodbye, GOING_AWAY);
        let mut goodbye = [0; GOING_AWAY_MASKED.len()];
        workspace.read_exact(&mut goodbye).await.unwrap();
        assert_eq!(goodbye, GOING_AWAY_MASKED);
        // What comes now is for nobody, up to the goodbye of each.
        client.write_all(&[0x82, 0x81, 0, 0, 0, 0, 7]).await.unwrap();
        client.write_all(GOING_AWAY_MASKED).await.unwrap();
        workspace.write_all(GOING_AWAY).await.unwrap();
        let began = tokio::time::Instant::now();
        task.await.unwrap();
        assert!(began.elapsed() < PART_MAX, "it did not see their goodbyes");
        let mut rest = Vec::new();
        workspace.read_to_end(&mut rest).await.unwrap();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_under_way_is_finished_first_and_one_that_stalls_is_never_broken_into() {
        for stalls in [false, true] {
            let (mut client, mut workspace, parter, task) = tunnel(10);
            let whole = [&[0x82, 100][..], &[b'x'; 100], &[0x82, 100], &[b'y'; 50]].concat();
            let sent = if stalls { 60 } else { whole.len() };
            let sending = tokio::spawn(async move {
                // The second frame may find nobody to take it.
                drop(workspace.write_all(&whole[..sent]).await);
                workspace
            });
            let mut received = vec![0; 30];
            client.read_exact(&mut received).await.unwrap();
            parter.send(()).unwrap();
            client.read_to_end(&mut received).await.unwrap();
            task.await.unwrap();
            sending.abort();
            let expected = match stalls {
                true => [&[0x82, 100][..], &[b'x'; 58]].concat(),
                false => [&[0x82, 100][..], &[b'x'; 100], GOING_AWAY].concat(),
            };
            assert_eq!(received, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_said_after_a_close_frame_or_an_end() {
        let (mut client, mut workspace, parter, task) = tunnel(1_000);
        workspace.write_all(GOING_AWAY).await.unwrap();
        client.shutdown().await.unwrap();
        let mut received = [0; GOING_AWAY.len()];
        client.read_exact(&mut received).await.unwrap();
        let mut end = Vec::new();
        workspace.read_to_end(&mut end).await.unwrap();
        parter.send(()).unwrap();
        task.await.unwrap();
        client.read_to_end(&mut end).await.unwrap();
        assert_eq!(end, b"");
    }
}
