//! The discovery messages: one JSON object in one UDP datagram each. Described for other implementers in
//! `docs/discovery.md`.
//!
//! What comes from the network is shortened, stripped of control characters and checked here, so that it can be printed
//! and used as it is. Pure: the sockets are in `discovery` of the server and of the client.

pub mod interfaces;

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};
use thiserror::Error;

/// The UDP port that servers listen on and announce to.
pub const DEFAULT_PORT: u16 = 5003;
/// The version of the format. A change that old readers would misunderstand raises it; new fields do not.
pub const VERSION: u32 = 1;
/// The longest datagram in bytes: below the payload of an Ethernet frame, so that it is never fragmented.
pub const MAX_DATAGRAM: usize = 1400;
/// Streams in one announcement.
pub const MAX_STREAMS: usize = 16;

/// Bytes of UTF-8.
const MAX_ID: usize = 64;
/// Hexadecimal digits.
const KEY: usize = 64;
const MAX_NAME: usize = 64;
const MAX_VERSION: usize = 32;
const MAX_PATH: usize = 64;
const MAX_STREAM_NAME: usize = 32;
const MAX_WORD: usize = 16;
const MAX_TRANSPORTS: usize = 8;
/// Pixels of a side: twice what any level of H.264 permits.
const MAX_SIDE: u64 = 32_768;
const MAX_FPS: f64 = 1000.0;

/// One datagram.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is not kept")]
pub enum Message {
    Announce(Announcement),
    Query(Query),
}

/// What a server says about itself, by broadcast once a second and in answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// The version of the format; [`encode`] always writes [`VERSION`].
    pub v: u32,
    /// Stable over restarts and unique to one server on one machine; 64 bytes at most.
    pub id: String,
    /// SHA-256 of the certificate that the server proves itself with by DTLS, as [`key_of`] writes it; none: it proves
    /// nothing.
    pub key: Option<String>,
    /// Random at each start of the server: two at once with one `key` are two machines. None: not known.
    pub run: Option<u32>,
    /// HTTP signalling is HTTPS, with the certificate of this SHA-256, as [`key_of`] writes it; none: in clear.
    pub tls: Option<String>,
    /// What the user calls the server; 64 bytes at most.
    pub name: String,
    /// Of the server program.
    pub version: String,
    /// The TCP port of HTTP signalling, at the address that the datagram comes from.
    pub signal_port: u16,
    /// The path of WHEP on that port.
    pub whep: String,
    /// How video can be fetched: `webrtc`, `rtp`, `rtsp`, and others in later versions.
    pub transports: Vec<String>,
    /// Where plain RTP is sent, if it is.
    pub rtp: Option<RtpInfo>,
    /// Where RTSP is served, if it is, at the address that the datagram comes from.
    pub rtsp: Option<RtspInfo>,
    /// The first 16 at most, or fewer if the datagram would not hold their names.
    pub streams: Vec<StreamInfo>,
}

/// The destination of plain RTP; RTCP goes to the port above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpInfo {
    /// The multicast group, or the one address that is sent to.
    pub host: Ipv4Addr,
    pub port: u16,
    /// Repair packets (RFC 8627) go to `port` + 2.
    pub fec: bool,
    /// The synchronisation source of its packets (RFC 3550), which differs at each start; none: not known.
    pub ssrc: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtspInfo {
    /// A TCP port.
    pub port: u16,
    /// As `/stream1`.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StreamInfo {
    pub name: String,
    /// As `h264`. Text, because a later server may have a codec that this reader does not know.
    pub codec: String,
    /// Pixels; 0 while unknown.
    pub width: u32,
    pub height: u32,
    /// Frames per second; 0 while unknown.
    pub fps: f64,
}

/// Asks servers to announce themselves to the asker at once. With a filter only those answer that match all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub id: Option<String>,
    pub name: Option<String>,
}

impl Query {
    /// Whether the server is one that was asked for.
    pub fn matches(&self, announcement: &Announcement) -> bool {
        self.id.as_ref().is_none_or(|id| *id == announcement.id)
            && self.name.as_ref().is_none_or(|name| *name == announcement.name)
    }

    /// Whether it asks for all servers.
    pub fn is_open(&self) -> bool {
        self.id.is_none() && self.name.is_none()
    }
}

/// Why a datagram was ignored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("not a discovery message")]
    NotOurs,
    #[error("longer than {MAX_DATAGRAM} bytes")]
    TooLarge,
    #[error("format version {0}, newer than the {VERSION} known here: update this program")]
    NewerVersion(u64),
    #[error("the field `{0}` is missing or invalid")]
    InvalidField(&'static str),
}

/// The datagram of a message, at most [`MAX_DATAGRAM`] bytes long: texts are shortened, then sizes and rates of streams
/// left out from the end, then whole streams, until it fits.
pub fn encode(message: &Message) -> Vec<u8> {
    match message {
        Message::Query(query) => {
            let mut object = Map::from_iter([("rov".to_owned(), json!("query")), ("v".to_owned(), json!(VERSION))]);
            for (key, filter, limit) in [("id", &query.id, MAX_ID), ("name", &query.name, MAX_NAME)] {
                if let Some(text) = filter {
                    object.insert(key.to_owned(), clean(text, limit).into());
                }
            }
            Value::Object(object).to_string().into_bytes()
        }
        Message::Announce(announcement) => {
            // Without streams the limits of the texts keep it below 1200 bytes, even if each character has to be
            // escaped.
            let mut streams = announcement.streams.len().min(MAX_STREAMS);
            // Which streams there are matters more than what they are like, which `/api/stats` says too.
            let mut formats = streams;
            loop {
                let datagram = encode_announcement(announcement, streams, formats);
                if datagram.len() <= MAX_DATAGRAM || streams == 0 {
                    return datagram;
                }
                match formats {
                    0 => streams -= 1,
                    _ => formats -= 1,
                }
            }
        }
    }
}

/// With so many of the streams, and so many of these with size and rate.
fn encode_announcement(announcement: &Announcement, streams: usize, formats: usize) -> Vec<u8> {
    let transports: Vec<_> =
        announcement.transports.iter().take(MAX_TRANSPORTS).map(|word| clean(word, MAX_WORD)).collect();
    let stream = |(at, stream): (usize, &StreamInfo)| {
        let mut object =
            json!({ "name": clean(&stream.name, MAX_STREAM_NAME), "codec": clean(&stream.codec, MAX_WORD) });
        if at < formats {
            object["width"] = json!(stream.width);
            object["height"] = json!(stream.height);
            object["fps"] = json!(if stream.fps.is_finite() { stream.fps } else { 0.0 });
        }
        object
    };
    let streams: Vec<_> = announcement.streams[..streams].iter().enumerate().map(stream).collect();
    let mut object = json!({
        "rov": "announce",
        "v": VERSION,
        "id": clean(&announcement.id, MAX_ID),
        "name": clean(&announcement.name, MAX_NAME),
        "version": clean(&announcement.version, MAX_VERSION),
        "signal_port": announcement.signal_port,
        "whep": clean(&announcement.whep, MAX_PATH),
        "transports": transports,
        "streams": streams,
    });
    if let Some(key) = &announcement.key {
        object["key"] = json!(key);
    }
    if let Some(tls) = &announcement.tls {
        // Most often it is that of the key, and room is short.
        object["tls"] = if announcement.key.as_ref() == Some(tls) { json!(true) } else { json!(tls) };
    }
    if let Some(run) = announcement.run {
        object["run"] = json!(run);
    }
    if let Some(RtpInfo { host, port, fec, ssrc }) = announcement.rtp {
        object["rtp"] = json!({ "host": host.to_string(), "port": port, "fec": fec });
        if let Some(ssrc) = ssrc {
            object["rtp"]["ssrc"] = json!(ssrc);
        }
    }
    if let Some(RtspInfo { port, path }) = &announcement.rtsp {
        object["rtsp"] = json!({ "port": port, "path": clean(path, MAX_PATH) });
    }
    object.to_string().into_bytes()
}

/// Reads a datagram. Fields that are not known are ignored; too many streams or transports are cut off.
///
/// # Errors
/// See [`DecodeError`]. A receive buffer must be longer than [`MAX_DATAGRAM`], or datagrams that are too large look
/// like damaged ones.
pub fn decode(datagram: &[u8]) -> Result<Message, DecodeError> {
    if datagram.len() > MAX_DATAGRAM {
        return Err(DecodeError::TooLarge);
    }
    let Ok(Value::Object(object)) = serde_json::from_slice(datagram) else { return Err(DecodeError::NotOurs) };
    let Some(kind) = object.get("rov").and_then(Value::as_str) else { return Err(DecodeError::NotOurs) };
    match object.get("v").and_then(Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) if version > u64::from(VERSION) => return Err(DecodeError::NewerVersion(version)),
        _ => return Err(DecodeError::InvalidField("v")),
    }
    match kind {
        "announce" => announcement(&object).map(Message::Announce),
        "query" => {
            let id = text(&object, "id", MAX_ID)?;
            Ok(Message::Query(Query { id, name: text(&object, "name", MAX_NAME)? }))
        }
        _ => Err(DecodeError::InvalidField("rov")),
    }
}

/// The fingerprint of a certificate (RFC 8122) as announcements carry it: `AA:BB:...` in, `aabb...` out. None if it is
/// not that of a SHA-256.
pub fn key_of(fingerprint: &str) -> Option<String> {
    let key = fingerprint.replace(':', "").to_ascii_lowercase();
    (key.len() == KEY && key.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(key)
}

/// Text for a terminal and for comparisons: without control characters and marks that turn the writing direction,
/// without spaces at the ends, and at most `max_bytes` long.
pub fn clean(text: &str, max_bytes: usize) -> String {
    let is_harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut length = 0;
    // Bounded before it is collected: the text may come from the network.
    let kept: String = text
        .trim()
        .chars()
        .filter(|&c| !is_harmful(c))
        .take_while(|c| {
            length += c.len_utf8();
            length <= max_bytes
        })
        .collect();
    kept.trim().to_owned()
}

fn announcement(object: &Map<String, Value>) -> Result<Announcement, DecodeError> {
    let id = text(object, "id", MAX_ID)?.filter(|id| !id.is_empty()).ok_or(DecodeError::InvalidField("id"))?;
    let signal_port = object.get("signal_port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let whep = text(object, "whep", MAX_PATH)?.unwrap_or_else(|| crate::api::WHEP_PATH.to_owned());
    if !is_path(&whep) {
        return Err(DecodeError::InvalidField("whep"));
    }
    let transports = match list(object, "transports")? {
        Some(words) => {
            words.iter().take(MAX_TRANSPORTS).map(|word| word.as_str().map(|word| clean(word, MAX_WORD))).collect()
        }
        None => Some(vec!["webrtc".to_owned()]),
    };
    let streams = list(object, "streams")?.unwrap_or_default();
    let key = fingerprint(object, "key")?;
    let tls = match object.get("tls") {
        Some(Value::Bool(true)) => Some(key.clone().ok_or(DecodeError::InvalidField("tls"))?),
        _ => fingerprint(object, "tls")?,
    };
    Ok(Announcement {
        v: VERSION,
        id,
        key,
        tls,
        run: number(object, "run")?,
        name: text(object, "name", MAX_NAME)?.unwrap_or_default(),
        version: text(object, "version", MAX_VERSION)?.unwrap_or_default(),
        signal_port: signal_port.filter(|&port| port != 0).ok_or(DecodeError::InvalidField("signal_port"))?,
        whep,
        transports: transports.ok_or(DecodeError::InvalidField("transports"))?,
        rtp: section(object, "rtp", rtp)?,
        rtsp: section(object, "rtsp", rtsp)?,
        streams: streams.iter().take(MAX_STREAMS).map(stream).collect::<Result<_, _>>()?,
    })
}

fn fingerprint(object: &Map<String, Value>, key: &'static str) -> Result<Option<String>, DecodeError> {
    text(object, key, KEY)?.map(|value| key_of(&value).ok_or(DecodeError::InvalidField(key))).transpose()
}

/// It becomes part of a URL.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic())
}

/// `None` if it is absent or null.
fn number(object: &Map<String, Value>, key: &'static str) -> Result<Option<u32>, DecodeError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            number.map(Some).ok_or(DecodeError::InvalidField(key))
        }
    }
}

/// An object within the announcement; `None` if it is absent or null.
fn section<T>(
    object: &Map<String, Value>,
    key: &'static str,
    read: impl Fn(&Map<String, Value>) -> Option<T>,
) -> Result<Option<T>, DecodeError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_object().and_then(read).map(Some).ok_or(DecodeError::InvalidField(key)),
    }
}

fn rtp(object: &Map<String, Value>) -> Option<RtpInfo> {
    let host = object.get("host")?.as_str()?.parse().ok()?;
    let fec = object.get("fec").is_some_and(|fec| fec == &Value::Bool(true));
    let ssrc = number(object, "ssrc").ok()?;
    // Room for RTCP and for repair packets above it.
    Some(RtpInfo { host, port: port(object).filter(|port| *port <= u16::MAX - 2)?, fec, ssrc })
}

fn rtsp(object: &Map<String, Value>) -> Option<RtspInfo> {
    let path = text(object, "path", MAX_PATH).ok()??;
    is_path(&path).then_some(RtspInfo { port: port(object)?, path })
}

fn port(object: &Map<String, Value>) -> Option<u16> {
    object.get("port")?.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0)
}

fn stream(value: &Value) -> Result<StreamInfo, DecodeError> {
    const INVALID: DecodeError = DecodeError::InvalidField("streams");
    let object = value.as_object().ok_or(INVALID)?;
    let side = |key| match object.get(key) {
        None => Ok(0),
        Some(value) => value.as_u64().filter(|&side| side <= MAX_SIDE).map(|side| side as u32).ok_or(INVALID),
    };
    let fps = match object.get("fps") {
        None => 0.0,
        Some(value) => value.as_f64().filter(|fps| (0.0..=MAX_FPS).contains(fps)).ok_or(INVALID)?,
    };
    Ok(StreamInfo {
        name: text(object, "name", MAX_STREAM_NAME)?.ok_or(INVALID)?,
        codec: text(object, "codec", MAX_WORD)?.ok_or(INVALID)?,
        width: side("width")?,
        height: side("height")?,
        fps,
    })
}

/// A cleaned text; `None` if the field is absent or null.
fn text(object: &Map<String, Value>, key: &'static str, max_bytes: usize) -> Result<Option<String>, DecodeError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(clean(text, max_bytes))),
        Some(_) => Err(DecodeError::InvalidField(key)),
    }
}

fn list<'a>(object: &'a Map<String, Value>, key: &'static str) -> Result<Option<&'a [Value]>, DecodeError> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::Array(values)) => Ok(Some(values)),
        Some(_) => Err(DecodeError::InvalidField(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_named(name: &str) -> StreamInfo {
        StreamInfo { name: name.to_owned(), codec: "h264".to_owned(), width: 1920, height: 1080, fps: 30000.0 / 1001.0 }
    }

    fn sample() -> Announcement {
        Announcement {
            v: VERSION,
            id: "6f1c8b1e-8d4f-5a51-9d35-0d8a6b1f2c3d".to_owned(),
            key: Some("0d".repeat(32)),
            tls: Some("1e".repeat(32)),
            run: Some(4_000_000_000),
            name: "ROV “Nemo”".to_owned(),
            version: "0.1.0".to_owned(),
            signal_port: 5002,
            whep: "/whep".to_owned(),
            transports: vec!["webrtc".to_owned(), "rtp".to_owned(), "rtsp".to_owned()],
            rtp: Some(RtpInfo { host: Ipv4Addr::new(239, 255, 0, 1), port: 5004, fec: true, ssrc: Some(7) }),
            rtsp: Some(RtspInfo { port: 8554, path: "/stream1".to_owned() }),
            streams: vec![stream_named("stream1"), stream_named("stream2")],
        }
    }

    #[test]
    fn announcements_of_the_first_release_are_read_and_it_reads_those_of_now() {
        let before = r#"{"rov":"announce","v":1,"id":"6f1c","name":"bow","version":"0.1.0","signal_port":8080,
            "whep":"/whep","transports":["webrtc","rtp","rtsp"],"rtp":{"host":"239.255.0.1","port":5004,"fec":true},
            "rtsp":{"port":8554,"path":"/stream1"},
            "streams":[{"name":"stream1","codec":"h264","width":1280,"height":720,"fps":30.0}]}"#;
        let Ok(Message::Announce(read)) = decode_text(before) else { panic!("{:?}", decode_text(before)) };
        assert_eq!((read.key.as_deref(), read.run, read.tls.as_deref()), (None, None, None));
        let before: Value = serde_json::from_str(before).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&encode(&Message::Announce(read.clone()))).unwrap(), before);
        // That release takes no notice of fields that it does not know.
        let now = Announcement { key: Some("0d".repeat(32)), run: Some(7), tls: Some("0d".repeat(32)), ..read };
        let mut now: Value = serde_json::from_slice(&encode(&Message::Announce(now))).unwrap();
        for later in ["key", "run", "tls"] {
            assert!(now.as_object_mut().unwrap().remove(later).is_some(), "{later}");
        }
        assert_eq!(now, before);
    }

    fn decode_text(text: &str) -> Result<Message, DecodeError> {
        decode(text.as_bytes())
    }

    #[test]
    fn messages_survive_the_wire() {
        let filtered = Query { id: Some("a".to_owned()), name: Some("b".to_owned()) };
        for message in [Message::Announce(sample()), Message::Query(Query::default()), Message::Query(filtered)] {
            assert_eq!(decode(&encode(&message)), Ok(message));
        }
    }

    #[test]
    fn messages_describe_themselves() {
        assert_eq!(encode(&Message::Query(Query::default())), br#"{"rov":"query","v":1}"#);
        let object: Value = serde_json::from_slice(&encode(&Message::Announce(sample()))).unwrap();
        assert_eq!(
            (&object["rov"], &object["v"], &object["signal_port"]),
            (&json!("announce"), &json!(1), &json!(5002))
        );
    }

    #[test]
    fn the_longest_announcement_fits_into_a_datagram() {
        for filler in ["\"", "\\", "é", "名", "x", "\u{1f980}"] {
            let long = filler.repeat(5000);
            let announcement = Announcement {
                v: VERSION,
                id: long.clone(),
                key: Some("f".repeat(KEY)),
                tls: Some("f".repeat(KEY)),
                run: Some(u32::MAX),
                name: long.clone(),
                version: long.clone(),
                signal_port: 65_535,
                whep: long.clone(),
                transports: vec![long.clone(); 100],
                rtp: Some(RtpInfo { host: Ipv4Addr::BROADCAST, port: 65_533, fec: false, ssrc: Some(u32::MAX) }),
                rtsp: Some(RtspInfo { port: 65_535, path: long.clone() }),
                streams: vec![
                    StreamInfo {
                        name: long.clone(),
                        codec: long,
                        width: u32::MAX,
                        height: u32::MAX,
                        fps: -f64::MAX
                    };
                    1000
                ],
            };
            let bytes = encode(&Message::Announce(announcement)).len();
            assert!(bytes <= MAX_DATAGRAM, "{bytes} bytes with {filler:?}");
        }
    }

    #[test]
    fn eight_cameras_of_two_streams_all_fit_with_the_longest_names() {
        // Of a camera and its stream together; the first camera's streams have no camera in their names.
        let long = |at: usize| format!("{}{at:02}", "n".repeat(MAX_STREAM_NAME - 2));
        let longest =
            Announcement { name: "N".repeat(MAX_NAME), version: "10.10.10".to_owned(), tls: sample().key, ..sample() };
        for (announcement, name) in
            [(longest, &long as &dyn Fn(usize) -> String), (sample(), &|at| format!("cam/s{at}"))]
        {
            let streams: Vec<_> = (0..16).map(|at| stream_named(&name(at))).collect();
            let datagram = encode(&Message::Announce(Announcement { streams: streams.clone(), ..announcement }));
            assert!(datagram.len() <= MAX_DATAGRAM, "{} bytes", datagram.len());
            let Ok(Message::Announce(read)) = decode(&datagram) else { panic!() };
            assert!(read.tls.is_some());
            let names: Vec<_> = read.streams.iter().map(|stream| stream.name.clone()).collect();
            assert_eq!(names, (0..16).map(name).collect::<Vec<_>>());
            let formats = read.streams.iter().position(|stream| stream.width == 0).expect("some that had no room");
            assert_eq!(read.streams[..formats], streams[..formats]);
            assert!(read.streams[formats..].iter().all(|stream| (stream.height, stream.fps) == (0, 0.0)));
        }
    }

    #[test]
    fn fields_of_a_later_version_are_ignored_and_missing_ones_defaulted() {
        let read = decode_text(r#"{"rov":"announce","v":1,"id":"a","signal_port":80,"colour":{"deep":[1]}}"#);
        let Ok(Message::Announce(read)) = read else { panic!("{read:?}") };
        assert_eq!((read.whep.as_str(), read.name.as_str(), read.streams.len()), ("/whep", "", 0));
        assert_eq!(read.transports, ["webrtc"]);
    }

    #[test]
    fn a_newer_format_is_told_from_garbage() {
        assert_eq!(
            decode_text(r#"{"rov":"announce","v":2,"everything":"different"}"#),
            Err(DecodeError::NewerVersion(2))
        );
        for garbage in
            ["", "hello", "{", "[]", "null", "{}", r#"{"v":1}"#, r#"{"rov":1,"v":1}"#, "{\"rov\":\"query\",\"v\":1}x"]
        {
            assert_eq!(decode_text(garbage), Err(DecodeError::NotOurs), "{garbage}");
        }
        assert_eq!(decode(&[0xff; 100]), Err(DecodeError::NotOurs));
        assert_eq!(decode(&[b'['; MAX_DATAGRAM]), Err(DecodeError::NotOurs));
        assert_eq!(decode(&[b' '; MAX_DATAGRAM + 1]), Err(DecodeError::TooLarge));
    }

    #[test]
    fn an_invalid_field_is_named() {
        let cases = [
            (r#"{"rov":"announce","v":"1"}"#, "v"),
            (r#"{"rov":"announce","v":0}"#, "v"),
            (r#"{"rov":"shout","v":1}"#, "rov"),
            (r#"{"rov":"query","v":1,"name":3}"#, "name"),
            (r#"{"rov":"announce","v":1,"signal_port":80}"#, "id"),
            (r#"{"rov":"announce","v":1,"id":"\u0007","signal_port":80}"#, "id"),
            (r#"{"rov":"announce","v":1,"id":"a"}"#, "signal_port"),
            (r#"{"rov":"announce","v":1,"id":"a","key":"0d","signal_port":80}"#, "key"),
            (r#"{"rov":"announce","v":1,"id":"a","run":4294967296,"signal_port":80}"#, "run"),
            (r#"{"rov":"announce","v":1,"id":"a","signal_port":0}"#, "signal_port"),
            (r#"{"rov":"announce","v":1,"id":"a","signal_port":65536}"#, "signal_port"),
            (r#"{"rov":"announce","v":1,"id":"a","signal_port":80,"whep":"@evil/"}"#, "whep"),
            (r#"{"rov":"announce","v":1,"id":"a","signal_port":80,"whep":"/a b"}"#, "whep"),
            (r#"{"rov":"announce","v":1,"id":"a","signal_port":80,"transports":[1]}"#, "transports"),
            (r#"{"rov":"announce","v":1,"id":"a","signal_port":80,"rtp":{"host":"nowhere","port":5004}}"#, "rtp"),
            (r#"{"rov":"announce","v":1,"id":"a","signal_port":80,"rtp":{"host":"10.0.0.1","port":65535}}"#, "rtp"),
            (r#"{"rov":"announce","v":1,"id":"a","signal_port":80,"rtsp":{"port":8554,"path":"@evil"}}"#, "rtsp"),
            (r#"{"rov":"announce","v":1,"id":"a","signal_port":80,"streams":{}}"#, "streams"),
            (
                r#"{"rov":"announce","v":1,"id":"a","signal_port":80,"streams":[{"name":"s","codec":"h264","fps":-1}]}"#,
                "streams",
            ),
            (
                r#"{"rov":"announce","v":1,"id":"a","signal_port":80,"streams":[{"name":"s","codec":"h264","width":99999}]}"#,
                "streams",
            ),
        ];
        for (datagram, field) in cases {
            assert_eq!(decode_text(datagram), Err(DecodeError::InvalidField(field)), "{datagram}");
        }
    }

    #[test]
    fn texts_are_safe_to_print() {
        assert_eq!(clean(" \u{1b}[31mred\u{7}\r\n\u{202e}x \u{9b}", 64), "[31mredx");
        assert_eq!(clean("ééé", 5), "éé");
        assert_eq!(clean("  \t ", 64), "");
        let name = "\\u001b]0;title\\u0007";
        let read = decode_text(&format!(r#"{{"rov":"announce","v":1,"id":"a","signal_port":80,"name":"{name}"}}"#));
        let Ok(Message::Announce(read)) = read else { panic!("{read:?}") };
        assert_eq!(read.name, "]0;title");
    }

    #[test]
    fn lists_are_limited() {
        let streams = vec![r#"{"name":"s","codec":"h264"}"#; 40].join(",");
        let read =
            decode_text(&format!(r#"{{"rov":"announce","v":1,"id":"a","signal_port":80,"streams":[{streams}]}}"#));
        let Ok(Message::Announce(read)) = read else { panic!("{read:?}") };
        assert_eq!(read.streams.len(), MAX_STREAMS);
    }

    #[test]
    fn a_filter_must_match_in_all_its_parts() {
        let query =
            |id: Option<&str>, name: Option<&str>| Query { id: id.map(str::to_owned), name: name.map(str::to_owned) };
        let server = Announcement { id: "7".to_owned(), name: "Nemo".to_owned(), ..sample() };
        assert!(query(None, None).matches(&server) && query(None, None).is_open());
        assert!(query(Some("7"), Some("Nemo")).matches(&server));
        assert!(!query(Some("8"), Some("Nemo")).matches(&server));
        assert!(!query(None, Some("nemo")).matches(&server));
    }
}
