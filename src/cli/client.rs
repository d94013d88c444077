//! Calls of a running gateway's API, for the commands that ask it for something.
//!
//! `FROSTGATE_URL` and `FROSTGATE_TOKEN` say where it is and who asks. Without them the gateway is
//! found as `frostgate serve` finds its configuration: by the socket that this names, which takes no
//! token, else by its address with the token in the state directory. That token goes to this
//! machine alone, never to an address that a variable names.

mod place;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::request;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Environment, Overrides};
use crate::config::Config;
use place::Place;

/// How long connecting may take, and a TLS handshake after it.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take, from the call to its last byte, where the call itself waits for
/// nothing.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Largest answer that is kept.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Which gateway is asked.
#[derive(Debug, Default, Args)]
pub(super) struct Gateway {
    /// Where the API is, such as https://frostgate.example.com or unix:///run/frostgate/admin.sock
    /// [default: FROSTGATE_URL, else the configuration's admin socket, else its admin address]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The configuration that says so [default: as for serve]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What every command takes that prints what the API tells.
#[derive(Debug, Default, Args)]
pub(super) struct Remote {
    #[command(flatten)]
    pub(super) gateway: Gateway,
    /// What is printed: a table for people, or JSON, which is the API's own
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub(super) output: Output,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    #[value(alias = "text")]
    Table,
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
    #[error(
        "no gateway answers at {place}: {reason}; start it with `frostgate serve`, or name it by \
         --url or FROSTGATE_URL"
    )]
    Unreachable { place: String, reason: String },
    /// The API said no.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
}

/// The API of one gateway, for one caller.
pub(super) struct Client {
    runtime: Runtime,
    place: Place,
    /// For `https`.
    tls: Option<TlsConnector>,
    /// `None`: the place, or the call, takes none.
    authorization: Option<HeaderValue>,
}

/// The body of an answer.
pub(super) struct Answer(Bytes);

impl Client {
    /// Finds the API, and what to present to it.
    pub(super) fn find(gateway: &Gateway, environment: &Environment) -> anyhow::Result<Self> {
        let mut client = Self::find_unnamed(gateway, environment)?;
        let is_named = named(gateway, environment).is_some();
        let token = match variable(environment, "FROSTGATE_TOKEN") {
            Some(token) => Some(token.clone()),
            None if matches!(client.place, Place::Socket(_)) => None,
            None if !is_named || client.place.is_local() => {
                Some(token_of_state_dir(&gateway.load(environment)?)?)
            }
            None => {
                let place = client.place.name();
                let why = format!("the token of this machine is not sent to {place}");
                return Err(CallError::NoToken(why).into());
            }
        };
        client.authorization = token.as_deref().map(bearer).transpose()?;
        Ok(client)
    }

    /// Finds the API, for the calls that everybody may make.
    pub(super) fn find_unnamed(
        gateway: &Gateway,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let named = named(gateway, environment);
        let place = match named {
            Some(url) => Place::parse(url)?,
            None => Place::of(&gateway.load(environment)?)?,
        };
        let tls = match (&place, named) {
            (Place::Url(base), Some(_)) if base.secure => Some(tls::to_others()?),
            (Place::Url(base), None) if base.secure => {
                Some(tls::to_own(&gateway.load(environment)?)?)
            }
            _ => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("could not start the client")?;
        Ok(Self { runtime, place, tls, authorization: None })
    }

    /// Where it is, as it is told to people.
    pub(super) fn place(&self) -> String {
        self.place.name()
    }

    /// Runs what makes calls, until it is done.
    pub(super) fn block_on<T>(&self, calls: impl Future<Output = T>) -> T {
        self.runtime.block_on(calls)
    }

    /// Makes one call, with `body` as JSON if there is one. Blocks until it is answered.
    pub(super) fn call<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> anyhow::Result<Answer> {
        self.block_on(self.ask(method, path, body, ANSWER_MAX))
    }

    /// A GET.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, path, None::<&()>)
    }

    /// Makes one call that is answered within the limit.
    pub(super) async fn ask<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        limit: Duration,
    ) -> anyhow::Result<Answer> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = self.request(method, path).header(CONTENT_TYPE, "application/json");
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answered = async {
            let response = self.exchange(request).await?;
            let status = response.status();
            let body = self.whole(response).await?;
            if status.is_success() { Ok(Answer(body)) } else { Err(refused(status, &body)) }
        };
        timeout(limit, answered).await.unwrap_or_else(|_| {
            Err(self.unreachable(format!("no answer within {} s", limit.as_secs())))
        })
    }

    /// Makes a GET whose answer has no end that could be waited for. The head of it, and its pieces
    /// as they come.
    pub(super) async fn open(
        &self,
        path: &str,
        field: Option<(&str, &str)>,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = self.request(Method::GET, path);
        let request =
            field.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let request = request.body(Full::new(Bytes::new()))?;
        let response = timeout(ANSWER_MAX, self.exchange(request)).await.unwrap_or_else(|_| {
            Err(self.unreachable(format!("no answer within {} s", ANSWER_MAX.as_secs())))
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(refused(status, &self.whole(response).await?))
    }

    fn request(&self, method: Method, path: &str) -> request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.place.prefix()))
            .header(HOST, self.place.authority());
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        let base = match &self.place {
            Place::Socket(path) => {
                let stream = self.in_time(UnixStream::connect(path)).await?;
                return self.exchange_over(stream, request).await;
            }
            Place::Url(base) => base,
        };
        let connecting = TcpStream::connect((base.host_name(), base.port));
        let stream = self.in_time(connecting).await?;
        let Some(tls) = &self.tls else { return self.exchange_over(stream, request).await };
        let name = ServerName::try_from(base.host_name().to_owned())?;
        let stream = self.in_time(tls.connect(name, stream)).await?;
        self.exchange_over(stream, request).await
    }

    async fn exchange_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Response<Incoming>> {
        let broken = |error: hyper::Error| self.unreachable(error.to_string());
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer, or with the runtime.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broken)
    }

    async fn whole(&self, response: Response<Incoming>) -> anyhow::Result<Bytes> {
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| self.unreachable(error.to_string()))?.to_bytes())
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
        CallError::Unreachable { place: self.place.name(), reason }.into()
    }
}

impl Gateway {
    /// The gateway of that configuration, or of the usual one.
    pub(super) fn of(config: Option<PathBuf>) -> Self {
        Self { url: None, config }
    }

    fn load(&self, environment: &Environment) -> anyhow::Result<Config> {
        let overrides = Overrides { config: self.config.clone(), ..Overrides::default() };
        Ok(overrides.load(environment)?)
    }
}

fn named<'a>(gateway: &'a Gateway, environment: &'a Environment) -> Option<&'a String> {
    gateway.url.as_ref().or_else(|| variable(environment, "FROSTGATE_URL"))
}

fn variable<'a>(environment: &'a Environment, name: &str) -> Option<&'a String> {
    environment.get(name).filter(|value| !value.is_empty())
}

fn bearer(token: &str) -> Result<HeaderValue, CallError> {
    let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| CallError::NoToken("the token has characters that none has".to_owned()))?;
    authorization.set_sensitive(true);
    Ok(authorization)
}

fn token_of_state_dir(config: &Config) -> Result<String, CallError> {
    let file = config.token_file();
    std::fs::read_to_string(&file).map_err(|error| {
        let file = file.display();
        CallError::NoToken(match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "there is no token in {file}, so no gateway has served from there: start it with \
                 `frostgate serve`, or name it by --url or FROSTGATE_URL"
            ),
            _ => format!(
                "could not read the token in {file}: {error}; ask as the user that serves, or as \
                 root"
            ),
        })
    })
}

fn refused(status: StatusCode, body: &[u8]) -> anyhow::Error {
    #[derive(serde::Deserialize)]
    struct Document {
        message: String,
    }
    let told = serde_json::from_slice(body).map(|Document { message }| message);
    let message = told.unwrap_or_else(|_| format!("the gateway answered {status}"));
    CallError::Refused { status, message }.into()
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
