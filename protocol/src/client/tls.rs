//! TLS as the client wants it: 1.3, and no CA but the profile's.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::profile::{Profile, ProfileError};

pub(super) fn config(profile: &Profile, alpn: &[&[u8]]) -> Result<ClientConfig, ProfileError> {
    let mut roots = RootCertStore::empty();
    let certificates = pem::parse_many(&profile.server_ca).map_err(|_| ProfileError::ServerCa)?;
    for certificate in certificates {
        roots
            .add(CertificateDer::from(certificate.into_contents()))
            .map_err(|_| ProfileError::ServerCa)?;
    }
    if roots.is_empty() {
        return Err(ProfileError::ServerCa);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}
