//! Whom TLS believes: the system's roots and the operator's extra file. Read when first needed, because many processes never dial TLS.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::DialError;

/// The trust of a process. Cheap to clone; clones share what was read.
#[derive(Clone, Debug)]
pub struct Trust {
    extra: Option<PathBuf>,
    config: Arc<OnceLock<Result<Arc<ClientConfig>, String>>>,
}

impl Trust {
    /// The system's roots and, if the file exists, what is in it. A file that exists and cannot be used refuses every connection.
    pub fn new(extra: Option<PathBuf>) -> Self {
        Self { extra, config: Arc::default() }
    }

    /// The TLS configuration: HTTP/2 and HTTP/1.1 by ALPN, TLS 1.2 or later.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, DialError> {
        self.config.get_or_init(|| self.build()).clone().map_err(DialError::Trust)
    }

    fn build(&self) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &self.extra {
            match std::fs::read(path) {
                Ok(pem) => {
                    let mut found = 0;
                    for certificate in CertificateDer::pem_slice_iter(&pem) {
                        let certificate = certificate.map_err(|e| format!("{}: {e}", path.display()))?;
                        roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
                        found += 1;
                    }
                    if found == 0 {
                        return Err(format!("{} holds no certificate", path.display()));
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(format!("{} cannot be read: {e}", path.display())),
            }
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_extra_file_is_ignored_and_a_broken_one_refuses_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("extra.pem");
        assert!(Trust::new(Some(path.clone())).config().is_ok());
        for broken in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&path, broken).unwrap();
            assert!(matches!(Trust::new(Some(path.clone())).config(), Err(DialError::Trust(_))), "{broken}");
        }
    }
}
