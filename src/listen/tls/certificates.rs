//! The certificates that clients get: read from files, and read again when those have changed.
//!
//! A certificate is replaced by one that is right, and by nothing else: what can't be used is told
//! in the log and in [`Certificates::status`], and what was read from the same files before stays.
//! Connections keep what they began with.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{self, Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{Certificate, CertificateError, Pair};
use super::set::Set;
use crate::clock::{Clock, rfc3339};

/// Most pairs that a directory may have.
const PAIRS_MAX: usize = 1_000;
/// How long before its end a certificate is said to end soon: what renews by itself has done so.
const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Where certificates are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Pairs that somebody named.
    pub pairs: Vec<Pair>,
    /// Of this directory every `NAME.crt` or `NAME.pem` is used, with its `NAME.key`. Authorities
    /// are left out: they vouch for others.
    pub directory: Option<PathBuf>,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Some are not right.
    #[error("{}", lines(.0))]
    Wrong(Vec<CertificateError>),
    /// There are none.
    #[error("there is none{}", place(.0.as_deref()))]
    None(Option<PathBuf>),
    /// Their directory can't be looked through.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Why a directory can't be looked through for certificates.
#[derive(Debug, thiserror::Error)]
#[error("could not look for them in {}", directory.display())]
pub struct DirectoryError {
    directory: PathBuf,
    source: io::Error,
}

/// How the certificates are.
#[derive(Debug)]
pub struct Status {
    /// All that are used; the first is the default.
    pub used: Vec<Arc<Certificate>>,
    /// What is wrong, a sentence each; empty: nothing.
    pub problems: Vec<String>,
}

/// The certificates of the moment.
#[derive(Debug)]
pub struct Certificates {
    sources: RwLock<Arc<Sources>>,
    state: RwLock<Arc<State>>,
}

#[derive(Debug)]
struct State {
    set: Arc<Set>,
    /// Why the last reading was not followed, or not in everything.
    refused: Vec<String>,
}

impl Certificates {
    /// Reads them. All have to be right, and one has to be there.
    pub fn open(sources: Sources) -> Result<Self, Unusable> {
        let mut right = Vec::new();
        let mut wrong = Vec::new();
        for read in sources.read()? {
            match read {
                Ok(certificate) => right.push(Arc::new(certificate)),
                Err(error) => wrong.push(error),
            }
        }
        if !wrong.is_empty() {
            return Err(Unusable::Wrong(wrong));
        }
        let Some(set) = Set::new(right) else { return Err(Unusable::None(sources.directory)) };
        for certificate in set.all() {
            tell_used(certificate);
        }
        let state = State { set: Arc::new(set), refused: Vec::new() };
        tell_ends(&state.set);
        Ok(Self { sources: RwLock::new(Arc::new(sources)), state: RwLock::new(Arc::new(state)) })
    }

    /// Reads them again. Blocks on the disk.
    pub fn reload(&self) {
        let old = self.state();
        let new = match self.sources().read() {
            Ok(reading) => old.followed_by(reading),
            Err(DirectoryError { directory, source }) => {
                tracing::warn!(?directory, %source, "can't look for certificates");
                old.kept(format!("their directory can't be looked through: {source}"))
            }
        };
        tell_changes(&old, &new);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }

    /// From now on those of another place are used, or the same read again. Where they are the same,
    /// blocks on the disk.
    pub fn follow(&self, other: Self) {
        let sources = other.sources();
        if sources == self.sources() {
            return self.reload();
        }
        *self.sources.write().unwrap_or_else(PoisonError::into_inner) = sources;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = other.state();
    }

    fn sources(&self) -> Arc<Sources> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How they are.
    pub fn status(&self) -> Status {
        let state = self.state();
        let ends = state.set.all().iter().filter_map(|certificate| end(certificate));
        Status {
            used: state.set.all().to_vec(),
            problems: state.refused.iter().cloned().chain(ends).collect(),
        }
    }

    /// The directories of the files that a reading looks at, as absolute paths.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let sources = self.sources();
        let pairs = sources.pairs.iter();
        let named = pairs.flat_map(|pair| [&pair.cert, &pair.key]).flat_map(|file| {
            // A link may change, and so may what it leads to.
            [path::absolute(file).ok(), fs::canonicalize(file).ok()].into_iter().flatten()
        });
        let parents = named.filter_map(|file| file.parent().map(Path::to_owned));
        let directory = sources.directory.iter().filter_map(|own| path::absolute(own).ok());
        parents.chain(directory).collect()
    }

    /// The one for a host in lower case; for none, the default.
    pub(super) fn find(&self, host: Option<&str>) -> Arc<Certificate> {
        self.state().set.find(host).clone()
    }

    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(client_hello.server_name()).key().clone())
    }
}

impl State {
    fn kept(&self, reason: String) -> Self {
        Self { set: self.set.clone(), refused: vec![reason] }
    }

    /// What is used after a reading: what it found, and where that is not right, what was there
    /// before.
    fn followed_by(&self, reading: Vec<Result<Certificate, CertificateError>>) -> Self {
        let now = Clock::MACHINE.now();
        let mut used = Vec::new();
        let mut refused = Vec::new();
        for read in reading {
            let read = read.and_then(|new| match self.set.of(new.pair()) {
                Some(old) if old.is_valid(now) && !new.is_valid(now) => Err(new.out_of_date()),
                Some(old) if old.is_same(&new) => Ok(old.clone()),
                Some(_) | None => Ok(Arc::new(new)),
            });
            match read {
                Ok(certificate) => used.push(certificate),
                Err(error) => {
                    tracing::warn!(%error, "a certificate can't be used");
                    used.extend(self.set.of(&error.pair).cloned());
                    refused.push(error.without_directory());
                }
            }
        }
        match Set::new(used) {
            Some(set) => Self { set: Arc::new(set), refused },
            None => {
                tracing::warn!("there are no certificates any more; those before are kept");
                self.kept("none are left; those before are kept".to_owned())
            }
        }
    }
}

impl Sources {
    /// Every certificate that should be usable, in their order.
    fn read(&self) -> Result<Vec<Result<Certificate, CertificateError>>, DirectoryError> {
        let named = self.pairs.iter().map(Pair::read);
        let mut all: Vec<_> = named.collect();
        if let Some(directory) = &self.directory {
            let pairs = pairs_in(directory)
                .map_err(|source| DirectoryError { directory: directory.clone(), source })?;
            let found = pairs.iter().filter(|pair| !pair.is_an_authoritys()).map(Pair::read);
            all.extend(found);
        }
        Ok(all)
    }
}

/// The pairs of a directory by name, also those of which only one half is there.
fn pairs_in(directory: &Path) -> io::Result<Vec<Pair>> {
    let mut stems = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let name = PathBuf::from(entry?.file_name());
        let is_ours =
            name.extension().is_some_and(|kind| kind == "crt" || kind == "pem" || kind == "key");
        let is_hidden = name.to_string_lossy().starts_with('.');
        if is_ours && !is_hidden {
            stems.insert(directory.join(name.with_extension("")));
        }
    }
    if stems.len() > PAIRS_MAX {
        let words = format!("it has more than {PAIRS_MAX} certificates");
        return Err(io::Error::other(words));
    }
    let pair = |stem: PathBuf| {
        let file = |kind: &str| {
            let mut name = stem.clone().into_os_string();
            name.push(kind);
            PathBuf::from(name)
        };
        let pem = Some(file(".pem")).filter(|pem| pem.exists() && !file(".crt").exists());
        Pair { cert: pem.unwrap_or_else(|| file(".crt")), key: file(".key") }
    };
    Ok(stems.into_iter().map(pair).collect())
}

fn tell_changes(old: &State, new: &State) {
    for certificate in new.set.all() {
        if !old.set.of(certificate.pair()).is_some_and(|old| Arc::ptr_eq(old, certificate)) {
            tell_used(certificate);
        }
    }
    for certificate in old.set.all() {
        if new.set.of(certificate.pair()).is_none() {
            tracing::info!(certificate = certificate.name(), "a certificate is no longer used");
        }
    }
    tell_ends(&new.set);
}

fn tell_used(certificate: &Certificate) {
    tracing::info!(
        certificate = certificate.name(),
        hosts = certificate.hosts().join(", "),
        until = rfc3339(certificate.not_after()),
        "a certificate is used"
    );
}

fn tell_ends(set: &Set) {
    for reason in set.all().iter().filter_map(|certificate| end(certificate)) {
        tracing::warn!(reason, "a certificate has to be renewed");
    }
}

/// What has to be said about a certificate that is not valid, or not for long.
fn end(certificate: &Certificate) -> Option<String> {
    let (name, until) = (certificate.name(), rfc3339(certificate.not_after()));
    let now = Clock::MACHINE.now();
    if !certificate.is_valid(now) {
        return Some(format!("{name}: it is not valid now; it ends {until}"));
    }
    (!certificate.is_valid(now + SOON)).then(|| format!("{name}: it ends {until}"))
}

fn place(directory: Option<&Path>) -> String {
    directory.map(|directory| format!(" in {}", directory.display())).unwrap_or_default()
}

fn lines(errors: &[CertificateError]) -> String {
    let lines: Vec<String> = errors.iter().map(CertificateError::to_string).collect();
    lines.join("; ")
}
