//! The media that the paths lead to, and who may have it.
//!
//! gst-rtsp-server sends multicast by one interface only: the first that is able to, when the media begins.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
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
use rov_common::capture_clock::CaptureClock;
use rov_common::codec::Codec;
use rov_common::discovery::interfaces;
use rov_common::net;
use rov_gst::element::{exists, is_made_by};

use super::feed::{Feeder, media_clock};
use super::gate::Gate;
use super::mjpeg::Mjpeg;
use super::publish;
use crate::config::Credentials;
use crate::inlet::Inlet;
use crate::packetize::MAX_PAYLOAD;

/// Packets with the RTP header, which the payloader counts.
const MTU: usize = MAX_PAYLOAD + 12;
/// Of each UDP socket, in bytes, as far as the system grants it: a keyframe leaves in one burst.
const SEND_BUFFER: u32 = 4 << 20;
/// In the block for local use (RFC 2365 section 6.1), away from the group of the RTP output.
const MULTICAST_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 8, 1);
/// Below the ports that the system gives out by itself; two for each media.
const MULTICAST_PORTS: (u16, u16) = (16_384, 16_511);
const MULTICAST_TTL: u8 = 1;
/// What clients who have given the right digest are to the factory.
const ROLE: &str = "viewer";

/// The name of the source in the media.
pub(super) const SOURCE: &str = "frames";

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct Factory {
        /// Of the stream.
        pub(super) feeder: OnceLock<Arc<Feeder>>,
        /// Where what is published goes.
        pub(super) inlet: OnceLock<(Arc<Inlet>, Codec)>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Factory {
        const NAME: &'static str = "RovRtspMediaFactory";
        type Type = super::Factory;
        type ParentType = rtsp::RTSPMediaFactory;
    }

    impl ObjectImpl for Factory {}

    impl RTSPMediaFactoryImpl for Factory {
        /// One media for all, whatever path leads here; what is published has its own.
        fn gen_key(&self, _url: &gstreamer_rtsp::RTSPUrl) -> Option<glib::GString> {
            (!publish::is_announced()).then(|| "stream".into())
        }

        fn create_element(&self, url: &gstreamer_rtsp::RTSPUrl) -> Option<gst::Element> {
            match self.inlet.get() {
                Some((inlet, codec)) if publish::is_announced() => publish::element(inlet, *codec),
                _ => self.parent_create_element(url),
            }
        }

        fn configure(&self, media: &rtsp::RTSPMedia) {
            self.parent_configure(media);
            if let Some((inlet, codec)) = self.inlet.get().filter(|_| publish::is_announced()) {
                publish::configure(media, inlet, *codec);
            }
        }

        /// None before there is anything to describe it by: the thread of the server would wait for that.
        fn construct(&self, url: &gstreamer_rtsp::RTSPUrl) -> Option<rtsp::RTSPMedia> {
            let ready = publish::is_announced() || self.feeder.get().is_none_or(|feeder| feeder.can_describe());
            ready.then(|| self.parent_construct(url))?
        }
    }
}

glib::wrapper! {
    pub struct Factory(ObjectSubclass<imp::Factory>) @extends rtsp::RTSPMediaFactory;
}

/// What makes the media of the stream, which `feeder` then fills.
pub(super) fn stream(
    feeder: &Arc<Feeder>,
    inlet: Option<&Arc<Inlet>>,
    codec: Codec,
    multicast: &Arc<Multicast>,
) -> Result<Factory> {
    // Whole access units need no parser, which would hold one back to see the next. Keyframes have their parameter
    // sets; the payloader would put them before each slice of a keyframe, where decoders take them for the beginning of
    // another.
    let units = "stream-format=byte-stream,alignment=au";
    let payloader = match codec {
        Codec::H264 => Payloader::new("rtph264pay", format!("video/x-h264,{units}"), "pt=96 config-interval=0"),
        Codec::H265 => Payloader::new("rtph265pay", format!("video/x-h265,{units}"), "pt=96 config-interval=0"),
        Codec::Mjpeg => Payloader::jpeg(),
    };
    let feed = Arc::clone(feeder);
    let clock = feeder.stream.clock();
    let factory = new(&payloader, multicast, clock, move |media, source| feed.feed(media, source))?;
    let _ = factory.imp().feeder.set(Arc::clone(feeder));
    if let Some(inlet) = inlet {
        let _ = factory.imp().inlet.set((Arc::clone(inlet), codec));
    }
    Ok(factory)
}

/// What makes the media of the previews, which `mjpeg` then fills.
pub(super) fn previews(mjpeg: &Arc<Mjpeg>, multicast: &Arc<Multicast>) -> Result<Factory> {
    let (mjpeg, clock) = (Arc::clone(mjpeg), mjpeg.clock());
    new(&Payloader::jpeg(), multicast, clock, move |media, source| mjpeg.feed(media, source))
}

/// What makes packets of a codec.
struct Payloader {
    element: &'static str,
    /// Of what it is given.
    caps: String,
    properties: &'static str,
}

impl Payloader {
    fn new(element: &'static str, caps: String, properties: &'static str) -> Self {
        Self { element, caps, properties }
    }

    /// It wants some size at the beginning, and takes that of each picture from its headers.
    fn jpeg() -> Self {
        Self::new("rtpjpegpay", "image/jpeg,width=16,height=16".to_owned(), "pt=26")
    }
}

fn new(
    payloader: &Payloader,
    multicast: &Arc<Multicast>,
    clock: CaptureClock,
    feed: impl Fn(&rtsp::RTSPMedia, &gst_app::AppSrc) + Send + Sync + 'static,
) -> Result<Factory> {
    let Payloader { element: payloader, caps, properties } = payloader;
    for element in ["appsrc", payloader, "rtpbin", "udpsink"] {
        ensure!(
            exists(element),
            "the GStreamer element {element} is missing: install gstreamer1.0-plugins-base and \
             gstreamer1.0-plugins-good, or leave RTSP out of --transport"
        );
    }
    let factory: Factory = glib::Object::new();
    factory.set_launch(&format!(
        "( appsrc name={SOURCE} is-live=true format=time min-latency=0 caps={caps} ! \
         {payloader} name=pay0 mtu={MTU} {properties} )"
    ));
    factory.set_shared(true);
    factory.set_latency(0);
    factory.set_suspend_mode(rtsp::RTSPSuspendMode::None);
    factory.set_buffer_size(SEND_BUFFER);
    factory.set_address_pool(Some(&multicast.pool));
    let (multicast, clock) = (Arc::clone(multicast), media_clock(clock));
    factory.connect_media_configure(move |_, media| {
        if publish::is_published(media) {
            return;
        }
        multicast.configure(media);
        // Both before the media has an `rtpbin` or sinks.
        media.set_clock(Some(&clock));
        configure_elements(media);
        let bin = media.element().downcast::<gst::Bin>();
        let source = bin.ok().and_then(|bin| bin.by_name(SOURCE)?.downcast::<gst_app::AppSrc>().ok());
        match source {
            Some(source) => feed(media, &source),
            None => tracing::error!("RTSP: the media has no source"),
        }
    });
    Ok(factory)
}

/// Where and how multicast goes, the same for all media.
pub(super) struct Multicast {
    /// So that no two media have the same address.
    pool: rtsp::RTSPAddressPool,
    host: IpAddr,
    interfaces: Vec<String>,
}

impl Multicast {
    /// `host` is the address that the server listens on, and `interfaces` are those for multicast, as discovery takes
    /// both.
    pub fn new(host: IpAddr, interfaces: Vec<String>) -> Result<Arc<Self>> {
        let pool = rtsp::RTSPAddressPool::new();
        let (first, last) = MULTICAST_PORTS;
        let group = MULTICAST_GROUP.to_string();
        pool.add_range(&group, &group, first, last, MULTICAST_TTL).context("a range of multicast addresses")?;
        Ok(Arc::new(Self { pool, host, interfaces }))
    }

    /// A client that wants multicast where it cannot be had would end the media for all others too.
    fn configure(&self, media: &rtsp::RTSPMedia) {
        match self.interface() {
            Some(name) => {
                media.set_protocols(RTSPLowerTrans::UDP | RTSPLowerTrans::UDP_MCAST | RTSPLowerTrans::TCP);
                media.set_multicast_iface(name.as_deref());
            }
            None => media.set_protocols(RTSPLowerTrans::UDP | RTSPLowerTrans::TCP),
        }
    }

    /// Whether one client more can join by the interface that `media` began with.
    pub fn still_works(media: &rtsp::RTSPMedia) -> bool {
        match media.multicast_iface() {
            Some(name) => net::interfaces()
                .unwrap_or_default()
                .iter()
                .any(|interface| interface.name == name && joins(interface.address)),
            None => joins(Ipv4Addr::UNSPECIFIED),
        }
    }

    /// By which interface it goes: gst-rtsp-server knows one, or else the system's route. That is `Some(None)`, and
    /// taken where neither an interface nor an address was chosen; isolated networks have no such route. None:
    /// multicast cannot be had.
    fn interface(&self) -> Option<Option<String>> {
        if self.interfaces.is_empty() && self.host.is_unspecified() && joins(Ipv4Addr::UNSPECIFIED) {
            return Some(None);
        }
        let targets = interfaces::select(&net::interfaces().unwrap_or_default(), &self.interfaces, self.host);
        targets.into_iter().find(|target| joins(target.address)).map(|target| Some(target.interface))
    }
}

/// Whether the group can be joined by the interface with this address.
fn joins(by: Ipv4Addr) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    socket.and_then(|socket| socket.join_multicast_v4(&MULTICAST_GROUP, &by)).is_ok()
}

/// Lets no sink wait for the clock: what is to be sent is late already, and a sink that synchronizes adds its
/// `processing-deadline` of 20 ms. Not by `rate-control` of the media, which each PLAY turns on again, and without
/// which RTCP sender reports have no time.
///
/// Those are to have the time of the media's clock, which is UTC, and of capture: by itself `rtpbin` takes the system's
/// clock and the time of sending, and a receiver of two streams could not tell how far apart they are.
fn configure_elements(media: &rtsp::RTSPMedia) {
    let Some(pipeline) = media.element().parent().and_downcast::<gst::Bin>() else { return };
    let never = |sink: &gst::Element| {
        if sink.property("sync") {
            sink.set_property("sync", false);
        }
    };
    // They come with the clients: one for UDP, one for multicast, one for TCP.
    pipeline.connect_element_added(move |_, element| {
        if is_made_by(element, "rtpbin") {
            element.set_property_from_str("ntp-time-source", "clock-time");
            element.set_property("rtcp-sync-send-time", false);
        }
        if element.has_property_with_type("sync", bool::static_type()) {
            never(element);
            element.connect_notify(Some("sync"), move |sink, _| never(sink));
        }
    });
}

/// Digest authentication (RFC 7616 with MD5, which is what players know) of the one user whose password is known, and
/// basic if that is wished. Else basic alone, as hashes and tokens cannot be compared with a digest, and players that
/// are offered both take the digest. What basic authentication gives is looked at by `admission`.
pub(super) fn ask_for_password(auth: &Gate, factories: &[Factory], digest: Option<&Credentials>, basic: bool) {
    let Some(Credentials { user, password }) = digest else {
        auth.set_supported_methods(RTSPAuthMethod::Basic);
        return;
    };
    let token = rtsp::RTSPToken::builder().field(rtsp::RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE).build();
    auth.add_digest(user, password, &token);
    // SAFETY: any integer is allowed. The C code takes this enumeration as flags.
    let both =
        unsafe { from_glib(gstreamer_rtsp::ffi::GST_RTSP_AUTH_DIGEST | gstreamer_rtsp::ffi::GST_RTSP_AUTH_BASIC) };
    auth.set_supported_methods(if basic { both } else { RTSPAuthMethod::Digest });
    let role = gst::Structure::builder(ROLE)
        .field(rtsp::RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
        .field(rtsp::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true)
        .build();
    factories.iter().for_each(|factory| factory.add_role_from_structure(&role));
}
