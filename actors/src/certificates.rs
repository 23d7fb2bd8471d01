//! The certificate authorities: they issue, suspend and revoke, publish lists of what they have revoked, and answer for
//! single certificates. Every step is recorded before it can be seen from outside. Blocking: for operators' threads and
//! the pki threads, never for a core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::rand;
use documents::crl::{self, Reason};
use documents::ocsp;
use documents::x509::{self, Name, NameParts, Profile, Spec, Terms};
use hsm_pool::soft::{self, SoftKey};
use protocol::algorithm::{Algorithm, InputKind, KeyKind};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::AuthorityName;
use protocol::verify::{SM2_DEFAULT_USER_ID, SignatureBytes};
use store::{
    AuthorityRow, CertificateChange, CertificateRow, CertificateStanding, Change, Holder, KeptCrl, Prepared,
    Reader, Role,
};

use crate::registrar::{Issued, Issuer, Ledger};
use crate::vault::Vault;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// How long a credential's certificate is valid, in days.
const SUBJECT_DAYS: u64 = 825;
/// How long a revocation list is good, in milliseconds.
const LIST_MS: u64 = 24 * HOUR_MS;
/// From this age on a list is replaced, in milliseconds: half of its life is left for those who fetch it late.
const LIST_RENEWED_MS: u64 = LIST_MS / 2;
/// How long an answer about a certificate may be kept, in milliseconds.
const ANSWER_MS: u64 = HOUR_MS;
/// Bytes of a serial number, all of them random but for two bits.
const SERIAL_BYTES: usize = 16;
/// One in so many signatures of elliptic curves is verified in full (SEMANTICS 3.1).
const SAMPLE: u64 = 64;

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Internal, format!("certificates: {error}"))
}

fn usage(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Usage, error.to_string())
}

fn store_failed(error: store::StoreError) -> Refusal {
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
        Ok(Self {
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
}

/// The authorities of a store.
#[derive(Debug, Default)]
pub struct Authorities {
    list: Vec<Arc<Authority>>,
    responders: Vec<(Arc<Authority>, AuthorityName, ocsp::Responder)>,
    /// Where lists and answers are published, an http URL without a slash at its end.
    base_url: String,
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
        })
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

    /// Who certifies a credential's key of this kind: SM2 for SM2, and the first by name of the others otherwise.
    fn for_subjects(&self, kind: KeyKind) -> Option<&Arc<Authority>> {
        let fits = |authority: &&Arc<Authority>| {
            authority.role.certifies_subjects() && (authority.kind == KeyKind::Sm2) == (kind == KeyKind::Sm2)
        };
        self.list.iter().find(fits)
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
            terms: self.terms(issuer),
        };
        let prepared = x509::prepare(&spec, issuer.algorithm).map_err(usage)?;
        ledger.change(Change::Certificates(CertificateChange::Prepare(Prepared {
            issuer: issuer.name.clone(),
            serial: serial.clone(),
            holder: wanted.holder,
            tbs: prepared.tbs().to_vec(),
            not_after,
        })))?;
        let signature = issuer.sign(prepared.to_sign())?;
        let certificate = prepared.assemble(&signature).map_err(internal)?;
        let issued = CertificateChange::Issue {
            issuer: issuer.name.clone(),
            serial,
            certificate: certificate.clone(),
        };
        Ok((certificate, Change::Certificates(issued)))
    }

    /// Makes and keeps a revocation list, and only then returns it.
    pub fn publish(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        issuer: &Authority,
        now: UnixMillis,
    ) -> Result<u64, Refusal> {
        const TRIES: usize = 3;
        let mut result = self.publish_once(ledger, reader, issuer, now);
        for _ in 1..TRIES {
            match &result {
                // Somebody else's list came first, and may not know what this one has to say.
                Err(refusal) if refusal.code == Code::AlreadyExists => {
                    result = self.publish_once(ledger, reader, issuer, now);
                }
                _ => break,
            }
        }
        result
    }

    fn publish_once(
        &self,
        ledger: &dyn Ledger,
        reader: &Reader,
        issuer: &Authority,
        now: UnixMillis,
    ) -> Result<u64, Refusal> {
        // The number is read before the entries: a list with a higher number never knows less.
        let number = reader.next_crl(&issuer.name).map_err(store_failed)?;
        let rows = reader.revoked(&issuer.name, now).map_err(store_failed)?;
        let spec = crl::Spec {
            issuer: &issuer.certificate,
            number,
            kind: crl::Kind::Full,
            this_update: now,
            next_update: UnixMillis(now.0 + LIST_MS),
            scope: None,
            delta_locations: Vec::new(),
        };
        let revoked = rows.iter().map(|row| crl::Revoked {
            serial: &row.serial,
            at: row.at,
            reason: Reason::from_number(row.reason).unwrap_or(Reason::Unspecified),
            invalid_since: None,
        });
        let prepared = crl::prepare(&spec, revoked, issuer.algorithm).map_err(internal)?;
        let signature = issuer.sign(prepared.to_sign())?;
        ledger.change(Change::Certificates(CertificateChange::KeepCrl {
            issuer: issuer.name.clone(),
            number,
            der: prepared.assemble(&signature).map_err(internal)?,
        }))?;
        Ok(number)
    }

    /// Publishes every list that is missing or has lived half of its life, and those of a store that was restored.
    pub fn publish_due(&self, ledger: &dyn Ledger, reader: &Reader, now: UnixMillis) -> Result<(), Refusal> {
        for issuer in self.list.iter().filter(|authority| authority.role.certifies()) {
            let last = reader.crl(&issuer.name).map_err(store_failed)?;
            let next = reader.next_crl(&issuer.name).map_err(store_failed)?;
            let due =
                |last: KeptCrl| last.number + 1 < next || now.0.abs_diff(last.made_at.0) >= LIST_RENEWED_MS;
            if last.is_none_or(due) {
                self.publish(ledger, reader, issuer, now)?;
            }
        }
        Ok(())
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
        let published = self
            .get(certificate.issuer.as_str())
            .and_then(|issuer| self.publish(ledger, reader, issuer, now));
        Ok(published
            .inspect_err(|error| tracing::error!(%error, "a revocation list could not be made"))
            .ok())
    }

    /// Answers an OCSP request: OCSPResponse, in DER.
    pub fn answer(&self, reader: &Reader, request: &ocsp::Request, now: UnixMillis) -> Vec<u8> {
        self.try_answer(reader, request, now)
            .unwrap_or_else(|refusal| refusal.to_der().to_vec())
    }

    fn try_answer(
        &self,
        reader: &Reader,
        request: &ocsp::Request,
        now: UnixMillis,
    ) -> Result<Vec<u8>, ocsp::Refusal> {
        let first = request.ids.first().ok_or(ocsp::Refusal::MalformedRequest)?;
        let mut responders = self.responders.iter();
        let (delegate, issuer, responder) = responders
            .find(|(_, _, responder)| first.is_of(responder.issuer()))
            .ok_or(ocsp::Refusal::Unauthorized)?;
        let mut singles = Vec::with_capacity(request.ids.len());
        for id in &request.ids {
            let status = match id.serial().filter(|_| id.is_of(responder.issuer())) {
                Some(serial) => status(reader, issuer, serial).map_err(|error| {
                    tracing::error!(%error, "OCSP");
                    ocsp::Refusal::InternalError
                })?,
                None => ocsp::Status::Unknown,
            };
            singles.push(ocsp::Single {
                id,
                status,
                this_update: now,
                next_update: Some(UnixMillis(now.0 + ANSWER_MS)),
            });
        }
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "OCSP");
            ocsp::Refusal::InternalError
        };
        let prepared = responder
            .prepare(&singles, now, request.nonce.as_deref())
            .map_err(|error| failed(&error))?;
        let signature = delegate
            .sign(prepared.to_sign())
            .map_err(|error| failed(&error))?;
        prepared.assemble(&signature).map_err(|error| failed(&error))
    }
}

/// What is only prepared was never given out, and is as unknown as what never was.
fn status(reader: &Reader, issuer: &AuthorityName, serial: &[u8]) -> Result<ocsp::Status, store::StoreError> {
    let Some(found) = reader.certificate(issuer, serial)? else {
        return Ok(ocsp::Status::Unknown);
    };
    let reason = match found.standing {
        CertificateStanding::Prepared => return Ok(ocsp::Status::Unknown),
        CertificateStanding::Issued => return Ok(ocsp::Status::Good),
        CertificateStanding::Suspended => Reason::CertificateHold,
        CertificateStanding::Revoked { reason } => Reason::from_number(reason).unwrap_or(Reason::Unspecified),
    };
    Ok(ocsp::Status::Revoked {
        at: found.since,
        reason,
    })
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

impl Issuer for Authorities {
    fn issue(
        &self,
        ledger: &dyn Ledger,
        holder: Holder,
        public_key: &[u8],
        kind: KeyKind,
        now: UnixMillis,
    ) -> Result<Option<Issued>, Refusal> {
        let Some(issuer) = self.for_subjects(kind) else {
            return Ok(None);
        };
        let common_name = format!("{} {}", holder.tenant, holder.credential);
        let development = issuer.role == Role::Development;
        let organization = if development {
            "Cinnabar development"
        } else {
            holder.tenant.as_str()
        };
        let parts = NameParts {
            country: Some("CN"),
            organization: Some(organization),
            common_name: Some(&common_name),
        };
        let wanted = Wanted {
            subject: parts.try_into().map_err(usage)?,
            holder: Some(holder),
            public_key,
            profile: Profile::Signer,
            days: SUBJECT_DAYS,
        };
        let (certificate, change) = self.certify(ledger, issuer, wanted, now)?;
        let mut chain = vec![certificate];
        chain.extend(self.chain(issuer));
        Ok(Some(Issued { chain, change }))
    }
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
    if authorities.get(plan.name.as_str()).is_ok() {
        return Err(Refusal::new(
            Code::AlreadyExists,
            format!("authority '{}' exists already", plan.name),
        ));
    }
    let algorithm = authority_algorithm(plan.kind)
        .ok_or_else(|| usage(format!("authorities do not sign with {} keys", plan.kind)))?;
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
        Role::Issuing => (Profile::Issuing, issuer.role == Role::Root),
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
