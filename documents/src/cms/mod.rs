//! Detached signatures (RFC 5652), with the signed attributes of CAdES-BES (ETSI EN 319 122-1): content type,
//! message digest, signing time, and the signer's certificate by its hash (RFC 5035), so that another
//! certificate of the same key cannot be put in its place.
//!
//! - [`Chain`]: a signer's certificates, read once and shared by all its signatures.
//! - [`prepare`]: from the digest of some content to a [`PreparedCms`], which says what to sign and, given
//!   the signature, becomes a file that `openssl cms -verify` accepts.
//! - [`verify_detached`]: the other direction.
//!
//! [`supports`] says with which algorithms. Ed25519 (RFC 8419) and SM2 (GB/T 35275) are not among them yet.

mod attributes;
mod chain;
pub(crate) mod gm;
mod prepare;
mod structure;
mod verify;

pub(crate) use attributes::SignedAttributes;
pub(crate) use structure::{SignedData, SignerInfo};
pub(crate) use verify::{enclosed_certificates, find_signer};

pub use chain::{Chain, ChainError};
pub use prepare::{AssembleError, PrepareError, PreparedCms, prepare, supports};
pub(crate) use prepare::{bytes_max, check_algorithm, prepare_for_document};
pub(crate) use verify::{DOCUMENT_SIGNING, Opened, check_key_usage, signers};
pub use verify::{VerifiedCms, VerifyError, verify_detached};

/// A digest, of any of our hashes.
pub type DigestBytes = smallvec::SmallVec<[u8; 64]>;

/// Most certificates in a chain of ours, and most that are looked at in somebody else's signature.
pub const CERTIFICATES_MAX: usize = 10;
