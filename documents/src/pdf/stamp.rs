//! Time-stamp tokens (RFC 3161 2.4.2) as proof of time in PDF signatures.

use const_oid::db::rfc5280::ID_KP_TIME_STAMPING;
use der::asn1::{AnyRef, GeneralizedTime, OctetStringRef};
use der::{Decode, Sequence, SliceReader};
use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;
use spki::{AlgorithmIdentifierRef, ObjectIdentifier};
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::report::{TimeStampReport, Verdict};
use crate::cms::{Opened, VerifyError, check_path};
use crate::element::Element;
use crate::identifier;
use crate::x509::Name;

/// id-ct-TSTInfo (RFC 3161 2.4.2).
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");

/// MessageImprint (RFC 3161 2.4.1).
#[derive(Sequence)]
struct MessageImprint<'a> {
    hash: AlgorithmIdentifierRef<'a>,
    digest: &'a OctetStringRef,
}

/// The first members of TSTInfo (RFC 3161 2.4.2); the others do not matter here.
struct TstInfo<'a> {
    imprint: MessageImprint<'a>,
    time: UnixMillis,
}

impl<'a> TstInfo<'a> {
    fn read(content: &'a [u8]) -> der::Result<Self> {
        let sequence = AnyRef::from_der(content)?;
        let mut reader = SliceReader::new(sequence.value())?;
        let _version = u8::decode(&mut reader)?;
        let _policy: ObjectIdentifier = Decode::decode(&mut reader)?;
        let imprint = MessageImprint::decode(&mut reader)?;
        let _serial = Element::decode(&mut reader)?;
        let time = AnyRef::decode(&mut reader)?;
        // A fraction of a second may follow, which GeneralizedTime in DER of certificates has not.
        let whole = time.value().get(..14).unwrap_or_default();
        let whole = [&[0x18, 15][..], whole, b"Z"].concat();
        let time = GeneralizedTime::from_der(&whole)?.to_unix_duration().as_secs();
        Ok(Self {
            imprint,
            time: UnixMillis(time * 1000),
        })
    }
}

/// Verifies a token over `stamped`: its imprint, its signature, and the path of the authority at the time that it
/// says itself.
pub(crate) fn verify(
    token: &[u8],
    stamped: &dyn Fn(Hash) -> crate::cms::DigestBytes,
    trust_anchors: &[impl AsRef<[u8]>],
) -> Result<TimeStampReport, VerifyError> {
    let (opened, content) = Opened::enclosing(token, TST_INFO)?;
    let info = TstInfo::read(content)?;
    let hash = identifier::read_hash(&info.imprint.hash).ok_or(VerifyError::UnsupportedAlgorithm)?;
    let is_over_this = *info.imprint.digest.as_bytes() == *stamped(hash)
        && *opened.message_digest()? == *opened.hash().digest(content);
    if !is_over_this {
        return Err(VerifyError::ContentDigest);
    }
    let certificates = opened.certificates()?;
    let leaf = opened.signer(&certificates)?;
    opened.check_signing_certificate(leaf)?;
    opened.check_signature(leaf)?;
    // An authority says that it is one (RFC 3161 2.3); a certificate without extended key usages is none.
    let is_authority = leaf.extension::<ExtendedKeyUsage>()?.is_some();
    let path = check_path(
        leaf,
        &certificates,
        trust_anchors,
        info.time,
        &[ID_KP_TIME_STAMPING],
    );
    Ok(TimeStampReport {
        time_ms: info.time.0,
        authority: Name::from_der(leaf.subject().0)?.to_string(),
        verdict: if path.is_ok() && is_authority {
            Verdict::Valid
        } else {
            Verdict::Indeterminate
        },
    })
}
