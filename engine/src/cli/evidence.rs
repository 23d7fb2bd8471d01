//! How certificates stand, gathered: from the engine over the native protocol, or from where the certificates say.

use std::path::Path;

use documents::crl::Crl;
use documents::ocsp::{self, CertId, IdHash, Named};
use documents::sealing::{Asked, Evidence, Octets, Wanted};
use documents::x509;
use http::StatusCode;
use protocol::client::{Client, Profile};
use protocol::clock;
use protocol::error_code::{Code, Refusal};

use super::{fetch, read_file};
use crate::args::documents::EvidenceOptions;

/// Longest certificate or OCSP response that is taken, in bytes.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Longest revocation list that is taken, in bytes.
const LIST_BYTES_MAX: usize = 32 << 20;
/// How many issuers are followed from one certificate to the next.
const ISSUERS_MAX: usize = 12;

/// What is there before anybody is asked. The CAs of the profile may be issuers.
pub(super) fn given(options: &EvidenceOptions, profile: &Path) -> Result<Evidence, Refusal> {
    let mut evidence = Evidence::default();
    let known = super::verify::profile_anchors(&Profile::read(profile)?)?;
    evidence.certificates.extend(known.into_iter().map(Octets));
    for path in &options.ca {
        let certificates = super::read_anchors(path)?;
        evidence.certificates.extend(certificates.into_iter().map(Octets));
    }
    for path in &options.crl {
        evidence.crls.push(read_file(path)?.into());
    }
    for path in &options.ocsp {
        evidence.ocsps.push(read_file(path)?.into());
    }
    Ok(evidence)
}

/// Completes what is there with what can be found out; where that is not enough, what kept us from finding out more.
pub(super) async fn gather(
    client: Option<&Client>,
    wanted: &Wanted,
    mut evidence: Evidence,
) -> (Evidence, Option<Refusal>) {
    let mut faults = Vec::new();
    add_issuers(wanted, &mut evidence, &mut faults).await;
    let all = wanted.sources(&known(&evidence));
    // Of the CAs that are known only those above these certificates belong into the document.
    let is_above = |der: &Octets| all.iter().any(|asked| asked.issuer.as_ref() == Some(&der.0));
    evidence.certificates.retain(is_above);
    evidence.at_ms = clock::wall().0;
    if evidence.check(wanted).is_ok() {
        return (evidence, None);
    }
    for asked in &all {
        if let Err(refusal) = add_standing(client, asked, &mut evidence).await {
            faults.push(refusal);
        }
    }
    evidence.at_ms = clock::wall().0;
    let fault = evidence.check(wanted).err().and_then(|_| faults.pop());
    (evidence, fault)
}

fn known(evidence: &Evidence) -> Vec<Vec<u8>> {
    evidence
        .certificates
        .iter()
        .map(|certificate| certificate.0.clone())
        .collect()
}

/// Issuers that are not there are fetched from where the certificates below them say (RFC 5280 4.2.2.1).
async fn add_issuers(wanted: &Wanted, evidence: &mut Evidence, faults: &mut Vec<Refusal>) {
    for _ in 0..ISSUERS_MAX {
        let missing = wanted
            .sources(&known(evidence))
            .into_iter()
            .filter(|asked| asked.issuer.is_none());
        let mut found = false;
        for url in missing.flat_map(|asked| asked.sources.issuers) {
            match get(&url, SMALL_BYTES_MAX).await {
                Ok(der) if x509::validity(&der).is_ok() => {
                    found |= !evidence.certificates.iter().any(|known| known.0 == der);
                    evidence.certificates.push(der.into());
                }
                Ok(_) => faults.push(Refusal::new(
                    Code::BadAnswer,
                    format!("{url}: no certificate in DER"),
                )),
                Err(refusal) => faults.push(refusal),
            }
        }
        if !found {
            return;
        }
    }
}

/// How one certificate stands: a response of the engine, of a responder, or a list, whichever comes first.
async fn add_standing(
    client: Option<&Client>,
    asked: &Asked,
    evidence: &mut Evidence,
) -> Result<(), Refusal> {
    let Some(issuer) = &asked.issuer else {
        return Ok(());
    };
    let mut last = Ok(());
    match status(client, asked, issuer).await {
        Ok(Some(response)) => {
            evidence.ocsps.push(response.into());
            return Ok(());
        }
        Ok(None) => {}
        Err(refusal) => last = Err(refusal),
    }
    for url in &asked.sources.lists {
        match get(url, LIST_BYTES_MAX).await {
            Ok(der) if Crl::parse(&der).is_ok() => {
                if !evidence.crls.iter().any(|known| known.0 == der) {
                    evidence.crls.push(der.into());
                }
                return Ok(());
            }
            Ok(_) => {
                last = Err(Refusal::new(
                    Code::BadAnswer,
                    format!("{url}: no revocation list in DER"),
                ));
            }
            Err(refusal) => last = Err(refusal),
        }
    }
    last
}

/// An OCSP response that says how a certificate stands now.
async fn status(client: Option<&Client>, asked: &Asked, issuer: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let unreadable = |error: String| Refusal::new(Code::BadAnswer, error);
    let serial = x509::serial_number(&asked.certificate).map_err(|error| unreadable(error.to_string()))?;
    let named = Named::new(issuer).map_err(|error| unreadable(error.to_string()))?;
    let id = CertId::new(&named, &serial, IdHash::Sha1);
    let request = ocsp::Request {
        ids: vec![id.clone()],
        nonce: None,
    };
    let query = request.to_der().map_err(|error| unreadable(error.to_string()))?;
    if let Some(client @ Client::Quic(_)) = client
        && let Ok(response) = client.status(&query).await
        && answers(&response, issuer, &id)
    {
        return Ok(Some(response));
    }
    let mut last = Ok(None);
    for url in &asked.sources.ocsp {
        match post(url, query.clone()).await {
            Ok(response) if answers(&response, issuer, &id) => return Ok(Some(response)),
            Ok(_) => {
                last = Err(Refusal::new(
                    Code::BadAnswer,
                    format!("{url}: no response about the certificate"),
                ));
            }
            Err(refusal) => last = Err(refusal),
        }
    }
    last
}

fn answers(response: &[u8], issuer: &[u8], id: &CertId) -> bool {
    let parsed = ocsp::Response::parse(response);
    let status = parsed.and_then(|parsed| parsed.verify(issuer, id, None, clock::wall()));
    matches!(status, Ok(ocsp::Status::Good | ocsp::Status::Revoked { .. }))
}

async fn get(url: &str, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    ask(url, None, bytes_max).await
}

async fn post(url: &str, query: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    ask(url, Some((ocsp::REQUEST_TYPE, query)), SMALL_BYTES_MAX).await
}

async fn ask(
    text: &str,
    body: Option<(&'static str, Vec<u8>)>,
    bytes_max: usize,
) -> Result<Vec<u8>, Refusal> {
    let url = fetch::address(text)?;
    let question = fetch::Question {
        whom: text,
        url: &url,
        body,
        bytes_max,
    };
    match question.ask().await? {
        (StatusCode::OK, body) => Ok(body.to_vec()),
        (status, _) => Err(Refusal::new(Code::Connection, format!("{text}: status {status}"))),
    }
}
