//! Whose certificates are in the signatures of a file, before anything is verified: for whoever wants to ask how they
//! stand.

use super::ReadError;
use super::coverage::Coverage;
use super::document::Document;
use super::form;
use super::verify::SIGNATURES_MAX;
use crate::cms::{self, gm};
use crate::{ses, tsp};

/// The certificates in each signature and time stamp, in DER: the signer's first, then what came with it. Signatures that
/// cannot be read are left out.
pub fn signers(pdf: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, ReadError> {
    let document = Document::open(pdf)?;
    let mut chains = Vec::new();
    for field in form::fields(&document)?.iter().take(SIGNATURES_MAX) {
        let Some(signature) = field.signature(&document)? else {
            continue;
        };
        if let Ok(coverage) = Coverage::read(&document, &signature) {
            chains.extend(chains_of(coverage.value()));
        }
    }
    Ok(chains)
}

fn chains_of(value: &[u8]) -> Vec<Vec<Vec<u8>>> {
    if ses::is_seal_signature(value) {
        return ses::signers(value);
    }
    if gm::is_gm_signed_data(value) {
        return gm::signer(value).into_iter().collect();
    }
    if let Ok(chain) = tsp::certificates_of(value) {
        return vec![chain];
    }
    cms::signers(value).unwrap_or_default()
}
