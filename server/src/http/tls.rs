//! HTTPS. The certificate is the user's, or the one that clients know the server by anyway (`identity`): nothing else
//! has to be made, kept and told. Whoever asks in clear on the same port is led to HTTPS and gets nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use ring::digest;
use rov_common::discovery::key_of;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use super::access::{Access, guard};
use super::failure::fail;
use crate::identity::Identity;

/// The first byte of a TLS connection: a handshake record.
const HANDSHAKE: u8 = 22;

/// The user's own certificate, with those between it and its root, and its key: two files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    fingerprint: String,
}

impl Tls {
    /// With the server's own certificate, unless the user has one.
    ///
    /// # Errors
    /// Names the file that cannot be read, or that is none.
    pub fn new(files: Option<&CertificateFiles>, identity: &Identity) -> Result<Self> {
        let (certificates, key) = match files {
            Some(CertificateFiles { certificate, key: file }) => {
                let read = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                let certificates = read.with_context(|| format!("--tls-certificate {}", certificate.display()))?;
                let key = PrivateKeyDer::from_pem_file(file);
                (certificates, key.with_context(|| format!("--tls-key {}", file.display()))?)
            }
            None => {
                let pem = identity.pem()?;
                let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
                let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
                (read.context("the server's certificate")?, key.context("the server's key")?)
            }
        };
        let first = certificates.first().context("--tls-certificate: the file has no certificate")?;
        let digest: String =
            digest::digest(&digest::SHA256, first).as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let fingerprint = key_of(&digest).context("no fingerprint")?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .context("the certificate and its key cannot be used")?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), fingerprint })
    }

    /// SHA-256 of the certificate, as announcements carry it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether the peer speaks TLS; none where it says nothing within `limit`.
    pub async fn is_wanted(stream: &TcpStream, limit: Duration) -> Option<bool> {
        let mut first = [0];
        match tokio::time::timeout(limit, stream.peek(&mut first)).await {
            Ok(Ok(1)) => Some(first[0] == HANDSHAKE),
            _ => None,
        }
    }

    /// None where it does not come about within `limit`.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, io: S, limit: Duration) -> Option<TlsStream<S>> {
        match tokio::time::timeout(limit, self.acceptor.accept(io)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }
}

/// What who asks in clear is told, by a name of this machine.
pub(super) fn to_https(access: Arc<Access>) -> Router {
    let to_https = Router::new().fallback(|uri: Uri, headers: HeaderMap| async move { moved(&uri, &headers) });
    to_https.layer(middleware::from_fn_with_state(access, guard))
}

fn moved(uri: &Uri, headers: &HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let place = format!("https://{host}{}", uri.path_and_query().map_or("/", |path| path.as_str()));
    let reason = format!("this server speaks HTTPS alone: {place}");
    match HeaderValue::from_str(&place) {
        Ok(place) if !host.is_empty() => {
            ([(header::LOCATION, place)], fail(StatusCode::PERMANENT_REDIRECT, &reason)).into_response()
        }
        _ => fail(StatusCode::BAD_REQUEST, &reason),
    }
}
