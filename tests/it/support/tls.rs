//! An authority of the test's own, certificates by it, and clients that trust it and nobody else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use frostgate::config::Config;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::unique_state_dir;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes certificates in a directory of its own, which goes with it.
pub(crate) struct Authority {
    pub(crate) directory: PathBuf,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let directory = unique_state_dir().with_extension("certs");
        std::fs::create_dir_all(&directory).unwrap();
        Self { directory, certificate, issuer: Issuer::new(params, key) }
    }

    /// One with a certificate for those hosts.
    pub(crate) fn with(hosts: &[&str]) -> Self {
        let authority = Self::new();
        authority.certify("a", hosts);
        authority
    }

    /// Writes `NAME.crt` and `NAME.key`, and returns the certificate.
    pub(crate) fn certify(&self, name: &str, hosts: &[&str]) -> CertificateDer<'static> {
        let now = SystemTime::now();
        self.certify_until(&self.directory.join(name), hosts, now + 90 * DAY)
    }

    pub(crate) fn certify_until(
        &self,
        stem: &Path,
        hosts: &[&str],
        until: SystemTime,
    ) -> CertificateDer<'static> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.not_before = (until - 100 * DAY).into();
        params.not_after = until.into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(stem.with_extension("key"), key.serialize_pem()).unwrap();
        std::fs::write(stem.with_extension("crt"), certificate.pem()).unwrap();
        certificate.der().clone()
    }

    /// A client that trusts this authority, and offers those protocols.
    pub(crate) fn client(&self, alpn: &[&str]) -> TlsConnector {
        self.client_of(&[&TLS13, &TLS12], alpn)
    }

    pub(crate) fn client_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_protocol_versions(versions);
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config).into()
    }
}

/// A client that trusts everybody, to see what it is given.
pub(crate) fn gullible() -> TlsConnector {
    let builder = ClientConfig::builder().dangerous();
    let config = builder.with_custom_certificate_verifier(Arc::new(TrustsAll));
    Arc::new(config.with_no_client_auth()).into()
}

/// A connection to `host`, or why there is none.
pub(crate) async fn try_tls(
    client: &TlsConnector,
    address: SocketAddr,
    host: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    client.connect(ServerName::try_from(host.to_owned()).unwrap(), stream).await
}

pub(crate) async fn tls(
    client: &TlsConnector,
    address: SocketAddr,
    host: &str,
) -> TlsStream<TcpStream> {
    try_tls(client, address, host).await.unwrap()
}

impl Drop for Authority {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// Has the gateway speak TLS with that authority's certificates.
pub(crate) fn secure(config: &mut Config, authority: &Authority) {
    config.listen.tls = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.tls.directory = Some(authority.directory.clone());
}

#[derive(Debug)]
struct TrustsAll;

impl ServerCertVerifier for TrustsAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
