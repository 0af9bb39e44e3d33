//! Which servers are trusted: those of Mozilla's roots, which are in the program, and
//! those of the system's own certificates, or of `SSL_CERT_FILE`, where there are some. A
//! host without certificates can talk to Telegram all the same.

use std::sync::{Arc, LazyLock};

use rustls::{ClientConfig, RootCertStore};

/// What HTTP clients are made with.
pub fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    // What cannot be read of the system's is no reason to trust less of the others.
    roots.add_parsable_certificates(SYSTEM.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Read once: there may be hundreds of files.
static SYSTEM: LazyLock<Vec<rustls::pki_types::CertificateDer<'static>>> =
    LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_certificates_is_no_obstacle() {
        assert!(tls().is_ok());
    }
}
