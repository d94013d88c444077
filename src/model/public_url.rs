//! Where end users reach workspaces.

use std::fmt;

use super::WorkspaceId;

/// Scheme, domain and port as end users see them, such as `https://dev.example.com:8443`. Another
/// proxy in front may change all three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// Whether it is `https`.
    pub secure: bool,
    /// Workspaces are at `{id}.{domain}`; a host name in lower case.
    pub domain: String,
    /// The port.
    pub port: u16,
}

impl PublicUrl {
    /// The port that a URL with that scheme needs not name.
    pub fn usual_port(secure: bool) -> u16 {
        if secure { 443 } else { 80 }
    }

    /// Where a workspace is.
    pub fn of_workspace(&self, id: &WorkspaceId) -> String {
        let at = Self { domain: format!("{id}.{}", self.domain), ..self.clone() };
        format!("{at}/")
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.domain)?;
        if self.port != Self::usual_port(self.secure) {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_named_where_it_is_not_the_usual_one() {
        let id = WorkspaceId::parse("alice").unwrap();
        let of = |secure, port| {
            PublicUrl { secure, domain: "a.test".to_owned(), port }.of_workspace(&id)
        };
        assert_eq!(of(true, 443), "https://alice.a.test/");
        assert_eq!(of(true, 80), "https://alice.a.test:80/");
        assert_eq!(of(false, 80), "http://alice.a.test/");
        assert_eq!(of(false, 8080), "http://alice.a.test:8080/");
    }
}
