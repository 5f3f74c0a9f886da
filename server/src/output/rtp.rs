//! Plain RTP to multicast groups and unicast addresses.

use std::sync::Arc;

use anyhow::Result;
use rov_common::api::RtpStats;
use rov_common::discovery::RtpInfo;

use crate::config::RtpConfig;
use crate::stream::Stream;

pub struct RtpOutput {
    info: RtpInfo,
}

impl RtpOutput {
    pub fn start(_stream: &Arc<Stream>, config: RtpConfig, _interfaces: Vec<String>) -> Result<Self> {
        Ok(Self { info: RtpInfo { host: config.hosts[0], port: config.port, fec: config.fec_percent.is_some() } })
    }

    /// For the announcement.
    pub fn info(&self) -> RtpInfo {
        self.info
    }

    pub fn stats(&self) -> RtpStats {
        RtpStats::default()
    }

    /// True when its thread has ended although nobody asked it to.
    pub fn has_died(&self) -> bool {
        false
    }

    /// Tells the receivers (RTCP BYE) and ends.
    pub fn shutdown(&self) {}
}
