//! How documents are encrypted while an operation keeps them: each under a key of its own, and that wrapped under its
//! tenant's key, so that destroying either destroys the document wherever copies of it are.
//!
//! A file is a header of 17 bytes (the version, 1, and 16 random bytes) and chunks of [`CHUNK_BYTES`] bytes, the last one
//! shorter, each followed by its tag of 16 bytes: AES-256-GCM under HKDF-Expand-SHA256 of the document's key for the
//! header, so that no two files share a key. The nonce is the chunk's number; the last chunk is authenticated as such, so
//! that a file that was cut short does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use store::ItemName;
use zeroize::Zeroizing;

use crate::vault::{MASTER_KEY_BYTES, TenantVault, VaultError};

/// Bytes of a whole chunk, without its tag.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 1 + SALT_BYTES;
const SALT_BYTES: usize = 16;
const VERSION: u8 = 1;

/// What a document's key belongs to.
fn key_label(of: ItemName) -> String {
    format!("document-key/{}/{}", of.operation, of.item)
}

/// What a step's answer belongs to.
pub fn step_label(of: ItemName, step: u32) -> String {
    format!("document-step/{}/{}/{step}", of.operation, of.item)
}

/// What a job's order belongs to.
pub fn plan_label(operation: i64) -> String {
    format!("document-plan/{operation}")
}

/// A document's own key.
pub struct DocumentKey(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for DocumentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DocumentKey(..)")
    }
}

impl DocumentKey {
    /// A new key, and its form under the tenant's key.
    pub fn make(own: &TenantVault, of: ItemName) -> Result<(Self, Vec<u8>), VaultError> {
        let mut key = Zeroizing::new(vec![0; MASTER_KEY_BYTES]);
        aws_lc_rs::rand::fill(&mut key).map_err(|_| VaultError::Encrypt)?;
        let wrapped = own.wrap(&key, key_label(of).as_bytes())?;
        Ok((Self(key), wrapped))
    }

    /// A key out of its wrapped form.
    pub fn open(own: &TenantVault, wrapped: &[u8], of: ItemName) -> Result<Self, VaultError> {
        own.unwrap(wrapped, key_label(of).as_bytes()).map(Self)
    }

    /// Begins a file: its header, and what encrypts its chunks.
    pub fn begin(&self) -> Result<([u8; HEADER_BYTES], Chunks), VaultError> {
        let mut header = [VERSION; HEADER_BYTES];
        aws_lc_rs::rand::fill(&mut header[1..]).map_err(|_| VaultError::Encrypt)?;
        Ok((header, self.chunks(&header)?))
    }

    /// Goes on from a file's header.
    pub fn chunks(&self, header: &[u8; HEADER_BYTES]) -> Result<Chunks, VaultError> {
        if header[0] != VERSION {
            return Err(VaultError::DoesNotOpen);
        }
        let mut key = Zeroizing::new([0; MASTER_KEY_BYTES]);
        let prk = Prk::new_less_safe(HKDF_SHA256, &self.0);
        let info = [&b"cinnabar/document/"[..], header];
        let derived = prk.expand(&info, KeyBytes);
        (derived.and_then(|derived| derived.fill(&mut key[..]))).map_err(|_| VaultError::Encrypt)?;
        let key = UnboundKey::new(&AES_256_GCM, &key[..]).map_err(|_| VaultError::Encrypt)?;
        Ok(Chunks {
            key: LessSafeKey::new(key),
            next: 0,
        })
    }
}

struct KeyBytes;

impl KeyType for KeyBytes {
    fn len(&self) -> usize {
        MASTER_KEY_BYTES
    }
}

/// The chunks of one file, one after the other.
pub struct Chunks {
    key: LessSafeKey,
    next: u64,
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Chunks {
    fn turn(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts a chunk in place and adds its tag.
    pub fn seal(&mut self, chunk: &mut Vec<u8>, is_last: bool) -> Result<(), VaultError> {
        let nonce = self.turn();
        let aad = Aad::from([u8::from(is_last)]);
        let sealed = self.key.seal_in_place_append_tag(nonce, aad, chunk);
        sealed.map_err(|_| VaultError::Encrypt)
    }

    /// Decrypts a chunk in place and takes its tag off.
    pub fn open(&mut self, chunk: &mut Vec<u8>, is_last: bool) -> Result<(), VaultError> {
        let nonce = self.turn();
        let aad = Aad::from([u8::from(is_last)]);
        let opened = self.key.open_in_place(nonce, aad, chunk);
        let length = opened.map_err(|_| VaultError::DoesNotOpen)?.len();
        chunk.truncate(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::Vault;
    use protocol::ids::TenantName;

    fn name(operation: i64, item: u32) -> ItemName {
        ItemName { operation, item }
    }

    fn own() -> std::sync::Arc<TenantVault> {
        let vault = Vault::new(&[1; 32]).unwrap();
        let name = TenantName::new("acme").unwrap();
        let key = vault.new_data_key(&name).unwrap();
        vault.open_data_key(&name, &key).unwrap()
    }

    fn sealed(key: &DocumentKey, parts: &[&[u8]]) -> ([u8; HEADER_BYTES], Vec<Vec<u8>>) {
        let (header, mut chunks) = key.begin().unwrap();
        let last = parts.len() - 1;
        let seal = |(at, part): (usize, &&[u8])| {
            let mut chunk = part.to_vec();
            chunks.seal(&mut chunk, at == last).unwrap();
            chunk
        };
        (header, parts.iter().enumerate().map(seal).collect())
    }

    #[test]
    fn a_document_opens_with_its_key_whole_and_in_order_only() {
        let own = own();
        let (key, wrapped) = DocumentKey::make(&own, name(1, 3)).unwrap();
        let again = DocumentKey::open(&own, &wrapped, name(1, 3)).unwrap();
        assert!(
            DocumentKey::open(&own, &wrapped, name(1, 4)).is_err(),
            "another document's"
        );
        assert!(DocumentKey::open(&own, &wrapped, name(2, 3)).is_err());
        let (header, parts) = sealed(&key, &[b"first", b"second"]);
        let mut chunks = again.chunks(&header).unwrap();
        for (part, (text, is_last)) in parts.iter().zip([(&b"first"[..], false), (b"second", true)]) {
            let mut chunk = part.clone();
            chunks.open(&mut chunk, is_last).unwrap();
            assert_eq!(chunk, text);
        }
        let mut cut = again.chunks(&header).unwrap();
        assert!(
            cut.open(&mut parts[0].clone(), true).is_err(),
            "it is not the last one"
        );
        let mut moved = again.chunks(&header).unwrap();
        assert!(
            moved.open(&mut parts[1].clone(), true).is_err(),
            "it is not the first one"
        );
        let mut other = header;
        other[5] ^= 1;
        assert!(
            again
                .chunks(&other)
                .unwrap()
                .open(&mut parts[0].clone(), false)
                .is_err()
        );
        other[0] = 2;
        assert!(again.chunks(&other).is_err(), "another version");
    }

    #[test]
    fn two_files_of_one_key_share_nothing() {
        let (key, _) = DocumentKey::make(&own(), name(1, 0)).unwrap();
        let (one, two) = (sealed(&key, &[b"same"]), sealed(&key, &[b"same"]));
        assert_ne!(one.0, two.0);
        assert_ne!(one.1, two.1);
    }
}
