//! The certificate authorities: they issue, suspend and revoke. What they publish is in [`crate::lists`], what they answer
//! for single certificates in [`crate::answers`]. Every step is recorded before it can be seen from outside. Blocking: for operators' threads and
//! the pki threads, never for a core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::rand;
use documents::crl::Reason;
use documents::ocsp;
use documents::x509::{self, Name, Profile, Spec, Terms};
use hsm_pool::soft::{self, SoftKey};
use protocol::algorithm::{Algorithm, Hash, InputKind, KeyKind};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AuthorityName, SubjectId};
use protocol::verify::{SM2_DEFAULT_USER_ID, SignatureBytes};
use store::{
    Asked, AuthorityRow, CertificateChange, CertificateRow, CertificateStanding, Change, Environment, Holder,
    Prepared, Reader, Role,
};

use crate::enrolment::{EXTERNAL, is_external};
use crate::profiles::{CertificateProfile, Profiles};
use crate::registrar::Ledger;
use crate::vault::Vault;

const DAY_MS: u64 = 24 * 3_600_000;
/// Bytes of a serial number, all of them random but for two bits.
const SERIAL_BYTES: usize = 16;
/// One in so many signatures of elliptic curves is verified in full (SEMANTICS 3.1).
const SAMPLE: u64 = 64;

pub(crate) fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Internal, format!("certificates: {error}"))
}

fn usage(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Usage, error.to_string())
}

pub(crate) fn store_failed(error: store::StoreError) -> Refusal {
    error.refusal()
}

/// How authorities sign with a key of this kind; `None`: they do not.
pub const fn authority_algorithm(kind: KeyKind) -> Option<Algorithm> {
    Some(match kind {
        KeyKind::P256 => Algorithm::EcdsaP256Sha256,
        KeyKind::P384 => Algorithm::EcdsaP384Sha384,
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => Algorithm::RsaPkcs1Sha256,
        KeyKind::Sm2 => Algorithm::Sm2Sm3E,
        KeyKind::Ed25519 => return None,
    })
}

/// An authority with its key.
#[derive(Debug)]
pub struct Authority {
    /// Its name.
    pub name: AuthorityName,
    /// What it does.
    pub role: Role,
    /// The kind of its key.
    pub kind: KeyKind,
    /// Who has certified it; `None`: itself.
    pub issuer: Option<AuthorityName>,
    /// Its certificate, in DER.
    pub certificate: Vec<u8>,
    /// From when and until when that is valid.
    pub validity: (UnixMillis, UnixMillis),
    /// How it signs.
    pub algorithm: Algorithm,
    key: SoftKey,
    signed: AtomicU64,
}

impl Authority {
    fn open(row: AuthorityRow, vault: &Vault) -> Result<Self, Refusal> {
        let corrupt = |error: &dyn std::fmt::Display| {
            Refusal::new(Code::DataCorrupt, format!("authority '{}': {error}", row.name))
        };
        let public_key = x509::subject_public_key(&row.certificate).map_err(|error| corrupt(&error))?;
        let pkcs8 = vault
            .unwrap(&row.wrapped, &public_key)
            .map_err(|error| corrupt(&error))?;
        let key = SoftKey::new(row.kind, &pkcs8, &public_key).map_err(|error| corrupt(&error))?;
        let algorithm =
            authority_algorithm(row.kind).ok_or_else(|| corrupt(&"its key signs no certificates"))?;
        let validity = x509::validity(&row.certificate).map_err(|error| corrupt(&error))?;
        Ok(Self {
            validity,
            name: row.name,
            role: row.role,
            kind: row.kind,
            issuer: row.issuer,
            certificate: row.certificate,
            algorithm,
            key,
            signed: AtomicU64::new(0),
        })
    }

    /// Whether it certifies those who are no authorities, for this use.
    pub(crate) fn may_certify(&self, environment: Environment) -> bool {
        let development = self.role == Role::Development;
        self.role.certifies_subjects() && (development || !environment.is_sandbox())
    }

    /// The order in which those that could do something are asked: who is valid now, and who is for the longest.
    pub fn preference(&self, now: UnixMillis) -> impl Ord + use<> {
        let (from, to) = self.validity;
        std::cmp::Reverse((from <= now && now <= to, to))
    }

    /// Signs what a document says is to be signed. RSA is verified always, elliptic curves are by sample.
    pub fn sign(&self, to_sign: &[u8]) -> Result<SignatureBytes, Refusal> {
        let signature = self
            .key
            .sign(self.algorithm, to_sign, SM2_DEFAULT_USER_ID)
            .map_err(internal)?;
        let sampled = self.signed.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE);
        if sampled || matches!(self.kind, KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096) {
            let checked = self
                .key
                .check(self.algorithm, to_sign, SM2_DEFAULT_USER_ID, &signature);
            checked.map_err(|_| {
                Refusal::new(
                    Code::SignatureRejected,
                    "the authority's signature does not verify",
                )
            })?;
        }
        Ok(signature)
    }

    /// Signs a text of our own, as `openssl dgst -verify` checks it.
    pub fn sign_message(&self, message: &[u8]) -> Result<SignatureBytes, Refusal> {
        match (self.algorithm, self.algorithm.input()) {
            (Algorithm::Sm2Sm3E, _) => {
                let signed = self.key.sign(Algorithm::Sm2Sm3, message, SM2_DEFAULT_USER_ID);
                signed.map_err(internal)
            }
            (_, InputKind::Digest(hash)) => self.sign(&hash.digest(message)),
            (_, InputKind::Message(_)) => self.sign(message),
        }
    }
}

/// What to certify.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Whose; `None`: an authority's.
    pub holder: Option<Holder>,
    /// The name in the certificate.
    pub subject: Name,
    /// SubjectPublicKeyInfo.
    pub public_key: &'a [u8],
    /// What for.
    pub profile: Profile,
    /// For how long, in days; never beyond the issuer's own certificate.
    pub days: u64,
    /// What the issuer says of itself in it; `None`: what it says in all others.
    pub terms: Option<Terms>,
    /// The profile's name, and whose identity was checked, for the record.
    pub recorded: (&'a str, Option<&'a SubjectId>),
    /// For what its holder uses it.
    pub environment: Environment,
    /// Whether it is counted as a unit of its holder's.
    pub counted: bool,
    /// The subjects whose identities it states.
    pub states: Vec<SubjectId>,
    /// The call that asks for it.
    pub asked: Option<Asked>,
}

/// The authorities of a store.
#[derive(Debug, Default)]
pub struct Authorities {
    pub(crate) list: Vec<Arc<Authority>>,
    pub(crate) responders: Vec<(Arc<Authority>, AuthorityName, ocsp::Responder)>,
    /// Where lists and answers are published, an http URL without a slash at its end.
    pub(crate) base_url: String,
    /// How often delta lists are made, in milliseconds; `None`: there are none.
    pub(crate) delta_ms: Option<u64>,
    pub(crate) profiles: Arc<Profiles>,
}

impl Authorities {
    /// Opens what the store has.
    pub fn load(reader: &Reader, vault: &Vault, base_url: &str) -> Result<Self, Refusal> {
        let rows = reader.authorities().map_err(store_failed)?;
        let opened = rows
            .into_iter()
            .map(|row| Authority::open(row, vault).map(Arc::new));
        let list: Vec<_> = opened.collect::<Result<_, _>>()?;
        let mut responders = Vec::new();
        for delegate in list.iter().filter(|authority| authority.role == Role::Ocsp) {
            let by = delegate.issuer.as_ref();
            let Some(issuer) = list.iter().find(|authority| Some(&authority.name) == by) else {
                continue;
            };
            let responder =
                ocsp::Responder::new(&delegate.certificate, &issuer.certificate, delegate.algorithm);
            responders.push((
                Arc::clone(delegate),
                issuer.name.clone(),
                responder.map_err(internal)?,
            ));
        }
        Ok(Self {
            list,
            responders,
            base_url: base_url.to_owned(),
            delta_ms: None,
            profiles: Arc::default(),
        })
    }

    /// The same with these profiles instead of the built-in ones.
    #[must_use]
    pub fn with_profiles(self, profiles: Arc<Profiles>) -> Self {
        Self { profiles, ..self }
    }

    /// What certificates are for.
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// The same with delta lists between the full ones, made so often (milliseconds).
    #[must_use]
    pub fn with_deltas(self, delta_ms: Option<u64>) -> Self {
        Self { delta_ms, ..self }
    }

    /// All of them, by name.
    pub fn all(&self) -> &[Arc<Authority>] {
        &self.list
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Result<&Arc<Authority>, Refusal> {
        let found = self.list.iter().find(|authority| authority.name.as_str() == name);
        found.ok_or_else(|| Refusal::new(Code::NotFound, format!("no authority '{name}'")))
    }

    /// The certificates from an authority up, itself first, without the root.
    pub fn chain(&self, authority: &Authority) -> Vec<Vec<u8>> {
        let mut chain = Vec::new();
        let mut next = Some(authority);
        while let Some(one) = next.filter(|one| one.issuer.is_some() && chain.len() < self.list.len()) {
            chain.push(one.certificate.clone());
            let by = one.issuer.as_ref();
            next = self
                .list
                .iter()
                .find(|other| Some(&other.name) == by)
                .map(|found| &**found);
        }
        chain
    }

    /// Who certifies a key of this kind: SM2 for SM2, one of the others otherwise; the one that is valid for the longest,
    /// and the first by name of several. What is for trying only is certified by development authorities only.
    pub(crate) fn for_subjects(
        &self,
        kind: KeyKind,
        environment: Environment,
        now: UnixMillis,
    ) -> Option<&Authority> {
        let fits = |authority: &&Arc<Authority>| {
            authority.may_certify(environment) && (authority.kind == KeyKind::Sm2) == (kind == KeyKind::Sm2)
        };
        let all = self.list.iter().filter(fits);
        all.min_by_key(|authority| authority.preference(now))
            .map(|found| &**found)
    }

    /// The same with what a profile says instead.
    pub(crate) fn terms_of(&self, issuer: &Authority, profile: &CertificateProfile) -> Terms {
        let mut terms = self.terms(issuer);
        terms.policies.clone_from(&profile.policies);
        if !profile.crl.is_empty() {
            terms.crl.clone_from(&profile.crl);
        }
        if !profile.ocsp.is_empty() {
            terms.ocsp.clone_from(&profile.ocsp);
        }
        terms
    }

    fn terms(&self, issuer: &Authority) -> Terms {
        Terms {
            crl: vec![format!("{}/crl/{}.crl", self.base_url, issuer.name)],
            ocsp: vec![format!("{}/ocsp", self.base_url)],
            ..Terms::default()
        }
    }

    /// Certifies: what is to be signed is recorded, then signed. The certificate must not leave before the change that
    /// comes with it is made.
    pub fn certify(
        &self,
        ledger: &dyn Ledger,
        issuer: &Authority,
        wanted: Wanted<'_>,
        now: UnixMillis,
    ) -> Result<(Vec<u8>, Change), Refusal> {
        let serial = random_serial()?;
        let (not_before, not_after) = validity(&issuer.certificate, now, wanted.days)?;
        let spec = Spec {
            serial: serial.clone(),
            issuer: x509::Issuer::Holder(issuer.certificate.clone()),
            subject: wanted.subject,
            not_before,
            not_after,
            subject_public_key: wanted.public_key.to_vec(),
            profile: wanted.profile,
            terms: wanted.terms.unwrap_or_else(|| self.terms(issuer)),
        };
        let prepared = x509::prepare(&spec, issuer.algorithm).map_err(usage)?;
        ledger.change(Change::Certificates(CertificateChange::Prepare(Prepared {
            issuer: issuer.name.clone(),
            serial: serial.clone(),
            holder: wanted.holder,
            profile: wanted.recorded.0.to_owned(),
            subject: wanted.recorded.1.cloned(),
            environment: wanted.environment,
            key: key_hash(wanted.public_key),
            counted: wanted.counted,
            tbs: prepared.tbs().to_vec(),
            not_after,
        })))?;
        let signature = issuer.sign(prepared.to_sign())?;
        let certificate = prepared.assemble(&signature).map_err(internal)?;
        let issued = CertificateChange::Issue {
            issuer: issuer.name.clone(),
            serial,
            certificate: certificate.clone(),
            states: wanted.states,
            asked: wanted.asked,
        };
        Ok((certificate, Change::Certificates(issued)))
    }

    /// Suspends, resumes or revokes a certificate, and publishes it. The change stands whether or not the list could be
    /// made: the answer says the list's number, if it could.
    pub fn set_standing(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        certificate: &CertificateRow,
        standing: CertificateStanding,
        now: UnixMillis,
    ) -> Result<Option<u64>, Refusal> {
        ledger.change(Change::Certificates(CertificateChange::SetStanding {
            issuer: certificate.issuer.clone(),
            serial: certificate.serial.clone(),
            standing,
        }))?;
        if is_external(&certificate.issuer) {
            // Its own authority publishes what it says; this counts here.
            return Ok(None);
        }
        let publish = |issuer: &Authority| {
            let published = self.publish_change(ledger, reader, issuer, now);
            published.inspect_err(|error| tracing::error!(%error, "a revocation list could not be made"))
        };
        let compromised = standing
            == CertificateStanding::Revoked {
                reason: Reason::KeyCompromise.number(),
            };
        if compromised {
            // Others may have certified the same key, and that is over with it.
            let others =
                |other: &&Arc<Authority>| other.role.certifies_subjects() && other.name != certificate.issuer;
            self.list.iter().filter(others).for_each(|other| {
                let _ = publish(other);
            });
        }
        let issuer = self.get(certificate.issuer.as_str());
        Ok(issuer.and_then(|issuer| publish(issuer)).ok())
    }
}

/// By what certificates of one key are found.
pub(crate) fn key_hash(public_key: &[u8]) -> [u8; 32] {
    let digest = Hash::Sha256.digest(public_key);
    std::array::from_fn(|at| digest[at])
}

fn random_serial() -> Result<Vec<u8>, Refusal> {
    let mut serial = vec![0; SERIAL_BYTES];
    rand::fill(&mut serial).map_err(internal)?;
    // Positive, and of full length: the first byte is 64 to 127.
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

/// A little in the past, for clocks that are a little behind, and never beyond the issuer's.
fn validity(issuer: &[u8], now: UnixMillis, days: u64) -> Result<(UnixMillis, UnixMillis), Refusal> {
    let (earliest, latest) = x509::validity(issuer).map_err(internal)?;
    if latest <= now {
        return Err(usage("the issuer's own certificate is expired"));
    }
    let not_before = UnixMillis(now.0.saturating_sub(DAY_MS)).max(earliest);
    let not_after = UnixMillis(now.0 + days * DAY_MS).min(latest);
    Ok((not_before, not_after))
}

/// A new authority.
#[derive(Debug)]
pub struct AuthorityPlan {
    /// Its name.
    pub name: AuthorityName,
    /// What it is for.
    pub role: Role,
    /// The kind of its key.
    pub kind: KeyKind,
    /// The name in its certificate.
    pub subject: Name,
    /// Who certifies it; none for a root.
    pub issuer: Option<AuthorityName>,
    /// For how long, in days.
    pub days: u64,
}

/// What was done when an authority was made.
#[derive(Debug)]
pub struct Founded {
    /// Its certificate, in DER.
    pub certificate: Vec<u8>,
    /// The name of the authority that has certified it: its own, for a root.
    pub certified_by: AuthorityName,
}

/// Makes an authority's key and certificate, and records both in one step.
pub fn found(
    authorities: &Authorities,
    ledger: &dyn Ledger,
    vault: &Vault,
    plan: AuthorityPlan,
    now: UnixMillis,
) -> Result<Founded, Refusal> {
    if is_external(&plan.name) {
        return Err(usage(format!("no authority of ours is called {EXTERNAL}")));
    }
    if authorities.get(plan.name.as_str()).is_ok() {
        return Err(Refusal::new(
            Code::AlreadyExists,
            format!("authority '{}' exists already", plan.name),
        ));
    }
    let algorithm = authority_algorithm(plan.kind)
        .ok_or_else(|| usage(format!("authorities do not sign with {} keys", plan.kind)))?;
    let profile = authorities.profiles.get(plan.role.name())?;
    profile.check_kind(plan.role.name(), plan.kind)?;
    let made = soft::generate(plan.kind).map_err(internal)?;
    let wrapped = vault.wrap(&made.pkcs8, &made.public_key).map_err(internal)?;
    let certified_by = plan.issuer.clone().unwrap_or_else(|| plan.name.clone());
    let mut changes = Vec::new();
    let certificate = match &plan.issuer {
        None => {
            let key = SoftKey::new(plan.kind, &made.pkcs8, &made.public_key).map_err(internal)?;
            self_signed(&plan, &key, algorithm, now)?
        }
        Some(issuer) => {
            let issuer = authorities.get(issuer.as_str())?;
            let wanted = Wanted {
                holder: None,
                subject: plan.subject.clone(),
                public_key: &made.public_key,
                profile: subordinate_profile(issuer, plan.role)?,
                days: plan.days,
                terms: Some(authorities.terms_of(issuer, profile)),
                recorded: (plan.role.name(), None),
                environment: Environment::Production,
                counted: false,
                states: Vec::new(),
                asked: None,
            };
            let (certificate, change) = authorities.certify(ledger, issuer, wanted, now)?;
            changes.push(change);
            certificate
        }
    };
    changes.push(Change::Certificates(CertificateChange::AddAuthority(
        AuthorityRow {
            name: plan.name,
            role: plan.role,
            kind: plan.kind,
            issuer: plan.issuer,
            wrapped,
            certificate: certificate.clone(),
        },
    )));
    ledger.changes(changes)?;
    Ok(Founded {
        certificate,
        certified_by,
    })
}

fn subordinate_profile(issuer: &Authority, role: Role) -> Result<Profile, Refusal> {
    let (profile, may) = match role {
        Role::Root | Role::Development => return Err(usage("a root has no issuer")),
        Role::Intermediate => (
            Profile::Intermediate { authorities_below: 1 },
            issuer.role == Role::Root,
        ),
        Role::Issuing => (
            Profile::Issuing,
            matches!(issuer.role, Role::Root | Role::Intermediate),
        ),
        Role::TimeStamping => (Profile::TimeStamping, issuer.role.certifies_subjects()),
        // A delegate is certified by whom it answers for (RFC 6960 4.2.2.2).
        Role::Ocsp => (Profile::OcspResponder, issuer.role.certifies()),
    };
    if may {
        Ok(profile)
    } else {
        let (name, is) = (&issuer.name, issuer.role.name());
        Err(usage(format!(
            "'{name}' is {is} and does not certify the role {}",
            role.name()
        )))
    }
}

fn self_signed(
    plan: &AuthorityPlan,
    key: &SoftKey,
    algorithm: Algorithm,
    now: UnixMillis,
) -> Result<Vec<u8>, Refusal> {
    if plan.role != Role::Root {
        return Err(usage(format!("the role {} needs an issuer", plan.role.name())));
    }
    let spec = Spec {
        serial: random_serial()?,
        issuer: x509::Issuer::Itself,
        subject: plan.subject.clone(),
        not_before: UnixMillis(now.0.saturating_sub(DAY_MS)),
        not_after: UnixMillis(now.0 + plan.days * DAY_MS),
        subject_public_key: key.public().spki().to_vec(),
        profile: Profile::Root,
        terms: Terms::default(),
    };
    let prepared = x509::prepare(&spec, algorithm).map_err(usage)?;
    let signature = key
        .sign(algorithm, prepared.to_sign(), SM2_DEFAULT_USER_ID)
        .map_err(internal)?;
    prepared.assemble(&signature).map_err(internal)
}
