//! `cinnabar seal`: prepares and assembles here, and sends only digests to be signed and stamped.

use std::io::Write;
use std::path::Path;

use documents::sealing::{Sealing, SealingError};
use protocol::client::{Client, Profile};
use protocol::error_code::{Code, Refusal};

use super::answers::Answerer;
use super::evidence;
use super::order::order;
use super::sign::fresh_key;
use crate::args::documents::SealArguments;

pub(super) async fn run(arguments: SealArguments) -> Result<(), Refusal> {
    let document = arguments.wanted.document.read()?;
    let transport = arguments.evidence.transport.into();
    let client = Client::connect(&Profile::read(&arguments.wanted.profile)?, transport, 1).await?;
    let result = seal(&client, &arguments, document).await;
    client.close().await;
    write(&arguments.out, &[&result?])
}

/// The sealed document.
async fn seal(client: &Client, arguments: &SealArguments, document: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let given = evidence::given(&arguments.evidence, &arguments.wanted.profile)?;
    let (order, signatories) = order(client, &arguments.wanted).await?;
    let key = match &arguments.wanted.idempotency_key {
        Some(key) => key.clone(),
        None => fresh_key()?,
    };
    let answerer = Answerer {
        client,
        profile: &arguments.wanted.profile,
        signatories: &signatories,
        key: &key,
        options: &arguments.evidence,
        given,
    };
    let mut sealing = Sealing::start(document, order).map_err(|error| refusal(&error))?;
    while let Some(answer) = answerer.answer(&sealing.step()).await? {
        sealing = sealing.answer(&answer).map_err(|error| refusal(&error))?;
    }
    sealing.finish().map_err(|error| refusal(&error))
}

fn refusal(error: &SealingError) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}

/// Writes a file, in parts, beside its place and moves it there, so that nobody finds half of it, also where it takes the
/// place of the original.
pub(super) fn write(path: &Path, parts: &[&[u8]]) -> Result<(), Refusal> {
    let failed = |error: std::io::Error| Refusal::new(Code::File, format!("{}: {error}", path.display()));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let beside = path.with_file_name(name);
    let written = std::fs::File::create(&beside)
        .and_then(|mut file| parts.iter().try_for_each(|part| file.write_all(part)));
    let moved = written.and_then(|()| std::fs::rename(&beside, path));
    moved.map_err(|error| {
        // What is left of it helps nobody.
        let _ = std::fs::remove_file(&beside);
        failed(error)
    })
}
