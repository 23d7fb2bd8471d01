//! `cinnabar seal`: prepares and assembles here, and sends only a digest to be signed.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use documents::cms::Chain;
use documents::pdf::{
    self, Keyword, Paging, Permission, Placement, Position, PrepareError, PreparedPdf, Request, Seal,
    SealImage, Size, Unit,
};
use protocol::algorithm::{Algorithm, Format};
use protocol::client::{Client, Profile, SignRequest};
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::seal::DocumentKind;

use super::seal_source::Source;
use super::sign::{fresh_key, public_key};
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
    let source = source(client, arguments).await?;
    let brought = source.picture()?;
    let image = image.or(brought.as_ref());
    let algorithm = content::pick(&public_key(&source.info)?, arguments.algorithm)?;
    let prepared = prepare(arguments, pdf, image, &source, algorithm)?;
    let request = SignRequest {
        credential: source.info.id.clone(),
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
    let signature = source.sign(client, &request).await?;
    match arguments.level {
        Level::BB => prepared.assemble(&signature),
    }
    .map_err(|error| Refusal::new(Code::BadAnswer, error.to_string()))
}

async fn source(client: &Client, arguments: &SealArguments) -> Result<Source, Refusal> {
    let agent = arguments.agent.as_deref();
    match (&arguments.seal, &arguments.credential) {
        (Some(seal), _) => Source::seal(client, seal, DocumentKind::Pdf, agent).await,
        (None, Some(credential)) => Source::credential(client, credential).await,
        (None, None) => Err(Refusal::new(Code::Usage, "give --credential or --seal")),
    }
}

fn prepare(
    arguments: &SealArguments,
    pdf: &[u8],
    image: Option<&SealImage>,
    source: &Source,
    algorithm: Algorithm,
) -> Result<PreparedPdf, Refusal> {
    let chain = Chain::new(&source.info.chain)
        .map_err(|error| Refusal::new(Code::BadAnswer, format!("the credential's certificates: {error}")))?;
    let now = arguments
        .signing_time
        .map_or_else(clock::wall, |seconds| UnixMillis(seconds.saturating_mul(1000)));
    let placement = placement(arguments, source.width_mm());
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

fn placement(arguments: &SealArguments, width_mm: Option<f64>) -> Placement {
    let size = Size {
        width: arguments.width.or(width_mm),
        height: None,
    };
    let unit = Unit::Millimetre;
    match (arguments.at, &arguments.keyword) {
        (Some(at), _) => Placement::At(at.page, sized(at.position, width_mm)),
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

/// A seal is as large as it was made, where the place does not say otherwise; fractions of a page have to.
fn sized(mut position: Position, width_mm: Option<f64>) -> Position {
    let width = match position.unit {
        Unit::Point => width_mm.map(|width| width * 72.0 / 25.4),
        Unit::Millimetre => width_mm,
        Unit::Fraction => None,
    };
    if position.size == Size::default() {
        position.size.width = width;
    }
    position
}

pub(super) fn refusal(error: &PrepareError) -> Refusal {
    use documents::cms::PrepareError as Signer;
    let code = match error {
        PrepareError::Unreadable(_) => Code::DocumentUnreadable,
        PrepareError::Signer(Signer::UnsupportedAlgorithm(_)) => Code::UnsupportedFormat,
        PrepareError::Signer(Signer::Key(_)) => Code::UnsupportedAlgorithm,
        PrepareError::Signer(Signer::NotValidThen) => Code::CredentialDisabled,
        PrepareError::Signer(_) => Code::Internal,
        PrepareError::Certified
        | PrepareError::Encrypted
        | PrepareError::NewFieldAfterCertification
        | PrepareError::NotFirst
        | PrepareError::Locked { .. }
        | PrepareError::AlreadySigned(_)
        | PrepareError::NotASignatureField(_)
        | PrepareError::SeveralPlaces
        | PrepareError::NoWord(_)
        | PrepareError::FewerWords { .. }
        | PrepareError::OnePage
        | PrepareError::NotSigned(_)
        | PrepareError::SeveralWidgets(_) => Code::DocumentRefused,
        PrepareError::FieldName(_)
        | PrepareError::NoPlace(_)
        | PrepareError::HasPlace(_)
        | PrepareError::NoPage(_)
        | PrepareError::OffPage(_) => Code::Usage,
    };
    Refusal::new(code, error.to_string())
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
