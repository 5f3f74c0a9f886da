//! `rov-client report DIR`: the events of a dive as one page, `report.html`, which needs no network and goes with the
//! folder: pictures and clips are beside it. All that the page says comes from files, and is text in it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::event::{self, Event, Part, Picture, Place};

const FILE: &str = "report.html";
/// At the end of the name of what the page gives of an event's clip, which follows what it gives of the event.
const CLIP: &str = "_event_clip";
/// Of what was still to come.
const NOT_COME: &str = "it was still to come, and is not there";
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    body{color:#16202a}section{border-top:1px solid #c8d2da;padding:1rem 0;break-inside:avoid}h1,h2{line-height:1.2}\
    h2{margin:0;font-size:1.1rem}p.text{font-size:1.2rem;white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0}\
    img{max-width:100%;height:auto;display:block}\
    figure{margin:.5rem 0}figcaption,p.failed{color:#5b6b78;font-size:.9rem}p.failed{color:#a34a00}\
    dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem;margin:.5rem 0}dt{color:#5b6b78}dd{margin:0}";

/// Writes the page into the folder; where it is, and of how many events.
///
/// # Errors
/// Says why there is none.
pub fn write(folder: &Path) -> Result<(PathBuf, usize), String> {
    let dive = find(folder)?;
    let packed = not_unpacked(&dive.packed);
    packed.iter().for_each(|text| tracing::warn!("{}: {text}", folder.display()));
    if dive.events.is_empty() {
        let packed = packed.map(|text| format!("; {text}")).unwrap_or_default();
        return Err(format!(
            "{}: there are no events in it: give the folder that --save-dir named, with {} in folders of it{packed}",
            folder.display(),
            event::FILE
        ));
    }
    let page = page(folder, &dive);
    let (path, part) = (folder.join(FILE), folder.join(format!("{FILE}.part")));
    let written = fs::write(&part, page).and_then(|()| fs::rename(&part, &path));
    written.map_err(|error| format!("{}: cannot write: {error}", path.display()))?;
    Ok((path, dive.events.len()))
}

/// The events of a folder, the oldest first; those that cannot be read at the end.
struct Dive {
    events: Vec<Found>,
    /// ZIP files of the page that nobody has unpacked.
    packed: Vec<String>,
}

struct Found {
    /// Of the event.
    name: String,
    /// Its folder, as the page finds it beside itself.
    folder: PathBuf,
    /// What its file says, or why that cannot be read.
    event: Result<Event, String>,
}

impl Found {
    fn read(folder: &Path, place: PathBuf, name: &str) -> Option<Self> {
        let file = folder.join(&place).join(event::FILE);
        if !file.is_file() {
            return None;
        }
        let text = fs::read(&file).map_err(|error| error.to_string());
        let event = text.and_then(|text| serde_json::from_slice::<Event>(&text).map_err(|error| error.to_string()));
        if let Err(error) = &event {
            tracing::warn!("{}: cannot be read: {error}", file.display());
        }
        Some(Self { name: name.to_owned(), folder: place, event })
    }

    fn has_clip(&self, folder: &Path) -> bool {
        let mut pictures = self.event.iter().flat_map(|event| &event.pictures);
        pictures.any(|picture| address(folder, &self.folder, &picture.clip).is_ok())
    }
}

fn find(folder: &Path) -> Result<Dive, String> {
    let cannot = |error| format!("{}: cannot be read: {error}", folder.display());
    let (mut events, mut packed) = (Vec::<Found>::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(cannot)? {
        // Of a name that is no text no address can be made that all browsers read.
        let Ok(entry) = entry.map_err(cannot)?.file_name().into_string() else { continue };
        if entry.ends_with("_event.zip") || entry.ends_with(&format!("{CLIP}.zip")) {
            packed.push(entry);
            continue;
        }
        // Some programs unpack into a folder of the name of the ZIP file.
        let name = entry.strip_suffix(CLIP).map_or_else(|| entry.clone(), |name| format!("{name}_event"));
        let inside = Path::new(&entry).join(&name);
        let found = Found::read(folder, PathBuf::from(&entry), &entry).or_else(|| Found::read(folder, inside, &name));
        let Some(found) = found else { continue };
        match events.iter_mut().find(|event| event.name == found.name) {
            // Unpacked into two folders: that with the clip.
            Some(event) if found.has_clip(folder) => *event = found,
            Some(_) => {}
            None => events.push(found),
        }
    }
    packed.retain(|file| {
        let (name, is_clip) = match file.strip_suffix(&format!("{CLIP}.zip")) {
            Some(name) => (format!("{name}_event"), true),
            None => (file.trim_end_matches(".zip").to_owned(), false),
        };
        let of = events.iter().find(|event| event.name == name);
        of.is_none_or(|event| is_clip && !event.has_clip(folder))
    });
    packed.sort();
    let time = |found: &Found| found.event.as_ref().ok().map(|event| event.captured.clone());
    events.sort_by_key(|found| (found.event.is_err(), time(found), found.name.clone()));
    Ok(Dive { events, packed })
}

/// None: there are none.
fn not_unpacked(packed: &[String]) -> Option<String> {
    let names = packed.join(", ");
    (!packed.is_empty()).then(|| format!("ZIP files of events that are not unpacked: {}: {names}", packed.len()))
}

fn page(folder: &Path, dive: &Dive) -> String {
    let events = || dive.events.iter().filter_map(|found| found.event.as_ref().ok());
    let vehicle = events().map(|event| event.vehicle.as_str()).find(|name| !name.is_empty()).unwrap_or("Dive");
    let days = events().map(|event| day(&event.captured)).filter(|day| !day.is_empty()).collect::<Vec<_>>();
    let days = match (days.first(), days.last()) {
        (Some(first), Some(last)) if first == last => format!(", {first}"),
        (Some(first), Some(last)) => format!(", {first} to {last}"),
        _ => String::new(),
    };
    let title = escaped(&format!("{vehicle}{days}"));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>{STYLE}</style>\n\
         </head>\n<body>\n\
         <h1>{title}</h1>\n<p>Events: {}. Times are UTC.</p>\n",
        dive.events.len()
    );
    if let Some(packed) = not_unpacked(&dive.packed) {
        let _ = writeln!(page, "<p class=\"failed\">{}</p>", escaped(&packed));
    }
    for Found { name, folder: place, event } in &dive.events {
        page.push_str(&match event {
            Ok(event) => section(folder, place, event),
            Err(reason) => format!(
                "<section>\n<h2>{}</h2>\n<p class=\"failed\">{} cannot be read: {}</p>\n</section>\n",
                escaped(name),
                event::FILE,
                escaped(reason)
            ),
        });
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn section(folder: &Path, place: &Path, event: &Event) -> String {
    let text = if event.text.is_empty() { "(no text)" } else { &event.text };
    let mut section = format!(
        "<section>\n<h2><time datetime=\"{0}\">{1}</time></h2>\n<p class=\"text\">{2}</p>\n",
        escaped(&event.captured),
        escaped(&time(&event.captured)),
        escaped(text)
    );
    let values = values(event);
    if !values.is_empty() {
        section.push_str("<dl>\n");
        for (label, value) in values {
            // Into a string nothing fails.
            let _ = writeln!(section, "<dt>{}</dt><dd>{}</dd>", escaped(&label), escaped(&value));
        }
        section.push_str("</dl>\n");
    }
    for picture in &event.pictures {
        section.push_str(&figure(folder, place, picture));
    }
    section.push_str("</section>\n");
    section
}

fn figure(folder: &Path, place: &Path, picture: &Picture) -> String {
    let of = [picture.camera.as_str(), &picture.stream].into_iter().filter(|part| !part.is_empty());
    let caption = of.collect::<Vec<_>>().join(" ");
    let mut figure = "<figure>\n".to_owned();
    match address(folder, place, &picture.snapshot) {
        Ok(address) => {
            let alt = escaped(&format!("Picture of {caption}"));
            let _ =
                writeln!(figure, "<a href=\"{address}\"><img src=\"{address}\" alt=\"{alt}\" loading=\"lazy\"></a>");
        }
        Err(reason) => {
            let _ = writeln!(figure, "<p class=\"failed\">No picture: {}</p>", escaped(&reason));
        }
    }
    let clip = match address(folder, place, &picture.clip) {
        Ok(address) => format!("<a href=\"{address}\">Clip</a>"),
        Err(reason) => format!("<span class=\"failed\">No clip: {}</span>", escaped(&reason)),
    };
    let remarks = picture.remarks.iter().map(|remark| format!(" {}", escaped(remark))).collect::<String>();
    let captured = escaped(&time(&picture.captured));
    let _ = writeln!(figure, "<figcaption>{}, {captured}. {clip}.{remarks}</figcaption>\n</figure>", escaped(&caption));
    figure
}

/// Position, depth and heading, then all that was measured, once each.
fn values(event: &Event) -> Vec<(String, String)> {
    let Place { latitude, longitude, depth, heading } = event.place;
    let position =
        latitude.zip(longitude).map(|(latitude, longitude)| format!("{latitude:.6}\u{b0}, {longitude:.6}\u{b0}"));
    let known = [
        ("Position", position),
        ("Depth", depth.map(|depth| format!("{depth:.1} m"))),
        ("Heading", heading.map(|heading| format!("{heading:.0}\u{b0}"))),
    ];
    let mut values: Vec<_> = known.into_iter().filter_map(|(label, value)| Some((label.to_owned(), value?))).collect();
    let has = |name: &str| {
        let of_position = ["latitude", "longitude"].contains(&name) && latitude.is_some() && longitude.is_some();
        of_position || name == "depth" && depth.is_some() || name == "heading" && heading.is_some()
    };
    let others = event.telemetry.iter().filter(|(name, _)| !has(name));
    values.extend(others.map(|(name, value)| (name.clone(), value.text.clone())));
    values
}

/// Of a file of the event, as the page finds it beside itself.
fn address(folder: &Path, place: &Path, part: &Part) -> Result<String, String> {
    let file = match part {
        // What was to come may have.
        Part::File(file) | Part::Awaited(file) => file,
        Part::Failed(reason) => return Err(reason.clone()),
    };
    // Nothing outside of the folder of the event, whatever somebody has written into its file.
    let mut components = Path::new(file).components();
    let is_name = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if !is_name || !folder.join(place).join(file).is_file() {
        return Err(match part {
            Part::Awaited(_) => packed_clip(folder, place).unwrap_or_else(|| NOT_COME.to_owned()),
            _ => format!("the file {file} is not there"),
        });
    }
    let names = place.iter().filter_map(|name| name.to_str()).chain([file.as_str()]);
    Ok(format!("./{}", names.map(encoded).collect::<Vec<_>>().join("/")))
}

/// Where the clip of an event of the page is, if that is not unpacked.
fn packed_clip(folder: &Path, place: &Path) -> Option<String> {
    let file = format!("{}_clip.zip", place.file_name()?.to_str()?);
    folder.join(&file).is_file().then(|| format!("it is in {file}, which is not unpacked"))
}

/// As RFC 3986 has it: nothing in it means anything in HTML.
fn encoded(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(encode).collect()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // What turns the direction of writing, or is no letter at all.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            letter if letter.is_control() && letter != '\n' => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Of RFC 3339, for people: `2026-11-30 19:30:12`.
fn time(captured: &str) -> String {
    captured.split('.').next().unwrap_or_default().replace('T', " ")
}

fn day(captured: &str) -> &str {
    captured.split('T').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rov_common::overlay::Value;

    use super::*;

    const HOSTILE: &str = "<script>alert('&')</script>\"onload=\"x";

    fn event(captured: &str, text: &str) -> Event {
        let value = Value { value: Some(3.5), text: format!("3.5 {HOSTILE}"), age_ms: 10 };
        Event {
            text: text.to_owned(),
            captured: captured.to_owned(),
            vehicle: "Nemo".to_owned(),
            pictures: vec![Picture {
                camera: HOSTILE.to_owned(),
                stream: "stream1".to_owned(),
                captured: captured.to_owned(),
                remarks: vec![HOSTILE.to_owned()],
                snapshot: Part::File("snapshot.jpg".to_owned()),
                clip: Part::Failed(format!("refused: {HOSTILE}")),
            }],
            place: Place { depth: Some(12.34), heading: Some(271.5), ..Place::default() },
            telemetry: [(HOSTILE.to_owned(), value.clone()), ("depth".to_owned(), value)].into(),
        }
    }

    fn dive(events: &[(&str, Event)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, event) in events {
            let path = folder.path().join(name);
            fs::create_dir(&path).expect("a folder");
            fs::write(path.join(event::FILE), serde_json::to_vec(event).expect("JSON")).expect("a file");
            fs::write(path.join("snapshot.jpg"), b"picture").expect("a file");
        }
        folder
    }

    #[test]
    fn no_text_turns_the_direction_of_writing() {
        assert_eq!(escaped("a\u{202e}b\u{2066}c\u{7}<"), "abc &lt;");
    }

    #[test]
    fn a_report_tells_each_event_in_order_and_whatever_is_in_it_is_text() {
        let folder = dive(&[
            ("later", event("2026-11-30T19:40:00.000000Z", "second")),
            ("a \"b\" #1", event("2026-11-30T19:30:12.345678Z", HOSTILE)),
        ]);
        fs::create_dir(folder.path().join("broken")).expect("a folder");
        fs::write(folder.path().join("broken").join(event::FILE), "{").expect("a file");
        fs::create_dir(folder.path().join("no event")).expect("a folder");
        let (path, events) = write(folder.path()).expect("a report");
        assert_eq!((path.file_name().and_then(|name| name.to_str()), events), (Some("report.html"), 3));
        let page = fs::read_to_string(path).expect("the page");
        assert!(page.contains("<h1>Nemo, 2026-11-30</h1>"), "{page}");
        assert!(!page.contains("<script") && !page.contains("\"onload") && !page.contains("http"), "{page}");
        assert_eq!(
            page.matches("&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;&quot;onload=&quot;x").count(),
            13,
            "each is text"
        );
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} in {page}"));
        assert!(at("19:30:12</time>") < at("second") && at("second") < at("broken"));
        assert!(
            page.contains("src=\"./a%20%22b%22%20%231/snapshot.jpg\"") && page.contains("src=\"./later/snapshot.jpg\"")
        );
        assert!(page.contains("<dt>Depth</dt><dd>12.3 m</dd>") && page.contains("<dt>Heading</dt><dd>272\u{b0}</dd>"));
        assert_eq!(page.matches("<dt>depth</dt>").count(), 0, "once");
        // Again: it takes its own place.
        assert_eq!(write(folder.path()).expect("a report").1, 3);
    }

    #[test]
    fn files_outside_of_the_event_and_those_that_are_gone_are_not_shown() {
        let folder = dive(&[("one", event("2026-11-30T19:30:12.345678Z", "text"))]);
        fs::write(folder.path().join("secret.jpg"), b"x").expect("a file");
        for file in ["../secret.jpg", "/etc/passwd", "", ".", "gone.jpg", "a/b"] {
            let part = Part::File(file.to_owned());
            let address = address(folder.path(), Path::new("one"), &part);
            assert!(address.is_err_and(|why| why.contains("is not there")), "{file}");
        }
        // A power cut came before what the file says of it.
        for (part, is_there) in [
            (Part::File("snapshot.jpg".to_owned()), true),
            (Part::Awaited("snapshot.jpg".to_owned()), true),
            (Part::Awaited("clip.mp4".to_owned()), false),
        ] {
            let address = address(folder.path(), Path::new("one"), &part);
            let expected = if is_there { Ok("./one/snapshot.jpg".to_owned()) } else { Err(NOT_COME.to_owned()) };
            assert_eq!(address, expected);
        }
    }

    #[test]
    fn events_of_the_page_are_told_however_they_were_unpacked_and_counted_where_they_were_not() {
        let name = |number: u32| format!("2026-11-30_19-30-1{number}.000Z_Nemo_bow_stream1");
        let noted = |number: u32, clip: Part| {
            let mut event = event(&format!("2026-11-30T19:30:1{number}.000000Z"), &format!("event {number}"));
            event.pictures[0].clip = clip;
            event
        };
        let follows = Part::Awaited("clip.mp4".to_owned());
        // Both into one folder, where the first is what stays; in a folder of its own; both files in folders of their
        // own.
        let first = format!("{}_event", name(1));
        let folder = dive(&[(&first, noted(1, follows.clone()))]);
        fs::write(folder.path().join(&first).join("clip.mp4"), b"clip").expect("a file");
        let unpack = |inside: String, event: &Event| {
            let path = folder.path().join(inside);
            fs::create_dir_all(&path).expect("a folder");
            fs::write(path.join(event::FILE), serde_json::to_vec(event).expect("JSON")).expect("a file");
            fs::write(path.join("snapshot.jpg"), b"picture").expect("a file");
            path
        };
        unpack(format!("{0}_event/{0}_event", name(2)), &noted(2, follows.clone()));
        unpack(format!("{0}_event/{0}_event", name(3)), &noted(3, follows));
        let whole = noted(3, Part::File("clip.mp4".to_owned()));
        let clip = unpack(format!("{0}_event_clip/{0}_event", name(3)), &whole);
        fs::write(clip.join("clip.mp4"), b"clip").expect("a file");
        for file in [1, 2, 3, 4].map(|number| format!("{}_event.zip", name(number))) {
            fs::write(folder.path().join(file), b"PK").expect("a file");
        }
        for file in [1, 2, 3].map(|number| format!("{}_event_clip.zip", name(number))) {
            fs::write(folder.path().join(file), b"PK").expect("a file");
        }
        let (path, events) = write(folder.path()).expect("a report");
        let page = fs::read_to_string(path).expect("the page");
        assert_eq!((events, page.matches("<section>").count()), (3, 3));
        let (second, third) = (name(2), name(3));
        assert!(page.contains(&format!("src=\"./{second}_event/{second}_event/snapshot.jpg\"")), "{page}");
        assert!(page.contains(&format!("href=\"./{third}_event_clip/{third}_event/clip.mp4\"")), "{page}");
        assert!(page.contains(&format!("href=\"./{first}/clip.mp4\"")), "{page}");
        let in_zip = format!("No clip: it is in {second}_event_clip.zip, which is not unpacked");
        assert!(page.contains(&in_zip), "{page}");
        let packed = format!("not unpacked: 2: {}_event_clip.zip, {}_event.zip", name(2), name(4));
        assert!(page.contains(&packed), "{page}");
    }

    #[test]
    fn a_folder_without_events_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(write(folder.path()).is_err_and(|why| why.contains("no events in it")));
        assert!(write(&folder.path().join("none")).is_err_and(|why| why.contains("cannot be read")));
        fs::write(folder.path().join("a_event.zip"), b"PK").expect("a file");
        assert!(write(folder.path()).is_err_and(|why| why.contains("not unpacked: 1: a_event.zip")));
    }
}
