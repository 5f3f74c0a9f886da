//! WHEP before Janus, so that rov-client can watch what its streaming plugin has: that offers, as rov-client does. Each
//! gets an answer made of what the other one offers. Janus does ICE lite, so that who controls is settled.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rov_tests::http as client;
use serde_json::{Value, json};

use super::http::{self, Reply};
use super::{READY, RoleArgs};

/// Of the only mountpoint.
const STREAM: u64 = 1;
const PAYLOAD_TYPE: u8 = 96;
const FORMAT: &str = "profile-level-id=42e034;packetization-mode=1";
/// Not needed. Without a configuration some of them crash Janus at its start.
const PLUGINS: [&str; 11] = [
    "audiobridge",
    "duktape",
    "echotest",
    "lua",
    "nosip",
    "recordplay",
    "sip",
    "textroom",
    "videocall",
    "videoroom",
    "voicemail",
];
const TRANSPORTS: [&str; 5] = ["mqtt", "nanomsg", "pfunix", "rabbitmq", "websockets"];

/// Where Janus listens.
pub struct Place<'a> {
    pub host: &'a str,
    /// Of the address.
    pub interface: &'a str,
    pub http_port: u16,
    /// For the RTP that it passes on.
    pub rtp_port: u16,
}

impl Place<'_> {
    /// Of Janus's HTTP API.
    pub fn api(&self) -> String {
        format!("http://{}:{}/janus", self.host, self.http_port)
    }

    /// Writes the files that Janus reads in the folder that `--configs-folder` names.
    pub fn configure(&self, folder: &Path) -> Result<()> {
        let Self { host, interface, http_port, rtp_port } = self;
        let nat = format!("nat: {{ ice_lite = true, ice_enforce_list = \"{interface}\" }}");
        let http = format!("general: {{ http = true, ip = \"{host}\", port = {http_port} }}");
        let clip = format!(
            "clip: {{ type = \"rtp\", id = {STREAM}, audio = false, video = true, videoiface = \"{host}\", \
             videoport = {rtp_port}, videopt = {PAYLOAD_TYPE}, videocodec = \"h264\", videofmtp = \"{FORMAT}\" }}"
        );
        // Its errors alone; no session ends because nobody asks for its events.
        let general = "general: { debug_level = 2, session_timeout = 0 }";
        let disabled = |kind, names: &[&str]| {
            let libraries: Vec<String> = names.iter().map(|name| format!("libjanus_{name}.so")).collect();
            format!("{kind}: {{ disable = \"{}\" }}", libraries.join(","))
        };
        let janus = [general, &nat, &disabled("plugins", &PLUGINS), &disabled("transports", &TRANSPORTS)].join("\n");
        for (name, text) in [("janus", janus), ("janus.transport.http", http), ("janus.plugin.streaming", clip)] {
            let file = folder.join(format!("{name}.jcfg"));
            std::fs::write(&file, text + "\n").with_context(|| file.display().to_string())?;
        }
        Ok(())
    }
}

/// Opens `/whep` at the address `server` and `port`, for the Janus whose HTTP API is at `api`.
pub fn serve(args: &RoleArgs) -> Result<()> {
    let listener = http::listen(args.server, args.port)?;
    eprintln!("{READY}");
    http::serve(&listener, |method, path, body| match (method, path) {
        ("POST", "/whep") => {
            let headers = "Content-Type: application/sdp\r\nLocation: /whep/viewer\r\n".to_owned();
            Ok(Some(Reply { status: "201 Created", headers, body: watch(&args.api, body)? }))
        }
        _ => Ok(None),
    });
    Ok(())
}

/// Has Janus send to who offers this, who gets the answer.
fn watch(api: &str, offer: &str) -> Result<String> {
    let id = |reply: Value| reply["data"]["id"].as_u64().with_context(|| format!("no id in {reply}"));
    let session = format!("{api}/{}", id(ask("POST", api, json!({ "janus": "create" }))?)?);
    let attach = json!({ "janus": "attach", "plugin": "janus.plugin.streaming" });
    let handle = format!("{session}/{}", id(ask("POST", &session, attach)?)?);
    ask("POST", &handle, json!({ "janus": "message", "body": { "request": "watch", "id": STREAM } }))?;
    let event = ask("GET", &session, Value::Null)?;
    let offered = event["jsep"]["sdp"].as_str().with_context(|| format!("no offer in {event}"))?;
    let viewers = json!({ "type": "answer", "sdp": answer(offered, offer, "recvonly", "active")? });
    ask("POST", &handle, json!({ "janus": "message", "body": { "request": "start" }, "jsep": viewers }))?;
    answer(offer, offered, "sendonly", "passive")
}

fn ask(method: &str, url: &str, mut body: Value) -> Result<Value> {
    let body = match &mut body {
        Value::Object(fields) => {
            fields.insert("transaction".to_owned(), json!("bench"));
            body.to_string()
        }
        _ => String::new(),
    };
    let reply = client::try_request(method, url, Some("application/json"), body.as_bytes())?;
    let value: Value = serde_json::from_str(&reply.body)?;
    ensure!(value["janus"] != "error", "{method} {url} {body}: {value}");
    Ok(value)
}

/// An answer to `offer` by who has offered `own`: one video of H.264, without header extensions.
fn answer(offer: &str, own: &str, direction: &str, setup: &str) -> Result<String> {
    const KEPT: [&str; 5] = ["a=ice-lite", "a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=candidate:"];
    let mid = offer.lines().find_map(|line| line.strip_prefix("a=mid:")).context("an offer without a=mid")?;
    let kept = KEPT.iter().flat_map(|name| own.lines().filter(move |line| line.starts_with(name)));
    let (mut session, mut media) = (String::new(), String::new());
    for line in kept {
        let part = if line == "a=ice-lite" { &mut session } else { &mut media };
        *part += &format!("{line}\r\n");
    }
    let number = PAYLOAD_TYPE;
    Ok(format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{session}a=group:BUNDLE {mid}\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF {number}\r\nc=IN IP4 127.0.0.1\r\na=mid:{mid}\r\na={direction}\r\n\
         a=rtcp-mux\r\na=setup:{setup}\r\n{media}a=rtpmap:{number} H264/90000\r\na=fmtp:{number} {FORMAT}\r\n\
         a=rtcp-fb:{number} nack\r\na=rtcp-fb:{number} nack pli\r\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_others_name_of_the_video_and_its_own_credentials() {
        let offer = "v=0\r\na=ice-ufrag:other\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:v\r\na=extmap:2 x\r\n";
        let own =
            "v=0\r\na=ice-lite\r\nm=video 9 x 96\r\na=mid:0\r\na=ice-ufrag:own\r\na=candidate:1 1 udp 1 ::1 9\r\n";
        let answer = answer(offer, own, "sendonly", "passive").unwrap();
        let lines: Vec<&str> = answer.lines().collect();
        let at =
            |line: &str| lines.iter().position(|other| *other == line).unwrap_or_else(|| panic!("{line}: {answer}"));
        let video = at("m=video 9 UDP/TLS/RTP/SAVPF 96");
        assert!(at("a=ice-lite") < video && at("a=group:BUNDLE v") < video);
        for line in ["a=mid:v", "a=ice-ufrag:own", "a=candidate:1 1 udp 1 ::1 9", "a=sendonly", "a=setup:passive"] {
            assert!(at(line) > video);
        }
        assert!(!answer.contains("other") && !answer.contains("extmap"), "{answer}");
        assert!(super::answer("v=0\r\n", own, "sendonly", "passive").is_err());
    }
}
