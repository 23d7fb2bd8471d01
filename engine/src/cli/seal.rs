//! `cinnabar seal`: prepares and assembles here, and sends only a digest to be signed.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use documents::cms::Chain;
use documents::pdf::{
    self, Keyword, Paging, Permission, Placement, PrepareError, PreparedPdf, Request, Seal, SealImage, Size,
    Unit,
};
use protocol::algorithm::{Algorithm, Format};
use protocol::client::{Client, Profile, SignRequest};
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::message::CredentialInfo;

use super::sign::{find, fresh_key, public_key, sign_one};
use super::{content, read_file};
use crate::args::{Level, SealArguments};

pub(super) async fn run(arguments: SealArguments) -> Result<(), Refusal> {
    let pdf = read_file(&arguments.pdf)?;
    let image = arguments.image.as_deref().map(read_image).transpose()?;
    let profile = Profile::read(&arguments.profile)?;
    let client = Client::connect(&profile, arguments.transport.into(), 1).await?;
    let result = seal(&client, &arguments, &pdf, image.as_ref()).await;
    client.close().await;
    write(&arguments.out, &pdf, &result?)
}

fn read_image(path: &Path) -> Result<SealImage, Refusal> {
    SealImage::from_png(&read_file(path)?)
        .map_err(|error| Refusal::new(Code::ImageUnusable, format!("{}: {error}", path.display())))
}

/// What to append to the file.
async fn seal(
    client: &Client,
    arguments: &SealArguments,
    pdf: &[u8],
    image: Option<&SealImage>,
) -> Result<Vec<u8>, Refusal> {
    let info = find(client, &arguments.credential).await?;
    let algorithm = content::pick(&public_key(&info)?, arguments.algorithm)?;
    let prepared = prepare(arguments, pdf, image, &info, algorithm)?;
    let request = SignRequest {
        credential: arguments.credential.clone(),
        algorithm,
        format: Format::Raw,
        key: match &arguments.idempotency_key {
            Some(key) => key.clone(),
            None => fresh_key()?,
        },
        inputs: vec![prepared.to_sign().to_vec()],
        user_id: None,
        deadline_ms: None,
    };
    let signature = sign_one(client, &request).await?;
    match arguments.level {
        Level::BB => prepared.assemble(&signature),
    }
    .map_err(|error| Refusal::new(Code::BadAnswer, error.to_string()))
}

fn prepare(
    arguments: &SealArguments,
    pdf: &[u8],
    image: Option<&SealImage>,
    info: &CredentialInfo,
    algorithm: Algorithm,
) -> Result<PreparedPdf, Refusal> {
    let chain = Chain::new(&info.chain)
        .map_err(|error| Refusal::new(Code::BadAnswer, format!("the credential's certificates: {error}")))?;
    let now = arguments
        .signing_time
        .map_or_else(clock::wall, |seconds| UnixMillis(seconds.saturating_mul(1000)));
    let placement = placement(arguments);
    let request = Request {
        field: arguments.field.as_deref(),
        seal: image.map(|image| Seal {
            image,
            placement: &placement,
        }),
        certify: arguments
            .certify
            .and_then(|number| Permission::from_number(number.into())),
        reason: arguments.reason.as_deref(),
        location: arguments.location.as_deref(),
        time_stamp_bytes: 0,
    };
    pdf::prepare(pdf, &request, algorithm, &Arc::new(chain), now).map_err(|error| refusal(&error))
}

fn placement(arguments: &SealArguments) -> Placement {
    let size = Size {
        width: arguments.width,
        height: None,
    };
    let unit = Unit::Millimetre;
    match (arguments.at, &arguments.keyword) {
        (Some(at), _) => Placement::At(at.page, at.position),
        (None, Some(word)) => Placement::On(Keyword {
            text: word.clone(),
            which: arguments.which,
            size,
            unit,
            ..Keyword::default()
        }),
        (None, None) if arguments.paging => Placement::Paging(Paging {
            size,
            unit,
            ..Paging::default()
        }),
        (None, None) => Placement::InField,
    }
}

pub(super) fn refusal(error: &PrepareError) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}

/// Writes the file beside its place and moves it there, so that nobody finds half of it, also where it takes the place
/// of the original.
pub(super) fn write(path: &Path, pdf: &[u8], update: &[u8]) -> Result<(), Refusal> {
    let failed = |error: std::io::Error| Refusal::new(Code::File, format!("{}: {error}", path.display()));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let beside = path.with_file_name(name);
    let written = std::fs::File::create(&beside).and_then(|mut file| {
        file.write_all(pdf)?;
        file.write_all(update)
    });
    let moved = written.and_then(|()| std::fs::rename(&beside, path));
    moved.map_err(|error| {
        // What is left of it helps nobody.
        let _ = std::fs::remove_file(&beside);
        failed(error)
    })
}
