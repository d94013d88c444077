//! Which workspace a request is for.
//!
//! One authority decides (RFC 9112 §3.2, RFC 9113 §8.3.1): the request's target where it names
//! one, else `Host`; where both do they must agree. What two parsers could read differently is
//! refused.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

use crate::lifecycle::{Registry, Workspace};

/// Where workspaces are found by path.
const PATH_PREFIX: &str = "/w/";

/// Where a request goes.
#[derive(Debug)]
pub(super) enum Route {
    /// To a workspace by its host name.
    Host(Arc<Workspace>),
    /// To a workspace by its path; this prefix is to be taken off.
    Path(Arc<Workspace>, String),
    /// `/w/{id}` without the slash that relative links need.
    AddSlash,
    /// To none.
    Elsewhere,
}

/// The authority that a request is for, in lower case and without its port; empty where an
/// HTTP/1.0 client named none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority<'a>(Cow<'a, str>);

/// The request does not say clearly whom it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous;

impl<'a> Authority<'a> {
    /// Reads it from a request's head.
    pub(super) fn of<B>(request: &'a Request<B>) -> Result<Self, Ambiguous> {
        let host = only_host(request.headers())?;
        // A target in full is no reason to leave the host out (RFC 9112 §3.2).
        if host.is_none() && request.version() == Version::HTTP_11 {
            return Err(Ambiguous);
        }
        if !request.uri().scheme().is_none_or(is_web) {
            return Err(Ambiguous);
        }
        let target = request.uri().authority().map(|authority| authority.as_str());
        let chosen = match (target, host) {
            (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => {
                return Err(Ambiguous);
            }
            (Some(target), _) => target,
            (None, Some(host)) => host,
            (None, None) if request.version() <= Version::HTTP_10 => "",
            (None, None) => return Err(Ambiguous),
        };
        host_name(chosen).map(Self)
    }

    /// The name alone.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_web(scheme: &Scheme) -> bool {
    *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS
}

fn only_host(headers: &HeaderMap) -> Result<Option<&str>, Ambiguous> {
    let mut all = headers.get_all(HOST).iter();
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(Ambiguous);
    }
    first.to_str().map(Some).map_err(|_| Ambiguous)
}

/// The host of `host[:port]`, lower case, if both are well formed.
fn host_name(authority: &str) -> Result<Cow<'_, str>, Ambiguous> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']').ok_or(Ambiguous)?;
            let (inner, after) = (&rest[..end], &rest[end + 1..]);
            inner.parse::<std::net::Ipv6Addr>().map_err(|_| Ambiguous)?;
            (inner, after.strip_prefix(':').or(after.is_empty().then_some("")))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("")),
        },
    };
    let port = port.ok_or(Ambiguous)?;
    let port_is_fine = port.is_empty() || port.parse::<u16>().is_ok_and(|_| is_digits(port));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let bracketed = authority.starts_with('[');
    if !port_is_fine || !(bracketed || host.bytes().all(is_name)) {
        return Err(Ambiguous);
    }
    // `alice.localhost.` is `alice.localhost`, written in full.
    let host = host.strip_suffix('.').unwrap_or(host);
    Ok(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Finds the workspace: by host, then, where `paths` are on, by path.
pub(super) fn find(registry: &Registry, authority: &str, path: &str, paths: bool) -> Route {
    if let Some(workspace) = registry.by_host(authority) {
        return Route::Host(workspace);
    }
    let Some(rest) = path.strip_prefix(PATH_PREFIX).filter(|_| paths) else {
        return Route::Elsewhere;
    };
    let id = rest.split('/').next().unwrap_or_default();
    match registry.get(id) {
        Some(_) if rest.len() == id.len() => Route::AddSlash,
        Some(workspace) => Route::Path(workspace, format!("{PATH_PREFIX}{id}")),
        None => Route::Elsewhere,
    }
}

/// The path as the workspace sees it, short of `prefix`.
pub(super) fn path_below<'a>(uri: &'a Uri, prefix: Option<&str>) -> &'a str {
    uri.path().strip_prefix(prefix.unwrap_or_default()).unwrap_or_default()
}

/// The target to send to the workspace: origin-form, byte for byte as it came, short of `prefix`.
pub(super) fn origin_form(method: &Method, uri: &Uri, prefix: Option<&str>) -> Option<Uri> {
    // A target without a path is an authority, which is for CONNECT alone.
    let whole = uri.path_and_query()?;
    if whole.as_str().starts_with('*') && method != Method::OPTIONS {
        return None;
    }
    let whole = match prefix {
        Some(prefix) => whole.as_str().strip_prefix(prefix)?.parse().ok()?,
        None => whole.clone(),
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(whole);
    Uri::from_parts(parts).ok()
}

/// The same place by HTTPS. `host` is one that an [`Authority`] has.
pub(super) fn https_url(host: &str, port: u16, uri: &Uri) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let path = uri.path_and_query().map(|whole| whole.as_str());
    let path = path.filter(|path| path.starts_with('/')).unwrap_or("/");
    format!("https://{host}{port}{path}")
}

/// The value of `Host` for the workspace: what the client asked for.
pub(super) fn host_value<B>(request: &Request<B>) -> Option<HeaderValue> {
    match request.headers().get(HOST) {
        Some(host) => Some(host.clone()),
        None => HeaderValue::from_str(request.uri().authority()?.as_str()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(target: &str, hosts: &[&str], version: Version) -> Result<String, Ambiguous> {
        let mut request = Request::builder().uri(target).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let request = request.body(()).unwrap();
        Authority::of(&request).map(|authority| authority.as_str().to_owned())
    }

    #[test]
    fn one_authority_decides() {
        let h11 = Version::HTTP_11;
        let good = |name: &str| Ok(name.to_owned());
        assert_eq!(authority("/", &["Alice.LOCALHOST:8080"], h11), good("alice.localhost"));
        assert_eq!(authority("/", &["a.localhost."], h11), good("a.localhost"));
        assert_eq!(authority("/", &["[::1]:80"], h11), good("::1"));
        assert_eq!(authority("http://a.b/", &["a.b"], h11), good("a.b"));
        assert_eq!(authority("http://a.b/", &[], Version::HTTP_2), good("a.b"));
        assert_eq!(authority("/", &[], Version::HTTP_10), good(""));
        let refused: [(&str, &[&str]); 10] = [
            ("/", &[]),
            ("/", &["a", "b"]),
            ("/", &["a", "a"]),
            ("http://a.b/", &["c.d"]),
            ("/", &["a:b"]),
            ("/", &["a:99999"]),
            ("/", &["a:+80"]),
            ("/", &["a@b"]),
            ("/", &["a/b"]),
            ("/", &["[::1]x"]),
        ];
        for (target, hosts) in refused {
            assert_eq!(authority(target, hosts, h11), Err(Ambiguous), "{target} {hosts:?}");
        }
    }

    #[test]
    fn the_target_is_passed_on_byte_for_byte() {
        let form = |uri: &str, prefix| {
            let uri: Uri = uri.parse().unwrap();
            origin_form(&Method::GET, &uri, prefix).map(|uri| uri.to_string())
        };
        let odd = "/a//b/../%2e%2F?x=%zz&y";
        assert_eq!(form(odd, None).as_deref(), Some(odd));
        assert_eq!(form("http://h/p?q", None).as_deref(), Some("/p?q"));
        assert_eq!(form("/w/a/x?y", Some("/w/a")).as_deref(), Some("/x?y"));
        assert_eq!(form("*", None), None);
        assert_eq!(form("a.localhost", None), None);
    }

    #[test]
    fn a_place_by_https_is_the_same_place() {
        let url = |host, port, uri: &str| https_url(host, port, &uri.parse().unwrap());
        assert_eq!(url("a.b", 443, "/x//y?q=%2f&"), "https://a.b/x//y?q=%2f&");
        assert_eq!(url("a.b", 8443, "http://a.b:8080/x"), "https://a.b:8443/x");
        assert_eq!(url("::1", 8443, "/"), "https://[::1]:8443/");
        assert_eq!(url("a.b", 443, "*"), "https://a.b/");
    }
}
