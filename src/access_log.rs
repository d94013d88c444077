//! A line of JSON for each request that ended, in a file or on standard output.
//!
//! The threads that answer requests hand their lines to one that writes them, and never wait for it:
//! a disk that does not keep up costs lines, which is said, and no request is slower for it. Query
//! strings are nobody's business; they are not in it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::{Clock, rfc3339};

/// Lines that may wait to be written.
const BEHIND_MAX: usize = 16_384;
/// Characters of what a client says of itself.
const USER_AGENT_MAX: usize = 256;
/// Where lines go to standard output.
const STANDARD_OUTPUT: &str = "-";

/// The log. It ends with its last handle.
#[derive(Debug)]
pub struct AccessLog {
    messages: SyncSender<Message>,
    /// Lines that were not taken, since that was said last.
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(String),
    /// The file may have been set aside.
    Reopen,
}

impl AccessLog {
    /// Opens a file to be added to, or standard output for `-`.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let mut out = Out::open(path)?;
        let (messages, received) = sync_channel(BEHIND_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let log = Arc::new(Self { messages, lost: lost.clone() });
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            while let Ok(message) = received.recv() {
                if let Err(error) = out.write_all(message, &received) {
                    tracing::warn!(%error, "could not write to the access log");
                }
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::warn!(lost, "the access log does not keep up: lines are missing");
                }
            }
        })?;
        Ok(log)
    }

    /// Opens the file anew, where what is there now may be another.
    pub fn reopen(&self) {
        // Where it is far behind, the next time will do.
        drop(self.messages.try_send(Message::Reopen));
    }

    /// A line for a request that has just arrived. Written when it is dropped.
    pub fn line(self: &Arc<Self>, request: Request) -> Line {
        let log = self.clone();
        Line { log, began: Instant::now(), request, answer: Answer::default() }
    }

    fn write(&self, line: String) {
        if self.messages.try_send(Message::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What was asked.
#[derive(Debug, Serialize)]
pub struct Request {
    /// What it is called, in our logs and the workspace's.
    pub request_id: String,
    /// Who asked.
    pub client: IpAddr,
    /// `GET`
    pub method: String,
    /// `HTTP/1.1`
    pub protocol: String,
    /// As it was sent.
    pub host: String,
    /// Without its query.
    pub path: String,
    /// What the client says of itself.
    pub user_agent: Option<String>,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    /// Of the answer.
    pub status: u16,
    /// Which workspace it was for.
    pub workspace: Option<String>,
    /// Of the answer's body, as far as they were sent.
    pub bytes: u64,
    /// How long the request was held at the gate.
    #[serde(rename = "hold_ms", serialize_with = "milliseconds")]
    pub hold: Option<Duration>,
    /// How long the wake took that it waited for.
    #[serde(rename = "wake_ms", serialize_with = "milliseconds")]
    pub wake: Option<Duration>,
}

/// A request under way.
#[derive(Debug)]
pub struct Line {
    log: Arc<AccessLog>,
    began: Instant,
    request: Request,
    /// As far as it is known.
    pub answer: Answer,
}

#[derive(Serialize)]
struct Whole<'a> {
    at: String,
    #[serde(flatten)]
    request: &'a Request,
    #[serde(flatten)]
    answer: &'a Answer,
    #[serde(serialize_with = "milliseconds")]
    duration_ms: Option<Duration>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let user_agent = &mut self.request.user_agent;
        if let Some(text) = user_agent.take() {
            *user_agent = Some(text.chars().take(USER_AGENT_MAX).collect());
        }
        let whole = Whole {
            at: rfc3339(Clock::MACHINE.now()),
            request: &self.request,
            answer: &self.answer,
            duration_ms: Some(self.began.elapsed()),
        };
        // It is of texts and numbers, which can be written.
        if let Ok(mut line) = serde_json::to_string(&whole) {
            line.push('\n');
            self.log.write(line);
        }
    }
}

/// With a tenth as the smallest part.
fn milliseconds<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let tenths = duration.map(|duration| (duration.as_secs_f64() * 10_000.0).round() / 10.0);
    tenths.serialize(serializer)
}

struct Out {
    path: PathBuf,
    writer: BufWriter<Box<dyn Write + Send>>,
}

impl Out {
    fn open(path: &Path) -> io::Result<Self> {
        let target: Box<dyn Write + Send> = match path == Path::new(STANDARD_OUTPUT) {
            true => Box::new(io::stdout()),
            false => Box::new(append(path)?),
        };
        Ok(Self { path: path.to_owned(), writer: BufWriter::new(target) })
    }

    /// The message, and those that have come meanwhile; then the disk gets them.
    fn write_all(&mut self, first: Message, more: &Receiver<Message>) -> io::Result<()> {
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Line(line) => self.writer.write_all(line.as_bytes())?,
                Message::Reopen => {
                    self.writer.flush()?;
                    *self = Self::open(&self.path)?;
                }
            }
            next = more.try_recv().ok();
        }
        self.writer.flush()
    }
}

/// Readable by its owner and group: it says who was where.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}
