//! The same question by HTTP/2: a server begins with its SETTINGS, whatever it is there for, and no
//! forwarder that accepts in its stead does.

use http::Request;
use http::header::USER_AGENT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Probe;

/// What a client begins with: the preface, and SETTINGS that change nothing (RFC 9113 §3.4).
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// What all SETTINGS begin with but for their length: type, no flags, no stream.
const SETTINGS: [u8; 6] = [4, 0, 0, 0, 0, 0];

pub(super) async fn is_ready(probe: &Probe<'_>, stream: TcpStream) -> bool {
    match &probe.ready_path {
        Some(path) => answers(stream, probe.host, path).await.unwrap_or(false),
        None => introduces_itself(stream).await.unwrap_or(false),
    }
}

async fn introduces_itself(mut stream: TcpStream) -> std::io::Result<bool> {
    stream.write_all(BEGINNING).await?;
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    Ok(head[3..] == SETTINGS)
}

/// Whether it answers with 2xx or 3xx; `None`: not at all.
async fn answers(stream: TcpStream, host: &str, path: &str) -> Option<bool> {
    let request = Request::get(format!("http://{host}{path}"))
        .header(USER_AGENT, "frostgate-probe")
        .body(())
        .ok()?;
    let (mut sender, connection) = h2::client::handshake(stream).await.ok()?;
    let (answer, _) = sender.send_request(request, true).ok()?;
    tokio::select! {
        answer = answer => {
            let status = answer.ok()?.status();
            Some(status.is_success() || status.is_redirection())
        }
        _ = connection => None,
    }
}
