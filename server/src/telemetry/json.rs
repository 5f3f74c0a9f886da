//! Telemetry as JSON, an object in each line of a datagram: `{"depth": 12.3, "heading": 270}`. Pure.

use std::time::Instant;

use serde_json::{Map, Value};

use super::Board;

/// Takes all values of a datagram that are numbers of declared fields. What else is in it is left out: others may be
/// told more.
///
/// # Errors
/// Where there is something in it that is wrong.
pub fn take(datagram: &[u8], board: &Board, now: Instant) -> Result<(), &'static str> {
    let lines = datagram.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let mut result = Err("it is empty");
    for line in lines {
        let Ok(values) = serde_json::from_slice::<Map<String, Value>>(line) else {
            return Err("a line is no JSON object");
        };
        for (name, value) in &values {
            let is_declared = board.fields().iter().any(|field| field.name == *name);
            if is_declared && !value.as_f64().is_some_and(|value| board.set(name, value, now)) {
                return Err("the value of a field is no number");
            }
        }
        result = Ok(());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FieldConfig;

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
