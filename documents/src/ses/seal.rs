//! A seal as it lies in its bytes (GB/T 38540-2020 7.1; GM/T 0031-2014 5.1; GM/T 0031-2025).

use der::{Tag, Tagged};
use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;
use serde::Serialize;
use spki::ObjectIdentifier;

use super::asn1::{self, ReadError, any, bits, object_identifier, octets, sequence, tagged_bits, text, time};
use crate::element::Element;

/// Most certificates or digests in a seal.
const HOLDERS_MAX: usize = 1000;
/// Most extensions of a seal or signature.
const EXTENSIONS_MAX: usize = 32;

/// Which standard a seal is made after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// GM/T 0031-2014.
    V1,
    /// GB/T 38540-2020.
    V4,
    /// GM/T 0031-2025.
    V5,
}

impl Generation {
    /// The version number in seals that we make.
    pub const fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V4 => 4,
            Self::V5 => 5,
        }
    }
}

/// Who may use a seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holders<'a> {
    /// Certificates, in DER.
    Certificates(Vec<&'a [u8]>),
    /// Digests of certificates.
    Digests(Vec<&'a [u8]>),
}

impl Holders<'_> {
    /// Whether a certificate (DER) is among them. The names that vendors give to digest algorithms differ, so a
    /// digest is compared with those of all hashes that resist collisions.
    pub fn contains(&self, certificate: &[u8]) -> bool {
        const HASHES: [Hash; 4] = [Hash::Sm3, Hash::Sha256, Hash::Sha384, Hash::Sha512];
        match self {
            Self::Certificates(list) => list.contains(&certificate),
            Self::Digests(list) => HASHES
                .iter()
                .any(|hash| list.contains(&&hash.digest(certificate)[..])),
        }
    }
}

/// The picture of a seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture<'a> {
    /// `PNG`, `SVG`, `ofd`, in the letters that the maker chose.
    pub kind: String,
    /// The file.
    pub data: &'a [u8],
    /// Displayed width in millimetres.
    pub width_mm: u64,
    /// Displayed height in millimetres.
    pub height_mm: u64,
}

/// An extension of a seal or a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// What it is.
    pub id: ObjectIdentifier,
    /// Whether whoever does not understand it should not go on.
    pub critical: bool,
    /// Its value.
    pub value: &'a [u8],
}

/// A seal that has been read; nothing is verified.
#[derive(Clone, Debug)]
pub struct Seal<'a> {
    der: &'a [u8],
    info: Element<'a>,
    maker: Element<'a>,
    algorithm: Element<'a>,
    value: &'a [u8],
    /// The standard it is made after.
    pub generation: Generation,
    /// The vendor of the software that made it.
    pub vendor: String,
    /// Its unique code.
    pub id: String,
    /// Of what kind it is; in version 1, 1 is an organisation's and 2 a person's, later it is up to the business.
    pub kind: u64,
    /// Its name.
    pub name: String,
    /// Who may use it.
    pub holders: Holders<'a>,
    /// When it was made.
    pub created: UnixMillis,
    /// From when it may be used, and until when.
    pub validity: (UnixMillis, UnixMillis),
    /// What it looks like.
    pub picture: Picture<'a>,
    /// Anything else.
    pub extensions: Vec<Extension<'a>>,
    /// A time stamp over the maker's signature (version 5 only).
    pub time_stamp: Option<&'a [u8]>,
}

/// What is around SES_SealInfo.
struct Envelope<'a> {
    info: Element<'a>,
    maker: Element<'a>,
    algorithm: Element<'a>,
    value: &'a [u8],
    is_first: bool,
    time_stamp: Option<&'a [u8]>,
}

impl<'a> Envelope<'a> {
    fn read(der: &'a [u8]) -> Result<Self, ReadError> {
        let (info, rest, is_first, time_stamp) = match sequence("SESeal", Element(der), 5)?[..] {
            [info, signed] => (info, sequence("SES_SignInfo", signed, 3)?, true, None),
            [info, a, b, c] => (info, vec![a, b, c], false, None),
            [info, a, b, c, stamp] => (info, vec![a, b, c], false, Some(tagged_bits("timeStamp", stamp)?)),
            ref other => return Err(ReadError::Members("SESeal", other.len())),
        };
        let [maker, algorithm, value] = rest[..] else {
            return Err(ReadError::Members("SES_SignInfo", rest.len()));
        };
        let value = bits("signedValue", value)?;
        Ok(Self {
            info,
            maker,
            algorithm,
            value,
            is_first,
            time_stamp,
        })
    }

    fn generation(&self, version: u64) -> Result<Generation, ReadError> {
        match (self.is_first, version) {
            // The standard's text gives 11 as an example, and vendors write what they like below 4.
            (true, 1 | 2 | 3 | 11) => Ok(Generation::V1),
            (false, 4) if self.time_stamp.is_none() => Ok(Generation::V4),
            (false, 5) => Ok(Generation::V5),
            _ => Err(ReadError::Version(version)),
        }
    }
}

/// SES_ESPropertyInfo.
struct Property<'a> {
    kind: u64,
    name: String,
    holders: Holders<'a>,
    created: UnixMillis,
    validity: (UnixMillis, UnixMillis),
}

impl<'a> Property<'a> {
    fn read(element: Element<'a>, generation: Generation) -> Result<Self, ReadError> {
        let members = sequence("SES_ESPropertyInfo", element, 7)?;
        let (kind, name, list_kind, list, times) = match (&members[..], generation) {
            ([kind, name, list, times @ ..], Generation::V1) if times.len() == 3 => {
                (kind, name, 1, list, times)
            }
            ([kind, name, list_kind, list, times @ ..], Generation::V4 | Generation::V5)
                if times.len() == 3 =>
            {
                (kind, name, asn1::number("certListType", *list_kind)?, list, times)
            }
            _ => return Err(ReadError::Members("SES_ESPropertyInfo", members.len())),
        };
        let validity = (time("validStart", times[1])?, time("validEnd", times[2])?);
        Ok(Self {
            kind: asn1::number("type", *kind)?,
            name: text("name", *name)?,
            holders: read_holders(list_kind, *list)?,
            created: time("createDate", times[0])?,
            validity,
        })
    }
}

/// SES_CertList: both choices are untagged, certListType says which it is.
fn read_holders(kind: u64, list: Element<'_>) -> Result<Holders<'_>, ReadError> {
    let elements = sequence("certList", list, HOLDERS_MAX)?;
    let mut values = elements.iter();
    match kind {
        1 => values
            .map(|element| octets("certList", *element))
            .collect::<Result<_, _>>()
            .map(Holders::Certificates),
        2 => values
            .try_fold(Vec::new(), |mut digests, element| {
                match sequence("certDigestList", *element, 2)?[..] {
                    [_, value] => digests.push(octets("certDigestList", value)?),
                    ref other => return Err(ReadError::Members("CertDigestObj", other.len())),
                }
                Ok(digests)
            })
            .map(Holders::Digests),
        _ => Err(ReadError::Value("certListType")),
    }
}

fn read_picture(element: Element<'_>) -> Result<Picture<'_>, ReadError> {
    match sequence("SES_ESPictureInfo", element, 4)?[..] {
        [kind, data, width, height] => Ok(Picture {
            kind: text("picture type", kind)?,
            data: octets("picture data", data)?,
            width_mm: asn1::number("picture width", width)?,
            height_mm: asn1::number("picture height", height)?,
        }),
        ref other => Err(ReadError::Members("SES_ESPictureInfo", other.len())),
    }
}

/// SES_Header: the generation, as its envelope and version have it, and the vendor.
fn read_header(element: Element<'_>, envelope: &Envelope<'_>) -> Result<(Generation, String), ReadError> {
    match sequence("SES_Header", element, 3)?[..] {
        [id, version, vendor] => {
            if text("header id", id)? != "ES" {
                return Err(ReadError::Value("header id"));
            }
            let generation = envelope.generation(asn1::number("version", version)?)?;
            Ok((generation, text("vid", vendor)?))
        }
        ref other => Err(ReadError::Members("SES_Header", other.len())),
    }
}

/// ExtensionDatas: untagged in most seals, under a tag or inside an OCTET STRING in some.
pub(super) fn read_extensions(element: Element<'_>) -> Result<Vec<Extension<'_>>, ReadError> {
    let outer = any("extDatas", element)?;
    let list = match outer.tag() {
        Tag::OctetString | Tag::ContextSpecific { .. } if outer.value().first() == Some(&0x30) => {
            let inner = any("extDatas", Element(outer.value()))?;
            // An implicit tag stands in place of the SEQUENCE, so its first member begins at once.
            if inner.tag() == Tag::Sequence && looks_like_extension(inner.value()) {
                crate::element::Members(outer.value())
            } else {
                crate::element::Members(inner.value())
            }
        }
        Tag::Sequence | Tag::ContextSpecific { .. } => crate::element::Members(outer.value()),
        _ => return Err(ReadError::Value("extDatas")),
    };
    let elements = list
        .elements(EXTENSIONS_MAX)
        .map_err(asn1::malformed("extDatas"))?;
    elements.into_iter().map(read_extension).collect()
}

/// ExtData begins with an OBJECT IDENTIFIER, a list of them with a SEQUENCE.
fn looks_like_extension(value: &[u8]) -> bool {
    value.first() == Some(&0x06)
}

fn read_extension(element: Element<'_>) -> Result<Extension<'_>, ReadError> {
    let (id, critical, value) = match sequence("ExtData", element, 3)?[..] {
        [id, value] => (id, false, value),
        [id, critical, value] => (
            id,
            any("critical", critical)?
                .decode_as()
                .map_err(asn1::malformed("critical"))?,
            value,
        ),
        ref other => return Err(ReadError::Members("ExtData", other.len())),
    };
    Ok(Extension {
        id: object_identifier("extnID", id)?,
        critical,
        value: octets("extnValue", value)?,
    })
}

impl<'a> Seal<'a> {
    /// Reads a seal of any version.
    pub fn read(der: &'a [u8]) -> Result<Self, ReadError> {
        let envelope = Envelope::read(der)?;
        let members = sequence("SES_SealInfo", envelope.info, 5)?;
        let [header, id, property, picture, rest @ ..] = &members[..] else {
            return Err(ReadError::Members("SES_SealInfo", members.len()));
        };
        let (generation, vendor) = read_header(*header, &envelope)?;
        let property = Property::read(*property, generation)?;
        let extensions = rest
            .first()
            .map_or(Ok(Vec::new()), |element| read_extensions(*element))?;
        octets("cert", envelope.maker)?;
        object_identifier("signAlgID", envelope.algorithm)?;
        Ok(Self {
            der,
            info: envelope.info,
            maker: envelope.maker,
            algorithm: envelope.algorithm,
            value: envelope.value,
            generation,
            vendor,
            id: text("esID", *id)?,
            kind: property.kind,
            name: property.name,
            holders: property.holders,
            created: property.created,
            validity: property.validity,
            picture: read_picture(*picture)?,
            extensions,
            time_stamp: envelope.time_stamp,
        })
    }

    /// The whole seal.
    pub const fn der(&self) -> &'a [u8] {
        self.der
    }

    /// The maker's certificate, in DER.
    pub fn maker(&self) -> Result<&'a [u8], ReadError> {
        octets("cert", self.maker)
    }

    pub(super) fn algorithm(&self) -> Result<ObjectIdentifier, ReadError> {
        object_identifier("signAlgID", self.algorithm)
    }

    /// The maker's signature.
    pub const fn value(&self) -> &'a [u8] {
        self.value
    }

    /// What the maker signed: SES_SealInfo alone, in version 1 together with certificate and algorithm.
    pub(super) fn signed_bytes(&self) -> der::Result<Vec<u8>> {
        match self.generation {
            Generation::V1 => asn1::wrap(&[self.info.0, self.maker.0, self.algorithm.0]),
            Generation::V4 | Generation::V5 => Ok(self.info.0.to_vec()),
        }
    }
}
