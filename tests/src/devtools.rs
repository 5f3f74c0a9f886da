//! Chromium under control of the test, by the DevTools protocol over a pair of pipes:
//! <https://chromedevtools.github.io/devtools-protocol/>

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::wait;

/// The descriptors at which Chromium reads commands and writes answers.
const COMMANDS_FD: libc::c_int = 3;
const ANSWERS_FD: libc::c_int = 4;

/// On a busy machine pictures are old indeed, and the viewer page says so in the place of what tests look for: it warns
/// of none, unless its address says from which age on.
const NO_MAX_AGE: &str = "{ const { get } = URLSearchParams.prototype; URLSearchParams.prototype.get = function (name) \
                          { return get.call(this, name) ?? (name === 'max-age' ? '0' : null) } }";

/// A running Chromium without a page.
pub struct DevTools {
    browser: Browser,
    commands: File,
    answers: Receiver<Value>,
    last_id: u64,
    /// What pages complained of: errors and warnings on the console, exceptions, violations of the security policy.
    complaints: Vec<String>,
}

/// A page of it.
#[derive(Clone, Debug)]
pub struct Page {
    session: String,
}

impl DevTools {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with more options of Chromium; of an option that is given twice the last counts.
    pub fn start_with(options: &[&str]) -> Self {
        let (commands_read, commands) = pipe();
        let (answers, answers_write) = pipe();
        let (read, write) = (commands_read.as_raw_fd(), answers_write.as_raw_fd());
        let browser = Browser::start(|command| {
            // SAFETY: both calls are async-signal-safe, and the descriptors are open until the child is started.
            unsafe {
                command.pre_exec(move || {
                    // Out of the way first: either may have the other's number.
                    let (read, write) = (libc::fcntl(read, libc::F_DUPFD, 10), libc::fcntl(write, libc::F_DUPFD, 10));
                    if libc::dup2(read, COMMANDS_FD) < 0 || libc::dup2(write, ANSWERS_FD) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                    libc::close(read);
                    libc::close(write);
                    Ok(())
                })
            };
            // A window with nothing in it would take as long to start as the one of the test.
            command.args(["--remote-debugging-pipe", "--no-startup-window", "--window-size=1280,800"]).args(options)
        });
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            // Ends with Chromium, which has the other end.
            for message in BufReader::new(File::from(answers)).split(0) {
                let Ok(message) = message else { return };
                let message = serde_json::from_slice(&message).expect("DevTools messages are JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Self { browser, commands: File::from(commands), answers: receiver, last_id: 0, complaints: Vec::new() }
    }

    /// Opens `url` in a window of its own.
    pub fn open(&mut self, url: &str) -> Page {
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank", "newWindow": true }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.call(None, "Target.attachToTarget", attach);
        let page = Page { session: attached["sessionId"].as_str().expect("a session").to_owned() };
        for domain in ["Page", "Runtime", "Log"] {
            self.call(Some(&page), &format!("{domain}.enable"), json!({}));
        }
        self.call(Some(&page), "Page.addScriptToEvaluateOnNewDocument", json!({ "source": NO_MAX_AGE }));
        let opened = self.call(Some(&page), "Page.navigate", json!({ "url": url }));
        assert!(opened.get("errorText").is_none(), "{url}: {opened}");
        page
    }

    /// The value of a JavaScript expression; a promise is waited for.
    pub fn evaluate(&mut self, page: &Page, expression: &str) -> Value {
        self.try_evaluate(page, expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// An error is that of the browser, not of the expression.
    fn try_evaluate(&mut self, page: &Page, expression: &str) -> Result<Value, Value> {
        let parameters =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let mut evaluated = self.ask(Some(page), "Runtime.evaluate", parameters)?;
        assert!(evaluated.get("exceptionDetails").is_none(), "{expression}: {evaluated:#}");
        Ok(evaluated["result"]["value"].take())
    }

    /// Waits until a JavaScript expression is true.
    pub fn wait_for(&mut self, page: &Page, expression: &str, limit: Duration) {
        let mut holds = || match self.try_evaluate(page, expression) {
            Ok(value) => value == true,
            // The page is loaded anew.
            Err(error) if error["message"].as_str().is_some_and(|text| text.contains("navigated")) => false,
            Err(error) => panic!("{expression}: {error}"),
        };
        if wait::within(limit, || holds().then_some(())).is_none() {
            let seen = self.evaluate(page, "document.body?.dataset.state + ': ' + document.body?.innerText");
            panic!("waited {} s for {expression}; the page shows {seen}", limit.as_secs_f64());
        }
    }

    /// Hides the page's window, or shows it again.
    pub fn show(&mut self, page: &Page, shown: bool) {
        let window = self.call(Some(page), "Browser.getWindowForTarget", json!({}));
        let state = if shown { "normal" } else { "minimized" };
        let bounds = json!({ "windowId": window["windowId"], "bounds": { "windowState": state } });
        self.call(Some(page), "Browser.setWindowBounds", bounds);
    }

    /// Any command to a page, or to the browser.
    pub fn call(&mut self, page: Option<&Page>, method: &str, parameters: Value) -> Value {
        self.ask(page, method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The result, or the error.
    fn ask(&mut self, page: Option<&Page>, method: &str, parameters: Value) -> Result<Value, Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({ "id": id, "method": method, "params": parameters });
        if let Some(page) = page {
            command["sessionId"] = json!(page.session);
        }
        let mut text = command.to_string().into_bytes();
        text.push(0);
        self.commands.write_all(&text).expect("chromium takes commands");
        loop {
            let mut answer = self.next(wait::START).unwrap_or_else(|| panic!("no answer to {method}"));
            if answer["id"] == id {
                return match answer.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }

    /// What pages complained of since this was last asked.
    pub fn complaints(&mut self) -> Vec<String> {
        // What was written before this answer has arrived with it.
        self.call(None, "Browser.getVersion", json!({}));
        std::mem::take(&mut self.complaints)
    }

    fn next(&mut self, limit: Duration) -> Option<Value> {
        match self.answers.recv_timeout(limit) {
            Ok(message) => {
                self.complaints.extend(complaint(&message));
                Some(message)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                panic!("chromium has ended; it runs: {}", self.browser.is_running())
            }
        }
    }
}

fn complaint(message: &Value) -> Option<String> {
    let parameters = &message["params"];
    let is_bad = match message["method"].as_str()? {
        "Runtime.exceptionThrown" => true,
        "Runtime.consoleAPICalled" => matches!(parameters["type"].as_str(), Some("error" | "warning" | "assert")),
        "Log.entryAdded" => matches!(parameters["entry"]["level"].as_str(), Some("error" | "warning")),
        _ => false,
    };
    is_bad.then(|| parameters.to_string())
}

/// The reading and the writing end; closed when another program is started.
fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors into the array, which nobody else has.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0, "{}", std::io::Error::last_os_error());
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}
