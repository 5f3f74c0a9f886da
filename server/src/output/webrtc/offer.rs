//! What a viewer's SDP offer asks for: pure parsing, so that a bad offer is refused with a reason before anything is
//! made for it.

use rov_common::codec::Codec;
use thiserror::Error;

/// The most candidates of a viewer that are checked, in its offer and added later, until it restarts ICE: each costs
/// datagrams and memory. ICE drops what is over its limit (RFC 8445 section 6.1.2.5); that is no error of the viewer's.
pub const MAX_CANDIDATES: usize = 64;

/// An offer that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// With every section but the one that the video goes into set to inactive, and no more than [`MAX_CANDIDATES`].
    pub sdp: String,
    /// How many candidates it had.
    pub candidates: usize,
    pub codec: VideoCodec,
    /// The highest `profile_idc` of H.264 that the viewer offers to decode; none where it does not say.
    pub highest_profile: Option<u8>,
    /// The viewer's ICE user name fragment.
    pub ufrag: String,
    /// The section is one of a bundle (RFC 9143).
    is_bundled: bool,
    /// The first section of the bundle, if the video is in a later one.
    front: Option<Front>,
    unknown: Vec<Unknown>,
    /// The section that asks for a data channel, one that can be had.
    data: Option<String>,
    takes_data: bool,
}

/// A section of what the core does not have to know, as a data channel where there is nothing to send by one: it would
/// speak SCTP with whoever offers one, also where it refuses the section. It is told of a section for sound instead,
/// which it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unknown {
    mid: String,
    /// As it is refused.
    line: String,
}

impl Unknown {
    const STAND_IN: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 0";

    fn new(lines: &[&str]) -> Option<Self> {
        let mut words: Vec<_> = lines[0].split_whitespace().collect();
        *words.get_mut(1)? = "0";
        Some(Self { mid: mid(lines)?.to_owned(), line: words.join(" ") })
    }

    fn is(lines: &[&str]) -> bool {
        !lines[0].starts_with("m=audio ") && !lines[0].starts_with("m=video ")
    }
}

/// The section that has the transport of a bundle, and nothing that could be sent here, as one for sound or a data
/// channel. It is accepted, sound as inactive: the bundle would end with it (RFC 9143 section 7.3.3), and webrtcbin
/// would look for a path on sockets of which nobody knows. Who opens the data channel gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Front {
    mid: String,
    /// `m=audio`.
    media: String,
    /// As `UDP/TLS/RTP/SAVPF`.
    protocol: String,
    /// A payload type, or `webrtc-datachannel`.
    format: String,
    /// Of the format.
    parameters: Vec<String>,
}

impl Front {
    fn new(session: &[&str], media: &[Vec<&str>], video: usize) -> Option<Self> {
        let lines = media[..video].iter().find(|lines| is_bundled(session, lines, &media[video]))?;
        let mut words = lines[0].split_whitespace();
        let (media, _port, protocol) = (words.next()?, words.next()?, words.next()?);
        let format = words.next()?;
        if is_refused(lines) {
            return None;
        }
        let names = [format!("a=rtpmap:{format} "), format!("a=fmtp:{format} "), "a=sctp-port:".to_owned()];
        let parameters = lines.iter().filter(|line| names.iter().any(|name| line.starts_with(name)));
        Some(Self {
            mid: mid(lines)?.to_owned(),
            media: media.to_owned(),
            protocol: protocol.to_owned(),
            format: format.to_owned(),
            parameters: parameters.map(ToString::to_string).collect(),
        })
    }

    /// The core's `answer`, which refuses the section, with the section accepted.
    fn accept(&self, answer: &str) -> String {
        let (session, mut media) = sections(answer);
        let own = format!("{} 9 {} {}", self.media, self.protocol, self.format);
        if let Some(lines) = media.iter_mut().find(|lines| mid(lines) == Some(&self.mid) && is_refused(lines)) {
            lines[0] = &own;
            lines.extend(self.parameters.iter().map(String::as_str));
            if !Unknown::is(lines) {
                lines.extend(["a=rtcp-mux", "a=inactive"]);
            }
        }
        let bundle = |line: &str| line.strip_prefix(BUNDLE).map(|mids| format!("{BUNDLE}{} {mids}", self.mid));
        let session: Vec<_> = session.iter().map(|line| bundle(line).unwrap_or_else(|| (*line).to_owned())).collect();
        join(&session.iter().map(String::as_str).collect::<Vec<_>>(), &media)
    }
}

impl Offer {
    /// Takes its data channel, if it has one that can be had; it is refused otherwise.
    pub fn with_data(mut self) -> Self {
        let Some(data) = &self.data else { return self };
        self.unknown.retain(|unknown| unknown.mid != *data);
        self.front = self.front.filter(|front| front.mid != *data);
        let (session, mut media) = sections(&self.sdp);
        let is_data = |lines: &&mut Vec<&str>| lines[0] == Unknown::STAND_IN && mid(lines) == Some(data);
        if let Some(lines) = media.iter_mut().find(is_data) {
            lines[0] = DATA;
            lines.retain(|line| !DIRECTIONS.contains(line));
        }
        Self { sdp: join(&session, &media), takes_data: true, ..self }
    }

    pub fn takes_data(&self) -> bool {
        self.takes_data
    }

    /// What the viewer gets of the core's `answer`: in its own terms.
    pub fn answer(&self, answer: &str) -> String {
        let own = format!("a=fmtp:{} {}", self.codec.payload_type, self.codec.fmtp);
        let accepted = self.front.as_ref().map_or_else(|| answer.to_owned(), |front| front.accept(answer));
        let placed = place_candidates(&self.refuse_unknown(&accepted));
        let lines = placed.lines().filter_map(|line| {
            if self.codec.is_fmtp(line) {
                (!self.codec.fmtp.is_empty()).then_some(own.as_str())
            } else {
                (self.is_bundled || !line.starts_with(BUNDLE)).then_some(line)
            }
        });
        lines.flat_map(|line| [line, "\r\n"]).collect()
    }

    /// The `answer` with the viewer's own sections in the place of those for sound.
    fn refuse_unknown(&self, answer: &str) -> String {
        let (session, mut media) = sections(answer);
        for lines in media.iter_mut().filter(|lines| is_refused(lines)) {
            if let Some(unknown) = self.unknown.iter().find(|unknown| mid(lines) == Some(&unknown.mid)) {
                lines[0] = &unknown.line;
            }
        }
        join(&session, &media)
    }
}

const BUNDLE: &str = "a=group:BUNDLE ";

const DATA: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel";

/// The section `at` is that of the video. Of the core's SCTP only the side is used that begins, which is that of who
/// begins DTLS, and it knows one port. The viewer begins where it says so, and where it is of ICE lite; the core takes
/// both from lines that begin in other ways as well.
fn data(session: &[&str], media: &[Vec<&str>], at: usize) -> Option<String> {
    let is_data = |lines: &&Vec<&str>| {
        let words: Vec<_> = lines[0].split_whitespace().collect();
        matches!(words[..], ["m=application", _, "UDP/DTLS/SCTP", "webrtc-datachannel"])
            && !is_refused(lines)
            && is_bundled(session, lines, &media[at])
            && matches!(value(&lines.join("\n"), "a=sctp-port:"), "" | "5000")
    };
    let mut lines = session.iter().chain(media.iter().flatten());
    let begins = lines.any(|line| line.contains("setup:active") || line.contains("ice-lite"));
    let data = media.iter().find(is_data).filter(|_| !begins)?;
    mid(data).map(str::to_owned)
}

/// The viewer's own numbers and parameters for the codec that will be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoCodec {
    pub codec: Codec,
    pub payload_type: u8,
    pub fmtp: String,
    pub rtx_payload_type: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OfferError {
    #[error("the body is not an SDP offer (RFC 8866): {0}")]
    NotSdp(&'static str),
    #[error(
        "the offer has no video to receive: add one `m=video` section with `a=recvonly` or `a=sendrecv`, in a page by \
         addTransceiver('video', {{direction: 'recvonly'}}) before createOffer()"
    )]
    NoVideo,
    #[error("this stream is {}, which the viewer did not offer{}", .stream.title(), with_mode(*.stream))]
    NoCodec {
        stream: Codec,
        /// Another codec, where the viewer offers that.
        offered: Option<Codec>,
    },
}

/// What of H.264 is sent: mode 0 has no way to send a picture in several packets.
fn with_mode(codec: Codec) -> &'static str {
    if codec == Codec::H264 { " with packetization-mode=1, or without saying packetization-mode=0" } else { "" }
}

impl VideoCodec {
    /// Whether it is the line with the viewer's parameters for it.
    fn is_fmtp(&self, line: &str) -> bool {
        let number = line.strip_prefix("a=fmtp:").and_then(|rest| rest.split(' ').next());
        number.is_some_and(|number| number.parse() == Ok(self.payload_type))
    }

    /// As the core is to know its parameters: without spaces between them, which it takes for a part of the name. Of
    /// H.264 it takes formats for the same only if both of these are said.
    pub fn core_fmtp(&self) -> String {
        let parameters: Vec<_> = self.fmtp.split(';').map(str::trim).filter(|one| !one.is_empty()).collect();
        let mut fmtp = parameters.join(";");
        if self.codec == Codec::H264 {
            for (name, value) in [("packetization-mode", "1"), ("profile-level-id", "42e01f")] {
                if parameter(&fmtp, name).is_none() {
                    let separator = if fmtp.is_empty() { "" } else { ";" };
                    fmtp.push_str(&format!("{separator}{name}={value}"));
                }
            }
        }
        fmtp
    }

    fn core_fmtp_line(&self) -> String {
        format!("a=fmtp:{} {}", self.payload_type, self.core_fmtp())
    }
}

/// Parses `sdp`, choosing the payload type for `codec` whose profile is nearest to that of the stream (of H.264:
/// `profile_idc`, `profile_iop`).
pub fn parse(sdp: &str, codec: Codec, profile: Option<(u8, u8)>) -> Result<Offer, OfferError> {
    if !sdp.starts_with("v=0") {
        return Err(OfferError::NotSdp("it does not start with `v=0`"));
    }
    // One of a browser that was asked for nothing has no section, and so nothing of what is looked for below.
    let has = |beginning: &str| sdp.lines().any(|line| line.starts_with(beginning));
    if has("o=") && !has("m=video") {
        return Err(OfferError::NoVideo);
    }
    let has =
        |name: &str| sdp.lines().any(|line| line.strip_prefix(name).is_some_and(|value| !value.trim().is_empty()));
    for (name, what) in
        TRANSPORT.iter().zip(["it has no `a=ice-ufrag`", "it has no `a=ice-pwd`", "it has no `a=fingerprint`"])
    {
        if !has(name) {
            return Err(OfferError::NotSdp(what));
        }
    }
    let (mut session, mut media) = sections(sdp);
    let at = media.iter().position(|lines| wants_video(lines, &session)).ok_or(OfferError::NoVideo)?;
    let transport = transport(&session, &media, at);
    let codec = choose_codec(&media[at], codec, profile).ok_or_else(|| {
        let is_offered = |other: &Codec| choose_codec(&media[at], *other, None).is_some();
        OfferError::NoCodec { stream: codec, offered: codec.others().find(is_offered) }
    })?;
    let highest_profile = highest_profile(&media[at]);
    let is_transport = |line: &&str| TRANSPORT.iter().any(|name| line.starts_with(name));
    let is_candidate = |line: &&str| line.starts_with("a=candidate:");
    let is_own_fmtp = |line: &&str| codec.is_fmtp(line);
    let candidates = transport.iter().filter(|line| is_candidate(line)).count();
    let fmtp = codec.core_fmtp_line();
    // The core refuses what is in no bundle.
    let own_bundle = mid(&media[at]).map(|mid| format!("{BUNDLE}{mid}"));
    let is_bundled = is_bundled(&session, &media[at], &media[at]);
    let front = Front::new(&session, &media, at);
    let data = data(&session, &media, at);
    let mut unknown = Vec::new();
    for lines in media.iter_mut().filter(|lines| Unknown::is(lines)) {
        unknown.extend(Unknown::new(lines));
        lines[0] = Unknown::STAND_IN;
    }
    if !is_bundled && let Some(own_bundle) = &own_bundle {
        session.retain(|line| !line.starts_with("a=group:"));
        session.push(own_bundle);
    }
    // The core takes one transport, and puts its track into the first section that takes one: only the chosen one says
    // either.
    session.retain(|line| !DIRECTIONS.contains(line) && !is_transport(line) && !is_candidate(line));
    for (i, lines) in media.iter_mut().enumerate() {
        lines.retain(|line| !DIRECTIONS.contains(line) && !is_transport(line) && !is_candidate(line));
        if i == at {
            lines.retain(|line| !is_own_fmtp(line));
            lines.push(&fmtp);
            lines.extend(transport.iter().filter(|line| is_transport(line)));
            lines.extend(transport.iter().filter(|line| is_candidate(line)).take(MAX_CANDIDATES));
        }
        lines.push(if i == at { "a=recvonly" } else { "a=inactive" });
    }
    let ufrag =
        transport.iter().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap_or_default().trim().to_owned();
    let sdp = join(&session, &media);
    Ok(Offer { sdp, candidates, codec, highest_profile, ufrag, is_bundled, front, unknown, data, takes_data: false })
}

/// By which a viewer is reached and proves itself: the first two are of ICE (RFC 8839), the third of DTLS (RFC 8122).
const TRANSPORT: [&str; 3] = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:"];

fn mid<'a>(lines: &[&'a str]) -> Option<&'a str> {
    lines.iter().find_map(|line| line.strip_prefix("a=mid:")).map(str::trim)
}

/// Whether both sections are in one bundle.
fn is_bundled(session: &[&str], one: &[&str], other: &[&str]) -> bool {
    let groups = session.iter().filter_map(|line| line.strip_prefix(BUNDLE));
    groups
        .map(|group| group.split_whitespace().collect::<Vec<_>>())
        .any(|group| [mid(one), mid(other)].iter().all(|mid| mid.is_some_and(|mid| group.contains(&mid))))
}

/// The transport of section `at`: its own, or that of the section that it is bundled with (RFC 9143 section 7.2), and
/// of the session where that says nothing. With the candidates of the whole bundle, which mostly stand in its first
/// section alone.
fn transport<'a>(session: &[&'a str], media: &[Vec<&'a str>], at: usize) -> Vec<&'a str> {
    let says = |lines: &[&str], name: &str| lines.iter().any(|line| line.starts_with(name));
    let with_ice = |lines: &&Vec<&'a str>| says(lines, TRANSPORT[0]);
    let section = Some(&media[at])
        .filter(with_ice)
        .or_else(|| media.iter().filter(|lines| is_bundled(session, lines, &media[at])).find(with_ice))
        .unwrap_or(&media[at]);
    let mut transport: Vec<_> = session
        .iter()
        .filter(|line| !TRANSPORT.iter().any(|name| line.starts_with(name) && says(section, name)))
        .copied()
        .collect();
    transport.extend(section);
    let bundle = media.iter().filter(|lines| !std::ptr::eq(*lines, section) && is_bundled(session, lines, &media[at]));
    transport.extend(bundle.flatten().filter(|line| line.starts_with("a=candidate:")));
    transport
}

const DIRECTIONS: [&str; 4] = ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"];

/// Puts the candidates of `answer` where viewers look for them. The core lists them in the first section, which may be
/// one that was refused, and twice, the second time for an RTCP component that there is not.
pub fn place_candidates(answer: &str) -> String {
    let is_candidate = |line: &&str| line.starts_with("a=candidate:") || *line == "a=end-of-candidates";
    let (session, mut media) = sections(answer);
    let mut candidates: Vec<&str> = media.iter().flatten().copied().filter(|line| is_candidate(line)).collect();
    candidates.retain(|line| line.split_whitespace().nth(1) != Some("2"));
    for lines in &mut media {
        lines.retain(|line| !is_candidate(line));
    }
    // webrtcbin wants these in every section, although nothing is sent for a refused one.
    for name in ["a=setup:", "a=ice-ufrag:", "a=ice-pwd:"] {
        let says = |lines: &Vec<&str>| lines.iter().any(|line| line.starts_with(name));
        let said = media.iter().filter(|lines| !is_refused(lines)).flatten().find(|line| line.starts_with(name));
        let said = said.copied();
        for lines in media.iter_mut().filter(|lines| !says(lines)) {
            lines.extend(said);
        }
    }
    if let Some(accepted) = media.iter_mut().find(|lines| !is_refused(lines)) {
        accepted.append(&mut candidates);
    }
    join(&session, &media)
}

/// What a viewer adds to its offer later (RFC 8840): candidates, and with other credentials an ICE restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Empty where it gives none.
    pub ufrag: String,
    pub pwd: String,
    pub candidates: Vec<String>,
    pub is_last: bool,
}

impl Fragment {
    /// Of several sections, those count that have the transport of the video: a refused one may have another.
    pub fn parse(body: &str) -> Self {
        let (session, media) = sections(body);
        let ufrag = |lines: &[&str]| value(&lines.join("\n"), "a=ice-ufrag:").to_owned();
        let video = media.iter().find(|lines| lines[0].starts_with("m=video"));
        let own = [video.map(|lines| ufrag(lines)), Some(ufrag(&session)), media.first().map(|lines| ufrag(lines))];
        let own = own.into_iter().flatten().find(|own| !own.is_empty()).unwrap_or_default();
        let counts = |lines: &&Vec<&str>| ufrag(lines).is_empty() || ufrag(lines) == own;
        let all: Vec<&str> = session.iter().chain(media.iter().filter(counts).flatten()).copied().collect();
        let candidates = all.iter().filter_map(|line| line.trim().strip_prefix("a=candidate:"));
        Self {
            ufrag: own,
            pwd: value(&all.join("\n"), "a=ice-pwd:").to_owned(),
            candidates: candidates.map(|candidate| format!("candidate:{candidate}")).collect(),
            is_last: all.contains(&"a=end-of-candidates"),
        }
    }

    /// Whether an ICE agent would take its user name fragment and password (RFC 8839 section 5.4).
    pub fn has_credentials(&self) -> bool {
        let are_ice = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte));
        [(&self.ufrag, 4), (&self.pwd, 22)]
            .iter()
            .all(|(text, least)| (*least..=256).contains(&text.len()) && are_ice(text))
    }
}

/// The offer of the session as it would be after an ICE restart (RFC 8839 section 4.4.1.1): with the credentials and
/// the candidates of the fragment in the place of its own.
pub fn restarted(offer: &str, fragment: &Fragment) -> String {
    let (mut session, mut media) = sections(offer);
    let (ufrag, pwd) = (format!("a=ice-ufrag:{}", fragment.ufrag), format!("a=ice-pwd:{}", fragment.pwd));
    let candidates = fragment.candidates.iter().take(MAX_CANDIDATES);
    let candidates: Vec<String> = candidates.map(|candidate| format!("a={candidate}")).collect();
    for lines in std::iter::once(&mut session).chain(&mut media) {
        lines.retain(|line| !line.starts_with("a=candidate:") && *line != "a=end-of-candidates");
        for line in lines.iter_mut() {
            if line.starts_with("a=ice-ufrag:") {
                *line = &ufrag;
            } else if line.starts_with("a=ice-pwd:") {
                *line = &pwd;
            }
        }
    }
    if let Some(video) = media.iter_mut().find(|lines| lines.contains(&"a=recvonly")) {
        video.extend(candidates.iter().map(String::as_str));
    }
    join(&session, &media)
}

/// What a viewer that restarted ICE needs of the answer (RFC 8840 section 9).
pub fn answer_fragment(answer: &str) -> String {
    let (_, media) = sections(answer);
    let accepted = media.iter().find(|lines| !is_refused(lines)).into_iter().flatten().copied();
    let wanted = ["m=", "a=mid:", "a=candidate:", "a=end-of-candidates"];
    let lines = accepted.filter(|line| wanted.iter().any(|wanted| line.starts_with(wanted)));
    let credentials = ["a=ice-ufrag:", "a=ice-pwd:"].map(|name| format!("{name}{}", value(answer, name)));
    credentials.iter().map(String::as_str).chain(lines).flat_map(|line| [line, "\r\n"]).collect()
}

/// The value of the first attribute that begins with `name`; empty when there is none.
pub fn value<'a>(sdp: &'a str, name: &str) -> &'a str {
    sdp.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

/// The lines of the session, and those of each media section.
fn sections(sdp: &str) -> (Vec<&str>, Vec<Vec<&str>>) {
    let (mut session, mut media): (Vec<&str>, Vec<Vec<&str>>) = (Vec::new(), Vec::new());
    for line in sdp.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        match media.last_mut() {
            _ if line.starts_with("m=") => media.push(vec![line]),
            Some(section) => section.push(line),
            None => session.push(line),
        }
    }
    (session, media)
}

fn join(session: &[&str], media: &[Vec<&str>]) -> String {
    session.iter().chain(media.iter().flatten()).flat_map(|line| [*line, "\r\n"]).collect()
}

fn is_refused(lines: &[&str]) -> bool {
    lines[0].split_whitespace().nth(1) == Some("0") && !lines.contains(&"a=bundle-only")
}

/// A section without a direction has that of the session; none means both (RFC 8866 section 6.7).
fn wants_video(lines: &[&str], session: &[&str]) -> bool {
    let direction = lines.iter().chain(session).find(|line| DIRECTIONS.contains(line));
    lines[0].starts_with("m=video ") && !is_refused(lines) && !matches!(direction, Some(&"a=sendonly" | &"a=inactive"))
}

fn choose_codec(video: &[&str], codec: Codec, profile: Option<(u8, u8)>) -> Option<VideoCodec> {
    let rtpmap = |encoding: &str| {
        let encoding = format!("{encoding}/90000");
        video
            .iter()
            .filter_map(|line| line.strip_prefix("a=rtpmap:")?.split_once(' '))
            .filter(move |(_, name)| name.trim().eq_ignore_ascii_case(&encoding))
            .filter_map(|(pt, _)| pt.parse::<u8>().ok())
            .collect::<Vec<_>>()
    };
    let fmtp = |pt: u8| {
        let prefix = format!("a=fmtp:{pt} ");
        video.iter().find_map(|line| line.strip_prefix(prefix.as_str())).map(str::trim)
    };
    let chosen = rtpmap(codec.rtp_name())
        .into_iter()
        // Every parameter of H.265 has a default (RFC 7798 section 7.1).
        .map(|pt| (pt, fmtp(pt).unwrap_or_default()))
        .filter(|(_, fmtp)| match codec {
            // Without a mode it is 0 by the letter (RFC 6184 section 8.1), and who leaves it out takes mode 1.
            Codec::H264 => matches!(parameter(fmtp, "packetization-mode"), None | Some("1")),
            Codec::H265 => parameter(fmtp, "tx-mode").is_none_or(|mode| mode.eq_ignore_ascii_case("SRST")),
            // WebRTC does not carry it (RFC 7742).
            Codec::Mjpeg => false,
        })
        // The first of the nearest: the viewer's order is its preference.
        .min_by_key(|(_, fmtp)| match codec {
            Codec::H264 => {
                let is_bare = parameter(fmtp, "packetization-mode").is_none();
                (is_bare, distance(parameter(fmtp, "profile-level-id"), profile))
            }
            // 1 is main, and the default.
            Codec::H265 => (false, u8::from(parameter(fmtp, "profile-id").is_some_and(|id| id != "1"))),
            Codec::Mjpeg => (false, 0),
        })?;
    let rtx = rtpmap("rtx")
        .into_iter()
        .find(|pt| fmtp(*pt).and_then(|f| parameter(f, "apt")?.parse::<u8>().ok()) == Some(chosen.0));
    Some(VideoCodec { codec, payload_type: chosen.0, fmtp: chosen.1.to_owned(), rtx_payload_type: rtx })
}

/// Whatever the payload type: a decoder is the same for all.
fn highest_profile(video: &[&str]) -> Option<u8> {
    let fmtps = video.iter().filter_map(|line| line.strip_prefix("a=fmtp:")?.split_once(' '));
    fmtps.filter_map(|(_, fmtp)| u8::from_str_radix(parameter(fmtp, "profile-level-id")?.get(..2)?, 16).ok()).max()
}

/// How far an offered `profile-level-id` (RFC 6184 section 8.1) is from the stream's profile. Without a known profile
/// the constrained baseline is wanted: every viewer decodes it.
fn distance(offered: Option<&str>, profile: Option<(u8, u8)>) -> u8 {
    let (idc, iop) = profile.unwrap_or((0x42, 0xE0));
    let offered = offered.and_then(|hex| u32::from_str_radix(hex.get(..4)?, 16).ok());
    // RFC 6184: no profile-level-id means baseline.
    let (offered_idc, offered_iop) = offered.map_or((0x42, 0), |v| ((v >> 8) as u8, v as u8));
    match (offered_idc == idc, offered_iop & 0x40 == iop & 0x40) {
        (true, true) => 0,
        (true, false) => 1,
        // A decoder of a higher profile decodes the lower ones.
        (false, _) if offered_idc > idc => 2,
        (false, _) => 3,
    }
}

fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';')
        .filter_map(|p| p.split_once('='))
        .find(|(k, _)| k.trim().eq_ignore_ascii_case(name))
        .map(|p| p.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(media: &str) -> String {
        format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
             a=fingerprint:sha-256 00\r\n{media}"
        )
    }

    const CHROMIUM: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104 107 108 109 114 115\r\na=recvonly\r\n\
        a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=rtpmap:103 H264/90000\r\na=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
        a=rtpmap:104 rtx/90000\r\na=fmtp:104 apt=103\r\n\
        a=rtpmap:107 H264/90000\r\na=fmtp:107 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f\r\n\
        a=rtpmap:108 H264/90000\r\na=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
        a=rtpmap:109 rtx/90000\r\na=fmtp:109 apt=108\r\n\
        a=rtpmap:114 H264/90000\r\na=fmtp:114 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f\r\n\
        a=rtpmap:115 rtx/90000\r\na=fmtp:115 apt=114\r\n";

    #[test]
    fn the_nearest_profile_is_chosen_with_its_retransmission() {
        let choose = |profile| parse(&offer(CHROMIUM), Codec::H264, profile).expect("an answerable offer").codec;
        let highest = |sdp| parse(sdp, Codec::H264, None).expect("an answerable offer").highest_profile;
        let constrained = offer(CHROMIUM).replace("64001f", "42e01f").replace("4d001f", "42e01f");
        assert_eq!([highest(&offer(CHROMIUM)), highest(&constrained)], [Some(0x64), Some(0x42)]);
        assert_eq!(choose(Some((0x42, 0xC0))).payload_type, 108);
        assert_eq!(choose(Some((0x42, 0xC0))).rtx_payload_type, Some(109));
        assert_eq!(choose(Some((0x42, 0x00))).payload_type, 103);
        assert_eq!(choose(Some((0x64, 0x00))).payload_type, 114);
        assert_eq!(choose(Some((0x4D, 0x00))).payload_type, 114);
        assert_eq!(choose(None).payload_type, 108);
    }

    #[test]
    fn a_viewer_without_retransmission_gets_none() {
        let media = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=recvonly\r\na=rtpmap:96 H264/90000\r\n\
            a=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\n";
        assert_eq!(parse(&offer(media), Codec::H264, None).expect("an answerable offer").codec.rtx_payload_type, None);
    }

    #[test]
    fn bad_offers_are_refused_with_the_reason() {
        let audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=recvonly\r\na=rtpmap:111 opus/48000/2\r\n";
        let vp8 = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n";
        let sending = CHROMIUM.replace("a=recvonly", "a=sendonly");
        let mode0 = CHROMIUM.replace("packetization-mode=1", "packetization-mode=0");
        let no_h264 = OfferError::NoCodec { stream: Codec::H264, offered: None };
        assert!(matches!(parse("hello", Codec::H264, None), Err(OfferError::NotSdp(_))));
        assert!(matches!(parse("v=0\r\n", Codec::H264, None), Err(OfferError::NotSdp(_))));
        assert_eq!(parse(&offer(audio), Codec::H264, None), Err(OfferError::NoVideo));
        assert_eq!(parse(&offer(&sending), Codec::H264, None), Err(OfferError::NoVideo));
        assert_eq!(parse(&offer(vp8), Codec::H264, None), Err(no_h264.clone()));
        assert_eq!(parse(&offer(&mode0), Codec::H264, None), Err(no_h264));
    }

    /// As of a browser with a decoder of H.265 in hardware, which offers it last.
    const H265: &str = "a=rtpmap:116 H265/90000\r\na=fmtp:116 level-id=180;profile-id=2;tier-flag=0;tx-mode=SRST\r\n\
        a=rtpmap:118 H265/90000\r\na=fmtp:118 level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST\r\n\
        a=rtpmap:119 rtx/90000\r\na=fmtp:119 apt=118\r\n";

    #[test]
    fn a_stream_of_h265_is_answered_with_the_payload_type_for_main() {
        let with_h265 = offer(&format!("{CHROMIUM}{H265}"));
        let codec = parse(&with_h265, Codec::H265, None).expect("an answerable offer").codec;
        assert_eq!((codec.codec, codec.payload_type, codec.rtx_payload_type), (Codec::H265, 118, Some(119)));
        assert_eq!(parse(&with_h265, Codec::H264, None).expect("an answerable offer").codec.payload_type, 108);
        let bare = "m=video 9 UDP/TLS/RTP/SAVPF 101\r\na=recvonly\r\na=rtpmap:101 H265/90000\r\n";
        assert_eq!(parse(&offer(bare), Codec::H265, None).expect("an answerable offer").codec.payload_type, 101);
        let mrst = H265.replace("SRST", "MRST");
        assert!(parse(&offer(&format!("{CHROMIUM}{mrst}")), Codec::H265, None).is_err());
    }

    #[test]
    fn an_offer_without_the_streams_codec_is_refused_and_what_it_has_is_told() {
        let no_h265 = parse(&offer(CHROMIUM), Codec::H265, None).expect_err("no H.265 in it");
        assert_eq!(no_h265, OfferError::NoCodec { stream: Codec::H265, offered: Some(Codec::H264) });
        assert_eq!(no_h265.to_string(), "this stream is H.265, which the viewer did not offer");
        let only_h265 = format!("m=video 9 UDP/TLS/RTP/SAVPF 116 118 119\r\na=recvonly\r\n{H265}");
        let no_h264 = parse(&offer(&only_h265), Codec::H264, None).expect_err("no H.264 in it");
        assert_eq!(no_h264, OfferError::NoCodec { stream: Codec::H264, offered: Some(Codec::H265) });
    }

    #[test]
    fn the_track_goes_into_the_section_that_wants_it() {
        let sending = CHROMIUM.replace("a=recvonly", "a=sendonly").replace("m=video 9", "m=video 7");
        let sdp = parse(&offer(&format!("{sending}{CHROMIUM}")), Codec::H264, None).expect("an answerable offer").sdp;
        let directions: Vec<&str> = sdp.lines().filter(|l| DIRECTIONS.contains(l)).collect();
        assert_eq!(directions, ["a=inactive", "a=recvonly"]);
        let silent = offer(&CHROMIUM.replace("a=recvonly\r\n", ""));
        assert!(parse(&silent, Codec::H264, None).expect("no direction means both").sdp.contains("a=recvonly"));
    }

    #[test]
    fn a_direction_of_the_session_is_that_of_sections_without_one() {
        let with = |session: &str, media: &str| {
            parse(&offer(&format!("{session}{}", CHROMIUM.replace("a=recvonly\r\n", media))), Codec::H264, None)
        };
        assert_eq!(with("a=sendonly\r\n", ""), Err(OfferError::NoVideo));
        let sdp = with("a=inactive\r\n", "a=recvonly\r\n").expect("the section's own counts").sdp;
        assert_eq!(sdp.lines().filter(|line| DIRECTIONS.contains(line)).collect::<Vec<_>>(), ["a=recvonly"]);
    }

    const BARE: &str = "m=video 9 UDP/TLS/RTP/SAVPF 103\r\na=mid:0\r\na=recvonly\r\na=rtpmap:103 H264/90000\r\n";

    #[test]
    fn an_offer_of_h264_without_a_mode_is_taken_as_it_stands() {
        let level = "a=fmtp:103 profile-level-id=42e016\r\n";
        for (fmtp, core) in [
            ("", "packetization-mode=1;profile-level-id=42e01f"),
            (level, "profile-level-id=42e016;packetization-mode=1"),
            ("a=fmtp:103 packetization-mode=1\r\n", "packetization-mode=1;profile-level-id=42e01f"),
            (
                "a=fmtp:103 packetization-mode=1; profile-level-id=42e01f;\r\n",
                "packetization-mode=1;profile-level-id=42e01f",
            ),
        ] {
            let offer = parse(&offer(&format!("{BARE}{fmtp}")), Codec::H264, None).expect("an answerable offer");
            let line = format!("a=fmtp:103 {core}");
            assert_eq!(
                (offer.codec.core_fmtp().as_str(), offer.sdp.matches("a=fmtp:103").count()),
                (core, 1),
                "{fmtp}"
            );
            assert!(offer.sdp.lines().any(|own| own == line), "{}", offer.sdp);
            let answer = format!("v=0\r\nm=video 9\r\n{line}\r\na=mid:0\r\n");
            let expected = format!("v=0\r\nm=video 9\r\n{fmtp}a=mid:0\r\n");
            assert_eq!(offer.answer(&answer), expected);
        }
        let both =
            format!("{BARE}a=rtpmap:104 H264/90000\r\na=fmtp:104 packetization-mode=1;profile-level-id=640032\r\n");
        assert_eq!(parse(&offer(&both), Codec::H264, None).expect("an answerable offer").codec.payload_type, 104);
        let mode0 = format!("{BARE}a=fmtp:103 packetization-mode=0;profile-level-id=42e01f\r\n");
        let refused = parse(&offer(&mode0), Codec::H264, None).expect_err("mode 0 is refused");
        assert!(refused.to_string().contains("packetization-mode=1"), "{refused}");
    }

    /// The core is told of one transport alone.
    fn transport_of(sdp: &str) -> (String, Vec<String>) {
        let offer = parse(sdp, Codec::H264, None).expect("an answerable offer");
        let names = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=candidate:"];
        let lines = offer.sdp.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        (offer.ufrag.clone(), lines.map(str::to_owned).collect())
    }

    #[test]
    fn the_transport_is_that_of_the_section_that_was_accepted() {
        let of = |name: &str| {
            format!("a=ice-ufrag:{name}\r\na=ice-pwd:p{name}\r\na=fingerprint:sha-256 {name}\r\na=candidate:{name}\r\n")
        };
        let lines = |name: &str| of(name).lines().map(str::to_owned).collect::<Vec<_>>();
        let audio = |transport: &str| format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\n{transport}");
        let head = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
        let unbundled = format!("{head}{}{BARE}{}", audio(&of("aaaa")), of("vvvv"));
        assert_eq!(transport_of(&unbundled), ("vvvv".to_owned(), lines("vvvv")));
        let offer = parse(&unbundled, Codec::H264, None).expect("an answerable offer");
        assert!(offer.sdp.contains("a=group:BUNDLE 0\r\n"), "{}", offer.sdp);
        assert_eq!(offer.answer("v=0\r\na=group:BUNDLE 0\r\nm=video 9\r\n"), "v=0\r\nm=video 9\r\n");
        // In a bundle the first section has it for all; the others may say nothing.
        let bundled = format!("{head}a=group:BUNDLE a 0\r\n{}{BARE}", audio(&of("aaaa")));
        assert_eq!(transport_of(&bundled), ("aaaa".to_owned(), lines("aaaa")));
        let session = format!("{head}{}{}{BARE}", of("ssss"), audio(&of("aaaa")));
        assert_eq!(transport_of(&session), ("ssss".to_owned(), lines("ssss")));
        let mixed = format!("{head}a=fingerprint:sha-256 ssss\r\n{BARE}a=ice-ufrag:vvvv\r\na=ice-pwd:pvvvv\r\n");
        assert_eq!(transport_of(&mixed).1, ["a=fingerprint:sha-256 ssss", "a=ice-ufrag:vvvv", "a=ice-pwd:pvvvv"]);
    }

    /// As whepsrc does: sound first, with the candidates of all.
    #[test]
    fn a_section_for_sound_at_the_front_of_the_bundle_is_accepted_without_sound() {
        let session = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a 0\r\n";
        let ice = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 00\r\n";
        let audio = "m=audio 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:a\r\na=rtpmap:96 OPUS/48000/2\r\na=fmtp:96 useinbandfec=1\r\n\
            a=rtpmap:97 PCMU/8000\r\n";
        let video = BARE.replace("m=video 9", "m=video 0").replace("a=recvonly", "a=bundle-only\r\na=recvonly");
        let sdp = format!("{session}{audio}a=recvonly\r\n{ice}a=candidate:1\r\n{video}{ice}");
        assert!(transport_of(&sdp).1.contains(&"a=candidate:1".to_owned()));
        let offer = parse(&sdp, Codec::H264, None).expect("an answerable offer");
        let own = "a=setup:active\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n";
        let answered = format!("m=video 9 UDP/TLS/RTP/SAVPF 103\r\na=mid:0\r\n{own}");
        let core = format!(
            "v=0\r\na=group:BUNDLE 0\r\nm=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:a\r\na=candidate:9\r\n{answered}"
        );
        let accepted = "m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:a\r\na=rtpmap:96 OPUS/48000/2\r\n\
            a=fmtp:96 useinbandfec=1\r\na=rtcp-mux\r\na=inactive\r\n";
        assert_eq!(
            offer.answer(&core),
            format!("v=0\r\na=group:BUNDLE a 0\r\n{accepted}{own}a=candidate:9\r\n{answered}")
        );
    }

    const DATA: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\na=sctp-port:5000\r\n";

    #[test]
    fn a_data_channel_is_refused_and_the_core_knows_nothing_of_it() {
        let session = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 d\r\n";
        let ice = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 00\r\n";
        let old = DATA.replace("webrtc-datachannel", "5000").replace("UDP/", "");
        let (video, refused) =
            ("m=video 9 UDP/TLS/RTP/SAVPF 103\r\na=mid:0\r\n", "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:d\r\n");
        for (data, line) in [(DATA, "UDP/DTLS/SCTP webrtc-datachannel"), (&old, "DTLS/SCTP 5000")] {
            let offer = parse(&format!("{session}{BARE}{ice}{data}"), Codec::H264, None).expect("an answerable offer");
            assert!(!offer.sdp.contains("m=application"), "{}", offer.sdp);
            let answer = offer.answer(&format!("v=0\r\na=group:BUNDLE 0\r\n{video}{refused}"));
            let refused = format!("m=application 0 {line}\r\na=mid:d\r\n");
            assert_eq!(answer, format!("v=0\r\na=group:BUNDLE 0\r\n{video}{refused}"));
        }
        // The bundle would end with its first section.
        let first = format!("{}{DATA}{ice}{BARE}", session.replace("0 d", "d 0"));
        let offer = parse(&first, Codec::H264, None).expect("an answerable offer");
        assert!(!offer.sdp.contains("m=application"), "{}", offer.sdp);
        let answer = offer.answer(&format!("v=0\r\na=group:BUNDLE 0\r\n{refused}{video}"));
        assert_eq!(answer, format!("v=0\r\na=group:BUNDLE d 0\r\n{DATA}{video}"));
    }

    #[test]
    fn a_refused_section_says_what_webrtcbin_wants_of_every_one() {
        let transport = "a=setup:active\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n";
        let (audio, video) = ("m=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:a\r\n", "m=video 9 UDP/TLS/RTP/SAVPF 103\r\n");
        let answer = place_candidates(&format!("v=0\r\n{audio}{video}{transport}"));
        assert_eq!(answer, format!("v=0\r\n{audio}{transport}{video}{transport}"));
        assert_eq!(place_candidates(&answer), answer);
    }

    #[test]
    fn a_fragment_has_the_transport_of_the_video() {
        let of = |name: &str| format!("a=ice-ufrag:{name}\r\na=ice-pwd:p{name}\r\na=candidate:{name}\r\n");
        let (audio, video) =
            ("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n");
        let fragment = |candidates: &[&str]| Fragment {
            ufrag: "vvvv".to_owned(),
            pwd: "pvvvv".to_owned(),
            candidates: candidates.iter().map(|name| format!("candidate:{name}")).collect(),
            is_last: false,
        };
        for (body, candidates) in [
            (format!("{audio}{}{video}{}", of("aaaa"), of("vvvv")), &["vvvv"][..]),
            (format!("{video}{}{audio}{}", of("vvvv"), of("aaaa")), &["vvvv"]),
            // Of a bundle, and as browsers send it.
            (format!("{audio}{}{video}a=candidate:b\r\n", of("vvvv")), &["vvvv", "b"]),
            (format!("a=ice-ufrag:vvvv\r\na=ice-pwd:pvvvv\r\n{audio}a=candidate:c\r\n"), &["c"]),
        ] {
            assert_eq!(Fragment::parse(&body), fragment(candidates), "{body}");
        }
    }

    #[test]
    fn candidates_stand_once_in_the_section_that_was_accepted() {
        let answer = "v=0\r\nm=audio 0 UDP/TLS/RTP/SAVPF 111\r\na=candidate:1 1 udp 5 10.0.0.1 9 typ host\r\n\
            a=candidate:1 2 udp 5 10.0.0.1 9 typ host\r\na=end-of-candidates\r\nm=video 9 UDP/TLS/RTP/SAVPF 108\r\n\
            a=mid:1\r\n";
        assert_eq!(
            place_candidates(answer),
            "v=0\r\nm=audio 0 UDP/TLS/RTP/SAVPF 111\r\nm=video 9 UDP/TLS/RTP/SAVPF 108\r\na=mid:1\r\n\
             a=candidate:1 1 udp 5 10.0.0.1 9 typ host\r\na=end-of-candidates\r\n"
        );
    }
}
