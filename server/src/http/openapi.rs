//! `GET /api/openapi.json`: the description of the API (OpenAPI 3.1), made from the table of settings and from what
//! cameras and streams there are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use rov_common::api::{MJPEG_PATH, SNAPSHOT_PATH};
use serde_json::{Map, Value, json};

use super::Api;
use crate::settings::{Access, SETTINGS, Setting};

pub(super) async fn openapi(State(api): State<Arc<Api>>) -> Json<Value> {
    let cameras: Vec<_> = api.streams.cameras().into_iter().map(|camera| camera.name).collect();
    Json(document(&cameras, &api.settings.stream_names()))
}

fn document(cameras: &[String], streams: &[String]) -> Value {
    let camera = parameter("camera", "path", cameras);
    let stream = parameter("stream", "path", streams);
    let of_stream = parameter("stream", "query", streams);
    let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name.to_owned()).collect();
    let name = parameter("name", "path", &names);
    let one = json!({
        "type": "object", "required": ["value"], "properties": { "value": true }, "additionalProperties": false,
    });
    let of_camera = changes(|setting| matches!(setting.access, Access::Camera(..)));
    let of_streams = changes(|setting| matches!(setting.access, Access::Stream(..)));
    json!({
        "openapi": "3.1.0",
        "info": { "title": "rov-server", "version": env!("CARGO_PKG_VERSION") },
        "paths": {
            "/api/settings": { "get": read("All settings, of the server, its cameras and their streams", &[]) },
            "/api/settings/{name}": {
                "get": read(
                    "A setting of the server, or of the stream that is chosen and its camera",
                    &[name.clone(), of_stream.clone()],
                ),
                "patch": write("Changes it", &[name, of_stream], one),
            },
            "/api/cameras/{camera}/settings": {
                "get": read("The settings of a camera", std::slice::from_ref(&camera)),
                "patch": write("Changes several, all or none", std::slice::from_ref(&camera), of_camera),
            },
            "/api/cameras/{camera}/streams/{stream}/settings": {
                "get": read("The settings of a stream", &[camera.clone(), stream.clone()]),
                "patch": write("Changes several, all or none", &[camera, stream], of_streams),
            },
            "/api/events": { "get": answer("What happens: state, alarm, settings", "text/event-stream") },
            "/api/stats": { "get": read("All that is counted and measured", &[]) },
            "/metrics": { "get": answer("The same for Prometheus", "text/plain") },
            SNAPSHOT_PATH: { "get": answer("The newest picture", "image/jpeg") },
            MJPEG_PATH: { "get": answer("Pictures at a low rate", "multipart/x-mixed-replace") },
        },
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": { "error": { "type": "string" }, "field": { "type": "string" } },
                },
                "Changed": {
                    "type": "object",
                    "required": ["applied", "waiting"],
                    "properties": {
                        "applied": { "type": "object" },
                        "waiting": { "type": "object" },
                        "not_kept": { "type": "string" },
                    },
                },
            },
            "securitySchemes": {
                "password": { "type": "http", "scheme": "basic" },
                "token": { "type": "http", "scheme": "bearer" },
            },
        },
    })
}

fn parameter(name: &str, place: &str, values: &[String]) -> Value {
    let schema = json!({ "type": "string", "enum": values });
    json!({ "name": name, "in": place, "required": place == "path", "schema": schema })
}

fn read(summary: &str, parameters: &[Value]) -> Value {
    let content = json!({ "application/json": { "schema": { "type": "object" } } });
    let mut responses = refusals(&[400, 401, 404, 429, 503]);
    responses.insert("200".to_owned(), json!({ "description": "What there is", "content": content }));
    json!({ "summary": summary, "parameters": parameters, "responses": responses })
}

fn write(summary: &str, parameters: &[Value], schema: Value) -> Value {
    let content = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Changed" } } });
    let mut responses = refusals(&[400, 401, 403, 404, 413, 415, 422, 429, 503]);
    let description = "What is in effect now, and what waits for a restart of the server";
    responses.insert("200".to_owned(), json!({ "description": description, "content": content }));
    json!({
        "summary": summary,
        "parameters": parameters,
        "security": [{ "password": [] }, { "token": [] }],
        "requestBody": { "required": true, "content": { "application/json": { "schema": schema } } },
        "responses": responses,
    })
}

fn answer(summary: &str, kind: &str) -> Value {
    let mut responses = refusals(&[401, 404, 429, 503]);
    responses.insert("200".to_owned(), json!({ "description": "What there is", "content": { kind: {} } }));
    json!({ "summary": summary, "responses": responses })
}

fn refusals(codes: &[u16]) -> Map<String, Value> {
    let refusal = |code: &u16| {
        let description = match code {
            400 => "The request is none",
            401 => "A login is needed, or is wrong",
            403 => "Only a controller may, or the setting is locked",
            404 => "There is no such camera, stream or setting",
            413 => "The body is too large",
            415 => "The body is not application/json",
            422 => "A value cannot be so: field says which",
            429 => "Too many failed logins",
            _ => "Not now",
        };
        let schema = json!({ "$ref": "#/components/schemas/Error" });
        (
            code.to_string(),
            json!({ "description": description, "content": { "application/json": { "schema": schema } } }),
        )
    };
    codes.iter().map(refusal).collect()
}

/// A body that gives some settings other values.
fn changes(is_of_place: impl Fn(&&Setting) -> bool) -> Value {
    let writable = SETTINGS.iter().filter(is_of_place).filter(|setting| setting.is_writable);
    let properties: Map<_, _> = writable.map(|setting| (setting.name.to_owned(), setting.schema())).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}
