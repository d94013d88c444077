//! One certificate with its chain and its key, read from two files and found to be usable.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::clock::rfc3339;

/// Largest file that is read: chains of a few certificates have a hundredth of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a certificate with its chain and its private key are, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The certificate, and those that vouch for it after it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A certificate that can be used.
#[derive(Debug)]
pub struct Certificate {
    pair: Pair,
    /// The hosts that it is for: names in lower case, some with a wildcard, and addresses.
    hosts: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    key: Arc<CertifiedKey>,
}

/// Why a certificate is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", pair.cert.display())]
pub struct CertificateError {
    /// Which.
    pub pair: Pair,
    /// Why; names files without their directories.
    pub reason: String,
}

impl CertificateError {
    /// In the words for everybody who may ask how we are.
    pub(super) fn without_directory(&self) -> String {
        format!("{}: {}", file_name(&self.pair.cert), self.reason)
    }
}

impl Pair {
    /// Reads the two files.
    pub(super) fn read(&self) -> Result<Certificate, CertificateError> {
        self.certificate().map_err(|reason| CertificateError { pair: self.clone(), reason })
    }

    fn certificate(&self) -> Result<Certificate, String> {
        let chain = chain(&self.cert)?;
        let first = chain[0].clone();
        let parsed = parsed(&first)?;
        let key = CertifiedKey::from_der(chain, key(&self.key)?, &super::provider());
        let key = key.map_err(|error| self.why_apart(&error))?;
        Ok(Certificate {
            pair: self.clone(),
            hosts: hosts(&parsed)?,
            not_before: date(parsed.validity().not_before)?,
            not_after: date(parsed.validity().not_after)?,
            key: Arc::new(key),
        })
    }

    fn why_apart(&self, error: &Error) -> String {
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                format!("the key in {} is not that of this certificate", file_name(&self.key))
            }
            error => format!("it can't be used with its key: {error}"),
        }
    }

    /// Whether its certificate only vouches for others. Self-signed ones often call themselves
    /// authorities too, but are for some host.
    pub(super) fn is_an_authoritys(&self) -> bool {
        let Ok(chain) = chain(&self.cert) else { return false };
        parsed(&chain[0])
            .is_ok_and(|certificate| certificate.is_ca() && hosts(&certificate) == Ok(vec![]))
    }
}

impl Certificate {
    /// The name of its file.
    pub fn name(&self) -> String {
        file_name(&self.pair.cert)
    }

    /// The hosts that it is for.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Itself, without its chain.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.key.cert[0]
    }

    /// From when on it counts.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When it expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it is for that host. A wildcard stands for one label (RFC 6125 §6.4.3).
    pub fn covers(&self, host: &str) -> bool {
        let above = host.split_once('.').map(|(_, above)| above);
        self.hosts.iter().any(|own| match own.strip_prefix("*.") {
            Some(own) => above == Some(own),
            None => own == host,
        })
    }

    /// Whether it is valid on that date.
    pub(super) fn is_valid(&self, date: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&date)
    }

    /// Whether it is the same, from the same files.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.pair == other.pair && self.key.cert == other.key.cert
    }

    pub(super) fn pair(&self) -> &Pair {
        &self.pair
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Why it is not used while there is one that is valid.
    pub(super) fn out_of_date(&self) -> CertificateError {
        let reason = format!(
            "it is valid from {} to {}, which is not now; the one before it is kept",
            rfc3339(self.not_before),
            rfc3339(self.not_after)
        );
        CertificateError { pair: self.pair.clone(), reason }
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| "there is no certificate in PEM in it".to_owned())
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    let parsed = X509Certificate::from_der(certificate);
    parsed.map(|(_, parsed)| parsed).map_err(|error| format!("it can't be read: {error}"))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read(path)?;
    if path.metadata().is_ok_and(|about| about.mode() & 0o004 != 0) {
        tracing::warn!("{} can be read by everybody; its mode should be 600", path.display());
    }
    // The error may name some of what it found instead, which is nobody's business.
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| format!("there is no private key in PEM in {}", file_name(path)))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("{} could not be read: {error}", file_name(path));
    let file = File::open(path).map_err(unreadable)?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 == FILE_BYTES_MAX {
        return Err(format!("{} is too large", file_name(path)));
    }
    Ok(content)
}

fn hosts(certificate: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|error| format!("its names can't be read: {error}"))?;
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    Ok(names.filter_map(host).collect())
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
            let v6 = || <[u8; 16]>::try_from(*bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
            Some(v4.or_else(|_| v6()).ok()?.to_string())
        }
        _ => None,
    }
}

fn date(time: ASN1Time) -> Result<SystemTime, String> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let date = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    date.ok_or_else(|| "its dates can't be read".to_owned())
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
