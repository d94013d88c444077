//! Where a stream of WebSocket frames stands (RFC 6455 §5.2): between two of them, or inside one.
//!
//! Who wants to put a frame of its own into a stream that it only passes on has to know that. The
//! headers of frames tell their lengths, so payloads are skipped unread, and what is kept is a few
//! bytes for a header that has come in part.

/// A header's two fixed bytes, the longest length, and the mask.
const HEADER_MAX: usize = 14;

/// The opcode of the frame after which a side sends nothing more (§5.5.1).
const CLOSE: u8 = 0x8;

/// Status 1001, "going away" (§7.4.1), from a server to its client.
pub(super) const GOING_AWAY: &[u8] = &[0x80 | CLOSE, 2, 0x03, 0xe9];

/// The same from a client to its server, which has to be masked. Masks are there to keep whoever
/// chooses a payload from choosing the bytes on the wire; nobody chooses this one.
pub(super) const GOING_AWAY_MASKED: &[u8] = &[0x80 | CLOSE, 0x80 | 2, 0, 0, 0, 0, 0x03, 0xe9];

/// One direction of a WebSocket, from the first byte after the switch on.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The begin of a header whose rest is still to come.
    begun: [u8; HEADER_MAX],
    begun_length: usize,
    /// Bytes of the current frame's payload that are still to come.
    payload_left: u64,
    closed: bool,
}

/// What a complete header says.
struct Header {
    length: usize,
    payload: u64,
    closes: bool,
}

impl Frames {
    /// Follows the stream over its next bytes.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = usize::try_from(self.payload_left)
                .map_or(bytes.len(), |left| left.min(bytes.len()));
            self.payload_left -= skipped as u64;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            bytes = self.pass_header(bytes);
        }
    }

    /// Bytes that are to come, at least, before the stream stands between two frames, where this
    /// is 0. Who reads no more than that doesn't read over the end of the frame.
    pub(super) fn left(&self) -> u64 {
        match self.begun_length {
            0 => self.payload_left,
            1 => 1,
            begun => (header_length(self.begun[1]) - begun) as u64,
        }
    }

    /// Whether the stream has come to its Close frame.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Takes a header, or as much of it as has come; returns what follows.
    fn pass_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let before = self.begun_length;
        let header = if before == 0 {
            Header::read(bytes)
        } else {
            let taken = bytes.len().min(HEADER_MAX - before);
            self.begun[before..before + taken].copy_from_slice(&bytes[..taken]);
            Header::read(&self.begun[..before + taken])
        };
        match header {
            Some(Header { length, payload, closes }) => {
                self.begun_length = 0;
                self.payload_left = payload;
                self.closed |= closes;
                &bytes[length - before..]
            }
            None => {
                self.begun[before..before + bytes.len()].copy_from_slice(bytes);
                self.begun_length = before + bytes.len();
                &[]
            }
        }
    }
}

impl Header {
    /// Reads the header that `bytes` begin with. `None`: the rest of it is still to come.
    fn read(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else { return None };
        let length = header_length(*second);
        if bytes.len() < length {
            return None;
        }
        let payload = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(*rest.first_chunk()?)),
            127 => u64::from_be_bytes(*rest.first_chunk()?),
            short => u64::from(short),
        };
        Some(Self { length, payload, closes: first & 0x0f == CLOSE })
    }
}

/// The length of a header, by its second byte.
fn header_length(second: u8) -> usize {
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + length + mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload {
            0..=125 => frame.push(mask | payload as u8),
            126..=0xffff => {
                frame.push(mask | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(&[0xaa; 4][..usize::from(masked) * 4]);
        frame.extend(vec![0x88; payload]);
        frame
    }

    /// A stream of frames of every kind of length, and where each ends.
    fn stream() -> (Vec<u8>, Vec<usize>) {
        let (mut stream, mut ends) = (Vec::new(), Vec::new());
        for payload in [0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000, 0, 5] {
            for masked in [false, true] {
                stream.extend(frame(2, masked, payload));
                ends.push(stream.len());
            }
        }
        (stream, ends)
    }

    #[test]
    fn it_is_known_where_frames_end_however_they_are_cut() {
        let (stream, ends) = stream();
        for cut in [1, 2, 3, 5, 7, 13, 64, 1_000, 65_536, stream.len()] {
            let mut frames = Frames::default();
            let mut passed = 0;
            for part in stream.chunks(cut) {
                frames.pass(part);
                passed += part.len();
                assert_eq!(frames.left() == 0, ends.contains(&passed), "at {passed} in {cut}s");
                let end = ends.iter().find(|end| **end >= passed).unwrap_or(&passed);
                assert!(frames.left() as usize <= end - passed, "at {passed} in {cut}s");
            }
            assert!(!frames.closed(), "payloads were taken for headers");
        }
    }

    #[test]
    fn who_reads_what_is_left_stops_at_the_end_of_the_frame() {
        let (stream, ends) = stream();
        let mut stopped = 0;
        for begun in 1..200 {
            let mut frames = Frames::default();
            frames.pass(&stream[..begun]);
            let mut passed = begun;
            while frames.left() > 0 {
                let next = passed + frames.left() as usize;
                frames.pass(&stream[passed..next]);
                passed = next;
            }
            assert_eq!(Some(&passed), ends.iter().find(|end| **end >= begun), "from {begun} on");
            stopped += 1;
        }
        assert_eq!(stopped, 199);
    }

    #[test]
    fn a_close_frame_is_seen_and_ours_are_whole() {
        for close in [GOING_AWAY, GOING_AWAY_MASKED, &frame(CLOSE, false, 0)] {
            let mut frames = Frames::default();
            frames.pass(&frame(1, true, 300));
            assert!(!frames.closed());
            frames.pass(close);
            assert!(frames.closed() && frames.left() == 0, "{close:?}");
        }
    }

    #[test]
    fn a_length_beyond_all_measure_does_no_harm() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3]);
        assert_eq!(frames.left(), u64::MAX - 3);
    }
}
