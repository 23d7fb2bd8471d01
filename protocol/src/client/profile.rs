//! The client profile: where the server is, how to know it, and who we are.

use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error_code::{Code, Refusal};
use crate::ids::AppId;

/// A profile as a TOML file holds it.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The server, for QUIC (UDP) and HTTPS (TCP).
    pub address: SocketAddr,
    /// The name in the server's certificate.
    pub server_name: String,
    /// The CA of the server's certificate, PEM.
    pub server_ca: String,
    /// The app.
    pub app_id: AppId,
    /// The app's secret, base64.
    pub secret: String,
    /// The CAs whose signers are believed in documents, PEM; for clients that verify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_ca: Option<String>,
    /// The engine's admin listener, where the load tool reads the server's CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile")
            .field("address", &self.address)
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not a profile.
    #[error("{path}: {message}")]
    Parse {
        /// Which.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// The secret is not base64.
    #[error("the profile's secret is not base64")]
    Secret,
    /// The CA is not PEM.
    #[error("the profile's server_ca is not a certificate in PEM")]
    ServerCa,
}

impl From<ProfileError> for Refusal {
    fn from(error: ProfileError) -> Self {
        let code = if matches!(error, ProfileError::Read { .. }) {
            Code::File
        } else {
            Code::Usage
        };
        Self::new(code, error.to_string())
    }
}

impl Profile {
    /// Reads a profile file.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let name = || path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| ProfileError::Read { path: name(), source })?;
        toml::from_str(&text).map_err(|error| ProfileError::Parse {
            path: name(),
            // The first line says where and what; the rest repeats the file, secret and all.
            message: error.message().to_owned(),
        })
    }

    /// The text of a profile file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// The secret's bytes.
    pub fn secret(&self) -> Result<Zeroizing<Vec<u8>>, ProfileError> {
        STANDARD
            .decode(&self.secret)
            .map(Zeroizing::new)
            .map_err(|_| ProfileError::Secret)
    }
}
