//! The table of GStreamer sinks that can draw into the window, best first, and the choice among them. Pure: what the
//! machine has comes in by arguments.
//!
//! minifb draws everywhere, but under X11 it copies each picture through a socket. A sink shares memory with the X
//! server or uploads into the graphics card.

use std::fmt;
use std::str::FromStr;

/// Who draws the pictures into the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DisplayChoice {
    /// What was measured to be best where it was measured; elsewhere minifb.
    #[default]
    Auto,
    Minifb,
    /// The first sink of the table that works, also where it was not measured.
    Gst,
    /// This one.
    Sink(&'static SinkRow),
}

impl FromStr for DisplayChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "auto" => Self::Auto,
            "minifb" => Self::Minifb,
            "gst" => Self::Gst,
            name => Self::Sink(SINKS.iter().find(|row| row.element == name).ok_or_else(|| {
                let sinks: Vec<_> = SINKS.iter().map(|row| row.element).collect();
                format!("give auto, minifb, gst, or one of {}", sinks.join(", "))
            })?),
        })
    }
}

impl fmt::Display for DisplayChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Minifb => "minifb",
            Self::Gst => "gst",
            Self::Sink(row) => row.element,
        })
    }
}

/// The window system, as far as the sinks can draw into its windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    X11,
    Windows,
    MacOs,
}

/// What the X server must offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// An overlay that scales and converts (Xv).
    Xv,
    /// OpenGL by a graphics card: by the processor it is slower than anything else.
    HardwareGl,
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct SinkRow {
    pub element: &'static str,
    /// The package of Debian and Ubuntu that has it, where it has one of its own.
    pub package: Option<&'static str>,
    /// The element in front of it, which lets frames pass that the sink takes, and converts the painted ones.
    pub before: Option<&'static str>,
    /// It scales, and takes the decoder's own formats.
    pub scales: bool,
    system: System,
    need: Need,
    /// `auto` takes it.
    measured: bool,
}

static SINKS: [SinkRow; 5] = [
    SinkRow {
        element: "xvimagesink",
        package: Some("gstreamer1.0-x"),
        before: Some("videoconvert"),
        scales: true,
        system: System::X11,
        need: Need::Xv,
        measured: true,
    },
    SinkRow {
        element: "glimagesink",
        package: Some("gstreamer1.0-gl"),
        before: None,
        scales: true,
        system: System::X11,
        need: Need::HardwareGl,
        measured: true,
    },
    SinkRow {
        element: "ximagesink",
        package: Some("gstreamer1.0-x"),
        before: None,
        scales: false,
        system: System::X11,
        need: Need::Nothing,
        measured: true,
    },
    SinkRow {
        element: "d3d11videosink",
        package: None,
        before: None,
        scales: true,
        system: System::Windows,
        need: Need::Nothing,
        measured: false,
    },
    SinkRow {
        element: "osxvideosink",
        package: None,
        before: Some("videoconvert"),
        scales: true,
        system: System::MacOs,
        need: Need::Nothing,
        measured: false,
    },
];

/// The sinks to try, in this order; minifb comes after them. `extensions` are those of the X server.
pub fn sinks(choice: DisplayChoice, system: Option<System>, extensions: &[String]) -> Vec<&'static SinkRow> {
    let offers = |need: Need| match need {
        Need::Nothing => true,
        Need::Xv => has(extensions, "XVideo"),
        Need::HardwareGl => has_hardware_gl(extensions),
    };
    let here = SINKS.iter().filter(|row| Some(row.system) == system && offers(row.need));
    match choice {
        DisplayChoice::Minifb => Vec::new(),
        DisplayChoice::Auto => here.filter(|row| row.measured).collect(),
        DisplayChoice::Gst => here.collect(),
        // Whoever names it knows better what is there.
        DisplayChoice::Sink(row) => vec![row],
    }
}

fn has(extensions: &[String], name: &str) -> bool {
    extensions.iter().any(|extension| extension == name)
}

/// X servers offer direct rendering only by a driver of a card: Xvfb, VNC and drivers without acceleration, where Mesa
/// renders by the processor, have none of these.
fn has_hardware_gl(extensions: &[String]) -> bool {
    has(extensions, "GLX") && ["DRI3", "DRI2", "NV-GLX"].iter().any(|name| has(extensions, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(choice: DisplayChoice, system: Option<System>, extensions: &[&str]) -> Vec<&'static str> {
        let extensions: Vec<_> = extensions.iter().map(|name| (*name).to_owned()).collect();
        sinks(choice, system, &extensions).iter().map(|row| row.element).collect()
    }

    #[test]
    fn the_best_sink_that_the_x_server_can_serve_comes_first() {
        let auto = |extensions: &[&str]| chosen(DisplayChoice::Auto, Some(System::X11), extensions);
        let all = ["xvimagesink", "glimagesink", "ximagesink"];
        assert_eq!(auto(&["MIT-SHM", "XVideo", "GLX", "DRI3"]), all);
        assert_eq!(auto(&["MIT-SHM", "GLX", "DRI2"]), all[1..]);
        assert_eq!(auto(&["MIT-SHM", "GLX", "NV-GLX"]), all[1..]);
        assert_eq!(auto(&["XVideo", "GLX"]), ["xvimagesink", "ximagesink"]);
    }

    #[test]
    fn what_debian_packs_by_itself_is_named() {
        let packages =
            |package| SINKS.iter().filter(|row| row.package == Some(package)).map(|row| row.element).collect();
        let (x, gl): (Vec<_>, Vec<_>) = (packages("gstreamer1.0-x"), packages("gstreamer1.0-gl"));
        assert_eq!((x, gl), (vec!["xvimagesink", "ximagesink"], vec!["glimagesink"]));
    }

    #[test]
    fn opengl_by_the_processor_is_not_chosen() {
        // What Xvfb of X.Org 21.1 offers, as far as it matters.
        let xvfb = ["BIG-REQUESTS", "GLX", "MIT-SHM", "Present", "RANDR", "XInputExtension"];
        assert_eq!(chosen(DisplayChoice::Auto, Some(System::X11), &xvfb), ["ximagesink"]);
        assert_eq!(chosen(DisplayChoice::Gst, Some(System::X11), &xvfb), ["ximagesink"]);
        let glimagesink = "glimagesink".parse().expect("a sink");
        assert_eq!(chosen(glimagesink, Some(System::X11), &xvfb), ["glimagesink"], "unless it is named");
    }

    #[test]
    fn where_nothing_was_measured_minifb_draws_unless_a_sink_is_asked_for() {
        for (system, sink) in [(System::Windows, "d3d11videosink"), (System::MacOs, "osxvideosink")] {
            assert!(chosen(DisplayChoice::Auto, Some(system), &[]).is_empty());
            assert_eq!(chosen(DisplayChoice::Gst, Some(system), &[]), [sink]);
        }
        assert!(chosen(DisplayChoice::Gst, None, &[]).is_empty());
        assert!(chosen(DisplayChoice::Minifb, Some(System::X11), &["XVideo"]).is_empty());
    }

    #[test]
    fn a_choice_is_read_as_it_is_written_and_an_unknown_one_refused_with_the_known() {
        for text in ["auto", "minifb", "gst", "ximagesink", "glimagesink"] {
            assert_eq!(text.parse::<DisplayChoice>().expect(text).to_string(), text);
        }
        let error = "sdlvideosink".parse::<DisplayChoice>().expect_err("unknown");
        assert!(error.contains("ximagesink"), "{error}");
    }
}
