//! Who may call: whoever presents a token that is good for the call, or a session of one.

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Uri};
use tokio::time::Instant;

use super::caller::{Caller, Need};
use super::reply::Problem;
use super::{Context, LocalAdmin, Peer, session};

const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"frostgate\"");
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"frostgate\", charset=\"UTF-8\"");

/// The query's name for a token.
const QUERY_NAME: &str = "access_token";

/// A token as somebody presents it.
#[derive(Debug, PartialEq, Eq)]
struct Presented {
    token: String,
    way: Way,
}

/// How it is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As a bearer (RFC 6750).
    Bearer,
    /// As the password of anybody (RFC 7617): the token alone says who calls.
    Basic,
    /// As `access_token` in the query.
    Query,
}

/// Lets a call through that presents a token which is good for it.
pub(super) async fn require(
    State((context, need)): State<(Context, Need)>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    match identify(&context, need, peer, &mut parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => refusal,
    }
}

/// Who makes a call, if they may.
pub(super) async fn identify(
    context: &Context,
    need: Need,
    peer: Peer,
    parts: &mut Parts,
) -> Result<Caller, Response> {
    let secure = peer.is_secure(&context.trusted_proxies, &parts.headers);
    let presented = Presented::by(parts);
    // No handler, and so no error or log, gets to see the token.
    hide_token(&mut parts.uri);
    let Some(presented) = presented else {
        if parts.extensions.get::<LocalAdmin>().is_some() {
            return Ok(Caller::local_admin());
        }
        return identify_by_session(context, need, parts, secure).await;
    };
    let Some(caller) = context.keyring.find(&presented.token).await else {
        let client = peer.client_address(&context.trusted_proxies, &parts.headers);
        return Err(match context.failures.note(client, Instant::now()) {
            Err(retry_after) => Problem::TooManyFailures { retry_after }.into_response(),
            // Basic makes a browser ask for a password, which a script's user did not want.
            Ok(()) if presented.way == Way::Basic => challenge(&[BEARER, BASIC]),
            Ok(()) => challenge(&[BEARER]),
        });
    };
    check(&caller, need, presented.way, parts).map_err(IntoResponse::into_response)?;
    Ok(caller)
}

async fn identify_by_session(
    context: &Context,
    need: Need,
    parts: &Parts,
    secure: bool,
) -> Result<Caller, Response> {
    let shown = session::shown(&parts.headers, secure);
    if shown.is_empty() {
        let by_script = is_by_script(&parts.headers);
        return Err(if by_script { challenge(&[BEARER]) } else { challenge(&[BEARER, BASIC]) });
    }
    session::check(context, parts, secure).map_err(IntoResponse::into_response)?;
    let found = session::find(context, &shown, Instant::now()).await;
    let caller = found.ok_or_else(|| challenge(&[BEARER]))?;
    caller.check(need).map_err(IntoResponse::into_response)?;
    Ok(caller)
}

/// Whether a script in a page made a request, so that the browser is not to ask for a password: the page
/// does that. Browsers say so by themselves only where there is TLS.
fn is_by_script(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-mode").is_some_and(|mode| mode != "navigate")
        || headers.contains_key("x-requested-with")
}

fn check(caller: &Caller, need: Need, way: Way, parts: &Parts) -> Result<(), Problem> {
    // A browser sends a password that it knows with every request, whoever's page made it.
    if way == Way::Basic && !parts.method.is_safe() && is_of_another_page(parts) {
        let why = "this call was made by a page of another site";
        return Err(Problem::Forbidden(why.to_owned()));
    }
    caller.check(need)
}

/// Browsers say so in one way or the other; where there is no TLS, only by `Origin`.
fn is_of_another_page(parts: &Parts) -> bool {
    let headers = &parts.headers;
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let page = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    let authority = parts.uri.authority().map(Authority::as_str);
    let host = || headers.get(HOST).and_then(|host| host.to_str().ok());
    match (page, authority.or_else(host)) {
        (Some(page), Some(own)) => !page.eq_ignore_ascii_case(own),
        _ => true,
    }
}

fn challenge(ways: &[HeaderValue]) -> Response {
    let mut response = Problem::Unauthorized.into_response();
    for way in ways {
        response.headers_mut().append(WWW_AUTHENTICATE, way.clone());
    }
    response
}

impl Presented {
    fn by(parts: &Parts) -> Option<Self> {
        let headers = &parts.headers;
        let of = |way, token: Option<String>| {
            let token = token.filter(|token| !token.is_empty());
            token.map(|token| Self { token, way })
        };
        of(Way::Bearer, credentials(headers, "bearer").map(str::to_owned))
            .or_else(|| of(Way::Basic, password(headers)))
            .or_else(|| of(Way::Query, in_query(parts.uri.query())))
    }
}

fn password(headers: &HeaderMap) -> Option<String> {
    let decoded = STANDARD.decode(credentials(headers, "basic")?).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (_user, password) = decoded.split_once(':')?;
    Some(password.to_owned())
}

fn credentials<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then_some(rest.trim())
}

fn in_query(query: Option<&str>) -> Option<String> {
    let mut fields = fields(query?).into_iter();
    fields.find(|(name, _)| name == QUERY_NAME).map(|(_, token)| token)
}

/// Takes every token out of the query.
fn hide_token(uri: &mut Uri) {
    let Some(query) = uri.query() else { return };
    let mut kept = fields(query);
    let all = kept.len();
    kept.retain(|(name, _)| name != QUERY_NAME);
    if kept.len() == all {
        return;
    }
    let query = serde_urlencoded::to_string(kept).unwrap_or_default();
    let target = format!("{}?{query}", uri.path());
    let path = || PathAndQuery::try_from(uri.path()).ok();
    let target = PathAndQuery::try_from(target).ok().or_else(path);
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = target;
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

fn fields(query: &str) -> Vec<(String, String)> {
    serde_urlencoded::from_str(query).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn request(target: &str, headers: &[(&str, &str)]) -> Parts {
        let request =
            headers.iter().fold(Request::builder().uri(target), |request, (name, value)| {
                request.header(*name, *value)
            });
        request.body(Body::empty()).unwrap().into_parts().0
    }

    fn presented(target: &str, authorization: &str) -> Option<(String, Way)> {
        let by = Presented::by(&request(target, &[("authorization", authorization)]))?;
        Some((by.token, by.way))
    }

    #[test]
    fn a_token_may_be_presented_in_three_ways() {
        let abc = |way| Some(("abc".to_owned(), way));
        assert_eq!(presented("/", "Bearer abc"), abc(Way::Bearer));
        assert_eq!(presented("/", "bearer  abc "), abc(Way::Bearer));
        // admin:abc, :abc and root:abc
        for basic in ["Basic YWRtaW46YWJj", "Basic OmFiYw==", "basic cm9vdDphYmM="] {
            assert_eq!(presented("/", basic), abc(Way::Basic), "{basic}");
        }
        assert_eq!(presented("/?a=b&access_token=abc", ""), abc(Way::Query));
        assert_eq!(presented("/?access_token=x", "Bearer abc"), abc(Way::Bearer));
        // abc: and abc
        for nothing in ["Bearer ", "Bearer", "Basic %%%", "Basic YWJjOg==", "Basic YWJj", "Token x"]
        {
            assert_eq!(presented("/?a=b&access_token=", nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_token_is_taken_out_of_the_query_and_nothing_else_is() {
        let rows = [
            ("/a?access_token=x", "/a?"),
            ("/a?access_token=x&wait=false", "/a?wait=false"),
            ("/a?q=%26%3D+b&access%5Ftoken=x&access_token=y", "/a?q=%26%3D+b"),
            ("http://h/a?access_token=x", "http://h/a?"),
            ("/a?token=x&b", "/a?token=x&b"),
            ("/a", "/a"),
        ];
        for (given, left) in rows {
            let mut uri: Uri = given.parse().unwrap();
            hide_token(&mut uri);
            assert_eq!(uri.to_string(), left);
        }
    }

    #[test]
    fn a_page_of_another_site_is_known_by_what_the_browser_says() {
        let rows: [(&[(&str, &str)], bool); 8] = [
            (&[], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://h:1")], true),
            (&[("origin", "http://H:1")], false),
            (&[("origin", "http://h:2")], true),
            (&[("origin", "null")], true),
        ];
        for (headers, another) in rows {
            let headers: Vec<_> = [("host", "h:1")].iter().chain(headers).copied().collect();
            assert_eq!(is_of_another_page(&request("/", &headers)), another, "{headers:?}");
        }
    }
}
