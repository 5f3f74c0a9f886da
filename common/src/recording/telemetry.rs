//! What the vehicle measured, beside a recording: columns of its table, and subtitles in the form of Advanced
//! SubStation Alpha, which VLC and mpv show and ffmpeg burns in. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::overlay::Value;
use crate::units::Resolution;

/// Values at a moment, by the names of their fields.
pub type Fields = BTreeMap<String, Value>;

/// Values are looked at no more often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Columns of a table, beside those that are always there.
const MOST_COLUMNS: usize = 64;
/// A subtitle is no longer: a power cut takes the last one.
const LONGEST: Duration = Duration::from_secs(1);

/// The newest values, for the thread that has the pictures.
#[derive(Debug, Default)]
pub struct Measured {
    looked: Option<Instant>,
    fields: Option<Arc<Fields>>,
}

impl Measured {
    /// Those of now; `look` gives them, and is called ten times a second at most. None: there are none.
    pub fn at(&mut self, now: Instant, look: impl FnOnce() -> Fields) -> Option<Arc<Fields>> {
        if self.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY) {
            self.looked = Some(now);
            let fields = look();
            if self.fields.as_deref() != Some(&fields) {
                self.fields = (!fields.is_empty()).then(|| Arc::new(fields));
            }
        }
        self.fields.clone()
    }
}

/// Names of the fields that have a column, in the order of the columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Vec<String>);

impl Columns {
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().take(MOST_COLUMNS).collect())
    }

    /// Those that have none get one too, as long as there is room. Returns whether there are such.
    pub fn add(&mut self, fields: &Fields) -> bool {
        let before = self.0.len();
        for name in fields.keys() {
            if self.0.len() < MOST_COLUMNS && !self.0.contains(name) {
                self.0.push(name.clone());
            }
        }
        self.0.len() > before
    }

    /// Behind the head of the table.
    pub fn head(&self) -> String {
        self.0.iter().map(|name| format!(",{}", cell(name))).collect()
    }

    /// Behind a row; empty where there is no value, or an old one.
    pub fn row(&self, fields: Option<&Fields>) -> String {
        let value = |name: &String| fields.and_then(|fields| fields.get(name)?.value);
        self.0.iter().map(|name| value(name).map_or_else(|| ",".to_owned(), |value| format!(",{value}"))).collect()
    }
}

/// As RFC 4180 has it.
fn cell(text: &str) -> String {
    let is_plain = !text.contains([',', '"', '\n', '\r']);
    if is_plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// The subtitles of a file, by the times of its pictures.
#[derive(Debug)]
pub struct Subtitles {
    size: Resolution,
    has_head: bool,
    /// What is shown, since when, and until when at least.
    shown: Option<(String, Duration, Duration)>,
    /// What was not taken yet.
    text: String,
}

impl Subtitles {
    /// Over pictures of this size.
    pub fn new(size: Resolution) -> Self {
        Self { size, has_head: false, shown: None, text: String::new() }
    }

    /// A picture is shown from this time of the file on, and was captured with these values.
    pub fn show(&mut self, time: Duration, fields: Option<&Fields>) {
        let lines = fields.map(lines).unwrap_or_default();
        let goes_on = self
            .shown
            .as_ref()
            .is_some_and(|(shown, since, _)| *shown == lines && time.saturating_sub(*since) < LONGEST);
        match &mut self.shown {
            Some((_, _, until)) if goes_on => *until = time.max(*until),
            _ => {
                self.end(time);
                self.shown = (!lines.is_empty()).then_some((lines, time, time));
            }
        }
    }

    /// The last picture is shown until then.
    pub fn end(&mut self, time: Duration) {
        let Some((lines, since, until)) = self.shown.take() else { return };
        if !self.has_head {
            self.has_head = true;
            self.text.push_str(&head(self.size));
        }
        let (since, until) = (at(since), at(until.max(time)));
        // Into a string nothing fails.
        let _ = writeln!(self.text, "Dialogue: 0,{since},{until},Telemetry,,0,0,0,,{lines}");
    }

    /// What belongs behind what was taken before.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}

fn head(Resolution { width, height }: Resolution) -> String {
    let (letters, margin) = ((height / 24).max(8), (height / 36).max(2));
    format!(
        "[Script Info]\nScriptType: v4.00+\nPlayResX: {width}\nPlayResY: {height}\nWrapStyle: 2\n\
         ScaledBorderAndShadow: yes\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize, PrimaryColour, \
         SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, \
         Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\n\
         Style: Telemetry,Arial,{letters},&H00FFFFFF,&H00FFFFFF,&H00000000,&H80000000,0,0,0,0,100,100,0,0,1,2,0,1,\
         {margin},{margin},{margin},1\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, \
         Effect, Text\n"
    )
}

/// A line each, as `Depth 12.3 m`.
fn lines(fields: &Fields) -> String {
    let line = |(name, value): (&String, &Value)| {
        let mut letters = name.chars();
        let first = letters.next().into_iter().flat_map(char::to_uppercase);
        plain(&format!("{}{} {}", first.collect::<String>(), letters.as_str(), value.text))
    };
    fields.iter().map(line).collect::<Vec<_>>().join("\\N")
}

/// Without what is a command there, or breaks a line.
fn plain(text: &str) -> String {
    let plain = |letter: char| match letter {
        '{' => '(',
        '}' => ')',
        '\\' => '/',
        letter if letter.is_control() => ' ',
        letter => letter,
    };
    text.chars().map(plain).collect()
}

/// As `1:02:03.45`.
fn at(time: Duration) -> String {
    let hundredths = time.as_millis() / 10;
    let (hours, minutes, seconds) = (hundredths / 360_000, hundredths / 6_000 % 60, hundredths / 100 % 60);
    format!("{hours}:{minutes:02}:{seconds:02}.{:02}", hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, Option<f64>, &str)]) -> Fields {
        let field = |(name, value, text): &(&str, Option<f64>, &str)| {
            ((*name).to_owned(), Value { value: *value, text: (*text).to_owned(), age_ms: 0 })
        };
        all.iter().map(field).collect()
    }

    #[test]
    fn columns_stay_where_they_are_and_old_values_leave_their_cell_empty() {
        let columns = Columns::new(["heading".to_owned(), "a, \"b\"".to_owned()]);
        assert_eq!(columns.head(), ",heading,\"a, \"\"b\"\"\"");
        let values = fields(&[("depth", Some(1.5), "1.5 m"), ("heading", None, "--")]);
        assert_eq!((columns.row(Some(&values)), columns.row(None)), (",,".to_owned(), ",,".to_owned()));
        let mut more = columns.clone();
        assert!(more.add(&values) && !more.add(&values));
        assert!(more.head().ends_with(",depth") && more.head().starts_with(&columns.head()));
        assert_eq!(more.row(Some(&values)), ",,,1.5");
        let many: Fields = (0..100).map(|number| (number.to_string(), values["depth"].clone())).collect();
        assert!(more.add(&many) && more.0.len() == MOST_COLUMNS && !more.add(&many), "no more");
    }

    #[test]
    fn values_are_looked_at_ten_times_a_second_at_most() {
        let (mut newest, start, mut looks) = (Measured::default(), Instant::now(), 0);
        for ms in 0..1000 {
            let found = newest.at(start + Duration::from_millis(ms), || {
                looks += 1;
                fields(&[("depth", Some(1.0), "1.0 m")])
            });
            assert!(found.is_some());
        }
        assert_eq!(looks, 10);
        assert_eq!(newest.at(start + Duration::from_secs(2), Fields::new), None, "there are none any more");
    }

    fn dialogues(subtitles: &mut Subtitles) -> Vec<String> {
        let text = subtitles.take();
        text.lines().filter_map(|line| line.strip_prefix("Dialogue: 0,")).map(str::to_owned).collect()
    }

    #[test]
    fn a_subtitle_lasts_until_a_value_is_another_or_a_second() {
        let mut subtitles = Subtitles::new(Resolution::new(640, 360));
        let ms = Duration::from_millis;
        subtitles.show(ms(0), None);
        assert_eq!(subtitles.take(), "", "no telemetry: no file");
        let values = |depth: &str| fields(&[("depth", Some(0.0), depth), ("heading", Some(0.0), "9\u{b0}")]);
        for (time, depth) in [(100, "1.0 m"), (200, "1.0 m"), (400, "1.5 m"), (1_500, "1.5 m")] {
            subtitles.show(ms(time), Some(&values(depth)));
        }
        subtitles.show(ms(1_600), None);
        subtitles.show(ms(3_661_070), Some(&fields(&[("a", None, "{\\b1}x\ny")])));
        subtitles.end(ms(3_661_100));
        let head = subtitles.text.clone();
        assert!(head.starts_with("[Script Info]\n") && head.contains("PlayResX: 640\nPlayResY: 360\n"), "{head}");
        let text = ",Telemetry,,0,0,0,,";
        assert_eq!(
            dialogues(&mut subtitles),
            [
                format!("0:00:00.10,0:00:00.40{text}Depth 1.0 m\\NHeading 9\u{b0}"),
                format!("0:00:00.40,0:00:01.50{text}Depth 1.5 m\\NHeading 9\u{b0}"),
                format!("0:00:01.50,0:00:01.60{text}Depth 1.5 m\\NHeading 9\u{b0}"),
                format!("1:01:01.07,1:01:01.10{text}A (/b1)x y"),
            ]
        );
        assert_eq!(subtitles.take(), "");
    }
}
