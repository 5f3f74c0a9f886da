//! What is worth more on the way from the encoder to the screen: the age of the picture, or that it is whole and even.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::named;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatencyMode {
    #[default]
    Low,
    Normal,
    High,
}

impl LatencyMode {
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// The longest that a viewer's buffer waits for what is missing. On a good link nothing is, and it never waits.
    #[must_use]
    pub const fn longest_wait(self) -> Duration {
        Duration::from_millis(match self {
            Self::Low => 100,
            Self::Normal => 500,
            Self::High => 2_000,
        })
    }
}

impl fmt::Display for LatencyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        })
    }
}

impl FromStr for LatencyMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(&Self::ALL, text)
    }
}
