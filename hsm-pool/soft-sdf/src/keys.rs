//! The keys of the library, as its configuration gives them, and what they do. SM2 itself is the crate `sm2`.

use std::collections::HashMap;
use std::ffi::c_uint;
use std::sync::Arc;

use sm2::dsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use sm2::dsa::{Signature, SigningKey};
use sm2::elliptic_curve::sec1::ToSec1Point;

use crate::code::{SDR_PKOPERR, SDR_SIGNERR, SDR_VERIFYERR, SdrResult};
use crate::structs::{EccPublicKey, EccSignature, NUMBER};

/// A private key and the password for its use.
pub(crate) struct Key {
    signing: SigningKey,
    password: String,
}

/// Keys by index.
pub(crate) type Keys = HashMap<c_uint, Arc<Key>>;

/// A line of the configuration that has no meaning.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {cause}")]
pub(crate) struct ConfigError {
    line: usize,
    cause: Cause,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Cause {
    #[error("a line is an index, a password and a private key")]
    Words,
    #[error("`{0}` is not an index: a number from 1")]
    Index(String),
    #[error("index {0} is there already")]
    Twice(c_uint),
    #[error("the private key of index {0} is not a number from 1 to n-2 in 64 hexadecimal digits")]
    Key(c_uint),
}

/// Understands a configuration.
pub(crate) fn parse(text: &str) -> Result<Keys, ConfigError> {
    let mut keys = Keys::new();
    for (line, text) in (1..).zip(text.lines()) {
        let words: Vec<&str> = text
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        if !words.is_empty() {
            add(&mut keys, &words).map_err(|cause| ConfigError { line, cause })?;
        }
    }
    Ok(keys)
}

fn add(keys: &mut Keys, words: &[&str]) -> Result<(), Cause> {
    let [index, password, key] = words else {
        return Err(Cause::Words);
    };
    let number = index.parse().ok().filter(|index| *index > 0);
    let index = number.ok_or_else(|| Cause::Index((*index).to_owned()))?;
    let signing = from_hex(key).and_then(|key| SigningKey::from_slice("", &key).ok());
    let signing = signing.ok_or(Cause::Key(index))?;
    let key = Key {
        signing,
        password: (*password).to_owned(),
    };
    if keys.insert(index, Arc::new(key)).is_some() {
        return Err(Cause::Twice(index));
    }
    Ok(())
}

fn from_hex(text: &str) -> Option<[u8; NUMBER]> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect();
    let bytes: Vec<u8> = digits?
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    if text.len() == 2 * NUMBER {
        bytes.try_into().ok()
    } else {
        None
    }
}

impl Key {
    /// A password need not be compared in constant time here: a test knows it.
    pub(crate) fn opens_with(&self, password: &[u8]) -> bool {
        self.password.as_bytes() == password
    }

    pub(crate) fn public(&self) -> EccPublicKey {
        let point = self.signing.verifying_key().to_sec1_point(false);
        let mut coordinates = [[0; NUMBER]; 2];
        for (place, coordinate) in coordinates.iter_mut().zip(point.as_bytes()[1..].chunks(NUMBER)) {
            place.copy_from_slice(coordinate);
        }
        EccPublicKey::new(coordinates[0], coordinates[1])
    }

    /// Signs e = SM3(Z ‖ M).
    pub(crate) fn sign(&self, digest: &[u8]) -> SdrResult<EccSignature> {
        let signature: Signature = self.signing.sign_prehash(digest).map_err(|_| SDR_SIGNERR)?;
        Ok(EccSignature::new(
            signature.r_bytes().into(),
            signature.s_bytes().into(),
        ))
    }

    pub(crate) fn verify(&self, digest: &[u8], signature: &EccSignature) -> SdrResult<()> {
        let (r, s) = signature.numbers().ok_or(SDR_VERIFYERR)?;
        let signature = Signature::from_scalars(r, s).map_err(|_| SDR_VERIFYERR)?;
        let key = self.signing.verifying_key();
        if digest.len() != NUMBER {
            return Err(SDR_PKOPERR);
        }
        key.verify_prehash(digest, &signature).map_err(|_| SDR_VERIFYERR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8";

    fn refusal(text: &str) -> String {
        parse(text)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn keys_are_read_and_comments_are_not() {
        let keys = parse(&format!("# keys\n1 secret {KEY} # the first\n\n7 other {KEY}\n")).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(keys[&1].opens_with(b"secret") && !keys[&1].opens_with(b"other"));
    }

    #[test]
    fn what_has_no_meaning_is_named() {
        assert_eq!(
            refusal("1 secret"),
            "line 1: a line is an index, a password and a private key"
        );
        assert!(refusal(&format!("\n0 secret {KEY}")).starts_with("line 2: `0` is not an index"));
        assert!(refusal(&format!("1 a {KEY}\n1 b {KEY}")).contains("index 1 is there already"));
        for key in [
            "00",
            &"0".repeat(64),
            &"f".repeat(64),
            &KEY.replace('3', "x"),
            &"é".repeat(32),
        ] {
            assert!(
                refusal(&format!("1 a {key}")).contains("private key of index 1"),
                "{key}"
            );
        }
    }

    #[test]
    fn signatures_are_those_of_the_key_and_the_digest() {
        let key = &parse(&format!("1 secret {KEY}")).unwrap()[&1];
        let signature = key.sign(&[7; 32]).unwrap();
        assert_eq!(key.verify(&[7; 32], &signature), Ok(()));
        assert_eq!(key.verify(&[8; 32], &signature), Err(SDR_VERIFYERR));
        let mut flipped = signature;
        flipped.flip_a_bit();
        assert_eq!(key.verify(&[7; 32], &flipped), Err(SDR_VERIFYERR));
    }
}
