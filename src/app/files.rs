//! Files that are read again when they have changed: who writes them has to tell nobody.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// What belongs together may be several files, and may be written slowly: they are read when nothing
/// has changed for this long, and after `SETTLE_MAX` in any case.
const SETTLE: Duration = Duration::from_millis(250);
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// They are read this often without any change: some file systems don't tell of changes, and what
/// is read may have an end that has to be told in time.
const READ_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Something that is read from files.
pub(super) trait Reloads: Send + Sync + 'static {
    /// The directories of its files, as absolute paths.
    fn directories(&self) -> BTreeSet<PathBuf>;

    /// Reads them again. May block on the disk.
    fn reload(&self);
}

/// Has it read again whenever its files change. `moved` tells that they are elsewhere.
pub(super) async fn follow(followed: Arc<impl Reloads>, moved: Arc<Notify>) {
    loop {
        // Watched first and read then, so that no change is missed, and watched anew each time: a
        // directory may have been put in place of another.
        let changed = Arc::new(Notify::new());
        let directories = followed.directories();
        let watcher = watch(directories.clone(), changed.clone());
        if followed.directories() != directories {
            // A link has led elsewhere before it was watched.
            continue;
        }
        if let Err(error) = &watcher {
            tracing::warn!(%error, ?directories, "changes of files are noticed after a day only");
        }
        let read = followed.clone();
        // It fails at the end of the program, when nobody needs them.
        drop(tokio::task::spawn_blocking(move || read.reload()).await);
        tokio::select! {
            () = changed.notified() => settled(&changed).await,
            () = moved.notified() => {}
            () = sleep(READ_EVERY) => {}
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
