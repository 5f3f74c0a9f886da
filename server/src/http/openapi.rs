//! `GET /api/openapi.json`: the description of the API (OpenAPI 3.1), made from the table of settings and from what
//! cameras and streams there are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use rov_common::api::{
    CLIP_PATH, CLOCK_PATH, LOGIN_PATH, MJPEG_PATH, OFFER_PATH, RECORDINGS_PATH, RING_PATH, RING_PICTURES_PATH,
    SDP_PATH, SNAPSHOT_PATH, WHEP_PATH,
};
use serde_json::{Map, Value, json};

use super::Api;
use crate::settings::{Access, SETTINGS, Setting};

/// A recording on the vehicle.
const RECORDED: &str = "/api/recordings/{file}";

pub(super) async fn openapi(State(api): State<Arc<Api>>) -> Json<Value> {
    let cameras: Vec<_> = api.streams.cameras().into_iter().map(|camera| camera.name).collect();
    Json(document(&cameras, &api.settings.stream_names()))
}

fn document(cameras: &[String], streams: &[String]) -> Value {
    let camera = parameter("camera", "path", cameras);
    let stream = parameter("stream", "path", streams);
    let of_stream = parameter("stream", "query", streams);
    let session = json!({ "name": "session", "in": "path", "required": true, "schema": { "type": "string" } });
    let file = json!({ "name": "file", "in": "path", "required": true, "schema": { "type": "string" } });
    let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name.to_owned()).collect();
    let name = parameter("name", "path", &names);
    let one = json!({
        "type": "object", "required": ["value"], "properties": { "value": true }, "additionalProperties": false,
    });
    let of_camera = changes(|setting| matches!(setting.access, Access::Camera(..)));
    let of_streams = changes(|setting| matches!(setting.access, Access::Stream(..)));
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": "rov-server", "version": env!("CARGO_PKG_VERSION") },
        "paths": {
            "/api/settings": { "get": read("All settings, of the server, its cameras and their streams", &[]) },
            "/api/settings/{name}": {
                "get": read(
                    "A setting of the server, or of the stream that is chosen and its camera",
                    &[name.clone(), of_stream.clone()],
                ),
                "patch": write("Changes it", &[name, of_stream.clone()], one),
            },
            "/api/cameras/{camera}/settings": {
                "get": read("The settings of a camera", std::slice::from_ref(&camera)),
                "patch": write("Changes several, all or none", std::slice::from_ref(&camera), of_camera),
            },
            "/api/cameras/{camera}/streams/{stream}/settings": {
                "get": read("The settings of a stream", &[camera.clone(), stream.clone()]),
                "patch": write("Changes several, all or none", &[camera, stream], of_streams),
            },
            "/api/events": {
                "get": answer("What happens: state, alarm, settings, overlay, telemetry, \
                               recording", "text/event-stream"),
            },
            CLOCK_PATH: { "get": clock() },
            "/api/stats": { "get": read("All that is counted and measured", &[]) },
            LOGIN_PATH: { "get": read("Who asks, and what that one may do", &[]) },
            "/healthz": { "get": health() },
            WHEP_PATH: { "post": watch(&of_stream) },
            (format!("{WHEP_PATH}/{{session}}")): { "patch": candidates(&session), "delete": hang_up(&session) },
            OFFER_PATH: { "post": watch_by_json(&of_stream) },
            SDP_PATH: { "get": description(&of_stream) },
            "/metrics": { "get": answer("The same for Prometheus", "text/plain") },
            SNAPSHOT_PATH: { "get": answer("The newest picture", "image/jpeg") },
            RECORDINGS_PATH: { "get": read("Recordings on the vehicle, the newest first", &[]) },
            RECORDED: { "get": recording(&file), "delete": delete(&file) },
            CLIP_PATH: { "get": clip(&of_stream), "post": clip(&of_stream) },
            RING_PATH: { "get": kept(&of_stream) },
            RING_PICTURES_PATH: { "get": kept_pictures(&of_stream) },
            MJPEG_PATH: { "get": answer("Pictures at a low rate", "multipart/x-mixed-replace") },
        },
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": { "type": "string" }, "field": { "type": "string" }, "mjpeg": { "type": "boolean" }
                    },
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
    });
    say_who(&mut document["paths"]);
    document
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

fn clock() -> Value {
    let viewers = json!({ "name": "viewers", "in": "query", "required": false, "schema": { "type": "string" } });
    read(
        "The clock of the times of capture; of viewers by WebRTC also the last picture sent; what is not live, the \
         first stream",
        &[viewers],
    )
}

fn health() -> Value {
    let content = json!({ "application/json": { "schema": {
        "type": "object", "properties": { "status": { "enum": ["ok", "degraded"] } },
    } } });
    let mut responses = refusals(&[401, 429]);
    for (code, description) in [(200, "All streams are well"), (503, "One is not; or a login was not checked in time")]
    {
        responses.insert(code.to_string(), json!({ "description": description, "content": content }));
    }
    json!({ "summary": "Whether all streams are well; which are not is for who may watch", "responses": responses })
}

fn watch(stream: &Value) -> Value {
    let sdp = json!({ "application/sdp": { "schema": { "type": "string" } } });
    let mut responses = refusals(&[400, 401, 404, 413, 415, 422, 429, 503]);
    let location = json!({ "description": "Of the session", "schema": { "type": "string" } });
    let created = json!({ "description": "The answer", "headers": { "Location": location }, "content": sdp });
    responses.insert("201".to_owned(), created);
    json!({
        "summary": "Begins to watch by WebRTC (WHEP): an offer",
        "parameters": [stream],
        "requestBody": { "required": true, "content": sdp },
        "responses": responses,
    })
}

fn watch_by_json(stream: &Value) -> Value {
    let description = |kind: &str| {
        json!({ "application/json": { "schema": {
            "type": "object",
            "required": ["type", "sdp"],
            "properties": { "type": { "const": kind }, "sdp": { "type": "string" } },
        } } })
    };
    let mut responses = refusals(&[400, 401, 404, 413, 415, 422, 429, 503]);
    let location = json!({ "description": "Of the session", "schema": { "type": "string" } });
    let answer = json!({
        "description": "The answer", "headers": { "Location": location }, "content": description("answer"),
    });
    responses.insert("200".to_owned(), answer);
    json!({
        "summary": "Begins to watch by WebRTC: an offer as JSON, as RTCSessionDescription writes it",
        "parameters": [stream],
        "requestBody": { "required": true, "content": description("offer") },
        "responses": responses,
    })
}

fn description(stream: &Value) -> Value {
    let mut described = answer("What players open plain RTP with", "application/sdp");
    let host = json!({
        "name": "host", "in": "query", "required": false, "description": "One of the destinations, else the first",
        "schema": { "type": "string", "format": "ipv4" },
    });
    described["parameters"] = json!([stream, host]);
    described
}

fn candidates(session: &Value) -> Value {
    let fragment = json!({ "application/trickle-ice-sdpfrag": { "schema": { "type": "string" } } });
    let mut responses = refusals(&[400, 401, 404, 412, 413, 415, 422, 429, 503]);
    responses.insert("200".to_owned(), json!({ "description": "ICE was restarted", "content": fragment }));
    responses.insert("204".to_owned(), json!({ "description": "The candidates were taken" }));
    json!({
        "summary": "Candidates, or a restart of ICE",
        "parameters": [session],
        "requestBody": { "required": true, "content": fragment },
        "responses": responses,
    })
}

fn hang_up(session: &Value) -> Value {
    let mut responses = refusals(&[400, 401, 404, 429, 503]);
    responses.insert("200".to_owned(), json!({ "description": "The session has ended" }));
    json!({ "summary": "Ends the session", "parameters": [session], "responses": responses })
}

fn recording(file: &Value) -> Value {
    let mut responses = refusals(&[400, 401, 404, 429, 503]);
    let content = json!({ "video/mp4": {}, "text/csv": {} });
    for (code, description) in [("200", "All of it"), ("206", "The part that Range asks for")] {
        responses.insert(code.to_owned(), json!({ "description": description, "content": content }));
    }
    responses.insert("416".to_owned(), json!({ "description": "It has no such part" }));
    json!({ "summary": "A recording, or its table of times", "parameters": [file], "responses": responses })
}

fn clip(stream: &Value) -> Value {
    let seconds = json!({
        "name": "seconds", "in": "query", "required": false, "description": "At most what --ring keeps; 30 without",
        "schema": { "type": "integer", "minimum": 1, "maximum": 600 },
    });
    let [from, to] = ["from", "to"].map(|name| time(name, false));
    let run = json!({
        "name": "run", "in": "query", "required": false, "schema": { "type": "integer", "minimum": 0 },
        "description": "With from and to: of this run of the server alone, as its clock and its ring tell it",
    });
    let headers = json!({
        "Content-Disposition": header("A name of UTC, camera and stream"),
        "X-Timestamp": header("When the first picture was captured, in seconds since 1970"),
        "X-Content-Duration": header("In seconds"),
        "X-Age": header("From when its last picture was captured to this answer, in seconds"),
    });
    let mut responses = refusals(&[400, 401, 404, 409, 410, 422, 429, 503]);
    let clip = json!({
        "description": "From the keyframe before that to the newest picture, or to that of the time",
        "headers": headers,
        "content": { "video/mp4": {} },
    });
    responses.insert("200".to_owned(), clip);
    json!({
        "summary": "The last seconds of a stream, kept in memory, or those from one time to another, as MP4",
        "parameters": [stream, seconds, from, to, run],
        "responses": responses,
    })
}

fn header(description: &str) -> Value {
    json!({ "description": description, "schema": { "type": "string" } })
}

/// What answers to those who may watch say of the server.
fn say_who(paths: &mut Value) {
    let of_watching = |(path, _): &(&String, _)| !["/healthz", LOGIN_PATH, RECORDED].contains(&path.as_str());
    let operations = paths.as_object_mut().into_iter().flatten().filter(of_watching);
    let operations = operations.filter_map(|(_, operations)| operations.as_object_mut()).flatten();
    for response in operations.filter_map(|(_, operation)| operation["responses"].as_object_mut()).flatten() {
        if response.0.starts_with('2') {
            response.1["headers"]["X-Server-Id"] = header("The server's id, as in its statistics");
            response.1["headers"]["X-Server-Key"] = header("Its key, as in its statistics");
        }
    }
}

/// Of capture.
fn time(name: &str, is_required: bool) -> Value {
    json!({
        "name": name, "in": "query", "required": is_required, "schema": { "type": "integer", "minimum": 0 },
        "description": "A time of capture, in microseconds since 1970",
    })
}

/// Of what is captured from one time to another.
fn of_range(stream: &Value) -> Value {
    json!([stream, time("from", true), time("to", true)])
}

fn kept(stream: &Value) -> Value {
    let mut responses = refusals(&[400, 401, 404, 422, 429, 503]);
    let times = json!({ "type": "array", "items": { "type": "integer" } });
    let schema = json!({
        "type": "object", "required": ["run", "until_us", "pictures_us"],
        "properties": {
            "run": { "type": "integer" }, "kept_from_us": { "type": "integer" }, "until_us": { "type": "integer" },
            "pictures_us": times,
        },
    });
    let content = json!({ "application/json": { "schema": schema } });
    responses.insert("200".to_owned(), json!({ "description": "When each was captured", "content": content }));
    json!({
        "summary": "Which pictures of a stream are kept in memory", "parameters": of_range(stream),
        "responses": responses,
    })
}

fn kept_pictures(stream: &Value) -> Value {
    let mut responses = refusals(&[400, 401, 404, 422, 429, 503]);
    let content = json!({ "application/octet-stream": {} });
    let pictures = json!({ "description": "Access units, as common/src/ring.rs", "content": content });
    responses.insert("200".to_owned(), pictures);
    json!({
        "summary": "The pictures themselves, at what the link has spare", "parameters": of_range(stream),
        "responses": responses,
    })
}

fn delete(file: &Value) -> Value {
    let mut responses = refusals(&[400, 401, 403, 404, 409, 429, 503]);
    responses.insert("204".to_owned(), json!({ "description": "It is deleted" }));
    json!({
        "summary": "Deletes a recording with its table of times",
        "parameters": [file],
        "security": [{ "password": [] }, { "token": [] }],
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
            404 => "There is no such camera, stream, setting, session or recording",
            409 => "It is being recorded; or nothing is kept for a clip yet",
            410 => "What was captured then is not kept any more",
            412 => "ICE was restarted since",
            413 => "The body is too large",
            415 => "The body is of another type",
            422 => {
                "A value cannot be so: field says which, where one alone can be; an offer has nothing that is sent here"
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_others_may_ask_is_described() {
        let document = document(&["cam1".to_owned()], &["stream1".to_owned()]);
        for (path, method) in [
            (WHEP_PATH, "post"),
            (OFFER_PATH, "post"),
            (SDP_PATH, "get"),
            (SNAPSHOT_PATH, "get"),
            (MJPEG_PATH, "get"),
            (CLIP_PATH, "get"),
            (CLIP_PATH, "post"),
            (RING_PATH, "get"),
            (RING_PICTURES_PATH, "get"),
            ("/api/events", "get"),
            ("/api/settings/{name}", "patch"),
        ] {
            let described = &document["paths"][path][method];
            assert!(
                described["summary"].is_string() && described["responses"]["200"].is_object()
                    || described["responses"]["201"].is_object(),
                "{method} {path}: {described}"
            );
        }
        assert_eq!(document["paths"][SDP_PATH]["get"]["parameters"][0]["schema"]["enum"], json!(["stream1"]));
    }
}
