//! Each request before gst-rtsp-server handles it. Its authentication asks for that, the one place that may keep a
//! request back without an answer; and what the bindings lack to read requests and to answer them.

use std::ffi::{CStr, CString};
use std::sync::OnceLock;

use gstreamer::glib;
use gstreamer::glib::translate::{ToGlibPtr, from_glib_none};
use gstreamer::subclass::prelude::*;
use gstreamer_rtsp::ffi as gst_rtsp;
use gstreamer_rtsp::{RTSPStatusCode, rtsp_message::RTSPMessage};
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use gstreamer_rtsp_server::subclass::prelude::*;

/// What a control URL has behind the path of its media.
const CONTROL: &str = "/stream=";
/// The longest reason in an answer, in bytes.
const MAX_REASON: usize = 160;

type Judge = Box<dyn Fn(&rtsp::RTSPContext) -> bool + Send + Sync>;

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct Gate {
        /// Whether a request is handled now. One that is not has been answered, or will be.
        pub(super) admit: OnceLock<Judge>,
        /// Whether who sends it has still to log in.
        pub(super) asks: OnceLock<Judge>,
        /// Whether what it is for can be had now, of who has logged in. One that is not has been answered, or will be.
        pub(super) serves: OnceLock<Judge>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Gate {
        const NAME: &'static str = "RovRtspGate";
        type Type = super::Gate;
        type ParentType = rtsp::RTSPAuth;
    }

    impl ObjectImpl for Gate {}

    impl RTSPAuthImpl for Gate {
        fn check(&self, context: &rtsp::RTSPContext, check: &glib::GString) -> bool {
            let says_no = |judge: &OnceLock<Judge>| judge.get().is_some_and(|judge| !judge(context));
            let asks = || self.asks.get().is_some_and(|asks| asks(context));
            if check == rtsp::RTSP_AUTH_CHECK_URL {
                // By itself it would ask for the login only once it has found what the address leads to.
                return !says_no(&self.admit)
                    && (!is_for_media(context) || !asks() || self.logs_in(context))
                    && !says_no(&self.serves);
            }
            match asks() {
                true => self.parent_check(context, check),
                // As without authentication: all but the choice of a multicast address.
                false => check != rtsp::RTSP_AUTH_CHECK_TRANSPORT_CLIENT_SETTINGS,
            }
        }
    }

    impl Gate {
        /// Whether who sends it has logged in by what it holds; else it is answered.
        fn logs_in(&self, context: &rtsp::RTSPContext) -> bool {
            // SAFETY: the context is valid while it is borrowed.
            let is_known = || unsafe { !(*raw(context)).token.is_null() };
            if is_known() || self.parent_authenticate(context) && is_known() {
                return true;
            }
            if init_response(context, RTSPStatusCode::Unauthorized, c"Unauthorized") {
                self.parent_generate_authenticate_header(context);
                send_response(context);
            }
            false
        }
    }
}

glib::wrapper! {
    pub struct Gate(ObjectSubclass<imp::Gate>) @extends rtsp::RTSPAuth;
}

impl Gate {
    pub fn new() -> Self {
        glib::Object::new()
    }

    /// Whom to ask about each request: whether it is handled now, whether who sends it has still to log in, and then
    /// whether what it is for can be had.
    pub fn set_judges(
        &self,
        admit: impl Fn(&rtsp::RTSPContext) -> bool + Send + Sync + 'static,
        asks: impl Fn(&rtsp::RTSPContext) -> bool + Send + Sync + 'static,
        serves: impl Fn(&rtsp::RTSPContext) -> bool + Send + Sync + 'static,
    ) {
        let _ = self.imp().admit.set(Box::new(admit));
        let _ = self.imp().asks.set(Box::new(asks));
        let _ = self.imp().serves.set(Box::new(serves));
    }
}

/// Whether it is for what its address leads to.
pub fn is_for_media(context: &rtsp::RTSPContext) -> bool {
    use gst_rtsp::{GST_RTSP_ANNOUNCE, GST_RTSP_DESCRIBE, GST_RTSP_SETUP};
    matches!(method(context), GST_RTSP_DESCRIBE | GST_RTSP_SETUP | GST_RTSP_ANNOUNCE)
}

pub fn method(context: &rtsp::RTSPContext) -> gst_rtsp::GstRTSPMethod {
    // SAFETY: the context is valid while it is borrowed.
    unsafe { (*raw(context)).method }
}

/// As `DESCRIBE`.
pub fn method_name(context: &rtsp::RTSPContext) -> String {
    // SAFETY: a text that is never freed, or none.
    unsafe {
        let name = gst_rtsp::gst_rtsp_method_as_text(method(context));
        from_glib_none::<_, Option<glib::GString>>(name).map_or_else(String::new, Into::into)
    }
}

/// The path of a request with what follows the stream's, as `/stream1/stream=0`.
pub fn path(context: &rtsp::RTSPContext) -> String {
    // SAFETY: the context, and what it points to, is valid while it is borrowed.
    unsafe {
        let uri = (*raw(context)).uri;
        if uri.is_null() || (*uri).abspath.is_null() {
            return String::new();
        }
        CStr::from_ptr((*uri).abspath).to_string_lossy().into_owned()
    }
}

/// Has the request go to the stream where its address has no path, and leaves out a query: `rtsp://10.0.0.2/?tcp`.
pub fn complete(context: &rtsp::RTSPContext, default_path: &str) {
    // SAFETY: gst-rtsp-server made the address for this request alone, and reads it after this; its texts are of
    // g_malloc.
    unsafe {
        let uri = (*raw(context)).uri;
        if uri.is_null() || (*uri).abspath.is_null() {
            return;
        }
        let text =
            |at: *mut std::ffi::c_char| (!at.is_null()).then(|| CStr::from_ptr(at).to_string_lossy().into_owned());
        let (path, query) = (text((*uri).abspath).unwrap_or_default(), text((*uri).query));
        let Ok(completed) = CString::new(completed(&path, query.as_deref(), default_path)) else { return };
        glib::ffi::g_free((*uri).abspath.cast());
        (*uri).abspath = glib::ffi::g_strdup(completed.as_ptr());
        glib::ffi::g_free((*uri).query.cast());
        (*uri).query = std::ptr::null_mut();
    }
}

fn completed(path: &str, query: Option<&str>, default_path: &str) -> String {
    // Players that put the control behind the whole address put it behind the query.
    let control = query.and_then(|query| query.find(CONTROL).map(|at| &query[at..])).unwrap_or_default();
    let path = match path {
        "" | "/" => default_path.to_owned(),
        path if path.starts_with(CONTROL) => format!("{default_path}{path}"),
        path => path.to_owned(),
    };
    format!("{path}{control}")
}

/// The value of a header, if there is one.
pub fn header(message: Option<&RTSPMessage>, field: gst_rtsp::GstRTSPHeaderField) -> Option<String> {
    let mut value = std::ptr::null_mut();
    // SAFETY: the message outlives the call; it keeps the text, which is copied here.
    unsafe {
        gst_rtsp::gst_rtsp_message_get_header(message?.to_glib_none().0, field, &raw mut value, 0);
        from_glib_none::<_, Option<glib::GString>>(value.cast_const()).map(Into::into)
    }
}

/// The status of a response.
pub fn status(response: &RTSPMessage) -> Option<gst_rtsp::GstRTSPStatusCode> {
    let mut code = 0;
    let none = std::ptr::null_mut;
    // SAFETY: the message outlives the call; what is not asked for may be null.
    let result = unsafe {
        gst_rtsp::gst_rtsp_message_parse_response(response.to_glib_none().0, &raw mut code, none(), none().cast())
    };
    (result == gst_rtsp::GST_RTSP_OK).then_some(code)
}

/// Takes the methods out of the answer to OPTIONS by which nobody can come.
pub fn leave_out(response: &RTSPMessage, methods: &[&str]) {
    let Some(public) = header(Some(response), gst_rtsp::GST_RTSP_HDR_PUBLIC) else { return };
    let kept: Vec<_> = public.split(',').map(str::trim).filter(|method| !methods.contains(method)).collect();
    let Ok(kept) = CString::new(kept.join(", ")) else { return };
    let message = response.to_glib_none().0;
    // SAFETY: the message is a response that is about to be sent, and copies the text.
    unsafe {
        gst_rtsp::gst_rtsp_message_remove_header(message, gst_rtsp::GST_RTSP_HDR_PUBLIC, -1);
        gst_rtsp::gst_rtsp_message_add_header(message, gst_rtsp::GST_RTSP_HDR_PUBLIC, kept.as_ptr());
    }
}

/// Answers the request with an error. Players show the reason.
pub fn refuse(context: &rtsp::RTSPContext, code: RTSPStatusCode, reason: &str) {
    let plain = reason.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).take(MAX_REASON).collect::<String>();
    let Ok(plain) = CString::new(plain) else { return };
    if init_response(context, code, &plain) {
        send_response(context);
    }
}

fn init_response(context: &rtsp::RTSPContext, code: RTSPStatusCode, reason: &CStr) -> bool {
    let (Some(response), Some(request)) = (context.response(), context.request()) else { return false };
    // SAFETY: the response is the one that gst-rtsp-server has for this request; it copies the text.
    unsafe {
        gst_rtsp::gst_rtsp_message_init_response(
            response.to_glib_none().0,
            glib::translate::IntoGlib::into_glib(code),
            reason.as_ptr(),
            request.to_glib_none().0,
        );
    }
    true
}

fn send_response(context: &rtsp::RTSPContext) {
    if let (Some(client), Some(response)) = (context.client(), context.response()) {
        let _ = client.send_message(response, context.session());
    }
}

/// Has the client handle a request that it was kept from.
pub fn handle(client: &rtsp::RTSPClient, request: &RTSPMessage) {
    // SAFETY: both outlive the call, which takes neither.
    unsafe { rtsp::ffi::gst_rtsp_client_handle_message(client.to_glib_none().0, request.to_glib_none().0) };
}

fn raw(context: &rtsp::RTSPContext) -> *mut rtsp::ffi::GstRTSPContext {
    context.to_glib_none().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_path_leads_to_the_stream() {
        for (path, query, leads) in [
            ("", None, "/cam"),
            ("/", None, "/cam"),
            ("/", Some("tcp"), "/cam"),
            ("/stream=0", None, "/cam/stream=0"),
            ("/live", None, "/live"),
            ("/live", Some("tcp"), "/live"),
            ("/live", Some("tcp/stream=0"), "/live/stream=0"),
            ("/live/stream=0", None, "/live/stream=0"),
        ] {
            assert_eq!(completed(path, query, "/cam"), leads, "{path} {query:?}");
        }
    }
}
