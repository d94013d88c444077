//! Sessions: how a browser stays logged in without keeping the token.
//!
//! Whoever shows a token once is given a random id as a cookie, which no script can read. It stands
//! for the token for a while: whenever it is shown, the token that it was begun with is looked up,
//! so one that was revoked or rotated ends its sessions. They are kept in memory, and only as
//! hashes; after a restart one logs in again.
//!
//! A browser sends a cookie with every request to our host, whoever's page made it, and a page can
//! have any name point to our address. So the cookie alone is not enough ([`check`]): the request has
//! to be for a host that is ours, no other site's page may have made it, and one that changes
//! something has to prove that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::caller::Caller;
use super::fields::Fields;
use super::reply::{ErrorCode, Json, Problem, Responses, problems};
use super::{Context, Peer};
use crate::model::ProjectId;
use crate::secrets::{self, SecretError};
use crate::token::{TokenHash, TokenName};

/// The cookie's name by plain HTTP; and by TLS, where the prefix has browsers see to it that nobody
/// but this very host has set it (RFC 6265bis §4.1.3.2).
const PLAIN_NAME: &str = "frostgate";
const SECURE_NAME: &str = "__Host-frostgate";

/// Sessions of all, and of one token, so that nobody pushes out everybody else's.
const SESSIONS_MAX: usize = 1_000;
const PER_TOKEN_MAX: usize = 100;
/// How long a session that nobody uses lasts.
const IDLE_MAX: Duration = Duration::from_secs(12 * 60 * 60);
/// How long any session lasts.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Cookies of one request that may be ours: a neighbour on the same machine may have set some.
const SHOWN_MAX: usize = 8;

/// Those that have begun and not ended.
#[derive(Debug, Default)]
pub struct Sessions {
    by_id: Mutex<HashMap<[u8; 32], Session>>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    token: TokenHash,
    began: Instant,
    used: Instant,
}

impl Session {
    fn lasts(&self, now: Instant) -> bool {
        now < self.used + IDLE_MAX && now < self.began + AGE_MAX
    }
}

impl Sessions {
    /// Begins one for the holder of a token; returns its id.
    fn begin(&self, token: TokenHash, now: Instant) -> Result<String, SecretError> {
        let id = URL_SAFE_NO_PAD.encode(secrets::random()?);
        let mut sessions = self.lock();
        sessions.retain(|_, session| session.lasts(now));
        let of_token = |session: &Session| session.token == token;
        if sessions.values().filter(|session| of_token(session)).count() >= PER_TOKEN_MAX {
            end_oldest(&mut sessions, of_token);
        }
        if sessions.len() >= SESSIONS_MAX {
            end_oldest(&mut sessions, |_| true);
        }
        sessions.insert(hash(&id), Session { token, began: now, used: now });
        Ok(id)
    }

    /// The token that a session was begun with; it is in use from now on for a while again.
    fn token_of(&self, id: &str, now: Instant) -> Option<TokenHash> {
        let (mut sessions, id) = (self.lock(), hash(id));
        let session = sessions.get_mut(&id)?;
        if !session.lasts(now) {
            sessions.remove(&id);
            return None;
        }
        session.used = now;
        Some(session.token)
    }

    fn end(&self, id: &str) {
        self.lock().remove(&hash(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody who reads our memory finds what would open it.
fn hash(id: &str) -> [u8; 32] {
    TokenHash::of(id).bytes()
}

fn end_oldest(sessions: &mut HashMap<[u8; 32], Session>, among: impl Fn(&Session) -> bool) {
    let candidates = sessions.iter().filter(|(_, session)| among(session));
    let oldest = candidates.min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
    if let Some(oldest) = oldest {
        sessions.remove(&oldest);
    }
}

/// Who shows a session that lasts, if anybody does.
pub(super) async fn find(context: &Context, shown: &[String], now: Instant) -> Option<Caller> {
    for id in shown {
        let Some(token) = context.sessions.token_of(id, now) else { continue };
        match context.keyring.find_by_hash(&token).await {
            Some(caller) => return Some(caller),
            None => context.sessions.end(id),
        }
    }
    None
}

/// The ids of sessions that a request shows.
pub(super) fn shown(headers: &HeaderMap, secure: bool) -> Vec<String> {
    let name = name(secure);
    let pairs = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let values = pairs.flat_map(|field| field.split(';')).filter_map(|pair| {
        let (found, value) = pair.trim().split_once('=')?;
        (found == name && !value.is_empty()).then(|| value.to_owned())
    });
    values.take(SHOWN_MAX).collect()
}

fn name(secure: bool) -> &'static str {
    if secure { SECURE_NAME } else { PLAIN_NAME }
}

/// Refuses what a browser may have been led to send with a session; see the module's head.
pub(super) fn check(context: &Context, parts: &Parts, secure: bool) -> Result<(), Problem> {
    if check_page(context, parts, secure)? == Maker::Unknown && !parts.method.is_safe() {
        let why = "with a session, a call that changes something has to say by Sec-Fetch-Site or \
                   Origin that a page of this gateway made it";
        return Err(Problem::Forbidden(why.to_owned()));
    }
    Ok(())
}

/// Refuses what a page of another site made, or one of a name that is not ours.
fn check_page(context: &Context, parts: &Parts, secure: bool) -> Result<Maker, Problem> {
    let host = host(parts).unwrap_or_default();
    if !is_own(host, &context.hosts) {
        let why = format!(
            "{host:?} is no name of this gateway's: use an IP address or localhost, or add the name \
             to hosts in [api]"
        );
        return Err(Problem::Forbidden(why));
    }
    match maker(parts, secure) {
        Maker::Another => {
            Err(Problem::Forbidden("this call was made by a page of another site".to_owned()))
        }
        maker => Ok(maker),
    }
}

/// Whose page made a request, as far as its browser says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Ours,
    Another,
    Unknown,
}

fn maker(parts: &Parts, secure: bool) -> Maker {
    let headers = &parts.headers;
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        Some(b"same-origin") => return Maker::Ours,
        // Somebody has typed the address, or the like.
        Some(b"none") if parts.method.is_safe() => return Maker::Ours,
        Some(_) => return Maker::Another,
        None => {}
    }
    let Some(origin) = headers.get(ORIGIN) else { return Maker::Unknown };
    let scheme = if secure { "https://" } else { "http://" };
    let page = origin.to_str().ok().and_then(|origin| origin.strip_prefix(scheme));
    match (page, authority(parts)) {
        (Some(page), Some(own)) if page.eq_ignore_ascii_case(own) => Maker::Ours,
        _ => Maker::Another,
    }
}

fn authority(parts: &Parts) -> Option<&str> {
    let target = parts.uri.authority().map(Authority::as_str);
    target.or_else(|| parts.headers.get(HOST)?.to_str().ok())
}

/// The host that a request is for, without its port.
fn host(parts: &Parts) -> Option<&str> {
    let authority = authority(parts)?;
    match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(address, _)| address),
        None => authority.split(':').next(),
    }
}

/// An address is nobody's to point elsewhere, and every other name is somebody's.
fn is_own(host: &str, hosts: &[String]) -> bool {
    host.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|own| host.eq_ignore_ascii_case(own))
}

/// Who is logged in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct Representation {
    /// What the token is called that the session was begun with.
    token: TokenName,
    /// What it may do: `admin`, `read` or `projects`.
    #[schema(examples("read"))]
    scope: &'static str,
    /// The projects that it is limited to; `null`: it is not.
    projects: Option<Vec<ProjectId>>,
}

impl From<Caller> for Representation {
    fn from(Caller { name, scope }: Caller) -> Self {
        let projects = scope.projects().map(|projects| projects.iter().cloned().collect());
        Self { token: name, scope: scope.word(), projects }
    }
}

/// What is shown to begin a session.
#[derive(ToSchema)]
#[schema(as = NewSession)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    /// A token.
    #[schema(format = Password)]
    token: String,
}

impl New {
    fn read(mut fields: Fields) -> Result<Self, Problem> {
        let token: Option<String> = fields.take("token")?;
        fields.end()?;
        let missing = || Problem::Invalid("the field \"token\" is missing".to_owned());
        // It is pasted, and often more than it.
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Ok(Self { token: token.ok_or_else(missing)? })
    }
}

/// Begin a session, for a browser.
///
/// The cookie in the answer stands for the token until the session ends: after 12 hours in which
/// nobody used it, after 7 days, by `DELETE`, or with the token. A call that changes something and
/// shows it must have been made by a page of this gateway, and says so by `Sec-Fetch-Site` or `Origin`.
#[utoipa::path(
    post,
    path = "/session",
    operation_id = "beginSession",
    tag = "gateway",
    request_body = New,
    responses((status = 200, description = "It has begun", body = Representation), NotBegun)
)]
pub(super) async fn begin(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    parts: Parts,
    fields: Fields,
) -> Result<Response, Problem> {
    let secure = peer.is_secure(&context.trusted_proxies, &parts.headers);
    // So that no page can log its visitors in as somebody else.
    check_page(&context, &parts, secure)?;
    let (hash, now) = (TokenHash::of(&New::read(fields)?.token), Instant::now());
    let Some(caller) = context.keyring.find_by_hash(&hash).await else {
        let client = peer.client_address(&context.trusted_proxies, &parts.headers);
        let noted = context.failures.note(client, now);
        noted.map_err(|retry_after| Problem::TooManyFailures { retry_after })?;
        return Err(Problem::Forbidden("this token opens nothing".to_owned()));
    };
    let id =
        context.sessions.begin(hash, now).map_err(|error| Problem::Failed(error.to_string()))?;
    tracing::info!("a session of the token {} has begun", caller.name);
    let cookie = cookie(&id, AGE_MAX, secure);
    Ok(([(SET_COOKIE, cookie)], Json(Representation::from(caller))).into_response())
}

/// What a session may fail to begin with.
pub(super) struct NotBegun;

impl utoipa::IntoResponses for NotBegun {
    fn responses() -> Responses {
        problems(&[ErrorCode::Forbidden, ErrorCode::TooManyFailures])
    }
}

/// Tell who calls.
#[utoipa::path(
    get,
    path = "/session",
    operation_id = "getSession",
    tag = "gateway",
    responses((status = 200, description = "Whoever shows a token or a session", body = Representation))
)]
pub(super) async fn read(caller: Caller) -> Json<Representation> {
    Json(caller.into())
}

/// End the session that is shown.
#[utoipa::path(
    delete,
    path = "/session",
    operation_id = "endSession",
    tag = "gateway",
    responses((status = 204, description = "It has ended, if there was one"))
)]
pub(super) async fn end(
    State(context): State<Context>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let secure = peer.is_secure(&context.trusted_proxies, &headers);
    for id in shown(&headers, secure) {
        context.sessions.end(&id);
    }
    let cookie = cookie("", Duration::ZERO, secure);
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response()
}

fn cookie(id: &str, lasts: Duration, secure: bool) -> HeaderValue {
    let name = name(secure);
    let seconds = lasts.as_secs();
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={id}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
    HeaderValue::try_from(text).expect("an id is of letters, digits, - and _")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;

    use super::*;

    fn parts(method: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri("/");
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Body::empty()).unwrap().into_parts().0
    }

    #[test]
    fn a_session_ends_when_nobody_uses_it_and_in_any_case() {
        let (sessions, begin) = (Sessions::default(), Instant::now());
        let token = TokenHash::of("a");
        let unused = sessions.begin(token, begin).unwrap();
        let used = sessions.begin(token, begin).unwrap();
        assert_ne!(unused, used);
        assert_eq!(sessions.token_of("another", begin), None);
        let mut now = begin;
        while now + IDLE_MAX / 2 < begin + AGE_MAX {
            now += IDLE_MAX / 2;
            assert_eq!(sessions.token_of(&used, now), Some(token), "{:?}", now - begin);
        }
        assert_eq!(sessions.token_of(&unused, begin + IDLE_MAX), None);
        assert_eq!(sessions.token_of(&used, begin + AGE_MAX), None);
        let other = sessions.begin(token, begin).unwrap();
        sessions.end(&other);
        assert_eq!(sessions.token_of(&other, begin), None);
        assert!(sessions.lock().is_empty());
    }

    #[test]
    fn there_are_so_many_sessions_and_the_one_used_last_stays() {
        let (sessions, begin) = (Sessions::default(), Instant::now());
        let kept = sessions.begin(TokenHash::of("kept"), begin).unwrap();
        let later = |number: usize| begin + Duration::from_millis(1 + number as u64);
        let first = sessions.begin(TokenHash::of("t0"), later(0)).unwrap();
        for number in 1..SESSIONS_MAX * 2 {
            let token = TokenHash::of(&format!("t{}", number % 20));
            sessions.begin(token, later(number)).unwrap();
            assert!(sessions.token_of(&kept, later(number)).is_some(), "{number}");
        }
        assert_eq!(sessions.lock().len(), SESSIONS_MAX);
        assert_eq!(sessions.token_of(&first, later(0)), None);
        let of_one = Sessions::default();
        for _ in 0..PER_TOKEN_MAX * 2 {
            of_one.begin(TokenHash::of("t"), begin).unwrap();
        }
        assert_eq!(of_one.lock().len(), PER_TOKEN_MAX);
    }

    #[test]
    fn what_a_browser_says_is_believed_and_what_it_could_have_left_out_is_not() {
        type Row<'a> = (&'a str, bool, &'a [(&'a str, &'a str)], Maker);
        let rows: [Row<'_>; 11] = [
            ("GET", false, &[], Maker::Unknown),
            ("POST", false, &[("sec-fetch-site", "same-origin")], Maker::Ours),
            ("GET", false, &[("sec-fetch-site", "none")], Maker::Ours),
            ("POST", false, &[("sec-fetch-site", "none")], Maker::Another),
            ("GET", false, &[("sec-fetch-site", "same-site")], Maker::Another),
            (
                "POST",
                false,
                &[("sec-fetch-site", "cross-site"), ("origin", "http://h:1")],
                Maker::Another,
            ),
            ("POST", false, &[("origin", "http://H:1")], Maker::Ours),
            ("POST", false, &[("origin", "http://h:2")], Maker::Another),
            ("POST", false, &[("origin", "https://h:1")], Maker::Another),
            ("POST", true, &[("origin", "https://h:1")], Maker::Ours),
            ("POST", true, &[("origin", "null")], Maker::Another),
        ];
        for (method, secure, headers, wanted) in rows {
            let headers: Vec<_> = [("host", "h:1")].iter().chain(headers).copied().collect();
            assert_eq!(maker(&parts(method, &headers), secure), wanted, "{method} {headers:?}");
        }
    }

    #[test]
    fn hosts_are_addresses_or_names_of_ours() {
        let ours = ["gate.test".to_owned()];
        for own in ["127.0.0.1", "127.0.0.1:80", "[::1]:8081", "[::1]", "localhost:1", "Gate.test"]
        {
            let parts = parts("GET", &[("host", own)]);
            assert!(is_own(host(&parts).unwrap(), &ours), "{own}");
        }
        for strange in
            ["evil.test", "evil.test:80", "127.0.0.1.evil.test", "localhost.evil.test", ""]
        {
            let parts = parts("GET", &[("host", strange)]);
            assert!(!is_own(host(&parts).unwrap(), &ours), "{strange}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others_and_by_tls_only_by_its_name_there() {
        let headers = parts(
            "GET",
            &[
                ("cookie", "a=b; frostgate=x; __Host-frostgate=y"),
                ("cookie", "frostgate=z; frostgate="),
            ],
        )
        .headers;
        assert_eq!(shown(&headers, false), ["x", "z"]);
        assert_eq!(shown(&headers, true), ["y"]);
    }
}
