//! Certificates, kept up to date: who renews them writes files, and nobody has to tell us.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::api::{Check, Health};
use crate::clock::rfc3339;
use crate::config::Config;
use crate::listen::tls::{Certificates, Pair, Sources};

/// A certificate and its key are two files, and may be written slowly: they are read when nothing
/// has changed for this long, and after `SETTLE_MAX` in any case.
const SETTLE: Duration = Duration::from_millis(250);
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// They are read this often without any change: what ends soon has to be told in time, and some
/// file systems don't tell of changes.
const READ_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificates of the configuration; `None`: nothing speaks TLS.
pub(super) fn open(config: &Config) -> anyhow::Result<Option<Certificates>> {
    if config.listen.tls.is_empty() && !config.listen.admin_tls {
        return Ok(None);
    }
    let named = config.tls.certificates.iter();
    let sources = Sources {
        pairs: named.map(|pair| Pair { cert: pair.cert.clone(), key: pair.key.clone() }).collect(),
        directory: config.tls.directory.clone(),
    };
    let certificates = Certificates::open(sources).context(
        "the certificates for TLS can't be used; tls.directory and tls.certificates say where \
         they are, and `frostgate certs` makes some for development",
    )?;
    Ok(Some(certificates))
}

/// Has them read again whenever their files change.
pub(super) async fn follow(certificates: Arc<Certificates>) {
    loop {
        // Watched first and read then, so that no change is missed, and watched anew each time: a
        // directory may have been put in place of another.
        let changed = Arc::new(Notify::new());
        let directories = certificates.directories();
        let watcher = watch(directories.clone(), changed.clone());
        if certificates.directories() != directories {
            // A link has led elsewhere before it was watched.
            continue;
        }
        if let Err(error) = &watcher {
            tracing::warn!(%error, "changes of certificates are noticed after a day only");
        }
        let read = certificates.clone();
        // It fails at the end of the program, when nobody needs them.
        drop(tokio::task::spawn_blocking(move || read.reload()).await);
        if timeout(READ_EVERY, changed.notified()).await.is_ok() {
            settled(&changed).await;
        }
    }
}

async fn settled(changed: &Notify) {
    let deadline = Instant::now() + SETTLE_MAX;
    while Instant::now() < deadline && timeout(SETTLE, changed.notified()).await.is_ok() {}
}

/// Tells of changes in the directories, as long as the watcher lives. Their parents are watched too:
/// a directory that is replaced has changed, and does not say so itself.
fn watch(
    directories: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
) -> notify::Result<RecommendedWatcher> {
    let parents = directories.iter().filter_map(|directory| directory.parent());
    let all: BTreeSet<PathBuf> =
        parents.map(Path::to_owned).chain(directories.iter().cloned()).collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| !concerns(&event, &directories)) {
            return;
        }
        changed.notify_one();
    })?;
    for directory in all.iter().filter(|directory| directory.is_dir()) {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Whether something has changed in one of the directories, or one itself has. That we read files
/// is no change.
fn concerns(event: &Event, directories: &BTreeSet<PathBuf>) -> bool {
    let is_ours = |path: &PathBuf| {
        directories.contains(path)
            || path.parent().is_some_and(|parent| directories.contains(parent))
    };
    event.need_rescan() || !event.kind.is_access() && event.paths.iter().any(is_ours)
}

/// How they are, for whoever asks whether we are ready.
pub(super) fn check(certificates: Arc<Certificates>) -> Check {
    Check::new("certificates", move || {
        let status = certificates.status();
        if !status.problems.is_empty() {
            return Health::Degraded(status.problems.join("; "));
        }
        let first = status.used.iter().map(|certificate| certificate.not_after()).min();
        let until = first.map(rfc3339).unwrap_or_default();
        Health::Good(format!("{} used; the first ends {until}", status.used.len()))
    })
}
