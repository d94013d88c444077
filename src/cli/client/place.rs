//! Where the API is: at an address, or at a socket of this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hyper::Uri;

use super::CallError;
use crate::config::{Config, Listen};
use crate::model::PublicUrl;

/// What the URL of a socket begins with; its path follows.
const UNIX: &str = "unix://";

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At a Unix socket.
    Socket(PathBuf),
    /// At an address.
    Url(Base),
}

/// What every call's URL begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// As it is told to people.
    pub(super) url: String,
    pub(super) secure: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// What stands before the path of every call.
    pub(super) prefix: String,
}

impl Place {
    /// Reads `http://…`, `https://…` or `unix:///path`.
    pub(super) fn parse(text: &str) -> Result<Self, CallError> {
        match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') => Ok(Self::Socket(PathBuf::from(path))),
            Some(_) => {
                let why = "unix:// is followed by an absolute path";
                Err(CallError::NoUrl { url: text.to_owned(), why })
            }
            None => Base::parse(text).map(Self::Url),
        }
    }

    /// Of the gateway of a configuration: its socket, if somebody listens there who lets us in, else
    /// its address.
    pub(super) fn of(config: &Config) -> Result<Self, CallError> {
        if let Some(path) = config.admin_socket().filter(|path| answers(path)) {
            return Ok(Self::Socket(path));
        }
        Base::of_admin(&config.listen).map(Self::Url)
    }

    /// As it is told to people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Socket(path) => format!("{UNIX}{}", path.display()),
            Self::Url(base) => base.url.clone(),
        }
    }

    /// What stands before the path of every call.
    pub(super) fn prefix(&self) -> &str {
        match self {
            Self::Socket(_) => "",
            Self::Url(base) => &base.prefix,
        }
    }

    /// What calls say in `Host`.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Socket(_) => "localhost".to_owned(),
            Self::Url(base) => format!("{}:{}", base.host, base.port),
        }
    }

    /// Whether it is on this machine, so that this machine's token is nothing new to it.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Url(base) => base.is_local(),
        }
    }
}

fn answers(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

impl Base {
    fn parse(url: &str) -> Result<Self, CallError> {
        let wrong = |why| CallError::NoUrl { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it has to begin with http://, https:// or unix://")),
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
    pub(super) fn host_name(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    fn is_local(&self) -> bool {
        let ip = self.host_name().parse();
        self.host == "localhost" || ip.is_ok_and(|ip: IpAddr| ip.is_loopback())
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
        for url in ["", "127.0.0.1:8081", "ftp://a", "http://", "http:///x", "a b", "unix://a"] {
            assert!(Place::parse(url).is_err(), "{url}");
        }
        let socket = Place::Socket(PathBuf::from("/run/admin.sock"));
        assert_eq!(Place::parse("unix:///run/admin.sock").expect("a path"), socket);
        assert_eq!(socket.name(), "unix:///run/admin.sock");
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
