//! HTTP/2 clients that keep us busy with frames that ask for nothing.
//!
//! A PING or a change of SETTINGS costs its sender a few bytes, and us an answer; whoever sends
//! nothing else keeps a whole core busy, and everybody waiting who is served by the same thread. h2
//! counts streams that are reset, and continuations and empty DATA, but bears all other frames for
//! ever (CVE-2019-9512, -9513, -9515). So they are paid for here: out of an allowance, to which what
//! the client takes of us adds, and time adds a little. Nothing that is read is changed or kept;
//! what is followed are the headers of frames.

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::cut::{DISCARD_BYTES, LINGER_MAX};
use super::sniff::PREFACE;
use super::stream::Stream;

/// What a client may owe at most. All is counted in bytes: what it takes of us adds as many.
const ALLOWANCE: u64 = 640 * 1024;
/// What a second adds: a hundred frames, when a client with many streams that sends pings, and takes
/// nothing, has use for a few.
const ALLOWANCE_PER_SECOND: u64 = 100 * FRAME_COST;
/// What a frame costs beside its payload. Much more than its answer has bytes, lest answers pay for
/// themselves.
const FRAME_COST: u64 = 64;
/// What a window's update costs: about as much as one has bytes, as some clients send two for each
/// little piece that they take.
const WINDOW_UPDATE_COST: u64 = 16;

const FRAME_HEADER: usize = 9;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;

/// What is read instead of more from a client that has used up its allowance: the header of a HEADERS
/// frame, and then empty CONTINUATION frames, so many that h2 says goodbye with `ENHANCE_YOUR_CALM`.
/// The stream is the last that there can be; nobody has used it.
const POISON: [u8; FRAME_HEADER * POISON_FRAMES] = poison();
const POISON_FRAMES: usize = 32;

const fn poison() -> [u8; FRAME_HEADER * POISON_FRAMES] {
    let mut poison = [0; FRAME_HEADER * POISON_FRAMES];
    let mut frame = 0;
    while frame < POISON_FRAMES {
        let start = frame * FRAME_HEADER;
        poison[start + 3] = if frame == 0 { HEADERS } else { CONTINUATION };
        poison[start + 5] = 0x7f;
        poison[start + 6] = 0xff;
        poison[start + 7] = 0xff;
        poison[start + 8] = 0xff;
        frame += 1;
    }
    poison
}

/// Follows the frames that a client sends, from the preface on.
#[derive(Debug)]
struct Frames {
    /// The header of a frame that has come in part.
    begun: [u8; FRAME_HEADER],
    begun_length: usize,
    /// Bytes that are to come before the next header.
    skip: usize,
    allowance: u64,
    /// When time last added to it.
    added_at: Instant,
    used_up: bool,
}

impl Frames {
    fn new() -> Self {
        Self {
            begun: [0; FRAME_HEADER],
            begun_length: 0,
            skip: PREFACE.len(),
            allowance: ALLOWANCE,
            added_at: Instant::now(),
            used_up: false,
        }
    }

    /// Follows the next bytes. Returns how many of them may pass: all, or those up to the end of the
    /// frame that was one too many.
    fn follow(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut rest = bytes;
        loop {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = &rest[skipped..];
            if self.used_up && self.skip == 0 {
                return Err(bytes.len() - rest.len());
            }
            let missing = FRAME_HEADER - self.begun_length;
            let Some((header, after)) = rest.split_at_checked(missing) else {
                self.begun[self.begun_length..][..rest.len()].copy_from_slice(rest);
                self.begun_length += rest.len();
                return Ok(());
            };
            self.begun[self.begun_length..].copy_from_slice(header);
            self.begun_length = 0;
            self.begin();
            rest = after;
        }
    }

    /// A frame begins with the header that is in `begun`.
    fn begin(&mut self) {
        let [high, middle, low, kind, ..] = self.begun;
        self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
        match kind {
            DATA | HEADERS | CONTINUATION => {}
            WINDOW_UPDATE => self.pay(WINDOW_UPDATE_COST),
            _ => self.pay(FRAME_COST + self.skip as u64),
        }
    }

    fn pay(&mut self, cost: u64) {
        if self.allowance < cost {
            let now = Instant::now();
            let waited = now.saturating_duration_since(self.added_at).as_millis() as u64;
            self.added_at = now;
            self.add(waited.saturating_mul(ALLOWANCE_PER_SECOND) / 1_000);
        }
        self.used_up |= self.allowance < cost;
        self.allowance = self.allowance.saturating_sub(cost);
    }

    fn add(&mut self, bytes: u64) {
        self.allowance = self.allowance.saturating_add(bytes).min(ALLOWANCE);
    }
}

/// A stream from which an HTTP/2 client's frames are read, until they have been too many.
#[derive(Debug)]
pub(super) struct Calm<S> {
    stream: S,
    frames: Frames,
    /// What is left of the poison, when it is its turn.
    poison: Option<&'static [u8]>,
    /// Until when a client that was said goodbye to is let read it.
    lingers: Option<Pin<Box<Sleep>>>,
}

impl<S> Calm<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, frames: Frames::new(), poison: None, lingers: None }
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = written {
            self.frames.add(*written as u64);
        }
    }
}

impl<S: AsyncRead + Unpin> Calm<S> {
    /// Reads on for nobody: to a bare close with bytes left unread the system would add a reset,
    /// which takes the goodbye away.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let until = self.lingers.get_or_insert_with(|| Box::pin(sleep(LINGER_MAX)));
        // First, as a flood leaves no time for it.
        if until.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let mut discarded = [0; DISCARD_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

/// Puts as much of the poison into the buffer as it takes; at its end the stream ends.
fn read_poison(poison: &mut &'static [u8], buffer: &mut ReadBuf<'_>) {
    let (now, later) = poison.split_at(poison.len().min(buffer.remaining()));
    buffer.put_slice(now);
    *poison = later;
}

impl<S: AsyncRead + Unpin> AsyncRead for Calm<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(poison) = &mut self.poison {
            read_poison(poison, buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Err(passed) = self.frames.follow(&buffer.filled()[before..]) {
            tracing::debug!("a client sends too many frames that ask for nothing");
            buffer.set_filled(before + passed);
            read_poison(self.poison.insert(&POISON), buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> Stream for Calm<S> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.stream.socket()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Calm<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        if self.poison.is_some() { self.poll_linger(context).map(Ok) } else { Poll::Ready(Ok(())) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const PING: u8 = 0x6;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        frame.extend(vec![PING; payload]);
        frame
    }

    fn begun() -> Frames {
        let mut frames = Frames::new();
        frames.follow(PREFACE).unwrap();
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_ends_behind_the_same_frame_however_it_is_cut() {
        let pings = ALLOWANCE / (FRAME_COST + 8);
        let flood = [frame(DATA, 300), frame(PING, 8).repeat(pings as usize + 2)].concat();
        let end = 309 + 17 * (pings as usize + 1);
        for cut in [1, 7, 9, 16, 17, 18, 100, 8_192, flood.len()] {
            let mut frames = begun();
            let mut passed = 0;
            for part in flood.chunks(cut) {
                match frames.follow(part) {
                    Ok(()) => passed += part.len(),
                    Err(fewer) => {
                        passed += fewer;
                        break;
                    }
                }
            }
            assert_eq!(passed, end, "in pieces of {cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_windows_and_patience_cost_nothing() {
        let mut frames = begun();
        let upload = frame(DATA, 16_384);
        let update = frame(WINDOW_UPDATE, 4);
        for _ in 0..100_000 {
            frames.follow(&upload).unwrap();
            // A line of text to a client that answers each by two updates.
            frames.add(9 + 23);
            frames.follow(&update).unwrap();
            frames.follow(&update).unwrap();
        }
        let ping = frame(PING, 8);
        for _ in 0..100_000 {
            frames.follow(&ping).unwrap();
            advance(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_pings_do_not_pay_for_them() {
        let mut frames = begun();
        let ping = frame(PING, 8);
        let mut borne = 0;
        while frames.follow(&ping).is_ok() {
            frames.add(17);
            borne += 1;
        }
        assert!((1_000..20_000).contains(&borne), "{borne}");
    }
}
