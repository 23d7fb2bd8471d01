//! Revocation lists (RFC 5280 5): full and delta, made and read.
//!
//! - [`prepare`]: from the revoked to a [`PreparedCrl`], which says what to sign and, given the signature,
//!   becomes a list.
//! - [`Crl`]: a list that was read: whose it is, how old, and who is on it.

mod prepare;
mod read;

use x509_cert::ext::pkix::CrlReason;

pub use prepare::{Kind, PrepareError, PreparedCrl, Revoked, Scope, Spec, prepare};
pub use read::{Crl, Entry, ReadError};

pub(crate) use read::Idp;

/// Why a certificate is no longer good (RFC 5280 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Nothing is said; no reason is written.
    Unspecified = 0,
    /// The subject's key is, or may be, in other hands.
    KeyCompromise = 1,
    /// The authority's key is.
    CaCompromise = 2,
    /// The subject has another name or position.
    AffiliationChanged = 3,
    /// Another certificate takes its place.
    Superseded = 4,
    /// It is no longer needed.
    CessationOfOperation = 5,
    /// Suspended: it may be good again.
    CertificateHold = 6,
    /// Good again, or expired; in delta lists only.
    RemoveFromCrl = 8,
    /// A right it attested was taken away.
    PrivilegeWithdrawn = 9,
    /// The key of an attribute authority is in other hands.
    AaCompromise = 10,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::RemoveFromCrl,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// The number in lists and in OCSP responses.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The reason of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.number() == number)
    }

    /// The name in RFC 5280.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::RemoveFromCrl => "removeFromCRL",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aACompromise",
        }
    }

    pub(crate) fn of(reason: CrlReason) -> Self {
        let number = u8::try_from(reason as u32).unwrap_or_default();
        Self::from_number(number).unwrap_or(Self::Unspecified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reasons_but_for_seven() {
        for number in 0..=11 {
            let known = number != 7 && number != 11;
            assert_eq!(Reason::from_number(number).is_some(), known, "{number}");
        }
        assert_eq!(Reason::of(CrlReason::RemoveFromCRL), Reason::RemoveFromCrl);
    }
}
