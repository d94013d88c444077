//! What the two say to each other: a line each, and with some a socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::app::sockets::{Inherited, Role};

/// Longest line: the id of a workspace, and a word before it.
const LINE_BYTES_MAX: usize = 256;

/// Whoever says another thing here can't be talked to.
pub(super) const HELLO: &str = "frostgate handover 1";
/// The next socket is wanted.
pub(super) const NEXT: &str = "next";
/// There are no more sockets.
pub(super) const NO_MORE: &str = "no more";
/// The store is wanted, and all connections from now on.
pub(super) const GO: &str = "go";
/// The store is free.
pub(super) const YOURS: &str = "yours";
/// The new one serves.
pub(super) const SERVING: &str = "serving";
/// Before the id of a workspace that somebody is inside of.
pub(super) const VISITED: &str = "visited ";
/// Before the id of one that nobody is inside of any more.
pub(super) const LEFT: &str = "left ";

/// One end of the conversation.
pub(super) struct Line {
    stream: UnixStream,
    unread: Vec<u8>,
    sockets: Vec<OwnedFd>,
}

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, unread: Vec::new(), sockets: Vec::new() }
    }

    /// The process at the other end.
    pub(super) fn peer(&self) -> Option<i32> {
        self.stream.peer_cred().ok()?.pid()
    }

    pub(super) async fn say(&self, words: &str) -> io::Result<()> {
        self.send(words, None).await
    }

    /// Says what the socket is for, and passes it on.
    pub(super) async fn pass(&self, inherited: &Inherited) -> io::Result<()> {
        self.send(inherited.role.name(), Some(&inherited.socket)).await
    }

    async fn send(&self, words: &str, socket: Option<&TcpListener>) -> io::Result<()> {
        let line = format!("{words}\n");
        let mut sent = 0;
        while sent < line.len() {
            // The socket goes with the first bytes.
            let fds = socket.filter(|_| sent == 0).map(|socket| [socket.as_fd()]);
            let send = || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if let Some(fds) = &fds {
                    control.push(SendAncillaryMessage::ScmRights(fds));
                }
                let bytes = [IoSlice::new(&line.as_bytes()[sent..])];
                Ok(sendmsg(&self.stream, &bytes, &mut control, SendFlags::NOSIGNAL)?)
            };
            sent += self.stream.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    /// The next line. An error: the other one is gone. Cancel-safe.
    pub(super) async fn hear(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.drain(..=end).take(end).collect();
                return String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into());
            }
            if self.unread.len() > LINE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        let Self { stream, unread, sockets } = self;
        let mut bytes = [0; LINE_BYTES_MAX];
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let received = recvmsg(&*stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    sockets.extend(passed);
                }
            }
            Ok(received.bytes)
        };
        let read = stream.async_io(Interest::READABLE, receive).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        unread.extend(&bytes[..read]);
        Ok(())
    }

    /// The socket that came with a line, which says what it is for.
    pub(super) fn taken(&mut self, role: &str) -> io::Result<Inherited> {
        let role = Role::parse(role).ok_or(io::ErrorKind::InvalidData)?;
        let socket = self.sockets.pop().ok_or(io::ErrorKind::InvalidData)?;
        let socket = TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Inherited { role, socket })
    }
}
