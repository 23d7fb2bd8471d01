//! What is sent, and the check of what comes back.

use aws_lc_rs::rand;
use protocol::algorithm::{Algorithm, Format, InputKind};
use protocol::client::{Client, SignRequest};
use protocol::error_code::{Code, Refusal};
use protocol::ids::IdempotencyKey;
use protocol::message::ItemOutcome;
use protocol::verify::{PublicKey, pair_to_der};

use crate::args::Plan;

/// Everything that the requests of a run have in common.
pub(crate) struct Work {
    credential: String,
    algorithm: Algorithm,
    format: Format,
    batch: u16,
    public_key: PublicKey,
    verify_every: u64,
    /// Makes this run's idempotency keys and inputs differ from every other run's.
    salt: [u8; 16],
}

impl Work {
    /// Asks the engine for the credential.
    pub(crate) async fn prepare(client: &Client, plan: &Plan) -> Result<Self, Refusal> {
        let list = client.credentials().await?;
        let info = list
            .into_iter()
            .find(|info| info.id == plan.credential)
            .ok_or_else(|| {
                Refusal::new(
                    Code::UnknownCredential,
                    format!("no credential '{}' for this app", plan.credential),
                )
            })?;
        let public_key = PublicKey::from_spki(&info.public_key)
            .map_err(|error| Refusal::new(Code::BadAnswer, format!("the public key: {error}")))?;
        let algorithm = plan.algorithm.unwrap_or(info.kind.algorithms()[0]);
        if !info.kind.algorithms().contains(&algorithm) {
            let text = format!("a {} key does not sign with {algorithm}", info.kind);
            return Err(Refusal::new(Code::UnsupportedAlgorithm, text));
        }
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
        Ok(Self {
            credential: plan.credential.clone(),
            algorithm,
            format: plan.format,
            batch: plan.batch,
            public_key,
            verify_every: u64::from(plan.verify_every),
            salt,
        })
    }

    /// Signatures in one request.
    pub(crate) const fn batch(&self) -> u64 {
        self.batch as u64
    }

    /// Request number `number`: keys are random as callers' are, so the engine's index sees what it will see.
    pub(crate) fn request(&self, number: u64) -> SignRequest {
        SignRequest {
            credential: self.credential.clone(),
            algorithm: self.algorithm,
            format: self.format,
            key: self.key(number),
            inputs: (0..self.batch).map(|item| self.input(number, item)).collect(),
            user_id: None,
            deadline_ms: None,
        }
    }

    fn key(&self, number: u64) -> IdempotencyKey {
        let mixed = self.mix(number, u16::MAX);
        let text: String = mixed.iter().map(|byte| format!("{byte:02x}")).collect();
        IdempotencyKey::new(&text).expect("hexadecimal digits are allowed in a key")
    }

    /// A pseudo-random block for a request and an item: two rounds of splitmix64, cheap and distinct.
    fn mix(&self, number: u64, item: u16) -> [u8; 16] {
        let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| self.salt[8 * at + i]));
        let mut out = [0; 16];
        for at in 0..2 {
            let mut z =
                half(at) ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(item).rotate_right(16);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            out[8 * at..8 * at + 8].copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        out
    }

    fn input(&self, number: u64, item: u16) -> Vec<u8> {
        let length = match self.algorithm.input() {
            InputKind::Digest(hash) => hash.bytes(),
            InputKind::Message(_) => 32,
        };
        let block = self.mix(number, item);
        block.iter().copied().cycle().take(length).collect()
    }

    /// Whether the signatures of this request are verified.
    pub(crate) const fn is_sampled(&self, number: u64) -> bool {
        number.is_multiple_of(self.verify_every)
    }

    /// Checks every signature of a request. CMS is checked for its presence only: its signed attributes hold a time
    /// that only the engine knows, and `openssl cms -verify` is the judge of it.
    pub(crate) fn check(&self, number: u64, items: &[ItemOutcome]) -> Result<(), Refusal> {
        for (item, outcome) in (0..).zip(items) {
            let ItemOutcome::Done { signature, .. } = outcome else {
                continue;
            };
            let der;
            let signature = match self.format {
                Format::Cms => continue,
                Format::Raw => signature,
                Format::Pair => {
                    der = pair_to_der(signature).ok_or_else(wrong)?.to_vec();
                    &der
                }
            };
            let input = self.input(number, item);
            self.public_key
                .verify(self.algorithm, &input, signature)
                .map_err(|_| wrong())?;
        }
        Ok(())
    }
}

fn wrong() -> Refusal {
    Refusal::new(Code::BadAnswer, "a signature does not verify")
}
