//! What a picture that is kept says of itself: as EXIF 2.31 in a JPEG. Pure.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::time::Duration;

use exif::experimental::Writer;
use exif::{Context, Field, In, Rational, Tag, Value as Exif};
use time::OffsetDateTime;

use crate::api::{CaptureTime, PictureDoubt};
use crate::capture_clock::Captured;
use crate::overlay::Value;

/// `OffsetTimeOriginal`, which the library does not name.
const OFFSET_TIME_ORIGINAL: Tag = Tag(Context::Exif, 0x9011);
/// The end of the year 9999: later ones have no name.
const LAST_TIME: Duration = Duration::from_secs(253_402_300_799);
/// A segment of a JPEG is at most so long.
const MAX_SEGMENT: usize = 0xffff - 2;
/// Of a name or remark, in characters, so that all fit.
const MAX_TEXT: usize = 1000;

/// Where the vehicle was, by its telemetry.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Position {
    /// In degrees, north and east positive.
    pub place: Option<(f64, f64)>,
    /// In metres below the surface.
    pub depth: Option<f64>,
    /// In degrees.
    pub heading: Option<f64>,
}

impl Position {
    /// Of the telemetry's fields of these names, without what is too old, and depth in metres alone.
    pub fn of(fields: &BTreeMap<String, Value>) -> Self {
        let value = |name: &str| fields.get(name).and_then(|field| field.value).filter(|value| value.is_finite());
        let within = |name: &str, most: f64| value(name).filter(|value| value.abs() <= most);
        // A unit of the user's own choice may be written behind it.
        let is_metres = |field: &Value| field.text.ends_with(" m");
        let depth = fields.get("depth").filter(|depth| is_metres(depth)).and_then(|_| within("depth", 12_000.0));
        Self {
            place: within("latitude", 90.0).zip(within("longitude", 180.0)),
            depth,
            heading: value("heading").map(|heading| heading.rem_euclid(360.0)),
        }
    }
}

/// What is said of the time where it is not that of the capture.
pub fn remark_on_time(capture_time: CaptureTime) -> Option<String> {
    (capture_time == CaptureTime::Arrival)
        .then(|| "The time is that of the picture's arrival at the server.".to_owned())
}

/// What is said of a picture that is no live one of its camera.
pub fn remark_on_doubt(doubt: &PictureDoubt) -> String {
    let what = if doubt.substitute { "A test picture in the place of the camera" } else { "The camera is frozen" };
    let reason = if doubt.reason.is_empty() { String::new() } else { format!(": {}", doubt.reason) };
    format!("{what}{reason}.")
}

/// What is known of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    pub taken: Captured,
    pub vehicle: String,
    pub camera: String,
    pub stream: String,
    pub position: Position,
    /// What somebody who goes by it has to know, a sentence each.
    pub remarks: Vec<String>,
}

impl About {
    /// The JPEG with this in it, in front of what else it has; an error where it is none.
    pub fn write_into(&self, jpeg: &[u8]) -> Result<Vec<u8>, String> {
        let at = place(jpeg).ok_or("it is no JPEG")?;
        let tiff = self.tiff().map_err(|error| format!("cannot write EXIF: {error}"))?;
        let segment = [b"Exif\0\0", &tiff[..]].concat();
        if segment.len() > MAX_SEGMENT {
            return Err(format!("{} bytes of EXIF are too many", segment.len()));
        }
        let length = (segment.len() as u16 + 2).to_be_bytes();
        Ok([&jpeg[..at], &[0xff, 0xe1], &length, &segment, &jpeg[at..]].concat())
    }

    fn tiff(&self) -> Result<Vec<u8>, exif::Error> {
        let fields = self.fields();
        let mut writer = Writer::new();
        fields.iter().for_each(|field| writer.push_field(field));
        let mut tiff = Cursor::new(Vec::new());
        writer.write(&mut tiff, false)?;
        Ok(tiff.into_inner())
    }

    fn fields(&self) -> Vec<Field> {
        let field = |tag, value| Field { tag, ifd_num: In::PRIMARY, value };
        let ascii = |tag, text: &str| field(tag, Exif::Ascii(vec![plain(text).into_bytes()]));
        let at = OffsetDateTime::UNIX_EPOCH + self.taken.0.min(LAST_TIME);
        let (hour, minute, second, nano) = at.to_hms_nano();
        let time =
            format!("{:04}:{:02}:{:02} {hour:02}:{minute:02}:{second:02}", at.year(), u8::from(at.month()), at.day());
        let (vehicle, camera, stream) = (plain(&self.vehicle), plain(&self.camera), plain(&self.stream));
        // A camera by RTSP alone has no other name than its address.
        let names = [("vehicle", &vehicle), ("camera", &camera), ("stream", &stream)];
        let names = names.iter().filter(|(_, name)| !name.is_empty()).map(|(what, name)| format!("{what} {name}"));
        let remarks = self.remarks.iter().map(|remark| format!(" {}", plain(remark))).collect::<String>();
        let described = format!("{}.{remarks}", names.collect::<Vec<_>>().join(", "));
        let mut fields = vec![
            ascii(Tag::ImageDescription, &described),
            ascii(Tag::Software, concat!("rov-streamer ", env!("CARGO_PKG_VERSION"))),
            field(Tag::ExifVersion, Exif::Undefined(b"0231".to_vec(), 0)),
            ascii(Tag::DateTimeOriginal, &time),
            ascii(Tag::SubSecTimeOriginal, &format!("{:06}", nano / 1000)),
            ascii(OFFSET_TIME_ORIGINAL, "+00:00"),
            field(Tag::UserComment, Exif::Undefined(comment(&described), 0)),
        ];
        let owners = [(Tag::Model, &camera), (Tag::CameraOwnerName, &vehicle)];
        fields.extend(owners.iter().filter(|(_, name)| !name.is_empty()).map(|(tag, name)| ascii(*tag, name)));
        let Position { place, depth, heading } = self.position;
        let rational =
            |value: f64, scale: u32| Rational { num: (value * f64::from(scale)).round() as u32, denom: scale };
        if let Some((latitude, longitude)) = place {
            // Whole degrees, minutes, and seconds with four digits: 3 mm.
            let degrees = |value: f64| {
                let parts = (value.abs() * 36_000_000.0).round() as u64;
                let rational = |num: u64, denom| Rational { num: num as u32, denom };
                let (degrees, minutes) = (parts / 36_000_000, parts / 600_000 % 60);
                let seconds = rational(parts % 600_000, 10_000);
                Exif::Rational(vec![rational(degrees, 1), rational(minutes, 1), seconds])
            };
            fields.push(ascii(Tag::GPSLatitudeRef, if latitude < 0.0 { "S" } else { "N" }));
            fields.push(field(Tag::GPSLatitude, degrees(latitude)));
            fields.push(ascii(Tag::GPSLongitudeRef, if longitude < 0.0 { "W" } else { "E" }));
            fields.push(field(Tag::GPSLongitude, degrees(longitude)));
        }
        if let Some(depth) = depth {
            // 1: below sea level.
            fields.push(field(Tag::GPSAltitudeRef, Exif::Byte(vec![u8::from(depth >= 0.0)])));
            fields.push(field(Tag::GPSAltitude, Exif::Rational(vec![rational(depth.abs(), 1000)])));
        }
        if let Some(heading) = heading {
            fields.push(field(Tag::GPSImgDirection, Exif::Rational(vec![rational(heading, 100)])));
        }
        if self.position != Position::default() {
            fields.push(field(Tag::GPSVersionID, Exif::Byte(vec![2, 3, 0, 0])));
        }
        fields
    }
}

/// Where EXIF belongs: behind the header of JFIF, which must be the first, or at the beginning.
fn place(jpeg: &[u8]) -> Option<usize> {
    let rest = jpeg.strip_prefix(&[0xff, 0xd8])?;
    let [0xff, 0xe0, high, low, ..] = *rest else { return Some(2) };
    let end = 4 + usize::from(u16::from_be_bytes([high, low]));
    (end <= jpeg.len()).then_some(end)
}

/// Without what ends a text or breaks a line.
fn plain(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// With the code of its characters in front.
fn comment(text: &str) -> Vec<u8> {
    if text.is_ascii() {
        return [b"ASCII\0\0\0", text.as_bytes()].concat();
    }
    b"UNICODE\0".iter().copied().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As GStreamer makes them: JFIF's header, and another segment.
    const JPEG: &[u8] =
        b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xdb\x00\x03\x00\xff\xd9";

    fn about() -> About {
        About {
            taken: Captured(Duration::from_micros(1_700_000_000_012_345)),
            vehicle: "Nemo".to_owned(),
            camera: "bow".to_owned(),
            stream: "stream1".to_owned(),
            position: Position::default(),
            remarks: Vec::new(),
        }
    }

    fn read(about: &About) -> exif::Exif {
        let jpeg = about.write_into(JPEG).expect("written");
        assert_eq!(&jpeg[..20], &JPEG[..20], "JFIF's header stays the first");
        assert!(jpeg.ends_with(&JPEG[20..]), "and the rest as it was");
        exif::Reader::new().read_from_container(&mut Cursor::new(jpeg)).expect("EXIF")
    }

    fn text(exif: &exif::Exif, tag: Tag) -> String {
        match exif.get_field(tag, In::PRIMARY).map(|field| &field.value) {
            Some(Exif::Ascii(texts)) => String::from_utf8(texts.concat()).expect("UTF-8"),
            other => format!("{other:?}"),
        }
    }

    fn number(exif: &exif::Exif, tag: Tag) -> Option<f64> {
        match &exif.get_field(tag, In::PRIMARY)?.value {
            Exif::Rational(parts) => Some(parts.iter().rev().fold(0.0, |sum, part| sum / 60.0 + part.to_f64())),
            Exif::Byte(bytes) => bytes.first().map(|byte| f64::from(*byte)),
            _ => None,
        }
    }

    #[test]
    fn time_names_and_remarks_are_read_back() {
        let exif = read(&About { remarks: vec!["It was 2.5 s old.".to_owned()], ..about() });
        assert_eq!(text(&exif, Tag::DateTimeOriginal), "2023:11:14 22:13:20");
        assert_eq!(text(&exif, Tag::SubSecTimeOriginal), "012345");
        assert_eq!(text(&exif, OFFSET_TIME_ORIGINAL), "+00:00");
        let described = "vehicle Nemo, camera bow, stream stream1. It was 2.5 s old.";
        assert_eq!(text(&exif, Tag::ImageDescription), described);
        let comment = &exif.get_field(Tag::UserComment, In::PRIMARY).expect("a comment").value;
        assert!(matches!(comment, Exif::Undefined(bytes, _) if bytes.ends_with(described.as_bytes())));
        assert_eq!((text(&exif, Tag::Model), text(&exif, Tag::CameraOwnerName)), ("bow".to_owned(), "Nemo".to_owned()));
        assert!(exif.get_field(Tag::GPSVersionID, In::PRIMARY).is_none(), "no position is known");
    }

    #[test]
    fn a_position_is_read_back_with_its_depth_below_the_surface() {
        let position = Position { place: Some((-33.856_784, 151.215_297)), depth: Some(12.345), heading: Some(271.5) };
        let exif = read(&About { position, ..about() });
        let near =
            |tag, wanted: f64| assert!(number(&exif, tag).is_some_and(|got| (got - wanted).abs() < 1e-7), "{tag}");
        near(Tag::GPSLatitude, 33.856_784);
        near(Tag::GPSLongitude, 151.215_297);
        near(Tag::GPSAltitude, 12.345);
        near(Tag::GPSImgDirection, 271.5);
        assert_eq!((text(&exif, Tag::GPSLatitudeRef), text(&exif, Tag::GPSLongitudeRef)), ("S".into(), "E".into()));
        assert_eq!(number(&exif, Tag::GPSAltitudeRef), Some(1.0));
        let position = Position { depth: Some(-0.1), ..Position::default() };
        let above = read(&About { position, ..about() });
        assert_eq!((number(&above, Tag::GPSAltitudeRef), number(&above, Tag::GPSAltitude)), (Some(0.0), Some(0.1)));
    }

    #[test]
    fn of_telemetry_only_what_is_new_and_possible_is_taken() {
        let value = |value: Option<f64>, text: &str| Value { value, text: text.to_owned(), age_ms: 0 };
        let fields =
            |all: &[(&str, Value)]| all.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let position = Position::of(&fields(&[
            ("depth", value(Some(3.0), "3.0 m")),
            ("heading", value(Some(-90.0), "-90°")),
            ("latitude", value(Some(54.3), "54.3")),
            ("longitude", value(Some(10.1), "10.1")),
        ]));
        assert_eq!(position, Position { place: Some((54.3, 10.1)), depth: Some(3.0), heading: Some(270.0) });
        let position = Position::of(&fields(&[
            ("depth", value(Some(30.0), "30.0 ft")),
            ("heading", value(None, "--")),
            ("latitude", value(Some(54.3), "54.3")),
            ("longitude", value(Some(200.0), "200")),
        ]));
        assert_eq!(position, Position::default());
    }

    #[test]
    fn names_of_any_characters_and_length_are_kept_and_what_is_no_jpeg_is_refused() {
        let exif = read(&About { vehicle: "Müller\n".to_owned(), camera: "x".repeat(100_000), ..about() });
        assert_eq!(text(&exif, Tag::CameraOwnerName), "Müller ");
        assert_eq!(text(&exif, Tag::Model).len(), MAX_TEXT);
        assert_eq!(about().write_into(b"GIF89a"), Err("it is no JPEG".to_owned()));
        assert_eq!(about().write_into(&JPEG[..10]), Err("it is no JPEG".to_owned()), "cut off");
        assert!(about().write_into(b"\xff\xd8\xff\xdb").is_ok_and(|jpeg| jpeg.starts_with(b"\xff\xd8\xff\xe1")));
    }
}
