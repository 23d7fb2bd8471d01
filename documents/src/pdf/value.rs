//! What stands in /Contents: CMS (PAdES), or the seal signature that Chinese readers expect.
//!
//! No public standard says how a seal signature is put into a PDF. What the vendors' readers have in common: the
//! `SES_Signature` itself is the value, its data hash is SM3 of the two ranges, without Z, and /SubFilter is
//! `GM.sm2seal`.

use std::ops::Range;
use std::sync::Arc;

use protocol::algorithm::{Algorithm, Hash};
use protocol::clock::UnixMillis;

use super::sign::{AssembleError, PrepareError};
use crate::cms::{self, Chain, PreparedCms};
use crate::ses::{self, PreparedSignature, SignatureRequest};

/// /SubFilter of seal signatures, as we write it.
pub(crate) const SEAL_SUB_FILTER: &str = "GM.sm2seal";
/// /Filter beside it.
const SEAL_FILTER: &str = "GM.PKILite";
/// Longest name of what is sealed: `/ByteRange [0 a b c]` with numbers of ten digits.
const PROPERTY_BYTES_MAX: usize = 48;

/// Who signs, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signer<'s> {
    /// CMS with the attributes of PAdES.
    Cms {
        algorithm: Algorithm,
        chain: &'s Arc<Chain>,
    },
    /// A seal signature (GB/T 38540) with the seal and the signer's certificate.
    Seal { seal: &'s [u8], certificate: &'s [u8] },
}

impl Signer<'_> {
    /// What the covered bytes are digested with, once it is clear that the key can sign.
    pub(crate) fn hash(&self) -> Result<Hash, PrepareError> {
        match self {
            Self::Cms { algorithm, chain } => Ok(cms::check_algorithm(*algorithm, chain)?),
            Self::Seal { .. } => Ok(Hash::Sm3),
        }
    }

    /// The most bytes that the value will have without a time stamp.
    pub(crate) fn bytes_max(&self) -> Result<usize, PrepareError> {
        match self {
            Self::Cms { algorithm, chain } => Ok(cms::bytes_max(*algorithm, chain)?),
            Self::Seal { seal, certificate } => {
                Ok(ses::signature_bytes_max(seal, certificate, PROPERTY_BYTES_MAX))
            }
        }
    }

    /// /Filter and /SubFilter (ISO 32000-2 Table 255).
    pub(crate) const fn filters(&self) -> [&'static str; 2] {
        match self {
            Self::Cms { .. } => ["Adobe.PPKLite", "ETSI.CAdES.detached"],
            Self::Seal { .. } => [SEAL_FILTER, SEAL_SUB_FILTER],
        }
    }

    /// The value without the signature in it, over covered bytes with this digest. `gap` is what is not covered.
    pub(crate) fn value(
        &self,
        digest: &[u8],
        (gap, end): (Range<usize>, usize),
        at: UnixMillis,
    ) -> Result<Value, PrepareError> {
        match self {
            Self::Cms { algorithm, chain } => Ok(Value::Cms(cms::prepare_for_document(
                digest, *algorithm, chain, at,
            )?)),
            Self::Seal { seal, certificate } => {
                let mut data_hash = [0; 32];
                data_hash.copy_from_slice(digest);
                let range = format!("/ByteRange [0 {} {} {}]", gap.start, gap.end, end - gap.end);
                let prepared = ses::prepare_signature(&SignatureRequest {
                    seal,
                    certificate,
                    data_hash,
                    property_info: &range,
                    at,
                })?;
                let e = prepared.e();
                Ok(Value::Seal(Box::new(prepared), e))
            }
        }
    }
}

/// A value that lacks the signature itself.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Cms(PreparedCms),
    /// With e, which is what is signed.
    Seal(Box<PreparedSignature>, [u8; 32]),
}

impl Value {
    pub(crate) fn to_sign(&self) -> &[u8] {
        match self {
            Self::Cms(cms) => cms.to_sign(),
            Self::Seal(_, e) => e,
        }
    }

    pub(crate) const fn hash(&self) -> Hash {
        match self {
            Self::Cms(cms) => cms.hash(),
            Self::Seal(..) => Hash::Sm3,
        }
    }

    pub(crate) fn assemble(self, signature: &[u8], token: Option<&[u8]>) -> Result<Vec<u8>, AssembleError> {
        match (self, token) {
            (Self::Cms(cms), None) => Ok(cms.assemble(signature)?),
            (Self::Cms(cms), Some(token)) => Ok(cms.assemble_time_stamped(signature, token)?),
            (Self::Seal(seal, _), token) => Ok(seal.assemble(signature, token)?),
        }
    }
}
