//! Who asks by a digest: WS-UsernameToken (SHA-1 over nonce, time and password) and HTTP Digest (RFC 7616, MD5), as
//! ONVIF has them. Both need the password itself, so users of a file, of whom a hash alone is known, cannot log in by
//! one.
//!
//! What was used once is not taken a second time, but for one case: clients such as libonvif have one token for all
//! requests of a millisecond, so the same address may use one again for a moment. Whoever can send from that address in
//! that moment can change the message on its way as well: a token does not sign it.
//!
//! What was used before a restart is not remembered. So a token that was made before it changes nothing: a client whose
//! clock is slow by some minutes can change something only so many minutes after the start. One that was listened in to
//! still reads, which whoever listens can do anyway; and one of a clock that is fast is taken for as long as it is
//! fast.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use md5::{Digest as _, Md5};
use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use ring::hmac;
use ring::rand::SystemRandom;
use rov_common::sync::lock;
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::soap::Element;
use super::time::date_time;
use crate::users::{LoginConfig, Password, User, UserConfig};

/// By how much a client's clock may be wrong: recorders are rarely set.
const SKEW: Duration = Duration::from_secs(3600);
/// How long a nonce of HTTP Digest is taken.
const NONCE_LIFE: Duration = Duration::from_secs(300);
/// For which the same address may use a token again, in seconds.
const SAME_MOMENT: u64 = 1;
/// Digests that are remembered until they cannot be used again anyway. A recorder that asks each second has 7,200.
const MAX_USED: usize = 65_536;
const MAX_NONCE: usize = 256;
pub const REALM: &str = "rov-server";

const SECURITY: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";

/// The same for all names, so that it tells nobody which there are.
const WRONG: &str = "wrong user name or password; a digest needs the plain password, and of users of the file the \
                     server has only a hash: use HTTP Basic or a UsernameToken in clear, best with --tls";

/// Why a digest is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("{WRONG}")]
    Wrong,
    /// Nobody can log in so: it is no guess.
    #[error("{WRONG}")]
    Hopeless,
    #[error("Created differs from the server's time by more than an hour: set the clock of either")]
    Clock,
    #[error(
        "Created is before the start of this server, which does not know any more what was used then: set the client's \
         clock to change something now, or wait as long as it is slow"
    )]
    BeforeStart,
    #[error("nonce already used: each request needs a new one")]
    Used,
    #[error("nonce expired: use the one in this answer")]
    Stale,
    #[error("incomplete login: user name, password, nonce or time (Created) is missing or unreadable")]
    Incomplete,
}

/// What WS-Security says of who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub user: String,
    pub password: Secret,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    Clear(String),
    Digest { digest: Vec<u8>, nonce: Vec<u8>, created: String },
}

impl Token {
    /// That of a SOAP header, where there is one.
    ///
    /// # Errors
    /// Where it is not whole.
    pub fn of(header: &Element) -> Result<Option<Self>, Refused> {
        let Some(security) = header.children.iter().find(|child| child.is(SECURITY, "Security")) else {
            return Ok(None);
        };
        let Some(token) = security.child("UsernameToken") else { return Ok(None) };
        // A client whose user has given no name asks as nobody.
        let Some(user) = token.child("Username").map(|user| user.text.clone()).filter(|user| !user.is_empty()) else {
            return Ok(None);
        };
        let password = token.child("Password").ok_or(Refused::Incomplete)?;
        let kind = password.attribute("Type").unwrap_or_default();
        if !kind.ends_with("#PasswordDigest") {
            return Ok(Some(Self { user, password: Secret::Clear(password.text.clone()) }));
        }
        let bytes = |text: &str| STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let digest = bytes(&password.text);
        let nonce = token.value("Nonce").and_then(bytes).filter(|nonce| (1..=MAX_NONCE).contains(&nonce.len()));
        let created = token.value("Created").map(str::to_owned);
        match (digest, nonce, created) {
            (Some(digest), Some(nonce), Some(created)) => {
                Ok(Some(Self { user, password: Secret::Digest { digest, nonce, created } }))
            }
            _ => Err(Refused::Incomplete),
        }
    }
}

/// The users who can log in by a digest.
pub struct Digests {
    users: Vec<(User, String)>,
    /// Of those who cannot.
    others: Vec<String>,
    /// Of this run: what nonces are made with.
    key: hmac::Key,
    used: Mutex<Used>,
    started: Instant,
}

impl Digests {
    /// # Errors
    /// When the machine has no random numbers.
    pub fn of(config: &LoginConfig) -> anyhow::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let plain = |user: &UserConfig| match &user.password {
            Some(Password::Plain(password)) => {
                Some((User { name: user.name.as_str().into(), role: user.role }, password.clone()))
            }
            _ => None,
        };
        let others = config.users.iter().filter(|user| plain(user).is_none()).map(|user| user.name.clone());
        Ok(Self {
            users: config.users.iter().filter_map(plain).collect(),
            others: others.collect(),
            key: key.map_err(|_| anyhow::anyhow!("no random numbers"))?,
            used: Mutex::new(Used::new(MAX_USED)),
            started: Instant::now(),
        })
    }

    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// The names of those who cannot log in so.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// Whose WS-UsernameToken it is. `changes`: it is for something that is changed.
    ///
    /// # Errors
    /// Says why nobody's.
    pub fn token(
        &self,
        user: &str,
        given: (&[u8], &[u8], &str),
        changes: bool,
        from: IpAddr,
        now: SystemTime,
    ) -> Result<User, Refused> {
        let (digest, nonce, created) = given;
        let at = date_time(created).ok_or(Refused::Incomplete)?.unix_timestamp();
        let apart = at.abs_diff(i64::try_from(seconds(now)).unwrap_or(i64::MAX));
        let (known, password) = self.find(user)?;
        let expected = digest_of(nonce, created, password);
        if !bool::from(expected.as_ref().ct_eq(digest)) {
            return Err(Refused::Wrong);
        }
        if apart > SKEW.as_secs() {
            return Err(Refused::Clock);
        }
        // As the clock has it now: it may have been set since.
        let started = now.checked_sub(self.started.elapsed()).map_or(0, seconds);
        if changes && u64::try_from(at).unwrap_or(0) < started {
            return Err(Refused::BeforeStart);
        }
        let until = u64::try_from(at).unwrap_or(0) + SKEW.as_secs();
        self.take(&[user.as_bytes(), created.as_bytes(), nonce], until, (from, SAME_MOMENT), now)?;
        Ok(known.clone())
    }

    /// Whose `Authorization: Digest` it is, whose `fields` follow the scheme.
    ///
    /// # Errors
    /// Says why nobody's.
    pub fn header(
        &self,
        fields: &str,
        (method, path): (&str, &str),
        from: IpAddr,
        now: SystemTime,
    ) -> Result<User, Refused> {
        let fields = Fields::parse(fields).ok_or(Refused::Incomplete)?;
        let get = |name| fields.get(name).ok_or(Refused::Incomplete);
        let (user, nonce, uri, response) = (get("username")?, get("nonce")?, get("uri")?, get("response")?);
        let (qop, count, own) = (get("qop")?, get("nc")?, get("cnonce")?);
        let algorithm = fields.get("algorithm").unwrap_or("MD5");
        let is_of_it = uri == path || uri.split_once("://").is_some_and(|(_, rest)| rest.ends_with(path));
        if fields.get("realm") != Some(REALM) || !algorithm.eq_ignore_ascii_case("MD5") || qop != "auth" || !is_of_it {
            return Err(Refused::Wrong);
        }
        let (known, password) = self.find(user)?;
        let (first, second) = (md5(&[user, REALM, password]), md5(&[method, uri]));
        let expected = md5(&[&first, nonce, count, own, qop, &second]);
        if !bool::from(expected.as_bytes().ct_eq(response.to_ascii_lowercase().as_bytes())) {
            return Err(Refused::Wrong);
        }
        let until = self.made_at(nonce).ok_or(Refused::Stale)? + NONCE_LIFE.as_secs();
        if until < seconds(now) {
            return Err(Refused::Stale);
        }
        self.take(&[nonce.as_bytes(), count.as_bytes(), own.as_bytes()], until, (from, 0), now)?;
        Ok(known.clone())
    }

    /// The value of `WWW-Authenticate`.
    pub fn challenge(&self, is_stale: bool, now: SystemTime) -> String {
        let stale = if is_stale { ", stale=true" } else { "" };
        format!("Digest realm=\"{REALM}\", qop=\"auth\", algorithm=MD5, nonce=\"{}\"{stale}", self.nonce(seconds(now)))
    }

    fn nonce(&self, at: u64) -> String {
        self.nonce_of(at, rand::random())
    }

    fn nonce_of(&self, at: u64, own: [u8; 8]) -> String {
        let said = [at.to_be_bytes(), own].concat();
        let proof = hmac::sign(&self.key, &said);
        URL_SAFE_NO_PAD.encode([&said, &proof.as_ref()[..16]].concat())
    }

    /// When this server made a nonce; None: it did not.
    fn made_at(&self, nonce: &str) -> Option<u64> {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
        let (at, rest) = bytes.split_first_chunk()?;
        let (at, own) = (u64::from_be_bytes(*at), *rest.first_chunk()?);
        bool::from(self.nonce_of(at, own).as_bytes().ct_eq(nonce.as_bytes())).then_some(at)
    }

    fn find(&self, name: &str) -> Result<(&User, &str), Refused> {
        let known = self.users.iter().find(|(user, _)| *user.name == *name);
        // Nor do those that are counted tell which names there are.
        let why = if self.has_users() { Refused::Wrong } else { Refused::Hopeless };
        known.map(|(user, password)| (user, password.as_str())).ok_or(why)
    }

    fn take(&self, parts: &[&[u8]], until: u64, by: (IpAddr, u64), now: SystemTime) -> Result<(), Refused> {
        let mut context = digest::Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mark = context.finish().as_ref().first_chunk().copied().unwrap_or_default();
        lock(&self.used).take(until, mark, by, seconds(now)).then_some(()).ok_or(Refused::Used)
    }
}

type Mark = [u8; 16];

/// What was used, by the time until which it could be used again.
struct Used {
    /// With the address that used it first, and when.
    marks: BTreeMap<(u64, Mark), (IpAddr, u64)>,
    limit: usize,
    /// What could be used until then has been forgotten: it is refused.
    floor: u64,
}

impl Used {
    fn new(limit: usize) -> Self {
        Self { marks: BTreeMap::new(), limit, floor: 0 }
    }

    /// Whether it may be used: for the first time, or by `from` again within that `moment`, where there is one.
    fn take(&mut self, until: u64, mark: Mark, (from, moment): (IpAddr, u64), now: u64) -> bool {
        while self.marks.first_key_value().is_some_and(|((until, _), _)| *until < now) {
            self.marks.pop_first();
        }
        if until <= self.floor {
            return false;
        }
        if let Some((first, at)) = self.marks.get(&(until, mark)) {
            return moment > 0 && *first == from && now.abs_diff(*at) <= moment;
        }
        self.marks.insert((until, mark), (from, now));
        if self.marks.len() > self.limit
            && let Some(((until, _), _)) = self.marks.pop_first()
        {
            self.floor = until;
        }
        true
    }
}

/// The fields of `Authorization: Digest`.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    fn parse(mut text: &'a str) -> Option<Self> {
        let mut fields = Vec::new();
        loop {
            text = text.trim_start_matches([' ', '\t', ',']);
            if text.is_empty() {
                return Some(Self(fields));
            }
            let (name, rest) = text.split_once('=')?;
            let rest = rest.trim_start();
            // What is escaped in it is none of ours, but for a user name, which has no quote and no backslash.
            let (value, rest) = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => rest.split_at(rest.find([',', ' ']).unwrap_or(rest.len())),
            };
            fields.push((name.trim(), value));
            text = rest;
        }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

/// Of the parts with colons between them, in hexadecimal digits.
fn md5(parts: &[&str]) -> String {
    Md5::digest(parts.join(":")).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn digest_of(nonce: &[u8], created: &str, password: &str) -> digest::Digest {
    digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &[nonce, created.as_bytes(), password.as_bytes()].concat())
}

/// As a client sends it, in base64: for tests of others.
pub fn password_digest(nonce: &[u8], created: &str, password: &str) -> String {
    STANDARD.encode(digest_of(nonce, created, password))
}

#[cfg(test)]
mod tests {
    use rov_common::api::{Role, View};

    use super::super::soap::Envelope;
    use super::*;
    use crate::users::{PasswordHash, TokenHash};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const CREATED: &str = "2010-09-16T07:50:45Z";

    fn created() -> SystemTime {
        SystemTime::from(date_time(CREATED).unwrap())
    }

    fn digests() -> Digests {
        of(true)
    }

    /// `has_plain`: with a user whose password is known.
    fn of(has_plain: bool) -> Digests {
        let user = |name: &str, password| UserConfig {
            name: name.to_owned(),
            role: Role::Controller,
            password,
            token: Some(TokenHash::of(name)),
        };
        let hash = Password::Hash(PasswordHash::of("shallow").unwrap());
        let plain = has_plain.then(|| user("user", Some(Password::Plain("userpassword".to_owned()))));
        let users = plain.into_iter().chain([user("filed", Some(hash)), user("program", None)]).collect();
        Digests::of(&LoginConfig { view: View::Open, users }).unwrap()
    }

    /// The example of ONVIF's Application Programmer's Guide, section 6.1.1.3.
    const NONCE: &str = "LKqI6G/AikKCQrN0zqZFlg==";
    const DIGEST: &str = "tuOSpGlFlIXsozq4HFNeeGeFLEI=";

    fn token(digests: &Digests, user: &str, digest: &str, nonce: &str, now: SystemTime) -> Result<User, Refused> {
        token_for(false, digests, user, digest, nonce, now)
    }

    fn token_for(
        changes: bool,
        digests: &Digests,
        user: &str,
        digest: &str,
        nonce: &str,
        now: SystemTime,
    ) -> Result<User, Refused> {
        let (digest, nonce) = (STANDARD.decode(digest).unwrap(), STANDARD.decode(nonce).unwrap());
        digests.token(user, (&digest, &nonce, CREATED), changes, HERE, now)
    }

    #[test]
    fn what_was_made_before_the_start_changes_nothing() {
        let change = |now| token_for(true, &digests(), "user", DIGEST, NONCE, now);
        // Those who ask a server that has started just now.
        assert_eq!(change(created() + Duration::from_secs(60)), Err(Refused::BeforeStart));
        assert!(token(&digests(), "user", DIGEST, NONCE, created() + Duration::from_secs(60)).is_ok(), "it only reads");
        let (user, long_since) = (change(created()), created() - Duration::from_secs(60));
        assert!(user.is_ok() && change(long_since).is_ok(), "{user:?}");
        // Nor is anything of it noted as used.
        let digests = digests();
        let soon = created() + Duration::from_secs(60);
        assert_eq!(token_for(true, &digests, "user", DIGEST, NONCE, soon), Err(Refused::BeforeStart));
        assert!(token(&digests, "user", DIGEST, NONCE, soon).is_ok());
    }

    #[test]
    fn the_example_of_the_guide_is_right_once_and_within_an_hour() {
        assert_eq!(password_digest(&STANDARD.decode(NONCE).unwrap(), CREATED, "userpassword"), DIGEST);
        let hour = Duration::from_secs(3600);
        for (now, expected) in [
            (created(), None),
            (created() + hour, None),
            (created() - hour, None),
            (created() + hour + Duration::from_secs(1), Some(Refused::Clock)),
            (created() - hour - Duration::from_secs(1), Some(Refused::Clock)),
        ] {
            let digests = digests();
            assert_eq!(token(&digests, "user", DIGEST, NONCE, now).err(), expected, "{now:?}");
            if expected.is_none() {
                let later = now + Duration::from_secs(2);
                let refused = token(&digests, "user", DIGEST, NONCE, later);
                assert!(matches!(refused, Err(Refused::Used | Refused::Clock)), "{refused:?}");
            }
        }
        let other = password_digest(b"other", CREATED, "userpassword");
        let digests = digests();
        token(&digests, "user", DIGEST, NONCE, created()).unwrap();
        token(&digests, "user", &other, &STANDARD.encode("other"), created()).unwrap();
        // It is known as long as it could be used again.
        assert_eq!(token(&digests, "user", DIGEST, NONCE, created() + hour), Err(Refused::Used));
    }

    #[test]
    fn another_password_or_user_is_wrong_and_a_hash_knows_no_digest() {
        let digests = digests();
        let wrong = password_digest(&STANDARD.decode(NONCE).unwrap(), CREATED, "other");
        let filed = password_digest(&STANDARD.decode(NONCE).unwrap(), CREATED, "shallow");
        for (user, digest, why) in [
            ("user", &wrong[..], Refused::Wrong),
            ("nobody", DIGEST, Refused::Wrong),
            ("filed", &filed, Refused::Wrong),
            ("program", DIGEST, Refused::Wrong),
            ("user", "", Refused::Wrong),
        ] {
            assert_eq!(token(&digests, user, digest, NONCE, created()), Err(why), "{user}");
        }
        // Whichever name is given: what is counted would tell, too.
        for user in ["filed", "program", "nobody"] {
            assert_eq!(token(&of(false), user, &filed, NONCE, created()), Err(Refused::Hopeless), "{user}");
        }
        assert_eq!(Refused::Wrong.to_string(), Refused::Hopeless.to_string());
        // A failure uses nothing up.
        assert!(token(&digests, "user", DIGEST, NONCE, created()).is_ok());
        assert_eq!(digests.others(), ["filed", "program"]);
    }

    #[test]
    fn a_token_is_read_from_the_header_whatever_its_prefixes() {
        let read = |token: &str| {
            let text = format!(
                r#"<E xmlns="http://www.w3.org/2003/05/soap-envelope"><Header>
                    <o:Security xmlns:o="{SECURITY}"><o:UsernameToken>{token}</o:UsernameToken></o:Security>
                </Header><Body><Get/></Body></E>"#
            );
            Token::of(
                &Envelope::parse(text.replace("E>", "Envelope>").replace("<E ", "<Envelope ").as_bytes())
                    .unwrap()
                    .header,
            )
        };
        let whole = |password: &str| {
            format!(
                r#"<o:Username>user</o:Username>{password}<o:Nonce>{NONCE}</o:Nonce><u:Created xmlns:u="u">{CREATED}</u:Created>"#
            )
        };
        let digest = format!(r#"<o:Password Type="http://x#PasswordDigest">{DIGEST}</o:Password>"#);
        let Ok(Some(Token { user, password: Secret::Digest { digest: bytes, nonce, created: at } })) =
            read(&whole(&digest))
        else {
            panic!("no token")
        };
        assert!(digests().token(&user, (&bytes, &nonce, &at), false, HERE, created()).is_ok());
        let clear = read("<o:Username>user</o:Username><o:Password>a b</o:Password>").unwrap().unwrap();
        assert_eq!(clear.password, Secret::Clear("a b".to_owned()));
        for broken in ["<o:Username>user</o:Username>", &whole(""), &format!("<o:Username>user</o:Username>{digest}")] {
            assert_eq!(read(broken), Err(Refused::Incomplete), "{broken}");
        }
        let long = whole(&digest).replace(NONCE, &"A".repeat(4 * MAX_NONCE));
        assert_eq!(read(&long), Err(Refused::Incomplete));
        assert_eq!(Token::of(&Element::default()), Ok(None));
    }

    #[test]
    fn what_is_remembered_has_a_bound_beyond_which_the_older_is_refused() {
        let mut used = Used::new(3);
        let mark = |number: u8| [number; 16];
        for (until, number) in [(10, 1), (20, 2), (30, 3), (40, 4)] {
            assert!(used.take(until, mark(number), (HERE, 0), 0));
        }
        assert_eq!(used.marks.len(), 3);
        for (until, number, first) in [(10, 1, false), (10, 9, false), (20, 2, false), (20, 9, true), (40, 4, false)] {
            assert_eq!(used.take(until, mark(number), (HERE, 0), 0), first, "{until} {number}");
        }
        // That could not be used any more.
        assert!(used.take(100, mark(5), (HERE, 0), 41) && used.marks.len() == 1);
    }

    #[test]
    fn the_same_token_is_taken_again_for_a_moment_from_the_same_address() {
        let other = IpAddr::from([10, 0, 0, 9]);
        let mut used = Used::new(3);
        assert!(used.take(100, [1; 16], (HERE, 1), 10));
        for (by, now, expected) in [
            ((HERE, 1), 10, true),
            ((HERE, 1), 11, true),
            ((HERE, 0), 10, false),
            ((other, 1), 10, false),
            ((HERE, 1), 12, false),
        ] {
            assert_eq!(used.take(100, [1; 16], by, now), expected, "{by:?} {now}");
        }
        let digests = digests();
        token(&digests, "user", DIGEST, NONCE, created()).unwrap();
        token(&digests, "user", DIGEST, NONCE, created()).unwrap();
        let later = created() + Duration::from_secs(2);
        assert_eq!(token(&digests, "user", DIGEST, NONCE, later), Err(Refused::Used));
    }

    fn header(
        digests: &Digests,
        nonce: &str,
        count: &str,
        change: (&str, &str),
        now: SystemTime,
    ) -> Result<User, Refused> {
        let (first, second) = (md5(&["user", REALM, "userpassword"]), md5(&["POST", "/onvif/device_service"]));
        let response = md5(&[&first, nonce, count, "own", "auth", &second]);
        let fields = format!(
            r#"username="user", realm="{REALM}", nonce="{nonce}", uri="/onvif/device_service", response="{response}", qop=auth, nc={count}, cnonce="own", algorithm="MD5""#
        );
        digests.header(&fields.replace(change.0, change.1), ("POST", "/onvif/device_service"), HERE, now)
    }

    #[test]
    fn http_digest_takes_each_count_of_its_own_nonces_once() {
        let (digests, now) = (digests(), created());
        let nonce = digests.nonce(seconds(now));
        assert!(digests.challenge(true, now).contains("stale=true"));
        assert_ne!(nonce, digests.nonce(seconds(now)), "another one in the same second");
        assert_eq!(digests.made_at(&nonce), Some(seconds(now)));
        let same = ("x", "x");
        assert_eq!(
            header(&digests, &nonce, "00000001", same, now).map(|user| user.name.to_string()),
            Ok("user".to_owned())
        );
        assert!(header(&digests, &nonce, "00000002", same, now).is_ok());
        assert_eq!(header(&digests, &nonce, "00000001", same, now), Err(Refused::Used));
        for change in [
            ("\"user\"", "\"other\""),
            ("/onvif/device_service", "/onvif/media_service"),
            (REALM, "other"),
            ("MD5", "MD4"),
            ("nc=00000003", "nc=00000004"),
            ("response=\"", "response=\"0"),
        ] {
            assert_eq!(header(&digests, &nonce, "00000003", change, now), Err(Refused::Wrong), "{change:?}");
        }
        for change in [("qop=auth", "q=1"), ("response", "resp"), ("nonce=\"", "nonce=")] {
            assert!(header(&digests, &nonce, "00000003", change, now).is_err(), "{change:?}");
        }
        let late = now + NONCE_LIFE + Duration::from_secs(1);
        assert_eq!(header(&digests, &nonce, "00000003", same, late), Err(Refused::Stale));
        let foreign = super::tests::digests().nonce(seconds(now));
        assert_eq!(header(&digests, &foreign, "00000001", same, now), Err(Refused::Stale));
        for broken in ["", "username", "username=\"user", "=,=,", "a=\"b\"c=\"d\""] {
            assert!(digests.header(broken, ("POST", "/"), HERE, now).is_err(), "{broken}");
        }
    }
}
