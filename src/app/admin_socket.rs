//! The API's socket in the file system, by which admins on this machine call without a token.
//!
//! It is made under another name and moved to its place, so that whoever connects there meets
//! somebody at every moment, also while one Frostgate takes over from another: both have a socket
//! then, and the name leads to the new one's. What a Frostgate that was killed left behind is
//! replaced; the socket of one that lives and is not to be taken over from is not.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, bail};
use rustix::net::sockopt::socket_peercred;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::{AdminSocket, Config};
use crate::listen;

/// The name by which a socket of ours is found. Dropped, it is gone, unless it leads to another's.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number.
    inode: (u64, u64),
}

impl SocketFile {
    /// Opens the socket that the configuration wants, in the place of the predecessor's. That one
    /// can't be made which nobody has asked for is a warning, lest a state directory with a long
    /// name, or on a disk that has no sockets, keep anybody from serving.
    pub(super) fn open_configured(
        config: &Config,
        predecessor: Option<i32>,
    ) -> anyhow::Result<Option<(Self, UnixListener)>> {
        let Some(path) = config.admin_socket() else { return Ok(None) };
        match Self::open(&path, predecessor) {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if config.listen.admin_socket == AdminSocket::InStateDir => {
                tracing::warn!("admins on this machine need the token: {error:#}");
                Ok(None)
            }
            Err(error) => Err(error.context("name another path in listen.admin_socket")),
        }
    }

    fn open(path: &Path, predecessor: Option<i32>) -> anyhow::Result<(Self, UnixListener)> {
        make_room(path, predecessor)?;
        let aside = path.with_file_name(format!(".{}", process::id()));
        // Of a process that had our number before us.
        drop(fs::remove_file(&aside));
        let opened = listen::bind_local(&aside).and_then(|socket| {
            let made = fs::symlink_metadata(&aside)?;
            fs::rename(&aside, path)?;
            Ok((Self { path: path.to_owned(), inode: (made.dev(), made.ino()) }, socket))
        });
        opened
            .inspect_err(|_| drop(fs::remove_file(&aside)))
            .with_context(|| format!("could not listen on {}", path.display()))
    }

    fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.inode)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours() {
            // One that is gone is as good.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Makes sure that nothing is at the path which anybody needs.
fn make_room(path: &Path, predecessor: Option<i32>) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => {}
        Ok(_) => bail!("{} is there already, and is no socket", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(error).with_context(|| format!("could not look at {}", path.display()));
        }
    }
    match owner(path) {
        Ok(Some(owner)) if owner != own_pid() && Some(owner) != predecessor => {
            bail!("another program, of the pid {owner}, listens on {}", path.display())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("could not try {}", path.display())),
    }
}

/// The process that listens there; `None`: none does.
fn owner(path: &Path) -> io::Result<Option<i32>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One whose queue is full would be waited for.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(Some(socket_peercred(&socket)?.pid.as_raw_pid())),
        Err(error)
            if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}
