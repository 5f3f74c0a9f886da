//! The table of H.264 decoders, hardware first: which GStreamer element, with which low-delay settings.
//!
//! Pure: what the machine has comes in by a function, the pipeline text goes out. A row's settings are set only where
//! the element has such a property, because GStreamer 1.14 lacks many of them; a missing one is never an error.

use std::fmt;
use std::str::FromStr;

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
    /// Annex B with start codes.
    ByteStream,
    /// Length-prefixed, with the parameter sets in the caps: Apple's decoder takes nothing else.
    Avc,
}

impl Format {
    fn caps(self) -> &'static str {
        // Without `alignment`, h264parse holds one access unit back even when the source is live.
        match self {
            Self::ByteStream => "video/x-h264,stream-format=byte-stream,alignment=au",
            Self::Avc => "video/x-h264,stream-format=avc,alignment=au",
        }
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

/// The low-delay mode of the stateless decoders on GstH264Decoder (1.22 and later): output at once, whatever the level's
/// picture buffer would allow. Right for our streams, which have no B-frames.
const FLEXIBLE: &[Setting] = &[set("compliance", "flexible")];

/// Hardware first; within it the vendor's own before the general.
pub const DECODERS: &[DecoderRow] = &[
    row("nvh264dec", &[set("max-display-delay", "0")]),
    row("nvh264sldec", &[set("max-display-delay", "0"), set("compliance", "flexible")]),
    DecoderRow {
        element: "nvv4l2decoder",
        format: Format::ByteStream,
        settings: &[set("disable-dpb", "true"), set("enable-max-performance", "true")],
        // NVMM memory; nvvidconv also converts the colours, in hardware.
        after: Some(("nvvidconv", "nvvidconv ! video/x-raw,format=BGRx")),
    },
    row("vah264dec", FLEXIBLE),
    row("vaapih264dec", &[set("low-latency", "true")]),
    row("v4l2slh264dec", FLEXIBLE),
    row("v4l2h264dec", &[]),
    row("d3d11h264dec", FLEXIBLE),
    DecoderRow { element: "vtdec_hw", format: Format::Avc, settings: &[], after: None },
    row(
        "avdec_h264",
        &[
            set("thread-type", "slice"),
            // Before 1.20 the kind of threading cannot be chosen, and frame threads each hold a picture.
            Setting { property: "max-threads", value: "1", unless: Some("thread-type") },
            set("std-compliance", "normal"),
            set("output-corrupt", "true"),
        ],
    ),
    row("openh264dec", &[]),
];

/// A decoder to try: its name and its part of the pipeline, from access units to raw pictures in system memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub element: String,
    /// GStreamer description: caps of the coded stream, the decoder, what follows it.
    pub description: String,
}

/// The elements of the table that this machine has, in order.
pub fn available(exists: &dyn Fn(&str) -> bool) -> Vec<&'static DecoderRow> {
    DECODERS.iter().filter(|row| exists(row.element)).collect()
}

/// The decoders to try for `choice`, in order; empty where there is none. A named element that is not in the table is
/// used as it is, so that a decoder newer than this program can be tried.
pub fn candidates(
    choice: &DecoderChoice,
    exists: &dyn Fn(&str) -> bool,
    has: &dyn Fn(&str, &str) -> bool,
) -> Vec<Candidate> {
    match choice {
        DecoderChoice::Auto => available(exists).into_iter().map(|row| row.candidate(exists, has)).collect(),
        DecoderChoice::Element(name) if !exists(name) => Vec::new(),
        DecoderChoice::Element(name) => {
            let known = DECODERS.iter().find(|row| row.element == name);
            vec![known.map_or_else(|| unknown(name), |row| row.candidate(exists, has))]
        }
    }
}

fn unknown(name: &str) -> Candidate {
    Candidate { element: name.to_owned(), description: format!("{} ! {name}", Format::ByteStream.caps()) }
}

impl DecoderRow {
    fn candidate(&self, exists: &dyn Fn(&str) -> bool, has: &dyn Fn(&str, &str) -> bool) -> Candidate {
        Candidate { element: self.element.to_owned(), description: self.description(exists, has) }
    }

    /// The row's part of the pipeline. `has` tells whether an element has a property.
    pub fn description(&self, exists: &dyn Fn(&str) -> bool, has: &dyn Fn(&str, &str) -> bool) -> String {
        let mut text = format!("{} ! {}", self.format.caps(), self.element);
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

    const AU: &str = "video/x-h264,stream-format=byte-stream,alignment=au";

    fn text(element: &str, has: &dyn Fn(&str, &str) -> bool) -> String {
        let row = DECODERS.iter().find(|row| row.element == element).expect("a row");
        row.description(&|_| true, has)
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
            ("vtdec_hw", "video/x-h264,stream-format=avc,alignment=au ! vtdec_hw".to_owned()),
            ("avdec_h264", format!("{AU} ! avdec_h264 thread-type=slice std-compliance=normal output-corrupt=true")),
            ("openh264dec", format!("{AU} ! openh264dec")),
        ];
        assert_eq!(golden.len(), DECODERS.len(), "every row has its golden text");
        for ((element, expected), row) in golden.iter().zip(DECODERS) {
            assert_eq!(row.element, *element, "hardware first, in this order");
            assert_eq!(text(element, &|_, _| true), *expected);
        }
    }

    #[test]
    fn properties_that_an_old_element_lacks_are_left_out() {
        for row in DECODERS {
            let bare = row.description(&|_| false, &|_, _| false);
            assert_eq!(bare, format!("{} ! {}", row.format.caps(), row.element));
        }
    }

    #[test]
    fn an_old_avdec_without_slice_threads_gets_one_thread() {
        let old = |_: &str, property: &str| property == "max-threads";
        assert_eq!(text("avdec_h264", &old), format!("{AU} ! avdec_h264 max-threads=1"));
    }

    #[test]
    fn auto_takes_what_the_machine_has_in_the_tables_order() {
        let exists = |element: &str| matches!(element, "openh264dec" | "avdec_h264" | "vah264dec");
        let found = candidates(&DecoderChoice::Auto, &exists, &|_, _| false);
        let names: Vec<_> = found.iter().map(|candidate| candidate.element.as_str()).collect();
        assert_eq!(names, ["vah264dec", "avdec_h264", "openh264dec"]);
    }

    #[test]
    fn a_named_decoder_is_the_only_one_tried() {
        let choice = DecoderChoice::Element("openh264dec".to_owned());
        let found = candidates(&choice, &|_| true, &|_, _| false);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].element, "openh264dec");
        assert!(candidates(&choice, &|_| false, &|_, _| false).is_empty());
    }

    #[test]
    fn a_decoder_outside_the_table_can_be_named() {
        let found = candidates(&DecoderChoice::Element("mppvideodec".into()), &|_| true, &|_, _| true);
        assert_eq!(found[0].description, format!("{AU} ! mppvideodec"));
    }

    #[test]
    fn a_choice_is_written_as_on_the_command_line() {
        for text in ["auto", "avdec_h264"] {
            assert_eq!(text.parse::<DecoderChoice>().unwrap().to_string(), text);
        }
    }
}
