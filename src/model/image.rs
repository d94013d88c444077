//! What a container of ours is made of.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ID_PLACEHOLDER, WorkspaceId};

/// An image, and how a container is made from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// As the engine names it.
    #[serde(rename = "image")]
    pub name: String,
    /// Overrides the image's command where it isn't empty.
    #[serde(default)]
    pub command: Vec<String>,
    /// The network it is attached to; `None`: the driver's default.
    pub network: Option<String>,
    /// Whether it has a network to itself, which is removed with it. Then `network` does not count.
    #[serde(default)]
    pub isolate: bool,
    /// Directories and volumes of the engine's machine, each at a place of its own.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Processor time in billionths of a processor; `None`: no limit.
    #[serde(default)]
    pub nano_cpus: Option<u64>,
    /// When the image is fetched from its registry.
    #[serde(default)]
    pub pull: Pull,
    /// Whether every port that the image exposes is published on 127.0.0.1, each at a free one.
    /// Never on other addresses: who came in there would not be counted, and isolation would end.
    #[serde(default)]
    pub publish_ports: bool,
}

impl Image {
    /// An image and nothing else: the defaults for all the rest.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            command: Vec::new(),
            network: None,
            isolate: false,
            mounts: Vec::new(),
            nano_cpus: None,
            pull: Pull::default(),
            publish_ports: false,
        }
    }
}

/// When an image is fetched from its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// When the engine doesn't have it.
    #[default]
    Missing,
    /// Never: it is here, or the workspace can't be made.
    Never,
    /// Before every container that is made from it.
    Always,
}

/// A directory or volume that a container sees: `/directory:/target`, `volume:/target`, and with
/// `:ro` behind it what the container can't write to. Kept and written as that text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mount {
    source: MountSource,
    target: String,
    read_only: bool,
}

/// What is mounted. `{id}` in it stands for the workspace's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A directory of the engine's machine, by its absolute path. It has to be there.
    Directory(String),
    /// A volume, by its name. The engine makes it where there is none.
    Volume(String),
}

/// Why a text is not a mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a mount: \"/directory:/target\" or \"volume:/target\", absolute paths, \
     {{id}} as the only placeholder, and perhaps \":ro\" behind it"
)]
pub struct InvalidMount {
    text: String,
}

impl Mount {
    /// Parses a text such as `/srv/homes/{id}:/home` or `cache:/var/cache:ro`.
    pub fn parse(text: &str) -> Result<Self, InvalidMount> {
        Self::parts(text).ok_or_else(|| InvalidMount { text: text.chars().take(200).collect() })
    }

    fn parts(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, mode) = match parts[..] {
            [source, target] => (source, target, "rw"),
            [source, target, mode] => (source, target, mode),
            _ => return None,
        };
        let read_only = match mode {
            "ro" => true,
            "rw" => false,
            _ => return None,
        };
        let is_target = target.starts_with('/') && !target.trim_matches('/').is_empty();
        let is_plain = |text: &str| !text.contains(char::is_control);
        (is_target && is_plain(text)).then_some(())?;
        let source = MountSource::parse(source)?;
        Some(Self { source, target: target.to_owned(), read_only })
    }

    /// What is mounted for a workspace: a path or a volume's name.
    pub fn source(&self, id: &WorkspaceId) -> MountSource {
        match &self.source {
            MountSource::Directory(path) => MountSource::Directory(id.fill_in(path)),
            MountSource::Volume(name) => MountSource::Volume(id.fill_in(name)),
        }
    }

    /// Where the container sees it: an absolute path.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether the container can't write to it.
    pub fn read_only(&self) -> bool {
        self.read_only
    }
}

impl MountSource {
    fn parse(text: &str) -> Option<Self> {
        let filled = text.replace(ID_PLACEHOLDER, "id");
        if filled.contains(['{', '}']) {
            return None;
        }
        if filled.starts_with('/') {
            return Some(Self::Directory(text.to_owned()));
        }
        // The engine's rule for the names of volumes.
        let is_name = filled.len() >= 2
            && filled.starts_with(|c: char| c.is_ascii_alphanumeric())
            && filled.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        is_name.then(|| Self::Volume(text.to_owned()))
    }
}

impl fmt::Display for MountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Directory(text) | Self::Volume(text)) = self;
        f.write_str(text)
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.read_only { ":ro" } else { "" };
        write!(f, "{}:{}{mode}", self.source, self.target)
    }
}

impl TryFrom<String> for Mount {
    type Error = InvalidMount;

    fn try_from(text: String) -> Result<Self, InvalidMount> {
        Self::parse(&text)
    }
}

impl From<Mount> for String {
    fn from(mount: Mount) -> Self {
        mount.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_and_written_as_one_text() {
        for text in ["/srv/data:/data", "/:/host:ro", "cache-{id}:/var/cache", "/srv/{id}/a b:/x"] {
            assert_eq!(Mount::parse(text).map(|mount| mount.to_string()).as_deref(), Ok(text));
        }
        let writable = Mount::parse("/srv:/data:rw").unwrap();
        assert_eq!(writable.to_string(), "/srv:/data");
        assert!(Mount::parse("cache:/data:ro").unwrap().read_only());
    }

    #[test]
    fn what_the_engine_could_not_mount_is_refused() {
        let bad = [
            "",
            "/srv",
            "./data:/data",
            "../x:/data",
            "a/b:/data",
            "-a:/data",
            "v:/data",
            "cache:data",
            "cache:/",
            ":/data",
            "cache:/data:z",
            "cache:/data:ro:rw",
            "cache-{name}:/data",
            "/srv/{id:/data",
            "/srv/a\nb:/data",
        ];
        for text in bad {
            let error = Mount::parse(text).expect_err(text).to_string();
            assert!(error.contains("is not a mount"), "{error}");
        }
    }

    #[test]
    fn the_id_stands_where_its_placeholder_does() {
        let id = WorkspaceId::parse("alice").unwrap();
        let source = |text| Mount::parse(text).unwrap().source(&id);
        let home = MountSource::Directory("/srv/alice/home-alice".to_owned());
        assert_eq!(source("/srv/{id}/home-{id}:/home"), home);
        assert_eq!(source("cache-{id}:/c"), MountSource::Volume("cache-alice".to_owned()));
        assert_eq!(source("cache:/c"), MountSource::Volume("cache".to_owned()));
    }
}
