//! The command line of `rov-client`, and what it means.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use rov_common::api::WHEP_PATH;
use rov_common::discovery::DEFAULT_PORT;
use rov_common::units::Resolution;
use url::Url;

use crate::decoders::DecoderChoice;
use crate::session::{SessionConfig, Target};

/// See through the camera of an underwater robot.
///
/// Without options, finds a rov-server on the network by itself and shows its picture. Keys: Q or ESC close, F
/// fullscreen, I information.
#[derive(Clone, Debug, Parser)]
#[command(name = "rov-client", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// Find the server by itself; this is also the default
    #[arg(long, conflicts_with_all = ["host", "url"])]
    pub auto: bool,

    /// Address or name of the server, instead of finding it
    #[arg(long, value_name = "HOST", conflicts_with = "url")]
    pub host: Option<String>,

    /// TCP port of the server's HTTP API, with --host
    #[arg(long, value_name = "PORT", default_value_t = 8080, requires = "host")]
    pub signal_port: u16,

    /// URL of any WHEP endpoint, as http://10.0.0.2:8080/whep
    #[arg(long, value_name = "URL")]
    pub url: Option<Url>,

    /// Take the server of this name, when several are found
    #[arg(long, value_name = "NAME", conflicts_with_all = ["host", "url"])]
    pub name: Option<String>,

    /// Print the servers that are found, and end
    #[arg(long, conflicts_with_all = ["host", "url"])]
    pub list: bool,

    /// With --list: print JSON, one array of the announcements with their addresses
    #[arg(long, requires = "list")]
    pub json: bool,

    /// UDP port of discovery
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    pub discovery_port: u16,

    /// Seconds to look for a server before saying that there is none (it looks on, unless --no-wait)
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub discovery_timeout: Duration,

    /// Network interface to look on; may be given several times [default: every suitable one]
    #[arg(long = "interface", value_name = "NAME")]
    pub interfaces: Vec<String>,

    /// End with exit code 3 when no server is found, or the given one does not answer, instead of trying on
    #[arg(long)]
    pub no_wait: bool,

    /// GStreamer element that decodes, or `auto`: hardware first, then software
    #[arg(long, value_name = "auto|ELEMENT", default_value = "auto", value_parser = str::parse::<DecoderChoice>)]
    pub decoder: DecoderChoice,

    /// Longest wait for a retransmission, in milliseconds; packets that come in order never wait
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=5_000))]
    pub latency: u64,

    /// Start in fullscreen
    #[arg(long)]
    pub fullscreen: bool,

    /// Width of the window in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 1280, value_parser = clap::value_parser!(u32).range(160..=16_384))]
    pub width: u32,

    /// Height of the window in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 720, value_parser = clap::value_parser!(u32).range(120..=16_384))]
    pub height: u32,

    /// No window: receive and decode only, and print a line of figures each second
    #[arg(long)]
    pub headless: bool,

    /// End after so many seconds [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,

    /// Write what was received, decoded and shown into this file as JSON, each second and at the end
    #[arg(long, value_name = "FILE")]
    pub stats_json: Option<PathBuf>,

    /// STUN server for viewers behind a NAT [default: off; without a URL: stun:stun.l.google.com:19302]
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "stun:stun.l.google.com:19302", value_parser = stun)]
    pub stun: Option<String>,

    /// Say more; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Say only what is wrong
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
}

const EXIT_CODES: &str = "Exit codes:\n  \
    0  closed by the user, or --duration is over\n  \
    1  an error that is none of the others\n  \
    2  wrong usage: an option, a --decoder that does not work, or several servers and no --name\n  \
    3  no server found, or the given one does not answer (with --no-wait or --list)";

impl Cli {
    pub fn session(&self) -> Result<SessionConfig, String> {
        Ok(SessionConfig {
            target: self.target()?,
            discovery_port: self.discovery_port,
            discovery_timeout: self.discovery_timeout,
            interfaces: self.interfaces.clone(),
            wait: !self.no_wait,
            decoder: self.decoder.clone(),
            latency: Duration::from_millis(self.latency),
            stun: self.stun.clone(),
        })
    }

    pub fn window_size(&self) -> Resolution {
        Resolution::new(self.width, self.height)
    }

    fn target(&self) -> Result<Target, String> {
        if let Some(url) = &self.url {
            if !matches!(url.scheme(), "http" | "https") {
                return Err(format!("--url {url}: WHEP URLs begin with http:// or https://"));
            }
            return Ok(Target::Url(url.clone()));
        }
        let Some(host) = &self.host else { return Ok(Target::Auto { name: self.name.clone() }) };
        if host.contains(':') {
            return Err(format!(
                "--host {host}: only names and IPv4 addresses can be reached, and --signal-port has the port"
            ));
        }
        let url = format!("http://{host}:{}{WHEP_PATH}", self.signal_port);
        Url::parse(&url).map(Target::Url).map_err(|e| format!("--host {host}: {e}"))
    }
}

fn stun(url: &str) -> Result<String, String> {
    match url.strip_prefix("stun:") {
        Some(server) if !server.is_empty() => Ok(url.to_owned()),
        _ => Err("give a URL of the form stun:HOST[:PORT]".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give a number of seconds from 0.1 to 1000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(args: &[&str]) -> Result<Target, String> {
        let args = std::iter::once("rov-client").chain(args.iter().copied());
        Cli::try_parse_from(args).map_err(|e| e.to_string())?.target()
    }

    #[test]
    fn without_arguments_it_finds_a_server() {
        assert!(matches!(target(&[]), Ok(Target::Auto { name: None })));
        assert!(matches!(target(&["--auto", "--name", "rov"]), Ok(Target::Auto { name: Some(_) })));
    }

    #[test]
    fn a_host_becomes_a_whep_url() {
        for (args, url) in [
            (vec!["--host", "10.0.0.2"], "http://10.0.0.2:8080/whep"),
            (vec!["--host", "rov.local", "--signal-port", "90"], "http://rov.local:90/whep"),
        ] {
            assert!(matches!(target(&args), Ok(Target::Url(u)) if u.as_str() == url), "{args:?}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(target(&["--auto", "--host", "10.0.0.2"]).is_err());
        assert!(target(&["--url", "ftp://10.0.0.2/"]).is_err());
        assert!(target(&["--json"]).is_err());
        assert!(target(&["--host", "fd00::1"]).is_err());
        assert!(target(&["--signal-port", "90"]).is_err());
        assert!(target(&["--stun", "example.org"]).is_err());
        assert!(target(&["--discovery-timeout", "0"]).is_err());
    }
}
