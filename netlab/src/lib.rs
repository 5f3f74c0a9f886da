//! A link that can be impaired, between a robot's end and a pilot's end on one machine, and what rov-server and its viewers make
//! of it. Nothing leaves the machine: both ends are network namespaces of this process that have only loopback and the link.

pub mod bridge;
pub mod ends;
pub mod lab;
pub mod link;
pub mod run;
pub mod soak;
pub mod spec;
pub mod stop;

use std::path::PathBuf;

/// A program of the workspace, which lies beside this one.
fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    this.with_file_name(name)
}
