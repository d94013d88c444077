//! The calls of admins and workspaces. `routes` is the table of contents.

mod activity;
mod auth;
mod caller;
mod check_in;
mod containers;
mod date;
mod events;
mod failures;
mod fields;
mod history;
mod keyring;
mod metrics;
mod openapi;
mod overview;
mod peer;
mod policy;
mod projects;
mod readiness;
mod reload;
mod reply;
mod routes;
mod session;
mod token_file;
mod tokens;
mod workspaces;

use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::watch;

use crate::lifecycle::{Creator, Registry};
use crate::model::PublicUrl;

pub use caller::{Looker, look};
pub use events::Followers;
pub use failures::Failures;
pub use keyring::Keyring;
pub use peer::{LocalAdmin, Peer};
pub use readiness::{CONFIGURATION, Check, Health};
pub use reload::{Reload, ReloadError, Reloaded, Reloading};
pub use routes::{CHECK_IN_PATH, admin, check_in_only};
pub use session::Sessions;

/// Reads a check-in that may be anything.
pub(crate) fn try_check_in(bytes: &[u8]) {
    check_in::try_with(bytes);
}

/// What the calls work on.
#[derive(Clone)]
pub struct Context {
    /// All workspaces.
    pub registry: Arc<Registry>,
    /// Makes more of them.
    pub creator: Arc<Creator>,
    /// What opens the API.
    pub keyring: Arc<Keyring>,
    /// How often it was tried with what doesn't.
    pub failures: Arc<Failures>,
    /// Browsers that are logged in.
    pub sessions: Arc<Sessions>,
    /// Names at which browsers find us, beside IP addresses and `localhost`; lower case.
    pub hosts: Arc<[String]>,
    /// Those who follow what happens.
    pub followers: Arc<Followers>,
    /// Whose `X-Forwarded-For` tells where a check-in came from.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Where end users find workspaces.
    pub public_url: Arc<PublicUrl>,
    /// What is asked how it is, for `/readyz`.
    pub checks: Arc<[Check]>,
    /// Turns true when what has no end of its own is to end.
    pub draining: watch::Receiver<bool>,
    /// Whether metrics name workspaces.
    pub metrics_per_workspace: bool,
    /// Has the configuration read again.
    pub reload: Reload,
}
