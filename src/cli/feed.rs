//! Server-sent events, as they come in pieces.

/// One of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: String,
    pub(super) data: String,
}

/// Puts pieces together.
#[derive(Debug, Default)]
pub(super) struct Feed {
    unread: Vec<u8>,
    begun: Event,
    /// The last that was told, for going on after it.
    last_id: Option<String>,
}

impl Feed {
    /// The events that are whole with this piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<Event> {
        self.unread.extend_from_slice(piece);
        let mut whole = Vec::new();
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if !line.is_empty() {
                self.field(line);
            } else if self.begun != Event::default() {
                whole.push(std::mem::take(&mut self.begun));
            }
        }
        whole
    }

    /// A line with nothing before its colon is a comment, which shows that somebody is there.
    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => self.begun.kind = value.to_owned(),
            "data" if self.begun.data.is_empty() => self.begun.data = value.to_owned(),
            "data" => self.begun.data.push_str(&format!("\n{value}")),
            "id" => self.last_id = Some(value.to_owned()),
            _ => {}
        }
    }

    /// What to send as `Last-Event-ID` after the connection was lost, with what was begun forgotten.
    pub(super) fn resume(&mut self) -> Option<&str> {
        self.unread.clear();
        self.begun = Event::default();
        self.last_id.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = "retry: 1000\n\n: there\n\nid: 7\nevent: phase\ndata: {\"a\":1}\n\n\
                    event:lost\r\ndata\r\n\r\ndata: x\ndata:  y\n\nevent: begun\n";
        let event = |kind: &str, data: &str| Event { kind: kind.into(), data: data.into() };
        let whole = [event("phase", "{\"a\":1}"), event("lost", ""), event("", "x\n y")];
        for size in [1, 2, 3, 7, text.len()] {
            let mut feed = Feed::default();
            let events: Vec<_> =
                text.as_bytes().chunks(size).flat_map(|piece| feed.push(piece)).collect();
            assert_eq!(events, whole, "in pieces of {size}");
            assert_eq!(feed.resume(), Some("7"));
            assert_eq!(feed.push(b"\n"), []);
        }
    }
}
