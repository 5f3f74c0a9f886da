//! The users of the configuration, and who may watch.

use rov_common::api::{Role, View};

use super::{ConfigError, Credentials, Misset, RtspConfig, bad};
use crate::choices::Transport;
use crate::cli::{MachineOptions, UserOptions};
use crate::config_file::Table;
use crate::users::{LoginConfig, Password, PasswordHash, TokenHash, UserConfig};

/// The longest name of a user, in bytes.
const MAX_NAME: usize = 64;

/// A colon ends the name in RFC 7617; a quote would end it in RFC 7616.
fn is_name(name: &str) -> bool {
    let is_wrong = |c: char| c.is_control() || c == ':' || c == '"' || c == '\\';
    (1..=MAX_NAME).contains(&name.len()) && !name.contains(is_wrong)
}

/// The user of the command line, and those of the file.
pub(super) fn logins(
    options: &MachineOptions,
    users: &[Table<UserOptions>],
    transports: &[Transport],
) -> Result<LoginConfig, (Option<usize>, String)> {
    let alone = single(options).map_err(|message| (None, message))?;
    // Who sets a password does not expect the picture to be seen without it. A controller of a file is there to change
    // things; whether others may watch, the file says.
    let usual = if alone.is_some() { View::RequiresLogin } else { View::Open };
    let view = options.view.unwrap_or(usual);
    let mut config = LoginConfig { view, users: alone.into_iter().collect() };
    for table in users {
        let user = user(&table.options).map_err(|Misset { key, message }| (Some(table.line_of(key)), message))?;
        if config.users.iter().any(|other| other.name == user.name) {
            let message = format!("name: two users have the name {:?}, give each its own", user.name);
            return Err((Some(table.line_of("name")), message));
        }
        config.users.push(user);
    }
    if view == View::RequiresLogin && config.users.is_empty() {
        let message = "--view requires-login: there is no user: add --user, or [[user]] to the file of --config";
        return Err((None, message.to_owned()));
    }
    let why = if options.view.is_some() { "--view requires-login" } else { "--user" };
    check_rtp(view, transports, why).map_err(|error| (None, error.0))?;
    Ok(config)
}

/// Whether RTP does not show to everybody what needs a login, for the reason `why`.
pub(super) fn check_rtp(view: View, transports: &[Transport], why: &str) -> Result<(), ConfigError> {
    if view == View::RequiresLogin && transports.contains(&Transport::Rtp) {
        return bad(format!(
            "{why}: RTP goes to whoever listens, without a login: leave rtp out of --transport, or let everybody watch \
             with --view open"
        ));
    }
    Ok(())
}

/// RTSP's digest takes the only user's password, where it is known.
pub(super) fn set_digest(rtsp: &mut Option<RtspConfig>, logins: &LoginConfig) {
    if let Some(rtsp) = rtsp {
        let digest = logins.for_digest();
        rtsp.digest = digest.map(|(user, password)| Credentials { user: user.into(), password: password.into() });
    }
}

fn single(options: &MachineOptions) -> Result<Option<UserConfig>, String> {
    match (&options.user, &options.password) {
        (None, None) if options.role.is_some() => Err("--role: needs --user and --password".to_owned()),
        (None, None) => Ok(None),
        (Some(name), Some(password)) => {
            if !is_name(name) {
                return Err(format!(
                    "--user {name:?}: must have 1 to {MAX_NAME} bytes, and no colon, quote or backslash"
                ));
            }
            if password.is_empty() {
                return Err("--password: must not be empty".to_owned());
            }
            let role = options.role.unwrap_or(Role::Controller);
            let password = Some(Password::Plain(password.clone()));
            Ok(Some(UserConfig { name: name.clone(), role, password, token: None }))
        }
        (Some(user), None) => {
            // Behind it stands a password, as curl takes it.
            let name = user.split(':').next().unwrap_or_default();
            Err(format!("--user {name}: needs --password, or the variable ROV_PASSWORD"))
        }
        (None, Some(_)) => Err("--password (or the variable ROV_PASSWORD): needs --user".to_owned()),
    }
}

fn user(options: &UserOptions) -> Result<UserConfig, Misset> {
    let misset = |key, message: &str| Err(Misset { key, message: message.to_owned() });
    let Some(name) = options.name.clone().filter(|name| is_name(name)) else {
        let message = format!("name: give the user one, of 1 to {MAX_NAME} bytes without colon, quote and backslash");
        return misset("name", &message);
    };
    let Some(role) = options.role else {
        return misset("role", "role: give the user one, viewer or controller");
    };
    let password = options.password.as_deref().map(PasswordHash::parse).transpose();
    let password = password.map_err(|error| Misset { key: "password", message: format!("password: {error}") })?;
    let token = match options.token.as_deref().map(TokenHash::parse) {
        Some(None) => return misset("token", "token: is no hash of a token: rov-server token makes one"),
        token => token.flatten(),
    };
    if password.is_none() && token.is_none() {
        let message = "password: give the user one (rov-server passwd), or a token (rov-server token)";
        return misset("password", message);
    }
    Ok(UserConfig { name, role, password: password.map(Password::Hash), token })
}
