//! What the window says: whether the newest picture is live, and the words for the pilot. Pure.

use std::time::{Duration, Instant};

use rov_common::clock_sync::Age;

use super::{STALE_AFTER, Status, ViewModel};
use crate::late::Warning;
use crate::overlay::{Badge, BadgeState, Mark, Menu, Message, Tone};
use crate::recording::Told;
use crate::streams::Doubt;
use crate::viewer::Question;

/// How the newest picture may be presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presentation {
    /// As it is.
    Live,
    /// As it is, marked with its age: it moves, and is older than it may be.
    Late { age: Duration },
    /// As it is, marked: it moves, and its age is not known any more.
    Blind,
    /// Dimmed, with its age written over it.
    Stale { age: Duration },
    /// There is none.
    Waiting,
}

impl Presentation {
    /// New pictures come.
    pub fn is_moving(self) -> bool {
        matches!(self, Self::Live | Self::Late { .. } | Self::Blind)
    }

    /// As it is written.
    pub fn in_seconds(self) -> Self {
        match self {
            Self::Late { age } => Self::Late { age: Duration::from_millis(age.as_millis() as u64 / 100 * 100) },
            Self::Stale { age } => Self::Stale { age: Duration::from_secs(age.as_secs()) },
            other => other,
        }
    }
}

/// Decides how the newest picture, which was due at `last_picture_at`, may be presented. When the session is known to
/// be lost its last picture is old at once. `late`: what is to be warned of while it moves.
pub fn presentation(
    now: Instant,
    last_picture_at: Option<Instant>,
    status: &Status,
    late: Option<Warning>,
) -> Presentation {
    let Some(at) = last_picture_at else { return Presentation::Waiting };
    let age = now.saturating_duration_since(at);
    if age >= STALE_AFTER || matches!(status, Status::Lost { .. }) {
        Presentation::Stale { age }
    } else {
        match late {
            None => Presentation::Live,
            Some(Warning::Old(age)) => Presentation::Late { age },
            Some(Warning::Unknown) => Presentation::Blind,
        }
    }
}

/// Of a bound of the age's error that is told with it.
const TOLD_BOUND: Duration = Duration::from_millis(50);
const BLIND: &str = "AGE NOT KNOWN";

/// How a picture is marked that is no live picture of its camera. The page (`advice.js`) says the same.
pub fn mark(presentation: Presentation, view: &ViewModel) -> Option<Mark> {
    let marked = |title: String, detail: &str| Some(Mark { title, detail: sentence(detail) });
    match (presentation, &view.doubt) {
        (Presentation::Waiting, _) => None,
        // The message in the middle says it.
        (Presentation::Stale { .. }, _) => marked(String::new(), ""),
        (Presentation::Late { age }, Doubt::None) => marked(late(age), ""),
        // What is no picture of the camera is said first.
        (Presentation::Late { age }, Doubt::Frozen(_)) => marked("CAMERA FROZEN".to_owned(), &late(age)),
        (Presentation::Late { age }, Doubt::Substitute(_)) => marked("TEST PICTURE".to_owned(), &late(age)),
        (Presentation::Blind, Doubt::None) => marked(BLIND.to_owned(), &why_blind(view)),
        (Presentation::Live, Doubt::None) => None,
        (Presentation::Live | Presentation::Blind, Doubt::Frozen(reason)) => marked("CAMERA FROZEN".to_owned(), reason),
        (Presentation::Live | Presentation::Blind, Doubt::Substitute(reason)) => {
            marked("TEST PICTURE".to_owned(), reason)
        }
    }
}

fn why_blind(view: &ViewModel) -> String {
    match view.overlay.age {
        Some(Err(unknown)) => unknown.to_string(),
        Some(Ok(age)) => format!("the server's clock is known to \u{b1}{} ms only", age.bound.as_millis()),
        None => String::new(),
    }
}

/// In tenths of a second, rounded down.
fn late(age: Duration) -> String {
    match age.as_millis() / 100 {
        tenths @ ..100 => format!("{}.{} s OLD", tenths / 10, tenths % 10),
        _ => format!("{} OLD", duration(age)),
    }
}

/// The message for a presentation. The page (`advice.js`) says the same.
pub fn message(presentation: Presentation, status: &Status) -> Option<Message> {
    let explained = match status {
        Status::Connecting { what } => what.as_str(),
        Status::Live => "",
        Status::Lost { reason } => reason,
    };
    let message = |title: String, detail: &str, tone| Message { title, detail: sentence(detail), tone, menu: None };
    match presentation {
        Presentation::Live | Presentation::Late { .. } | Presentation::Blind => None,
        Presentation::Stale { age } => {
            let why = if explained.is_empty() { "connected, but no picture comes" } else { explained };
            Some(message(format!("NO VIDEO {}", duration(age)), why, Tone::Warning))
        }
        Presentation::Waiting => Some(match status {
            Status::Connecting { what } => {
                let (title, detail) = what.split_once('\n').unwrap_or((what, ""));
                message(title.to_owned(), detail, Tone::Waiting)
            }
            Status::Live => message("Waiting for the first picture…".to_owned(), "", Tone::Waiting),
            Status::Lost { reason } => message("NO VIDEO".to_owned(), reason, Tone::Warning),
        }),
    }
}

/// The message with a question to the pilot in it, which a warning stays above of.
pub fn asking(message: Option<Message>, question: &Question, selected: usize, now: Instant) -> Message {
    let text = sentence(&question.text);
    let rows = question.offers.iter().map(|offer| offer.label.clone()).collect();
    let note = match question.takes_first_at {
        Some(at) => format!("Watches 1 by itself in {}", duration(at.saturating_duration_since(now))),
        None => "Press 1-9, arrows and Enter, or click".to_owned(),
    };
    let menu = Some(Menu { rows, selected, note });
    match message {
        Some(warning) if warning.tone == Tone::Warning => Message { detail: text, menu, ..warning },
        _ => Message { title: text, detail: String::new(), tone: Tone::Waiting, menu },
    }
}

/// A question to the pilot in one line, beside a live picture.
pub fn aside(question: &Question) -> String {
    match question.offers.as_slice() {
        [_] => format!("{}: press Enter to watch it", question.text),
        offers => {
            let keys = offers.iter().zip(1..=9).map(|(offer, key)| format!("{key} for {}", offer.label));
            format!("{}: press {}", question.text, keys.collect::<Vec<_>>().join(", "))
        }
    }
}

/// The window's title.
pub fn title(name: &str, presentation: Presentation, view: &ViewModel) -> String {
    let state = match (state(presentation, view), presentation) {
        (BadgeState::Live, _) => "live".to_owned(),
        (BadgeState::Late, Presentation::Late { age }) => late(age),
        (BadgeState::Late, _) => "OLD".to_owned(),
        (BadgeState::Blind, _) => BLIND.to_owned(),
        (BadgeState::Doubtful, _) => mark(presentation, view).map(|mark| mark.title).unwrap_or_default(),
        (BadgeState::NoVideo, Presentation::Stale { age }) => format!("NO VIDEO {}", duration(age)),
        (BadgeState::NoVideo, _) => "NO VIDEO".to_owned(),
        (BadgeState::Choosing, _) => "choose a server".to_owned(),
        (BadgeState::Connecting, _) => "connecting".to_owned(),
    };
    without_controls(format!("{name} - {state}"))
}

/// How old pictures are, behind the window's title.
pub fn title_age(presentation: Presentation, view: &ViewModel) -> String {
    match (presentation, view.overlay.age) {
        (Presentation::Live, Some(Ok(age))) => {
            let bound = told_bound(age).map(|ms| format!(" \u{b1}{ms}")).unwrap_or_default();
            format!(", {} ms{bound}", age.age.as_millis())
        }
        _ => String::new(),
    }
}

/// Where it is large, in milliseconds.
fn told_bound(age: Age) -> Option<u32> {
    (age.bound > TOLD_BOUND).then_some(age.bound.as_millis() as u32)
}

/// The window's title while it shows the grid: of each tile whether it is live.
pub fn grid_title(vehicle: &str, tiles: &[(Presentation, Doubt)]) -> String {
    let live = tiles.iter().filter(|(tile, doubt)| *tile == Presentation::Live && *doubt == Doubt::None).count();
    let state = match live {
        live if live == tiles.len() => "all live".to_owned(),
        0 if tiles.iter().any(|(tile, _)| matches!(tile, Presentation::Late { .. })) => "OLD".to_owned(),
        0 if !tiles.iter().any(|(tile, _)| tile.is_moving()) => "NO VIDEO".to_owned(),
        live => format!("{live} of {} live", tiles.len()),
    };
    without_controls(format!("{vehicle} - {state}"))
}

/// minifb would panic.
fn without_controls(title: String) -> String {
    title.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn state(presentation: Presentation, view: &ViewModel) -> BadgeState {
    match (presentation, &view.status) {
        (moving, _) if moving.is_moving() && view.doubt != Doubt::None => BadgeState::Doubtful,
        (Presentation::Live, _) => BadgeState::Live,
        (Presentation::Late { .. }, _) => BadgeState::Late,
        (Presentation::Blind, _) => BadgeState::Blind,
        (Presentation::Waiting, Status::Connecting { .. } | Status::Live) if view.question.is_some() => {
            BadgeState::Choosing
        }
        (Presentation::Waiting, Status::Connecting { .. } | Status::Live) => BadgeState::Connecting,
        (Presentation::Stale { .. } | Presentation::Waiting, _) => BadgeState::NoVideo,
    }
}

/// What the corner says.
pub fn badge(name: &str, presentation: Presentation, view: &ViewModel) -> Badge {
    let state = state(presentation, view);
    let is_live = presentation.is_moving();
    // What is known of the way is no age: it may be the decoding alone.
    let age = view.overlay.age.and_then(Result::ok).filter(|_| is_live && presentation != Presentation::Blind);
    let delay = age.map(|age| (age.age.as_secs_f64() * 1e3).round() as u32);
    Badge {
        name: name.to_owned(),
        state,
        delay_ms: delay.filter(|delay| *delay > 0),
        bound_ms: age.and_then(told_bound),
        remark: "",
        recorded: None,
        link: if is_live { view.overlay.transport.clone() } else { String::new() },
    }
}

/// How many of the tiles are recorded, and why the first that is not is not; none where none is to be.
pub fn recorded(tiles: &[Option<Told>]) -> Option<(String, Tone)> {
    let all: Vec<_> = tiles.iter().flatten().collect();
    let first = all.iter().find(|told| !told.works).or(all.first())?;
    let works = all.iter().filter(|told| told.works).count();
    let tone = if works == all.len() { Tone::Recording } else { Tone::Warning };
    // Of one tile the time, and how much.
    let text = match (works, all.len()) {
        (0, _) | (_, 1) => first.text.clone(),
        (works, count) if works == count => format!("REC {works} of {count}"),
        (works, count) => format!("REC {works} of {count}; {}", first.text),
    };
    Some((text, tone))
}

/// In whole units and rounded down, so that it never says more than is true.
fn duration(age: Duration) -> String {
    match age.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// With a capital letter, unless it begins with a name of a machine or an element.
fn sentence(text: &str) -> String {
    let word = text.split_whitespace().next().unwrap_or_default().trim_end_matches([',', ';', ':']);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if word.chars().all(char::is_lowercase) => first.to_uppercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rov_common::units::Resolution;

    use super::*;
    use crate::clock::Unknown;
    use crate::decode::Picture;
    use crate::viewer::Offer;

    fn lost() -> Status {
        Status::Lost { reason: "server lost, looking for it…".into() }
    }

    #[test]
    fn the_grid_says_how_many_tiles_are_recorded_and_why_one_is_not() {
        let told = |text: &str, works| Some(Told { text: text.to_owned(), works });
        let (good, bad) = (told("REC 02:13 45 MB", true), told("NOT RECORDING: the disk is full", false));
        let said = |tiles: &[&Option<Told>]| recorded(&tiles.iter().map(|tile| (*tile).clone()).collect::<Vec<_>>());
        assert_eq!(said(&[&None, &None]), None);
        assert_eq!(said(&[&good, &good]), Some(("REC 2 of 2".to_owned(), Tone::Recording)));
        assert_eq!(said(&[&good]), Some(("REC 02:13 45 MB".to_owned(), Tone::Recording)));
        let text = "REC 2 of 3; NOT RECORDING: the disk is full".to_owned();
        assert_eq!(said(&[&good, &bad, &good]), Some((text, Tone::Warning)));
        assert_eq!(said(&[&bad, &bad]), Some(("NOT RECORDING: the disk is full".to_owned(), Tone::Warning)));
    }

    #[test]
    fn video_is_live_for_one_second() {
        let now = Instant::now();
        assert_eq!(presentation(now, None, &Status::Live, None), Presentation::Waiting);
        assert_eq!(presentation(now + Duration::from_millis(999), Some(now), &Status::Live, None), Presentation::Live);
        let later = now + Duration::from_millis(1000);
        let stale = Presentation::Stale { age: Duration::from_secs(1) };
        assert_eq!(presentation(later, Some(now), &Status::Live, None), stale);
        assert_eq!(presentation(later, Some(now), &Status::default(), None), stale);
    }

    #[test]
    fn a_lost_sessions_picture_is_never_live() {
        let now = Instant::now();
        assert_eq!(presentation(now, Some(now), &lost(), None), Presentation::Stale { age: Duration::ZERO });
        assert_eq!(presentation(now, None, &lost(), None), Presentation::Waiting);
    }

    #[test]
    fn a_picture_that_came_late_is_as_old_as_it_is() {
        let now = Instant::now();
        let late_by = Duration::from_millis(700);
        let mut picture = Picture::from_pixels(Resolution::new(1, 1), vec![0], now).unwrap();
        picture.late_by = late_by;
        // When it was decoded says nothing: the process may have stood still while it waited.
        picture.decoded_at = now + Duration::from_secs(10);
        let shown =
            |after: u64| presentation(now + Duration::from_millis(after), Some(picture.due_at()), &Status::Live, None);
        assert_eq!(shown(299), Presentation::Live);
        assert_eq!(shown(300), Presentation::Stale { age: STALE_AFTER });
    }

    #[test]
    fn what_is_no_live_picture_of_its_camera_is_marked_and_says_so_in_title_and_badge() {
        let view = |doubt| ViewModel { doubt, status: Status::Live, ..ViewModel::default() };
        let reason = || "the picture has not changed at all for 9 s".to_owned();
        let late = |ms| Presentation::Late { age: Duration::from_millis(ms) };
        let (stale, none) = (Presentation::Stale { age: Duration::from_secs(3) }, Doubt::None);
        for (presentation, doubt, expected, name, state) in [
            (late(1_290), none.clone(), "1.2 s OLD", "Nemo - 1.2 s OLD", BadgeState::Late),
            (late(12_900), none.clone(), "12 s OLD", "Nemo - 12 s OLD", BadgeState::Late),
            (Presentation::Blind, none.clone(), "AGE NOT KNOWN", "Nemo - AGE NOT KNOWN", BadgeState::Blind),
            (
                Presentation::Blind,
                Doubt::Frozen(reason()),
                "CAMERA FROZEN",
                "Nemo - CAMERA FROZEN",
                BadgeState::Doubtful,
            ),
            (late(310), Doubt::Frozen(reason()), "CAMERA FROZEN", "Nemo - CAMERA FROZEN", BadgeState::Doubtful),
            (late(310), Doubt::Substitute(reason()), "TEST PICTURE", "Nemo - TEST PICTURE", BadgeState::Doubtful),
            (
                Presentation::Live,
                Doubt::Frozen(reason()),
                "CAMERA FROZEN",
                "Nemo - CAMERA FROZEN",
                BadgeState::Doubtful,
            ),
            (
                Presentation::Live,
                Doubt::Substitute(reason()),
                "TEST PICTURE",
                "Nemo - TEST PICTURE",
                BadgeState::Doubtful,
            ),
            (stale, Doubt::Frozen(reason()), "", "Nemo - NO VIDEO 3 s", BadgeState::NoVideo),
        ] {
            let view = view(doubt);
            assert_eq!(mark(presentation, &view).map(|mark| mark.title).as_deref(), Some(expected));
            assert_eq!(
                (title("Nemo", presentation, &view).as_str(), badge("Nemo", presentation, &view).state),
                (name, state)
            );
            let tiles = [(presentation, view.doubt.clone()), (Presentation::Live, Doubt::None)];
            assert_eq!(grid_title("Nemo", &tiles), "Nemo - 1 of 2 live");
            let none_live = match presentation {
                Presentation::Late { .. } => "Nemo - OLD",
                Presentation::Live | Presentation::Blind => "Nemo - 0 of 1 live",
                Presentation::Stale { .. } | Presentation::Waiting => "Nemo - NO VIDEO",
            };
            assert_eq!(grid_title("Nemo", &tiles[..1]), none_live);
        }
        assert_eq!(mark(Presentation::Live, &view(none.clone())), None);
        assert_eq!(mark(Presentation::Waiting, &view(Doubt::Frozen(reason()))), None);
        let frozen = mark(Presentation::Live, &view(Doubt::Frozen(reason()))).expect("a mark");
        assert_eq!(frozen.detail, "The picture has not changed at all for 9 s");
        let both = mark(late(310), &view(Doubt::Frozen(reason()))).expect("a mark");
        assert_eq!(both.detail, "0.3 s OLD");
    }

    #[test]
    fn what_is_known_of_the_way_is_not_shown_in_the_place_of_the_age() {
        let mut view = ViewModel { status: Status::Live, ..ViewModel::default() };
        view.overlay.latency = vec![("network".into(), 2.2), ("decode".into(), 6.0)];
        let said = |view: &ViewModel| {
            let live = Presentation::Live;
            (badge("Nemo", live, view).delay_ms, title("Nemo", live, view) + &title_age(live, view))
        };
        view.overlay.age = Some(Err(Unknown::NoClock));
        assert_eq!(said(&view), (None, "Nemo - live".to_owned()));
        view.overlay.age = Some(Ok(Age { age: Duration::from_micros(42_400), bound: Duration::from_millis(1) }));
        assert_eq!(said(&view), (Some(42), "Nemo - live, 42 ms".to_owned()));
    }

    /// As of a program that was started through a queue of 2 s.
    #[test]
    fn an_age_that_is_known_badly_is_told_with_its_bound_and_where_it_is_not_known_why() {
        let mut view = ViewModel { status: Status::Live, ..ViewModel::default() };
        let (age, bound) = (Duration::from_secs(1), Duration::from_secs(1));
        view.overlay.age = Some(Ok(Age { age, bound }));
        let live = Presentation::Live;
        assert_eq!(title("Nemo", live, &view) + &title_age(live, &view), "Nemo - live, 1000 ms \u{b1}1000");
        assert_eq!((badge("", live, &view).delay_ms, badge("", live, &view).bound_ms), (Some(1_000), Some(1_000)));
        let blind = presentation(Instant::now(), Some(Instant::now()), &Status::Live, Some(Warning::Unknown));
        assert_eq!(title("Nemo", blind, &view) + &title_age(blind, &view), "Nemo - AGE NOT KNOWN");
        assert_eq!(badge("", blind, &view).delay_ms, None);
        let detail = |view: &ViewModel| mark(blind, view).map(|mark| mark.detail);
        assert_eq!(detail(&view).as_deref(), Some("The server's clock is known to \u{b1}1000 ms only"));
        view.overlay.age = Some(Err(Unknown::NotRead));
        assert_eq!(detail(&view).as_deref(), Some("The server's clock has not been read yet"));
        assert_eq!(grid_title("Nemo", &[(live, Doubt::None), (blind, Doubt::None)]), "Nemo - 1 of 2 live");
    }

    #[test]
    fn the_first_line_of_what_is_being_done_is_the_title() {
        let status = Status::Connecting { what: "Looking for a server…\nnone found within 3 s".into() };
        let said = message(Presentation::Waiting, &status).unwrap();
        assert_eq!((said.title.as_str(), said.detail.as_str()), ("Looking for a server…", "None found within 3 s"));
        assert_eq!(said.tone, Tone::Waiting);
    }

    #[test]
    fn the_message_tells_the_age_and_the_reason() {
        let stale = Presentation::Stale { age: Duration::from_millis(3_499) };
        let said = message(stale, &lost()).unwrap();
        assert_eq!((said.title.as_str(), said.detail.as_str()), ("NO VIDEO 3 s", "Server lost, looking for it…"));
        assert_eq!(said.tone, Tone::Warning);
        assert_eq!(message(stale, &Status::Live).unwrap().detail, "Connected, but no picture comes");
        assert_eq!(message(Presentation::Live, &Status::Live), None);
    }

    #[test]
    fn ages_are_rounded_down_and_reasons_begin_as_sentences() {
        let ages = [(0, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_199_999, "119 min"), (7_200_000, "2 h")];
        for (ms, text) in ages {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
        for (text, expected) in [
            ("the server does not answer", "The server does not answer"),
            ("rov-bow does not answer", "rov-bow does not answer"),
            ("http://10.0.0.2:8080/whep does not answer", "http://10.0.0.2:8080/whep does not answer"),
            ("x264enc: gone", "x264enc: gone"),
            ("", ""),
        ] {
            assert_eq!(sentence(text), expected);
        }
    }

    #[test]
    fn a_question_stands_below_the_warning_or_in_the_place_of_what_is_being_done() {
        let now = Instant::now();
        let offer = Offer { label: "Nemo  10.0.0.2:8080".into(), address: String::new(), id: String::new(), key: None };
        let takes_first_at = Some(now + Duration::from_secs(7));
        let question = Question { text: "rov2 answers".into(), offers: vec![offer], takes_first_at };
        let stale = Presentation::Stale { age: Duration::from_secs(12) };
        let asked = asking(message(stale, &lost()), &question, 0, now);
        assert_eq!((asked.title.as_str(), asked.detail.as_str()), ("NO VIDEO 12 s", "rov2 answers"));
        let menu = asked.menu.unwrap();
        assert_eq!((menu.rows.len(), menu.note.as_str()), (1, "Watches 1 by itself in 7 s"));
        let asked = asking(message(Presentation::Waiting, &Status::default()), &question, 0, now);
        assert_eq!((asked.title.as_str(), asked.tone), ("rov2 answers", Tone::Waiting));
    }

    #[test]
    fn beside_a_live_picture_a_question_is_a_line_with_its_keys() {
        let offer = |label: &str| Offer { label: label.into(), address: String::new(), id: String::new(), key: None };
        let question = |labels: &[&str]| Question {
            text: "watching A; others send".into(),
            offers: labels.iter().map(|label| offer(label)).collect(),
            takes_first_at: None,
        };
        assert_eq!(aside(&question(&["B"])), "watching A; others send: press Enter to watch it");
        assert_eq!(aside(&question(&["B", "C"])), "watching A; others send: press 1 for B, 2 for C");
    }

    #[test]
    fn title_and_badge_say_whose_picture_it_is_and_how_things_are() {
        let stale = Presentation::Stale { age: Duration::from_millis(12_900) };
        for (presentation, status, expected, state) in [
            (Presentation::Live, Status::Live, "Nemo - live", BadgeState::Live),
            (stale, Status::Live, "Nemo - NO VIDEO 12 s", BadgeState::NoVideo),
            (Presentation::Waiting, lost(), "Nemo - NO VIDEO", BadgeState::NoVideo),
            (Presentation::Waiting, Status::Live, "Nemo - connecting", BadgeState::Connecting),
        ] {
            let mut view = ViewModel { status, ..ViewModel::default() };
            assert_eq!(title("Nemo", presentation, &view), expected);
            view.overlay.transport = "WebRTC".into();
            view.overlay.age = Some(Ok(Age { age: Duration::from_millis(8), bound: Duration::from_millis(1) }));
            let badge = badge("Nemo", presentation, &view);
            let figures = (badge.delay_ms, badge.link.as_str());
            assert_eq!(badge.state, state);
            assert_eq!(figures, if state == BadgeState::Live { (Some(8), "WebRTC") } else { (None, "") });
        }
        let mut view = ViewModel::default();
        assert_eq!(title("a\0b\n", Presentation::Live, &view), "a b  - live", "what comes from the network");
        view.question = Some(Question { text: String::new(), offers: Vec::new(), takes_first_at: None });
        assert_eq!(title("ROV", Presentation::Waiting, &view), "ROV - choose a server");
        assert_eq!(title("ROV", stale, &view), "ROV - NO VIDEO 12 s", "goes before the question");
    }

    #[test]
    fn the_title_of_the_grid_says_how_many_tiles_are_live() {
        let (live, stale) = (Presentation::Live, Presentation::Stale { age: Duration::from_secs(2) });
        let titles = [[live, live], [live, stale], [Presentation::Waiting, stale]]
            .map(|all| grid_title("Nemo", &all.map(|tile| (tile, Doubt::None))));
        assert_eq!(titles, ["Nemo - all live", "Nemo - 1 of 2 live", "Nemo - NO VIDEO"]);
        let late = Presentation::Late { age: Duration::from_secs(2) };
        assert_eq!(
            [[late, stale], [late, live]].map(|all| grid_title("Nemo", &all.map(|tile| (tile, Doubt::None)))),
            ["Nemo - OLD", "Nemo - 1 of 2 live"]
        );
    }

    #[test]
    fn before_the_first_picture_the_window_says_what_is_being_done() {
        assert_eq!(message(Presentation::Waiting, &Status::default()).unwrap().title, "Looking for a server…");
    }
}
