//! Who checks in: by the address that a workspace sends from, or by a token of its own.
//!
//! Tokens are derived (HMAC-SHA-256 of the id under one key), not stored: a container keeps the one
//! that it was made with for as long as it exists, across any restart of Frostgate.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::model::WorkspaceId;

/// Bytes of the code that stand in a token: 128 bits can't be guessed.
const CODE_BYTES: usize = 16;

/// Makes and checks the tokens that workspaces report with.
#[derive(Clone)]
pub struct CheckInKey(Hmac<Sha256>);

impl CheckInKey {
    /// From 32 random bytes that are kept as long as the workspaces.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The token of a workspace: `<id>.<32 hexadecimal digits>`.
    pub fn token(&self, id: &WorkspaceId) -> String {
        let mut token = format!("{id}.");
        for byte in self.code(id) {
            token.push_str(&format!("{byte:02x}"));
        }
        token
    }

    /// The workspace that a token is of; `None` if it is nobody's.
    pub fn verify(&self, token: &str) -> Option<WorkspaceId> {
        let (id, _) = token.split_once('.')?;
        let id = WorkspaceId::parse(id).ok()?;
        let expected = self.token(&id);
        // In constant time, lest the code be guessed byte by byte.
        bool::from(subtle::ConstantTimeEq::ct_eq(expected.as_bytes(), token.as_bytes()))
            .then_some(id)
    }

    fn code(&self, id: &WorkspaceId) -> [u8; CODE_BYTES] {
        let full = self.0.clone().chain_update(id.as_str()).finalize().into_bytes();
        let mut code = [0; CODE_BYTES];
        code.copy_from_slice(&full[..CODE_BYTES]);
        code
    }
}

impl std::fmt::Debug for CheckInKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckInKey(…)")
    }
}

/// An address as it is compared: a v4 address that came over a v6 socket is a v4 address.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_whose_it_is_and_nothing_else_does() {
        let key = CheckInKey::new(&[7; 32]);
        let alice = WorkspaceId::parse("alice").unwrap();
        let token = key.token(&alice);
        assert_eq!(key.verify(&token), Some(alice.clone()));
        let of_bob = token.replace("alice", "bob");
        for wrong in ["", "alice", "alice.", "alice.00", &of_bob, &token.to_uppercase()] {
            assert_eq!(key.verify(wrong), None, "{wrong}");
        }
        assert_eq!(CheckInKey::new(&[8; 32]).verify(&token), None);
    }

    #[test]
    fn mapped_addresses_are_made_canonical() {
        let mapped: IpAddr = "::ffff:172.17.0.2".parse().unwrap();
        assert_eq!(canonical(mapped), IpAddr::from([172, 17, 0, 2]));
    }
}
