//! Where sender and receiver are: on loopback, or at the two ends of a link that is impaired (`netlab`).

use std::process::Command;

use anyhow::{Context, Result};
use netlab::ends::DEVICE;
use netlab::lab::{Lab, ROV, TOPSIDE};

use crate::system::interface_bytes;

pub enum Site {
    Loopback,
    Link(Box<Lab>),
}

impl Site {
    /// A link as `impair` says, one setting each. The same seed makes the same losses.
    pub fn link(impair: &[String], seed: u64) -> Result<Self> {
        let lab = Lab::start(seed).context("a link between two networks of our own")?;
        for spec in impair {
            lab.link(spec).with_context(|| format!("--impair {spec:?}"))?;
        }
        Ok(Self::Link(Box::new(lab)))
    }

    pub fn server(&self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Link(_) => ROV,
        }
    }

    pub fn client(&self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Link(_) => TOPSIDE,
        }
    }

    pub fn interface(&self) -> &'static str {
        match self {
            Self::Loopback => "lo",
            Self::Link(_) => DEVICE,
        }
    }

    /// Has `command` run on the sender's side.
    pub fn place_server(&self, command: &mut Command) {
        if let Self::Link(lab) = self {
            lab.rov.place(command);
        }
    }

    /// Has `command` run on the receiver's side.
    pub fn place_client(&self, command: &mut Command) {
        if let Self::Link(lab) = self {
            lab.topside.place(command);
        }
    }

    /// Does this in the network of the sender.
    pub fn at_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        match self {
            Self::Loopback => Ok(work()),
            Self::Link(lab) => lab.rov.enter(work),
        }
    }

    /// Bytes in both directions so far, with the headers of IP and Ethernet.
    pub fn wire_bytes(&self) -> Result<u64> {
        let [received, sent] = self.at_server(|| interface_bytes(self.interface()))??;
        // Loopback receives what it sends.
        Ok(if matches!(self, Self::Loopback) { sent } else { received + sent })
    }
}
