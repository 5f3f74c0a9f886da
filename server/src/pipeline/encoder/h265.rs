//! The encoders of H.265, best first: hardware, then x265. Each hardware family is set up as its sibling for H.264 is;
//! of all these only x265enc was measured. A new encoder is a row here and a golden string in `encoder_tests`.

use rov_common::codec::Codec;

use super::h264::{
    self, AMF_PRESET, CUDA_PROPERTIES, JETSON_PRESET, NVENC_PRESET, USAGE_PRESET, VA_PROPERTIES,
    VAAPI_LOW_POWER_PROPERTIES, VAAPI_PRESET, VAAPI_PROPERTIES, X26X_PRESET,
};
use super::{EncoderRow, Keyframe, LevelPin, LiveRate, Memory, ProfilePin, Value};
use Value::{Bps, Gop, GopOr, IfProperty, Kbps, Mode, Text, V4l2Controls, VbvBits, VbvBytes, VbvKbit, X265Options};

const PLAIN: EncoderRow = EncoderRow { codec: Codec::H265, profile: ProfilePin::Main, ..h264::PLAIN };

const VT_PROPERTIES: &[(&str, Value)] = &[
    ("bitrate", Kbps),
    ("realtime", Text("true")),
    ("allow-frame-reordering", Text("false")),
    ("max-keyframe-interval", Gop),
];

pub const ROWS: &[EncoderRow] = &[
    EncoderRow {
        element: "nvv4l2h265enc",
        title: "NVIDIA Jetson",
        preset: JETSON_PRESET,
        memory: Memory::Nvmm,
        upload: "nvvidconv ! video/x-raw(memory:NVMM),format=NV12",
        properties: &[
            ("bitrate", Bps),
            ("control-rate", Text("1")),
            ("preset-level", Mode("1", "3")),
            ("maxperf-enable", Text("true")),
            ("insert-vui", Text("true")),
            ("insert-sps-pps", Text("true")),
            ("num-B-Frames", Text("0")),
            ("num-Ref-Frames", Text("1")),
            ("iframeinterval", Gop),
            ("idrinterval", Gop),
            ("vbv-size", VbvBits),
            // Main.
            ("profile", Text("0")),
        ],
        profile: ProfilePin::Property,
        live_rate: LiveRate::Properties(&[("bitrate", Bps)]),
        keyframe: Keyframe::Signal("force-IDR"),
        ..PLAIN
    },
    EncoderRow {
        element: "omxh265enc",
        title: "NVIDIA Jetson, old L4T",
        needs: &[("nvvidconv", "name")],
        memory: Memory::Nvmm,
        upload: "nvvidconv ! video/x-raw(memory:NVMM),format=NV12",
        properties: &[
            ("bitrate", Bps),
            ("control-rate", Text("2")),
            ("iframeinterval", Gop),
            ("insert-sps-pps", Text("true")),
            ("insert-vui", Text("true")),
        ],
        profile: ProfilePin::Property,
        live_rate: LiveRate::Properties(&[("bitrate", Bps)]),
        keyframe: Keyframe::Signal("force-IDR"),
        ..PLAIN
    },
    EncoderRow {
        element: "omxh265enc",
        title: "OpenMAX, upstream gst-omx",
        properties: &[
            // Kbit/s with the Zynq's, the only one that has this element.
            ("target-bitrate", Kbps),
            ("control-rate", Text("2")),
            ("interval-intraframes", Gop),
            ("gop-length", Gop),
            ("b-frames", Text("0")),
        ],
        live_rate: LiveRate::Properties(&[("target-bitrate", Kbps)]),
        ..PLAIN
    },
    EncoderRow {
        element: "nvautogpuh265enc",
        title: "NVIDIA NVENC, any GPU",
        preset: NVENC_PRESET,
        memory: Memory::Cuda,
        upload: "cudaupload ! cudaconvert ! video/x-raw(memory:CUDAMemory),format=NV12",
        properties: CUDA_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        element: "nvcudah265enc",
        title: "NVIDIA NVENC, CUDA",
        preset: NVENC_PRESET,
        memory: Memory::Cuda,
        upload: "cudaupload ! cudaconvert ! video/x-raw(memory:CUDAMemory),format=NV12",
        properties: CUDA_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        element: "nvh265enc",
        title: "NVIDIA NVENC",
        preset: NVENC_PRESET,
        properties: &[
            ("bitrate", Kbps),
            ("preset", IfProperty("tune", "p1", "low-latency-hp")),
            ("tune", Mode("ultra-low-latency", "low-latency")),
            ("rc-mode", Text("cbr")),
            ("zerolatency", Text("true")),
            ("bframes", Text("0")),
            ("gop-size", GopOr("-1")),
            ("vbv-buffer-size", VbvKbit),
            ("rc-lookahead", Text("0")),
            ("repeat-sequence-header", Text("true")),
            ("aud", Text("false")),
        ],
        ..PLAIN
    },
    EncoderRow {
        element: "v4l2h265enc",
        title: "V4L2",
        properties: &[("extra-controls", V4l2Controls)],
        live_rate: LiveRate::V4l2Controls,
        keyframe: Keyframe::V4l2Controls,
        ..PLAIN
    },
    EncoderRow {
        element: "vah265enc",
        title: "VA-API",
        preset: USAGE_PRESET,
        memory: Memory::Va,
        upload: "vapostproc ! video/x-raw(memory:VAMemory),format=NV12",
        properties: VA_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        element: "vah265lpenc",
        title: "VA-API, low power",
        preset: USAGE_PRESET,
        memory: Memory::Va,
        upload: "vapostproc ! video/x-raw(memory:VAMemory),format=NV12",
        properties: VA_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        element: "vaapih265enc",
        title: "VA-API, gstreamer-vaapi, low power",
        preset: VAAPI_PRESET,
        properties: VAAPI_LOW_POWER_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        element: "vaapih265enc",
        title: "VA-API, gstreamer-vaapi",
        preset: VAAPI_PRESET,
        properties: VAAPI_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        element: "qsvh265enc",
        title: "Intel Quick Sync",
        preset: USAGE_PRESET,
        properties: &[
            ("bitrate", Kbps),
            ("low-latency", Text("true")),
            ("rate-control", Text("cbr")),
            ("b-frames", Text("0")),
            ("ref-frames", Text("1")),
            ("gop-size", GopOr("65535")),
            ("disable-hrd-conformance", Text("true")),
        ],
        ..PLAIN
    },
    EncoderRow {
        element: "amfh265enc",
        title: "AMD AMF",
        preset: AMF_PRESET,
        properties: &[
            ("bitrate", Kbps),
            ("usage", Mode("ultra-low-latency", "low-latency")),
            ("rate-control", Text("cbr")),
            ("preset", Mode("speed", "balanced")),
            ("gop-size", Gop),
            ("aud", Text("false")),
        ],
        ..PLAIN
    },
    EncoderRow {
        element: "mfh265enc",
        title: "Windows Media Foundation",
        properties: &[
            ("bitrate", Kbps),
            ("low-latency", Text("true")),
            ("rc-mode", Text("cbr")),
            ("bframes", Text("0")),
            ("gop-size", Gop),
            ("vbv-buffer-size", VbvBytes),
        ],
        ..PLAIN
    },
    EncoderRow {
        element: "vtenc_h265_hw",
        title: "Apple VideoToolbox",
        properties: VT_PROPERTIES,
        profile: ProfilePin::Property,
        ..PLAIN
    },
    EncoderRow {
        element: "vtenc_h265",
        title: "Apple VideoToolbox, hardware or software",
        properties: VT_PROPERTIES,
        profile: ProfilePin::Property,
        ..PLAIN
    },
    EncoderRow {
        element: "mpph265enc",
        title: "Rockchip",
        properties: &[
            ("bps", Bps),
            ("bps-max", Bps),
            ("rc-mode", Text("cbr")),
            ("header-mode", Text("each-idr")),
            ("gop", Gop),
            ("max-reenc", Text("0")),
        ],
        profile: ProfilePin::Property,
        live_rate: LiveRate::Properties(&[("bps", Bps), ("bps-max", Bps)]),
        ..PLAIN
    },
    EncoderRow {
        element: "x265enc",
        title: "x265, software",
        level: LevelPin::X265Options,
        preset: X26X_PRESET,
        format: "I420",
        properties: &[
            ("bitrate", Kbps),
            // The default tune holds frames back, as does the look-ahead.
            ("tune", Text("zerolatency")),
            ("speed-preset", Mode("ultrafast", "superfast")),
            ("key-int-max", Gop),
            ("option-string", X265Options),
        ],
        // The options first: with the bit rate x265enc opens its encoder anew, which costs a keyframe.
        live_rate: LiveRate::Properties(&[("option-string", X265Options), ("bitrate", Kbps)]),
        live_rate_costs_keyframe: true,
        ..PLAIN
    },
];
