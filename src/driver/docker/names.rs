//! Names that may stand in a path of the engine's API.
//!
//! bollard puts names into paths as they are: a "container" called `a/../../images/prune?x=` would
//! call something else altogether. So no text reaches a path except through one of these types.

use std::fmt;
use std::sync::Arc;

use crate::model::WorkspaceId;

/// A container that can be asked for: a 64-digit id that the engine gave, or the name that we give.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct ContainerRef(Arc<str>);

impl ContainerRef {
    /// An id as the engine lists it: 64 hexadecimal digits.
    pub(super) fn from_engine(id: &str) -> Option<Self> {
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (id.len() == 64 && id.bytes().all(hexadecimal)).then(|| Self(id.into()))
    }

    /// The name of the container that we make for a workspace. A DNS label can't leave its segment.
    pub(super) fn ours(id: &WorkspaceId) -> Self {
        Self(format!("frostgate-{id}").into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As people see it: the first twelve digits of an id, or the name.
    pub(super) fn short(&self) -> &str {
        if self.0.len() == 64 { &self.0[..12] } else { &self.0 }
    }
}

impl fmt::Debug for ContainerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// A network's name, by the engine's own rule for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NetworkName(String);

impl NetworkName {
    pub(super) fn parse(text: &str) -> Option<Self> {
        is_name(text, "_.-").then(|| Self(text.to_owned()))
    }

    /// The name of the network that an isolated workspace has to itself.
    pub(super) fn ours(id: &WorkspaceId) -> Self {
        Self(format!("frostgate-{id}"))
    }

    /// Whether it is one without an address of the container's own, from which this machine has no
    /// gateway.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.0.as_str(), "host" | "none")
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A volume's name, by the same rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VolumeName(String);

impl VolumeName {
    pub(super) fn parse(text: &str) -> Option<Self> {
        is_name(text, "_.-").then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An image's name: `repository:tag`, `host:5000/path/name@sha256:…` or an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ImageName(String);

impl ImageName {
    pub(super) fn parse(text: &str) -> Option<Self> {
        is_name(text, "_.-/:@").then(|| Self(text.to_owned()))
    }

    /// The repository, and the tag or digest that is meant.
    pub(super) fn parts(&self) -> (&str, &str) {
        if let Some(parts) = self.0.split_once('@') {
            return parts;
        }
        // A colon before the last slash is a registry's port.
        match self.0.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (&self.0, "latest"),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Begins with a letter or digit, goes on with those and `others`, and can't climb.
fn is_name(text: &str, others: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
        && !text.contains("..")
        && !text.contains("//")
        && !text.contains("/.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_ids_come_from_the_engine() {
        assert!(ContainerRef::from_engine(&"0a".repeat(32)).is_some());
        let (upper, long, path) =
            ("0A".repeat(32), "a".repeat(65), format!("{}/..", "a".repeat(61)));
        for bad in ["", "abc", &upper, &long, &path] {
            assert_eq!(ContainerRef::from_engine(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_that_leaves_its_segment_is_a_network() {
        for good in ["bridge", "my_app.default-1", "0"] {
            assert!(NetworkName::parse(good).is_some(), "{good}");
        }
        for bad in
            ["", ".", "..", "a..b", "a/b", "a?b", "a%2fb", "-a", "a b", "ä", "a#", "container:x"]
        {
            assert_eq!(NetworkName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn images_may_have_hosts_tags_and_digests_and_nothing_else() {
        for good in ["nginx", "localhost/a:b", "host:5000/a/b@sha256:00ff"] {
            assert!(ImageName::parse(good).is_some(), "{good}");
        }
        let parts = |text| {
            ImageName::parse(text).map(|name| {
                let (repository, tag) = name.parts();
                format!("{repository} {tag}")
            })
        };
        assert_eq!(parts("nginx").as_deref(), Some("nginx latest"));
        assert_eq!(parts("host:5000/a").as_deref(), Some("host:5000/a latest"));
        assert_eq!(parts("host:5000/a:1").as_deref(), Some("host:5000/a 1"));
        assert_eq!(parts("a@sha256:00ff").as_deref(), Some("a sha256:00ff"));
        for bad in ["", "../x", "a/../b", "a/./b", "a//b", "a?b=c", "a#b", "a%2e", "a b", "/a"] {
            assert_eq!(ImageName::parse(bad), None, "{bad}");
        }
    }
}
