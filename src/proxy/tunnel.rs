//! A tunnel: bytes both ways between a client and its workspace after a switch of protocols.
//!
//! All tunnels of a thread read into one buffer of the thread, so an idle one holds none. Only
//! what the other side does not take at once is kept, and then nothing more is read until it has.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Large, because a copy through a small one costs several times as much on large messages.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Reads in a row after which others get a turn.
const READS_IN_A_ROW: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Moves bytes until both directions have ended, or one has failed. An end of one direction is
/// passed on as such, and the other goes on.
pub(super) async fn run<A, B>(mut client: A, mut workspace: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut up = Direction::default();
    let mut down = Direction::default();
    poll_fn(|context| {
        let upwards = up.poll_move(context, &mut client, &mut workspace)?;
        let downwards = down.poll_move(context, &mut workspace, &mut client)?;
        if upwards.is_ready() && downwards.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

#[derive(Default)]
struct Direction {
    /// Read and not taken yet.
    pending: Vec<u8>,
    written: usize,
    ended: bool,
    shut: bool,
}

impl Direction {
    fn poll_move<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
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
                ready!(Pin::new(&mut *writer).poll_shutdown(context))?;
                self.shut = true;
                continue;
            }
            match self.poll_read(context, reader, writer)? {
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

    /// Reads once and writes at once what the writer takes; the rest is pending.
    fn poll_read<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(reader).poll_read(context, &mut buffer))?;
            let read = buffer.filled();
            if read.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            let written = match Pin::new(writer).poll_write(context, read)? {
                Poll::Ready(written) => written,
                Poll::Pending => 0,
            };
            self.pending.extend_from_slice(&read[written..]);
            Poll::Ready(Ok(()))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn bytes_move_both_ways_past_a_slow_reader_and_a_half_close() {
        let (mut client, near) = duplex(1_000);
        let (far, mut workspace) = duplex(100);
        let tunnel = tokio::spawn(run(near, far));
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
        tunnel.await.unwrap().unwrap();
    }
}
