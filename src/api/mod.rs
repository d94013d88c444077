//! The calls of admins and workspaces. `routes` is the table of contents.

mod activity;
mod auth;
mod check_in;
mod fields;
mod overview;
mod policy;
mod projects;
mod readiness;
mod reply;
mod routes;
mod workspaces;

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::lifecycle::{Creator, Registry};
use crate::model::PublicUrl;

pub use auth::AdminToken;
pub use readiness::{Check, Health};
pub use routes::{CHECK_IN_PATH, admin, check_in_only};

/// What the calls work on.
#[derive(Clone)]
pub struct Context {
    /// All workspaces.
    pub registry: Arc<Registry>,
    /// Makes more of them.
    pub creator: Arc<Creator>,
    /// What an admin must present.
    pub token: AdminToken,
    /// Whose `X-Forwarded-For` tells where a check-in came from.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Where end users find workspaces.
    pub public_url: Arc<PublicUrl>,
    /// What is asked how it is, for `/readyz`.
    pub checks: Arc<[Check]>,
}

/// Who calls: the address of the socket's other end.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);
