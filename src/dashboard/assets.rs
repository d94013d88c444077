//! The files of the page. A browser asks each time whether it has the current ones (`ETag`), so a new
//! Frostgate never meets scripts of the one before, and what has not changed is not sent again.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

/// The page and its scripts come from us, talk to us alone, and stand in nobody's frame. Nothing in
/// the page itself is run or styles it, so that no name of a workspace ever could.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
/// Pages of others can't take its files for their own.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// What the page is called here.
const PAGE: &str = "index.html";

/// A file of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 12] = [
    Asset { name: PAGE, kind: HTML, text: include_str!("assets/index.html") },
    Asset { name: "style.css", kind: STYLE, text: include_str!("assets/style.css") },
    Asset { name: "early.js", kind: SCRIPT, text: include_str!("assets/early.js") },
    Asset { name: "app.js", kind: SCRIPT, text: include_str!("assets/app.js") },
    Asset { name: "words.js", kind: SCRIPT, text: include_str!("assets/words.js") },
    Asset { name: "calls.js", kind: SCRIPT, text: include_str!("assets/calls.js") },
    Asset { name: "feed.js", kind: SCRIPT, text: include_str!("assets/feed.js") },
    Asset { name: "table.js", kind: SCRIPT, text: include_str!("assets/table.js") },
    Asset { name: "workspace.js", kind: SCRIPT, text: include_str!("assets/workspace.js") },
    Asset { name: "plots.js", kind: SCRIPT, text: include_str!("assets/plots.js") },
    Asset { name: "forms.js", kind: SCRIPT, text: include_str!("assets/forms.js") },
    Asset { name: "icon.svg", kind: PICTURE, text: include_str!("assets/icon.svg") },
];

/// By which a browser knows whether it has a file, in the order of [`ASSETS`].
static TAGS: LazyLock<[HeaderValue; ASSETS.len()]> = LazyLock::new(|| {
    ASSETS.map(|asset| {
        let hash = URL_SAFE_NO_PAD.encode(&Sha256::digest(asset.text)[..18]);
        HeaderValue::try_from(format!("\"{hash}\"")).expect("it is of letters, digits, - and _")
    })
});

/// What each file weighs, in bytes, by name.
pub fn weights() -> impl Iterator<Item = (&'static str, usize)> {
    ASSETS.iter().map(|asset| (asset.name, asset.text.len()))
}

pub(super) async fn page(headers: HeaderMap) -> Response {
    answer(PAGE, &headers)
}

pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    answer(&name, &headers)
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let found = ASSETS.iter().zip(&*TAGS).find(|(asset, _)| asset.name == name);
    let Some((asset, tag)) = found else {
        return (StatusCode::NOT_FOUND, "There is no such file.\n").into_response();
    };
    let common = [
        (ETAG, tag.clone()),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
    ];
    let has_it = |known: &HeaderValue| {
        let mut tags = known.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tags.any(|known| known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes())
    };
    if headers.get_all(IF_NONE_MATCH).iter().any(has_it) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let kind = [(CONTENT_TYPE, HeaderValue::from_static(asset.kind))];
    (common, kind, asset.text).into_response()
}
