//! Subjects: what is known of them, sealed under their tenant's key; how they are shown, and what a verification service
//! must say so that it counts. Blocking: for operators' threads and the registration desk, never for a core.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use documents::x509::{Name, NameParts};
use protocol::algorithm::{Algorithm, Hash, InputKind, KeyKind};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{SubjectId, TenantName};
use protocol::verify::{PublicKey, pair_to_der};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{
    Change, Environment, Reader, SubjectChange, SubjectKind, SubjectRow, SubjectState, SubjectStep, Tenant,
};
use zeroize::Zeroizing;

use crate::bill::moment;
use crate::registrar::Ledger;
use crate::vault::{Vault, VaultError};

/// How long a verification service has for its answer, in milliseconds (SEMANTICS 2.7).
const ANSWER_MS: u64 = 600_000;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 32;
/// Characters of a registration number.
const REGISTRATION_MAX: usize = 32;
/// Bytes of a signed answer.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What is known of a subject: what its certificate says, and the number under which it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Details {
    /// Its full name, as it will be in certificates.
    pub name: String,
    /// 统一社会信用代码 of an enterprise, the number of a person's identity document.
    pub registration: String,
    /// The enterprise that a person acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enterprise: Option<SubjectId>,
}

fn usage(text: String) -> Refusal {
    Refusal::new(Code::Usage, text)
}

impl Details {
    /// Checks what the types do not say.
    fn check(&self, kind: SubjectKind) -> Result<(), Refusal> {
        let parts = NameParts {
            organization: Some(&self.name),
            ..NameParts::default()
        };
        Name::try_from(parts).map_err(|error| usage(format!("the subject's name: {error}")))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let number = &self.registration;
        if number.is_empty() || number.len() > REGISTRATION_MAX || !number.bytes().all(plain) {
            let text = format!("a registration number has 1 to {REGISTRATION_MAX} letters and digits");
            return Err(usage(text));
        }
        match (kind, &self.enterprise) {
            (SubjectKind::Enterprise, Some(_)) => Err(usage("an enterprise acts for itself".into())),
            (SubjectKind::Agent | SubjectKind::LegalRepresentative, None) => {
                Err(usage("a person acts for an enterprise: name its subject".into()))
            }
            _ => Ok(()),
        }
    }
}

fn label(tenant: &TenantName, id: &SubjectId) -> String {
    format!("subject/{tenant}/{id}")
}

/// What is known of a subject, opened.
pub fn open(vault: &Vault, tenant: &Tenant, row: &SubjectRow) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let erased = || Refusal::new(Code::NotFound, format!("subject '{}' is erased", row.id));
    let sealed = row.sealed.as_deref().ok_or_else(erased)?;
    vault
        .of_tenant(tenant)
        .and_then(|own| own.unwrap(sealed, label(&row.tenant, &row.id).as_bytes()))
        .map_err(VaultError::refusal)
}

/// The same as what it says.
pub fn details(vault: &Vault, tenant: &Tenant, row: &SubjectRow) -> Result<Details, Refusal> {
    serde_json::from_slice(&open(vault, tenant, row)?)
        .map_err(|error| Refusal::new(Code::DataCorrupt, format!("subject '{}': {error}", row.id)))
}

/// A new subject.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its id.
    pub id: SubjectId,
    /// What it is.
    pub kind: SubjectKind,
    /// What is known of it.
    pub details: Details,
    /// For what its tenant uses it.
    pub environment: Environment,
    /// SHA-256 of the evidence, which is kept elsewhere.
    pub evidence: [u8; 32],
}

/// Works on subjects.
pub struct Subjects<'a> {
    /// Where changes go.
    pub ledger: &'a dyn Ledger,
    /// What opens and seals.
    pub vault: &'a Vault,
    /// What is known.
    pub reader: &'a Reader,
}

impl Subjects<'_> {
    /// Takes a new subject in.
    pub fn submit(&self, tenant: &TenantName, new: Submission) -> Result<(), Refusal> {
        new.details.check(new.kind)?;
        let owner = self.ledger.tenant(tenant)?;
        if let Some(enterprise) = &new.details.enterprise {
            let row = self.find_in(tenant, enterprise, new.environment)?;
            if row.kind != SubjectKind::Enterprise {
                return Err(usage(format!("subject '{enterprise}' is no enterprise")));
            }
        }
        let plain = serde_json::to_vec(&new.details).map(Zeroizing::new);
        let plain = plain.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        let sealed = self
            .vault
            .of_tenant(&owner)
            .and_then(|own| own.wrap(&plain, label(tenant, &new.id).as_bytes()));
        self.ledger.change(Change::Subjects(SubjectChange::Submit {
            tenant: tenant.clone(),
            id: new.id,
            environment: new.environment,
            kind: new.kind,
            sealed: sealed.map_err(VaultError::refusal)?.into(),
            evidence: new.evidence,
        }))
    }

    /// A subject.
    pub fn find(&self, tenant: &TenantName, id: &SubjectId) -> Result<SubjectRow, Refusal> {
        let found = self.reader.subject(tenant, id).map_err(|error| error.refusal())?;
        found.ok_or_else(|| Refusal::new(Code::NotFound, format!("no subject '{id}'")))
    }

    /// The same, if it is of an environment.
    pub fn find_in(
        &self,
        tenant: &TenantName,
        id: &SubjectId,
        environment: Environment,
    ) -> Result<SubjectRow, Refusal> {
        let found = self.find(tenant, id)?;
        if found.environment != environment {
            return Err(Refusal::new(Code::NotFound, format!("no subject '{id}'")));
        }
        Ok(found)
    }

    /// An operator does something.
    pub fn step(
        &self,
        tenant: &TenantName,
        id: &SubjectId,
        step: SubjectStep,
        (by, reason): (&str, &str),
    ) -> Result<(), Refusal> {
        if matches!(step, SubjectStep::Confirm | SubjectStep::Refute) {
            return Err(usage("only a verification service confirms or refutes".into()));
        }
        self.ledger.change(Change::Subjects(SubjectChange::Step {
            tenant: tenant.clone(),
            id: id.clone(),
            step,
            by: by.to_owned(),
            reason: reason.to_owned(),
        }))
    }

    /// A question that a verification service can answer once, within ten minutes.
    pub fn challenge(&self, tenant: &TenantName, id: &SubjectId, now: UnixMillis) -> Result<Value, Refusal> {
        let row = self.find(tenant, id)?;
        row.step(SubjectStep::Confirm, "")
            .map_err(|error| Refusal::new(error.code(), format!("subject '{id}': {error}")))?;
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        let (nonce, expires) = (hex(&nonce), UnixMillis(now.0 + ANSWER_MS));
        let known = details(self.vault, &*self.ledger.tenant(tenant)?, &row)?;
        let details = details_hash(&nonce, row.kind, &known);
        self.ledger.change(Change::Subjects(SubjectChange::Challenge {
            nonce: nonce.clone(),
            tenant: tenant.clone(),
            subject: id.clone(),
            details,
            expires,
        }))?;
        Ok(json!({
            "nonce": nonce,
            "subject": id,
            "evidence_sha256": row.evidence.map(|hash| hex(&hash)),
            "details_sha256": hex(&details),
            "expires": moment(expires),
        }))
    }

    /// Takes a verification service's signed answer.
    pub fn answer(&self, verifiers: &[Verifier], token: &str) -> Result<(), Refusal> {
        let (verifier, statement) = read_token(verifiers, token)?;
        let hash = |text: &str, name: &str| {
            let bytes = unhex(text).and_then(|bytes| bytes.try_into().ok());
            bytes.ok_or_else(|| refused(&format!("{name} is not the hexadecimal form of 32 bytes")))
        };
        let evidence = hash(&statement.evidence_sha256, "evidence_sha256")?;
        let details = hash(&statement.details_sha256, "details_sha256")?;
        self.ledger.change(Change::Subjects(SubjectChange::Answer {
            nonce: statement.nonce,
            subject: statement.subject,
            evidence,
            details,
            confirmed: statement.confirmed,
            by: format!("verifier {verifier}"),
        }))
    }

    /// A subject as everybody sees it who may see it: names and numbers are masked.
    pub fn show(&self, row: &SubjectRow) -> Result<Value, Refusal> {
        let known = match row.state {
            SubjectState::Erased => None,
            _ => {
                let owner = self.ledger.tenant(&row.tenant)?;
                Some(details(self.vault, &owner, row)?)
            }
        };
        Ok(json!({
            "id": row.id,
            "kind": row.kind,
            "state": row.state,
            "name": known.as_ref().map(|known| mask_name(&known.name)),
            "registration": known.as_ref().map(|known| mask_number(&known.registration)),
            "enterprise": known.and_then(|known| known.enterprise),
            "evidence_sha256": row.evidence.map(|hash| hex(&hash)),
            "checked_by": row.checker,
            "decided_by": row.decider,
            "submitted": moment(row.submitted),
            "changed": moment(row.changed),
        }))
    }
}

/// What a verification service computes of what it was shown, to say that it is the same: lines of nonce, kind, name,
/// registration number and, of a person, the enterprise's id. The nonce keeps names from being guessed by their hashes.
fn details_hash(nonce: &str, kind: SubjectKind, known: &Details) -> [u8; 32] {
    let kind = match kind {
        SubjectKind::Enterprise => "enterprise",
        SubjectKind::Agent => "agent",
        SubjectKind::LegalRepresentative => "legal-representative",
    };
    let enterprise = known.enterprise.as_ref().map_or("", SubjectId::as_str);
    let text = [nonce, kind, &known.name, &known.registration, enterprise].join("\n");
    let digest = Hash::Sha256.digest(text.as_bytes());
    std::array::from_fn(|at| digest[at])
}

/// The first character, and that there are others.
fn mask_name(name: &str) -> String {
    let first: String = name.chars().take(1).collect();
    format!("{first}**")
}

/// The last four characters of a long number, nothing of a short one.
fn mask_number(number: &str) -> String {
    match number.len() {
        0..=8 => "****".to_owned(),
        length => format!("****{}", &number[length - 4..]),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    };
    digits.map(byte).collect()
}

/// A verification service whose answers count.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// Its name: `kid` in its answers.
    pub name: String,
    /// Its key.
    pub public_key: std::sync::Arc<PublicKey>,
}

/// What an answer says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    nonce: String,
    subject: SubjectId,
    evidence_sha256: String,
    details_sha256: String,
    confirmed: bool,
}

/// What an answer's header says (RFC 7515 4.1).
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default)]
    crit: Option<Value>,
}

fn refused(text: &str) -> Refusal {
    Refusal::new(Code::VerificationRefused, format!("the answer: {text}"))
}

/// Reads a JWS in its compact form (RFC 7515 7.1). The key decides how it is signed, never the message.
fn read_token<'v>(verifiers: &'v [Verifier], token: &str) -> Result<(&'v str, Statement), Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(refused("longer than 8192 bytes"));
    }
    let form = || refused("not a JWS in compact form (RFC 7515)");
    let (signed, signature) = token.rsplit_once('.').ok_or_else(form)?;
    let (header, payload) = signed.split_once('.').ok_or_else(form)?;
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| form());
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| form())?;
    let unknown = || refused("no verification service of this name (kid), or not signed by it");
    let verifier = verifiers.iter().find(|known| known.name == header.kid);
    let verifier = verifier.ok_or_else(unknown)?;
    let (alg, algorithm) = jws_algorithm(verifier.public_key.kind()).ok_or_else(unknown)?;
    if header.alg != alg || header.crit.is_some() {
        return Err(refused(&format!(
            "this service signs with {alg} and knows no `crit`"
        )));
    }
    let mut signature = decode(signature)?;
    if algorithm.is_pair() {
        signature = pair_to_der(&signature).ok_or_else(unknown)?.to_vec();
    }
    let input = match algorithm.input() {
        InputKind::Digest(hash) => hash.digest(signed.as_bytes()).to_vec(),
        InputKind::Message(_) => signed.as_bytes().to_vec(),
    };
    let verified = verifier.public_key.verify(algorithm, &input, &signature);
    verified.map_err(|_| unknown())?;
    let statement = serde_json::from_slice(&decode(payload)?);
    let statement = statement.map_err(|error| refused(&error.to_string()))?;
    Ok((verifier.name.as_str(), statement))
}

/// How a key of this kind signs (RFC 7518 3.1, RFC 8037 3.1).
const fn jws_algorithm(kind: KeyKind) -> Option<(&'static str, Algorithm)> {
    Some(match kind {
        KeyKind::P256 => ("ES256", Algorithm::EcdsaP256Sha256),
        KeyKind::P384 => ("ES384", Algorithm::EcdsaP384Sha384),
        KeyKind::Ed25519 => ("EdDSA", Algorithm::Ed25519),
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => ("PS256", Algorithm::RsaPssSha256),
        KeyKind::Sm2 => return None,
    })
}

/// Whether a key can be a verification service's.
pub const fn can_verify(kind: KeyKind) -> bool {
    jws_algorithm(kind).is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hsm_pool::soft::{SoftKey, generate};

    use super::*;

    #[test]
    fn masks_hide_all_but_little() {
        assert_eq!(mask_name("北京示例有限公司"), "北**");
        assert_eq!(mask_number("91110000600037341L"), "****341L");
        assert_eq!(mask_number("12345678"), "****");
    }

    fn details(name: &str, registration: &str) -> Details {
        Details {
            name: name.into(),
            registration: registration.into(),
            enterprise: None,
        }
    }

    #[test]
    fn details_are_what_a_certificate_can_say() {
        let check = |name, number| details(name, number).check(SubjectKind::Enterprise);
        assert!(check("北京示例有限公司", "91110000600037341L").is_ok());
        for (name, number) in [("", "1"), ("Ex\0ample", "1"), ("Example", ""), ("Example", "1;2")] {
            assert_eq!(
                check(name, number).unwrap_err().code,
                Code::Usage,
                "{name} {number}"
            );
        }
        assert!(check(&"x".repeat(65), "1").is_err());
        assert!(details("Li Lei", "1").check(SubjectKind::Agent).is_err());
    }

    fn token(key: &SoftKey, algorithm: Algorithm, header: &str, payload: &str) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let input = match algorithm.input() {
            InputKind::Digest(hash) => hash.digest(signed.as_bytes()).to_vec(),
            InputKind::Message(_) => signed.as_bytes().to_vec(),
        };
        let signature = key.sign(algorithm, &input, b"").unwrap();
        let signature = match algorithm.is_pair() {
            true => protocol::verify::der_to_pair(&signature, 32).unwrap().to_vec(),
            false => signature.to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn an_answer_counts_only_under_the_services_own_key() {
        let payload =
            r#"{"nonce":"n","subject":"s-1","evidence_sha256":"00","details_sha256":"00","confirmed":true}"#;
        for (kind, alg, algorithm) in [
            (KeyKind::P256, "ES256", Algorithm::EcdsaP256Sha256),
            (KeyKind::Ed25519, "EdDSA", Algorithm::Ed25519),
        ] {
            let made = [0, 1].map(|_| generate(kind).unwrap());
            let keys = [0, 1].map(|at| SoftKey::new(kind, &made[at].pkcs8, &made[at].public_key).unwrap());
            let verifiers = [Verifier {
                name: "checks".into(),
                public_key: Arc::new(PublicKey::from_spki(&made[0].public_key).unwrap()),
            }];
            let header = format!(r#"{{"alg":"{alg}","kid":"checks"}}"#);
            let good = token(&keys[0], algorithm, &header, payload);
            let (name, statement) = read_token(&verifiers, &good).unwrap();
            assert_eq!((name, statement.confirmed), ("checks", true));
            let code = |token: &str| read_token(&verifiers, token).unwrap_err().code;
            let other = token(&keys[1], algorithm, &header, payload);
            let unsigned = format!(
                "{}.{}.",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"checks"}"#),
                URL_SAFE_NO_PAD.encode(payload)
            );
            let unknown = token(&keys[0], algorithm, &header.replace("checks", "others"), payload);
            let changed = format!("x{good}");
            for bad in [
                &other,
                &unsigned,
                &unknown,
                &changed,
                "",
                "a.b",
                &good[..good.len() - 4],
            ] {
                assert_eq!(code(bad), Code::VerificationRefused, "{bad}");
            }
        }
    }
}
