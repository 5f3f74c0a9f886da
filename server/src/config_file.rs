//! The configuration file (`--config`), TOML whose keys are the long options of the command line, and what was given
//! altogether: the command line over the environment over the file.
//!
//! A file with `[[camera]]` has a table for each camera and in it `[[camera.stream]]` for each stream; what is the
//! machine's stands at the top. Without one, all options stand at the top and are of the one camera and its one stream.
//! Each `[[user]]` is somebody who may watch or change things.

#[cfg(test)]
mod tests;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches};
use rov_common::exit;
use rov_common::redact::{redact, redact_typed};
use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::value::{Entry, Rest};
use crate::choices::SecondStream;
use crate::cli::{CameraOptions, Cli, FieldOptions, MachineOptions, Secret, StreamOptions, UserOptions};

/// All options at length are some kilobytes.
const MAX_BYTES: u64 = 64 << 10;
/// Names that are alike enough to be taken for each other, by Jaro and Winkler.
const LIKE: f64 = 0.8;
const CAMERA: &str = "camera";
const STREAM: &str = "stream";
const USER: &str = "user";
const TELEMETRY: &str = "telemetry";
const FIELD: &str = "field";
/// Of `[telemetry]`: what `telemetry = "..."` says without one.
const LISTEN: &str = "listen";

/// Why there is nothing to run with.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Also what `--help` and `--version` print.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// Names the file, and where it can the line.
    #[error("{0}")]
    File(String),
}

/// What is wrong in the text of a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {message}")]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// Never repeats the value of a password.
    pub message: String,
}

/// What was given.
#[derive(Debug)]
pub struct Options {
    pub file: Option<PathBuf>,
    /// To check the file and end.
    pub check: bool,
    /// To list the cameras and end.
    pub list_cameras: bool,
    /// To make it and end.
    pub secret: Option<Secret>,
    pub machine: Table<MachineOptions>,
    pub users: Vec<Table<UserOptions>>,
    /// One at least.
    pub cameras: Vec<Camera>,
}

#[derive(Debug)]
pub struct Camera {
    pub source: Table<CameraOptions>,
    /// One at least.
    pub streams: Vec<Table<StreamOptions>>,
}

/// The options of one table of the file, with those of the command line over them.
#[derive(Clone, Default, PartialEq)]
pub struct Table<T> {
    pub options: T,
    pub lines: Lines,
    /// Options that are the command line's, or of a variable of the environment.
    pub typed: BTreeSet<String>,
    /// Where it begins, from 1.
    pub line: usize,
}

/// Not the options: they may have a password among them.
impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("lines", &self.lines).field("typed", &self.typed).finish_non_exhaustive()
    }
}

/// Where an option was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Or by a variable of the environment.
    CommandLine,
    /// In this line of the file, from 1.
    File(usize),
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("the command line"),
            Self::File(line) => write!(f, "line {line} of the configuration file"),
        }
    }
}

/// Of the options that are the file's: the line, from 1.
pub type Lines = BTreeMap<String, usize>;

impl ReadError {
    /// Says it to the user; gives the exit code.
    pub fn report(&self) -> u8 {
        match self {
            // It may repeat what was typed, and this goes into a log.
            Self::CommandLine(error) if error.use_stderr() && !io::stderr().is_terminal() => {
                let _ = write!(io::stderr(), "{}", redact_typed(&error.to_string(), std::env::args_os()));
                exit::USAGE
            }
            Self::CommandLine(error) => {
                // Nobody may be there to read it.
                let _ = error.print();
                if error.use_stderr() { exit::USAGE } else { exit::SUCCESS }
            }
            Self::File(error) => {
                let _ = writeln!(io::stderr(), "error: {}", redact(error));
                exit::USAGE
            }
        }
    }
}

/// The command line, the first of `arguments` being the program's name, over the file that it names.
///
/// # Errors
/// Where either has an option that does not exist or a value that it cannot have, and where the file cannot be read.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, ReadError> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let (check, list_cameras, secret) = (cli.check_config.is_some(), cli.list_cameras, cli.command);
    let mut options = match cli.config.or(cli.check_config) {
        Some(path) => {
            let text = contents(&path);
            let text = text.map_err(|error| ReadError::File(format!("{}: {error}", path.display())))?;
            let options = parse(&text);
            let options = options.map_err(|mistake| ReadError::File(format!("{}, {mistake}", path.display())))?;
            Options { file: Some(path), check, ..options }
        }
        None => {
            let options = parse("").map_err(|mistake| ReadError::File(mistake.to_string()))?;
            Options { list_cameras, secret, ..options }
        }
    };
    options.update(&given(&matches))?;
    Ok(options)
}

/// Without what clap fills in where nothing was given.
fn given(matches: &ArgMatches) -> ArgMatches {
    let mut given = matches.clone();
    for id in matches.ids().filter(|id| matches.value_source(id.as_str()) == Some(ValueSource::DefaultValue)) {
        // Fails for an unknown name alone.
        let _ = given.try_clear_id(id.as_str());
    }
    given
}

impl Options {
    /// What was `given` on the command line or by a variable of the environment wins. It is of the first camera's first
    /// stream.
    fn update(&mut self, given: &ArgMatches) -> Result<(), clap::Error> {
        self.machine.update(given)?;
        let Some(Camera { source, streams }) = self.cameras.first_mut() else { return Ok(()) };
        source.update(given)?;
        let Some(stream) = streams.first_mut() else { return Ok(()) };
        // One setting with two names.
        if given.contains_id("low_latency") || given.contains_id("no_low_latency") {
            (stream.options.low_latency, stream.options.no_low_latency) = (None, None);
        }
        stream.update(given)
    }

    /// A mistake that shows when options are taken together, whose `message` names them: said by file and line, where
    /// it stands in one of the `tables`.
    pub fn locate(&self, message: &str, tables: &[&Lines]) -> String {
        let line = options_in(message).find_map(|option| tables.iter().find_map(|lines| lines.get(option)));
        self.at(line.copied(), message)
    }

    /// Said by file and line, where these are known.
    pub fn at(&self, line: Option<usize>, message: &str) -> String {
        match (&self.file, line) {
            (Some(path), Some(line)) => format!("{}, line {line}: {message}", path.display()),
            _ => message.to_owned(),
        }
    }
}

impl<T> Table<T> {
    /// Where a key stands, or the table where that is not in it.
    pub fn line_of(&self, key: &str) -> usize {
        self.lines.get(key).copied().unwrap_or(self.line)
    }
}

impl<T: Args> Table<T> {
    fn update(&mut self, given: &ArgMatches) -> Result<(), clap::Error> {
        self.options.update_from_arg_matches(given)?;
        let command = T::augment_args(Command::new(env!("CARGO_PKG_NAME")));
        let given = command.get_arguments().filter(|option| given.contains_id(option.get_id().as_str()));
        for option in given.filter_map(|option| option.get_long()) {
            self.lines.remove(option);
            self.typed.insert(option.to_owned());
        }
        Ok(())
    }
}

impl<T> Table<T> {
    /// Where an option of the table was given; none: nowhere.
    pub fn given(&self, key: &str) -> Option<Given> {
        let of_file = || self.lines.get(key).map(|line| Given::File(*line));
        if self.typed.contains(key) { Some(Given::CommandLine) } else { of_file() }
    }
}

impl Table<StreamOptions> {
    /// Those of the second stream in short, where these are of the first.
    pub fn second(&self, second: SecondStream) -> Self {
        let says = [
            ("width", true),
            ("height", true),
            ("fps", second.fps.is_some()),
            ("bitrate", second.bitrate_kbps.is_some()),
            ("profile", second.profile.is_some()),
        ];
        let mut table = Self { options: self.options.second(second), ..self.clone() };
        for own in StreamOptions::NOT_OF_SECOND {
            table.lines.remove(own);
            table.typed.remove(own);
        }
        for (key, _) in says.into_iter().filter(|(_, is_said)| *is_said) {
            table.lines.remove(key);
            table.typed.insert(key.to_owned());
        }
        table
    }
}

/// The names of the options in a message, without their dashes.
pub fn options_in(message: &str) -> impl Iterator<Item = &str> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let named = message.match_indices("--").map(|(at, _)| &message[at + 2..]);
    named.map(move |rest| rest.split(|c| !is_of_name(c)).next().unwrap_or_default())
}

fn contents(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("is longer than {MAX_BYTES} bytes: is it the right file?")));
    }
    Ok(text)
}

/// What a file says.
///
/// # Errors
/// The first that is no TOML, no option, no value for it, or in the wrong table.
pub fn parse(text: &str) -> Result<Options, Mistake> {
    let root = DeTable::parse(text).map_err(|error| Mistake {
        line: value::line(text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let (mut root, mut mistakes) = (Rest::of(text, 1, root.into_inner()), Vec::new());
    // `user = "pilot"` is the option.
    let is_table = |entry: &Entry| entry.key == USER && matches!(entry.value, DeValue::Array(_));
    let users = match root.take_first(is_table) {
        Some(users) => tables(text, users, &mut mistakes),
        None => Vec::new(),
    };
    let users = users.into_iter().map(|table| whole(table, &mut mistakes)).collect();
    let fields = telemetry(text, &mut root, &mut mistakes);
    let mut machine: Table<MachineOptions> = root.take(&mut mistakes);
    machine.options.fields = fields;
    let cameras = match root.take_first(|entry| entry.key == CAMERA) {
        Some(cameras) => {
            tables(text, cameras, &mut mistakes).into_iter().map(|table| camera(text, table, &mut mistakes)).collect()
        }
        None => vec![Camera { source: root.take(&mut mistakes), streams: vec![root.take(&mut mistakes)] }],
    };
    refuse(root, &mut mistakes);
    match mistakes.into_iter().min_by_key(|mistake| mistake.line) {
        None => Ok(Options { file: None, check: false, list_cameras: false, secret: None, machine, users, cameras }),
        Some(first) => Err(first),
    }
}

/// The fields of a table `[telemetry]`, of which the address is left in `root` as the option that it is.
fn telemetry<'a>(text: &str, root: &mut Rest<'a>, mistakes: &mut Vec<Mistake>) -> Vec<Table<FieldOptions>> {
    let is_table = |entry: &Entry| entry.key == TELEMETRY && matches!(entry.value, DeValue::Table(_));
    let Some(Entry { key, line, value: DeValue::Table(table) }) = root.take_first(is_table) else { return Vec::new() };
    let mut table = Rest::of(text, line, table);
    let fields = match table.take_first(|entry| entry.key == FIELD) {
        Some(fields) => tables(text, fields, mistakes),
        None => Vec::new(),
    };
    let listen = table.take_first(|entry| entry.key == LISTEN);
    root.entries.extend(listen.map(|entry| Entry { key, ..entry }));
    refuse(table, mistakes);
    fields.into_iter().map(|table| whole(table, mistakes)).collect()
}

fn camera<'a>(text: &str, mut table: Rest<'a>, mistakes: &mut Vec<Mistake>) -> Camera {
    let source = table.take(mistakes);
    let streams = match table.take_first(|entry| entry.key == STREAM) {
        Some(streams) => tables(text, streams, mistakes),
        None => vec![Rest::of(text, table.line, DeTable::new())],
    };
    refuse(table, mistakes);
    Camera { source, streams: streams.into_iter().map(|table| whole(table, mistakes)).collect() }
}

/// A table that has the options of one group alone.
fn whole<'de, T: Deserialize<'de> + Default>(mut table: Rest, mistakes: &mut Vec<Mistake>) -> Table<T> {
    let options = table.take(mistakes);
    refuse(table, mistakes);
    options
}

/// The tables of `[[camera]]`, `[[camera.stream]]` or `[[user]]`.
fn tables<'a>(text: &str, entry: Entry<'a>, mistakes: &mut Vec<Mistake>) -> Vec<Rest<'a>> {
    let Entry { key, line, value } = entry;
    let tables: Option<Vec<_>> = match value {
        DeValue::Array(values) if !values.is_empty() => {
            let table = |value: Spanned<DeValue<'a>>| match (value.span().start, value.into_inner()) {
                (at, DeValue::Table(table)) => Some(Rest::of(text, value::line(text, at), table)),
                _ => None,
            };
            values.into_iter().map(table).collect()
        }
        _ => None,
    };
    tables.unwrap_or_else(|| {
        let heading = match &*key {
            STREAM => "[[camera.stream]]".to_owned(),
            FIELD => "[[telemetry.field]]".to_owned(),
            key => format!("[[{key}]]"),
        };
        mistakes.push(Mistake { line, message: format!("{key}: expected tables that begin with {heading}") });
        Vec::new()
    })
}

/// What no group of options has taken is a mistake.
fn refuse(rest: Rest, mistakes: &mut Vec<Mistake>) {
    mistakes.extend(rest.entries.iter().map(|entry| Mistake { line: entry.line, message: unknown(&entry.key) }));
}

fn unknown(key: &str) -> String {
    let places = [
        (&[CAMERA][..], "at the top of the file, as [[camera]]"),
        (&[STREAM], "below [[camera]], as [[camera.stream]]"),
        (&[USER], "at the top of the file, as [[user]]"),
        (&[FIELD], "at the top of the file, as [[telemetry.field]]"),
        (&[LISTEN], "below [telemetry]"),
        (value::names::<MachineOptions>(), "at the top of the file, above [[camera]]"),
        (value::names::<CameraOptions>(), "below [[camera]]"),
        (value::names::<StreamOptions>(), "below [[camera.stream]]"),
        (value::names::<UserOptions>(), "below [[user]]"),
        (value::names::<FieldOptions>(), "below [[telemetry.field]]"),
    ];
    if let Some((_, place)) = places.iter().find(|(names, _)| names.contains(&key)) {
        return format!("{key} does not belong here: with [[camera]] in a file it stands {place}");
    }
    let (dashed, names) = (key.replace('_', "-"), places.iter().flat_map(|(names, _)| *names));
    let likeness = |name: &str| match strsim::damerau_levenshtein(&dashed, name) {
        0 => 2.0,
        1 => 1.0, // One slip of the finger, however short the word.
        _ => strsim::jaro_winkler(&dashed, name),
    };
    let nearest = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) > LIKE);
    match nearest {
        Some(name) => format!("there is no option {key:?}: did you mean {name}?"),
        None => format!("there is no option {key:?}: a key is a long option of rov-server --help without its dashes"),
    }
}
