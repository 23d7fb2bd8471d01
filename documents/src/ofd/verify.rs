//! Verification of a package: each signature for itself, what it covers, what it leaves out, and what came later.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;

use super::document;
use super::package::Package;
use super::record::{Description, FileReference, List, Record};
use super::report::{
    Finding, Reference, ReferenceState, SignatureKind, SignatureVerdict, StampPlace, Standing, Verdict,
};
use super::{ReadError, reach};
use crate::cms::gm;
use crate::ses::{self, Policy, Trust};

/// Verifies every signature of every document in a package. `now` counts where no time stamp proves an earlier time.
///
/// An error means that the package cannot be read; whatever is wrong with a signature is in the verdict.
pub fn verify(ofd: &[u8], trust: &dyn Trust, policy: Policy, now: UnixMillis) -> Result<Verdict, ReadError> {
    let package = Package::open(ofd)?;
    let (bodies, _) = document::bodies(&package)?;
    let mut context = Context {
        package: &package,
        trust,
        policy,
        now,
        digests: HashMap::new(),
    };
    let lists = bodies
        .iter()
        .map(|body| {
            body.signatures
                .as_ref()
                .map_or(Ok(Vec::new()), |path| listed(&package, path))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let list_paths: HashSet<&str> = bodies
        .iter()
        .filter_map(|body| body.signatures.as_deref())
        .collect();
    let mut signatures = Vec::new();
    for (index, body) in bodies
        .iter()
        .enumerate()
        .filter(|(index, _)| !lists[*index].is_empty())
    {
        let others = lists
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .flat_map(|(_, list)| list);
        let surroundings = Surroundings {
            index,
            list_paths: &list_paths,
            others: others.flat_map(Signature::own).collect(),
            files: reach::files(&package, body)?,
            pages: document::pages_of(&package, body)?
                .into_iter()
                .map(|page| page.id)
                .collect(),
        };
        let list = &lists[index];
        signatures.extend((0..list.len()).map(|nth| context.signature(&surroundings, list, nth)));
    }
    Ok(Verdict {
        standing: signatures.iter().map(|signature| signature.standing).max(),
        signatures,
    })
}

/// The certificates in each signature of a package, in DER: the signer's first, then what came with it; a seal maker's by
/// itself. Nothing is verified, and signatures that cannot be read are left out.
pub fn signers(ofd: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, ReadError> {
    let package = Package::open(ofd)?;
    let (bodies, _) = document::bodies(&package)?;
    let mut chains = Vec::new();
    for path in bodies.iter().filter_map(|body| body.signatures.as_ref()) {
        let described = listed(&package, path)?
            .into_iter()
            .filter_map(|signature| signature.description.ok());
        for description in described {
            match package.read(&description.value) {
                Ok(value) if ses::is_seal_signature(&value) => chains.extend(ses::signers(&value)),
                Ok(value) => chains.extend(gm::signer(&value)),
                Err(_) => {}
            }
        }
    }
    Ok(chains)
}

fn listed(package: &Package<'_>, path: &str) -> Result<Vec<Signature>, ReadError> {
    let describe = |record: Record| {
        let description = Description::read(package, &record.path);
        Signature { record, description }
    };
    Ok(List::read(package, path)?
        .records
        .into_iter()
        .map(describe)
        .collect())
}

struct Context<'p, 'a> {
    package: &'p Package<'a>,
    trust: &'p dyn Trust,
    policy: Policy,
    now: UnixMillis,
    /// Digests that have been computed: many signatures cover the same files.
    digests: HashMap<(String, Hash), Vec<u8>>,
}

/// What is known of a document before its signatures are looked at.
struct Surroundings<'s> {
    index: usize,
    list_paths: &'s HashSet<&'s str>,
    /// Files of the signatures of other documents.
    others: HashSet<&'s str>,
    files: HashSet<String>,
    pages: Vec<String>,
}

/// A signature of the list and what its Signature.xml says.
struct Signature {
    record: Record,
    description: Result<Description, ReadError>,
}

impl Signature {
    /// The files that belong to it.
    fn own(&self) -> impl Iterator<Item = &str> {
        let described = self.description.as_ref().ok();
        let value = described.map(|description| description.value.as_str());
        let seal = described.and_then(|description| description.seal.as_deref());
        [Some(self.record.path.as_str()), value, seal]
            .into_iter()
            .flatten()
    }
}

impl Context<'_, '_> {
    fn signature(&mut self, around: &Surroundings<'_>, all: &[Signature], nth: usize) -> SignatureVerdict {
        let Signature { record, description } = &all[nth];
        let mut verdict = empty(around.index, record);
        match description {
            Ok(description) => {
                verdict.provider.clone_from(&description.provider);
                verdict.written_time.clone_from(&description.date_time);
                verdict.stamps = stamps(description, &around.pages);
                self.check_references(description, &mut verdict);
                check_coverage(self.package, around, all, nth, &mut verdict);
                self.check_value(record, description, &mut verdict);
                check_stamps(&mut verdict);
            }
            Err(error) => invalid(&mut verdict, "unreadable", error),
        }
        let worst = verdict.findings.iter().map(|finding| finding.standing).max();
        verdict.standing = worst.unwrap_or(Standing::Valid);
        verdict
    }

    fn check_references(&mut self, description: &Description, verdict: &mut SignatureVerdict) {
        let Some(hash) = description.check_method else {
            return invalid(
                verdict,
                "check-method",
                "the digests are of a method that is not accepted",
            );
        };
        for reference in &description.references {
            let state = self.state(reference, hash);
            match state {
                ReferenceState::Intact => {}
                ReferenceState::Changed => {
                    invalid(
                        verdict,
                        "file-changed",
                        format!("'{}' has changed", reference.location),
                    );
                }
                ReferenceState::Missing => {
                    invalid(
                        verdict,
                        "file-missing",
                        format!("'{}' is not there any more", reference.location),
                    );
                }
            }
            verdict.references.push(Reference {
                file: reference.location.clone(),
                state,
            });
        }
    }

    fn state(&mut self, reference: &FileReference, hash: Hash) -> ReferenceState {
        let Some(path) = &reference.path else {
            return ReferenceState::Missing;
        };
        let said = STANDARD.decode(&reference.check_value);
        match (self.digest(path, hash), said) {
            (Ok(digest), Ok(said)) if digest == said => ReferenceState::Intact,
            _ => ReferenceState::Changed,
        }
    }

    fn digest(&mut self, path: &str, hash: Hash) -> Result<Vec<u8>, ReadError> {
        let key = (path.to_owned(), hash);
        if let Some(digest) = self.digests.get(&key) {
            return Ok(digest.clone());
        }
        let digest = hash.digest(&self.package.read(path)?).to_vec();
        self.digests.insert(key, digest.clone());
        Ok(digest)
    }

    /// The signature value over Signature.xml, and whose it is.
    fn check_value(&self, record: &Record, description: &Description, verdict: &mut SignatureVerdict) {
        let value = match self.package.read(&description.value) {
            Ok(value) => value,
            Err(error) => return invalid(verdict, "value-unreadable", error),
        };
        let data_hash = Hash::Sm3.digest(&description.bytes);
        if ses::is_seal_signature(&value) {
            if record.kind == SignatureKind::Sign {
                invalid(
                    verdict,
                    "kind",
                    "listed as a plain signature, but it is one with a seal",
                );
            }
            self.check_seal_signature(record, description, &value, &data_hash, verdict);
        } else if record.kind == SignatureKind::Seal {
            invalid(
                verdict,
                "kind",
                "listed as a signature with a seal, but there is no seal in it",
            );
        } else if gm::is_content_info(&value) {
            self.check_plain(&value, &data_hash, verdict);
        } else if gm::is_bare_signature(&value) {
            invalid(
                verdict,
                "bare-signature",
                "a bare signature, without the signer's certificate",
            );
        } else {
            invalid(verdict, "value-unreadable", "neither a seal signature nor CMS");
        }
    }

    fn check_seal_signature(
        &self,
        record: &Record,
        description: &Description,
        value: &[u8],
        data_hash: &[u8],
        verdict: &mut SignatureVerdict,
    ) {
        match ses::verify_signature(value, data_hash, self.trust, self.policy, self.now) {
            Ok(report) => {
                let warnings = report.warnings.iter().chain(&report.seal.warnings);
                warnings.for_each(|warning| remark(verdict, "seal", warning));
                if !same_path(&report.property_info, &record.path) {
                    remark(
                        verdict,
                        "property-info",
                        format!("the signature names '{}'", report.property_info),
                    );
                }
                verdict.signer = Some(report.signer.clone());
                verdict.signed_ms = Some(report.signed_ms);
                verdict.seal = Some(report);
            }
            Err(fault) => invalid(verdict, "seal", fault),
        }
        self.check_seal_file(description, value, verdict);
    }

    /// Seal.esl, where there is one, is the seal that is in the signature.
    fn check_seal_file(&self, description: &Description, value: &[u8], verdict: &mut SignatureVerdict) {
        let (Some(path), Ok(signature)) = (&description.seal, ses::Signature::read(value)) else {
            return;
        };
        match self.package.read(path) {
            Ok(file) if file == signature.seal.der() => {}
            Ok(_) => invalid(
                verdict,
                "seal-file",
                format!("'{path}' is not the seal in the signature"),
            ),
            Err(error) => invalid(verdict, "seal-file", error),
        }
    }

    fn check_plain(&self, value: &[u8], data_hash: &[u8], verdict: &mut SignatureVerdict) {
        match gm::verify(value, data_hash, self.trust, self.policy, self.now) {
            Ok(verified) => {
                verified
                    .warnings
                    .iter()
                    .for_each(|warning| remark(verdict, "signer", warning));
                verdict.signer = Some(verified.signer);
                verdict.signed_ms = Some(verified.at.0);
            }
            Err(fault) => invalid(verdict, "signature", fault),
        }
    }
}

fn empty(document: usize, record: &Record) -> SignatureVerdict {
    SignatureVerdict {
        document,
        id: record.id.clone(),
        path: record.path.clone(),
        kind: record.kind,
        standing: Standing::Invalid,
        findings: Vec::new(),
        provider: String::new(),
        written_time: None,
        signer: None,
        signed_ms: None,
        seal: None,
        references: Vec::new(),
        not_covered: Vec::new(),
        later: Vec::new(),
        stamps: Vec::new(),
    }
}

fn find(verdict: &mut SignatureVerdict, standing: Standing, code: &'static str, text: impl ToString) {
    verdict.findings.push(Finding {
        standing,
        code,
        text: text.to_string(),
    });
}

fn invalid(verdict: &mut SignatureVerdict, code: &'static str, text: impl ToString) {
    find(verdict, Standing::Invalid, code, text);
}

fn remark(verdict: &mut SignatureVerdict, code: &'static str, text: impl ToString) {
    find(verdict, Standing::Valid, code, text);
}

/// Sorts every file that the signature does not cover: its own, those of other signatures, and the rest. A file that
/// the document consists of counts as the rest, whatever a signature calls it: else a page could be made somebody's
/// signature value and be changed at will.
fn check_coverage(
    package: &Package<'_>,
    around: &Surroundings<'_>,
    all: &[Signature],
    nth: usize,
    verdict: &mut SignatureVerdict,
) {
    let described = all[nth].description.as_ref().ok();
    let references = described.map_or(&[][..], |description| &description.references);
    let covered: HashSet<&str> = references
        .iter()
        .filter_map(|reference| reference.path.as_deref())
        .collect();
    let own: HashSet<&str> = all[nth].own().chain(around.list_paths.iter().copied()).collect();
    let earlier: HashSet<&str> = all[..nth].iter().flat_map(Signature::own).collect();
    let later: HashSet<&str> = all[nth + 1..]
        .iter()
        .flat_map(Signature::own)
        .chain(around.others.iter().copied())
        .collect();
    for path in package
        .paths()
        .iter()
        .filter(|path| !covered.contains(path.as_str()))
    {
        let is_content = around.files.contains(path);
        if !is_content && own.contains(path.as_str()) {
            continue;
        }
        if !is_content && later.contains(path.as_str()) {
            verdict.later.push(path.clone());
        } else if !is_content && earlier.contains(path.as_str()) {
            remark(
                verdict,
                "earlier-not-covered",
                format!("'{path}' of an earlier signature is not covered"),
            );
        } else {
            verdict.not_covered.push(path.clone());
            invalid(
                verdict,
                "not-covered",
                format!("'{path}' is not covered by the signature"),
            );
        }
    }
    if !verdict.later.is_empty() {
        remark(verdict, "signed-later", "others have signed after this signature");
    }
}

fn stamps(description: &Description, pages: &[String]) -> Vec<StampPlace> {
    let page = |id: &String| pages.iter().position(|page| page == id).map(|index| index + 1);
    let place = |stamp: &super::Stamp| StampPlace {
        page: page(&stamp.page_id),
        stamp: stamp.clone(),
    };
    description.stamps.iter().map(place).collect()
}

/// A stamp on no page is shown by no reader, which is odd but changes nothing.
fn check_stamps(verdict: &mut SignatureVerdict) {
    let lost = verdict.stamps.iter().filter(|place| place.page.is_none()).count();
    if lost > 0 {
        remark(
            verdict,
            "stamp-without-page",
            format!("{lost} stamps are on no page of the document"),
        );
    }
}

fn same_path(said: &str, path: &str) -> bool {
    said.strip_prefix('/').unwrap_or(said) == path
}
