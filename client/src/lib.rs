
pub mod decode;
pub mod decoders;
pub mod mailbox;
