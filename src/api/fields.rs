//! The fields of a call's body, whichever of three ways it is written in: JSON, urlencoded or
//! multipart. Clients of every age use one of them, and all mean the same.

use axum::body::Bytes;
use axum::extract::{FromRequest, Multipart, Request};
use http::header::CONTENT_TYPE;

use super::reply::Problem;

/// Most fields that a body may have; no call has a tenth of it.
const FIELDS_MAX: usize = 200;

/// Names and values as text, in the order of the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(pub(super) Vec<(String, String)>);

impl Fields {
    /// Those of a query.
    pub(super) fn of_query(query: Option<&str>) -> Result<Self, Problem> {
        let fields: Vec<_> = serde_urlencoded::from_str(query.unwrap_or_default())
            .map_err(|error| Problem::Invalid(format!("the query can't be read: {error}")))?;
        at_most_the_limit(&fields)?;
        Ok(Self(fields))
    }

    /// These, and where they say nothing, `others`.
    pub(super) fn or(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// The values of all fields of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let found = self.0.iter().filter(move |(field, _)| field == name);
        found.map(|(_, value)| value.trim())
    }

    /// The value of the first field of that name, without white space around it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.trim())
    }

    /// Every item of a list: one for each field `name` or `name[]`, or several in one field, as
    /// JSON or separated by commas.
    pub(super) fn list(&self, name: &str) -> Result<Vec<String>, Problem> {
        let mut items = Vec::new();
        for text in self.all(&format!("{name}[]")).chain(self.all(name)) {
            if text.starts_with('[') {
                let several: Vec<String> = serde_json::from_str(text)
                    .map_err(|_| Problem::Invalid(format!("{name}: send a list of texts")))?;
                items.extend(several);
            } else {
                let several = text.split(',').map(|item| item.trim().to_owned());
                items.extend(several.filter(|item| !item.is_empty()));
            }
        }
        Ok(items)
    }

    /// Refuses fields of other names, lest a typo pass for a wish.
    pub(super) fn only<'a>(
        &self,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), Problem> {
        let unknown = self.0.iter().find(|(name, _)| !known.clone().any(|known| known == name));
        let Some((name, _)) = unknown else { return Ok(()) };
        let known: Vec<&str> = known.collect();
        let known = known.join(", ");
        Err(Problem::Invalid(format!("there is no field {name:?}; there are {known}")))
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().trim_start().to_ascii_lowercase();
        if kind.starts_with("multipart/form-data") {
            let unreadable = |error: String| Problem::Invalid(format!("the body: {error}"));
            let parts = Multipart::from_request(request, state).await;
            return multipart(parts.map_err(|error| unreadable(error.body_text()))?).await;
        }
        let body = Bytes::from_request(request, state).await.map_err(Problem::of_body)?;
        if body.is_empty() {
            return Ok(Self::default());
        }
        if kind.starts_with("application/json") { json(&body) } else { form(&body) }
    }
}

async fn multipart(mut parts: Multipart) -> Result<Fields, Problem> {
    let unreadable = |error: axum::extract::multipart::MultipartError| {
        Problem::Invalid(format!("the body: {}", error.body_text()))
    };
    let mut fields = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(unreadable)? {
        let Some(name) = part.name().map(str::to_owned) else { continue };
        fields.push((name, part.text().await.map_err(unreadable)?));
        at_most_the_limit(&fields)?;
    }
    Ok(Fields(fields))
}

fn json(body: &[u8]) -> Result<Fields, Problem> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)
        .map_err(|error| Problem::Invalid(format!("the body is not a JSON object: {error}")))?;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let fields: Vec<_> = members.into_iter().map(|(name, value)| (name, text(value))).collect();
    at_most_the_limit(&fields)?;
    Ok(Fields(fields))
}

fn form(body: &[u8]) -> Result<Fields, Problem> {
    let fields: Vec<_> = serde_urlencoded::from_bytes(body)
        .map_err(|error| Problem::Invalid(format!("the body is not a form: {error}")))?;
    at_most_the_limit(&fields)?;
    Ok(Fields(fields))
}

fn at_most_the_limit(fields: &[(String, String)]) -> Result<(), Problem> {
    if fields.len() > FIELDS_MAX {
        return Err(Problem::Invalid(format!("the body has more than {FIELDS_MAX} fields")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fields(kind: &str, body: &str) -> Result<Fields, Problem> {
        let request = Request::builder().header(CONTENT_TYPE, kind);
        let request = request.body(axum::body::Body::from(body.to_owned())).unwrap();
        Fields::from_request(request, &()).await
    }

    #[tokio::test]
    async fn a_body_may_be_a_form_json_or_multipart() {
        let expected = Fields(vec![("active".to_owned(), "1".to_owned())]);
        let multipart =
            "--x\r\ncontent-disposition: form-data; name=\"active\"\r\n\r\n1\r\n--x--\r\n";
        for (kind, body) in [
            ("application/x-www-form-urlencoded", "active=1"),
            ("application/json; charset=utf-8", "{\"active\":1}"),
            ("application/json", "{\"active\":\"1\"}"),
            ("multipart/form-data; boundary=x", multipart),
        ] {
            assert_eq!(fields(kind, body).await.unwrap(), expected, "{kind}");
        }
        assert!(fields("application/json", "[1]").await.is_err());
        assert!(fields("multipart/form-data", "x").await.is_err());
        assert_eq!(fields("application/json", "").await.unwrap(), Fields::default());
    }
}
