//! Real RTP, made by x264, through the real pipeline.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};

use gstreamer::prelude::*;
use rov_common::stamp::Stamp;

use super::*;

const SIZE: Resolution = Resolution::new(320, 240);
const FPS: u32 = 60;
/// Keyframes are this many pictures apart.
const KEYFRAMES: usize = 12;
const PAYLOAD_TYPE: u8 = 96;
const LATENCY: Duration = Duration::from_millis(60);
/// Far more than anything here may take.
const LONG: Duration = Duration::from_secs(10);

/// The RTP packets of one picture.
struct Coded {
    packets: Vec<Bytes>,
    timestamp: u32,
}

/// A second and a half of video: moving bars, a stamp with the picture's number, two or more packets for each picture.
fn video() -> &'static [Coded] {
    static VIDEO: OnceLock<Vec<Coded>> = OnceLock::new();
    VIDEO.get_or_init(|| encode(90))
}

fn encode(pictures: u32) -> Vec<Coded> {
    gst::init().unwrap();
    let text = format!(
        "appsrc name=raw format=time caps=video/x-raw,format=I420,width={},height={},framerate={FPS}/1 ! \
         x264enc tune=zerolatency speed-preset=ultrafast bitrate=3000 key-int-max={KEYFRAMES} \
         option-string=scenecut=0 ! h264parse config-interval=-1 ! \
         rtph264pay pt={PAYLOAD_TYPE} mtu=400 config-interval=0 seqnum-offset=65500 timestamp-offset=1000 ! \
         appsink name=rtp sync=false",
        SIZE.width, SIZE.height
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let raw = pipeline.by_name("raw").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let rtp = pipeline.by_name("rtp").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let (width, height) = (SIZE.width as usize, SIZE.height as usize);
    for number in 0..pictures {
        let mut data = vec![128_u8; width * height * 3 / 2];
        for y in 0..height {
            for x in 0..width {
                data[y * width + x] = 60 + ((x * 3 + y * 5 + number as usize * 7) % 120) as u8;
            }
        }
        assert!(stamp(number).draw(&mut data[..width * height], width, width, height));
        let mut buffer = gst::Buffer::from_mut_slice(data);
        let time = gst::ClockTime::SECOND.mul_div_floor(number.into(), FPS.into());
        buffer.get_mut().unwrap().set_pts(time);
        raw.push_buffer(buffer).unwrap();
    }
    raw.end_of_stream().unwrap();
    let mut coded: Vec<Coded> = Vec::new();
    while let Ok(sample) = rtp.pull_sample() {
        let map = sample.buffer().unwrap().map_readable().unwrap();
        let packet = Packet::parse(&map).unwrap();
        if coded.last().is_none_or(|last| last.timestamp != packet.timestamp) {
            coded.push(Coded { packets: Vec::new(), timestamp: packet.timestamp });
        }
        coded.last_mut().unwrap().packets.push(Bytes::copy_from_slice(&map));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(coded.len(), pictures as usize);
    assert!(coded.iter().all(|picture| picture.packets.len() >= 2), "a picture of one packet");
    coded
}

fn stamp(number: u32) -> Stamp {
    Stamp { frame: number, time_us: 1_000_000 + u64::from(number) }
}

struct Bench {
    decoder: Decoder,
    mailbox: Arc<Mailbox<Picture>>,
    events: Receiver<DecodeEvent>,
}

fn config(decoder: &str) -> DecoderConfig {
    DecoderConfig {
        choice: decoder.parse().unwrap(),
        latency: LATENCY,
        payload_type: PAYLOAD_TYPE,
        output: None,
    }
}

impl Bench {
    fn new(config: DecoderConfig) -> Self {
        let (sender, events) = channel();
        let mailbox = Arc::new(Mailbox::new());
        let on_event = move |event| drop(sender.send(event));
        Self { decoder: Decoder::start(config, Arc::clone(&mailbox), on_event).unwrap(), mailbox, events }
    }

    fn with_candidates(texts: &[&str]) -> Self {
        gst::init().unwrap();
        let caps = "video/x-h264,stream-format=byte-stream,alignment=au";
        let candidates = texts
            .iter()
            .map(|text| Candidate { element: (*text).to_owned(), description: format!("{caps} ! {text}") })
            .collect();
        let (sender, events) = channel();
        let mailbox = Arc::new(Mailbox::new());
        let on_event = move |event| drop(sender.send(event));
        let decoder = Decoder::start_with(candidates, config("auto"), Arc::clone(&mailbox), on_event).unwrap();
        Self { decoder, mailbox, events }
    }

    fn push(&self, packets: &[Bytes]) {
        for packet in packets {
            self.decoder.push(packet.clone(), Instant::now());
        }
    }

    /// The number of the next picture, read from its stamp.
    fn picture(&self, timeout: Duration) -> Option<u32> {
        self.mailbox.wait(timeout).map(|picture| number(&picture))
    }

    fn event(&self) -> DecodeEvent {
        self.events.recv_timeout(LONG).expect("an event")
    }
}

fn number(picture: &Picture) -> u32 {
    read_stamp(picture).expect("a stamp").frame
}

/// Calls `each` with each picture's number, as often a second as the video has pictures.
fn paced(pictures: std::ops::Range<usize>, mut each: impl FnMut(usize)) {
    let start = Instant::now();
    for (tick, picture) in (0_u32..).zip(pictures) {
        let due = start + Duration::from_secs(1) / FPS * tick;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        each(picture);
    }
}

fn each_picture_comes_at_once(decoder: &str) {
    let bench = Bench::new(config(decoder));
    let mut delays = Vec::new();
    paced(0..60, |picture| {
        let pushed = Instant::now();
        bench.push(&video()[picture].packets);
        // The next one is not pushed before this one is out.
        let shown = bench.mailbox.wait(LONG).expect("a picture");
        delays.push(pushed.elapsed());
        assert_eq!(number(&shown), picture as u32);
        assert_eq!(shown.rtp_timestamp, video()[picture].timestamp);
        assert!(pushed <= shown.first_packet_at && shown.first_packet_at <= shown.last_packet_at);
        assert!(shown.last_packet_at <= shown.decode_started_at && shown.decode_started_at <= shown.decoded_at);
    });
    let first = delays[0];
    delays.sort();
    println!("{decoder}: first {first:?}, median {:?}, longest {:?}", delays[30], delays[59]);
    assert!(delays[30] < LATENCY / 2, "in-order packets wait: {:?}", delays[30]);
    let stats = bench.decoder.stats();
    assert_eq!((stats.lost, stats.frames_decoded, stats.frames_skipped, stats.dropped), (0, 60, 0, 0));
    assert_eq!((stats.decoder.as_str(), stats.source), (decoder, Some(SIZE)));
    assert!(stats.decode_ms.is_some());
}

#[test]
fn avdec_gives_each_picture_before_the_next_goes_in() {
    each_picture_comes_at_once("avdec_h264");
}

#[test]
fn openh264dec_gives_each_picture_before_the_next_goes_in() {
    each_picture_comes_at_once("openh264dec");
}
