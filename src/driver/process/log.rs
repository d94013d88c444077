//! Reading a workspace's log: its end, and what is added to it from then on.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::{Stream, stream};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Of longer logs only so much of the end is looked at.
const TAIL_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What is read at once.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// The last `lines` lines, and what is written from then on if `follow` is set. `None`: there is no
/// log.
pub(super) fn read(
    path: PathBuf,
    lines: usize,
    follow: bool,
) -> io::Result<Option<impl Stream<Item = io::Result<Bytes>> + Send>> {
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Before it is read, so that nothing is missed that is written meanwhile.
    let news = follow.then(|| News::of(&path)).transpose()?;
    let tail = tail(&mut file, lines)?;
    let first = stream::iter((!tail.is_empty()).then(|| Ok(tail.into())));
    let rest = stream::try_unfold((file, path, news), async |(mut file, path, news)| {
        let Some(news) = news else { return Ok(None) };
        loop {
            let piece = piece(&mut file)?;
            if !piece.is_empty() {
                return Ok(Some((piece, (file, path, Some(news)))));
            }
            if let Some(successor) = successor(&file, &path)? {
                // It was set aside when the workspace was started again.
                file = successor;
                news.watch(&path)?;
                continue;
            }
            news.wait().await?;
        }
    });
    Ok(Some(futures_util::StreamExt::chain(first, rest)))
}

/// Leaves the file at its end.
fn tail(file: &mut File, lines: usize) -> io::Result<Vec<u8>> {
    let length = file.seek(SeekFrom::End(0))?;
    let begin = length.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(begin))?;
    let mut text = Vec::new();
    file.by_ref().take(length - begin).read_to_end(&mut text)?;
    let ends = memchr::memrchr_iter(b'\n', text.strip_suffix(b"\n").unwrap_or(&text));
    let from = match lines {
        0 => text.len(),
        _ => ends.into_iter().nth(lines - 1).map_or(0, |end| end + 1),
    };
    Ok(text.split_off(from))
}

fn piece(file: &mut File) -> io::Result<Bytes> {
    let mut piece = vec![0; PIECE_BYTES_MAX];
    let read = file.read(&mut piece)?;
    piece.truncate(read);
    Ok(piece.into())
}

/// The file that is at `path` now, if it is another.
fn successor(file: &File, path: &std::path::Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(now) if now.metadata()?.ino() != file.metadata()?.ino() => Ok(Some(now)),
        Ok(_) => Ok(None),
        // It is being replaced, or removed with its workspace; the next look tells.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells when something is written to a file, or it is set aside.
struct News(AsyncFd<OwnedFd>);

impl News {
    #[expect(
        deprecated,
        reason = "its successor is an unsafe fn, for types whose descriptor may change under \
                  tokio's feet; an OwnedFd keeps the one it has until it is dropped"
    )]
    fn of(path: &std::path::Path) -> io::Result<Self> {
        let news = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let news = Self(AsyncFd::with_interest(news, Interest::READABLE)?);
        news.watch(path)?;
        Ok(news)
    }

    /// The directory too: a file that is set aside has a successor there.
    fn watch(&self, path: &std::path::Path) -> io::Result<()> {
        inotify::add_watch(self.0.get_ref(), path, WatchFlags::MODIFY)?;
        if let Some(directory) = path.parent() {
            let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF;
            inotify::add_watch(self.0.get_ref(), directory, flags)?;
        }
        Ok(())
    }

    async fn wait(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        // Which they were does not matter.
        let mut events = [0; 4_096];
        while rustix::io::read(self.0.get_ref(), &mut events).is_ok_and(|read| read > 0) {}
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::time::Duration;

    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn the_last_lines_come_first_and_then_what_is_added_also_to_its_successor() {
        let directory = std::env::temp_dir().join(format!("frostgate-log-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        assert!(read(path.clone(), 2, true).unwrap().is_none());
        fs::write(&path, "one\ntwo\nthree\nfour").unwrap();
        let rows = [(0, ""), (1, "four"), (2, "three\nfour"), (9, "one\ntwo\nthree\nfour")];
        for (lines, expected) in rows {
            let log = read(path.clone(), lines, false).unwrap().unwrap();
            let pieces: Vec<_> = log.map(Result::unwrap).collect().await;
            assert_eq!(pieces.concat(), expected.as_bytes(), "{lines} lines");
        }

        let mut log = Box::pin(read(path.clone(), 1, true).unwrap().unwrap());
        let mut next = async || {
            let piece = tokio::time::timeout(Duration::from_secs(60), log.next()).await;
            piece.expect("a piece").unwrap().unwrap()
        };
        assert_eq!(next().await, "four");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b" and\nfive\n").unwrap();
        assert_eq!(next().await, " and\nfive\n");
        fs::rename(&path, directory.join("log.1")).unwrap();
        fs::write(&path, "six\n").unwrap();
        assert_eq!(next().await, "six\n");
        fs::remove_dir_all(directory).unwrap();
    }
}
