//! Builds the bins of a graph from a plan, joins them, and listens to the bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use rov_common::codec::Codec;
use rov_common::sync::lock;
use rov_common::units::Fps;
use rov_gst::caps::format_of;
use rov_gst::element::{has_property, is_made_by, set_property};
use rov_gst::{counter, message, rtp, rtspsrc};

use super::capture::{self, Branch, Capture, Failure, GraphError, GraphEvent, STOP, Size, TailElements};
use super::continuity::{self, REWIND};
use super::encoder::{self, EncoderRow};
use super::plan::{self, BranchPlan, Plan, Tail};
use super::source::{self, Pacing};
use super::{at_rest, burn, catch_up, decimate, decoded, joint, jpeg, live, rtsp, stdin, still, wiring};
use crate::config::SourceKind;
use crate::overlay::Canvas;
use crate::rate_control::Ceiling;

/// Fills `pipeline`; returns the head, which a looping file replaces.
pub fn build(plan: &Plan, pipeline: &gst::Pipeline, capture: &Arc<Capture>) -> Result<gst::Bin, GraphError> {
    let head = head(plan, capture)?;
    pipeline.add(&head).map_err(|error| GraphError::Text(error.to_string()))?;
    let fixed = plan.branches.iter().map(|branch| match &branch.tail {
        Tail::Fixed(text) => Some(text.as_str()),
        Tail::ByCaps { .. } => None,
    });
    match fixed.collect::<Option<Vec<_>>>() {
        Some(texts) => {
            let behind = add_behind(plan, &texts, plan.branches[0].encoder.is_some(), pipeline, capture)?;
            link(&head, &behind[0], plan)?;
        }
        None => attach_by_caps(plan, &head, pipeline, capture),
    }
    Ok(head)
}

fn link(from: &impl IsA<gst::Element>, to: &gst::Element, plan: &Plan) -> Result<(), GraphError> {
    from.link(to).map_err(|_| GraphError::Text(format!("source and encoder do not fit: {}", plan.text())))
}

/// Adds all that is behind the head, linked with each other: the first takes the pictures. `texts`: those of the tails.
fn add_behind(
    plan: &Plan,
    texts: &[&str],
    encodes: bool,
    pipeline: &gst::Pipeline,
    capture: &Arc<Capture>,
) -> Result<Vec<gst::Element>, GraphError> {
    let mut all: Vec<gst::Element> = Vec::new();
    if !plan.trunk.is_empty() {
        all.push(trunk(plan, pipeline, capture)?.upcast());
    }
    // What goes out untouched, alone, needs none.
    let has_tee = texts.len() > 1 || encodes;
    if has_tee {
        // While branches are replaced there may be none.
        let tee = gst::ElementFactory::make("tee").name(plan::TEE).property("allow-not-linked", true).build();
        all.push(tee.map_err(|error| GraphError::Text(error.to_string()))?);
    }
    let common_ones = all.len();
    for ((branch_plan, branch), text) in plan.branches.iter().zip(capture.branches()).zip(texts) {
        // Of a coded stream only the first goes out untouched.
        let encodes = encodes || branch.stream > 0;
        let tail = parse(text, !encodes)?;
        if encodes {
            joint::add_entrance(&tail, &branch)?;
        }
        fill_tail(&tail, branch_plan, plan.codec, text, encodes, &branch, capture)?;
        all.push(tail.upcast());
    }
    pipeline.add_many(&all).map_err(|error| GraphError::Text(error.to_string()))?;
    for pair in all[..common_ones].windows(2) {
        link(&pair[0], &pair[1], plan)?;
    }
    if let Some(last) = common_ones.checked_sub(1) {
        all[common_ones..].iter().try_for_each(|tail| link(&all[last], tail, plan))?;
    }
    Ok(all)
}

/// Reads the bus on a thread, until the graph stops or has failed.
pub fn watch_bus(
    plan: Plan,
    pipeline: &gst::Pipeline,
    mut head: gst::Bin,
    capture: Arc<Capture>,
) -> thread::JoinHandle<()> {
    let pipeline = pipeline.clone();
    thread::spawn(move || {
        let Some(bus) = pipeline.bus() else { return };
        let mut turned = None;
        let turns = head.by_name(source::UPRIGHT).is_some();
        for message in bus.iter_timed(gst::ClockTime::NONE) {
            match message.view() {
                gst::MessageView::Error(error) if capture.hears_beside(error.src(), || message::error_text(error)) => {}
                // It is of a branch, or of a round of a file, that was taken out.
                gst::MessageView::Error(error) if !error.src().is_some_and(|at| at.has_as_ancestor(&pipeline)) => {}
                gst::MessageView::Error(error) => match rtsp::failure(error, &plan, &capture) {
                    // The other branches go on, or another one takes its place.
                    event @ GraphEvent::Error(Failure::Encoder { stream, .. }) => {
                        if capture.branch(stream).fail() {
                            capture.event(event);
                        }
                    }
                    event => return capture.event(event),
                },
                gst::MessageView::Eos(_) => return capture.event(GraphEvent::Eos),
                gst::MessageView::Warning(warning) => {
                    tracing::warn!("{}: {}", message::origin(warning.src()), warning.error().message());
                }
                gst::MessageView::Tag(tag) if plan.branches[0].encoder.is_none() => {
                    say_turned(&tag.tags(), PASSED, &mut turned)
                }
                gst::MessageView::Tag(tag) if plan.source == SourceKind::File && !turns => {
                    say_turned(&tag.tags(), NO_FLIP, &mut turned);
                }
                gst::MessageView::Application(application) => {
                    match application.structure().map(|s| s.name().as_str()) {
                        Some(STOP) => return,
                        Some(REWIND) => match rewind(&plan, &pipeline, &head, &capture) {
                            Ok(next) => head = next,
                            Err(error) => {
                                return capture.event(GraphEvent::Error(Failure::Source(error.to_string())));
                            }
                        },
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    })
}

/// Why pictures are not turned as they should be, and what to do.
const PASSED: &str =
    "they are passed through as they are: encode them (without --file-passthrough) to have them upright";
const NO_FLIP: &str =
    "the element videoflip with the property video-direction is missing: install gstreamer1.0-plugins-good";

/// Says once that the pictures are to be turned, which only a player can do then.
fn say_turned(tags: &gst::TagList, why_not: &str, said: &mut Option<String>) {
    let Some(orientation) = tags.get::<gst::tags::ImageOrientation>() else { return };
    let orientation = orientation.get();
    if orientation != "rotate-0" && said.as_deref() != Some(orientation) {
        tracing::warn!(orientation, "the source says that its pictures are to be turned, but {why_not}");
        *said = Some(orientation.to_owned());
    }
}

/// Opens a file again: its elements are made anew, as demuxers differ in what they can seek.
fn rewind(
    plan: &Plan,
    pipeline: &gst::Pipeline,
    old: &gst::Bin,
    capture: &Arc<Capture>,
) -> Result<gst::Bin, GraphError> {
    let failed = |what: &str| GraphError::source(format!("{}: cannot start again: {what}", plan.source_label));
    let tail = old.static_pad("src").and_then(|pad| pad.peer()).ok_or_else(|| failed("its output is not linked"))?;
    old.set_state(gst::State::Null).map_err(|_| failed("it does not stop"))?;
    pipeline.remove(old).map_err(|_| failed("it cannot be removed"))?;
    let head = head(plan, capture)?;
    pipeline.add(&head).map_err(|_| failed("it cannot be added"))?;
    let pad = head.static_pad("src").ok_or_else(|| failed("it has no output"))?;
    pad.link(&tail).map_err(|_| failed("its output does not fit any more"))?;
    join_time(&head, pipeline);
    head.sync_state_with_parent().map_err(|_| failed("it does not start"))?;
    Ok(head)
}

/// What is added to a running pipeline does not get its time line by itself.
pub(super) fn join_time(element: &impl IsA<gst::Element>, pipeline: &gst::Pipeline) {
    if let Some(base_time) = pipeline.base_time() {
        element.set_base_time(base_time);
    }
}

pub(super) fn parse(text: &str, ghost: bool) -> Result<gst::Bin, GraphError> {
    let bin = gst::parse::bin_from_description(text, ghost);
    bin.map_err(|error| GraphError::Text(format!("{} in: {text}", error.message().trim_end_matches('.'))))
}

/// The head with one output pad, `src`. Made by hand: of the unlinked pads some belong to links that are made later.
fn head(plan: &Plan, capture: &Arc<Capture>) -> Result<gst::Bin, GraphError> {
    let head = parse(&plan.head_text(), false)?;
    let no_output = || GraphError::Text(format!("nothing to take pictures from in: {}", plan.head_text()));
    let pad = head.by_name(plan::JOIN).and_then(|join| join.static_pad("src")).ok_or_else(no_output)?;
    // A user's pipeline may have one too.
    let sources = head.iterate_elements().into_iter().flatten().filter(|element| is_made_by(element, "rtspsrc"));
    sources.for_each(|source| rtspsrc::number_packets(&source));
    if let Some(url) = &plan.camera {
        rtsp::install(&head, url, plan, capture);
    }
    if let Some(inlet) = &plan.links.inlet {
        inlet.install(&head, &capture.lost);
    }
    let lost = Arc::clone(&capture.lost);
    rtp::correct_packets(&head, false, move |judged| lost.picture_came(judged));
    stdin::install(&head, plan.codec, capture);
    catch_up::install(&head, plan.codec, capture);
    jpeg::watch(&head, capture);
    // Those of a file or of a user's pipeline may be paced only behind the decoder.
    if matches!(plan.source, SourceKind::Auto | SourceKind::Webcam) {
        let elements = head.iterate_elements().into_iter().flatten();
        let jpeg = elements.filter(|element| is_made_by(element, "jpegdec"));
        jpeg.filter_map(|decoder| decoder.static_pad("sink")).for_each(|pad| at_rest::rest_decoder(&pad, capture));
    }
    if let Some(upright) = head.by_name(source::UPRIGHT) {
        wiring::turn(&upright);
    }
    if let Some(drawing) = &plan.drawing {
        wiring::draw(&pad, drawing);
    }
    if let Some(pip) = &plan.links.pip {
        pip.install(&head, &pad, capture);
        wiring::first_fields(&head);
    }
    if plan.trunk.is_empty() {
        plan.links.taps.iter().for_each(|tap| tap.install(&pad));
    }
    if matches!(plan.branches[0], BranchPlan { tail: Tail::Fixed(_), encoder: None, .. }) {
        counter::count(&pad, &capture.branch(0).frames_in);
    }
    let ghost = gst::GhostPad::builder_with_target(&pad).map_err(|_| no_output())?.name("src").build();
    ghost.set_active(true).and_then(|()| head.add_pad(&ghost)).map_err(|_| no_output())?;
    Ok(head)
}

fn trunk(plan: &Plan, pipeline: &gst::Pipeline, capture: &Arc<Capture>) -> Result<gst::Bin, GraphError> {
    let trunk = parse(&plan.trunk, true)?;
    if let Pacing::File { looping, interval_of } = plan.pacing {
        continuity::install(&pad(&trunk, plan::AHEAD, &plan.trunk)?, pipeline, interval_of.interval(), looping);
        wiring::note_due(&pad(&trunk, plan::PACE, &plan.trunk)?, pipeline, &capture.next_due);
    }
    if let Some(pad) = trunk.static_pad("src") {
        plan.links.taps.iter().for_each(|tap| tap.install(&pad));
    }
    Ok(trunk)
}

fn missing(what: &str, text: &str) -> GraphError {
    GraphError::Text(format!("no {what} in: {text}"))
}

/// Where an element of `bin`, made of `text`, takes pictures.
fn pad(bin: &gst::Bin, element: &str, text: &str) -> Result<gst::Pad, GraphError> {
    pad_of(bin, element, "sink", text)
}

fn pad_of(bin: &gst::Bin, element: &str, pad: &str, text: &str) -> Result<gst::Pad, GraphError> {
    let pad = bin.by_name(element).and_then(|element| element.static_pad(pad));
    pad.ok_or_else(|| missing(element, text))
}

/// Has a tail made of `text` do all that the text does not say.
pub(super) fn fill_tail(
    tail: &gst::Bin,
    plan: &BranchPlan,
    source_codec: Codec,
    text: &str,
    encodes: bool,
    branch: &Arc<Branch>,
    capture: &Arc<Capture>,
) -> Result<(), GraphError> {
    if plan.is_off {
        return Ok(());
    }
    let encoder = if encodes {
        let row = plan.encoder.ok_or_else(|| missing(encoder::NAME, text))?;
        let element = tail.by_name(encoder::NAME).ok_or_else(|| missing(encoder::NAME, text))?;
        let queue = pad(tail, plan::RAW_QUEUE, text)?;
        // Before all others: what is damaged is nothing to them.
        if let Some(coded) = tail.by_name(decoded::CODED_QUEUE) {
            decoded::install(&coded, &queue, source_codec, branch);
        }
        // Before the count: what is left out on purpose is not lost.
        if let Some(fps) = plan.max_fps {
            // At one picture a second, whoever comes would wait for that second, and a change for its keyframe in vain.
            let weak = Arc::downgrade(branch);
            decimate::install(&queue, fps, move |pad, info| {
                weak.upgrade().is_some_and(|branch| lock(&branch.valve).awaits(at_rest::time_of(pad, info)))
            });
        }
        live::leave_out(&queue, branch);
        counter::count(&queue, &branch.frames_in);
        if branch.stream == 0 {
            still::watch(&queue, &capture.still);
        }
        at_rest::rest_encoder(&queue, branch);
        counter::count(&pad(tail, encoder::NAME, text)?, &branch.frames_to_encoder);
        let raw = pad_of(tail, plan::RAW_QUEUE, "src", text)?;
        live::set_in_stream(&raw, branch);
        at_rest::force_first(&raw, branch);
        fit_encoder(&element, row, plan, branch);
        wiring::first_fields(tail);
        if let Some(overlay) = capture.overlays.get(branch.stream) {
            let (capture, branch) = (Arc::downgrade(capture), Arc::downgrade(branch));
            burn::install(&pad_of(tail, plan::RAW_QUEUE, "src", text)?, overlay, move |canvas| {
                if let Some((capture, branch)) = capture.upgrade().zip(branch.upgrade()) {
                    capture.set_canvas(&branch, canvas);
                }
            });
        }
        Some((element, row))
    } else {
        capture.set_canvas(branch, Canvas::without(burn::PASSED));
        None
    };
    let sink = tail
        .by_name(plan::OUT)
        .and_then(|sink| sink.downcast::<gst_app::AppSink>().ok())
        .ok_or_else(|| missing(plan::OUT, text))?;
    connect_sink(&sink, encoder.is_none(), branch, capture);
    let size = encoder.as_ref().and_then(|(element, row)| Size::of(element, row));
    let flip = tail.by_name(plan::FLIP).map(|flip| flip.downgrade());
    let encoder = encoder.map(|(element, row)| (element.downgrade(), row));
    let output = TailElements { encoder, size, flip, sink: sink.downgrade(), text: text.to_owned() };
    branch.output.set(output).map_err(|_| GraphError::Text("a branch has one output".to_owned()))
}

/// Sets what depends on bit rate and frame rate once these are known, just before the encoder is opened.
///
/// The text could only assume: a file of 25 frames a second gets another one-frame buffer than one of 30.
fn fit_encoder(encoder: &gst::Element, row: &'static EncoderRow, plan: &BranchPlan, branch: &Arc<Branch>) {
    let Some(pad) = encoder.static_pad("sink") else { return };
    let (plan, branch, encoder) = (plan.clone(), Arc::downgrade(branch), encoder.downgrade());
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let Some((encoder, (resolution, fps))) = encoder.upgrade().zip(format_of(caps.caps())) else {
            return gst::PadProbeReturn::Ok;
        };
        let Some(branch) = branch.upgrade() else { return gst::PadProbeReturn::Ok };
        let settings = {
            let mut settings = lock(&branch.settings);
            settings.fps = fps.or(settings.fps);
            settings.resolution = Some(resolution);
            let bitrate = plan::bitrate_for(&plan, resolution, settings.fps);
            settings.bitrate = plan.limit.map_or(bitrate, |limit| limit.min(bitrate));
            let fps = settings.fps.map_or(30.0, Fps::as_f64);
            let ceiling =
                Ceiling { bitrate, resolution, fps, costly: row.live_rate_costs_keyframe, fixed_size: plan.fixed_size };
            *lock(&branch.ceiling) = Some(ceiling);
            *settings
        };
        for (property, value) in row.rate_properties(&settings, &has_property) {
            if !set_property(&encoder, property, &value) {
                tracing::warn!("{} {property}={value}: not taken, the encoder keeps its value", row.element);
            }
        }
        // Once: a later change of size goes to an open encoder, which takes few properties.
        gst::PadProbeReturn::Remove
    });
}

fn connect_sink(sink: &gst_app::AppSink, checked: bool, branch: &Arc<Branch>, capture: &Arc<Capture>) {
    let (branch, capture) = (branch.clone(), capture.clone());
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let now = sample.caps().and_then(format_of);
        if let Some((resolution, fps)) = now
            && lock(&branch.format).replace((resolution, fps)) != now
            && capture.is_at_work(&branch)
        {
            capture.event(GraphEvent::Format { stream: branch.stream, resolution, fps });
        }
        capture::deliver(sink, &capture, &branch, &sample, checked);
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
}

/// Waits for the caps of a user's pipeline, and adds the tail that suits them before they are passed on.
fn attach_by_caps(plan: &Plan, head: &gst::Bin, pipeline: &gst::Pipeline, capture: &Arc<Capture>) {
    let Some(pad) = head.static_pad("src") else { return };
    let (plan, capture, pipeline) = (plan.clone(), capture.clone(), pipeline.downgrade());
    let attached = AtomicU32::new(0);
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
        let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let Some(pipeline) = pipeline.upgrade() else { return gst::PadProbeReturn::Ok };
        if attached.fetch_add(1, Ordering::AcqRel) > 0 {
            return gst::PadProbeReturn::Ok;
        }
        if let Err(error) = attach(&plan, pad, caps.caps(), &pipeline, &capture) {
            let text = error.to_string();
            gst::element_error!(pipeline, gst::CoreError::Negotiation, ("{}", text));
        }
        gst::PadProbeReturn::Ok
    });
}

fn is_coded(caps: &gst::CapsRef, codec: Codec) -> bool {
    caps.structure(0).is_some_and(|s| s.name() == codec.media_type())
}

/// The text of a tail that takes these caps; none where the elements for it are missing. `codec`: that of the source.
pub(super) fn text_for<'a>(tail: &'a Tail, codec: Codec, caps: &gst::CapsRef) -> Option<&'a str> {
    let is_nvmm = caps.features(0).is_some_and(|features| features.contains("memory:NVMM"));
    match tail {
        Tail::Fixed(text) => Some(text),
        Tail::ByCaps { encoded, .. } if is_coded(caps, codec) => Some(encoded),
        Tail::ByCaps { nvmm, .. } if is_nvmm => nvmm.as_deref(),
        Tail::ByCaps { raw, .. } => Some(raw),
    }
}

fn attach(
    plan: &Plan,
    pad: &gst::Pad,
    caps: &gst::CapsRef,
    pipeline: &gst::Pipeline,
    capture: &Arc<Capture>,
) -> Result<(), GraphError> {
    let unusable =
        || GraphError::source(format!("--pipeline ends in {caps}: end it with raw or {} video", plan.codec.title()));
    let is_encoded = is_coded(caps, plan.codec);
    let texts = plan.branches.iter().map(|branch| text_for(&branch.tail, plan.codec, caps));
    let texts: Vec<_> = texts.collect::<Option<_>>().ok_or_else(unusable)?;
    let behind = add_behind(plan, &texts, !is_encoded, pipeline, capture)?;
    let Some(sink) = behind[0].static_pad("sink") else { return Err(unusable()) };
    if is_encoded {
        counter::count(&sink, &capture.branch(0).frames_in);
    }
    // A source that is not live would run as fast as the encoder can.
    let mut query = gst::query::Latency::new();
    let live = capture.is_piped.load(Ordering::Relaxed) || pad.query(&mut query) && query.result().0;
    if let Some(pace) = pipeline.by_name(plan::PACE).filter(|_| !live) {
        pace.set_property("sync", true);
        if let Some(pad) = pace.static_pad("sink") {
            // What has no times (pictures behind `jpegdec`) gets some, and nothing of it is taken for a stall.
            let interval = plan.branches[0].settings.fps.unwrap_or(Fps::whole(30)).interval();
            continuity::install(&pad, pipeline, interval, false);
            wiring::note_due(&pad, pipeline, &capture.next_due);
        }
    }
    behind.iter().for_each(|element| join_time(element, pipeline));
    pad.link(&sink).map_err(|_| unusable())?;
    // From the sinks to the source, as a pipeline does.
    for element in behind.iter().rev() {
        let started = element.sync_state_with_parent();
        let reason = || "the encoder does not start".to_owned();
        started.map_err(|_| GraphError::Start(capture.failure(Some(element.upcast_ref()), reason())))?;
    }
    Ok(())
}
