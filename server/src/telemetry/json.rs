//! Telemetry as JSON, an object in each line of a datagram: `{"depth": 12.3, "heading": 270}`. Pure.

use std::net::IpAddr;
use std::time::Instant;

use serde_json::{Map, Value};

use super::Board;
use super::whose::{OF_ANOTHER, Sender, Whose};

/// Takes all values of a datagram that are numbers of declared fields. What else is in it is left out: others may be
/// told more.
///
/// # Errors
/// Where there is something in it that is wrong, or another sender's values are shown.
pub fn take(
    datagram: &[u8],
    address: IpAddr,
    whose: &mut Whose,
    board: &Board,
    now: Instant,
) -> Result<(), &'static str> {
    let sender = Sender { address, system: None };
    let lines = datagram.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let mut result = Err("it is empty");
    for line in lines {
        let Ok(values) = serde_json::from_slice::<Map<String, Value>>(line) else {
            return Err("a line is no JSON object");
        };
        for (name, value) in &values {
            if !board.fields().iter().any(|field| field.name == *name) {
                continue;
            }
            let value = value.as_f64().ok_or("the value of a field is no number")?;
            if !whose.takes(sender, board, now) {
                return Err(OF_ANOTHER);
            }
            whose.set(name, value, board, now);
        }
        result = Ok(());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FieldConfig;

    fn take(datagram: &[u8], board: &Board, now: Instant) -> Result<(), &'static str> {
        super::take(datagram, [10, 0, 0, 2].into(), &mut Whose::default(), board, now)
    }

    #[test]
    fn values_of_another_machine_are_not_taken_and_what_says_nothing_keeps_nobody_out() {
        let (board, now, mut whose) = (Board::new(FieldConfig::usual()), Instant::now(), Whose::default());
        let mut by =
            |host: u8, text: &str| super::take(text.as_bytes(), [10, 0, 0, host].into(), &mut whose, &board, now);
        assert_eq!(by(9, r#"{"mode": 1}"#), Ok(()));
        assert_eq!(by(2, r#"{"depth": 2}"#), Ok(()));
        assert_eq!(by(3, r#"{"depth": 50}"#), Err(OF_ANOTHER));
        assert_eq!(by(3, r#"{"heading": 50}"#), Err(OF_ANOTHER), "which it has not said");
        assert_eq!(by(2, r#"{"depth": 3}"#), Ok(()));
        assert_eq!((board.text("depth", now).as_deref(), board.values(now).len()), (Some("3.0 m"), 1));
    }

    #[test]
    fn each_line_is_an_object_of_numbers() {
        let (board, now) = (Board::new(FieldConfig::usual()), Instant::now());
        let datagram = b"{\"depth\": 1.5, \"mode\": \"manual\"}\r\n\n{\"depth\": 2.5, \"heading\": 270}\n";
        assert_eq!(take(datagram, &board, now), Ok(()));
        let text = |name| board.text(name, now);
        assert_eq!((text("depth").as_deref(), text("heading").as_deref()), (Some("2.5 m"), Some("270°")));
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let (board, now) = (Board::new(FieldConfig::usual()), Instant::now());
        let deep = [&b"{\"depth\": "[..], &b"[".repeat(1000)].concat();
        let wrong: [&[u8]; 9] = [
            b"",
            b"\n\n",
            b"12.3",
            b"{\"depth\": NaN}",
            b"{\"depth\": 1e999}",
            b"{\"depth\": \"12.3\"}",
            b"{\"depth\": null}",
            b"{\"depth\": 12.3",
            &deep,
        ];
        for datagram in wrong {
            assert!(take(datagram, &board, now).is_err(), "{}", String::from_utf8_lossy(datagram));
        }
        assert_eq!(board.changes(), 0);
    }
}
