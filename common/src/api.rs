//! The JSON types of the HTTP API, for the server that writes them and the client that reads them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The path of WHEP signalling, and of the plain JSON offer.
pub const WHEP_PATH: &str = "/whep";
pub const OFFER_PATH: &str = "/offer";
/// The path of the session description of plain RTP.
pub const SDP_PATH: &str = "/stream.sdp";
/// The newest picture, and pictures at a low rate.
pub const SNAPSHOT_PATH: &str = "/snapshot.jpg";
pub const MJPEG_PATH: &str = "/stream.mjpg";
/// Recordings on the vehicle.
pub const RECORDINGS_PATH: &str = "/api/recordings";
/// The last seconds of a stream as a file.
pub const CLIP_PATH: &str = "/api/clip";
/// Whose answer it is: `id` and `key` of the statistics.
pub const SERVER_ID_HEADER: &str = "x-server-id";
pub const SERVER_KEY_HEADER: &str = "x-server-key";
/// Which pictures are kept of a stream, and these.
pub const RING_PATH: &str = "/api/ring";
pub const RING_PICTURES_PATH: &str = "/api/ring/pictures";
/// Who asks, and what that one may do.
pub const LOGIN_PATH: &str = "/api/login";

/// The clock of the times of capture.
pub const CLOCK_PATH: &str = "/api/clock";

/// Of a session's id, which is the last part of its URL and by which alone the session is changed or ended, what may be
/// shown to everybody: all before the first `-`.
pub fn public_id(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

/// The request and the reply of `POST /offer`, in the form of W3C `RTCSessionDescriptionInit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDescription {
    /// `offer` in a request, `answer` in a reply.
    #[serde(rename = "type")]
    pub kind: String,
    pub sdp: String,
}

/// The body of every reply that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
    /// The setting that cannot be so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The stream is MJPEG, which WebRTC does not carry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mjpeg: bool,
}

/// What a user may do; each more than those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Watch.
    Viewer,
    /// Watch, and change what can be changed.
    Controller,
}

impl Role {
    const ALL: [Self; 2] = [Self::Viewer, Self::Controller];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Controller => "controller",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(&Self::ALL, text)
    }
}

/// Who may watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Everybody.
    #[default]
    Open,
    /// Users alone.
    RequiresLogin,
}

impl View {
    const ALL: [Self; 2] = [Self::Open, Self::RequiresLogin];
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::RequiresLogin => "requires-login",
        })
    }
}

impl FromStr for View {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(&Self::ALL, text)
    }
}

pub(crate) fn named<T: fmt::Display + Copy>(all: &[T], text: &str) -> Result<T, String> {
    let found = all.iter().find(|one| one.to_string() == text);
    let names: Vec<_> = all.iter().map(T::to_string).collect();
    found.copied().ok_or_else(|| format!("must be {}", names.join(" or ")))
}

/// `GET /api/login`: who asks, and what that one may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginState {
    /// None: has not logged in.
    pub user: Option<String>,
    pub role: Option<Role>,
    pub may_watch: bool,
    pub may_change: bool,
    pub view: View,
    /// For whoever may watch.
    #[serde(default, rename = "iceServers", skip_serializing_if = "Vec::is_empty")]
    pub ice_servers: Vec<IceServer>,
}

/// A STUN or TURN server by which browsers find a path (`RTCIceServer`).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServer {
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// Not the credential, as this may go into logs.
impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IceServer").field(&self.urls).finish()
    }
}

/// `GET /api/clock`: the clock of the times of capture, from which clients know how old pictures are. In microseconds
/// since 1970, by a clock that never steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// When the question was received.
    pub received_us: u64,
    /// When the answer was sent.
    pub sent_us: u64,
    /// Another one after a restart of the server, which begins another clock.
    #[serde(default)]
    pub run: u64,
    /// With `?viewers=ID,ID`, by the names of these viewers by WebRTC: of the picture that was sent to each last.
    /// Browsers do not show the header extension that says when a picture was captured, but its timestamp.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pictures: BTreeMap<String, PictureTime>,
    /// By the names of the streams whose pictures are not live ones of their camera. None: a server of an earlier
    /// version, which does not say it here.
    #[serde(default)]
    pub doubts: Option<BTreeMap<String, PictureDoubt>>,
    /// The stream of those who name none. Empty: a server of an earlier version.
    #[serde(default)]
    pub first: String,
}

/// Why pictures that come are not live ones, as in [`StreamStats`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureDoubt {
    pub frozen: bool,
    pub substitute: bool,
    pub reason: String,
}

/// One moment by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureTime {
    /// That the picture has in the viewer's packets, in ticks of 90 kHz.
    pub rtp_timestamp: u32,
    pub captured_us: u64,
}

/// What a stream is doing now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    /// The pipeline is being built, or has not given its first picture.
    #[default]
    Starting,
    /// Pictures come, or would as soon as somebody looks.
    Running,
    /// Nothing comes from the source, which only whoever feeds it can mend: standard input.
    Stalled,
    /// The source was lost; it is being restarted.
    Restarting,
    /// The source ended (a file with `--no-loop`, or the end of standard input).
    Ended,
}

/// `GET /healthz`: 200 while every stream runs and shows what it should, 503 otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// `ok` or `degraded`.
    pub status: String,
    /// Stream name to its state and, unless it is well, the reason.
    pub streams: BTreeMap<String, StreamHealth>,
    #[serde(default)]
    pub cameras: Vec<CameraInfo>,
}

/// A camera and the names of its streams, as they are in `?stream=`: the first of the first is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraInfo {
    pub name: String,
    pub streams: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamHealth {
    pub state: StreamState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// As in [`StreamStats::resting`]; that is well.
    #[serde(default)]
    pub resting: bool,
    /// Of a stream that runs and is not well: `dropped_frames` (over 100 in the last minute), `errors` (over 10 in the
    /// last minute) or `no_bitrate` (nothing is encoded although somebody watches).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// As in [`StreamStats::notice`]; that is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// As `recording` in `GET /api/events`: it goes on, pauses, or takes another file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingEvent {
    pub stream: String,
    pub camera: String,
    #[serde(flatten)]
    pub stats: RecordingStats,
}

/// `GET /api/recordings`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recordings {
    pub free_bytes: u64,
    /// The newest first.
    pub recordings: Vec<Recording>,
}

/// A recording on the vehicle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    pub name: String,
    /// Camera and stream.
    pub label: String,
    /// When it begins, as RFC 3339 has it.
    pub begun: String,
    pub bytes: u64,
    /// It is being written.
    pub is_open: bool,
    /// Where it is, and the table of when its pictures were captured. Where a login is needed, these open them without
    /// for an hour.
    pub url: String,
    pub times_url: String,
    /// Likewise, of what the vehicle measured, as subtitles; none: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtitles_url: Option<String>,
}

/// What becomes of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordingState {
    #[default]
    Off,
    /// For a keyframe to begin with.
    Waiting,
    Recording,
    /// The disk is full, or cannot be written: `reason` says why. It goes on by itself.
    Paused,
}

/// How a stream is recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordingStats {
    pub state: RecordingState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The name of the one that is being written, and its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub bytes: u64,
    /// From its first picture to the newest.
    #[serde(default)]
    pub seconds: f64,
    /// Of all files since the program started.
    pub total_bytes: u64,
    /// In all of them, on the disk.
    #[serde(default)]
    pub pictures: u64,
    /// Until the disk is as full as it may get, at the bit rate of the last half minute; none where the oldest files
    /// make room, and while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// How often pictures are missing in between, and how many pictures.
    pub gaps: u64,
    pub missing: u64,
    /// The newest of them, the last one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub newest_gaps: Vec<RecordingGap>,
    /// The longest that the disk took for what was written at once.
    pub slowest_write_ms: f64,
}

/// What is kept of a stream in memory, for clips.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RingStats {
    /// From the oldest picture to the newest.
    pub seconds: f64,
    pub bytes: u64,
    /// Of the bytes.
    pub limit: u64,
    /// Of the seconds that a clip may be asked for.
    pub limit_seconds: u64,
}

/// Request header by which a client tells the time of day, in microseconds since 1970: with its WHEP offer and when it
/// reads the clock.
pub const CLIENT_TIME: &str = "x-client-time";

/// `GET /api/ring`: which pictures of a stream are kept. All times are those of capture, in microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingListing {
    /// Of the clock of captures: another run of the server has another.
    pub run: u64,
    /// The oldest that is kept: from there on none is missing. None: nothing is kept yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from_us: Option<u64>,
    /// The list ends there: before `to` where there are too many.
    pub until_us: u64,
    /// In their order.
    pub pictures_us: Vec<u64>,
}

/// Pictures that are in no recording although it was on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordingGap {
    /// When the first was captured, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    pub seconds: f64,
    pub pictures: u64,
    pub reason: String,
}

/// Of `GET /api/events`, as `state`: how a stream is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateEvent {
    pub stream: String,
    pub camera: String,
    #[serde(flatten)]
    pub health: StreamHealth,
}

/// As `alarm`: a stream is not well by the rules of `/healthz`, or is again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmEvent {
    pub stream: String,
    pub camera: String,
    pub raised: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// As `settings`: somebody has changed some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingsEvent {
    /// None: of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// None: of the camera.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    pub applied: BTreeMap<String, serde_json::Value>,
    pub waiting: BTreeMap<String, serde_json::Value>,
    /// The user's name.
    pub by: String,
}

/// `GET /api/stats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub id: String,
    /// As the announcement has it: SHA-256 of the certificate of its WebRTC sessions. None: of a server of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key could not be kept: after a restart it is another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key_is_of_this_run: bool,
    pub name: String,
    pub version: String,
    pub uptime_s: f64,
    /// That of the times in names and tables of recordings.
    #[serde(default)]
    pub clock: ClockSource,
    #[serde(default)]
    pub cameras: Vec<CameraInfo>,
    /// Of all cameras, the default first.
    pub streams: Vec<StreamStats>,
    /// Those by WebRTC.
    pub viewers: Vec<ViewerStats>,
    /// None while RTP is not among the transports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtp: Option<RtpStats>,
    /// None while RTSP is not among the transports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtsp: Option<RtspStats>,
    #[serde(default)]
    pub jpeg: JpegStats,
    /// None of a server that does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<Alignment>,
    /// Clients have something to write over the pictures: `/api/events` tells what.
    #[serde(default)]
    pub overlays: bool,
    /// None where none is received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<TelemetryStats>,
}

/// Whose clock tells the time of day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockSource {
    /// That of the server's machine.
    #[default]
    System,
    /// Nobody's: that one was not set at the start, and no client has told it yet.
    Unset,
    /// That of a client, told once.
    Client,
}

impl ClockSource {
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Unset => "unset",
            Self::Client => "client",
        }
    }
}

/// What telemetry has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetryStats {
    /// Where it is received, as the options say it.
    pub addresses: Vec<String>,
    pub datagrams: u64,
    /// Those with something wrong in them.
    pub refused: u64,
}

/// How clients are to show the cameras of this server beside each other, unless their pilots want it otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alignment {
    /// Pictures that were captured at one time are shown at one time.
    pub enabled: bool,
    pub method: AlignmentMethod,
    /// The longest that a picture waits for those of the other cameras.
    pub max_latency_ms: u32,
    /// Times of capture of pictures that belong together differ by no more.
    pub sync_tolerance_ms: u32,
}

impl Default for Alignment {
    fn default() -> Self {
        Self { enabled: false, method: AlignmentMethod::Timestamp, max_latency_ms: 100, sync_tolerance_ms: 33 }
    }
}

/// By what pictures belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlignmentMethod {
    /// The times of their capture.
    #[default]
    Timestamp,
}

/// Pictures of all streams as JPEG, which are made while somebody wants them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JpegStats {
    /// A stream is being decoded for it, which costs processor time.
    pub running: bool,
    /// Of the MJPEG stream.
    pub viewers: u64,
    /// Made so far.
    pub pictures: u64,
}

impl JpegStats {
    /// Of both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            running: self.running || other.running,
            viewers: self.viewers + other.viewers,
            pictures: self.pictures + other.pictures,
        }
    }
}

/// Plain RTP of all streams, whose receivers are not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RtpStats {
    /// `ADDRESS:PORT` of each destination, those of the default stream first.
    pub destinations: Vec<String>,
    /// Media and repair packets, to each destination by each interface.
    pub packets: u64,
    pub bytes: u64,
    /// Access units skipped because the output fell behind.
    pub skipped: u64,
    /// Packets that the system did not take.
    pub errors: u64,
}

impl RtpStats {
    /// Of both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            destinations: [self.destinations, other.destinations].concat(),
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            skipped: self.skipped + other.skipped,
            errors: self.errors + other.errors,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RtspStats {
    /// `rtsp://` addresses of this server, one for each path.
    pub urls: Vec<String>,
    /// `rtsp://` addresses of the previews by MJPEG.
    pub mjpeg_urls: Vec<String>,
    /// Sessions that play now, MJPEG as well.
    pub clients: u64,
    /// Access units skipped because the output fell behind.
    pub skipped: u64,
    /// Those that play now; looked at once a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<RtspSession>,
}

/// A client by RTSP that plays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RtspSession {
    /// `ADDRESS:PORT` of its RTSP connection.
    pub address: String,
    pub stream: String,
    /// It plays the previews by MJPEG.
    pub mjpeg: bool,
    pub transport: RtspCarrier,
    pub playing_s: f64,
    /// Bytes of video since it plays.
    pub bytes: u64,
    /// Share of packets lost, 0 to 1, by its last RTCP receiver report. This and what follows is left out before the
    /// first one, and where the reports of several clients cannot be told apart.
    #[serde(default, rename = "packetLoss", skip_serializing_if = "Option::is_none")]
    pub packet_loss: Option<f64>,
    /// How unevenly packets arrive, milliseconds, by the same (RFC 3550 section 6.4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// Round trip, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt: Option<f64>,
}

/// What a client by RTSP has its packets by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RtspCarrier {
    #[default]
    Udp,
    Multicast,
    Tcp,
}

/// What is known of when pictures were captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureTime {
    /// When they reached the server: how long they were on their way before is not known.
    #[default]
    Arrival,
    /// When the source captured them.
    Source,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamStats {
    /// With that of the camera before it, as `cam2/stream1`, where that is not the first.
    pub name: String,
    #[serde(default)]
    pub camera: String,
    pub state: StreamState,
    /// Why the stream does not run, or why it was last restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The source in words, as `test picture (NO CAMERA)`.
    pub source: String,
    /// What whoever watches has to know of the pictures, for a while: that another machine publishes them now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    #[serde(default)]
    pub capture_time: CaptureTime,
    /// The GStreamer element that encodes, or `passthrough`.
    pub encoder: String,
    pub codec: String,
    pub width: u32,
    pub height: u32,
    /// Raw pictures per second out of the source, over the last two seconds.
    pub fps_in: f64,
    /// Encoded pictures per second, over the last two seconds.
    pub fps_out: f64,
    /// Encoded kbit/s over the last two seconds.
    pub bitrate_kbps: f64,
    /// What the encoder was asked for, kbit/s; 0 for passthrough.
    pub target_bitrate_kbps: u32,
    pub frames: u64,
    pub keyframes: u64,
    /// Raw pictures left out because the encoder was busy.
    pub frames_dropped: u64,
    /// Pictures left out because the source gave them damaged, as JPEG that is cut off.
    #[serde(default)]
    pub frames_damaged: u64,
    /// Milliseconds from capture to encoded, mean over the last two seconds.
    pub encode_latency_ms: f64,
    pub restarts: u64,
    /// The camera gives the same picture again and again; `reason` says since when.
    #[serde(default)]
    pub frozen: bool,
    /// It is a test picture in the place of a camera; `reason` says why.
    #[serde(default)]
    pub substitute: bool,
    /// Nobody looks: pictures come in, and none are encoded until somebody does.
    #[serde(default)]
    pub resting: bool,
    /// `ADDRESS:PORT` of each destination by RTP; none while RTP is not among the transports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rtp: Vec<String>,
    /// The synchronisation source of its packets by RTP (RFC 3550), which differs at each start of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp_ssrc: Option<u32>,
    /// Who watches now: by WebRTC, RTSP and MJPEG. Receivers of plain RTP are not known.
    #[serde(default, rename = "clientCount")]
    pub client_count: u64,
    /// Bytes of video that were sent to all viewers since the server started; it never falls.
    #[serde(default, rename = "totalBytesStreamed")]
    pub total_bytes_streamed: u64,
    /// What is encoded, bit/s, over the last two seconds.
    #[serde(default, rename = "currentBitrate")]
    pub current_bitrate: u64,
    /// All pictures that were left out before they were sent: `frames_dropped` and `frames_damaged`.
    #[serde(default, rename = "frameDrops")]
    pub frame_drops: u64,
    /// Interruptions of the stream since the server started, and starts that failed.
    #[serde(default)]
    pub errors: u64,
    /// Seconds since the stream was interrupted last, or began; 0 while it does not run.
    #[serde(default)]
    pub uptime: f64,
    /// None where nothing can be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingStats>,
    /// None where nothing is kept for clips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStats>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ViewerStats {
    /// Its [`public_id`], which opens nothing.
    pub id: String,
    /// The name of the stream that it watches.
    #[serde(default)]
    pub stream: String,
    /// The viewer's address and port, once a path to it is found.
    pub address: String,
    /// `connecting`, `connected` or `closed`.
    pub state: String,
    pub connected_s: f64,
    pub packets: u64,
    pub bytes: u64,
    /// Access units skipped because the socket was full, the viewer waited for a keyframe, or too many came at once.
    pub skipped: u64,
    /// Of these, skipped because the viewer's link is too slow.
    #[serde(default)]
    pub thinned: u64,
    /// It is connected, and sent nothing before the next keyframe.
    #[serde(default)]
    pub awaits_keyframe: bool,
    /// The bit rate of its stream follows this viewer's link.
    #[serde(default)]
    pub pilot: bool,
    /// What its link carries, kbit/s, as far as was seen: a quarter above the encoder's ceiling where no limit was met.
    #[serde(default)]
    pub estimate_kbps: u32,
    /// How long packets wait on the way because the link is full, milliseconds.
    #[serde(default)]
    pub queue_ms: f64,
    /// Packets asked for again by NACK.
    pub nacks: u64,
    /// Keyframe requests: PLI and FIR.
    pub plis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Share of packets lost in the viewer's last RTCP report, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Why it is not sure that it sees anything: it is sent pictures, and reports nothing, or that nothing arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<String>,
    /// What its link carries, as `estimate_kbps`, in bit/s.
    #[serde(default, rename = "availableBandwidth")]
    pub available_bandwidth: u64,
    /// As `loss`; 0 before the first report.
    #[serde(default, rename = "packetLoss")]
    pub packet_loss: f64,
    /// As `rtt_ms`; 0 while it is not known.
    #[serde(default)]
    pub rtt: f64,
    /// How unevenly packets arrive, milliseconds, by its last RTCP report (RFC 3550 section 6.4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    use super::*;

    /// What the first release wrote, before there were several cameras, roles and settings.
    const STATS: &str = r#"{"id":"6f1c","name":"bow","version":"0.1.0","uptime_s":12.5,
        "streams":[{"name":"stream1","state":"running","reason":"the camera was lost","source":"test picture",
            "encoder":"x264enc","codec":"h264","width":1280,"height":720,"fps_in":30.0,"fps_out":29.5,
            "bitrate_kbps":3990.5,"target_bitrate_kbps":4000,"frames":375,"keyframes":3,"frames_dropped":1,
            "encode_latency_ms":8.5,"restarts":1,"frozen":false,"resting":false}],
        "viewers":[{"id":"5","address":"10.0.0.9:40000","state":"connected","connected_s":3.5,"packets":900,
            "bytes":900000,"skipped":2,"thinned":1,"pilot":true,"estimate_kbps":5000,"queue_ms":0.5,"nacks":4,"plis":1,
            "rtt_ms":1.5,"loss":0.25,"stalled":"it reports nothing"}],
        "rtp":{"destinations":["239.255.0.1:5004"],"packets":1,"bytes":2,"skipped":3,"errors":4},
        "rtsp":{"urls":["rtsp://10.0.0.2:8554/stream1"],"mjpeg_urls":["rtsp://10.0.0.2:8554/mjpeg"],"clients":1,
            "skipped":2},
        "jpeg":{"running":true,"viewers":1,"pictures":9}}"#;
    const HEALTH: &str = r#"{"status":"degraded","streams":{"stream1":{"state":"stalled","reason":"no keyframe",
        "resting":false}}}"#;
    const OFFER: &str = r#"{"type":"offer","sdp":"v=0"}"#;

    /// Whether all that is in the one is in the other, under the same name and with the same value.
    fn holds(now: &Value, before: &Value) -> bool {
        match (now, before) {
            (Value::Object(now), Value::Object(before)) => {
                before.iter().all(|(name, value)| now.get(name).is_some_and(|now| holds(now, value)))
            }
            (Value::Array(now), Value::Array(before)) => {
                now.len() == before.len() && now.iter().zip(before).all(|(now, before)| holds(now, before))
            }
            (now, before) => now == before,
        }
    }

    fn is_kept<T: Serialize + DeserializeOwned>(text: &str) {
        let before: Value = serde_json::from_str(text).expect("JSON");
        let read: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let now = serde_json::to_value(read).expect("JSON");
        assert!(holds(&now, &before), "{now:#}");
    }

    #[test]
    fn an_older_client_reads_what_is_written_now_and_what_an_older_server_wrote_is_read() {
        is_kept::<Stats>(STATS);
        is_kept::<Health>(HEALTH);
        is_kept::<SessionDescription>(OFFER);
        is_kept::<ErrorBody>(r#"{"error":"no"}"#);
        // Without what was not known of each.
        is_kept::<Stats>(r#"{"id":"6f1c","name":"bow","version":"0.1.0","uptime_s":0.5,"streams":[],"viewers":[]}"#);
        // What comes later is not known here, and not in the way.
        assert!(serde_json::from_str::<Stats>(&STATS.replacen('{', "{\"later\":[1],", 1)).is_ok());
    }
}
