//! `cinnabar prepare`, `sign --state` and `assemble`: a sealing in three steps, of which only the first and the last see
//! the document, and only the second the engine.

use std::path::Path;

use documents::sealing::{Form, Paused, PausedError, Step};
use protocol::client::{Client, Profile};
use protocol::error_code::{Code, Refusal};
use protocol::ids::IdempotencyKey;
use serde::{Deserialize, Serialize};

use super::answers::Answerer;
use super::order::order;
use super::seal_source::Signatory;
use super::sign::fresh_key;
use super::{evidence, print_line, read_file, seal};
use crate::args::SignArguments;
use crate::args::documents::{AssembleArguments, PrepareArguments};

/// What lies between the steps.
#[derive(Serialize, Deserialize)]
struct State {
    /// Who signs, in order.
    signatories: Vec<Signatory>,
    /// Names the calls for good, so that a step can be taken again.
    idempotency_key: String,
    sealing: Paused,
}

impl State {
    fn read(path: &Path) -> Result<Self, Refusal> {
        let refuse = |error: serde_json::Error| {
            let text = format!("{}: not what `prepare` writes: {error}", path.display());
            Refusal::new(Code::Usage, text)
        };
        serde_json::from_slice(&read_file(path)?).map_err(refuse)
    }

    fn write(&self, path: &Path) -> Result<(), Refusal> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Refusal::new(Code::Internal, format!("JSON: {error}")))?;
        seal::write(path, &[&text])
    }
}

fn refusal(error: &PausedError) -> Refusal {
    let code = match error {
        PausedError::Unreadable(_) | PausedError::OtherDocument => Code::Usage,
        PausedError::Sealing(error) => error.code(),
    };
    Refusal::new(code, error.to_string())
}

pub(super) async fn prepare(arguments: PrepareArguments) -> Result<(), Refusal> {
    let document = arguments.wanted.document.read()?;
    let client = Client::connect(
        &Profile::read(&arguments.wanted.profile)?,
        arguments.transport.into(),
        1,
    )
    .await?;
    let order = order(&client, &arguments.wanted).await;
    client.close().await;
    let (order, signatories) = order?;
    let (sealing, _) = Paused::start(document, &order).map_err(|error| refusal(&error))?;
    let key = match &arguments.wanted.idempotency_key {
        Some(key) => key.clone(),
        None => fresh_key()?,
    };
    let state = State {
        signatories,
        idempotency_key: key.to_string(),
        sealing,
    };
    state.write(&arguments.state)?;
    print_line(&format!("next: {}", what(state.sealing.step())))
}

const fn what(step: &Step) -> &'static str {
    match step {
        Step::Sign { .. } => "sign --state (a signature)",
        Step::Stamp { .. } => "sign --state (a time stamp)",
        Step::Evidence(_) => "sign --state (how the certificates stand)",
        Step::Done => "assemble",
    }
}

/// Answers what the state asks for; one that has its answer already stays as it is.
pub(super) async fn answer(arguments: &SignArguments, path: &Path) -> Result<(), Refusal> {
    let mut state = State::read(path)?;
    let key = IdempotencyKey::new(&state.idempotency_key)
        .map_err(|error| Refusal::new(Code::IdempotencyKeyInvalid, error.to_string()))?;
    let transport = arguments.evidence.transport.into();
    let client = Client::connect(&Profile::read(&arguments.profile)?, transport, 1).await?;
    let answerer = Answerer {
        client: &client,
        profile: &arguments.profile,
        signatories: &state.signatories,
        key: &key,
        options: &arguments.evidence,
        given: evidence::given(&arguments.evidence, &arguments.profile)?,
    };
    let answer = answerer.answer(state.sealing.step()).await;
    client.close().await;
    if let Some(answer) = answer? {
        state.sealing.add(answer);
        state.write(path)?;
    }
    print_line("next: assemble")
}

pub(super) fn assemble(arguments: &AssembleArguments) -> Result<(), Refusal> {
    let mut state = State::read(&arguments.state)?;
    let document = arguments.document.read()?;
    let sealing = state.sealing.resume(document).map_err(|error| refusal(&error))?;
    if sealing.order().form != arguments.document.form().0 {
        let other = match sealing.order().form {
            Form::Pdf => "--pdf",
            Form::Ofd => "--ofd",
        };
        return Err(Refusal::new(
            Code::Usage,
            format!("what was prepared is given with {other}"),
        ));
    }
    if *state.sealing.step() == Step::Done {
        let document = sealing
            .finish()
            .map_err(|error| Refusal::new(error.code(), error.to_string()))?;
        return seal::write(&arguments.out, &[&document]);
    }
    state.write(&arguments.state)?;
    print_line(&format!("next: {}", what(state.sealing.step())))
}
