//! A signature in a PDF: prepare, let sign, assemble.
//!
//! The result is only what has to be appended to the file, so that a large file is not copied, and a document never
//! has to leave the machine it is on: what is signed elsewhere is a digest.

use std::ops::Range;
use std::sync::Arc;

use protocol::algorithm::{Algorithm, Hash};
use protocol::clock::UnixMillis;
use serde::{Deserialize, Serialize};

use super::appearance::Mark;
use super::blank::{Blank, fill_in, put_contents};
use super::document::Document;
use super::image::SealImage;
use super::keyword::{self, Keyword};
use super::object::{Dictionary, Object, Ref};
use super::page::{Page, Pages};
use super::paging::{self, Paging};
use super::permission::Permission;
use super::place::{Position, Shown};
use super::target::{self, Before, Target, Waiting};
use super::update::Update;
use super::value::{Signer, Value};
use super::{ReadError, attach, date};
use crate::cms::{self, Chain};
use crate::ses;

/// Why a signature cannot be prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// A file that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// A signer that cannot sign.
    #[error(transparent)]
    Signer(#[from] cms::PrepareError),
    /// A seal that cannot be used.
    #[error(transparent)]
    Seal(#[from] ses::PrepareError),
    /// The document is certified against every change.
    #[error("the document is certified and permits no further changes (DocMDP, P = 1)")]
    Certified,
    /// The encryption of the document forbids it.
    #[error("the encryption of the document does not permit it to be signed")]
    Encrypted,
    /// A visible field cannot be added to a certified document; readers take it for a change.
    #[error(
        "the document is certified: it can be sealed only in a signature field that it was prepared with"
    )]
    NewFieldAfterCertification,
    /// A certification has to be the first signature.
    #[error("the document is signed already; only its first signature can certify it")]
    NotFirst,
    /// An earlier signature locks the field.
    #[error("the signature in '{by}' locks the field '{field}'")]
    Locked {
        /// The field that was to be signed.
        field: String,
        /// The field whose signature locks it.
        by: String,
    },
    /// A name that a new field cannot have.
    #[error("a new signature field cannot be named '{0}'")]
    FieldName(String),
    /// The field is of another kind.
    #[error("the field '{0}' is no signature field")]
    NotASignatureField(String),
    /// There is no signature in the field.
    #[error("there is no signature in the field '{0}'")]
    NotSigned(String),
    /// The field is full.
    #[error("the field '{0}' is signed already")]
    AlreadySigned(String),
    /// The field has several widgets, which ISO 32000-2 12.7.5.5 forbids.
    #[error("the signature field '{0}' is in several places at once")]
    SeveralWidgets(String),
    /// The field cannot be seen.
    #[error("the field '{0}' has no place on a page; say where the seal goes")]
    NoPlace(String),
    /// The field has its place, and a position was given besides.
    #[error("the field '{0}' has its own place on a page; a position cannot be given besides")]
    HasPlace(String),
    /// No such page.
    #[error("there is no page {0}")]
    NoPage(usize),
    /// Several places at once are annotations, and those would change what was signed before.
    #[error(
        "the document is signed already; a seal in several places would change it for the earlier signatures"
    )]
    SeveralPlaces,
    /// A seal across the edges needs two pages.
    #[error("a seal across the edges of the pages needs at least two pages")]
    OnePage,
    /// The word is nowhere.
    #[error("the word '{0}' is nowhere in the text of the document")]
    NoWord(String),
    /// The word is in fewer places.
    #[error("the word is in {found} places only; there is no place {nth}")]
    FewerWords {
        /// Which place was wanted.
        nth: usize,
        /// How many there are.
        found: usize,
    },
    /// The seal would not lie on the page.
    #[error("the seal would not lie within page {0}")]
    OffPage(usize),
}

/// Why a signature does not complete a [`PreparedPdf`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// Not a signature that makes a CMS.
    #[error(transparent)]
    Cms(#[from] cms::AssembleError),
    /// Not a signature that makes a seal signature.
    #[error(transparent)]
    Seal(#[from] ses::AssembleError),
    /// More bytes than there is room for.
    #[error("the signature takes {needed} bytes, and there is room for {reserved}")]
    NoRoom {
        /// Bytes of the CMS.
        needed: usize,
        /// Bytes reserved for it.
        reserved: usize,
    },
}

/// Which page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageNumber {
    /// Counted from 1.
    Nth(usize),
    /// The last one.
    Last,
}

/// Where a seal is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// In the rectangle of the field that waits for the signature.
    InField,
    /// At a position on a page.
    At(PageNumber, Position),
    /// Where a word stands.
    On(Keyword),
    /// Across the edges of the pages (骑缝章), a strip on each.
    Paging(Paging),
}

/// A seal to be seen.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'r> {
    /// Its picture.
    pub image: &'r SealImage,
    /// Where it goes.
    pub placement: &'r Placement,
}

/// How to sign.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'r> {
    /// The signature field: one that waits for a signature, or the name of a new one. Without a name, a new one.
    pub field: Option<&'r str>,
    /// What is seen of it; nothing if it is not said.
    pub seal: Option<Seal<'r>>,
    /// Certifies the document: says what may be changed from now on. Only the first signature can.
    pub certify: Option<Permission>,
    /// Why it is signed.
    pub reason: Option<&'r str>,
    /// Where it is signed.
    pub location: Option<&'r str>,
    /// Bytes to keep free for a time-stamp token; 0 where none will come.
    pub time_stamp_bytes: usize,
}

/// A file with room for a signature, and what has to be signed.
#[derive(Clone, Debug)]
pub struct PreparedPdf {
    update: Vec<u8>,
    /// The hexadecimal digits of /Contents in the update.
    digits: Range<usize>,
    field: String,
    value: Value,
}

/// Adds a signature of the holder of `chain` to `pdf`. `now` becomes the signing time that the document states.
pub fn prepare(
    pdf: &[u8],
    request: &Request<'_>,
    algorithm: Algorithm,
    chain: &Arc<Chain>,
    now: UnixMillis,
) -> Result<PreparedPdf, PrepareError> {
    prepare_by(pdf, request, &Signer::Cms { algorithm, chain }, now)
}

/// Adds a seal signature (GB/T 38540; the form that Chinese readers know) by the holder of `certificate`, who must be
/// allowed to use `seal`; both in DER. What is signed then is e, by `sm2-sm3-e`.
pub fn prepare_with_seal(
    pdf: &[u8],
    request: &Request<'_>,
    seal: &[u8],
    certificate: &[u8],
    now: UnixMillis,
) -> Result<PreparedPdf, PrepareError> {
    prepare_by(pdf, request, &Signer::Seal { seal, certificate }, now)
}

fn prepare_by(
    pdf: &[u8],
    request: &Request<'_>,
    signer: &Signer<'_>,
    now: UnixMillis,
) -> Result<PreparedPdf, PrepareError> {
    let hash = signer.hash()?;
    let contents_bytes = signer.bytes_max()? + request.time_stamp_bytes;
    let document = Document::open(pdf)?;
    let before = Before::read(&document)?;
    if request.certify.is_some() && before.has_signatures {
        return Err(PrepareError::NotFirst);
    }
    let target = target::choose(&document, &before, request.field, request.seal.is_some())?;
    let is_new = matches!(target, Target::New(_));
    if document
        .cipher()
        .is_some_and(|cipher| !cipher.permits_signing(is_new))
    {
        return Err(PrepareError::Encrypted);
    }
    let marks = marks(&document, request, &target)?;
    if marks.len() > 1 && before.has_signatures {
        return Err(PrepareError::SeveralPlaces);
    }
    let mut update = Update::new(&document);
    let signature = update.reserve();
    let seen = request.seal.map(|seal| (&marks[..], seal.image));
    attach::add_field(&mut update, &document, &target, signature, seen)?;
    if request.certify.is_some() {
        attach::certify(&mut update, &document, signature)?;
    }
    let entries = signature_dictionary(request, signer, lock_of(&target), now)?;
    let blank = Blank::new(&update.encrypted(signature, entries), contents_bytes);
    let places = blank.places();
    update.put_text(signature, blank.text);
    let appended = update.finish(&seed(pdf, signature, now));
    let (update, digits) = fill_in(appended, signature, &places, pdf.len())?;
    let digest = hash.digest_of(&[pdf, &update[..digits.start - 1], &update[digits.end + 1..]]);
    let gap = pdf.len() + digits.start - 1..pdf.len() + digits.end + 1;
    let value = signer.value(&digest, (gap, pdf.len() + update.len()), now)?;
    Ok(PreparedPdf {
        update,
        digits,
        field: target.name().to_owned(),
        value,
    })
}

/// What makes this update's identifier: the file it belongs to, as far as its size tells, and the time.
fn seed(pdf: &[u8], signature: Ref, now: UnixMillis) -> Vec<u8> {
    format!("{} {} {}", pdf.len(), signature.number, now.0).into_bytes()
}

impl PreparedPdf {
    /// What to give to a signer of the algorithm: the digest of the signed attributes, or e of the seal signature.
    pub fn to_sign(&self) -> &[u8] {
        self.value.to_sign()
    }

    /// The name of the signature field.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The hash for a time-stamp token, which is over the bytes of the signature.
    pub const fn hash(&self) -> Hash {
        self.value.hash()
    }

    /// What to append to the file. `signature` is in the algorithm's usual encoding.
    pub fn assemble(self, signature: &[u8]) -> Result<Vec<u8>, AssembleError> {
        let value = self.value.assemble(signature, None)?;
        put_contents(self.update, self.digits, &value)
    }

    /// The same with a time-stamp token over the signature (PAdES B-T; GB/T 38540 7.2).
    pub fn assemble_time_stamped(self, signature: &[u8], token: &[u8]) -> Result<Vec<u8>, AssembleError> {
        let value = self.value.assemble(signature, Some(token))?;
        put_contents(self.update, self.digits, &value)
    }
}

fn lock_of(target: &Target) -> Option<&Dictionary> {
    match target {
        Target::Existing(waiting) => waiting.lock.as_ref(),
        Target::New(_) => None,
    }
}

/// The page of a number, which is counted from 1.
fn page(document: &Document<'_>, number: PageNumber) -> Result<(usize, Page), PrepareError> {
    let mut pages = Pages::of(document)?.zip(1..);
    let found = match number {
        PageNumber::Nth(0) => return Err(PrepareError::NoPage(0)),
        PageNumber::Nth(nth) => pages.nth(nth - 1),
        PageNumber::Last => pages.last(),
    };
    let missing = match number {
        PageNumber::Nth(nth) => nth,
        PageNumber::Last => 1,
    };
    let (page, at) = found.ok_or(PrepareError::NoPage(missing))?;
    Ok((at, page?))
}

/// Where the seal is shown; the first mark belongs to the field.
fn marks(document: &Document<'_>, request: &Request<'_>, target: &Target) -> Result<Vec<Mark>, PrepareError> {
    let Some(seal) = &request.seal else {
        return Ok(Vec::new());
    };
    let aspect = seal.image.aspect();
    match (seal.placement, target) {
        (Placement::At(..) | Placement::On(_) | Placement::Paging(_), Target::Existing(_)) => Err(
            PrepareError::HasPlace(request.field.unwrap_or_default().to_owned()),
        ),
        (Placement::At(number, position), Target::New(_)) => {
            let (at, page) = page(document, *number)?;
            let shown = Shown::new(&page).rectangle(position, aspect);
            let shown = shown.ok_or(PrepareError::OffPage(at))?;
            Ok(vec![Mark::whole(page, shown)])
        }
        (Placement::On(keyword), Target::New(_)) => keyword::marks(document, keyword, aspect),
        (Placement::Paging(paging), Target::New(_)) => paging::marks(document, paging, aspect),
        (Placement::InField, Target::Existing(waiting)) => in_field(document, waiting, aspect, request),
        (Placement::InField, Target::New(name)) => Err(PrepareError::NoPlace(name.clone())),
    }
}

/// The picture within the field, whose rectangle must stay as it is: to move it would be a change of the document.
fn in_field(
    document: &Document<'_>,
    waiting: &Waiting,
    aspect: f64,
    request: &Request<'_>,
) -> Result<Vec<Mark>, PrepareError> {
    let place = waiting.place(document)?;
    let missing = || PrepareError::NoPlace(request.field.unwrap_or_default().to_owned());
    let (page, user) = place.ok_or_else(missing)?;
    let shown = Shown::new(&page).seen_from_user_space(&user);
    Ok(vec![Mark::fitted(page, shown, aspect)])
}

/// The signature dictionary (Table 255) as ETSI EN 319 142-1 6.3 asks for it.
fn signature_dictionary(
    request: &Request<'_>,
    signer: &Signer<'_>,
    lock: Option<&Dictionary>,
    now: UnixMillis,
) -> Result<Dictionary, PrepareError> {
    let [filter, sub_filter] = signer.filters();
    let mut entries = Dictionary::from([
        ("Type", Object::name("Sig")),
        ("Filter", Object::name(filter)),
        ("SubFilter", Object::name(sub_filter)),
        ("M", Object::string(date::write(now)?.as_bytes())),
    ]);
    for (key, value) in [("Reason", request.reason), ("Location", request.location)] {
        if let Some(text) = value {
            entries.set(key, Object::text(text));
        }
    }
    let certification = request
        .certify
        .map(|permission| transform("DocMDP", &[("P", Object::Integer(permission.number()))]));
    let lock = lock.map(|lock| {
        let copied = ["Action", "Fields"].map(|key| Some((key, lock.get(key)?.clone())));
        let copied: Vec<_> = copied.into_iter().flatten().collect();
        transform("FieldMDP", &copied)
    });
    let references: Vec<_> = certification.into_iter().chain(lock).collect();
    if !references.is_empty() {
        entries.set("Reference", Object::Array(references));
    }
    Ok(entries)
}

/// A signature reference dictionary (Table 256).
fn transform(method: &str, parameters: &[(&str, Object)]) -> Object {
    let mut dictionary = Dictionary::from([
        ("Type", Object::name("TransformParams")),
        ("V", Object::name("1.2")),
    ]);
    parameters
        .iter()
        .for_each(|(key, value)| dictionary.set(key, value.clone()));
    Object::Dictionary(Dictionary::from([
        ("Type", Object::name("SigRef")),
        ("TransformMethod", Object::name(method)),
        ("TransformParams", Object::Dictionary(dictionary)),
    ]))
}
