//! Recorders write into memory that is slow, hangs, is full or fails when a test wants it to.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::api::{RecordingState, RecordingStats};
use crate::capture_clock::{CaptureClock, Captured};
use crate::codec::Codec;
use crate::mp4::tests::{Read, picture, pictures};
use crate::overlay::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn plan() -> Plan {
    Plan {
        label: "cam1_stream1".to_owned(),
        title: "cam1/stream1".to_owned(),
        codec: Codec::H264,
        split: Split::default(),
        keep: None,
        spare: 0,
        columns: Columns::default(),
        day: None,
        mends: false,
    }
}

/// Of this machine's clock, where files are deleted by their size.
const NOW: Captured = Captured(Duration::from_secs(1_764_600_000));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Works,
    Hangs,
    Fails(ErrorKind),
    /// Files can be made, and take so many bytes more; none is cut.
    Takes(usize),
    /// They end in no index.
    NoEnd,
    /// Takes half of what comes next, and then works.
    FailsOnce,
}

struct Inner {
    mode: Mode,
    free: u64,
    files: BTreeMap<String, Vec<u8>>,
    /// When all files were last written, by this machine's clock.
    changed: Captured,
    writes: u64,
    /// Files of such a name take nothing.
    refuses: Option<&'static str>,
}

#[derive(Clone)]
struct Memory(Arc<(Mutex<Inner>, Condvar)>);

impl Memory {
    fn new() -> Self {
        let inner = Inner {
            mode: Mode::Works,
            free: 1 << 40,
            files: BTreeMap::new(),
            changed: Captured::default(),
            writes: 0,
            refuses: None,
        };
        Self(Arc::new((Mutex::new(inner), Condvar::new())))
    }

    fn set(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn work<T>(&self, act: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.0.1.wait_while(self.0.0.lock().unwrap(), |inner| inner.mode == Mode::Hangs).unwrap();
        if let Mode::Fails(kind) = inner.mode {
            return Err(kind.into());
        }
        inner.writes += 1;
        act(&mut inner)
    }

    /// The pictures of all files, file by file.
    fn videos(&self) -> Vec<Vec<Read>> {
        let inner = self.0.0.lock().unwrap();
        inner.files.iter().filter(|(name, _)| name.ends_with(".mp4")).map(|(_, file)| pictures(file)).collect()
    }

    fn is_whole(&self, index: usize) -> bool {
        let inner = self.0.0.lock().unwrap();
        let file = inner.files.iter().filter(|(name, _)| name.ends_with(".mp4")).nth(index).expect("a file").1;
        !file.windows(4).any(|bytes| bytes == b"free")
    }
}

impl Disk for Memory {
    fn create(&self, name: &str) -> io::Result<Box<dyn Output>> {
        self.work(|inner| match inner.files.contains_key(name) {
            true => Err(ErrorKind::AlreadyExists.into()),
            false => {
                inner.files.insert(name.to_owned(), Vec::new());
                Ok(())
            }
        })?;
        Ok(Box::new(File(self.clone(), name.to_owned())))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn io::Read>> {
        let file = self.0.0.lock().unwrap().files.get(name).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(file)))
    }

    fn replace(&self, name: &str, by: &str) -> io::Result<()> {
        self.work(|inner| {
            let file = inner.files.remove(by).ok_or(ErrorKind::NotFound)?;
            inner.files.insert(name.to_owned(), file);
            Ok(())
        })
    }

    fn free(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().unwrap().free)
    }

    fn files(&self) -> io::Result<Vec<Stored>> {
        let inner = self.0.0.lock().unwrap();
        let stored = |(name, file): (&String, &Vec<u8>)| Stored {
            name: name.clone(),
            bytes: file.len() as u64,
            changed: inner.changed,
        };
        Ok(inner.files.iter().map(stored).collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.work(|inner| inner.files.remove(name).map(drop).ok_or(ErrorKind::NotFound.into()))
    }
}

struct File(Memory, String);

impl Output for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.work(|inner| {
            if inner.refuses.is_some_and(|part| self.1.contains(part)) {
                return Err(ErrorKind::QuotaExceeded.into());
            }
            let taken = match &mut inner.mode {
                Mode::Takes(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    taken
                }
                Mode::FailsOnce => {
                    inner.mode = Mode::Works;
                    bytes.len() / 2
                }
                _ => bytes.len(),
            };
            inner.files.get_mut(&self.1).expect("the file").extend_from_slice(&bytes[..taken]);
            if taken == bytes.len() { Ok(()) } else { Err(ErrorKind::QuotaExceeded.into()) }
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.work(|_| Ok(()))
    }

    fn overwrite(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.work(|inner| {
            if inner.mode == Mode::NoEnd {
                return Err(ErrorKind::ReadOnlyFilesystem.into());
            }
            inner.files.get_mut(&self.1).expect("the file")[at as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.0.work(|inner| {
            if let Mode::Takes(_) = &mut inner.mode {
                // What comes now finds room again.
                inner.mode = Mode::Works;
                return Err(ErrorKind::Other.into());
            }
            inner.files.get_mut(&self.1).expect("the file").truncate(length as usize);
            Ok(())
        })
    }
}

struct Bench {
    memory: Memory,
    recorder: Recorder,
    /// Of the next picture, which are 100 ms apart.
    number: u32,
    told: Arc<Mutex<Vec<RecordingState>>>,
}

fn bench(split: Duration, spare: u64) -> Bench {
    bench_of(split, spare, false)
}

fn bench_of(split: Duration, spare: u64, mends: bool) -> Bench {
    bench_with(Plan { split: Split { time: split, bytes: LARGEST }, spare, mends, ..plan() })
}

fn bench_with(plan: Plan) -> Bench {
    let (memory, told) = (Memory::new(), Arc::default());
    let folder = Folder::on(Path::new("/nowhere"), Box::new(memory.clone()));
    let told: Arc<Mutex<Vec<RecordingState>>> = told;
    let recorder = Recorder::start(folder, plan, {
        let told = Arc::clone(&told);
        move |stats| told.lock().unwrap().push(stats.state)
    })
    .expect("a thread");
    recorder.set_on(true);
    Bench { memory, recorder, number: 0, told }
}

impl Bench {
    /// A keyframe each ten.
    fn push(&mut self, count: u32) {
        for _ in 0..count {
            self.push_one(self.number.is_multiple_of(10));
        }
    }

    fn push_one(&mut self, keyframe: bool) -> bool {
        let picture = picture(self.number, u64::from(self.number) * 100, keyframe);
        self.number += 1;
        self.recorder.push(picture, None, Instant::now())
    }

    fn wait(&self, what: &str, is_so: impl Fn(&RecordingStats) -> bool) -> RecordingStats {
        let end = Instant::now() + LIMIT;
        loop {
            let stats = self.recorder.stats();
            if is_so(&stats) {
                return stats;
            }
            assert!(Instant::now() < end, "{what}: {stats:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn told(&self) -> Vec<RecordingState> {
        self.told.lock().unwrap().clone()
    }

    fn numbers(&self) -> Vec<Vec<u32>> {
        self.memory.videos().iter().map(|video| video.iter().map(|read| read.number).collect()).collect()
    }
}

#[test]
fn files_are_split_at_keyframes_and_no_picture_is_missing() {
    let mut bench = bench(Duration::from_secs(5), 0);
    bench.push(7);
    bench.wait("it records", |stats| stats.state == RecordingState::Recording);
    bench.push(130);
    assert!(bench.recorder.stop(LIMIT));
    let expected: [Vec<u32>; 3] = [(0..60).collect(), (60..120).collect(), (120..137).collect()];
    assert_eq!(bench.numbers(), expected);
    assert!((0..3).all(|file| bench.memory.is_whole(file)));
    let videos = bench.memory.videos();
    assert!(videos.iter().all(|video| video[0].keyframe && video[0].time == 0));
    let stats = bench.recorder.stats();
    assert_eq!((stats.gaps, stats.missing, stats.state), (0, 0, RecordingState::Off));
    let times =
        bench.memory.0.0.lock().unwrap().files.iter().find(|(name, _)| name.ends_with(".csv")).unwrap().1.clone();
    let times = String::from_utf8(times).unwrap();
    assert_eq!(times.lines().count(), 61);
    assert_eq!(times.lines().nth(2), Some("2,0.100000,2023-11-14T22:13:20.100000Z,0,0"));
}

#[test]
fn pictures_wait_for_a_slow_disk_and_are_all_recorded_in_few_writes() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    bench.push(10);
    bench.wait("it records", |stats| stats.bytes > 0);
    bench.memory.set(|inner| inner.mode = Mode::Hangs);
    bench.push(190);
    let before = bench.memory.0.0.lock().unwrap().writes;
    bench.memory.set(|inner| inner.mode = Mode::Works);
    assert!(bench.recorder.stop(LIMIT));
    assert_eq!(bench.numbers(), [(0..200).collect::<Vec<_>>()]);
    let writes = bench.memory.0.0.lock().unwrap().writes - before;
    assert!(writes < 20, "what waits is written together: {writes} writes for 38 fragments");
}

#[test]
fn a_disk_that_hangs_delays_nobody_and_makes_one_gap() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    bench.push(10);
    bench.wait("it records", |stats| stats.bytes > 0);
    bench.memory.set(|inner| inner.mode = Mode::Hangs);
    // Large ones fill the queue.
    let large = |number: u32, keyframe: bool| {
        let mut picture = picture(number, u64::from(number) * 100, keyframe);
        picture.unit = [&picture.unit[..], &[0, 0, 0, 1, 12], &[0xff; 1 << 20]].concat().into();
        picture
    };
    let mut slowest = Duration::ZERO;
    for number in 10..80 {
        let began = Instant::now();
        bench.recorder.push(large(number, number.is_multiple_of(10)), None, began);
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "a push took {slowest:?}");
    let stats = bench.recorder.stats();
    assert_eq!((stats.state, stats.gaps), (RecordingState::Paused, 1), "it is said while it hangs: {stats:?}");
    assert!(stats.missing > 20 && stats.reason.is_some(), "{stats:?}");
    assert_eq!(bench.told().last(), Some(&RecordingState::Paused), "and told");
    bench.memory.set(|inner| inner.mode = Mode::Works);
    bench.number = 80;
    bench.wait("it goes on", |stats| stats.total_bytes > 20 << 20);
    bench.push(20);
    let stats = bench.wait("the gap is counted", |stats| !stats.newest_gaps.is_empty());
    assert_eq!(stats.gaps, 1, "{stats:?}");
    assert!(stats.missing > 20, "{stats:?}");
    assert_eq!(stats.newest_gaps[0].pictures, stats.missing);
    assert_eq!(stats.newest_gaps[0].reason, "the disk was too slow");
    assert!(bench.recorder.stop(LIMIT));
    let videos = bench.memory.videos();
    assert_eq!(videos.len(), 1);
    let (before, after) = videos[0].split_at(videos[0].len() - 20);
    assert_eq!(after[0].time, 80 * 9_000, "time stays true");
    assert!(after[0].keyframe);
    let numbers: Vec<_> = before.iter().map(|read| read.time / 9_000).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    assert_eq!(numbers.len() as u64 + stats.missing, 80);
}

#[test]
fn it_asks_for_a_keyframe_after_a_gap_and_each_few_seconds() {
    let shared = Shared::new(String::new(), Box::new(|_| {}));
    shared.set_on(true);
    let start = Instant::now();
    let push = |number: u32, at: u64, keyframe: bool| {
        shared.push(picture(number, at, keyframe), None, start + Duration::from_millis(at))
    };
    assert!(push(0, 0, false), "it cannot begin without");
    assert!(!push(1, 500, false), "not so soon again");
    assert!(push(2, 1_000, false));
    shared.need_keyframe(false);
    assert!(!push(3, 2_000, true));
    assert!(!push(4, 6_999, false));
    assert!(push(5, 7_000, false), "players begin at keyframes");
}

#[test]
fn a_disk_that_fails_ends_the_file_and_recording_goes_on_when_it_works_again() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    bench.push(20);
    bench.wait("it records", |stats| stats.bytes > 0);
    bench.memory.set(|inner| inner.mode = Mode::Fails(ErrorKind::ReadOnlyFilesystem));
    bench.push(20);
    let stats = bench.wait("it pauses", |stats| stats.state == RecordingState::Paused);
    assert!(stats.reason.as_deref().is_some_and(|reason| reason.contains("read-only")), "{stats:?}");
    assert_eq!(stats.file, None);
    bench.memory.set(|inner| inner.mode = Mode::Works);
    bench.push(30);
    bench.wait("it goes on", |stats| stats.state == RecordingState::Recording && stats.gaps == 1);
    assert!(bench.recorder.stop(LIMIT));
    let stats = bench.recorder.stats();
    assert_eq!(stats.newest_gaps[0].reason, "the disk failed");
    let videos = bench.numbers();
    assert_eq!(videos.len(), 2, "{videos:?}");
    let recorded: u64 = videos.iter().map(|video| video.len() as u64).sum();
    assert_eq!(recorded + stats.missing, 70);
    assert!(videos[1][0].is_multiple_of(10) && videos[1].ends_with(&[69]), "{videos:?}");
}

#[test]
fn what_waits_when_it_is_put_off_while_the_disk_fails_is_counted() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    bench.push(20);
    bench.wait("it records", |stats| stats.bytes > 0);
    bench.memory.set(|inner| inner.mode = Mode::Fails(ErrorKind::ReadOnlyFilesystem));
    bench.push(20);
    bench.wait("it pauses", |stats| stats.state == RecordingState::Paused);
    bench.push(10);
    bench.recorder.set_on(false);
    let stats = bench.wait("it is off", |stats| stats.state == RecordingState::Off);
    let recorded: u64 = bench.numbers().iter().map(|video| video.len() as u64).sum();
    assert_eq!((recorded + stats.missing, stats.gaps), (50, 1), "{stats:?}");
}

#[test]
fn a_full_disk_ends_the_file_well_and_recording_goes_on_when_there_is_room() {
    let mut bench = bench(Duration::from_secs(3600), 1_000_000_000);
    bench.push(20);
    bench.wait("it records", |stats| stats.bytes > 0);
    bench.memory.set(|inner| inner.free = 999_000_000);
    let stats = bench.wait("it pauses", |stats| stats.state == RecordingState::Paused);
    assert_eq!(stats.reason.as_deref(), Some("the disk is full: 999 MB are free, and 1 GB stay free"), "{stats:?}");
    assert!(bench.memory.is_whole(0), "the file has its index");
    assert_eq!(bench.numbers(), [(0..20).collect::<Vec<_>>()]);
    assert_eq!((stats.pictures, stats.missing), (20, 0), "what is in the file is counted");
    bench.memory.set(|inner| inner.free = 1_050_000_000);
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(bench.recorder.stats().state, RecordingState::Paused, "some room more is needed");
    assert!(!bench.push_one(true), "nothing is asked for, and kept, while it is full");
    bench.number = 30;
    bench.memory.set(|inner| inner.free = 2_000_000_000);
    bench.wait("there is room", |stats| stats.state == RecordingState::Waiting);
    bench.push(20);
    bench.wait("it goes on", |stats| stats.state == RecordingState::Recording);
    assert!(bench.recorder.stop(LIMIT));
    assert_eq!(bench.numbers()[1], (30..50).collect::<Vec<_>>());
    assert_eq!((bench.recorder.stats().missing, bench.recorder.stats().gaps), (1, 1));
}

#[test]
fn it_is_off_until_it_is_on_and_ends_its_file_when_it_is_off() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    bench.recorder.set_on(false);
    bench.push(10);
    bench.recorder.set_on(true);
    bench.push_one(false);
    bench.push(9 + 10);
    bench.wait("it records", |stats| stats.state == RecordingState::Recording);
    bench.recorder.set_on(false);
    bench.wait("it is off", |stats| stats.state == RecordingState::Off);
    assert!(bench.memory.is_whole(0));
    assert_eq!(bench.numbers(), [(20..30).collect::<Vec<_>>()], "from the first keyframe on");
    assert_eq!(bench.recorder.stats().gaps, 0, "nobody misses what was before");
}

#[test]
fn only_the_oldest_of_its_own_files_are_deleted() {
    let memory = Memory::new();
    let folder = Folder::on(Path::new("/nowhere"), Box::new(memory.clone()));
    let at = |hours: u64| Captured(Duration::from_secs(1_764_000_000 + hours * 3600));
    let names: Vec<_> = (0..4).map(|hours| Name::new(at(hours), "cam1").to_string()).collect();
    memory.set(|inner| {
        for name in &names {
            inner.files.insert(name.clone(), vec![0; 1_000]);
            inner.files.insert(name.replace(".mp4", ".csv"), vec![0; 10]);
        }
        inner.files.insert("dive.mp4".to_owned(), vec![0; 100_000]);
    });
    let left = || {
        let files = memory.0.0.lock().unwrap().files.keys().cloned().collect::<Vec<_>>();
        assert!(files.contains(&"dive.mp4".to_owned()), "a file of somebody else's");
        files.len() - 1
    };
    assert_eq!(folder.prune(None, at(100)).unwrap(), []);
    folder.prune(Some(Measure::Bytes(Bytes(3_500))), at(4)).unwrap();
    assert_eq!(left(), 6, "the oldest with its table");
    assert!(!memory.0.0.lock().unwrap().files.contains_key(&names[0]));
    let open = folder.create(at(0), "cam1").unwrap();
    folder.prune(Some(Measure::Time(Duration::from_secs(2 * 3600))), at(4)).unwrap();
    assert_eq!(left(), 4 + 2, "what is being written is never deleted: {:?}", open.name);
    assert_eq!(folder.remove(&open.name).map_err(|error| error.kind()), Err(ErrorKind::ResourceBusy));
    drop(open);
    folder.prune(Some(Measure::Time(Duration::from_secs(1800))), at(4)).unwrap();
    assert_eq!(left(), 2, "what this run began is as old as it is");
    folder.prune(Some(Measure::Time(Duration::ZERO)), at(0)).unwrap();
    assert_eq!(left(), 0, "whatever the clocks say");
}

#[test]
fn what_comes_before_the_writer_looks_is_not_over_while_it_waits() {
    let shared = Arc::new(Shared::new(String::new(), Box::new(|_| {})));
    assert!(shared.is_over());
    shared.set_on(true);
    shared.push(picture(0, 0, true), None, Instant::now());
    shared.set_on(false);
    assert!(!shared.is_over());
    let (tell, told) = std::sync::mpsc::channel();
    let writer = Arc::clone(&shared);
    std::thread::spawn(move || tell.send(writer.order(queue::Order::Rest, 0, true)));
    assert_eq!(told.recv_timeout(LIMIT), Ok((queue::Order::Rest, 1)), "it looks");
    assert!(shared.pop(1).is_some() && shared.clear(1) == (0, 0) && shared.is_over());
}

#[test]
fn files_on_a_real_disk_are_as_they_should_be() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::new(&place.path().join("dives"));
    assert_eq!(folder.list().unwrap(), []);
    assert!(folder.free().unwrap() > 0);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let recorder =
        Recorder::start(Arc::clone(&folder), plan(), move |stats| tell.lock().unwrap().push(stats.state)).unwrap();
    recorder.set_on(true);
    for number in 0..100 {
        recorder.push(picture(number, u64::from(number) * 33, number == 0), None, Instant::now());
    }
    let end = Instant::now() + LIMIT;
    while recorder.stats().bytes == 0 {
        assert!(Instant::now() < end, "{:?}", recorder.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    let found = folder.list().unwrap();
    assert!(found[0].is_open);
    let of_another_program = Folder::new(folder.path());
    assert_eq!(of_another_program.prune(Some(Measure::Bytes(Bytes(0))), NOW).unwrap(), [], "it is being written");
    let refused = of_another_program.remove(&found[0].name).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::ResourceBusy));
    assert!(recorder.stop(LIMIT));
    let found = folder.list().unwrap();
    assert_eq!((found.len(), found[0].is_open), (1, false));
    let file = folder.path_of(&found[0].name.to_string()).unwrap();
    let read = pictures(&std::fs::read(&file).unwrap());
    assert_eq!(read.iter().map(|read| read.number).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    assert_eq!(folder.path_of("../etc/passwd"), None);
    folder.remove(&found[0].name).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(told.lock().unwrap().starts_with(&[RecordingState::Waiting, RecordingState::Recording]), "{told:?}");
}

#[test]
fn a_file_that_is_deleted_while_it_is_written_is_noticed_and_a_new_one_begins() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::new(place.path());
    let recorder = Recorder::start(Arc::clone(&folder), plan(), |_| {}).unwrap();
    recorder.set_on(true);
    let mut number = 0;
    let mut push = |keyframe| {
        number += 1;
        recorder.push(picture(number, u64::from(number) * 33, keyframe), None, Instant::now())
    };
    let end = Instant::now() + LIMIT;
    push(true);
    while recorder.stats().file.is_none() {
        assert!(Instant::now() < end, "{:?}", recorder.stats());
        push(false);
        std::thread::sleep(Duration::from_millis(5));
    }
    let deleted = recorder.stats().file.unwrap();
    std::fs::remove_file(place.path().join(&deleted)).unwrap();
    // It asks for a keyframe, which is about due anyway.
    let mut asks = false;
    while !asks || recorder.stats().file.is_some() {
        assert!(Instant::now() < end, "{:?}", recorder.stats());
        asks |= push(false);
        std::thread::sleep(Duration::from_millis(5));
    }
    for keyframe in [true, false, false, false] {
        push(keyframe);
    }
    assert!(recorder.stop(LIMIT));
    let found = folder.list().unwrap();
    assert!(found.len() == 1 && found[0].name.to_string() != deleted, "{found:?}");
    let read = pictures(&std::fs::read(folder.path_of(&found[0].name.to_string()).unwrap()).unwrap());
    assert_eq!((read.len(), read[0].keyframe), (4, true));
    let (files, stats) = (recorder.files(), recorder.stats());
    assert_eq!((files.len(), stats.gaps), (1, 1), "{files:?} {stats:?}");
    assert!(stats.newest_gaps[0].reason.contains("deleted"), "{stats:?}");
}

#[test]
fn all_files_are_counted_also_where_the_oldest_are_not_listed_any_more() {
    let mut bench = bench(Duration::ZERO, 0);
    for _ in 0..150 {
        bench.push_one(true);
    }
    assert!(bench.recorder.stop(LIMIT));
    assert_eq!((bench.recorder.files().len(), bench.recorder.ended_files()), (144, 150));
}

#[test]
fn a_disk_that_does_not_answer_is_said_though_the_queue_has_room() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    bench.push(10);
    bench.wait("it records", |stats| stats.state == RecordingState::Recording);
    bench.memory.set(|inner| inner.mode = Mode::Hangs);
    let end = Instant::now() + LIMIT;
    while bench.told().last() != Some(&RecordingState::Paused) {
        assert!(Instant::now() < end, "{:?}", bench.recorder.stats());
        bench.push(1);
        std::thread::sleep(Duration::from_millis(50));
    }
    let stats = bench.recorder.stats();
    assert_eq!(stats.state, RecordingState::Paused);
    assert_eq!(stats.reason.as_deref(), Some("the disk does not answer"));
    bench.memory.set(|inner| inner.mode = Mode::Works);
    bench.wait("it goes on", |stats| stats.state == RecordingState::Recording);
    assert!(bench.recorder.stop(LIMIT));
    assert_eq!(bench.numbers(), [(0..bench.number).collect::<Vec<_>>()], "nothing is missing");
    let told = bench.told();
    assert!(told.ends_with(&[RecordingState::Paused, RecordingState::Recording, RecordingState::Off]), "{told:?}");
}

#[test]
fn it_says_that_it_waits_before_the_first_keyframe_and_why_one_cannot_be_recorded() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    bench.wait("it waits for pictures", |stats| stats.state == RecordingState::Waiting);
    let mut bad = picture(0, 0, true);
    bad.unit = vec![0, 0, 0, 1, 0x65, 1, 2, 3].into();
    bench.recorder.push(bad, None, Instant::now());
    let stats = bench.wait("it says why", |stats| stats.reason.is_some());
    assert_eq!(stats.state, RecordingState::Waiting);
    assert!(stats.reason.as_ref().is_some_and(|reason| reason.contains("no parameter sets")), "{stats:?}");
    bench.push(20);
    let stats = bench.wait("it records", |stats| stats.state == RecordingState::Recording);
    assert_eq!(stats.reason, None);
    assert_eq!(bench.told(), [RecordingState::Waiting, RecordingState::Recording]);
}

#[test]
fn a_disk_that_takes_no_bytes_has_no_recordings_and_is_not_said_to_record() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    bench.memory.set(|inner| inner.mode = Mode::Takes(0));
    let mut failed = 0;
    let end = Instant::now() + LIMIT;
    while failed < 2 {
        assert!(Instant::now() < end, "{:?}", bench.recorder.stats());
        bench.push(10);
        std::thread::sleep(Duration::from_millis(100));
        // A cut, which each failure tries, makes it work.
        bench.memory.set(|inner| {
            failed += u32::from(inner.mode == Mode::Works);
            inner.mode = Mode::Takes(0);
        });
    }
    let stats = bench.wait("it pauses", |stats| stats.state == RecordingState::Paused);
    assert!(stats.reason.as_deref().is_some_and(|reason| reason.starts_with("cannot write")), "{stats:?}");
    assert!(!bench.told().contains(&RecordingState::Recording), "{:?}", bench.told());
    assert_eq!(bench.told().iter().filter(|state| **state == RecordingState::Paused).count(), 1, "told once");
    bench.memory.set(|inner| inner.mode = Mode::Works);
    let end = Instant::now() + LIMIT;
    while bench.recorder.stats().state != RecordingState::Recording {
        assert!(Instant::now() < end, "{:?}", bench.recorder.stats());
        bench.push(10);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(bench.recorder.stop(LIMIT));
    assert_eq!(bench.numbers().len(), 1, "files without pictures are deleted");
}

#[test]
fn a_file_that_ends_in_half_a_fragment_plays_up_to_there() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    bench.push(20);
    bench.wait("it records", |stats| stats.bytes > 0);
    let length = bench.recorder.stats().bytes;
    bench.memory.set(|inner| inner.mode = Mode::Takes(50));
    bench.push(10);
    bench.wait("it failed", |stats| stats.state == RecordingState::Paused);
    let files = bench.memory.0.0.lock().unwrap().files.clone();
    let file = files.into_iter().find(|(name, _)| name.ends_with(".mp4")).expect("a file").1;
    assert!(file.len() as u64 >= length + 50, "half a fragment stays");
    assert!(file.windows(4).any(|bytes| bytes == b"free"), "no index is put behind it, nor the fragments covered");
}

#[test]
fn off_and_on_again_while_the_disk_hangs_begins_another_file_at_a_keyframe() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    bench.push(15);
    bench.wait("it records", |stats| stats.bytes > 0);
    bench.memory.set(|inner| inner.mode = Mode::Hangs);
    bench.push(3);
    bench.recorder.set_on(false);
    bench.push(4);
    bench.recorder.set_on(true);
    // 22 to 29 are none of a keyframe that was recorded.
    bench.push(18);
    bench.memory.set(|inner| inner.mode = Mode::Works);
    bench.wait("it goes on", |stats| stats.state == RecordingState::Recording);
    assert!(bench.recorder.stop(LIMIT));
    assert_eq!(bench.numbers(), [(0..18).collect::<Vec<_>>(), (30..40).collect::<Vec<_>>()]);
    assert_eq!(bench.recorder.stats().gaps, 0, "it was off");
}

#[test]
fn a_keyframe_is_not_lost_where_the_file_before_it_cannot_be_ended() {
    let mut bench = bench(Duration::from_secs(2), 0);
    bench.push(20);
    bench.wait("it records", |stats| stats.bytes > 0);
    bench.memory.set(|inner| inner.mode = Mode::NoEnd);
    // The next keyframe is that of another file.
    bench.push(10);
    bench.push(1);
    bench.wait("it failed", |stats| stats.state == RecordingState::Paused);
    bench.memory.set(|inner| inner.mode = Mode::Works);
    bench.push(9);
    bench.wait("it goes on", |stats| stats.state == RecordingState::Recording);
    assert!(bench.recorder.stop(LIMIT));
    let all = bench.numbers().concat();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
    assert_eq!(bench.recorder.stats().missing, 0);
}

#[test]
fn clocks_that_are_wrong_delete_no_dive() {
    let memory = Memory::new();
    let folder = Folder::on(Path::new("/nowhere"), Box::new(memory.clone()));
    let at = |hours: u64| Captured(Duration::from_secs(1_764_000_000 + hours * 3600));
    let put = |begun: Captured, label: &str| {
        let name = Name::new(begun, label);
        memory.set(|inner| drop(inner.files.insert(name.to_string(), vec![0; 1_000])));
        name
    };
    let week = Some(Measure::Time(Duration::from_secs(7 * 86_400)));
    // An hour ago: of this vehicle, of those whose clocks are a month behind or not set, and of one that is ahead.
    let now = at(1_000);
    let right = put(at(999), "Nemo");
    let behind = put(at(280), "Dory");
    let unset = put(Captured(Duration::from_secs(60)), "Squirt");
    let ahead = put(at(9_000), "Crush");
    memory.set(|inner| inner.changed = at(999));
    assert_eq!(folder.prune(week, now).unwrap(), [], "they were written an hour ago");
    // One that is ahead keeps nothing else from being deleted.
    memory.set(|inner| inner.changed = at(280));
    assert_eq!(folder.prune(week, now).unwrap(), [unset.clone(), behind]);
    // Made and kept by a machine whose clock was not set: nobody knows how old they are.
    put(unset.begun(), "Squirt");
    memory.set(|inner| inner.changed = Captured::default());
    assert_eq!(folder.prune(week, now).unwrap(), []);
    // This run began with a clock that was not set, and its files go last.
    let own = folder.create(Captured(Duration::from_secs(61)), "Nemo").unwrap().name.clone();
    put(own.begun(), "Nemo");
    assert_eq!(folder.prune(week, now).unwrap(), []);
    let names: Vec<_> = folder.prune(Some(Measure::Bytes(Bytes(1_500))), now).unwrap();
    assert_eq!(names, [unset, right, ahead]);
    assert_eq!(folder.list().unwrap().iter().map(|found| found.name.clone()).collect::<Vec<_>>(), [own]);
}

#[test]
fn the_time_that_is_left_is_that_of_all_streams_of_a_disk() {
    let folder = Folder::on(Path::new("/nowhere"), Box::new(Memory::new()));
    folder.set_rate("cam1", Some(1e6));
    folder.set_rate("cam2", Some(2e6));
    assert_eq!(folder.rate() as u64, 3_000_000);
    folder.set_rate("cam1", None);
    assert_eq!(folder.rate() as u64, 2_000_000);
}

#[test]
fn what_never_came_is_a_gap_before_the_next_keyframe_and_each_file_says_what_is_in_it() {
    let mut bench = bench(Duration::from_secs(3600), 0);
    // Before anything is recorded nothing is missing.
    bench.recorder.miss(5, (Duration::ZERO, None), "lost");
    bench.push(10);
    bench.recorder.miss(7, (Duration::from_millis(900), None), "lost");
    bench.number = 20;
    bench.push(5);
    assert!(bench.recorder.stop(LIMIT));
    let stats = bench.recorder.stats();
    assert_eq!((stats.gaps, stats.missing, stats.pictures), (1, 7, 15), "{stats:?}");
    assert_eq!((stats.newest_gaps[0].pictures, stats.newest_gaps[0].reason.as_str()), (7, "lost"));
    let files = bench.recorder.files();
    assert_eq!((files[0].pictures, files[0].gaps, files[0].missing), (15, 1, 7), "{files:?}");
    let written: usize = bench.memory.0.0.lock().unwrap().files[&files[0].name].len();
    assert_eq!((files.len(), files[0].bytes, stats.total_bytes), (1, written as u64, written as u64), "with its index");
}

/// Two folders are two programs here: each knows only its own files, and locks are of open files, not of a process.
#[cfg(unix)]
#[test]
fn what_another_program_records_into_the_folder_is_not_deleted() {
    let place = tempfile::TempDir::new().unwrap();
    let (one, other) = (Folder::new(place.path()), Folder::new(place.path()));
    let begun = Captured(Duration::from_secs(1_764_531_012));
    let recording = one.create(begun, "cam1_stream1").unwrap();
    let second = other.create(begun, "cam1_stream1").unwrap();
    assert_ne!(recording.name, second.name);
    let name = recording.name.clone();
    let least = Some(Measure::Bytes(Bytes(0)));
    std::fs::write(place.path().join(name.to_string()), b"pictures").unwrap();
    assert!(other.list().unwrap().iter().all(|found| found.is_open));
    assert_eq!(other.prune(least, NOW).unwrap(), []);
    assert_eq!(other.remove(&name).unwrap_err().kind(), ErrorKind::ResourceBusy);
    assert!(one.path_of(&name.beside(TIMES)).unwrap().exists());
    drop(recording);
    assert_eq!(other.prune(least, NOW).unwrap(), [name], "once it is not written any more");
}

#[test]
fn what_lay_beside_a_recording_that_is_gone_goes_where_recordings_are_deleted() {
    let place = tempfile::TempDir::new().unwrap();
    let folder = Folder::new(place.path());
    let mut recording = folder.create(Captured(Duration::from_secs(1_764_531_012)), "cam1_stream1").unwrap();
    recording.begin_subtitles().unwrap();
    let (video, times) = (recording.name.to_string(), recording.name.beside(TIMES));
    let subtitles = place.path().join(recording.name.beside(SUBTITLES));
    drop(recording);
    assert!(folder.list().unwrap()[0].has_subtitles);
    std::fs::write(place.path().join("notes.csv"), b"somebody else's").unwrap();
    let much = Some(Measure::Bytes(Bytes(1 << 40)));
    folder.prune(much, NOW).unwrap();
    assert!(place.path().join(&times).exists());
    std::fs::remove_file(place.path().join(video)).unwrap();
    folder.prune(None, NOW).unwrap();
    assert!(place.path().join(&times).exists(), "nothing is deleted without --record-keep");
    folder.prune(much, NOW).unwrap();
    assert!(!place.path().join(&times).exists() && !subtitles.exists());
    assert!(place.path().join("notes.csv").exists());
}

fn depth(metres: f64) -> (String, Value) {
    ("depth".to_owned(), Value { value: Some(metres), text: format!("{metres:.1} m"), age_ms: 0 })
}

#[test]
fn what_was_measured_is_in_the_table_and_in_the_subtitles_by_the_times_of_the_pictures() {
    let bench = bench(Duration::from_secs(600), 0);
    // Before telemetry comes, with it, and with another value, which gets its column with the next file.
    for number in 0..60_u32 {
        let mut fields = Fields::new();
        if number >= 2 {
            fields.extend([depth(f64::from(number / 10))]);
        }
        if number >= 45 {
            fields.insert("heading".to_owned(), Value { value: None, text: "--".to_owned(), age_ms: 9000 });
        }
        if number == 45 {
            bench.wait("the table has its head", |stats| stats.pictures >= 30);
        }
        let fields = (!fields.is_empty()).then(|| Arc::new(fields));
        let picture = picture(number, u64::from(number) * 100, number.is_multiple_of(10));
        bench.recorder.push(picture, fields, Instant::now());
    }
    assert!(bench.recorder.stop(LIMIT));
    let files = bench.recorder.files();
    assert_eq!(files.iter().map(|file| file.pictures).collect::<Vec<_>>(), [50, 10], "{files:?}");
    let beside = |index: usize, extension: &str| {
        let name = files[index].name.parse::<Name>().unwrap().beside(extension);
        String::from_utf8(bench.memory.0.0.lock().unwrap().files[&name].clone()).unwrap()
    };
    let table = beside(0, TIMES);
    let rows: Vec<_> = table.lines().collect();
    assert_eq!((rows.len(), rows[0]), (51, "number,time_s,captured,keyframe,missing_before,depth"));
    let of_row = |row: &str| row.rsplit(',').next().unwrap_or_default().to_owned();
    assert!(rows[2].starts_with("2,0.100000,") && rows[2].ends_with(",0,0,"), "{}", rows[2]);
    assert_eq!((of_row(rows[3]), of_row(rows[50])), ("0".to_owned(), "4".to_owned()));
    let table = beside(1, TIMES);
    assert!(table.starts_with("number,time_s,captured,keyframe,missing_before,depth,heading\n1,0.000000,"), "{table}");
    assert!(table.lines().nth(1).unwrap().ends_with(",5,"), "{table}");
    let subtitles = beside(0, SUBTITLES);
    let lines: Vec<_> = subtitles.lines().filter(|line| line.starts_with("Dialogue: ")).collect();
    assert!(
        lines[0].starts_with("Dialogue: 0,0:00:00.20,0:00:01.00,") && lines[0].ends_with(",Depth 0.0 m"),
        "{lines:?}"
    );
    let last = lines[lines.len() - 1];
    assert!(last.contains(",0:00:04.94,") && last.ends_with(",Depth 4.0 m\\NHeading --"), "{last}");
    assert!(beside(1, SUBTITLES).contains("Dialogue: 0,0:00:00.00,"));
}

#[test]
fn without_telemetry_there_are_no_subtitles_and_a_table_of_times_alone() {
    let mut bench = bench(Duration::from_secs(600), 0);
    bench.push(20);
    assert!(bench.recorder.stop(LIMIT));
    let files = bench.memory.0.0.lock().unwrap().files.clone();
    assert_eq!(files.keys().filter(|name| name.ends_with(SUBTITLES)).count(), 0);
    let table = files.iter().find(|(name, _)| name.ends_with(TIMES)).unwrap().1;
    assert!(table.starts_with(b"number,time_s,captured,keyframe,missing_before\n1,"));
}

impl Bench {
    /// These are never pushed; whether that is noticed.
    fn lose(&mut self, count: u32, is_noticed: bool) {
        if is_noticed {
            let last = picture(self.number - 1, u64::from(self.number - 1) * 100, false);
            self.recorder.miss(count.into(), (last.time, last.captured), "they did not get here");
        }
        self.number += count;
    }

    fn captured(number: u32) -> Captured {
        picture(number, u64::from(number) * 100, false).captured.expect("a time")
    }

    fn wait_for(&self, newest: u32) {
        let end = Instant::now() + LIMIT;
        while self.recorder.journal().last().is_none_or(|last| last.captured < Self::captured(newest)) {
            assert!(Instant::now() < end, "{:?}", self.recorder.journal().last());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// With all that there were, up to the newest in a file; what is missing is given.
    fn compare(&self, newest: u32, from: u32, give: impl Fn(u32) -> bool) {
        self.wait_for(newest);
        let journal = self.recorder.journal();
        let to = journal[journal.len() - 1].captured;
        let all: Vec<_> = (from..newest + 1).map(Self::captured).collect();
        let runs = runs(&journal, &all);
        let missing: Vec<_> = runs.iter().flat_map(|run| run.missing.clone()).collect();
        let compared = Compared { from: Self::captured(from), to, is_end: false, runs };
        assert!(self.recorder.give(Late::Compared(compared), LIMIT));
        self.recorder.compared(to);
        // In any order, and more than once.
        let late =
            (from..newest + 1).rev().filter(|number| missing.contains(&Self::captured(*number)) && give(*number));
        for number in late.flat_map(|number| [number, number]) {
            // The time is that of the files' clock, whatever stands here.
            let late = Picture { time: Duration::ZERO, ..picture(number, u64::from(number) * 100, number % 10 == 0) };
            assert!(self.recorder.give(Late::Picture(late), LIMIT));
        }
        assert!(self.recorder.give(Late::Settled(to), LIMIT));
    }

    /// `missing_before` of each row, of each table.
    fn missing_before(&self) -> Vec<Vec<u64>> {
        let inner = self.memory.0.0.lock().unwrap();
        let tables = inner.files.iter().filter(|(name, _)| name.ends_with(".csv"));
        let rows = |table: &Vec<u8>| {
            let text = String::from_utf8(table.clone()).unwrap();
            text.lines().skip(1).map(|row| row.rsplit(',').next().unwrap().parse().unwrap()).collect()
        };
        tables.map(|(_, table)| rows(table)).collect()
    }
}

#[test]
fn what_comes_late_is_in_its_place_once_and_before_that_the_file_plays_without() {
    let mut bench = bench_of(LONGEST, 0, true);
    bench.push(15);
    bench.lose(5, true);
    bench.push(15);
    bench.lose(5, false);
    bench.push(15);
    bench.compare(49, 0, |_| true);
    bench.wait("all has come", |stats| stats.pictures >= 50 && stats.gaps == 0);
    let played: Vec<_> = bench.numbers()[0].iter().copied().take(40).collect();
    let expected: Vec<_> = (0..15).chain(20..35).chain(40..50).collect();
    assert_eq!(played, expected, "a power cut leaves what can be decoded");
    assert!(bench.recorder.stop(LIMIT));
    assert_eq!(bench.numbers(), [(0..55).collect::<Vec<_>>()]);
    let video = &bench.memory.videos()[0];
    assert!(video.iter().all(|read| read.time == u64::from(read.number) * 9_000), "each at its time");
    assert_eq!(bench.missing_before(), [vec![0; 55]]);
    let stats = bench.recorder.stats();
    assert_eq!((stats.pictures, stats.gaps, stats.missing, stats.newest_gaps.len()), (55, 0, 0, 0), "{stats:?}");
    assert_eq!(bench.recorder.corrected(), 5, "of five nobody knew");
    let file = &bench.recorder.files()[0];
    assert_eq!((file.pictures, file.gaps, file.missing), (55, 0, 0), "{file:?}");
}

#[test]
fn a_file_waits_for_what_comes_late_and_what_nobody_has_stays_a_gap() {
    let mut bench = bench_of(Duration::from_secs(5), 0, true);
    bench.push(55);
    // Guessed; ten are asked for, of which the first five are forgotten, and two do not come.
    bench.lose(15, true);
    bench.push(20);
    bench.compare(84, 60, |number| number != 63 && number != 69);
    bench.wait("all has come", |stats| stats.missing == 7);
    let end = Instant::now() + LIMIT;
    while bench.recorder.files().is_empty() {
        assert!(Instant::now() < end, "the first file ends");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(bench.recorder.stop(LIMIT));
    let there = |number: &u32| !(55..60).contains(number) && *number != 63 && *number != 69;
    let expected = [(0..70).filter(there).collect::<Vec<_>>(), (70..90).collect()];
    assert_eq!(bench.numbers(), expected);
    let rows = bench.missing_before();
    let gaps: Vec<_> =
        rows.iter().map(|rows| rows.iter().filter(|row| **row > 0).copied().collect::<Vec<_>>()).collect();
    assert_eq!(gaps, [vec![5, 1], vec![1]]);
    assert_eq!((rows[0][55], rows[1][0]), (5, 1));
    let stats = bench.recorder.stats();
    assert_eq!((stats.gaps, stats.missing, stats.newest_gaps[0].pictures), (1, 7, 7), "{stats:?}");
    let missing: Vec<_> = bench.recorder.files().iter().map(|file| (file.pictures, file.missing)).collect();
    assert_eq!(missing, [(63, 6), (20, 1)]);
}

#[test]
fn a_file_is_compared_where_all_is_known_from_the_picture_before_it_to_its_last() {
    for (from, expected) in [(Some(0), [true; 3]), (Some(59), [false, true, true]), (Some(65), [false, false, true])]
        .into_iter()
        .chain([(None, [false; 3])])
    {
        let mut bench = bench_of(Duration::from_secs(5), 0, true);
        bench.push(7);
        bench.wait("it records", |stats| stats.state == RecordingState::Recording);
        bench.push(123);
        bench.recorder.set_on(false);
        bench.wait("all is in files", |stats| stats.state == RecordingState::Off);
        if let Some(from) = from {
            bench.compare(129, from, |_| true);
        }
        assert!(bench.recorder.stop(LIMIT));
        let compared: Vec<_> = bench.recorder.files().iter().map(|file| file.is_compared).collect();
        assert_eq!(compared, expected, "from {from:?}");
        let not = expected.iter().filter(|is_compared| !**is_compared).count() as u64;
        assert_eq!(bench.recorder.uncompared_files(), not);
    }
}

#[test]
fn a_file_waits_for_what_comes_late_while_others_end_behind_it() {
    let mut bench = bench_of(Duration::from_secs(1), 0, true);
    bench.push(15);
    bench.lose(5, false);
    // Of two seconds each.
    bench.push(80);
    bench.compare(89, 0, |_| true);
    bench.wait("all has come", |stats| stats.pictures >= 95 && stats.missing == 0);
    assert!(bench.recorder.stop(LIMIT));
    let expected = [(0..20).collect::<Vec<_>>(), (20..40).collect(), (40..60).collect(), (60..80).collect()];
    assert_eq!(bench.numbers()[..4], expected);
    assert!(bench.recorder.files()[..4].iter().all(|file| file.is_compared));
}

#[test]
fn of_what_comes_late_only_what_is_of_another_size_stays_missing() {
    let mut bench = bench_of(LONGEST, 0, true);
    bench.push(15);
    bench.lose(25, false);
    bench.push(15);
    bench.compare(49, 0, |_| false);
    for number in 15..40 {
        let mut late = picture(number, u64::from(number) * 100, number % 10 == 0);
        if number == 20 {
            // 704 lines.
            late.unit = late.unit.iter().map(|byte| if *byte == 187 { 155 } else { *byte }).collect();
        }
        assert!(bench.recorder.give(Late::Picture(late), LIMIT));
    }
    bench.wait("the rest has come", |stats| stats.missing == 10);
    assert!(bench.recorder.stop(LIMIT));
    assert_eq!(bench.numbers(), [(0..20).chain(30..55).collect::<Vec<_>>()]);
}

#[test]
fn a_gap_before_a_picture_of_which_no_time_is_known_stays_one() {
    let mut bench = bench_of(LONGEST, 0, true);
    bench.push(15);
    bench.lose(5, true);
    for number in 20..35 {
        let picture = Picture { captured: None, ..picture(number, u64::from(number) * 100, number == 20) };
        bench.recorder.push(picture, None, Instant::now());
    }
    bench.wait("all are written", |stats| stats.pictures == 30);
    let (from, to) = (Bench::captured(0), Bench::captured(14));
    assert!(bench.recorder.give(Late::Compared(Compared { from, to, is_end: true, runs: Vec::new() }), LIMIT));
    assert!(bench.recorder.stop(LIMIT));
    let stats = bench.recorder.stats();
    assert_eq!((stats.gaps, stats.missing), (1, 5), "{stats:?}");
}

#[test]
fn a_file_that_does_not_take_what_comes_late_ends_with_what_it_has() {
    let mut bench = bench_of(Duration::from_secs(5), 0, true);
    bench.push(15);
    bench.lose(5, true);
    bench.push(55);
    bench.wait_for(74);
    bench.memory.set(|inner| inner.mode = Mode::FailsOnce);
    bench.compare(74, 0, |_| true);
    let end = Instant::now() + LIMIT;
    while bench.recorder.files().is_empty() {
        assert!(Instant::now() < end, "the first file ends");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(bench.recorder.stop(LIMIT));
    assert_eq!(bench.numbers(), [(0..15).chain(20..60).collect::<Vec<_>>(), (60..75).collect()]);
    assert_eq!(bench.missing_before()[0][15], 5);
    assert!(bench.memory.is_whole(0));
}

#[test]
fn what_was_guessed_missing_and_was_not_is_missing_nowhere() {
    let mut bench = bench_of(LONGEST, 0, true);
    bench.push(15);
    bench.lose(5, true);
    bench.push(10);
    // The next picture is the one behind.
    let last = picture(bench.number - 1, u64::from(bench.number - 1) * 100, false);
    bench.recorder.miss(7, (last.time, last.captured), "they did not get here");
    bench.push(20);
    bench.compare(44, 0, |_| false);
    let stats = bench.wait("the guess is taken back", |stats| stats.missing == 5);
    assert_eq!(stats.gaps, 1, "{stats:?}");
    assert!(bench.recorder.stop(LIMIT));
    let file = &bench.recorder.files()[0];
    assert_eq!((file.pictures, file.gaps, file.missing), (45, 1, 5), "{file:?}");
    let rows: Vec<_> = bench.missing_before()[0].iter().copied().filter(|missing| *missing > 0).collect();
    assert_eq!(rows, [5]);
}

#[test]
fn what_is_missing_at_the_end_stays_missing_where_a_comparison_does_not_reach_it() {
    let mut bench = bench_of(LONGEST, 0, true);
    bench.push(15);
    bench.wait_for(9);
    bench.lose(5, true);
    bench.recorder.set_on(false);
    bench.wait("all is in files", |stats| stats.state == RecordingState::Off);
    assert_eq!(bench.recorder.journal().last().map(|last| last.captured), Some(Bench::captured(14)));
    let (from, to) = (Bench::captured(0), Bench::captured(14));
    assert!(bench.recorder.give(Late::Compared(Compared { from, to, is_end: true, runs: Vec::new() }), LIMIT));
    assert!(bench.recorder.stop(LIMIT));
    let stats = bench.recorder.stats();
    assert_eq!((stats.gaps, stats.missing), (1, 5), "{stats:?}");
}

#[test]
fn a_gap_that_was_filled_is_none_in_its_file_after_very_many_others() {
    let mut bench = bench_of(LONGEST, 0, true);
    bench.push(15);
    bench.lose(5, true);
    bench.push(10);
    bench.compare(29, 0, |_| true);
    bench.wait("all has come", |stats| stats.pictures >= 30 && stats.gaps == 0);
    // One picture is missing in each, and nobody has it.
    for _ in 0..1_024 {
        bench.lose(1, false);
        bench.push(1);
    }
    bench.push(10);
    bench.compare(bench.number - 1, 30, |_| false);
    bench.wait("all are known", |stats| stats.missing == 1_024);
    assert!(bench.recorder.stop(LIMIT));
    let file = &bench.recorder.files()[0];
    assert_eq!((file.gaps, file.missing), (1_024, 1_024), "{file:?}");
    assert_eq!(bench.missing_before()[0][20], 0, "before the picture behind it");
}

#[test]
fn a_recorder_that_is_to_end_takes_nothing_more_that_comes_late() {
    let mut bench = bench_of(LONGEST, 0, true);
    bench.push(15);
    bench.wait("it records", |stats| stats.bytes > 0);
    bench.memory.set(|inner| inner.mode = Mode::Hangs);
    bench.push(10);
    let late = || Late::Picture(Picture { unit: vec![0; 1 << 20].into(), ..picture(3, 300, false) });
    let shared = Arc::clone(&bench.recorder.shared);
    while shared.give(late(), Duration::ZERO) {}
    let waiting = std::thread::spawn(move || shared.give(late(), Duration::MAX));
    assert!(!bench.recorder.stop(Duration::ZERO));
    assert!(!waiting.join().expect("no panic"), "nor does it keep anybody waiting");
    bench.memory.set(|inner| inner.mode = Mode::Works);
    assert!(bench.recorder.stop(LIMIT) && bench.memory.is_whole(0));
}

/// The table of the only file.
fn table(bench: &Bench) -> String {
    let inner = bench.memory.0.0.lock().unwrap();
    let (_, table) = inner.files.iter().find(|(name, _)| name.ends_with(TIMES)).expect("a table");
    String::from_utf8(table.clone()).expect("text")
}

/// With what was measured, and five that come late.
fn mended_with_telemetry() -> Bench {
    let mut bench = bench_of(LONGEST, 0, true);
    let push = |number: u32| {
        let fields = Some(Arc::new(Fields::from([depth(f64::from(number))])));
        let picture = picture(number, u64::from(number) * 100, number.is_multiple_of(10));
        bench.recorder.push(picture, fields, Instant::now());
    };
    (0..15).for_each(push);
    (20..35).for_each(push);
    bench.number = 35;
    bench.compare(29, 0, |_| true);
    bench.wait("all has come, and is written", |stats| stats.pictures == 35);
    bench
}

#[test]
fn a_table_that_is_written_anew_keeps_what_was_measured_when_a_picture_came_in_time() {
    let bench = mended_with_telemetry();
    assert!(bench.recorder.stop(LIMIT));
    let table = table(&bench);
    let rows: Vec<_> = table.lines().skip(1).map(|row| row.split(',').collect::<Vec<_>>()).collect();
    assert_eq!(rows.len(), 35, "{table}");
    for (number, row) in rows.iter().enumerate() {
        let is_late = (15..20).contains(&number);
        let depth = if is_late { String::new() } else { number.to_string() };
        assert_eq!((row[0], row[5]), ((number + 1).to_string().as_str(), depth.as_str()), "{table}");
    }
    let files = bench.memory.0.0.lock().unwrap().files.len();
    assert_eq!(files, 3, "video, table, subtitles");
}

#[test]
fn a_full_disk_at_the_end_of_a_file_leaves_it_the_table_that_it_has() {
    let bench = mended_with_telemetry();
    let before = table(&bench);
    bench.memory.set(|inner| inner.refuses = Some(TIMES));
    assert!(bench.recorder.stop(LIMIT));
    let after = table(&bench);
    assert!(after.starts_with(&before) && before.lines().count() > 25, "{after}");
    assert_eq!(bench.numbers(), [(0..35).collect::<Vec<_>>()], "the video has its index all the same");
    let (files, names) = (bench.recorder.files(), bench.memory.0.0.lock().unwrap().files.len());
    assert_eq!((files[0].pictures, names), (35, 3), "nothing of the attempt stays");
}

#[test]
fn the_time_of_day_that_a_client_tells_is_that_of_the_next_file_and_no_picture_is_missing() {
    let clock = CaptureClock::new(Instant::now(), std::time::UNIX_EPOCH);
    let day = TimeOfDay::of(&clock);
    let mut bench = bench_with(Plan { day: Some(day.clone()), ..plan() });
    bench.push(15);
    bench.wait("all are written", |stats| stats.pictures == 15);
    // The pictures of this test are of 2023.
    let is_told = Captured(Bench::captured(0).0 + Duration::from_secs(100_000_000));
    assert!(day.tell(is_told, Bench::captured(0)));
    bench.push(30);
    assert!(bench.recorder.stop(LIMIT));
    assert_eq!(bench.numbers(), [(0..20).collect::<Vec<_>>(), (20..45).collect()]);
    let files: Vec<_> = bench.recorder.files().into_iter().map(|file| file.name).collect();
    let begun: Vec<_> = files.iter().map(|name| name.parse::<Name>().expect("a name").begun()).collect();
    let of = |number: u32, ahead: u64| Captured(Bench::captured(number).0 + Duration::from_secs(ahead));
    assert_eq!(begun, [of(0, 0), of(20, 100_000_000)]);
    let inner = bench.memory.0.0.lock().unwrap();
    let has = |name: &str, text: &str| inner.files[name].windows(text.len()).any(|bytes| bytes == text.as_bytes());
    for (file, clock, number, ahead) in [(&files[0], "unset", 19, 0), (&files[1], "client", 44, 100_000_000)] {
        assert!(has(file, clock) && has(file, &rfc3339(begun[usize::from(ahead > 0)])), "{file}");
        let table = file.replace(EXTENSION, TIMES);
        assert!(has(&table, &rfc3339(of(number, ahead))), "{table}");
    }
}
