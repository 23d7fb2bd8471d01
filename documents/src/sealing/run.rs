//! The sequence: signature after signature, each with its time stamp, then evidence, then the last time stamp.

use protocol::algorithm::{Algorithm, Hash};
use protocol::verify::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Evidence, Form, Level, Octets, Order, SealingError, Signer, Wanted, place};
use crate::cms::DigestBytes;
use crate::ofd::{self, Addition, Kind, SignRequest};
use crate::pdf::{
    self, PreparedPdf, PreparedTimeStamp, Request, Seal, ValidationData, add_validation_data,
    prepare_time_stamp,
};
use crate::{tsp, x509};

/// What a sealing needs next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A signature over `input` in the algorithm's usual encoding.
    Sign {
        /// Which of the order's signers, counted from 0.
        signer: usize,
        /// How.
        algorithm: Algorithm,
        /// What to give to the signer: a digest, or e.
        input: Octets,
    },
    /// A time stamp (RFC 3161) over a digest, with the authority's certificates.
    Stamp {
        /// The digest's hash.
        hash: Hash,
        /// The digest.
        imprint: Octets,
    },
    /// What shows how certificates stand.
    Evidence(Wanted),
    /// Nothing: [`Sealing::finish`].
    Done,
}

/// An answer to a [`Step`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A signature.
    Signature(Octets),
    /// A TimeStampToken, or the whole TimeStampResp around it, in DER.
    Token(Octets),
    /// Certificates, lists and responses.
    Evidence(Evidence),
}

impl Answer {
    const fn what(&self) -> &'static str {
        match self {
            Self::Signature(_) => "a signature",
            Self::Token(_) => "a time stamp",
            Self::Evidence(_) => "revocation information",
        }
    }
}

/// A document on its way.
pub struct Sealing {
    order: Order,
    document: Vec<u8>,
    original_bytes: usize,
    /// Signature fields that were signed so far (PDF).
    fields: Vec<String>,
    /// Whose standing has to be shown in the end.
    wanted: Wanted,
    state: State,
}

enum Work {
    Pdf(Box<PreparedPdf>),
    Ofd(Box<Addition>, [u8; 32]),
}

impl Work {
    fn input(&self) -> &[u8] {
        match self {
            Self::Pdf(prepared) => prepared.to_sign(),
            Self::Ofd(_, e) => e,
        }
    }

    fn hash(&self) -> Hash {
        match self {
            Self::Pdf(prepared) => prepared.hash(),
            Self::Ofd(..) => Hash::Sm3,
        }
    }
}

enum State {
    Sign {
        nth: usize,
        work: Work,
    },
    Stamp {
        nth: usize,
        work: Work,
        signature: Vec<u8>,
        hash: Hash,
        imprint: DigestBytes,
    },
    Evidence,
    Archive(Box<PreparedTimeStamp>),
    Done,
}

/// The hash under a time stamp over a whole document.
const ARCHIVE_HASH: Hash = Hash::Sha256;

impl Sealing {
    /// Takes a document and an order; everything that can be refused before somebody signs is refused here. A document
    /// whose capacity exceeds its length by what will be appended is not moved in memory.
    pub fn start(document: Vec<u8>, order: Order) -> Result<Self, SealingError> {
        order.check()?;
        let original_bytes = document.len();
        let work = prepare(&document, &order, 0)?;
        Ok(Self {
            order,
            document,
            original_bytes,
            fields: Vec::new(),
            wanted: Wanted::default(),
            state: State::Sign { nth: 0, work },
        })
    }

    /// Brings a sealing to where it was after these answers.
    pub fn replay(document: Vec<u8>, order: Order, answers: &[Answer]) -> Result<Self, SealingError> {
        let mut sealing = Self::start(document, order)?;
        for answer in answers {
            sealing = sealing.answer(answer)?;
        }
        Ok(sealing)
    }

    /// What is needed next.
    pub fn step(&self) -> Step {
        match &self.state {
            State::Sign { nth, work } => Step::Sign {
                signer: *nth,
                algorithm: self.order.signers[*nth].algorithm,
                input: work.input().to_vec().into(),
            },
            State::Stamp { hash, imprint, .. } => Step::Stamp {
                hash: *hash,
                imprint: imprint.to_vec().into(),
            },
            State::Evidence => Step::Evidence(self.wanted.clone()),
            State::Archive(prepared) => Step::Stamp {
                hash: ARCHIVE_HASH,
                imprint: prepared.imprint().to_vec().into(),
            },
            State::Done => Step::Done,
        }
    }

    /// Whose signatures are wanted and how; what they are over is told by [`Self::step`].
    pub const fn order(&self) -> &Order {
        &self.order
    }

    /// Goes on with an answer. One that does not fit ends the sealing; [`Self::replay`] brings it back.
    pub fn answer(mut self, answer: &Answer) -> Result<Self, SealingError> {
        let state = std::mem::replace(&mut self.state, State::Done);
        match (state, answer) {
            (State::Sign { nth, work }, Answer::Signature(signature)) => {
                self.signed(nth, work, &signature.0)?;
            }
            (
                State::Stamp {
                    nth,
                    work,
                    signature,
                    hash,
                    imprint,
                },
                Answer::Token(token),
            ) => {
                let token = check_token(&token.0, hash, &imprint)?;
                let certificates = tsp::certificates_of(token)?;
                self.wanted
                    .chains
                    .push(certificates.into_iter().map(Octets).collect());
                self.put(nth, work, &signature, Some(token))?;
            }
            (State::Evidence, Answer::Evidence(evidence)) => self.add_evidence(evidence)?,
            (State::Archive(prepared), Answer::Token(token)) => {
                let token = check_token(&token.0, ARCHIVE_HASH, prepared.imprint())?;
                self.document.extend(prepared.assemble(token)?);
            }
            (state, answer) => {
                return Err(SealingError::OtherAnswer {
                    wanted: state.wants(),
                    given: answer.what(),
                });
            }
        }
        Ok(self)
    }

    /// The finished document.
    pub fn finish(self) -> Result<Vec<u8>, SealingError> {
        match self.state {
            State::Done => Ok(self.document),
            state => Err(SealingError::NotDone(state.wants())),
        }
    }

    /// How many bytes at the beginning of a finished PDF are the original document; in an OFD none are.
    pub const fn original_bytes(&self) -> usize {
        match self.order.form {
            Form::Pdf => self.original_bytes,
            Form::Ofd => 0,
        }
    }

    fn signed(&mut self, nth: usize, work: Work, signature: &[u8]) -> Result<(), SealingError> {
        let signer = &self.order.signers[nth];
        check_signature(signer, work.input(), signature)?;
        self.wanted.chains.push(signer.chain.clone());
        if self.order.level == Level::BB {
            return self.put(nth, work, signature, None);
        }
        let hash = work.hash();
        self.state = State::Stamp {
            nth,
            work,
            imprint: hash.digest(signature),
            hash,
            signature: signature.to_vec(),
        };
        Ok(())
    }

    /// Puts a signature into the document and goes on to what comes next.
    fn put(
        &mut self,
        nth: usize,
        work: Work,
        signature: &[u8],
        token: Option<&[u8]>,
    ) -> Result<(), SealingError> {
        match work {
            Work::Pdf(prepared) => {
                self.fields.push(prepared.field().to_owned());
                let update = match token {
                    Some(token) => prepared.assemble_time_stamped(signature, token)?,
                    None => prepared.assemble(signature)?,
                };
                self.document.extend(update);
            }
            Work::Ofd(addition, _) => self.document = addition.assemble(&self.document, signature, token)?,
        }
        if nth + 1 < self.order.signers.len() {
            let work = prepare(&self.document, &self.order, nth + 1)?;
            self.state = State::Sign { nth: nth + 1, work };
        } else if self.order.level >= Level::BLt {
            self.add_makers();
            self.state = State::Evidence;
        }
        Ok(())
    }

    /// Whoever made the seals has to be believed later as well.
    fn add_makers(&mut self) {
        for seal in self
            .order
            .signers
            .iter()
            .filter_map(|signer| signer.seal.as_ref())
        {
            let maker = crate::ses::Seal::read(&seal.0)
                .ok()
                .and_then(|seal| Some(seal.maker().ok()?.to_vec()));
            self.wanted.chains.extend(maker.map(|maker| vec![Octets(maker)]));
        }
    }

    fn add_evidence(&mut self, evidence: &Evidence) -> Result<(), SealingError> {
        evidence.check(&self.wanted)?;
        let certificates = evidence.certificates(&self.wanted)?;
        let own = |list: &[Octets]| list.iter().map(|item| item.0.clone()).collect::<Vec<_>>();
        let data = ValidationData {
            fields: &self.fields,
            certificates: &certificates,
            crls: &own(&evidence.crls),
            ocsps: &own(&evidence.ocsps),
        };
        let update = add_validation_data(&self.document, &data, self.order.at())?;
        self.document.extend(update);
        if self.order.level == Level::BLta {
            let prepared = prepare_time_stamp(
                &self.document,
                ARCHIVE_HASH,
                self.order.token_bytes,
                self.order.at(),
            )?;
            self.state = State::Archive(Box::new(prepared));
        }
        Ok(())
    }
}

impl State {
    const fn wants(&self) -> &'static str {
        match self {
            Self::Sign { .. } => "a signature",
            Self::Stamp { .. } | Self::Archive(_) => "a time stamp",
            Self::Evidence => "revocation information",
            Self::Done => "nothing",
        }
    }
}

fn prepare(document: &[u8], order: &Order, nth: usize) -> Result<Work, SealingError> {
    match order.form {
        Form::Pdf => prepare_pdf(document, order, nth),
        Form::Ofd => prepare_ofd(document, order, nth),
    }
}

/// What is seen, the field and the certification belong to the first signature.
fn prepare_pdf(pdf: &[u8], order: &Order, nth: usize) -> Result<Work, SealingError> {
    let is_first = nth == 0;
    let signer = &order.signers[nth];
    let image = if is_first { order.picture()? } else { None };
    let seen = image.as_ref().zip(order.appearance.as_ref());
    let request = Request {
        field: order.field.as_deref().filter(|_| is_first),
        seal: seen.map(|(image, appearance)| Seal {
            image,
            placement: &appearance.placement,
        }),
        certify: order.certify.filter(|_| is_first),
        reason: order.reason.as_deref(),
        location: order.location.as_deref(),
        time_stamp_bytes: match order.level {
            Level::BB => 0,
            _ => order.token_bytes,
        },
    };
    let prepared = match &signer.seal {
        Some(seal) => {
            check_sm2(signer)?;
            pdf::prepare_with_seal(pdf, &request, &seal.0, signer.certificate()?, order.at())?
        }
        None => pdf::prepare(pdf, &request, signer.algorithm, &signer.chain()?, order.at())?,
    };
    Ok(Work::Pdf(Box::new(prepared)))
}

/// Seal signatures are SM2 over e.
fn check_sm2(signer: &Signer) -> Result<(), SealingError> {
    if signer.algorithm == Algorithm::Sm2Sm3E {
        return Ok(());
    }
    Err(SealingError::Order(
        "seals and OFD files are signed with sm2-sm3-e",
    ))
}

fn prepare_ofd(ofd: &[u8], order: &Order, nth: usize) -> Result<Work, SealingError> {
    let signer = &order.signers[nth];
    check_sm2(signer)?;
    let placements = match (&signer.seal, &order.appearance) {
        (Some(seal), Some(appearance)) => vec![place::in_ofd(ofd, order.document, &seal.0, appearance)?],
        (None, Some(_)) => {
            return Err(SealingError::Order(
                "what is seen in an OFD is an electronic seal",
            ));
        }
        (_, None) => Vec::new(),
    };
    let request = SignRequest {
        document: order.document,
        kind: match &signer.seal {
            Some(seal) => Kind::Seal {
                seal: &seal.0,
                placements: &placements,
            },
            None if order.level == Level::BB => Kind::Sign,
            None => {
                return Err(SealingError::Order(
                    "a signature without a seal has no place for a time stamp in an OFD",
                ));
            }
        },
        certificate: signer.certificate()?,
        coverage: order.coverage,
        provider: &order.provider,
        at: order.at(),
    };
    let addition = ofd::prepare(ofd, &request)?.detach();
    let e = addition.e();
    Ok(Work::Ofd(Box::new(addition), e))
}

/// A signature that is somebody else's, or over something else, would be found out by the first reader only.
fn check_signature(signer: &Signer, input: &[u8], signature: &[u8]) -> Result<(), SealingError> {
    let spki = x509::subject_public_key(signer.certificate()?).map_err(|_| SealingError::Signature)?;
    let key = PublicKey::from_spki(&spki).map_err(|_| SealingError::Signature)?;
    let verified = key.verify(signer.algorithm, input, signature);
    verified.map_err(|_| SealingError::Signature)
}

/// The token in an answer, if it is over this digest and its signature holds. Whether its authority is to be trusted
/// is for whoever chose it.
fn check_token<'t>(answer: &'t [u8], hash: Hash, imprint: &[u8]) -> Result<&'t [u8], SealingError> {
    let token = match tsp::token_of(answer) {
        Ok(token) => token,
        Err(error @ tsp::ResponseError::Rejected(_)) => return Err(error.into()),
        Err(tsp::ResponseError::Malformed) => answer,
    };
    let digest = |stamped: Hash| {
        if stamped == hash {
            imprint.into()
        } else {
            DigestBytes::new()
        }
    };
    match tsp::verify_token(token, &digest, None, &[] as &[&[u8]]) {
        Ok(_) | Err(tsp::VerifyError::Path(_)) => Ok(token),
        Err(error) => Err(error.into()),
    }
}
