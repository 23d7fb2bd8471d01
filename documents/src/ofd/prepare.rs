//! Signing a package: prepare, let sign, assemble (GB/T 33190-2016 18; the procedure of GM/T 0099-2020).

use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;
use serde::{Deserialize, Serialize};

use super::document::{self, Body, Page};
use super::limits::STAMPS_MAX;
use super::package::Package;
use super::record::{Description, List};
use super::report::SignatureKind;
use super::stamp::{self, Placement, PlacementError, Stamp};
use super::{ReadError, location, structure, write};
use crate::cms::gm;
use crate::ses::{
    self, AssembleError as SignatureError, PreparedSignature, Seal, SignatureRequest, SignerError, Sm2Signer,
};

/// The software that signs, as it is named in the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Who made it.
    pub company: String,
}

/// What a signature covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coverage {
    /// Every file but the lists of signatures, so that others can sign after this one.
    #[default]
    Continue,
    /// The list of signatures as well: nobody can sign any more.
    Whole,
}

/// With what it is signed.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// With an electronic seal.
    Seal {
        /// The seal, in DER.
        seal: &'a [u8],
        /// Where it is shown; nowhere if there are none.
        placements: &'a [Placement],
    },
    /// With a certificate alone.
    Sign,
}

/// Who signs what.
#[derive(Clone, Copy, Debug)]
pub struct SignRequest<'a> {
    /// Which document of the package, counted from 0.
    pub document: usize,
    /// With what.
    pub kind: Kind<'a>,
    /// The signer's certificate, in DER, with an SM2 key.
    pub certificate: &'a [u8],
    /// What is covered.
    pub coverage: Coverage,
    /// The software.
    pub provider: &'a Provider,
    /// When.
    pub at: UnixMillis,
}

/// Why a package cannot be signed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PrepareError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No such document.
    #[error("there is no document {asked}; the package has {count}, counted from 0")]
    Document {
        /// The one asked for.
        asked: usize,
        /// How many there are.
        count: usize,
    },
    /// An earlier signature covers the list of signatures, or OFD.xml where that would have to change.
    #[error("signature '{id}' covers '{path}' and so forbids further signatures")]
    Forbidden {
        /// The earlier signature.
        id: String,
        /// The file that would have to change.
        path: String,
    },
    /// The seal cannot be put there.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The seal cannot be used.
    #[error(transparent)]
    Seal(#[from] ses::PrepareError),
    /// The signer cannot sign.
    #[error("the signer: {0}")]
    Signer(#[from] SignerError),
    /// Too large for DER.
    #[error("cannot be written as DER: {0}")]
    Encoding(#[from] der::Error),
}

/// Why a signature does not complete a [`PreparedOfd`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// The signature itself.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A time stamp on a plain signature, which has no place for one here.
    #[error("plain signatures take no time stamp")]
    TimeStamp,
    /// The package cannot be written.
    #[error("the package cannot be written: {0}")]
    Package(String),
}

enum Value {
    Seal(Box<PreparedSignature>),
    Sign(Box<gm::Prepared>),
}

/// A signed package that lacks the signature itself.
pub struct PreparedOfd<'a> {
    package: Package<'a>,
    addition: Addition,
}

/// What a signature adds to a package, for whoever keeps the package elsewhere until the signature comes.
pub(crate) struct Addition {
    changed: Vec<(String, Vec<u8>)>,
    value_path: String,
    value: Value,
}

/// Where the files of a new signature go.
struct Places {
    list: String,
    signature: String,
    value: String,
    seal: String,
}

impl Places {
    fn new(package: &Package<'_>, body: &Body) -> Self {
        let folder = location::folder(&body.document);
        let start = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        let list = body
            .signatures
            .clone()
            .unwrap_or_else(|| format!("{start}Signs/Signatures.xml"));
        let signs = match location::folder(&list) {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let is_taken = |own: &str| {
            let own = own.to_lowercase();
            package
                .paths()
                .iter()
                .any(|path| path.to_lowercase().starts_with(&own))
        };
        let own = (0_u64..)
            .map(|number| format!("{signs}Sign_{number}/"))
            .find(|own| !is_taken(own));
        let own = own.expect("a package has fewer entries than there are numbers");
        Self {
            list,
            signature: format!("{own}Signature.xml"),
            value: format!("{own}SignedValue.dat"),
            seal: format!("{own}Seal.esl"),
        }
    }
}

/// Reads a package, checks that it may be signed, and says what to sign. `ofd` must stay as it is until the
/// signature comes: every file that is not changed is copied from it.
pub fn prepare<'a>(ofd: &'a [u8], request: &SignRequest<'a>) -> Result<PreparedOfd<'a>, PrepareError> {
    let package = Package::open(ofd)?;
    let (bodies, root_text) = document::bodies(&package)?;
    let body = bodies.get(request.document);
    let body = body.ok_or(PrepareError::Document {
        asked: request.document,
        count: bodies.len(),
    })?;
    let places = Places::new(&package, body);
    let list = body
        .signatures
        .as_ref()
        .map(|path| List::read(&package, path))
        .transpose()?;
    check_earlier(&package, &bodies, &places.list, body.signatures.is_none())?;

    let stamps = place(&package, body, request.kind)?;
    let mut changed: Vec<(String, Vec<u8>)> = Vec::new();
    if body.signatures.is_none() {
        let text = write::with_list(&root_text, &body.insert, &places.list);
        changed.push((document::ROOT.to_owned(), text.into_bytes()));
    }
    let numbers = write_list(&mut changed, &places, list.as_ref(), request, stamps.len())?;
    let seal_path = match request.kind {
        Kind::Seal { seal, .. } => {
            changed.push((places.seal.clone(), seal.to_vec()));
            Some(places.seal.as_str())
        }
        Kind::Sign => None,
    };
    let lists: Vec<_> = bodies
        .iter()
        .filter_map(|body| body.signatures.as_ref())
        .chain([&places.list])
        .collect();
    let digests = digests(&package, &changed, &lists, request.coverage)?;
    let text = write::signature(&write::Contents {
        provider: request.provider,
        at: request.at,
        digests: &digests,
        stamps: &stamps,
        first_stamp: numbers + 1,
        seal_path,
        value_path: &places.value,
    });
    let value = value(request, &places.signature, text.as_bytes())?;
    changed.push((places.signature, text.into_bytes()));
    let addition = Addition {
        changed,
        value_path: places.value,
        value,
    };
    Ok(PreparedOfd { package, addition })
}

/// Puts the new Signatures.xml among what has changed; gives the number of the signature.
fn write_list(
    changed: &mut Vec<(String, Vec<u8>)>,
    places: &Places,
    list: Option<&List>,
    request: &SignRequest<'_>,
    stamps: usize,
) -> Result<u64, ReadError> {
    let number = list.map_or(0, |list| list.last_number) + 1;
    let record = write::NewRecord {
        number,
        kind: match request.kind {
            Kind::Seal { .. } => SignatureKind::Seal,
            Kind::Sign => SignatureKind::Sign,
        },
        path: &places.signature,
        last_number: number + u64::try_from(stamps).unwrap_or(u64::MAX),
    };
    let text = match list {
        Some(list) => write::longer_list(&places.list, list, &record)?,
        None => write::new_list(&record),
    };
    changed.push((places.list.clone(), text.into_bytes()));
    Ok(number)
}

/// No earlier signature, of whichever document, may cover a file that has to change.
fn check_earlier(
    package: &Package<'_>,
    bodies: &[Body],
    list_path: &str,
    changes_root: bool,
) -> Result<(), PrepareError> {
    for path in bodies.iter().filter_map(|body| body.signatures.as_ref()) {
        for record in List::read(package, path)?.records {
            let description = Description::read(package, &record.path)?;
            let covered = description
                .references
                .iter()
                .filter_map(|reference| reference.path.as_deref());
            let hindrance = covered
                .into_iter()
                .find(|path| *path == list_path || changes_root && *path == document::ROOT);
            if let Some(path) = hindrance {
                return Err(PrepareError::Forbidden {
                    id: record.id,
                    path: path.to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn place(package: &Package<'_>, body: &Body, kind: Kind<'_>) -> Result<Vec<Stamp>, PrepareError> {
    let Kind::Seal { seal, placements } = kind else {
        return Ok(Vec::new());
    };
    if placements.is_empty() {
        return Ok(Vec::new());
    }
    let picture = Seal::read(seal).map_err(ses::PrepareError::from)?.picture;
    let size = (millimetres(picture.width_mm)?, millimetres(picture.height_mm)?);
    let pages: Vec<Page> = document::pages_of(package, body)?;
    let mut stamps = Vec::new();
    for placement in placements {
        stamps.extend(stamp::stamps(placement, &pages, size)?);
        if stamps.len() > STAMPS_MAX {
            return Err(PlacementError::TooMany.into());
        }
    }
    Ok(stamps)
}

/// The size of a seal, which must be one that can be seen.
fn millimetres(number: u64) -> Result<f64, PrepareError> {
    let number = u16::try_from(number).ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| structure("Seal.esl", "a size in millimetres"))?;
    Ok(f64::from(number))
}

/// SM3 of every file as it will be, by path, in the order of the package.
fn digests(
    package: &Package<'_>,
    changed: &[(String, Vec<u8>)],
    lists: &[&String],
    coverage: Coverage,
) -> Result<Vec<(String, Vec<u8>)>, ReadError> {
    let mut digests = Vec::with_capacity(package.paths().len() + changed.len());
    for path in package.paths() {
        if !changed.iter().any(|(changed, _)| changed == path) {
            digests.push((path.clone(), write::digest(&package.read(path)?)));
        }
    }
    digests.extend(
        changed
            .iter()
            .map(|(path, bytes)| (path.clone(), write::digest(bytes))),
    );
    digests.retain(|(path, _)| coverage == Coverage::Whole || !lists.contains(&path));
    Ok(digests)
}

fn value(request: &SignRequest<'_>, path: &str, signature_xml: &[u8]) -> Result<Value, PrepareError> {
    let mut data_hash = [0; 32];
    data_hash.copy_from_slice(&Hash::Sm3.digest(signature_xml));
    match request.kind {
        Kind::Seal { seal, .. } => {
            let prepared = ses::prepare_signature(&SignatureRequest {
                seal,
                certificate: request.certificate,
                data_hash,
                property_info: &format!("/{path}"),
                at: request.at,
            })?;
            Ok(Value::Seal(Box::new(prepared)))
        }
        Kind::Sign => {
            let signer = Sm2Signer::new(request.certificate, request.at)?;
            Ok(Value::Sign(Box::new(gm::prepare(
                &data_hash, signer, request.at,
            )?)))
        }
    }
}

impl Addition {
    /// What to give to a signer of `sm2-sm3`.
    fn message(&self) -> &[u8] {
        match &self.value {
            Value::Seal(prepared) => prepared.message(),
            Value::Sign(prepared) => prepared.message(),
        }
    }

    /// What to give to a signer of `sm2-sm3-e`.
    pub(crate) fn e(&self) -> [u8; 32] {
        match &self.value {
            Value::Seal(prepared) => prepared.e(),
            Value::Sign(prepared) => prepared.e(),
        }
    }

    /// The signed package, from the one it was prepared for.
    pub(crate) fn assemble(
        self,
        ofd: &[u8],
        signature: &[u8],
        time_stamp: Option<&[u8]>,
    ) -> Result<Vec<u8>, AssembleError> {
        let package = Package::open(ofd).map_err(|error| AssembleError::Package(error.to_string()))?;
        self.put_into(&package, signature, time_stamp)
    }

    fn put_into(
        mut self,
        package: &Package<'_>,
        signature: &[u8],
        time_stamp: Option<&[u8]>,
    ) -> Result<Vec<u8>, AssembleError> {
        let value = match self.value {
            Value::Seal(prepared) => prepared.assemble(signature, time_stamp)?,
            Value::Sign(_) if time_stamp.is_some() => return Err(AssembleError::TimeStamp),
            Value::Sign(prepared) => prepared.assemble(signature)?,
        };
        self.changed.push((self.value_path, value));
        package
            .with(&self.changed)
            .map_err(|error| AssembleError::Package(error.to_string()))
    }
}

impl PreparedOfd<'_> {
    /// What to give to a signer of `sm2-sm3`.
    pub fn message(&self) -> &[u8] {
        self.addition.message()
    }

    /// What to give to a signer of `sm2-sm3-e`.
    pub fn e(&self) -> [u8; 32] {
        self.addition.e()
    }

    /// The signed package. `time_stamp` is a token over the signature's bytes, for seal signatures only.
    pub fn assemble(self, signature: &[u8], time_stamp: Option<&[u8]>) -> Result<Vec<u8>, AssembleError> {
        self.addition.put_into(&self.package, signature, time_stamp)
    }

    /// Lets go of the package.
    pub(crate) fn detach(self) -> Addition {
        self.addition
    }
}
