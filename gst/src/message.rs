//! What GStreamer says, in a form that a user can act on.

use gstreamer as gst;
use gstreamer::prelude::*;
use rov_common::redact::redact;

/// `v4l2src /dev/video0: Cannot identify device (system error: No such file or directory)`.
pub fn error_text(error: &gst::message::Error) -> String {
    let text = error.error().message().trim().trim_end_matches('.').to_owned();
    let mut out = format!("{}: {text}", origin(error.src()));
    if let Some(detail) = error.debug().as_deref().and_then(detail)
        && detail != text
    {
        out.push_str(&format!(" ({detail})"));
    }
    // It reaches the viewers too.
    redact(&out).into_owned()
}

/// The element, with the device or file that it works on.
pub fn origin(object: Option<&gst::Object>) -> String {
    let Some(object) = object else { return "GStreamer".to_owned() };
    let Some(element) = object.downcast_ref::<gst::Element>() else { return object.name().to_string() };
    let name = element.factory().map_or_else(|| element.name().to_string(), |factory| factory.name().to_string());
    let on = ["device", "location", "camera-name"].into_iter().find_map(|property| {
        element
            .has_property_with_type(property, String::static_type())
            .then(|| element.property::<Option<String>>(property))?
    });
    on.map_or(name.clone(), |on| format!("{name} {}", redact(&on)))
}

/// The useful lines of the debug text, which begins with file, line and function of GStreamer's source.
fn detail(debug: &str) -> Option<String> {
    let lines = debug.lines().skip(1).map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("; ").trim_end_matches('.').to_owned();
    (!text.is_empty()).then_some(text)
}

/// The first error on the bus now, in words.
pub fn pending_error(bus: &gst::Bus) -> Option<String> {
    let message = bus.pop_filtered(&[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(error) => Some(error_text(error)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_element_and_its_device() {
        gst::init().unwrap();
        let element = gst::ElementFactory::make("filesrc").property("location", "/no/such").build().unwrap();
        let message = gst::message::Error::builder(gst::ResourceError::NotFound, "Resource not found.")
            .src(&element)
            .debug("gstfilesrc.c(532): gst_file_src_start ():\nNo such file \"/no/such\"")
            .build();
        let gst::MessageView::Error(error) = message.view() else { unreachable!("built as an error") };
        assert_eq!(error_text(error), "filesrc /no/such: Resource not found (No such file \"/no/such\")");
    }
}
