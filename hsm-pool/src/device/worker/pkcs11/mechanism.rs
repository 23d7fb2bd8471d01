//! How each algorithm is asked of a token, and what comes back is encoded.

use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use protocol::algorithm::{Algorithm, Hash, InputKind};
use protocol::verify::pair_to_der;

use super::TokenError;

pub(super) fn sign_with(
    session: &Session,
    key: ObjectHandle,
    algorithm: Algorithm,
    input: &[u8],
) -> Result<Vec<u8>, TokenError> {
    match algorithm {
        Algorithm::EcdsaP256Sha256 | Algorithm::EcdsaP384Sha384 => {
            let pair = session.sign(&Mechanism::Ecdsa, key, input)?;
            Ok(pair_to_der(&pair).ok_or(TokenError::Unreadable)?.to_vec())
        }
        Algorithm::RsaPkcs1Sha256 | Algorithm::RsaPkcs1Sha384 | Algorithm::RsaPkcs1Sha512 => {
            Ok(session.sign(&Mechanism::RsaPkcs, key, &digest_info(algorithm, input)?)?)
        }
        Algorithm::RsaPssSha256 | Algorithm::RsaPssSha384 | Algorithm::RsaPssSha512 => {
            Ok(session.sign(&Mechanism::RsaPkcsPss(pss_parameters(algorithm)?), key, input)?)
        }
        Algorithm::Ed25519 => {
            let parameters = EddsaParams::new(EddsaSignatureScheme::Pure);
            Ok(session.sign(&Mechanism::Eddsa(parameters), key, input)?)
        }
        Algorithm::Sm2Sm3 | Algorithm::Sm2Sm3E => Err(TokenError::Unsupported),
    }
}

fn hash_of(algorithm: Algorithm) -> Result<Hash, TokenError> {
    match algorithm.input() {
        InputKind::Digest(hash) => Ok(hash),
        InputKind::Message(_) => Err(TokenError::Unsupported),
    }
}

/// DigestInfo (RFC 8017 9.2, note 1): CKM_RSA_PKCS pads it but does not make it.
fn digest_info(algorithm: Algorithm, digest: &[u8]) -> Result<Vec<u8>, TokenError> {
    let last = match hash_of(algorithm)? {
        Hash::Sha256 => 1,
        Hash::Sha384 => 2,
        Hash::Sha512 => 3,
        Hash::Sm3 => return Err(TokenError::Unsupported),
    };
    let length = u8::try_from(digest.len()).map_err(|_| TokenError::Unsupported)?;
    let mut info = vec![0x30, 17 + length, 0x30, 0x0d, 0x06, 0x09];
    info.extend_from_slice(&[
        0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last, 0x05, 0x00, 0x04, length,
    ]);
    info.extend_from_slice(digest);
    Ok(info)
}

fn pss_parameters(algorithm: Algorithm) -> Result<PkcsPssParams, TokenError> {
    let hash = hash_of(algorithm)?;
    let (hash_alg, mgf) = match hash {
        Hash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        Hash::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384),
        Hash::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512),
        Hash::Sm3 => return Err(TokenError::Unsupported),
    };
    Ok(PkcsPssParams {
        hash_alg,
        mgf,
        s_len: (hash.bytes() as u64).into(),
    })
}
