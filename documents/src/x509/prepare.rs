//! From what to certify to a certificate: prepare, let sign, assemble.

use der::asn1::{AnyRef, UintRef};
use der::{Decode, Encode};
use protocol::algorithm::Algorithm;
use protocol::verify::PublicKey;
use x509_cert::time::Validity;

use super::certificate::{Tbs, V3};
use super::spec::{self, Issuer, IssuerParts, Spec, SpecError};
use crate::element::Element;
use crate::lint::{self, Linted};
use crate::signed::{AssembleError, Unsigned, fits};
use crate::{identifier, time};

/// Longest serial number, in bytes of DER (RFC 5280 4.1.2.2).
const SERIAL_BYTES_MAX: usize = 20;

/// A certificate that lacks its signature, and in which nothing was found wrong ([`crate::lint`]).
#[derive(Debug)]
pub struct PreparedCertificate {
    unsigned: Unsigned,
    issuer: PublicKey,
}

/// Writes everything of the certificate but its signature, which the issuer's key is to make with
/// `issuer_algorithm`.
pub fn prepare(spec: &Spec, issuer_algorithm: Algorithm) -> Result<PreparedCertificate, SpecError> {
    PublicKey::from_spki(&spec.subject_public_key).map_err(SpecError::SubjectKey)?;
    let parts = spec.issuer_parts()?;
    let issuer = PublicKey::from_spki(&parts.public_key).map_err(SpecError::IssuerKey)?;
    if !fits(&issuer, issuer_algorithm) {
        return Err(SpecError::IssuerAlgorithm(issuer_algorithm));
    }
    let tbs = signed_part(spec, &parts, issuer_algorithm)?;
    let holder = match &spec.issuer {
        Issuer::Itself => None,
        Issuer::Holder(certificate) => Some(&certificate[..]),
    };
    let linted = lint::certificate(tbs, holder)?;
    Ok(PreparedCertificate::new(linted, issuer, issuer_algorithm))
}

fn signed_part(spec: &Spec, issuer: &IssuerParts, issuer_algorithm: Algorithm) -> Result<Vec<u8>, SpecError> {
    if spec.not_after < spec.not_before {
        return Err(SpecError::Validity);
    }
    if let Some((earliest, latest)) = issuer.validity
        && (spec.not_before.seconds() < earliest.seconds() || spec.not_after.seconds() > latest.seconds())
    {
        return Err(SpecError::BeyondIssuer);
    }
    let serial = serial_number(&spec.serial)?;
    let algorithm = identifier::signature_identifier(issuer_algorithm)?;
    let extensions = spec::extensions(spec, issuer)?.to_der()?;
    let tbs = Tbs {
        version: V3,
        serial: Element(&serial),
        algorithm: Element(&algorithm),
        issuer: Element(&issuer.name),
        validity: Validity::new(time::to_asn1(spec.not_before)?, time::to_asn1(spec.not_after)?),
        subject: Element(spec.subject.as_der()),
        public_key: Element(&spec.subject_public_key),
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(AnyRef::from_der(&extensions)?),
    };
    Ok(tbs.to_der()?)
}

fn serial_number(bytes: &[u8]) -> Result<Vec<u8>, SpecError> {
    let number = UintRef::new(bytes).map_err(|_| SpecError::Serial)?;
    let der = number.to_der()?;
    // The first two bytes are tag and length.
    if bytes.iter().all(|byte| *byte == 0) || der.len() > 2 + SERIAL_BYTES_MAX {
        return Err(SpecError::Serial);
    }
    Ok(der)
}

impl PreparedCertificate {
    fn new(linted: Linted, issuer: PublicKey, algorithm: Algorithm) -> Self {
        Self {
            unsigned: Unsigned::new(linted.into_der(), &issuer, algorithm),
            issuer,
        }
    }

    /// The TBSCertificate, in DER.
    pub fn tbs(&self) -> &[u8] {
        self.unsigned.part()
    }

    /// What to give to a signer of the issuer's algorithm: the digest for ECDSA and RSA, e = SM3(Z ‖ tbs)
    /// with the default user id for `sm2-sm3-e` (GB/T 32918.2 6.1), the whole of [`Self::tbs`] for the
    /// others.
    pub fn to_sign(&self) -> &[u8] {
        self.unsigned.to_sign()
    }

    /// The certificate, in DER. `signature` is in the algorithm's usual encoding: DER for ECDSA and SM2,
    /// plain bytes for RSA and Ed25519. It is verified, so that no certificate leaves that nobody would
    /// accept.
    pub fn assemble(self, signature: &[u8]) -> Result<Vec<u8>, AssembleError> {
        self.unsigned.assemble(&self.issuer, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_positive_and_at_most_20_bytes() {
        assert_eq!(serial_number(&[0, 0, 1]).unwrap(), [2, 1, 1]);
        assert_eq!(
            serial_number(&[0x80]).unwrap(),
            [2, 2, 0, 0x80],
            "not a negative number"
        );
        assert_eq!(serial_number(&[0x7f; 20]).unwrap().len(), 22);
        for bad in [&[][..], &[0], &[0; 20], &[0x80; 20], &[1; 21]] {
            assert_eq!(serial_number(bad), Err(SpecError::Serial), "{bad:?}");
        }
    }
}
