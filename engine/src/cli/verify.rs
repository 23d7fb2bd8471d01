//! `cinnabar verify`: checks a signature here, with the public key from the engine or from a file.

use std::path::Path;

use documents::pdf::{self, Verdict};
use protocol::algorithm::{Algorithm, Format};
use protocol::client::{Client, Profile};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::verify::{PublicKey, pair_to_der};

use super::{content, print_json, print_line, read_file, sign};
use crate::args::{Content, VerifyArguments};

pub(super) async fn run(arguments: VerifyArguments) -> Result<(), Refusal> {
    if let Some(pdf) = &arguments.what.pdf {
        return verify_pdf(&arguments, pdf);
    }
    let Some(signature) = &arguments.signature else {
        return Err(Refusal::new(Code::Usage, "give --signature"));
    };
    let signature = read_file(signature)?;
    let content = arguments.what.content();
    if arguments.format == Format::Cms {
        return verify_cms(&arguments, &content, &signature);
    }
    let key = signer(&arguments).await?;
    let algorithm = content::pick(&key, arguments.algorithm)?;
    let input = content::read(&content, algorithm, &key, arguments.user_id.as_deref())?;
    let der = to_der(input.algorithm, arguments.format, signature)?;
    key.verify(input.algorithm, &input.bytes, &der)
        .map_err(|error| Refusal::new(Code::SignatureInvalid, error.to_string()))?;
    print_line(&format!("valid: {} by a {} key", input.algorithm, key.kind()))
}

/// Every signature of a PDF; a line each, or all that was found as JSON. Anything but valid is an error at the end.
fn verify_pdf(arguments: &VerifyArguments, path: &Path) -> Result<(), Refusal> {
    let anchors = anchors(arguments)?;
    let report = pdf::verify(&read_file(path)?, &anchors, clock::wall())
        .map_err(|error| Refusal::new(Code::DocumentUnreadable, error.to_string()))?;
    if arguments.json {
        print_json(&report)?;
    } else {
        for signature in &report.signatures {
            print_signature(signature)?;
        }
    }
    match report.verdict {
        Some(Verdict::Valid) => Ok(()),
        Some(Verdict::Indeterminate) => Err(not_valid("a signature cannot be judged", &report)),
        Some(Verdict::Invalid) => Err(not_valid("a signature is not valid", &report)),
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

fn print_signature(signature: &pdf::SignatureReport) -> Result<(), Refusal> {
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

/// The CAs to trust.
fn anchors(arguments: &VerifyArguments) -> Result<Vec<Vec<u8>>, Refusal> {
    let Some(ca) = &arguments.ca else {
        return Err(Refusal::new(
            Code::Usage,
            "the signer comes with the signature; --ca says which CAs to trust",
        ));
    };
    read_anchors(ca)
}

/// CA certificates out of a PEM file.
pub(crate) fn read_anchors(ca: &Path) -> Result<Vec<Vec<u8>>, Refusal> {
    let blocks = pem::parse_many(read_file(ca)?)
        .map_err(|error| Refusal::new(Code::Usage, format!("{}: {error}", ca.display())))?;
    Ok(blocks.into_iter().map(pem::Pem::into_contents).collect())
}

fn to_der(algorithm: Algorithm, format: Format, signature: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    if format != Format::Pair {
        return Ok(signature);
    }
    if !algorithm.is_pair() || signature.len() != 2 * algorithm.pair_half_bytes() {
        return Err(Refusal::new(
            Code::SignatureInvalid,
            format!("not a pair as {algorithm} makes it"),
        ));
    }
    let der = pair_to_der(&signature).ok_or_else(|| Refusal::new(Code::SignatureInvalid, "not a pair"))?;
    Ok(der.to_vec())
}

async fn signer(arguments: &VerifyArguments) -> Result<PublicKey, Refusal> {
    if let Some(path) = &arguments.signer {
        return from_file(path);
    }
    let (Some(profile), Some(credential)) = (&arguments.profile, &arguments.credential) else {
        return Err(Refusal::new(
            Code::Usage,
            "give --signer, or --profile and --credential",
        ));
    };
    let client = Client::connect(&Profile::read(profile)?, arguments.transport.into(), 1).await?;
    let info = sign::find(&client, credential).await;
    client.close().await;
    sign::public_key(&info?)
}

/// A public key or a certificate, PEM.
pub(super) fn from_file(path: &Path) -> Result<PublicKey, Refusal> {
    let refuse = |text: String| Refusal::new(Code::Usage, format!("{}: {text}", path.display()));
    let block = pem::parse(read_file(path)?).map_err(|error| refuse(error.to_string()))?;
    let der = match block.tag() {
        "PUBLIC KEY" => block.into_contents(),
        "CERTIFICATE" => documents::x509::subject_public_key(block.contents())
            .map_err(|error| refuse(error.to_string()))?,
        other => {
            return Err(refuse(format!(
                "a public key or certificate is needed, not '{other}'"
            )));
        }
    };
    PublicKey::from_spki(&der).map_err(|error| refuse(error.to_string()))
}

fn verify_cms(arguments: &VerifyArguments, content: &Content, signature: &[u8]) -> Result<(), Refusal> {
    let anchors = anchors(arguments)?;
    // A digest that cannot be had is an empty one, which no signature covers; the reason is told by the first call.
    content::digest_by(content, protocol::algorithm::Hash::Sha256)?;
    let digest = |hash| content::digest_by(content, hash).unwrap_or_default().into();
    let verified = documents::cms::verify_detached(signature, &digest, &anchors)
        .map_err(|error| Refusal::new(Code::SignatureInvalid, error.to_string()))?;
    print_line(&format!("valid: {} by {}", verified.algorithm, verified.signer))
}
