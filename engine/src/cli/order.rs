//! From the options of `seal` and `prepare` to an order.

use std::path::Path;

use documents::ofd::Coverage;
use documents::pdf::{Keyword, Paging, Permission, Placement, Position, Size, Unit};
use documents::seal_image;
use documents::sealing::{Appearance, Form, Octets, Order, Signer};
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::client::Client;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::seal::DocumentKind;

use super::seal_source::{Signatory, Source};
use super::sign::public_key;
use super::{content, read_file};
use crate::args::documents::{DocumentFile, SealOptions};

/// What is appended at most to a file of usual size: room for it is kept, so that a large file is not moved in memory.
const ROOM_BYTES: usize = 1 << 20;

impl DocumentFile {
    pub(super) fn form(&self) -> (Form, &Path) {
        match (&self.pdf, &self.ofd) {
            (Some(path), _) => (Form::Pdf, path),
            (None, Some(path)) => (Form::Ofd, path),
            (None, None) => unreachable!("the group is required"),
        }
    }

    /// The document, with room behind it.
    pub(super) fn read(&self) -> Result<Vec<u8>, Refusal> {
        let (_, path) = self.form();
        let failed = |error: std::io::Error| Refusal::new(Code::File, format!("{}: {error}", path.display()));
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let room = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .saturating_add(ROOM_BYTES);
        let mut document = Vec::new();
        document.try_reserve_exact(room).map_err(|_| {
            Refusal::new(
                Code::File,
                format!("{}: too large for this machine's memory", path.display()),
            )
        })?;
        std::io::Read::read_to_end(&mut file, &mut document).map_err(failed)?;
        Ok(document)
    }
}

/// The order, with the certificates of the credentials, and who signs.
pub(super) async fn order(
    client: &Client,
    options: &SealOptions,
) -> Result<(Order, Vec<Signatory>), Refusal> {
    let (form, _) = options.document.form();
    let on = match form {
        Form::Pdf => DocumentKind::Pdf,
        Form::Ofd => DocumentKind::Ofd,
    };
    let sources = Source::all(client, options, on).await?;
    let mut signers = Vec::new();
    for source in &sources {
        signers.push(signer(source, options, signers.is_empty())?);
    }
    if options.esl.is_some() && signers.iter().all(|signer| signer.seal.is_none()) {
        return Err(Refusal::new(
            Code::Usage,
            "--esl is for a credential with an SM2 key",
        ));
    }
    let first = signers.remove(0);
    let at = options
        .signing_time
        .map_or_else(clock::wall, |seconds| UnixMillis(seconds.saturating_mul(1000)));
    let mut order = Order::new(form, first, at);
    order.signers.extend(signers);
    order.level = options.level.into();
    order.appearance = appearance(options, sources.first())?;
    order.field.clone_from(&options.field);
    order.certify = options
        .certify
        .and_then(|number| Permission::from_number(number.into()));
    order.reason.clone_from(&options.reason);
    order.location.clone_from(&options.location);
    order.token_bytes = options.token_bytes;
    order.document = options.document_number;
    if options.last {
        order.coverage = Coverage::Whole;
    }
    Ok((order, sources.iter().map(Source::signatory).collect()))
}

fn signer(source: &Source, options: &SealOptions, is_first: bool) -> Result<Signer, Refusal> {
    let info = &source.info;
    let is_sm2 = info.kind == KeyKind::Sm2;
    let asked = options.algorithm.filter(|_| is_first);
    let algorithm = match asked {
        // In documents SM2 signs e, whatever comes first among its algorithms.
        None if is_sm2 => Algorithm::Sm2Sm3E,
        asked => content::pick(&public_key(info)?, asked)?,
    };
    let given = options.esl.as_deref().filter(|_| is_sm2).map(read_file);
    let seal = given.transpose()?.or_else(|| source.electronic());
    Ok(Signer {
        algorithm,
        chain: info.chain.iter().cloned().map(Octets).collect(),
        seal: seal.map(Octets),
    })
}

/// Nothing is seen without picture and place. A seal brings its picture.
fn appearance(options: &SealOptions, source: Option<&Source>) -> Result<Option<Appearance>, Refusal> {
    let has_place = options.at.is_some() || options.keyword.is_some() || options.paging;
    let brought = match (&options.image, source) {
        (None, Some(source)) => source.picture()?,
        _ => None,
    };
    if !has_place && options.image.is_none() && (brought.is_none() || options.field.is_none()) {
        return Ok(None);
    }
    let picture = options.image.as_deref().map(read_image).transpose()?.or(brought);
    Ok(Some(Appearance {
        picture: picture.map(Octets),
        placement: placement(options, source.and_then(Source::width_mm)),
    }))
}

/// A PNG as it is; a JPEG written anew as PNG.
fn read_image(path: &Path) -> Result<Vec<u8>, Refusal> {
    const JPEG: &[u8] = &[0xff, 0xd8];
    let file = read_file(path)?;
    if !file.starts_with(JPEG) {
        return Ok(file);
    }
    let accepted = seal_image::accept(&file, false);
    let refuse = |error| Refusal::new(Code::ImageUnusable, format!("{}: {error}", path.display()));
    accepted.map(|accepted| accepted.png).map_err(refuse)
}

fn placement(options: &SealOptions, width_mm: Option<f64>) -> Placement {
    let size = Size {
        width: options.width.or(width_mm),
        height: None,
    };
    let unit = Unit::Millimetre;
    match (options.at, &options.keyword) {
        (Some(at), _) => Placement::At(at.page, sized(at.position, width_mm)),
        (None, Some(word)) => Placement::On(Keyword {
            text: word.clone(),
            which: options.which,
            size,
            unit,
            ..Keyword::default()
        }),
        (None, None) if options.paging => Placement::Paging(Paging {
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
