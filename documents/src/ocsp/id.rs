//! How a certificate is named in requests and responses: CertID (RFC 6960 4.1.1).

use const_oid::db::rfc5912;
use der::asn1::{IntRef, OctetStringRef};
use der::{Decode, Encode, Sequence};
use spki::{AlgorithmIdentifierRef, ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::element::{element, integer, object_identifier, tag};
use crate::x509::{Certificate, ReadError};

/// SM3 without a key (GB/T 33560).
const SM3: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.401");

/// The hashes that name an issuer. SHA-1 is among them, because most clients use nothing else and nothing
/// depends on its strength: whoever finds a collision names a certificate of his own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdHash {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SM3.
    Sm3,
}

impl IdHash {
    /// Every hash.
    pub const ALL: [Self; 5] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512, Self::Sm3];

    const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => rfc5912::ID_SHA_1,
            Self::Sha256 => rfc5912::ID_SHA_256,
            Self::Sha384 => rfc5912::ID_SHA_384,
            Self::Sha512 => rfc5912::ID_SHA_512,
            Self::Sm3 => SM3,
        }
    }

    pub(super) fn digest(self, data: &[u8]) -> Vec<u8> {
        use aws_lc_rs::digest;
        use protocol::algorithm::Hash;
        match self {
            Self::Sha1 => digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, data)
                .as_ref()
                .to_vec(),
            Self::Sha256 => Hash::Sha256.digest(data).to_vec(),
            Self::Sha384 => Hash::Sha384.digest(data).to_vec(),
            Self::Sha512 => Hash::Sha512.digest(data).to_vec(),
            Self::Sm3 => Hash::Sm3.digest(data).to_vec(),
        }
    }

    fn of(identifier: &AlgorithmIdentifierRef<'_>) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.oid() == identifier.oid)
    }
}

/// CertID.
#[derive(Sequence)]
struct Raw<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    name: &'a OctetStringRef,
    key: &'a OctetStringRef,
    serial: IntRef<'a>,
}

/// The name of a certificate, with the bytes it had in the request: the response repeats them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertId {
    der: Vec<u8>,
    /// `None`: a hash that is none of ours, so the issuer cannot be told.
    hash: Option<IdHash>,
    name: Vec<u8>,
    key: Vec<u8>,
    serial: Vec<u8>,
}

impl CertId {
    /// The name of the certificate of `issuer` with a serial number, unsigned and big-endian.
    pub fn new(issuer: &Named, serial: &[u8], hash: IdHash) -> Self {
        let (name, key) = issuer.hashes(hash);
        Self::of_parts(hash, name, key, &integer(serial))
    }

    fn of_parts(hash: IdHash, name: &[u8], key: &[u8], serial: &[u8]) -> Self {
        // NULL, as everybody writes it here.
        let algorithm = element(tag::SEQUENCE, &[&object_identifier(hash.oid()), &[5, 0]]);
        let [named, keyed] = [name, key].map(|digest| element(tag::OCTET_STRING, &[digest]));
        Self {
            der: element(tag::SEQUENCE, &[&algorithm, &named, &keyed, serial]),
            hash: Some(hash),
            name: name.to_vec(),
            key: key.to_vec(),
            serial: serial.get(2..).unwrap_or_default().to_vec(),
        }
    }

    pub(super) fn parse(der: &[u8]) -> der::Result<Self> {
        let raw = Raw::from_der(der)?;
        Ok(Self {
            der: der.to_vec(),
            hash: IdHash::of(&raw.algorithm),
            name: raw.name.as_bytes().to_vec(),
            key: raw.key.as_bytes().to_vec(),
            serial: raw.serial.to_der()?.get(2..).unwrap_or_default().to_vec(),
        })
    }

    /// The CertID, in DER.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The hash that names the issuer; `None` if it is none of ours.
    pub const fn hash(&self) -> Option<IdHash> {
        self.hash
    }

    /// The certificate's serial number, unsigned and big-endian, without leading zeros; `None` for a negative
    /// one, which we never issue.
    pub fn serial(&self) -> Option<&[u8]> {
        match &self.serial[..] {
            [0, rest @ ..] if !rest.is_empty() => Some(rest),
            [first, ..] if *first >= 0x80 => None,
            other => Some(other),
        }
    }

    /// The serial number as the INTEGER has it.
    pub(super) fn raw_serial(&self) -> &[u8] {
        &self.serial
    }

    /// Whether this is a certificate of `issuer`.
    pub fn is_of(&self, issuer: &Named) -> bool {
        self.hash
            .is_some_and(|hash| issuer.hashes(hash) == (&self.name[..], &self.key[..]))
    }

    /// Whether both name the same certificate; the bytes may differ, in NULL or nothing after the hash.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.hash, &self.name, &self.key, &self.serial)
            == (other.hash, &other.name, &other.key, &other.serial)
    }
}

/// The hashes of an issuer's name and key, computed once.
#[derive(Clone, Debug)]
pub struct Named([(Vec<u8>, Vec<u8>); IdHash::ALL.len()]);

impl Named {
    /// Reads the issuer's certificate, in DER.
    pub fn new(issuer: &[u8]) -> Result<Self, ReadError> {
        let issuer = Certificate::parse(issuer)?;
        let key = key_bits(&issuer)?;
        Ok(Self(IdHash::ALL.map(|hash| {
            (hash.digest(issuer.subject().0), hash.digest(&key))
        })))
    }

    fn hashes(&self, hash: IdHash) -> (&[u8], &[u8]) {
        let (name, key) = &self.0[hash as usize];
        (name, key)
    }
}

/// The bits of the public key, without the algorithm.
pub(super) fn key_bits(certificate: &Certificate<'_>) -> Result<Vec<u8>, ReadError> {
    let info = SubjectPublicKeyInfoRef::from_der(certificate.public_key())?;
    Ok(info.subject_public_key.raw_bytes().to_vec())
}
