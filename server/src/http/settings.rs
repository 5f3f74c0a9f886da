//! The settings (`settings`): what they are, and how they are changed.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde_json::Value;

use super::{Api, Choice, Failure};
use crate::settings::{Refusal, Scope};

/// `GET /api/settings`: all, of the server, the cameras and their streams.
pub(super) async fn everything(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(api.settings.everything())
}

/// `GET /api/settings/NAME`: of the server, or of the stream `?stream=` and its camera.
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    name: Result<Path<String>, PathRejection>,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let Path(name) = name?;
    let stream = Choice::of(choice, &api.streams)?;
    Ok(Json(api.settings.one(api.settings.scope_of(&name, stream)?, &name)?))
}

/// `GET /api/cameras/CAMERA/settings`, `GET /api/cameras/CAMERA/streams/STREAM/settings`.
pub(super) async fn of_place(
    State(api): State<Arc<Api>>,
    place: Result<Path<Vec<String>>, PathRejection>,
) -> Result<Json<Value>, Failure> {
    let Path(place) = place?;
    Ok(Json(api.settings.all(scope(&api, &place)?)))
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

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::Unknown { .. } => StatusCode::NOT_FOUND,
            Refusal::ReadOnly { .. } | Refusal::Locked { .. } => StatusCode::FORBIDDEN,
            Refusal::Wrong { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::NotNow(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, refusal.to_string())
    }
}
