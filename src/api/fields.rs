//! The fields of a call's body, whichever of three ways it is written in: JSON, urlencoded or
//! multipart. Clients of every age use one of them, and all mean the same.
//!
//! JSON has types; in forms every value is a text. So each value is read by its own type, which
//! takes both where a text is not enough, and the API's description says the same for all three.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::reply::Problem;

/// Most fields that a body may have; no call has a tenth of it.
const FIELDS_MAX: usize = 200;

/// What stands behind a name, in forms, to say that there is a list of it.
const LIST_SUFFIX: &str = "[]";

/// Values by name, which are taken out one by one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields {
    values: Map<String, Value>,
    /// The names that were asked for.
    known: Vec<&'static str>,
    /// How they were written.
    kind: Kind,
}

/// How a body is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Json,
    Form,
    Multipart,
}

impl Kind {
    /// `None`: something else. What names no kind is taken for a form.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let Some(kind) = headers.get(CONTENT_TYPE) else { return Some(Self::Form) };
        let essence = kind.to_str().ok()?.split(';').next()?.trim();
        let is = |known: &str| essence.eq_ignore_ascii_case(known);
        match () {
            () if is("application/json") => Some(Self::Json),
            () if is("application/x-www-form-urlencoded") => Some(Self::Form),
            () if is("multipart/form-data") => Some(Self::Multipart),
            () => None,
        }
    }
}

impl Fields {
    /// Those of a query.
    pub(super) fn of_query(query: Option<&str>) -> Result<Self, Problem> {
        let pairs = serde_urlencoded::from_str(query.unwrap_or_default())
            .map_err(|error| Problem::Invalid(format!("the query can't be read: {error}")))?;
        Self::of_texts(pairs, Kind::Form)
    }

    /// Those of a form, where a name may stand several times.
    fn of_texts(pairs: Vec<(String, String)>, kind: Kind) -> Result<Self, Problem> {
        if pairs.len() > FIELDS_MAX {
            return Err(Problem::Invalid(format!("there are more than {FIELDS_MAX} fields")));
        }
        let mut values = Map::new();
        for (name, text) in pairs {
            let (name, text) = match name.strip_suffix(LIST_SUFFIX) {
                Some(name) => (name.to_owned(), Value::Array(vec![text.into()])),
                None => (name, Value::String(text)),
            };
            match values.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(text);
                }
                Entry::Occupied(mut entry) => {
                    let list = [entry.get_mut().take(), text].into_iter().flat_map(as_list);
                    entry.insert(list.collect());
                }
            }
        }
        Ok(Self { values, kind, ..Self::default() })
    }

    /// These, and where they say nothing, `others`.
    pub(super) fn or(mut self, others: Self) -> Self {
        for (name, value) in others.values {
            self.values.entry(name).or_insert(value);
        }
        self
    }

    /// Takes the value of that name.
    pub(super) fn take<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, Problem> {
        self.known.push(name);
        let Some(value) = self.values.remove(name) else { return Ok(None) };
        let read = serde_json::from_value(value).map(Some);
        read.map_err(|error| Problem::Invalid(format!("{name}: {error}")))
    }

    /// The same for a list or an object, which a form may have as JSON in a text.
    pub(super) fn take_nested<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, Problem> {
        if self.kind != Kind::Json
            && let Some(value) = self.values.get_mut(name)
            && let Some(text) = value.as_str().filter(|text| text.starts_with(['[', '{']))
        {
            *value = serde_json::from_str(text)
                .map_err(|error| Problem::Invalid(format!("{name} is not JSON: {error}")))?;
        }
        self.take(name)
    }

    /// Refuses what nobody has asked for, lest a typo pass for a wish.
    pub(super) fn end(self) -> Result<(), Problem> {
        let Some(name) = self.values.keys().next() else { return Ok(()) };
        let known = self.known.join(", ");
        Err(Problem::Invalid(format!("there is no field {name:?}; there are {known}")))
    }
}

fn as_list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        other => vec![other],
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head.clone(), body);
        let body = Bytes::from_request(request, state).await.map_err(Problem::of_body)?;
        if body.is_empty() {
            return Ok(Self::default());
        }
        match Kind::of(&head.headers).ok_or(Problem::UnknownKind)? {
            Kind::Json => json(&body),
            Kind::Form => form(&body),
            Kind::Multipart => multipart(Request::from_parts(head, Body::from(body)), state).await,
        }
    }
}

async fn multipart<S: Send + Sync>(request: Request, state: &S) -> Result<Fields, Problem> {
    let unreadable = |why: String| Problem::Invalid(format!("the body: {why}"));
    let parts = Multipart::from_request(request, state).await;
    let mut parts = parts.map_err(|error| unreadable(error.body_text()))?;
    let unreadable = |error: axum::extract::multipart::MultipartError| {
        Problem::Invalid(format!("the body: {}", error.body_text()))
    };
    let mut fields = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(unreadable)? {
        let Some(name) = part.name().map(str::to_owned) else { continue };
        fields.push((name, part.text().await.map_err(unreadable)?));
    }
    Fields::of_texts(fields, Kind::Multipart)
}

fn json(body: &[u8]) -> Result<Fields, Problem> {
    let values = serde_json::from_slice(body)
        .map_err(|error| Problem::Invalid(format!("the body is not a JSON object: {error}")))?;
    Ok(Fields { values, ..Fields::default() })
}

fn form(body: &[u8]) -> Result<Fields, Problem> {
    let pairs = serde_urlencoded::from_bytes(body)
        .map_err(|error| Problem::Invalid(format!("the body is not a form: {error}")))?;
    Fields::of_texts(pairs, Kind::Form)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// The fields of a body of that kind.
    pub(in crate::api) async fn fields(kind: &str, body: &str) -> Result<Fields, Problem> {
        let request = Request::builder().header(CONTENT_TYPE, kind);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        Fields::from_request(request, &()).await
    }

    #[tokio::test]
    async fn a_body_may_be_a_form_json_or_multipart() {
        let multipart =
            "--x\r\ncontent-disposition: form-data; name=\"active\"\r\n\r\n1\r\n--x--\r\n";
        for (kind, body) in [
            ("application/x-www-form-urlencoded", "active=1"),
            ("Application/X-WWW-Form-Urlencoded; charset=utf-8", "active=1"),
            ("application/json; charset=utf-8", "{\"active\":\"1\"}"),
            ("multipart/form-data; boundary=x", multipart),
        ] {
            let mut fields = fields(kind, body).await.unwrap();
            assert_eq!(fields.take("active"), Ok(Some("1".to_owned())), "{kind}");
            assert_eq!(fields.take::<String>("active"), Ok(None), "{kind}");
            assert_eq!(fields.end(), Ok(()));
        }
        assert!(fields("application/json", "[1]").await.is_err());
        assert!(fields("multipart/form-data", "x").await.is_err());
    }

    #[tokio::test]
    async fn a_body_of_another_kind_is_refused_unless_it_is_empty() {
        for kind in ["text/plain", "application/jsonx", "application", "", "json", "\u{fc}/json"] {
            assert_eq!(fields(kind, "active=1").await, Err(Problem::UnknownKind), "{kind}");
            assert_eq!(fields(kind, "").await, Ok(Fields::default()), "{kind}");
        }
        assert_eq!(fields("multipart/form-data", "").await, Ok(Fields::default()));
    }

    #[tokio::test]
    async fn a_list_may_be_written_in_many_ways() {
        let form = "application/x-www-form-urlencoded";
        let both = Ok(Some(vec!["a".to_owned(), "b".to_owned()]));
        for (kind, body) in [
            ("application/json", "{\"of\":[\"a\",\"b\"]}"),
            (form, "of=a&of=b"),
            (form, "of[]=a&of[]=b"),
            (form, "of%5B%5D=a&of=b"),
            (form, "of=[\"a\",\"b\"]"),
        ] {
            assert_eq!(fields(kind, body).await.unwrap().take_nested("of"), both, "{body}");
        }
        let one = fields(form, "of[]=a").await.unwrap().take("of");
        assert_eq!(one, Ok(Some(json!(["a"]))));
        let text = fields("application/json", "{\"of\":\"[]\"}").await.unwrap().take_nested("of");
        assert_eq!(text, Ok(Some("[]".to_owned())), "JSON has lists of its own");
    }

    #[tokio::test]
    async fn what_nobody_wants_is_refused() {
        let mut fields = fields("application/json", "{\"a\":null,\"c\":1}").await.unwrap();
        assert_eq!(fields.take("a"), Ok(Some(Value::Null)));
        assert_eq!(fields.take::<String>("b"), Ok(None));
        let why = "there is no field \"c\"; there are a, b";
        assert_eq!(fields.end(), Err(Problem::Invalid(why.to_owned())));
    }
}
