use std::path::PathBuf;

use super::*;
use crate::pipeline::mode::Mode;

const TURNED: &str = "videoconvert ! videoflip name=rov_upright";

fn machine(has_property: HasProperty<'_>) -> Machine<'_> {
    Machine {
        has_property,
        cores: 2,
        cameras: Vec::new(),
        csi: Vec::new(),
        container: None,
        stdin_fd: 0,
        stdin_is_file: false,
        opens: &|_| true,
    }
}

fn config(kind: SourceKind) -> SourceConfig {
    SourceConfig { kind, ..SourceConfig::default() }
}

fn source(config: &SourceConfig, machine: &Machine) -> Result<Source, Missing> {
    super::source(config, &EncodeConfig::default(), true, machine)
}

fn h265() -> EncodeConfig {
    EncodeConfig { codec: Codec::H265, ..EncodeConfig::default() }
}

fn camera(id: &str, name: &str, modes: Vec<Mode>) -> Camera {
    let (id, name) = (id.to_owned(), name.to_owned());
    Camera { element: "v4l2src", property: "device", id, paths: Vec::new(), name, modes }
}

/// One with a serial number, as udev knows it.
fn known(id: &str, serial: &str, port: u32) -> Camera {
    let paths = vec![
        format!("/dev/v4l/by-id/usb-Deep_{serial}-video-index0"),
        format!("/dev/v4l/by-path/pci-usb-0:{port}:1.0-video-index0"),
    ];
    Camera { paths, ..camera(id, "Deep Cam", vec![]) }
}

fn mode(encoding: Encoding, fps: u32) -> Mode {
    let size = Resolution::new(1920, 1080);
    Mode { encoding, min: size, max: size, fps: vec![(Fps::whole(fps), Fps::whole(fps))] }
}

fn file(container: Option<Container>, passthrough: bool) -> Result<Source, Missing> {
    let config = SourceConfig {
        file: Some(PathBuf::from("/videos/dive \"1\".mp4")),
        file_passthrough: passthrough,
        ..config(SourceKind::File)
    };
    source(&config, &Machine { container, ..machine(&|element, _| element == "videoflip") })
}

#[test]
fn the_test_picture_moves_and_is_drawn_into() {
    let source = source(&config(SourceKind::Test), &machine(&|_, _| false)).unwrap();
    let text = "videotestsrc is-live=true pattern=smpte horizontal-speed=4 \
                ! video/x-raw,format=I420,width=1920,height=1080,framerate=30/1";
    assert_eq!((source.text.as_str(), source.output, source.label.as_str()), (text, SourceMedia::Raw, "test picture"));
    assert_eq!(source.drawing, Some(Drawing { label: None }));
}

#[test]
fn an_ip_camera_is_taken_apart_by_its_codec_and_its_address_is_not_in_the_text() {
    let url = CameraUrl::parse("rtsp://pilot:deep@10.0.0.3/cam").unwrap();
    let config = SourceConfig { url: Some(url.clone()), ..config(SourceKind::Rtsp) };
    let h264 = source(&config, &machine(&|_, _| false)).unwrap();
    assert_eq!(
        h264.text,
        "rtspsrc name=rov_rtsp latency=40 protocols=udp+tcp timeout=2000000 tcp-timeout=5000000 \
         udp-buffer-size=2097152 ! application/x-rtp,media=video,encoding-name=H264 ! rtph264depay \
         ! video/x-h264,stream-format=avc,alignment=au ! h264parse config-interval=-1 \
         ! video/x-h264,stream-format=byte-stream,alignment=au"
    );
    assert_eq!((h264.label.as_str(), h264.camera), ("camera rtsp://10.0.0.3/cam", Some(url)));
    let h265 = super::source(&config, &h265(), true, &machine(&|_, _| false)).unwrap();
    assert!(
        h265.text.contains("encoding-name=H265 ! rtph265depay ! video/x-h265,stream-format=hvc1,"),
        "{}",
        h265.text
    );
}

#[test]
fn auto_takes_csi_then_a_webcam_then_the_labelled_test_picture() {
    let config = config(SourceKind::Auto);
    let none = source(&config, &machine(&|_, _| false)).unwrap();
    assert_eq!(none.label, "test picture (NO CAMERA)");
    assert_eq!(none.drawing, Some(Drawing { label: Some("NO CAMERA".to_owned()) }));
    let mut machine = machine(&|_, _| false);
    machine.cameras.push(camera("/dev/video2", "C920", vec![]));
    assert_eq!(source(&config, &machine).unwrap().label, "webcam /dev/video2 (C920)");
    machine.csi.push(CsiCamera { row: &CSI_ROWS[0], id: "0".to_owned() });
    assert_eq!(source(&config, &machine).unwrap().label, "CSI camera 0 (nvarguscamerasrc)");
}

#[test]
fn the_camera_that_was_taken_is_taken_again_though_another_one_has_its_number() {
    let mut machine = machine(&|_, _| false);
    machine.cameras = vec![known("/dev/video0", "A", 1), known("/dev/video2", "B", 2)];
    let label = |config: &SourceConfig, machine: &Machine| source(config, machine).map(|source| source.label);
    for kind in [SourceKind::Auto, SourceKind::Webcam] {
        machine.cameras = vec![known("/dev/video0", "A", 1), known("/dev/video2", "B", 2)];
        let first = source(&config(kind), &machine).unwrap().found.unwrap();
        assert_eq!(first.to_string(), "/dev/v4l/by-id/usb-Deep_A-video-index0 (Deep Cam)");
        let config = SourceConfig { taken: first.known_by, device: Some("0".to_owned()), ..config(kind) };
        // Both were plugged in again, the other one first, and into other ports.
        machine.cameras = vec![known("/dev/video0", "B", 1), known("/dev/video4", "A", 3)];
        assert_eq!(label(&config, &machine).unwrap(), "webcam /dev/video4 (Deep Cam)");
        assert_eq!(choice(&config, &machine).len(), 1);
        // Another one in its place, as after a repair.
        machine.cameras = vec![known("/dev/video0", "B", 2), known("/dev/video4", "C", 1)];
        assert_eq!(label(&config, &machine).unwrap(), "webcam /dev/video4 (Deep Cam)");
        machine.cameras = vec![known("/dev/video0", "B", 2)];
        assert_eq!(choice(&config, &machine), []);
        match label(&config, &machine) {
            Ok(label) => assert_eq!((kind, label.as_str()), (SourceKind::Auto, "test picture (NO CAMERA)")),
            Err(Missing(reason)) => assert_eq!(
                (kind, reason.as_str()),
                (
                    SourceKind::Webcam,
                    "webcam /dev/v4l/by-id/usb-Deep_A-video-index0 is gone: there is \
                     /dev/v4l/by-id/usb-Deep_B-video-index0 (Deep Cam); to take another one, restart the server"
                )
            ),
        }
    }
    machine.csi = ["imx219@10", "imx477@1a"].map(|id| CsiCamera { row: &CSI_ROWS[1], id: id.to_owned() }).into();
    let config = SourceConfig { taken: vec!["imx477@1a".to_owned()], ..config(SourceKind::Auto) };
    assert_eq!(label(&config, &machine).unwrap(), "CSI camera imx477@1a (libcamerasrc)");
}

#[test]
fn a_camera_of_the_same_model_without_a_serial_number_is_not_taken_for_the_one_that_is_gone() {
    let by_id = "/dev/v4l/by-id/usb-Sonix_Cam-video-index0".to_owned();
    let at = |port: u32| format!("/dev/v4l/by-path/pci-usb-0:{port}:1.0-video-index0");
    let with = |paths: Vec<String>| Camera { paths, ..camera("/dev/video0", "Sonix Cam", vec![]) };
    let mut machine = machine(&|_, _| false);
    machine.cameras = vec![with(vec![at(1), by_id.clone()])];
    let config = config(SourceKind::Auto);
    let first = source(&config, &machine).unwrap().found.unwrap();
    let config = SourceConfig { taken: first.known_by, ..config };
    // udev's link leads to the other one as soon as the first is gone.
    machine.cameras = vec![with(vec![at(2), by_id.clone()])];
    assert_eq!(choice(&config, &machine), []);
    machine.cameras.push(with(vec![at(1), by_id]));
    assert_eq!(choice(&config, &machine).len(), 1);
    assert_eq!(source(&config, &machine).unwrap().found.unwrap().device, at(1));
}

#[test]
fn a_camera_has_a_name_of_its_own_for_urls_whatever_its_number_is() {
    let name = |camera: &Camera| Found::webcam(camera).name();
    let first = name(&known("/dev/video0", "A", 1));
    assert_eq!((first.as_str(), &name(&known("/dev/video6", "A", 4))), ("deep-cam-7902", &first));
    assert_ne!(name(&known("/dev/video0", "B", 1)), first);
    let odd = |title: &str| name(&camera("/dev/video0", title, vec![]));
    assert!(odd("  Über–Kamera: USB2.0 Camera").starts_with("ber-kamera-usb2-"), "{}", odd("Über–Kamera: USB2.0"));
    assert!(odd("深海").starts_with("camera-"), "{}", odd("深海"));
    let csi = CsiCamera { row: &CSI_ROWS[1], id: "/base/soc/i2c0mux/i2c@1/imx477@1a".to_owned() };
    assert!(Found::csi(&csi).name().starts_with("csi-imx477-1a-"), "{}", Found::csi(&csi).name());
}

#[test]
fn a_webcam_gives_raw_jpeg_or_h264_as_it_offers() {
    let text = |modes: Vec<Mode>| {
        let mut machine = machine(&|_, _| false);
        machine.cameras.push(camera("/dev/video0", "C920", modes));
        let source = source(&config(SourceKind::Webcam), &machine).unwrap();
        (source.text, source.output, source.limit_fps)
    };
    let size = "width=1920,height=1080";
    let raw = Encoding::Raw("YUY2".to_owned());
    let start = "v4l2src device=\"/dev/video0\" do-timestamp=true !";
    assert_eq!(
        text(vec![mode(raw, 60)]),
        (format!("{start} video/x-raw,format=YUY2,{size},framerate=60/1"), SourceMedia::Raw, true)
    );
    let leaky = "queue max-size-buffers=1 max-size-bytes=0 max-size-time=0 leaky=downstream";
    assert_eq!(
        text(vec![mode(Encoding::Jpeg, 30)]),
        (format!("{start} image/jpeg,{size},framerate=30/1 ! {leaky} ! jpegdec"), SourceMedia::Raw, false)
    );
    let h264 = format!("{start} video/x-h264,{size},framerate=30/1 ! {}", parsed(Codec::H264));
    assert_eq!(text(vec![mode(Encoding::H264, 30)]), (h264, SourceMedia::Encoded, false));
    // Where MJPEG is wanted, a camera's own is taken before all else, unless something has to be done with the
    // pictures.
    let mjpeg = EncodeConfig { codec: Codec::Mjpeg, ..EncodeConfig::default() };
    let raw = Encoding::Raw("YUY2".to_owned());
    let both = camera("/dev/video0", "C920", vec![mode(raw, 60), mode(Encoding::Jpeg, 30)]);
    let passed = webcam(&mjpeg, true, &both);
    assert_eq!(
        (passed.text, passed.output),
        (format!("{start} image/jpeg,{size},framerate=30/1 ! jpegparse ! image/jpeg"), SourceMedia::Encoded)
    );
    assert_eq!(webcam(&mjpeg, false, &both).output, SourceMedia::Raw);
    // Where H.265 is wanted, a camera's H.264 is decoded like anything else.
    let only_h264 = camera("/dev/video0", "C920", vec![mode(Encoding::H264, 30)]);
    assert!(webcam(&h265(), true, &only_h264).text.ends_with("do-timestamp=true ! decodebin ! video/x-raw"));
    assert!(
        webcam(&EncodeConfig::default(), false, &only_h264).text.ends_with("decodebin ! video/x-raw"),
        "two streams of it"
    );
    assert_eq!(text(vec![]), (format!("{start} decodebin ! video/x-raw"), SourceMedia::Raw, true));
}

#[test]
fn a_webcam_is_found_by_index_path_or_name_and_a_missing_one_says_which_there_are() {
    let mut machine = machine(&|_, _| false);
    let find = |machine: &Machine, device: Option<&str>| {
        let config = SourceConfig { device: device.map(str::to_owned), ..config(SourceKind::Webcam) };
        find_webcam(&config, machine).map(|camera| camera.id.clone()).map_err(|missing| missing.0)
    };
    assert_eq!(
        find(&machine, None).unwrap_err(),
        "no webcam found: there is no camera, connect one, or use --source test"
    );
    machine.cameras =
        vec![camera("/dev/video0", "HD Pro C920", vec![]), camera("/dev/video2", "Low-Light USB", vec![])];
    for (device, id) in
        [("0", "/dev/video0"), ("2", "/dev/video2"), ("/dev/video2", "/dev/video2"), ("low-light", "/dev/video2")]
    {
        assert_eq!(find(&machine, Some(device)).unwrap(), id);
    }
    let message = "no webcam 1: there is /dev/video0 (HD Pro C920), /dev/video2 (Low-Light USB)";
    assert_eq!(find(&machine, Some("1")).unwrap_err(), message);
}

#[test]
fn csi_cameras_of_jetson_and_pi() {
    let text = |row: usize, id: &str| {
        let mut machine = machine(&|_, _| false);
        machine.csi.push(CsiCamera { row: &CSI_ROWS[row], id: id.to_owned() });
        let source = source(&config(SourceKind::Csi), &machine).unwrap();
        (source.text, source.output)
    };
    let jetson =
        "nvarguscamerasrc sensor-id=\"0\" ! video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080,framerate=30/1";
    assert_eq!(text(0, "0"), (jetson.to_owned(), SourceMedia::Nvmm));
    let pi = "libcamerasrc camera-name=\"/base/soc/i2c0mux/i2c@1/imx219@10\" ! \
              video/x-raw,format=NV12,width=1920,height=1080,framerate=30/1";
    assert_eq!(text(1, "/base/soc/i2c0mux/i2c@1/imx219@10"), (pi.to_owned(), SourceMedia::Raw));
    let missing = source(&config(SourceKind::Csi), &machine(&|_, _| false)).unwrap_err();
    assert!(missing.0.starts_with("no CSI camera found: needs nvarguscamerasrc"), "{}", missing.0);
}

#[test]
fn a_file_is_decoded_or_taken_apart_by_its_container() {
    let location = "filesrc location=\"/videos/dive \\\"1\\\".mp4\"";
    assert_eq!(file(None, false).unwrap().text, format!("{location} ! decodebin ! video/x-raw ! {TURNED}"));
    for (container, demuxer) in [
        (Container::Mp4, "qtdemux ! "),
        (Container::Matroska, "matroskademux ! "),
        (Container::MpegTs, "tsdemux ! "),
        (Container::AnnexB, ""),
    ] {
        let source = file(Some(container), true).unwrap();
        let parse = "h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au";
        assert_eq!(source.text, format!("{location} ! {demuxer}video/x-h264 ! {parse}"));
        assert_eq!(source.output, SourceMedia::Encoded);
    }
    let refused = file(None, true).unwrap_err().0;
    assert!(
        refused.ends_with("not MP4, MKV, MPEG-TS or raw H.264; drop --file-passthrough so that it is re-encoded"),
        "{refused}"
    );
}

#[test]
fn on_a_jetson_a_decoded_file_comes_out_of_its_memory() {
    let config = SourceConfig { file: Some(PathBuf::from("a.mp4")), ..config(SourceKind::File) };
    let text = source(&config, &machine(&|element, _| element == "nvvidconv")).unwrap().text;
    let expected = "filesrc location=\"a.mp4\" ! decodebin ! video/x-raw(ANY) ! nvvidconv ! video/x-raw";
    assert_eq!(text, format!("{expected} ! videoconvert"), "without what turns them");
}

#[test]
fn standard_input_goes_through_untouched() {
    let source = source(&config(SourceKind::Stdin), &machine(&|_, _| false)).unwrap();
    let text = "fdsrc name=rov_stdin fd=0 do-timestamp=true blocksize=65536 ! h264parse config-interval=-1 \
                ! video/x-h264,stream-format=byte-stream,alignment=au";
    assert_eq!((source.text.as_str(), source.output, source.pacing), (text, SourceMedia::Encoded, Pacing::Live));
}

#[test]
fn a_file_as_standard_input_is_paced() {
    let machine = Machine { stdin_is_file: true, ..machine(&|_, _| false) };
    let source = source(&config(SourceKind::Stdin), &machine).unwrap();
    assert!(source.text.starts_with("fdsrc name=rov_stdin fd=0 blocksize=65536 ! h264parse"), "{}", source.text);
    assert_eq!(source.pacing, Pacing::File { looping: false, interval_of: Fps::whole(30) });
}

#[test]
fn a_users_pipeline_may_end_in_raw_or_h264() {
    let config =
        SourceConfig { pipeline: Some(" videotestsrc is-live=true ! ".to_owned()), ..config(SourceKind::Pipeline) };
    let source = source(&config, &machine(&|_, _| false)).unwrap();
    let text = "videotestsrc is-live=true ! capsfilter name=rov_end \
                caps=\"video/x-raw;video/x-raw(memory:NVMM);video/x-h264\"";
    assert_eq!((source.text.as_str(), source.output), (text, SourceMedia::ByCaps));
}

#[test]
fn containers_are_told_by_their_first_bytes() {
    assert_eq!(sniff(b"\0\0\0\x18ftypisom"), Some(Container::Mp4));
    assert_eq!(sniff(&[0x1a, 0x45, 0xdf, 0xa3, 0]), Some(Container::Matroska));
    assert_eq!(sniff(&[0, 0, 0, 1, 0x67]), Some(Container::AnnexB));
    assert_eq!(sniff(&[0, 0, 1, 0x09]), Some(Container::AnnexB));
    assert_eq!(sniff(&[0, 0, 1, 0xba]), None);
    let mut ts = vec![0u8; 256];
    ts[0] = 0x47;
    assert_eq!(sniff(&ts), None);
    ts[188] = 0x47;
    assert_eq!(sniff(&ts), Some(Container::MpegTs));
    assert_eq!(sniff(b""), None);
    assert_eq!(sniff(b"RIFF...."), None);
}

#[test]
fn whose_time_the_pictures_have_is_known_by_the_element_that_gives_them() {
    let machine = || machine(&|_, _| false);
    let time = |kind, machine: &Machine| source(&config(kind), machine).unwrap().capture_time;
    assert_eq!(time(SourceKind::Test, &machine()), CaptureTime::Source);
    for kind in [SourceKind::Stdin, SourceKind::Publish, SourceKind::Pipeline, SourceKind::Rtsp] {
        assert_eq!(time(kind, &machine()), CaptureTime::Arrival, "{kind:?}");
    }
    for (element, expected) in [("v4l2src", CaptureTime::Source), ("mfvideosrc", CaptureTime::Arrival)] {
        let camera = Camera { element, ..camera("/dev/video0", "C920", vec![]) };
        let machine = Machine { cameras: vec![camera], ..machine() };
        assert_eq!(time(SourceKind::Webcam, &machine), expected, "{element}");
    }
    for (row, expected) in CSI_ROWS.iter().zip([CaptureTime::Arrival, CaptureTime::Source]) {
        let machine = Machine { csi: vec![CsiCamera { row, id: "0".to_owned() }], ..machine() };
        assert_eq!(time(SourceKind::Csi, &machine), expected, "{}", row.element);
    }
}
