//! A small ONVIF client, for tests alone, and those that others wrote, which `scripts/test` prepares.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rov_server::onvif::auth::password_digest;
use rov_server::onvif::soap::{Element, Envelope};
use rov_server::onvif::time::written;

use crate::http::{self, Reply};
use crate::skipped;

pub const DEVICE: &str = "http://www.onvif.org/ver10/device/wsdl";
pub const MEDIA: &str = "http://www.onvif.org/ver10/media/wsdl";
pub const MEDIA2: &str = "http://www.onvif.org/ver20/media/wsdl";
pub const EVENTS: &str = "http://www.onvif.org/ver10/events/wsdl";
pub const NOTIFICATION: &str = "http://docs.oasis-open.org/wsn/b-2";
pub const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
pub const SOAP_12: &str = "http://www.w3.org/2003/05/soap-envelope";

const SECURITY: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
const UTILITY: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";

/// A message with the element `name` of `namespace`, and `within` that, whose elements have no prefix and so its
/// namespace.
pub fn message(header: &str, namespace: &str, name: &str, within: &str) -> String {
    format!(
        r#"<s:Envelope xmlns:s="{SOAP_12}"><s:Header>{header}</s:Header><s:Body><{name} xmlns="{namespace}">{within}</{name}></s:Body></s:Envelope>"#
    )
}

/// The header of WS-Security with a digest that nobody has used.
pub fn digest(user: &str, password: &str) -> String {
    digest_at(user, password, SystemTime::now(), &rand::random::<[u8; 16]>())
}

/// The same, made by a clock that shows this time.
pub fn digest_at(user: &str, password: &str, now: SystemTime, nonce: &[u8]) -> String {
    let created = written(now);
    let digest = password_digest(nonce, &created, password);
    let nonce = STANDARD.encode(nonce);
    let password = format!(
        r#"<Password Type="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0#PasswordDigest">{digest}</Password>"#
    );
    token(&format!(
        r#"<Username>{user}</Username>{password}<Nonce>{nonce}</Nonce><u:Created xmlns:u="{UTILITY}">{created}</u:Created>"#
    ))
}

/// The header of WS-Security with a password in clear.
pub fn clear(user: &str, password: &str) -> String {
    token(&format!("<Username>{user}</Username><Password>{password}</Password>"))
}

fn token(within: &str) -> String {
    format!(r#"<Security xmlns="{SECURITY}"><UsernameToken>{within}</UsernameToken></Security>"#)
}

/// Posts a message; `headers` of HTTP beside its type.
pub fn post(url: &str, headers: &[(&str, &str)], message: &str) -> Reply {
    let kind = [("Content-Type", "application/soap+xml; charset=utf-8")];
    http::request_with("POST", url, &[&kind, headers].concat(), message.as_bytes())
}

/// What is in the body of an answer.
///
/// # Panics
/// Where that is no SOAP.
pub fn body(reply: &Reply) -> Element {
    Envelope::parse(reply.body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {reply:?}")).body
}

/// The inmost code of a fault, and its reason.
pub fn fault(reply: &Reply) -> (String, String) {
    let fault = body(reply);
    assert_eq!(fault.name, "Fault", "{reply:?}");
    let mut code = fault.child("Code").expect("a code");
    while let Some(inner) = code.child("Subcode") {
        code = inner;
    }
    let reason = fault.child("Reason").and_then(|reason| reason.value("Text"));
    (code.value("Value").unwrap_or_default().to_owned(), reason.unwrap_or_default().to_owned())
}

/// The Python with onvif-zeep that `ROV_TEST_ONVIF` names. Where there is none, that is said.
pub fn python() -> Option<OsString> {
    let python = std::env::var_os("ROV_TEST_ONVIF").filter(|python| {
        let imports = Command::new(python).args(["-c", "import onvif"]).output();
        imports.is_ok_and(|output| output.status.success())
    });
    if python.is_none() {
        skipped("ROV_TEST_ONVIF names no Python with onvif-zeep (scripts/test prepares one)");
    }
    python
}

/// onvif-util of Debian's onvif-tools, in the folder that `ROV_TEST_ONVIF_UTIL` names, with its library. Where there is
/// none, that is said.
pub fn util() -> Option<Command> {
    let folder = std::env::var_os("ROV_TEST_ONVIF_UTIL").map(PathBuf::from);
    let Some(folder) = folder.filter(|folder| folder.join("onvif-util").exists()) else {
        skipped("ROV_TEST_ONVIF_UTIL names no folder with onvif-util (scripts/test prepares one)");
        return None;
    };
    let mut command = Command::new(folder.join("onvif-util"));
    command.env("LD_LIBRARY_PATH", folder);
    Some(command)
}
