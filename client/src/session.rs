//! Watches a server, and the next one when that is lost: until the viewer is closed.

mod asking;
mod instead;
mod prepared;
mod rates;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rov_common::api::StreamStats;
use rov_common::backoff::{Backoff, REFUSED_MAX, REFUSED_MIN};
use rov_common::codec::Codec;
use rov_common::sleep::Sleep;
use rov_common::sync::lock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::asking::{Answer, Asking};
use self::prepared::Prepared;
use self::rates::{Arrivals, Rates};
use crate::clock::ServerClock;
use crate::decode::Decoder;
use crate::find::{Guide, Knowledge, LOGIN_KEPT_BACK, Located, Said};
use crate::receive::rtp::{self, senders::Senders};
use crate::receive::{ConnectError, OnCodec, OnPackets, OpenWay, Options, Transport, Way};
use crate::reconnect::{self, Advice, Session, Supply};
use crate::streams::Listed;
use crate::target::{SessionConfig, SessionError, Target};
use crate::viewer::{Phase, Viewer};
use crate::whep::{self, Api, Http, WhepError};
use crate::who::Who;

const TICK: Duration = Duration::from_millis(100);
/// Between attempts to reach a server whose address is known.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// After what trying again hardly helps.
const RETRY_FINAL: Duration = Duration::from_secs(5);
/// A loop that runs every [`TICK`] and comes this late was not running.
const STANDSTILL: Duration = Duration::from_millis(700);
const CONNECT_GRACE: Duration = Duration::from_secs(1);
/// A server that announces RTP sends it: without a packet in this time it does not get here.
const FIRST_RTP_PACKET: Duration = Duration::from_secs(3);

/// Watches the only stream. Runs until `shutdown`.
pub async fn run(config: SessionConfig, viewer: Arc<Viewer>, shutdown: CancellationToken) -> Result<(), SessionError> {
    let guide = Guide::new(&config)?;
    follow(config, guide, viewer, shutdown).await
}

/// Watches one of the streams of the server to which `guide` leads. Runs until `shutdown`.
pub async fn follow(
    config: SessionConfig,
    guide: Arc<Guide>,
    viewer: Arc<Viewer>,
    shutdown: CancellationToken,
) -> Result<(), SessionError> {
    // Its WHEP endpoint has answered.
    let mut answers = false;
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    let mut refusals = Backoff::new(REFUSED_MIN, REFUSED_MAX);
    // Kept until a session uses it: attempts that reach no server build no decoder.
    let mut prepared: Option<Prepared> = None;
    // What the decoder is built for, until the server says what it sends.
    let mut codec = match &config.target {
        Target::Rtp { source, .. } => source.codec,
        Target::Auto { .. } | Target::Url(_) | Target::Camera(..) => Codec::H264,
    };
    loop {
        let begun = Instant::now();
        // Building a decoder takes as long as finding a server, so the two run side by side.
        let ready = async {
            let waits = first_transport(&config).waits(config.latency);
            let decoder = Prepared::keep_or_start(&mut prepared, &config.decoder, codec, waits, &viewer);
            // A decoder is not thrown away for want of a server.
            tokio::try_join!(decoder, async { Ok(guide.find(&config, &viewer).await) })
        };
        let ready = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ready = ready => ready,
        };
        let ended = match ready {
            Ok((decoder, found)) => {
                prepared = Some(decoder);
                codec = found.as_ref().ok().and_then(|server| server.codec).unwrap_or(codec);
                match found {
                    Ok(server) => {
                        let (visited, found) = (Instant::now(), (&guide, &server, &mut answers));
                        let ended = tokio::select! {
                            ended = visit(&config, &viewer, &mut prepared, found, &shutdown) => ended,
                            () = guide.listen() => Ok(()),
                            () = guide.knowledge().overtaken(&server) => {
                                let reason = "the server is heard again where it was".to_owned();
                                Err(SessionError::no_way(reason))
                            }
                        };
                        if matches!(ended, Err(SessionError::NoWay { .. })) {
                            guide.failed(&server, visited.elapsed());
                        }
                        ended
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let mut least = Duration::ZERO;
        match ended {
            Ok(()) => {
                backoff.reset();
                refusals.reset();
            }
            Err(error) if error.ends_program(guide.has_stood(), config.wait) => return Err(error),
            Err(error) => {
                let mut reason = error.to_string();
                match error {
                    SessionError::NoWay { is_denied: true, .. } => {
                        least = refusals.next_delay();
                        reason += &format!("; next attempt in {} s, as cameras lock out after some", least.as_secs());
                    }
                    SessionError::NoWay { is_final: true, .. } => least = RETRY_FINAL,
                    _ => {}
                }
                viewer.set_phase(Phase::Lost(reason));
            }
        }
        // A session that lasted is tried again at once, one that failed at once is not.
        let pause = backoff.next_delay().max(least).saturating_sub(begun.elapsed());
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The one whose decoder is built before the server is known.
fn first_transport(config: &SessionConfig) -> Transport {
    match config.target {
        Target::Auto { .. } => config.transport.unwrap_or(Transport::WebRtc),
        Target::Url(_) => Transport::WebRtc,
        Target::Rtp { .. } => Transport::Rtp,
        Target::Camera(..) => Transport::Rtsp,
    }
}

/// Watches `server` by the first of its ways that opens. Each session begins with the best way again: it is never left
/// while pictures come.
async fn visit(
    config: &SessionConfig,
    viewer: &Arc<Viewer>,
    prepared: &mut Option<Prepared>,
    (guide, server, answers): (&Arc<Guide>, &Located, &mut bool),
    shutdown: &CancellationToken,
) -> Result<(), SessionError> {
    viewer.set_server(server.public());
    let mut failed: Vec<(Transport, String)> = Vec::new();
    // Unless trying again can help one of the ways.
    // A password may be refused by one way while another is only down for a moment.
    let (mut is_final, mut is_denied) = (true, true);
    let mut ways = server.ways.clone();
    let mut next = 0;
    let advised = |reason: String| match server.advice(&config.http.interfaces) {
        Some(advice) => format!("{reason}; {advice}"),
        None => reason,
    };
    let mut is_astray = false;
    // Anew in each visit: another machine may have the address by now.
    let mut is_asked = false;
    loop {
        if next == ways.len() && next == 1 && config.transport.is_none() {
            ways.extend(server.other_ways(&config.http).await);
        }
        let Some(way) = ways.get(next) else { break };
        next += 1;
        let is_last = next == ways.len();
        let transport = way.transport();
        viewer.set_phase(Phase::Connecting(match failed.last() {
            Some((before, _)) => format!("{} by {transport}, as {before} failed", server.label),
            None => server.label.clone(),
        }));
        // By WebRTC it is asked by HTTPS anyway.
        if !std::mem::replace(&mut is_asked, true) && transport != Transport::WebRtc {
            server.prove(&config.http).await?;
        }
        let waits = transport.waits(config.latency);
        let codec = way.codec().or(server.codec);
        let expected = codec.unwrap_or(Codec::H264);
        let decoder = Prepared::keep_or_start(prepared, &config.decoder, expected, waits, viewer).await?;
        if let Some(codec) = codec {
            // The right one is built while the way is opened.
            decoder.decoder.set_codec(codec);
        }
        let fallback = failed.iter().map(|(before, reason)| format!("{before} failed: {reason}")).collect::<Vec<_>>();
        viewer.set_transport(transport, fallback.join("; "));
        let http = match server.http_for(config, transport) {
            Ok(http) => http,
            Err(reason) => {
                (is_final, is_denied) = (false, false);
                *prepared = Some(decoder);
                failed.push((transport, reason));
                continue;
            }
        };
        let is_kept_back = http.login != config.http.login;
        let ended = watch(config, viewer, &decoder, (guide, server), (way, is_last, http), shutdown).await;
        if decoder.is_unused() {
            *prepared = Some(decoder);
        }
        let answered = transport == Transport::WebRtc && !ended.as_ref().is_err_and(ConnectError::is_unreachable);
        *answers |= answered;
        match ended {
            Ok(()) => return Ok(()),
            Err(error @ ConnectError::NotProven { .. }) => {
                // Whoever it is has no better right by another way.
                server.mark_refused(&guide.knowledge().heard);
                return Err(SessionError::no_way(advised(error.to_string())));
            }
            Err(ConnectError::Whep(WhepError::Changed(changed))) => {
                // Nor has another machine in its place.
                return Err(SessionError::changed(&changed));
            }
            Err(error) => {
                // It answered before: the link is down, and the other ways would take their time to find that out.
                if transport == Transport::WebRtc && !answered && *answers {
                    return Err(SessionError::no_way(advised(error.to_string())));
                }
                is_astray |= error.is_unanswered();
                is_final &= error.is_final(guide.has_stood());
                is_denied &= error.is_denied(guide.has_stood());
                let reason = if is_kept_back { format!("{error}. {LOGIN_KEPT_BACK}") } else { error.to_string() };
                failed.push((transport, reason));
            }
        }
    }
    let reason = match failed.as_slice() {
        [(_, reason)] => reason.clone(),
        all => all.iter().map(|(by, reason)| format!("{by}: {reason}")).collect::<Vec<_>>().join("; "),
    };
    let reason = if is_astray { advised(reason) } else { reason };
    Err(SessionError::NoWay { reason, is_final, is_denied })
}

/// Watches one session until it ends; the viewer's phase then says why. An error when there was none.
async fn watch(
    config: &SessionConfig,
    viewer: &Arc<Viewer>,
    prepared: &Prepared,
    (guide, server): (&Arc<Guide>, &Located),
    (way, is_last, http): (&Way, bool, Http),
    shutdown: &CancellationToken,
) -> Result<(), ConnectError> {
    let decoder = &prepared.decoder;
    viewer.set_decoder(Arc::clone(decoder));
    // However it ends; after its packets do.
    let _ended = Ended(viewer);
    // One request that waits is enough; more say the same.
    let (wanted, keyframe_wanted) = mpsc::channel(1);
    *lock(&prepared.requests.keyframe) = Some(wanted);
    let arrivals = Arc::new(Arrivals::begin());
    // What comes while the session is being closed is of no use: the decoder is free at its end.
    let tap = Tap(Arc::new(Mutex::new(Some(Arc::clone(decoder)))));
    let (counted, sink) = (Arc::clone(&arrivals), Arc::clone(&tap.0));
    let by_connection = matches!(way, Way::Rtsp(_));
    let on_packets: OnPackets = Arc::new(move |packets, received| {
        // A connection keeps what waited in it while the machine slept.
        if by_connection && counted.has_slept() {
            return;
        }
        if let Some(decoder) = &*lock(&sink) {
            decoder.push(packets.inspect(|packet| counted.add(packet.size(), received.at)), received);
        }
    });
    let decodes = Arc::clone(decoder);
    let on_codec: OnCodec = Arc::new(move |codec| decodes.set_codec(codec));
    let supply = server.supply(way);
    let senders = match way {
        Way::Rtp(rtp::Source { from: None, .. }) => Some(Arc::clone(&guide.knowledge().senders)),
        Way::Rtp(source) => Some(source.senders()),
        Way::WebRtc(_) | Way::Rtsp(_) => None,
    };
    let options = Options {
        stun: config.stun.clone(),
        key: server.key().map(str::to_owned),
        latency: config.latency,
        http,
        camera_certificate: config.camera_certificate.clone(),
        senders: senders.clone(),
        // At the last way one can as well wait in a session, which asks the server why nothing comes.
        first_packet: match supply {
            Supply::Destination if !config.wait => Some(config.discovery_timeout),
            _ => (!config.wait || !is_last).then_some(FIRST_RTP_PACKET),
        },
    };
    if server.stats.is_none() && !matches!(way, Way::WebRtc(_)) {
        // Nothing will say whether it is still the same one.
        viewer.tape.cut();
    }
    let given_up_before = guide.given_up();
    // The first pictures may come before the session is known to stand, and be another vehicle's.
    viewer.set_clock(None);
    let link = tokio::select! {
        link = OpenWay::open(way, &options, keyframe_wanted, on_codec, on_packets) => link?,
        () = ask_for_source(server, senders.as_deref(), &config.http) => return Ok(()),
        () = given_up(shutdown) => return Ok(()),
        () = guide.left(server, given_up_before) => return Ok(()),
    };
    viewer.session_started();
    let clock = server.stats.as_ref().and_then(|stats| viewer.clocks.of(stats));
    if let Some(clock) = &clock {
        clock.begin(&config.http, Instant::now());
    }
    viewer.set_clock(clock.clone());
    let api = server.stats.clone().map(|stats| Api::new(stats, config.http.clone()));
    viewer.set_api(api);
    let _standing = guide.stands(server, way.transport());
    let watched = (link.viewer_id(), server.stream.as_str());
    let asking = Asking::new(server.stats.clone(), watched, config.http.clone());
    let reason = tokio::select! {
        () = shutdown.cancelled() => None,
        reason = supervise(
            config, viewer, (&link, prepared, &arrivals), (supply, guide, server), (asking, clock),
        ) => Some(reason),
        () = guide.left(server, given_up_before) => Some("another server is watched".to_owned()),
    };
    match reason {
        // The program ends, and with it whatever was not waited for.
        None => link.close().await,
        Some(reason) => {
            viewer.set_phase(Phase::Lost(reason));
            match link {
                // At once, so that the same port can be opened again.
                OpenWay::Rtp(_) => link.close().await,
                // A server that is gone takes its time not to answer; the next one is looked for meanwhile.
                OpenWay::WebRtc(_) | OpenWay::Rtsp(_) => drop(tokio::spawn(link.close())),
            }
        }
    }
    Ok(())
}

/// While the first packet of RTP is waited for, asks the server which source is its own now. Never ends.
async fn ask_for_source(server: &Located, senders: Option<&Mutex<Senders>>, http: &Http) {
    let (Some(senders), Some(url)) = (senders, &server.stats) else { return std::future::pending().await };
    loop {
        if let Ok(stats) = whep::stats(url.clone(), http).await {
            lock(senders).expect(server.ssrc(&stats));
        }
        tokio::time::sleep(reconnect::PROBE_AFTER).await;
    }
}

/// Tells the viewer when it is dropped.
struct Ended<'a>(&'a Viewer);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.session_ended();
        self.0.choice.withdraw();
    }
}

/// Where packets run into the decoder; closed when it is dropped.
struct Tap(Arc<Mutex<Option<Arc<Decoder>>>>);

impl Drop for Tap {
    fn drop(&mut self) {
        // Not dropped under the lock, which whoever receives may want.
        let decoder = lock(&self.0).take();
        drop(decoder);
    }
}

/// After the end was asked for, an attempt to connect has a moment to finish, so that the server is told.
async fn given_up(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(CONNECT_GRACE).await;
}

async fn supervise(
    config: &SessionConfig,
    viewer: &Viewer,
    (link, prepared, arrivals): (&OpenWay, &Prepared, &Arrivals),
    (supply, guide, server): (Supply, &Guide, &Located),
    (mut asking, clock): (Asking, Option<ServerClock>),
) -> String {
    let knowledge = guide.knowledge();
    // What is to be warned of by what was said last.
    let mut said = None;
    if let Some(whose) = knowledge.proven(server, link.key(), &mut lock(&viewer.seen)) {
        said = heed(viewer, whose);
    }
    let begun = Instant::now();
    let mut session = Session::begin(supply, begun);
    let mut decoded = 0;
    let mut rates = Rates::new();
    let mut tick = tokio::time::interval(TICK);
    let (mut looked, mut sleep) = (begun, Sleep::default());
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            reason = link.ended() => session.ended = Some(reason),
            answer = asking.answered() => {
                session.probed(Instant::now(), answer.probe.clone());
                rates.encode = answer.encode;
                said = learn(config, viewer, (link, knowledge, server), answer);
            }
            offer = viewer.choice.chosen() => if let Some(reason) = instead::choose(link, knowledge, offer) {
                // The other streams come from there, too.
                guide.give_up();
                return reason;
            },
        }
        let now = Instant::now();
        if let Some(reason) = lock(&prepared.requests.failed).clone() {
            session.ended = Some(reason);
        }
        let slept = sleep.look();
        if !slept.is_zero() {
            tracing::info!("this machine slept for {} s", slept.as_secs());
            // What it told last may have waited in its connection, too, and its clock went on.
            viewer.told.forget();
            if let Some(clock) = &clock {
                clock.forget();
            }
        }
        if matches!(link, OpenWay::Rtsp(_)) && arrivals.has_slept() {
            return "this machine slept, and what waited in the connection is old".to_owned();
        }
        // This program itself stood still: what came meanwhile still waits in the socket.
        if now.saturating_duration_since(looked) > STANDSTILL || !slept.is_zero() {
            session.last_packet = now;
            session.last_picture = now;
        }
        looked = now;
        if let Some(clock) = &clock {
            clock.keep(&config.http, now);
        }
        session.last_packet = session.last_packet.max(arrivals.last());
        if session.is_unanswered(now) && session.moved_to.is_none() {
            session.moved_to = knowledge.moved(now);
        }
        if knowledge.is_left(server, link.key()) {
            return "another server is watched at its address".to_owned();
        }
        viewer.set_warning(knowledge.look(session.last_packet, now).or_else(|| said.clone()));
        instead::offer(viewer, config.can_ask, link, knowledge, now);
        let stats = prepared.decoder.stats();
        if stats.frames_decoded > decoded {
            decoded = stats.frames_decoded;
            session.last_picture = now;
            session.had_picture = true;
        }
        let state = link.state();
        (session.silence, session.goodbye) = (state.silence.clone(), state.goodbye);
        viewer.set_reception(rates.reception(now, arrivals, stats, link, state).await);
        match reconnect::advise(now, &session) {
            Advice::Live => {
                viewer.set_phase(Phase::Live);
                asking.ask_for_figures(now);
            }
            Advice::Starting => {}
            Advice::Wait { reason, probe } => {
                viewer.set_phase(Phase::Waiting(reason));
                if probe {
                    asking.ask(now);
                }
            }
            Advice::Leave(reason) => return reason,
        }
    }
}

/// Whose video the stream shows. Gives what there is to warn of: another server at the address.
fn heed(viewer: &Viewer, said: Said) -> Option<String> {
    match said {
        Said::Same => viewer.set_same(),
        Said::Other(news) => viewer.set_other(news),
        Said::Aside(warning) => return Some(warning),
    }
    None
}

/// Takes what the server says of itself. Gives what there is to warn of: another one at its address, another publisher.
fn learn(
    config: &SessionConfig,
    viewer: &Viewer,
    (link, knowledge, server): (&OpenWay, &Knowledge, &Located),
    answer: Answer,
) -> Option<String> {
    if let Some(stats) = &answer.stats {
        let whose = knowledge.told(server, link.key(), stats, &mut lock(&viewer.seen))?;
        if let Some(warning) = heed(viewer, whose) {
            return Some(warning);
        }
        viewer.set_who(Who::of(stats));
        match link {
            OpenWay::WebRtc(_) => server.learn(&knowledge.heard, stats),
            OpenWay::Rtp(receiver) => lock(receiver.senders()).expect(server.ssrc(stats)),
            OpenWay::Rtsp(_) => {}
        }
    }
    if let Some(name) = answer.name {
        viewer.set_name(name);
    }
    if let Some(stream) = answer.stream {
        viewer.set_stream(stream);
    }
    if let Some(stats) = answer.stats {
        match server.stats.as_ref().filter(|_| stats.overlays || stats.telemetry.is_some()) {
            Some(url) => viewer.told.follow(url, &Who::of(&stats), &config.http, Instant::now()),
            None => viewer.told.forget(),
        }
        viewer.set_streams(stats.streams.iter().map(Listed::of).collect());
        viewer.set_alignment(stats.alignment.unwrap_or_default());
        let watched = viewer.server().stream;
        let is_it = |stream: &StreamStats| watched.is_empty() || stream.name == watched;
        return stats.streams.into_iter().find(is_it)?.notice;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_session_stood_no_failure_ends_the_program() {
        let errors = || {
            let text = || "gone".to_owned();
            [
                SessionError::NothingFound(text()),
                SessionError::Ambiguous(text(), text()),
                SessionError::no_way(text()),
                SessionError::NoWay { reason: text(), is_final: true, is_denied: false },
                anyhow::anyhow!("a socket failed").into(),
            ]
        };
        assert!(errors().iter().all(|error| error.ends_program(false, false) && !error.ends_program(true, false)));
        let waits: Vec<_> = errors().iter().map(|error| !error.ends_program(false, true)).collect();
        assert_eq!(waits, [false, false, true, false, false]);
    }
}
