//! Who watches: what servers that ask for a login are given.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rov_common::camera::Credentials;

/// RTSP knows no tokens: there one stands for the password, and rov-server takes it with any name.
const NAME_OF_TOKEN: &str = "token";

#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Password(Credentials),
    Token(String),
}

/// Without what is secret, as this may go into logs.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password",
            Self::Token(_) => "Token",
        })
    }
}

impl Login {
    /// The value of `Authorization` by HTTP.
    pub fn header(&self) -> String {
        match self {
            Self::Password(Credentials { user, password }) => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            Self::Token(token) => format!("Bearer {token}"),
        }
    }

    pub fn for_rtsp(&self) -> Credentials {
        match self {
            Self::Password(credentials) => credentials.clone(),
            Self::Token(token) => Credentials { user: NAME_OF_TOKEN.to_owned(), password: token.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_given_as_each_protocol_takes_it_and_shown_by_none() {
        let password = Login::Password(Credentials { user: "pilot".to_owned(), password: "deep: sea".to_owned() });
        assert_eq!(password.header(), "Basic cGlsb3Q6ZGVlcDogc2Vh");
        let token = Login::Token("rov_abc".to_owned());
        assert_eq!(token.header(), "Bearer rov_abc");
        assert_eq!(token.for_rtsp().password, "rov_abc");
        assert!(!format!("{password:?} {token:?}").contains("deep") && !format!("{token:?}").contains("rov_abc"));
    }
}
