//! A socket in front of the engine's that a test can cut and restore, as if the engine restarted,
//! stall, as if it hung, or have lose an answer.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const ENGINE: &str = "/var/run/docker.sock";

pub(crate) struct Relay {
    path: PathBuf,
    task: Option<JoinHandle<()>>,
    stalled: watch::Sender<bool>,
    /// What the request begins with whose answer gets lost.
    lost: watch::Sender<&'static str>,
}

/// No request begins with this.
const NOTHING: &str = "\0";

impl Relay {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("frostgate-{name}.sock"));
        let (stalled, lost) = (watch::Sender::new(false), watch::Sender::new(NOTHING));
        let mut relay = Self { path, task: None, stalled, lost };
        relay.restore();
        relay
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Every connection ends at once, and nothing listens any more.
    pub(crate) async fn cut(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        let _ = std::fs::remove_file(&self.path);
    }

    pub(crate) fn restore(&mut self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        let (stalled, lost) = (self.stalled.subscribe(), self.lost.subscribe());
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(serve(client, stalled.clone(), *lost.borrow()));
                while connections.try_join_next().is_some() {}
            }
        }));
    }

    /// The engine does what such requests ask for, and the connection breaks before its answer.
    pub(crate) fn lose_answers_to(&self, request: &'static str) {
        self.lost.send_replace(request);
    }

    pub(crate) fn lose_nothing(&self) {
        self.lost.send_replace(NOTHING);
    }

    /// Connections stay and new ones are taken, but not a byte moves.
    pub(crate) fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// What was held up goes on.
    pub(crate) fn go_on(&self) {
        self.stalled.send_replace(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(client: UnixStream, mut stalled: watch::Receiver<bool>, lost: &str) {
    let engine = UnixStream::connect(ENGINE).await.unwrap();
    let ((mut from_client, to_client), (mut from_engine, mut to_engine)) =
        (client.into_split(), engine.into_split());
    // Each call has a connection of its own.
    let mut start = vec![0; lost.len()];
    if from_client.read_exact(&mut start).await.is_err() {
        return;
    }
    drop(stalled.wait_for(|stalled| !stalled).await);
    if to_engine.write_all(&start).await.is_err() {
        return;
    }
    let to_engine = carry(from_client, to_engine, stalled.clone());
    if start == lost.as_bytes() {
        tokio::select! {
            () = to_engine => {}
            _ = from_engine.read_u8() => {}
        }
    } else {
        tokio::select! {
            () = to_engine => {}
            () = carry(from_engine, to_client, stalled) => {}
        }
    }
}

/// Until either side ends: the engine's API needs no half-open connections.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut stalled: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut bytes).await else { return };
        drop(stalled.wait_for(|stalled| !stalled).await);
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
