//! What the window says: whether the newest picture is live, and the words for the pilot. Pure.

use std::time::{Duration, Instant};

use super::{STALE_AFTER, Status, ViewModel};
use crate::overlay::{Badge, BadgeState, Menu, Message, Tone};
use crate::viewer::Question;

/// How the newest picture may be presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presentation {
    /// As it is.
    Live,
    /// Dimmed, with its age written over it.
    Stale { age: Duration },
    /// There is none.
    Waiting,
}

impl Presentation {
    /// As it is written.
    pub fn in_seconds(self) -> Self {
        match self {
            Self::Stale { age } => Self::Stale { age: Duration::from_secs(age.as_secs()) },
            other => other,
        }
    }
}

/// Decides how the newest picture, which was due at `last_picture_at`, may be presented. When the session is known to
/// be lost its last picture is old at once.
pub fn presentation(now: Instant, last_picture_at: Option<Instant>, status: &Status) -> Presentation {
    let Some(at) = last_picture_at else { return Presentation::Waiting };
    let age = now.saturating_duration_since(at);
    if age >= STALE_AFTER || matches!(status, Status::Lost { .. }) {
        Presentation::Stale { age }
    } else {
        Presentation::Live
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
        Presentation::Live => None,
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
        (BadgeState::NoVideo, Presentation::Stale { age }) => format!("NO VIDEO {}", duration(age)),
        (BadgeState::NoVideo, _) => "NO VIDEO".to_owned(),
        (BadgeState::Choosing, _) => "choose a server".to_owned(),
        (BadgeState::Connecting, _) => "connecting".to_owned(),
    };
    without_controls(format!("{name} - {state}"))
}

/// The window's title while it shows the grid: of each tile whether it is live.
pub fn grid_title(vehicle: &str, tiles: &[Presentation]) -> String {
    let live = tiles.iter().filter(|tile| **tile == Presentation::Live).count();
    let state = match live {
        live if live == tiles.len() => "all live".to_owned(),
        0 => "NO VIDEO".to_owned(),
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
        (Presentation::Live, _) => BadgeState::Live,
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
    let is_live = state == BadgeState::Live;
    let delay: f64 = view.overlay.latency.iter().map(|(_, ms)| ms.max(0.0)).sum();
    Badge {
        name: name.to_owned(),
        state,
        delay_ms: (is_live && delay > 0.0).then_some(delay.round() as u32),
        remark: "",
        link: if is_live { view.overlay.transport.clone() } else { String::new() },
    }
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
    use crate::decode::Picture;
    use crate::viewer::Offer;

    fn lost() -> Status {
        Status::Lost { reason: "server lost, looking for it…".into() }
    }

    #[test]
    fn video_is_live_for_one_second() {
        let now = Instant::now();
        assert_eq!(presentation(now, None, &Status::Live), Presentation::Waiting);
        assert_eq!(presentation(now + Duration::from_millis(999), Some(now), &Status::Live), Presentation::Live);
        let later = now + Duration::from_millis(1000);
        let stale = Presentation::Stale { age: Duration::from_secs(1) };
        assert_eq!(presentation(later, Some(now), &Status::Live), stale);
        assert_eq!(presentation(later, Some(now), &Status::default()), stale);
    }

    #[test]
    fn a_lost_sessions_picture_is_never_live() {
        let now = Instant::now();
        assert_eq!(presentation(now, Some(now), &lost()), Presentation::Stale { age: Duration::ZERO });
        assert_eq!(presentation(now, None, &lost()), Presentation::Waiting);
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
            |after: u64| presentation(now + Duration::from_millis(after), Some(picture.due_at()), &Status::Live);
        assert_eq!(shown(299), Presentation::Live);
        assert_eq!(shown(300), Presentation::Stale { age: STALE_AFTER });
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
            view.overlay.latency = vec![("network".into(), 2.2), ("decode".into(), 6.0)];
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
        let titles = [[live, live], [live, stale], [Presentation::Waiting, stale]].map(|all| grid_title("Nemo", &all));
        assert_eq!(titles, ["Nemo - all live", "Nemo - 1 of 2 live", "Nemo - NO VIDEO"]);
    }

    #[test]
    fn before_the_first_picture_the_window_says_what_is_being_done() {
        assert_eq!(message(Presentation::Waiting, &Status::default()).unwrap().title, "Looking for a server…");
    }
}
