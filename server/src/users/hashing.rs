//! Argon2, on a thread of its own: a check takes tens of milliseconds of one processor and megabytes of memory, and
//! whoever reaches a port can ask for it. One at a time, below the priority of the pictures.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use anyhow::{Context, Result};
use argon2::password_hash::{PasswordHashString, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Argon2, Params};
use thiserror::Error;

use super::LoginError;

/// Checks that wait.
const MAX_WAITING: usize = 8;
/// The longest password that is hashed, in bytes.
const MAX_PASSWORD: usize = 1024;
/// Of what a hash in a file may cost: KiB of memory, passes over it, lanes.
const MAX_COST: (u32, u32, u32) = (64 << 10, 16, 4);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HashError {
    #[error("is no Argon2 hash: rov-server passwd makes one")]
    NotArgon2,
    #[error("costs too much to check (m={}, t={}, p={} at most): rov-server passwd makes \
             another", MAX_COST.0, MAX_COST.1, MAX_COST.2)]
    TooCostly,
}

/// In the form of the PHC, as `$argon2id$v=19$m=19456,t=2,p=1$...`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(PasswordHashString);

impl PasswordHash {
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let hash = PasswordHashString::new(text).map_err(|_| HashError::NotArgon2)?;
        if !hash.algorithm().as_str().starts_with("argon2") || hash.hash().is_none() || hash.salt().is_none() {
            return Err(HashError::NotArgon2);
        }
        let params = Params::try_from(&hash.password_hash()).map_err(|_| HashError::NotArgon2)?;
        let (memory, passes, lanes) = MAX_COST;
        if params.m_cost() > memory || params.t_cost() > passes || params.p_cost() > lanes {
            return Err(HashError::TooCostly);
        }
        Ok(Self(hash))
    }

    /// With a salt of its own.
    ///
    /// # Errors
    /// When the password is empty or too long.
    pub fn of(password: &str) -> Result<Self> {
        anyhow::ensure!(!password.is_empty(), "the password must not be empty");
        anyhow::ensure!(password.len() <= MAX_PASSWORD, "the password is longer than {MAX_PASSWORD} bytes");
        let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>());
        let hash = salt.and_then(|salt| Ok(Argon2::default().hash_password(password.as_bytes(), &salt)?.serialize()));
        hash.map(Self).map_err(|error| anyhow::anyhow!("Argon2: {error}"))
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    fn is_of(&self, password: &str) -> bool {
        Argon2::default().verify_password(password.as_bytes(), &self.0.password_hash()).is_ok()
    }
}

struct Job {
    /// None: of nobody.
    hash: Option<PasswordHash>,
    password: String,
    done: Box<dyn FnOnce(bool) + Send>,
}

/// The thread, which ends with this.
pub(super) struct Hashing(SyncSender<Job>);

impl Hashing {
    pub fn start() -> Result<Self> {
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let nobody = PasswordHash::of("nobody's")?;
        let thread = std::thread::Builder::new().name("login".to_owned());
        thread.spawn(move || run(&waiting, &nobody)).context("a thread for passwords")?;
        Ok(Self(jobs))
    }

    /// Calls `done` with whether the hash is that of the password.
    pub fn verify(
        &self,
        hash: Option<PasswordHash>,
        password: String,
        done: impl FnOnce(bool) + Send + 'static,
    ) -> Result<(), LoginError> {
        if password.len() > MAX_PASSWORD {
            done(false);
            return Ok(());
        }
        let job = Job { hash, password, done: Box::new(done) };
        self.0.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => LoginError::Busy,
        })
    }
}

fn run(jobs: &Receiver<Job>, nobody: &PasswordHash) {
    rov_common::priority::lower();
    for Job { hash, password, done } in jobs {
        let is_right = hash.as_ref().unwrap_or(nobody).is_of(&password) && hash.is_some();
        done(is_right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_one_password_alone() {
        let hash = PasswordHash::of("deep sea").expect("a hash");
        assert!(hash.as_str().starts_with("$argon2id$v=19$m="), "{}", hash.as_str());
        let again = PasswordHash::parse(hash.as_str()).expect("a hash");
        assert!(again.is_of("deep sea") && !again.is_of("deep") && !again.is_of(""));
        assert_ne!(PasswordHash::of("deep sea").expect("a hash").as_str(), hash.as_str(), "a salt of its own");
        assert!(PasswordHash::of("").is_err() && PasswordHash::of(&"x".repeat(MAX_PASSWORD + 1)).is_err());
    }

    #[test]
    fn what_is_no_hash_or_costs_too_much_is_refused() {
        let hash = PasswordHash::of("deep").expect("a hash").as_str().to_owned();
        for (text, error) in [
            ("deep", HashError::NotArgon2),
            ("$2b$12$abcdefghijklmnopqrstuv", HashError::NotArgon2),
            ("$argon2id$v=19$m=19456,t=2,p=1", HashError::NotArgon2),
            (&hash.replace("m=19456", "m=4194304"), HashError::TooCostly),
            (&hash.replace("t=2", "t=1000"), HashError::TooCostly),
        ] {
            assert_eq!(PasswordHash::parse(text).err(), Some(error), "{text}");
        }
    }
}
