//! HTTP/1, HTTP/2 and TLS: the first bytes tell (RFC 9113 §3.4, RFC 8446 §5.1).

use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::stream::Stream;

/// What an HTTP/2 client begins with.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a TLS client begins with: a record of the handshake. No HTTP method has that byte.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// What a client begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Http(Protocol),
    Tls,
}

/// A stream of which the first bytes have been looked at; they are read again.
#[derive(Debug)]
pub(super) struct Sniffed<S> {
    first: [u8; PREFACE.len()],
    unread: std::ops::Range<usize>,
    stream: S,
}

impl<S: AsyncRead + Unpin> Sniffed<S> {
    /// Reads as much as it takes to tell: one byte for most.
    pub(super) async fn read(mut stream: S) -> io::Result<(First, Self)> {
        let mut first = [0; PREFACE.len()];
        let mut length = 0;
        let mut said = First::Http(Protocol::Http2);
        while length < first.len() {
            let read = stream.read(&mut first[length..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            length += read;
            if first[..length] != PREFACE[..length] {
                let is_tls = first[0] == TLS_HANDSHAKE;
                said = if is_tls { First::Tls } else { First::Http(Protocol::Http1) };
                break;
            }
        }
        Ok((said, Self { first, unread: 0..length, stream }))
    }
}

impl<S: Stream> Stream for Sniffed<S> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.stream.socket()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let start = self.unread.start;
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.first[start..start + length]);
        self.unread.start += length;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // The rest of the head is most likely there already; not to ask would cost hyper a turn.
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sniffed<S> {
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
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn sniffed(sent: &'static [&'static [u8]]) -> (First, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for part in sent {
                stream.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (said, mut stream) = Sniffed::read(listener.accept().await.unwrap().0).await.unwrap();
        client.await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        (said, all)
    }

    #[tokio::test]
    async fn the_first_bytes_tell_the_protocol_and_are_read_again() {
        let (http1, http2) = (First::Http(Protocol::Http1), First::Http(Protocol::Http2));
        let get: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!(sniffed(&[b"GET / HTTP/1.1\r\n\r\n"]).await, (http1, get.to_vec()));
        let put = (http1, b"PUT / HTTP/1.1".to_vec());
        assert_eq!(sniffed(&[b"P", b"UT / HTTP/1.1"]).await, put);
        let h2 = [PREFACE.as_slice(), b"rest"].concat();
        let parts: &[&[u8]] = &[b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\nrest"];
        assert_eq!(sniffed(parts).await, (http2, h2));
        let hello: &[u8] = b"\x16\x03\x01\x02\x00";
        assert_eq!(sniffed(&[b"\x16\x03\x01\x02\x00"]).await, (First::Tls, hello.to_vec()));
    }
}
