//! HTTPS of servers whose certificates nobody has signed. What a server showed first is kept, and another certificate
//! is never taken without the user's word: it may be another machine in its place.
//!
//! A server that was found is known by its id, so that it is the same at another address; one that was named, by that
//! name.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ring::digest;
use rov_common::discovery::key_of;
use rov_common::state_file;
use rov_common::sync::lock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

const FILE: &str = "known-servers";
/// A line each.
const LARGEST_FILE: u64 = 1 << 20;
/// The oldest is forgotten.
const MAX_KNOWN: usize = 1024;
/// For another client that writes the file.
const FILE_TIMEOUT: Duration = Duration::from_secs(1);
/// In place of a fingerprint: the server has no HTTPS any more.
pub const NO_CERTIFICATE: &str = "none";

/// Name and fingerprint, the oldest first.
type List = Vec<(String, String)>;

/// What is known of servers' certificates; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// None: they are kept for this run.
    file: Option<PathBuf>,
    /// The user's word: this one is taken, from whomever.
    accepted: Option<String>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    pins: List,
    /// Of `ADDRESS:PORT` of servers that were found.
    ids: HashMap<String, String>,
    /// What was refused at an address last.
    changed: HashMap<String, Changed>,
    /// Where the right certificate was shown in this run.
    proven: HashSet<String>,
}

impl Known {
    /// What the server at `address` is known by, and the fingerprint, if there is one.
    fn pinned(&self, address: &str) -> Option<(&str, &str)> {
        let find = |name: &str| self.pins.iter().find(|(of, _)| of == name);
        let id = self.ids.get(address);
        id.and_then(|id| find(id)).or_else(|| find(address)).map(|(name, pin)| (name.as_str(), pin.as_str()))
    }
}

/// Another certificate than before, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub name: String,
    pub known: String,
    /// None: it does not speak TLS.
    pub shown: Option<String>,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, known, shown } = self;
        match shown {
            Some(shown) => write!(
                f,
                "THE CERTIFICATE OF {name} HAS CHANGED: it was {known} and is {shown}. Another machine may be in its \
                 place, and nothing is shown. If the server has a new certificate, say so once: --server-certificate \
                 {shown}"
            ),
            None => write!(
                f,
                "{name} SHOWS NO CERTIFICATE ANY MORE: it was {known}, and now it is not HTTPS. Another machine may be \
                 in its place, and nothing is shown. If the server has no HTTPS any more, say so once: \
                 --server-certificate {NO_CERTIFICATE}"
            ),
        }
    }
}

impl Pins {
    /// Those of the user's file; `accepted` is taken in any case, and from then on known.
    pub fn load(file: Option<PathBuf>, accepted: Option<String>) -> Self {
        let read = |file: &Path| {
            read(file).unwrap_or_else(|error| {
                tracing::error!("cannot read {}: {error}; the certificates in it are not known", file.display());
                List::new()
            })
        };
        let pins = file.as_deref().map(read).unwrap_or_default();
        Self(Arc::new(Shared { file, accepted, known: Mutex::new(Known { pins, ..Known::default() }) }))
    }

    /// Where the file is, as the system has it.
    pub fn default_file() -> Option<PathBuf> {
        let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
        Some(state.join("rov-client").join(FILE))
    }

    /// The server at `address` is the one with this id.
    pub fn found(&self, address: &str, id: &str) {
        let mut known = lock(&self.0.known);
        // Bounded like the servers that are heard; those at new addresses are said again.
        if known.ids.len() >= MAX_KNOWN {
            known.ids.clear();
        }
        known.ids.insert(address.to_owned(), id.to_owned());
    }

    /// Whether the server at `address` may show this certificate. The first is kept.
    pub(crate) fn judge(&self, address: &str, shown: &str) -> Result<(), Changed> {
        let mut known = lock(&self.0.known);
        let name = known.ids.get(address).cloned().unwrap_or_else(|| address.to_owned());
        let find = |pins: &List| pins.iter().find(|(of, _)| *of == name).map(|(_, pin)| pin.clone());
        let mut result = Ok(());
        if find(&known.pins).as_deref() != Some(shown) {
            self.change(&mut known.pins, |pins| match find(pins) {
                Some(pin) if pin == shown => false,
                Some(pin) if self.0.accepted.as_deref() != Some(shown) => {
                    result = Err(Changed { name: name.clone(), known: pin, shown: Some(shown.to_owned()) });
                    false
                }
                before => {
                    if before.is_some() {
                        tracing::warn!("{name} has the certificate {shown} from now on, as --server-certificate says");
                    } else {
                        tracing::warn!("{name} is seen by HTTPS for the first time; its certificate is {shown}");
                    }
                    pins.retain(|(of, _)| *of != name);
                    pins.push((name.clone(), shown.to_owned()));
                    true
                }
            });
        }
        match &result {
            Ok(()) => {
                known.changed.remove(address);
                if known.proven.len() >= MAX_KNOWN {
                    known.proven.clear();
                }
                known.proven.insert(address.to_owned());
            }
            Err(changed) => {
                known.proven.remove(address);
                known.changed.insert(address.to_owned(), changed.clone());
            }
        }
        result
    }

    /// Changes what is known, of the other clients of this user, too, unless `change` says that nothing changed.
    fn change(&self, pins: &mut List, change: impl FnOnce(&mut List) -> bool) {
        let Some(file) = &self.0.file else {
            change(pins);
            return;
        };
        // Held until the file is written.
        let turn = take_turn(file).and_then(|turn| {
            let mut all = read(file)?;
            let own = pins.drain(..).filter(|(name, _)| all.iter().all(|(of, _)| of != name)).collect::<List>();
            all.extend(own);
            *pins = all;
            Ok(turn)
        });
        if !change(pins) {
            return;
        }
        let too_many = pins.len().saturating_sub(MAX_KNOWN);
        pins.drain(..too_many);
        if let Err(error) = turn.and_then(|_turn| write(file, pins)) {
            tracing::warn!("cannot keep the certificate in {}, it is known for this run: {error}", file.display());
        }
    }

    /// It does not answer any more.
    pub fn unproven(&self, address: &str) {
        lock(&self.0.known).proven.remove(address);
    }

    /// Whether the right certificate was shown there in this run, when it was asked last.
    pub fn is_proven(&self, address: &str) -> bool {
        lock(&self.0.known).proven.contains(address)
    }

    /// What to say of a server at `address` that does not speak TLS, if it did before: by its id, or by its address.
    pub fn in_clear(&self, address: &str) -> Option<Changed> {
        let mut known = lock(&self.0.known);
        let (name, pin) = known.pinned(address)?;
        let changed = Changed { name: name.to_owned(), known: pin.to_owned(), shown: None };
        if self.0.accepted.as_deref() != Some(NO_CERTIFICATE) {
            return Some(changed);
        }
        tracing::warn!("{} has no certificate from now on, as --server-certificate says", changed.name);
        self.change(&mut known.pins, |pins| {
            pins.retain(|(of, _)| *of != changed.name);
            true
        });
        known.proven.remove(address);
        None
    }

    /// Why the last connection to `address` was refused, if it was for its certificate.
    pub fn changed(&self, address: &str) -> Option<Changed> {
        lock(&self.0.known).changed.get(address).cloned()
    }
}

/// What the file holds. One that holds anything else, too, is set aside, and what could be read of it is kept.
fn read(file: &Path) -> io::Result<List> {
    let Some(text) = state_file::read(file, LARGEST_FILE)? else { return Ok(List::new()) };
    let is_too_large = std::fs::metadata(file)?.len() > LARGEST_FILE;
    // The last line of what was read may be cut off.
    let text = if is_too_large { text.rsplit_once('\n').map_or("", |(whole, _)| whole) } else { &text };
    let line = |line: &str| {
        let (pin, name) = line.split_once(' ').filter(|(_, name)| !name.contains(char::REPLACEMENT_CHARACTER))?;
        Some((name.to_owned(), key_of(pin)?))
    };
    let lines = || text.split('\n').filter(|line| !line.is_empty());
    let pins: List = lines().filter_map(line).collect();
    let lost = lines().count() - pins.len();
    if lost > 0 || is_too_large {
        let aside = state_file::set_aside(file)?;
        write(file, &pins)?;
        tracing::error!(
            "{} IS BROKEN and was set aside as {}: {} certificates are known of it; {lost} lines were not readable{}. \
             A server that is now said to be seen for the first time may be another machine: compare its certificate \
             with what rov-server logs",
            file.display(),
            aside.display(),
            pins.len(),
            if is_too_large { ", and nothing behind the first MiB was read" } else { "" },
        );
    }
    Ok(pins)
}

/// No other client writes until what this gives is dropped.
fn take_turn(file: &Path) -> io::Result<File> {
    let end = Instant::now() + FILE_TIMEOUT;
    loop {
        match state_file::claim(file) {
            Ok(turn) => return Ok(turn),
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.into()),
        }
    }
}

fn write(file: &Path, pins: &[(String, String)]) -> io::Result<()> {
    state_file::write(file, &pins.iter().map(|(name, pin)| format!("{pin} {name}\n")).collect::<String>())
}

/// Speaks TLS where the URL says `https`.
#[derive(Debug)]
pub struct PinnedConnector(pub Pins);

impl<In: Transport> Connector<In> for PinnedConnector {
    type Out = Either<In, PinnedTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let authority = details.uri.authority().ok_or(ureq::Error::Tls("the URL has no host"))?;
        let name = ServerName::try_from(authority.host().trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|_| ureq::Error::Tls("the host is no name"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let address = match authority.port() {
            Some(_) => authority.as_str().to_owned(),
            None => format!("{}:443", authority.host()),
        };
        let verifier = Verifier { pins: self.0.clone(), address, provider: Arc::clone(&provider) };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ureq::Error::Rustls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let mut connection = ClientConnection::new(Arc::new(config), name)?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(PinnedTransport { buffers, stream: StreamOwned { conn: connection, sock: socket } })))
    }
}

pub struct PinnedTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for PinnedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedTransport").finish_non_exhaustive()
    }
}

impl Transport for PinnedTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// By the certificate itself: neither its name nor its time nor who signed it matters.
#[derive(Debug)]
struct Verifier {
    pins: Pins,
    address: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest = digest::digest(&digest::SHA256, certificate);
        let shown: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        match self.pins.judge(&self.address, &shown) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(changed) => Err(rustls::Error::General(changed.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(digit: &str) -> String {
        digit.repeat(64)
    }

    #[test]
    fn what_was_seen_first_is_kept_and_another_is_taken_by_the_users_word_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Some(folder.path().join("state").join(FILE));
        let load = |accepted| Pins::load(file.clone(), accepted);
        assert_eq!(load(None).judge("10.0.0.2:8080", &pin("a")), Ok(()));
        let again = load(None);
        assert_eq!(again.judge("10.0.0.2:8080", &pin("a")), Ok(()));
        let changed = again.judge("10.0.0.2:8080", &pin("b")).expect_err("another one");
        assert_eq!(again.changed("10.0.0.2:8080"), Some(changed.clone()));
        assert!(changed.to_string().contains(&format!("--server-certificate {}", pin("b"))), "{changed}");
        assert_eq!(again.judge("10.0.0.3:8080", &pin("b")), Ok(()), "another server");
        // Nor by asking again.
        assert!(load(None).judge("10.0.0.2:8080", &pin("b")).is_err());
        assert!(load(Some(pin("c"))).judge("10.0.0.2:8080", &pin("b")).is_err());
        assert_eq!(load(Some(pin("b"))).judge("10.0.0.2:8080", &pin("b")), Ok(()));
        assert_eq!(load(None).judge("10.0.0.2:8080", &pin("b")), Ok(()));
        assert!(load(None).judge("10.0.0.2:8080", &pin("a")).is_err());
    }

    #[test]
    fn a_server_that_was_found_is_known_by_its_id_at_each_address() {
        let pins = Pins::default();
        pins.found("10.0.0.2:8080", "5-rov");
        assert_eq!(pins.judge("10.0.0.2:8080", &pin("a")), Ok(()));
        pins.found("10.0.0.9:8080", "5-rov");
        assert!(pins.judge("10.0.0.9:8080", &pin("b")).is_err());
        assert_eq!(pins.judge("10.0.0.9:8080", &pin("a")), Ok(()));
    }

    #[test]
    fn two_clients_keep_what_each_has_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        let load = || Pins::load(Some(file.clone()), None);
        let (one, other) = (load(), load());
        assert_eq!(one.judge("10.0.0.2:8080", &pin("a")), Ok(()));
        assert_eq!(other.judge("10.0.0.3:8080", &pin("b")), Ok(()));
        assert!(other.judge("10.0.0.2:8080", &pin("c")).is_err(), "what the other has seen");
        let later = load();
        assert!(["10.0.0.2:8080", "10.0.0.3:8080"].iter().all(|at| later.judge(at, &pin("c")).is_err()));
    }

    #[test]
    fn whoever_had_a_certificate_is_not_asked_in_clear_until_the_user_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let load = |accepted: Option<&str>| Pins::load(Some(folder.path().join(FILE)), accepted.map(str::to_owned));
        let pins = load(None);
        pins.found("10.0.0.2:8080", "5-rov");
        assert_eq!(pins.in_clear("10.0.0.2:8080"), None);
        assert_eq!(pins.judge("10.0.0.2:8080", &pin("a")), Ok(()));
        assert!(pins.is_proven("10.0.0.2:8080"));
        let pins = load(Some(&pin("b")));
        pins.found("10.0.0.9:8080", "5-rov");
        let changed = pins.in_clear("10.0.0.9:8080").expect("the same id elsewhere");
        assert!(changed.to_string().contains("--server-certificate none"), "{changed}");
        assert!(!pins.is_proven("10.0.0.9:8080"));
        let pins = load(Some(NO_CERTIFICATE));
        pins.found("10.0.0.9:8080", "5-rov");
        assert_eq!(pins.in_clear("10.0.0.9:8080"), None);
        let pins = load(None);
        pins.found("10.0.0.9:8080", "5-rov");
        assert_eq!(pins.in_clear("10.0.0.9:8080"), None, "once said, it is known");
    }

    #[test]
    fn a_broken_file_and_many_servers_do_no_harm() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        let broken = [format!("{} 10.0.0.1:8080\n", pin("a")).as_bytes(), b"nonsense\n", &[0xff; 9]].concat();
        std::fs::write(&file, &broken).expect("written");
        let pins = Pins::load(Some(file.clone()), None);
        assert!(pins.judge("10.0.0.1:8080", &pin("b")).is_err(), "what could be read is known");
        assert_eq!(std::fs::read(file.with_extension("broken")).expect("set aside"), broken);
        // Larger than any of ours; its last line that is read is cut off, and would name another server.
        let line = format!("{} 10.0.0.1:8080\n", pin("a"));
        let large = line.clone() + &"x".repeat(LARGEST_FILE as usize - 2 * line.len() + 2) + "\n" + &line;
        std::fs::write(&file, &large).expect("written");
        let pins = Pins::load(Some(file.clone()), None);
        assert_eq!(read(&file).expect("readable"), [("10.0.0.1:8080".to_owned(), pin("a"))]);
        (0..MAX_KNOWN + 9).for_each(|n| pins.judge(&format!("10.0.0.2:{n}"), &pin("a")).expect("the first"));
        assert_eq!(read(&file).expect("readable").len(), MAX_KNOWN);
    }
}
