//! Verification of a file: each signature for itself, on the revision that it covers, and then what came later.

use protocol::algorithm::Hash;
use protocol::clock::UnixMillis;

use super::coverage::{Coverage, ends_revision};
use super::diff::{self, Rules};
use super::document::Document;
use super::form::{self, Field};
use super::object::{Dictionary, Object};
use super::permission::{self, Permission};
use super::report::{ChangeKind, Finding, Report, SignatureReport, TimeStampReport, Verdict};
use super::{ReadError, date};
use crate::cms::{DOCUMENT_SIGNING, DigestBytes, Opened, VerifyError, check_key_usage, check_path};
use crate::tsp;
use crate::x509::{Certificate, Name, PathError};

/// Most signatures in a file that are verified.
const SIGNATURES_MAX: usize = 200;

/// Verifies every signature and document time stamp of a file. `trust_anchors` are certificates in DER; `now` counts
/// where no time stamp proves an earlier time. Revocation is not looked at.
///
/// An error means that the file cannot be read; whatever is wrong with a signature is in the report.
pub fn verify(pdf: &[u8], trust_anchors: &[impl AsRef<[u8]>], now: UnixMillis) -> Result<Report, ReadError> {
    let document = Document::open(pdf)?;
    let mut signatures = Vec::new();
    for field in form::fields(&document)? {
        if let Some(signature) = field.signature(&document)? {
            if signatures.len() == SIGNATURES_MAX {
                return Err(ReadError::Limit("signatures of a file"));
            }
            signatures.push(Check::new(&document, &field, &signature).run(trust_anchors, now));
        }
    }
    Ok(Report {
        verdict: signatures.iter().map(|signature| signature.verdict).max(),
        signatures,
    })
}

/// The verification of one signature.
struct Check<'d, 'a> {
    document: &'d Document<'a>,
    field: &'d Field,
    signature: &'d Dictionary,
    report: SignatureReport,
}

impl<'d, 'a> Check<'d, 'a> {
    fn new(document: &'d Document<'a>, field: &'d Field, signature: &'d Dictionary) -> Self {
        let sub_filter = signature
            .get("SubFilter")
            .and_then(Object::as_name)
            .unwrap_or_default();
        let claimed = signature
            .get("M")
            .and_then(Object::as_text)
            .and_then(|text| date::read(&text));
        let report = SignatureReport {
            field: field.name.clone(),
            sub_filter: String::from_utf8_lossy(sub_filter).into_owned(),
            verdict: Verdict::Valid,
            findings: Vec::new(),
            signer: None,
            algorithm: None,
            claimed_time_ms: claimed.map(|at| at.0),
            time_stamp: None,
            digest_ok: None,
            signature_ok: None,
            chain_ok: None,
            revision: None,
            not_covered: Vec::new(),
            certifies: None,
            later_changes: Vec::new(),
        };
        Self {
            document,
            field,
            signature,
            report,
        }
    }

    fn find(&mut self, verdict: Verdict, code: &'static str, text: impl ToString) {
        self.report.findings.push(Finding::new(verdict, code, text));
    }

    fn run(mut self, trust_anchors: &[impl AsRef<[u8]>], now: UnixMillis) -> SignatureReport {
        match Coverage::read(self.document, self.signature) {
            Ok(coverage) => {
                self.check_revision(&coverage);
                self.check_value(&coverage, trust_anchors, now);
            }
            Err(error) => self.find(Verdict::Invalid, "byte-range", error),
        }
        let worst = self.report.findings.iter().map(|finding| finding.verdict).max();
        self.report.verdict = worst.unwrap_or(Verdict::Valid);
        self.report
    }

    /// That the signature is in the revision it covers, and what came after that.
    fn check_revision(&mut self, coverage: &Coverage) {
        let whole = self.document.bytes();
        self.report.not_covered = vec![(coverage.gap.start, coverage.gap.end)];
        if coverage.end < whole.len() {
            self.report.not_covered.push((coverage.end, whole.len()));
        }
        let revision = match Document::open(&whole[..coverage.end]) {
            Ok(revision) => revision,
            Err(error) => return self.find(Verdict::Invalid, "revision-unreadable", error),
        };
        if let Err(error) = self.check_place(&revision) {
            return self.find(Verdict::Invalid, "revision", error);
        }
        self.check_tail(&revision, coverage.end);
        match self.later_changes(&revision) {
            Ok(()) => {}
            Err(error) => self.find(Verdict::Invalid, "later-revisions-unreadable", error),
        }
    }

    /// That what follows is made of whole revisions. Readers that repair files find objects in anything else.
    fn check_tail(&mut self, revision: &Document<'_>, end: usize) {
        let tail = self.document.bytes()[end..].trim_ascii_end();
        let is_same_revision = revision.sections()[0].at == self.document.sections()[0].at;
        let is_whole = tail.is_empty() || (!is_same_revision && ends_revision(tail));
        if !is_whole {
            self.find(
                Verdict::Invalid,
                "data-behind-the-last-revision",
                "there is data behind the last revision of the file",
            );
        }
    }

    fn check_place(&mut self, revision: &Document<'_>) -> Result<(), ReadError> {
        let sections = self.document.sections();
        let newest = revision.sections()[0].at;
        let position = sections.iter().position(|section| section.at == newest);
        let after = position.ok_or(ReadError::Wrong(
            "what the file goes on from is not what was signed",
        ))?;
        // A linearized file has two sections in its first revision; no matter, the last one is what counts.
        self.report.revision = Some((sections.len() - after, sections.len()));
        let fields = form::fields(revision)?;
        let same = fields
            .iter()
            .find(|field| field.reference == self.field.reference && field.name == self.field.name);
        let signed = same.map(|field| field.signature(revision)).transpose()?.flatten();
        if signed.as_ref() != Some(self.signature) {
            return Err(ReadError::Wrong(
                "the signature is not in the revision that it covers",
            ));
        }
        Ok(())
    }

    fn later_changes(&mut self, revision: &Document<'_>) -> Result<(), ReadError> {
        let certification = permission::certification(self.document)?;
        let own = self.field.value.as_ref().and_then(Object::as_reference);
        let is_certification = certification.is_some_and(|found| Some(found.signature) == own);
        let permission = certification.map_or(Permission::FormFilling, |found| found.permission);
        if is_certification {
            self.report.certifies = Some(permission);
        } else if permission::doc_mdp(revision, self.signature)?.is_some() {
            self.find(
                Verdict::Indeterminate,
                "certification-not-in-catalog",
                "the signature would certify the document, but the catalog does not name it as the certification",
            );
        }
        let rules = Rules {
            permission,
            lock: permission::field_mdp(revision, self.signature)?,
        };
        self.report.later_changes = diff::changes(revision, self.document, &rules)?;
        let forbidden = self
            .report
            .later_changes
            .iter()
            .filter(|change| !change.permitted);
        let found: Vec<_> = forbidden
            .map(|change| {
                let code = match change.kind {
                    ChangeKind::Other => "changed-after-signing",
                    _ => "forbidden-by-certification",
                };
                Finding::new(
                    Verdict::Invalid,
                    code,
                    format!("changed after signing: {}", change.what),
                )
            })
            .collect();
        self.report.findings.extend(found);
        Ok(())
    }

    fn check_value(&mut self, coverage: &Coverage, trust_anchors: &[impl AsRef<[u8]>], now: UnixMillis) {
        let bytes = self.document.bytes();
        let digest = |hash: Hash| {
            hash.digest_of(&[
                &bytes[..coverage.gap.start],
                &bytes[coverage.gap.end..coverage.end],
            ])
        };
        let value = coverage.value();
        match self.report.sub_filter.as_str() {
            "ETSI.CAdES.detached" | "adbe.pkcs7.detached" => {
                if let Err(error) = self.check_cms(value, &digest, trust_anchors, now) {
                    self.find_cms_error(&error);
                }
            }
            "ETSI.RFC3161" => self.check_document_time_stamp(value, &digest, trust_anchors),
            other => {
                let text = format!("signatures of the kind '{other}' are not verified");
                self.find(Verdict::Indeterminate, "sub-filter", text);
            }
        }
    }

    fn check_document_time_stamp(
        &mut self,
        token: &[u8],
        digest: &dyn Fn(Hash) -> DigestBytes,
        trust_anchors: &[impl AsRef<[u8]>],
    ) {
        self.check_time_stamp(token, digest, trust_anchors);
        self.report.signer = self
            .report
            .time_stamp
            .as_ref()
            .map(|stamp| stamp.authority.clone());
        if self.report.time_stamp.is_some() {
            (self.report.digest_ok, self.report.signature_ok) = (Some(true), Some(true));
            self.report.chain_ok = Some(true);
        }
    }

    fn check_time_stamp(
        &mut self,
        token: &[u8],
        digest: &dyn Fn(Hash) -> DigestBytes,
        trust_anchors: &[impl AsRef<[u8]>],
    ) {
        match tsp::verify_token(token, digest, None, trust_anchors) {
            Ok(stamp) => {
                self.report.time_stamp = Some(TimeStampReport {
                    time_ms: stamp.time.0,
                    authority: stamp.authority,
                });
            }
            Err(error @ tsp::VerifyError::Path(_)) => {
                self.find(Verdict::Indeterminate, "time-stamp-authority", error);
            }
            Err(error) => self.find(Verdict::Invalid, "time-stamp", format!("the time stamp: {error}")),
        }
    }

    fn check_cms(
        &mut self,
        value: &[u8],
        digest: &dyn Fn(Hash) -> DigestBytes,
        trust_anchors: &[impl AsRef<[u8]>],
        now: UnixMillis,
    ) -> Result<(), VerifyError> {
        let opened = Opened::detached(value)?;
        let is_same = *opened.message_digest()? == *digest(opened.hash());
        self.report.digest_ok = Some(is_same);
        if !is_same {
            self.find(Verdict::Invalid, "digest", "the file is not what was signed");
        }
        let certificates = opened.certificates()?;
        let leaf = opened.signer(&certificates)?;
        self.report.signer = Some(Name::from_der(leaf.subject().0)?.to_string());
        self.check_attributes(&opened, leaf)?;
        match opened.check_signature(leaf) {
            Ok(algorithm) => {
                self.report.signature_ok = Some(true);
                self.report.algorithm = Some(algorithm.to_string());
            }
            Err(error) => {
                self.report.signature_ok = Some(false);
                return Err(error);
            }
        }
        check_key_usage(leaf)?;
        self.check_time_stamps(&opened, trust_anchors)?;
        let at = self.proved_time().unwrap_or(now);
        let path = check_path(leaf, &certificates, trust_anchors, at, &DOCUMENT_SIGNING);
        self.report.chain_ok = Some(path.is_ok());
        path
    }

    /// What PAdES asks of the attributes (ETSI EN 319 142-1 6.3).
    fn check_attributes(&mut self, opened: &Opened<'_>, leaf: &Certificate<'_>) -> Result<(), VerifyError> {
        let is_pades = self.report.sub_filter == "ETSI.CAdES.detached";
        match opened.check_signing_certificate(leaf) {
            Err(VerifyError::Attribute(_)) if !is_pades => {
                let text = "the signed attributes do not name the signer's certificate";
                self.find(Verdict::Valid, "signing-certificate-not-named", text);
            }
            other => other?,
        }
        if is_pades && opened.has_signing_time() {
            let text = "the signing time is stated twice, in the file and in a signed attribute";
            self.find(Verdict::Valid, "signing-time-twice", text);
        }
        Ok(())
    }

    fn check_time_stamps(
        &mut self,
        opened: &Opened<'_>,
        trust_anchors: &[impl AsRef<[u8]>],
    ) -> Result<(), VerifyError> {
        if let Some(token) = opened.time_stamps()?.first() {
            self.check_time_stamp(token, &|hash| hash.digest(opened.signature()), trust_anchors);
        }
        Ok(())
    }

    fn proved_time(&self) -> Option<UnixMillis> {
        self.report
            .time_stamp
            .as_ref()
            .map(|stamp| UnixMillis(stamp.time_ms))
    }

    fn find_cms_error(&mut self, error: &VerifyError) {
        use Verdict::{Indeterminate, Invalid};
        let (verdict, code) = match error {
            VerifyError::UnsupportedAlgorithm => (Indeterminate, "algorithm"),
            VerifyError::ContentDigest => (Invalid, "digest"),
            VerifyError::BadSignature => (Invalid, "signature"),
            VerifyError::NoCertificate => (Indeterminate, "certificate-missing"),
            VerifyError::OtherCertificate => (Invalid, "other-certificate"),
            VerifyError::Path(PathError::NoTrustAnchor) => (Indeterminate, "no-trust-anchor"),
            VerifyError::Path(PathError::NotValidThen { .. }) => (Indeterminate, "certificate-not-valid"),
            VerifyError::Path(PathError::UnsupportedAlgorithm) => (Indeterminate, "certificate-algorithm"),
            VerifyError::Path(_) => (Invalid, "certificate"),
            VerifyError::KeyUsage => (Invalid, "key-usage"),
            _ => (Invalid, "cms"),
        };
        self.find(verdict, code, error);
    }
}
