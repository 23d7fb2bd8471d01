//! `cinnabar verify`: checks a signature here, with the public key from the engine or from a file.

use std::path::Path;

use protocol::algorithm::{Algorithm, Format};
use protocol::client::{Client, Profile};
use protocol::error_code::{Code, Refusal};
use protocol::verify::{PublicKey, pair_to_der};

use super::{content, print_line, read_file, sign, verify_documents};
use crate::args::Content;
use crate::args::documents::VerifyArguments;

pub(super) async fn run(arguments: VerifyArguments) -> Result<(), Refusal> {
    if arguments.what.pdf.is_some() || arguments.what.ofd.is_some() {
        return verify_documents::run(&arguments).await;
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

/// The CAs to trust.
pub(super) fn anchors(arguments: &VerifyArguments) -> Result<Vec<Vec<u8>>, Refusal> {
    if let Some(ca) = &arguments.ca {
        return read_anchors(ca);
    }
    let profile = arguments.profile.as_deref().map(Profile::read).transpose()?;
    match profile.filter(|profile| profile.document_ca.is_some()) {
        Some(profile) => profile_anchors(&profile),
        None => Err(Refusal::new(
            Code::Usage,
            "the signer comes with the signature; --ca, or document_ca in the profile, says which CAs to trust",
        )),
    }
}

/// The CAs that a profile believes in documents.
pub(super) fn profile_anchors(profile: &Profile) -> Result<Vec<Vec<u8>>, Refusal> {
    let text = profile.document_ca.as_deref().unwrap_or_default();
    certificates(text.as_bytes())
        .map_err(|error| Refusal::new(Code::Usage, format!("document_ca of the profile: {error}")))
}

fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, pem::PemError> {
    Ok(pem::parse_many(text)?
        .into_iter()
        .map(pem::Pem::into_contents)
        .collect())
}

/// CA certificates out of a PEM file.
pub(crate) fn read_anchors(ca: &Path) -> Result<Vec<Vec<u8>>, Refusal> {
    certificates(&read_file(ca)?)
        .map_err(|error| Refusal::new(Code::Usage, format!("{}: {error}", ca.display())))
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
