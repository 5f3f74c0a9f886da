
pub mod decode;
pub mod decoders;
pub mod discovery;
pub mod mailbox;
pub mod receive;
pub mod whep;
