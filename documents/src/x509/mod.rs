//! X.509 certificates (RFC 5280; the SM2 profile of GB/T 20518).
//!
//! - [`Name`]: who is certified and by whom.
//! - [`Spec`], [`Issuer`] and [`Profile`]: what to certify; [`prepare`] turns it into a
//!   [`PreparedCertificate`], which says what to sign and, given the signature, becomes a certificate.
//! - [`subject_public_key`] and its neighbours read one certificate.
//! - [`verify_issued_by`] checks one certificate against its issuer, [`validate_path`] a whole path up to a
//!   trust anchor with policies, name constraints and revocation.

mod certificate;
mod constraints;
mod key;
mod name;
mod path;
mod policy;
mod prepare;
mod profile;
mod read;
mod revocation;
mod script;
mod sources;
mod spec;

pub(crate) use certificate::{Certificate, Envelope, IssuerAndSerial, Tbs, V3};
pub(crate) use name::{check_dns_name, check_name, names_match};
pub(crate) use path::verify_path;
pub(crate) use profile::ID_KP_DOCUMENT_SIGNING;
pub(crate) use sources::climb;
pub(crate) use spec::{distribution_point, key_identifier, location};

pub use crate::signed::{AssembleError, SignatureError};
pub use der::flagset::FlagSet;
pub use key::{KeyError, check_public_key};
pub use spki::ObjectIdentifier;
pub use x509_cert::ext::pkix::KeyUsages;

pub use name::{Name, NameError, NameParts};
pub use path::{PathError, PathRules, ValidPath, validate_path, verify_issued_by};
pub use policy::PolicyRules;
pub use prepare::{PreparedCertificate, prepare};
pub use profile::{Custom, Profile, Rules};
pub use read::{
    ReadError, issuer_and_serial, serial_number, subject, subject_name, subject_public_key, to_pem, validity,
};
pub use revocation::Revocation;
pub use sources::{Sources, sources};
pub use spec::{Issuer, Spec, SpecError, Terms};
