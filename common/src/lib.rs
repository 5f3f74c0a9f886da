//! What `rov-server` and `rov-client` share. No tokio, no GStreamer, no WebRTC, no clock of its own; pure
//! code, but for `challenge`, `descriptor`, `lines`, `log`, `log_file`, `net`, `media_socket`, `memory`, `priority`,
//! `recording`, `state_file` and `unread`.

pub mod access_unit;
pub mod api;
pub mod attempts;
pub mod backlog;
pub mod backoff;
pub mod camera;
pub mod capture_clock;
pub mod challenge;
pub mod clock_sync;
pub mod codec;
pub mod decimate;
pub mod descriptor;
pub mod discovery;
pub mod exif;
pub mod exit;
pub mod fec;
pub mod glyphs;
pub mod latency_mode;
pub mod lateness;
pub mod lines;
pub mod log;
pub mod log_file;
pub mod lossy;
pub mod marker;
pub mod media_socket;
pub mod memory;
pub mod mp4;
pub mod net;
pub mod numbering;
pub mod overlay;
pub mod priority;
pub mod recording;
pub mod redact;
pub mod rhythm;
pub mod ring;
pub mod rtp;
pub mod sleep;
pub mod stamp;
pub mod state_file;
pub mod sync;
pub mod units;
pub mod unread;
pub mod webrtc;
pub mod window;
