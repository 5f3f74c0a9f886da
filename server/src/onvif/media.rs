//! The media service of profile S (ver10): profiles, their configurations, and where their pictures are. It knows no
//! H.265: such streams are in [`super::media2`] alone.

use rov_common::api::SNAPSHOT_PATH;
use rov_common::codec::Codec;
use rov_common::units::Resolution;

use super::fault::Fault;
use super::profile::{Encoder, PROFILES, Profile, Wanted, source_token};
use super::soap::{Element, tag, tag_with, value};
use super::{Answer, Asked};
use crate::output::rtsp::RtspOutput;

/// What is within the response; none: there is no such operation.
pub fn answer(asked: &Asked, request: &Element) -> Option<Result<Answer, Fault>> {
    let profiles: Vec<_> = Profile::all(asked.api).into_iter().filter(|one| one.encoder.codec != Codec::H265).collect();
    let sources = || Sources::of(asked);
    let configuration = || by_encoder(&profiles, request.value("ConfigurationToken"));
    let profile = || by_token(&profiles, request.value("ProfileToken"));
    let within = match request.name.as_str() {
        "GetServiceCapabilities" => Ok(capabilities(asked)),
        "GetProfiles" => Ok(profiles.iter().map(|one| described("trt:Profiles", one)).collect()),
        "GetProfile" => profile().map(|one| described("trt:Profile", one)),
        "GetVideoSources" => Ok(sources().0.iter().map(video_source).collect()),
        "GetVideoSourceConfigurations" => {
            Ok(sources().0.iter().map(|one| source_configuration("trt:Configurations", one)).collect())
        }
        "GetVideoSourceConfiguration" => sources()
            .by_configuration(request.value("ConfigurationToken"))
            .map(|one| source_configuration("trt:Configuration", one)),
        "GetVideoSourceConfigurationOptions" => {
            sources().chosen(&profiles, request).map(|chosen| tag("trt:Options", &source_options(&chosen)))
        }
        "GetVideoEncoderConfigurations" => {
            Ok(profiles.iter().map(|one| encoder_configuration("trt:Configurations", one)).collect())
        }
        "GetVideoEncoderConfiguration" => configuration().map(|one| encoder_configuration("trt:Configuration", one)),
        "GetCompatibleVideoEncoderConfigurations" => {
            profile().map(|one| encoder_configuration("trt:Configurations", one))
        }
        "GetVideoEncoderConfigurationOptions" => match request.value("ConfigurationToken") {
            Some(_) => configuration().map(options),
            None => profile().map(options),
        },
        "GetGuaranteedNumberOfVideoEncoderInstances" => {
            let count = sources().by_configuration(request.value("ConfigurationToken")).map(|source| source.streams);
            count.map(|count| value("trt:TotalNumber", count) + &value("trt:H264", count))
        }
        "GetStreamUri" => {
            let protocol = request.child("StreamSetup").and_then(|setup| setup.child("Transport"));
            let protocol = protocol.and_then(|transport| transport.value("Protocol")).unwrap_or("RTSP");
            profile().and_then(|one| stream_uri(asked, one, protocol)).map(|uri| media_uri(&uri))
        }
        "GetSnapshotUri" => profile().map(|one| media_uri(&snapshot_uri(asked, one))),
        "SetVideoEncoderConfiguration" => {
            return Some(change(&profiles, request, wanted));
        }
        _ => return None,
    };
    Some(within.map(Answer::Body))
}

pub fn capabilities(asked: &Asked) -> String {
    let is_served = asked.api.outputs.rtsp.is_some();
    let streaming = format!(
        r#"RTPMulticast="{is_served}" RTP_TCP="{is_served}" RTP_RTSP_TCP="{is_served}" NonAggregateControl="false" NoRTSPStreaming="{}""#,
        !is_served
    );
    let profiles = format!(r#"MaximumNumberOfProfiles="{}""#, asked.api.streams.len());
    let within =
        tag_with("trt:ProfileCapabilities", &profiles, "") + &tag_with("trt:StreamingCapabilities", &streaming, "");
    let flags = r#"SnapshotUri="true" Rotation="false" VideoSourceMode="false" OSD="false""#;
    tag_with("trt:Capabilities", flags, &within)
}

/// The settings that a configuration of a request has otherwise than they are, as `wanted` reads it.
pub fn change(
    profiles: &[Profile],
    request: &Element,
    wanted: fn(&Element) -> Result<Wanted, Fault>,
) -> Result<Answer, Fault> {
    let given = request.child("Configuration").ok_or_else(|| Fault::invalid_args("Configuration is missing"))?;
    let profile = by_encoder(profiles, given.attribute("token"))?;
    Ok(Answer::Change(profile.scope, profile.changes(&wanted(given)?)?, String::new()))
}

/// The profile of this token.
pub fn by_token<'a>(profiles: &'a [Profile], token: Option<&str>) -> Result<&'a Profile, Fault> {
    let token = token.ok_or_else(|| Fault::invalid_args("ProfileToken is missing"))?;
    profiles.iter().find(|one| one.token == token).ok_or_else(|| Fault::no_profile(token))
}

/// The one whose encoder configuration has this token.
pub fn by_encoder<'a>(profiles: &'a [Profile], token: Option<&str>) -> Result<&'a Profile, Fault> {
    let token = token.ok_or_else(|| Fault::invalid_args("the token of the configuration is missing"))?;
    profiles.iter().find(|one| one.encoder_token() == token).ok_or_else(|| Fault::no_config(token))
}

/// A camera.
pub struct Source {
    name: String,
    size: Resolution,
    fps: f64,
    pub streams: usize,
}

pub struct Sources(pub Vec<Source>);

impl Sources {
    pub fn of(asked: &Asked) -> Self {
        let mut sources: Vec<Source> = Vec::new();
        for Profile { camera, source, source_fps, siblings, .. } in Profile::all(asked.api) {
            if sources.last().is_none_or(|last| last.name != camera) {
                sources.push(Source { name: camera, size: source, fps: source_fps, streams: siblings });
            }
        }
        Self(sources)
    }

    pub fn by_configuration(&self, token: Option<&str>) -> Result<&Source, Fault> {
        let token = token.ok_or_else(|| Fault::invalid_args("ConfigurationToken is missing"))?;
        self.0.iter().find(|one| source_token(&one.name) == token).ok_or_else(|| Fault::no_config(token))
    }

    /// That of the configuration or the profile that is named; without any name all.
    pub fn chosen(&self, profiles: &[Profile], request: &Element) -> Result<Vec<&Source>, Fault> {
        match (request.value("ConfigurationToken"), request.value("ProfileToken")) {
            (Some(token), _) => Ok(vec![self.by_configuration(Some(token))?]),
            (None, Some(token)) => {
                let profile = by_token(profiles, Some(token))?;
                Ok(vec![self.by_configuration(Some(&profile.source_token()))?])
            }
            (None, None) => Ok(self.0.iter().collect()),
        }
    }
}

fn described(name: &str, profile: &Profile) -> String {
    let source = Source {
        name: profile.camera.clone(),
        size: profile.source,
        fps: profile.source_fps,
        streams: profile.siblings,
    };
    let parts = [
        value("tt:Name", &profile.name),
        source_configuration("tt:VideoSourceConfiguration", &source),
        encoder_configuration("tt:VideoEncoderConfiguration", profile),
    ];
    tag_with(name, &format!(r#"token="{}" fixed="true""#, profile.token), &parts.concat())
}

fn video_source(source: &Source) -> String {
    let parts = [value("tt:Framerate", source.fps), resolution("tt:Resolution", source.size)];
    tag_with("trt:VideoSources", &format!(r#"token="{}""#, source.name), &parts.concat())
}

/// As ver20 has it, too.
pub fn source_configuration(name: &str, source: &Source) -> String {
    let Resolution { width, height } = source.size;
    let parts = [
        value("tt:Name", &source.name),
        value("tt:UseCount", source.streams),
        value("tt:SourceToken", &source.name),
        tag_with("tt:Bounds", &format!(r#"x="0" y="0" width="{width}" height="{height}""#), ""),
    ];
    tag_with(name, &format!(r#"token="{}""#, source_token(&source.name)), &parts.concat())
}

/// As ver20 has it, too: nothing can be set.
pub fn source_options(sources: &[&Source]) -> String {
    let size = sources.first().map_or(Resolution::new(0, 0), |source| source.size);
    let bounds = [
        range("tt:XRange", (0, 0)),
        range("tt:YRange", (0, 0)),
        range("tt:WidthRange", (size.width, size.width)),
        range("tt:HeightRange", (size.height, size.height)),
    ];
    let tokens = sources.iter().map(|source| value("tt:VideoSourceTokensAvailable", &source.name));
    tag("tt:BoundsRange", &bounds.concat()) + &tokens.collect::<String>()
}

fn encoder_configuration(name: &str, profile: &Profile) -> String {
    let Encoder { size, fps, kbps, gop, .. } = profile.encoder;
    let rate =
        [value("tt:FrameRateLimit", fps.round()), value("tt:EncodingInterval", 1), value("tt:BitrateLimit", kbps)];
    let h264 = value("tt:GovLength", gop) + &value("tt:H264Profile", profile.encoder.profile_name());
    let is_jpeg = profile.encoder.codec == Codec::Mjpeg;
    let parts = [
        value("tt:Name", &profile.name),
        value("tt:UseCount", 1),
        value("tt:Encoding", super::profile::encoding(profile.encoder.codec)),
        resolution("tt:Resolution", size),
        value("tt:Quality", 1),
        tag("tt:RateControl", &rate.concat()),
        if is_jpeg { String::new() } else { tag("tt:H264", &h264) },
        multicast(),
        value("tt:SessionTimeout", "PT60S"),
    ];
    tag_with(name, &format!(r#"token="{}""#, profile.encoder_token()), &parts.concat())
}

/// RTSP offers its own to who asks for multicast, and nothing is sent unasked.
pub fn multicast() -> String {
    let address = value("tt:Type", "IPv4") + &value("tt:IPv4Address", "0.0.0.0");
    let parts = [tag("tt:Address", &address), value("tt:Port", 0), value("tt:TTL", 1), value("tt:AutoStart", false)];
    tag("tt:Multicast", &parts.concat())
}

fn options(profile: &Profile) -> String {
    let sizes: String = profile.sizes().into_iter().map(|size| resolution("tt:ResolutionsAvailable", size)).collect();
    let (slowest, fastest) = profile.rates();
    let profiles =
        PROFILES.iter().filter(|(known, ..)| !profile.is_passed_through || *known == profile.encoder.profile);
    let profiles: String = profiles.map(|(_, name, _)| value("tt:H264ProfilesSupported", name)).collect();
    let (name, gops, profiles) = match profile.encoder.codec {
        Codec::Mjpeg => ("tt:JPEG", String::new(), String::new()),
        Codec::H264 | Codec::H265 => ("tt:H264", range("tt:GovLengthRange", profile.gops()), profiles),
    };
    let parts = [
        sizes,
        gops,
        range("tt:FrameRateRange", (slowest.round(), fastest.round())),
        range("tt:EncodingIntervalRange", (1, 1)),
        profiles,
    ];
    let own = parts.concat();
    let extended = tag(name, &(own.clone() + &range("tt:BitrateRange", profile.bitrates())));
    tag("trt:Options", &(range("tt:QualityRange", (1, 1)) + &tag(name, &own) + &tag("tt:Extension", &extended)))
}

/// Of a configuration that is written.
fn wanted(given: &Element) -> Result<Wanted, Fault> {
    let (rate, h264) = (given.child("RateControl"), given.child("H264"));
    Ok(Wanted {
        encoding: given.value("Encoding").map(str::to_owned),
        size: given.child("Resolution").map(size).transpose()?,
        quality: number(Some(given), "Quality")?,
        fps: number(rate, "FrameRateLimit")?,
        interval: number(rate, "EncodingInterval")?,
        kbps: number(rate, "BitrateLimit")?,
        gop: number(h264, "GovLength")?,
        profile: h264.and_then(|h264| h264.value("H264Profile")).map(str::to_owned),
    })
}

pub fn size(given: &Element) -> Result<Resolution, Fault> {
    let side =
        |name| number(Some(given), name)?.ok_or_else(|| Fault::invalid_args(format!("Resolution without {name}")));
    Ok(Resolution::new(side("Width")?, side("Height")?))
}

/// Where there is such an element, its number.
pub fn number<T: std::str::FromStr>(within: Option<&Element>, name: &str) -> Result<Option<T>, Fault> {
    let text = within.and_then(|element| element.value(name));
    text.map(|text| parsed(name, text)).transpose()
}

/// # Errors
/// Where it is no number of this type.
pub fn parsed<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Fault> {
    text.trim().parse().map_err(|_| Fault::cannot_be(format!("{name} {text:?}: is not a valid number")))
}

/// Where RTSP has its stream, at the address that was asked.
pub fn stream_uri(asked: &Asked, profile: &Profile, protocol: &str) -> Result<String, Fault> {
    if !matches!(protocol, "UDP" | "TCP" | "RTSP" | "RtspUnicast" | "RtspMulticast") {
        return Err(Fault::no_such_stream(format!("streaming by {protocol} is not supported: use RTSP by UDP or TCP")));
    }
    let rtsp: &RtspOutput = asked
        .api
        .outputs
        .rtsp
        .as_deref()
        .ok_or_else(|| Fault::no_such_stream("RTSP is off: start the server with rtsp in --transport"))?;
    let info = rtsp.info(profile.at);
    Ok(format!("rtsp://{}:{}{}", asked.host(), info.port, info.path))
}

pub fn snapshot_uri(asked: &Asked, profile: &Profile) -> String {
    format!("{}{SNAPSHOT_PATH}?stream={}", asked.base(), profile.name)
}

fn media_uri(uri: &str) -> String {
    let parts = [
        value("tt:Uri", uri),
        value("tt:InvalidAfterConnect", false),
        value("tt:InvalidAfterReboot", false),
        value("tt:Timeout", "PT0S"),
    ];
    tag("trt:MediaUri", &parts.concat())
}

pub fn resolution(name: &str, size: Resolution) -> String {
    tag(name, &(value("tt:Width", size.width) + &value("tt:Height", size.height)))
}

pub fn range<T: ToString>(name: &str, (least, most): (T, T)) -> String {
    tag(name, &(value("tt:Min", least) + &value("tt:Max", most)))
}

#[cfg(test)]
mod tests {
    use super::super::soap::Envelope;
    use super::*;

    fn configuration(within: &str) -> Element {
        let text = format!(
            r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><Configuration token="a">{within}</Configuration></s:Body></s:Envelope>"#
        );
        Envelope::parse(text.as_bytes()).unwrap().body
    }

    #[test]
    fn what_a_configuration_does_not_say_is_not_wanted() {
        assert_eq!(wanted(&configuration("")), Ok(Wanted::default()));
        let whole = "<Encoding>H264</Encoding><Resolution><Width>640</Width><Height>360</Height></Resolution>
            <Quality>1</Quality><RateControl><FrameRateLimit>15</FrameRateLimit><EncodingInterval>1</EncodingInterval>
            <BitrateLimit>800</BitrateLimit></RateControl><H264><GovLength>30</GovLength><H264Profile>High</H264Profile></H264>";
        let expected = Wanted {
            encoding: Some("H264".to_owned()),
            size: Some(Resolution::new(640, 360)),
            quality: Some(1.0),
            fps: Some(15.0),
            interval: Some(1),
            kbps: Some(800),
            gop: Some(30),
            profile: Some("High".to_owned()),
        };
        assert_eq!(wanted(&configuration(whole)), Ok(expected));
        for broken in [
            "<Resolution><Width>640</Width></Resolution>",
            "<Quality>good</Quality>",
            "<RateControl><BitrateLimit>-1</BitrateLimit></RateControl>",
            "<H264><GovLength>99999999999</GovLength></H264>",
        ] {
            assert!(wanted(&configuration(broken)).is_err(), "{broken}");
        }
    }
}
