//! One TLS configuration for both the HTTP calls and the socket, so that they trust the same roots.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::error::SdkError;

/// The public roots, with ring as the only provider of cryptography.
pub(crate) fn public_roots() -> Result<ClientConfig, SdkError> {
    let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SdkError::Unreachable(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
