//! The encoder of MJPEG. In software alone: hardware encoders of JPEG were not tried.

use rov_common::codec::Codec;

use super::{EncoderRow, LiveRate, ProfilePin, Value, h264};

pub const ROWS: &[EncoderRow] = &[EncoderRow {
    codec: Codec::Mjpeg,
    element: "jpegenc",
    title: "libjpeg, software",
    // JFIF is full range and BT.601 (ITU-T T.871), and video mostly neither.
    format: "I420,colorimetry=(string)1:4:0:0",
    properties: &[("quality", Value::JpegQuality)],
    profile: ProfilePin::Property,
    live_rate: LiveRate::Properties(&[("quality", Value::JpegQuality)]),
    gives_access_units: true,
    ..h264::PLAIN
}];
