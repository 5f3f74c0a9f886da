//! The text of an event while it is typed: keys are letters then, until Enter or Esc.

use std::time::{Duration, Instant};

use minifb::Key;

use super::presses::Press;
use crate::event::LONGEST_TEXT;

/// What a key that takes back a letter gives.
const BACKSPACE: char = '\u{8}';
const DELETE: char = '\u{7f}';
/// So long after the end Esc is one that was meant for the text: it would close the window.
const GUARD: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Typing {
    text: Option<String>,
    ended: Option<Instant>,
}

/// What a press was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Nothing of a text.
    Other,
    Part,
    /// The text is to be saved; none: it was cancelled.
    End(Option<String>),
}

impl Typing {
    pub fn begin(&mut self) {
        self.text = Some(String::new());
    }

    /// What is typed so far; none: no text is.
    pub fn text(&self) -> Option<&String> {
        self.text.as_ref()
    }

    /// The text as it is now, which ends.
    pub fn end(&mut self) -> Option<String> {
        self.text.take()
    }

    pub fn press(&mut self, press: Press, now: Instant) -> Typed {
        let Some(text) = &mut self.text else {
            let is_late = self.ended.is_some_and(|at| now.saturating_duration_since(at) < GUARD);
            return if is_late && press == Press::Key(Key::Escape) { Typed::Part } else { Typed::Other };
        };
        match press {
            Press::Key(Key::Enter | Key::NumPadEnter | Key::Escape) => {
                self.ended = Some(now);
                return Typed::End(self.text.take().filter(|_| press != Press::Key(Key::Escape)));
            }
            Press::Character(BACKSPACE | DELETE) | Press::Again(BACKSPACE | DELETE) => drop(text.pop()),
            Press::Character(letter) | Press::Again(letter) => {
                // Arrows and their like are letters of no language on macOS.
                let is_letter = !letter.is_control() && !('\u{e000}'..='\u{f8ff}').contains(&letter);
                if is_letter && text.chars().count() < LONGEST_TEXT {
                    text.push(letter);
                }
            }
            Press::Key(_) => {}
        }
        Typed::Part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_of_the_text_until_it_ends_and_a_second_escape_closes_nothing() {
        let (now, mut typing) = (Instant::now(), Typing::default());
        let escape = Press::Key(Key::Escape);
        assert_eq!(typing.press(escape, now), Typed::Other, "it closes the window");
        typing.begin();
        for press in [Press::Key(Key::Q), Press::Character('q'), Press::Again('q'), Press::Character(BACKSPACE)] {
            assert_eq!(typing.press(press, now), Typed::Part);
        }
        assert_eq!(typing.text().map(String::as_str), Some("q"));
        assert_eq!(typing.press(Press::Key(Key::Enter), now), Typed::End(Some("q".to_owned())));
        typing.begin();
        assert_eq!(typing.press(escape, now), Typed::End(None));
        let soon = now + Duration::from_millis(500);
        assert_eq!([typing.press(escape, soon), typing.press(Press::Key(Key::Q), soon)], [Typed::Part, Typed::Other]);
        assert_eq!(typing.press(escape, now + GUARD), Typed::Other);
    }
}
