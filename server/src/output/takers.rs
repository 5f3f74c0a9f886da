//! Who is sent a stream as it is, by the outputs that cannot send less of it over a slow link: plain RTP and RTSP.

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

#[derive(Debug, Default)]
pub struct Takers {
    /// Destinations, which stay.
    rtp: Vec<Taker>,
    rtsp: Mutex<Vec<Taker>>,
}

impl Takers {
    pub fn new(rtp: Vec<Taker>) -> Self {
        Self { rtp, rtsp: Mutex::default() }
    }

    /// Those that play now.
    pub fn set_rtsp(&self, takers: Vec<Taker>) {
        *lock(&self.rtsp) = takers;
    }

    pub fn all(&self) -> Vec<Taker> {
        [&self.rtp[..], &lock(&self.rtsp)].concat()
    }
}
