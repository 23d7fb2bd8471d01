//! The signature algorithms and key kinds, their names, and what each takes as input (SEMANTICS 2.2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::MESSAGE_BYTES_MAX;

/// A kind of key, as generated, stored and certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeyKind {
    /// NIST P-256 (FIPS 186-5).
    P256,
    /// NIST P-384 (FIPS 186-5).
    P384,
    /// RSA with a 2048-bit modulus.
    Rsa2048,
    /// RSA with a 3072-bit modulus.
    Rsa3072,
    /// RSA with a 4096-bit modulus.
    Rsa4096,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// SM2 (GB/T 32918.5, the recommended curve).
    Sm2,
}

impl KeyKind {
    /// Every kind, in the order shown to people.
    pub const ALL: [Self; 7] = [
        Self::P256,
        Self::P384,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::Ed25519,
        Self::Sm2,
    ];

    /// The name in configuration, the registry and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
            Self::Ed25519 => "ed25519",
            Self::Sm2 => "sm2",
        }
    }

    /// Modulus size of an RSA kind.
    pub const fn rsa_bits(self) -> Option<u32> {
        match self {
            Self::Rsa2048 => Some(2048),
            Self::Rsa3072 => Some(3072),
            Self::Rsa4096 => Some(4096),
            _ => None,
        }
    }

    /// The algorithms a key of this kind signs with, the default first.
    pub const fn algorithms(self) -> &'static [Algorithm] {
        use Algorithm as A;
        match self {
            Self::P256 => &[A::EcdsaP256Sha256],
            Self::P384 => &[A::EcdsaP384Sha384],
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => &[
                A::RsaPkcs1Sha256,
                A::RsaPkcs1Sha384,
                A::RsaPkcs1Sha512,
                A::RsaPssSha256,
                A::RsaPssSha384,
                A::RsaPssSha512,
            ],
            Self::Ed25519 => &[A::Ed25519],
            Self::Sm2 => &[A::Sm2Sm3E, A::Sm2Sm3],
        }
    }
}

/// A signature algorithm, by its stable name and its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[repr(u8)]
pub enum Algorithm {
    /// ECDSA on P-256 over a SHA-256 digest.
    EcdsaP256Sha256 = 1,
    /// ECDSA on P-384 over a SHA-384 digest.
    EcdsaP384Sha384 = 2,
    /// RSASSA-PKCS1-v1_5 (RFC 8017 8.2) over a SHA-256 digest.
    RsaPkcs1Sha256 = 3,
    /// RSASSA-PKCS1-v1_5 over a SHA-384 digest.
    RsaPkcs1Sha384 = 4,
    /// RSASSA-PKCS1-v1_5 over a SHA-512 digest.
    RsaPkcs1Sha512 = 5,
    /// RSASSA-PSS (RFC 8017 8.1) over a SHA-256 digest; salt 32 bytes, MGF1 with SHA-256.
    RsaPssSha256 = 6,
    /// RSASSA-PSS over a SHA-384 digest; salt 48 bytes, MGF1 with SHA-384.
    RsaPssSha384 = 7,
    /// RSASSA-PSS over a SHA-512 digest; salt 64 bytes, MGF1 with SHA-512.
    RsaPssSha512 = 8,
    /// Ed25519 over the whole message (RFC 8032 5.1, not the prehash variant).
    Ed25519 = 9,
    /// SM2 over e = SM3(Z ‖ M), computed by the caller (GB/T 32918.2 6.1 A1–A2 done outside).
    Sm2Sm3E = 10,
    /// SM2 with SM3 over the whole message; Z is computed here from the user id.
    Sm2Sm3 = 11,
}

/// The hash a digest input was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-384 (FIPS 180-4).
    Sha384,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// SM3 (GB/T 32905).
    Sm3,
}

impl Hash {
    /// Digest length in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha256 | Self::Sm3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of `data`.
    pub fn digest(self, data: &[u8]) -> smallvec::SmallVec<[u8; 64]> {
        self.digest_of(&[data])
    }

    /// The digest of several pieces as if they were one.
    pub fn digest_of(self, pieces: &[&[u8]]) -> smallvec::SmallVec<[u8; 64]> {
        use aws_lc_rs::digest as d;
        let algorithm = match self {
            Self::Sha256 => &d::SHA256,
            Self::Sha384 => &d::SHA384,
            Self::Sha512 => &d::SHA512,
            Self::Sm3 => {
                use sm3::Digest as _;
                let mut context = sm3::Sm3::new();
                pieces.iter().for_each(|piece| context.update(piece));
                return smallvec::SmallVec::from_slice(&context.finalize());
            }
        };
        let mut context = d::Context::new(algorithm);
        pieces.iter().for_each(|piece| context.update(piece));
        smallvec::SmallVec::from_slice(context.finish().as_ref())
    }
}

/// What an algorithm takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// A digest made with this hash, of exactly its length.
    Digest(Hash),
    /// A whole message, up to this many bytes.
    Message(usize),
}

/// Why an input does not fit an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The digest has the wrong length.
    #[error("{algorithm} takes a digest of {expected} bytes, not {found}")]
    DigestLength {
        /// The algorithm asked for.
        algorithm: Algorithm,
        /// Bytes it takes.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The message is too long.
    #[error("{algorithm} takes a message of up to {limit} bytes, not {found}")]
    MessageLength {
        /// The algorithm asked for.
        algorithm: Algorithm,
        /// The limit.
        limit: usize,
        /// Bytes given.
        found: usize,
    },
}

impl Algorithm {
    /// Every algorithm, in wire order.
    pub const ALL: [Self; 11] = [
        Self::EcdsaP256Sha256,
        Self::EcdsaP384Sha384,
        Self::RsaPkcs1Sha256,
        Self::RsaPkcs1Sha384,
        Self::RsaPkcs1Sha512,
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
        Self::Ed25519,
        Self::Sm2Sm3E,
        Self::Sm2Sm3,
    ];

    /// The number on the wire and in the journal.
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// The algorithm of a wire number.
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
            Self::RsaPkcs1Sha384 => "rsa-pkcs1-sha384",
            Self::RsaPkcs1Sha512 => "rsa-pkcs1-sha512",
            Self::RsaPssSha256 => "rsa-pss-sha256",
            Self::RsaPssSha384 => "rsa-pss-sha384",
            Self::RsaPssSha512 => "rsa-pss-sha512",
            Self::Ed25519 => "ed25519",
            Self::Sm2Sm3E => "sm2-sm3-e",
            Self::Sm2Sm3 => "sm2-sm3",
        }
    }

    /// What it takes.
    pub const fn input(self) -> InputKind {
        match self {
            Self::EcdsaP256Sha256 | Self::RsaPkcs1Sha256 | Self::RsaPssSha256 => {
                InputKind::Digest(Hash::Sha256)
            }
            Self::EcdsaP384Sha384 | Self::RsaPkcs1Sha384 | Self::RsaPssSha384 => {
                InputKind::Digest(Hash::Sha384)
            }
            Self::RsaPkcs1Sha512 | Self::RsaPssSha512 => InputKind::Digest(Hash::Sha512),
            Self::Sm2Sm3E => InputKind::Digest(Hash::Sm3),
            Self::Ed25519 | Self::Sm2Sm3 => InputKind::Message(MESSAGE_BYTES_MAX),
        }
    }

    /// Whether the result is a pair (r, s) that can be given as DER or as raw bytes.
    pub const fn is_pair(self) -> bool {
        matches!(
            self,
            Self::EcdsaP256Sha256 | Self::EcdsaP384Sha384 | Self::Sm2Sm3E | Self::Sm2Sm3
        )
    }

    /// Bytes of r, and of s, in the raw form of a pair.
    pub const fn pair_half_bytes(self) -> usize {
        match self {
            Self::EcdsaP384Sha384 => 48,
            _ => 32,
        }
    }

    /// Checks the length of an input.
    pub fn check_input(self, input: &[u8]) -> Result<(), InputError> {
        let found = input.len();
        match self.input() {
            InputKind::Digest(hash) if found != hash.bytes() => Err(InputError::DigestLength {
                algorithm: self,
                expected: hash.bytes(),
                found,
            }),
            InputKind::Message(limit) if found > limit => Err(InputError::MessageLength {
                algorithm: self,
                limit,
                found,
            }),
            _ => Ok(()),
        }
    }
}

/// How a finished signature is handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Format {
    /// The algorithm's usual encoding: DER for ECDSA and SM2, plain bytes for RSA and Ed25519.
    #[default]
    Raw = 0,
    /// r ‖ s, each of fixed length, for ECDSA and SM2.
    Pair = 1,
    /// A detached CMS SignedData (RFC 5652) whose content is what the digest was made of.
    Cms = 2,
}

impl Format {
    /// The format of a wire number.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Pair),
            2 => Some(Self::Cms),
            _ => None,
        }
    }

    /// The number on the wire and in the journal.
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Pair => "pair",
            Self::Cms => "cms",
        }
    }
}

/// A name that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not a known {what}")]
pub struct UnknownName {
    what: &'static str,
    name: String,
}

macro_rules! by_name {
    ($type:ty, $what:literal, $all:expr) => {
        impl FromStr for $type {
            type Err = UnknownName;
            fn from_str(text: &str) -> Result<Self, UnknownName> {
                let found = $all.into_iter().find(|candidate| candidate.name() == text);
                found.ok_or_else(|| UnknownName {
                    what: $what,
                    name: text.chars().take(64).collect(),
                })
            }
        }

        impl TryFrom<String> for $type {
            type Error = UnknownName;
            fn try_from(text: String) -> Result<Self, UnknownName> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.name().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

by_name!(Algorithm, "algorithm", Algorithm::ALL);
by_name!(KeyKind, "key kind", KeyKind::ALL);
by_name!(Format, "format", [Format::Raw, Format::Pair, Format::Cms]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
            assert_eq!(Algorithm::from_wire(algorithm.wire()), Some(algorithm));
        }
        for kind in KeyKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!(Algorithm::from_wire(0), None);
        assert_eq!(Algorithm::from_wire(12), None);
        assert_eq!(
            "md5".parse::<Algorithm>().unwrap_err().to_string(),
            "'md5' is not a known algorithm"
        );
    }

    #[test]
    fn inputs_are_checked_by_length() {
        assert!(Algorithm::EcdsaP256Sha256.check_input(&[0; 32]).is_ok());
        let error = Algorithm::EcdsaP256Sha256.check_input(&[0; 31]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "ecdsa-p256-sha256 takes a digest of 32 bytes, not 31"
        );
        assert!(Algorithm::Ed25519.check_input(&[0; MESSAGE_BYTES_MAX]).is_ok());
        assert!(
            Algorithm::Ed25519
                .check_input(&[0; MESSAGE_BYTES_MAX + 1])
                .is_err()
        );
    }

    #[test]
    fn sm3_of_abc_is_the_standards_example() {
        // GB/T 32905-2016, A.1.
        let digest = Hash::Sm3.digest(b"abc");
        assert_eq!(digest[..4], [0x66, 0xc7, 0xf0, 0xf4]);
    }
}
