//! A link that can be impaired, between a robot's end and a pilot's end on one machine, and what rov-server and its
//! viewers make of it. Nothing leaves the machine: both ends are network namespaces of this process that have only
//! loopback and the link.

pub mod bench;
pub mod bridge;
pub mod ends;
pub mod events;
pub mod figures;
pub mod lab;
pub mod link;
mod recorded;
pub mod report;
pub mod rows;
pub mod run;
pub mod seen;
pub mod soak;
pub mod spec;
pub mod steady;
mod torn;
pub mod watch;
