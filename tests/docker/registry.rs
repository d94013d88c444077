//! A registry with one image, the test workspace's, that can keep its layer back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::fixture;
use crate::images::{Engine, archive, unique};
use crate::support::{Connection, Origin};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

const TLS_HANDSHAKE: [u8; 1] = [22];

/// Removes the image from the engine when the test ends.
pub(crate) struct Registry {
    /// The image's name, with the registry's address.
    pub(crate) image: String,
    engine: Engine,
    shelf: Arc<Shelf>,
    _origin: Origin,
}

/// What there is to be had, and what was.
struct Shelf {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
    held: watch::Sender<bool>,
    manifests: AtomicUsize,
    layers: AtomicUsize,
}

impl Registry {
    pub(crate) async fn start(engine: Engine, name: &str) -> Self {
        let shelf = Arc::new(Shelf::new());
        let served = Arc::clone(&shelf);
        let origin = Origin::start(move |connection| serve(connection, Arc::clone(&served))).await;
        let image = format!("{}/{}:1", origin.address, unique(name));
        Self { image, engine, shelf, _origin: origin }
    }

    /// The layer is not handed out until it is released.
    pub(crate) fn hold(&self) {
        self.shelf.held.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.shelf.held.send_replace(false);
    }

    pub(crate) fn is_asked_for_its_layer(&self) -> Option<()> {
        (self.shelf.layers.load(Ordering::SeqCst) > 0).then_some(())
    }

    /// How often somebody has asked what the image is now.
    pub(crate) fn pulls(&self) -> usize {
        self.shelf.manifests.load(Ordering::SeqCst)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.engine.tries(&["rmi", "--force", &self.image]);
    }
}

impl Shelf {
    fn new() -> Self {
        let binary = std::fs::read(fixture::binary()).unwrap();
        // A name of its own makes the layer another one than all that the engine has.
        let program = unique("program");
        let layer = archive(&program, &binary);
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": [format!("/{program}")] },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = config.to_string().into_bytes();
        let part = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "size": bytes.len(), "digest": digest(bytes) });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": part(CONFIG, &config),
            "layers": [part(LAYER, &layer)],
        });
        Self {
            manifest: manifest.to_string().into_bytes(),
            config,
            layer,
            held: watch::Sender::new(false),
            manifests: AtomicUsize::new(0),
            layers: AtomicUsize::new(0),
        }
    }
}

async fn serve(mut connection: Connection, shelf: Arc<Shelf>) {
    // The engine tries TLS first.
    let mut first = [0];
    if connection.stream.peek(&mut first).await.is_err() || first == TLS_HANDSHAKE {
        return;
    }
    while let Some(request) = connection.request().await {
        let path = request.path();
        let (kind, bytes) = if path == "/v2/" {
            ("application/json", &b"{}"[..])
        } else if path.contains("/manifests/") {
            // By its tag once, to learn its digest, and then by that.
            if path.ends_with("/manifests/1") {
                shelf.manifests.fetch_add(1, Ordering::SeqCst);
            }
            (MANIFEST, &shelf.manifest[..])
        } else if path.ends_with(&digest(&shelf.config)) {
            (CONFIG, &shelf.config[..])
        } else if path.ends_with(&digest(&shelf.layer)) {
            shelf.layers.fetch_add(1, Ordering::SeqCst);
            let _ = shelf.held.subscribe().wait_for(|held| !held).await;
            (LAYER, &shelf.layer[..])
        } else {
            let _ = connection.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
            continue;
        };
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Docker-Content-Digest: {}\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n",
            bytes.len(),
            digest(bytes)
        )
        .into_bytes();
        if !request.line().starts_with("HEAD") {
            answer.extend_from_slice(bytes);
        }
        if !connection.send(answer).await {
            return;
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
