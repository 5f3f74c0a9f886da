//! The encoders of H.264, best first: hardware, then x264, then openh264. Values and traps are from the
//! elements' sources, and measured for x264 and openh264. A new encoder is a row here and a golden string in
//! `encoder_tests`.

use rov_common::codec::Codec;

use super::{EncoderRow, Keyframe, LevelPin, LiveRate, LiveSize, Memory, ProfilePin, Value};
use Value::{
    Bps, Gop, GopOr, HalfSecondKbit, IfProperty, Kbps, Mode, Text, Threads, V4l2Controls, VbvBits, VbvBytes, VbvKbit,
    VbvMs,
};

/// What most rows share; each row names what differs.
pub(super) const PLAIN: EncoderRow = EncoderRow {
    codec: Codec::H264,
    element: "",
    title: "",
    needs: &[],
    format: "NV12",
    memory: Memory::System,
    upload: "",
    properties: &[],
    profile: ProfilePin::Caps("constrained-baseline"),
    level: LevelPin::No,
    preset: None,
    live_rate: LiveRate::Properties(&[("bitrate", Kbps)]),
    live_rate_costs_keyframe: false,
    live_size: LiveSize::No,
    keyframe: Keyframe::ForceKeyUnit,
    gives_access_units: false,
};

/// Values of `--preset`, from ultrafast to slow.
pub(super) const JETSON_PRESET: Option<(&str, [Value; 4])> =
    Some(("preset-level", [Text("1"), Text("2"), Text("3"), Text("4")]));
pub(super) const NVENC_PRESET: Option<(&str, [Value; 4])> = Some((
    "preset",
    [
        IfProperty("tune", "p1", "low-latency-hp"),
        IfProperty("tune", "p3", "low-latency-hp"),
        IfProperty("tune", "p4", "low-latency"),
        IfProperty("tune", "p6", "low-latency-hq"),
    ],
));
/// Of Intel's interfaces, 7 is the fastest.
pub(super) const USAGE_PRESET: Option<(&str, [Value; 4])> =
    Some(("target-usage", [Text("7"), Text("6"), Text("4"), Text("2")]));
pub(super) const VAAPI_PRESET: Option<(&str, [Value; 4])> =
    Some(("quality-level", [Text("7"), Text("6"), Text("4"), Text("2")]));
pub(super) const AMF_PRESET: Option<(&str, [Value; 4])> =
    Some(("preset", [Text("speed"), Text("speed"), Text("balanced"), Text("quality")]));
pub(super) const X26X_PRESET: Option<(&str, [Value; 4])> =
    Some(("speed-preset", [Text("ultrafast"), Text("fast"), Text("medium"), Text("slow")]));

/// NVENC by CUDA memory; `nvautogpuh264enc` chooses among several GPUs. The names of properties changed in 1.24 and
/// 1.26.
pub(super) const CUDA_PROPERTIES: &[(&str, Value)] = &[
    ("bitrate", Kbps),
    ("rate-control", Text("cbr")),
    ("rc-mode", Text("cbr")),
    ("preset", IfProperty("tune", "p1", "low-latency-hp")),
    ("tune", Mode("ultra-low-latency", "low-latency")),
    ("b-frames", Text("0")),
    ("bframes", Text("0")),
    ("gop-size", Gop),
    ("vbv-buffer-size", VbvKbit),
    ("rc-lookahead", Text("0")),
    ("zero-reorder-delay", Text("true")),
    ("zerolatency", Text("true")),
    ("repeat-sequence-header", Text("true")),
    ("aud", Text("false")),
];

pub(super) const VA_PROPERTIES: &[(&str, Value)] = &[
    ("bitrate", Kbps),
    ("rate-control", Text("cbr")),
    ("b-frames", Text("0")),
    ("ref-frames", Text("1")),
    // 1024 is the largest it takes.
    ("key-int-max", GopOr("1024")),
    ("target-usage", Mode("6", "4")),
    ("num-slices", Text("1")),
    ("aud", Text("false")),
    // Less than half a second silently becomes two seconds.
    ("cpb-size", HalfSecondKbit),
];

pub(super) const VAAPI_PROPERTIES: &[(&str, Value)] = &[
    ("bitrate", Kbps),
    ("rate-control", Text("cbr")),
    ("keyframe-period", Gop),
    ("max-bframes", Text("0")),
    ("refs", Text("1")),
    ("cpb-length", VbvMs),
];

pub(super) const VAAPI_LOW_POWER_PROPERTIES: &[(&str, Value)] = &[
    ("bitrate", Kbps),
    ("rate-control", Text("cbr")),
    ("keyframe-period", Gop),
    ("max-bframes", Text("0")),
    ("refs", Text("1")),
    ("cpb-length", VbvMs),
    ("tune", Text("low-power")),
];

pub const ROWS: &[EncoderRow] = &[
    EncoderRow {
        element: "nvv4l2h264enc",
        title: "NVIDIA Jetson",
        preset: JETSON_PRESET,
        memory: Memory::Nvmm,
        upload: "nvvidconv ! video/x-raw(memory:NVMM),format=NV12",
        properties: &[
            ("bitrate", Bps),
            ("control-rate", Text("1")),
            ("preset-level", Mode("1", "3")),
            ("maxperf-enable", Text("true")),
            ("poc-type", Text("2")),
            ("insert-vui", Text("true")),
            ("insert-sps-pps", Text("true")),
            ("num-B-Frames", Text("0")),
            ("num-Ref-Frames", Text("1")),
            ("iframeinterval", Gop),
            ("idrinterval", Gop),
            ("vbv-size", VbvBits),
            ("profile", Value::Profile(["0", "2", "4"])),
        ],
        profile: ProfilePin::Property,
        live_rate: LiveRate::Properties(&[("bitrate", Bps)]),
        keyframe: Keyframe::Signal("force-IDR"),
        ..PLAIN
    },
    EncoderRow {
        element: "omxh264enc",
        title: "NVIDIA Jetson, old L4T",
        // gst-omx of L4T and of other boards share the element's name; only L4T has this converter.
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
        profile: ProfilePin::Caps("baseline"),
        live_rate: LiveRate::Properties(&[("bitrate", Bps)]),
        keyframe: Keyframe::Signal("force-IDR"),
        ..PLAIN
    },
    EncoderRow {
        element: "omxh264enc",
        title: "OpenMAX, upstream gst-omx",
        properties: &[
            ("target-bitrate", Bps),
            ("control-rate", Text("2")),
            ("interval-intraframes", Gop),
            ("b-frames", Text("0")),
        ],
        profile: ProfilePin::Caps("baseline"),
        live_rate: LiveRate::Properties(&[("target-bitrate", Bps)]),
        ..PLAIN
    },
    EncoderRow {
        element: "nvautogpuh264enc",
        title: "NVIDIA NVENC, any GPU",
        preset: NVENC_PRESET,
        memory: Memory::Cuda,
        upload: "cudaupload ! cudaconvert ! video/x-raw(memory:CUDAMemory),format=NV12",
        properties: CUDA_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        element: "nvcudah264enc",
        title: "NVIDIA NVENC, CUDA",
        preset: NVENC_PRESET,
        memory: Memory::Cuda,
        upload: "cudaupload ! cudaconvert ! video/x-raw(memory:CUDAMemory),format=NV12",
        properties: CUDA_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        // Up to 1.24 an encoder of its own, from 1.26 the new name of nvcudah264enc; both take system memory.
        element: "nvh264enc",
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
        element: "v4l2h264enc",
        title: "V4L2, as on the Raspberry Pi 4",
        level: LevelPin::Caps,
        format: "I420",
        properties: &[("extra-controls", V4l2Controls)],
        profile: ProfilePin::CapsAndLevel("{constrained-baseline,baseline}"),
        live_rate: LiveRate::V4l2Controls,
        keyframe: Keyframe::V4l2Controls,
        ..PLAIN
    },
    EncoderRow {
        element: "vah264enc",
        title: "VA-API",
        preset: USAGE_PRESET,
        memory: Memory::Va,
        upload: "vapostproc ! video/x-raw(memory:VAMemory),format=NV12",
        properties: VA_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        element: "vah264lpenc",
        title: "VA-API, low power",
        preset: USAGE_PRESET,
        memory: Memory::Va,
        upload: "vapostproc ! video/x-raw(memory:VAMemory),format=NV12",
        properties: VA_PROPERTIES,
        ..PLAIN
    },
    // Not every driver has the low-power entry point, so the row without it follows.
    EncoderRow {
        element: "vaapih264enc",
        title: "VA-API, gstreamer-vaapi, low power",
        preset: VAAPI_PRESET,
        properties: VAAPI_LOW_POWER_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        element: "vaapih264enc",
        title: "VA-API, gstreamer-vaapi",
        preset: VAAPI_PRESET,
        properties: VAAPI_PROPERTIES,
        ..PLAIN
    },
    EncoderRow {
        element: "qsvh264enc",
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
        element: "amfh264enc",
        title: "AMD AMF",
        preset: AMF_PRESET,
        properties: &[
            ("bitrate", Kbps),
            // The default usage is transcoding.
            ("usage", Mode("ultra-low-latency", "low-latency")),
            ("rate-control", Text("cbr")),
            ("preset", Mode("speed", "balanced")),
            ("b-frames", Text("0")),
            ("gop-size", Gop),
            ("aud", Text("false")),
        ],
        profile: ProfilePin::Caps("{constrained-baseline,baseline}"),
        ..PLAIN
    },
    EncoderRow {
        element: "mfh264enc",
        title: "Windows Media Foundation",
        properties: &[
            ("bitrate", Kbps),
            ("low-latency", Text("true")),
            // The default is an unconstrained variable rate.
            ("rc-mode", Text("cbr")),
            ("bframes", Text("0")),
            ("gop-size", Gop),
            ("vbv-buffer-size", VbvBytes),
        ],
        profile: ProfilePin::Caps("baseline"),
        ..PLAIN
    },
    EncoderRow {
        element: "vtenc_h264_hw",
        title: "Apple VideoToolbox",
        properties: &[
            ("bitrate", Kbps),
            ("realtime", Text("true")),
            // The default is true.
            ("allow-frame-reordering", Text("false")),
            ("max-keyframe-interval", Gop),
        ],
        profile: ProfilePin::Caps("{constrained-baseline,baseline}"),
        ..PLAIN
    },
    EncoderRow {
        element: "mpph264enc",
        title: "Rockchip",
        level: LevelPin::Property("level"),
        properties: &[
            ("bps", Bps),
            ("bps-max", Bps),
            ("rc-mode", Text("cbr")),
            ("header-mode", Text("each-idr")),
            ("gop", Gop),
            ("max-reenc", Text("0")),
            ("profile", Value::Profile(["baseline", "main", "high"])),
        ],
        profile: ProfilePin::Property,
        live_rate: LiveRate::Properties(&[("bps", Bps), ("bps-max", Bps)]),
        ..PLAIN
    },
    EncoderRow {
        element: "x264enc",
        title: "x264, software",
        level: LevelPin::Caps,
        preset: X26X_PRESET,
        format: "I420",
        properties: &[
            ("bitrate", Kbps),
            // Also in the relaxed mode: the default tune holds frames back for look-ahead and frame threads.
            ("tune", Text("zerolatency")),
            ("speed-preset", Mode("ultrafast", "veryfast")),
            // The IDR of 119 KB becomes 22 KB.
            ("vbv-buf-capacity", VbvMs),
            ("key-int-max", Gop),
            ("bframes", Text("0")),
            ("aud", Text("false")),
            ("threads", Threads),
        ],
        live_rate: LiveRate::Properties(&[("bitrate", Kbps), ("vbv-buf-capacity", VbvMs)]),
        live_size: LiveSize::RateByCaps,
        gives_access_units: true,
        ..PLAIN
    },
    EncoderRow {
        element: "openh264enc",
        title: "OpenH264, software",
        level: LevelPin::Caps,
        preset: Some(("complexity", [Text("low"), Text("low"), Text("medium"), Text("high")])),
        format: "I420",
        properties: &[
            ("bitrate", Bps),
            ("rate-control", Text("bitrate")),
            ("complexity", Mode("low", "medium")),
            ("gop-size", Gop),
            ("slice-mode", Text("n-slices")),
            ("num-slices", Threads),
            ("multi-thread", Threads),
            ("scene-change-detection", Text("false")),
            ("background-detection", Text("false")),
        ],
        live_rate: LiveRate::Properties(&[("bitrate", Bps)]),
        live_size: LiveSize::RateByTime,
        ..PLAIN
    },
];
