//! Enrolment: from a wish for a certificate to a certificate on record. It checks whose identity is approved and what the
//! profile allows, has an authority certify, and records what comes of it in one step; it makes requests for other
//! authorities and takes in what they answer. Blocking: for operators' threads and the registration desk, never for a core.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use documents::csr;
use documents::x509::{self, Name, PathRules, PolicyRules, Terms};
use hsm_pool::device::DeviceKey;
use hsm_pool::keys::WrappedKey;
use hsm_pool::pool::Pool;
use hsm_pool::soft::SoftKey;
use protocol::algorithm::{Algorithm, KeyKind};
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AppId, AuthorityName, CredentialId, SubjectId, TenantName};
use protocol::verify::{PublicKey, SM2_DEFAULT_USER_ID};
use serde_json::{Value, json};
use store::{
    Asked, CertificateChange, CertificateNumber, CertificateRow, CertificateStanding, Change, Credential,
    Environment, Holder, Place, Prepared, Reader, Renewal, SubjectState, Validity,
};

use crate::bill::moment;
use crate::certificates::{Authorities, Authority, Wanted, authority_algorithm, check_clock, key_hash};
use crate::keymaster::{Keymaster, refuse as device_refused};
use crate::profiles::{self, CertificateProfile, Names, Proof};
use crate::registrar::{Certify, Issued, Issuer, Ledger};
use crate::subjects;
use crate::task::Task;
use crate::vault::{Vault, VaultError};

/// Who has signed a certificate that came from elsewhere, as far as this engine is concerned.
pub const EXTERNAL: &str = "external";

/// Whether that is none of our authorities.
pub fn is_external(issuer: &AuthorityName) -> bool {
    issuer.as_str().starts_with(EXTERNAL)
}

/// Organization of the development authority's certificates.
const DEVELOPMENT: &str = "Cinnabar development";

fn refused(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::RequestRefused, error.to_string())
}

fn chain_refused(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::ChainRefused, error.to_string())
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Internal, format!("enrolment: {error}"))
}

fn wrong_state(text: String) -> Refusal {
    Refusal::new(Code::WrongState, text)
}

/// What somebody wants a certificate for.
#[derive(Clone, Debug)]
pub struct Application {
    /// Whose.
    pub tenant: TenantName,
    /// By its name.
    pub profile: String,
    /// Whose identity it states.
    pub subject: Option<SubjectId>,
    /// By which authority; `None`: the first whose key fits.
    pub issuer: Option<AuthorityName>,
    /// The call that asks.
    pub asked: Option<Asked>,
    /// For what it is used; nothing is counted that is for trying only.
    pub environment: Environment,
}

/// A certificate that is on record.
#[derive(Debug)]
pub struct Certified {
    /// The certificate first, then its issuers', without the root.
    pub chain: Vec<Vec<u8>>,
}

impl Certified {
    /// As whoever asked sees it.
    pub fn show(&self, row: Option<&CertificateRow>) -> Value {
        let mut value = row.map_or_else(|| json!({}), show);
        let chain: Vec<String> = self.chain.iter().map(|der| x509::to_pem(der)).collect();
        value["certificate"] = json!(chain.first());
        value["chain"] = json!(chain);
        value
    }
}

/// A certificate as operators and apps see it.
pub fn show(row: &CertificateRow) -> Value {
    use documents::crl::Reason;
    let reason = match row.standing {
        CertificateStanding::Suspended => Some(Reason::CertificateHold),
        CertificateStanding::Revoked { reason } => Reason::from_number(reason),
        CertificateStanding::Prepared | CertificateStanding::Issued => None,
    };
    let signed = row.standing != CertificateStanding::Prepared;
    json!({
        "credential": row.holder.as_ref().and_then(|holder| holder.credential.as_ref()),
        "profile": row.profile,
        "subject": row.subject,
        "issuer": if is_external(&row.issuer) { EXTERNAL } else { row.issuer.as_str() },
        "serial": hex(&row.serial),
        "standing": row.standing.name(),
        "reason": reason.map(Reason::name),
        "since_ms": row.since.0,
        "not_after": moment(row.not_after),
        "not_after_ms": row.not_after.0,
        "certificate": signed.then(|| x509::to_pem(&row.der)),
        // What was to be signed and never was given out.
        "to_be_signed": (!signed).then(|| STANDARD.encode(&row.der)),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names whose identity was checked.
#[derive(Default)]
struct Identity {
    organization: String,
    person: String,
    /// Whose identities were checked.
    subjects: Vec<SubjectId>,
}

/// Works on certificates of subjects.
pub struct Enrolment<'a> {
    /// Who certifies.
    pub authorities: &'a Authorities,
    /// Where changes go.
    pub ledger: &'a dyn Ledger,
    /// What is known.
    pub reader: &'a Reader,
    /// What opens names and keys.
    pub vault: &'a Vault,
    /// For keys in devices: only a running engine has one.
    pub pool: Option<&'a Pool<Task>>,
}

impl Enrolment<'_> {
    /// Certifies a key that is not here, by its request (PKCS#10).
    pub fn issue_for_request(
        &self,
        application: Application,
        request: &[u8],
        now: UnixMillis,
    ) -> Result<Certified, Refusal> {
        let request = csr::Request::parse(request).map_err(refused)?;
        let holder = Holder {
            tenant: application.tenant.clone(),
            credential: None,
        };
        let issued = self.certify(&application, holder, &request.public_key, Some(&request), now)?;
        self.ledger.change(issued.change)?;
        Ok(Certified { chain: issued.chain })
    }

    /// Certifies the key of a credential, or a new one that takes its place.
    pub fn issue_for_credential(
        &self,
        mut application: Application,
        id: &CredentialId,
        new_key: bool,
        now: UnixMillis,
    ) -> Result<Certified, Refusal> {
        let tenant = application.tenant.clone();
        let credential = self.credential(&tenant, id)?;
        application.environment = credential.environment;
        let seen = (credential.key, self.last_in_force(&tenant, id)?);
        let (public_key, key) = match new_key {
            true => {
                let key = self.keymaster().successor(&tenant, &credential)?;
                (key.public_key.to_vec(), Some(key))
            }
            false => (self.public_key(&credential)?, None),
        };
        let holder = Holder {
            tenant: tenant.clone(),
            credential: Some(id.clone()),
        };
        let issued = self.certify(&application, holder, &public_key, None, now)?;
        let renewal = Change::Renew(Renewal {
            tenant,
            id: id.clone(),
            seen,
            chain: issued.chain.clone(),
            validity: issued.validity,
            key,
        });
        let old = credential.place();
        self.ledger.changes(vec![renewal, issued.change])?;
        if new_key {
            self.forget(&credential, &old);
        }
        Ok(Certified { chain: issued.chain })
    }

    /// Renews what a credential was certified for last.
    pub fn renew(
        &self,
        tenant: &TenantName,
        id: &CredentialId,
        (new_key, asked): (bool, Option<Asked>),
        now: UnixMillis,
    ) -> Result<Certified, Refusal> {
        self.credential(tenant, id)?;
        let none = || wrong_state(format!("credential '{id}' has no certificate of ours to renew"));
        let last = self.last_certificate(tenant, id)?.ok_or_else(none)?;
        if is_external(&last.issuer) {
            let text =
                "its certificate came from another authority: make a request for that one (`cert request`)";
            return Err(wrong_state(format!("credential '{id}': {text}")));
        }
        let application = Application {
            tenant: tenant.clone(),
            profile: last.profile,
            subject: last.subject,
            issuer: Some(last.issuer),
            asked,
            environment: last.environment,
        };
        self.issue_for_credential(application, id, new_key, now)
    }

    /// A request for the key of a credential (PKCS#10, DER), for another authority.
    pub fn request(
        &self,
        tenant: &TenantName,
        id: &CredentialId,
        subject: Option<Name>,
    ) -> Result<Vec<u8>, Refusal> {
        let credential = self.credential(tenant, id)?;
        let public_key = self.public_key(&credential)?;
        let subject = match subject {
            Some(subject) => subject,
            None => {
                let names = Names {
                    organization: tenant.as_str(),
                    tenant: tenant.as_str(),
                    credential: id.as_str(),
                    ..Names::default()
                };
                let profile = self.authorities.profiles().get(profiles::CREDENTIAL)?;
                profile.template.fill(&names).map_err(refused)?
            }
        };
        let algorithm = authority_algorithm(credential.kind).unwrap_or(Algorithm::Ed25519);
        let prepared = csr::prepare(&subject, &public_key, algorithm).map_err(refused)?;
        let digest = protocol::algorithm::Hash::Sha256.digest(prepared.to_sign());
        self.ledger
            .change(Change::Certificates(CertificateChange::ExportRequest {
                tenant: tenant.clone(),
                credential: id.clone(),
                digest: std::array::from_fn(|at| digest[at]),
            }))?;
        let signature = self.sign(tenant, &credential, &public_key, algorithm, prepared.to_sign())?;
        prepared.assemble(&signature).map_err(internal)
    }

    /// Takes in what another authority has answered: the credential's certificate, those of its issuers, and the root
    /// last, unless `root` has it.
    pub fn import(
        &self,
        tenant: &TenantName,
        id: &CredentialId,
        (chain, root): (Vec<Vec<u8>>, Option<Vec<u8>>),
        now: UnixMillis,
    ) -> Result<Certified, Refusal> {
        let credential = self.credential(tenant, id)?;
        let seen = (credential.key, self.last_in_force(tenant, id)?);
        let mut all = chain;
        all.extend(root);
        let key = self.public_key(&credential)?;
        let checked = csr::check_chain_of_key(&key, &all, now).map_err(chain_refused)?;
        if !checked.reaches_root {
            let text = "the chain does not reach a root that certifies itself; give that, too";
            return Err(chain_refused(text));
        }
        let (anchor, path) = checked
            .certificates
            .split_last()
            .ok_or_else(|| internal("no root"))?;
        let Some((leaf, others)) = path.split_first() else {
            return Err(chain_refused("the credential's key would certify itself"));
        };
        let rules = PathRules {
            at: now,
            purposes: &[],
            policies: PolicyRules::default(),
            revocation: None,
        };
        x509::validate_path(leaf, others, &[anchor], &rules).map_err(chain_refused)?;
        let validity = common_validity(&checked.certificates)?;
        let holder = Holder {
            tenant: tenant.clone(),
            credential: Some(id.clone()),
        };
        let mut changes = vec![Change::Renew(Renewal {
            tenant: tenant.clone(),
            id: id.clone(),
            seen,
            chain: path.to_vec(),
            validity,
            key: None,
        })];
        changes.extend(external(leaf, (holder, credential.environment), &key, validity)?);
        self.ledger.changes(changes)?;
        Ok(Certified { chain: path.to_vec() })
    }

    /// What a call has brought before. The same key for another request is the caller's mistake.
    pub fn asked_before(&self, asked: &Asked) -> Result<Option<CertificateRow>, Refusal> {
        let found = self.reader.certificate_asked(&asked.app, &asked.key);
        match found.map_err(|error| error.refusal())? {
            Some(row) if row.request != Some(asked.request) => Err(crate::shard::reused()),
            other => Ok(other),
        }
    }

    /// What a certificate of a tenant is, by its serial number.
    pub fn by_serial(
        &self,
        of: (&TenantName, Option<Environment>),
        serial: &str,
    ) -> Result<CertificateRow, Refusal> {
        let missing = || Refusal::new(Code::NotFound, "no such certificate");
        let bytes = subjects::unhex(serial).ok_or_else(missing)?;
        let found = self.reader.certificates_by_serial(of, &bytes);
        found.map_err(|error| error.refusal())?.pop().ok_or_else(missing)
    }

    pub(crate) fn credential(
        &self,
        tenant: &TenantName,
        id: &CredentialId,
    ) -> Result<std::sync::Arc<Credential>, Refusal> {
        let found = self.ledger.tenant(tenant)?.credential(id.as_str());
        found.ok_or_else(|| Refusal::new(Code::NotFound, format!("no credential '{id}'")))
    }

    /// The newest certificate of a credential that was ever in force.
    pub(crate) fn last_certificate(
        &self,
        tenant: &TenantName,
        id: &CredentialId,
    ) -> Result<Option<CertificateRow>, Refusal> {
        let found = self.reader.last_certificate(tenant, id);
        found.map_err(|error| error.refusal())
    }

    /// The same, and an error if that is not in force.
    fn last_in_force(
        &self,
        tenant: &TenantName,
        id: &CredentialId,
    ) -> Result<Option<CertificateNumber>, Refusal> {
        match self.last_certificate(tenant, id)? {
            Some(last) if last.standing != CertificateStanding::Issued => {
                let (name, is) = (hex(&last.serial), last.standing.name());
                Err(wrong_state(format!(
                    "the last certificate of '{id}', {name}, is {is}: another would not bring the credential back"
                )))
            }
            last => Ok(last.map(|last| last.number)),
        }
    }

    pub(crate) fn public_key(&self, credential: &Credential) -> Result<Vec<u8>, Refusal> {
        if credential.place() == Place::Destroyed {
            let text = format!("the key of credential '{}' is destroyed", credential.id);
            return Err(Refusal::new(Code::CredentialDisabled, text));
        }
        let stored = self.reader.key(credential.key).map_err(|error| error.refusal())?;
        let stored = stored.ok_or_else(|| Refusal::new(Code::DataCorrupt, "the credential has no key"))?;
        Ok(stored.public_key)
    }

    fn keymaster(&self) -> Keymaster<'_> {
        Keymaster {
            ledger: self.ledger,
            vault: self.vault,
            reader: self.reader,
            pool: self.pool,
            issuer: None,
        }
    }

    /// The old key is out of the store by now; it goes out of memory and devices, too.
    fn forget(&self, credential: &Credential, place: &Place) {
        let Some(pool) = self.pool else { return };
        pool.forget(credential.key);
        if let Place::Device { devices, object } = place {
            for device in devices.iter() {
                if let Err(error) = pool.destroy(device, object) {
                    tracing::error!(device = &**device, %error, "a replaced key is still in a device");
                }
            }
        }
    }

    pub(crate) fn sign(
        &self,
        tenant: &TenantName,
        credential: &Credential,
        public_key: &[u8],
        algorithm: Algorithm,
        to_sign: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let stored = self.reader.key(credential.key).map_err(|error| error.refusal())?;
        let wrapped = stored.and_then(|stored| stored.wrapped);
        let missing = || Refusal::new(Code::DataCorrupt, "the credential has no private key");
        match credential.place() {
            Place::Software => {
                let owner = self.ledger.tenant(tenant)?;
                let own = self.vault.of_tenant(&owner);
                let wrapped = wrapped.ok_or_else(missing)?;
                let pkcs8 = own.and_then(|own| own.unwrap(&wrapped, public_key));
                let pkcs8 = pkcs8.map_err(VaultError::refusal)?;
                let key = SoftKey::new(credential.kind, &pkcs8, public_key).map_err(internal)?;
                let signed = key.sign(algorithm, to_sign, SM2_DEFAULT_USER_ID);
                Ok(signed.map_err(internal)?.to_vec())
            }
            Place::Destroyed => Err(missing()),
            place => self.sign_in_device(&place, wrapped, public_key, algorithm, to_sign),
        }
    }

    fn sign_in_device(
        &self,
        place: &Place,
        wrapped: Option<Vec<u8>>,
        public_key: &[u8],
        algorithm: Algorithm,
        to_sign: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let needs = || Refusal::new(Code::Usage, "a key in a device signs only in a running engine");
        let pool = self.pool.ok_or_else(needs)?;
        let mut key = DeviceKey {
            object: Vec::new(),
            public_key: public_key.to_vec(),
            wrapped: wrapped.as_deref().and_then(WrappedKey::from_bytes),
        };
        let devices: Vec<String> = match place {
            Place::Device { devices, object } => {
                key.object = object.to_vec();
                devices.iter().map(ToString::to_string).collect()
            }
            _ => pool
                .devices()
                .iter()
                .map(|device| device.name.to_string())
                .collect(),
        };
        let mut last = Refusal::new(Code::DeviceUnavailable, "no device that works has the key");
        for device in devices {
            match pool.sign_once(&device, &key, algorithm, to_sign) {
                Ok(signature) => return Ok(signature),
                Err(error) => last = device_refused(&error),
            }
        }
        Err(last)
    }

    /// Whose names a certificate states.
    fn identify(&self, application: &Application, profile: &CertificateProfile) -> Result<Identity, Refusal> {
        let name = &application.profile;
        let subject = match (profile.proof, &application.subject) {
            (Proof::None, None) => {
                return Ok(Identity {
                    organization: application.tenant.to_string(),
                    ..Identity::default()
                });
            }
            (Proof::None, Some(_)) => {
                return Err(refused(format!("the profile {name} states nobody's identity")));
            }
            (_, None) => {
                let text = format!("the profile {name} needs a subject whose identity is approved");
                return Err(Refusal::new(Code::SubjectNotApproved, text));
            }
            (_, Some(subject)) => subject,
        };
        let (tenant, environment) = (&application.tenant, application.environment);
        let (kind, known) = self.approved(tenant, subject, environment)?;
        if !profile.proof.takes(kind) {
            let text = format!("the profile {name} is not for subjects of the kind of '{subject}'");
            return Err(refused(text));
        }
        match known.enterprise {
            None => Ok(Identity {
                organization: known.name,
                person: String::new(),
                subjects: vec![subject.clone()],
            }),
            Some(enterprise) => Ok(Identity {
                organization: self.approved(tenant, &enterprise, environment)?.1.name,
                person: known.name,
                subjects: vec![subject.clone(), enterprise],
            }),
        }
    }

    fn approved(
        &self,
        tenant: &TenantName,
        subject: &SubjectId,
        environment: Environment,
    ) -> Result<(store::SubjectKind, subjects::Details), Refusal> {
        let row = self
            .reader
            .subject(tenant, subject)
            .map_err(|error| error.refusal())?;
        let row = row.filter(|row| row.environment == environment);
        let row = row.ok_or_else(|| Refusal::new(Code::NotFound, format!("no subject '{subject}'")))?;
        if row.state != SubjectState::Approved {
            let text = format!("subject '{subject}' is {}, not approved", row.state.name());
            return Err(Refusal::new(Code::SubjectNotApproved, text));
        }
        let owner = self.ledger.tenant(tenant)?;
        let known = subjects::details(self.vault, &owner, &row)?;
        Ok((row.kind, known))
    }

    fn issuer_for(
        &self,
        application: &Application,
        kind: KeyKind,
        now: UnixMillis,
    ) -> Result<&Authority, Refusal> {
        let environment = application.environment;
        let Some(name) = &application.issuer else {
            let none = || {
                let text = match environment {
                    Environment::Production => format!("no authority certifies {kind} keys"),
                    Environment::Sandbox => format!(
                        "no development authority certifies {kind} keys, and others certify nothing of the sandbox"
                    ),
                };
                Refusal::new(Code::NotFound, text)
            };
            let found = self.authorities.for_subjects(kind, environment, now);
            return found.ok_or_else(none);
        };
        let issuer = self.authorities.get(name.as_str())?;
        if !issuer.may_certify(environment) {
            return Err(refused(format!(
                "'{name}' certifies no subjects, or none of the sandbox"
            )));
        }
        Ok(issuer)
    }

    /// Checks, and has an authority sign. What comes back is not on record yet.
    fn certify(
        &self,
        application: &Application,
        holder: Holder,
        public_key: &[u8],
        request: Option<&csr::Request>,
        now: UnixMillis,
    ) -> Result<Issued, Refusal> {
        check_clock(self.reader, now)?;
        let profile = self.authorities.profiles().for_subjects(&application.profile)?;
        let kind = x509::check_public_key(public_key).map_err(refused)?.kind();
        profile.check_kind(&application.profile, kind)?;
        let identity = self.identify(application, profile)?;
        let issuer = self.issuer_for(application, kind, now)?;
        let (dns, ips) = request.map_or((&[][..], &[][..]), |request| (&request.dns[..], &request.ips[..]));
        let development = profile.proof == Proof::None && issuer.role == store::Role::Development;
        let names = Names {
            organization: if development {
                DEVELOPMENT
            } else {
                &identity.organization
            },
            person: &identity.person,
            tenant: application.tenant.as_str(),
            credential: holder.credential.as_ref().map_or("", CredentialId::as_str),
            dns: dns.first().map_or("", String::as_str),
        };
        let wanted = Wanted {
            subject: profile.template.fill(&names).map_err(refused)?,
            holder: Some(holder),
            public_key,
            profile: profile.document(dns, ips),
            days: profile.days,
            terms: Some(self.terms(issuer, profile)),
            recorded: (&application.profile, application.subject.as_ref()),
            environment: application.environment,
            counted: !application.environment.is_sandbox(),
            states: identity.subjects.clone(),
            asked: application.asked.clone(),
        };
        let (certificate, change) = self.authorities.certify(self.ledger, issuer, wanted, now)?;
        let mut chain = vec![certificate];
        chain.extend(self.authorities.chain(issuer));
        let validity = common_validity(&chain)?;
        Ok(Issued {
            chain,
            validity,
            change,
        })
    }

    fn terms(&self, issuer: &Authority, profile: &CertificateProfile) -> Terms {
        self.authorities.terms_of(issuer, profile)
    }
}

/// When all certificates of a chain are valid.
fn common_validity(chain: &[Vec<u8>]) -> Result<Validity, Refusal> {
    let mut common = Validity {
        from: UnixMillis(0),
        to: UnixMillis(u64::MAX),
    };
    for certificate in chain {
        let (from, to) = x509::validity(certificate).map_err(internal)?;
        common.from = common.from.max(from);
        common.to = common.to.min(to);
    }
    Ok(common)
}

/// Serial numbers are unique under one issuer (RFC 5280 4.1.2.2), and what a tenant says of issuers is no other's concern.
fn external_issuer(tenant: &TenantName, leaf: &[u8]) -> Result<AuthorityName, Refusal> {
    let named = x509::issuer_and_serial(leaf).map_err(chain_refused)?;
    let text = [tenant.as_str().as_bytes(), &[0], &named].concat();
    let digest = protocol::algorithm::Hash::Sha256.digest(&text);
    AuthorityName::new(&format!("{EXTERNAL}-{}", hex(&digest[..16]))).map_err(internal)
}

/// A certificate that another authority has signed, on record as issued.
fn external(
    leaf: &[u8],
    (holder, environment): (Holder, Environment),
    public_key: &[u8],
    validity: Validity,
) -> Result<Vec<Change>, Refusal> {
    let issuer = external_issuer(&holder.tenant, leaf)?;
    let serial = x509::serial_number(leaf).map_err(chain_refused)?;
    let prepared = Prepared {
        issuer: issuer.clone(),
        serial: serial.clone(),
        holder: Some(holder),
        profile: EXTERNAL.to_owned(),
        subject: None,
        environment,
        key: key_hash(public_key),
        counted: false,
        tbs: leaf.to_vec(),
        not_after: validity.to,
    };
    let issued = CertificateChange::Issue {
        issuer,
        serial,
        certificate: leaf.to_vec(),
        states: Vec::new(),
        asked: None,
    };
    let changes = [CertificateChange::Prepare(prepared), issued];
    Ok(changes.into_iter().map(Change::Certificates).collect())
}

/// What makes a call for a certificate the same call: its app and what it asks for.
pub fn asked(app: &AppId, key: &str, parts: &[&[u8]]) -> Asked {
    let mut text = Vec::new();
    for part in parts {
        text.extend((part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    let digest = protocol::algorithm::Hash::Sha256.digest(&text);
    Asked {
        app: app.clone(),
        key: key.to_owned(),
        request: std::array::from_fn(|at| digest[at]),
    }
}

impl Issuer for Enrolment<'_> {
    fn issue(&self, wanted: Certify<'_>, now: UnixMillis) -> Result<Option<Issued>, Refusal> {
        let kind = PublicKey::from_spki(wanted.public_key).map_err(refused)?.kind();
        let plain = wanted.profile.is_none();
        let profiles = self.authorities.profiles();
        let unwanted = !profiles.get(profiles::CREDENTIAL)?.enabled;
        let environment = wanted.environment;
        let issuer = self.authorities.for_subjects(kind, environment, now);
        if plain && (unwanted || issuer.is_none()) {
            return Ok(None);
        }
        let application = Application {
            tenant: wanted.holder.tenant.clone(),
            profile: wanted.profile.unwrap_or(profiles::CREDENTIAL).to_owned(),
            subject: wanted.subject.cloned(),
            issuer: None,
            asked: wanted.asked,
            environment,
        };
        let holder = wanted.holder;
        self.certify(&application, holder, wanted.public_key, None, now)
            .map(Some)
    }
}
