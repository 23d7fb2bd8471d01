//! Cosignatures of witnesses (c2sp.org/tlog-cosignature, `cosignature/v1` with Ed25519) and how they are asked for
//! (c2sp.org/tlog-witness). A witness signs a checkpoint only if it continues the last one that it has seen, so a log
//! that shows different people different trees needs witnesses that do, too.

use std::fmt::Write as _;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::note::{self, Note, NoteError};
use super::tree::Hash;

/// The signature type of Ed25519 with a time.
const COSIGNATURE_TYPE: u8 = 4;
/// Bytes of a time in a signature: seconds since 1970-01-01T00:00Z, big-endian.
const TIME_BYTES: usize = 8;

/// A witness's public key with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    public: [u8; 32],
}

impl FromStr for WitnessKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, public) = note::read_key(text, COSIGNATURE_TYPE)?;
        Ok(Self { name, public })
    }
}

impl std::fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&note::write_key(&self.name, COSIGNATURE_TYPE, &self.public))
    }
}

impl WitnessKey {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When this witness has seen a note's checkpoint, in seconds since 1970-01-01T00:00Z. Zero: it does not say.
    pub fn verify(&self, note: &Note<'_>) -> Result<u64, NoteError> {
        let id = note::key_id(&self.name, COSIGNATURE_TYPE, &self.public);
        let bytes = note.signature_of(&self.name, id).ok_or(NoteError::NotSigned)?;
        let (time, signature) = bytes
            .split_first_chunk::<TIME_BYTES>()
            .ok_or(NoteError::Signature)?;
        let time = u64::from_be_bytes(*time);
        let message = format!("cosignature/v1\ntime {time}\n{}", note.text());
        UnparsedPublicKey::new(&ED25519, self.public)
            .verify(message.as_bytes(), signature)
            .map_err(|_| NoteError::Signature)?;
        Ok(time)
    }

    /// Its line out of a witness's answer, if it holds for this note.
    pub fn accept(&self, note: &str, answer: &str) -> Result<String, NoteError> {
        let text = Note::parse(note)?.text();
        let mine = |line: &&str| {
            let signed = format!("{text}\n{line}\n");
            Note::parse(&signed).is_ok_and(|note| self.verify(&note).is_ok())
        };
        let line = answer.split('\n').find(mine).ok_or(NoteError::NotSigned)?;
        Ok(format!("{line}\n"))
    }
}

/// The body of `add-checkpoint`: the size that the witness knows, the proof that the note's checkpoint continues it, the
/// note.
pub fn add_checkpoint(known: u64, proof: &[Hash], note: &str) -> String {
    let mut body = format!("old {known}\n");
    for hash in proof {
        let _ = writeln!(body, "{hash}");
    }
    body + "\n" + note
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const NOTE: &str = "log\n5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\u{2014} log AAAAAAAA\n";

    fn pair() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap()
    }

    fn key() -> WitnessKey {
        WitnessKey {
            name: "witness.example/w".into(),
            public: pair().public_key().as_ref().try_into().unwrap(),
        }
    }

    fn line(time: u64) -> String {
        let key = key();
        let text = Note::parse(NOTE).unwrap().text().to_owned();
        let signature = pair().sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
        let id = note::key_id(&key.name, COSIGNATURE_TYPE, &key.public).to_be_bytes();
        let bytes = [&id, &time.to_be_bytes()[..], signature.as_ref()].concat();
        format!("\u{2014} {} {}\n", key.name, STANDARD.encode(bytes))
    }

    #[test]
    fn keys_are_written_and_read() {
        let text = key().to_string();
        assert_eq!(text.parse::<WitnessKey>().unwrap(), key());
        // A log's key is not a witness's.
        let log = note::write_key("log", 1, &key().public);
        assert_eq!(log.parse::<WitnessKey>(), Err(NoteError::Key));
    }

    #[test]
    fn only_the_witness_s_own_line_about_this_note_is_taken() {
        let answer = format!("\u{2014} other AAAAAAAA\n{}", line(1_700_000_000));
        let taken = key().accept(NOTE, &answer).unwrap();
        assert_eq!(taken, line(1_700_000_000));
        let cosigned = format!("{NOTE}{taken}");
        let time = key().verify(&Note::parse(&cosigned).unwrap());
        assert_eq!(time, Ok(1_700_000_000));
        let about_another = NOTE.replacen("\n5\n", "\n6\n", 1);
        assert_eq!(key().accept(&about_another, &answer), Err(NoteError::NotSigned));
        assert_eq!(key().accept(NOTE, "\u{2014} x\n"), Err(NoteError::NotSigned));
        let spoiled = cosigned.replacen("\n5\n", "\n6\n", 1);
        assert_eq!(
            key().verify(&Note::parse(&spoiled).unwrap()),
            Err(NoteError::Signature)
        );
    }

    #[test]
    fn a_request_has_the_known_size_the_proof_and_the_note() {
        let hash = Hash::of_leaf(b"x");
        let body = add_checkpoint(3, &[hash], NOTE);
        assert_eq!(body, format!("old 3\n{hash}\n\n{NOTE}"));
    }
}
