//! Who is sent a stream as it is, by the outputs that cannot send less of it over a slow link: plain RTP and RTSP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;

use rov_common::sync::lock;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taker {
    /// None: a group, which everybody's link carries.
    pub address: Option<IpAddr>,
    /// In the catalogue.
    pub stream: usize,
    /// How many times the stream's bit rate is sent, with packets for repair.
    pub factor: f64,
}

impl Taker {
    pub fn at(destination: IpAddr, stream: usize, factor: f64) -> Self {
        Self { address: Some(destination).filter(|address| !address.is_multicast()), stream, factor }
    }
}

/// Of each output, by its name.
#[derive(Debug, Default)]
pub struct Takers(Mutex<BTreeMap<&'static str, Vec<Taker>>>);

impl Takers {
    /// Those of this output now.
    pub fn set(&self, output: &'static str, takers: Vec<Taker>) {
        lock(&self.0).insert(output, takers);
    }

    pub fn all(&self) -> Vec<Taker> {
        lock(&self.0).values().flatten().copied().collect()
    }
}
