//! PDF signatures: PAdES (ETSI EN 319 142-1) on ISO 32000-2, made and verified.
//!
//! The reader is our own: a signature covers byte ranges, so it has to be known where a string lies and what an
//! update changed, which the crates that read PDFs for their content do not tell; and a file of 100 MB is read in
//! place, an object when it is needed.
//!
//! - `object.rs`, `parse.rs`, `write.rs`: the objects and their text. `filter.rs`: what streams are packed in.
//! - `xref.rs`, `document.rs`: where objects are. `crypt.rs`: files that are encrypted but open without
//!   a password. `page.rs`, `form.rs`: pages, fields.
//! - [`prepare`] (`sign.rs`): a signature, in a field that waits for it or a new one (`target.rs`), within what earlier
//!   ones permit (`permission.rs`), seen as a [`SealImage`] (`appearance.rs`, `image.rs`) at a [`Position`]
//!   (`place.rs`) on a word ([`Keyword`], found by `text.rs` and `font.rs`) or across the pages ([`Paging`]). `update.rs` writes what is appended, `blank.rs` keeps
//!   room in it. `value.rs`: CMS or a seal signature ([`prepare_with_seal`]) in that room.
//! - [`add_validation_data`] (`dss.rs`) and [`prepare_time_stamp`] (`stamping.rs`): the levels B-LT and B-LTA.
//! - [`verify`]: each signature on the revision that it covers (`coverage.rs`), and what came later (`diff.rs`), as a
//!   [`Report`].
//!
//! A hostile file is the normal case: `limits.rs` bounds everything that a file could ask for.

mod appearance;
mod attach;
mod blank;
mod coverage;
mod crypt;
mod date;
mod diff;
mod document;
mod dss;
mod filter;
mod font;
mod form;
mod image;
mod keyword;
mod limits;
mod matrix;
mod object;
mod page;
mod paging;
mod parse;
mod permission;
mod place;
mod report;
mod sign;
mod signers;
mod stamping;
mod target;
mod text;
mod update;
mod value;
mod verify;
mod write;
mod xref;

pub use dss::{ValidationData, add_validation_data};
pub use image::{IMAGE_BYTES_MAX, IMAGE_PIXELS_MAX, ImageError, SealImage};
pub use keyword::{Keyword, Which};
pub use paging::Paging;
pub use permission::Permission;
pub use place::{Anchor, Origin, Position, Size, Unit};
pub use report::{
    Change, ChangeKind, Finding, Report, RevocationStatus, SignatureReport, TimeStampReport, Verdict,
};
pub use sign::{
    AssembleError, PageNumber, Placement, PrepareError, PreparedPdf, Request, Seal, prepare,
    prepare_with_seal,
};
pub use signers::signers;
pub use stamping::{PreparedTimeStamp, prepare_time_stamp};
pub use verify::{verify, verify_with};

/// Longest name of a new signature field in bytes.
const FIELD_NAME_BYTES_MAX: usize = 100;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No header of a PDF.
    #[error("not a PDF file")]
    NotPdf,
    /// No `startxref`, so the file is not whole.
    #[error("the end of the PDF is missing: no startxref")]
    NoStart,
    /// A cross-reference section that is wrong.
    #[error("the PDF's cross-reference section at byte {at}: {problem}")]
    Xref {
        /// Offset in the file.
        at: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Something that is not as it is written.
    #[error("the PDF at byte {at}: expected {expected}")]
    Syntax {
        /// Offset in the file, or in a decoded stream.
        at: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// A part that is not what it has to be.
    #[error("the PDF is malformed: {0}")]
    Wrong(&'static str),
    /// A filter.
    #[error("the PDF has a stream with a filter {0}")]
    Filter(&'static str),
    /// More than is read of any file.
    #[error("the PDF exceeds a limit: {0}")]
    Limit(&'static str),
    /// Encrypted in a way that is not read.
    #[error("the PDF is encrypted {0}")]
    Encryption(&'static str),
    /// Encrypted under a password.
    #[error("the PDF is encrypted and asks for a password")]
    Password,
}
