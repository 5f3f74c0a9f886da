//! The log of a program: on standard error, and in a file as well where that is wanted.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::api::named;
use crate::lines::Lines;
use crate::log_file::LogFile;

/// Of each line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(&[Self::Text, Self::Json], text)
    }
}

/// What is returned writes it.
#[derive(Debug)]
pub struct Log(Vec<Lines>);

impl Log {
    /// Begins the log of the program. `filter` says what is in it, unless `RUST_LOG` does.
    ///
    /// # Panics
    /// When there is one already.
    #[must_use]
    pub fn start(filter: &str, form: Form, file: Option<LogFile>) -> Self {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
        let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let lines: Vec<_> = std::iter::once(Lines::stderr()).chain(file.map(Lines::into)).collect();
        let layers = lines.iter().zip([colours, false]).map(|(lines, colours)| {
            let lines = lines.clone();
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(move || lines.clone())
                .with_ansi(colours)
                .log_internal_errors(false);
            match form {
                Form::Text => layer.with_target(false).boxed(),
                Form::Json => layer.json().boxed(),
            }
        });
        tracing_subscriber::registry().with(filter).with(layers.collect::<Vec<_>>()).init();
        Self(lines)
    }

    /// Waits until what was logged is written, at most for `limit`: for the end of the program.
    pub fn drain(&self, limit: Duration) {
        // Where one takes nothing, the other has its time all the same.
        let each = limit / self.0.len().max(1) as u32;
        self.0.iter().for_each(|lines| lines.drain(each));
    }
}
