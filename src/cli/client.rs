//! Calls of a running gateway's API, for the commands that ask it for something.
//!
//! `FROSTGATE_URL` and `FROSTGATE_TOKEN` say where it is and who asks. Without them both are found
//! as `frostgate serve` finds them: the address in the configuration, the token in the state
//! directory. That token goes to this machine alone, never to an address that a variable names.

mod tls;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Environment, Overrides};
use crate::config::{Config, Listen};
use crate::model::PublicUrl;

/// How long connecting may take, and a TLS handshake after it.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take, from the call to its last byte.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What every command takes that calls the API.
#[derive(Debug, Default, Args)]
pub(super) struct Remote {
    /// Where the API is [default: FROSTGATE_URL, else the admin address of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The configuration that says so [default: as for serve]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is printed: text for people, or the API's own answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(super) output: Output,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Text,
    Json,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The URL can't be used.
    #[error("{url:?} is no address of the API: {why}; send one such as http://127.0.0.1:8081")]
    NoUrl { url: String, why: &'static str },
    /// There is nothing to present.
    #[error("{0}; set FROSTGATE_TOKEN to a token of the gateway")]
    NoToken(String),
    /// Nobody answers.
    #[error("is frostgate running? tried {url}: {reason}; set FROSTGATE_URL if it is elsewhere")]
    Unreachable { url: String, reason: String },
    /// The API said no.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
}

/// The API of one gateway, for one caller.
pub(super) struct Client {
    base: Base,
    /// For `https`.
    tls: Option<TlsConnector>,
    authorization: HeaderValue,
}

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Base {
    /// As it is told to people.
    url: String,
    secure: bool,
    host: String,
    port: u16,
    /// What stands before the path of every call.
    prefix: String,
}

/// The body of an answer.
pub(super) struct Answer(Bytes);

impl Client {
    /// Finds the API, and what to present to it.
    pub(super) fn find(remote: &Remote, environment: &Environment) -> anyhow::Result<Self> {
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let load = || -> anyhow::Result<Config> {
            let overrides = Overrides { config: remote.config.clone(), ..Overrides::default() };
            Ok(overrides.load(environment)?)
        };
        let named = remote.url.as_ref().or_else(|| variable("FROSTGATE_URL"));
        let base = match named {
            Some(url) => Base::parse(url)?,
            None => Base::of_admin(&load()?.listen)?,
        };
        let tls = match named {
            _ if !base.secure => None,
            Some(_) => Some(tls::to_others()?),
            None => Some(tls::to_own(&load()?)?),
        };
        let token = match variable("FROSTGATE_TOKEN") {
            Some(token) => token.clone(),
            None if named.is_none() || base.is_local() => token_of_state_dir(&load()?)?,
            None => {
                let why = format!("the token of this machine is not sent to {}", base.url);
                return Err(CallError::NoToken(why).into());
            }
        };
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| CallError::NoToken("the token has characters that none has".to_owned()))?;
        authorization.set_sensitive(true);
        Ok(Self { base, tls, authorization })
    }

    /// Makes one call, with `body` as JSON if there is one. Blocks until it is answered.
    pub(super) fn call<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> anyhow::Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("could not start the client")?;
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base.prefix))
            .header(HOST, format!("{}:{}", self.base.host, self.base.port))
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let answered = async { timeout(ANSWER_MAX, self.exchange(request)).await };
        runtime.block_on(answered).unwrap_or_else(|_| {
            let limit = ANSWER_MAX.as_secs();
            Err(self.unreachable(format!("no answer within {limit} s")))
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let stream = self.connect().await?;
        let Some(tls) = &self.tls else { return self.exchange_over(stream, request).await };
        let name = ServerName::try_from(self.base.host_name().to_owned())?;
        let stream = self.in_time(tls.connect(name, stream)).await?;
        self.exchange_over(stream, request).await
    }

    async fn exchange_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Answer> {
        let broken = |error: hyper::Error| self.unreachable(error.to_string());
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the runtime of this call.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| self.unreachable(error.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok(Answer(body));
        }
        Err(CallError::refused(status, &body).into())
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        self.in_time(TcpStream::connect((self.base.host_name(), self.base.port))).await
    }

    async fn in_time<T>(
        &self,
        connecting: impl Future<Output = std::io::Result<T>>,
    ) -> anyhow::Result<T> {
        match timeout(CONNECT_MAX, connecting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(self.unreachable(error.to_string())),
            Err(_) => {
                let limit = CONNECT_MAX.as_secs();
                Err(self.unreachable(format!("no connection within {limit} s")))
            }
        }
    }

    fn unreachable(&self, reason: String) -> anyhow::Error {
        CallError::Unreachable { url: self.base.url.clone(), reason }.into()
    }
}

impl Base {
    fn parse(url: &str) -> Result<Self, CallError> {
        let wrong = |why| CallError::NoUrl { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it has to begin with http:// or https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("it names no host"))?.to_owned();
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let port = uri.port_u16().unwrap_or(PublicUrl::usual_port(secure));
        Ok(Self { url: url.to_owned(), secure, host, port, prefix })
    }

    /// The admin listener of this machine; one that listens everywhere is here as well.
    fn of_admin(listen: &Listen) -> Result<Self, CallError> {
        let address = listen.admin;
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let scheme = if listen.admin_tls { "https" } else { "http" };
        let url = format!("{scheme}://{}", SocketAddr::new(ip, address.port()));
        if address.port() == 0 {
            let why = "the configuration leaves the port to the system, so set FROSTGATE_URL";
            return Err(CallError::NoUrl { url, why });
        }
        Self::parse(&url)
    }

    /// Without the brackets of an IPv6 address.
    fn host_name(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    fn is_local(&self) -> bool {
        let ip = self.host_name().parse();
        self.host == "localhost" || ip.is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

fn token_of_state_dir(config: &Config) -> Result<String, CallError> {
    let file = config.token_file();
    std::fs::read_to_string(&file).map_err(|error| {
        CallError::NoToken(format!("could not read the token in {}: {error}", file.display()))
    })
}

impl CallError {
    fn refused(status: StatusCode, body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Document {
            message: String,
        }
        let told = serde_json::from_slice(body).map(|Document { message }| message);
        let message = told.unwrap_or_else(|_| format!("the gateway answered {status}"));
        Self::Refused { status, message }
    }
}

impl Answer {
    /// What it says.
    pub(super) fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.0).context("the gateway's answer can't be read; is it older?")
    }

    /// The answer itself, as it came, without the newline at its end.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written_in_a_browser() {
        let rows = [
            ("http://127.0.0.1:8081", "127.0.0.1", 8081, "", true),
            ("http://[::1]:8081/", "[::1]", 8081, "", true),
            ("http://localhost", "localhost", 80, "", true),
            ("http://frost.example.com:80/api/", "frost.example.com", 80, "/api", false),
            ("https://frost.example.com", "frost.example.com", 443, "", false),
        ];
        for (url, host, port, prefix, is_local) in rows {
            let base = Base::parse(url).expect(url);
            let read = (base.host.as_str(), base.port, base.prefix.as_str(), base.is_local());
            assert_eq!(read, (host, port, prefix, is_local), "{url}");
        }
        for url in ["", "127.0.0.1:8081", "ftp://a", "http://", "http:///x", "a b"] {
            assert!(Base::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_this_machines_own() {
        let url = |address: &str| {
            let admin = address.parse().expect("an address");
            Base::of_admin(&Listen { admin, ..Listen::default() })
        };
        assert_eq!(url("0.0.0.0:81").expect("a port").url, "http://127.0.0.1:81");
        assert_eq!(url("[::]:81").expect("a port").url, "http://[::1]:81");
        assert_eq!(url("10.0.0.1:81").expect("a port").url, "http://10.0.0.1:81");
        assert!(url("127.0.0.1:0").is_err());
    }
}
