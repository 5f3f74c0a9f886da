//! Burns a stream's overlay into its pictures, behind the scaler and before the encoder: letters on a darkened ground,
//! by hand into what the encoder takes (I420, NV12). They are drawn once and laid over each picture until they change,
//! which costs less than `textoverlay` and `cairooverlay` (`docs/performance.md`) and needs neither Pango nor Cairo.
//!
//! Limits: memory that the processor cannot write (NVIDIA's, VA's) is refused, with the reason.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use rov_common::glyphs::{Face, Mask, known};
use rov_common::sync::lock;
use rov_gst::element::is_made_by;

use crate::overlay::{Canvas, Overlay};

/// Why nothing is burned into a stream that nothing here encodes.
pub const PASSED: &str = "the source's stream is sent untouched";
const FOREIGN: &str = "they are in the memory of a device, or in a format that is not written here";
const WHITE: u16 = 235;
const BLACK: u8 = 16;
const GREY: i16 = 128;
/// Of the picture's height, in thousandths: letters are at least so high.
const LEAST_HEIGHT: usize = 24;
/// What is left of brightness and colour below the letters: one in so many.
const SHADE: u8 = 4;

/// Kept letters; they know some 200.
const MAX_LETTERS: usize = 512;

/// Has the overlay burned into what leaves the tail's first caps filter behind `queue`: pictures of the size that is
/// encoded. `on_canvas` is told what they are.
pub fn install(queue: &gst::Pad, overlay: &Arc<Overlay>, on_canvas: impl Fn(Canvas) + Send + Sync + 'static) {
    let Some(pad) = sized(queue) else { return on_canvas(Canvas::without(FOREIGN)) };
    let (overlay, burner) = (Arc::clone(overlay), Mutex::new(Burner::default()));
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) {
            on_canvas(lock(&burner).set_format(caps.caps()));
        }
        if let Some(picture) = info.buffer_mut()
            && let Some((place, lines)) = overlay.burned(Instant::now())
        {
            lock(&burner).burn(picture.make_mut(), place, lines);
        }
        gst::PadProbeReturn::Ok
    });
}

fn sized(queue: &gst::Pad) -> Option<gst::Pad> {
    let mut pad = queue.clone();
    loop {
        let element = pad.peer()?.parent_element()?;
        pad = element.static_pad("src")?;
        if is_made_by(&element, "capsfilter") {
            return Some(pad);
        }
    }
}

#[derive(Default)]
struct Burner {
    /// None: nothing can be drawn into it.
    format: Option<gst_video::VideoInfo>,
    /// Of the pictures as they are while the link is good: places are meant in those.
    full_height: u32,
    drawn: Letters,
}

impl Burner {
    fn set_format(&mut self, caps: &gst::CapsRef) -> Canvas {
        let is_foreign =
            |features: &gst::CapsFeaturesRef| features.iter().any(|name| name.starts_with("memory:") && name != SYSTEM);
        let video = gst_video::VideoInfo::from_caps(caps).ok();
        self.full_height = video.as_ref().map_or(0, gst_video::VideoInfo::height).max(self.full_height);
        self.format = video.filter(|video| {
            use gst_video::VideoFormat::{I420, Nv12, Yv12};
            !caps.features(0).is_some_and(is_foreign) && matches!(video.format(), I420 | Yv12 | Nv12)
        });
        Canvas { obstacle: self.format.is_none().then_some(FOREIGN), height: self.full_height }
    }

    fn burn(&mut self, picture: &mut gst::BufferRef, (x, y): (u32, u32), lines: Vec<String>) {
        let Some(video) = &self.format else { return };
        let Ok(mut frame) = gst_video::VideoFrameRef::from_buffer_ref_writable(picture, video) else { return };
        let scaled =
            |place: u32| (u64::from(place) * u64::from(video.height()) / u64::from(self.full_height.max(1))) as usize;
        let size = (video.width() as usize, video.height() as usize);
        self.drawn.draw(lines, (scaled(x), scaled(y)), size);
        let is_planar = video.format() != gst_video::VideoFormat::Nv12;
        let strides = frame.plane_stride().iter().map(|stride| *stride as usize).collect::<Vec<_>>();
        let [luma, u, v, _] = frame.planes_data_mut();
        self.drawn.lay_on_luma(luma, strides[0]);
        self.drawn.lay_on_chroma(u, strides[1], if is_planar { 2 } else { 1 });
        if is_planar {
            self.drawn.lay_on_chroma(v, strides[2], 2);
        }
    }
}

const SYSTEM: &str = "memory:SystemMemory";

/// Lines of text on their ground, with even sides and an even place inside the picture.
#[derive(Default)]
struct Letters {
    lines: Vec<String>,
    size: (usize, usize),
    wanted: (usize, usize),
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    /// Of 256, how much of each pixel they cover.
    coverage: Vec<u16>,
    alphabet: Alphabet,
}

/// Letters that were drawn before: another text is mostly made of the same.
#[derive(Default)]
struct Alphabet {
    face: Option<Face>,
    letters: HashMap<char, Vec<u16>>,
}

impl Alphabet {
    fn set_face(&mut self, face: Face) {
        if self.face.replace(face) != Some(face) || self.letters.len() >= MAX_LETTERS {
            self.letters.clear();
        }
    }

    /// What a letter covers, row by row.
    fn rows(&mut self, letter: char) -> impl Iterator<Item = &[u16]> {
        let (advance, face) = self.face.map_or((1, None), |face| (face.advance() as usize, Some(face)));
        let drawn = self.letters.entry(letter).or_insert_with(|| {
            let Some(face) = face else { return Vec::new() };
            let mask = Mask::of(letter.encode_utf8(&mut [0; 4]), face);
            let pixels = (0..mask.height()).flat_map(|y| (0..mask.width()).map(move |x| (x, y)));
            pixels.map(|(x, y)| mask.coverage(x, y) as u16).collect()
        });
        drawn.chunks_exact(advance)
    }
}

impl Letters {
    /// What does not fit into a picture of this size is cut off.
    fn draw(&mut self, lines: Vec<String>, place: (usize, usize), size: (usize, usize)) {
        if (&self.lines, self.wanted, self.size) == (&lines, place, size) {
            return;
        }
        let face = Face::at_least((size.1 * LEAST_HEIGHT / 1000) as i32).1;
        let (advance, line_height) = (face.advance() as usize, face.line() as usize);
        let pad = face.height() as usize / 3;
        let (left, top) = (place.0 & !1, place.1 & !1);
        let room = (size.0.saturating_sub(left), size.1.saturating_sub(top));
        let columns = room.0.saturating_sub(2 * pad) / advance;
        let cut = |line: &String| known(line).chars().take(columns).collect::<String>();
        let shown: Vec<_> = lines.iter().take(room.1.saturating_sub(pad) / line_height).map(cut).collect();
        let longest = shown.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        let is_any = longest > 0;
        let even = |side: usize, room: usize| (side + side % 2).min(room & !1);
        self.width = if is_any { even(longest * advance + 2 * pad, room.0) } else { 0 };
        self.height = if is_any { even(shown.len() * line_height + pad, room.1) } else { 0 };
        self.coverage = vec![0; self.width * self.height];
        self.alphabet.set_face(face);
        for (number, line) in shown.iter().enumerate() {
            for (column, letter) in line.chars().enumerate() {
                let (left, top) = (pad + column * advance, pad + number * line_height);
                for (row, pixels) in self.alphabet.rows(letter).enumerate() {
                    let from = (top + row) * self.width + left;
                    if let Some(to) = self.coverage.get_mut(from..from + pixels.len()) {
                        to.copy_from_slice(pixels);
                    }
                }
            }
        }
        (self.left, self.top, self.lines, self.wanted, self.size) = (left, top, lines, place, size);
    }

    fn lay_on_luma(&self, plane: &mut [u8], stride: usize) {
        for (row, coverage) in self.coverage.chunks_exact(self.width.max(1)).enumerate() {
            let from = (self.top + row) * stride + self.left;
            let Some(pixels) = plane.get_mut(from..from + self.width) else { return };
            for (pixel, covered) in pixels.iter_mut().zip(coverage) {
                let ground = u16::from(BLACK + pixel.saturating_sub(BLACK) / SHADE);
                *pixel = ((ground * (256 - covered) + WHITE * covered) >> 8) as u8;
            }
        }
    }

    /// `share`: so many pixels have one byte.
    fn lay_on_chroma(&self, plane: &mut [u8], stride: usize, share: usize) {
        let (left, width) = (self.left / share, self.width / share);
        for row in self.top / 2..(self.top + self.height) / 2 {
            let Some(samples) = plane.get_mut(row * stride + left..row * stride + left + width) else { return };
            for sample in samples {
                *sample = (GREY + (i16::from(*sample) - GREY) / i16::from(SHADE)) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rov_common::capture_clock::CaptureClock;
    use rov_common::codec::Codec;
    use rov_common::overlay::Where;

    use super::*;
    use crate::choices::Timestamp;
    use crate::config::{FieldConfig, OverlayConfig};
    use crate::overlay::Overlays;
    use crate::stream::Streams;
    use crate::telemetry::Board;

    fn overlay(x: u32, y: u32, text: &str) -> Arc<Overlay> {
        let config = OverlayConfig {
            drawn: Where::Burn,
            timestamp: Timestamp::Off,
            x,
            y,
            text: text.to_owned(),
            ..OverlayConfig::default()
        };
        let streams = Streams::new([("cam1", "stream1", Codec::H264)], CaptureClock::start()).0;
        let board = Arc::new(Board::new(FieldConfig::usual()));
        Arc::clone(&Overlays::new(&streams, [&config].into_iter(), board, false).all()[0])
    }

    /// Grey pictures through a tail's beginning.
    struct Line {
        pipeline: gst::Pipeline,
        sink: gstreamer_app::AppSink,
    }

    impl Line {
        fn start(format: &str, overlay: &Arc<Overlay>) -> Self {
            gst::init().unwrap();
            let text = format!(
                "videotestsrc num-buffers=3 pattern=solid-color foreground-color=0xff8040c0 \
                 ! video/x-raw,format={format},width=640,height=360,framerate=30/1 ! queue name=raw ! videoconvert \
                 ! video/x-raw,format={format} ! appsink name=out sync=false"
            );
            let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
            let canvas = Arc::clone(overlay);
            let queue = pipeline.by_name("raw").unwrap().static_pad("src").unwrap();
            install(&queue, overlay, move |of| canvas.set_canvas(of));
            let sink = pipeline.by_name("out").unwrap().downcast().unwrap();
            pipeline.set_state(gst::State::Playing).unwrap();
            Self { pipeline, sink }
        }

        fn sample(&self) -> gst::Sample {
            self.sink.try_pull_sample(gst::ClockTime::from_seconds(10)).expect("a picture")
        }

        /// The luma of the next picture, and both chroma samples of each two by two pixels.
        fn next(&self) -> (Vec<u8>, Vec<[u8; 2]>) {
            let sample = self.sample();
            let video = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
            let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &video).unwrap();
            let [width, height] = [video.width() as usize, video.height() as usize];
            let row = |plane: usize, y: usize, bytes: usize| {
                let from = y * frame.plane_stride()[plane] as usize;
                frame.plane_data(plane as u32).unwrap()[from..from + bytes].to_vec()
            };
            let luma = (0..height).flat_map(|y| row(0, y, width)).collect();
            let chroma = (0..height / 2).flat_map(|y| match video.format() {
                gst_video::VideoFormat::Nv12 => {
                    row(1, y, width).chunks(2).map(|two| [two[0], two[1]]).collect::<Vec<_>>()
                }
                _ => row(1, y, width / 2).into_iter().zip(row(2, y, width / 2)).map(|(u, v)| [u, v]).collect(),
            });
            (luma, chroma.collect())
        }
    }

    impl Drop for Line {
        fn drop(&mut self) {
            self.pipeline.set_state(gst::State::Null).unwrap();
        }
    }

    #[test]
    fn letters_are_where_they_should_be_in_either_format_and_nowhere_else() {
        for format in ["I420", "NV12"] {
            let plain = Line::start(format, &overlay(0, 0, "")).next();
            let burned = Line::start(format, &overlay(101, 51, "Dive 7")).next();
            let differs: Vec<_> = (0..640 * 360).filter(|at| plain.0[*at] != burned.0[*at]).collect();
            let (left, right) = differs.iter().fold((640, 0), |(l, r), at| (l.min(at % 640), r.max(at % 640)));
            let (top, bottom) = (differs[0] / 640, differs[differs.len() - 1] / 640);
            assert_eq!((left, top), (100, 50), "{format}");
            assert!((136..160).contains(&right) && (66..76).contains(&bottom), "{format}: to {right}, {bottom}");
            assert!(differs.iter().any(|at| burned.0[*at] > 230), "{format}: there are letters");
            assert!(differs.iter().any(|at| burned.0[*at] < plain.0[*at] / 2), "{format}: on a dark ground");
            let colours: Vec<_> = (0..320 * 180).filter(|at| plain.1[*at] != burned.1[*at]).collect();
            assert!(!colours.is_empty(), "{format}");
            for at in colours {
                let (x, y) = (at % 320 * 2, at / 320 * 2);
                assert!((left..=right).contains(&x) && (top..=bottom).contains(&y), "{format}: {x}, {y}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_off() {
        let long = [&"wide ".repeat(40), "tall"].join("\n").repeat(7);
        for (x, y) in [(0, 0), (600, 350), (639, 359), (8192, 8192), (1, 8192)] {
            Line::start("I420", &overlay(x, y, &long)).next();
        }
        let mut letters = Letters::default();
        letters.draw(vec!["text".to_owned()], (0, 0), (16, 16));
        assert_eq!((letters.width, letters.height), (0, 0));
    }

    #[test]
    fn a_format_that_is_not_written_is_an_obstacle() {
        let overlay = overlay(0, 0, "Dive 7");
        Line::start("RGB", &overlay).sample();
        assert!(overlay.set(&overlay.config()).expect_err("it cannot be").contains("in a format that is not written"));
        let nvmm = gst::Caps::builder("video/x-raw")
            .features(["memory:NVMM"])
            .field("format", "NV12")
            .field("width", 640)
            .field("height", 360)
            .field("framerate", gst::Fraction::new(30, 1));
        let canvas = Burner::default().set_format(&nvmm.build());
        assert_eq!(canvas, Canvas { obstacle: Some(FOREIGN), height: 360 });
    }

    #[test]
    fn letters_are_drawn_again_only_when_they_change() {
        let mut letters = Letters::default();
        let lines = || vec!["Depth 12.3 m".to_owned()];
        letters.draw(lines(), (10, 10), (1920, 1080));
        letters.coverage[0] = 99;
        letters.draw(lines(), (10, 10), (1920, 1080));
        assert_eq!(letters.coverage[0], 99);
        for (line, place, size) in [
            ("Depth 12.4 m", (10, 10), (1920, 1080)),
            ("Depth 12.4 m", (12, 10), (1920, 1080)),
            ("Depth 12.4 m", (12, 10), (960, 540)),
        ] {
            letters.coverage[0] = 99;
            letters.draw(vec![line.to_owned()], place, size);
            assert_eq!(letters.coverage[0], 0, "{line} {place:?} {size:?}");
        }
    }
}
