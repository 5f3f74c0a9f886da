//! `/api/recordings`: what was recorded, listed, played and downloaded by whoever may watch, deleted by controllers.
//!
//! A disk that hangs holds no more threads than [`LOOKS`] and [`READERS`], and no request for longer than [`LIMIT`].

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream;
use ring::hmac;
use rov_common::api::{RECORDINGS_PATH, Recording, Recordings, View};
use rov_common::recording::{Folder, Found, Name, SUBTITLES, TIMES, rfc3339};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::login::{Controller, may_watch};
use super::{Api, Failure};
use crate::users::Caller;

/// Files that are read at once; a browser that plays one has several requests now and then.
const READERS: usize = 16;
/// Read at once, for each reader.
const PIECE: u64 = 256 << 10;
/// Looks at the folder at once.
const LOOKS: usize = 4;
/// For the disk to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long an address that was listed opens a recording.
const LINK_LIFE: Duration = Duration::from_secs(3600);

/// The recordings of this machine.
pub struct Recorded {
    folder: Arc<Folder>,
    readers: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    /// Of the addresses that open a recording.
    key: hmac::Key,
}

/// What stands behind an address that was listed: browsers give `<video>` no login.
#[derive(Deserialize)]
pub(super) struct Link {
    until: Option<u64>,
    proof: Option<String>,
}

impl Recorded {
    pub fn new(folder: Arc<Folder>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        let (readers, looks) = (Arc::new(Semaphore::new(READERS)), Arc::new(Semaphore::new(LOOKS)));
        Self { folder, readers, looks, key }
    }

    /// The address of a file, with what opens it where a login is needed.
    fn address(&self, file: &str, view: View, now: Duration) -> String {
        let path = format!("{RECORDINGS_PATH}/{file}");
        if view == View::Open {
            return path;
        }
        let until = (now + LINK_LIFE).as_secs();
        let proof = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, signed(file, until).as_bytes()));
        format!("{path}?until={until}&proof={proof}")
    }

    fn is_opened_by(&self, file: &str, link: &Link, now: Duration) -> bool {
        let (Some(until), Some(proof)) = (link.until, &link.proof) else { return false };
        let Ok(proof) = URL_SAFE_NO_PAD.decode(proof) else { return false };
        until >= now.as_secs() && hmac::verify(&self.key, signed(file, until).as_bytes(), &proof).is_ok()
    }

    /// Does something with the folder, which may hang.
    async fn look<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Folder) -> std::io::Result<T> + Send + 'static,
    ) -> Result<std::io::Result<T>, Failure> {
        let place = Arc::clone(&self.looks).try_acquire_owned().map_err(|_| hangs())?;
        let folder = Arc::clone(&self.folder);
        let looked = tokio::task::spawn_blocking(move || {
            let _place = place;
            act(&folder)
        });
        match tokio::time::timeout(LIMIT, looked).await {
            Ok(done) => Ok(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))),
            Err(_) => Err(hangs()),
        }
    }
}

fn signed(file: &str, until: u64) -> String {
    format!("{until} {file}")
}

fn hangs() -> Failure {
    Failure(StatusCode::SERVICE_UNAVAILABLE, "the disk with the recordings does not answer".to_owned())
}

fn none(file: &str) -> Failure {
    Failure(StatusCode::NOT_FOUND, format!("there is no recording {file:?}: GET {RECORDINGS_PATH} lists them"))
}

/// Where nothing can be recorded.
fn recorded(api: &Api) -> Result<&Recorded, Failure> {
    let none = "nothing is recorded here: start the server with --record FOLDER";
    api.recorded.as_ref().ok_or_else(|| Failure(StatusCode::NOT_FOUND, none.to_owned()))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `GET /api/recordings`: the newest first.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Recordings>, Failure> {
    let recorded = recorded(&api)?;
    let looked = recorded.look(|folder| Ok((folder.list()?, folder.free()?))).await?;
    let (found, free) = looked.map_err(|error| {
        let reason = format!("the folder of the recordings cannot be read: {error}");
        Failure(StatusCode::SERVICE_UNAVAILABLE, reason)
    })?;
    let (view, now) = (api.users.view(), now());
    let one = |Found { name, bytes, is_open, has_subtitles, .. }: Found| Recording {
        label: name.label().to_owned(),
        begun: rfc3339(name.begun()),
        bytes,
        is_open,
        url: recorded.address(&name.to_string(), view, now),
        times_url: recorded.address(&name.beside(TIMES), view, now),
        subtitles_url: has_subtitles.then(|| recorded.address(&name.beside(SUBTITLES), view, now)),
        name: name.to_string(),
    };
    Ok(Json(Recordings { free_bytes: free, recordings: found.into_iter().rev().map(one).collect() }))
}

/// Lets those through who may watch, or have an address that was listed.
pub(super) async fn may_open(
    State(api): State<Arc<Api>>,
    caller: Extension<Caller>,
    file: Result<Path<String>, PathRejection>,
    link: Result<Query<Link>, QueryRejection>,
    request: Request,
    next: Next,
) -> Response {
    match (&api.recorded, file, link) {
        (Some(recorded), Ok(Path(file)), Ok(Query(link))) if recorded.is_opened_by(&file, &link, now()) => {
            next.run(request).await
        }
        _ => may_watch(State(api), caller, request, next).await,
    }
}

/// `GET /api/recordings/NAME`, also of what is beside it, with `Range`.
pub(super) async fn open(
    State(api): State<Arc<Api>>,
    file: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let (recorded, Path(file)) = (recorded(&api)?, file?);
    // Of exactly the form that is written: nothing else has a path here.
    let path = recorded.folder.path_of(&file).ok_or_else(|| none(&file))?;
    let place = Arc::clone(&recorded.readers).try_acquire_owned().map_err(|_| {
        let reason = format!("{READERS} recordings are read at once at most: close one, or try again");
        Failure(StatusCode::SERVICE_UNAVAILABLE, reason)
    })?;
    let opened = tokio::task::spawn_blocking(move || {
        // Kept by the thread while that hangs, whatever became of the request.
        let opened = File::open(path)?;
        let length = opened.metadata()?.len();
        Ok((opened, length, place))
    });
    let opened = tokio::time::timeout(LIMIT, opened).await.map_err(|_| hangs())?;
    let opened: std::io::Result<_> = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let (opened, length, place) = opened.map_err(|error| match error.kind() {
        ErrorKind::NotFound => none(&file),
        _ => Failure(StatusCode::SERVICE_UNAVAILABLE, format!("the recording cannot be read: {error}")),
    })?;
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok()).and_then(|range| part(range, length));
    let (status, range) = match asked {
        Some(Ok(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Err(())) => {
            let unsatisfied = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            let reason = format!("the recording has {length} bytes");
            return Ok((unsatisfied, Failure(StatusCode::RANGE_NOT_SATISFIABLE, reason)).into_response());
        }
        None => (StatusCode::OK, 0..length),
    };
    let kind = match &file {
        file if file.ends_with(TIMES) => "text/csv; charset=utf-8",
        file if file.ends_with(SUBTITLES) => "text/x-ssa; charset=utf-8",
        _ => "video/mp4",
    };
    let described = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        // One that is being written grows.
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CONTENT_LENGTH, (range.end - range.start).to_string()),
    ];
    let of_part = (status == StatusCode::PARTIAL_CONTENT)
        .then(|| [(header::CONTENT_RANGE, format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1)))]);
    let pieces = stream::unfold((range, Some((opened, place))), next_piece);
    Ok((status, described, of_part, Body::from_stream(pieces)).into_response())
}

/// What is left of a file that is read; the next piece is read when the connection has taken most of the one before.
type Rest = (Range<u64>, Option<(File, OwnedSemaphorePermit)>);

async fn next_piece((range, held): Rest) -> Option<(std::io::Result<Bytes>, Rest)> {
    let (from, size) = (range.start, (range.end - range.start).min(PIECE));
    if size == 0 {
        return None;
    }
    let (mut file, place) = held?;
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; size as usize];
        let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_exact(&mut piece));
        // The place is that of the thread, too, while it hangs.
        (read.map(|()| Bytes::from(piece)), (file, place))
    });
    let Ok(read) = tokio::time::timeout(LIMIT, read).await else {
        return Some((Err(ErrorKind::TimedOut.into()), (0..0, None)));
    };
    let (read, held) = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let rest = if read.is_ok() { from + size..range.end } else { 0..0 };
    Some((read, (rest, Some(held))))
}

/// The part that a `Range` of one part asks for (RFC 9110 section 14.1.2); an error where there is no such part, None
/// where all is to be sent: several parts, and what is no range of bytes.
fn part(range: &str, length: u64) -> Option<Result<Range<u64>, ()>> {
    let (first, last) = range.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number =
        |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let part = match (first, last) {
        ("", last) => length.saturating_sub(number(last)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(length),
    };
    Some(if part.start < part.end { Ok(part) } else { Err(()) })
}

/// `DELETE /api/recordings/NAME`: with what is beside it.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Controller(caller): Controller,
    file: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Failure> {
    let (recorded, Path(file)) = (recorded(&api)?, file?);
    let name: Name = file.parse().map_err(|()| none(&file))?;
    let what = format!("recording {file}: deleted");
    match recorded.look(move |folder| folder.remove(&name)).await? {
        Ok(()) => {
            api.users.changed(&caller, &what);
            Ok(StatusCode::NO_CONTENT)
        }
        Err(error) => {
            api.users.refused(&caller, &what, &error);
            Err(match error.kind() {
                ErrorKind::NotFound => none(&file),
                ErrorKind::ResourceBusy => {
                    let reason = "it is being recorded: end the recording first (setting \"recording\")";
                    Failure(StatusCode::CONFLICT, reason.to_owned())
                }
                _ => Failure(StatusCode::SERVICE_UNAVAILABLE, format!("it cannot be deleted: {error}")),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_standard() {
        for (range, expected) in [
            ("bytes=0-0", Some(Ok(0..1))),
            ("bytes=5-", Some(Ok(5..100))),
            ("bytes=90-1000", Some(Ok(90..100))),
            ("bytes=-10", Some(Ok(90..100))),
            ("bytes=-1000", Some(Ok(0..100))),
            ("bytes=100-", Some(Err(()))),
            ("bytes=9-5", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=0-1,5-6", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("items=0-1", None),
            ("", None),
        ] {
            assert_eq!(part(range, 100), expected, "{range}");
        }
    }

    #[test]
    fn an_address_opens_its_own_file_for_an_hour() {
        let recorded = Recorded::new(Folder::new(std::path::Path::new("/nowhere")));
        let now = Duration::from_secs(1_700_000_000);
        assert_eq!(recorded.address("a.mp4", View::Open, now), "/api/recordings/a.mp4");
        let address = recorded.address("a.mp4", View::RequiresLogin, now);
        let query = address.split_once("?until=").expect("a query").1;
        let (until, proof) = query.split_once("&proof=").expect("a proof");
        let link = |until: &str, proof: &str| Link { until: until.parse().ok(), proof: Some(proof.to_owned()) };
        let good = link(until, proof);
        let hour = Duration::from_secs(3600);
        assert!(recorded.is_opened_by("a.mp4", &good, now));
        assert!(recorded.is_opened_by("a.mp4", &good, now + hour));
        assert!(!recorded.is_opened_by("a.mp4", &good, now + hour + Duration::from_secs(1)));
        assert!(!recorded.is_opened_by("b.mp4", &good, now));
        assert!(!recorded.is_opened_by("a.mp4", &link("9999999999", proof), now));
        assert!(!recorded.is_opened_by("a.mp4", &link(until, "x"), now));
        assert!(!recorded.is_opened_by("a.mp4", &Link { until: None, proof: None }, now));
        let other = Recorded::new(Folder::new(std::path::Path::new("/nowhere")));
        assert!(!other.is_opened_by("a.mp4", &good, now));
    }
}
