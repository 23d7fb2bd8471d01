//! Verification of a file: each signature for itself, on the revision that it covers, and then what came later.

use protocol::algorithm::{Algorithm, Hash};
use protocol::clock::UnixMillis;

use super::coverage::{Coverage, ends_revision};
use super::diff::{self, Rules};
use super::document::Document;
use super::dss::Store;
use super::form::{self, Field};
use super::object::{Dictionary, Object};
use super::permission::{self, Permission};
use super::report::{
    ChangeKind, Finding, Report, RevocationStatus, SignatureReport, TimeStampReport, Verdict,
};
use super::value::SEAL_SUB_FILTER;
use super::{ReadError, date};
use crate::cms::gm::{self, is_gm_signed_data};
use crate::cms::{DOCUMENT_SIGNING, DigestBytes, Opened, VerifyError, check_key_usage};
use crate::ses::{self, CertificateFault, Policy, SealFault, SignatureFault};
use crate::trust::{Found, Judge, Known, RevocationRule, slices};
use crate::tsp;
use crate::x509::{Certificate, Name, PathError};

/// /SubFilter of time stamps over a document (ETSI EN 319 142-1 5.4.3).
const TIME_STAMP_SUB_FILTER: &str = "ETSI.RFC3161";
/// Most signatures in a file that are verified.
pub(crate) const SIGNATURES_MAX: usize = 200;

/// Verifies every signature and document time stamp of a file. `trust_anchors` are certificates in DER; `now` counts
/// where no time stamp proves an earlier time. Revocation is not looked at.
///
/// An error means that the file cannot be read; whatever is wrong with a signature is in the report.
pub fn verify(pdf: &[u8], trust_anchors: &[impl AsRef<[u8]>], now: UnixMillis) -> Result<Report, ReadError> {
    verify_with(pdf, &Known::anchored(trust_anchors), now)
}

/// The same with all that a verifier may know; what the document holds for its own verification counts as well.
pub fn verify_with(pdf: &[u8], known: &Known, now: UnixMillis) -> Result<Report, ReadError> {
    let document = Document::open(pdf)?;
    let signed = signed_fields(&document)?;
    let store = match known.revocation {
        RevocationRule::Ignore => Store::default(),
        _ => Store::read(&document)?,
    };
    let mut judge = known.judge(now);
    judge.add(&store.certificates, &store.crls, &store.ocsps);
    let mut reports: Vec<Option<SignatureReport>> = signed.iter().map(|_| None).collect();
    let mut proofs = Vec::new();
    // Time stamps first: they prove how old the other signatures are.
    for is_stamp in [true, false] {
        for (at, (field, signature)) in signed.iter().enumerate() {
            if signature.is_name("SubFilter", TIME_STAMP_SUB_FILTER) != is_stamp {
                continue;
            }
            let (report, covered) = Check::new(&document, field, signature, &judge, &proofs).run();
            if let (true, Verdict::Valid, Some(stamp), Some(end)) =
                (is_stamp, report.verdict, &report.time_stamp, covered)
            {
                proofs.push((end, UnixMillis(stamp.time_ms)));
                judge.add_time(UnixMillis(stamp.time_ms));
            }
            reports[at] = Some(report);
        }
    }
    let signatures: Vec<_> = reports.into_iter().flatten().collect();
    Ok(Report {
        verdict: signatures.iter().map(|signature| signature.verdict).max(),
        signatures,
    })
}

fn signed_fields(document: &Document<'_>) -> Result<Vec<(Field, Dictionary)>, ReadError> {
    let mut signed = Vec::new();
    for field in form::fields(document)? {
        if let Some(signature) = field.signature(document)? {
            if signed.len() == SIGNATURES_MAX {
                return Err(ReadError::Limit("signatures of a file"));
            }
            signed.push((field, signature));
        }
    }
    Ok(signed)
}

/// A time that a time stamp over the document proves: all bytes up to an end existed then.
type Proof = (usize, UnixMillis);

/// The verification of one signature.
struct Check<'d, 'a> {
    document: &'d Document<'a>,
    field: &'d Field,
    signature: &'d Dictionary,
    judge: &'d Judge<'d>,
    proofs: &'d [Proof],
    report: SignatureReport,
}

impl<'d, 'a> Check<'d, 'a> {
    fn new(
        document: &'d Document<'a>,
        field: &'d Field,
        signature: &'d Dictionary,
        judge: &'d Judge<'d>,
        proofs: &'d [Proof],
    ) -> Self {
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
            revocation: RevocationStatus::NotLookedAt,
            judged_at_ms: judge.now().0,
            seal: None,
            revision: None,
            not_covered: Vec::new(),
            certifies: None,
            later_changes: Vec::new(),
        };
        Self {
            document,
            field,
            signature,
            judge,
            proofs,
            report,
        }
    }

    fn find(&mut self, verdict: Verdict, code: &'static str, text: impl ToString) {
        self.report.findings.push(Finding::new(verdict, code, text));
    }

    /// The report, and up to where the signature covers the file, where that is in order.
    fn run(mut self) -> (SignatureReport, Option<usize>) {
        let coverage = Coverage::read(self.document, self.signature);
        match &coverage {
            Ok(coverage) => {
                self.check_revision(coverage);
                self.check_value(coverage);
            }
            Err(error) => self.find(Verdict::Invalid, "byte-range", error),
        }
        let worst = self.report.findings.iter().map(|finding| finding.verdict).max();
        self.report.verdict = worst.unwrap_or(Verdict::Valid);
        (self.report, coverage.ok().map(|coverage| coverage.end))
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

    fn check_value(&mut self, coverage: &Coverage) {
        let bytes = self.document.bytes();
        let digest = |hash: Hash| {
            hash.digest_of(&[
                &bytes[..coverage.gap.start],
                &bytes[coverage.gap.end..coverage.end],
            ])
        };
        let value = coverage.value();
        match self.report.sub_filter.as_str() {
            "adbe.pkcs7.detached" if is_gm_signed_data(value) => self.check_gm(value, &digest),
            "ETSI.CAdES.detached" | "adbe.pkcs7.detached" => {
                if let Err(error) = self.check_cms(coverage, &digest) {
                    self.find_cms_error(&error);
                }
            }
            TIME_STAMP_SUB_FILTER => self.check_document_time_stamp(value, &digest),
            other if other.eq_ignore_ascii_case(SEAL_SUB_FILTER) => self.check_seal(value, &digest),
            other => {
                let text = format!("signatures of the kind '{other}' are not verified");
                self.find(Verdict::Indeterminate, "sub-filter", text);
            }
        }
    }

    fn check_document_time_stamp(&mut self, token: &[u8], digest: &dyn Fn(Hash) -> DigestBytes) {
        self.check_time_stamp(token, digest);
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

    fn check_time_stamp(&mut self, token: &[u8], digest: &dyn Fn(Hash) -> DigestBytes) {
        match tsp::verify_token(token, digest, None, self.judge.anchors()) {
            Ok(stamp) => {
                self.check_authority(token, &stamp);
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

    /// That the authority was not revoked when it stamped; what it stamped before stays good, and what is not known of it
    /// is no fault of the signature.
    fn check_authority(&mut self, token: &[u8], stamp: &tsp::Stamp) {
        if self.judge.rule() == RevocationRule::Ignore {
            return;
        }
        let enclosed = tsp::certificates_of(token).unwrap_or_default();
        let enclosed: Vec<&[u8]> = enclosed.iter().map(Vec::as_slice).collect();
        if let Found::Revoked(..) = self.judge.find(&stamp.certificate, &enclosed, stamp.time) {
            let text = "the certificate of the time-stamping authority was revoked when it stamped";
            self.find(Verdict::Invalid, "time-stamp-authority-revoked", text);
        }
    }

    fn check_cms(
        &mut self,
        coverage: &Coverage,
        digest: &dyn Fn(Hash) -> DigestBytes,
    ) -> Result<(), VerifyError> {
        let opened = Opened::detached(coverage.value())?;
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
        if let Some(token) = opened.time_stamps()?.first() {
            self.check_time_stamp(token, &|hash| hash.digest(opened.signature()));
        }
        let at = self.proved_time(coverage.end).unwrap_or(self.judge.now());
        self.report.judged_at_ms = at.0;
        let enclosed = slices(&certificates);
        let path = self
            .judge
            .check_path(leaf.der(), &enclosed, at, &DOCUMENT_SIGNING);
        self.report.chain_ok = Some(path.is_ok());
        path?;
        self.check_revocation(leaf, &enclosed, at);
        Ok(())
    }

    fn check_revocation(&mut self, leaf: &Certificate<'_>, enclosed: &[&[u8]], at: UnixMillis) {
        let rule = self.judge.rule();
        if rule == RevocationRule::Ignore {
            return;
        }
        match self.judge.find(leaf.der(), enclosed, at) {
            Found::Good => self.report.revocation = RevocationStatus::Good,
            Found::Revoked(since, reason) => {
                self.report.revocation = RevocationStatus::Revoked;
                let text = format!(
                    "the signer's certificate, or one above it, is revoked since {} ms ({}), and nothing proves that the signature is older",
                    since.0,
                    reason.name()
                );
                self.find(Verdict::Invalid, "revoked", text);
            }
            Found::Unknown => {
                self.report.revocation = RevocationStatus::Unknown;
                let verdict = match rule {
                    RevocationRule::Required => Verdict::Indeterminate,
                    _ => Verdict::Valid,
                };
                let text = "nobody says whether the signer's certificate is revoked";
                self.find(verdict, "revocation-unknown", text);
            }
        }
    }

    /// A seal signature in the form of the Chinese readers (`value.rs`).
    fn check_seal(&mut self, value: &[u8], digest: &dyn Fn(Hash) -> DigestBytes) {
        let data_hash = digest(Hash::Sm3);
        // Readers of other makers know no stricter rule than these.
        let policy = Policy {
            refuse_unknown_critical: false,
            ..Policy::default()
        };
        if let Ok(signature) = ses::Signature::read(value) {
            self.report.digest_ok = Some(signature.data_hash == &data_hash[..]);
        }
        match ses::verify_signature(value, &data_hash, self.judge, policy, self.judge.now()) {
            Ok(report) => self.take_seal_report(report),
            Err(fault) => {
                let verdict = match &fault {
                    SignatureFault::SignerCertificate(fault)
                    | SignatureFault::Seal(SealFault::MakerCertificate(fault))
                        if is_unknown(fault) =>
                    {
                        Verdict::Indeterminate
                    }
                    _ => Verdict::Invalid,
                };
                self.find(verdict, "seal", fault);
            }
        }
    }

    fn take_seal_report(&mut self, report: ses::SignatureReport) {
        (self.report.signature_ok, self.report.chain_ok) = (Some(true), Some(true));
        self.report.signer = Some(report.signer.clone());
        self.report.algorithm = Some(Algorithm::Sm2Sm3.to_string());
        self.report.judged_at_ms = report.signed_ms;
        for warning in report.warnings.iter().chain(&report.seal.warnings) {
            self.find(Verdict::Valid, "seal", warning);
        }
        self.report.seal = Some(report);
    }

    /// SignedData of GB/T 35275, which some put where others put CMS.
    fn check_gm(&mut self, value: &[u8], digest: &dyn Fn(Hash) -> DigestBytes) {
        match gm::verify(
            value,
            &digest(Hash::Sm3),
            self.judge,
            Policy::default(),
            self.judge.now(),
        ) {
            Ok(verified) => {
                (self.report.digest_ok, self.report.signature_ok) = (Some(true), Some(true));
                self.report.chain_ok = Some(true);
                self.report.signer = Some(verified.signer);
                self.report.algorithm = Some(Algorithm::Sm2Sm3.to_string());
                self.report.judged_at_ms = verified.at.0;
                for warning in verified.warnings {
                    self.find(Verdict::Valid, "signer", warning);
                }
            }
            Err(gm::Fault::Certificate(fault)) if is_unknown(&fault) => {
                self.find(Verdict::Indeterminate, "no-trust-anchor", fault);
            }
            Err(fault) => self.find(Verdict::Invalid, "signature", fault),
        }
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

    /// The earliest time that is proved: by the signature's own time stamp, or one over the document that covers it.
    fn proved_time(&self, end: usize) -> Option<UnixMillis> {
        let own = self
            .report
            .time_stamp
            .as_ref()
            .map(|stamp| UnixMillis(stamp.time_ms));
        let later = self
            .proofs
            .iter()
            .filter(|(covered, _)| *covered >= end)
            .map(|(_, at)| *at);
        own.into_iter().chain(later).min()
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

/// Whether a fault of a certificate is that something is not known, and not that something is wrong.
const fn is_unknown(fault: &CertificateFault) -> bool {
    matches!(
        fault,
        CertificateFault::Path(PathError::NoTrustAnchor) | CertificateFault::RevocationUnknown
    )
}
