//! X.509 certificates (RFC 5280; the SM2 profile of GB/T 20518).
//!
//! - [`Name`]: who is certified and by whom.
//! - [`Spec`], [`Issuer`] and [`Profile`]: what to certify; [`prepare`] turns it into a
//!   [`PreparedCertificate`], which says what to sign and, given the signature, becomes a certificate.
//! - [`subject_public_key`] and its neighbours read one certificate.
//! - [`verify_issued_by`] checks one certificate against its issuer. Whole paths up to a trust anchor are
//!   followed by [`crate::cms::verify_detached`].

mod certificate;
mod name;
mod path;
mod prepare;
mod read;
mod spec;

pub(crate) use certificate::{Certificate, IssuerAndSerial};
pub(crate) use path::verify_path;

pub use name::{Name, NameError, NameParts};
pub use path::{PathError, verify_issued_by};
pub use prepare::{AssembleError, PreparedCertificate, prepare};
pub use read::{ReadError, issuer_and_serial, subject, subject_public_key, to_pem, validity};
pub use spec::{Issuer, Profile, Spec, SpecError};
