//! The certificate authorities: they issue, suspend and revoke. What they publish is in [`crate::lists`], what they answer
//! for single certificates in [`crate::answers`]. Every step is recorded before it can be seen from outside. Blocking: for operators' threads and
//! the pki threads, never for a core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::rand;
use documents::crl::Reason;
use documents::ocsp;
use documents::x509::{self, Name, Profile, Spec, Terms};
use hsm_pool::device::DeviceKey;
use hsm_pool::pool::Pool;
use hsm_pool::soft::{self, SoftKey};
use protocol::algorithm::{Algorithm, Hash, InputKind, KeyKind};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AuthorityName, SubjectId};
use protocol::verify::{PublicKey, SM2_DEFAULT_USER_ID, SignatureBytes};
use store::{
    Asked, AuthorityKey, AuthorityRow, By, CertificateChange, CertificateRow, CertificateStanding, Change,
    Environment, Holder, Prepared, Reader, Role,
};

use crate::enrolment::{EXTERNAL, is_external};
use crate::keymaster::refuse as device_refused;
use crate::profiles::{CertificateProfile, Profiles};
use crate::registrar::Ledger;
use crate::task::Task;
use crate::vault::{Vault, VaultError};

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
    /// The serial number of its certificate.
    pub serial: Vec<u8>,
    /// Whether its certificate, or that of one above it, is revoked: then it certifies and stamps nothing.
    pub revoked: bool,
    key: Key,
    signed: AtomicU64,
}

/// The devices in which keys of authorities may be; only a running engine has them.
pub type Devices = Option<Arc<Pool<Task>>>;

/// A private key, wherever it is.
enum Key {
    Software(SoftKey),
    Device {
        devices: Devices,
        name: String,
        key: DeviceKey,
    },
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Software(_) => f.write_str("Software"),
            Self::Device { name, .. } => write!(f, "Device({name})"),
        }
    }
}

fn needs_engine() -> Refusal {
    Refusal::new(
        Code::Usage,
        "an authority's key in a device is made and signs only in a running engine",
    )
}

impl Key {
    fn open(
        row: &AuthorityRow,
        public_key: &[u8],
        vault: &Vault,
        devices: &Devices,
    ) -> Result<Self, Refusal> {
        match &row.key {
            AuthorityKey::Software { wrapped } => {
                let pkcs8 = vault.unwrap(wrapped, public_key).map_err(VaultError::refusal)?;
                let key = SoftKey::new(row.kind, &pkcs8, public_key);
                Ok(Self::Software(key.map_err(|error| {
                    Refusal::new(Code::DataCorrupt, error.to_string())
                })?))
            }
            AuthorityKey::Device { device, object } => Ok(Self::Device {
                devices: devices.clone(),
                name: device.clone(),
                key: DeviceKey {
                    object: object.clone(),
                    public_key: public_key.to_vec(),
                    wrapped: None,
                },
            }),
        }
    }

    /// What a device gives is verified there and then; software keys are the caller's to check.
    fn sign(&self, algorithm: Algorithm, to_sign: &[u8]) -> Result<SignatureBytes, Refusal> {
        match self {
            Self::Software(key) => key
                .sign(algorithm, to_sign, SM2_DEFAULT_USER_ID)
                .map_err(internal),
            Self::Device { devices, name, key } => {
                let pool = devices.as_ref().ok_or_else(needs_engine)?;
                let signed = pool.sign_once(name, key, algorithm, to_sign);
                Ok(signed.map_err(|error| device_refused(&error))?.into())
            }
        }
    }

    fn sign_message(&self, algorithm: Algorithm, message: &[u8]) -> Result<SignatureBytes, Refusal> {
        match (algorithm, algorithm.input(), self) {
            (Algorithm::Sm2Sm3E, _, Self::Software(key)) => key
                .sign(Algorithm::Sm2Sm3, message, SM2_DEFAULT_USER_ID)
                .map_err(internal),
            (Algorithm::Sm2Sm3E, _, Self::Device { key, .. }) => {
                let public = PublicKey::from_spki(&key.public_key).map_err(internal)?;
                let e = public.sm2_e(SM2_DEFAULT_USER_ID, message);
                self.sign(algorithm, &e.ok_or_else(|| internal("not an SM2 key"))?)
            }
            (_, InputKind::Digest(hash), _) => self.sign(algorithm, &hash.digest(message)),
            (_, InputKind::Message(_), _) => self.sign(algorithm, message),
        }
    }
}

impl Authority {
    fn open(row: AuthorityRow, revoked: bool, vault: &Vault, devices: &Devices) -> Result<Self, Refusal> {
        let corrupt = |error: &dyn std::fmt::Display| {
            Refusal::new(Code::DataCorrupt, format!("authority '{}': {error}", row.name))
        };
        let public_key = x509::subject_public_key(&row.certificate).map_err(|error| corrupt(&error))?;
        let key = Key::open(&row, &public_key, vault, devices).map_err(|error| corrupt(&error))?;
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
            serial: row.serial,
            revoked,
            key,
            signed: AtomicU64::new(0),
        })
    }

    /// Whether it certifies those who are no authorities, for this use.
    pub(crate) fn may_certify(&self, environment: Environment) -> bool {
        let development = self.role == Role::Development;
        self.role.certifies_subjects() && !self.revoked && (development || !environment.is_sandbox())
    }

    /// The order in which those that could do something are asked: who is valid now, and who is for the longest.
    pub fn preference(&self, now: UnixMillis) -> impl Ord + use<> {
        let (from, to) = self.validity;
        std::cmp::Reverse((from <= now && now <= to && !self.revoked, to))
    }

    /// Where its private key is: the device's name, or nothing.
    pub fn device(&self) -> Option<&str> {
        match &self.key {
            Key::Software(_) => None,
            Key::Device { name, .. } => Some(name),
        }
    }

    /// Signs what a document says is to be signed. RSA is verified always, as is what a device gives; elliptic curves are by
    /// sample.
    pub fn sign(&self, to_sign: &[u8]) -> Result<SignatureBytes, Refusal> {
        let signature = self.key.sign(self.algorithm, to_sign)?;
        let sampled = self.signed.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE);
        let rsa = matches!(self.kind, KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096);
        if let Key::Software(key) = &self.key
            && (sampled || rsa)
        {
            let checked = key.check(self.algorithm, to_sign, SM2_DEFAULT_USER_ID, &signature);
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
        self.key.sign_message(self.algorithm, message)
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
    pub fn load(reader: &Reader, vault: &Vault, devices: &Devices, base_url: &str) -> Result<Self, Refusal> {
        let rows = reader.authorities().map_err(store_failed)?;
        let open = |row: AuthorityRow| {
            let revoked = reader.is_revoked(&row.name).map_err(store_failed)?;
            Authority::open(row, revoked, vault, devices).map(Arc::new)
        };
        let list: Vec<_> = rows.into_iter().map(open).collect::<Result<_, _>>()?;
        let mut responders = Vec::new();
        for delegate in list.iter().filter(|authority| authority.role == Role::Ocsp) {
            if is_certificate_revoked(reader, delegate)? {
                continue;
            }
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

    /// Another certificate for the key of an authority, by the same issuer, for the same name.
    pub fn renew(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        name: &str,
        days: Option<u64>,
        now: UnixMillis,
    ) -> Result<Founded, Refusal> {
        check_clock(reader, now)?;
        let authority = self.get(name)?;
        let profile = self.profiles.get(authority.role.name())?;
        let public_key = x509::subject_public_key(&authority.certificate).map_err(internal)?;
        let plan = AuthorityPlan {
            name: authority.name.clone(),
            role: authority.role,
            kind: authority.kind,
            subject: x509::subject_name(&authority.certificate).map_err(internal)?,
            issuer: authority.issuer.clone(),
            days: days.unwrap_or(profile.days),
            device: None,
        };
        let (certificate, change) = self.certificate_of(ledger, &plan, &authority.key, &public_key, now)?;
        let renewed = CertificateChange::RenewAuthority {
            name: plan.name.clone(),
            certificate: certificate.clone(),
            serial: x509::serial_number(&certificate).map_err(internal)?,
        };
        ledger.changes(vec![change, Change::Certificates(renewed)])?;
        Ok(Founded {
            certificate,
            certified_by: plan.issuer.unwrap_or(plan.name),
        })
    }

    /// Revokes an authority: its issuer's list says so, and no credential that it or one below it has certified signs any
    /// more.
    pub fn revoke(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        name: &str,
        reason: Reason,
        now: UnixMillis,
    ) -> Result<Option<u64>, Refusal> {
        let authority = self.get(name)?;
        let itself = || {
            let text = format!(
                "'{name}' has certified itself: nobody's list can revoke it; whoever trusts it must stop"
            );
            Refusal::new(Code::Usage, text)
        };
        let issuer = authority.issuer.as_ref().ok_or_else(itself)?;
        let row = reader
            .certificate(issuer, &authority.serial)
            .map_err(store_failed)?;
        let row = row.ok_or_else(|| internal("the authority's certificate is not on record"))?;
        let reason = reason.number();
        let change = (CertificateStanding::Revoked { reason }, By::Operator);
        self.set_standing(ledger, reader, &row, change, now)
    }

    /// The certificate of an authority, signed and not yet given out, and what records it.
    fn certificate_of(
        &self,
        ledger: &dyn Ledger,
        plan: &AuthorityPlan,
        key: &Key,
        public_key: &[u8],
        now: UnixMillis,
    ) -> Result<(Vec<u8>, Change), Refusal> {
        let profile = self.profiles.get(plan.role.name())?;
        let Some(issuer) = &plan.issuer else {
            return self_signed(ledger, plan, key, public_key, now);
        };
        let issuer = self.get(issuer.as_str())?;
        let wanted = Wanted {
            holder: None,
            subject: plan.subject.clone(),
            public_key,
            profile: subordinate_profile(issuer, plan.role, profile)?,
            days: plan.days,
            terms: Some(self.terms_of(issuer, profile)),
            recorded: (plan.role.name(), None),
            environment: Environment::Production,
            counted: false,
            states: Vec::new(),
            asked: None,
        };
        self.certify(ledger, issuer, wanted, now)
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
        if issuer.revoked {
            let text = format!("authority '{}', or one above it, is revoked", issuer.name);
            return Err(Refusal::new(Code::WrongState, text));
        }
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
        (standing, by): (CertificateStanding, By),
        now: UnixMillis,
    ) -> Result<Option<u64>, Refusal> {
        ledger.change(Change::Certificates(CertificateChange::SetStanding {
            issuer: certificate.issuer.clone(),
            serial: certificate.serial.clone(),
            standing,
            by,
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
    if latest <= now || now < earliest {
        let text = "the issuer's own certificate is expired, or not valid yet";
        return Err(Refusal::new(Code::AuthorityUnavailable, text));
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
    /// The device in which its key is made and stays; `None`: it is a software key.
    pub device: Option<String>,
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
    (vault, devices): (&Vault, &Devices),
    plan: AuthorityPlan,
    now: UnixMillis,
) -> Result<Founded, Refusal> {
    check_plan(authorities, &plan)?;
    let (recorded, public_key) = make_key(&plan, vault, devices)?;
    let made = record(
        authorities,
        ledger,
        (vault, devices),
        &plan,
        (&recorded, &public_key),
        now,
    );
    if made.is_err()
        && let (AuthorityKey::Device { device, object }, Some(pool)) = (&recorded, devices)
    {
        // Best effort: the key was never recorded, so it is never used.
        let _ = pool.destroy(device, object);
    }
    made
}

fn check_plan(authorities: &Authorities, plan: &AuthorityPlan) -> Result<(), Refusal> {
    if is_external(&plan.name) {
        return Err(usage(format!("no authority of ours is called {EXTERNAL}")));
    }
    if authorities.get(plan.name.as_str()).is_ok() {
        return Err(Refusal::new(
            Code::AlreadyExists,
            format!("authority '{}' exists already", plan.name),
        ));
    }
    if plan.device.is_some() && !plan.role.certifies() {
        return Err(usage(format!(
            "the role {} signs on the threads that answer, with software keys; devices are for those who certify",
            plan.role.name()
        )));
    }
    let profile = authorities.profiles.get(plan.role.name())?;
    if !profile.enabled {
        return Err(usage(format!(
            "authorities of the profile {} are not made here (certificate_profile)",
            plan.role.name()
        )));
    }
    if authority_algorithm(plan.kind).is_none() {
        return Err(usage(format!("authorities do not sign with {} keys", plan.kind)));
    }
    profile.check_kind(plan.role.name(), plan.kind)
}

/// A new key, as it is recorded, and its public half.
fn make_key(
    plan: &AuthorityPlan,
    vault: &Vault,
    devices: &Devices,
) -> Result<(AuthorityKey, Vec<u8>), Refusal> {
    let Some(device) = &plan.device else {
        let made = soft::generate(plan.kind).map_err(internal)?;
        let wrapped = vault.wrap(&made.pkcs8, &made.public_key).map_err(internal)?;
        return Ok((AuthorityKey::Software { wrapped }, made.public_key));
    };
    let pool = devices.as_ref().ok_or_else(needs_engine)?;
    let name = format!("authority/{}", plan.name);
    let made = pool.generate(device, plan.kind, &name, None);
    let made = made.map_err(|error| device_refused(&error))?;
    pool.prove(device, &made)
        .map_err(|error| device_refused(&error))?;
    let key = AuthorityKey::Device {
        device: device.clone(),
        object: made.object,
    };
    Ok((key, made.public_key))
}

fn record(
    authorities: &Authorities,
    ledger: &dyn Ledger,
    (vault, devices): (&Vault, &Devices),
    plan: &AuthorityPlan,
    (recorded, public_key): (&AuthorityKey, &[u8]),
    now: UnixMillis,
) -> Result<Founded, Refusal> {
    let mut row = AuthorityRow {
        name: plan.name.clone(),
        role: plan.role,
        kind: plan.kind,
        issuer: plan.issuer.clone(),
        key: recorded.clone(),
        certificate: Vec::new(),
        serial: Vec::new(),
    };
    let key = Key::open(&row, public_key, vault, devices)?;
    let (certificate, change) = authorities.certificate_of(ledger, plan, &key, public_key, now)?;
    row.serial = x509::serial_number(&certificate).map_err(internal)?;
    row.certificate.clone_from(&certificate);
    let added = CertificateChange::AddAuthority(row);
    ledger.changes(vec![change, Change::Certificates(added)])?;
    Ok(Founded {
        certificate,
        certified_by: plan.issuer.clone().unwrap_or_else(|| plan.name.clone()),
    })
}

/// Whether the certificate of an authority itself is revoked, whatever is above it.
fn is_certificate_revoked(reader: &Reader, authority: &Authority) -> Result<bool, Refusal> {
    let Some(issuer) = &authority.issuer else {
        return Ok(false);
    };
    let row = reader
        .certificate(issuer, &authority.serial)
        .map_err(store_failed)?;
    Ok(row.is_some_and(|row| matches!(row.standing, CertificateStanding::Revoked { .. })))
}

/// A clock may be a little behind what is on record: clocks are set. More than that, in milliseconds, and nothing is
/// certified before somebody has looked.
const CLOCK_BEHIND_MS_MAX: u64 = 60_000;

/// Whether the clock can be right: what is on record was not recorded in the future.
pub fn check_clock(reader: &Reader, now: UnixMillis) -> Result<(), Refusal> {
    let last = reader.last_certified().map_err(store_failed)?;
    let behind = last.0.saturating_sub(now.0);
    if behind <= CLOCK_BEHIND_MS_MAX {
        return Ok(());
    }
    tracing::error!(behind_ms = behind, "the clock was set back: nothing is certified");
    let text = format!("the clock is {behind} ms behind what was certified last: nothing is certified");
    Err(Refusal::new(Code::ClockBehind, text))
}

fn subordinate_profile(
    issuer: &Authority,
    role: Role,
    profile: &CertificateProfile,
) -> Result<Profile, Refusal> {
    let may = match role {
        Role::Root | Role::Development => return Err(usage("a root has no issuer")),
        Role::Intermediate => issuer.role == Role::Root,
        Role::Issuing => matches!(issuer.role, Role::Root | Role::Intermediate),
        Role::TimeStamping => issuer.role.certifies_subjects(),
        // A delegate is certified by whom it answers for (RFC 6960 4.2.2.2).
        Role::Ocsp => issuer.role.certifies(),
    };
    if may {
        Ok(profile.base.clone())
    } else {
        let (name, is) = (&issuer.name, issuer.role.name());
        Err(usage(format!(
            "'{name}' is {is} and does not certify the role {}",
            role.name()
        )))
    }
}

/// A root's certificate: recorded before it is signed, like all others.
fn self_signed(
    ledger: &dyn Ledger,
    plan: &AuthorityPlan,
    key: &Key,
    public_key: &[u8],
    now: UnixMillis,
) -> Result<(Vec<u8>, Change), Refusal> {
    if !matches!(plan.role, Role::Root | Role::Development) {
        return Err(usage(format!("the role {} needs an issuer", plan.role.name())));
    }
    let algorithm = authority_algorithm(plan.kind)
        .ok_or_else(|| usage(format!("authorities do not sign with {} keys", plan.kind)))?;
    let serial = random_serial()?;
    let spec = Spec {
        serial: serial.clone(),
        issuer: x509::Issuer::Itself,
        subject: plan.subject.clone(),
        not_before: UnixMillis(now.0.saturating_sub(DAY_MS)),
        not_after: UnixMillis(now.0 + plan.days * DAY_MS),
        subject_public_key: public_key.to_vec(),
        profile: Profile::Root,
        terms: Terms::default(),
    };
    let prepared = x509::prepare(&spec, algorithm).map_err(usage)?;
    ledger.change(Change::Certificates(CertificateChange::Prepare(Prepared {
        issuer: plan.name.clone(),
        serial: serial.clone(),
        holder: None,
        profile: plan.role.name().to_owned(),
        subject: None,
        environment: Environment::Production,
        key: key_hash(public_key),
        counted: false,
        tbs: prepared.tbs().to_vec(),
        not_after: spec.not_after,
    })))?;
    let signature = key.sign(algorithm, prepared.to_sign())?;
    let certificate = prepared.assemble(&signature).map_err(internal)?;
    let issued = CertificateChange::Issue {
        issuer: plan.name.clone(),
        serial,
        certificate: certificate.clone(),
        states: Vec::new(),
        asked: None,
    };
    Ok((certificate, Change::Certificates(issued)))
}
