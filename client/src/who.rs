//! Which server answers: another vehicle may have the same address, and a copy of a card the same id as well.

use rov_common::api::{SERVER_ID_HEADER, SERVER_KEY_HEADER, Stats};
use ureq::http::HeaderMap;

/// Who a server is, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Empty: not known.
    pub id: String,
    pub key: Option<String>,
}

impl Who {
    pub fn of(stats: &Stats) -> Self {
        Self { id: stats.id.clone(), key: stats.key.clone() }
    }

    /// What an answer says; one of an earlier version says nothing.
    pub fn answering(headers: &HeaderMap) -> Self {
        let said = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
        Self { id: said(SERVER_ID_HEADER).unwrap_or_default(), key: said(SERVER_KEY_HEADER) }
    }

    /// Whether an answer is of another server, or of one although it is not known which this is.
    pub fn is_other(&self, answering: &Self) -> bool {
        let has_other_key = self.key.as_ref().zip(answering.key.as_ref()).is_some_and(|(key, other)| key != other);
        !answering.id.is_empty() && answering.id != self.id || has_other_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_a_card_is_told_by_its_key_and_an_earlier_version_by_nothing() {
        let who =
            |id: &str, key: &str| Who { id: id.to_owned(), key: Some(key.to_owned()).filter(|_| !key.is_empty()) };
        let nemo = who("7", "a");
        for (answering, is_other) in [
            (who("7", "a"), false),
            (who("7", "b"), true),
            (who("8", "a"), true),
            (who("8", ""), true),
            (who("7", ""), false),
            (who("", ""), false),
        ] {
            assert_eq!(nemo.is_other(&answering), is_other, "{answering:?}");
        }
        assert!(Who::default().is_other(&nemo) && !who("7", "").is_other(&nemo));
    }
}
