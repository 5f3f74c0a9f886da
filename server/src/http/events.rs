//! `GET /api/events`: what happens, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::{Api, fail};
use crate::events::{self, Event, Over, Reader};
use crate::users::Caller;

/// A reader knows by it that the server is there, and the server that the reader is.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(super) async fn events(State(api): State<Arc<Api>>, Extension(caller): Extension<Caller>) -> Response {
    let reader = match api.events.follow(&api.streams, caller.from) {
        Ok(reader) => reader,
        Err(none) => return fail(StatusCode::SERVICE_UNAVAILABLE, &none.to_string()),
    };
    let events = Sse::new(stream::unfold(Some(reader), next)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    ([(header::CACHE_CONTROL, "no-store")], events).into_response()
}

/// The next event, the last of which says why it is the last.
async fn next(reader: Option<Reader>) -> Option<(Result<sse::Event, Infallible>, Option<Reader>)> {
    let mut reader = reader?;
    Some(match reader.next().await {
        Ok(event) => (Ok(told(&event)), Some(reader)),
        Err(Over::Behind(lost)) => {
            let reason = format!("{lost} events were not read in time: open it again, it begins with what is so then");
            (Ok(sse::Event::default().event("dropped").data(reason)), None)
        }
        Err(Over::Stopping) => return None,
    })
}

fn told(event: &Event) -> sse::Event {
    let (name, data) = match event {
        Event::State(state) => ("state", serde_json::to_string(state)),
        Event::Alarm(alarm) => ("alarm", serde_json::to_string(alarm)),
        Event::Settings(settings) => ("settings", serde_json::to_string(settings)),
        Event::Overlay(overlay) => ("overlay", serde_json::to_string(overlay)),
        Event::Recording(recording) => ("recording", serde_json::to_string(recording)),
        Event::Telemetry(values) => ("telemetry", Ok(events::json(values))),
    };
    // Texts and numbers alone.
    sse::Event::default().event(name).data(data.unwrap_or_default())
}
