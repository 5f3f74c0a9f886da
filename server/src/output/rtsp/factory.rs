//! The media that every path leads to, and who may have it.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, ensure};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::glib::translate::from_glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp::{RTSPAuthMethod, RTSPLowerTrans};
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use gstreamer_rtsp_server::subclass::prelude::*;
use rov_common::codec::Codec;

use super::feed::Feeder;
use crate::config::Credentials;
use crate::packetize::MAX_PAYLOAD;

/// Packets with the RTP header, which the payloader counts.
const MTU: usize = MAX_PAYLOAD + 12;
/// Of each UDP socket, in bytes, as far as the system grants it: a keyframe leaves in one burst.
const SEND_BUFFER: u32 = 4 << 20;
/// In the block for local use (RFC 2365 section 6.1), away from the group of the RTP output.
const MULTICAST_GROUP: &str = "239.255.8.1";
/// Below the ports that the system gives out by itself.
const MULTICAST_PORTS: (u16, u16) = (16_384, 16_399);
const MULTICAST_TTL: u8 = 1;
/// What clients who have given the right password are to the factory.
const ROLE: &str = "viewer";

/// The name of the source in the media.
pub(super) const SOURCE: &str = "frames";

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct Factory {
        pub(super) feeder: OnceLock<Arc<Feeder>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Factory {
        const NAME: &'static str = "RovRtspMediaFactory";
        type Type = super::Factory;
        type ParentType = rtsp::RTSPMediaFactory;
    }

    impl ObjectImpl for Factory {}

    impl RTSPMediaFactoryImpl for Factory {
        /// One media for all, whatever path leads here.
        fn gen_key(&self, _url: &gstreamer_rtsp::RTSPUrl) -> Option<glib::GString> {
            Some("stream".into())
        }

        /// None before there is anything to describe it by: the thread of the server would wait for that.
        fn construct(&self, url: &gstreamer_rtsp::RTSPUrl) -> Option<rtsp::RTSPMedia> {
            self.feeder.get().is_some_and(|feeder| feeder.can_describe()).then(|| self.parent_construct(url))?
        }
    }
}

glib::wrapper! {
    pub struct Factory(ObjectSubclass<imp::Factory>) @extends rtsp::RTSPMediaFactory;
}

/// What makes the media, which `feeder` then fills.
pub(super) fn new(feeder: &Arc<Feeder>, codec: Codec) -> Result<Factory> {
    let (caps, payloader) = match codec {
        Codec::H264 => ("video/x-h264", "rtph264pay"),
        Codec::H265 => ("video/x-h265", "rtph265pay"),
    };
    for element in ["appsrc", payloader, "rtpbin", "udpsink"] {
        ensure!(
            gst::ElementFactory::find(element).is_some(),
            "the GStreamer element {element} is missing: install gstreamer1.0-plugins-base and gstreamer1.0-plugins-good, \
             or leave RTSP out of --transport"
        );
    }
    let factory: Factory = glib::Object::new();
    let _ = factory.imp().feeder.set(Arc::clone(feeder));
    // Whole access units need no parser, which would hold one back to see the next. Keyframes have their parameter sets; the
    // payloader would put them before each slice of a keyframe, where decoders take them for the beginning of another.
    factory.set_launch(&format!(
        "( appsrc name={SOURCE} is-live=true format=time min-latency=0 \
         caps={caps},stream-format=byte-stream,alignment=au ! \
         {payloader} name=pay0 pt=96 mtu={MTU} config-interval=0 )"
    ));
    factory.set_shared(true);
    factory.set_latency(0);
    factory.set_suspend_mode(rtsp::RTSPSuspendMode::None);
    factory.set_buffer_size(SEND_BUFFER);
    factory.set_protocols(RTSPLowerTrans::UDP | RTSPLowerTrans::UDP_MCAST | RTSPLowerTrans::TCP);
    let pool = rtsp::RTSPAddressPool::new();
    let (first, last) = MULTICAST_PORTS;
    pool.add_range(MULTICAST_GROUP, MULTICAST_GROUP, first, last, MULTICAST_TTL)
        .context("a range of multicast addresses")?;
    factory.set_address_pool(Some(&pool));
    let feeder = Arc::clone(feeder);
    factory.connect_media_configure(move |_, media| {
        // Since 1.16 sinks add 20 ms to the latency of a live pipeline, for the work of elements before them, and would hold
        // each picture that long. Nothing here needs it.
        if let Some(pipeline) = media.element().parent().and_downcast::<gst::Pipeline>() {
            pipeline.set_latency(gst::ClockTime::ZERO);
        }
        let bin = media.element().downcast::<gst::Bin>();
        let source = bin.ok().and_then(|bin| bin.by_name(SOURCE)?.downcast::<gst_app::AppSrc>().ok());
        match source {
            Some(source) => feeder.feed(media, &source),
            None => tracing::error!("RTSP: the media has no source"),
        }
    });
    Ok(factory)
}

/// Digest authentication (RFC 7616 with MD5, which is what players know), and basic if that is wished.
pub(super) fn authentication(factory: &Factory, credentials: &Credentials, basic: bool) -> rtsp::RTSPAuth {
    let Credentials { user, password } = credentials;
    let auth = rtsp::RTSPAuth::new();
    let token = rtsp::RTSPToken::builder().field(rtsp::RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE).build();
    auth.add_digest(user, password, &token);
    if basic {
        // SAFETY: any integer is allowed. The C code takes this enumeration as flags.
        auth.set_supported_methods(unsafe {
            from_glib(gstreamer_rtsp::ffi::GST_RTSP_AUTH_DIGEST | gstreamer_rtsp::ffi::GST_RTSP_AUTH_BASIC)
        });
        auth.add_basic(&rtsp::RTSPAuth::make_basic(user, password), &token);
    } else {
        auth.set_supported_methods(RTSPAuthMethod::Digest);
    }
    let role = gst::Structure::builder(ROLE)
        .field(rtsp::RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
        .field(rtsp::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true)
        .build();
    factory.add_role_from_structure(&role);
    auth
}
