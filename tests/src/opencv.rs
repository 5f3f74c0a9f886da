//! A Python with OpenCV, which `scripts/test` prepares.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use crate::skipped;

/// The one that ROV_TEST_PYTHON names. Where there is none, it is said that `what` does not run.
pub fn python(what: &str) -> Option<OsString> {
    let python = std::env::var_os("ROV_TEST_PYTHON").filter(|python| {
        let imports = Command::new(python).args(["-c", "import cv2"]).stderr(Stdio::null()).status();
        imports.is_ok_and(|status| status.success())
    });
    if python.is_none() {
        skipped(&format!("ROV_TEST_PYTHON names no Python with OpenCV (scripts/test prepares one): {what}"));
    }
    python
}
