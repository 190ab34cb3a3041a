//! The listener's certificate: PEM files, TLS 1.2 or later, HTTP/2 offered by ALPN.

use std::path::Path;
use std::sync::Arc;

use caracal_host::config::Tls;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why there is no certificate. The texts name files, never keys.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}: {why}")]
pub struct TlsError {
    what: &'static str,
    path: String,
    why: String,
}

fn fail(what: &'static str, path: &Path, why: impl std::fmt::Display) -> TlsError {
    TlsError { what, path: path.display().to_string(), why: format!("{why}") }
}

/// Reads certificate and key.
pub fn load(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect)
        .map_err(|e| fail("cannot read the certificate", &tls.certificate, e))?;
    if chain.is_empty() {
        return Err(fail("no certificate in", &tls.certificate, "the file has no CERTIFICATE block"));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| fail("cannot read the private key", &tls.key, e))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| fail("cannot use", &tls.certificate, e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| fail("certificate and key do not fit together:", &tls.certificate, e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
