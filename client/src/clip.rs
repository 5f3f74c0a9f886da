//! The last seconds of the stream that is shown as a file, beside the snapshots: the vehicle keeps them in memory, and
//! a thread of its own fetches them (`/api/clip`), one clip at a time.
//!
//! A file is there as a whole or not at all: until then its name ends in `.part`.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rov_common::backoff::Backoff;
use rov_common::capture_clock::Captured;
use rov_common::exif::About;
use rov_common::priority;
use rov_common::recording::{Bytes, Name};

use crate::snapshot;
use crate::whep::{Api, Asked, Clip, Times, WhepError};

/// A server gives no clip that is larger: it has some hundred megabytes of memory for it.
const MOST_BYTES: u64 = 2_000_000_000;
const PIECE: usize = 64 << 10;
/// For the clip that is being fetched at the end of the program; then it is broken off.
const END_LIMIT: Duration = Duration::from_secs(5);
const BREAK_OFF_LIMIT: Duration = Duration::from_millis(500);
/// For the answer to begin, at first and at last: an outage may have lost a question together with its connection.
const HEAD: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(12));
/// Between two questions, where the server does not answer or gives others their clips.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// What a ring has, where the server does not say so.
const KEPT: Duration = Duration::from_secs(30);
/// It has it for longer where the encoder rests, as in an outage that no other viewer is there for.
const RESTS: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The end of a clip of pictures that come is closer to the moment.
const OLD: Duration = Duration::from_secs(2);
/// Files of the same name.
const MOST_ALIKE: u32 = 1000;
/// What a server says at a path that it does not know.
const NO_SUCH_PATH: &str = "there is nothing at this path";

/// The pictures around a moment, however late they are asked for.
#[derive(Clone, Debug)]
pub struct Around {
    /// Of a stream of this name; empty: of the only one.
    pub stream: String,
    pub moment: Instant,
    /// By the clock of captures of this run of the server, as far as that is known. Else they are asked for as the last
    /// seconds.
    pub captured: Option<Captured>,
    pub run: Option<u64>,
    pub before: Duration,
    pub after: Duration,
}

/// Why there is no clip.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// There may be one when it is asked for again.
    ForNow(String),
    Final(String),
}

impl Around {
    /// What is asked for `now`, where the answer may take so long to begin.
    fn asked(&self, now: Instant, head: Duration) -> Asked {
        let late = now.saturating_duration_since(self.moment + self.after) + head.saturating_sub(HEAD.0);
        let seconds = (self.before + self.after + late).as_secs_f64().round() as u64;
        let times = self.captured.map(|captured| Times {
            from: Captured(captured.0.saturating_sub(self.before)),
            to: Captured(captured.0 + self.after),
            run: self.run,
        });
        Asked { seconds: Some(seconds), times }
    }

    /// When no ring that keeps so much has it any more.
    fn until(&self, kept: Duration) -> Instant {
        // The last seconds may be others by then.
        self.moment + kept + if self.captured.is_some() { RESTS } else { Duration::ZERO }
    }
}

/// Fetches clips into a folder.
#[derive(Debug)]
pub struct Clips {
    folder: PathBuf,
    is_busy: Arc<AtomicBool>,
    /// What is being fetched is broken off.
    stop: Arc<AtomicBool>,
    say: Sender<String>,
    /// What became of them, for the pilot.
    said: Receiver<String>,
}

impl Clips {
    pub fn new(folder: PathBuf) -> Self {
        let (say, said) = channel();
        Self { folder, is_busy: Arc::default(), stop: Arc::default(), say, said }
    }

    /// Begins to fetch them; does not wait. Says so, or why not.
    pub fn fetch(&self, api: Api, about: About, wanted: Around) -> &'static str {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return "The clip before is still being fetched";
        }
        let (folder, busy, stop, say) =
            (self.folder.clone(), Arc::clone(&self.is_busy), Arc::clone(&self.stop), self.say.clone());
        let work = move || {
            priority::lower();
            let waits = |reason: String| drop(say.send(format!("The clip has to wait: {reason}")));
            let said = match save(&folder, (&api, &wanted), &about, &stop, waits) {
                Ok(said) => said,
                Err(reason) => {
                    tracing::error!("no clip: {reason}");
                    format!("No clip was saved: {reason}")
                }
            };
            busy.store(false, Ordering::Release);
            // It is told in the log too, whoever is still there.
            let _ = say.send(said);
        };
        match std::thread::Builder::new().name("clip".to_owned()).spawn(work) {
            Ok(_) => "Saving the last seconds...",
            Err(_) => {
                self.is_busy.store(false, Ordering::Release);
                "No clip was saved: there is no thread for it"
            }
        }
    }

    /// What became of the last one, once.
    pub fn news(&self) -> Option<String> {
        self.said.try_iter().last()
    }
}

impl Drop for Clips {
    /// What is nearly there is waited for.
    fn drop(&mut self) {
        for limit in [END_LIMIT, BREAK_OFF_LIMIT] {
            let until = Instant::now() + limit;
            loop {
                if !self.is_busy.load(Ordering::Acquire) {
                    return;
                }
                if self.said.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                    break;
                }
            }
            self.stop.store(true, Ordering::Release);
        }
        tracing::warn!("a clip was not fetched whole: its file ends in .part");
    }
}

/// Says what was saved.
fn save(
    folder: &Path,
    (api, wanted): (&Api, &Around),
    about: &About,
    stop: &AtomicBool,
    waits: impl Fn(String),
) -> Result<String, String> {
    let (name, seconds, bytes, odd) = fetch(
        api,
        wanted,
        || stop.load(Ordering::Acquire),
        waits,
        |clip| {
            let begun = clip
                .captured
                .unwrap_or_else(|| Captured(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
            let seconds = clip.seconds.map(|seconds| format!("{seconds:.0} s, ")).unwrap_or_default();
            let odd = what_is_missing(wanted, &clip, Instant::now());
            make_folder(folder).map_err(Failure::Final)?;
            let created = create(folder, &snapshot::label(about), |label| Name::new(begun, label).of_clip());
            let (name, file) = created.map_err(Failure::Final)?;
            let bytes = write_into(clip, file, &folder.join(&name), stop)?;
            Ok((name, seconds, bytes, odd))
        },
    )?;
    tracing::info!("clip: {}", folder.join(&name).display());
    let remarks = about.remarks.iter().map(|remark| format!(". {}", remark.trim_end_matches('.'))).collect::<String>();
    Ok(format!("Saved {name}: {seconds}{}{odd}{remarks}", Bytes(bytes)))
}

/// What of the last seconds before the moment a clip has not that came late, or of a stream that stands still.
fn what_is_missing(wanted: &Around, clip: &Clip, now: Instant) -> String {
    let late = now.saturating_duration_since(wanted.moment);
    let Some((times, begun)) = wanted.asked(now, HEAD.0).times.zip(clip.captured) else {
        let is_late = late >= OLD;
        return if is_late { format!("; it ends up to {} s after the key", late.as_secs()) } else { String::new() };
    };
    let lasted = clip.seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default();
    let first = begun.0.saturating_sub(times.from.0);
    let last = times.to.0.saturating_sub(begun.0 + lasted);
    if last >= OLD {
        return format!("; it ended {} s before the key", last.as_secs());
    }
    // Without an outage it has what there was.
    if late >= HEAD.0 && first >= Duration::from_secs(1) {
        return format!("; it came too late for the first {} s, which are not kept any more", first.as_secs());
    }
    String::new()
}

/// Asks a server for a clip and hands it on, again and again while the server is away, gives others theirs or breaks
/// off, until its ring cannot have the moment any more or whoever asks `ends`. `waits` is told once why it takes long.
pub fn fetch<T>(
    api: &Api,
    wanted: &Around,
    ends: impl Fn() -> bool,
    waits: impl Fn(String),
    mut take: impl FnMut(Clip) -> Result<T, Failure>,
) -> Result<T, String> {
    let kept = api.kept.unwrap_or(KEPT);
    let (mut head, mut pause) = (Backoff::new(HEAD.0, HEAD.1), Backoff::new(PAUSE.0, PAUSE.1));
    let mut has_told = false;
    loop {
        let reason = match request(api, wanted, head.next_delay()).and_then(&mut take) {
            Ok(taken) => return Ok(taken),
            Err(Failure::Final(reason)) => return Err(reason),
            Err(Failure::ForNow(reason)) => reason,
        };
        let next = Instant::now() + pause.next_delay();
        if ends() {
            return Err(reason);
        }
        if next >= wanted.until(kept) {
            let (since, kept) = (wanted.moment.elapsed().as_secs(), kept.as_secs());
            return Err(format!("{reason}; given up after {since} s, as the vehicle keeps {kept} s (--ring)"));
        }
        tracing::debug!("a clip is asked for again: {reason}");
        if !std::mem::replace(&mut has_told, true) {
            waits(format!("{reason}; it is asked for again"));
        }
        while Instant::now() < next && !ends() {
            std::thread::sleep(LOOK_INTERVAL.min(next.saturating_duration_since(Instant::now())));
        }
        if ends() {
            return Err(reason);
        }
    }
}

/// Asks once.
fn request(api: &Api, wanted: &Around, head: Duration) -> Result<Clip, Failure> {
    let mut asked = wanted.asked(Instant::now(), head);
    let kept = api.kept.map(|kept| kept.as_secs());
    let clip = loop {
        let clip = api.clip(&wanted.stream, asked, head);
        match &clip {
            // It keeps less: all of that.
            Err(WhepError::Refused { status: 422, .. }) if asked.seconds != kept => asked.seconds = kept,
            // It stands still since: what was last.
            Err(WhepError::Refused { status: 409, .. }) if wanted.after.is_zero() && asked.times.is_some() => {
                asked.times = None;
            }
            _ => break clip,
        }
    };
    clip.map_err(|error| match error {
        WhepError::Unreachable { .. } | WhepError::Closed { .. } => Failure::ForNow(error.to_string()),
        WhepError::Refused { status: 429 | 500..=599, reason, .. } => Failure::ForNow(reason),
        WhepError::Refused { status: 404, reason, .. } if reason == NO_SUCH_PATH => {
            Failure::Final("the server keeps nothing for clips: it is of an earlier version".to_owned())
        }
        WhepError::Refused { reason, .. } => Failure::Final(reason),
        error => Failure::Final(error.to_string()),
    })
}

pub fn make_folder(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: cannot make this folder: {error}", folder.display()))
}

/// The part of a file that is not there yet, of the name that goes with this label, or with `-2` and so on: a part
/// keeps its name for it.
pub fn create(folder: &Path, label: &str, name: impl Fn(&str) -> String) -> Result<(String, File), String> {
    for number in 1..=MOST_ALIKE {
        let label = if number == 1 { label.to_owned() } else { format!("{label}-{number}") };
        let name = name(&label);
        let path = folder.join(&name);
        if path.exists() {
            continue;
        }
        match OpenOptions::new().write(true).create_new(true).open(part(&path)) {
            Ok(file) => return Ok((name, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("{}: cannot create: {error}", path.display())),
        }
    }
    Err(format!("{}: there are {MOST_ALIKE} files of this moment", folder.display()))
}

pub fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Writes the clip into a file that is not there yet.
pub fn write(clip: Clip, path: &Path, stop: &AtomicBool) -> Result<u64, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(part(path));
    let file = file.map_err(|error| Failure::Final(format!("{}: cannot create: {error}", path.display())))?;
    write_into(clip, file, path, stop)
}

/// Writes it into its part, and gives it its name; how many bytes it has.
fn write_into(clip: Clip, file: File, path: &Path, stop: &AtomicBool) -> Result<u64, Failure> {
    let part = part(path);
    let written = copy(clip, file, stop).and_then(|bytes| {
        let named = fs::rename(&part, path).map(|()| bytes);
        // The name, too, outlasts a power cut.
        path.parent().filter(|_| named.is_ok()).map(snapshot::keep_names);
        named.map_err(|error| Failure::Final(format!("{}: cannot rename: {error}", part.display())))
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

fn copy(mut clip: Clip, mut file: File, stop: &AtomicBool) -> Result<u64, Failure> {
    let cannot_write = |error: std::io::Error| {
        Failure::Final(match error.kind() {
            ErrorKind::StorageFull => "the disk is full".to_owned(),
            _ => format!("it cannot be written: {error}"),
        })
    };
    let (mut bytes, mut piece) = (0, vec![0; PIECE]);
    loop {
        if stop.load(Ordering::Acquire) {
            return Err(Failure::Final("the program ended before it was there".to_owned()));
        }
        let read = match clip.body.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::ForNow(format!("it broke off after {}: {error}", Bytes(bytes)))),
        };
        bytes += read as u64;
        if bytes > MOST_BYTES {
            return Err(Failure::Final(format!("it is larger than {}", Bytes(MOST_BYTES))));
        }
        file.write_all(&piece[..read]).map_err(cannot_write)?;
    }
    if let Some(expected) = clip.bytes.filter(|expected| *expected != bytes) {
        return Err(Failure::ForNow(format!("it broke off after {} of {}", Bytes(bytes), Bytes(expected))));
    }
    file.sync_all().map_err(cannot_write)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(body: &'static [u8], bytes: Option<u64>) -> Clip {
        Clip { captured: None, seconds: None, bytes, body: Box::new(body) }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Takes requests one by one, and answers with these heads; none: it never does, while it is there. Gives what was
    /// asked.
    fn serve(replies: Vec<Option<String>>) -> (Api, std::thread::JoinHandle<Vec<String>>) {
        let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let stats = format!("http://{}/api/stats", server.local_addr().expect("its address")).parse().expect("a URL");
        let serving = std::thread::spawn(move || {
            let mut held = Vec::new();
            let answer = |reply: Option<String>| {
                let (mut client, _) = server.accept().expect("a client");
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    client.read_exact(&mut byte).expect("a request");
                    asked.push(byte[0]);
                }
                match reply {
                    Some(reply) => client.write_all(reply.as_bytes()).expect("answered"),
                    None => held.push(client),
                }
                String::from_utf8(asked).expect("text").lines().next().expect("a line").to_owned()
            };
            replies.into_iter().map(answer).collect()
        });
        (Api::new(stats, crate::whep::Http::default()), serving)
    }

    fn reply(status: &str, head: &str, body: &str) -> Option<String> {
        let length = body.len();
        Some(format!("HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"))
    }

    const MP4: &str = "Content-Type: video/mp4\r\nX-Timestamp: 1700000000.012\r\nX-Content-Duration: 30.4\r\n";

    fn last(captured: Option<u64>) -> Around {
        Around {
            stream: "stream1".to_owned(),
            moment: Instant::now(),
            captured: captured.map(|seconds| Captured(Duration::from_secs(seconds))),
            run: Some(7),
            before: Duration::from_secs(30),
            after: Duration::ZERO,
        }
    }

    fn query(asked: &str, name: &str) -> Option<u64> {
        let url = url::Url::parse(&format!("http://host{}", asked.split(' ').nth(1)?)).ok()?;
        url.query_pairs().find(|(key, _)| key == name)?.1.parse().ok()
    }

    #[test]
    fn a_question_that_an_outage_took_is_asked_again_for_the_same_moment() {
        let (api, asked) = serve(vec![None, reply("503 Service Unavailable", "", ""), reply("200 OK", MP4, "clip")]);
        let told = std::cell::RefCell::new(Vec::new());
        let take = |clip: Clip| Ok(clip.bytes);
        let fetched = fetch(&api, &last(Some(1_700_000_030)), || false, |why| told.borrow_mut().push(why), take);
        assert_eq!(fetched, Ok(Some(4)));
        let told = told.into_inner();
        assert!(
            matches!(&told[..], [why] if why.contains("does not answer") && why.contains("asked for again")),
            "{told:?}"
        );
        let asked = asked.join().expect("served");
        let times = ["from", "to", "run"].map(|name| asked.iter().map(|asked| query(asked, name)).collect::<Vec<_>>());
        let expected = [1_700_000_000_000_000, 1_700_000_030_000_000, 7];
        assert_eq!(times, expected.map(|time| vec![Some(time); 3]));
        // A server that does not know these gives the last seconds: those of the moment, too, although it is long ago.
        let seconds: Vec<_> = asked.iter().filter_map(|asked| query(asked, "seconds")).collect();
        assert!(seconds[0] == 30 && seconds[1] >= 30 + 4 && seconds[2] > seconds[1], "{seconds:?}");
    }

    #[test]
    fn it_is_asked_for_as_long_as_a_ring_can_have_it_and_then_given_up() {
        let kept = Duration::from_secs(30);
        let (known, unknown) = (last(Some(1_700_000_030)), last(None));
        assert_eq!(known.until(kept) - known.moment, kept + RESTS);
        assert_eq!(unknown.until(kept) - unknown.moment, kept);
        assert_eq!(unknown.asked(unknown.moment, HEAD.0), Asked { seconds: Some(30), times: None });
        let (api, asked) = serve(vec![reply("503 Service Unavailable", "", "{\"error\":\"busy\"}"); 2]);
        let api = Api { kept: Some(PAUSE.0 + Duration::from_millis(500)), ..api };
        let why = fetch(&api, &unknown, || false, |_| (), |_| Ok(())).expect_err("given up");
        assert!(why.starts_with("busy; given up after 1 s, as the vehicle keeps 1 s"), "{why}");
        assert_eq!(asked.join().expect("served").len(), 2);
    }

    #[test]
    fn a_clip_that_broke_off_is_fetched_again_and_one_that_is_gone_is_not() {
        let half = format!("HTTP/1.1 200 OK\r\n{MP4}Content-Length: 8\r\nConnection: close\r\n\r\nclip");
        let gone = reply("410 Gone", "", "{\"error\":\"nothing is kept of that time any more\"}");
        for (last_reply, expected) in
            [(reply("200 OK", MP4, "clip"), Ok(4)), (gone, Err("nothing is kept of that time any more".to_owned()))]
        {
            let folder = tempfile::tempdir().expect("a folder");
            let (api, asked) = serve(vec![Some(half.clone()), last_reply]);
            let (path, stop) = (folder.path().join("clip.mp4"), AtomicBool::new(false));
            let fetched = fetch(&api, &last(Some(1)), || false, |_| (), |clip| write(clip, &path, &stop));
            assert_eq!((fetched.as_ref(), path.exists()), (expected.as_ref(), expected.is_ok()));
            assert_eq!(
                (asked.join().expect("served").len(), names(folder.path()).len()),
                (2, usize::from(expected.is_ok()))
            );
        }
    }

    #[test]
    fn of_a_stream_that_stands_still_the_last_seconds_are_given_and_it_is_said_when_they_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let (api, asked) = serve(vec![reply("409 Conflict", "", "{}"), reply("200 OK", MP4, "clip")]);
        let said = save(folder.path(), (&api, &last(Some(1_700_000_050))), &about(), &AtomicBool::new(false), |_| ());
        assert!(said.is_ok_and(|said| said.contains("it ended 19 s before the key")));
        let asked = asked.join().expect("served");
        assert_eq!([0, 1].map(|at| query(&asked[at], "to")), [Some(1_700_000_050_000_000), None]);
    }

    #[test]
    fn a_vehicle_that_keeps_less_than_the_last_seconds_of_a_stream_that_stands_still_gives_all_of_it() {
        let refused = ["409 Conflict", "422 Unprocessable Content"].map(|status| reply(status, "", "{}"));
        let (api, asked) = serve(refused.into_iter().chain([reply("200 OK", MP4, "clip")]).collect());
        let api = Api { kept: Some(Duration::from_secs(10)), ..api };
        let fetched = fetch(&api, &last(Some(1_700_000_050)), || false, |_| (), |clip| Ok(clip.bytes));
        assert_eq!(fetched, Ok(Some(4)));
        let asked = asked.join().expect("served");
        assert_eq!([1, 2].map(|at| query(&asked[at], "seconds")), [Some(30), Some(10)]);
        assert_eq!(query(&asked[2], "to"), None);
    }

    #[test]
    fn what_the_ring_has_no_more_of_the_last_seconds_is_said() {
        let clip = || Clip {
            captured: Some(Captured(Duration::from_secs(1_700_000_012))),
            seconds: Some(18.0),
            bytes: None,
            body: Box::new(&b""[..]),
        };
        let wanted = last(Some(1_700_000_030));
        assert_eq!(what_is_missing(&wanted, &clip(), wanted.moment), "", "at once, of a server that began then");
        let later = wanted.moment + Duration::from_secs(20);
        let said = "; it came too late for the first 12 s, which are not kept any more";
        assert_eq!(what_is_missing(&wanted, &clip(), later), said);
        let wanted = last(None);
        let later = wanted.moment + Duration::from_secs(20);
        assert_eq!(what_is_missing(&wanted, &clip(), later), "; it ends up to 20 s after the key");
    }

    fn about() -> About {
        About {
            taken: Captured(Duration::ZERO),
            vehicle: "Nemo".to_owned(),
            camera: "bow".to_owned(),
            stream: "stream1".to_owned(),
            position: rov_common::exif::Position::default(),
            remarks: vec!["The camera is frozen: no motion.".to_owned()],
        }
    }

    #[test]
    fn a_clip_is_there_as_a_whole_or_not_at_all_and_overwrites_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let begun = Captured(Duration::from_millis(1_700_000_000_012));
        let save = |body, bytes, stop: bool| {
            let created = create(folder.path(), "Nemo bow", |label| Name::new(begun, label).of_clip());
            let (name, file) = created.map_err(Failure::Final)?;
            write_into(clip(body, bytes), file, &folder.path().join(name), &AtomicBool::new(stop))
        };
        assert_eq!(save(b"whole", Some(5), false), Ok(5));
        assert_eq!(save(b"of unknown length", None, false), Ok(17));
        assert_eq!(save(b"half", Some(8), false), Err(Failure::ForNow("it broke off after 4 B of 8 B".to_owned())));
        assert!(matches!(save(b"whole", Some(5), true), Err(Failure::Final(why)) if why.contains("ended before")));
        let saved = ["Nemo-bow-2.mp4", "Nemo-bow.mp4"].map(|name| format!("clip_2023-11-14_22-13-20.012Z_{name}"));
        assert_eq!(names(folder.path()), saved, "nothing else is left");
        assert_eq!(fs::read(folder.path().join(&saved[1])).expect("the first"), b"whole");
    }

    #[test]
    fn what_is_saved_says_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (api, asked) = serve(vec![reply("200 OK", MP4, "clip")]);
        let stop = AtomicBool::new(false);
        let said = save(folder.path(), (&api, &last(None)), &about(), &stop, |_| ()).expect("a clip");
        asked.join().expect("served");
        let name = "clip_2023-11-14_22-13-20.012Z_Nemo_bow_stream1.mp4";
        assert_eq!(said, format!("Saved {name}: 30 s, 4 B. The camera is frozen: no motion"));
    }

    #[test]
    fn where_nothing_can_be_written_the_reason_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("a file");
        assert!(make_folder(&file.join("dive")).is_err_and(|why| why.contains("cannot make this folder")));
        let full = OpenOptions::new().write(true).open("/dev/full");
        if let Ok(full) = full {
            let copied = copy(clip(b"x", None), full, &AtomicBool::new(false));
            assert_eq!(copied, Err(Failure::Final("the disk is full".to_owned())));
        }
    }
}
