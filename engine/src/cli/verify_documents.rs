//! `cinnabar verify --pdf` and `--ofd`: every signature of a document, a line each or all that was found as JSON.

use documents::ofd;
use documents::pdf::{self, Verdict};
use documents::sealing::{Evidence, Octets, Wanted};
use documents::ses::Policy;
use documents::trust::{Known, RevocationRule};
use protocol::client::{Client, Profile, Transport};
use protocol::clock;
use protocol::error_code::{Code, Refusal};

use super::{evidence, print_json, print_line, read_file, verify};
use crate::args::documents::VerifyArguments;

pub(super) async fn run(arguments: &VerifyArguments) -> Result<(), Refusal> {
    let mut known = Known {
        anchors: verify::anchors(arguments)?,
        intermediates: Vec::new(),
        crls: files(&arguments.revocation.crl)?,
        ocsps: files(&arguments.revocation.ocsp)?,
        revocation: arguments.revocation.revocation.into(),
    };
    match (&arguments.what.pdf, &arguments.what.ofd) {
        (Some(path), _) => {
            let pdf = read_file(path)?;
            if arguments.revocation.fetch {
                let signers = pdf::signers(&pdf).map_err(unreadable)?;
                fetch(arguments, &mut known, signers).await?;
            }
            let report = pdf::verify_with(&pdf, &known, clock::wall()).map_err(unreadable)?;
            print_pdf(&report, arguments.json)
        }
        (None, Some(path)) => {
            let ofd = read_file(path)?;
            if arguments.revocation.fetch {
                let signers = ofd::signers(&ofd).map_err(unreadable)?;
                fetch(arguments, &mut known, signers).await?;
            }
            let now = clock::wall();
            let judged = ofd::verify(&ofd, &known.judge(now), Policy::default(), now).map_err(unreadable)?;
            print_ofd(&judged, arguments.json)
        }
        (None, None) => Err(Refusal::new(Code::Usage, "give --pdf or --ofd")),
    }
}

fn unreadable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::DocumentUnreadable, error.to_string())
}

fn files(paths: &[std::path::PathBuf]) -> Result<Vec<Vec<u8>>, Refusal> {
    paths.iter().map(|path| read_file(path)).collect()
}

/// Asks how signers stand, the profile's engine first, then where their certificates say; only those who lead to a CA that
/// is believed have a say in where we go. What cannot be had stays unknown.
async fn fetch(
    arguments: &VerifyArguments,
    known: &mut Known,
    signers: Vec<Vec<Vec<u8>>>,
) -> Result<(), Refusal> {
    if known.revocation == RevocationRule::Ignore {
        return Err(Refusal::new(
            Code::Usage,
            "--fetch contradicts --revocation ignore",
        ));
    }
    let now = clock::wall();
    let judge = known.judge(now);
    let believed = signers.into_iter().filter(|chain| judge.believes(chain));
    let wanted = Wanted {
        chains: believed
            .map(|chain| chain.into_iter().map(Octets).collect())
            .collect(),
    };
    let given = Evidence {
        certificates: known.anchors.iter().cloned().map(Octets).collect(),
        ..Evidence::default()
    };
    let client = match &arguments.profile {
        Some(profile) => Some(Client::connect(&Profile::read(profile)?, Transport::Quic, 1).await?),
        None => None,
    };
    let (found, _) = evidence::gather(client.as_ref(), &wanted, given).await;
    if let Some(client) = client {
        client.close().await;
    }
    known.crls.extend(found.crls.into_iter().map(|list| list.0));
    known
        .ocsps
        .extend(found.ocsps.into_iter().map(|response| response.0));
    Ok(())
}

/// Anything but valid is an error at the end.
fn print_pdf(report: &pdf::Report, json: bool) -> Result<(), Refusal> {
    if json {
        print_json(report)?;
    } else {
        for signature in &report.signatures {
            print_pdf_signature(signature)?;
        }
    }
    match report.verdict {
        Some(Verdict::Valid) => Ok(()),
        Some(Verdict::Indeterminate) => Err(not_valid("a signature cannot be judged", report)),
        Some(Verdict::Invalid) => Err(not_valid("a signature is not valid", report)),
        None => Err(Refusal::new(Code::SignatureInvalid, "the PDF has no signature")),
    }
}

fn not_valid(what: &str, report: &pdf::Report) -> Refusal {
    let worst = report.signatures.iter().max_by_key(|signature| signature.verdict);
    let reason = worst.and_then(|signature| {
        let finding = signature.findings.iter().max_by_key(|finding| finding.verdict)?;
        Some(format!("{what}: {}: {}", signature.field, finding.text))
    });
    Refusal::new(Code::SignatureInvalid, reason.unwrap_or_else(|| what.to_owned()))
}

fn print_pdf_signature(signature: &pdf::SignatureReport) -> Result<(), Refusal> {
    let verdict = match signature.verdict {
        Verdict::Valid => "valid",
        Verdict::Indeterminate => "indeterminate",
        Verdict::Invalid => "invalid",
    };
    let signer = signature.signer.as_deref().unwrap_or("an unknown signer");
    print_line(&format!("{verdict}: {} by {signer}", signature.field))?;
    for finding in &signature.findings {
        print_line(&format!("\t{}: {}", finding.code, finding.text))?;
    }
    for change in signature.later_changes.iter().filter(|change| change.permitted) {
        print_line(&format!("\tlater, as permitted: {}", change.what))?;
    }
    Ok(())
}

fn print_ofd(judged: &ofd::Verdict, json: bool) -> Result<(), Refusal> {
    if json {
        print_json(judged)?;
    } else {
        for signature in &judged.signatures {
            print_ofd_signature(signature)?;
        }
    }
    let fault = judged.signatures.iter().find_map(|signature| {
        let mut faults = signature.findings.iter();
        let fault = faults.find(|finding| finding.standing == ofd::Standing::Invalid)?;
        Some(format!(
            "a signature is not valid: {}: {}",
            signature.id, fault.text
        ))
    });
    match (judged.standing, fault) {
        (Some(ofd::Standing::Valid), _) => Ok(()),
        (None, _) => Err(Refusal::new(Code::SignatureInvalid, "the OFD has no signature")),
        (Some(ofd::Standing::Invalid), fault) => {
            let text = fault.unwrap_or_else(|| "a signature is not valid".to_owned());
            Err(Refusal::new(Code::SignatureInvalid, text))
        }
    }
}

fn print_ofd_signature(signature: &ofd::SignatureVerdict) -> Result<(), Refusal> {
    let standing = match signature.standing {
        ofd::Standing::Valid => "valid",
        ofd::Standing::Invalid => "invalid",
    };
    let signer = signature.signer.as_deref().unwrap_or("an unknown signer");
    print_line(&format!("{standing}: {} by {signer}", signature.id))?;
    for finding in &signature.findings {
        print_line(&format!("\t{}: {}", finding.code, finding.text))?;
    }
    Ok(())
}
