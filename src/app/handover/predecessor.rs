//! The new one's side: it asks the old one for everything, and looks after those who are still inside
//! of workspaces by way of it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::FILE_NAME;
use super::message::{GO, HELLO, LEFT, Line, NEXT, NO_MORE, SERVING, VISITED, YOURS};
use crate::app::sockets::Inherited;
use crate::lifecycle::{Registry, Visit};
use crate::model::WorkspaceId;

/// Sockets that one may have: more are no Frostgate's.
const SOCKETS_MAX: usize = 10_000;
/// How long it may take to pass the sockets on.
const SOCKETS_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long it may take to let go of the store: it finishes what is under way first.
const YOURS_MAX: Duration = Duration::from_secs(60);

/// An old one that can be taken over from; dropped, it goes on as if nothing had been.
pub struct Offer {
    line: Line,
    sockets: Vec<Inherited>,
}

/// An old one that has let go of the store. It may be gone at any time.
pub(in crate::app) struct Predecessor {
    /// `None`: it is gone.
    line: Option<Line>,
    /// Of these workspaces it has visitors.
    visited: Vec<WorkspaceId>,
}

impl Offer {
    /// Asks the one that serves from this state directory. `None`: there is none.
    pub async fn of(state_dir: &Path) -> io::Result<Option<Self>> {
        use io::ErrorKind::{ConnectionRefused, InvalidData, NotFound, TimedOut};
        let stream = match UnixStream::connect(state_dir.join(FILE_NAME)).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut line = Line::new(stream);
        let asked = async {
            line.say(HELLO).await?;
            if line.hear().await? != HELLO {
                return Err(io::Error::from(InvalidData));
            }
            let mut sockets = Vec::new();
            while sockets.len() < SOCKETS_MAX {
                line.say(NEXT).await?;
                match line.hear().await?.as_str() {
                    NO_MORE => return Ok(sockets),
                    role => sockets.push(line.taken(role)?),
                }
            }
            Err(InvalidData.into())
        };
        let sockets = timeout(SOCKETS_WAIT_MAX, asked).await.map_err(|_| TimedOut)??;
        Ok(Some(Self { line, sockets }))
    }

    /// Its process.
    pub(in crate::app) fn process(&self) -> Option<i32> {
        self.line.peer()
    }

    /// Its sockets.
    pub(in crate::app) fn take_sockets(&mut self) -> Vec<Inherited> {
        std::mem::take(&mut self.sockets)
    }

    /// Goes ahead. Returns when the store is free: because it was let go of, or because its owner is
    /// gone.
    pub(in crate::app) async fn accept(mut self) -> Predecessor {
        let mut visited = Vec::new();
        let yours = async {
            self.line.say(GO).await?;
            loop {
                match self.line.hear().await? {
                    line if line == YOURS => return io::Result::Ok(()),
                    line => visited.extend(after(&line, VISITED)),
                }
            }
        };
        let line = match timeout(YOURS_MAX, yours).await {
            Ok(Ok(())) => Some(self.line),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the Frostgate before is gone; going on without it");
                None
            }
            // Whether it still has the store is found out next.
            Err(_) => None,
        };
        Predecessor { line, visited }
    }
}

impl Predecessor {
    /// Tells it that all is well, and sees to it that nothing is frozen under its visitors until they
    /// have left, or it is gone.
    pub(in crate::app) async fn look_after(mut self, registry: Arc<Registry>) {
        let mut leases = Leases::of(&registry, std::mem::take(&mut self.visited));
        let Some(mut line) = self.line else { return };
        if line.say(SERVING).await.is_err() {
            return;
        }
        while let Ok(words) = line.hear().await {
            if let Some(id) = after(&words, VISITED) {
                leases.enter(&registry, id);
            } else if let Some(id) = after(&words, LEFT) {
                leases.0.remove(&id);
            }
        }
    }
}

/// Leases for the visitors of another data plane.
pub(in crate::app) struct Leases(HashMap<WorkspaceId, Held>);

impl Leases {
    pub(in crate::app) fn of(registry: &Arc<Registry>, visited: Vec<WorkspaceId>) -> Self {
        let mut leases = Self(HashMap::new());
        visited.into_iter().for_each(|id| leases.enter(registry, id));
        leases
    }

    fn enter(&mut self, registry: &Arc<Registry>, id: WorkspaceId) {
        let Some(workspace) = registry.get(id.as_str()) else { return };
        let entering = tokio::spawn(async move {
            // One that is not let in has nothing to keep awake.
            if let Ok(lease) = workspace.enter(Visit::Background).await {
                let _lease = lease;
                std::future::pending::<()>().await;
            }
        });
        self.0.insert(id, Held(entering.abort_handle()));
    }
}

/// Whoever holds a lease for others; ends with this.
struct Held(AbortHandle);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn after(line: &str, word: &str) -> Option<WorkspaceId> {
    WorkspaceId::parse(line.strip_prefix(word)?).ok()
}
