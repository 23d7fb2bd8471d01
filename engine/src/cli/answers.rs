//! Answers to what a sealing asks for: signatures and time stamps by the engine, and how certificates stand.

use std::path::Path;

use documents::sealing::{Answer, Evidence, Step};
use protocol::algorithm::Format;
use protocol::client::{Client, SignRequest};
use protocol::error_code::{Code, Refusal};
use protocol::ids::IdempotencyKey;

use super::seal_source::Signatory;
use super::{evidence, tsa};
use crate::args::documents::EvidenceOptions;

/// Who answers.
pub(super) struct Answerer<'a> {
    pub(super) client: &'a Client,
    pub(super) profile: &'a Path,
    /// Those of the order's signers.
    pub(super) signatories: &'a [Signatory],
    /// Names the calls: the first signature has it as it is.
    pub(super) key: &'a IdempotencyKey,
    pub(super) options: &'a EvidenceOptions,
    /// What is known of certificates before anybody is asked.
    pub(super) given: Evidence,
}

impl Answerer<'_> {
    /// The answer to a step; `None` when nothing is asked for.
    pub(super) async fn answer(&self, step: &Step) -> Result<Option<Answer>, Refusal> {
        match step {
            Step::Done => Ok(None),
            Step::Sign {
                signer,
                algorithm,
                input,
            } => {
                let missing = || Refusal::new(Code::Usage, "a signer without a credential");
                let signatory = self.signatories.get(*signer).ok_or_else(missing)?;
                let request = SignRequest {
                    credential: signatory.credential().to_owned(),
                    algorithm: *algorithm,
                    format: Format::Raw,
                    key: self.key_of(*signer)?,
                    inputs: vec![input.0.clone()],
                    user_id: None,
                    deadline_ms: None,
                };
                let signature = signatory.sign(self.client, &request).await?;
                Ok(Some(Answer::Signature(signature.into())))
            }
            Step::Stamp { hash, imprint } => {
                let token = self.stamper().stamp(*hash, &imprint.0).await?;
                Ok(Some(Answer::Token(token.to_vec().into())))
            }
            Step::Evidence(wanted) => {
                match evidence::gather(Some(self.client), wanted, self.given.clone()).await {
                    (_, Some(fault)) => Err(fault),
                    // Whether it is enough is for the sealing to say.
                    (evidence, None) => Ok(Some(Answer::Evidence(evidence))),
                }
            }
        }
    }

    fn stamper(&self) -> tsa::Stamper<'_> {
        let url = self.options.tsa_url.as_deref();
        tsa::Stamper {
            url,
            // Another's authority is not shown the app's token.
            profile: url.is_none().then_some(self.profile),
            authority: self.options.tsa_authority.as_ref().filter(|_| url.is_none()),
        }
    }

    /// Each signature is a call of its own.
    fn key_of(&self, signer: usize) -> Result<IdempotencyKey, Refusal> {
        if signer == 0 {
            return Ok(self.key.clone());
        }
        let name = format!("{}.{}", self.key, signer + 1);
        IdempotencyKey::new(&name)
            .map_err(|error| Refusal::new(Code::IdempotencyKeyInvalid, error.to_string()))
    }
}
