//! `frostgate certs`: an authority for development, and a certificate by it for the domain.
//!
//! What clients have to trust is the authority, once: a certificate is renewed by the same one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::clock::{Clock, rfc3339};
use crate::config::Config;
use crate::secrets;

use super::{Environment, Overrides};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As long as trusting it once should do.
const AUTHORITY_VALID: Duration = DAY.saturating_mul(3_650);
/// With the day before it a year, which is the longest that Mozilla recommends.
const CERTIFICATE_VALID: Duration = DAY.saturating_mul(364);
/// Clocks differ.
const VALID_BEFORE: Duration = DAY;

const AUTHORITY: &str = "ca";

/// The flags.
#[derive(Debug, Args)]
pub(super) struct Certs {
    /// The configuration that says the domain and the directory [default: as for serve]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Workspaces are at {id}.DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Where to put them [default: tls.directory, which is certs beside the configuration]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Make a new certificate in place of the one that is there; the authority stays
    #[arg(long)]
    force: bool,
    /// More hosts that the certificate is to be for
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
}

/// Makes what is missing.
pub(super) fn run(certs: Certs, environment: &Environment) -> anyhow::Result<()> {
    let Certs { config, domain, directory, force, hosts: more } = certs;
    let config = Overrides { config, domain, ..Overrides::default() }.load(environment)?;
    let directory = directory.or_else(|| config.tls.directory.clone()).context(
        "the configuration names its certificates one by one; say with --directory where to put \
         others",
    )?;
    let hosts = hosts(&config, more);
    let files = Files::of(&directory, &config.routing.domain);
    if files.cert.exists() && !force {
        bail!(
            "{} is there already; --force makes a new one in its place, by the same authority",
            files.cert.display()
        );
    }
    fs::create_dir_all(&directory)
        .with_context(|| format!("could not make the directory {}", directory.display()))?;
    let authority = Files::of(&directory, AUTHORITY);
    if !authority.cert.exists() && !authority.key.exists() {
        make_authority(&config.routing.domain, &authority)?;
    }
    let until = make_certificate(&hosts, &authority, &files)?;
    tell(&config, &hosts, until, &files, &authority)
}

/// A certificate and its key.
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(directory: &Path, name: &str) -> Self {
        let file = |kind: &str| directory.join(format!("{name}.{kind}"));
        Self { cert: file("crt"), key: file("key") }
    }

    /// Writes the key first: a certificate without its key would be no use.
    fn write(&self, cert: &str, key: &KeyPair) -> anyhow::Result<()> {
        secrets::write(&self.key, key.serialize_pem().trim_end())?;
        fs::write(&self.cert, cert)
            .with_context(|| format!("could not write {}", self.cert.display()))
    }
}

/// All that the certificate is for, each once.
fn hosts(config: &Config, more: Vec<String>) -> Vec<String> {
    let domain = &config.routing.domain;
    let mut hosts = vec![domain.clone(), format!("*.{domain}"), "localhost".to_owned()];
    if !takes_wildcards(domain) {
        hosts.extend(config.workspaces.keys().map(|id| format!("{id}.{domain}")));
    }
    hosts.extend(config.routing.admin_host.clone());
    hosts.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
    hosts.extend(more.into_iter().map(|host| host.to_ascii_lowercase()));
    let mut seen = BTreeSet::new();
    hosts.retain(|host| seen.insert(host.clone()));
    hosts
}

/// Whether clients accept `*.domain`: most don't directly below a top-level name.
pub(super) fn takes_wildcards(domain: &str) -> bool {
    domain.contains('.')
}

fn make_authority(domain: &str, files: &Files) -> anyhow::Result<()> {
    let mut params = params(&[], AUTHORITY_VALID)?;
    let name = format!("Frostgate development authority for {domain}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().context("could not make a key")?;
    let cert = params.self_signed(&key).context("could not make the authority")?;
    files.write(&cert.pem(), &key)
}

/// Returns when it ends.
fn make_certificate(
    hosts: &[String],
    authority: &Files,
    files: &Files,
) -> anyhow::Result<SystemTime> {
    let authority_cert = read(&authority.cert)?;
    let authority_key = KeyPair::from_pem(&read(&authority.key)?)
        .with_context(|| format!("{} is no key that can be used", authority.key.display()))?;
    let issuer = Issuer::from_ca_cert_pem(&authority_cert, authority_key)
        .with_context(|| format!("{} is no authority", authority.cert.display()))?;
    let mut params = params(hosts, CERTIFICATE_VALID)?;
    params.distinguished_name.push(DnType::CommonName, hosts[0].as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().context("could not make a key")?;
    let cert = params.signed_by(&key, &issuer).context("could not make the certificate")?;
    check(hosts, cert.der(), &authority_cert).with_context(|| {
        format!(
            "clients that trust the authority in {} would not accept what it made; move it and \
             its key away to have another made, which has to be trusted anew",
            authority.cert.display()
        )
    })?;
    files.write(&cert.pem(), &key)?;
    Ok(params.not_after.into())
}

fn params(hosts: &[String], valid: Duration) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts).context("a host is no name")?;
    let now = Clock::MACHINE.now();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now - VALID_BEFORE).into();
    params.not_after = (now + valid).into();
    Ok(params)
}

/// Looks at the certificate as a client does that trusts the authority.
fn check(hosts: &[String], cert: &CertificateDer<'_>, authority: &str) -> anyhow::Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    let now =
        UnixTime::since_unix_epoch(Clock::MACHINE.now().duration_since(SystemTime::UNIX_EPOCH)?);
    for host in hosts.iter().filter(|host| !host.starts_with("*.")) {
        let name = ServerName::try_from(host.as_str()).context(format!("{host:?} is no host"))?;
        client.verify_server_cert(cert, &[], &name, &[], now).context(host.clone())?;
    }
    Ok(())
}

fn tell(
    config: &Config,
    hosts: &[String],
    until: SystemTime,
    files: &Files,
    authority: &Files,
) -> anyhow::Result<()> {
    let domain = &config.routing.domain;
    let ca = authority.cert.display();
    let mut text = format!(
        "{} is valid until {}, for\n  {}\n",
        files.cert.display(),
        rfc3339(until),
        hosts.join(", ")
    );
    if !takes_wildcards(domain) {
        text.push_str(&format!(
            "\nBrowsers and curl accept no *.{domain}, because it is directly below a top-level \
             name: name the\nworkspaces that are not configured here, as in `frostgate certs \
             --force carol.{domain}`, or\nuse a domain such as dev.{domain} (--domain, or domain \
             in [routing]).\n"
        ));
    }
    text.push_str(&format!(
        "\nIt was made by the authority {ca}. Clients have to trust that:\n\
         \x20 curl                  --cacert {ca}\n\
         \x20 Debian                cp {ca} /usr/local/share/ca-certificates/frostgate.crt\n\
         \x20                       update-ca-certificates\n\
         \x20 Firefox               Settings, Privacy & Security, View Certificates, Authorities, Import\n\
         \x20 Chromium on Linux     certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n frostgate -i {ca}\n\
         \x20 macOS                 security add-trusted-cert -d -r trustRoot \\\n\
         \x20                         -k /Library/Keychains/System.keychain {ca}\n\
         Whoever has {} can pose as any host to them; it is needed for renewals only.\n",
        authority.key.display()
    ));
    io::stdout().write_all(text.as_bytes()).context("could not write to the terminal")
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
}
