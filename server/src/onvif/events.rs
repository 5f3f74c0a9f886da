//! The event service: pull points alone. What is told are the alarms of streams, by the rules of `/healthz`, and
//! changed settings.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use rov_common::api::{SettingsEvent, StateEvent, StreamState};
use rov_common::sync::lock;

use super::fault::Fault;
use super::profile::Profile;
use super::soap::{Element, escaped, tag, tag_with, value};
use super::time::{date_time, duration, written};
use super::{Asked, MAX_SUBSCRIPTIONS};
use crate::events::{Event, NoPlace, Over, Reader};

/// Of one address: one more takes the place of the one that was polled longest ago.
const MAX_OF_ADDRESS: usize = 4;
/// Of a subscription whose client does not say how long it should last.
const USUAL_LIFE: Duration = Duration::from_secs(60);
const MAX_LIFE: Duration = Duration::from_secs(3600);
/// For the first message of a pull.
const MAX_WAIT: Duration = Duration::from_secs(30);
const MAX_MESSAGES: usize = 64;

/// A stream gives no pictures, or is not well.
const SIGNAL_LOSS: &str = "tns1:VideoSource/SignalLoss";
const CONFIGURATION: &str = "tns1:Media/ConfigurationChanged";
const CONCRETE: &str = "http://www.onvif.org/ver10/tev/topicExpression/ConcreteSet";

pub fn capabilities(max: usize) -> String {
    let attributes = format!(
        r#"WSSubscriptionPolicySupport="false" WSPullPointSupport="true" WSPausableSubscriptionManagerInterfaceSupport="false" MaxNotificationProducers="0" MaxPullPoints="{max}" PersistentNotificationStorage="false""#
    );
    tag_with("tev:Capabilities", &attributes, "")
}

/// Those that there are.
#[derive(Default)]
pub struct Subscriptions(Mutex<Vec<Subscription>>);

struct Subscription {
    /// The last part of its address.
    id: String,
    from: IpAddr,
    until: Instant,
    polled: Instant,
    /// Locked while it is polled.
    follower: Arc<tokio::sync::Mutex<Follower>>,
}

struct Follower {
    reader: Reader,
    /// Whether each stream was in alarm when that was told last.
    told: HashMap<String, bool>,
    filter: Filter,
}

/// Topics that are wanted; empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter(Vec<String>);

impl Filter {
    /// Of a `Filter` with topic expressions, as `tns1:Media//.|tns1:VideoSource/SignalLoss`.
    fn of(request: &Element) -> Self {
        let expressions = request.child("Filter").into_iter().flat_map(|filter| &filter.children);
        let expressions = expressions.filter(|expression| expression.name == "TopicExpression");
        let topics = expressions.flat_map(|expression| expression.text.split('|'));
        Self(topics.map(|topic| topic.trim().to_owned()).filter(|topic| !topic.is_empty()).collect())
    }

    /// Prefixes mean nothing here: there are only ONVIF's topics.
    fn wants(&self, topic: &str) -> bool {
        let plain = |text: &str| {
            text.split('/').map(|part| part.rsplit(':').next().unwrap_or(part)).collect::<Vec<_>>().join("/")
        };
        let topic = plain(topic);
        self.0.is_empty()
            || self.0.iter().map(|wanted| plain(wanted)).any(|wanted| match wanted.strip_suffix("//.") {
                Some(tree) => topic.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
                None => topic == wanted,
            })
    }
}

impl Subscriptions {
    /// Returns the id of a new one and until when it lasts.
    fn create(
        &self,
        reader: impl FnOnce() -> Result<Reader, NoPlace>,
        filter: Filter,
        from: IpAddr,
        life: Duration,
        now: Instant,
    ) -> Result<String, Fault> {
        let mut all = lock(&self.0);
        all.retain(|known| known.until > now);
        if all.iter().filter(|known| known.from == from).count() >= MAX_OF_ADDRESS {
            let of_address = all.iter().enumerate().filter(|(_, known)| known.from == from);
            if let Some((at, _)) = of_address.min_by_key(|(_, known)| known.polled) {
                all.remove(at);
            }
        }
        if all.len() >= MAX_SUBSCRIPTIONS {
            return Err(Fault::not_now("too many subscriptions: try again later"));
        }
        let reader = reader().map_err(Fault::not_now)?;
        let follower = Follower { reader, told: HashMap::new(), filter };
        let id = format!("{:016x}", rand::random::<u64>());
        all.push(Subscription {
            id: id.clone(),
            from,
            until: now + life,
            polled: now,
            follower: Arc::new(tokio::sync::Mutex::new(follower)),
        });
        Ok(id)
    }

    /// Does something with one that there is.
    fn with<T>(&self, id: Option<&str>, now: Instant, act: impl FnOnce(&mut Subscription) -> T) -> Result<T, Fault> {
        let mut all = lock(&self.0);
        all.retain(|known| known.until > now);
        let found = all.iter_mut().find(|known| Some(known.id.as_str()) == id);
        found.map(act).ok_or_else(Fault::no_subscription)
    }

    fn end(&self, id: Option<&str>, now: Instant) -> Result<(), Fault> {
        let mut all = lock(&self.0);
        all.retain(|known| known.until > now);
        let at = all.iter().position(|known| Some(known.id.as_str()) == id).ok_or_else(Fault::no_subscription)?;
        all.remove(at);
        Ok(())
    }
}

/// None: there is no such operation.
pub async fn answer(asked: &Asked<'_>, request: &Element) -> Option<Result<String, Fault>> {
    let subscriptions = &asked.onvif.subscriptions;
    let now = Instant::now();
    let answered = |prefix: &str, within: String| tag(&format!("{prefix}:{}Response", request.name), &within);
    Some(match request.name.as_str() {
        "GetServiceCapabilities" => Ok(answered("tev", capabilities(MAX_SUBSCRIPTIONS))),
        "GetEventProperties" => Ok(answered("tev", properties())),
        "CreatePullPointSubscription" => create(asked, request, now).map(|within| answered("tev", within)),
        "PullMessages" => pull(asked, request, now).await.map(|within| answered("tev", within)),
        "SetSynchronizationPoint" => synchronize(asked, now).await.map(|()| answered("tev", String::new())),
        "Renew" => life(request.value("TerminationTime")).and_then(|life| {
            subscriptions.with(asked.subscription, now, |known| known.until = now + life)?;
            Ok(answered(
                "wsnt",
                ends("wsnt:TerminationTime", life) + &value("wsnt:CurrentTime", written(SystemTime::now())),
            ))
        }),
        "Unsubscribe" => subscriptions.end(asked.subscription, now).map(|()| answered("wsnt", String::new())),
        _ => return None,
    })
}

/// How long a subscription is to last that a client wants until a time, or for so long.
fn life(text: Option<&str>) -> Result<Duration, Fault> {
    let Some(text) = text else { return Ok(USUAL_LIFE) };
    let until = |at: time::OffsetDateTime| SystemTime::from(at).duration_since(SystemTime::now()).unwrap_or_default();
    let life = duration(text).or_else(|| date_time(text).map(until));
    let life = life.ok_or_else(|| Fault::invalid_args(format!("{text:?} is neither a time nor a duration")))?;
    Ok(life.clamp(Duration::from_secs(1), MAX_LIFE))
}

fn ends(name: &str, life: Duration) -> String {
    value(name, written(SystemTime::now() + life))
}

fn create(asked: &Asked, request: &Element, now: Instant) -> Result<String, Fault> {
    let life = life(request.value("InitialTerminationTime"))?;
    let reader = || asked.api.events.follow(&asked.api.streams, asked.from);
    let id = asked.onvif.subscriptions.create(reader, Filter::of(request), asked.from, life, now)?;
    let address = value("wsa5:Address", asked.address(&format!("subscription/{id}")));
    let parts = [
        tag("tev:SubscriptionReference", &address),
        value("wsnt:CurrentTime", written(SystemTime::now())),
        ends("wsnt:TerminationTime", life),
    ];
    Ok(parts.concat())
}

async fn pull(asked: &Asked<'_>, request: &Element, now: Instant) -> Result<String, Fault> {
    let wait = duration(request.value("Timeout").unwrap_or("PT1S"));
    let wait = wait.ok_or_else(|| Fault::invalid_args("Timeout is not a duration"))?.min(MAX_WAIT);
    let limit: usize = super::media::number(Some(request), "MessageLimit")?.unwrap_or(MAX_MESSAGES);
    let follower = asked.onvif.subscriptions.with(asked.subscription, now, |known| {
        known.polled = now;
        // It lasts while it is polled.
        known.until = known.until.max(now + USUAL_LIFE);
        Arc::clone(&known.follower)
    })?;
    let end = tokio::time::Instant::now() + wait;
    // Another poll of it may be waiting.
    let Ok(mut follower) = tokio::time::timeout_at(end, follower.lock()).await else {
        return Err(Fault::not_now("another request is polling this subscription"));
    };
    let profiles = Profile::all(asked.api);
    let mut messages = Vec::new();
    while messages.len() < limit.clamp(1, MAX_MESSAGES) {
        let next = if messages.is_empty() {
            tokio::time::timeout_at(end, follower.reader.next()).await.ok()
        } else {
            follower.reader.next().now_or_never()
        };
        match next {
            Some(Ok(event)) => messages.extend(follower.written(&event, &profiles)),
            // What was lost is told anew, as far as it is still so.
            Some(Err(Over::Behind(_))) => follower.begin_anew(asked),
            Some(Err(Over::Stopping)) | None => break,
        }
    }
    let now = Instant::now();
    let left = asked.onvif.subscriptions.with(asked.subscription, now, |known| known.until - now)?;
    let parts =
        [value("tev:CurrentTime", written(SystemTime::now())), ends("tev:TerminationTime", left), messages.concat()];
    Ok(parts.concat())
}

async fn synchronize(asked: &Asked<'_>, now: Instant) -> Result<(), Fault> {
    let follower = asked.onvif.subscriptions.with(asked.subscription, now, |known| Arc::clone(&known.follower))?;
    let Ok(mut follower) = tokio::time::timeout(Duration::from_secs(1), follower.lock()).await else {
        return Err(Fault::not_now("another request is polling this subscription"));
    };
    follower.begin_anew(asked);
    Ok(())
}

impl Follower {
    fn begin_anew(&mut self, asked: &Asked) {
        // Without a place for another one it goes on with what comes.
        if let Ok(reader) = asked.api.events.follow(&asked.api.streams, asked.from) {
            self.reader = reader;
            self.told.clear();
        }
    }

    /// What a client is told of it, if anything.
    fn written(&mut self, event: &Event, profiles: &[Profile]) -> Option<String> {
        match event {
            Event::State(StateEvent { stream, camera, health }) => {
                let is_lost = health.state != StreamState::Running || health.reason.is_some();
                let before = self.told.insert(stream.clone(), is_lost);
                let is_new = before != Some(is_lost) && self.filter.wants(SIGNAL_LOSS);
                let profile = profiles.iter().find(|profile| profile.name == *stream);
                let source =
                    item("VideoSourceToken", camera) + &item("ProfileToken", profile.map_or("", |one| &one.token));
                let operation = if before.is_none() { "Initialized" } else { "Changed" };
                is_new.then(|| message(SIGNAL_LOSS, Some(operation), &source, &item("State", &is_lost.to_string())))
            }
            // That it is alarm, its state has said; ONVIF has no place for the rest.
            Event::Alarm(_) | Event::Overlay(_) | Event::Telemetry(_) | Event::Recording(_) => None,
            Event::Settings(SettingsEvent { camera, stream, .. }) => {
                let of = |one: &&Profile| {
                    let own = one.name.rsplit('/').next();
                    Some(&one.camera) == camera.as_ref() && (stream.is_none() || own == stream.as_deref())
                };
                let is_wanted = self.filter.wants(CONFIGURATION);
                let written = profiles.iter().filter(of).map(|profile| {
                    let source = item("Token", &profile.encoder_token()) + &item("Type", "VideoEncoder");
                    message(CONFIGURATION, None, &source, "")
                });
                let written: String = written.filter(|_| is_wanted).collect();
                (!written.is_empty()).then_some(written)
            }
        }
    }
}

fn item(name: &str, value: &str) -> String {
    tag_with("tt:SimpleItem", &format!(r#"Name="{name}" Value="{}""#, escaped(value)), "")
}

fn message(topic: &str, operation: Option<&str>, source: &str, data: &str) -> String {
    let operation = operation.map_or_else(String::new, |operation| format!(r#" PropertyOperation="{operation}""#));
    let attributes = format!(r#"UtcTime="{}"{operation}"#, written(SystemTime::now()));
    let data = if data.is_empty() { String::new() } else { tag("tt:Data", data) };
    let message = tag_with("tt:Message", &attributes, &(tag("tt:Source", source) + &data));
    let topic = tag_with("wsnt:Topic", &format!(r#"Dialect="{CONCRETE}""#), topic);
    tag("wsnt:NotificationMessage", &(topic + &tag("wsnt:Message", &message)))
}

fn properties() -> String {
    let described = |is_property: bool, source: &[(&str, &str)], data: &[(&str, &str)]| {
        let items = |items: &[(&str, &str)]| {
            let one = |(name, kind): &(&str, &str)| {
                tag_with("tt:SimpleItemDescription", &format!(r#"Name="{name}" Type="{kind}""#), "")
            };
            items.iter().map(one).collect::<String>()
        };
        let data = if data.is_empty() { String::new() } else { tag("tt:Data", &items(data)) };
        let within = tag("tt:Source", &items(source)) + &data;
        tag_with("tt:MessageDescription", &format!(r#"IsProperty="{is_property}""#), &within)
    };
    let token = |name| (name, "tt:ReferenceToken");
    let loss = described(true, &[token("VideoSourceToken"), token("ProfileToken")], &[("State", "xs:boolean")]);
    let changed = described(false, &[token("Token"), ("Type", "xs:string")], &[]);
    let topic = |name: &str, within: &str| tag_with(name, r#"wstop:topic="true""#, within);
    let topics = tag("tns1:VideoSource", &topic("SignalLoss", &loss))
        + &tag("tns1:Media", &topic("ConfigurationChanged", &changed));
    [
        value("tev:TopicNamespaceLocation", "http://www.onvif.org/onvif/ver10/topics/topicns.xml"),
        value("wsnt:FixedTopicSet", true),
        tag("wstop:TopicSet", &topics),
        value("wsnt:TopicExpressionDialect", CONCRETE),
        value("wsnt:TopicExpressionDialect", "http://docs.oasis-open.org/wsn/t-1/TopicExpression/Concrete"),
        value("tev:MessageContentFilterDialect", "http://www.onvif.org/ver10/tev/messageContentFilter/ItemFilter"),
        value("tev:MessageContentSchemaLocation", "http://www.onvif.org/onvif/ver10/schema/onvif.xsd"),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use rov_common::capture_clock::CaptureClock;
    use rov_common::codec::Codec;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::events::Events;
    use crate::stream::Streams;

    struct Ground {
        events: Events,
        streams: Streams,
        subscriptions: Subscriptions,
    }

    impl Ground {
        fn new() -> Self {
            let streams = Streams::new([("bow", "stream1", Codec::H264)], CaptureClock::start()).0;
            Self { events: Events::new(CancellationToken::new()), streams, subscriptions: Subscriptions::default() }
        }

        fn create(&self, from: u8, now: Instant) -> Result<String, Fault> {
            let from = IpAddr::from([10, 0, 0, from]);
            let reader = || self.events.follow(&self.streams, from);
            self.subscriptions.create(reader, Filter::default(), from, USUAL_LIFE, now)
        }

        fn is_there(&self, id: &str, now: Instant) -> bool {
            self.subscriptions.with(Some(id), now, |_| ()).is_ok()
        }
    }

    #[test]
    fn subscriptions_have_a_bound_and_an_end() {
        let (ground, now) = (Ground::new(), Instant::now());
        let first = ground.create(1, now).unwrap();
        let later = now + Duration::from_secs(1);
        let others: Vec<_> = (1..MAX_OF_ADDRESS).map(|_| ground.create(1, later).unwrap()).collect();
        assert!(ground.is_there(&first, later));
        // One more of the address takes the place of its own that was polled longest ago.
        let more = ground.create(1, later).unwrap();
        assert!(!ground.is_there(&first, later) && ground.is_there(&more, later));
        assert!(others.iter().all(|id| ground.is_there(id, later)));
        let strangers = (2..).flat_map(|from| [from; MAX_OF_ADDRESS]).take(MAX_SUBSCRIPTIONS - MAX_OF_ADDRESS);
        assert!(strangers.into_iter().all(|from| ground.create(from, later).is_ok()));
        assert!(ground.create(99, later).is_err(), "all places are taken");
        assert!(ground.is_there(&more, later), "nobody else's gave way");
        assert_eq!(ground.subscriptions.end(Some(&more), later), Ok(()));
        assert_eq!(ground.subscriptions.end(Some(&more), later), Err(Fault::no_subscription()));
        assert!(ground.create(99, later).is_ok());
        let end = later + USUAL_LIFE;
        assert!(others.iter().all(|id| !ground.is_there(id, end)));
        assert!(ground.create(99, end).is_ok());
    }

    #[test]
    fn a_filter_names_topics_and_whole_trees_of_them() {
        let filter = |text: &str| Filter(text.split('|').map(str::to_owned).collect());
        for (text, loss, changed) in [
            ("tns1:VideoSource/SignalLoss", true, false),
            ("tns1:VideoSource//.", true, false),
            ("a:VideoSource//.|a:Media/ConfigurationChanged", true, true),
            ("tns1:RuleEngine//.", false, false),
            ("tns1:Video//.", false, false),
        ] {
            let filter = filter(text);
            assert_eq!((filter.wants(SIGNAL_LOSS), filter.wants(CONFIGURATION)), (loss, changed), "{text}");
        }
        assert!(Filter::default().wants(SIGNAL_LOSS));
    }

    #[test]
    fn a_life_is_a_time_or_a_duration_within_bounds() {
        assert_eq!(life(None), Ok(USUAL_LIFE));
        assert_eq!(life(Some("PT10S")), Ok(Duration::from_secs(10)));
        assert_eq!(life(Some("P1D")), Ok(MAX_LIFE));
        assert_eq!(life(Some("2001-01-01T00:00:00Z")), Ok(Duration::from_secs(1)));
        assert_eq!(life(Some("2999-01-01T00:00:00Z")), Ok(MAX_LIFE));
        assert!(life(Some("soon")).is_err());
    }

    #[tokio::test]
    async fn what_is_told_of_a_stream_is_told_once() {
        let ground = Ground::new();
        let reader = ground.events.follow(&ground.streams, IpAddr::from([10, 0, 0, 1])).unwrap();
        let mut follower = Follower { reader, told: HashMap::new(), filter: Filter::default() };
        let mut next = async || {
            let event = follower.reader.next().await.unwrap();
            follower.written(&event, &[])
        };
        // It starts, which is a state and an alarm.
        let first = next().await.unwrap();
        assert!(first.contains("Initialized") && first.contains(r#"Name="State" Value="true""#), "{first}");
        assert_eq!(next().await, None);
        let state = |state, reason: Option<&str>| {
            let health =
                rov_common::api::StreamHealth { state, reason: reason.map(str::to_owned), ..Default::default() };
            Event::State(StateEvent { stream: "stream1".to_owned(), camera: "bow".to_owned(), health })
        };
        ground.events.tell(state(StreamState::Running, None));
        let well = next().await.unwrap();
        assert!(well.contains("Changed") && well.contains(r#"Name="State" Value="false""#), "{well}");
        ground.events.tell(state(StreamState::Running, None));
        assert_eq!(next().await, None);
        ground.events.tell(state(StreamState::Running, Some("no camera")));
        assert!(next().await.is_some());
    }
}
