//! Keys: minifb's key states and characters as presses.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use minifb::{InputCallback, Key};

/// A press that follows sooner on one that was not released is the keyboard's repetition. Later, the release went to
/// another window.
const KEY_REPEAT: Duration = Duration::from_millis(1000);
/// A character that was typed is not heard again sooner, as nobody tells when its key is released.
const CHARACTER_REPEAT: Duration = Duration::from_millis(700);

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Press {
    Key(Key),
    /// Whatever keys that takes on the user's keyboard.
    Character(char),
    /// The same once more, so soon that the key may be held; for who takes a text.
    Again(char),
}

/// Turns minifb's key states into presses. Its own `get_keys_pressed` loses one that is released before the next look.
pub struct Presses {
    presses: Sender<Press>,
    held: Vec<(Key, Instant)>,
    typed: Option<(char, Instant)>,
    /// Some key was released since.
    released: bool,
}

impl Presses {
    pub fn into(presses: Sender<Press>) -> Self {
        Self { presses, held: Vec::new(), typed: None, released: false }
    }
}

impl InputCallback for Presses {
    fn add_char(&mut self, code: u32) {
        let Some(letter) = char::from_u32(code) else { return };
        let now = Instant::now();
        let before = self.typed.replace((letter, now));
        let repeated = |(before, at)| before == letter && now.saturating_duration_since(at) < CHARACTER_REPEAT;
        let (again, released) = (before.is_some_and(repeated), std::mem::replace(&mut self.released, false));
        // Of these minifb tells when they are released: the key that begins a text is not its first letters.
        if again && !released && letter.is_ascii_alphanumeric() {
            return;
        }
        let _ = self.presses.send(if again { Press::Again(letter) } else { Press::Character(letter) });
    }

    fn set_key_state(&mut self, key: Key, down: bool) {
        let now = Instant::now();
        let held = self.held.iter().position(|(other, _)| *other == key).map(|at| self.held.swap_remove(at).1);
        if !down {
            self.released = true;
            return;
        }
        self.held.push((key, now));
        if held.is_none_or(|since| now.saturating_duration_since(since) > KEY_REPEAT) {
            // The receiver lives in the same window as this callback.
            let _ = self.presses.send(Press::Key(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_held_key_counts_once() {
        let (presses, keys) = channel();
        let mut callback = Presses::into(presses);
        for down in [true, true, true, false, true, false] {
            callback.set_key_state(Key::F, down);
        }
        for letter in "??5?".chars() {
            callback.add_char(letter.into());
        }
        let characters = [Press::Character('?'), Press::Again('?'), Press::Character('5'), Press::Character('?')];
        assert_eq!(keys.try_iter().collect::<Vec<_>>(), [&[Press::Key(Key::F); 2][..], &characters].concat());
    }

    #[test]
    fn a_letter_whose_key_is_held_comes_once_and_one_that_is_typed_twice_comes_twice() {
        let (presses, keys) = channel();
        let mut callback = Presses::into(presses);
        let mut press = |key: Key, times: usize| {
            callback.set_key_state(key, true);
            (0..times).for_each(|_| callback.add_char('e'.into()));
            callback.set_key_state(key, false);
        };
        press(Key::E, 20);
        press(Key::E, 20);
        let letters: Vec<_> = keys.try_iter().filter(|press| !matches!(press, Press::Key(_))).collect();
        assert_eq!(letters, [Press::Character('e'), Press::Again('e')]);
    }
}
