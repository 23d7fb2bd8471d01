//! What is sent, and the check of what comes back.

use aws_lc_rs::rand;
use protocol::algorithm::{Algorithm, Format, InputKind};
use protocol::client::SignRequest;
use protocol::error_code::{Code, Refusal};
use protocol::ids::IdempotencyKey;
use protocol::message::{CredentialInfo, ItemOutcome};
use protocol::verify::{PublicKey, pair_to_der};

use crate::mix::{Class, Mix, Weights};
use crate::schedule::{Departure, splitmix};

/// A class of requests, ready to be made.
struct Kind {
    class: Class,
    algorithm: Algorithm,
    public_key: PublicKey,
}

/// Everything that the requests of a run have in common.
pub(crate) struct Work {
    kinds: Vec<Kind>,
    weights: Weights,
    verify_every: u64,
    /// Makes this run's idempotency keys and inputs differ from every other run's.
    salt: [u8; 16],
}

/// Which of a run's requests: its number, and its class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) number: u64,
    pub(crate) class: usize,
}

impl Work {
    /// `credentials` are those of each profile.
    pub(crate) fn new(
        mix: &Mix,
        credentials: &[Vec<CredentialInfo>],
        verify_every: u32,
    ) -> Result<Self, Refusal> {
        let kind = |class: &Class| Kind::new(class, &credentials[class.profile]);
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
        Ok(Self {
            kinds: mix.classes.iter().map(kind).collect::<Result<_, _>>()?,
            weights: Weights::new(mix.classes.iter().map(|class| class.weight)),
            verify_every: u64::from(verify_every),
            salt,
        })
    }

    /// What each class is called.
    pub(crate) fn labels(&self, mix: &Mix) -> Vec<String> {
        self.kinds
            .iter()
            .map(|kind| mix.label(&kind.class, kind.algorithm))
            .collect()
    }

    /// Which request leaves: a log says its class, a mix chooses it by chance that is the same in every thread.
    pub(crate) fn wanted(&self, departure: &Departure) -> Wanted {
        let number = departure.number;
        let class = departure.class.unwrap_or_else(|| {
            if self.kinds.len() == 1 {
                return 0;
            }
            let mut seed = number ^ u64::from_le_bytes(std::array::from_fn(|at| self.salt[at]));
            self.weights.pick(splitmix(&mut seed))
        });
        Wanted { number, class }
    }

    pub(crate) fn class(&self, wanted: Wanted) -> &Class {
        &self.kinds[wanted.class].class
    }

    /// Signatures in one request.
    pub(crate) fn signatures(&self, wanted: Wanted) -> u64 {
        u64::from(self.class(wanted).batch)
    }

    /// The request: keys are random as callers' are, so the engine's index sees what it will see.
    pub(crate) fn request(&self, wanted: Wanted) -> SignRequest {
        let Kind { class, algorithm, .. } = &self.kinds[wanted.class];
        SignRequest {
            credential: class.credential.clone(),
            algorithm: *algorithm,
            format: class.format,
            key: self.key(wanted.number),
            inputs: (0..class.batch)
                .map(|item| self.input(*algorithm, wanted.number, item))
                .collect(),
            user_id: None,
            deadline_ms: class.deadline_ms,
        }
    }

    fn key(&self, number: u64) -> IdempotencyKey {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mixed = self.mix(number, u16::MAX);
        let mut text = String::with_capacity(32);
        for byte in mixed {
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        IdempotencyKey::new(&text).expect("hexadecimal digits are allowed in a key")
    }

    /// A pseudo-random block for a request and an item: two rounds of splitmix64, cheap and distinct.
    fn mix(&self, number: u64, item: u16) -> [u8; 16] {
        let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| self.salt[8 * at + i]));
        let mut out = [0; 16];
        for at in 0..2 {
            let mut seed =
                half(at) ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(item).rotate_right(16);
            out[8 * at..8 * at + 8].copy_from_slice(&splitmix(&mut seed).to_le_bytes());
        }
        out
    }

    fn input(&self, algorithm: Algorithm, number: u64, item: u16) -> Vec<u8> {
        let length = match algorithm.input() {
            InputKind::Digest(hash) => hash.bytes(),
            InputKind::Message(_) => 32,
        };
        let block = self.mix(number, item);
        block.iter().copied().cycle().take(length).collect()
    }

    /// Whether the signatures of this request are verified.
    pub(crate) const fn is_sampled(&self, wanted: Wanted) -> bool {
        wanted.number.is_multiple_of(self.verify_every)
    }

    /// Checks every signature of a request, and says how many were checked. CMS is checked for its presence only: its
    /// signed attributes hold a time that only the engine knows, and `openssl cms -verify` is the judge of it.
    pub(crate) fn check(&self, wanted: Wanted, items: &[ItemOutcome]) -> Result<u64, Refusal> {
        let kind = &self.kinds[wanted.class];
        let mut checked = 0;
        for (item, outcome) in (0..).zip(items) {
            let ItemOutcome::Done { signature, .. } = outcome else {
                continue;
            };
            let der;
            let signature = match kind.class.format {
                Format::Cms => continue,
                Format::Raw => signature,
                Format::Pair => {
                    der = pair_to_der(signature).ok_or_else(wrong)?.to_vec();
                    &der
                }
            };
            let input = self.input(kind.algorithm, wanted.number, item);
            let verified = kind.public_key.verify(kind.algorithm, &input, signature);
            verified.map_err(|_| wrong())?;
            checked += 1;
        }
        Ok(checked)
    }
}

impl Kind {
    fn new(class: &Class, credentials: &[CredentialInfo]) -> Result<Self, Refusal> {
        let info = credentials
            .iter()
            .find(|info| info.id == class.credential)
            .ok_or_else(|| {
                let text = format!("no credential '{}' for this app", class.credential);
                Refusal::new(Code::UnknownCredential, text)
            })?;
        let public_key = PublicKey::from_spki(&info.public_key)
            .map_err(|error| Refusal::new(Code::BadAnswer, format!("the public key: {error}")))?;
        let algorithm = class.algorithm.unwrap_or(info.kind.algorithms()[0]);
        if !info.kind.algorithms().contains(&algorithm) {
            let text = format!("a {} key does not sign with {algorithm}", info.kind);
            return Err(Refusal::new(Code::UnsupportedAlgorithm, text));
        }
        Ok(Self {
            class: class.clone(),
            algorithm,
            public_key,
        })
    }
}

fn wrong() -> Refusal {
    Refusal::new(Code::BadAnswer, "a signature does not verify")
}
