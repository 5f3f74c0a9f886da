//! The media service of profile T (ver20), as far as a recorder needs it: the same profiles, H.265 among them.

use rov_common::codec::Codec;

use super::fault::Fault;
use super::media::{
    Sources, by_encoder, by_token, change, multicast, number, parsed, range, resolution, size, snapshot_uri,
    source_configuration, source_options, stream_uri,
};
use super::profile::{PROFILES, Profile, Wanted, encoding};
use super::soap::{Element, tag, tag_with, value};
use super::{Answer, Asked};

/// Of frame rates, a list is told: these, within what can be set, and the one that is set.
const RATES: [f64; 8] = [5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 60.0];

/// What is within the response; none: there is no such operation.
pub fn answer(asked: &Asked, request: &Element) -> Option<Result<Answer, Fault>> {
    let profiles = Profile::all(asked.api);
    let sources = Sources::of(asked);
    let profile = || by_token(&profiles, request.value("ProfileToken"));
    let within = match request.name.as_str() {
        "GetServiceCapabilities" => Ok(capabilities(asked)),
        "GetProfiles" => described(&profiles, &sources, request),
        "GetVideoSourceConfigurations" => sources
            .chosen(&profiles, request)
            .map(|chosen| chosen.into_iter().map(|one| source_configuration("tr2:Configurations", one)).collect()),
        "GetVideoSourceConfigurationOptions" => {
            sources.chosen(&profiles, request).map(|chosen| tag("tr2:Options", &source_options(&chosen)))
        }
        "GetVideoEncoderConfigurations" => chosen(&profiles, request)
            .map(|chosen| chosen.into_iter().map(|one| encoder_configuration("tr2:Configurations", one)).collect()),
        "GetVideoEncoderConfigurationOptions" => {
            chosen(&profiles, request).map(|chosen| chosen.first().map(|one| options(one)).unwrap_or_default())
        }
        "GetVideoEncoderInstances" => sources
            .by_configuration(request.value("ConfigurationToken"))
            .map(|source| tag("tr2:Info", &value("tr2:Total", source.streams))),
        "GetStreamUri" => {
            let protocol = request.value("Protocol").unwrap_or("RTSP");
            profile().and_then(|one| stream_uri(asked, one, protocol)).map(|uri| value("tr2:Uri", uri))
        }
        "GetSnapshotUri" => profile().map(|one| value("tr2:Uri", snapshot_uri(asked, one))),
        "SetVideoEncoderConfiguration" => {
            return Some(change(&profiles, request, wanted));
        }
        _ => return None,
    };
    Some(within.map(Answer::Body))
}

pub fn capabilities(asked: &Asked) -> String {
    let is_served = asked.api.outputs.rtsp.is_some();
    let profiles = format!(
        r#"MaximumNumberOfProfiles="{}" ConfigurationsSupported="VideoSource VideoEncoder""#,
        asked.api.streams.len()
    );
    let streaming = format!(
        r#"RTSPStreaming="{is_served}" RTPMulticast="{is_served}" RTP_RTSP_TCP="{is_served}" NonAggregateControl="false""#
    );
    let within =
        tag_with("tr2:ProfileCapabilities", &profiles, "") + &tag_with("tr2:StreamingCapabilities", &streaming, "");
    tag_with("tr2:Capabilities", r#"SnapshotUri="true" Rotation="false" VideoSourceMode="false" OSD="false""#, &within)
}

fn described(profiles: &[Profile], sources: &Sources, request: &Element) -> Result<String, Fault> {
    let types: Vec<_> =
        request.children.iter().filter(|child| child.name == "Type").map(|child| &child.text[..]).collect();
    let wants = |name: &str| types.contains(&"All") || types.contains(&name);
    let chosen = match request.value("Token") {
        Some(token) => vec![by_token(profiles, Some(token))?],
        None => profiles.iter().collect(),
    };
    let one = |profile: &Profile| {
        let source = sources.by_configuration(Some(&profile.source_token()))?;
        let source = if wants("VideoSource") { source_configuration("tr2:VideoSource", source) } else { String::new() };
        let encoder =
            if wants("VideoEncoder") { encoder_configuration("tr2:VideoEncoder", profile) } else { String::new() };
        let configurations =
            if types.is_empty() { String::new() } else { tag("tr2:Configurations", &(source + &encoder)) };
        let attributes = format!(r#"token="{}" fixed="true""#, profile.token);
        Ok(tag_with("tr2:Profiles", &attributes, &(value("tr2:Name", &profile.name) + &configurations)))
    };
    chosen.into_iter().map(one).collect()
}

/// Those of the configuration or the profile that is named; without any name all.
fn chosen<'a>(profiles: &'a [Profile], request: &Element) -> Result<Vec<&'a Profile>, Fault> {
    match (request.value("ConfigurationToken"), request.value("ProfileToken")) {
        (Some(token), _) => Ok(vec![by_encoder(profiles, Some(token))?]),
        (None, Some(token)) => Ok(vec![by_token(profiles, Some(token))?]),
        (None, None) => Ok(profiles.iter().collect()),
    }
}

fn encoder_configuration(name: &str, profile: &Profile) -> String {
    let encoder = &profile.encoder;
    let rate = value("tt:FrameRateLimit", rounded(encoder.fps)) + &value("tt:BitrateLimit", encoder.kbps);
    let parts = [
        value("tt:Name", &profile.name),
        value("tt:UseCount", 1),
        value("tt:Encoding", encoding(encoder.codec)),
        resolution("tt:Resolution", encoder.size),
        tag("tt:RateControl", &rate),
        multicast(),
        value("tt:Quality", 1),
    ];
    let token = format!(r#"token="{}""#, profile.encoder_token());
    let attributes = match encoder.codec {
        Codec::H264 | Codec::H265 => {
            format!(r#"{token} GovLength="{}" Profile="{}""#, encoder.gop, encoder.profile_name())
        }
        Codec::Mjpeg => token,
    };
    tag_with(name, &attributes, &parts.concat())
}

/// For each codec: another one waits for a restart of the server.
fn options(profile: &Profile) -> String {
    let (slowest, fastest) = profile.rates();
    let mut rates: Vec<_> = RATES.into_iter().filter(|rate| (slowest..=fastest).contains(rate)).collect();
    rates.push(rounded(profile.encoder.fps));
    rates.sort_by(|a, b| b.total_cmp(a));
    rates.dedup();
    let rates: Vec<_> = rates.iter().map(f64::to_string).collect();
    let (least, most) = profile.gops();
    let sizes: String = profile.sizes().into_iter().map(|size| resolution("tt:ResolutionsAvailable", size)).collect();
    let codecs = Codec::ALL.into_iter().filter(|codec| !profile.is_passed_through || *codec == profile.encoder.codec);
    let one = |codec: Codec| {
        let rates = format!(r#"FrameRatesSupported="{}""#, rates.join(" "));
        let with = |profiles: &[&str]| {
            format!(r#"GovLengthRange="{least} {most}" {rates} ProfilesSupported="{}""#, profiles.join(" "))
        };
        let attributes = match codec {
            Codec::H264 => with(&PROFILES.map(|(_, name, _)| name)),
            Codec::H265 => with(&["Main"]),
            Codec::Mjpeg => rates,
        };
        let parts = [
            value("tt:Encoding", encoding(codec)),
            range("tt:QualityRange", (1, 1)),
            sizes.clone(),
            range("tt:BitrateRange", profile.bitrates()),
        ];
        tag_with("tr2:Options", &attributes, &parts.concat())
    };
    codecs.map(one).collect()
}

/// 29.97 for 30000/1001.
fn rounded(fps: f64) -> f64 {
    (fps * 1000.0).round() / 1000.0
}

/// Of a configuration that is written.
fn wanted(given: &Element) -> Result<Wanted, Fault> {
    let rate = given.child("RateControl");
    Ok(Wanted {
        encoding: given.value("Encoding").map(str::to_owned),
        size: given.child("Resolution").map(size).transpose()?,
        quality: number(Some(given), "Quality")?,
        fps: number(rate, "FrameRateLimit")?,
        interval: None,
        kbps: number(rate, "BitrateLimit")?,
        gop: given.attribute("GovLength").map(|text| parsed("GovLength", text)).transpose()?,
        profile: given.attribute("Profile").map(str::to_owned),
    })
}
