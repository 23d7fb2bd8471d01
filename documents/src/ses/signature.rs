//! A seal signature as it lies in its bytes (GB/T 38540-2020 7.2; GM/T 0031-2014 5.2).

use der::asn1::BitStringRef;
use der::{Decode, Tag, Tagged};
use protocol::clock::UnixMillis;
use spki::ObjectIdentifier;

use super::asn1::{self, ReadError, any, bits, object_identifier, octets, sequence, tagged_bits, text, time};
use super::moment;
use super::seal::{Extension, Generation, Seal, read_extensions};
use crate::element::Element;

/// When somebody says that they signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeInfo<'a> {
    /// A time that nobody proves.
    Claimed(UnixMillis),
    /// A time stamp token; version 1 has it here. Over what, that version does not say.
    Token(&'a [u8]),
    /// Text that is no time.
    Unreadable,
}

/// An SES_Signature that has been read; nothing is verified.
#[derive(Clone, Debug)]
pub struct Signature<'a> {
    to_sign: Element<'a>,
    algorithm: Element<'a>,
    /// The seal.
    pub seal: Seal<'a>,
    /// When it was signed.
    pub time: TimeInfo<'a>,
    /// The digest of what is sealed.
    pub data_hash: &'a [u8],
    /// What is sealed; in OFD the absolute path of `Signature.xml`.
    pub property_info: String,
    /// Anything else.
    pub extensions: Vec<Extension<'a>>,
    /// The signer's certificate, in DER.
    pub certificate: &'a [u8],
    /// The signer's signature.
    pub value: &'a [u8],
    /// A time stamp token over the signature's bytes (versions 4 and 5).
    pub time_stamp: Option<&'a [u8]>,
}

impl<'a> Signature<'a> {
    /// Reads a seal signature of any version.
    pub fn read(der: &'a [u8]) -> Result<Self, ReadError> {
        match sequence("SES_Signature", Element(der), 5)?[..] {
            [to_sign, value] => Self::read_first(to_sign, value),
            [to_sign, a, b, c] => Self::read_later(to_sign, [a, b, c], None),
            [to_sign, a, b, c, stamp] => {
                Self::read_later(to_sign, [a, b, c], Some(tagged_bits("timeStamp", stamp)?))
            }
            ref other => Err(ReadError::Members("SES_Signature", other.len())),
        }
    }

    /// Version 1: certificate and algorithm are among what is signed.
    fn read_first(to_sign: Element<'a>, value: Element<'a>) -> Result<Self, ReadError> {
        let members = sequence("TBS_Sign", to_sign, 7)?;
        let [version, seal, time, hash, property, certificate, algorithm] = members[..] else {
            return Err(ReadError::Members("TBS_Sign", members.len()));
        };
        let time = time_text(time)?;
        let seal = Seal::read(seal.0)?;
        asn1::number("version", version)?;
        if seal.generation != Generation::V1 {
            return Err(ReadError::Value("the seal's version"));
        }
        object_identifier("signatureAlgorithm", algorithm)?;
        Ok(Self {
            to_sign,
            algorithm,
            seal,
            time,
            data_hash: hash_bits(hash)?,
            property_info: text("propertyInfo", property)?,
            extensions: Vec::new(),
            certificate: octets("cert", certificate)?,
            value: bits("signature", value)?,
            time_stamp: None,
        })
    }

    fn read_later(
        to_sign: Element<'a>,
        [certificate, algorithm, value]: [Element<'a>; 3],
        time_stamp: Option<&'a [u8]>,
    ) -> Result<Self, ReadError> {
        let members = sequence("TBS_Sign", to_sign, 6)?;
        let [version, seal, at, hash, property, rest @ ..] = &members[..] else {
            return Err(ReadError::Members("TBS_Sign", members.len()));
        };
        let seal = Seal::read(seal.0)?;
        let version = asn1::number("version", *version)?;
        if version != u64::from(seal.generation.number()) || seal.generation == Generation::V1 {
            return Err(ReadError::Version(version));
        }
        object_identifier("signatureAlgID", algorithm)?;
        Ok(Self {
            to_sign,
            algorithm,
            seal,
            time: TimeInfo::Claimed(time("timeInfo", *at)?),
            data_hash: hash_bits(*hash)?,
            property_info: text("propertyInfo", *property)?,
            extensions: rest
                .first()
                .map_or(Ok(Vec::new()), |list| read_extensions(*list))?,
            certificate: octets("cert", certificate)?,
            value: bits("signature", value)?,
            time_stamp,
        })
    }

    /// What the signer signed.
    pub(super) const fn signed_bytes(&self) -> &'a [u8] {
        self.to_sign.0
    }

    pub(super) fn algorithm(&self) -> Result<ObjectIdentifier, ReadError> {
        object_identifier("signatureAlgID", self.algorithm)
    }
}

/// The signer's certificate and the seal maker's, in DER, each by itself; none if it cannot be read.
pub(crate) fn signers(der: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let Ok(signature) = Signature::read(der) else {
        return Vec::new();
    };
    let maker = signature.seal.maker().ok();
    let both = [Some(signature.certificate), maker];
    both.into_iter()
        .flatten()
        .map(|certificate| vec![certificate.to_vec()])
        .collect()
}

/// Whether bytes look like an SES_Signature rather than CMS or a bare signature: a SEQUENCE that begins with a
/// SEQUENCE.
pub(crate) fn is_seal_signature(der: &[u8]) -> bool {
    let first = sequence("SES_Signature", Element(der), 5)
        .ok()
        .and_then(|members| members.first().copied());
    first.is_some_and(|element| element.0.first() == Some(&0x30))
}

/// The digest is a BIT STRING; some write an OCTET STRING.
fn hash_bits(element: Element<'_>) -> Result<&[u8], ReadError> {
    if any("dataHash", element)?.tag() == Tag::OctetString {
        return octets("dataHash", element);
    }
    bits("dataHash", element)
}

/// timeInfo of version 1: a BIT STRING around a token or text, or a plain time.
fn time_text(element: Element<'_>) -> Result<TimeInfo<'_>, ReadError> {
    if any("timeInfo", element)?.tag() != Tag::BitString {
        return time("timeInfo", element).map(TimeInfo::Claimed);
    }
    let bits = BitStringRef::from_der(element.0).map_err(asn1::malformed("timeInfo"))?;
    let bytes = bits.as_bytes().ok_or(ReadError::Value("timeInfo"))?;
    if bytes.first() == Some(&0x30) {
        return Ok(TimeInfo::Token(bytes));
    }
    let moment = std::str::from_utf8(bytes).ok().and_then(moment::from_text);
    Ok(moment.map_or(TimeInfo::Unreadable, TimeInfo::Claimed))
}
