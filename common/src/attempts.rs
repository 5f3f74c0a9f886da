//! Which requests to a camera are still sent. GStreamer's `rtspsrc` alone sends a wrong password up to nine times with
//! each request, also with those that end a session, and follows redirections for ever; cameras lock out whoever gives
//! a wrong password too often.

/// Of one request in a row: without a password or with an old nonce, with the password, and once more.
const MAX_IN_A_ROW: u32 = 3;
/// Of one that ends a session, for whose answer nobody waits: without a password or with an old nonce, and with the
/// password.
const MAX_GOODBYES: u32 = 2;
/// Each begins with OPTIONS: the first, TCP after UDP in vain, and four redirections.
const MAX_OPENINGS: u32 = 6;

/// A request, as far as it tells a repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As `DESCRIBE`.
    pub method: String,
    pub address: String,
    /// What SETUP asks for; a camera that has no UDP is asked again for TCP.
    pub transport: Option<String>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Send,
    /// It is not needed, or not worth another try.
    LeaveOut,
    /// The session fails, which is said once: the camera goes on refusing the password.
    Denied,
    /// The same: the camera redirects again and again.
    Astray,
}

/// The requests of one `rtspsrc`.
#[derive(Debug, Default)]
pub struct Attempts {
    last: Option<Request>,
    in_a_row: u32,
    openings: u32,
    has_failed: bool,
}

impl Attempts {
    /// To be asked before each request, also before one is repeated.
    pub fn judge(&mut self, request: Request) -> Verdict {
        let is_repeated = self.last.as_ref() == Some(&request);
        self.in_a_row = if is_repeated { self.in_a_row + 1 } else { 1 };
        if request.method == "OPTIONS" && !is_repeated {
            self.openings += 1;
        }
        let verdict = match request.method.as_str() {
            // On the way to the end `rtspsrc` pauses, and then sends TEARDOWN.
            "PAUSE" => Verdict::LeaveOut,
            "TEARDOWN" if self.in_a_row > MAX_GOODBYES => Verdict::LeaveOut,
            "TEARDOWN" => Verdict::Send,
            _ if self.has_failed => Verdict::LeaveOut,
            _ if self.in_a_row > MAX_IN_A_ROW => Verdict::Denied,
            _ if self.openings > MAX_OPENINGS => Verdict::Astray,
            _ => Verdict::Send,
        };
        self.has_failed |= matches!(verdict, Verdict::Denied | Verdict::Astray);
        self.last = Some(request);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, address: &str, transport: Option<&str>) -> Request {
        Request { method: method.to_owned(), address: address.to_owned(), transport: transport.map(str::to_owned) }
    }

    fn sent(attempts: &mut Attempts, requests: &[(&str, &str)]) -> Vec<Verdict> {
        requests.iter().map(|(method, address)| attempts.judge(request(method, address, None))).collect()
    }

    #[test]
    fn a_refused_password_is_given_twice_and_with_a_goodbye_once() {
        let mut attempts = Attempts::default();
        let verdicts =
            sent(&mut attempts, &[("OPTIONS", "a"), ("DESCRIBE", "a"), ("DESCRIBE", "a"), ("DESCRIBE", "a")]);
        assert_eq!(verdicts, [Verdict::Send; 4]);
        assert_eq!(sent(&mut attempts, &[("DESCRIBE", "a"), ("DESCRIBE", "a")]), [Verdict::Denied, Verdict::LeaveOut]);
        let goodbye = sent(&mut attempts, &[("PAUSE", "a"), ("TEARDOWN", "a"), ("TEARDOWN", "a"), ("TEARDOWN", "a")]);
        assert_eq!(goodbye, [Verdict::LeaveOut, Verdict::Send, Verdict::Send, Verdict::LeaveOut]);
    }

    #[test]
    fn a_redirection_counts_anew_and_there_are_not_many() {
        let mut attempts = Attempts::default();
        for address in ["a", "b", "c", "d", "e", "a"] {
            let opening = [("OPTIONS", address), ("DESCRIBE", address), ("DESCRIBE", address), ("DESCRIBE", address)];
            assert_eq!(sent(&mut attempts, &opening), [Verdict::Send; 4], "{address}");
        }
        assert_eq!(sent(&mut attempts, &[("OPTIONS", "b"), ("DESCRIBE", "b")]), [Verdict::Astray, Verdict::LeaveOut]);
    }

    #[test]
    fn another_transport_is_another_request() {
        let mut attempts = Attempts::default();
        for transport in ["RTP/AVP;unicast", "RTP/AVP;multicast", "RTP/AVP/TCP"] {
            let setup = || request("SETUP", "a/stream=0", Some(transport));
            assert_eq!([(); 3].map(|()| attempts.judge(setup())), [Verdict::Send; 3], "{transport}");
        }
    }
}
