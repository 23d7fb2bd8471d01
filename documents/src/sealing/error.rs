//! What can go wrong with a sealing, and whose fault it is.

use protocol::error_code::Code;

use super::EvidenceError;
use crate::cms::{self, ChainError};
use crate::ofd;
use crate::pdf::{self, ImageError};
use crate::ses;
use crate::tsp;

/// Why a sealing does not go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SealingError {
    /// An order that contradicts itself or the form of the document.
    #[error("{0}")]
    Order(&'static str),
    /// Certificates of a signer that make no chain.
    #[error("the signer's certificates: {0}")]
    Chain(#[from] ChainError),
    /// A picture that cannot be used.
    #[error(transparent)]
    Picture(#[from] ImageError),
    /// The PDF cannot be signed in this way.
    #[error(transparent)]
    Pdf(#[from] pdf::PrepareError),
    /// The OFD cannot be signed in this way.
    #[error(transparent)]
    Ofd(#[from] ofd::PrepareError),
    /// The electronic seal cannot be used.
    #[error(transparent)]
    Seal(#[from] ses::PrepareError),
    /// An answer of another kind than what was asked for.
    #[error("asked for {wanted}, answered with {given}")]
    OtherAnswer {
        /// What was asked for.
        wanted: &'static str,
        /// What came.
        given: &'static str,
    },
    /// A signature that is not the signer's over what was asked for.
    #[error("the signature is not the signer's over what had to be signed")]
    Signature,
    /// The time-stamping authority says no.
    #[error("{0}")]
    Rejected(#[from] tsp::ResponseError),
    /// A time stamp over something else, or none at all.
    #[error("the time stamp: {0}")]
    Token(#[from] tsp::VerifyError),
    /// Revocation information that does not show how the certificates stand.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// What was answered does not make a PDF.
    #[error(transparent)]
    AssemblePdf(#[from] pdf::AssembleError),
    /// What was answered does not make an OFD.
    #[error(transparent)]
    AssembleOfd(#[from] ofd::AssembleError),
    /// The sealing still waits for an answer.
    #[error("the document is not finished: {0} is needed")]
    NotDone(&'static str),
}

impl SealingError {
    /// The code under which a caller hears of it.
    pub fn code(&self) -> Code {
        match self {
            Self::Order(_) => Code::Usage,
            Self::Chain(_) | Self::Signature | Self::Token(_) | Self::OtherAnswer { .. } => Code::BadAnswer,
            Self::Rejected(_) => Code::SignatureRejected,
            Self::Evidence(error) => error.code(),
            Self::Picture(_) => Code::ImageUnusable,
            Self::Pdf(error) => error.code(),
            Self::Ofd(error) => error.code(),
            Self::Seal(error) => error.code(),
            Self::AssemblePdf(pdf::AssembleError::NoRoom { .. }) => Code::Usage,
            Self::AssemblePdf(_) | Self::AssembleOfd(_) => Code::BadAnswer,
            Self::NotDone(_) => Code::WrongState,
        }
    }
}

impl pdf::PrepareError {
    /// The code under which a caller hears of it.
    pub fn code(&self) -> Code {
        match self {
            Self::Unreadable(_) => Code::DocumentUnreadable,
            Self::Signer(cms::PrepareError::UnsupportedAlgorithm(_)) => Code::UnsupportedFormat,
            Self::Signer(cms::PrepareError::Key(_)) => Code::UnsupportedAlgorithm,
            Self::Signer(cms::PrepareError::NotValidThen) => Code::CredentialDisabled,
            Self::Signer(_) => Code::Internal,
            Self::Seal(error) => error.code(),
            Self::Certified
            | Self::Encrypted
            | Self::NewFieldAfterCertification
            | Self::NotFirst
            | Self::Locked { .. }
            | Self::AlreadySigned(_)
            | Self::NotASignatureField(_)
            | Self::SeveralPlaces
            | Self::NoWord(_)
            | Self::FewerWords { .. }
            | Self::OnePage
            | Self::NotSigned(_)
            | Self::SeveralWidgets(_) => Code::DocumentRefused,
            Self::FieldName(_)
            | Self::NoPlace(_)
            | Self::HasPlace(_)
            | Self::NoPage(_)
            | Self::OffPage(_) => Code::Usage,
        }
    }
}

impl ofd::PrepareError {
    /// The code under which a caller hears of it.
    pub fn code(&self) -> Code {
        match self {
            Self::Read(_) => Code::DocumentUnreadable,
            Self::Forbidden { .. } => Code::DocumentRefused,
            Self::Document { .. } | Self::Placement(_) => Code::Usage,
            Self::Seal(error) => error.code(),
            Self::Signer(error) => error.code(),
            Self::Encoding(_) => Code::Internal,
        }
    }
}

impl ses::PrepareError {
    /// The code under which a caller hears of it.
    pub fn code(&self) -> Code {
        match self {
            Self::Signer(error) => error.code(),
            Self::Seal(_)
            | Self::Generation
            | Self::MakerSignature
            | Self::NotAllowed
            | Self::SealNotValidThen => Code::SealUnusable,
            Self::PropertyInfo | Self::Encoding(_) => Code::Internal,
        }
    }
}

impl ses::SignerError {
    /// The code under which a caller hears of it.
    pub const fn code(&self) -> Code {
        match self {
            Self::Unreadable(_) => Code::BadAnswer,
            Self::NotSm2 => Code::UnsupportedAlgorithm,
            Self::KeyUsage | Self::NotValidThen => Code::CredentialDisabled,
        }
    }
}
