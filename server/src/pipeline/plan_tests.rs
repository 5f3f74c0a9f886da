use std::path::PathBuf;

use super::source::{CSI_ROWS, CsiCamera};
use super::*;
use crate::pipeline::encoder::rows;
use crate::pipeline::mode::{Encoding, Mode};

const QUEUE: &str = "queue name=rov_raw max-size-buffers=1 max-size-bytes=0 max-size-time=0 leaky=downstream";
const END: &str = "h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au \
                   ! appsink name=rov_out sync=false async=false max-buffers=4 drop=false";
/// Behind an encoder that needs no parser.
const UNITS_END: &str = "capsfilter caps=video/x-h264,stream-format=byte-stream,alignment=au \
                         ! appsink name=rov_out sync=false async=false max-buffers=4 drop=false";
const PACE: &str =
    "queue name=rov_ahead max-size-buffers=4 max-size-bytes=0 max-size-time=0 ! identity name=rov_pace sync=true";

/// An encoder's row and a has-function that knows no property but names in `known`, so that the texts stay short.
fn make(config: &CameraConfig, element: &str, known: &[&str], csi: Vec<CsiCamera>) -> Plan {
    make_with(config, element, known, csi, Vec::new())
}

fn make_with(
    config: &CameraConfig,
    element: &str,
    known: &[&str],
    csi: Vec<CsiCamera>,
    cameras: Vec<source::Camera>,
) -> Plan {
    let has = |element: &str, property: &str| known.contains(&element) || known.contains(&property);
    let container = Some(source::Container::Mp4);
    let machine = Machine {
        has_property: &has,
        cores: 2,
        cameras,
        csi,
        container,
        stdin_fd: 0,
        stdin_is_file: false,
        opens: &|_| true,
    };
    let row = |codec| rows(codec).iter().find(|row| row.element == element).unwrap();
    let encoders: Vec<_> = config.streams.iter().map(|stream| row(stream.encode.codec)).collect();
    plan(config, &machine, &encoders).unwrap()
}

fn config(kind: SourceKind) -> CameraConfig {
    let file = (kind == SourceKind::File).then(|| PathBuf::from("a.mp4"));
    let pipeline = (kind == SourceKind::Pipeline).then(|| "videotestsrc".to_owned());
    CameraConfig::usual().with_source(|source| {
        source.kind = kind;
        source.file = file;
        source.pipeline = pipeline
    })
}

#[test]
fn a_live_source_is_scaled_behind_the_leaky_queue_and_encoded() {
    let plan = make(&config(SourceKind::Test), "x264enc", &["bitrate", "n-threads"], vec![]);
    let head = "videotestsrc is-live=true pattern=smpte horizontal-speed=4 \
                ! video/x-raw,format=I420,width=1920,height=1080,framerate=30/1 ! identity name=rov_join";
    let tail = format!(
        "{QUEUE} ! videoscale n-threads=2 ! videoconvert n-threads=2 \
         ! video/x-raw,format=I420,width=1920,height=1080,pixel-aspect-ratio=1/1 \
         ! x264enc name=rov_enc bitrate=15000 ! video/x-h264,profile=(string)constrained-baseline ! {UNITS_END}"
    );
    assert_eq!(plan.text(), format!("{head} ! {tail}"));
    assert_eq!(
        (plan.branches[0].auto_bitrate, plan.branches[0].encoder.map(|row| row.element)),
        (Some(false), Some("x264enc"))
    );
}

#[test]
fn a_file_is_paced_and_its_rate_limited() {
    let plan = make(&config(SourceKind::File), "openh264enc", &[], vec![]);
    let tail = format!("{PACE} ! {QUEUE} ! videoscale ! videoconvert ! video/x-raw,format=I420");
    assert!(plan.text().contains(&tail), "{}", plan.text());
    assert_eq!(plan.branches[0].max_fps, Some(Fps::whole(30)));
}

#[test]
fn an_own_size_is_made_even() {
    let config = config(SourceKind::File).with_encode(|encode| {
        encode.resolution = None;
        encode.fps = None
    });
    let plan = make(&config, "x264enc", &[], vec![]);
    let text = plan.text();
    assert!(text.contains("format=I420,width=[16,8192,2],height=[16,8192,2],pixel-aspect-ratio=1/1"), "{text}");
    assert_eq!(plan.branches[0].max_fps, None);
}

#[test]
fn a_passed_through_file_is_only_paced() {
    let config = config(SourceKind::File).with_source(|source| source.file_passthrough = true);
    let plan = make(&config, "x264enc", &[], vec![]);
    let sink = "appsink name=rov_out sync=false async=false max-buffers=4 drop=false";
    assert_eq!((plan.trunk.as_str(), &plan.branches[0].tail), (PACE, &Tail::Fixed(sink.to_owned())));
    assert!(plan.branches[0].encoder.is_none());
}

#[test]
fn jetson_frames_stay_in_its_memory_for_its_encoder_and_leave_it_for_others() {
    let csi = || vec![CsiCamera { row: &CSI_ROWS[0], id: "0".to_owned() }];
    let own = make(&config(SourceKind::Csi), "nvv4l2h264enc", &["bitrate"], csi());
    let tail = format!(
        "{QUEUE} ! nvvidconv ! video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080 \
         ! nvv4l2h264enc name=rov_enc bitrate=15000000 ! video/x-h264 ! {END}"
    );
    assert_eq!(own.branches[0].tail, Tail::Fixed(tail));
    let other = make(&config(SourceKind::Csi), "x264enc", &["bitrate"], csi()).text();
    assert!(other.contains("! nvvidconv ! video/x-raw,format=I420,width=1920,height=1080 ! x264enc"), "{other}");
}

#[test]
fn a_users_pipeline_has_a_tail_for_each_end() {
    let plan = make(&config(SourceKind::Pipeline), "x264enc", &[], vec![]);
    assert_eq!(plan.trunk, "identity name=rov_pace");
    let Tail::ByCaps { raw, nvmm, encoded } = &plan.branches[0].tail else {
        panic!("the tail must depend on what the pipeline gives");
    };
    assert!(raw.starts_with("queue name=rov_raw"), "{raw}");
    assert_eq!((nvmm, encoded.as_str()), (&None, END));
    let Tail::ByCaps { nvmm: Some(nvmm), .. } =
        &make(&config(SourceKind::Pipeline), "x264enc", &["nvvidconv"], vec![]).branches[0].tail
    else {
        panic!("with nvvidconv there is a tail for NVIDIA's memory");
    };
    assert!(nvmm.contains("! nvvidconv ! video/x-raw,format=I420"), "{nvmm}");
}

#[test]
fn an_automatic_bitrate_follows_the_size_and_a_given_one_stays() {
    let size = Resolution::new(640, 480);
    let automatic = make(&config(SourceKind::Test), "x264enc", &[], vec![]);
    assert_eq!(bitrate_for(&automatic.branches[0], size, Some(Fps::whole(30))), Bitrate::from_kbps(3582));
    let given = config(SourceKind::Test).with_encode(|encode| encode.bitrate = Some(Bitrate::from_kbps(4000)));
    let given = make(&given, "x264enc", &[], vec![]);
    assert_eq!(bitrate_for(&given.branches[0], size, None), Bitrate::from_kbps(4000));
}

#[test]
fn only_the_test_picture_in_place_of_a_camera_is_a_fallback() {
    assert!(make(&config(SourceKind::Auto), "x264enc", &[], vec![]).substitute.is_some());
    let csi = vec![CsiCamera { row: &CSI_ROWS[1], id: "imx219".to_owned() }];
    let auto = make(&config(SourceKind::Auto), "x264enc", &[], csi.clone());
    assert!(auto.substitute.is_none() && auto.others.is_empty(), "{auto:?}");
    let other = CsiCamera { id: "imx477".to_owned(), ..csi[0].clone() };
    let others = make(&config(SourceKind::Auto), "x264enc", &[], [csi.clone(), vec![other]].concat()).others;
    assert_eq!(others.iter().map(Found::to_string).collect::<Vec<_>>(), ["CSI camera imx477"]);
    let gone = config(SourceKind::Auto).with_source(|source| source.taken = vec!["imx708".to_owned()]);
    assert_eq!(
        make(&gone, "x264enc", &[], csi).substitute.as_deref(),
        Some(
            "camera imx708 is gone, a test picture is shown; there is CSI camera imx219: to take another camera, \
             restart the server"
        )
    );
    assert!(make(&config(SourceKind::Test), "x264enc", &[], vec![]).substitute.is_none());
}

#[test]
fn a_stream_of_h265_is_parsed_and_rated_as_such() {
    let end = "h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au ! appsink";
    let h265 = |kind| config(kind).with_encode(|encode| encode.codec = Codec::H265);
    let plan = make(&h265(SourceKind::Test), "x265enc", &["bitrate"], vec![]);
    let text = plan.text();
    assert!(
        text.contains("! x265enc name=rov_enc bitrate=9000 ! video/x-h265,profile=(string)main ! h265parse"),
        "{text}"
    );
    assert!(text.contains(end), "{text}");
    assert_eq!(
        bitrate_for(&plan.branches[0], Resolution::new(640, 480), Some(Fps::whole(30))),
        Bitrate::from_kbps(2149)
    );
    let file =
        make(&h265(SourceKind::File).with_source(|source| source.file_passthrough = true), "x265enc", &[], vec![]);
    assert!(
        file.head.contains("qtdemux ! video/x-h265 ! h265parse config-interval=-1 ! video/x-h265,"),
        "{}",
        file.head
    );
    assert!(file.branches[0].encoder.is_none());
    let stdin = make(&h265(SourceKind::Stdin), "x265enc", &[], vec![]);
    assert!(
        stdin.head.contains("! h265parse config-interval=-1 !") && stdin.branches[0].encoder.is_none(),
        "{}",
        stdin.head
    );
    let user = make(&h265(SourceKind::Pipeline), "x265enc", &[], vec![]);
    assert!(user.head.ends_with("caps=\"video/x-raw;video/x-raw(memory:NVMM);video/x-h265\""), "{}", user.head);
    let Tail::ByCaps { encoded, .. } = &user.branches[0].tail else {
        panic!("the tail must depend on what the pipeline gives")
    };
    assert!(encoded.contains(end), "{encoded}");
}

#[test]
fn a_picture_is_turned_in_whatever_memory_it_is() {
    let turned = |flip| config(SourceKind::Csi).with_source(|source| source.flip = flip);
    let csi = || vec![CsiCamera { row: &CSI_ROWS[0], id: "0".to_owned() }];
    let jetson = make(&turned(Flip::Half), "nvv4l2h264enc", &[], csi()).text();
    assert!(jetson.contains("! nvvidconv flip-method=2 ! video/x-raw(memory:NVMM)"), "{jetson}");
    let csi = vec![CsiCamera { row: &CSI_ROWS[1], id: "imx219".to_owned() }];
    let raw = make(&turned(Flip::Vertical), "x264enc", &[], csi).text();
    assert!(
        raw.contains("videoconvert ! videoflip name=rov_flip method=vertical-flip ! video/x-raw,format=I420"),
        "{raw}"
    );
}

#[test]
fn raw_pictures_are_deinterlaced_before_they_are_scaled() {
    let text = make(&config(SourceKind::Test), "x264enc", &["deinterlace"], vec![]).text();
    let expected = "videoconvert ! deinterlace mode=auto-strict method=greedyl fields=top ! videoscale ! ";
    assert!(text.contains(&format!("{QUEUE} ! {expected}")), "{text}");
}

#[test]
fn streams_of_one_camera_share_its_source_by_a_tee() {
    let mut camera = config(SourceKind::File).with_encode(|encode| encode.fps = Some(Fps::whole(60)));
    let mut second = camera.streams[0].clone();
    second.encode.resolution = Some(Resolution::new(640, 360));
    second.encode.fps = Some(Fps::whole(15));
    camera.streams.push(second);
    let plan = make(&camera, "x264enc", &[], vec![]);
    let text = plan.text();
    let start = format!(
        "filesrc location=\"a.mp4\" ! decodebin ! video/x-raw ! videoconvert ! identity name=rov_join ! {PACE}"
    );
    let branch = |size| format!(" rov_tee. ! {QUEUE} ! videoscale ! videoconvert ! video/x-raw,format=I420,{size},");
    assert!(text.starts_with(&format!("{start} ! tee name=rov_tee{}", branch("width=1920,height=1080"))), "{text}");
    assert!(text.contains(&branch("width=640,height=360")), "{text}");
    assert_eq!(
        plan.branches.iter().map(|branch| branch.max_fps).collect::<Vec<_>>(),
        [60, 15].map(|fps| Some(Fps::whole(fps)))
    );
    // The source gives enough for the one that wants most; the other leaves pictures out.
    camera.source = config(SourceKind::Test).source;
    camera.streams.swap(0, 1);
    let plan = make(&camera, "x264enc", &[], vec![]);
    assert!(plan.head.ends_with("width=1920,height=1080,framerate=60/1"), "{}", plan.head);
    assert_eq!(plan.branches.iter().map(|branch| branch.max_fps).collect::<Vec<_>>(), [Some(Fps::whole(15)), None]);
    assert_eq!(plan.trunk, "");
}

#[test]
fn further_streams_of_a_coded_source_are_decoded_and_the_first_is_as_it_is_alone() {
    let file = config(SourceKind::File).with_source(|source| source.file_passthrough = true);
    let mut camera = file.clone();
    let mut second = camera.streams[0].clone();
    second.encode.resolution = Some(Resolution::new(640, 360));
    second.encode.fps = Some(Fps::whole(60));
    camera.streams.push(second);
    let (one, two) =
        (make(&file, "x264enc", &[], vec![]), make(&camera, "x264enc", &["avdec_h264", "max-threads"], vec![]));
    assert_eq!((&two.head, &two.trunk, &two.branches[0].tail), (&one.head, &one.trunk, &one.branches[0].tail));
    assert_eq!((two.pacing, two.branches[0].decodes), (one.pacing, false), "what the second wants is not the source's");
    let tail = format!(
        "queue name=rov_coded max-size-buffers=8 max-size-bytes=0 max-size-time=0 ! avdec_h264 thread-type=slice \
         std-compliance=normal output-corrupt=true ! {QUEUE} ! videoscale n-threads=2 ! videoconvert n-threads=2 \
         ! video/x-raw,format=I420,width=640,height=360,pixel-aspect-ratio=1/1 ! x264enc name=rov_enc"
    );
    let text = make(&camera, "x264enc", &["avdec_h264", "n-threads"], vec![]).text();
    assert!(text.contains(" ! tee name=rov_tee rov_tee. ! appsink name=rov_out "), "{text}");
    assert!(text.contains(&format!(" rov_tee. ! {tail}")), "{text}");
    assert_eq!((two.branches[1].decodes, two.branches[1].max_fps), (true, Some(Fps::whole(60))));
    assert_eq!(two.branches[1].encoder.map(|row| row.element), Some("x264enc"));
    // Of a user's pipeline that is seen only when it runs.
    let mut user = config(SourceKind::Pipeline);
    user.streams = camera.streams;
    let user = make(&user, "x264enc", &["avdec_h264"], vec![]);
    let encoded = |number: usize| match &user.branches[number].tail {
        Tail::ByCaps { encoded, .. } => encoded.clone(),
        Tail::Fixed(_) => panic!("the tail must depend on what the pipeline gives"),
    };
    assert_eq!(encoded(0), END);
    assert!(
        encoded(1).starts_with(&format!("{} ! queue name=rov_coded", source::parsed(Codec::H264))),
        "{}",
        encoded(1)
    );
}

#[test]
fn a_webcam_whose_h264_is_the_first_stream_is_opened_once_for_the_second() {
    let size = Resolution::new(1920, 1080);
    let mode = |encoding| Mode { encoding, min: size, max: size, fps: vec![(Fps::whole(30), Fps::whole(30))] };
    let webcam = |encodings: &[Encoding]| {
        let mut camera = config(SourceKind::Webcam);
        camera.streams.push(camera.streams[0].clone());
        camera.streams[1].encode.resolution = Some(Resolution::new(640, 360));
        let found = source::Camera {
            element: "v4l2src",
            property: "device",
            id: "/dev/video0".to_owned(),
            paths: Vec::new(),
            name: "C920".to_owned(),
            modes: encodings.iter().map(|encoding| mode(encoding.clone())).collect(),
        };
        make_with(&camera, "x264enc", &["avdec_h264"], Vec::new(), vec![found])
    };
    let plan = webcam(&[Encoding::H264]);
    assert!(plan.head.contains("! video/x-h264,width=1920,height=1080,framerate=30/1 ! h264parse"), "{}", plan.head);
    assert_eq!(plan.branches.iter().map(|branch| branch.decodes).collect::<Vec<_>>(), [false, true]);
    assert!(plan.branches[0].encoder.is_none() && plan.branches[1].encoder.is_some());
    let plan = webcam(&[Encoding::H264, Encoding::Jpeg]);
    assert!(plan.head.contains("image/jpeg") && plan.branches.iter().all(|branch| !branch.decodes), "{}", plan.head);
}
