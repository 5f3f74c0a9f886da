//! The configuration file (`--config`): TOML whose keys are the long options of the command line, which wins over it.
//!
//! It becomes options in front of those of the command line, so that one place says what there is and what it means. Only the top
//! level is used: tables are refused.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use rov_common::camera::redact;
use rov_common::units::Fps;
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use crate::EXIT_USAGE;
use crate::cli::Cli;

/// All options at length are some kilobytes.
const MAX_BYTES: u64 = 64 << 10;
/// What makes sense on the command line alone.
const NOT_IN_FILES: [&str; 3] = ["config", "help", "version"];
const NUMBERS: [TypeId; 4] = [TypeId::of::<u8>(), TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<f64>()];
/// Numbers that may be written as a text too: a fraction.
const FRACTIONS: TypeId = TypeId::of::<Fps>();

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

/// What a file says.
#[derive(Debug)]
pub struct OfFile {
    pub options: Vec<OsString>,
    /// Key to line, from 1.
    pub lines: BTreeMap<String, usize>,
}

/// What is wrong in the text of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl ReadError {
    /// Says it to the user; gives the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            // It may repeat what was typed, and this goes into a log.
            Self::CommandLine(error) if error.use_stderr() && !io::stderr().is_terminal() => {
                let _ = write!(io::stderr(), "{}", redact(&error.to_string()));
                ExitCode::from(EXIT_USAGE)
            }
            Self::CommandLine(error) => {
                // Nobody may be there to read it.
                let _ = error.print();
                if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
            }
            Self::File(error) => {
                let _ = writeln!(io::stderr(), "error: {error}");
                ExitCode::from(EXIT_USAGE)
            }
        }
    }
}

/// The command line, the first of `arguments` being the program's name, and below it the file that it names.
///
/// # Errors
/// Where either has an option that does not exist or a value that it cannot have, and where the file cannot be read.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ReadError> {
    let mut all: Vec<OsString> = arguments.into_iter().collect();
    let given = Cli::command().try_get_matches_from(&all)?;
    let cli = Cli::from_arg_matches(&given)?;
    let Some(path) = &cli.config else { return Ok(cli) };
    let text = contents(path).map_err(|error| ReadError::File(format!("--config {}: {error}", path.display())))?;
    let of_file = options(&text, &given)
        .map_err(|Mistake { line, message }| ReadError::File(format!("{}, line {line}: {message}", path.display())))?;
    let program = all.len().min(1);
    all.splice(program..program, of_file.options);
    let cli = Cli::from_arg_matches(&Cli::command().try_get_matches_from(&all)?)?;
    Ok(Cli { lines_of_file: of_file.lines, ..cli })
}

/// A mistake that shows when the options are taken together, whose message begins with one of them or names it: said by
/// file and line, where it stands there.
pub fn located(message: &str, cli: &Cli) -> String {
    let Some(path) = &cli.config else { return message.to_owned() };
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let named = message.match_indices("--").map(|(at, _)| &message[at + 2..]);
    let named = named.map(|rest| rest.split(|c| !is_of_name(c)).next().unwrap_or_default());
    let line = named.filter_map(|option| cli.lines_of_file.get(option)).next();
    line.map_or_else(|| message.to_owned(), |line| format!("{}, line {line}: {message}", path.display()))
}

fn contents(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("is longer than {MAX_BYTES} bytes: is it the right file?")));
    }
    Ok(text)
}

/// The file as options of the command line, without those that were `given` there or by a variable of the environment.
///
/// # Errors
/// What is no TOML, no option, or no value for it.
pub fn options(text: &str, given: &ArgMatches) -> Result<OfFile, Mistake> {
    let line_at = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| Mistake {
        line: line_at(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    // The first mistake in the file is told first.
    entries.sort_by_key(|(key, _)| key.span().start);
    let command = Cli::command();
    let (mut all, mut lines) = (Vec::new(), BTreeMap::new());
    for (key, value) in entries {
        let line = line_at(key.span().start);
        let mistake = |message| Mistake { line, message };
        let option = find(&command, key.get_ref()).map_err(mistake)?;
        let texts = texts(&command, option, key.get_ref(), value.get_ref()).map_err(mistake)?;
        for text in &texts {
            // Alone, so that it is known which one is wrong.
            let alone = Cli::command().no_binary_name(true).try_get_matches_from([text]);
            alone.map_err(|error| mistake(first_paragraph(&error)))?;
        }
        let wins = given.value_source(option.get_id().as_str());
        if matches!(wins, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        lines.insert(key.get_ref().to_string(), line);
        for text in texts.into_iter().map(OsString::from) {
            // `low-latency = false` and `no-low-latency = true` are the same flag, which clap wants once.
            if !matches!(option.get_action(), ArgAction::SetTrue) || !all.contains(&text) {
                all.push(text);
            }
        }
    }
    Ok(OfFile { options: all, lines })
}

fn find<'a>(command: &'a Command, key: &str) -> Result<&'a Arg, String> {
    let find = |key: &str| {
        command.get_arguments().find(|option| option.get_long() == Some(key) && !NOT_IN_FILES.contains(&key))
    };
    find(key).ok_or_else(|| match find(&key.replace('_', "-")) {
        Some(option) => format!("there is no option {key:?}: write {}", option.get_long().unwrap_or_default()),
        None => match similar(command, key) {
            Some(option) => format!("there is no option {key:?}: did you mean {option}?"),
            None => {
                format!("there is no option {key:?}: a key is a long option of rov-server --help without its dashes")
            }
        },
    })
}

/// What clap would suggest on the command line.
fn similar(command: &Command, key: &str) -> Option<String> {
    let given = format!("--{}", key.replace('_', "-"));
    let error = command.clone().no_binary_name(true).try_get_matches_from([given]).err()?;
    let Some(ContextValue::String(option)) = error.get(ContextKind::SuggestedArg) else { return None };
    let option = option.trim_start_matches('-');
    (!NOT_IN_FILES.contains(&option)).then(|| option.to_owned())
}

/// One entry as it would stand on the command line; several for a list.
fn texts(command: &Command, option: &Arg, key: &str, value: &DeValue) -> Result<Vec<String>, String> {
    let wrong = |wanted: &str| Err(format!("{key} is {}, but must be {wanted}", title(value)));
    match (option.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(true)) => Ok(vec![format!("--{key}")]),
        (ArgAction::SetTrue, DeValue::Boolean(false)) => {
            // `low-latency = false` is not what is there without it.
            let opposite = key.strip_prefix("no-").map_or_else(|| format!("no-{key}"), str::to_owned);
            let is_option = find(command, &opposite).is_ok();
            Ok(is_option.then(|| format!("--{opposite}")).into_iter().collect())
        }
        (ArgAction::SetTrue, _) => wrong("true or false"),
        (ArgAction::Count, DeValue::Integer(count)) => match count.as_str().parse::<usize>() {
            Ok(count) if count < 10 => Ok(vec![format!("--{key}"); count]),
            _ => wrong("a number from 0 to 9"),
        },
        (ArgAction::Count, _) => wrong("a number from 0 to 9"),
        // The value of such an option may be left out.
        (ArgAction::Set, DeValue::Boolean(on))
            if option.get_num_args().is_some_and(|count| count.min_values() == 0) =>
        {
            Ok(on.then(|| format!("--{key}")).into_iter().collect())
        }
        (ArgAction::Append, DeValue::Array(values)) => {
            values.iter().map(|value| text(option, key, value.get_ref())).collect()
        }
        _ => text(option, key, value).map(|text| vec![text]),
    }
}

fn text(option: &Arg, key: &str, value: &DeValue) -> Result<String, String> {
    let is = |kind: &TypeId| option.get_value_parser().type_id() == *kind;
    let (is_number, is_fraction) = (NUMBERS.iter().any(is), is(&FRACTIONS));
    let value = match value {
        DeValue::String(text) if !is_number => text.clone().into_owned(),
        // Devices and the like may be numbers.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("{key} is too large a number"))?
            .to_string(),
        DeValue::Float(number) if is_number || is_fraction => number.as_str().to_owned(),
        value => {
            let wanted = match (is_number, is_fraction) {
                (true, _) => "a number",
                (_, true) => "a number, or a fraction in quotes",
                _ => "a text in quotes",
            };
            let or_list = if matches!(option.get_action(), ArgAction::Append) { ", or a list of such" } else { "" };
            return Err(format!("{key} is {}, but must be {wanted}{or_list}", title(value)));
        }
    };
    Ok(format!("--{key}={value}"))
}

/// Without the value: it may be a password.
fn title(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// What clap says, without its hints for the command line.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.trim_start_matches("error: ").lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, EncoderChoice, SourceKind};

    fn given(arguments: &[&str]) -> ArgMatches {
        Cli::command().no_binary_name(true).try_get_matches_from(arguments).unwrap()
    }

    fn of_file(text: &str) -> Result<Vec<String>, Mistake> {
        let options = options(text, &given(&[]))?.options;
        Ok(options.into_iter().map(|option| option.into_string().unwrap()).collect())
    }

    fn read_with(text: &str, arguments: &[&str]) -> Result<Cli, ReadError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rov.toml");
        std::fs::write(&path, text).unwrap();
        let line = [&["rov-server", "--config", path.to_str().unwrap()], arguments].concat();
        read(line.into_iter().map(OsString::from))
    }

    #[test]
    fn a_file_says_what_the_command_line_would() {
        let text = "# A comment\nname = \"Nemo\"\nwidth = 1_280\nheight = 0x2d0\nrtp-keyframe-interval = 0.5\n\
                    transport = [\"rtp\", \"webrtc\"]\nrtp-host = '10.0.0.1,10.0.0.2'\ninterface = [\"eth0\", \"eth1\"]\n\
                    no-discovery = true\nno-loop = false\nlow-latency = false\nverbose = 2\nstun = true\ndevice = 0\n";
        let cli = read_with(text, &[]).unwrap();
        assert_eq!((cli.name.as_deref(), cli.width, cli.height), (Some("Nemo"), 1280, 720));
        assert_eq!((cli.rtp_keyframe_interval, cli.rtp_hosts.len(), cli.transports.len()), (0.5, 2, 2));
        assert_eq!((cli.interfaces.len(), cli.verbose, cli.device.as_deref()), (2, 2, Some("0")));
        assert!(cli.no_discovery && !cli.no_loop && cli.no_low_latency && cli.stun.is_some());
        assert_eq!(Config::from_cli(&cli).unwrap().capture.source, SourceKind::Webcam);
    }

    #[test]
    fn a_frame_rate_may_be_a_fraction() {
        for (text, num, den) in [
            ("fps = 29.97", 30_000, 1001),
            ("fps = '30000/1001'", 30_000, 1001),
            ("fps = 25", 25, 1),
            ("fps = 12.5", 25, 2),
        ] {
            assert_eq!(read_with(text, &[]).unwrap().fps, Fps { num, den }, "{text}");
        }
    }

    #[test]
    fn the_command_line_wins() {
        let text = "width = 1280\nheight = 720\ntransport = [\"rtp\", \"webrtc\"]\nencoder = \"x264enc\"\nlow-latency = false\n";
        let cli = read_with(text, &["--width", "640", "--transport", "rtsp", "--low-latency"]).unwrap();
        let config = Config::from_cli(&cli).unwrap();
        assert_eq!((cli.width, cli.height), (640, 720));
        assert!(!config.webrtc && config.rtp.is_none() && config.rtsp.is_some() && config.capture.low_latency);
        assert_eq!(config.capture.encoder, EncoderChoice::Element("x264enc".to_owned()));
    }

    #[test]
    fn a_flag_that_is_said_twice_is_one() {
        assert_eq!(of_file("low-latency = false\nno-low-latency = true").unwrap(), ["--no-low-latency"]);
        assert!(read_with("low-latency = false\nno-low-latency = true", &[]).unwrap().no_low_latency);
    }

    #[test]
    fn every_option_can_stand_in_a_file() {
        for option in Cli::command().get_arguments().filter_map(Arg::get_long) {
            let known = find(&Cli::command(), option).is_ok();
            assert_eq!(known, option != "config", "{option}");
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_what_to_do() {
        for (text, line, message) in [
            ("width = 1280\n\nwidht = 1", 3, "there is no option \"widht\": did you mean width?"),
            ("xyzzy = 1", 1, "there is no option \"xyzzy\": a key is a long option of rov-server --help"),
            ("rtsp_prot = 1", 1, "there is no option \"rtsp_prot\": did you mean rtsp-port?"),
            (
                "fps = \"fast\"",
                1,
                "invalid value 'fast' for '--fps <FPS>': give frames per second, as 30, 29.97 or 30000/1001",
            ),
            ("fps = [30]", 1, "fps is a list, but must be a number, or a fraction in quotes"),
            ("rtp_port = 5004", 1, "there is no option \"rtp_port\": write rtp-port"),
            ("config = \"other.toml\"", 1, "there is no option \"config\""),
            ("\nwidth = \"1280\"", 2, "width is a text, but must be a number"),
            ("width = [1280]", 1, "width is a list, but must be a number"),
            ("name = true", 1, "name is true or false, but must be a text in quotes"),
            ("transport = [[\"rtp\"]]", 1, "transport is a list, but must be a text in quotes, or a list of such"),
            ("no-discovery = 1", 1, "no-discovery is a number, but must be true or false"),
            ("verbose = -1", 1, "verbose is a number, but must be a number from 0 to 9"),
            ("fps = 99999999999999999999", 1, "fps is too large a number"),
            ("[rtp]\nport = 1", 1, "there is no option \"rtp\""),
            ("rtp-port.x = 1", 1, "rtp-port is a table, but must be a number"),
            (
                "rtp-port = 70000",
                1,
                "invalid value '70000' for '--rtp-port <PORT>': give a whole number from 0 to 65535",
            ),
            (
                "source = \"mirror\"",
                1,
                "invalid value 'mirror' for '--source <SOURCE>' [possible values: auto, webcam,",
            ),
            ("width = 1\nwidth = 2", 2, "duplicate key"),
            ("width = \n", 1, ""),
            ("password = \"deep", 1, ""),
        ] {
            let mistake = of_file(text).expect_err(text);
            assert_eq!(mistake.line, line, "{text}: {mistake:?}");
            assert!(mistake.message.starts_with(message), "{text}: {mistake:?}");
            assert!(!mistake.message.is_empty() && !mistake.message.contains("deep"), "{mistake:?}");
        }
    }

    #[test]
    fn what_is_wrong_together_is_said_with_its_line() {
        for (text, arguments, said) in [
            ("\nwidth = 1281", &[][..], "rov.toml, line 2: --width 1281: must be even (4:2:0 video), try 1282"),
            ("height = 720\nwidth = 0", &[], "rov.toml, line 2: --width 0 --height 720: give both,"),
            ("height = 0", &[], "rov.toml, line 1: --width 1920 --height 0: give both,"),
            ("width = 1281", &["--width", "1283"], "--width 1283: must be even"),
            ("name = 'x'", &["--width", "1283"], "--width 1283: must be even"),
            ("url = 'http://a/'", &[], "rov.toml, line 1: --url http://a/: give the address of an RTSP camera"),
        ] {
            let cli = read_with(text, arguments).unwrap();
            let message = located(&Config::from_cli(&cli).unwrap_err().0, &cli);
            assert!(message.contains(said) && message.starts_with("--") == said.starts_with("--"), "{message}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let refused = |path: &Path| {
            read(["rov-server".into(), "--config".into(), path.into()]).expect_err("no such file").to_string()
        };
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.toml");
        assert!(refused(&missing).contains("missing.toml: No such file"), "{}", refused(&missing));
        let (binary, long) = (folder.path().join("binary"), folder.path().join("long"));
        std::fs::write(&binary, [0xff; 9]).unwrap();
        std::fs::write(&long, vec![b'#'; 70_000]).unwrap();
        assert!(refused(&binary).contains("UTF-8"), "{}", refused(&binary));
        assert!(refused(&long).contains("is longer than 65536 bytes"), "{}", refused(&long));
        let mistake = read_with("\nwidth = true", &[]).expect_err("a mistake").to_string();
        assert!(mistake.ends_with("rov.toml, line 2: width is true or false, but must be a number"), "{mistake}");
    }

    #[test]
    fn the_example_is_valid() {
        let text = include_str!("../../scripts/rov-server.toml");
        assert!(Config::from_cli(&read_with(text, &[]).unwrap()).is_ok());
        // What is commented out there as well: prose has a space in front.
        let is_option = |line: &&str| line.trim_start_matches('#').starts_with(|c: char| c.is_ascii_lowercase());
        let all: Vec<&str> = text.lines().filter(is_option).map(|line| line.trim_start_matches('#')).collect();
        assert!(all.len() > 10);
        of_file(&all.join("\n")).unwrap();
    }
}
