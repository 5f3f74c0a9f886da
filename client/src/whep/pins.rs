//! HTTPS of servers whose certificates nobody has signed. What a server showed first is kept, and another certificate
//! is never taken without the user's word: it may be another machine in its place.
//!
//! A server that was found is known by its id, so that it is the same at another address; one that was named, by that
//! name.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ring::digest;
use rov_common::discovery::key_of;
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
const LARGEST_FILE: u64 = 256 << 10;
/// The oldest is forgotten.
const MAX_KNOWN: usize = 1024;

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
    /// Name and fingerprint, the oldest first.
    pins: Vec<(String, String)>,
    /// Of `ADDRESS:PORT` of servers that were found.
    ids: HashMap<String, String>,
    /// What was refused at an address last.
    changed: HashMap<String, Changed>,
}

/// Another certificate than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub name: String,
    pub known: String,
    pub shown: String,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, known, shown } = self;
        write!(
            f,
            "THE CERTIFICATE OF {name} HAS CHANGED: it was {known} and is {shown}. Another machine may be in its place, and \
             nothing is shown. If the server has a new certificate, say so once: --server-certificate {shown}"
        )
    }
}

impl Pins {
    /// Those of the user's file; `accepted` is taken in any case, and from then on known.
    pub fn load(file: Option<PathBuf>, accepted: Option<String>) -> Self {
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
    fn judge(&self, address: &str, shown: &str) -> Result<(), Changed> {
        let mut known = lock(&self.0.known);
        let name = known.ids.get(address).cloned().unwrap_or_else(|| address.to_owned());
        let pinned = known.pins.iter().find(|(of, _)| *of == name).map(|(_, pin)| pin.clone());
        let is_accepted = self.0.accepted.as_deref() == Some(shown);
        match pinned {
            Some(pin) if pin == shown => {
                known.changed.remove(address);
                return Ok(());
            }
            Some(pin) if !is_accepted => {
                let changed = Changed { name, known: pin, shown: shown.to_owned() };
                known.changed.insert(address.to_owned(), changed.clone());
                return Err(changed);
            }
            Some(_) => tracing::warn!("{name} has the certificate {shown} from now on, as --server-certificate says"),
            None => tracing::warn!("{name} is seen by HTTPS for the first time; its certificate is {shown}"),
        }
        known.changed.remove(address);
        known.pins.retain(|(of, _)| *of != name);
        known.pins.push((name, shown.to_owned()));
        let too_many = known.pins.len().saturating_sub(MAX_KNOWN);
        known.pins.drain(..too_many);
        if let Some(file) = &self.0.file
            && let Err(error) = write(file, &known.pins)
        {
            tracing::warn!("cannot keep the certificate in {}, it is known for this run: {error}", file.display());
        }
        Ok(())
    }

    /// Why the last connection to `address` was refused, if it was for its certificate.
    pub fn changed(&self, address: &str) -> Option<Changed> {
        lock(&self.0.known).changed.get(address).cloned()
    }
}

fn read(file: &Path) -> Vec<(String, String)> {
    let mut text = String::new();
    match File::open(file).and_then(|opened| opened.take(LARGEST_FILE).read_to_string(&mut text)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot read {}: {error}; the certificates in it are not known", file.display());
        }
        _ => {}
    }
    let line = |line: &str| {
        let (pin, name) = line.split_once(' ')?;
        Some((name.to_owned(), key_of(pin)?))
    };
    text.lines().filter_map(line).collect()
}

/// Whoever reads the file sees the old one or the new one.
fn write(file: &Path, pins: &[(String, String)]) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::NotFound)?;
    std::fs::create_dir_all(folder)?;
    let text: String = pins.iter().map(|(name, pin)| format!("{pin} {name}\n")).collect();
    let new = file.with_extension(std::process::id().to_string());
    let written = File::create(&new).and_then(|mut opened| {
        opened.write_all(text.as_bytes())?;
        opened.sync_all()
    });
    let moved = written.and_then(|()| std::fs::rename(&new, file));
    if moved.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    moved
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
    fn a_broken_file_and_many_servers_do_no_harm() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        std::fs::write(&file, [b"nonsense\n", &[0xff; 9][..]].concat()).expect("written");
        let pins = Pins::load(Some(file.clone()), None);
        (0..MAX_KNOWN + 9).for_each(|n| pins.judge(&format!("10.0.0.2:{n}"), &pin("a")).expect("the first"));
        assert_eq!(read(&file).len(), MAX_KNOWN);
    }
}
