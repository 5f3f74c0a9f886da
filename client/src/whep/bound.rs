//! HTTP by the network interface that the user named: `ureq` has no such option.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rov_common::net;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

/// For a host name without an address.
const NO_ADDRESS: &str = "the host has no address";

/// Connects by one of these interfaces.
#[derive(Debug)]
pub struct BoundConnector {
    pub interfaces: Vec<String>,
}

impl<In: Transport> Connector<In> for BoundConnector {
    type Out = Either<In, BoundTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if let Some(chained) = chained {
            return Ok(Some(Either::A(chained)));
        }
        let limit = details.timeout.not_zero().map(|limit| *limit);
        let mut failed = Error::Io(io::Error::new(ErrorKind::NotFound, NO_ADDRESS));
        for address in details.addrs.iter() {
            match self.open(*address, limit) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let config = details.config;
                    let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(Either::B(BoundTransport { stream, buffers })));
                }
                Err(error) if is_late(&error) => failed = Error::Timeout(Timeout::Connect),
                Err(error) => failed = error.into(),
            }
        }
        Err(failed)
    }
}

impl BoundConnector {
    fn open(&self, address: SocketAddr, limit: Option<Duration>) -> io::Result<TcpStream> {
        match (net::interface_to(&self.interfaces, address.ip())?, limit) {
            (Some(interface), limit) => net::connect_by(&interface, address, limit),
            (None, Some(limit)) => TcpStream::connect_timeout(&address, limit),
            (None, None) => TcpStream::connect(address),
        }
    }
}

/// The system has one word or the other for it.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

#[derive(Debug)]
pub struct BoundTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for BoundTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(timeout.not_zero().map(|limit| *limit))?;
        let sent = self.stream.write_all(&self.buffers.output()[..amount]);
        sent.map_err(|error| if is_late(&error) { Error::Timeout(timeout.reason) } else { error.into() })
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        self.stream.set_read_timeout(timeout.not_zero().map(|limit| *limit))?;
        let length = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_late(&error) => return Err(Error::Timeout(timeout.reason)),
                Err(error) => return Err(error.into()),
            }
        };
        self.buffers.input_appended(length);
        Ok(length > 0)
    }

    /// Each request has an agent of its own, and no connection is used twice.
    fn is_open(&mut self) -> bool {
        false
    }
}
