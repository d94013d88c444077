//! The API's description, in OpenAPI 3.1: what each call says of itself where it is written, and here
//! what all have in common.

use std::collections::BTreeMap;

use axum::extract::Extension;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use utoipa::openapi::encoding::EncodingBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, OneOf, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, Ref, RefOr, Required, Schema, SecurityRequirement};
use utoipa::{OpenApi, PartialSchema, ToSchema};

use super::caller::Need;
use super::reply::{ErrorCode, PROBLEM_KIND, problems};
use super::{policy, reply, tokens, workspaces};
use crate::model::{ProjectId, WorkspaceId};
use crate::token::TokenName;

/// A label as a pattern, for one among other things.
pub(super) const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";

/// The ways in which a token may be presented.
const SCHEMES: [&str; 4] = ["bearer", "basic", "access_token", "session"];

/// The schemas of bodies, whose members may be left out and are not `null` then.
const OF_BODIES: [&str; 8] = [
    "ContainerChange",
    "Keep",
    "NewContainer",
    "NewSession",
    "NewToken",
    "NewWorkspace",
    "PolicyChanges",
    "Report",
];

/// What is in a body, and may have it either way.
const WITHIN_BODIES: &str = "Spec";

/// What every call has in common.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Frostgate",
        description = "\
Frostgate freezes idle workspaces and thaws them when somebody comes back.

Bodies may be JSON, urlencoded or multipart, and mean the same: a form's texts are read as numbers, \
booleans or lists where those are wanted. A body of unknown fields is refused, unless it says \
otherwise. Times are minutes, or texts such as `90s`.

`/workspaces` and all below it are served without the prefix `/api/v1` as well. Every `GET` may be \
`HEAD`. The calls below `/v1` are spin-docker's own, over the same workspaces.",
    ),
    tags(
        (name = "workspaces", description = "Containers and processes that are frozen when idle"),
        (name = "projects", description = "Templates that workspaces are created from"),
        (name = "tokens", description = "Who may call"),
        (name = "containers", description = "spin-docker's own calls, over the same workspaces"),
        (name = "check-in", description = "For workspaces: their own reports of activity"),
        (name = "gateway", description = "The gateway itself"),
    ),
    components(schemas(reply::Document))
)]
struct Common;

/// The description, as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Document(Bytes);

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0).into_response()
    }
}

/// Describe the API, as this document does.
///
/// Also at `/api/v1/openapi.json`.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getDescription",
    tag = "gateway",
    responses((status = 200, description = "This document", body = Value))
)]
pub(super) async fn read(Extension(document): Extension<Document>) -> Document {
    document
}

impl Document {
    /// What these calls say of themselves, and what all have in common.
    pub(super) fn of(calls: openapi::OpenApi) -> Self {
        let mut api = Common::openapi().merge_from(calls);
        operations(&mut api).for_each(describe_body);
        let problems = shared_problems(&mut api);
        let components = api.components.get_or_insert_default();
        components.responses = problems;
        components.security_schemes = schemes();
        let mut document = serde_json::to_value(api).expect("a description is made of texts");
        if let Some(schemas) = document.pointer_mut("/components/schemas") {
            finish(schemas);
        }
        let mut text = serde_json::to_vec_pretty(&document).expect("it was made of texts");
        text.push(b'\n');
        Self(text.into())
    }
}

/// Says of calls that they need a token, and what happens without.
pub(super) fn describe_need(api: &mut openapi::OpenApi, need: Need) {
    let mut codes = vec![ErrorCode::Unauthorized, ErrorCode::TooManyFailures];
    match need {
        Need::Look => {}
        Need::Change | Need::Govern => codes.push(ErrorCode::Forbidden),
    }
    let mut responses = problems(&codes);
    let headers = [
        ("401", "WWW-Authenticate", "The ways in which a token may be presented.", Type::String),
        ("429", "Retry-After", "Seconds until a wrong token is looked at again.", Type::Integer),
    ];
    for (status, name, description, schema_type) in headers {
        let schema = ObjectBuilder::new().schema_type(schema_type).build();
        let header = HeaderBuilder::new().description(Some(description)).schema(Some(schema));
        if let Some(RefOr::T(response)) = responses.get_mut(status) {
            response.headers.insert(name.to_owned(), header.build().into());
        }
    }
    for operation in operations(api) {
        let nothing: [&str; 0] = [];
        let ways = SCHEMES.map(|scheme| SecurityRequirement::new(scheme, nothing));
        operation.security = Some(ways.into());
        operation.responses.responses.extend(responses.clone());
    }
}

fn operations(api: &mut openapi::OpenApi) -> impl Iterator<Item = &mut Operation> {
    api.paths.paths.values_mut().flat_map(|item| {
        let PathItem { get, put, post, delete, patch, .. } = item;
        [get, put, post, delete, patch].into_iter().flatten()
    })
}

/// A body may be of three kinds, and whatever a caller sends may be unreadable.
fn describe_body(operation: &mut Operation) {
    let mut codes = Vec::new();
    if operation.parameters.is_some() || operation.request_body.is_some() {
        codes.push(ErrorCode::InvalidRequest);
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        codes.extend([ErrorCode::TooLarge, ErrorCode::UnsupportedMediaType]);
        if let Some(RefOr::T(json)) = body.content.get_mut("application/json") {
            // One that may be left out isn't `null` then.
            if let Some(RefOr::T(Schema::OneOf(OneOf { items, .. }))) = &json.schema {
                json.schema = items.iter().find(|item| matches!(item, RefOr::Ref(_))).cloned();
            }
            let mut form = json.clone();
            if operation.operation_id.as_deref() == Some("createWorkspace") {
                let json = EncodingBuilder::new().content_type(Some("application/json"));
                form.encoding.insert("spec".to_owned(), json.build());
            }
            for kind in ["application/x-www-form-urlencoded", "multipart/form-data"] {
                body.content.insert(kind.to_owned(), form.clone().into());
            }
        }
    }
    operation.responses.responses.extend(problems(&codes));
}

/// Moves the problems of all calls to where they stand once.
fn shared_problems(api: &mut openapi::OpenApi) -> BTreeMap<String, RefOr<openapi::Response>> {
    let mut shared = BTreeMap::new();
    let responses =
        operations(api).flat_map(|operation| operation.responses.responses.values_mut());
    for response in responses {
        let RefOr::T(whole) = response else { continue };
        let Some(RefOr::T(problem)) = whole.content.get(PROBLEM_KIND) else { continue };
        let codes: Vec<&str> = problem.examples.keys().map(String::as_str).collect();
        let name = codes.join("_or_");
        let reference = Ref::from_response_name(&name).into();
        shared.insert(name, std::mem::replace(response, reference));
    }
    shared
}

fn schemes() -> BTreeMap<String, RefOr<SecurityScheme>> {
    let http = |scheme, description| {
        let builder = HttpBuilder::new().scheme(scheme).description(Some(description));
        SecurityScheme::Http(builder.build())
    };
    let [bearer, basic, in_query, session] = SCHEMES;
    let risk = "The token in the query, which proxies and browsers may write down";
    let key = ApiKey::Query(ApiKeyValue::with_description(in_query, risk));
    let cookie = "What `POST /api/v1/session` answers; by TLS it is `__Host-frostgate`";
    let cookie = ApiKey::Cookie(ApiKeyValue::with_description("frostgate", cookie));
    let schemes = [
        (bearer, http(HttpAuthScheme::Bearer, "`Authorization: Bearer TOKEN`")),
        (basic, http(HttpAuthScheme::Basic, "The token as the password of any user")),
        (in_query, SecurityScheme::ApiKey(key)),
        (session, SecurityScheme::ApiKey(cookie)),
    ];
    schemes.into_iter().map(|(name, scheme)| (name.to_owned(), scheme.into())).collect()
}

/// Says of schemas what types don't.
fn finish(schemas: &mut Value) {
    flatten(schemas, "NewWorkspace");
    let rules = [
        ("PolicyChanges", policy::Changes::rule()),
        ("NewWorkspace", policy::Changes::rule()),
        ("NewWorkspace", workspaces::rule()),
        ("NewToken", tokens::rule()),
    ];
    for (name, rule) in rules {
        if let (Some(Value::Object(schema)), Value::Object(rule)) = (schemas.get_mut(name), rule) {
            schema.extend(rule);
        }
    }
    for (name, schema) in schemas.as_object_mut().into_iter().flatten() {
        let Some(Value::Object(properties)) = schema.get_mut("properties") else { continue };
        properties.values_mut().for_each(raise_description);
        if OF_BODIES.contains(&name.as_str()) {
            properties.values_mut().for_each(without_null);
        } else if name != WITHIN_BODIES {
            // In answers all are always there.
            schema["required"] = properties.keys().cloned().collect();
        }
    }
}

/// Whether or not it is `null`, it is the same thing that is described.
fn raise_description(property: &mut Value) {
    let Some(Value::Array(kinds)) = property.get_mut("oneOf") else { return };
    let description = kinds.iter_mut().find_map(|kind| kind.as_object_mut()?.remove("description"));
    if let Some(description) = description {
        property["description"] = description;
    }
}

/// Makes one object of all of which a schema consists. Each alone would refuse the others' fields.
fn flatten(schemas: &mut Value, name: &str) {
    let Value::Array(parts) = schemas[name]["allOf"].take() else { return };
    let mut properties = Map::new();
    for part in parts {
        let part = match part["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            Some(name) => &schemas[name],
            None => &part,
        };
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
    }
    if let Some(schema) = schemas[name].as_object_mut() {
        schema.remove("allOf");
        schema.insert("type".to_owned(), "object".into());
        schema.insert("properties".to_owned(), properties.into());
        schema.insert("additionalProperties".to_owned(), false.into());
    }
}

/// Leaves `null` to the types to which it means something.
fn without_null(property: &mut Value) {
    let null = Value::from("null");
    if let Some(Value::Array(types)) = property.get_mut("type") {
        types.retain(|kind| *kind != null);
        property["type"] = types.pop().unwrap_or_default();
    }
    if let Some(Value::Array(kinds)) = property.get_mut("oneOf") {
        kinds.retain(|kind| kind.get("type") != Some(&null));
        if let [kind] = &mut kinds[..] {
            let kind = kind.take();
            if let (Some(property), Value::Object(kind)) = (property.as_object_mut(), kind) {
                property.remove("oneOf");
                property.extend(kind);
            }
        }
    }
}

/// A label in a path.
pub(super) fn in_path(name: &str, description: &str, example: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(label(example)))
        .build()
}

fn label(example: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!("^{LABEL}$")))
        .examples([example])
}

impl PartialSchema for WorkspaceId {
    fn schema() -> RefOr<Schema> {
        let description = "A workspace's id: a DNS label, and the first part of its host name.";
        label("alice").description(Some(description)).into()
    }
}

impl ToSchema for WorkspaceId {}

impl PartialSchema for ProjectId {
    fn schema() -> RefOr<Schema> {
        label("notebook").description(Some("A project's id.")).into()
    }
}

impl ToSchema for ProjectId {}

impl PartialSchema for TokenName {
    fn schema() -> RefOr<Schema> {
        label("ci").description(Some("What a token is called.")).into()
    }
}

impl ToSchema for TokenName {}
