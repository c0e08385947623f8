//! TLS: what encrypts connections, by a certificate that may be renewed while they go on.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// A certificate with its chain, and its key.
#[derive(Debug, Clone)]
pub struct Identity(Arc<ServerConfig>);

/// A certificate or its key can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text holds no certificate.
    #[error("no certificate in PEM, `-----BEGIN CERTIFICATE-----`")]
    NoCertificate,
    /// The text holds no private key.
    #[error("no private key in PEM, `-----BEGIN PRIVATE KEY-----`")]
    NoKey,
    /// They are of no use together, or at all.
    #[error("certificate and key can't be used: {0}")]
    Unusable(String),
}

impl Identity {
    /// Reads a certificate, those of its chain behind it, and its key. TLS 1.2 and 1.3 are spoken with it.
    ///
    /// # Errors
    /// [`IdentityError`]; also if the key is of another certificate.
    pub fn parse(certificates: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(|_| IdentityError::NoCertificate)?;
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| IdentityError::NoKey)?;
        let unusable = |error: rustls::Error| IdentityError::Unusable(error.to_string());
        let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let mut config = versions.with_no_client_auth().with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

/// Encrypts connections, each by what is in force as it begins.
#[derive(Debug, Clone)]
pub struct Tls(pub watch::Receiver<Identity>);

impl Tls {
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.0.borrow().0);
        TlsAcceptor::from(config).accept(stream).await
    }
}
