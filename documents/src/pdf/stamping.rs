//! Time stamps over the whole document (ETSI EN 319 142-1 5.4.3; level B-LTA): a signature field whose signature is a
//! time-stamp token.

use std::ops::Range;

use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;

use super::attach;
use super::blank::{Blank, fill_in, put_contents};
use super::document::Document;
use super::object::{Dictionary, Object};
use super::sign::{AssembleError, PrepareError};
use super::target::{self, Before, Target};
use super::update::Update;
use crate::cms::DigestBytes;

/// A file with room for a time-stamp token, and what the token has to be over.
#[derive(Clone, Debug)]
pub struct PreparedTimeStamp {
    update: Vec<u8>,
    digits: Range<usize>,
    imprint: DigestBytes,
}

/// Prepares a time stamp over a document. Every certification permits it. `token_bytes` are kept free for the token.
pub fn prepare_time_stamp(
    pdf: &[u8],
    hash: Hash,
    token_bytes: usize,
    now: UnixMillis,
) -> Result<PreparedTimeStamp, PrepareError> {
    let document = Document::open(pdf)?;
    let before = Before::read(&document)?;
    let name = target::free_name(&before.fields, "TimeStamp");
    let mut update = Update::new(&document);
    let stamp = update.reserve();
    attach::add_field(&mut update, &document, &Target::New(name), stamp, None)?;
    let entries = Dictionary::from([
        ("Type", Object::name("DocTimeStamp")),
        ("Filter", Object::name("Adobe.PPKLite")),
        ("SubFilter", Object::name("ETSI.RFC3161")),
    ]);
    let blank = Blank::new(&entries, token_bytes);
    let places = blank.places();
    update.put_text(stamp, blank.text);
    let seed = format!("{} {}", pdf.len(), now.0);
    let (update, digits) = fill_in(update.finish(seed.as_bytes()), stamp, &places, pdf.len())?;
    let imprint = hash.digest_of(&[pdf, &update[..digits.start - 1], &update[digits.end + 1..]]);
    Ok(PreparedTimeStamp {
        update,
        digits,
        imprint,
    })
}

impl PreparedTimeStamp {
    /// What to ask a time-stamping authority to stamp (RFC 3161 2.4.1, hashedMessage).
    pub fn imprint(&self) -> &[u8] {
        &self.imprint
    }

    /// What to append to the file. `token` is the TimeStampToken, a ContentInfo in DER.
    pub fn assemble(self, token: &[u8]) -> Result<Vec<u8>, AssembleError> {
        put_contents(self.update, self.digits, token)
    }
}
