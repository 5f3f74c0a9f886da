//! Who this server is: a key made at its first start and kept in a folder, by which clients know it again at any
//! address (`docs/discovery.md`). Beside the key stands a mark of the hardware that it was made on: on other hardware,
//! as on a copied SD card, another key is made, so that two vehicles never have the same one.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use rov_common::discovery::key_of;
use rov_common::state_file;
use rtc::crypto::{RTCCryptoProvider, SignatureScheme, default_provider};
use rtc::dtls::crypto::Certificate;
use rtc::peer_connection::certificate::{CertificateParams, RTCCertificate};
use tracing::{debug, info, warn};

const FILE: &str = "server.key";
/// It has some kilobytes.
const LARGEST_FILE: u64 = 64 << 10;
/// What the core is told of the certificate's validity, with each session: it lasts for ever, and the clock of a
/// vehicle may be wrong.
const VALID_FOR: Duration = Duration::from_secs(24 * 60 * 60);
const MARK: &str = "# hardware ";
/// Another server holds the folder for as long as it takes to make a key, milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const FOR_THIS_RUN: &str =
    "another key is used for this run, and clients ask before they follow this server to another address";

/// The certificate that every WebRTC session of this server proves.
#[derive(Clone)]
pub struct Identity {
    certificate: Certificate,
    key: String,
    /// After a restart it is the same.
    is_kept: bool,
}

/// Not the private key, as this may go into logs.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Identity {
    /// One for this run only.
    ///
    /// # Errors
    /// When the machine has no random numbers.
    pub fn make() -> Result<Self> {
        let provider = provider()?;
        let params = CertificateParams::new(vec!["rov-server".to_owned()])?;
        let made = RTCCertificate::generate(provider.crypto(), SignatureScheme::EcdsaP256Sha256, params)?;
        Self::of(made.dtls_certificate, false)
    }

    /// The one that `folder` keeps. Where there is none, or one of other `hardware`, it is made. What goes wrong with
    /// the folder is logged; the key then lasts for this run.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn kept_in(folder: Option<&Path>, hardware: &[Mark]) -> Result<Self> {
        let Some(folder) = folder else {
            warn!(
                "no folder to keep the server's key in: clients ask before they follow it to another address after a \
                 restart; give --state-dir"
            );
            return Self::make();
        };
        let file = folder.join(FILE);
        // Until the key is read or written, so that servers that start at once have one key.
        let _lock = match lock(folder, LOCK_WAIT) {
            Ok(lock) => lock,
            Err(held) => {
                warn!("{held}; {FOR_THIS_RUN}");
                return Self::make();
            }
        };
        if hardware.is_empty() {
            warn!(
                "nothing tells this machine from others of its kind (no serial number, no address of a network card): \
                 a copy of its card keeps its key; delete {} on each copy",
                file.display()
            );
        }
        match state_file::read(&file, LARGEST_FILE) {
            Ok(None) => {}
            Ok(Some(text)) => match Self::parse(&text) {
                Ok((identity, marks)) if is_same_hardware(&marks, hardware) => return Ok(identity),
                Ok(_) => warn!(
                    "{} was made on other hardware, as on a copied card: this server gets a key of its own, and \
                     clients that knew the former one ask before they follow it to another address",
                    file.display()
                ),
                Err(error) => match state_file::set_aside(&file) {
                    Ok(aside) => warn!("{} is no key ({error:#}): it is now {}", file.display(), aside.display()),
                    Err(failed) => {
                        warn!("{} is no key ({error:#}), and stays: {failed}; {FOR_THIS_RUN}", file.display());
                        return Self::make();
                    }
                },
            },
            // The key may well be whole, and nobody else has it.
            Err(error) => {
                warn!("cannot read {}, which stays: {error}; {FOR_THIS_RUN}", file.display());
                return Self::make();
            }
        }
        let mut made = Self::make()?;
        match made.write(&file, hardware) {
            Ok(()) => {
                made.is_kept = true;
                info!("made the server's key, {}", file.display());
            }
            Err(error) => warn!(
                "cannot keep the server's key in {}: {error:#}; clients ask before they follow it to another address \
                 after a restart: give a folder that can be written by --state-dir",
                folder.display()
            ),
        }
        Ok(made)
    }

    /// As announcements carry it.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it is the same after a restart.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The certificate and its private key, for HTTPS.
    ///
    /// # Errors
    /// When it cannot be written so.
    pub fn pem(&self) -> Result<String> {
        // The crate's own word for it, which nothing else reads.
        Ok(self.certificate.serialize_pem()?.replace("PRIVATE_KEY", "PRIVATE KEY"))
    }

    /// For a session that begins now.
    pub fn certificate(&self) -> RTCCertificate {
        RTCCertificate::from_existing(self.certificate.clone(), SystemTime::now() + VALID_FOR)
    }

    fn of(certificate: Certificate, is_kept: bool) -> Result<Self> {
        let shown = RTCCertificate::from_existing(certificate.clone(), SystemTime::UNIX_EPOCH);
        let fingerprints = shown.get_fingerprints(provider()?.crypto())?;
        let key = fingerprints.first().and_then(|fingerprint| key_of(&fingerprint.value));
        Ok(Self { certificate, key: key.context("the certificate has no fingerprint")?, is_kept })
    }

    fn parse(text: &str) -> Result<(Self, Vec<Mark>)> {
        let certificate = Certificate::from_pem(text, provider()?.crypto())?;
        let marks = text.lines().filter_map(|line| line.strip_prefix(MARK)?.split_once(' '));
        let marks = marks.map(|(kind, value)| Mark::new(kind, value)).collect();
        Ok((Self::of(certificate, true)?, marks))
    }

    fn write(&self, file: &Path, hardware: &[Mark]) -> Result<()> {
        let mut text =
            "# The key of rov-server on this machine: keep it to yourself, and out of images of its card.\n".to_owned();
        for Mark { kind, value } in hardware {
            text += &format!("{MARK}{kind} {value}\n");
        }
        text += &self.certificate.serialize_pem()?;
        Ok(state_file::write(file, &text)?)
    }
}

fn provider() -> Result<Arc<dyn RTCCryptoProvider>> {
    default_provider().map_err(|error| anyhow!("no cryptography: {error}"))
}

/// Locks the folder, which is made if there is none, against other servers. None where a folder cannot be locked, as on
/// Windows.
fn lock(folder: &Path, limit: Duration) -> Result<Option<File>> {
    let opened = std::fs::create_dir_all(folder).and_then(|()| File::open(folder));
    let Ok(opened) = opened.inspect_err(|error| debug!("{} is not locked: {error}", folder.display())) else {
        return Ok(None);
    };
    let end = Instant::now() + limit;
    loop {
        match opened.try_lock() {
            Ok(()) => return Ok(Some(opened)),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                bail!("another program has had {} locked for {} s", folder.display(), limit.as_secs());
            }
            Err(TryLockError::Error(error)) => {
                debug!("{} is not locked: {error}", folder.display());
                return Ok(None);
            }
        }
    }
}

/// Something by which one machine differs from others of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    kind: String,
    value: String,
}

impl Mark {
    fn new(kind: &str, value: &str) -> Self {
        Self { kind: kind.to_owned(), value: value.trim_matches(['\0', ' ', '\n', '\t']).to_owned() }
    }

    /// Boards without a serial number give zeros, `None` or the like, and many small PCs one and the same id.
    fn is_usable(&self) -> bool {
        let filler = |c: char| matches!(c, '0' | '-' | ':' | 'f' | 'F');
        let value = self.value.to_ascii_lowercase();
        let is_said_by_many = SAID_BY_MANY.iter().any(|said| value.contains(said));
        value.len() >= 6 && !value.chars().all(filler) && !value.contains('\n') && !is_said_by_many
    }
}

/// What mainboards say that were never given a number or an id of their own.
const SAID_BY_MANY: [&str; 6] = [
    "0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "fefefefe-fefe",
    "to be filled",
    "default string",
    "not specified",
];

/// The marks of this machine, the surest first: the board's serial number, the mainboard's id, which only root may
/// read, then each network card's address. Known on Linux only.
pub fn hardware() -> Vec<Mark> {
    let file = |kind: &str, path: &str| Some(Mark::new(kind, &std::fs::read_to_string(path).ok()?));
    let serial = file("serial", "/proc/device-tree/serial-number").filter(Mark::is_usable);
    // Kernels of 32 bits, as of the first Raspberry Pis, may say it there alone.
    let cpuinfo = || Some(Mark::new("serial", &serial_in(&std::fs::read_to_string("/proc/cpuinfo").ok()?)?));
    let product = file("product", "/sys/class/dmi/id/product_uuid");
    let mut marks: Vec<Mark> = serial.or_else(cpuinfo).into_iter().chain(product).collect();
    marks.extend(card_addresses().iter().map(|address| Mark::new("card", address)));
    marks.retain(Mark::is_usable);
    marks
}

/// The board's serial number in the text of `/proc/cpuinfo`.
fn serial_in(cpuinfo: &str) -> Option<String> {
    let field =
        |line: &str| line.split_once(':').map(|(name, value)| (name.trim() == "Serial", value.trim().to_owned()));
    cpuinfo.lines().filter_map(field).find_map(|(is_it, value)| is_it.then_some(value))
}

/// The addresses of physical network cards, the lowest first.
pub fn card_addresses() -> Vec<String> {
    let mut addresses: Vec<String> = std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            // Virtual interfaces have no device, and many of them a new address after each boot.
            path.join("device").exists().then(|| std::fs::read_to_string(path.join("address")).ok())?
        })
        .map(|address| address.trim().to_owned())
        .filter(|address| is_of_the_maker(address))
        .collect();
    addresses.sort();
    addresses
}

/// Whether the maker of the card gave it this address: some boards make up another one at each boot.
fn is_of_the_maker(address: &str) -> bool {
    let first = address.split(':').next().and_then(|byte| u8::from_str_radix(byte, 16).ok());
    first.is_some_and(|first| first & 2 == 0) && address.chars().any(|c| !matches!(c, '0' | ':'))
}

/// The surest kind that both sides know decides; a network card may be added or taken away. Where nothing can be
/// compared, it is the same.
fn is_same_hardware(known: &[Mark], now: &[Mark]) -> bool {
    let has = |marks: &[Mark], kind: &str| marks.iter().any(|mark| mark.kind == kind);
    let common = now.iter().find(|mark| has(known, &mark.kind));
    common.is_none_or(|common| known.iter().any(|mark| mark.kind == common.kind && now.contains(mark)))
}

/// The folder for the key without `--state-dir`: systemd's `StateDirectory=`, else the user's folder for the state of
/// programs.
pub fn default_folder(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    // systemd separates several by colons.
    let systemd = set("STATE_DIRECTORY").and_then(|folders| Some(PathBuf::from(folders.split(':').next()?)));
    let user = || Some(PathBuf::from(set("XDG_STATE_HOME")?).join("rov-server"));
    let home = || Some(PathBuf::from(set("HOME")?).join(".local/state/rov-server"));
    systemd.or_else(user).or_else(home).filter(|folder| folder.is_absolute())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use tempfile::TempDir;

    use super::*;

    fn folder() -> TempDir {
        TempDir::new().expect("a temporary folder")
    }

    fn marks(marks: &[(&str, &str)]) -> Vec<Mark> {
        marks.iter().map(|(kind, value)| Mark::new(kind, value)).collect()
    }

    fn kept(folder: &TempDir, hardware: &[Mark]) -> String {
        Identity::kept_in(Some(folder.path()), hardware).expect("an identity").key().to_owned()
    }

    #[test]
    fn a_serial_number_in_cpuinfo_is_a_mark_where_it_is_one() {
        let pi = "processor\t: 0\nmodel name\t: ARMv6-compatible processor rev 7 (v6l)\n\nHardware\t: BCM2835\n\
                  Revision\t: 000e\nSerial\t\t: 00000000a3c1f2b4\nModel\t\t: Raspberry Pi Model B\n";
        assert_eq!(serial_in(pi).as_deref(), Some("00000000a3c1f2b4"));
        let of = |text: &str| serial_in(text).map(|serial| Mark::new("serial", &serial)).filter(Mark::is_usable);
        assert!(of(pi).is_some());
        for none in ["Serial\t\t: 0000000000000000\n", "processor\t: 0\n", ""] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn the_key_is_made_once_and_is_the_users_alone() {
        let folder = folder();
        let board = marks(&[("serial", "100000004a5b6c7d"), ("card", "dc:a6:32:01:02:03")]);
        let key = kept(&folder, &board);
        assert_eq!(key_of(&key).as_ref(), Some(&key));
        assert_eq!(kept(&folder, &board), key);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1, "nothing else is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join(FILE)).expect("the file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_a_server_that_died_has_left_does_not_make_the_key_readable() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder();
        let file = folder.path().join(FILE);
        let left = folder.path().join(format!("{FILE}.{}", std::process::id()));
        std::fs::write(&left, "half a key").expect("written");
        std::fs::set_permissions(&left, std::fs::Permissions::from_mode(0o644)).expect("the mode");
        kept(&folder, &[]);
        assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
        assert!(!left.exists());
    }

    #[test]
    fn servers_that_start_at_once_have_one_key() {
        // Without a key, with a broken one, and with that of another machine.
        for before in [None, Some("broken"), Some("copied")] {
            let folder = folder();
            match before {
                Some("copied") => drop(kept(&folder, &marks(&[("serial", "100000004a5b6c7d")]))),
                Some(text) => std::fs::write(folder.path().join(FILE), text).expect("written"),
                None => {}
            }
            let board = marks(&[("serial", "100000009e8f7a6b")]);
            let start = Barrier::new(8);
            let keys: Vec<String> = std::thread::scope(|scope| {
                let server = || {
                    start.wait();
                    kept(&folder, &board)
                };
                let servers: Vec<_> = (0..8).map(|_| scope.spawn(server)).collect();
                servers.into_iter().map(|server| server.join().expect("no panic")).collect()
            });
            let kept = kept(&folder, &board);
            assert!(keys.iter().all(|key| *key == kept), "{before:?}: {keys:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_stays_locked_is_said() {
        let folder = folder();
        let held = lock(folder.path(), LOCK_WAIT).expect("a lock");
        assert!(held.is_some());
        let error = lock(folder.path(), Duration::ZERO).expect_err("it is held").to_string();
        assert!(error.contains("another program has had") && error.contains("locked"), "{error}");
        drop(held);
        assert!(lock(folder.path(), Duration::ZERO).is_ok());
    }

    #[test]
    fn on_a_copied_card_another_key_is_made_and_stays() {
        let folder = folder();
        let first = marks(&[("serial", "100000004a5b6c7d"), ("card", "dc:a6:32:01:02:03")]);
        let second = marks(&[("serial", "100000009e8f7a6b"), ("card", "dc:a6:32:0a:0b:0c")]);
        let key = kept(&folder, &first);
        let copied = kept(&folder, &second);
        assert_ne!(copied, key);
        assert_eq!(kept(&folder, &second), copied);
    }

    #[test]
    fn a_card_that_is_added_or_taken_away_changes_nothing() {
        let board = marks(&[("card", "dc:a6:32:01:02:03")]);
        let with_usb = marks(&[("card", "00:e0:4c:01:02:03"), ("card", "dc:a6:32:01:02:03")]);
        assert!(is_same_hardware(&board, &with_usb) && is_same_hardware(&with_usb, &board));
        assert!(!is_same_hardware(&board, &marks(&[("card", "dc:a6:32:0a:0b:0c")])));
        // The serial number decides where both know it; what only root may read may be missing.
        let serial = |serial, card| marks(&[("serial", serial), ("card", card)]);
        assert!(is_same_hardware(&serial("4a5b6c7d", "dc:a6:32:01:02:03"), &serial("4a5b6c7d", "dc:a6:32:0a:0b:0c")));
        assert!(!is_same_hardware(&serial("4a5b6c7d", "dc:a6:32:01:02:03"), &serial("9e8f7a6b", "dc:a6:32:01:02:03")));
        assert!(is_same_hardware(&marks(&[("product", "0123abcd-01"), ("card", "dc:a6:32:01:02:03")]), &board));
        assert!(is_same_hardware(&[], &board) && is_same_hardware(&board, &[]));
    }

    #[test]
    fn what_boards_without_a_number_say_is_no_mark() {
        for value in [
            "",
            "0000000000000000",
            "ffffffff-ffff",
            "None",
            "00:00:00:00:00:00",
            "03000200-0400-0500-0006-000700080009",
            "To be filled by O.E.M.",
        ] {
            assert!(!Mark::new("serial", value).is_usable(), "{value}");
        }
        assert!(Mark::new("serial", "100000004a5b6c7d\0").is_usable());
        assert!(is_of_the_maker("dc:a6:32:01:02:03"));
        assert!(!is_of_the_maker("02:42:ac:11:00:02") && !is_of_the_maker("00:00:00:00:00:00") && !is_of_the_maker(""));
    }

    #[test]
    fn a_broken_file_is_set_aside_and_never_a_panic() {
        let whole = Identity::make().expect("an identity").certificate.serialize_pem().expect("text");
        for broken in [&b""[..], b"hello", &[0xff; 100], &whole.as_bytes()[..whole.len() / 2]] {
            let folder = folder();
            std::fs::write(folder.path().join(FILE), broken).expect("written");
            let key = kept(&folder, &[]);
            assert_eq!(kept(&folder, &[]), key);
            let aside = std::fs::read(folder.path().join("server.key.broken")).expect("the broken file");
            assert_eq!(aside, broken);
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_stays() {
        let folder = folder();
        // A folder of that name cannot be read by anyone, root included.
        let file = folder.path().join(FILE);
        std::fs::create_dir(&file).expect("a folder");
        assert_ne!(kept(&folder, &[]), kept(&folder, &[]));
        assert!(file.is_dir());
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
        // What says why it cannot be read is not that there is none: the file behind a link is not replaced.
        #[cfg(unix)]
        {
            std::fs::remove_dir(&file).expect("removed");
            std::os::unix::fs::symlink(&file, &file).expect("a link to itself");
            assert_ne!(kept(&folder, &[]), kept(&folder, &[]));
            assert!(file.is_symlink());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_gives_a_key_for_this_run() {
        let folder = folder();
        let file = folder.path().join("a file");
        std::fs::write(&file, "").expect("written");
        let key = || Identity::kept_in(Some(&file.join("folder")), &[]).expect("an identity").key().to_owned();
        assert_ne!(key(), key());
        for folder in [None, Some(file.as_path())] {
            assert!(!Identity::kept_in(folder, &[]).expect("an identity").is_kept());
        }
    }

    #[test]
    fn the_certificate_lasts_whatever_the_clock_says() {
        let folder = folder();
        let kept = Identity::kept_in(Some(folder.path()), &[]).expect("an identity");
        let again = Identity::kept_in(Some(folder.path()), &[]).expect("an identity");
        assert!(kept.is_kept() && again.is_kept());
        assert_eq!(kept.certificate().dtls_certificate.certificate, again.certificate().dtls_certificate.certificate);
        assert!(again.certificate().expires > SystemTime::now());
        assert!(!format!("{again:?}").contains("PRIVATE"));
    }

    #[test]
    fn the_folder_is_that_of_systemd_or_of_the_user() {
        let folder = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            default_folder(|name| set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
        };
        let all =
            [("STATE_DIRECTORY", "/var/lib/rov-server:/var/lib/b"), ("XDG_STATE_HOME", "/x"), ("HOME", "/home/rov")];
        assert_eq!(folder(&all), Some("/var/lib/rov-server".into()));
        assert_eq!(folder(&all[1..]), Some("/x/rov-server".into()));
        assert_eq!(folder(&all[2..]), Some("/home/rov/.local/state/rov-server".into()));
        assert_eq!(folder(&[("HOME", "")]), None);
        assert_eq!(folder(&[("XDG_STATE_HOME", "relative")]), None);
    }
}
