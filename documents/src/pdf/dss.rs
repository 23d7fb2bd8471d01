//! Data for later verification: the document security store (ETSI EN 319 142-1 5.4.2; level B-LT).

use std::collections::HashMap;

use aws_lc_rs::digest;
use protocol::clock::UnixMillis;

use super::coverage::Coverage;
use super::document::Document;
use super::filter::deflate;
use super::object::{Dictionary, Object, Ref};
use super::sign::PrepareError;
use super::update::Update;
use super::{ReadError, date, form};

/// What verification will need when those who could be asked are gone; each in DER.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValidationData<'v> {
    /// The fields whose signatures it is for; none: all that are in the document.
    pub fields: &'v [String],
    /// Certificates of the signer, of time-stamping authorities and of OCSP responders, and those above them.
    pub certificates: &'v [Vec<u8>],
    /// Certificate revocation lists (RFC 5280 5).
    pub crls: &'v [Vec<u8>],
    /// OCSP responses (RFC 6960 4.2.1).
    pub ocsps: &'v [Vec<u8>],
}

/// Keys of the three lists in the store and in the entry of one signature (5.4.2.2, 5.4.2.3).
const LISTS: [(&str, &str); 3] = [("Certs", "Cert"), ("CRLs", "CRL"), ("OCSPs", "OCSP")];

/// What to append to a signed file so that it holds its own validation data. Data that is there already stays and is not
/// added twice. Every certification permits this.
pub fn add_validation_data(
    pdf: &[u8],
    data: &ValidationData<'_>,
    now: UnixMillis,
) -> Result<Vec<u8>, PrepareError> {
    let document = Document::open(pdf)?;
    let mut update = Update::new(&document);
    let old = document.dictionary(&document.catalog()?, "DSS")?;
    let mut store = Dictionary::from([("Type", Object::name("DSS"))]);
    let mut entry = Dictionary::from([
        ("Type", Object::name("VRI")),
        ("TU", Object::string(date::write(now)?.as_bytes())),
    ]);
    let new = [data.certificates, data.crls, data.ocsps];
    for ((in_store, in_entry), new) in LISTS.into_iter().zip(new) {
        let mut list = List::read(&document, &old, in_store)?;
        let own: Vec<_> = new
            .iter()
            .map(|der| Object::Reference(list.add(&mut update, der)))
            .collect();
        store.set(in_store, Object::Array(list.references));
        entry.set(in_entry, Object::Array(own));
    }
    let mut entries = document.dictionary(&old, "VRI")?;
    for key in keys(&document, data.fields)? {
        entries.set(&key, Object::Dictionary(entry.clone()));
    }
    store.set("VRI", Object::Dictionary(entries));
    let store = update.add(Object::Dictionary(store));
    update.change(document.root()?, "the document catalog", |catalog| {
        catalog.set("DSS", Object::Reference(store));
    })?;
    let seed = format!("{} {}", pdf.len(), now.0);
    Ok(update.finish(seed.as_bytes()).bytes)
}

/// What a document holds for its own verification, each in DER.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) crls: Vec<Vec<u8>>,
    pub(crate) ocsps: Vec<Vec<u8>>,
}

/// Most certificates, lists or responses that are read of a document.
const READ_MAX: usize = 200;

impl Store {
    /// Reads the store. Which entry is for which signature does not matter: what helps, helps.
    pub(crate) fn read(document: &Document<'_>) -> Result<Self, ReadError> {
        let store = document.dictionary(&document.catalog()?, "DSS")?;
        let [certificates, crls, ocsps] = LISTS.map(|(in_store, _)| read_list(document, &store, in_store));
        Ok(Self {
            certificates: certificates?,
            crls: crls?,
            ocsps: ocsps?,
        })
    }
}

fn read_list(document: &Document<'_>, store: &Dictionary, key: &str) -> Result<Vec<Vec<u8>>, ReadError> {
    let references = document.array(store, key)?;
    if references.len() > READ_MAX {
        return Err(ReadError::Limit("certificates and lists in the security store"));
    }
    let mut list = Vec::new();
    for reference in &references {
        if let Object::Stream(stream) = document.resolve(reference)? {
            list.push(document.data(&stream)?);
        }
    }
    Ok(list)
}

/// One list of the store.
struct List {
    references: Vec<Object>,
    known: HashMap<Vec<u8>, Ref>,
}

impl List {
    fn read(document: &Document<'_>, store: &Dictionary, key: &str) -> Result<Self, ReadError> {
        let references = document.array(store, key)?;
        let mut known = HashMap::new();
        for reference in references.iter().filter_map(Object::as_reference) {
            if let Object::Stream(stream) = document.load(reference)? {
                known.insert(document.data(&stream)?, reference);
            }
        }
        Ok(Self { references, known })
    }

    fn add(&mut self, update: &mut Update<'_, '_>, der: &[u8]) -> Ref {
        if let Some(known) = self.known.get(der) {
            return *known;
        }
        let dictionary = Dictionary::from([("Filter", Object::name("FlateDecode"))]);
        let reference = update.add_stream(dictionary, deflate(der));
        self.references.push(Object::Reference(reference));
        self.known.insert(der.to_vec(), reference);
        reference
    }
}

/// The keys of signatures in the store: SHA-1 of /Contents, with the zeros behind the signature (5.4.2.3). It names and
/// proves nothing, so SHA-1 will do.
fn keys(document: &Document<'_>, wanted: &[String]) -> Result<Vec<String>, PrepareError> {
    let mut keys = Vec::new();
    for field in form::fields(document)? {
        let is_wanted = wanted.is_empty() || wanted.contains(&field.name);
        if let Some(signature) = field.signature(document)?.filter(|_| is_wanted) {
            let coverage = Coverage::read(document, &signature)
                .map_err(|_| ReadError::Wrong("a signature whose /ByteRange is not in order"))?;
            let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &coverage.contents);
            keys.push(hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect());
        }
    }
    match wanted.first() {
        Some(name) if keys.is_empty() => Err(PrepareError::NotSigned(name.clone())),
        _ => Ok(keys),
    }
}
