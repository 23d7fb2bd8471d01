//! OFD files (GB/T 33190-2016) and their signatures (chapter 18; GM/T 0099-2020).
//!
//! - [`prepare`]: a [`SignRequest`] says who seals or signs what, and where stamps go; [`PreparedOfd`] says what to
//!   sign and, given the signature, becomes the new file, in which every other file of the package lies as before.
//! - [`verify`]: a [`Verdict`] on every signature: digests, what is not covered, what came later, seal and signer.
//! - [`pages`]: what a document has to put stamps on.
//!
//! Reading is suspicious: archives that two readers could read in two ways are refused, as are document types in
//! XML, paths that lead out of the package, and anything beyond the limits of `limits.rs`.

mod document;
mod limits;
mod location;
mod package;
mod prepare;
mod reach;
mod record;
mod report;
mod stamp;
mod verify;
mod write;
mod xml;
mod zip;

pub use document::{Page, pages};
pub(crate) use prepare::Addition;
pub use prepare::{AssembleError, Coverage, Kind, PrepareError, PreparedOfd, Provider, SignRequest, prepare};
pub use report::{
    Finding, Reference, ReferenceState, SignatureKind, SignatureVerdict, StampPlace, Standing, Verdict,
};
pub use stamp::{PagingSide, Placement, PlacementError, Rect, Stamp};
pub use verify::{signers, verify};

/// Why a package cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not a ZIP archive, or one with bytes that belong to no entry.
    #[error("not a ZIP archive, or a damaged one")]
    NotZip,
    /// More than is accepted.
    #[error("too many {0}")]
    Limit(&'static str),
    /// Two entries with one name.
    #[error("the package holds '{0}' twice")]
    Duplicate(String),
    /// A name that is not UTF-8, or leads out of the package.
    #[error("'{0}' is not a name for a file in a package")]
    Name(String),
    /// An encrypted entry.
    #[error("'{0}' is encrypted")]
    Encrypted(String),
    /// A compression other than Deflate.
    #[error("'{0}' is compressed by a method that OFD does not allow")]
    Method(String),
    /// Directory and entry disagree.
    #[error("the archive says two things of '{0}'")]
    Inconsistent(String),
    /// Size or checksum is wrong.
    #[error("'{0}' cannot be inflated, or is not what its checksum says")]
    Broken(String),
    /// A file that should be there.
    #[error("the package has no '{0}'")]
    Missing(String),
    /// XML that is refused.
    #[error("'{path}' is not acceptable XML: {what}")]
    Xml {
        /// The file.
        path: String,
        /// What the parser says.
        what: String,
    },
    /// A path that leads out of the package.
    #[error("'{path}' points to '{location}', which is outside the package")]
    Outside {
        /// The file in which it stands.
        path: String,
        /// The path.
        location: String,
    },
    /// An element or attribute that is missing or wrong.
    #[error("'{path}' lacks {what}, or it is not as the standard has it")]
    Structure {
        /// The file.
        path: String,
        /// What.
        what: &'static str,
    },
}

/// A [`ReadError::Structure`].
fn structure(path: &str, what: &'static str) -> ReadError {
    ReadError::Structure {
        path: path.to_owned(),
        what,
    }
}
