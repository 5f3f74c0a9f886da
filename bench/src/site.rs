//! Where sender and receiver are: on loopback, at the two ends of a link that may be impaired (`netlab`), or both at
//! one end of it, with the other end for who has a link of its own.

use std::process::Command;

use anyhow::{Context, Result};
use netlab::ends::DEVICE;
use netlab::lab::{Lab, ROV, TOPSIDE};

use crate::system::interface_bytes;

pub enum Site {
    Loopback,
    Link(Box<Lab>),
    Interface(Box<Lab>),
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

    /// A machine with an interface, which leads to such a link.
    pub fn interface_to(link: &str) -> Result<Self> {
        let lab = Lab::start(0).context("a network of our own with an interface")?;
        lab.link(link)?;
        Ok(Self::Interface(Box::new(lab)))
    }

    pub fn server(&self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Link(_) | Self::Interface(_) => ROV,
        }
    }

    pub fn client(&self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Link(_) => TOPSIDE,
            Self::Interface(_) => ROV,
        }
    }

    /// That has the addresses.
    pub fn interface(&self) -> &'static str {
        match self {
            Self::Loopback => "lo",
            Self::Link(_) | Self::Interface(_) => DEVICE,
        }
    }

    /// Has `command` run on the sender's side.
    pub fn place_server(&self, command: &mut Command) {
        if let Self::Link(lab) | Self::Interface(lab) = self {
            lab.rov.place(command);
        }
    }

    /// Has `command` run on the receiver's side.
    pub fn place_client(&self, command: &mut Command) {
        match self {
            Self::Loopback => {}
            Self::Link(_) => self.place_at_far_end(command),
            Self::Interface(_) => self.place_server(command),
        }
    }

    /// Has `command` run behind the link.
    pub fn place_at_far_end(&self, command: &mut Command) {
        if let Self::Link(lab) | Self::Interface(lab) = self {
            lab.topside.place(command);
        }
    }

    /// Does this in the network of the sender.
    pub fn at_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        match self {
            Self::Loopback => Ok(work()),
            Self::Link(lab) | Self::Interface(lab) => lab.rov.enter(work),
        }
    }

    /// Bytes in both directions so far between the two sides, with the headers of IP and Ethernet.
    pub fn wire_bytes(&self) -> Result<u64> {
        let interface = if matches!(self, Self::Link(_)) { DEVICE } else { "lo" };
        let [received, sent] = self.at_server(|| interface_bytes(interface))??;
        // Loopback receives what it sends.
        Ok(if interface == DEVICE { received + sent } else { sent })
    }
}
