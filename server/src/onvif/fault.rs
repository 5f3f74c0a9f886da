//! What a client is told where its request is not done: a SOAP fault with ONVIF's codes (Core specification, section
//! 5.8.2).

use axum::http::StatusCode;

use super::soap::{Version, escaped, tag, tag_with, value};
use crate::users::{Denied, LoginError};

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    side: Side,
    /// In the namespace of ONVIF's errors, the wider first.
    codes: &'static [&'static str],
    pub reason: String,
    pub status: StatusCode,
}

impl Fault {
    fn of_client(codes: &'static [&'static str], reason: impl ToString) -> Self {
        Self { side: Side::Client, codes, reason: reason.to_string(), status: StatusCode::BAD_REQUEST }
    }

    fn of_server(codes: &'static [&'static str], reason: impl ToString) -> Self {
        Self { side: Side::Server, codes, reason: reason.to_string(), status: StatusCode::INTERNAL_SERVER_ERROR }
    }

    pub fn malformed(reason: impl ToString) -> Self {
        Self::of_client(&["WellFormed"], reason)
    }

    pub fn not_supported(operation: &str) -> Self {
        Self::of_server(&["ActionNotSupported"], format!("operation {operation} is not supported"))
    }

    /// A part of the request is missing, or is no value of its type.
    pub fn invalid_args(reason: impl ToString) -> Self {
        Self::of_client(&["InvalidArgs"], reason)
    }

    pub fn no_profile(token: &str) -> Self {
        Self::of_client(&["InvalidArgVal", "NoProfile"], format!("no profile {token:?}"))
    }

    pub fn no_config(token: &str) -> Self {
        Self::of_client(&["InvalidArgVal", "NoConfig"], format!("no configuration {token:?}"))
    }

    /// A value that a setting cannot have.
    pub fn cannot_be(reason: impl ToString) -> Self {
        Self::of_client(&["InvalidArgVal", "ConfigModify"], reason)
    }

    pub fn no_such_stream(reason: impl ToString) -> Self {
        Self::of_client(&["InvalidArgVal", "InvalidStreamSetup"], reason)
    }

    pub fn no_service(reason: impl ToString) -> Self {
        Self::of_server(&["ActionNotSupported", "NoSuchService"], reason)
    }

    pub fn no_subscription() -> Self {
        Self::of_client(&["InvalidArgVal"], "no such subscription, or it has expired")
    }

    pub fn not_now(reason: impl ToString) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, ..Self::of_server(&["Action"], reason) }
    }

    pub fn internal(reason: impl ToString) -> Self {
        Self::of_server(&["CriticalError"], reason)
    }

    /// Who asks is not known, or may not do it.
    pub fn not_authorized(reason: impl ToString, status: StatusCode) -> Self {
        Self { status, ..Self::of_client(&["NotAuthorized"], reason) }
    }

    pub fn text(&self, version: Version) -> String {
        let reason = &self.reason;
        match version {
            Version::Soap12 => {
                let code = if self.side == Side::Client { "s:Sender" } else { "s:Receiver" };
                let within = self.codes.iter().rev().fold(String::new(), |inner, code| {
                    tag("s:Subcode", &(value("s:Value", format!("ter:{code}")) + &inner))
                });
                let code = tag("s:Code", &(value("s:Value", code) + &within));
                let text = tag_with("s:Text", r#"xml:lang="en""#, &escaped(reason));
                tag("s:Fault", &(code + &tag("s:Reason", &text)))
            }
            Version::Soap11 => {
                let code = if self.side == Side::Client { "s:Client" } else { "s:Server" };
                let subcode =
                    self.codes.last().map_or_else(String::new, |code| value("ter:Code", format!("ter:{code}")));
                let detail = if subcode.is_empty() { subcode } else { tag("detail", &subcode) };
                tag("s:Fault", &(value("faultcode", code) + &value("faultstring", reason) + &detail))
            }
        }
    }
}

impl From<&Denied> for Fault {
    fn from(denied: &Denied) -> Self {
        let status = match denied {
            Denied::NoLogin => StatusCode::UNAUTHORIZED,
            Denied::NotController(_) | Denied::NoUsers => StatusCode::FORBIDDEN,
        };
        Self::not_authorized(denied, status)
    }
}

impl From<LoginError> for Fault {
    fn from(error: LoginError) -> Self {
        let status = match error {
            LoginError::Wrong => StatusCode::BAD_REQUEST,
            LoginError::TooMany => StatusCode::TOO_MANY_REQUESTS,
            LoginError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::not_authorized(error, status)
    }
}

#[cfg(test)]
mod tests {
    use super::super::soap::{Envelope, envelope};
    use super::*;

    #[test]
    fn a_fault_has_the_form_of_its_version_of_soap() {
        let fault = Fault::cannot_be("Quality: <5>");
        let read = |version| {
            let text = envelope(version, "", &fault.text(version));
            Envelope::parse(text.as_bytes()).unwrap().body
        };
        let new = read(Version::Soap12);
        let code = new.child("Code").unwrap();
        let subcode = code.child("Subcode").unwrap();
        assert_eq!((code.value("Value"), subcode.value("Value")), (Some("s:Sender"), Some("ter:InvalidArgVal")));
        assert_eq!(subcode.child("Subcode").unwrap().value("Value"), Some("ter:ConfigModify"));
        assert_eq!(new.child("Reason").unwrap().value("Text"), Some("Quality: <5>"));
        let old = read(Version::Soap11);
        assert_eq!((old.value("faultcode"), old.value("faultstring")), (Some("s:Client"), Some("Quality: <5>")));
        assert_eq!(old.child("detail").unwrap().value("Code"), Some("ter:ConfigModify"));
    }
}
