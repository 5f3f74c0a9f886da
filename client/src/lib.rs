//! The ROV streamer's viewer: network to glass. See `ARCHITECTURE.md`.

pub mod align;
pub mod aligned;
pub mod app;
pub mod cli;
pub mod clock;
pub mod decode;
pub mod discovery;
pub mod display;
pub mod feed;
pub mod feeds;
pub mod find;
pub mod heard;
mod late;
mod limit;
pub mod login;
pub mod mailbox;
pub mod overlay;
pub mod receive;
pub mod reconnect;
pub mod recording;
pub mod session;
pub mod stats;
pub mod streams;
pub mod target;
pub mod told;
pub mod viewer;
pub mod whep;
