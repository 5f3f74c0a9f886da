
pub mod decode;
pub mod decoders;
pub mod discovery;
pub mod display;
pub mod mailbox;
pub mod overlay;
pub mod receive;
pub mod whep;
pub mod app;
pub mod cli;
pub mod reconnect;
pub mod session;
pub mod stats;
pub mod viewer;
