//! The old one's side: it listens for a new one, and hands everything over.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UnixListener;
use tokio::time::{sleep, timeout};

use super::FILE_NAME;
use super::message::{GO, HELLO, LEFT, Line, NEXT, NO_MORE, SERVING, VISITED, YOURS};
use crate::app::serving::is_ours;
use crate::app::sockets::Inherited;
use crate::lifecycle::Registry;
use crate::model::WorkspaceId;

/// How long the new one may take with its configuration.
const PREPARE_MAX: Duration = Duration::from_secs(60);
/// How long it may take from having the store to serving; then it has failed.
const START_MAX: Duration = Duration::from_secs(60);
/// How long it may take to be told something.
const TELL_MAX: Duration = Duration::from_secs(5);
/// How often it is looked who has left, while both run.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where a new one knocks.
pub(in crate::app) struct Door {
    listener: UnixListener,
    sockets: Vec<Inherited>,
}

/// A new one that goes ahead.
pub struct Successor {
    line: Line,
}

impl Door {
    /// Opens it, in the place of one that nobody is behind any more: for whoever has the store.
    pub(in crate::app) fn open(state_dir: &Path, sockets: Vec<Inherited>) -> anyhow::Result<Self> {
        let path = state_dir.join(FILE_NAME);
        // Most often there is none.
        drop(std::fs::remove_file(&path));
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("could not listen on {}", path.display()))?;
        Ok(Self { listener, sockets })
    }

    /// Waits for a new one that goes ahead; those that don't have changed nothing. Cancel-safe.
    pub(in crate::app) async fn knock(&self) -> Successor {
        loop {
            match self.one_knocks().await {
                Ok(successor) => return successor,
                Err(error) => {
                    tracing::info!(%error, "another Frostgate wanted to take over, and did not");
                    // A door that can't be opened is not to be tried without end.
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    async fn one_knocks(&self) -> io::Result<Successor> {
        let (stream, _) = self.listener.accept().await?;
        // The directory keeps others out as well; where it does not, this does.
        if !is_ours(stream.peer_cred()?.uid()) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut line = Line::new(stream);
        let prepared = async {
            if line.hear().await? != HELLO {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            line.say(HELLO).await?;
            let mut sockets = self.sockets.iter();
            loop {
                match line.hear().await?.as_str() {
                    NEXT => match sockets.next() {
                        Some(socket) => line.pass(socket).await?,
                        None => line.say(NO_MORE).await?,
                    },
                    GO => return Ok(()),
                    _ => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
        };
        timeout(PREPARE_MAX, prepared).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(Successor { line })
    }

    /// Shuts it: nobody is to take over any more.
    pub(in crate::app) fn shut(self, state_dir: &Path) {
        // One that is gone is as good.
        drop(std::fs::remove_file(state_dir.join(FILE_NAME)));
    }

    /// The sockets, for going on with them.
    pub(in crate::app) fn into_sockets(self) -> Vec<Inherited> {
        self.sockets
    }
}

impl Successor {
    /// Tells it that the store is free, and who is still inside of what. Returns when it serves;
    /// an error: it never will.
    pub(in crate::app) async fn succeed(&mut self, registry: &Registry) -> io::Result<Inside> {
        let mut inside = Inside::default();
        let told = async {
            inside.tell(registry, &self.line).await?;
            self.line.say(YOURS).await
        };
        timeout(TELL_MAX, told).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let answer = timeout(START_MAX, self.line.hear()).await;
        match answer.map_err(|_| io::ErrorKind::TimedOut)?? {
            answer if answer == SERVING => Ok(inside),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Tells it who leaves, for as long as it listens.
    pub(in crate::app) async fn keep_told(&self, registry: &Registry, mut inside: Inside) {
        while inside.tell(registry, &self.line).await.is_ok() {
            sleep(LOOK_EVERY).await;
        }
    }
}

/// The workspaces of which the other one knows that somebody is inside.
#[derive(Default)]
pub(in crate::app) struct Inside(BTreeSet<WorkspaceId>);

impl Inside {
    /// Tells what is different now.
    async fn tell(&mut self, registry: &Registry, line: &Line) -> io::Result<()> {
        let now: BTreeSet<_> = registry.visited().into_iter().collect();
        for id in now.difference(&self.0) {
            line.say(&format!("{VISITED}{id}")).await?;
        }
        for id in self.0.difference(&now) {
            line.say(&format!("{LEFT}{id}")).await?;
        }
        self.0 = now;
        Ok(())
    }
}
