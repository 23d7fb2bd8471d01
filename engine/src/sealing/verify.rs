//! What signatures of a document are worth, for callers who send it: pure, but for the anchors that the platform adds.

use documents::ofd;
use documents::pdf;
use documents::sealing::Octets;
use documents::ses::{self, Policy};
use documents::trust::{Known, RevocationRule};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::order;

/// What is to be verified, and whom to trust besides the platform's authorities.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyOrder {
    /// `pdf`, `ofd`, `cms` (a detached CMS signature over the document) or `seal` (an electronic seal, GB/T 38540); PDF and
    /// OFD are told by their first bytes if absent.
    #[serde(default)]
    pub(crate) form: Option<VerifiedForm>,
    /// The CMS signature, DER, base64; the document is what it is over.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) signature: Option<Octets>,
    /// More certificates to trust, PEM, at most 16.
    #[serde(default)]
    pub(crate) trust_anchors: Vec<String>,
    /// How much has to be known of revocations: `ignore`, `if-known` (who is known to be revoked is not believed) or
    /// `required`; `if-known` if absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) revocation: RevocationRule,
    /// Whether the platform's own authorities are trusted; they are if absent.
    #[serde(default)]
    pub(crate) platform: Option<bool>,
}

/// What is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VerifiedForm {
    Pdf,
    Ofd,
    Cms,
    Seal,
}

/// What is found.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct VerifyAnswer {
    /// What was verified.
    form: VerifiedForm,
    /// `valid`, `indeterminate` (something that would have to be known is not), `invalid`, or `unsigned`.
    verdict: &'static str,
    /// Everything that was found, by signature: who signed, what is covered, what came later, and the reasons.
    #[schema(value_type = Object)]
    report: Value,
}

/// Certificates to trust in one request.
const ANCHORS_MAX: usize = 16;

impl VerifyOrder {
    /// Reads and checks what does not depend on the document.
    pub(crate) fn read(json: &[u8]) -> Result<Self, Refusal> {
        let malformed = |text: String| Refusal::new(Code::MalformedRequest, text);
        let order: Self =
            serde_json::from_slice(json).map_err(|error| malformed(format!("the order: {error}")))?;
        if order.trust_anchors.len() > ANCHORS_MAX {
            return Err(malformed(format!(
                "the order: at most {ANCHORS_MAX} trust anchors"
            )));
        }
        if order.signature.is_some() != (order.form == Some(VerifiedForm::Cms)) {
            return Err(malformed(
                "the order: a signature belongs to the form cms, and that to it".into(),
            ));
        }
        Ok(order)
    }

    fn form_of(&self, document: &[u8]) -> Result<VerifiedForm, Refusal> {
        use documents::sealing::Form;
        let told = || match order::form_of(document)? {
            Form::Pdf => Some(VerifiedForm::Pdf),
            Form::Ofd => Some(VerifiedForm::Ofd),
        };
        let unknown = || Refusal::new(Code::DocumentUnreadable, "neither a PDF nor an OFD file");
        self.form.or_else(told).ok_or_else(unknown)
    }

    /// What a verifier knows: the platform's authorities and lists, and what the caller trusts.
    fn known(&self, platform: Known) -> Result<Known, Refusal> {
        let mut known = if self.platform.unwrap_or(true) {
            platform
        } else {
            Known::default()
        };
        known.revocation = self.revocation;
        for text in &self.trust_anchors {
            let block = pem::parse(text).ok().filter(|block| block.tag() == "CERTIFICATE");
            let der = block.map(pem::Pem::into_contents);
            let readable = der.filter(|der| documents::x509::validity(der).is_ok());
            let text = "the order: a trust anchor is not a certificate in PEM";
            known
                .anchors
                .push(readable.ok_or_else(|| Refusal::new(Code::MalformedRequest, text))?);
        }
        Ok(known)
    }
}

/// Verifies. `platform` is what the platform knows by itself.
pub(crate) fn verify(
    order: &VerifyOrder,
    document: &[u8],
    platform: Known,
    now: UnixMillis,
) -> Result<VerifyAnswer, Refusal> {
    let form = order.form_of(document)?;
    let known = order.known(platform)?;
    let (verdict, report) = match form {
        VerifiedForm::Pdf => verify_pdf(document, &known, now)?,
        VerifiedForm::Ofd => verify_ofd(document, &known, now)?,
        VerifiedForm::Cms => verify_cms(order, document, &known.anchors)?,
        VerifiedForm::Seal => verify_seal(document, &known, now)?,
    };
    Ok(VerifyAnswer {
        form,
        verdict,
        report,
    })
}

fn unreadable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::DocumentUnreadable, error.to_string())
}

fn to_json(report: &impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(report).map_err(|error| Refusal::new(Code::Internal, error.to_string()))
}

const VALID: &str = "valid";
const INDETERMINATE: &str = "indeterminate";
const INVALID: &str = "invalid";
const UNSIGNED: &str = "unsigned";

fn verify_pdf(document: &[u8], known: &Known, now: UnixMillis) -> Result<(&'static str, Value), Refusal> {
    let report = pdf::verify_with(document, known, now).map_err(unreadable)?;
    let verdict = match report.verdict {
        None => UNSIGNED,
        Some(pdf::Verdict::Valid) => VALID,
        Some(pdf::Verdict::Indeterminate) => INDETERMINATE,
        Some(pdf::Verdict::Invalid) => INVALID,
    };
    Ok((verdict, to_json(&report)?))
}

fn verify_ofd(document: &[u8], known: &Known, now: UnixMillis) -> Result<(&'static str, Value), Refusal> {
    let report = ofd::verify(document, &known.judge(now), Policy::default(), now).map_err(unreadable)?;
    let verdict = match report.standing {
        None => UNSIGNED,
        Some(ofd::Standing::Valid) => VALID,
        Some(ofd::Standing::Invalid) => INVALID,
    };
    Ok((verdict, to_json(&report)?))
}

fn verify_cms(
    order: &VerifyOrder,
    document: &[u8],
    anchors: &[Vec<u8>],
) -> Result<(&'static str, Value), Refusal> {
    let signature = order.signature.as_ref().map_or(&[][..], |signature| &signature.0);
    let digest = |hash: protocol::algorithm::Hash| hash.digest(document);
    match documents::cms::verify_detached(signature, &digest, anchors) {
        Ok(verified) => {
            let report = serde_json::json!({
                "signer": verified.signer,
                "algorithm": verified.algorithm.name(),
            });
            Ok((VALID, report))
        }
        Err(error) => {
            let unknown = matches!(
                &error,
                documents::cms::VerifyError::Path(documents::x509::PathError::NoTrustAnchor)
                    | documents::cms::VerifyError::NoCertificate
                    | documents::cms::VerifyError::UnsupportedAlgorithm
            );
            let report = serde_json::json!({ "reason": error.to_string() });
            Ok((if unknown { INDETERMINATE } else { INVALID }, report))
        }
    }
}

fn verify_seal(document: &[u8], known: &Known, now: UnixMillis) -> Result<(&'static str, Value), Refusal> {
    ses::Seal::read(document).map_err(unreadable)?;
    match ses::verify_seal(document, &known.judge(now), Policy::default(), now) {
        Ok(report) => Ok((VALID, to_json(&report)?)),
        Err(fault) => Ok((INVALID, serde_json::json!({ "reason": fault.to_string() }))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<VerifyOrder, Refusal> {
        VerifyOrder::read(json.as_bytes())
    }

    #[test]
    fn an_order_to_verify_says_what_is_wrong_with_it() {
        for (json, word) in [
            (r#"{"form":"gif"}"#, "gif"),
            (r#"{"form":"cms"}"#, "signature"),
            (r#"{"signature":"AA=="}"#, "signature"),
            (r#"{"trust":[]}"#, "trust"),
        ] {
            let refused = read(json).unwrap_err();
            assert_eq!(refused.code, Code::MalformedRequest, "{json}");
            assert!(refused.message.contains(word), "{refused}");
        }
        let order = read(r#"{"trust_anchors":["no certificate"]}"#).unwrap();
        let refused = verify(&order, b"%PDF-1.4", Known::default(), UnixMillis(0)).unwrap_err();
        assert_eq!(refused.code, Code::MalformedRequest, "{refused}");
    }

    #[test]
    fn what_is_no_document_is_not_judged() {
        let order = VerifyOrder::default();
        for bytes in [&b""[..], b"GIF89a", b"%PDF-1.4 and no more", b"PK\x03\x04"] {
            let refused = verify(&order, bytes, Known::default(), UnixMillis(0)).unwrap_err();
            assert_eq!(refused.code, Code::DocumentUnreadable, "{refused}");
        }
        let seal = read(r#"{"form":"seal"}"#).unwrap();
        let refused = verify(&seal, b"\x30\x00", Known::default(), UnixMillis(0)).unwrap_err();
        assert_eq!(refused.code, Code::DocumentUnreadable, "{refused}");
    }
}
