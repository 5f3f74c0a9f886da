//! The tables of decoders, one for each codec, hardware first: which GStreamer element, with which low-delay settings.
//!
//! Pure: what the machine has comes in by a function, the pipeline text goes out. A row's settings are set only where
//! the element has such a property, because GStreamer 1.14 lacks many of them; a missing one is never an error.

use std::fmt;
use std::str::FromStr;

use rov_common::codec::Codec;

/// Which decoder to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DecoderChoice {
    /// The first of the table that works.
    #[default]
    Auto,
    /// This GStreamer element and no other; it need not be in the table.
    Element(String),
}

impl FromStr for DecoderChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            element => Self::Element(element.to_owned()),
        })
    }
}

impl fmt::Display for DecoderChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Element(element) => element,
        })
    }
}

/// How the decoder wants the coded stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Annex B with start codes, as the depayloader gives it: libav finds out by itself what a parser would say, which
    /// at 720p costs 0.07 ms a picture. Of MJPEG there is nothing to find out.
    Unparsed,
    /// Annex B with start codes.
    ByteStream,
    /// Length-prefixed, with the parameter sets in the caps: Apple's decoder takes nothing else.
    LengthPrefixed,
}

impl Format {
    /// What brings access units into it, to be followed by the decoder.
    fn text(self, codec: Codec) -> String {
        let format = match (self, codec) {
            (Self::Unparsed, _) | (_, Codec::Mjpeg) => return String::new(),
            (Self::ByteStream, _) => "byte-stream",
            (Self::LengthPrefixed, Codec::H264) => "avc",
            (Self::LengthPrefixed, Codec::H265) => "hvc1",
        };
        // Without `alignment`, h264parse holds one access unit back even when the source is live.
        format!("{} ! {},stream-format={format},alignment=au ! ", parser(codec), codec.media_type())
    }
}

/// The element that tells decoders what comes.
pub fn parser(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264parse",
        Codec::H265 => "h265parse",
        Codec::Mjpeg => "jpegparse",
    }
}

/// Access units in the caps of an elementary stream: Annex B, or JPEG pictures.
pub fn coded_caps(codec: Codec) -> String {
    let form = if codec.has_parameter_sets() { ",stream-format=byte-stream,alignment=au" } else { "" };
    format!("{}{form}", codec.media_type())
}

/// The element that makes access units of packets.
pub fn depayloader(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "rtph264depay",
        Codec::H265 => "rtph265depay",
        Codec::Mjpeg => "rtpjpegdepay",
    }
}

/// One property of an element, set where the element has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setting {
    property: &'static str,
    value: &'static str,
    /// Set only where the element lacks this other, better property.
    unless: Option<&'static str>,
}

const fn set(property: &'static str, value: &'static str) -> Setting {
    Setting { property, value, unless: None }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderRow {
    pub element: &'static str,
    format: Format,
    settings: &'static [Setting],
    /// What brings the pictures into system memory, for elements that cannot do so themselves: element and text.
    after: Option<(&'static str, &'static str)>,
}

const fn row(element: &'static str, settings: &'static [Setting]) -> DecoderRow {
    DecoderRow { element, format: Format::ByteStream, settings, after: None }
}

/// The low-delay mode of the stateless decoders on GstH264Decoder (1.22 and later): output at once, whatever the
/// level's picture buffer would allow. Right for our streams, which have no B-frames.
const FLEXIBLE: &[Setting] = &[set("compliance", "flexible")];

const NVIDIA_JETSON: DecoderRow = DecoderRow {
    element: "nvv4l2decoder",
    format: Format::ByteStream,
    settings: &[set("disable-dpb", "true"), set("enable-max-performance", "true")],
    // NVMM memory; nvvidconv also converts the colours, in hardware.
    after: Some(("nvvidconv", "nvvidconv ! video/x-raw,format=BGRx")),
};

const APPLE: DecoderRow =
    DecoderRow { element: "vtdec_hw", format: Format::LengthPrefixed, settings: &[], after: None };

const LIBAV: &[Setting] = &[
    set("thread-type", "slice"),
    // Before 1.20 the kind of threading cannot be chosen, and frame threads each hold a picture.
    Setting { property: "max-threads", value: "1", unless: Some("thread-type") },
    set("std-compliance", "normal"),
    set("output-corrupt", "true"),
];

const fn libav(element: &'static str) -> DecoderRow {
    DecoderRow { element, format: Format::Unparsed, settings: LIBAV, after: None }
}

/// The table of a codec.
pub fn table(codec: Codec) -> &'static [DecoderRow] {
    match codec {
        Codec::H264 => DECODERS,
        Codec::H265 => DECODERS_H265,
        Codec::Mjpeg => DECODERS_MJPEG,
    }
}

/// Hardware first; within it the vendor's own before the general.
const DECODERS: &[DecoderRow] = &[
    row("nvh264dec", &[set("max-display-delay", "0")]),
    row("nvh264sldec", &[set("max-display-delay", "0"), set("compliance", "flexible")]),
    NVIDIA_JETSON,
    row("vah264dec", FLEXIBLE),
    row("vaapih264dec", &[set("low-latency", "true")]),
    row("v4l2slh264dec", FLEXIBLE),
    row("v4l2h264dec", &[]),
    row("d3d11h264dec", FLEXIBLE),
    APPLE,
    libav("avdec_h264"),
    row("openh264dec", &[]),
];

/// These decoders give each picture at once by themselves where the SPS says that nothing is reordered.
const DECODERS_H265: &[DecoderRow] = &[
    row("nvh265dec", &[set("max-display-delay", "0")]),
    row("nvh265sldec", &[set("max-display-delay", "0")]),
    NVIDIA_JETSON,
    row("vah265dec", &[]),
    row("vaapih265dec", &[]),
    row("v4l2slh265dec", &[]),
    row("v4l2h265dec", &[]),
    row("d3d11h265dec", &[]),
    APPLE,
    libav("avdec_h265"),
    row("libde265dec", &[]),
];

/// In software alone: hardware decoders of JPEG are made for pictures one by one, and none was measured.
const DECODERS_MJPEG: &[DecoderRow] =
    &[DecoderRow { element: "jpegdec", format: Format::Unparsed, settings: &[], after: None }, libav("avdec_mjpeg")];

/// A decoder to try: its name and its part of the pipeline, from access units to raw pictures in system memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub codec: Codec,
    pub element: String,
    /// GStreamer description: parser and caps of the coded stream, if any, the decoder, what follows it.
    pub description: String,
}

/// The elements of the codec's table that this machine has, in order.
pub fn available(codec: Codec, exists: &dyn Fn(&str) -> bool) -> Vec<&'static DecoderRow> {
    table(codec).iter().filter(|row| exists(row.element)).collect()
}

/// The codec in whose table alone the element is, so that it decodes nothing else than that.
fn other_codec_of(codec: Codec, element: &str) -> Option<Codec> {
    let is_in = |codec: &Codec| table(*codec).iter().any(|row| row.element == element);
    codec.others().find(is_in).filter(|_| !is_in(&codec))
}

/// What to begin with before the stream is known: `codec`, unless the named decoder is for another one.
pub fn first_codec(codec: Codec, choice: &DecoderChoice) -> Codec {
    match choice {
        DecoderChoice::Element(name) => other_codec_of(codec, name).unwrap_or(codec),
        DecoderChoice::Auto => codec,
    }
}

/// The decoders to try for `choice`, in order; empty where there is none. A named element that is in no table is used
/// as it is, so that a decoder newer than this program can be tried.
pub fn candidates(
    codec: Codec,
    choice: &DecoderChoice,
    exists: &dyn Fn(&str) -> bool,
    has: &dyn Fn(&str, &str) -> bool,
) -> Vec<Candidate> {
    match choice {
        DecoderChoice::Auto => {
            available(codec, exists).into_iter().map(|row| row.candidate(codec, exists, has)).collect()
        }
        DecoderChoice::Element(name) if !exists(name) || other_codec_of(codec, name).is_some() => Vec::new(),
        DecoderChoice::Element(name) => {
            let known = table(codec).iter().find(|row| row.element == name);
            vec![known.map_or_else(|| unknown(codec, name), |row| row.candidate(codec, exists, has))]
        }
    }
}

fn unknown(codec: Codec, name: &str) -> Candidate {
    let description = format!("{}{name}", Format::ByteStream.text(codec));
    Candidate { codec, element: name.to_owned(), description }
}

impl DecoderRow {
    fn candidate(&self, codec: Codec, exists: &dyn Fn(&str) -> bool, has: &dyn Fn(&str, &str) -> bool) -> Candidate {
        Candidate { codec, element: self.element.to_owned(), description: self.description(codec, exists, has) }
    }

    /// The row's part of the pipeline. `has` tells whether an element has a property.
    pub fn description(&self, codec: Codec, exists: &dyn Fn(&str) -> bool, has: &dyn Fn(&str, &str) -> bool) -> String {
        let mut text = format!("{}{}", self.format.text(codec), self.element);
        for setting in self.settings {
            let better = setting.unless.is_some_and(|other| has(self.element, other));
            if !better && has(self.element, setting.property) {
                text += &format!(" {}={}", setting.property, setting.value);
            }
        }
        if let Some((_, after)) = self.after.filter(|(element, _)| exists(element)) {
            text += " ! ";
            text += after;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AU: &str = "h264parse ! video/x-h264,stream-format=byte-stream,alignment=au";

    fn text(element: &str, has: &dyn Fn(&str, &str) -> bool) -> String {
        let row = DECODERS.iter().find(|row| row.element == element).expect("a row");
        row.description(Codec::H264, &|_| true, has)
    }

    #[test]
    fn each_row_gives_its_text() {
        let golden = [
            ("nvh264dec", format!("{AU} ! nvh264dec max-display-delay=0")),
            ("nvh264sldec", format!("{AU} ! nvh264sldec max-display-delay=0 compliance=flexible")),
            (
                "nvv4l2decoder",
                format!(
                    "{AU} ! nvv4l2decoder disable-dpb=true enable-max-performance=true ! nvvidconv ! \
                     video/x-raw,format=BGRx"
                ),
            ),
            ("vah264dec", format!("{AU} ! vah264dec compliance=flexible")),
            ("vaapih264dec", format!("{AU} ! vaapih264dec low-latency=true")),
            ("v4l2slh264dec", format!("{AU} ! v4l2slh264dec compliance=flexible")),
            ("v4l2h264dec", format!("{AU} ! v4l2h264dec")),
            ("d3d11h264dec", format!("{AU} ! d3d11h264dec compliance=flexible")),
            ("vtdec_hw", "h264parse ! video/x-h264,stream-format=avc,alignment=au ! vtdec_hw".to_owned()),
            ("avdec_h264", "avdec_h264 thread-type=slice std-compliance=normal output-corrupt=true".to_owned()),
            ("openh264dec", format!("{AU} ! openh264dec")),
        ];
        assert_eq!(golden.len(), DECODERS.len(), "every row has its golden text");
        for ((element, expected), row) in golden.iter().zip(DECODERS) {
            assert_eq!(row.element, *element, "hardware first, in this order");
            assert_eq!(text(element, &|_, _| true), *expected);
        }
    }

    #[test]
    fn each_row_of_h265_gives_its_text() {
        let au = "h265parse ! video/x-h265,stream-format=byte-stream,alignment=au";
        let golden = [
            format!("{au} ! nvh265dec max-display-delay=0"),
            format!("{au} ! nvh265sldec max-display-delay=0"),
            format!(
                "{au} ! nvv4l2decoder disable-dpb=true enable-max-performance=true ! nvvidconv ! \
                 video/x-raw,format=BGRx"
            ),
            format!("{au} ! vah265dec"),
            format!("{au} ! vaapih265dec"),
            format!("{au} ! v4l2slh265dec"),
            format!("{au} ! v4l2h265dec"),
            format!("{au} ! d3d11h265dec"),
            "h265parse ! video/x-h265,stream-format=hvc1,alignment=au ! vtdec_hw".to_owned(),
            "avdec_h265 thread-type=slice std-compliance=normal output-corrupt=true".to_owned(),
            format!("{au} ! libde265dec"),
        ];
        let texts: Vec<_> =
            table(Codec::H265).iter().map(|row| row.description(Codec::H265, &|_| true, &|_, _| true)).collect();
        assert_eq!(texts, golden);
    }

    #[test]
    fn a_decoder_of_one_codec_is_not_tried_for_the_other() {
        let choice = |name: &str| DecoderChoice::Element(name.to_owned());
        let names = |codec, name: &str| candidates(codec, &choice(name), &|_| true, &|_, _| true).len();
        assert_eq!((names(Codec::H264, "avdec_h264"), names(Codec::H265, "avdec_h264")), (1, 0));
        assert_eq!((names(Codec::H264, "nvv4l2decoder"), names(Codec::H265, "nvv4l2decoder")), (1, 1));
        assert_eq!((names(Codec::H264, "mppvideodec"), names(Codec::H265, "mppvideodec")), (1, 1));
        assert_eq!(first_codec(Codec::H264, &choice("avdec_h265")), Codec::H265);
        assert_eq!(first_codec(Codec::H264, &choice("nvv4l2decoder")), Codec::H264);
        assert_eq!(first_codec(Codec::H264, &DecoderChoice::Auto), Codec::H264);
    }

    #[test]
    fn properties_that_an_old_element_lacks_are_left_out() {
        for codec in [Codec::H264, Codec::H265] {
            for row in table(codec) {
                let bare = row.description(codec, &|_| false, &|_, _| false);
                assert_eq!(bare, format!("{}{}", row.format.text(codec), row.element));
            }
        }
    }

    #[test]
    fn an_old_avdec_without_slice_threads_gets_one_thread() {
        let old = |_: &str, property: &str| property == "max-threads";
        assert_eq!(text("avdec_h264", &old), "avdec_h264 max-threads=1");
    }

    #[test]
    fn auto_takes_what_the_machine_has_in_the_tables_order() {
        let exists = |element: &str| matches!(element, "openh264dec" | "avdec_h264" | "vah264dec");
        let found = candidates(Codec::H264, &DecoderChoice::Auto, &exists, &|_, _| false);
        let names: Vec<_> = found.iter().map(|candidate| candidate.element.as_str()).collect();
        assert_eq!(names, ["vah264dec", "avdec_h264", "openh264dec"]);
    }

    #[test]
    fn a_named_decoder_is_the_only_one_tried() {
        let choice = DecoderChoice::Element("openh264dec".to_owned());
        let found = candidates(Codec::H264, &choice, &|_| true, &|_, _| false);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].element, "openh264dec");
        assert!(candidates(Codec::H264, &choice, &|_| false, &|_, _| false).is_empty());
    }

    #[test]
    fn a_decoder_outside_the_table_can_be_named() {
        let found = candidates(Codec::H264, &DecoderChoice::Element("mppvideodec".into()), &|_| true, &|_, _| true);
        assert_eq!(found[0].description, format!("{AU} ! mppvideodec"));
    }

    #[test]
    fn a_choice_is_written_as_on_the_command_line() {
        for text in ["auto", "avdec_h264"] {
            assert_eq!(text.parse::<DecoderChoice>().unwrap().to_string(), text);
        }
    }
}
