//! From what to certify to a certificate: prepare, let sign, assemble.

use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Encode};
use protocol::algorithm::{Algorithm, Hash, InputKind};
use protocol::verify::{PublicKey, SM2_DEFAULT_USER_ID};
use x509_cert::time::Validity;

use super::certificate::{Envelope, Tbs, V3};
use super::spec::{self, IssuerParts, Spec, SpecError};
use crate::element::Element;
use crate::{identifier, time};

/// Longest serial number, in bytes of DER (RFC 5280 4.1.2.2).
const SERIAL_BYTES_MAX: usize = 20;

/// A certificate that lacks its signature.
#[derive(Debug)]
pub struct PreparedCertificate {
    tbs: Vec<u8>,
    to_sign: Vec<u8>,
    algorithm: Algorithm,
    issuer: PublicKey,
}

/// Why a signature does not complete a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// It is not the issuer's over this certificate, or not in the algorithm's usual encoding.
    #[error("the signature is not the issuer's over this certificate, or not in {0}'s usual encoding")]
    Signature(Algorithm),
    /// Too large for DER.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// Writes everything of the certificate but its signature, which the issuer's key is to make with
/// `issuer_algorithm`.
pub fn prepare(spec: &Spec, issuer_algorithm: Algorithm) -> Result<PreparedCertificate, SpecError> {
    PublicKey::from_spki(&spec.subject_public_key).map_err(SpecError::SubjectKey)?;
    let parts = spec.issuer_parts()?;
    let issuer = PublicKey::from_spki(&parts.public_key).map_err(SpecError::IssuerKey)?;
    if !issuer.kind().algorithms().contains(&issuer_algorithm) {
        return Err(SpecError::IssuerAlgorithm(issuer_algorithm));
    }
    let tbs = signed_part(spec, &parts, issuer_algorithm)?;
    let to_sign = signer_input(&issuer, issuer_algorithm, &tbs);
    Ok(PreparedCertificate {
        tbs,
        to_sign,
        algorithm: issuer_algorithm,
        issuer,
    })
}

fn signed_part(spec: &Spec, issuer: &IssuerParts, issuer_algorithm: Algorithm) -> Result<Vec<u8>, SpecError> {
    if spec.not_after < spec.not_before {
        return Err(SpecError::Validity);
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

/// What a signer of `algorithm` is given so that the signature covers `tbs`.
fn signer_input(issuer: &PublicKey, algorithm: Algorithm, tbs: &[u8]) -> Vec<u8> {
    match (algorithm.input(), issuer.sm2_e(SM2_DEFAULT_USER_ID, tbs)) {
        (InputKind::Message(_), _) => tbs.to_vec(),
        (InputKind::Digest(Hash::Sm3), Some(e)) => e.to_vec(),
        (InputKind::Digest(hash), _) => hash.digest(tbs).to_vec(),
    }
}

impl PreparedCertificate {
    /// The TBSCertificate, in DER.
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }

    /// What to give to a signer of the issuer's algorithm: the digest for ECDSA and RSA, e = SM3(Z ‖ tbs)
    /// with the default user id for `sm2-sm3-e` (GB/T 32918.2 6.1), the whole of [`Self::tbs`] for the
    /// others.
    pub fn to_sign(&self) -> &[u8] {
        &self.to_sign
    }

    /// The certificate, in DER. `signature` is in the algorithm's usual encoding: DER for ECDSA and SM2,
    /// plain bytes for RSA and Ed25519. It is verified, so that no certificate leaves that nobody would
    /// accept.
    pub fn assemble(self, signature: &[u8]) -> Result<Vec<u8>, AssembleError> {
        self.issuer
            .verify(self.algorithm, &self.to_sign, signature)
            .map_err(|_| AssembleError::Signature(self.algorithm))?;
        let algorithm = identifier::signature_identifier(self.algorithm)?;
        let envelope = Envelope {
            tbs: Element(&self.tbs),
            algorithm: Element(&algorithm),
            signature: BitStringRef::from_bytes(signature)?,
        };
        Ok(envelope.to_der()?)
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
