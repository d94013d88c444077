//! TLS: what a client is offered, and what is remembered of it.
//!
//! All listeners of all threads share one [`Tls`]: a ticket that one thread gave resumes a session
//! at any other. Its keys are kept in memory alone and change every six hours, so that whoever takes
//! them reads no older sessions. Which certificate a client gets is [`Certificates`]' to say, anew
//! for each client.

mod certificate;
mod certificates;
mod set;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite};
use rustls::server::ServerSessionMemoryCache;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::sniff::Protocol;
use super::stream::Stream;
pub use certificate::{Certificate, CertificateError, Pair};
pub use certificates::{Certificates, DirectoryError, Sources, Status, Unusable};

/// Sessions that are remembered for clients that know no tickets, which can be of TLS 1.2 only.
const SESSIONS_MAX: usize = 10_000;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Mozilla's intermediate configuration, in TLS 1.3 and 1.2: forward secrecy and authenticated
/// encryption with everybody. All are strong, so that the client's order decides.
const CIPHER_SUITES: [rustls::SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// TLS as listeners offer it.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
}

/// What a client of a TLS connection and we have agreed on.
#[derive(Debug)]
pub struct Session {
    /// Whom the client said that it wants (SNI). Nobody: it knows an address only.
    server_name: Option<String>,
    certificate: Arc<Certificate>,
    /// What the client and we have agreed to speak (ALPN). Nothing: the client knows no ALPN.
    protocol: Option<Protocol>,
}

impl Tls {
    /// TLS with these certificates. Fails only where the system has no random bytes.
    pub fn new(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        config.ticketer = Ticketer::new()?;
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Ok(Self { acceptor: Arc::new(config).into(), certificates })
    }

    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Session)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(stream).await?;
        let connection = stream.get_ref().1;
        let server_name = connection.server_name().map(str::to_owned);
        let protocol = match connection.alpn_protocol() {
            Some(HTTP2) => Some(Protocol::Http2),
            Some(_) => Some(Protocol::Http1),
            None => None,
        };
        let certificate = self.certificates.find(server_name.as_deref());
        let session = Session { server_name, certificate, protocol };
        Ok((stream, session))
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.get_ref().0.socket()
    }
}

/// The provider of the algorithms, with those that we offer.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { cipher_suites: CIPHER_SUITES.to_vec(), ..aws_lc_rs::default_provider() }
}

impl Session {
    /// Whether a request for that host, in lower case and without its port, may come over this
    /// connection. Browsers use one for all hosts that its certificate is good for (RFC 9113
    /// §9.1.1); a host beyond that is another server's, as far as its client can know. Who named
    /// nobody can't have been misled by a name.
    pub fn is_for(&self, host: &str) -> bool {
        match &self.server_name {
            Some(name) => name == host || self.certificate.covers(host),
            None => true,
        }
    }

    /// Whether the client may speak that.
    pub(super) fn allows(&self, protocol: Protocol) -> bool {
        self.protocol.is_none_or(|agreed| agreed == protocol)
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.certificates)
    }
}
