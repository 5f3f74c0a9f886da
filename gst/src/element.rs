//! Elements: which there are, what they have, and by what they are made.

use gstreamer as gst;
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
}
