//! From one Frostgate to the next, without a lost connection: a new program is started beside the old
//! one (`frostgate serve --takeover`) and gets its listening sockets, its store and its workspaces.
//!
//! The sockets themselves are passed on, over a socket in the state directory. So what waits in the
//! kernel's queues stays there, and nobody's connection is refused or reset. Only one of the two decides
//! about workspaces at any time: the store's lock says which.
//!
//! 1. The new one asks for the sockets, and checks its configuration and certificates. Nothing has
//!    happened yet: if it ends here, nobody notices.
//! 2. It says that it goes ahead. The old one accepts no more, tells its clients that these
//!    connections end, finishes the wakes and freezes that are under way, ends its control plane and
//!    lets go of the store. New connections wait in the queues meanwhile.
//! 3. The old one says which workspaces somebody is inside of, and, later, which nobody is any more.
//!    The new one takes over the store, and holds a lease for each of these, so that it freezes
//!    nothing under the other's requests. It serves.
//! 4. The old one lets those inside finish for `drain_grace`, closes what is left, and ends.
//!
//! If the new one is gone before it serves, the old one goes on from where it was, with the same
//! sockets. If the old one is gone, its lock is too, and the new one goes on without it.

mod message;
mod predecessor;
mod successor;

pub(super) use predecessor::Leases;
pub use predecessor::Offer;
pub(super) use successor::Door;
pub use successor::Successor;

/// In the state directory, which its owner alone may enter.
const FILE_NAME: &str = "frostgate.sock";
