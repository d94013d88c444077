//! A socket in front of the engine's that a test can cut and restore, as if the engine restarted,
//! or stall, as if it hung.

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
}

impl Relay {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("frostgate-{name}.sock"));
        let mut relay = Self { path, task: None, stalled: watch::Sender::new(false) };
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
        let stalled = self.stalled.subscribe();
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(serve(client, stalled.clone()));
                while connections.try_join_next().is_some() {}
            }
        }));
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

async fn serve(client: UnixStream, stalled: watch::Receiver<bool>) {
    let engine = UnixStream::connect(ENGINE).await.unwrap();
    let ((from_client, to_client), (from_engine, to_engine)) =
        (client.into_split(), engine.into_split());
    tokio::select! {
        () = carry(from_client, to_engine, stalled.clone()) => {}
        () = carry(from_engine, to_client, stalled) => {}
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
