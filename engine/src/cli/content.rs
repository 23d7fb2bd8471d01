//! From `--digest` or `--file` to what an algorithm takes.

use protocol::algorithm::{Algorithm, Hash, InputKind};
use protocol::error_code::{Code, Refusal};
use protocol::verify::{PublicKey, SM2_DEFAULT_USER_ID};

use super::read_file;
use crate::args::Content;

/// What will be signed, and with which algorithm: a file under an SM2 key becomes e here, so that a file of any size
/// can be signed.
pub(super) struct Input {
    pub(super) algorithm: Algorithm,
    pub(super) bytes: Vec<u8>,
}

fn usage(text: impl Into<String>) -> Refusal {
    Refusal::new(Code::Usage, text.into())
}

/// The algorithm to use with a key.
pub(super) fn pick(key: &PublicKey, asked: Option<Algorithm>) -> Result<Algorithm, Refusal> {
    let possible = key.kind().algorithms();
    match asked {
        None => Ok(possible[0]),
        Some(algorithm) if possible.contains(&algorithm) => Ok(algorithm),
        Some(algorithm) => {
            let text = format!("a {} key does not sign with {algorithm}", key.kind());
            Err(Refusal::new(Code::UnsupportedAlgorithm, text))
        }
    }
}

/// Reads the content for an algorithm of a key.
pub(super) fn read(
    content: &Content,
    algorithm: Algorithm,
    key: &PublicKey,
    user_id: Option<&str>,
) -> Result<Input, Refusal> {
    match (&content.digest, &content.file) {
        (Some(hex), _) => from_digest(hex, algorithm),
        (None, Some(path)) => from_file(&read_file(path)?, algorithm, key, user_id),
        (None, None) => Err(usage("give --digest or --file")),
    }
}

fn from_digest(hex: &str, algorithm: Algorithm) -> Result<Input, Refusal> {
    // For SM2, --digest means e.
    let algorithm = if algorithm == Algorithm::Sm2Sm3 {
        Algorithm::Sm2Sm3E
    } else {
        algorithm
    };
    if let InputKind::Message(_) = algorithm.input() {
        return Err(usage(format!("{algorithm} signs whole messages; use --file")));
    }
    let bytes = decode_hex(hex).ok_or_else(|| usage("--digest is not hexadecimal"))?;
    algorithm
        .check_input(&bytes)
        .map_err(|error| Refusal::new(Code::DigestLength, error.to_string()))?;
    Ok(Input { algorithm, bytes })
}

fn from_file(
    bytes: &[u8],
    algorithm: Algorithm,
    key: &PublicKey,
    user_id: Option<&str>,
) -> Result<Input, Refusal> {
    match (algorithm, algorithm.input()) {
        (Algorithm::Sm2Sm3 | Algorithm::Sm2Sm3E, _) => {
            let user_id = user_id.map_or(SM2_DEFAULT_USER_ID, str::as_bytes);
            let e = key.sm2_e(user_id, bytes).ok_or_else(|| usage("not an SM2 key"))?;
            Ok(Input {
                algorithm: Algorithm::Sm2Sm3E,
                bytes: e.to_vec(),
            })
        }
        (_, InputKind::Digest(hash)) => Ok(Input {
            algorithm,
            bytes: hash.digest(bytes).to_vec(),
        }),
        (_, InputKind::Message(_)) => {
            algorithm
                .check_input(bytes)
                .map_err(|error| Refusal::new(Code::MessageTooLong, error.to_string()))?;
            Ok(Input {
                algorithm,
                bytes: bytes.to_vec(),
            })
        }
    }
}

/// A digest of the content by any hash, for CMS, whose own attributes say which.
pub(super) fn digest_by(content: &Content, hash: Hash) -> Result<Vec<u8>, Refusal> {
    match (&content.digest, &content.file) {
        (Some(hex), _) => decode_hex(hex).ok_or_else(|| usage("--digest is not hexadecimal")),
        (None, Some(path)) => Ok(hash.digest(&read_file(path)?).to_vec()),
        (None, None) => Err(usage("give --digest or --file")),
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_strictly() {
        assert_eq!(decode_hex("00ffA5"), Some(vec![0, 255, 165]));
        for bad in ["0", "0g", "+1", "é0"] {
            assert_eq!(decode_hex(bad), None, "{bad}");
        }
    }
}
