//! A socket in front of the engine's that a test can cut and restore, as if the engine restarted.

use std::path::{Path, PathBuf};

use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

const ENGINE: &str = "/var/run/docker.sock";

pub(super) struct Relay {
    path: PathBuf,
    task: Option<JoinHandle<()>>,
}

impl Relay {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("frostgate-{name}.sock"));
        let mut relay = Self { path, task: None };
        relay.restore();
        relay
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Every connection ends at once, and nothing listens any more.
    pub(super) async fn cut(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        let _ = std::fs::remove_file(&self.path);
    }

    pub(super) fn restore(&mut self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut engine = UnixStream::connect(ENGINE).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut engine).await;
                });
                while connections.try_join_next().is_some() {}
            }
        }));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
