//! The viewer page and its parts, out of the binary: it needs nothing else, neither files nor the internet.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use uuid::Uuid;

/// Path, type and contents. The page names its parts without a leading slash, so that it works behind a proxy's path
/// too.
const FILES: [(&str, &str, &str); 21] = [
    ("/", "text/html; charset=utf-8", include_str!("../../web/index.html")),
    ("/viewer.css", "text/css; charset=utf-8", include_str!("../../web/viewer.css")),
    ("/viewer.js", SCRIPT, include_str!("../../web/viewer.js")),
    ("/watched.js", SCRIPT, include_str!("../../web/watched.js")),
    ("/lineup.js", SCRIPT, include_str!("../../web/lineup.js")),
    ("/place.js", SCRIPT, include_str!("../../web/place.js")),
    ("/login.js", SCRIPT, include_str!("../../web/login.js")),
    ("/session.js", SCRIPT, include_str!("../../web/session.js")),
    ("/age.js", SCRIPT, include_str!("../../web/age.js")),
    ("/advice.js", SCRIPT, include_str!("../../web/advice.js")),
    ("/events.js", SCRIPT, include_str!("../../web/events.js")),
    ("/written.js", SCRIPT, include_str!("../../web/written.js")),
    ("/mjpeg.js", SCRIPT, include_str!("../../web/mjpeg.js")),
    ("/settings.js", SCRIPT, include_str!("../../web/settings.js")),
    ("/zip.js", SCRIPT, include_str!("../../web/zip.js")),
    ("/exif.js", SCRIPT, include_str!("../../web/exif.js")),
    ("/event.js", SCRIPT, include_str!("../../web/event.js")),
    ("/clip.js", SCRIPT, include_str!("../../web/clip.js")),
    ("/recordings.js", SCRIPT, include_str!("../../web/recordings.js")),
    ("/figures.js", SCRIPT, include_str!("../../web/figures.js")),
    ("/favicon.svg", "image/svg+xml", include_str!("../../web/favicon.svg")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Own scripts and styles alone, requests to this server alone. `access` adds in whose frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'";

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, contents)| {
        // Of the contents: a browser asks each time whether it has the page of this very server.
        let etag = format!("\"{}\"", Uuid::new_v5(&Uuid::NAMESPACE_URL, contents.as_bytes()).simple());
        let handler = move |headers: HeaderMap| async move { file(&headers, &etag, kind, contents) };
        router.route(path, get(handler))
    })
}

fn file(asked: &HeaderMap, etag: &str, kind: &'static str, contents: &'static str) -> Response {
    let Ok(tag) = HeaderValue::from_str(etag) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let headers = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    // RFC 9110 section 13.1.2: a list of tags, any of them weak, or an asterisk.
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|list| list.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    });
    if is_known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(header::CONTENT_TYPE, kind)], contents).into_response()
}
