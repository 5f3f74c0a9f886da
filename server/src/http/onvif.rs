//! ONVIF by HTTP: who asks and what that one may do, as for all else here, and what becomes of a change. What is asked
//! and answered is [`crate::onvif`]'s.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, RawPathParams, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};

use super::access::{Access, NOT_FOR_PAGES, is_trusted};
use super::failure::{Failure, fail};
use super::{Api, Arrival, settings};
use crate::onvif::auth::{REALM, Refused, Secret, Token};
use crate::onvif::soap::{self, Envelope, Version};
use crate::onvif::{Answer, Asked, Fault, Onvif, PATH, Right, SERVICES, answer, name_of, right};
use crate::settings::Refusal;
use crate::users::{Caller, Denied, Login, LoginError, User, Users};

/// What the body of a request may be called.
const TYPES: [&str; 3] = ["application/soap+xml", "text/xml", "application/xml"];

pub(super) fn routes() -> Router<Arc<Api>> {
    let services = SERVICES
        .into_iter()
        .fold(Router::new(), |router, service| router.route(&format!("{PATH}/{service}"), post(soap)));
    services.route(&format!("{PATH}/subscription/{{id}}"), post(soap)).method_not_allowed_fallback(super::not_allowed)
}

/// A request that is not done, and how the client may log in for it.
struct Rejected {
    fault: Fault,
    challenges: Vec<String>,
}

/// Why a login is not taken.
pub(super) enum NoLogin {
    Login(LoginError),
    Digest(Refused),
}

impl NoLogin {
    /// With another nonce it may be right.
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Digest(Refused::Stale | Refused::Used))
    }
}

impl From<LoginError> for NoLogin {
    fn from(error: LoginError) -> Self {
        Self::Login(error)
    }
}

impl From<NoLogin> for LoginError {
    fn from(why: NoLogin) -> Self {
        match why {
            NoLogin::Login(error) => error,
            NoLogin::Digest(_) => Self::Wrong,
        }
    }
}

impl From<NoLogin> for Rejected {
    fn from(why: NoLogin) -> Self {
        match why {
            NoLogin::Login(error) => Fault::from(error).into(),
            NoLogin::Digest(refused) => Fault::not_authorized(refused, StatusCode::BAD_REQUEST).into(),
        }
    }
}

impl From<Fault> for Rejected {
    fn from(fault: Fault) -> Self {
        Self { fault, challenges: Vec::new() }
    }
}

async fn soap(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Arc<Access>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    parameters: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(onvif) = api.onvif.clone() else { return Failure::internal("ONVIF is not served").into_response() };
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let kind = given.map(|given| given.split(';').next().unwrap_or("").trim().to_ascii_lowercase());
    if kind.as_deref().is_some_and(|kind| !TYPES.contains(&kind)) {
        let reason = format!("Content-Type is {:?}, not one of {}", given.unwrap_or_default(), TYPES.join(", "));
        return fail(StatusCode::UNSUPPORTED_MEDIA_TYPE, &reason);
    }
    // So curl asks how it may log in, before it sends anything.
    if body.is_empty() && !headers.contains_key(header::AUTHORIZATION) && !api.users.is_empty() {
        let fault = Fault::from(&Denied::NoLogin);
        return rejection(Version::Soap12, "", &Rejected { fault, challenges: challenges(&onvif, false) });
    }
    let envelope = match Envelope::parse(&body) {
        Ok(envelope) => envelope,
        Err(error) => return rejection(Version::Soap12, "", &Fault::malformed(error).into()),
    };
    let request = Request { api: &api, onvif: &onvif, envelope: &envelope, headers: &headers, path: uri.path() };
    let asked = Asked {
        api: &api,
        onvif: &onvif,
        authority: authority(&headers, arrival),
        from: arrival.peer.to_canonical(),
        subscription: parameters.iter().next().map(|(_, id)| id),
    };
    match request.answer(&asked, &access).await {
        Ok((header, body)) => {
            reply(StatusCode::OK, envelope.version, &(soap::addressing(&envelope, true) + &header), &body)
        }
        Err(rejected) => rejection(envelope.version, &soap::addressing(&envelope, false), &rejected),
    }
}

/// As the client named this server; where it did not, the address by which it came. Clients leave out the port that
/// they ask: it is that of the connection.
fn authority(headers: &HeaderMap, arrival: Arrival) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    match (host, arrival.local) {
        (Some(host), Some(local)) if host.port().is_none() => format!("{}:{}", host.host(), local.port()),
        (Some(host), _) => host.to_string(),
        (None, local) => local.map(|local| local.to_string()).unwrap_or_default(),
    }
}

struct Request<'a> {
    api: &'a Arc<Api>,
    onvif: &'a Onvif,
    envelope: &'a Envelope,
    headers: &'a HeaderMap,
    path: &'a str,
}

impl Request<'_> {
    /// What goes into header and body of the answer.
    async fn answer(&self, asked: &Asked<'_>, access: &Access) -> Result<(String, String), Rejected> {
        let (api, name) = (self.api, name_of(&self.envelope.body));
        let what = format!("POST {} {name}", self.path);
        let right = right(&name);
        let mut caller = Caller { from: asked.from, user: None };
        // What is for everybody is so for who has a wrong password or a wrong clock, too.
        if right != Right::None {
            // A page can send this without asking, where it says no type.
            if !is_trusted(self.headers, access) {
                api.users.refused(&caller, &what, NOT_FOR_PAGES);
                return Err(Fault::not_authorized(NOT_FOR_PAGES, StatusCode::FORBIDDEN).into());
            }
            caller.user = self.user(asked.from, right).await.inspect_err(|rejected| {
                api.users.refused(&caller, &what, &rejected.fault.reason);
            })?;
        }
        let allowed = match right {
            Right::None => Ok(()),
            Right::Watch => api.users.may_watch(caller.user.as_ref()),
            Right::Change => api.users.may_change(caller.user.as_ref()),
        };
        if let Err(denied) = allowed {
            api.users.refused(&caller, &what, &denied);
            let fault = Fault::from(&denied);
            let is_open = fault.status == StatusCode::UNAUTHORIZED;
            return Err(Rejected {
                challenges: if is_open { challenges(self.onvif, false) } else { Vec::new() },
                fault,
            });
        }
        match answer(asked, &self.envelope.body).await? {
            Answer::Body(body) => Ok((String::new(), body)),
            Answer::Change(_, values, body) if values.is_empty() => Ok((String::new(), body)),
            Answer::Change(scope, values, body) => {
                let changed = settings::change(Arc::clone(api), caller, scope, values).await.map_err(fault_of)?;
                let waiting: Vec<_> = changed.waiting.keys().cloned().collect();
                if waiting.is_empty() {
                    return Ok((String::new(), body));
                }
                let waiting = waiting.join(", ");
                tracing::info!(
                    "ONVIF: {waiting} of {} takes effect after a restart of the server",
                    api.settings.place(scope)
                );
                Ok((soap::value("rov:WaitsForRestart", waiting), body))
            }
        }
    }

    /// Who asks: by the header of HTTP, else by that of SOAP.
    async fn user(&self, from: IpAddr, right: Right) -> Result<Option<User>, Rejected> {
        let (users, digests, now) = (&self.api.users, &self.onvif.digests, SystemTime::now());
        let changes = right == Right::Change;
        // Who gives a password to a server that has no users is not to be kept out.
        if users.is_empty() {
            return Ok(None);
        }
        if let Some(given) = self.headers.get(header::AUTHORIZATION) {
            let given = given.to_str().unwrap_or_default();
            let user = match (digest_fields(given), Login::parse(given)) {
                (Some(fields), _) => by_digest(self.api, self.onvif, fields, ("POST", self.path), from).await,
                (None, Some(login)) => users.login(from, login).await.map_err(NoLogin::from),
                (None, None) => tried(users, from, || Err(Refused::Wrong)).await,
            };
            return user.map(Some).map_err(|why| self.by_http(why));
        }
        let user = match Token::of(&self.envelope.header) {
            Ok(None) => return Ok(None),
            Ok(Some(Token { user, password: Secret::Clear(password) })) => {
                users.login(from, Login::Password { user, password }).await.map_err(NoLogin::from)?
            }
            Ok(Some(Token { user, password: Secret::Digest { digest, nonce, created } })) => {
                tried(users, from, || digests.token(&user, (&digest, &nonce, &created), changes, from, now)).await?
            }
            Err(refused) => tried(users, from, || Err(refused)).await?,
        };
        Ok(Some(user))
    }

    /// By HTTP itself a login that is not taken is answered with how to make another one.
    fn by_http(&self, why: NoLogin) -> Rejected {
        let is_stale = why.is_stale();
        let may_try = !matches!(why, NoLogin::Login(LoginError::TooMany | LoginError::Busy));
        let mut rejected = Rejected::from(why);
        if may_try {
            rejected.fault.status = StatusCode::UNAUTHORIZED;
            rejected.challenges = challenges(self.onvif, is_stale);
        }
        rejected
    }
}

/// What follows the scheme in an `Authorization` by digest.
pub(super) fn digest_fields(given: &str) -> Option<&str> {
    given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("digest")).map(|(_, fields)| fields)
}

/// Who logs in by HTTP Digest for a request with this method and target.
pub(super) async fn by_digest(
    api: &Api,
    onvif: &Onvif,
    fields: &str,
    request: (&str, &str),
    from: IpAddr,
) -> Result<User, NoLogin> {
    tried(&api.users, from, || onvif.digests.header(fields, request, from, SystemTime::now())).await
}

/// An attempt by a digest, when the address may make one.
async fn tried(users: &Users, from: IpAddr, attempt: impl FnOnce() -> Result<User, Refused>) -> Result<User, NoLogin> {
    let _turn = users.wait_to_try(from).await?;
    attempt().map_err(|refused| {
        if matches!(refused, Refused::Wrong | Refused::Incomplete) {
            users.failed(from, None, Instant::now());
        }
        NoLogin::Digest(refused)
    })
}

/// The digest first, as some clients look at no other.
fn challenges(Onvif { digests, .. }: &Onvif, is_stale: bool) -> Vec<String> {
    let digest = digests.has_users().then(|| digests.challenge(is_stale, SystemTime::now()));
    let basic = (!digests.others().is_empty()).then(|| format!("Basic realm=\"{REALM}\", charset=\"UTF-8\""));
    digest.into_iter().chain(basic).collect()
}

fn fault_of(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::NotNow(reason) => Fault::not_now(reason),
        refusal => Fault::cannot_be(refusal),
    }
}

fn rejection(version: Version, header: &str, Rejected { fault, challenges }: &Rejected) -> Response {
    let mut response = reply(fault.status, version, header, &fault.text(version));
    for challenge in challenges.iter().filter_map(|challenge| HeaderValue::from_str(challenge).ok()) {
        response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn reply(status: StatusCode, version: Version, header: &str, body: &str) -> Response {
    let kind = HeaderValue::from_static(version.content_type());
    (status, [(header::CONTENT_TYPE, kind)], soap::envelope(version, header, body)).into_response()
}
