//! What a proxy does to the fields of a message (RFC 9110 §7.6), edited in place.
//!
//! Order matters: what the client's `Connection` names is removed first and what we add is added
//! last, so that nothing that a client sends can remove or imitate a field of ours.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};

use super::extended_connect::ExtendedConnect;
use super::request_id::X_REQUEST_ID;
use crate::lifecycle::Visit;
use crate::listen::{Ends, HEADERS_MAX};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What browsers are known by that are logged in at the admin API.
const SESSION_COOKIES: [&[u8]; 2] = [b"frostgate", b"__Host-frostgate"];

/// What ends at every hop, named by `Connection` or not.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
];

/// Hops after which a request is certainly going in circles.
const HOPS_MAX: usize = 32;

/// Why a request can't be passed on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unforwardable {
    /// It could be read in two ways, or tries to take away what it must not.
    Ambiguous,
    /// Its body is encoded in a way that we can't pass on.
    UnknownEncoding,
    /// It has been here before.
    Loop,
    /// It has more fields than we pass on.
    TooManyFields,
}

/// Our entry in `Via` fields.
#[derive(Debug, Clone)]
pub(super) struct Via {
    pseudonym: String,
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// `pseudonym` is a token of RFC 9110.
    pub(super) fn new(pseudonym: &str) -> Self {
        let entry = |version: &str| {
            HeaderValue::from_str(&format!("{version} {pseudonym}"))
                .unwrap_or(HeaderValue::from_static("1.1 frostgate"))
        };
        Self {
            pseudonym: pseudonym.to_owned(),
            http10: entry("1.0"),
            http11: entry("1.1"),
            http2: entry("2.0"),
        }
    }

    fn entry(&self, received: Version) -> HeaderValue {
        match received {
            Version::HTTP_2 => self.http2.clone(),
            Version::HTTP_09 | Version::HTTP_10 => self.http10.clone(),
            _ => self.http11.clone(),
        }
    }

    fn is_loop(&self, headers: &HeaderMap) -> bool {
        let mut hops = 0;
        for value in headers.get_all(header::VIA) {
            for entry in value.as_bytes().split(|byte| *byte == b',') {
                hops += 1;
                let mut words = entry.split(|byte| byte.is_ascii_whitespace());
                if words.any(|word| word == self.pseudonym.as_bytes()) {
                    return true;
                }
            }
        }
        hops > HOPS_MAX
    }
}

/// Refuses what can't be passed on. Looks at the head only, changes nothing.
pub(super) fn check<B>(request: &Request<B>, via: &Via) -> Result<(), Unforwardable> {
    let headers = request.headers();
    if let Some(encoding) = headers.get(header::TRANSFER_ENCODING) {
        // Two framings of one body is how requests are smuggled (RFC 9112 §6.1).
        if headers.contains_key(header::CONTENT_LENGTH) || request.version() < Version::HTTP_11 {
            return Err(Unforwardable::Ambiguous);
        }
        let one = headers.get_all(header::TRANSFER_ENCODING).iter().count() == 1;
        if !one || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Unforwardable::UnknownEncoding);
        }
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(Unforwardable::Ambiguous);
    }
    for name in nominated(headers) {
        if name.is_some_and(|name| is_essential(&name)) {
            return Err(Unforwardable::Ambiguous);
        }
    }
    if headers.contains_key(header::VIA) && via.is_loop(headers) {
        return Err(Unforwardable::Loop);
    }
    // Over HTTP/2 nobody has counted them; a cookie may come in crumbs there (RFC 9113 §8.2.3).
    if headers.len() > HEADERS_MAX {
        let crumbs = headers.get_all(header::COOKIE).iter().count();
        if headers.len() - crumbs.saturating_sub(1) > HEADERS_MAX {
            return Err(Unforwardable::TooManyFields);
        }
    }
    Ok(())
}

/// Says what is wrong with an answer that its client could read in another way than we do, or not
/// at all (RFC 9112 §6). Its workspace is not to be trusted to have meant well.
pub(super) fn check_answer<B>(answer: &Response<B>) -> Result<(), &'static str> {
    let headers = answer.headers();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if let Some(encoding) = headers.get(header::TRANSFER_ENCODING) {
        let one = headers.get_all(header::TRANSFER_ENCODING).iter().count() == 1;
        if length.is_some() {
            return Err("it has both a length and a transfer coding");
        }
        if !one || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("it has a transfer coding that nobody asked for");
        }
    }
    let is_number = |length: &HeaderValue| length.as_bytes().iter().all(u8::is_ascii_digit);
    if lengths.next().is_some() || !length.is_none_or(is_number) {
        return Err("it has more than one length, or a strange one");
    }
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS && !upgrades_to_websocket(headers) {
        return Err("it switches to a protocol that nobody asked for");
    }
    Ok(())
}

fn upgrades_to_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Whether a request asks for a WebSocket, and may (RFC 9110 §7.8).
pub(super) fn wants_websocket<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    if ExtendedConnect::of(request).is_some() {
        return true;
    }
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && upgrades_to_websocket(headers)
        && connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether somebody opens a page. Browsers say so; of those that don't yet, and of other programs,
/// whoever asks for a page by name is believed.
pub(super) fn visit<B>(request: &Request<B>) -> Visit {
    let navigates = match request.headers().get(SEC_FETCH_MODE) {
        Some(mode) => mode == "navigate",
        None => request.method() == Method::GET && accepts_html(request.headers()),
    };
    if navigates { Visit::Navigation } else { Visit::Background }
}

/// Whether somebody looks at a tab of a browser in which the answer is to appear.
pub(super) fn opens_page<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let into_tab = headers.get(SEC_FETCH_DEST).is_none_or(|dest| dest == "document");
    request.method() == Method::GET
        && into_tab
        && !headers.contains_key(header::UPGRADE)
        && visit(request) == Visit::Navigation
}

/// Whether HTML is named; `*/*` is what scripts and programs say.
fn accepts_html(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(header::ACCEPT).iter();
    ranges
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|range| essence(range).eq_ignore_ascii_case(b"text/html"))
}

/// A media type without its parameters.
fn essence(media_type: &[u8]) -> &[u8] {
    media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Whether an answer is a stream of events, as browsers' `EventSource` reads it.
pub(super) fn is_event_stream(answer: &HeaderMap) -> bool {
    let kind = answer.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| essence(kind.as_bytes()).eq_ignore_ascii_case(b"text/event-stream"))
}

/// Whether a request is a gRPC call.
pub(super) fn is_grpc(request: &HeaderMap) -> bool {
    let kind = request.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What tells browsers to come by HTTPS for that long; nothing for no time.
pub(super) fn hsts(duration: Duration) -> Option<HeaderValue> {
    let value = format!("max-age={}", duration.as_secs());
    HeaderValue::try_from(value).ok().filter(|_| !duration.is_zero())
}

/// A client, and what is said of it to workspaces.
#[derive(Debug)]
pub struct Client {
    ends: Ends,
    /// Whether what it says of earlier hops is believed.
    trusted: bool,
    /// Its address, as `X-Forwarded-For` has it.
    address: HeaderValue,
    /// The last `Forwarded` entry that was made for it, and the `Host` that is in it. Clients stay
    /// with one host on a connection, so this is made once and not with every request.
    entry: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Client {
    /// `trusted`: whether it is one of the trusted proxies.
    pub(super) fn new(ends: Ends, trusted: bool) -> Self {
        let address = ends.peer.ip().to_canonical().to_string();
        let address = HeaderValue::try_from(address).unwrap_or(HeaderValue::from_static("unknown"));
        Self { ends, trusted, address, entry: RefCell::new(None) }
    }

    /// Whether it is one of the trusted proxies.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The other end of its connection.
    pub(super) fn peer(&self) -> SocketAddr {
        self.ends.peer
    }

    /// Whether it speaks TLS with us.
    pub(super) fn speaks_tls(&self) -> bool {
        self.ends.tls.is_some()
    }

    /// Returns when it has hung up. To be waited for while a request's body is not read.
    pub(super) async fn hangs_up(&self) {
        self.ends.hang_up.happens().await;
    }

    /// From where a request comes: the other end of its connection, or, as far as proxies are
    /// trusted that say so, whoever is behind them.
    pub(super) fn origin(&self, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
        let mut origin = self.ends.peer.ip().to_canonical();
        let hops = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let hops = hops.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            if !trusts(origin) {
                break;
            }
            match address(hop) {
                Some(before) => origin = before,
                None => break,
            }
        }
        origin
    }

    /// Whether a request for that host may come from it: by TLS, only for a host that its
    /// connection is good for. Proxies have a connection for all hosts.
    pub(super) fn may_ask_for(&self, host: &str) -> bool {
        let session = self.ends.tls.as_ref();
        session.is_none_or(|session| session.is_for(host) || self.trusted)
    }

    /// Whether a request came by HTTPS from the end user on, as far as can be known.
    pub(super) fn is_secure(&self, headers: &HeaderMap) -> bool {
        match headers.get(X_FORWARDED_PROTO).filter(|_| self.trusted) {
            Some(said) => {
                let first = said.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
                first.trim_ascii().eq_ignore_ascii_case(b"https")
            }
            None => self.ends.tls.is_some(),
        }
    }

    fn scheme(&self) -> &'static str {
        if self.ends.tls.is_some() { "https" } else { "http" }
    }

    fn forwarded_entry(&self, host: Option<&HeaderValue>) -> Option<HeaderValue> {
        let peer = self.ends.peer.ip().to_canonical();
        let Some(host) = host else { return forwarded_entry(peer, None, self.scheme()) };
        let mut last = self.entry.borrow_mut();
        if let Some((for_host, entry)) = &*last
            && for_host == host
        {
            return Some(entry.clone());
        }
        let entry = forwarded_entry(peer, Some(host), self.scheme())?;
        *last = Some((host.clone(), entry.clone()));
        Some(entry)
    }
}

/// An address as `X-Forwarded-For` has it, with a port or without.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let alone = || text.trim_start_matches('[').trim_end_matches(']').parse().ok();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    alone().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

/// What else decides the head that a workspace gets.
#[derive(Debug)]
pub(super) struct Hop<'a> {
    /// Who sends it.
    pub(super) client: &'a Client,
    /// What it is called.
    pub(super) id: HeaderValue,
    /// Over what it came.
    pub(super) version: Version,
    /// What is set as `Host`.
    pub(super) host: Option<HeaderValue>,
    /// What was taken off the path.
    pub(super) prefix: Option<&'a str>,
    /// Whether it asks for a WebSocket, and may.
    pub(super) websocket: bool,
}

/// Makes a client's head into the one that its workspace gets.
pub(super) fn to_workspace(headers: &mut HeaderMap, hop: Hop<'_>, via: &Via) {
    let wants_trailers =
        headers.contains_key(header::TE) && headers.get_all(header::TE).iter().any(names_trailers);
    remove_hop_by_hop(headers);
    headers.remove(header::TE);
    headers.remove(header::PROXY_AUTHORIZATION);
    // We do the waiting that it asks for ourselves: the body is read when the workspace reads it.
    headers.remove(header::EXPECT);
    remove_imitations(headers, hop.client.trusted);
    if hop.version == Version::HTTP_2 {
        join_cookies(headers);
    }
    hide_sessions(headers);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if hop.websocket {
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    add_forwarded(headers, &hop);
    headers.insert(X_REQUEST_ID, hop.id);
    if let Some(host) = hop.host {
        headers.insert(header::HOST, host);
    }
    headers.append(header::VIA, via.entry(hop.version));
}

/// Makes a workspace's head into the one that its client gets. A switch of protocols keeps the
/// fields that say so.
pub(super) fn to_client(headers: &mut HeaderMap, received: Version, switches: bool, via: &Via) {
    let upgrade = switches.then(|| headers.get(header::UPGRADE).cloned()).flatten();
    remove_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    headers.append(header::VIA, via.entry(received));
}

/// Says how long a request was held, and how long the wake took, beside what its workspace says of
/// its own time.
pub(super) fn add_timing(headers: &mut HeaderMap, held: Duration, wake: Option<Duration>) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
    let mut timing = format!("hold;dur={:.1}", milliseconds(held));
    if let Some(wake) = wake {
        timing.push_str(&format!(", wake;dur={:.1}", milliseconds(wake)));
    }
    if let Ok(timing) = HeaderValue::try_from(timing) {
        headers.append(SERVER_TIMING, timing);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<_> = nominated(headers).flatten().collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The fields that `Connection` names, as names where they can be one.
fn nominated(headers: &HeaderMap) -> impl Iterator<Item = Option<HeaderName>> + '_ {
    connection_options(headers)
        .filter(|option| {
            let connection_itself = [&b"close"[..], b"keep-alive", b"upgrade", b"te"];
            !connection_itself.iter().any(|word| option.eq_ignore_ascii_case(word))
        })
        .map(|option| HeaderName::from_bytes(option).ok())
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> + '_ {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

/// What a client can't declare to be a matter of one hop.
fn is_essential(name: &HeaderName) -> bool {
    *name == header::HOST
        || *name == header::CONTENT_LENGTH
        || *name == header::TRANSFER_ENCODING
        || *name == header::AUTHORIZATION
        || *name == header::COOKIE
}

fn names_trailers(te: &HeaderValue) -> bool {
    te.as_bytes()
        .split(|byte| *byte == b',')
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Removes what a client says in our name. Many servers read `_` and `.` in a field's name as
/// `-`, so what would be one of ours to them is one of ours.
fn remove_imitations(headers: &mut HeaderMap, trusted: bool) {
    let is_imitation = |name: &HeaderName| {
        let bytes = name.as_str().as_bytes();
        let aliased = bytes.iter().any(|byte| matches!(byte, b'_' | b'.'));
        match bytes.first() {
            _ if aliased => {
                let plain: Vec<u8> = bytes
                    .iter()
                    .map(|byte| if matches!(byte, b'_' | b'.') { b'-' } else { *byte })
                    .collect();
                is_ours(&plain) || is_framing(&plain) || plain == X_REQUEST_ID.as_str().as_bytes()
            }
            // The initials of all that is ours.
            Some(b'f' | b'x' | b't' | b'p') => !trusted && is_ours(bytes),
            _ => false,
        }
    };
    let imitations: Vec<_> = headers.keys().filter(|name| is_imitation(name)).cloned().collect();
    for name in imitations {
        headers.remove(name);
    }
    // Sets HTTP_PROXY in the environment of CGI programs, whoever sends it.
    headers.remove("proxy");
}

/// Takes out of a body's trailers what only a head may say (RFC 9110 §6.5.1): some servers put both
/// together.
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    remove_imitations(trailers, false);
    for name in HOP_BY_HOP {
        trailers.remove(name);
    }
    for name in [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::VIA,
        header::EXPECT,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        X_REQUEST_ID,
    ] {
        trailers.remove(name);
    }
}

fn is_ours(name: &[u8]) -> bool {
    name == b"forwarded"
        || name.starts_with(b"x-forwarded")
        || name == b"x-real-ip"
        || name == b"x-client-ip"
        || name == b"true-client-ip"
        || name == b"proxy"
}

fn is_framing(name: &[u8]) -> bool {
    matches!(name, b"host" | b"content-length" | b"transfer-encoding" | b"connection" | b"upgrade")
}

/// HTTP/2 clients may send a cookie in crumbs; HTTP/1 servers want one field (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, whole);
    }
}

/// Takes out the cookies that open the admin API. Browsers send them to every port of a host, and so
/// to workspaces below `/w/` where admins find the API at the same one.
fn hide_sessions(headers: &mut HeaderMap) {
    let is_session = |pair: &[u8]| {
        let (name, _) = pair.split_at(memchr::memchr(b'=', pair).unwrap_or(pair.len()));
        SESSION_COOKIES.contains(&name.trim_ascii())
    };
    let has_session =
        |field: &HeaderValue| field.as_bytes().split(|byte| *byte == b';').any(is_session);
    if !headers.get_all(header::COOKIE).iter().any(has_session) {
        return;
    }
    let header::Entry::Occupied(mut fields) = headers.entry(header::COOKIE) else { return };
    let kept: Vec<HeaderValue> = fields
        .iter()
        .filter_map(|field| {
            let pairs = field.as_bytes().split(|byte| *byte == b';');
            let kept: Vec<&[u8]> =
                pairs.filter(|pair| !is_session(pair)).map(<[u8]>::trim_ascii).collect();
            let kept = kept.join(&b"; "[..]);
            HeaderValue::from_bytes(&kept).ok().filter(|field| !field.is_empty())
        })
        .collect();
    let mut kept = kept.into_iter();
    match kept.next() {
        Some(first) => {
            fields.insert(first);
            kept.for_each(|field| fields.append(field));
        }
        None => {
            fields.remove();
        }
    }
}

fn add_forwarded(headers: &mut HeaderMap, hop: &Hop<'_>) {
    let Hop { client, host, prefix, .. } = hop;
    add_entry(headers, X_FORWARDED_FOR, client.address.clone());
    if let Some(entry) = client.forwarded_entry(host.as_ref()) {
        add_entry(headers, FORWARDED, entry);
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(client.scheme()));
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    if let Some(prefix) = prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok()) {
        headers.insert(X_FORWARDED_PREFIX, prefix);
    }
}

/// Adds an entry to a list that only a trusted proxy can have begun. All in one field: some servers
/// read only the first.
fn add_entry(headers: &mut HeaderMap, name: HeaderName, entry: HeaderValue) {
    if !headers.contains_key(&name) {
        headers.insert(name, entry);
        return;
    }
    let mut entries: Vec<&[u8]> =
        headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    entries.push(entry.as_bytes());
    if let Ok(list) = HeaderValue::from_bytes(&entries.join(&b", "[..])) {
        headers.insert(name, list);
    }
}

/// An entry of RFC 7239: `for=192.0.2.1;host="a.example:8080";proto=http`.
fn forwarded_entry(peer: IpAddr, host: Option<&HeaderValue>, scheme: &str) -> Option<HeaderValue> {
    let mut entry = match peer {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        // A routed host has none of the characters that would need escaping inside quotes.
        entry.push_str(";host=\"");
        entry.push_str(host);
        entry.push('"');
    }
    entry.push_str(";proto=");
    entry.push_str(scheme);
    HeaderValue::try_from(entry).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn ends(peer: SocketAddr, local: SocketAddr) -> Ends {
        Ends { peer, local, user: None, tls: None, hang_up: crate::listen::HangUp::default() }
    }

    fn passed_on(fields: &[(&str, &str)], trusted: bool) -> HeaderMap {
        let mut headers = std::mem::take(request(fields).headers_mut());
        let (peer, local) = (([192, 0, 2, 1], 4000).into(), ([192, 0, 2, 2], 80).into());
        let client = Client::new(ends(peer, local), trusted);
        let host = headers.get("host").cloned();
        let version = Version::HTTP_11;
        let id = HeaderValue::from_static("1");
        let hop = Hop { client: &client, id, version, host, prefix: None, websocket: false };
        to_workspace(&mut headers, hop, &Via::new("fg-1"));
        headers
    }

    #[test]
    fn the_origin_is_the_first_that_no_trusted_proxy_vouches_for() {
        let local = SocketAddr::from(([192, 0, 2, 2], 80));
        let origin = |peer: &str, fields: &[(&str, &str)]| {
            let client =
                Client::new(ends(SocketAddr::new(peer.parse().unwrap(), 4000), local), true);
            let trusts = |address: IpAddr| address.to_string().starts_with("10.");
            client.origin(request(fields).headers(), trusts).to_string()
        };
        let said = "x-forwarded-for";
        assert_eq!(origin("192.0.2.1", &[(said, "198.51.100.1")]), "192.0.2.1");
        assert_eq!(origin("::ffff:10.0.0.1", &[(said, "198.51.100.1")]), "198.51.100.1");
        let chain = [(said, "203.0.113.9, 198.51.100.1"), (said, "10.0.0.2")];
        assert_eq!(origin("10.0.0.1", &chain), "198.51.100.1");
        assert_eq!(origin("10.0.0.1", &[(said, "[2001:db8::1]:80")]), "2001:db8::1");
        assert_eq!(origin("10.0.0.1", &[(said, "198.51.100.1, nobody")]), "10.0.0.1");
        assert_eq!(origin("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_page_is_opened_in_a_tab() {
        let navigates = ("sec-fetch-mode", "navigate");
        let html = ("accept", "text/html");
        let rows: &[(&[(&str, &str)], bool)] = &[
            (&[navigates, ("sec-fetch-dest", "document")], true),
            (&[navigates], true),
            (&[html], true),
            (&[navigates, ("sec-fetch-dest", "iframe")], false),
            (&[html, ("upgrade", "websocket")], false),
            (&[("sec-fetch-mode", "cors"), html], false),
            (&[("accept", "*/*")], false),
        ];
        for (fields, expected) in rows {
            assert_eq!(opens_page(&request(fields)), *expected, "{fields:?}");
        }
        let mut post = request(&[navigates, html]);
        *post.method_mut() = Method::POST;
        assert!(!opens_page(&post));
    }

    #[test]
    fn a_navigation_is_known_by_what_browsers_say_of_it() {
        let html = ("accept", "application/xml;q=0.9, Text/HTML ;q=0.8");
        let rows: &[(&[(&str, &str)], Visit)] = &[
            (&[("sec-fetch-mode", "navigate"), ("accept", "*/*")], Visit::Navigation),
            (&[("sec-fetch-mode", "cors"), html], Visit::Background),
            (&[("sec-fetch-mode", "websocket")], Visit::Background),
            (&[("sec-fetch-mode", ""), html], Visit::Background),
            (&[html], Visit::Navigation),
            (&[("accept", "image/png"), html], Visit::Navigation),
            (&[("accept", "*/*")], Visit::Background),
            (&[("accept", "text/*, text/htmlx, application/json")], Visit::Background),
            (&[], Visit::Background),
        ];
        for (fields, expected) in rows {
            assert_eq!(visit(&request(fields)), *expected, "{fields:?}");
        }
        let mut post = request(&[html]);
        *post.method_mut() = Method::POST;
        assert_eq!(visit(&post), Visit::Background);
    }

    #[test]
    fn only_an_event_stream_is_one() {
        let kind = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            is_event_stream(&headers)
        };
        assert!(kind("text/event-stream") && kind("Text/Event-Stream ; charset=utf-8"));
        assert!(!kind("text/plain") && !kind("text/event-stream2") && !kind(""));
        assert!(!is_event_stream(&HeaderMap::new()));
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_end_here() {
        let headers = passed_on(
            &[
                ("host", "a"),
                ("connection", "x-mine, keep-alive"),
                ("x-mine", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "gzip"),
                ("upgrade", "h2c"),
                ("proxy-authorization", "Basic eA=="),
                ("x-kept", "1"),
            ],
            false,
        );
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "forwarded",
            "host",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-kept",
            "x-request-id",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_client_can_neither_imitate_nor_remove_what_we_say() {
        let imitations = [
            ("host", "a:80"),
            ("connection", "x-forwarded-for, via, forwarded"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x.forwarded.proto", "https"),
            ("x-forwarded-prefix", "/x"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("proxy", "http://evil"),
            ("content_length", "5"),
        ];
        let headers = passed_on(&imitations, false);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["forwarded"], "for=192.0.2.1;host=\"a:80\";proto=http");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["via"], "1.1 fg-1");
        for gone in ["x_forwarded_for", "x.forwarded.proto", "x-forwarded-prefix", "x-real-ip"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert!(!headers.contains_key("proxy") && !headers.contains_key("content_length"));
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added_to() {
        let said = [
            ("host", "a"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b"),
        ];
        let headers = passed_on(&said, true);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "b");
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let via = Via::new("fg-1");
        let verdict = |fields: &[(&str, &str)]| check(&request(fields), &via);
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(verdict(&[chunked]), Ok(()));
        assert_eq!(verdict(&[chunked, ("content-length", "1")]), Err(Unforwardable::Ambiguous));
        assert_eq!(verdict(&[chunked, chunked]), Err(Unforwardable::UnknownEncoding));
        let gzip = ("transfer-encoding", "gzip, chunked");
        assert_eq!(verdict(&[gzip]), Err(Unforwardable::UnknownEncoding));
        for name in ["host", "Content-Length", "transfer-encoding", "cookie"] {
            let refused = verdict(&[("connection", name)]);
            assert_eq!(refused, Err(Unforwardable::Ambiguous), "{name}");
        }
    }

    #[test]
    fn a_request_that_comes_back_is_known_by_its_via() {
        let via = Via::new("fg-1");
        let verdict = |value: &str| check(&request(&[("via", value)]), &via);
        assert_eq!(verdict("1.1 other, 1.1 fg-2"), Ok(()));
        assert_eq!(verdict("1.1 other, 1.1 fg-1 (comment)"), Err(Unforwardable::Loop));
        assert_eq!(verdict(&["1.1 x"; 40].join(", ")), Err(Unforwardable::Loop));
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let mut headers =
            std::mem::take(request(&[("cookie", "a=1"), ("cookie", "b=2")]).headers_mut());
        join_cookies(&mut headers);
        assert_eq!(headers["cookie"], "a=1; b=2");
        assert_eq!(headers.get_all("cookie").iter().count(), 1);
    }

    #[test]
    fn what_opens_the_admin_api_stays_here() {
        let rows: [(&[&str], &[&str]); 6] = [
            (&["a=1; frostgate=x"], &["a=1"]),
            (&["frostgate=x;__Host-frostgate=y"], &[]),
            (&["frostgate=x; a=1; b=2"], &["a=1; b=2"]),
            (&["a=frostgate; frostgate2=x;  b"], &["a=frostgate; frostgate2=x;  b"]),
            (&["a=1", "frostgate=x", "b=2; frostgate"], &["a=1", "b=2"]),
            (&[" frostgate =x", "a=1"], &["a=1"]),
        ];
        for (sent, kept) in rows {
            let sent: Vec<_> = sent.iter().map(|value| ("cookie", *value)).collect();
            let mut headers = std::mem::take(request(&sent).headers_mut());
            hide_sessions(&mut headers);
            let left: Vec<_> = headers.get_all("cookie").iter().collect();
            assert_eq!(left, kept, "{sent:?}");
        }
    }
}
