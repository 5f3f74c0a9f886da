//! Who may watch, and who may change things: users with a role each, for all protocols alike, with one limit on failed
//! logins of an address. What each protocol does with a refusal is its own.
//!
//! No password is kept: those of a file are Argon2 hashes, that of the command line is kept as a keyed hash, tokens as
//! their SHA-256, which is enough for what is random.

mod guesses;
mod hashing;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::{digest, hmac};
use rov_common::api::{Role, View};
use rov_common::sync::lock;
use subtle::ConstantTimeEq;
use thiserror::Error;

use self::guesses::{Guesses, Mark};
use self::hashing::Hashing;
pub use self::hashing::{HashError, PasswordHash};
use crate::log_limit::{LINES, Line, Lines, PERIOD};

/// A password that was right is known again for so long, so that not each snapshot costs a hash.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
const MAX_REMEMBERED: usize = 64;
/// Logins of an address with too many failed ones that wait for their turn, one each second; and for how long.
const MAX_WAITING: usize = 3;
const TURN_LIMIT: Duration = Duration::from_secs(5);
/// What a token's hash begins with in a file.
const TOKEN_HASH: &str = "sha256:";
/// How to make a user who may change things.
const REMEDY: &str = "start it with --user NAME and the password in the variable ROV_PASSWORD, or add [[user]] with \
                      role = \"controller\" to the file of --config (rov-server passwd makes its password)";

/// Of the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoginConfig {
    pub view: View,
    /// No two of one name.
    pub users: Vec<UserConfig>,
}

impl LoginConfig {
    /// Name and password of the only user, where that one can log in by a digest: hashes and tokens cannot.
    pub fn for_digest(&self) -> Option<(&str, &str)> {
        match &self.users[..] {
            [UserConfig { name, password: Some(Password::Plain(password)), .. }] => Some((name, password)),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct UserConfig {
    pub name: String,
    pub role: Role,
    /// One of both at least.
    pub password: Option<Password>,
    pub token: Option<TokenHash>,
}

#[derive(Clone, PartialEq)]
pub enum Password {
    /// Of a file.
    Hash(PasswordHash),
    /// Of the command line. RTSP's digest needs it.
    Plain(String),
}

/// Not the password, as this may go into logs.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }

    /// As [`fmt::Display`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(TOKEN_HASH)?;
        let mut hash = [0; 32];
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TOKEN_HASH)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a client gives of itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A token may stand for the password, with any name, for protocols that know no tokens.
    Password {
        user: String,
        password: String,
    },
    Token(String),
}

impl Login {
    /// The value of `Authorization`: Basic (RFC 7617) or Bearer (RFC 6750).
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, value) = header.trim().split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Token(value.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Self::Password { user: user.to_owned(), password: password.to_owned() })
    }
}

/// Somebody who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: Arc<str>,
    pub role: Role,
}

/// Who asks for something, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub from: IpAddr,
    pub user: Option<User>,
}

impl Caller {
    pub fn name(&self) -> &str {
        self.user.as_ref().map_or("nobody", |user| &user.name)
    }

    fn role(&self) -> String {
        self.user.as_ref().map_or_else(|| "none".to_owned(), |user| user.role.to_string())
    }
}

/// Why somebody did not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoginError {
    #[error("the user name or the password is wrong, or the token")]
    Wrong,
    #[error("too many failed logins from this address: try again in a second")]
    TooMany,
    #[error("too many passwords are being checked: try again in a second")]
    Busy,
}

/// Why somebody may not do something.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    #[error("this needs a login: a user name and a password, or a token")]
    NoLogin,
    #[error("{0} is a viewer, and only a controller may do this")]
    NotController(Arc<str>),
    #[error("nobody may change anything, as this server has no user: {REMEDY}")]
    NoUsers,
}

/// What is known of a login without a hash.
pub enum Check {
    Right(User),
    Wrong,
    TooMany,
    /// [`Users::hash`] tells.
    NeedsHash,
}

pub struct Users {
    view: View,
    users: Vec<Known>,
    /// Of this run.
    key: hmac::Key,
    remembered: Mutex<HashMap<Mark, Remembered>>,
    guesses: Mutex<Guesses>,
    /// Of addresses that have to wait.
    turns: Mutex<HashMap<IpAddr, Turns>>,
    lines: Mutex<Lines>,
    /// None: no user has a hash.
    hashing: Option<Hashing>,
}

struct Known {
    user: User,
    password: Option<Kept>,
    token: Option<TokenHash>,
}

enum Kept {
    Hash(PasswordHash),
    /// [`Users::mark`] of name and password.
    Mark(Mark),
}

/// Held by whoever's turn it is; the others get it in the order in which they came.
type Turns = Arc<tokio::sync::Mutex<()>>;

struct Remembered {
    user: User,
    until: Instant,
}

impl Users {
    /// # Errors
    /// When the machine has no random numbers, or no thread can be started.
    pub fn new(config: &LoginConfig) -> anyhow::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| anyhow::anyhow!("no random numbers"))?;
        let known = |user: &UserConfig| Known {
            user: User { name: user.name.as_str().into(), role: user.role },
            password: user.password.as_ref().map(|password| match password {
                Password::Hash(hash) => Kept::Hash(hash.clone()),
                Password::Plain(password) => Kept::Mark(mark(&key, &user.name, password)),
            }),
            token: user.token,
        };
        let users: Vec<_> = config.users.iter().map(known).collect();
        let has_hashes = users.iter().any(|known| matches!(known.password, Some(Kept::Hash(_))));
        Ok(Self {
            view: config.view,
            users,
            key,
            remembered: Mutex::default(),
            guesses: Mutex::default(),
            turns: Mutex::default(),
            lines: Mutex::default(),
            hashing: has_hashes.then(Hashing::start).transpose()?,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub fn all(&self) -> impl Iterator<Item = &User> {
        self.users.iter().map(|known| &known.user)
    }

    /// The only one, where there are not several.
    pub fn only(&self) -> Option<&User> {
        match &self.users[..] {
            [known] => Some(&known.user),
            _ => None,
        }
    }

    pub fn view(&self) -> View {
        self.view
    }

    pub fn may_watch(&self, user: Option<&User>) -> Result<(), Denied> {
        match (self.view, user) {
            (View::Open, _) | (View::RequiresLogin, Some(_)) => Ok(()),
            (View::RequiresLogin, None) => Err(Denied::NoLogin),
        }
    }

    pub fn may_change(&self, user: Option<&User>) -> Result<(), Denied> {
        match user {
            _ if self.is_empty() => Err(Denied::NoUsers),
            None => Err(Denied::NoLogin),
            Some(user) if user.role < Role::Controller => Err(Denied::NotController(Arc::clone(&user.name))),
            Some(_) => Ok(()),
        }
    }

    /// Whether the address may try to log in now, with how many failed logins it has behind it.
    pub fn may_try(&self, from: IpAddr, now: Instant) -> bool {
        lock(&self.guesses).wait(from, now).is_zero()
    }

    /// Whether this login is judged at once, however many others of its address have failed: a token cannot be guessed,
    /// and what was wrong before is not tried again.
    pub fn is_judged(&self, from: IpAddr, login: &Login, now: Instant) -> bool {
        self.by_token(login).is_some() || lock(&self.guesses).is_wrong(from, &self.mark(login), now)
    }

    /// Notes a failed login, by whatever protocol, and which it was where that is known.
    pub fn failed(&self, from: IpAddr, login: Option<&Login>, now: Instant) {
        let login = login.map(|login| self.mark(login));
        if lock(&self.guesses).failed(from, login, now) {
            tracing::warn!("{} failed logins from {from}; it may try once a second now", guesses::FREE);
        }
    }

    /// Whose login it is, as far as that is known at once, and may be tried. A failure is not noted here.
    pub fn check(&self, from: IpAddr, login: &Login, now: Instant) -> Check {
        if let Some(user) = self.by_token(login) {
            return Check::Right(user);
        }
        let mark = self.mark(login);
        {
            let guesses = lock(&self.guesses);
            if guesses.is_wrong(from, &mark, now) {
                return Check::Wrong;
            }
            if !guesses.wait(from, now).is_zero() {
                return Check::TooMany;
            }
        }
        match (self.recognize(login, now), login) {
            (Some(user), _) => Check::Right(user),
            (None, Login::Password { .. }) if self.hashing.is_some() => Check::NeedsHash,
            (None, _) => Check::Wrong,
        }
    }

    /// The user whose token this is.
    fn by_token(&self, login: &Login) -> Option<User> {
        let (Login::Token(secret) | Login::Password { password: secret, .. }) = login;
        let given = TokenHash::of(secret);
        // All are compared, whichever it is.
        let is_own = |known: &Known| known.token.is_some_and(|token| bool::from(token.0.ct_eq(&given.0)));
        let found = self.users.iter().fold(None, |found, known| if is_own(known) { Some(known) } else { found });
        found.map(|known| known.user.clone())
    }

    /// The user whose token this is, or whose password that has been hashed already.
    pub fn recognize(&self, login: &Login, now: Instant) -> Option<User> {
        if let Some(user) = self.by_token(login) {
            return Some(user);
        }
        let Login::Password { user, password } = login else { return None };
        let given = mark(&self.key, user, password);
        let is_own =
            |known: &Known| matches!(&known.password, Some(Kept::Mark(mark)) if bool::from(mark.ct_eq(&given)));
        if let Some(known) = self.users.iter().find(|known| is_own(known)) {
            return Some(known.user.clone());
        }
        lock(&self.remembered).get(&given).filter(|known| known.until > now).map(|known| known.user.clone())
    }

    /// Has the password hashed on a thread of its own, which then calls `done` with whose it is. An unknown name takes
    /// as long as a known one.
    ///
    /// # Errors
    /// [`LoginError::Busy`] where too many wait already.
    pub fn hash(
        self: &Arc<Self>,
        login: Login,
        done: impl FnOnce(Option<User>) + Send + 'static,
    ) -> Result<(), LoginError> {
        let (Some(hashing), Login::Password { user, password }) = (&self.hashing, login) else {
            return Err(LoginError::Wrong);
        };
        let known = self.users.iter().find(|known| *known.user.name == *user);
        let hash = match known.and_then(|known| known.password.as_ref()) {
            Some(Kept::Hash(hash)) => Some(hash.clone()),
            _ => None,
        };
        let (found, users) = (known.map(|known| known.user.clone()), Arc::clone(self));
        let (key, name) = (mark(&self.key, &user, &password), user);
        hashing.verify(hash, password, move |is_right| {
            let user = found.filter(|user| is_right && *user.name == *name);
            if let Some(user) = &user {
                users.remember(key, user.clone(), Instant::now());
            }
            done(user);
        })
    }

    /// Who logs in so, from there; a failure is noted. Where too many have failed, it waits for its turn.
    pub async fn login(self: &Arc<Self>, from: IpAddr, login: Login) -> Result<User, LoginError> {
        let mut check = self.check(from, &login, Instant::now());
        let mut turn = None;
        if matches!(check, Check::TooMany) {
            turn = self.wait_to_try(from).await?;
            check = self.check(from, &login, Instant::now());
        }
        let user = match check {
            Check::Right(user) => return Ok(user),
            Check::TooMany => return Err(LoginError::TooMany),
            Check::Wrong => None,
            Check::NeedsHash => {
                let (done, user) = tokio::sync::oneshot::channel();
                self.hash(login.clone(), move |user| _ = done.send(user))?;
                user.await.map_err(|_| LoginError::Busy)?
            }
        };
        if user.is_none() {
            self.failed(from, Some(&login), Instant::now());
        }
        // Until the failure is noted.
        drop(turn);
        user.ok_or(LoginError::Wrong)
    }

    /// Waits until the address may try once more. What it returns is to be kept until a failure is noted.
    ///
    /// # Errors
    /// Where others wait already, or too long.
    pub async fn wait_to_try(&self, from: IpAddr) -> Result<Option<tokio::sync::OwnedMutexGuard<()>>, LoginError> {
        if self.may_try(from, Instant::now()) {
            return Ok(None);
        }
        let end = Instant::now() + TURN_LIMIT;
        let turn = self.turn(from, end).await?;
        // Others may have failed meanwhile by other protocols.
        loop {
            let now = Instant::now();
            let wait = lock(&self.guesses).wait(from, now);
            if wait.is_zero() {
                return Ok(Some(turn));
            }
            if now + wait > end {
                return Err(LoginError::TooMany);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits for the turn of one more login of the address.
    async fn turn(&self, from: IpAddr, end: Instant) -> Result<tokio::sync::OwnedMutexGuard<()>, LoginError> {
        let turns = {
            let mut all = lock(&self.turns);
            all.retain(|_, turns| Arc::strong_count(turns) > 1);
            let turns = Arc::clone(all.entry(from).or_default());
            // One is the table's, and one this.
            if Arc::strong_count(&turns) > MAX_WAITING + 1 {
                return Err(LoginError::TooMany);
            }
            turns
        };
        let turn = tokio::time::timeout_at(end.into(), turns.lock_owned()).await;
        turn.map_err(|_| LoginError::TooMany)
    }

    /// What is the same for the same name and password in this run, and says nothing of either.
    pub fn mark(&self, login: &Login) -> Mark {
        match login {
            Login::Password { user, password } => mark(&self.key, user, password),
            Login::Token(token) => mark(&self.key, "", token),
        }
    }

    fn remember(&self, mark: Mark, user: User, now: Instant) {
        let mut remembered = lock(&self.remembered);
        remembered.retain(|_, known| known.until > now);
        if remembered.len() >= MAX_REMEMBERED {
            let first = remembered.iter().min_by_key(|(_, known)| known.until).map(|(mark, _)| *mark);
            first.and_then(|mark| remembered.remove(&mark));
        }
        remembered.insert(mark, Remembered { user, until: now + REMEMBERED_FOR });
    }

    /// An audit line: `what` was changed by the caller.
    pub fn changed(&self, caller: &Caller, what: &str) {
        tracing::info!(user = caller.name(), role = caller.role(), from = %caller.from, "audit: changed {what}");
    }

    /// An audit line: the caller was refused `what`. Not without end, as anybody may ask.
    pub fn refused(&self, caller: &Caller, what: &str, why: impl fmt::Display) {
        let line = lock(&self.lines).next(caller.from, Instant::now());
        if line != Line::LeftOut {
            tracing::warn!(user = caller.name(), role = caller.role(), from = %caller.from, "audit: refused {what}: \
                                                                                             {why}");
        }
        if line == Line::Last {
            let seconds = PERIOD.as_secs();
            tracing::warn!("{LINES} requests from {} refused within {seconds} s: more are left out", caller.from);
        }
    }
}

/// One that nobody can guess.
pub fn new_token() -> anyhow::Result<String> {
    let bytes = ring::rand::generate::<[u8; 32]>(&SystemRandom::new());
    let bytes = bytes.map_err(|_| anyhow::anyhow!("no random numbers"))?.expose();
    Ok(format!("rov_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

fn mark(key: &hmac::Key, user: &str, password: &str) -> Mark {
    let mut context = hmac::Context::with_key(key);
    context.update(user.as_bytes());
    // No name has it.
    context.update(b":");
    context.update(password.as_bytes());
    let mut mark = [0; 32];
    mark.copy_from_slice(context.sign().as_ref());
    mark
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const TOKEN: &str = "rov_abc";

    fn user(name: &str, role: Role, password: Option<Password>, token: Option<&str>) -> UserConfig {
        UserConfig { name: name.to_owned(), role, password, token: token.map(TokenHash::of) }
    }

    fn users(view: View) -> Arc<Users> {
        let hash = |password: &str| Some(Password::Hash(PasswordHash::of(password).expect("a hash")));
        let config = LoginConfig {
            view,
            users: vec![
                user("pilot", Role::Controller, hash("deep sea"), None),
                user("guest", Role::Viewer, Some(Password::Plain("shallow".to_owned())), None),
                user("script", Role::Controller, None, Some(TOKEN)),
            ],
        };
        Arc::new(Users::new(&config).expect("users"))
    }

    fn password(user: &str, password: &str) -> Login {
        Login::Password { user: user.to_owned(), password: password.to_owned() }
    }

    fn ip(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    async fn role(users: &Arc<Users>, login: Login) -> Result<Role, LoginError> {
        users.login(ip(1), login).await.map(|user| user.role)
    }

    #[tokio::test]
    async fn each_user_has_the_role_that_its_password_or_token_proves() {
        let users = users(View::Open);
        assert_eq!(role(&users, password("pilot", "deep sea")).await, Ok(Role::Controller));
        assert_eq!(role(&users, password("guest", "shallow")).await, Ok(Role::Viewer));
        assert_eq!(role(&users, Login::Token(TOKEN.to_owned())).await, Ok(Role::Controller));
        assert_eq!(role(&users, password("anything", TOKEN)).await, Ok(Role::Controller), "as RTSP has no tokens");
        for wrong in [
            password("pilot", "deep"),
            password("pilot", ""),
            password("pilot", "shallow"),
            password("guest", "deep sea"),
            password("script", ""),
            password("nobody", "deep sea"),
            Login::Token("deep sea".to_owned()),
            Login::Token(String::new()),
            // Its hash is no token.
            Login::Token(TokenHash::of(TOKEN).to_string()),
        ] {
            assert_eq!(role(&users, wrong).await, Err(LoginError::Wrong));
        }
    }

    #[tokio::test]
    async fn a_password_that_was_right_is_known_for_some_time() {
        let (users, login) = (users(View::Open), password("pilot", "deep sea"));
        let start = Instant::now();
        assert!(users.recognize(&login, start).is_none());
        users.login(ip(1), login.clone()).await.expect("right");
        assert!(users.recognize(&login, Instant::now()).is_some());
        assert!(users.recognize(&password("pilot", "deep"), Instant::now()).is_none());
        assert!(users.recognize(&login, Instant::now() + REMEMBERED_FOR).is_none());
        let other = User { name: "other".into(), role: Role::Viewer };
        (0..200_u8).for_each(|n| users.remember([n; 32], other.clone(), Instant::now()));
        assert!(lock(&users.remembered).len() <= MAX_REMEMBERED);
    }

    #[tokio::test]
    async fn an_address_that_guesses_has_to_wait_for_its_turn_and_a_token_for_nothing() {
        let users = users(View::Open);
        let guess = |n: usize| Login::Token(format!("guess {n}"));
        for n in 0..guesses::FREE as usize {
            assert_eq!(role(&users, guess(n)).await, Err(LoginError::Wrong));
        }
        assert_eq!(role(&users, Login::Token(TOKEN.to_owned())).await, Ok(Role::Controller));
        assert!(users.login(ip(2), password("guest", "shallow")).await.is_ok(), "another address");
        let right = || users.login(ip(1), password("guest", "shallow"));
        let others = || (0..MAX_WAITING).map(|n| users.login(ip(1), guess(100 + n)));
        let begun = Instant::now();
        let (first, (all, too_many)) = tokio::join!(right(), async {
            let all = futures_util::future::join_all(others());
            tokio::join!(all, users.login(ip(1), guess(200)))
        });
        assert!(first.is_ok(), "it waits for its turn: {first:?}");
        let refused = all.iter().filter(|login| **login == Err(LoginError::TooMany)).count();
        assert_eq!((refused, too_many), (1, Err(LoginError::TooMany)), "so many wait");
        assert!(begun.elapsed() < TURN_LIMIT + Duration::from_secs(1));
        // What was wrong is wrong at once, and waits for nothing.
        let last = guess(guesses::FREE as usize - 1);
        assert_eq!(role(&users, last.clone()).now_or_never(), Some(Err(LoginError::Wrong)));
        assert!(users.is_judged(ip(1), &last, Instant::now()));
    }

    #[test]
    fn who_may_do_what_is_said_by_role_and_view() {
        let nobody = Users::new(&LoginConfig::default()).expect("users");
        assert_eq!((nobody.may_watch(None), nobody.may_change(None)), (Ok(()), Err(Denied::NoUsers)));
        assert!(Denied::NoUsers.to_string().contains("--user NAME"), "{}", Denied::NoUsers);
        let of = |role| User { name: "x".into(), role };
        let (viewer, controller) = (of(Role::Viewer), of(Role::Controller));
        for view in [View::Open, View::RequiresLogin] {
            let users = users(view);
            let watch = if view == View::Open { Ok(()) } else { Err(Denied::NoLogin) };
            assert_eq!((users.may_watch(None), users.may_change(None)), (watch, Err(Denied::NoLogin)));
            let not = Err(Denied::NotController("x".into()));
            assert_eq!((users.may_watch(Some(&viewer)), users.may_change(Some(&viewer))), (Ok(()), not));
            assert_eq!((users.may_watch(Some(&controller)), users.may_change(Some(&controller))), (Ok(()), Ok(())));
        }
    }

    #[test]
    fn a_login_is_read_from_its_header_and_from_nothing_else() {
        // "pilot:deep: sea"
        let basic = password("pilot", "deep: sea");
        assert!(Login::parse("Basic cGlsb3Q6ZGVlcDogc2Vh") == Some(basic.clone()));
        assert!(Login::parse("basic  cGlsb3Q6ZGVlcDogc2Vh ") == Some(basic));
        assert!(Login::parse("Bearer rov_abc") == Some(Login::Token(TOKEN.to_owned())));
        for none in ["", "Basic", "Basic !", "Basic cGlsb3Q=", "Digest username=\"pilot\"", "rov_abc"] {
            assert!(Login::parse(none).is_none(), "{none}");
        }
    }

    #[test]
    fn a_token_is_kept_as_its_hash() {
        let hash = TokenHash::of(TOKEN);
        assert_eq!(TokenHash::parse(&hash.to_string()), Some(hash));
        for none in
            ["", TOKEN, "sha256:", "sha256:00", &format!("{}00", hash), &hash.to_string().replace("sha256", "md5")]
        {
            assert_eq!(TokenHash::parse(none), None, "{none}");
        }
        let [one, other] = [(); 2].map(|()| new_token().expect("a token"));
        assert!(one != other && one.len() > 40 && one.starts_with("rov_"), "{one}");
    }

    #[test]
    fn nothing_of_a_secret_is_shown() {
        let config = user("pilot", Role::Viewer, Some(Password::Plain("deep".to_owned())), None);
        assert!(!format!("{config:?}").contains("deep"), "{config:?}");
    }
}
