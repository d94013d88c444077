//! Who may call: whoever presents the admin's token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Context;
use super::reply::Problem;

/// The one user of Basic authentication; its password is the token.
const BASIC_USER: &str = "admin";

/// The hash of the token that opens the admin API.
#[derive(Clone)]
pub struct AdminToken(Arc<[u8; 32]>);

impl AdminToken {
    /// Of the token itself, which is not kept.
    pub fn new(token: &str) -> Self {
        Self(Arc::new(Sha256::digest(token).into()))
    }

    /// In constant time: hashes are compared, and all of them.
    fn is(&self, presented: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(presented).into();
        self.0.ct_eq(&hash).into()
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Lets a call through that presents the token: as a bearer, as the password of `admin` (Basic),
/// or as `access_token` in the query.
pub(super) async fn require(
    State(context): State<Context>,
    request: Request,
    next: Next,
) -> Response {
    let presented = bearer(request.headers())
        .or_else(|| basic(request.headers()))
        .or_else(|| in_query(request.uri().query()));
    if presented.is_some_and(|token| context.token.is(&token)) {
        return next.run(request).await;
    }
    let mut response = Problem::Unauthorized.into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"frostgate\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    credentials(headers, "bearer").map(str::to_owned)
}

fn basic(headers: &HeaderMap) -> Option<String> {
    let decoded = STANDARD.decode(credentials(headers, "basic")?).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (user, password) = decoded.split_once(':')?;
    (user == BASIC_USER).then(|| password.to_owned())
}

fn in_query(query: Option<&str>) -> Option<String> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(query?).ok()?;
    fields.into_iter().find(|(name, _)| name == "access_token").map(|(_, token)| token)
}

fn credentials<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then_some(rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn a_token_may_be_presented_in_three_ways() {
        assert_eq!(bearer(&with("Bearer abc")).as_deref(), Some("abc"));
        assert_eq!(bearer(&with("bearer  abc ")).as_deref(), Some("abc"));
        // admin:abc
        assert_eq!(basic(&with("Basic YWRtaW46YWJj")).as_deref(), Some("abc"));
        // root:abc
        assert_eq!(basic(&with("Basic cm9vdDphYmM=")), None);
        assert_eq!(basic(&with("Basic %%%")), None);
        assert_eq!(in_query(Some("a=b&access_token=abc")).as_deref(), Some("abc"));
        assert_eq!(in_query(Some("a=b")), None);
    }

    #[test]
    fn only_the_token_itself_opens() {
        let token = AdminToken::new("abc");
        assert!(token.is("abc"));
        assert!(!token.is("ab") && !token.is("abcd") && !token.is(""));
    }
}
