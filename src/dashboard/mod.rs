//! The dashboard: a page that shows every workspace as it is, second by second.
//!
//! The page is plain HTML, CSS and JavaScript that stand in `assets`, are part of the program, and
//! need nothing from elsewhere. It acts through the calls of the API, as anybody may. What is here
//! beside the files is its `feed`: all workspaces at once, then only what is new of them, because
//! a page of a hundred is too little for somebody who watches ten thousand. Every viewer is told
//! from the one [`Board`], so that a crowd that watches costs little more than one.
//!
//! Looking is no activity: nothing here enters a gate, and nothing wakes anybody.

mod assets;
mod board;
mod feed;
mod row;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use http::request::Parts;
use tokio::sync::watch;

use crate::model::PublicUrl;

pub use assets::weights;
pub use board::Board;

/// Lets somebody look who may, by the head of their request, or says what they are answered.
pub type Door = Arc<dyn Fn(Parts) -> Entrance + Send + Sync>;

/// The way through a [`Door`].
pub type Entrance = Pin<Box<dyn Future<Output = Result<Viewer, Response>> + Send>>;

/// Somebody who may look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// As whom they are known.
    pub name: String,
    /// What they may do, in the API's word.
    pub scope: &'static str,
    /// Whether they may change what they see.
    pub may_change: bool,
    /// They see the workspaces of these projects alone; `None`: all.
    pub projects: Option<BTreeSet<String>>,
}

impl Viewer {
    /// Whether workspaces of that project are there, as far as they are concerned.
    fn sees(&self, project: Option<&str>) -> bool {
        let is_own = |own: &BTreeSet<String>| project.is_some_and(|project| own.contains(project));
        self.projects.as_ref().is_none_or(is_own)
    }
}

/// What the dashboard needs to know.
#[derive(Clone)]
pub struct Options {
    /// What there is to be seen.
    pub board: Arc<Board>,
    /// Who may see it.
    pub door: Door,
    /// Where end users find workspaces.
    pub public_url: Arc<PublicUrl>,
    /// Turns true when what goes on is to end.
    pub draining: watch::Receiver<bool>,
}

/// The page and what it needs: to stand beside the calls of the API.
pub fn routes(options: Options) -> Router {
    Router::new()
        .route("/", get(assets::page))
        .route("/dashboard/feed", get(feed::answer))
        .route("/dashboard/{file}", get(assets::file))
        .with_state(options)
}
