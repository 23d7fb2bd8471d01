//! The audit log: an RFC 6962 Merkle tree over the journal, as C2SP tiles with signed checkpoints. Whoever keeps an old
//! checkpoint can prove that nothing was changed since; whoever has a receipt can prove that its entry is in it.
//!
//! Entry N of the journal is leaf N − 1. What is logged of it is a commitment (SHA-256 over salt, time and record), so
//! that a record can be erased with its salt and the tree still verifies (`docs/audit.md`).
//!
//! Pure: [`tree`] hashes and proves, [`tile`] lays hashes out in files, [`edge`] grows the right side, [`leaf`] says what
//! is logged, [`note`], [`checkpoint`], [`proof`] and [`cosign`] are the texts. Disk: [`folder`] and [`salts`]. [`log`] brings them
//! together, [`follower`] is the thread that runs it behind the journal, [`verify`] judges a copy. [`change`] is what
//! operators do with it, [`count`] reconciles it with the journal.

mod change;
mod checkpoint;
mod cosign;
pub(crate) mod count;
mod edge;
mod error;
mod folder;
mod follower;
mod leaf;
mod log;
mod note;
mod proof;
mod salts;
mod tile;
mod tree;
mod verify;

pub use change::AuditChange;
pub use checkpoint::{Checkpoint, CheckpointError};
pub use cosign::{WitnessKey, add_checkpoint};
pub use count::LeafReconciliation;
pub use edge::Edge;
pub use error::AuditError;
pub use folder::{Folder, FolderNodes};
pub use follower::{Follower, State};
pub use leaf::{Salt, commitment, leaf_of};
pub use log::{Log, Signed};
pub use note::{Note, NoteError, SigningKey, VerifierKey, with_lines_of};
pub use proof::{InclusionProof, ProofTextError};
pub use salts::Salts;
pub use tile::{Tile, TilePath};
pub use tree::{Hash, Nodes, ProofError, check_consistency, check_inclusion, consistency, inclusion, root};
pub use verify::{Cosigned, LeafCount, Verified, begins_with, verify};

#[cfg(test)]
mod tests;
