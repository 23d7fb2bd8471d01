//! `--dev`: a development CA, a tenant, an app, credentials, and a client profile, made on first start and found again
//! on every later one. The CA's keys are wrapped under the master key like all others.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use actors::call::Ticket;
use actors::certificates::{AuthorityPlan, found};
use actors::keymaster::{CredentialPlan, KeyPlace, Keymaster, WantedCertificate};
use actors::registrar::{AppProof, Ledger, create_app, create_tenant};
use actors::seals::{Draft, Granting, Seals};
use actors::subjects::{Details, Subjects, Submission};
use actors::vault::Vault;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use documents::x509::{self, Name, NameParts, Profile, Spec};
use hsm_pool::soft::{self, SoftKey};
use protocol::algorithm::{Algorithm, Hash, KeyKind};
use protocol::client::Profile as ClientProfile;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{
    AppId, AuthorityName, CredentialId, GrantId, OperatorName, SealId, SubjectId, TenantName,
};
use protocol::seal::{DocumentKinds, SealState};
use protocol::verify::SM2_DEFAULT_USER_ID;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use store::{
    AuthorityKey, AuthorityRow, CertificateChange, Change, Environment, OperatorChange, Reader, Role, Roles,
    SealKind, SealStep, Store, StoreHandle, SubjectChange, SubjectKind, SubjectStep,
};
use zeroize::Zeroizing;

use crate::admin::operator::AsActor;
use crate::front::tls::Identity;
use crate::pki::Pki;

/// Who makes the changes, in the journal.
pub(crate) const ACTOR: &str = "--dev";
const TENANT: &str = "demo";
const APP: &str = "demo-app";
/// Has every role: in development nobody is there to be kept apart.
pub(crate) const OPERATOR: &str = "dev";
/// The demo tenant's enterprise, approved.
const SUBJECT: &str = "demo-enterprise";
const CREDENTIALS: [(&str, KeyKind); 4] = [
    ("demo-p256", KeyKind::P256),
    ("demo-rsa2048", KeyKind::Rsa2048),
    ("demo-ed25519", KeyKind::Ed25519),
    ("demo-sm2", KeyKind::Sm2),
];
/// Makes the SM2 seal, and signs nothing else.
const MAKER: &str = "demo-seal-maker";
/// Seals, what signs under them, their makers, and by which grant the app may use them.
const SEALS: [(&str, &str, Option<&str>, &str); 2] = [
    ("demo-seal", "demo-p256", None, "demo-grant"),
    ("demo-seal-sm2", "demo-sm2", Some(MAKER), "demo-grant-sm2"),
];
/// What both look like: a ring and a star, kept here because not every machine has a font for words in it.
const SEAL_PICTURE: &[u8] = include_bytes!("dev/demo-seal.png");
const DAY_MS: u64 = 24 * 3_600_000;
const ROOT_DAYS: u64 = 3650;
const LEAF_DAYS: u64 = 825;

fn internal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Internal, format!("development CA: {error}"))
}

/// A CA key and its certificate.
struct Root {
    key: SoftKey,
    algorithm: Algorithm,
    certificate: Vec<u8>,
    /// The private key, wrapped under the master key.
    wrapped: Vec<u8>,
}

/// The development CA: one root for P-256 and everything it may sign, one for SM2, one for TLS.
pub(crate) struct DevCa {
    p256: Root,
    sm2: Root,
    tls: Root,
}

impl std::fmt::Debug for DevCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DevCa(..)")
    }
}

impl Root {
    fn sign(&self, prepared: x509::PreparedCertificate) -> Result<Vec<u8>, Refusal> {
        let signature = self
            .key
            .sign(self.algorithm, prepared.to_sign(), SM2_DEFAULT_USER_ID)
            .map_err(internal)?;
        prepared.assemble(&signature).map_err(internal)
    }

    fn issue(&self, common_name: &str, public_key: &[u8], profile: Profile) -> Result<Vec<u8>, Refusal> {
        let issuer = x509::Issuer::Holder(self.certificate.clone());
        let spec = spec(issuer, common_name, public_key, profile, LEAF_DAYS)?;
        self.sign(x509::prepare(&spec, self.algorithm).map_err(internal)?)
    }
}

fn spec(
    issuer: x509::Issuer,
    common_name: &str,
    public_key: &[u8],
    profile: Profile,
    days: u64,
) -> Result<Spec, Refusal> {
    let mut serial = vec![0; 16];
    rand::fill(&mut serial).map_err(internal)?;
    // Positive, and of full length: the first byte is 64 to 127.
    serial[0] = serial[0] & 0x3f | 0x40;
    // A little in the past, for clocks that are a little behind.
    let now = clock::wall().0;
    Ok(Spec {
        serial,
        issuer,
        subject: subject(common_name)?,
        not_before: UnixMillis(now - DAY_MS),
        not_after: UnixMillis(now + days * DAY_MS),
        subject_public_key: public_key.to_vec(),
        profile,
        terms: x509::Terms::default(),
    })
}

fn subject(common_name: &str) -> Result<Name, Refusal> {
    let parts = NameParts {
        country: Some("CN"),
        organization: Some("Cinnabar development"),
        common_name: Some(common_name),
    };
    parts.try_into().map_err(internal)
}

/// Which root, how it is named in the store, and what it is.
struct RootPlan {
    name: &'static str,
    kind: KeyKind,
    algorithm: Algorithm,
    profile: Profile,
}

const P256: RootPlan = RootPlan {
    name: "P-256 root",
    kind: KeyKind::P256,
    algorithm: Algorithm::EcdsaP256Sha256,
    profile: Profile::Root,
};
const SM2: RootPlan = RootPlan {
    name: "SM2 root",
    kind: KeyKind::Sm2,
    algorithm: Algorithm::Sm2Sm3E,
    profile: Profile::Root,
};
const TLS: RootPlan = RootPlan {
    name: "TLS root",
    kind: KeyKind::P256,
    algorithm: Algorithm::EcdsaP256Sha256,
    profile: Profile::TlsRoot,
};

fn store_failed(error: store::StoreError) -> Refusal {
    error.refusal()
}

impl RootPlan {
    fn load(&self, store: &Store<Ticket>, vault: &Vault) -> Result<Option<Root>, Refusal> {
        let read = |part: &str| {
            store
                .meta(&format!("dev-ca/{}/{part}", self.name))
                .map_err(store_failed)
        };
        let (Some(wrapped), Some(certificate)) = (read("key")?, read("certificate")?) else {
            return Ok(None);
        };
        let public_key = x509::subject_public_key(&certificate).map_err(internal)?;
        let pkcs8 = vault.unwrap(&wrapped, &public_key).map_err(internal)?;
        let key = SoftKey::new(self.kind, &pkcs8, &public_key).map_err(internal)?;
        Ok(Some(Root {
            key,
            algorithm: self.algorithm,
            certificate,
            wrapped,
        }))
    }

    fn make(&self, store: &Store<Ticket>, vault: &Vault) -> Result<Root, Refusal> {
        let made = soft::generate(self.kind).map_err(internal)?;
        let name = format!("Cinnabar development {}", self.name);
        let spec = spec(
            x509::Issuer::Itself,
            &name,
            &made.public_key,
            self.profile.clone(),
            ROOT_DAYS,
        )?;
        let prepared = x509::prepare(&spec, self.algorithm).map_err(internal)?;
        let key = SoftKey::new(self.kind, &made.pkcs8, &made.public_key).map_err(internal)?;
        let signature = key
            .sign(self.algorithm, prepared.to_sign(), SM2_DEFAULT_USER_ID)
            .map_err(internal)?;
        let certificate = prepared.assemble(&signature).map_err(internal)?;
        let wrapped = vault.wrap(&made.pkcs8, &made.public_key).map_err(internal)?;
        store
            .set_meta(&format!("dev-ca/{}/key", self.name), &wrapped)
            .map_err(store_failed)?;
        store
            .set_meta(&format!("dev-ca/{}/certificate", self.name), &certificate)
            .map_err(store_failed)?;
        Ok(Root {
            key,
            algorithm: self.algorithm,
            certificate,
            wrapped,
        })
    }
}

impl DevCa {
    /// The CA of this store; what it has not is made.
    pub(crate) fn load_or_make(store: &Store<Ticket>, vault: &Vault) -> Result<Self, Refusal> {
        // Each for itself: a start that was cut short may have made some of them.
        let root = |plan: &RootPlan| match plan.load(store, vault)? {
            Some(root) => Ok(root),
            None => plan.make(store, vault),
        };
        Ok(Self {
            p256: root(&P256)?,
            sm2: root(&SM2)?,
            tls: root(&TLS)?,
        })
    }

    /// A fresh certificate for this start's TLS, for loopback names only.
    pub(crate) fn tls_identity(&self) -> Result<Identity, Refusal> {
        let made = soft::generate(KeyKind::P256).map_err(internal)?;
        let profile = Profile::TlsServer {
            dns: vec!["localhost".into()],
            ips: vec![[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()],
        };
        let certificate = self.tls.issue("localhost", &made.public_key, profile)?;
        let key = PrivatePkcs8KeyDer::from(made.pkcs8.to_vec()).into();
        Ok(Identity {
            chain: vec![CertificateDer::from(certificate)],
            key,
        })
    }

    fn signing_roots_pem(&self) -> String {
        x509::to_pem(&self.p256.certificate) + &x509::to_pem(&self.sm2.certificate)
    }

    fn tls_root_pem(&self) -> String {
        x509::to_pem(&self.tls.certificate)
    }
}

/// What the development CA's roots are called as authorities.
const ROOTS: [(&str, KeyKind); 2] = [("dev-p256", KeyKind::P256), ("dev-sm2", KeyKind::Sm2)];

/// Those who stamp and answer below them: name, role, kind, issuer.
const SERVANTS: [(&str, Role, KeyKind, &str); 5] = [
    ("dev-ocsp-p256", Role::Ocsp, KeyKind::P256, "dev-p256"),
    ("dev-ocsp-sm2", Role::Ocsp, KeyKind::Sm2, "dev-sm2"),
    ("dev-tsa-p256", Role::TimeStamping, KeyKind::P256, "dev-p256"),
    (
        "dev-tsa-rsa2048",
        Role::TimeStamping,
        KeyKind::Rsa2048,
        "dev-p256",
    ),
    ("dev-tsa-sm2", Role::TimeStamping, KeyKind::Sm2, "dev-sm2"),
];

/// Makes what is missing of the development authorities.
fn set_up_authorities(pki: &Pki, ca: &DevCa) -> Result<(), Refusal> {
    let ledger = AsActor(&pki.store, ACTOR);
    let name = |text: &str| AuthorityName::new(text).map_err(internal);
    for ((root, kind), known) in ROOTS.into_iter().zip([&ca.p256, &ca.sm2]) {
        if pki.current().authorities.get(root).is_err() {
            ledger.change(Change::Certificates(CertificateChange::AddAuthority(
                AuthorityRow {
                    name: name(root)?,
                    role: Role::Development,
                    kind,
                    issuer: None,
                    key: AuthorityKey::Software {
                        wrapped: known.wrapped.clone(),
                    },
                    certificate: known.certificate.clone(),
                    serial: x509::serial_number(&known.certificate).map_err(internal)?,
                },
            )))?;
        }
    }
    pki.reload()?;
    let current = pki.current();
    for (servant, role, kind, issuer) in SERVANTS {
        if current.authorities.get(servant).is_ok() {
            continue;
        }
        let plan = AuthorityPlan {
            name: name(servant)?,
            role,
            kind,
            subject: subject(&format!("Cinnabar development {servant}"))?,
            issuer: Some(name(issuer)?),
            days: LEAF_DAYS,
            device: None,
        };
        let keys = (&*pki.vault, &pki.devices);
        found(&current.authorities, &ledger, keys, plan, clock::wall())?;
    }
    pki.reload()
}

/// Where the development files are.
pub(crate) struct DevFiles {
    folder: PathBuf,
}

impl DevFiles {
    pub(crate) fn new(home: &Path) -> Self {
        Self {
            folder: home.join("dev"),
        }
    }

    pub(crate) fn profile(&self) -> PathBuf {
        self.folder.join("app.toml")
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), Refusal> {
        let path = self.folder.join(name);
        let failed = |error: std::io::Error| Refusal::new(Code::File, format!("{}: {error}", path.display()));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(failed)?;
        // Written beside and renamed, so that nobody reads half a profile.
        let beside = path.with_extension("new");
        let _ = std::fs::remove_file(&beside);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        std::fs::rename(&beside, &path).map_err(failed)
    }
}

/// Makes what is missing of the demo tenant, app and credentials, and writes the files.
pub(crate) fn set_up(
    pki: &Pki,
    ca: &DevCa,
    home: &Path,
    listen: SocketAddr,
    admin: SocketAddr,
) -> Result<DevFiles, Refusal> {
    let (store, vault) = (&*pki.store, &*pki.vault);
    let ledger = AsActor(store, ACTOR);
    set_up_authorities(pki, ca)?;
    let name = |text: &str| TenantName::new(text).map_err(internal);
    if store.directory().tenant(TENANT).is_none() {
        create_tenant(&ledger, vault, name(TENANT)?, None)?;
    }
    if store.directory().app(APP).is_none() {
        // Strangers' QUIC stacks often have no TLS exporter, and this app is for trying them.
        let proof = AppProof {
            binding_optional: true,
            ..AppProof::default()
        };
        create_app(
            &ledger,
            vault,
            name(TENANT)?,
            AppId::new(APP).map_err(internal)?,
            proof,
        )?;
    }
    if store.directory().operators.get(OPERATOR).is_none() {
        ledger.change(Change::Operators(OperatorChange::Create {
            name: OperatorName::new(OPERATOR).map_err(internal)?,
            roles: Roles::ALL,
            certificate: None,
        }))?;
    }
    let reader = store.reader().map_err(store_failed)?;
    set_up_subject(vault, &ledger, &reader)?;
    let office = pki.office(None)?;
    let enrolment = office.enrolment(&ledger);
    let keys = Keymaster {
        ledger: &ledger,
        vault,
        reader: &reader,
        pool: None,
        issuer: Some(&enrolment),
    };
    set_up_credentials(&keys)?;
    set_up_seals(&Seals {
        enrolment: &enrolment,
    })?;
    write_files(store, vault, ca, home, listen, admin)
}

/// The demo tenant's credentials, and the one of its seal maker.
fn set_up_credentials(keys: &Keymaster<'_>) -> Result<(), Refusal> {
    let maker = WantedCertificate {
        profile: Some("seal-maker".into()),
        subject: Some(SubjectId::new(SUBJECT).map_err(internal)?),
        asked: None,
    };
    let certified = CREDENTIALS.map(|(id, kind)| (id, kind, WantedCertificate::default()));
    for (id, kind, certificate) in certified.into_iter().chain([(MAKER, KeyKind::Sm2, maker)]) {
        let owner = keys.ledger.directory().tenant(TENANT);
        if owner.is_some_and(|tenant| tenant.credential(id).is_none()) {
            let plan = CredentialPlan {
                tenant: TenantName::new(TENANT).map_err(internal)?,
                id: CredentialId::new(id).map_err(internal)?,
                kind,
                place: KeyPlace::Software,
                environment: Environment::Production,
                certificate,
            };
            match keys.create(plan) {
                // A configuration may have it that nobody makes seals.
                Err(refusal) if id == MAKER => tracing::warn!(%refusal, "no demo seal of SM2"),
                made => made?,
            }
        }
    }
    Ok(())
}

/// The demo tenant's enterprise. In development nobody is there to be asked who it is.
fn set_up_subject(vault: &Vault, ledger: &dyn Ledger, reader: &Reader) -> Result<(), Refusal> {
    let tenant = TenantName::new(TENANT).map_err(internal)?;
    let id = SubjectId::new(SUBJECT).map_err(internal)?;
    let evidence = std::array::from_fn(|at| Hash::Sha256.digest(b"no evidence: development")[at]);
    if reader.subject(&tenant, &id).map_err(store_failed)?.is_none() {
        let subjects = Subjects {
            ledger,
            vault,
            reader,
        };
        let new = Submission {
            id: id.clone(),
            kind: SubjectKind::Enterprise,
            details: Details {
                name: "Cinnabar Demo Ltd".into(),
                registration: "91110000DEMODEMO00".into(),
                enterprise: None,
            },
            environment: Environment::Production,
            evidence,
        };
        subjects.submit(&tenant, new)?;
        ledger.change(Change::Subjects(SubjectChange::Step {
            tenant,
            id,
            step: SubjectStep::Confirm,
            by: ACTOR.to_owned(),
            reason: String::new(),
        }))?;
    }
    Ok(())
}

/// The demo seals, active and granted to the demo app. A start that was cut short may have left any of the steps out.
fn set_up_seals(seals: &Seals<'_>) -> Result<(), Refusal> {
    let tenant = TenantName::new(TENANT).map_err(internal)?;
    let now = clock::wall();
    for (seal, credential, maker, grant) in SEALS {
        let id = SealId::new(seal).map_err(internal)?;
        let find = || {
            seals
                .enrolment
                .ledger
                .tenant(&tenant)
                .map(|owner| owner.seal(seal))
        };
        let owner = seals.enrolment.ledger.tenant(&tenant)?;
        let is_certified = |id: &str| {
            let known = owner.credential(id);
            known.is_some_and(|known| known.certificate.ends().is_some())
        };
        // A seal after GB/T 38540 names certificates, and a configuration may have it that there are none.
        if maker.is_some_and(|maker| !is_certified(maker) || !is_certified(credential)) {
            continue;
        }
        if find()?.is_none() {
            let credential_id = |text| CredentialId::new(text).map_err(internal);
            let draft = Draft {
                id: id.clone(),
                name: "Cinnabar Demo Ltd".into(),
                kind: SealKind::Organisation,
                credential: credential_id(credential)?,
                maker: maker.map(credential_id).transpose()?,
                picture: SEAL_PICTURE.to_vec(),
                remove_background: false,
                size_mm: (42, None),
                validity: (None, None),
                reserve: false,
            };
            seals.create(&tenant, draft, ACTOR, now)?;
        }
        for (state, step) in [
            (SealState::Draft, SealStep::Submit),
            (SealState::InReview, SealStep::Approve),
        ] {
            if find()?.is_some_and(|known| known.state() == state) {
                seals.step(&tenant, &id, step, (ACTOR, ""), now)?;
            }
        }
        if find()?.is_some_and(|known| known.grants().is_empty()) {
            let new = Granting {
                id: Some(GrantId::new(grant).map_err(internal)?),
                seal: id,
                app: AppId::new(APP).map_err(internal)?,
                agent: None,
                documents: DocumentKinds::EVERY,
                validity: (None, None),
                uses_max: None,
            };
            seals.grant(&tenant, new, ACTOR, now)?;
        }
    }
    Ok(())
}

fn write_files(
    store: &StoreHandle<Ticket>,
    vault: &Vault,
    ca: &DevCa,
    home: &Path,
    listen: SocketAddr,
    admin: SocketAddr,
) -> Result<DevFiles, Refusal> {
    let app = store
        .directory()
        .app(APP)
        .ok_or_else(|| internal("the app is gone"))?;
    let secret = vault
        .secret(&app)
        .map_err(internal)?
        .ok_or_else(|| internal("the app has no secret"))?;
    let profile = ClientProfile {
        address: listen,
        server_name: "localhost".into(),
        server_ca: ca.tls_root_pem(),
        app_id: app.id.clone(),
        secret: STANDARD.encode(&secret.bytes[..]),
        document_ca: Some(ca.signing_roots_pem()),
        admin: Some(admin),
    };
    let files = DevFiles::new(home);
    files.write("app.toml", &Zeroizing::new(profile.to_toml()), 0o600)?;
    files.write("ca.pem", &ca.signing_roots_pem(), 0o644)?;
    files.write("tls-ca.pem", &ca.tls_root_pem(), 0o644)?;
    Ok(files)
}
