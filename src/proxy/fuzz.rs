//! Heads that nobody thought of.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::{CONNECTION, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Version};

use super::headers::{self, Client, Hop, Via};
use super::route::{self, Authority};
use crate::listen::{Ends, HangUp};

const US: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

/// A line for the target, and one for each host.
pub(crate) fn routing(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(request) = lines.next().and_then(|target| Request::get(target).body(()).ok()) else {
        return;
    };
    let (mut parts, ()) = request.into_parts();
    for host in lines.filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        parts.headers.append(HOST, host);
    }
    let request = Request::from_parts(parts, ());
    let Ok(authority) = Authority::of(&request) else { return };
    let name = authority.as_str();
    assert!(request.headers().get_all(HOST).iter().count() == 1, "{request:?}");
    assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase() || byte <= b' '), "{name:?}");
    assert!(!name.contains(['/', '@', '?', '#', '%', ',', '\\', '[', ']']), "{name:?}");
    if let Some(target) = route::origin_form(request.method(), request.uri(), None) {
        let whole = target.path_and_query().map_or("", |whole| whole.as_str());
        assert!(whole.starts_with('/') && target.authority().is_none(), "{target:?}");
    }
}

/// Lines of `name:value`.
pub(crate) fn header_rules(bytes: &[u8]) {
    let mut fields = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line[colon + 1..]))
            && fields.len() < 100
        {
            fields.append(name, value);
        }
    }
    let mut request = Request::new(());
    *request.headers_mut() = fields;
    let via = Via::new("frostgate-1");
    if headers::check(&request, &via).is_err() {
        return;
    }
    let mut sent = std::mem::take(request.headers_mut());
    let client = Client::new(
        Ends { peer: US, local: US, user: None, tls: None, hang_up: HangUp::default() },
        false,
    );
    let hop = Hop {
        client: &client,
        id: HeaderValue::from_static("ours"),
        version: Version::HTTP_11,
        host: Some(HeaderValue::from_static("ours")),
        prefix: None,
        websocket: false,
    };
    headers::to_workspace(&mut sent, hop, &via);
    let ours = [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "ours"),
        ("forwarded", "for=127.0.0.1;host=\"ours\";proto=http"),
        ("host", "ours"),
        ("x-request-id", "ours"),
    ];
    for (name, value) in ours {
        assert_eq!(sent.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    assert!(sent.get_all("via").iter().next_back().is_some_and(|via| via == "1.1 frostgate-1"));
    assert!(!sent.contains_key(TRANSFER_ENCODING) && !sent.contains_key(UPGRADE), "{sent:?}");
    assert!(sent.get(CONNECTION).is_none_or(|value| value == "te"), "{sent:?}");
    // What a server that reads `_` and `.` as `-` would see.
    for name in sent.keys().map(HeaderName::as_str) {
        let plain = name.replace(['_', '.'], "-");
        let is_known = ours.iter().any(|(ours, _)| *ours == plain);
        assert!(plain == name || !is_known && !plain.starts_with("x-forwarded"), "{name}");
    }
}
