//! Encrypted files that open without a password (ISO 32000-2 7.6): AES with 128 bits (V 4) and 256 bits (V 5).
//!
//! Such a file says to everybody who reads it what may be done with it, and is read by everybody. Files that ask for a
//! password, and those encrypted with RC4, are refused.

use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptingKey, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use md5::{Digest, Md5};
use protocol::algorithm::Hash;

use super::ReadError;
use super::object::{Dictionary, Object, PdfString, Ref};

/// Bytes of an AES block.
const BLOCK: usize = 16;

/// What stands for a password that is not there (Algorithm 2 (a)).
const PADDING: [u8; 32] = [
    0x28, 0xbf, 0x4e, 0x5e, 0x4e, 0x75, 0x8a, 0x41, 0x64, 0x00, 0x4e, 0x56, 0xff, 0xfa, 0x01, 0x08, 0x2e,
    0x2e, 0x00, 0xb6, 0xd0, 0x68, 0x3e, 0x80, 0x2f, 0x0c, 0xa9, 0xfe, 0x64, 0x53, 0x69, 0x7a,
];

/// How strings or streams are encrypted (Table 25).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Identity,
    Aes128,
    Aes256,
}

/// The file's key, and what it is for.
#[derive(Clone)]
pub(crate) struct Cipher {
    key: Vec<u8>,
    strings: Method,
    streams: Method,
    permissions: i64,
    encrypts_metadata: bool,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    /// Opens with the password that is not there. `dictionary` is /Encrypt, all of its values direct, and `id` the first
    /// half of the file's identifier.
    pub(crate) fn open(dictionary: &Dictionary, id: &[u8]) -> Result<Self, ReadError> {
        if !dictionary.is_name("Filter", "Standard") {
            return Err(ReadError::Encryption("for named recipients"));
        }
        let integer = |key: &str| dictionary.get(key).and_then(Object::as_integer).unwrap_or(0);
        let encrypts_metadata = !matches!(dictionary.get("EncryptMetadata"), Some(Object::Boolean(false)));
        let key = match (integer("V"), integer("R")) {
            (4, 4) => key_128(dictionary, id, encrypts_metadata)?,
            (5, 5 | 6) => key_256(dictionary, integer("R"))?,
            _ => return Err(ReadError::Encryption("with RC4, or in a way that is not known")),
        };
        Ok(Self {
            key,
            strings: method(dictionary, "StrF")?,
            streams: method(dictionary, "StmF")?,
            permissions: integer("P"),
            encrypts_metadata,
        })
    }

    /// Whether a signature may be added in a field that is there, and in a new one (Table 22, bits 4, 6 and 9).
    pub(crate) const fn permits_signing(&self, is_new_field: bool) -> bool {
        const MODIFY: i64 = 1 << 3;
        const ANNOTATE: i64 = 1 << 5;
        const FILL_IN: i64 = 1 << 8;
        if is_new_field {
            self.permissions & MODIFY != 0 && self.permissions & ANNOTATE != 0
        } else {
            self.permissions & (ANNOTATE | FILL_IN) != 0
        }
    }

    /// The key of one object (Algorithm 1; with 256 bits there is only one key).
    fn object_key(&self, method: Method, reference: Ref) -> Vec<u8> {
        if method == Method::Aes256 {
            return self.key.clone();
        }
        let mut hash = Md5::new();
        hash.update(&self.key);
        hash.update(&reference.number.to_le_bytes()[..3]);
        hash.update(reference.generation.to_le_bytes());
        hash.update(b"sAlT");
        hash.finalize()[..(self.key.len() + 5).min(BLOCK)].to_vec()
    }

    fn decrypt(&self, method: Method, reference: Ref, data: &[u8]) -> Result<Vec<u8>, ReadError> {
        const BROKEN: ReadError = ReadError::Encryption("and what is encrypted is broken");
        if method == Method::Identity || data.is_empty() {
            return Ok(data.to_vec());
        }
        let (iv, data) = data.split_first_chunk::<BLOCK>().ok_or(BROKEN)?;
        if data.is_empty() {
            return Ok(Vec::new());
        }
        let key = cipher_key(&self.object_key(method, reference)).ok_or(BROKEN)?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| BROKEN)?;
        let mut data = data.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::from(*iv));
        let length = key.decrypt(&mut data, context).map_err(|_| BROKEN)?.len();
        data.truncate(length);
        Ok(data)
    }

    /// Encrypts. The initial vector is a keyed digest of what is encrypted and where: nobody without the key foresees it,
    /// and the same update is the same bytes.
    fn encrypt(&self, method: Method, reference: Ref, data: &[u8]) -> Vec<u8> {
        if method == Method::Identity {
            return data.to_vec();
        }
        let place = [
            reference.number.to_le_bytes(),
            u32::from(reference.generation).to_le_bytes(),
        ]
        .concat();
        let digest = Hash::Sha256.digest_of(&[&self.key, &place, data]);
        let mut iv = [0; BLOCK];
        iv.copy_from_slice(&digest[..BLOCK]);
        cbc(&self.object_key(method, reference), iv, data)
            .map_or_else(Vec::new, |encrypted| [&iv[..], &encrypted].concat())
    }

    pub(crate) fn decrypt_stream(
        &self,
        dictionary: &Dictionary,
        reference: Ref,
        data: &[u8],
    ) -> Result<Vec<u8>, ReadError> {
        self.decrypt(self.stream_method(dictionary), reference, data)
    }

    pub(crate) fn encrypt_stream(&self, dictionary: &Dictionary, reference: Ref, data: &[u8]) -> Vec<u8> {
        self.encrypt(self.stream_method(dictionary), reference, data)
    }

    /// Cross-reference streams are never encrypted (7.5.8.2), metadata and streams with a filter of their own not always.
    fn stream_method(&self, dictionary: &Dictionary) -> Method {
        let has_own = match dictionary.get("Filter") {
            Some(Object::Array(filters)) => filters.iter().any(|filter| filter.is_name("Crypt")),
            Some(filter) => filter.is_name("Crypt"),
            None => false,
        };
        let is_plain_metadata = dictionary.is_name("Type", "Metadata") && !self.encrypts_metadata;
        if dictionary.is_name("Type", "XRef") || has_own || is_plain_metadata {
            Method::Identity
        } else {
            self.streams
        }
    }

    /// Decrypts the strings in an object that lies in the file itself.
    pub(crate) fn decrypt_strings(&self, reference: Ref, object: &mut Object) -> Result<(), ReadError> {
        each_string(object, &mut |string| {
            string.bytes = self.decrypt(self.strings, reference, &string.bytes)?;
            Ok(())
        })
    }

    /// An object with its strings encrypted.
    pub(crate) fn encrypted(&self, reference: Ref, mut object: Object) -> Object {
        let encrypt = &mut |string: &mut PdfString| {
            string.bytes = self.encrypt(self.strings, reference, &string.bytes);
            string.is_hexadecimal |= self.strings != Method::Identity;
            Ok(())
        };
        // Nothing that is encrypted can be malformed.
        let _: Result<(), ReadError> = each_string(&mut object, encrypt);
        object
    }
}

/// Visits the strings of an object, but for the value of a signature, which is not encrypted (7.6.2).
fn each_string(
    object: &mut Object,
    visit: &mut impl FnMut(&mut PdfString) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    match object {
        Object::String(string) => visit(string),
        Object::Array(items) => items.iter_mut().try_for_each(|item| each_string(item, visit)),
        Object::Dictionary(dictionary) => each_string_of(dictionary, visit),
        Object::Stream(stream) => each_string_of(&mut stream.dictionary, visit),
        _ => Ok(()),
    }
}

fn each_string_of(
    dictionary: &mut Dictionary,
    visit: &mut impl FnMut(&mut PdfString) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let is_signature = dictionary.get("ByteRange").is_some();
    for (key, value) in &mut dictionary.0 {
        if !(is_signature && **key == *b"Contents") {
            each_string(value, visit)?;
        }
    }
    Ok(())
}

fn method(dictionary: &Dictionary, key: &str) -> Result<Method, ReadError> {
    let name = dictionary
        .get(key)
        .and_then(Object::as_name)
        .unwrap_or(b"Identity");
    if name == b"Identity" {
        return Ok(Method::Identity);
    }
    let filters = dictionary.get("CF").and_then(Object::as_dictionary);
    let filter = filters.and_then(|filters| filters.get(std::str::from_utf8(name).ok()?)?.as_dictionary());
    match filter.and_then(|filter| filter.get("CFM")?.as_name()) {
        Some(b"AESV2") => Ok(Method::Aes128),
        Some(b"AESV3") => Ok(Method::Aes256),
        Some(b"None") => Ok(Method::Identity),
        _ => Err(ReadError::Encryption("with RC4, or in a way that is not known")),
    }
}

fn bytes<'d>(dictionary: &'d Dictionary, key: &str, length: usize) -> Result<&'d [u8], ReadError> {
    let string = dictionary.get(key).and_then(Object::as_string);
    let bytes = string.and_then(|string| string.bytes.get(..length));
    bytes.ok_or(ReadError::Encryption("in a way that is malformed"))
}

/// Algorithm 2, and Algorithm 6 to see that no password is needed.
fn key_128(dictionary: &Dictionary, id: &[u8], encrypts_metadata: bool) -> Result<Vec<u8>, ReadError> {
    let permissions = dictionary.get("P").and_then(Object::as_integer).unwrap_or(0);
    let mut hash = Md5::new();
    hash.update(PADDING);
    hash.update(bytes(dictionary, "O", 32)?);
    hash.update(&permissions.to_le_bytes()[..4]);
    hash.update(id);
    if !encrypts_metadata {
        hash.update([0xff; 4]);
    }
    let mut key = hash.finalize();
    for _ in 0..50 {
        key = Md5::digest(key);
    }
    let mut hash = Md5::new();
    hash.update(PADDING);
    hash.update(id);
    let mut check = hash.finalize().to_vec();
    for round in 0..20 {
        let round_key: Vec<u8> = key.iter().map(|byte| byte ^ round).collect();
        rc4(&round_key, &mut check);
    }
    if check != bytes(dictionary, "U", BLOCK)? {
        return Err(ReadError::Password);
    }
    Ok(key.to_vec())
}

/// RC4, for nothing but the check that no password is needed, which is still made with it.
fn rc4(key: &[u8], data: &mut [u8]) {
    let mut state: Vec<u8> = (0..=u8::MAX).collect();
    let mut other = 0_u8;
    for at in 0..256 {
        other = other.wrapping_add(state[at]).wrapping_add(key[at % key.len()]);
        state.swap(at, usize::from(other));
    }
    let (mut at, mut other) = (0_u8, 0_u8);
    for byte in data {
        at = at.wrapping_add(1);
        other = other.wrapping_add(state[usize::from(at)]);
        state.swap(usize::from(at), usize::from(other));
        let sum = state[usize::from(at)].wrapping_add(state[usize::from(other)]);
        *byte ^= state[usize::from(sum)];
    }
}

/// Algorithm 2.A with the empty password.
fn key_256(dictionary: &Dictionary, revision: i64) -> Result<Vec<u8>, ReadError> {
    let user = bytes(dictionary, "U", 48)?;
    let digest = |salt: &[u8]| match revision {
        5 => Some(Hash::Sha256.digest(salt).to_vec()),
        _ => hardened(salt),
    };
    let malformed = ReadError::Encryption("in a way that is malformed");
    if digest(&user[32..40]).ok_or_else(|| malformed.clone())? != user[..32] {
        return Err(ReadError::Password);
    }
    let key = digest(&user[40..48]).ok_or_else(|| malformed.clone())?;
    unwrap(&key, bytes(dictionary, "UE", 32)?).ok_or(malformed)
}

/// Algorithm 2.B with the empty password.
fn hardened(salt: &[u8]) -> Option<Vec<u8>> {
    let mut key = Hash::Sha256.digest(salt).to_vec();
    let mut round = 0_u32;
    loop {
        let mut iv = [0; BLOCK];
        iv.copy_from_slice(&key[BLOCK..2 * BLOCK]);
        let repeated = key.repeat(64);
        let mut encrypted = cbc(&key[..BLOCK], iv, &repeated)?;
        // The padding that the algorithm does not have.
        encrypted.truncate(repeated.len());
        let sum: u32 = encrypted[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
        let hash = [Hash::Sha256, Hash::Sha384, Hash::Sha512][(sum % 3) as usize];
        key = hash.digest(&encrypted).to_vec();
        round += 1;
        let last = u32::from(*encrypted.last()?);
        if round >= 64 && last + 32 <= round {
            key.truncate(32);
            return Some(key);
        }
    }
}

fn cipher_key(key: &[u8]) -> Option<UnboundCipherKey> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    UnboundCipherKey::new(algorithm, key).ok()
}

/// AES in CBC mode with padding.
fn cbc(key: &[u8], iv: [u8; BLOCK], data: &[u8]) -> Option<Vec<u8>> {
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(cipher_key(key)?).ok()?;
    let mut data = data.to_vec();
    key.less_safe_encrypt(&mut data, EncryptionContext::Iv128(FixedLength::from(iv)))
        .ok()?;
    Some(data)
}

/// AES in CBC mode without padding and with an initial vector of zeros, backwards.
fn unwrap(key: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
    let key = DecryptingKey::ecb(cipher_key(key)?).ok()?;
    let mut plain = wrapped.to_vec();
    key.decrypt(&mut plain, DecryptionContext::None).ok()?;
    for at in BLOCK..plain.len() {
        plain[at] ^= wrapped[at - BLOCK];
    }
    Some(plain)
}
