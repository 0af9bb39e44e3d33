//! Trust in servers, without files of the image: Mozilla's roots are in the program.
//!
//! `SSL_CERT_FILE` names certificates that are trusted in their place, as OpenSSL has it.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Why no connection can be secured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("Cannot read the certificates of SSL_CERT_FILE, {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("SSL_CERT_FILE, {path}, has no certificate that can be used")]
    Empty { path: PathBuf },
    #[error("Cannot use TLS")]
    Versions(#[source] rustls::Error),
}

/// What clients trust.
///
/// # Errors
/// See [`TlsError`].
pub(crate) fn config(cert_file: Option<PathBuf>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    match cert_file {
        Some(path) => {
            let failed = |source| TlsError::Read {
                path: path.clone(),
                source,
            };
            let certificates = CertificateDer::pem_file_iter(&path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(failed)?;
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err(TlsError::Empty { path });
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_built_in_and_a_file_without_certificates_is_an_error() {
        assert!(config(None).is_ok());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            config(Some(file.path().into())),
            Err(TlsError::Empty { .. })
        ));
        assert!(matches!(
            config(Some("/nowhere".into())),
            Err(TlsError::Read { .. })
        ));
    }
}
