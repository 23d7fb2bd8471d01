//! Signed notes (c2sp.org/signed-note): a text, an empty line, and signatures of named keys. Ed25519 only.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tree::Hash;

/// The signature type of plain Ed25519.
const ED25519_TYPE: u8 = 1;
/// What a signature line begins with: em dash and space.
const DASH: &str = "\u{2014} ";
/// Signatures on one note; more are not read (the specification asks for at least 16).
const SIGNATURES_MAX: usize = 64;

/// Why a note or a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a signed note.
    #[error("this is not a signed note (c2sp.org/signed-note)")]
    Malformed,
    /// Not a key.
    #[error("this is not a verifier key: NAME+ID+BASE64 of an Ed25519 key (c2sp.org/signed-note)")]
    Key,
    /// Not signed by that key.
    #[error("the note is not signed by the key")]
    NotSigned,
    /// Signed in its name, and wrongly.
    #[error("the note's signature does not verify")]
    Signature,
}

/// A public key with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl VerifierKey {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> u32 {
        key_id(&self.name, ED25519_TYPE, &self.public)
    }
}

/// The number by which a signature line names its key: the first bytes of SHA-256 over name, newline, type and key.
pub(super) fn key_id(name: &str, kind: u8, public: &[u8; 32]) -> u32 {
    let text = [name.as_bytes(), b"\n", &[kind], public].concat();
    let [a, b, c, d, ..] = Hash::sha256(&text).0;
    u32::from_be_bytes([a, b, c, d])
}

/// A key of some type as text.
pub(super) fn write_key(name: &str, kind: u8, public: &[u8; 32]) -> String {
    let typed = [&[kind], &public[..]].concat();
    let id = key_id(name, kind, public);
    format!("{name}+{id:08x}+{}", STANDARD.encode(typed))
}

/// Reads a key of a type: its name and public key.
pub(super) fn read_key(text: &str, kind: u8) -> Result<(String, [u8; 32]), NoteError> {
    // Base64 may hold a plus sign, a name may not.
    let mut parts = text.trim().splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Key);
    };
    let typed = STANDARD.decode(key).map_err(|_| NoteError::Key)?;
    let public: [u8; 32] = match typed.split_first() {
        Some((first, public)) if *first == kind => public.try_into().map_err(|_| NoteError::Key)?,
        _ => return Err(NoteError::Key),
    };
    if !is_name(name) || format!("{:08x}", key_id(name, kind, &public)) != id {
        return Err(NoteError::Key);
    }
    Ok((name.into(), public))
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write_key(&self.name, ED25519_TYPE, &self.public))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, public) = read_key(text, ED25519_TYPE)?;
        Ok(Self { name, public })
    }
}

/// Whether a text may name a key.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// A private key with its name.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifier)
    }
}

impl SigningKey {
    /// The key with this name and this seed of 32 bytes (RFC 8032).
    pub fn new(name: &str, seed: &[u8]) -> Result<Self, NoteError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::Key)?;
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| NoteError::Key)?;
        if !is_name(name) {
            return Err(NoteError::Key);
        }
        let verifier = VerifierKey {
            name: name.into(),
            public,
        };
        Ok(Self { pair, verifier })
    }

    /// Its public half.
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The text, which ends in a newline, with a signature.
    pub fn sign(&self, text: &str) -> String {
        let signature = self.pair.sign(text.as_bytes());
        let named = [&self.verifier.id().to_be_bytes(), signature.as_ref()].concat();
        format!(
            "{text}\n{DASH}{} {}\n",
            self.verifier.name,
            STANDARD.encode(named)
        )
    }
}

struct Signature<'t> {
    name: &'t str,
    id: u32,
    bytes: Vec<u8>,
}

/// A note as read.
pub struct Note<'t> {
    text: &'t str,
    signatures: Vec<Signature<'t>>,
}

impl fmt::Debug for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Note({:?})", self.text)
    }
}

impl<'t> Note<'t> {
    /// Reads a note.
    pub fn parse(note: &'t str) -> Result<Self, NoteError> {
        if note.contains(|c: char| c < ' ' && c != '\n') {
            return Err(NoteError::Malformed);
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
        let (text, signatures) = (&note[..=at], &note[at + 2..]);
        let lines = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?;
        let signatures: Vec<_> = lines
            .split('\n')
            .take(SIGNATURES_MAX)
            .map(read_signature)
            .collect::<Option<_>>()
            .ok_or(NoteError::Malformed)?;
        Ok(Self { text, signatures })
    }

    /// Its text, whoever has signed it.
    pub const fn text(&self) -> &'t str {
        self.text
    }

    /// What the key of this name and number has signed with.
    pub(super) fn signature_of(&self, name: &str, id: u32) -> Option<&[u8]> {
        let by_key = |signature: &&Signature<'_>| signature.name == name && signature.id == id;
        self.signatures.iter().find(by_key).map(|found| &found.bytes[..])
    }

    /// Its text, if that key has signed it.
    pub fn verify(&self, key: &VerifierKey) -> Result<&'t str, NoteError> {
        let signature = self.signature_of(&key.name, key.id());
        UnparsedPublicKey::new(&ED25519, key.public)
            .verify(self.text.as_bytes(), signature.ok_or(NoteError::NotSigned)?)
            .map_err(|_| NoteError::Signature)?;
        Ok(self.text)
    }

    /// The names of the other keys that have signed it, which nobody has checked here.
    pub fn others(&self, key: &VerifierKey) -> Vec<String> {
        let names = self.signatures.iter().map(|signature| signature.name);
        names
            .filter(|name| *name != key.name)
            .map(str::to_owned)
            .collect()
    }
}

/// A note with the lines of another note of the same text besides, but for those of keys that have signed it itself.
pub fn with_lines_of(note: &str, other: &str) -> String {
    let mut all = note.to_owned();
    let (Ok(known), Ok(old)) = (Note::parse(note), Note::parse(other)) else {
        return all;
    };
    if known.text != old.text {
        return all;
    }
    for line in other[old.text.len() + 1..].lines() {
        let by = read_signature(line);
        if by.is_some_and(|by| known.signature_of(by.name, by.id).is_none()) {
            all.push_str(line);
            all.push('\n');
        }
    }
    all
}

fn read_signature(line: &str) -> Option<Signature<'_>> {
    let (name, base64) = line.strip_prefix(DASH)?.split_once(' ')?;
    let bytes = STANDARD.decode(base64).ok()?;
    let (id, bytes) = bytes.split_first_chunk::<4>()?;
    (is_name(name) && !bytes.is_empty()).then(|| Signature {
        name,
        id: u32::from_be_bytes(*id),
        bytes: bytes.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_same_text_are_kept_and_a_newer_line_of_a_key_counts() {
        let note = "log\n5\n\n\u{2014} log AAAAAAA=\n";
        let line =
            |name: &str, last: u8| format!("\u{2014} {name} {}\n", STANDARD.encode([0, 0, 0, 1, last]));
        let old = format!("{note}{}{}", line("a", 1), line("b", 1));
        let new = format!("{note}{}", line("b", 2));
        let merged = with_lines_of(&new, &old);
        assert_eq!(merged, format!("{new}{}", line("a", 1)));
        assert_eq!(with_lines_of(&merged, &old), merged);
        let another = new.replacen("\n5\n", "\n6\n", 1);
        assert_eq!(with_lines_of(&another, &old), another);
        assert_eq!(with_lines_of(&new, "nothing"), new);
    }
}
