//! The certificates that there are, by the hosts that they are for.

use std::collections::HashMap;
use std::sync::Arc;

use super::certificate::{Certificate, Pair};

/// At least one certificate.
#[derive(Debug)]
pub(super) struct Set {
    exact: HashMap<String, Arc<Certificate>>,
    /// By what stands behind `*.`.
    wildcard: HashMap<String, Arc<Certificate>>,
    /// All of them; the first is for whoever names no host, or one that none is for.
    all: Vec<Arc<Certificate>>,
}

impl Set {
    /// `None` if there are none. Where several are for one host, the one that is valid longest is
    /// taken: it is the renewed one.
    pub(super) fn new(all: Vec<Arc<Certificate>>) -> Option<Self> {
        let mut by_validity = all.clone();
        by_validity.sort_by_key(|certificate| certificate.not_after());
        let mut set = Self { exact: HashMap::new(), wildcard: HashMap::new(), all };
        for certificate in by_validity {
            for host in certificate.hosts() {
                match host.strip_prefix("*.") {
                    Some(above) => set.wildcard.insert(above.to_owned(), certificate.clone()),
                    None => set.exact.insert(host.clone(), certificate.clone()),
                };
            }
        }
        (!set.all.is_empty()).then_some(set)
    }

    /// The one for a host in lower case: exactly, else by a wildcard, else the default.
    pub(super) fn find(&self, host: Option<&str>) -> &Arc<Certificate> {
        let exact = host.and_then(|host| self.exact.get(host));
        let wildcard = || self.wildcard.get(host?.split_once('.')?.1);
        exact.or_else(wildcard).unwrap_or(&self.all[0])
    }

    /// The one from those files.
    pub(super) fn of(&self, pair: &Pair) -> Option<&Arc<Certificate>> {
        self.all.iter().find(|certificate| certificate.pair() == pair)
    }

    /// Each once; the default first.
    pub(super) fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }
}
