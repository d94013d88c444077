//! Certificates, kept up to date: who renews them writes files, and nobody has to tell us.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::files::Reloads;
use crate::api::{Check, Health};
use crate::clock::rfc3339;
use crate::config::Config;
use crate::listen::tls::{Certificates, Pair, Sources};

/// The certificates of the configuration; `None`: nothing speaks TLS.
pub(super) fn open(config: &Config) -> anyhow::Result<Option<Certificates>> {
    if config.listen.tls.is_empty() && !config.listen.admin_tls {
        return Ok(None);
    }
    let named = config.tls.certificates.iter();
    let sources = Sources {
        pairs: named.map(|pair| Pair { cert: pair.cert.clone(), key: pair.key.clone() }).collect(),
        directory: config.tls.directory.clone(),
    };
    let certificates = Certificates::open(sources).context(
        "the certificates for TLS can't be used; tls.directory and tls.certificates say where \
         they are, and `frostgate certs` makes some for development",
    )?;
    Ok(Some(certificates))
}

impl Reloads for Certificates {
    fn directories(&self) -> BTreeSet<PathBuf> {
        self.directories()
    }

    fn reload(&self) {
        self.reload();
    }
}

/// How they are, for whoever asks whether we are ready.
pub(super) fn check(certificates: Arc<Certificates>) -> Check {
    Check::new("certificates", move || {
        let status = certificates.status();
        if !status.problems.is_empty() {
            return Health::Degraded(status.problems.join("; "));
        }
        let first = status.used.iter().map(|certificate| certificate.not_after()).min();
        let until = first.map(rfc3339).unwrap_or_default();
        Health::Good(format!("{} used; the first ends {until}", status.used.len()))
    })
}
