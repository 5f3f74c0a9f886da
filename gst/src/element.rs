//! Elements: which there are, what they have and take, and by what they are made.

use gstreamer as gst;
use gstreamer::glib::{ParamSpecInt, ParamSpecUInt};
use gstreamer::prelude::*;

/// Whether GStreamer has this element.
pub fn exists(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// Whether the running GStreamer's element has a property that can be set.
pub fn has_property(element: &str, property: &str) -> bool {
    let factory = gst::ElementFactory::find(element).and_then(|factory| factory.load().ok());
    let class = factory.and_then(|factory| gst::glib::Class::<gst::glib::Object>::from_type(factory.element_type()));
    class
        .and_then(|class| class.find_property(property))
        .is_some_and(|spec| spec.flags().contains(gst::glib::ParamFlags::WRITABLE))
}

/// Whether the element is of this factory, as `fdsrc`.
pub fn is_made_by(element: &gst::Element, factory: &str) -> bool {
    element.factory().is_some_and(|made_by| made_by.name() == factory)
}

/// Sets a property from text, as launch text does, but without a panic; false if it is missing or does not take the
/// value, as one out of range.
pub fn set_property(element: &gst::Element, property: &str, text: &str) -> bool {
    let value = element.find_property(property).and_then(|spec| {
        let value = gst::glib::Value::deserialize(text, spec.value_type()).ok()?;
        is_in_range(&spec, &value).then_some(value)
    });
    match value {
        Some(value) => {
            element.set_property_from_value(property, &value);
            true
        }
        None => false,
    }
}

fn is_in_range(spec: &gst::glib::ParamSpec, value: &gst::glib::Value) -> bool {
    let in_int = |spec: &ParamSpecInt| value.get().is_ok_and(|n: i32| (spec.minimum()..=spec.maximum()).contains(&n));
    let in_uint = |spec: &ParamSpecUInt| value.get().is_ok_and(|n: u32| (spec.minimum()..=spec.maximum()).contains(&n));
    spec.downcast_ref().is_none_or(in_int) && spec.downcast_ref().is_none_or(in_uint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_element_has_is_what_can_be_set() {
        gst::init().unwrap();
        assert!(exists("identity") && !exists("no-such-element"));
        assert!(has_property("identity", "silent"));
        assert!(!has_property("identity", "last-message"), "it can only be read");
        assert!(!has_property("identity", "no-such-property") && !has_property("no-such-element", "silent"));
        let identity = gst::ElementFactory::make("identity").build().unwrap();
        assert!(is_made_by(&identity, "identity") && !is_made_by(&identity, "queue"));
    }

    #[test]
    fn what_a_property_does_not_take_is_left_out() {
        gst::init().unwrap();
        let encoder = gst::ElementFactory::make("x264enc").build().unwrap();
        assert!(set_property(&encoder, "vbv-buf-capacity", "500"));
        for (property, value) in [("vbv-buf-capacity", "60000"), ("vbv-buf-capacity", "much"), ("no-such-thing", "1")] {
            assert!(!set_property(&encoder, property, value), "{property}={value}");
        }
        assert_eq!(encoder.property::<u32>("vbv-buf-capacity"), 500);
    }
}
