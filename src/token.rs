//! Tokens that open the API: what they are called, what they may do, how they are recognized.
//!
//! A token is 256 random bits behind a prefix by which programs that search sources for secrets
//! know it. Only its hash is kept. SHA-256 without salt or rounds is enough: those slow down who
//! guesses passwords, and nobody guesses 256 bits.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::model::{InvalidId, ProjectId, label};
use crate::secrets::{SECRET_BYTES, from_hex, hex};

/// What every token that is made here begins with.
const PREFIX: &str = "frostgate_";

/// What a written hash begins with.
const HASH_PREFIX: &str = "sha256:";

/// The name of the token in the state directory.
const OF_STATE_DIR: &str = "admin";

/// What admins call a token: a label, as workspaces' ids are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TokenName(Arc<str>);

impl TokenName {
    /// Parses a label.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        label("a name for a token", text).map(Self)
    }

    /// The name of the token in the state directory, which no other has.
    pub fn of_state_dir() -> Self {
        Self(OF_STATE_DIR.into())
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TokenName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A token itself, for whoever asked for it. It can't be printed by accident.
pub struct Token(String);

impl Token {
    /// The token of these random bytes.
    pub fn new(random: [u8; SECRET_BYTES]) -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
    }

    /// What is kept of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }

    /// The token as its owner presents it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// What is kept of a token. Compared in constant time, by [`ConstantTimeEq`], where it decides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token, or of what somebody takes for one.
    pub fn of(presented: &str) -> Self {
        Self(Sha256::digest(presented).into())
    }

    /// The hash that a text says: `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text.strip_prefix(HASH_PREFIX)?).map(Self)
    }

    /// From the bytes that were kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to keep.
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl ConstantTimeEq for TokenHash {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH_PREFIX}{}", hex(&self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// What a token may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Look at every workspace, change nothing.
    Read,
    /// Everything with the workspaces of these projects, as if there were no others.
    Projects(BTreeSet<ProjectId>),
}

impl Scope {
    /// Its word in the API.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Read => "read",
            Self::Projects(_) => "projects",
        }
    }

    /// The projects that it is limited to.
    pub fn projects(&self) -> Option<&BTreeSet<ProjectId>> {
        match self {
            Self::Admin | Self::Read => None,
            Self::Projects(projects) => Some(projects),
        }
    }
}

/// What opens, and what it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The hash of the token.
    pub hash: TokenHash,
    /// What it may do.
    pub scope: Scope,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_can_be_told_from_other_secrets_and_from_each_other() {
        let one = Token::new([0xff; SECRET_BYTES]);
        assert_ne!(one.hash(), Token::new([0xfe; SECRET_BYTES]).hash());
        let random = one.text().strip_prefix("frostgate_").unwrap();
        assert_eq!(random.len(), 43);
        assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }

    #[test]
    fn a_hash_is_what_sha256sum_prints() {
        // printf abc | sha256sum
        let digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let written = format!("sha256:{digits}");
        let hash = TokenHash::of("abc");
        assert_eq!(hash.to_string(), written);
        assert_eq!(TokenHash::parse(&written), Some(hash));
        assert_eq!(TokenHash::parse(&written.to_uppercase().replace("SHA", "sha")), Some(hash));
        assert!(bool::from(hash.ct_eq(&TokenHash::from_bytes(hash.bytes()))));
        assert!(!bool::from(hash.ct_eq(&TokenHash::of("abd"))));
        for wrong in ["", digits, "sha256:", &written[..70], &format!("{written}0"), "md5:00"] {
            assert_eq!(TokenHash::parse(wrong), None, "{wrong}");
        }
        assert!(!format!("{hash:?}").contains("ba78"));
    }

    #[test]
    fn names_are_labels() {
        for name in ["a", "ci-1", "0"] {
            assert_eq!(TokenName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", "CI", "a b", "-a", "a/b", "ä"] {
            assert!(TokenName::parse(name).is_err(), "{name}");
        }
    }
}
