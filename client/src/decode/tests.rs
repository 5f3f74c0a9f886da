//! Real RTP, made by x264, through the real pipeline.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use rov_common::capture_clock::Captured;
use rov_common::stamp::Stamp;

use super::*;
use crate::viewer::Viewer;

const SIZE: Resolution = Resolution::new(320, 240);
const FPS: u32 = 60;
/// Keyframes are this many pictures apart.
const KEYFRAMES: usize = 12;
const PAYLOAD_TYPE: u8 = 96;
const LATENCY: Duration = Duration::from_millis(60);
/// By which the packets' clock is ahead in most tests.
const AHEAD: Duration = Duration::from_secs(1);
/// Far more than anything here may take.
const LONG: Duration = Duration::from_secs(30);

/// The RTP packets of one picture.
struct Coded {
    packets: Vec<Packet>,
    timestamp: u32,
}

/// A second and a half of video: moving bars, a stamp with the picture's number, two or more packets for each picture.
fn video() -> &'static [Coded] {
    static VIDEO: OnceLock<Vec<Coded>> = OnceLock::new();
    VIDEO.get_or_init(|| encode(Codec::H264, SIZE, 90))
}

/// The same as H.265.
fn h265_video() -> &'static [Coded] {
    static VIDEO: OnceLock<Vec<Coded>> = OnceLock::new();
    VIDEO.get_or_init(|| encode(Codec::H265, SIZE, 60))
}

fn encode(codec: Codec, size: Resolution, pictures: u32) -> Vec<Coded> {
    gst::init().unwrap();
    let (encoder, pay) = match codec {
        Codec::H264 => ("x264enc option-string=scenecut=0", "h264parse config-interval=-1 ! rtph264pay"),
        Codec::H265 => (
            "x265enc option-string=\"bframes=0:scenecut=0:open-gop=0:info=0\"",
            "h265parse config-interval=-1 ! rtph265pay",
        ),
        Codec::Mjpeg => unreachable!("its own tests are in `tests/tests/mjpeg.rs`"),
    };
    let text = format!(
        "appsrc name=raw format=time caps=video/x-raw,format=I420,width={},height={},framerate={FPS}/1 ! \
         {encoder} tune=zerolatency speed-preset=ultrafast bitrate=3000 key-int-max={KEYFRAMES} ! \
         {pay} pt={PAYLOAD_TYPE} mtu=400 config-interval=0 seqnum-offset=65500 timestamp-offset=1000 ! \
         appsink name=rtp sync=false",
        size.width, size.height
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let raw = pipeline.by_name("raw").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let rtp = pipeline.by_name("rtp").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let (width, height) = (size.width as usize, size.height as usize);
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
        let packet = Packet::read(&Bytes::copy_from_slice(&map)).unwrap();
        let timestamp = packet.header.timestamp;
        if coded.last().is_none_or(|last| last.timestamp != timestamp) {
            coded.push(Coded { packets: Vec::new(), timestamp });
        }
        coded.last_mut().unwrap().packets.push(packet);
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
    /// Source and time stamp of the first packet of a stream, and when it came.
    begun: Cell<Option<(u32, u32, Instant)>>,
}

fn config(decoder: &str) -> DecoderConfig {
    DecoderConfig {
        codec: Codec::H264,
        choice: decoder.parse().unwrap(),
        latency: LATENCY,
        waited: Duration::ZERO,
        payload_type: PAYLOAD_TYPE,
        output: None,
    }
}

impl Bench {
    fn new(config: DecoderConfig) -> Self {
        let (sender, events) = channel();
        let mailbox = Arc::new(Mailbox::new());
        let on_event = move |event| drop(sender.send(event));
        let decoder = Decoder::start(config, Arc::clone(&mailbox), on_event).unwrap();
        Self { decoder, mailbox, events, begun: Cell::default() }
    }

    fn with_candidates(texts: &[&str]) -> Self {
        gst::init().unwrap();
        let caps = "video/x-h264,stream-format=byte-stream,alignment=au";
        let candidates = texts
            .iter()
            .map(|text| Candidate {
                codec: Codec::H264,
                element: (*text).to_owned(),
                description: format!("h264parse ! {caps} ! {text}"),
            })
            .collect();
        let (sender, events) = channel();
        let mailbox = Arc::new(Mailbox::new());
        let on_event = move |event| drop(sender.send(event));
        let decoder = Decoder::start_with(candidates, config("auto"), Arc::clone(&mailbox), on_event).unwrap();
        Self { decoder, mailbox, events, begun: Cell::default() }
    }

    /// They come when their time stamp says, however late this thread is, by a clock that is a little ahead: for the
    /// decoder no packet is late, and none has waited for long.
    fn push(&self, packets: &[Packet]) {
        self.decoder.push(packets.iter().cloned(), self.due(&packets[0]).into());
    }

    fn due(&self, packet: &Packet) -> Instant {
        let header = packet.header;
        let begun = self.begun.get().filter(|(ssrc, ..)| *ssrc == header.ssrc);
        let begun = begun.unwrap_or_else(|| (header.ssrc, header.timestamp, Instant::now() + AHEAD));
        self.begun.set(Some(begun));
        begun.2 + Duration::from_secs(1) * header.timestamp.wrapping_sub(begun.1) / 90_000
    }

    /// The number of the next picture, read from its stamp.
    fn picture(&self, timeout: Duration) -> Option<u32> {
        self.mailbox.wait(timeout).map(|picture| number(&picture))
    }

    /// Waits until the server was asked for a keyframe.
    fn wait_for_request(&self) {
        let start = Instant::now();
        while self.decoder.stats().keyframe_requests == 0 {
            assert!(start.elapsed() < LONG, "{:?}", self.decoder.stats());
            std::thread::sleep(Duration::from_millis(5));
        }
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

fn each_picture_comes_at_once(codec: Codec, decoder: &str) {
    // Decoding a picture that has waited for longer than that would be in vain.
    let bench = Bench::new(DecoderConfig { codec, latency: LONG, ..config(decoder) });
    let mut delays = Vec::new();
    let video = if codec == Codec::H264 { video() } else { h265_video() };
    paced(0..60, |picture| {
        let pushed = Instant::now();
        let arrived = (bench.due(&video[picture].packets[0]) - AHEAD).min(pushed);
        bench.decoder.push(video[picture].packets.iter().cloned(), arrived.into());
        // The next one is not pushed before this one is out.
        let shown = bench.mailbox.wait(LONG).expect("a picture");
        delays.push(pushed.elapsed());
        assert_eq!(number(&shown), picture as u32);
        assert_eq!(shown.rtp_timestamp, video[picture].timestamp);
        assert!(arrived <= shown.first_packet_at && shown.first_packet_at <= shown.last_packet_at);
        assert!(shown.last_packet_at <= shown.decode_started_at && shown.decode_started_at <= shown.decoded_at);
        assert!(shown.decoded_at < shown.converted_at);
    });
    let first = delays[0];
    delays.sort();
    println!("{decoder}: first {first:?}, median {:?}, longest {:?}", delays[30], delays[59]);
    // On a busy machine some take longer, and where the jitter buffer holds them, all.
    assert!(delays[0] < LATENCY / 2, "in-order packets wait: {:?}", delays[0]);
    let stats = bench.decoder.stats();
    assert_eq!((stats.lost, stats.frames_decoded, stats.frames_skipped, stats.dropped), (0, 60, 0, 0));
    assert_eq!((stats.decoder.as_str(), stats.source), (decoder, Some(SIZE)));
    assert!(stats.decode_ms.is_some());
}

#[test]
fn avdec_gives_each_picture_before_the_next_goes_in() {
    each_picture_comes_at_once(Codec::H264, "avdec_h264");
}

#[test]
fn packets_that_come_together_go_on_together() {
    let bench = Bench::new(config("avdec_h264"));
    bench.push(&video()[0].packets);
    assert_eq!(bench.picture(LONG), Some(0));
    let decoded = || bench.decoder.shared.flow().counters.decoded;
    let (before, last) = (decoded(), video()[2].packets[0].clone());
    let last = std::iter::once_with(|| {
        // Picture 1 is whole, but with packets on their way that came with it.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(decoded(), before, "the decoder's thread was woken for a part of them");
        last
    });
    bench.decoder.push(video()[1].packets.iter().cloned().chain(last), Instant::now().into());
    assert_eq!(bench.picture(LONG), Some(1));
}

#[test]
fn avdec_gives_each_picture_of_h265_before_the_next_goes_in() {
    each_picture_comes_at_once(Codec::H265, "avdec_h265");
}

#[test]
fn a_lost_packet_of_h265_hides_pictures_until_the_next_keyframe() {
    let bench = Bench::new(DecoderConfig { codec: Codec::H265, ..config("auto") });
    let hidden = 15..24;
    let video = h265_video();
    paced(0..40, |picture| {
        if picture == hidden.end {
            bench.wait_for_request();
        }
        for (index, packet) in video[picture].packets.iter().enumerate() {
            if picture != hidden.start || index != 0 {
                bench.push(std::slice::from_ref(packet));
            }
        }
        if !hidden.contains(&picture) {
            assert_eq!(bench.picture(LONG), Some(picture as u32), "the next keyframe is picture {}", hidden.end);
        }
    });
    let stats = bench.decoder.stats();
    assert_eq!((stats.lost, stats.frames_decoded), (1, 40 - hidden.len() as u64));
}

#[test]
fn a_decoder_that_waits_takes_the_codec_that_the_server_chose() {
    let bench = Bench::new(config("auto"));
    bench.decoder.set_codec(Codec::H265);
    // Packets come before the other pipeline is there.
    bench.push(&h265_video()[0].packets);
    assert_eq!(bench.picture(LONG), Some(0));
    bench.push(&h265_video()[1].packets);
    assert_eq!(bench.picture(LONG), Some(1));
    assert_eq!(bench.decoder.stats().restarts, 0, "that is no failure");
    // And back, as when the server is started anew with another codec.
    bench.decoder.set_codec(Codec::H264);
    let mut other_source = video()[0].packets.clone();
    other_source.iter_mut().for_each(|packet| packet.header.ssrc ^= 0xff);
    bench.push(&other_source);
    assert_eq!(bench.picture(LONG), Some(0));
}

#[test]
fn a_named_decoder_of_the_wrong_codec_says_so() {
    let bench = Bench::new(config("avdec_h264"));
    bench.decoder.set_codec(Codec::H265);
    let DecodeEvent::Failed { tried } = bench.event() else { panic!("it cannot work") };
    assert_eq!(tried, [("avdec_h264".to_owned(), "it does not decode H.265, which this stream is".to_owned())]);
    // A decoder of H.265 is taken at its word before the server has said anything.
    assert_eq!(Bench::new(config("avdec_h265")).decoder.stats().decoder, "avdec_h265");
}

#[test]
fn openh264dec_gives_each_picture_before_the_next_goes_in() {
    each_picture_comes_at_once(Codec::H264, "openh264dec");
}

/// Pushes `pictures` at their pace, without the packets that `lost` names (picture, packet). All but those in `hidden`
/// must come out, each before the next goes in, and none of the others, after which a keyframe is asked for.
fn play(
    bench: &Bench,
    pictures: std::ops::Range<usize>,
    lost: impl Fn(usize, usize) -> bool,
    hidden: std::ops::Range<usize>,
) {
    paced(pictures, |picture| {
        if !hidden.is_empty() && picture == hidden.end {
            bench.wait_for_request();
        }
        for (index, packet) in video()[picture].packets.iter().enumerate() {
            if !lost(picture, index) {
                bench.push(std::slice::from_ref(packet));
            }
        }
        if !hidden.contains(&picture) {
            assert_eq!(bench.picture(LONG), Some(picture as u32));
        }
    });
}

#[test]
fn a_lost_packet_hides_pictures_until_the_next_keyframe_and_asks_for_one() {
    let bench = Bench::new(config("avdec_h264"));
    // Pictures 0, 12, 24, 36 are keyframes; a packet of 15 is missing.
    play(&bench, 0..36, |picture, packet| (picture, packet) == (15, 1), 15..24);
    let playing = DecodeEvent::Playing { decoder: "avdec_h264".into(), resolution: SIZE };
    assert_eq!(bench.event(), playing);
    assert!(matches!(bench.event(), DecodeEvent::KeyframeNeeded { .. }));
    let stats = bench.decoder.stats();
    assert_eq!((stats.lost, stats.frames_skipped, stats.keyframe_requests), (1, 9, 1));
    assert!(bench.events.try_recv().is_err(), "one request is enough");
}

#[test]
fn a_keyframe_with_a_hole_is_not_shown() {
    let bench = Bench::new(config("avdec_h264"));
    play(&bench, 0..30, |picture, packet| (picture, packet) == (12, 3), 12..24);
}

#[test]
fn packets_in_the_wrong_order_lose_nothing() {
    let bench = Bench::new(config("avdec_h264"));
    let captured = |picture: usize| Some(Captured(Duration::from_millis(1_764_000_000_000 + picture as u64)));
    paced(0..24, |picture| {
        let mut packets = video()[picture].packets.clone();
        // Of the very first packet nobody knows that it is not the first of the stream.
        let first = usize::from(picture == 0);
        packets[0].captured = captured(picture);
        packets.swap(first, first + 1);
        bench.push(&packets);
        let shown = bench.mailbox.wait(LONG).expect("a picture");
        assert_eq!((number(&shown), shown.captured), (picture as u32, captured(picture)));
    });
    let stats = bench.decoder.stats();
    assert_eq!((stats.lost, stats.frames_skipped), (0, 0));
}

#[test]
fn a_retransmission_within_the_latency_loses_nothing_and_waits_no_longer_than_it_must() {
    let bench = Bench::new(DecoderConfig { latency: LONG, ..config("avdec_h264") });
    paced(0..10, |picture| {
        bench.push(&video()[picture].packets);
        assert_eq!(bench.picture(LONG), Some(picture as u32));
    });
    let packets = &video()[10].packets;
    bench.push(&packets[1..]);
    assert_eq!(bench.picture(Duration::from_millis(15)), None, "a hole");
    let late = Instant::now();
    bench.push(&packets[..1]);
    assert_eq!(bench.picture(LONG), Some(10));
    println!("shown {:?} after the retransmission", late.elapsed());
    assert_eq!(bench.decoder.stats().lost, 0);
}

#[test]
fn joining_in_the_middle_shows_nothing_before_a_keyframe_and_asks_for_one() {
    let bench = Bench::new(config("avdec_h264"));
    let mut asked = false;
    let start = Instant::now();
    // Pictures 1 to 11 again and again would be no stream: each but the keyframe refers to the one before.
    while !asked && start.elapsed() < LONG {
        bench.push(&video()[1].packets[..1]);
        asked = matches!(bench.events.recv_timeout(Duration::from_millis(20)), Ok(DecodeEvent::KeyframeNeeded { .. }));
    }
    assert!(asked);
    assert!(start.elapsed() >= Duration::from_millis(400), "joining asks by itself: {:?}", start.elapsed());
    // The sender's clock went on meanwhile.
    let ticks = (start.elapsed().as_micros() * 9 / 100) as u32;
    paced(2..20, |picture| {
        bench.push(&later(&video()[picture].packets, 0, ticks));
        if picture >= 12 {
            assert_eq!(bench.picture(LONG), Some(picture as u32));
        }
    });
}

#[test]
fn a_decoder_that_fails_is_passed_over_for_the_next() {
    let bench = Bench::with_candidates(&["nosuchdecoder", "identity error-after=3 ! avdec_h264", "openh264dec"]);
    let mut asked_after = None;
    let mut shown = Vec::new();
    paced(0..90, |picture| {
        bench.push(&video()[picture].packets);
        shown.extend(bench.picture(Duration::from_millis(8)));
        while let Ok(event) = bench.events.try_recv() {
            if matches!(event, DecodeEvent::KeyframeNeeded { .. }) {
                asked_after = Some(picture);
            }
        }
    });
    assert!(asked_after.is_some(), "the new decoder needs a keyframe");
    assert!(shown.windows(2).all(|pair| pair[0] < pair[1]), "{shown:?}");
    assert!(shown.len() > 30 && shown.last() > Some(&80), "{shown:?}");
    let stats = bench.decoder.stats();
    assert_eq!((stats.decoder.as_str(), stats.restarts), ("openh264dec", 1));
}

#[test]
fn a_decoder_that_gives_no_picture_is_passed_over_for_the_next() {
    let bench = Bench::with_candidates(&["valve drop=true ! avdec_h264", "avdec_h264"]);
    let start = Instant::now();
    let mut shown = Vec::new();
    paced(0..60, |picture| bench.push(&video()[picture].packets));
    // The video again, numbered on: 60 pictures a second until one is shown.
    let mut next = 60;
    while shown.is_empty() && start.elapsed() < LONG {
        bench.push(&renumbered(next));
        shown.extend(bench.picture(Duration::from_millis(16)));
        next += 1;
    }
    assert_eq!(bench.decoder.stats().restarts, 1);
    assert_eq!(shown.len(), 1, "after {:?}", start.elapsed());
    assert!(start.elapsed() >= Duration::from_secs(2));
}

/// Picture `number` of the video repeated for ever: sequence numbers and timestamps go on. A length that is a multiple
/// of the distance of the keyframes makes that one stream.
fn renumbered(number: usize) -> Vec<Packet> {
    let length = 84;
    let (round, picture) = (number / length, &video()[number % length]);
    let packets: usize = video()[..length].iter().map(|picture| picture.packets.len()).sum();
    let ticks = (length as u32) * 90_000 / FPS;
    later(&picture.packets, (round * packets) as u16, round as u32 * ticks)
}

/// The packets with other numbers: `packets` and `ticks` further on.
fn later(video: &[Packet], packets: u16, ticks: u32) -> Vec<Packet> {
    let mut video = video.to_vec();
    for Packet { header, .. } in &mut video {
        header.sequence = header.sequence.wrapping_add(packets);
        header.timestamp = header.timestamp.wrapping_add(ticks);
    }
    video
}

#[test]
fn when_no_decoder_works_that_is_said_with_the_reasons() {
    let bench = Bench::with_candidates(&["identity error-after=1 ! avdec_h264"]);
    bench.push(&video()[0].packets);
    let failed = loop {
        if let DecodeEvent::Failed { tried } = bench.event() {
            break tried;
        }
    };
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.contains("identity"), "{failed:?}");
    bench.push(&video()[1].packets);
    assert!(bench.decoder.stats().dropped > 0);
}

#[test]
fn a_decoder_that_does_not_exist_is_an_error_that_lists_those_that_do() {
    let error = Decoder::start(config("nosuchdecoder"), Arc::new(Mailbox::new()), |_| {}).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no decoder element nosuchdecoder") && text.contains("avdec_h264"), "{text}");
}

#[test]
fn the_output_size_changes_while_the_video_runs() {
    let bounds = Resolution::new(200, 200);
    let bench = Bench::new(DecoderConfig { output: Some(bounds), ..config("avdec_h264") });
    let size = |picture: usize| {
        bench.push(&video()[picture].packets);
        let picture = bench.mailbox.wait(LONG).expect("a picture");
        assert_eq!(picture.source, SIZE);
        assert_eq!(picture.pixels().len() as u64, picture.resolution.pixels());
        // The middle is never black; a bar would be.
        let (width, height) = (picture.resolution.width as usize, picture.resolution.height as usize);
        assert_ne!(picture.pixels()[height / 4 * width] & 0xff_ffff, 0, "bars");
        picture.resolution
    };
    assert_eq!(size(0), Resolution::new(200, 150));
    assert_eq!(size(1), Resolution::new(200, 150));
    for (picture, bounds) in [(640, 480), (1000, 301), (321, 243), (16, 16)].into_iter().enumerate() {
        let bounds = Resolution::new(bounds.0, bounds.1);
        bench.decoder.set_output(PictureForm::within(bounds));
        assert_eq!(size(2 + picture), SIZE.fit_into(bounds), "{bounds}");
    }
    let stats = bench.decoder.stats();
    assert_eq!((stats.restarts, stats.frames_decoded), (0, 6));
}

#[test]
fn the_pictures_come_in_the_form_that_is_wanted_and_in_memory_that_is_lent() {
    let bench = Bench::new(config("avdec_h264"));
    let (asked, questions) = channel();
    let lender = gst::Pad::builder(gst::PadDirection::Sink)
        .query_function(move |_, _, query| {
            let gst::QueryViewMut::Allocation(query) = query.view_mut() else { return false };
            let caps = query.get_owned().0.expect("caps");
            let size = gst_video::VideoInfo::from_caps(&caps).unwrap().size() as u32;
            query.add_allocation_pool(Some(&gst::BufferPool::new()), size, 2, 0);
            asked.send(caps).is_ok()
        })
        .build();
    let pad = gst::Pad::new(gst::PadDirection::Src);
    pad.link(&lender).unwrap();
    let as_decoded = Some("video/x-raw,format={I420,NV12}".parse::<gst::Caps>().unwrap());
    let half = Resolution::new(SIZE.width / 2, SIZE.height / 2);
    let pixels = PictureForm::default();
    let lent = PictureForm { bounds: Some(half), memory: Some(pad), ..PictureForm::default() };
    let decoded = PictureForm { bounds: Some(half), formats: as_decoded, memory: None };
    let unlent = PictureForm { memory: None, ..lent.clone() };
    for (at, output) in [&pixels, &lent, &unlent, &lent, &decoded, &lent].into_iter().enumerate() {
        bench.decoder.set_output(output.clone());
        bench.push(&video()[at].packets);
        let picture = bench.mailbox.wait(LONG).expect("a picture");
        assert_eq!((number(&picture), picture.source), (at as u32, SIZE));
        let is_decoded = output.formats.is_some();
        let size = if is_decoded { None } else { output.bounds }.unwrap_or(SIZE);
        assert_eq!((picture.resolution, picture.pixels().is_empty()), (size, is_decoded));
        let converted = picture.converted(half);
        assert_eq!(converted.is_some(), is_decoded);
        if let Some(converted) = converted {
            assert!(converted.len() as u64 == half.pixels());
            // The video is grey, of the limited range, and each picture 7 lighter.
            assert!((converted[0] & 0xff).abs_diff((60 + 7 * at as u32 - 16) * 255 / 219) < 20, "{:#x}", converted[0]);
        }
        let lends = output.memory.is_some();
        assert_eq!(questions.try_iter().next().is_some(), lends, "picture {at}");
    }
    assert_eq!(bench.decoder.stats().restarts, 0);
}

#[test]
fn pixels_have_the_colours_of_the_video() {
    let bench = Bench::new(config("avdec_h264"));
    bench.push(&video()[0].packets);
    let picture = bench.mailbox.wait(LONG).expect("a picture");
    // The video is grey: the first pixel has luma 60 of the limited range.
    let pixel = picture.pixels()[0];
    for channel in [pixel >> 16 & 0xff, pixel >> 8 & 0xff, pixel & 0xff] {
        assert!(channel.abs_diff((60 - 16) * 255 / 219) < 12, "{pixel:#x}");
    }
}

#[test]
fn what_is_not_this_streams_rtp_is_ignored() {
    let bench = Bench::new(config("avdec_h264"));
    let mut other = video()[0].packets[0].clone();
    other.header.payload_type = 97;
    bench.decoder.push([other], Instant::now().into());
    play(&bench, 0..5, |_, _| false, 0..0);
    assert_eq!(bench.decoder.stats().lost, 0);
}

#[test]
fn a_stream_that_starts_anew_goes_on_at_its_keyframe() {
    let bench = Bench::new(config("avdec_h264"));
    play(&bench, 0..10, |_, _| false, 0..0);
    // Another SSRC, other sequence numbers and timestamps, as after a restart of the server.
    let anew = |picture: usize| {
        let mut packets = later(&video()[picture].packets, 20_000, 0x3c00_0000);
        packets.iter_mut().for_each(|packet| packet.header.ssrc ^= 0xff);
        packets
    };
    paced(0..30, |picture| bench.push(&anew(picture)));
    // While the pipeline is built the pictures pile up, and the mailbox keeps the newest.
    while bench.picture(LONG).expect("a picture") < 29 {}
    let stats = bench.decoder.stats();
    assert_eq!((stats.frames_decoded, stats.frames_skipped, stats.lost), (40, 0, 0));
    assert_eq!(stats.keyframe_requests, 0);
}

/// As a foreign camera does it: rov-server begins another stream.
#[test]
fn another_size_within_a_stream_goes_on_at_its_keyframe() {
    let bench = Bench::new(config("avdec_h264"));
    play(&bench, 0..10, |_, _| false, 0..0);
    let (before, size) = (&video()[9], Resolution::new(480, 272));
    let larger = encode(Codec::H264, size, 24);
    let (last, first) = (before.packets.last().unwrap().header, larger[0].packets[0].header);
    let packets = last.sequence.wrapping_add(1).wrapping_sub(first.sequence);
    let ticks = last.timestamp.wrapping_add(90_000 / FPS).wrapping_sub(first.timestamp);
    paced(0..larger.len(), |picture| {
        let mut packets = later(&larger[picture].packets, packets, ticks);
        packets.iter_mut().for_each(|packet| packet.header.ssrc = last.ssrc);
        bench.push(&packets);
        let shown = bench.mailbox.wait(LONG).expect("a picture before the next one goes in");
        assert_eq!((number(&shown), shown.source), (picture as u32, size));
    });
    let stats = bench.decoder.stats();
    assert_eq!((stats.frames_decoded, stats.frames_skipped, stats.lost), (34, 0, 0));
    assert_eq!(stats.keyframe_requests, 0);
}

#[test]
fn the_pipeline_has_this_text() {
    let candidate = Candidate { codec: Codec::H264, element: "DECODER".into(), description: "PARSER ! DECODER".into() };
    let text = |has: bool| graph::description(&candidate, &|_, _| has);
    let input = "rtpjitterbuffer name=jitter latency=0 do-lost=true";
    let parse = "rtph264depay name=depay ! video/x-h264,stream-format=byte-stream,alignment=au ! \
                 PARSER ! DECODER ! videoscale name=scale method=bilinear";
    let output = "capsfilter name=size caps=video/x-raw,format=BGRx,pixel-aspect-ratio=1/1 ! \
                  appsink name=out sync=false async=false qos=false max-buffers=1 drop=true enable-last-sample=false";
    let convert = "videoconvert name=convert";
    assert_eq!(text(true), format!("{input} faststart-min-packets=1 ! {parse} ! {convert} ! {output}"));
    assert_eq!(text(false), format!("{input} ! {parse} ! {convert} ! {output}"), "an old GStreamer");
}

/// The decoder gets the video at its pace, until `until` says that it is enough; gives the pictures' sizes.
fn plays_on(bench: &Bench, mut until: impl FnMut(&[Resolution]) -> bool) -> Vec<Resolution> {
    video();
    let (start, mut sizes) = (Instant::now(), Vec::new());
    for number in 0_usize.. {
        bench.push(&renumbered(number));
        sizes.extend(bench.mailbox.wait(Duration::from_millis(5)).map(|picture| picture.resolution));
        if until(&sizes) {
            break;
        }
        assert!(start.elapsed() < LONG, "not after {number} pictures: {:?}", bench.decoder.stats());
        let due = start + Duration::from_secs(1) / FPS * (number as u32 + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    sizes
}

#[test]
fn a_window_dragged_to_other_sizes_loses_no_picture() {
    let bench = Bench::new(DecoderConfig { output: Some(SIZE), ..config("avdec_h264") });
    let last = Resolution::new(400, 300);
    let (seen, dragged) = (AtomicBool::new(false), AtomicBool::new(false));
    let different = |sizes: &[Resolution]| sizes.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let sizes = std::thread::scope(|scope| {
        scope.spawn(|| {
            // On a busy machine the first picture takes its time.
            for step in (0..6_000).take_while(|step| *step < 100 || !seen.load(Ordering::Relaxed)) {
                let size = Resolution::new(160 + 7 * (step * 37 % 100), 120 + 5 * (step * 53 % 90));
                bench.decoder.set_output(PictureForm::within(size));
                std::thread::sleep(Duration::from_millis(10));
            }
            bench.decoder.set_output(PictureForm::within(last));
            dragged.store(true, Ordering::Relaxed);
        });
        plays_on(&bench, |sizes| {
            seen.fetch_or(different(sizes) > 10, Ordering::Relaxed);
            dragged.load(Ordering::Relaxed) && sizes.last() == Some(&last)
        })
    });
    assert_eq!(sizes.last(), Some(&last));
    assert!(different(&sizes) > 10, "{} of {}", different(&sizes), sizes.len());
    let stats = bench.decoder.stats();
    assert_eq!((stats.restarts, stats.frames_skipped, stats.decoder.as_str()), (0, 0, "avdec_h264"));
}

#[test]
fn a_format_that_does_not_fit_costs_a_decoder_that_works_nothing() {
    let refusing = "avdec_h264 ! identity name=refuses";
    let bench = Bench::with_candidates(&[refusing, "openh264dec"]);
    plays_on(&bench, |sizes| sizes.len() >= 3);
    // As a scaler does whose neighbour has another size.
    let pad = bench.decoder.now().pipeline().by_name("refuses").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        info.data = None;
        info.flow_res = Err(gst::FlowError::NotNegotiated);
        gst::PadProbeReturn::Handled
    });
    let mut before = None;
    let sizes = plays_on(&bench, |sizes| {
        let restarted = bench.decoder.stats().restarts > 0;
        sizes.len() > *before.get_or_insert(if restarted { sizes.len() } else { return false })
    });
    let stats = bench.decoder.stats();
    assert_eq!((stats.restarts, stats.decoder.as_str()), (1, refusing), "{} pictures", sizes.len());
}

#[test]
fn after_a_stall_the_past_is_not_shown_and_a_keyframe_asked_for() {
    let bench = Bench::new(config("avdec_h264"));
    play(&bench, 0..20, |_, _| false, 0..0);
    let push = |packets: Vec<Packet>, at: Instant| bench.decoder.push(packets, at.into());
    // Half a second's pictures come all at once, a keyframe among them.
    let at = bench.due(&video()[20].packets[0]) + Duration::from_secs(1);
    video()[20..50].iter().for_each(|picture| push(picture.packets.clone(), at));
    while !matches!(bench.event(), DecodeEvent::KeyframeNeeded { .. }) {}
    let begun = Instant::now();
    while bench.decoder.stats().frames_skipped < 30 {
        assert!(begun.elapsed() < LONG, "{:?}", bench.decoder.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((bench.decoder.stats().frames_decoded, bench.picture(Duration::ZERO)), (20, None));
    // What is live again goes on at its keyframe.
    let behind = Duration::from_millis(1_100) - Duration::from_secs(30) / FPS;
    let ticks = (behind.as_millis() * 90) as u32;
    for number in 50..90 {
        let at = at + Duration::from_millis(100) + Duration::from_secs(1) / FPS * (number as u32 - 50);
        push(later(&video()[number].packets, 0, ticks), at);
        if number >= 60 {
            let picture = bench.mailbox.wait(LONG).expect("a picture");
            assert_eq!(self::number(&picture), number as u32);
            assert!(picture.late_by < Duration::from_millis(300), "{picture:?}");
            assert!(picture.due_at() <= picture.last_packet_at);
        }
    }
    assert_eq!(bench.decoder.stats().restarts, 0);
}

#[test]
fn when_all_decoders_fail_in_a_running_session_that_is_said_and_nothing_hangs() {
    let failing = ["identity error-after=12 ! avdec_h264", "identity error-after=3 ! openh264dec"];
    let bench = Bench::with_candidates(&failing);
    let mut failed = None;
    let sizes = plays_on(&bench, |_| {
        failed = bench.events.try_iter().find_map(|event| match event {
            DecodeEvent::Failed { tried } => Some(tried),
            _ => None,
        });
        failed.is_some()
    });
    assert!(!sizes.is_empty(), "it was running");
    let failed = failed.expect("an event");
    assert_eq!(failed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), failing);
    bench.push(&video()[0].packets);
    bench.decoder.set_output(PictureForm::within(SIZE));
    let start = Instant::now();
    drop(bench);
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
}

#[test]
fn a_decoder_that_fails_without_a_word_is_passed_over_at_once() {
    let element = "errorignore ignore-eos=true convert-to=error ! identity eos-after=12 ! avdec_h264";
    let bench = Bench::with_candidates(&[element]);
    let mut failed = None;
    plays_on(&bench, |_| {
        failed = bench.events.try_iter().find_map(|event| match event {
            DecodeEvent::Failed { tried } => Some(tried),
            _ => None,
        });
        failed.is_some()
    });
    // Not found out by waiting for pictures.
    assert_eq!(failed, Some(vec![(element.to_owned(), "an element failed and did not say why (Error)".to_owned())]));
}

/// An element that hangs when it is opened, or when it is closed, as a driver may: for ever.
mod hanging {
    use std::sync::atomic::AtomicUsize;

    use gstreamer::subclass::prelude::*;

    use super::*;

    /// Threads that hang.
    pub static HANGING: AtomicUsize = AtomicUsize::new(0);

    macro_rules! element {
        ($module:ident, $type_name:literal, $hangs_at:expr) => {
            pub mod $module {
                // The macros below name it so.
                use gst::glib;

                use super::*;

                #[derive(Default)]
                pub struct Imp;

                #[glib::object_subclass]
                impl ObjectSubclass for Imp {
                    const NAME: &'static str = $type_name;
                    type Type = Element;
                    type ParentType = gst::Bin;
                }

                impl ObjectImpl for Imp {
                    fn constructed(&self) {
                        self.parent_constructed();
                        let decoder = gst::ElementFactory::make("avdec_h264").build().unwrap();
                        self.obj().add(&decoder).unwrap();
                        for name in ["sink", "src"] {
                            let inner = decoder.static_pad(name).unwrap();
                            let pad = gst::GhostPad::builder_with_target(&inner).unwrap().name(name).build();
                            self.obj().add_pad(&pad).unwrap();
                        }
                    }
                }

                impl GstObjectImpl for Imp {}
                impl BinImpl for Imp {}

                impl ElementImpl for Imp {
                    fn change_state(
                        &self,
                        transition: gst::StateChange,
                    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
                        if transition == $hangs_at {
                            HANGING.fetch_add(1, Ordering::Relaxed);
                            loop {
                                std::thread::park();
                            }
                        }
                        self.parent_change_state(transition)
                    }
                }

                glib::wrapper! {
                    pub struct Element(ObjectSubclass<Imp>) @extends gst::Bin, gst::Element, gst::Object;
                }
            }
        };
    }

    element!(opening, "RovHangsOpening", gst::StateChange::NullToReady);
    element!(closing, "RovHangsClosing", gst::StateChange::PausedToReady);

    pub fn register() {
        gst::init().unwrap();
        let rank = gst::Rank::NONE;
        gst::Element::register(None, "hangsopening", rank, opening::Element::static_type()).unwrap();
        gst::Element::register(None, "hangsclosing", rank, closing::Element::static_type()).unwrap();
    }
}

#[test]
fn a_decoder_that_hangs_in_its_driver_is_passed_over_and_dropped_without_waiting() {
    hanging::register();
    let hanging = || hanging::HANGING.load(Ordering::Relaxed);
    let bench = Bench::with_candidates(&["hangsopening", "hangsclosing"]);
    assert_eq!((hanging(), bench.decoder.stats().decoder.as_str()), (1, "hangsclosing"));
    bench.push(&video()[0].packets);
    assert_eq!(bench.picture(LONG), Some(0));
    // If it waited for what hangs, this would not end.
    drop(bench);
    let start = Instant::now();
    while hanging() < 2 {
        assert!(start.elapsed() < LONG, "it does not close");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_decoder_that_works_ends_before_dropping_returns() {
    let mut bench = Bench::new(config("avdec_h264"));
    bench.decoder.end_time = LONG;
    play(&bench, 0..5, |_, _| false, 0..0);
    let mailbox = Arc::clone(&bench.mailbox);
    let start = Instant::now();
    drop(bench);
    println!("dropped in {:?}", start.elapsed());
    assert!(start.elapsed() < LONG);
    // Nobody but this test holds it any more.
    assert_eq!(Arc::strong_count(&mailbox), 1);
}

#[test]
fn no_picture_of_a_session_that_ended_is_left_for_the_next() {
    let viewer = Viewer::new();
    let decoder = Decoder::start(config("avdec_h264"), Arc::clone(&viewer.mailbox), |_| {}).expect("a decoder");
    let decoder = Arc::new(decoder);
    viewer.set_decoder(Arc::clone(&decoder));
    // Without a packet it goes on with the next session.
    viewer.session_ended();
    viewer.set_decoder(Arc::clone(&decoder));
    decoder.push(video()[0].packets.iter().cloned(), Instant::now().into());
    let start = Instant::now();
    while !viewer.mailbox.is_filled() {
        assert!(start.elapsed() < LONG, "{:?}", decoder.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    viewer.session_ended();
    assert!(!viewer.mailbox.is_filled());
}
