//! Chromium as a pilot has it, in fullscreen on the virtual screen. It takes no address of loopback for WebRTC, so it
//! is at one end of a link (`site`).

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::point::Point;
use crate::system::program;

/// What lies over the picture on the viewer's page, as the buttons, may cover so many patches.
pub const COVERED_PATCHES: usize = 8;

/// Opens `url`, with a profile of its own in `profile`.
pub fn command(url: &str, point: &Point, profile: &Path) -> Result<Command> {
    let mut command = Command::new(program("chromium")?);
    command
        .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--disable-sync"])
        .args(["--no-first-run", "--no-default-browser-check", "--disable-extensions", "--password-store=basic"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-default-apps"])
        .args(["--autoplay-policy=no-user-gesture-required", "--force-device-scale-factor=1"])
        .arg("--disable-features=WebRtcHideLocalIpsWithMdns,OptimizationHints,MediaRouter,Translate")
        .args(["--kiosk", "--window-position=0,0", &format!("--window-size={},{}", point.width, point.height)])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--app={url}"))
        .env("HOME", profile)
        .env("TMPDIR", profile)
        .env_remove("WAYLAND_DISPLAY");
    Ok(command)
}
