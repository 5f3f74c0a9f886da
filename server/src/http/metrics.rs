//! `GET /metrics`: the statistics in the text format of Prometheus, by its naming conventions: base units, `_total` for
//! what only grows. Made anew for each request, so that it cannot differ from `/api/stats`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, Opts, Registry, TEXT_FORMAT, TextEncoder};
use rov_common::api::{RecordingState, RecordingStats, RtspSession, Stats, StreamState, StreamStats, ViewerStats};

use super::{Api, Failure, gather};

const STATES: [(StreamState, &str); 5] = [
    (StreamState::Starting, "starting"),
    (StreamState::Running, "running"),
    (StreamState::Stalled, "stalled"),
    (StreamState::Restarting, "restarting"),
    (StreamState::Ended, "ended"),
];

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, Failure> {
    let text = text(&gather(&api).await?).map_err(Failure::internal)?;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text))
}

fn text(stats: &Stats) -> prometheus::Result<String> {
    let families = Families(Registry::new());
    server(&families, stats)?;
    streams(&families, &stats.streams)?;
    recordings(&families, &stats.streams)?;
    viewers(&families, &stats.viewers)?;
    rtsp_sessions(&families, stats.rtsp.as_ref().map_or(&[], |rtsp| &rtsp.sessions))?;
    TextEncoder::new().encode_to_string(&families.0.gather())
}

/// Metrics by name; one without a value is left out of the text.
struct Families(Registry);

impl Families {
    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
        self.register(CounterVec::new(Opts::new(name, help), labels)?)
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> prometheus::Result<M> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

fn server(families: &Families, stats: &Stats) -> prometheus::Result<()> {
    let info = families.gauge("rov_server_info", "Identity and version; always 1.", &["id", "name", "version"])?;
    info.with_label_values(&[&stats.id, &stats.name, &stats.version]).set(1.0);
    let uptime = families.gauge("rov_server_uptime_seconds", "Since the server started.", &[])?;
    uptime.with_label_values::<&str>(&[]).set(stats.uptime_s);

    let watching = families.gauge("rov_server_viewers", "Who watches now, by transport.", &["transport"])?;
    watching.with_label_values(&["webrtc"]).set(stats.viewers.len() as f64);
    watching.with_label_values(&["mjpeg"]).set(stats.jpeg.viewers as f64);
    let skipped = families.counter(
        "rov_output_skipped_access_units_total",
        "Access units that an output left out because it fell behind.",
        &["transport"],
    )?;
    if let Some(rtsp) = &stats.rtsp {
        watching.with_label_values(&["rtsp"]).set(rtsp.clients as f64);
        skipped.with_label_values(&["rtsp"]).inc_by(rtsp.skipped as f64);
    }
    if let Some(rtp) = &stats.rtp {
        skipped.with_label_values(&["rtp"]).inc_by(rtp.skipped as f64);
        for (name, help, value) in [
            ("rov_rtp_packets_total", "Packets sent by plain RTP, with repair packets.", rtp.packets),
            ("rov_rtp_bytes_total", "Bytes sent by plain RTP.", rtp.bytes),
            ("rov_rtp_errors_total", "Packets of plain RTP that the system did not take.", rtp.errors),
        ] {
            families.counter(name, help, &[])?.with_label_values::<&str>(&[]).inc_by(value as f64);
        }
    }
    let pictures = families.counter("rov_jpeg_pictures_total", "JPEG pictures made.", &[])?;
    pictures.with_label_values::<&str>(&[]).inc_by(stats.jpeg.pictures as f64);
    Ok(())
}

fn streams(families: &Families, streams: &[StreamStats]) -> prometheus::Result<()> {
    let of = ["camera", "stream"];
    let labels = ["camera", "stream", "source", "encoder", "codec"];
    let info = families.gauge("rov_stream_info", "What is streamed; always 1.", &labels)?;
    let state = families.gauge("rov_stream_state", "1 for the state of the stream.", &["camera", "stream", "state"])?;
    for stream in streams {
        let named = [&stream.camera, &stream.name, &stream.source, &stream.encoder, &stream.codec];
        info.with_label_values(&named).set(1.0);
        for (each, word) in STATES {
            let is_it = f64::from(u8::from(each == stream.state));
            state.with_label_values(&[stream.camera.as_str(), &stream.name, word]).set(is_it);
        }
    }
    type Read = fn(&StreamStats) -> f64;
    let counters: [(&str, &str, Read); 7] = [
        ("rov_stream_frames_total", "Encoded pictures.", |of| of.frames as f64),
        ("rov_stream_keyframes_total", "Encoded keyframes.", |of| of.keyframes as f64),
        ("rov_stream_dropped_frames_total", "Raw pictures left out because the encoder was busy.", |of| {
            of.frames_dropped as f64
        }),
        ("rov_stream_damaged_frames_total", "Pictures left out because the source gave them damaged.", |of| {
            of.frames_damaged as f64
        }),
        ("rov_stream_restarts_total", "Restarts of the camera's pipeline, or of the stream's part of it.", |of| {
            of.restarts as f64
        }),
        ("rov_stream_sent_bytes_total", "Bytes of video sent to all viewers, also to those who have gone.", |of| {
            of.total_bytes_streamed as f64
        }),
        ("rov_stream_errors_total", "Interruptions of the stream, and starts that failed.", |of| of.errors as f64),
    ];
    for (name, help, read) in counters {
        let counter = families.counter(name, help, &of)?;
        for stream in streams {
            counter.with_label_values(&[&stream.camera, &stream.name]).inc_by(read(stream));
        }
    }
    let gauges: [(&str, &str, Read); 11] = [
        ("rov_stream_viewers", "Who watches now: by WebRTC, RTSP and MJPEG.", |of| of.client_count as f64),
        ("rov_stream_uptime_seconds", "Since the last interruption of the stream.", |of| of.uptime),
        ("rov_stream_input_frames_per_second", "Raw pictures out of the source.", |of| of.fps_in),
        ("rov_stream_output_frames_per_second", "Encoded pictures.", |of| of.fps_out),
        ("rov_stream_bytes_per_second", "Encoded, over the last two seconds.", |of| of.bitrate_kbps * 125.0),
        ("rov_stream_target_bytes_per_second", "What the encoder was asked for; 0 where nothing is encoded.", |of| {
            f64::from(of.target_bitrate_kbps) * 125.0
        }),
        ("rov_stream_encode_latency_seconds", "From capture to encoded, mean.", |of| of.encode_latency_ms / 1e3),
        ("rov_stream_width_pixels", "Width of the pictures.", |of| f64::from(of.width)),
        ("rov_stream_height_pixels", "Height of the pictures.", |of| f64::from(of.height)),
        ("rov_stream_resting", "1 while nobody looks and nothing is encoded.", |of| f64::from(u8::from(of.resting))),
        ("rov_stream_frozen", "1 while the camera repeats one picture.", |of| f64::from(u8::from(of.frozen))),
    ];
    for (name, help, read) in gauges {
        let gauge = families.gauge(name, help, &of)?;
        for stream in streams {
            gauge.with_label_values(&[&stream.camera, &stream.name]).set(read(stream));
        }
    }
    Ok(())
}

fn recordings(families: &Families, streams: &[StreamStats]) -> prometheus::Result<()> {
    type Read = fn(&RecordingStats) -> f64;
    let all = || streams.iter().filter_map(|stream| Some((stream, stream.recording.as_ref()?)));
    let of = ["camera", "stream"];
    let gauges: [(&str, &str, Read); 2] = [
        ("rov_recording_active", "1 while the stream is written to the disk.", |of| {
            f64::from(u8::from(of.state == RecordingState::Recording))
        }),
        ("rov_recording_paused", "1 while it should be, and the disk is full or cannot be used.", |of| {
            f64::from(u8::from(of.state == RecordingState::Paused))
        }),
    ];
    for (name, help, read) in gauges {
        let gauge = families.gauge(name, help, &of)?;
        all().for_each(|(stream, one)| gauge.with_label_values(&[&stream.camera, &stream.name]).set(read(one)));
    }
    let free = families.gauge("rov_recording_free_bytes", "Free on the disk of the recordings.", &of)?;
    let left = families.gauge("rov_recording_left_seconds", "Until that disk is as full as it may get.", &of)?;
    for (stream, one) in all() {
        let labels = [&stream.camera, &stream.name];
        one.free_bytes.into_iter().for_each(|bytes| free.with_label_values(&labels).set(bytes as f64));
        one.seconds_left.into_iter().for_each(|seconds| left.with_label_values(&labels).set(seconds));
    }
    let counters: [(&str, &str, Read); 3] = [
        ("rov_recording_bytes_total", "Written to the disk.", |of| of.total_bytes as f64),
        ("rov_recording_gaps_total", "How often pictures are missing in a recording.", |of| of.gaps as f64),
        ("rov_recording_missing_frames_total", "Pictures that are in no recording.", |of| of.missing as f64),
    ];
    for (name, help, read) in counters {
        let counter = families.counter(name, help, &of)?;
        all().for_each(|(stream, one)| counter.with_label_values(&[&stream.camera, &stream.name]).inc_by(read(one)));
    }
    Ok(())
}

/// One by WebRTC ends with its series: each session has an id of its own.
fn viewers(families: &Families, viewers: &[ViewerStats]) -> prometheus::Result<()> {
    let of = ["viewer", "stream"];
    type Count = fn(&ViewerStats) -> u64;
    let counters: [(&str, &str, Count); 6] = [
        ("rov_viewer_packets_total", "RTP packets sent.", |of| of.packets),
        ("rov_viewer_bytes_total", "Bytes of video sent.", |of| of.bytes),
        ("rov_viewer_skipped_access_units_total", "Access units that were not sent.", |of| of.skipped),
        ("rov_viewer_thinned_access_units_total", "Of these, because the link is too slow.", |of| of.thinned),
        ("rov_viewer_nacked_packets_total", "Packets asked for again.", |of| of.nacks),
        ("rov_viewer_keyframe_requests_total", "Keyframes asked for, by PLI and FIR.", |of| of.plis),
    ];
    for (name, help, read) in counters {
        let counter = families.counter(name, help, &of)?;
        for viewer in viewers {
            counter.with_label_values(&[&viewer.id, &viewer.stream]).inc_by(read(viewer) as f64);
        }
    }
    type Read = fn(&ViewerStats) -> Option<f64>;
    let gauges: [(&str, &str, Read); 8] = [
        ("rov_viewer_connected_seconds", "Since it is connected.", |of| Some(of.connected_s)),
        ("rov_viewer_estimate_bytes_per_second", "What its link carries, as far as was seen.", |of| {
            Some(f64::from(of.estimate_kbps) * 125.0)
        }),
        ("rov_viewer_queue_seconds", "How long packets wait because its link is full.", |of| Some(of.queue_ms / 1e3)),
        ("rov_viewer_round_trip_seconds", "Round trip.", |of| of.rtt_ms.map(|ms| ms / 1e3)),
        ("rov_viewer_jitter_seconds", "How unevenly packets arrive, by its last report.", |of| {
            of.jitter.map(|ms| ms / 1e3)
        }),
        ("rov_viewer_loss_ratio", "Share of packets lost in its last report.", |of| of.loss),
        ("rov_viewer_pilot", "1 for the one whose link the bit rate follows.", |of| {
            Some(f64::from(u8::from(of.pilot)))
        }),
        ("rov_viewer_stalled", "1 while it is not sure that it sees anything.", |of| {
            Some(f64::from(u8::from(of.stalled.is_some())))
        }),
    ];
    for (name, help, read) in gauges {
        let gauge = families.gauge(name, help, &of)?;
        for viewer in viewers {
            if let Some(value) = read(viewer) {
                gauge.with_label_values(&[&viewer.id, &viewer.stream]).set(value);
            }
        }
    }
    Ok(())
}

/// One ends with its series: the address of its connection is another one each time.
fn rtsp_sessions(families: &Families, sessions: &[RtspSession]) -> prometheus::Result<()> {
    let of = ["session", "stream"];
    let bytes = families.counter("rov_rtsp_session_bytes_total", "Bytes of video sent.", &of)?;
    for session in sessions {
        bytes.with_label_values(&[&session.address, &session.stream]).inc_by(session.bytes as f64);
    }
    type Read = fn(&RtspSession) -> Option<f64>;
    let gauges: [(&str, &str, Read); 4] = [
        ("rov_rtsp_session_playing_seconds", "Since it plays.", |of| Some(of.playing_s)),
        ("rov_rtsp_session_loss_ratio", "Share of packets lost in its last report.", |of| of.packet_loss),
        ("rov_rtsp_session_jitter_seconds", "How unevenly packets arrive, by its last report.", |of| {
            of.jitter.map(|ms| ms / 1e3)
        }),
        ("rov_rtsp_session_round_trip_seconds", "Round trip.", |of| of.rtt.map(|ms| ms / 1e3)),
    ];
    for (name, help, read) in gauges {
        let gauge = families.gauge(name, help, &of)?;
        for session in sessions {
            if let Some(value) = read(session) {
                gauge.with_label_values(&[&session.address, &session.stream]).set(value);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_and_viewer_is_there_in_base_units_and_what_is_unknown_is_left_out() {
        let stream = |name: &str, state: StreamState| StreamStats {
            camera: "bow".to_owned(),
            name: name.to_owned(),
            source: "a \"quoted\"\npicture".to_owned(),
            state,
            frames: 90,
            bitrate_kbps: 1234.5,
            encode_latency_ms: 4.0,
            ..StreamStats::default()
        };
        let viewer = |id: &str, rtt_ms: Option<f64>| ViewerStats {
            id: id.to_owned(),
            stream: "stream1".to_owned(),
            rtt_ms,
            ..ViewerStats::default()
        };
        let stats = Stats {
            name: "Nemo".to_owned(),
            streams: vec![stream("stream1", StreamState::Running), stream("stream2", StreamState::Stalled)],
            viewers: vec![viewer("a1", Some(2.0)), viewer("b2", None)],
            ..Stats::default()
        };
        let text = text(&stats).expect("text");
        for line in [
            "rov_stream_frames_total{camera=\"bow\",stream=\"stream1\"} 90",
            "rov_stream_bytes_per_second{camera=\"bow\",stream=\"stream2\"} 154312.5",
            "rov_stream_encode_latency_seconds{camera=\"bow\",stream=\"stream1\"} 0.004",
            "rov_stream_state{camera=\"bow\",state=\"stalled\",stream=\"stream2\"} 1",
            "rov_stream_state{camera=\"bow\",state=\"running\",stream=\"stream2\"} 0",
            "rov_server_viewers{transport=\"webrtc\"} 2",
            "rov_viewer_round_trip_seconds{stream=\"stream1\",viewer=\"a1\"} 0.002",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert!(!text.contains("rov_viewer_round_trip_seconds{stream=\"stream1\",viewer=\"b2\"}"));
        assert!(text.contains(r#"source="a \"quoted\"\npicture""#), "{text}");
        assert!(!text.contains("rov_rtp_"), "RTP is not among the transports");
    }
}
