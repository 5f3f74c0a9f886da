//! The choice of the encoder: the first of the table that really encodes a frame. An element that is registered is not
//! yet an encoder that works (NVENC without a driver, V4L2 without a device).

use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::codec::Codec;
use rov_common::units::{Fps, Resolution};
use rov_gst::element::{exists, has_property};
use rov_gst::{counter, message};

use super::encoder::{self, EncoderRow, HasProperty, Settings};
use super::{plan, source};
use crate::config::{EncodeConfig, EncoderChoice};

/// For one encoder to encode one frame; hardware opens in well below a second.
const LIMIT: Duration = Duration::from_secs(5);

/// The encoder, and what was looked at before it.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub row: &'static EncoderRow,
    /// In the order of the table, the chosen one last.
    pub tried: Vec<Tried>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub element: String,
    /// `works`, `not installed`, or why it does not work.
    pub outcome: String,
}

/// No encoder, or not the one that was asked for; the message lists what was tried, or those that work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoEncoder(pub String);

impl Chosen {
    /// Those that are installed and do not work.
    pub fn failures(&self) -> impl Iterator<Item = &Tried> {
        self.tried.iter().filter(|tried| tried.outcome != NOT_INSTALLED && tried.outcome != WORKS)
    }

    /// One line for the log.
    pub fn summary(&self) -> String {
        let (missing, tried): (Vec<_>, Vec<_>) = self.tried.iter().partition(|tried| tried.outcome == NOT_INSTALLED);
        let mut parts: Vec<_> = tried.iter().map(|tried| format!("{}: {}", tried.element, tried.outcome)).collect();
        if !missing.is_empty() {
            let mut names: Vec<_> = missing.iter().map(|tried| tried.element.as_str()).collect();
            names.dedup();
            parts.push(format!("not installed: {}", names.join(", ")));
        }
        format!("encoder {} ({}); {}", self.row.element, self.row.title, parts.join("; "))
    }
}

/// For sources that go out untouched: nothing was tried, and nothing will encode.
pub fn unused() -> &'static EncoderRow {
    &encoder::rows(Codec::H264)[0]
}

const NOT_INSTALLED: &str = "not installed";
const WORKS: &str = "works";
const FAILED: &str = "failed at work";

/// An encoder that has given so many frames works.
const FRAMES: u64 = 3;

/// Tries encoders at the size and rate of `config` until one works. Blocks: a fraction of a second for each that is
/// installed (a second at 4K), 6 s at most for one that hangs. Passes over the elements in `failed`, with all their
/// rows: those that worked on trial, and then not at work. On trial it works beside those in `beside`, as at work:
/// hardware may encode so many streams and no more.
pub fn choose_encoder(
    config: &EncodeConfig,
    failed: &[&str],
    beside: &[(&'static EncoderRow, EncodeConfig)],
) -> Result<Chosen, NoEncoder> {
    gst::init().map_err(|error| NoEncoder(format!("GStreamer does not start: {error}")))?;
    let settings = trial_settings(config);
    let beside: Vec<_> = beside.iter().map(|(row, config)| (*row, trial_settings(config))).collect();
    let chosen = choose_from(config.codec, &config.encoder, |row| match failed.contains(&row.element) {
        true => Err(FAILED.to_owned()),
        false => test(row, &settings, &beside),
    })?;
    match chosen.row.lacks(&settings, &has_property) {
        // Better a picture without the option than none, where the encoder of before has failed.
        Some(option) if !failed.is_empty() => tracing::warn!("{option}: {} has no setting for it", chosen.row.element),
        Some(option) => return Err(NoEncoder(refusal(config.codec, option, chosen.row, &settings))),
        None => {}
    }
    Ok(chosen)
}

/// An option that was given is kept or refused, never forgotten.
fn refusal(codec: Codec, option: &str, row: &EncoderRow, settings: &Settings) -> String {
    let has = &has_property;
    let mut others: Vec<_> = encoder::rows(codec)
        .iter()
        .filter(|other| exists(other.element) && other.lacks(settings, has).is_none())
        .map(|other| format!("--encoder {}", other.element))
        .collect();
    others.dedup();
    let others = if others.is_empty() { String::new() } else { format!(", or take {}", others.join(" or ")) };
    format!("{option}: {} ({}) has no setting for it; leave it out{others}", row.element, row.title)
}

/// Many encoders work at small sizes alone, or up to a rate. Where the source decides, 720p30 stands for it.
fn trial_settings(config: &EncodeConfig) -> Settings {
    let resolution = config.resolution.or(Some(Resolution::new(1280, 720)));
    let fps = config.fps.or(Some(Fps::whole(30)));
    plan::settings(&EncodeConfig { resolution, fps, ..config.clone() }, cores())
}

/// The choice with the test given, whose error is the reason.
fn choose_from(
    codec: Codec,
    choice: &EncoderChoice,
    test: impl Fn(&'static EncoderRow) -> Result<(), String>,
) -> Result<Chosen, NoEncoder> {
    let rows = encoder::rows(codec);
    let mut tried = Vec::new();
    let wanted = |row: &&EncoderRow| match choice {
        EncoderChoice::Auto => true,
        EncoderChoice::Element(element) => row.element == element,
    };
    for row in rows.iter().filter(wanted) {
        let result = test(row);
        let outcome = result.as_ref().err().cloned().unwrap_or_else(|| WORKS.to_owned());
        tried.push(Tried { element: row.element.to_owned(), outcome });
        if result.is_ok() {
            return Ok(Chosen { row, tried });
        }
    }
    let reasons =
        |tried: &[Tried]| tried.iter().map(|t| format!("{}: {}", t.element, t.outcome)).collect::<Vec<_>>().join("; ");
    Err(NoEncoder(match choice {
        EncoderChoice::Auto => format!(
            "no {} encoder works, install {} or the one of your hardware, or lower --width, --height and --fps; tried \
             {}",
            codec.title(),
            match codec {
                Codec::H264 => "gstreamer1.0-plugins-ugly (x264enc)",
                Codec::H265 => "gstreamer1.0-plugins-bad (x265enc), or take --codec h264,",
                Codec::Mjpeg => "gstreamer1.0-plugins-good (jpegenc)",
            },
            reasons(&tried)
        ),
        EncoderChoice::Element(element) => {
            let mut working: Vec<_> =
                rows.iter().filter(|row| !wanted(row) && test(row).is_ok()).map(|row| row.element).collect();
            working.dedup();
            let list = if working.is_empty() { "none".to_owned() } else { working.join(", ") };
            let reason = match encoder::codec_of(element) {
                _ if !tried.is_empty() => reasons(&tried),
                Some(other) => format!("it encodes {}, and --codec is {codec}", other.title()),
                None => "not known".to_owned(),
            };
            format!("--encoder {element} does not work ({reason}); those that work here: {list}")
        }
    }))
}

/// Encodes a few frames of a test picture, while those in `beside` do so too.
fn test(
    row: &'static EncoderRow,
    settings: &Settings,
    beside: &[(&'static EncoderRow, Settings)],
) -> Result<(), String> {
    if gst::ElementFactory::find(row.element).is_none() {
        return Err(NOT_INSTALLED.to_owned());
    }
    if !row.suits(&has_property) {
        return Err("another variant of the element is installed".to_owned());
    }
    let trial = |(row, settings): &(&'static EncoderRow, Settings)| trial_text(row, settings, &has_property);
    // A pipeline has each name once.
    let unnamed =
        |text: String| text.replacen(&format!(" name={}", encoder::NAME), "", 1).replacen(" name=rov_out", "", 1);
    let others = beside.iter().map(|other| unnamed(trial(other)) + "  ").collect::<String>();
    let text = others + &trial(&(row, *settings));
    tracing::debug!("trying {text}");
    let size = settings.resolution.map_or_else(String::new, |size| format!(" at {size}"));
    encode(&text).map_err(|error| format!("{error}{size}"))
}

fn trial_text(row: &EncoderRow, settings: &Settings, has: HasProperty) -> String {
    let size =
        settings.resolution.map_or_else(String::new, |size| format!(",width={},height={}", size.width, size.height));
    let rate = settings.fps.map_or_else(String::new, |fps| format!(",framerate={}/{}", fps.num, fps.den));
    // Some hand out the first frame only when they have several.
    format!(
        "videotestsrc num-buffers=10 ! video/x-raw,format={}{size}{rate} ! {} ! {} ! fakesink name=rov_out sync=false \
         signal-handoffs=false",
        row.format,
        row.text_from_system(settings, has),
        source::access_units(row)
    )
}

fn encode(text: &str) -> Result<(), String> {
    let element = gst::parse::launch(text).map_err(|error| error.message().to_owned())?;
    let bus = element.bus().ok_or_else(|| "the pipeline has no bus".to_owned())?;
    let count = |sink: gst::Element| {
        let counter = std::sync::Arc::new(counter::Counter::new(std::time::Instant::now()));
        sink.static_pad("sink").iter().for_each(|pad| counter::count(pad, &counter));
        (sink.name() == "rov_out", counter)
    };
    let sinks = element.downcast_ref::<gst::Bin>().into_iter().flat_map(|bin| bin.iterate_sinks());
    let counters: Vec<_> = sinks.flatten().map(count).collect();
    let own = counters.iter().find_map(|(is_own, counter)| is_own.then(|| counter.clone()));
    let own = own.ok_or_else(|| "the pipeline has no output".to_owned())?;
    // Frames of the one that has given fewest: those beside it are to be at work too, if they can.
    let seen = move || counters.iter().map(|(_, counter)| counter.count()).min().unwrap_or_default();
    // On a thread of its own, as a broken driver may never come back, neither from opening nor from closing.
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let started = element.set_state(gst::State::Playing).is_ok();
        let outcome = match wait(&bus, started, &seen) {
            Some(message) => match message.view() {
                gst::MessageView::Error(error) => Err(message::error_text(error)),
                _ if own.count() > 0 => Ok(()),
                _ => Err("gave no frame".to_owned()),
            },
            None if started && own.count() > 0 => Ok(()),
            None if started => Err(format!("gave no frame within {} s", LIMIT.as_secs())),
            None => Err("does not start".to_owned()),
        };
        // Fails only when the owner has stopped waiting.
        let _ = done.send(outcome);
        if element.set_state(gst::State::Null).is_err() {
            tracing::warn!("an encoder on trial does not stop cleanly");
        }
    });
    let late = || Err(format!("does not open within {} s", LIMIT.as_secs() + 1));
    result.recv_timeout(LIMIT + Duration::from_secs(1)).unwrap_or_else(|_| late())
}

/// The error or the end of the stream; None when a few frames are out before, or the time is over.
fn wait(bus: &gst::Bus, started: bool, seen: &dyn Fn() -> u64) -> Option<gst::Message> {
    let types = [gst::MessageType::Error, gst::MessageType::Eos];
    let end = std::time::Instant::now() + LIMIT;
    loop {
        let step = gst::ClockTime::from_mseconds(if started { 5 } else { 0 });
        let message = bus.timed_pop_filtered(step, &types);
        // Ten large frames take seconds in software.
        let over = !started || seen() >= FRAMES || std::time::Instant::now() >= end;
        if message.is_some() || over {
            return message;
        }
    }
}

/// Processor cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;

    #[test]
    fn the_first_that_works_is_taken_and_the_others_are_accounted_for() {
        let chosen = choose_from(Codec::H264, &EncoderChoice::Auto, |row| match row.element {
            "nvh264enc" => Err("nvh264enc: no driver".to_owned()),
            "x264enc" => Ok(()),
            _ => Err(NOT_INSTALLED.to_owned()),
        })
        .unwrap();
        assert_eq!(chosen.row.element, "x264enc");
        assert_eq!(chosen.tried.last().unwrap().outcome, "works");
        let summary = chosen.summary();
        assert!(
            summary.starts_with("encoder x264enc (x264, software); nvh264enc: nvh264enc: no driver; x264enc: works"),
            "{summary}"
        );
        assert!(summary.contains("not installed: nvv4l2h264enc, omxh264enc, "), "{summary}");
    }

    #[test]
    fn a_named_encoder_that_fails_lists_those_that_work() {
        let choice = EncoderChoice::Element("vah264enc".to_owned());
        let error = choose_from(Codec::H264, &choice, |row| match row.element {
            "x264enc" | "openh264enc" => Ok(()),
            _ => Err(NOT_INSTALLED.to_owned()),
        })
        .unwrap_err();
        let message =
            "--encoder vah264enc does not work (vah264enc: not installed); those that work here: x264enc, openh264enc";
        assert_eq!(error.0, message);
    }

    #[test]
    fn a_name_that_is_not_known_lists_those_that_work() {
        let choice = EncoderChoice::Element("foo".to_owned());
        let error = choose_from(Codec::H264, &choice, |row| match row.element {
            "x264enc" => Ok(()),
            _ => Err(NOT_INSTALLED.to_owned()),
        });
        let message = "--encoder foo does not work (not known); those that work here: x264enc";
        assert_eq!(error.unwrap_err().0, message);
    }

    #[test]
    fn an_encoder_of_the_other_codec_is_refused_with_those_of_this_one() {
        let choice = EncoderChoice::Element("x264enc".to_owned());
        let error = choose_from(Codec::H265, &choice, |row| match row.element {
            "x265enc" => Ok(()),
            _ => Err(NOT_INSTALLED.to_owned()),
        });
        let message =
            "--encoder x264enc does not work (it encodes H.264, and --codec is h265); those that work here: x265enc";
        assert_eq!(error.unwrap_err().0, message);
    }

    #[test]
    fn an_option_that_the_encoder_cannot_keep_is_refused_with_those_that_can() {
        let settings = Settings { level: "4".parse().ok(), ..trial_settings(&EncodeConfig::default()) };
        let row = encoder::rows(Codec::H264).iter().find(|row| row.element == "nvh264enc").unwrap();
        gst::init().unwrap();
        let text = refusal(Codec::H264, "--level", row, &settings);
        let expected =
            "--level: nvh264enc (NVIDIA NVENC) has no setting for it; leave it out, or take --encoder x264enc or ";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn x265_passes_the_real_test() {
        let resolution = Some(Resolution::new(640, 360));
        let config = EncodeConfig { codec: Codec::H265, resolution, ..EncodeConfig::default() };
        let named = EncodeConfig { encoder: EncoderChoice::Element("x265enc".to_owned()), ..config.clone() };
        assert_eq!(choose_encoder(&named, &[], &[]).unwrap().row.element, "x265enc");
        assert_eq!(choose_encoder(&config, &[], &[]).unwrap().row.codec, Codec::H265);
    }

    #[test]
    fn encoders_of_one_camera_are_tried_beside_each_other() {
        let config = EncodeConfig { resolution: Some(Resolution::new(320, 240)), ..EncodeConfig::default() };
        let row = |element| encoder::rows(Codec::H264).iter().find(|row| row.element == element).unwrap();
        let chosen = choose_encoder(&config, &[], &[(row("x264enc"), config.clone())]).unwrap();
        assert_eq!(chosen.tried.last().unwrap().outcome, WORKS);
        // None works beside one that does not: here that cannot do its size.
        let too_large = EncodeConfig { resolution: Some(Resolution::new(8192, 4320)), ..config.clone() };
        assert!(choose_encoder(&config, &[], &[(row("openh264enc"), too_large)]).is_err());
    }

    #[test]
    fn an_encoder_that_failed_at_work_is_passed_over() {
        let config = EncodeConfig { resolution: Some(Resolution::new(320, 240)), ..EncodeConfig::default() };
        let others: Vec<_> =
            encoder::elements(Codec::H264).into_iter().filter(|element| *element != "openh264enc").collect();
        let chosen = choose_encoder(&config, &others, &[]).unwrap();
        assert_eq!(chosen.row.element, "openh264enc");
        assert!(chosen.tried.iter().any(|tried| tried.element == "x264enc" && tried.outcome == FAILED));
        let all = choose_encoder(&config, &encoder::elements(Codec::H264), &[]).unwrap_err();
        assert!(all.0.contains("x264enc: failed at work"), "{}", all.0);
    }

    #[test]
    fn encoders_are_tried_at_the_size_and_rate_that_are_wanted() {
        let text = |resolution, fps| {
            let config = EncodeConfig { resolution, fps, ..EncodeConfig::default() };
            let row = encoder::rows(Codec::H264).iter().find(|row| row.element == "x264enc").unwrap();
            trial_text(row, &trial_settings(&config), &|_, _| true)
        };
        let own = text(None, None);
        assert!(own.contains("format=I420,width=1280,height=720,framerate=30/1 ! x264enc"), "{own}");
        let large = text(Some(Resolution::new(3840, 2160)), Some(Fps::whole(60)));
        assert!(large.contains("width=3840,height=2160,framerate=60/1"), "{large}");
        assert!(large.contains("bitrate=71352"), "{large}");
    }

    #[test]
    fn an_encoder_that_cannot_do_the_size_does_not_work() {
        let config = EncodeConfig {
            encoder: EncoderChoice::Element("openh264enc".to_owned()),
            resolution: Some(Resolution::new(8192, 4320)),
            ..EncodeConfig::default()
        };
        let error = choose_encoder(&config, &[], &[]).unwrap_err().0;
        assert!(error.starts_with("--encoder openh264enc does not work (openh264enc: "), "{error}");
        assert!(error.contains(" at 8192x4320); those that work here: "), "{error}");
    }

    #[test]
    fn x264_and_openh264_pass_the_real_test_with_every_profile() {
        gst::init().unwrap();
        for element in ["x264enc", "openh264enc"] {
            for profile in [Profile::Baseline, Profile::Main, Profile::High] {
                let config = EncodeConfig {
                    encoder: EncoderChoice::Element(element.to_owned()),
                    profile,
                    resolution: Some(Resolution::new(640, 360)),
                    ..EncodeConfig::default()
                };
                let chosen = choose_encoder(&config, &[], &[]).unwrap();
                assert_eq!(chosen.row.element, element);
            }
        }
    }

    #[test]
    fn an_encoder_that_fails_at_run_time_says_why() {
        gst::init().unwrap();
        let error = encode("videotestsrc num-buffers=5 ! identity error-after=2 ! fakesink name=rov_out").unwrap_err();
        assert!(error.starts_with("identity: "), "{error}");
        assert!(encode("videotestsrc num-buffers=0 ! fakesink name=rov_out").is_err());
    }
}
