//! A time-stamping authority and its tokens (RFC 3161 2.4.2, RFC 5816).
//!
//! Between two tokens of an authority only the imprint, the serial number, the time, the nonce and the signature
//! differ. All else is written once per authority; a token is put together from slices.

use const_oid::db::rfc5280::ID_KP_TIME_STAMPING;
use const_oid::db::rfc5911::{ID_CONTENT_TYPE, ID_MESSAGE_DIGEST, ID_SIGNED_DATA};
use der::{DateTime, Encode};
use protocol::algorithm::{Algorithm, Hash, InputKind};
use protocol::clock::UnixMillis;
use protocol::verify::PublicKey;
use spki::ObjectIdentifier;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage};

use super::{Failure, Request, TST_INFO};
use crate::cms::{Chain, ChainError};
use crate::element::{append, element, in_set_order, integer, tag};
use crate::signed::{AssembleError, fits, is_well_formed, signer_input};
use crate::x509::{Certificate, ReadError};
use crate::{identifier, time};

/// Longest serial number, in bytes (RFC 3161 2.4.2: clients must cope with 160 bits).
const SERIAL_BYTES_MAX: usize = 20;

/// How far the stated time may be from the true one (RFC 3161 2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accuracy {
    /// Whole seconds.
    pub seconds: u32,
    /// Milliseconds besides, below 1000.
    pub millis: u16,
    /// Microseconds besides, below 1000.
    pub micros: u16,
}

/// Why certificates do not make a time-stamping authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The certificates do not make a chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The authority's certificate cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// A certificate whose extended key usage is not time stamping alone, and critical (RFC 3161 2.3).
    #[error(
        "the certificate is not for time stamping: its extended key usage must be that alone, and critical"
    )]
    Purpose,
    /// The key does not sign with this algorithm, or tokens are not made with it.
    #[error("time stamps are not made with {0} and this key")]
    Algorithm(Algorithm),
    /// Thousandths above 999.
    #[error("the accuracy's milliseconds and microseconds must be below 1000")]
    Accuracy,
    /// Too large for DER.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// An authority, with all that its tokens repeat.
#[derive(Debug)]
pub struct Authority {
    chain: Chain,
    algorithm: Algorithm,
    hash: Hash,
    policy: ObjectIdentifier,
    parts: Parts,
}

/// Pieces of DER.
#[derive(Debug)]
struct Parts {
    /// version and policy.
    info_head: Vec<u8>,
    accuracy: Vec<u8>,
    content_type: Vec<u8>,
    message_digest_oid: Vec<u8>,
    /// version, sid and digestAlgorithm of the signer.
    signer_head: Vec<u8>,
    signature_algorithm: Vec<u8>,
    /// version and digestAlgorithms of SignedData.
    data_head: Vec<u8>,
    content_oid: Vec<u8>,
    signed_data_oid: Vec<u8>,
    certificates: Vec<u8>,
}

/// A response that lacks the signature in its token.
#[derive(Debug)]
pub struct PreparedToken<'a> {
    authority: &'a Authority,
    info: Vec<u8>,
    /// The signed attributes, without their tag.
    attributes: Vec<u8>,
    to_sign: Vec<u8>,
    certificates: bool,
}

impl Authority {
    /// `certificates`, in DER, begin with the authority's own, each followed by its issuer's.
    pub fn new(
        certificates: &[impl AsRef<[u8]>],
        algorithm: Algorithm,
        policy: ObjectIdentifier,
        accuracy: Option<Accuracy>,
    ) -> Result<Self, AuthorityError> {
        let chain = Chain::new(certificates)?;
        let leaf = certificates.first().map(AsRef::as_ref).unwrap_or_default();
        let leaf = Certificate::parse(leaf)?;
        if !is_for_time_stamping(&leaf)? {
            return Err(AuthorityError::Purpose);
        }
        let hash = match algorithm.input() {
            InputKind::Digest(hash) if fits(chain.public_key(), algorithm) => hash,
            _ => return Err(AuthorityError::Algorithm(algorithm)),
        };
        let parts = Parts::new(&chain, algorithm, hash, policy, accuracy)?;
        Ok(Self {
            chain,
            algorithm,
            hash,
            policy,
            parts,
        })
    }

    /// The algorithm its tokens are signed with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its key.
    pub const fn public_key(&self) -> &PublicKey {
        self.chain.public_key()
    }

    /// Writes a token for `request`. `serial` is unsigned and big-endian, positive, and never used before by
    /// this authority; `now` is stated to the millisecond.
    pub fn prepare(
        &self,
        request: &Request,
        serial: &[u8],
        now: UnixMillis,
    ) -> Result<PreparedToken<'_>, Failure> {
        if request.policy.is_some_and(|policy| policy != self.policy) {
            return Err(Failure::UnacceptedPolicy);
        }
        if !time::is_within(self.chain.validity(), now) {
            return Err(Failure::SystemFailure);
        }
        let serial = integer(serial);
        if serial.len() > 2 + SERIAL_BYTES_MAX || serial == [tag::INTEGER, 1, 0] {
            return Err(Failure::SystemFailure);
        }
        let at = generalized_time(now).ok_or(Failure::SystemFailure)?;
        let parts = &self.parts;
        let info = element(
            tag::SEQUENCE,
            &[
                &parts.info_head,
                &request.imprint,
                &serial,
                &at,
                &parts.accuracy,
                &request.nonce,
            ],
        );
        let attributes = self.attributes(&self.hash.digest(&info));
        let signed = element(tag::SET, &[&attributes]);
        Ok(PreparedToken {
            authority: self,
            info,
            attributes,
            to_sign: signer_input(self.chain.public_key(), self.algorithm, &signed),
            certificates: request.certificates,
        })
    }

    /// contentType, messageDigest and signingCertificateV2 (RFC 5652 11, RFC 5035 3).
    fn attributes(&self, digest: &[u8]) -> Vec<u8> {
        let value = element(tag::OCTET_STRING, &[digest]);
        let value = element(tag::SET, &[&value]);
        let digest = element(tag::SEQUENCE, &[&self.parts.message_digest_oid, &value]);
        in_set_order(&mut [
            &self.parts.content_type[..],
            &digest,
            self.chain.signing_certificate(),
        ])
    }
}

fn is_for_time_stamping(leaf: &Certificate<'_>) -> Result<bool, ReadError> {
    let purposes = leaf.extension::<ExtendedKeyUsage>()?;
    let alone = purposes.is_some_and(|ExtendedKeyUsage(all)| all == [ID_KP_TIME_STAMPING]);
    let signs = leaf
        .extension::<KeyUsage>()?
        .is_none_or(|usage| usage.digital_signature() || usage.non_repudiation());
    Ok(alone && signs && leaf.is_critical::<ExtendedKeyUsage>())
}

impl Parts {
    fn new(
        chain: &Chain,
        algorithm: Algorithm,
        hash: Hash,
        policy: ObjectIdentifier,
        accuracy: Option<Accuracy>,
    ) -> Result<Self, AuthorityError> {
        const V1: [u8; 3] = [tag::INTEGER, 1, 1];
        // SignedData whose content is not id-data (RFC 5652 5.1).
        const V3: [u8; 3] = [tag::INTEGER, 1, 3];
        let digest_algorithm = identifier::hash_identifier(hash).to_der()?;
        let content_oid = TST_INFO.to_der()?;
        let content_type = element(
            tag::SEQUENCE,
            &[&ID_CONTENT_TYPE.to_der()?, &element(tag::SET, &[&content_oid])],
        );
        Ok(Self {
            info_head: [&V1[..], &policy.to_der()?].concat(),
            accuracy: accuracy.map_or(Ok(Vec::new()), Accuracy::to_der)?,
            content_type,
            message_digest_oid: ID_MESSAGE_DIGEST.to_der()?,
            signer_head: [&V1[..], chain.issuer_and_serial(), &digest_algorithm].concat(),
            signature_algorithm: identifier::signature_identifier(algorithm)?,
            data_head: [&V3[..], &element(tag::SET, &[&digest_algorithm])].concat(),
            content_oid,
            signed_data_oid: ID_SIGNED_DATA.to_der()?,
            certificates: element(tag::constructed(0), &[chain.certificates()]),
        })
    }
}

impl Accuracy {
    fn to_der(self) -> Result<Vec<u8>, AuthorityError> {
        if self.millis > 999 || self.micros > 999 {
            return Err(AuthorityError::Accuracy);
        }
        let mut fields = Vec::new();
        if self.seconds > 0 {
            fields = integer(&self.seconds.to_be_bytes());
        }
        for (number, value) in [(0, self.millis), (1, self.micros)] {
            if value > 0 {
                let plain = integer(&value.to_be_bytes());
                append(&mut fields, tag::primitive(number), &[&plain[2..]]);
            }
        }
        Ok(element(tag::SEQUENCE, &[&fields]))
    }
}

/// YYYYMMDDhhmmss[.s...]Z without trailing zeros (RFC 3161 2.4.2); `None` after the year 9999.
fn generalized_time(at: UnixMillis) -> Option<Vec<u8>> {
    let seconds = std::time::Duration::from_secs(at.seconds());
    let date = DateTime::from_unix_duration(seconds).ok()?;
    let mut text = Vec::with_capacity(20);
    append_digits(&mut text, u32::from(date.year()), 4);
    for part in [
        date.month(),
        date.day(),
        date.hour(),
        date.minutes(),
        date.seconds(),
    ] {
        append_digits(&mut text, u32::from(part), 2);
    }
    let millis = u32::try_from(at.0 % 1000).ok()?;
    if millis > 0 {
        text.push(b'.');
        append_digits(&mut text, millis, 3);
        while text.last() == Some(&b'0') {
            text.pop();
        }
    }
    Some(element(tag::GENERALIZED_TIME, &[&text, b"Z"]))
}

fn append_digits(text: &mut Vec<u8>, number: u32, width: u32) {
    for place in (0..width).rev() {
        // A digit.
        text.push(b'0' + (number / 10_u32.pow(place) % 10) as u8);
    }
}

impl PreparedToken<'_> {
    /// TSTInfo, in DER: what is to be recorded before it is signed.
    pub fn info(&self) -> &[u8] {
        &self.info
    }

    /// What to give to a signer of the authority's algorithm: the digest of the signed attributes, or e for
    /// SM2.
    pub fn to_sign(&self) -> &[u8] {
        &self.to_sign
    }

    /// TimeStampResp with status granted, in DER. The form of the signature is checked; that it verifies is
    /// for the pool to see to.
    pub fn assemble(self, signature: &[u8]) -> Result<Vec<u8>, AssembleError> {
        const GRANTED: [u8; 5] = [tag::SEQUENCE, 3, tag::INTEGER, 1, 0];
        let Authority {
            chain,
            algorithm,
            parts,
            ..
        } = self.authority;
        if !is_well_formed(chain.public_key(), *algorithm, signature) {
            return Err(AssembleError::Signature(*algorithm));
        }
        let signer = element(
            tag::SEQUENCE,
            &[
                &parts.signer_head,
                &element(tag::constructed(0), &[&self.attributes]),
                &parts.signature_algorithm,
                &element(tag::OCTET_STRING, &[signature]),
            ],
        );
        let info = element(tag::OCTET_STRING, &[&self.info]);
        let content = element(
            tag::SEQUENCE,
            &[&parts.content_oid, &element(tag::constructed(0), &[&info])],
        );
        let certificates: &[u8] = if self.certificates {
            &parts.certificates
        } else {
            &[]
        };
        let signers = element(tag::SET, &[&signer]);
        let data = element(
            tag::SEQUENCE,
            &[&parts.data_head, &content, certificates, &signers],
        );
        let data = element(tag::constructed(0), &[&data]);
        let token = element(tag::SEQUENCE, &[&parts.signed_data_oid, &data]);
        Ok(element(tag::SEQUENCE, &[&GRANTED, &token]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_no_trailing_zeros() {
        let text = |millis| String::from_utf8(generalized_time(UnixMillis(millis)).unwrap()[2..].to_vec());
        assert_eq!(text(1_800_000_000_000).unwrap(), "20270115080000Z");
        assert_eq!(text(1_800_000_000_120).unwrap(), "20270115080000.12Z");
        assert_eq!(text(1_800_000_000_007).unwrap(), "20270115080000.007Z");
        assert_eq!(generalized_time(UnixMillis(u64::MAX)), None);
    }

    #[test]
    fn accuracy_leaves_out_what_is_zero() {
        let accuracy = |seconds, millis, micros| {
            Accuracy {
                seconds,
                millis,
                micros,
            }
            .to_der()
        };
        assert_eq!(accuracy(1, 0, 0).unwrap(), [0x30, 3, 2, 1, 1]);
        assert_eq!(accuracy(0, 500, 0).unwrap(), [0x30, 4, 0x80, 2, 1, 0xf4]);
        assert_eq!(accuracy(0, 0, 128).unwrap(), [0x30, 4, 0x81, 2, 0, 0x80]);
        assert_eq!(accuracy(0, 1000, 0), Err(AuthorityError::Accuracy));
    }
}
