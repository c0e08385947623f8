//! The description of the API (`OpenAPI` 3.1), made of what the routes themselves go by: their tables, parameters, codes and types.

use std::collections::BTreeMap;

use axum::response::Response;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::answer;
use super::app_token::{AppToken, Granted};
use super::counts::{Facets, Intervals};
use super::events::{Item, Page};
use super::parameters::{Kind, Parameter};
use super::tail::Told;
use super::views::Catalogue;
use super::{ROUTES, Route};
use crate::http::{Code, ProblemMembers};

/// `GET /api/openapi.json`.
pub(super) async fn openapi() -> Response {
    answer::small(&description())
}

fn description() -> Value {
    let paths: Map<String, Value> = ROUTES.iter().map(|route| (route.path.to_owned(), path(route))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "audit-log",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What happened, when, by whom, in which job. Of a record, `ts`, `jobId` and `workspaceId` are the word of the \
                            sidecar that wrote it; `event`, `message` and `meta` are the job's own claim.",
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }, { "header": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "header": { "type": "apiKey", "in": "header", "name": "X-Auth-Token" },
            },
        },
    })
}

/// The types of answers, and those that they are made of.
fn schemas() -> BTreeMap<String, RefOr<Schema>> {
    fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
        schemas.push((T::name().into_owned(), <T as PartialSchema>::schema()));
    }
    let mut schemas = Vec::new();
    add::<Page<'_>>(&mut schemas);
    add::<Item<'_>>(&mut schemas);
    add::<Facets>(&mut schemas);
    add::<Intervals>(&mut schemas);
    add::<Told<'_>>(&mut schemas);
    add::<Catalogue<'_>>(&mut schemas);
    add::<AppToken>(&mut schemas);
    add::<Granted>(&mut schemas);
    add::<ProblemMembers<'_>>(&mut schemas);
    schemas.into_iter().collect()
}

fn path(route: &Route) -> Value {
    let id = route.path.contains("{id}").then(|| {
        json!({
            "name": "id",
            "in": "path",
            "required": true,
            "description": "The `id` of a record, `segment:index`, percent-encoded as one element of the path.",
            "schema": { "type": "string" },
        })
    });
    let parameters: Vec<Value> =
        id.into_iter().chain(route.parameters.iter().copied().flatten().map(parameter)).collect();
    let mut operation = json!({ "summary": route.about, "parameters": parameters, "responses": responses(route) });
    if !route.wants_token {
        operation["security"] = json!([]);
    }
    let Some(schema) = route.body else { return json!({ "get": operation }) };
    let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
    operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    json!({ "post": operation })
}

fn parameter(parameter: &Parameter) -> Value {
    let mut value = match parameter.kind {
        Kind::Text { .. } => json!({ "type": "string" }),
        Kind::Number { min, max, .. } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words, "default": words[0] }),
    };
    if let Kind::Number { default: Some(default), .. } = parameter.kind {
        value["default"] = default.into();
    }
    let schema = if parameter.is_repeatable { json!({ "type": "array", "items": value }) } else { value };
    let mut described = json!({
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        "description": parameter.about,
        "schema": schema,
    });
    if let Kind::Text { example } = parameter.kind
        && !example.is_empty()
    {
        described["example"] = if parameter.is_repeatable { json!([example]) } else { example.into() };
    }
    described
}

fn responses(route: &Route) -> Value {
    let content = route.answers.iter().map(|(content_type, schema)| {
        let schema =
            if schema.is_empty() { json!({}) } else { json!({ "$ref": format!("#/components/schemas/{schema}") }) };
        (content_type.split(';').next().unwrap_or_default().to_owned(), json!({ "schema": schema }))
    });
    let mut responses = BTreeMap::new();
    responses
        .insert("200".to_owned(), json!({ "description": route.about, "content": content.collect::<Map<_, _>>() }));
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in route.codes() {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    for (status, codes) in by_status {
        let about: Vec<_> = codes.iter().map(|code| format!("`{}`: {}.", code.name(), code.title())).collect();
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        let content = json!({ "application/problem+json": { "schema": schema } });
        responses.insert(status.to_string(), json!({ "description": about.join(" "), "content": content }));
    }
    json!(responses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference leads to a schema.
    #[test]
    fn what_is_referred_to_is_there() {
        let description = description();
        let schemas = description["components"]["schemas"].as_object().unwrap();
        let text = description.to_string();
        let references: Vec<_> = text.split("\"#/components/schemas/").skip(1).collect();
        assert!(references.len() > 10, "{text}");
        for reference in references {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}: {:?}", schemas.keys());
        }
        let by = &schemas["Item"]["properties"];
        assert_eq!(by["index"]["type"], "integer", "{by}");
        assert_eq!(by["ts"]["format"], "date-time", "{by}");
    }
}
