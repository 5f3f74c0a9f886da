//! Who asks by HTTP: `Authorization: Basic` or `Bearer`, and of recorders `Digest`, in the header alone. A URL gets
//! into logs and histories, so nothing in it logs anybody in.
//!
//! A handler that changes something takes [`Controller`] among its arguments, and is not called by anybody else. What
//! shows pictures, or what is known of them, lies behind [`may_watch`].

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use rov_common::api::{LoginState, SNAPSHOT_PATH};

use super::access::{Access, is_trusted};
use super::failure::{Failure, fail};
use super::onvif::{NoLogin, by_digest, digest_fields};
use super::{Api, Arrival};
use crate::onvif::Onvif;
use crate::users::{Caller, Denied, Login, LoginError};

/// Browsers ask for a name and a password by themselves; other clients are told that there are tokens.
const CHALLENGES: [HeaderValue; 2] = [
    HeaderValue::from_static("Basic realm=\"rov-server\", charset=\"UTF-8\""),
    HeaderValue::from_static("Bearer realm=\"rov-server\""),
];

/// What pages are told to which a browser adds the password that it knows.
const FOREIGN: &str =
    "pages of other origins may change nothing here: start the server with --allow-origin ORIGIN to let one";

/// A controller, whose request may change something. The request comes from no page of another origin, to which a
/// browser adds the password that it knows.
pub(super) struct Controller(pub Caller);

impl FromRequestParts<Arc<Api>> for Controller {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Rejection> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Rejection::Failure(Failure::internal("nobody was asked who asks")))?;
        let what = format!("{} {}", parts.method, parts.uri.path());
        let is_foreign = parts.extensions.get::<Arc<Access>>().is_none_or(|access| !is_trusted(&parts.headers, access));
        if is_foreign {
            api.users.refused(&caller, &what, FOREIGN);
            return Err(Rejection::Failure(Failure(StatusCode::FORBIDDEN, FOREIGN.to_owned())));
        }
        match api.users.may_change(caller.user.as_ref()) {
            Ok(()) => Ok(Self(caller)),
            Err(denied) => {
                api.users.refused(&caller, &what, &denied);
                Err(Rejection::Denied(denied))
            }
        }
    }
}

/// Why a request may change nothing.
pub(super) enum Rejection {
    Denied(Denied),
    Failure(Failure),
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        match self {
            Self::Denied(denied) => refusal(&denied),
            Self::Failure(failure) => failure.into_response(),
        }
    }
}

/// Finds out who asks, before any handler: a login that is wrong is refused wherever it comes.
pub(super) async fn authenticate(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let Some(ConnectInfo(Arrival { peer, .. })) = request.extensions().get::<ConnectInfo<Arrival>>().copied() else {
        return Failure::internal("the connection has no address").into_response();
    };
    let mut caller = Caller { from: peer.to_canonical(), user: None };
    let recorders = by_digest_too(&api, &request);
    // Who gives a password to a server that has no users is not to be kept out.
    let given = request.headers().get(header::AUTHORIZATION).filter(|_| !api.users.is_empty());
    let given = given.map(|given| given.to_str().unwrap_or_default().to_owned());
    let mut is_stale = false;
    let user = match (&given, recorders.as_deref().zip(given.as_deref().and_then(digest_fields))) {
        (None, _) => None,
        (Some(_), Some((onvif, fields))) => {
            let target = request.uri().path_and_query().map_or("", |target| target.as_str());
            let user = by_digest(&api, onvif, fields, (request.method().as_str(), target), caller.from).await;
            is_stale = user.as_ref().is_err_and(NoLogin::is_stale);
            Some(user.map_err(LoginError::from))
        }
        (Some(given), None) => Some(match Login::parse(given) {
            Some(login) => api.users.login(caller.from, login).await,
            None => Err(LoginError::Wrong),
        }),
    };
    let mut response = match user.transpose() {
        Ok(user) => {
            caller.user = user;
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            let what = format!("{} {}", request.method(), request.uri().path());
            api.users.refused(&caller, &what, error);
            not_logged_in(error)
        }
    };
    if let Some(onvif) = recorders.filter(|_| response.status() == StatusCode::UNAUTHORIZED)
        && let Ok(challenge) = HeaderValue::from_str(&onvif.digests.challenge(is_stale, SystemTime::now()))
    {
        // The digest first, as some look at no other.
        let headers = response.headers_mut();
        let others: Vec<_> = headers.get_all(header::WWW_AUTHENTICATE).iter().cloned().collect();
        headers.insert(header::WWW_AUTHENTICATE, challenge);
        others.into_iter().for_each(|other| _ = headers.append(header::WWW_AUTHENTICATE, other));
    }
    response
}

/// Where recorders fetch pictures, some of which know no other login.
fn by_digest_too(api: &Api, request: &Request) -> Option<Arc<Onvif>> {
    let is_picture = request.method() == Method::GET && request.uri().path() == SNAPSHOT_PATH;
    api.onvif.clone().filter(|onvif| is_picture && onvif.digests.has_users())
}

/// Lets those through who may watch.
pub(super) async fn may_watch(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match api.users.may_watch(caller.user.as_ref()) {
        // What can be done here is no secret.
        _ if request.method() == Method::OPTIONS => next.run(request).await,
        Ok(()) => next.run(request).await,
        Err(denied) => {
            api.users.refused(&caller, &format!("{} {}", request.method(), request.uri().path()), &denied);
            refusal(&denied)
        }
    }
}

/// `GET /api/login`: who asks, and what that one may do. Never asks for a login itself.
pub(super) async fn login(State(api): State<Arc<Api>>, Extension(caller): Extension<Caller>) -> Json<LoginState> {
    let user = caller.user.as_ref();
    let may_watch = api.users.may_watch(user).is_ok();
    Json(LoginState {
        user: user.map(|user| user.name.to_string()),
        role: user.map(|user| user.role),
        may_watch,
        may_change: api.users.may_change(user).is_ok(),
        view: api.users.view(),
        ice_servers: if may_watch { api.settings.ice_servers() } else { Vec::new() },
    })
}

fn refusal(denied: &Denied) -> Response {
    match denied {
        Denied::NoLogin => with_challenge(fail(StatusCode::UNAUTHORIZED, &denied.to_string())),
        Denied::NotController(_) | Denied::NoUsers => fail(StatusCode::FORBIDDEN, &denied.to_string()),
    }
}

fn not_logged_in(error: LoginError) -> Response {
    let reason = error.to_string();
    let again = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
    match error {
        LoginError::Wrong => with_challenge(fail(StatusCode::UNAUTHORIZED, &reason)),
        LoginError::TooMany => (again, fail(StatusCode::TOO_MANY_REQUESTS, &reason)).into_response(),
        LoginError::Busy => (again, fail(StatusCode::SERVICE_UNAVAILABLE, &reason)).into_response(),
    }
}

fn with_challenge(mut response: Response) -> Response {
    for challenge in CHALLENGES {
        response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
