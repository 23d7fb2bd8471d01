//! Somebody's signature file: does it hold, and whose is it?

use const_oid::db::rfc5280::ID_KP_EMAIL_PROTECTION;
use const_oid::db::rfc5911::ID_DATA;
use der::asn1::AnyRef;
use der::{Encode, Tag, TagNumber, Tagged};
use protocol::algorithm::{Algorithm, Hash, InputKind};
use protocol::clock::UnixMillis;
use protocol::verify::PublicKey;
use spki::ObjectIdentifier;
use x509_cert::ext::pkix::{KeyUsage, SubjectKeyIdentifier};

use super::attributes::{self, SignedAttributes};
use super::structure::{SignedData, SignerInfo};
use super::{CERTIFICATES_MAX, DigestBytes, supports};
use crate::element::Members;
use crate::identifier;
use crate::x509::{Certificate, IssuerAndSerial, Name, PathError, ReadError, verify_path};

/// Extended key usages that allow to sign documents, where a certificate names any: mail, as everybody uses
/// it, and id-kp-documentSigning (RFC 9336 3.1).
pub(crate) const DOCUMENT_SIGNING: [ObjectIdentifier; 2] = [
    ID_KP_EMAIL_PROTECTION,
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.36"),
];

/// Why a signature is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not CMS, or not in DER.
    #[error("not a CMS signature in DER: {0}")]
    Malformed(#[from] der::Error),
    /// Not SignedData over id-data.
    #[error("not a signature over plain data")]
    ContentType,
    /// The content lies inside, where nobody asked for its digest.
    #[error("the signature carries its content; only detached signatures are verified")]
    NotDetached,
    /// No signer, or several.
    #[error("a signature with exactly one signer is needed")]
    NotOneSigner,
    /// A signed attribute that is missing or there twice.
    #[error("the signed attribute {0} must be there, once")]
    Attribute(&'static str),
    /// An algorithm that is not supported, or does not fit the key or the digest.
    #[error("signed with an algorithm that is not supported, or that does not fit the signer's key")]
    UnsupportedAlgorithm,
    /// The content is not what was signed.
    #[error("the content is not what was signed")]
    ContentDigest,
    /// The signer's certificate is not enclosed.
    #[error("the signer's certificate is not enclosed")]
    NoCertificate,
    /// The signed attributes name another certificate.
    #[error("the signature was made under another certificate than the one enclosed")]
    OtherCertificate,
    /// The key usage of the signer's certificate excludes signatures (RFC 5280 4.2.1.3).
    #[error("the signer's certificate is not for signing")]
    KeyUsage,
    /// The signature is not the signer's over these attributes.
    #[error("the signature does not verify")]
    BadSignature,
    /// The signer's certificate does not lead to a trust anchor.
    #[error("the signer's certificate: {0}")]
    Path(#[from] PathError),
}

impl From<ReadError> for VerifyError {
    fn from(error: ReadError) -> Self {
        Self::Path(error.into())
    }
}

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedCms {
    /// The signer, as RFC 4514 writes names.
    pub signer: String,
    /// The signer's certificate, in DER.
    pub certificate: Vec<u8>,
    /// When the signer says it was made. A time stamp would prove it; this does not.
    pub signing_time: UnixMillis,
    /// How.
    pub algorithm: Algorithm,
}

/// Verifies a detached signature with the attributes of CAdES-BES: that the content is what was signed, that
/// the signature over the signed attributes, as received, is the signer's, and that the signer's certificate
/// was valid at the signing time and leads to one of `trust_anchors` (certificates, in DER). Revocation is
/// not looked at.
///
/// `content_digest` gives the digest of the content for the hash the signer chose; a caller that holds only
/// one digest returns that one, whatever is asked, and a signature with another hash is refused.
pub fn verify_detached(
    cms: &[u8],
    content_digest: &dyn Fn(Hash) -> DigestBytes,
    trust_anchors: &[impl AsRef<[u8]>],
) -> Result<VerifiedCms, VerifyError> {
    let signature = Opened::detached(cms)?;
    if *signature.message_digest()? != *content_digest(signature.hash()) {
        return Err(VerifyError::ContentDigest);
    }
    let certificates = signature.certificates()?;
    let leaf = signature.signer(&certificates)?;
    signature.check_signing_certificate(leaf)?;
    check_key_usage(leaf)?;
    let algorithm = signature.check_signature(leaf)?;
    let signing_time = signature.attributes.signing_time()?;
    check_path(
        leaf,
        &certificates,
        trust_anchors,
        signing_time,
        &DOCUMENT_SIGNING,
    )?;
    let name = Name::from_der(leaf.subject().0)?;
    Ok(VerifiedCms {
        signer: name.to_string(),
        certificate: leaf.der().to_vec(),
        signing_time,
        algorithm,
    })
}

/// A signature that has been read, for callers who want to know of each check how it went.
pub(crate) struct Opened<'a> {
    signed: SignedData<'a>,
    info: SignerInfo<'a>,
    members: Members<'a>,
    attributes: SignedAttributes<'a>,
    hash: Hash,
}

impl<'a> Opened<'a> {
    /// A detached signature over plain data.
    pub(crate) fn detached(cms: &'a [u8]) -> Result<Self, VerifyError> {
        let signed = SignedData::detached(cms)?;
        let info = signed.signer()?;
        let members = info
            .signed_attributes
            .ok_or(VerifyError::Attribute("signedAttrs"))?;
        let attributes = SignedAttributes::parse(members)?;
        attributes.check_content_type_is(ID_DATA)?;
        let hash = identifier::read_hash(&info.digest_algorithm).ok_or(VerifyError::UnsupportedAlgorithm)?;
        Ok(Self {
            signed,
            info,
            members,
            attributes,
            hash,
        })
    }

    /// What content and attributes are digested with.
    pub(crate) const fn hash(&self) -> Hash {
        self.hash
    }

    /// What the content's digest has to be.
    pub(crate) fn message_digest(&self) -> Result<&'a [u8], VerifyError> {
        self.attributes.message_digest()
    }

    /// Whether an attribute says a signing time.
    pub(crate) fn has_signing_time(&self) -> bool {
        self.attributes.has_signing_time()
    }

    pub(crate) fn certificates(&self) -> Result<Vec<Certificate<'a>>, VerifyError> {
        enclosed_certificates(&self.signed)
    }

    pub(crate) fn signer<'p>(
        &self,
        certificates: &'p [Certificate<'a>],
    ) -> Result<&'p Certificate<'a>, VerifyError> {
        find_signer(certificates, self.info.signer)
    }

    /// That the signed attributes name this certificate.
    pub(crate) fn check_signing_certificate(&self, leaf: &Certificate<'_>) -> Result<(), VerifyError> {
        self.attributes.check_signing_certificate(leaf)
    }

    /// The signature over the signed attributes, with the key of this certificate.
    pub(crate) fn check_signature(&self, leaf: &Certificate<'_>) -> Result<Algorithm, VerifyError> {
        check_signature(&self.info, self.members, self.hash, leaf.public_key())
    }

    /// The bytes of the signature, which a time stamp is over.
    pub(crate) fn signature(&self) -> &'a [u8] {
        self.info.signature.as_bytes()
    }

    /// Time-stamp tokens among the unsigned attributes.
    pub(crate) fn time_stamps(&self) -> Result<Vec<&'a [u8]>, VerifyError> {
        match self.info.unsigned_attributes {
            Some(unsigned) => Ok(attributes::time_stamps(unsigned)?),
            None => Ok(Vec::new()),
        }
    }
}

/// The signer's certificate, in DER, and then the other ones that are enclosed, of a detached signature.
pub(crate) fn signers(cms: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, VerifyError> {
    let opened = Opened::detached(cms)?;
    let certificates = opened.certificates()?;
    let leaf = opened.signer(&certificates)?.der();
    let others = certificates
        .iter()
        .map(Certificate::der)
        .filter(|other| *other != leaf);
    Ok(vec![
        [leaf].into_iter().chain(others).map(<[u8]>::to_vec).collect(),
    ])
}

/// The X.509 certificates among the CertificateChoices (RFC 5652 10.2.2): the SEQUENCEs, the others are
/// tagged.
pub(crate) fn enclosed_certificates<'a>(
    signed: &SignedData<'a>,
) -> Result<Vec<Certificate<'a>>, VerifyError> {
    const SEQUENCE: u8 = 0x30;
    let elements = signed
        .certificates
        .unwrap_or(Members(&[]))
        .elements(CERTIFICATES_MAX)?;
    let x509 = elements
        .iter()
        .filter(|element| element.0.first() == Some(&SEQUENCE));
    Ok(x509
        .map(|element| Certificate::parse(element.0))
        .collect::<Result<_, _>>()?)
}

/// The certificate named by the SignerIdentifier (RFC 5652 5.3).
pub(crate) fn find_signer<'p, 'a>(
    certificates: &'p [Certificate<'a>],
    signer: AnyRef<'_>,
) -> Result<&'p Certificate<'a>, VerifyError> {
    const KEY_IDENTIFIER: Tag = Tag::ContextSpecific {
        constructed: false,
        number: TagNumber(0),
    };
    let found = if signer.tag() == KEY_IDENTIFIER {
        certificates
            .iter()
            .find(|certificate| has_key_identifier(certificate, signer.value()))
    } else {
        let id: IssuerAndSerial<'_> = signer.decode_as()?;
        certificates
            .iter()
            .find(|certificate| certificate.issuer_and_serial() == id)
    };
    found.ok_or(VerifyError::NoCertificate)
}

fn has_key_identifier(certificate: &Certificate<'_>, wanted: &[u8]) -> bool {
    let identifier = certificate.extension::<SubjectKeyIdentifier>();
    matches!(identifier, Ok(Some(SubjectKeyIdentifier(found))) if found.as_bytes() == wanted)
}

pub(crate) fn check_key_usage(leaf: &Certificate<'_>) -> Result<(), VerifyError> {
    match leaf.extension::<KeyUsage>()? {
        Some(usage) if !usage.digital_signature() && !usage.non_repudiation() => Err(VerifyError::KeyUsage),
        _ => Ok(()),
    }
}

/// Checks the signature over the SET of signed attributes, its members as they came (RFC 5652 5.4).
fn check_signature(
    signer: &SignerInfo<'_>,
    members: Members<'_>,
    hash: Hash,
    public_key: &[u8],
) -> Result<Algorithm, VerifyError> {
    let algorithm = identifier::read_signature(&signer.signature_algorithm, Some(hash))
        .filter(|algorithm| supports(*algorithm) && algorithm.input() == InputKind::Digest(hash))
        .ok_or(VerifyError::UnsupportedAlgorithm)?;
    let key = PublicKey::from_spki(public_key).map_err(|_| VerifyError::UnsupportedAlgorithm)?;
    if !key.kind().algorithms().contains(&algorithm) {
        return Err(VerifyError::UnsupportedAlgorithm);
    }
    let digest = hash.digest(&members.to_der()?);
    key.verify(algorithm, &digest, signer.signature.as_bytes())
        .map_err(|_| VerifyError::BadSignature)?;
    Ok(algorithm)
}

/// That a certificate leads, by way of the enclosed ones, to a trust anchor.
fn check_path(
    leaf: &Certificate<'_>,
    enclosed: &[Certificate<'_>],
    trust_anchors: &[impl AsRef<[u8]>],
    at: UnixMillis,
    purposes: &[ObjectIdentifier],
) -> Result<(), VerifyError> {
    let anchors: Vec<_> = trust_anchors
        .iter()
        .map(|anchor| Certificate::parse(anchor.as_ref()))
        .collect::<Result<_, _>>()?;
    let others = enclosed
        .iter()
        .filter(|other| other.der() != leaf.der())
        .collect();
    Ok(verify_path(leaf, others, &anchors, at, purposes)?)
}
