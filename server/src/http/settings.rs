//! The settings (`settings`): what they are, and how they are changed.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use rov_common::api::ErrorBody;
use serde_json::{Map, Value};

use super::failure::expect_type;
use super::login::Controller;
use super::{Api, Choice, Failure};
use crate::events::Event;
use crate::settings::{Changed, Refusal, Scope, Values, shown};
use crate::users::Caller;

const JSON_TYPE: &str = "application/json";

/// `GET /api/settings`: all, of the server, the cameras and their streams.
pub(super) async fn everything(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(api.settings.everything())
}

/// `GET /api/settings/NAME`: of the server, or of the stream `?stream=` and its camera.
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    name: Result<Path<String>, PathRejection>,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Path(name) = name?;
    let stream = Choice::of(choice, &api.streams)?;
    Ok(Json(api.settings.one(api.settings.scope_of(&name, stream)?, &name)?))
}

/// `GET /api/cameras/CAMERA/settings`, `GET /api/cameras/CAMERA/streams/STREAM/settings`.
pub(super) async fn of_place(
    State(api): State<Arc<Api>>,
    place: Result<Path<Vec<String>>, PathRejection>,
) -> Result<Json<Value>, Refused> {
    let Path(place) = place?;
    Ok(Json(api.settings.all(scope(&api, &place)?)))
}

/// `PATCH /api/settings/NAME`: `{"value": ...}`.
pub(super) async fn change_one(
    State(api): State<Arc<Api>>,
    Controller(caller): Controller,
    name: Result<Path<String>, PathRejection>,
    choice: Result<Query<Choice>, QueryRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Changed>, Refused> {
    let Path(name) = name?;
    let stream = Choice::of(choice, &api.streams)?;
    let scope = api.settings.scope_of(&name, stream)?;
    let mut given = values(&headers, &body)?;
    match (given.remove("value"), given.is_empty()) {
        (Some(value), true) => Ok(Json(change(api, caller, scope, Values::from([(name, value)])).await?)),
        _ => Err(Refused::body("the body is not {\"value\": ...}")),
    }
}

/// `PATCH` of several of a camera or a stream: `{"streamBitrate": 4000, ...}`, all or none.
pub(super) async fn change_of_place(
    State(api): State<Arc<Api>>,
    Controller(caller): Controller,
    place: Result<Path<Vec<String>>, PathRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Changed>, Refused> {
    let Path(place) = place?;
    let scope = scope(&api, &place)?;
    Ok(Json(change(api, caller, scope, values(&headers, &body)?).await?))
}

/// All or none; with the lines of the audit and what those who follow are told.
pub(super) async fn change(api: Arc<Api>, caller: Caller, scope: Scope, values: Values) -> Result<Changed, Refusal> {
    let limit = api.limits.change;
    // To its end, also where nobody waits for it any more.
    let change = tokio::spawn(async move {
        let told: Map<_, _> = values.iter().map(|(name, value)| (name.clone(), shown(name, value))).collect();
        let what = format!("settings of {}: {}", api.settings.place(scope), Value::Object(told));
        let result = api.settings.change(scope, &values).await;
        match &result {
            Ok(changed) => {
                api.users.changed(&caller, &what);
                api.events.tell(Event::Settings(api.settings.event(scope, changed, caller.name())));
            }
            Err(refusal) => api.users.refused(&caller, &what, refusal),
        }
        result
    });
    match tokio::time::timeout(limit, change).await {
        Ok(done) => done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())),
        Err(_) => {
            let limit = limit.as_secs();
            let message = format!("not done within {limit} s, and goes on: /api/events tells when it is");
            Err(Refusal::NotNow(message))
        }
    }
}

fn values(headers: &HeaderMap, body: &Bytes) -> Result<Values, Refused> {
    // For JSON, browsers ask first whether a page may.
    expect_type(headers, JSON_TYPE)?;
    serde_json::from_slice(body).map_err(|error| Refused::body(&format!("the body is no JSON object: {error}")))
}

/// Of a camera, or a camera and its stream.
fn scope(api: &Api, place: &[String]) -> Result<Scope, Failure> {
    let scope = match place {
        [camera] => api.settings.scope(camera, None),
        [camera, stream] => api.settings.scope(camera, Some(stream)),
        _ => None,
    };
    scope.ok_or_else(|| {
        let known: Vec<_> = api.streams.iter().map(|stream| stream.names().collect::<Vec<_>>().join(" or ")).collect();
        let reason = format!("there is no {}; streams are {}", place.join("/"), known.join(", "));
        Failure(StatusCode::NOT_FOUND, reason)
    })
}

/// Why nothing was changed, and where it is of one setting, of which.
pub(super) struct Refused(StatusCode, ErrorBody);

impl Refused {
    fn body(error: &str) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, ErrorBody { error: error.to_owned(), field: None, mjpeg: false })
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<Failure> for Refused {
    fn from(Failure(status, error): Failure) -> Self {
        Self(status, ErrorBody { error, field: None, mjpeg: false })
    }
}

impl From<PathRejection> for Refused {
    fn from(rejection: PathRejection) -> Self {
        Failure::from(rejection).into()
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let error = refusal.to_string();
        let (status, field) = match refusal {
            Refusal::Unknown { name, .. } => (StatusCode::NOT_FOUND, Some(name)),
            Refusal::ReadOnly { name } | Refusal::Locked { name, .. } => (StatusCode::FORBIDDEN, Some(name)),
            Refusal::Wrong { name, .. } => (StatusCode::UNPROCESSABLE_ENTITY, Some(name)),
            Refusal::WrongTogether(_) => (StatusCode::UNPROCESSABLE_ENTITY, None),
            Refusal::NotNow(_) => (StatusCode::SERVICE_UNAVAILABLE, None),
        };
        Self(status, ErrorBody { error, field, mjpeg: false })
    }
}
