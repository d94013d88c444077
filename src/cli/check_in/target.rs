//! Whom reports go to: the URL that a workspace finds in its environment, whose token says which
//! workspace it is; or the default gateway, which knows it by its address.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::route;
use crate::api::CHECK_IN_PATH;
use crate::cli::Misuse;

/// How long a report may take, from the connection to the answer.
const REPORT_MAX: Duration = Duration::from_secs(10);
/// Largest answer that is looked at.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Whom reports go to.
#[derive(Debug)]
pub(super) enum Target {
    /// The host and port, and the path with the token.
    Url { authority: String, path: String },
    /// The default gateway at the time of each report, at this port.
    Gateway { port: u16 },
}

impl Target {
    pub(super) fn at(url: &str) -> anyhow::Result<Self> {
        // The URL itself is not told: it may have a token.
        let wrong = |why: &str| Misuse(format!("the URL to report to {why}"));
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("has to begin with http://").into());
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("names no host"))?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self::Url { authority, path })
    }

    pub(super) fn gateway(port: u16) -> Self {
        Self::Gateway { port }
    }

    /// Reports so much activity, over a connection of its own.
    pub(super) async fn report(&self, active: u32) -> anyhow::Result<()> {
        let done = timeout(REPORT_MAX, self.try_to_report(active)).await;
        let done = done.unwrap_or_else(|_| bail!("no answer within {} s", REPORT_MAX.as_secs()));
        done.with_context(|| format!("could not report to {self}"))
    }

    async fn try_to_report(&self, active: u32) -> anyhow::Result<()> {
        let (authority, path) = match self {
            Self::Url { authority, path } => (authority.clone(), path.as_str()),
            Self::Gateway { port } => {
                let gateway = route::default_gateway()
                    .context("there is no default gateway; set FROSTGATE_CHECK_IN_URL")?;
                (SocketAddr::new(gateway, *port).to_string(), CHECK_IN_PATH)
            }
        };
        let stream = TcpStream::connect(&authority).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(path)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::from(format!("active={active}"))))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            // What is told to people is missing then; the status is not.
            anyhow::Ok((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
        };
        tokio::pin!(exchange);
        // Both on this task, so that the connection is gone when this returns.
        let (status, body) = tokio::select! {
            answer = &mut exchange => answer?,
            ended = connection => {
                ended?;
                exchange.await?
            }
        };
        if status.is_success() { Ok(()) } else { bail!(refusal(status, &body)) }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Document {
        message: String,
    }
    let told = serde_json::from_slice(body).map(|Document { message }| message);
    told.unwrap_or_else(|_| format!("the answer was {status}; is that Frostgate?"))
}

/// Without what is secret of it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { authority, .. } => f.write_str(authority),
            Self::Gateway { port } => write!(f, "port {port} of the default gateway"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_its_token_is_not_told() {
        let target = Target::at("http://172.17.0.1/v1/check-in?token=alice.00ff").unwrap();
        assert_eq!(target.to_string(), "172.17.0.1:80");
        let Target::Url { path, .. } = target else { panic!("no URL") };
        assert_eq!(path, "/v1/check-in?token=alice.00ff");
        for wrong in ["", "https://a/?token=secret", "172.17.0.1", "http:///x?token=secret"] {
            let error = Target::at(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
