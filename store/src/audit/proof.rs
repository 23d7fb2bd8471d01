//! Proofs as text (c2sp.org/tlog-proof): index, inclusion proof and checkpoint in one, to be kept beside a receipt and
//! checked without us.

use std::fmt::Write as _;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::note::VerifierKey;
use super::tree::{Hash, ProofError, check_inclusion};

const HEAD: &str = "c2sp.org/tlog-proof@v1";

/// Why a proof does not prove anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofTextError {
    /// Not a proof.
    #[error("this is not a proof of inclusion ({HEAD})")]
    Malformed,
    /// The checkpoint in it.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The hashes in it.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// That a leaf is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// Which leaf.
    pub index: u64,
    /// From its sibling up.
    pub path: Vec<Hash>,
    /// The checkpoint, as signed.
    pub checkpoint: String,
}

impl InclusionProof {
    /// The text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\nindex {}\n", self.index);
        for hash in &self.path {
            let _ = writeln!(text, "{hash}");
        }
        text + "\n" + &self.checkpoint
    }

    /// Reads a text; extra data is passed over.
    pub fn parse(text: &str) -> Result<Self, ProofTextError> {
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ProofTextError::Malformed)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEAD) {
            return Err(ProofTextError::Malformed);
        }
        lines.next_if(|line| line.starts_with("extra "));
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.and_then(|number| Some((number, number.parse::<u64>().ok()?)));
        let path: Option<Vec<Hash>> = lines.map(Hash::from_base64).collect();
        match (index, path) {
            (Some((spelled, index)), Some(path)) if index.to_string() == spelled => Ok(Self {
                index,
                path,
                checkpoint: checkpoint.into(),
            }),
            _ => Err(ProofTextError::Malformed),
        }
    }

    /// Checks it for a leaf, and says in which tree the leaf is.
    pub fn verify(&self, leaf: Hash, key: &VerifierKey) -> Result<Checkpoint, ProofTextError> {
        let checkpoint = Checkpoint::verify(&self.checkpoint, key)?;
        check_inclusion(leaf, self.index, &self.path, checkpoint.size, checkpoint.root)?;
        Ok(checkpoint)
    }
}
