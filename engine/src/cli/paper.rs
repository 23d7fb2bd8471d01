//! Statements and reports as PDF files: made here, and signed by a credential of the operator's own choice, as any client
//! signs. The signature certifies the file: nothing may be changed in it.

use std::path::Path;
use std::sync::Arc;

use actors::{bill, printed};
use documents::cms::Chain;
use documents::paper::{Paper, PaperFont, make};
use documents::pdf::{self, Permission, Request};
use protocol::algorithm::Format;
use protocol::client::{Client, Profile, SignRequest, Transport};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use sla::html::Language;
use sla::report::Report;

use super::ledger::{Books, failed, language, month};
use super::sign::{find, fresh_key, public_key, sign_one};
use super::{block_on, content, print_line, read_file, seal};
use crate::args::{PaperArguments, StatementArguments};
use crate::config::Config;

/// `cinnabar statement --pdf`.
pub(super) fn statement(config: &Config, arguments: &StatementArguments) -> Result<(), Refusal> {
    let books = Books::open(config)?;
    let tenant = books.tenant(&arguments.tenant)?;
    let (month, now) = (month(&arguments.month)?, clock::wall());
    let made = bill::statement(&books.reader, &books.directory, &tenant, month, now).map_err(failed)?;
    let paper = printed::statement(&made, language(arguments.english), now);
    write(config, &paper, &arguments.paper)
}

/// `cinnabar sla report --pdf`.
pub(super) fn agreement(
    config: &Config,
    report: &Report,
    language: Language,
    arguments: &PaperArguments,
) -> Result<(), Refusal> {
    let paper = printed::agreement(report, language);
    let paper = paper.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    write(config, &paper, arguments)
}

fn write(config: &Config, paper: &Paper, arguments: &PaperArguments) -> Result<(), Refusal> {
    let (Some(out), Some(profile), Some(credential)) =
        (&arguments.pdf, &arguments.profile, &arguments.credential)
    else {
        return Err(Refusal::new(
            Code::Usage,
            "--pdf needs --profile and --credential",
        ));
    };
    let font = font(config)?;
    let refuse = |error: documents::paper::PaperError| Refusal::new(Code::Usage, error.to_string());
    let file = make(paper, &font).map_err(refuse)?;
    let update = block_on_signature(profile, credential, &file)?;
    seal::write(out, &[&file, &update])?;
    print_line(&format!("wrote {}", out.display()))
}

fn font(config: &Config) -> Result<PaperFont, Refusal> {
    let Some(path) = &config.report_font else {
        let text = "configuration: report_font names no font; a PDF needs one with TrueType outlines and the \
                    characters of its language, such as gbsn00lp.ttf of Debian's fonts-arphic-gbsn00lp";
        return Err(Refusal::new(Code::Usage, text));
    };
    let usable = PaperFont::new(read_file(path)?);
    usable.map_err(|error| Refusal::new(Code::Usage, format!("report_font {}: {error}", path.display())))
}

/// What to append to the file: the certifying signature.
fn block_on_signature(profile: &Path, credential: &str, file: &[u8]) -> Result<Vec<u8>, Refusal> {
    let profile = Profile::read(profile)?;
    let mut update = Vec::new();
    block_on(async {
        let client = Client::connect(&profile, Transport::Quic, 1).await?;
        let result = sign(&client, credential, file).await;
        client.close().await;
        update = result?;
        Ok(())
    })?;
    Ok(update)
}

async fn sign(client: &Client, credential: &str, file: &[u8]) -> Result<Vec<u8>, Refusal> {
    let info = find(client, credential).await?;
    let algorithm = content::pick(&public_key(&info)?, None)?;
    let chain = Chain::new(&info.chain)
        .map_err(|error| Refusal::new(Code::BadAnswer, format!("the credential's certificates: {error}")))?;
    let request = Request {
        field: None,
        seal: None,
        certify: Permission::from_number(1),
        reason: None,
        location: None,
        time_stamp_bytes: 0,
    };
    let prepared = pdf::prepare(file, &request, algorithm, &Arc::new(chain), clock::wall())
        .map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    let request = SignRequest {
        credential: credential.to_owned(),
        algorithm,
        format: Format::Raw,
        key: fresh_key()?,
        inputs: vec![prepared.to_sign().to_vec()],
        user_id: None,
        deadline_ms: None,
    };
    let signature = sign_one(client, &request).await?;
    let assembled = prepared.assemble(&signature);
    assembled.map_err(|error| Refusal::new(Code::BadAnswer, error.to_string()))
}
