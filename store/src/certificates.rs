//! Authorities, what they have issued, and what became of it. A certificate is recorded before it is signed, a
//! revocation list before it is public, a block of serial numbers before the first of them is used: a crash leaves a
//! record without a signature, never a signature without a record (SEMANTICS 1.1).

use protocol::algorithm::KeyKind;
use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::ids::{AppId, AuthorityName, CredentialId, SubjectId, TenantName};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use crate::directory::Directory;
use crate::epoch::{self, DataEpoch};
use crate::error::Result;
use crate::ledger::Unit;
use crate::ledger::change::{self, Moment};
use crate::registry::{Effect, corrupt, credential_of, exists, refuse, tenant_of, turn};
use crate::subjects::{self, SubjectState};
use crate::tenancy::Environment;
use crate::usage::{self, Tally};

/// Revocation lists of an issuer that are kept, the newest.
const LISTS_KEPT: u64 = 100;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS authority (
        name    TEXT PRIMARY KEY,
        role    TEXT NOT NULL,        -- root, intermediate, issuing, development, tsa or ocsp
        kind    TEXT NOT NULL,
        issuer  TEXT,                 -- whose certificate it has; NULL: its own
        wrapped BLOB,                 -- the private key, encrypted under the master key; NULL: it is in a device
        device  TEXT,                 -- in which device it is,
        object  BLOB,                 -- and how it is found there
        certificate BLOB NOT NULL,    -- the newest one
        serial  BLOB NOT NULL,        -- its serial number, as in the table of certificates
        created_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS certificate (
        row     INTEGER PRIMARY KEY,
        issuer  TEXT NOT NULL,
        serial  BLOB NOT NULL,        -- unsigned, big-endian, without leading zeros
        tenant  TEXT,                 -- whose; NULL: an authority's
        credential TEXT,              -- NULL: the key is not here
        profile TEXT NOT NULL,        -- what it is for
        subject TEXT,                 -- the subject whose identity was checked for it
        sandbox INTEGER NOT NULL,     -- whether it is for trying only
        key     BLOB NOT NULL,        -- SHA-256 of its SubjectPublicKeyInfo
        counted INTEGER NOT NULL,     -- whether issuing it is counted
        app     TEXT,                 -- who asked for it over the interface,
        asked   TEXT,                 -- with which idempotency key
        request BLOB,                 -- and what makes that the same request
        warned  INTEGER NOT NULL DEFAULT 1000000, -- days before its end that were told of last
        der     BLOB NOT NULL,        -- the part to be signed until it is signed, then the certificate
        standing INTEGER NOT NULL,    -- 0 prepared, 1 issued, 2 suspended, 3 revoked
        reason  INTEGER NOT NULL DEFAULT 0,   -- CRLReason
        changed_ms INTEGER NOT NULL,
        not_after_ms INTEGER NOT NULL,
        turned_off INTEGER NOT NULL DEFAULT FALSE,  -- whether its suspension has disabled the credential
        held_by_tenant INTEGER NOT NULL DEFAULT FALSE,  -- whether an app of its tenant has suspended it
        UNIQUE (serial, issuer)       -- in this order it finds serial numbers, too
    );
    CREATE INDEX IF NOT EXISTS certificate_of ON certificate (tenant) WHERE tenant IS NOT NULL;
    CREATE INDEX IF NOT EXISTS certificate_holder ON certificate (tenant, credential) WHERE tenant IS NOT NULL;
    CREATE UNIQUE INDEX IF NOT EXISTS certificate_asked ON certificate (app, asked) WHERE asked IS NOT NULL;
    CREATE INDEX IF NOT EXISTS certificate_end ON certificate (not_after_ms, warned) WHERE standing = 1;
    CREATE INDEX IF NOT EXISTS certificate_key ON certificate (key, standing, reason);
    CREATE INDEX IF NOT EXISTS certificate_revoked ON certificate (issuer, changed_ms) WHERE standing >= 2;
    CREATE TABLE IF NOT EXISTS crl (
        issuer  TEXT NOT NULL,
        number  INTEGER NOT NULL,     -- full and delta lists share one sequence
        base    INTEGER,              -- of which full list this is a delta; NULL: a full list
        der     BLOB NOT NULL,
        made_ms INTEGER NOT NULL,
        PRIMARY KEY (issuer, number)
    );
    CREATE TABLE IF NOT EXISTS serial_block (
        authority TEXT PRIMARY KEY,
        next    INTEGER NOT NULL,     -- the first number that is not reserved
        reserved_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// What an authority is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Certifies intermediate and issuing authorities.
    Root,
    /// Certifies issuing authorities.
    Intermediate,
    /// Certifies credentials, time-stamping authorities and OCSP responders.
    Issuing,
    /// A root that certifies everything itself, for development.
    Development,
    /// Stamps times.
    TimeStamping,
    /// Answers for its issuer.
    Ocsp,
}

impl Role {
    const ALL: [Self; 6] = [
        Self::Root,
        Self::Intermediate,
        Self::Issuing,
        Self::Development,
        Self::TimeStamping,
        Self::Ocsp,
    ];

    /// The name in the store and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Intermediate => "intermediate",
            Self::Issuing => "issuing",
            Self::Development => "development",
            Self::TimeStamping => "tsa",
            Self::Ocsp => "ocsp",
        }
    }

    /// Whether it signs certificates and revocation lists.
    pub const fn certifies(self) -> bool {
        matches!(
            self,
            Self::Root | Self::Intermediate | Self::Issuing | Self::Development
        )
    }

    /// Whether it certifies others than authorities.
    pub const fn certifies_subjects(self) -> bool {
        matches!(self, Self::Issuing | Self::Development)
    }
}

/// An authority.
#[derive(Debug)]
pub struct AuthorityRow {
    /// Its name.
    pub name: AuthorityName,
    /// What it does.
    pub role: Role,
    /// The kind of its key.
    pub kind: KeyKind,
    /// Who has certified it; `None`: itself.
    pub issuer: Option<AuthorityName>,
    /// Where its private key is.
    pub key: AuthorityKey,
    /// Its certificate, in DER.
    pub certificate: Vec<u8>,
    /// The certificate's serial number, unsigned and big-endian, without leading zeros.
    pub serial: Vec<u8>,
}

/// Where an authority's private key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityKey {
    /// In the store, wrapped under the master key.
    Software {
        /// The key.
        wrapped: Vec<u8>,
    },
    /// In a device, which it never leaves.
    Device {
        /// Which.
        device: String,
        /// How it is found there.
        object: Vec<u8>,
    },
}

/// On whose side a change of a certificate's standing was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The operators'.
    Operator,
    /// Its holder's: what operators have suspended it cannot resume.
    Tenant,
}

/// Whose certificate it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The tenant.
    pub tenant: TenantName,
    /// Its credential; `None`: the key is the tenant's own and not here.
    pub credential: Option<CredentialId>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.credential {
            Some(credential) => write!(f, "{}/{credential}", self.tenant),
            None => self.tenant.fmt(f),
        }
    }
}

/// The call by which an app asked for a certificate: asked again, it gets the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who.
    pub app: AppId,
    /// The idempotency key.
    pub key: String,
    /// What makes the request the same request.
    pub request: [u8; 32],
}

/// How a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateStanding {
    /// Recorded, and not yet signed; or given up.
    Prepared,
    /// In force.
    Issued,
    /// Not in force for now.
    Suspended,
    /// Not in force any more.
    Revoked {
        /// CRLReason (RFC 5280 5.3.1).
        reason: u8,
    },
}

/// CRLReason keyCompromise (RFC 5280 5.3.1).
const KEY_COMPROMISE: u8 = 1;
/// CRLReason certificateHold (RFC 5280 5.3.1).
const CERTIFICATE_HOLD: u8 = 6;

impl CertificateStanding {
    const fn columns(self) -> (u8, u8) {
        match self {
            Self::Prepared => (0, 0),
            Self::Issued => (1, 0),
            Self::Suspended => (2, CERTIFICATE_HOLD),
            Self::Revoked { reason } => (3, reason),
        }
    }

    const fn of(standing: u8, reason: u8) -> Self {
        match standing {
            0 => Self::Prepared,
            1 => Self::Issued,
            2 => Self::Suspended,
            _ => Self::Revoked { reason },
        }
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Issued => "issued",
            Self::Suspended => "suspended",
            Self::Revoked { .. } => "revoked",
        }
    }

    /// Whether it may become the other (RFC 5280 5.3.1: only a hold can be taken back).
    const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Issued, Self::Suspended | Self::Revoked { .. })
                | (Self::Suspended, Self::Issued | Self::Revoked { .. })
        )
    }
}

/// A certificate that is about to be signed.
#[derive(Debug)]
pub struct Prepared {
    /// Who will sign it.
    pub issuer: AuthorityName,
    /// Its serial number, unsigned and big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// Whose it is; `None`: an authority's.
    pub holder: Option<Holder>,
    /// The profile that it follows.
    pub profile: String,
    /// The subject whose identity was checked for it.
    pub subject: Option<SubjectId>,
    /// For what its holder uses it.
    pub environment: Environment,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key: [u8; 32],
    /// Whether issuing it is counted.
    pub counted: bool,
    /// TBSCertificate, in DER.
    pub tbs: Vec<u8>,
    /// When it expires.
    pub not_after: UnixMillis,
}

/// A change of what is known of certificates.
#[derive(Debug)]
pub enum CertificateChange {
    /// A new authority.
    AddAuthority(AuthorityRow),
    /// An authority has got another certificate for the same key.
    RenewAuthority {
        /// Which.
        name: AuthorityName,
        /// The certificate, in DER.
        certificate: Vec<u8>,
        /// Its serial number.
        serial: Vec<u8>,
    },
    /// A request for another authority is made for the key of a credential. The entry itself is what there is to keep.
    ExportRequest {
        /// Whose.
        tenant: TenantName,
        /// Its credential.
        credential: CredentialId,
        /// SHA-256 of the part to be signed.
        digest: [u8; 32],
    },
    /// A certificate is about to be signed.
    Prepare(Prepared),
    /// It is signed, and may be given out.
    Issue {
        /// Who has signed it.
        issuer: AuthorityName,
        /// Its serial number.
        serial: Vec<u8>,
        /// The certificate, in DER.
        certificate: Vec<u8>,
        /// The subjects of its tenant whose identities it states: it is issued only while they are approved.
        states: Vec<SubjectId>,
        /// The call that asked for it.
        asked: Option<Asked>,
    },
    /// Its holder has been told that it ends.
    Warn {
        /// Who has signed it.
        issuer: AuthorityName,
        /// Its serial number.
        serial: Vec<u8>,
        /// So many days before.
        days: u32,
    },
    /// Suspended, resumed or revoked; its credential with it, if it is the credential's newest.
    SetStanding {
        /// Its issuer.
        issuer: AuthorityName,
        /// Its serial number.
        serial: Vec<u8>,
        /// How it stands from now on.
        standing: CertificateStanding,
        /// On whose side.
        by: By,
    },
    /// A revocation list that is about to be public.
    KeepCrl {
        /// Whose.
        issuer: AuthorityName,
        /// Its number, above all earlier ones.
        number: u64,
        /// The number of the full list to which it is a delta; `None`: it is a full list.
        base: Option<u64>,
        /// The list, in DER.
        der: Vec<u8>,
    },
    /// Serial numbers that nobody else will use.
    ReserveSerials {
        /// Whose.
        authority: AuthorityName,
        /// The first of them: what [`SerialBlocks::next`] says.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Time stamps that were given to whoever asked, which the platform bears.
    BookStamps {
        /// How many.
        units: u64,
    },
}

impl CertificateChange {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        let certificate = |issuer: &AuthorityName, serial: &[u8]| format!("{issuer}/{}", hex(serial));
        match self {
            Self::AddAuthority(new) => (
                "ca.create",
                format!("{} {} {}", new.name, new.role.name(), new.kind),
            ),
            Self::RenewAuthority { name, serial, .. } => ("ca.renew", format!("{name} {}", hex(serial))),
            Self::ExportRequest {
                tenant,
                credential,
                digest,
            } => (
                "certificate.request",
                format!("{tenant}/{credential} sha256={}", hex(digest)),
            ),
            Self::Prepare(new) => {
                let holder = new
                    .holder
                    .as_ref()
                    .map(|holder| format!(" for {holder}"))
                    .unwrap_or_default();
                let what = format!(
                    "{}{holder} {}",
                    certificate(&new.issuer, &new.serial),
                    new.profile
                );
                ("certificate.prepare", what)
            }
            Self::Warn { issuer, serial, days } => (
                "certificate.warn",
                format!("{} days={days}", certificate(issuer, serial)),
            ),
            Self::Issue { issuer, serial, .. } => ("certificate.issue", certificate(issuer, serial)),
            Self::SetStanding {
                issuer,
                serial,
                standing,
                ..
            } => {
                let action = match standing {
                    CertificateStanding::Suspended => "certificate.suspend",
                    CertificateStanding::Revoked { .. } => "certificate.revoke",
                    CertificateStanding::Issued | CertificateStanding::Prepared => "certificate.resume",
                };
                let reason = standing.columns().1;
                (action, format!("{} reason={reason}", certificate(issuer, serial)))
            }
            Self::KeepCrl {
                issuer, number, base, ..
            } => {
                let base = base.map_or(String::new(), |base| format!(" base={base}"));
                ("crl.publish", format!("{issuer} number={number}{base}"))
            }
            Self::BookStamps { units } => ("tsa.book", format!("platform units={units}")),
            Self::ReserveSerials {
                authority,
                first,
                count,
            } => ("tsa.reserve", format!("{authority} first={first} count={count}")),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a change into the open transaction.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    moment: Moment,
    change: CertificateChange,
) -> Result<Effect> {
    let at = moment.at;
    match change {
        CertificateChange::AddAuthority(new) => add_authority(db, at, &new),
        CertificateChange::RenewAuthority {
            name,
            certificate,
            serial,
        } => renew_authority(db, &name, &certificate, &serial),
        CertificateChange::ExportRequest {
            tenant, credential, ..
        } => credential_of(directory, &tenant, &credential).map(drop),
        CertificateChange::Prepare(new) => {
            check_quota(db, directory, moment, &new)?;
            prepare(db, at, &new)
        }
        CertificateChange::Issue {
            issuer,
            serial,
            certificate,
            states,
            asked,
        } => {
            check_issuable(db, &issuer, &serial, &states)?;
            issue(db, at, (&issuer, &serial), &certificate, asked.as_ref())?;
            return count(db, directory, moment, (&issuer, &serial), asked.as_ref());
        }
        CertificateChange::Warn { issuer, serial, days } => warn(db, &issuer, &serial, days),
        CertificateChange::SetStanding {
            issuer,
            serial,
            standing,
            by,
        } => {
            let effect = set_standing(db, directory, at, (&issuer, &serial), (standing, by))?;
            let mut effects = vec![Effect::Standing(issuer.clone(), serial.clone(), Box::new(effect))];
            if matches!(standing, CertificateStanding::Revoked { .. }) {
                effects.extend(disable_below(db, directory, &issuer, &serial)?);
            }
            if standing.columns() == (3, KEY_COMPROMISE) {
                for (issuer, serial) in of_same_key(db, at, &issuer, &serial)? {
                    let effect = set_standing(db, directory, at, (&issuer, &serial), (standing, by))?;
                    effects.push(Effect::Standing(issuer, serial, Box::new(effect)));
                }
            }
            return Ok(Effect::Several(effects));
        }
        CertificateChange::KeepCrl {
            issuer,
            number,
            base,
            der,
        } => keep_crl(db, at, &issuer, (number, base), &der),
        // The entry itself is what there is to keep.
        CertificateChange::BookStamps { .. } => Ok(()),
        CertificateChange::ReserveSerials {
            authority,
            first,
            count,
        } => reserve(db, at, &authority, first, count),
    }?;
    Ok(Effect::None)
}

/// A row that is there already is the caller's mistake, not the store's failure.
fn unless_exists(result: rusqlite::Result<usize>, what: &str, id: &str) -> Result<()> {
    match result {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(exists(what, id))
        }
        other => Ok(other.map(drop)?),
    }
}

fn add_authority(db: &Connection, at: UnixMillis, new: &AuthorityRow) -> Result<()> {
    let sql = "INSERT INTO authority (name, role, kind, issuer, wrapped, device, object, certificate, serial, created_ms) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let issuer = new.issuer.as_ref().map(AuthorityName::as_str);
    let (wrapped, device, object) = match &new.key {
        AuthorityKey::Software { wrapped } => (Some(wrapped), None, None),
        AuthorityKey::Device { device, object } => (None, Some(device), Some(object)),
    };
    let added = db.execute(
        sql,
        params![
            new.name.as_str(),
            new.role.name(),
            new.kind.name(),
            issuer,
            wrapped,
            device,
            object,
            new.certificate,
            new.serial,
            at.0.cast_signed()
        ],
    );
    unless_exists(added, "authority", new.name.as_str())
}

fn renew_authority(db: &Connection, name: &AuthorityName, certificate: &[u8], serial: &[u8]) -> Result<()> {
    if is_revoked(db, name)? {
        let text = format!("authority '{name}', or one above it, is revoked: its key is not certified again");
        return Err(refuse(Code::WrongState, text));
    }
    let sql = "UPDATE authority SET certificate = ?, serial = ? WHERE name = ?";
    match db.execute(sql, params![certificate, serial, name.as_str()])? {
        1 => Ok(()),
        _ => Err(refuse(Code::NotFound, format!("no authority '{name}'"))),
    }
}

/// An authority and those above it, as `up`.
const ABOVE: &str = "WITH RECURSIVE up(name, issuer, serial) AS (SELECT name, issuer, serial FROM authority WHERE name = ?1 \
                     UNION SELECT a.name, a.issuer, a.serial FROM authority a JOIN up ON a.name = up.issuer) ";

/// Whether an authority's certificate, or that of one above it, is revoked.
pub(crate) fn is_revoked(db: &Connection, authority: &AuthorityName) -> Result<bool> {
    let sql = format!(
        "{ABOVE} SELECT EXISTS (SELECT 1 FROM up JOIN certificate c ON c.serial = up.serial AND c.issuer = up.issuer \
         WHERE c.standing = 3)"
    );
    Ok(db
        .prepare_cached(&sql)?
        .query_row([authority.as_str()], |row| row.get(0))?)
}

/// Where the certificate that was revoked is an authority's, no credential that it or one below it has certified signs any
/// more. That reads all certificates; it is hoped never to happen.
fn disable_below(
    db: &Connection,
    directory: &Directory,
    issuer: &AuthorityName,
    serial: &[u8],
) -> Result<Vec<Effect>> {
    let found = "SELECT name FROM authority WHERE issuer = ? AND serial = ?";
    let found: Option<String> = db
        .prepare_cached(found)?
        .query_row(params![issuer.as_str(), serial], |row| row.get(0))
        .optional()?;
    let Some(revoked) = found else {
        return Ok(Vec::new());
    };
    let sql = "WITH RECURSIVE below(name) AS (SELECT ?1 UNION SELECT a.name FROM authority a JOIN below ON a.issuer = below.name) \
               SELECT tenant, credential FROM certificate c WHERE issuer IN below AND standing = 1 AND credential IS NOT NULL \
               AND NOT EXISTS (SELECT 1 FROM certificate n WHERE n.tenant = c.tenant AND n.credential = c.credential \
               AND n.standing > 0 AND n.row > c.row)";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([revoked])?;
    let mut effects = Vec::new();
    while let Some(row) = rows.next()? {
        let tenant = TenantName::new(&row.get::<_, String>(0)?);
        let tenant = tenant.map_err(|_| corrupt("a certificate's tenant"))?;
        let id = CredentialId::new(&row.get::<_, String>(1)?);
        let id = id.map_err(|_| corrupt("a certificate's credential"))?;
        // A tenant that is gone has no credentials left.
        let Some(credential) = directory
            .tenant(tenant.as_str())
            .and_then(|tenant| tenant.credential(id.as_str()))
        else {
            continue;
        };
        turn(db, "credential", credential.row.0, false)?;
        effects.push(Effect::TurnCredential(credential, false));
    }
    Ok(effects)
}

/// What could not be counted when it is issued is not prepared either.
fn check_quota(db: &Connection, directory: &Directory, moment: Moment, new: &Prepared) -> Result<()> {
    match &new.holder {
        Some(holder) if new.counted => {
            let tenant = tenant_of(directory, &holder.tenant)?.row;
            change::check(db, moment, tenant, Unit::Certificate)
        }
        _ => Ok(()),
    }
}

fn prepare(db: &Connection, at: UnixMillis, new: &Prepared) -> Result<()> {
    let sql = "INSERT INTO certificate (issuer, serial, tenant, credential, der, standing, changed_ms, not_after_ms, \
               profile, subject, counted, sandbox, key) VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)";
    let tenant = new.holder.as_ref().map(|holder| holder.tenant.as_str());
    let credential = new.holder.as_ref().and_then(|holder| holder.credential.as_ref());
    let added = db.prepare_cached(sql)?.execute(params![
        new.issuer.as_str(),
        new.serial,
        tenant,
        credential.map(CredentialId::as_str),
        new.tbs,
        at.0.cast_signed(),
        new.not_after.0.cast_signed(),
        new.profile,
        new.subject.as_ref().map(SubjectId::as_str),
        new.counted,
        new.environment.is_sandbox(),
        new.key
    ]);
    unless_exists(added, "serial number", &hex(&new.serial))
}

/// What was so when it was signed has to be so when it is given out: those whose identities it states are approved, and
/// nobody has said of its key that others have it.
fn check_issuable(
    db: &Connection,
    issuer: &AuthorityName,
    serial: &[u8],
    states: &[SubjectId],
) -> Result<()> {
    let sql = "SELECT c.tenant, EXISTS (SELECT 1 FROM certificate r WHERE r.key = c.key AND r.standing = 3 \
               AND r.reason = ?3) FROM certificate c WHERE c.issuer = ?1 AND c.serial = ?2";
    let read = |row: &Row<'_>| Ok((row.get::<_, Option<String>>(0)?, row.get::<_, bool>(1)?));
    let found = db
        .prepare_cached(sql)?
        .query_row(params![issuer.as_str(), serial, KEY_COMPROMISE], read)
        .optional()?;
    let Some((tenant, compromised)) = found else {
        return Ok(());
    };
    if is_revoked(db, issuer)? {
        let text = format!("authority '{issuer}', or one above it, was revoked meanwhile");
        return Err(refuse(Code::WrongState, text));
    }
    if compromised {
        let text = "a certificate of this key was revoked for keyCompromise: make a new key";
        return Err(refuse(Code::WrongState, text.into()));
    }
    let Some(tenant) = tenant else { return Ok(()) };
    let tenant = TenantName::new(&tenant).map_err(|_| corrupt("a certificate's tenant"))?;
    for subject in states {
        let row = subjects::read(db, &tenant, subject)?;
        if row.is_none_or(|row| row.state != SubjectState::Approved) {
            let text = format!("subject '{subject}' is not approved any more");
            return Err(refuse(Code::SubjectNotApproved, text));
        }
    }
    Ok(())
}

fn issue(
    db: &Connection,
    at: UnixMillis,
    (issuer, serial): (&AuthorityName, &[u8]),
    certificate: &[u8],
    asked: Option<&Asked>,
) -> Result<()> {
    let sql = "UPDATE certificate SET der = ?, standing = 1, changed_ms = ?, app = ?, asked = ?, request = ? \
               WHERE issuer = ? AND serial = ? AND standing = 0";
    let changed = db.prepare_cached(sql)?.execute(params![
        certificate,
        at.0.cast_signed(),
        asked.map(|asked| asked.app.as_str()),
        asked.map(|asked| &asked.key),
        asked.map(|asked| asked.request),
        issuer.as_str(),
        serial
    ]);
    match changed {
        Ok(1) => return Ok(()),
        Ok(_) => {}
        // Two calls with the same key came together: the other one was faster.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            return Err(exists(
                "certificate for the idempotency key",
                asked.map_or("", |asked| &asked.key),
            ));
        }
        Err(error) => return Err(error.into()),
    }
    let text = format!(
        "certificate {issuer}/{} was not prepared, or is issued",
        hex(serial)
    );
    Err(refuse(Code::Internal, text))
}

/// A tenant's certificate is a unit (SEMANTICS 4.1), in the transaction that gives it out.
fn count(
    db: &Connection,
    directory: &Directory,
    moment: Moment,
    (issuer, serial): (&AuthorityName, &[u8]),
    asked: Option<&Asked>,
) -> Result<Effect> {
    let sql = "SELECT tenant FROM certificate WHERE issuer = ? AND serial = ? AND counted";
    let tenant: Option<Option<String>> = db
        .prepare_cached(sql)?
        .query_row(params![issuer.as_str(), serial], |row| row.get(0))
        .optional()?;
    let Some(name) = tenant.flatten() else {
        return Ok(Effect::None);
    };
    let name = TenantName::new(&name).map_err(|_| corrupt("a certificate's tenant"))?;
    let tenant = tenant_of(directory, &name)?.row;
    change::count(db, moment, tenant, Unit::Certificate)?;
    if let Some(app) = asked.and_then(|asked| directory.app(asked.app.as_str())) {
        let mut tally = Tally::default();
        tally.count(app.row, usage::CERTIFICATES);
        tally.write(db, moment.at)?;
    }
    Ok(Effect::Books(tenant))
}

fn warn(db: &Connection, issuer: &AuthorityName, serial: &[u8], days: u32) -> Result<()> {
    let sql = "UPDATE certificate SET warned = ? WHERE issuer = ? AND serial = ?";
    db.execute(sql, params![days, issuer.as_str(), serial])?;
    Ok(())
}

/// What else certifies the key of a certificate and could still be believed.
fn of_same_key(
    db: &Connection,
    at: UnixMillis,
    issuer: &AuthorityName,
    serial: &[u8],
) -> Result<Vec<(AuthorityName, Vec<u8>)>> {
    let sql = "SELECT issuer, serial FROM certificate WHERE standing IN (1, 2) AND not_after_ms >= ?3 AND key = \
               (SELECT key FROM certificate WHERE issuer = ?1 AND serial = ?2) ORDER BY row";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![issuer.as_str(), serial, at.0.cast_signed()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((authority_name(&row.get::<_, String>(0)?)?, row.get(1)?));
    }
    Ok(found)
}

fn set_standing(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    (issuer, serial): (&AuthorityName, &[u8]),
    (standing, by): (CertificateStanding, By),
) -> Result<Effect> {
    let missing = || refuse(Code::NotFound, format!("no certificate {issuer}/{}", hex(serial)));
    let found = read_certificate(db, issuer, serial)?.ok_or_else(missing)?;
    check_change(&found, standing, by)?;
    let credential = match &found.holder {
        Some(Holder {
            tenant,
            credential: Some(credential),
        }) if newest(db, tenant, credential)?.is_some_and(|(row, _)| row == found.number.0) => {
            Some(credential_of(directory, tenant, credential)?)
        }
        _ => None,
    };
    let resumes = standing == CertificateStanding::Issued;
    let active = credential
        .as_ref()
        .is_some_and(|credential| credential.fence.pass().is_some());
    // A credential that an operator has disabled besides stays so when its certificate is resumed.
    let turns = if resumes {
        found.turned_off && !is_revoked(db, issuer)?
    } else {
        active
    };
    let (number, reason) = standing.columns();
    let sql = "UPDATE certificate SET standing = ?, reason = ?, changed_ms = ?, turned_off = ?, held_by_tenant = ? \
               WHERE row = ?";
    let turned_off = !resumes && (turns || found.turned_off);
    let held_by_tenant = standing == CertificateStanding::Suspended && by == By::Tenant;
    db.execute(
        sql,
        params![
            number,
            reason,
            at.0.cast_signed(),
            turned_off,
            held_by_tenant,
            found.number.0
        ],
    )?;
    let Some(credential) = credential.filter(|_| turns) else {
        return Ok(Effect::None);
    };
    turn(db, "credential", credential.row.0, resumes)?;
    Ok(Effect::TurnCredential(credential, resumes))
}

/// Whether a certificate may come to stand so, by whoever wants it.
fn check_change(found: &CertificateRow, standing: CertificateStanding, by: By) -> Result<()> {
    let name = || format!("certificate {}/{}", found.issuer, hex(&found.serial));
    let suspended = found.standing == CertificateStanding::Suspended;
    // What its holder has suspended operators may suspend, too: then it is theirs to resume.
    let takes_over =
        suspended && found.held_by_tenant && standing == CertificateStanding::Suspended && by == By::Operator;
    if !found.standing.may_become(standing) && !takes_over {
        let (is, wanted) = (found.standing.name(), standing.name());
        return Err(refuse(
            Code::WrongState,
            format!("{} is {is} and cannot become {wanted}", name()),
        ));
    }
    let resumes = standing == CertificateStanding::Issued;
    if resumes && by == By::Tenant && !found.held_by_tenant {
        let text = format!("{} was suspended by an operator, who alone resumes it", name());
        return Err(refuse(Code::WrongState, text));
    }
    if found.holder.is_none() && !matches!(standing, CertificateStanding::Revoked { .. }) {
        let text = format!("{} is an authority's, which is revoked or not", name());
        return Err(refuse(Code::WrongState, text));
    }
    Ok(())
}

/// The newest certificate of a credential that was ever in force, and how it stands.
fn newest(
    db: &Connection,
    tenant: &TenantName,
    credential: &CredentialId,
) -> Result<Option<(i64, CertificateStanding)>> {
    let sql = "SELECT row, standing, reason FROM certificate WHERE tenant = ? AND credential = ? AND standing > 0 \
               ORDER BY row DESC LIMIT 1";
    let read = |row: &Row<'_>| Ok((row.get(0)?, CertificateStanding::of(row.get(1)?, row.get(2)?)));
    let holder = params![tenant.as_str(), credential.as_str()];
    Ok(db.prepare_cached(sql)?.query_row(holder, read).optional()?)
}

/// Whether a credential's last certificate is still the one that was seen, and in force.
pub(crate) fn check_last(
    db: &Connection,
    tenant: &TenantName,
    credential: &CredentialId,
    seen: Option<CertificateNumber>,
) -> Result<()> {
    let last = newest(db, tenant, credential)?;
    let in_force = last.is_none_or(|(_, standing)| standing == CertificateStanding::Issued);
    if in_force && last.map(|(row, _)| CertificateNumber(row)) == seen {
        return Ok(());
    }
    let text =
        format!("the certificate of '{tenant}/{credential}' was changed meanwhile; nothing is renewed");
    Err(refuse(Code::WrongState, text))
}

/// A credential is usable only while its certificate is, and those who have certified it.
pub(crate) fn check_in_force(db: &Connection, tenant: &TenantName, credential: &CredentialId) -> Result<()> {
    let Some(last) = read_last(db, tenant, credential)? else {
        return Ok(());
    };
    if last.standing != CertificateStanding::Issued {
        let text = format!(
            "the certificate of '{tenant}/{credential}' is {}",
            last.standing.name()
        );
        return Err(refuse(Code::CredentialDisabled, text));
    }
    if is_revoked(db, &last.issuer)? {
        let text = format!("an authority that has certified '{tenant}/{credential}' is revoked");
        return Err(refuse(Code::CredentialDisabled, text));
    }
    Ok(())
}

fn keep_crl(
    db: &Connection,
    at: UnixMillis,
    issuer: &AuthorityName,
    (number, base): (u64, Option<u64>),
    der: &[u8],
) -> Result<()> {
    let last = last_list(db, issuer)?;
    if number <= last {
        let text = format!("revocation list {number} of {issuer} comes after {last}");
        return Err(refuse(Code::AlreadyExists, text));
    }
    // The time never goes back here, even if the clock does: no list says that it is older than one before it.
    let sql = "INSERT INTO crl (issuer, number, base, der, made_ms) VALUES (?1, ?2, ?3, ?4, \
               max(?5, coalesce((SELECT max(made_ms) FROM crl WHERE issuer = ?1), 0)))";
    db.execute(
        sql,
        params![
            issuer.as_str(),
            number.cast_signed(),
            base.map(u64::cast_signed),
            der,
            at.0.cast_signed()
        ],
    )?;
    // The newest full list stays, however many deltas follow it.
    let sql = "DELETE FROM crl WHERE issuer = ?1 AND number <= ?2 AND number < \
               (SELECT max(number) FROM crl WHERE issuer = ?1 AND base IS NULL)";
    let old = number.saturating_sub(LISTS_KEPT).cast_signed();
    db.execute(sql, params![issuer.as_str(), old])?;
    Ok(())
}

/// The highest number that an issuer's lists have; 0 where there are none.
fn last_list(db: &Connection, issuer: &AuthorityName) -> Result<u64> {
    let sql = "SELECT max(number) FROM crl WHERE issuer = ?";
    let last: Option<i64> = db
        .prepare_cached(sql)?
        .query_row([issuer.as_str()], |row| row.get(0))?;
    Ok(last.map_or(0, i64::cast_unsigned))
}

fn reserve(db: &Connection, at: UnixMillis, authority: &AuthorityName, first: u64, count: u64) -> Result<()> {
    let known = read_serial_blocks(db, authority)?;
    if known.next != first {
        let text = format!("serial numbers of {authority} from {first} are reserved already");
        return Err(refuse(Code::AlreadyExists, text));
    }
    let sql = "INSERT OR REPLACE INTO serial_block (authority, next, reserved_ms) VALUES (?, ?, ?)";
    // The time never goes back here, even if the clock does: it is what the next start holds the clock against.
    let at = at.max(known.reserved_at);
    let next = first.saturating_add(count).cast_signed();
    db.execute(sql, params![authority.as_str(), next, at.0.cast_signed()])?;
    Ok(())
}

/// Which certificate it is, in the order in which they were prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateNumber(i64);

/// A certificate as it is known.
#[derive(Debug)]
pub struct CertificateRow {
    /// Which one.
    pub number: CertificateNumber,
    turned_off: bool,
    held_by_tenant: bool,
    /// Who has signed it.
    pub issuer: AuthorityName,
    /// Its serial number, unsigned and big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// Whose it is; `None`: an authority's.
    pub holder: Option<Holder>,
    /// The certificate; while it is only prepared, the part to be signed.
    pub der: Vec<u8>,
    /// How it stands.
    pub standing: CertificateStanding,
    /// Since when.
    pub since: UnixMillis,
    /// When it expires.
    pub not_after: UnixMillis,
    /// The profile that it follows.
    pub profile: String,
    /// The subject whose identity was checked for it.
    pub subject: Option<SubjectId>,
    /// For what its holder uses it.
    pub environment: Environment,
    /// What makes the call that asked for it the same call, if one did.
    pub request: Option<[u8; 32]>,
    /// So many days before its end that was told last.
    pub warned: u32,
}

const CERTIFICATE: &str = "SELECT row, turned_off, issuer, serial, tenant, credential, der, standing, reason, \
                           changed_ms, not_after_ms, profile, subject, request, warned, sandbox, held_by_tenant \
                           FROM certificate";

fn time_of(row: &Row<'_>, column: usize) -> rusqlite::Result<UnixMillis> {
    Ok(UnixMillis(row.get::<_, i64>(column)?.cast_unsigned()))
}

fn certificate_of(row: &Row<'_>) -> Result<CertificateRow> {
    let names: (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
    let holder = match names {
        (Some(tenant), credential) => Some(Holder {
            tenant: TenantName::new(&tenant).map_err(|_| corrupt("a certificate's tenant"))?,
            credential: credential
                .map(|credential| CredentialId::new(&credential))
                .transpose()
                .map_err(|_| corrupt("a certificate's credential"))?,
        }),
        _ => None,
    };
    Ok(CertificateRow {
        number: CertificateNumber(row.get(0)?),
        turned_off: row.get(1)?,
        issuer: authority_name(&row.get::<_, String>(2)?)?,
        serial: row.get(3)?,
        holder,
        der: row.get(6)?,
        standing: CertificateStanding::of(row.get(7)?, row.get(8)?),
        since: time_of(row, 9)?,
        not_after: time_of(row, 10)?,
        profile: row.get(11)?,
        subject: row
            .get::<_, Option<String>>(12)?
            .map(|subject| SubjectId::new(&subject))
            .transpose()
            .map_err(|_| corrupt("a certificate's subject"))?,
        request: row.get(13)?,
        warned: row.get(14)?,
        environment: Environment::of_sandbox(row.get(15)?),
        held_by_tenant: row.get(16)?,
    })
}

fn authority_name(text: &str) -> Result<AuthorityName> {
    AuthorityName::new(text).map_err(|_| corrupt("an authority's name"))
}

pub(crate) fn read_certificate(
    db: &Connection,
    issuer: &AuthorityName,
    serial: &[u8],
) -> Result<Option<CertificateRow>> {
    let mut statement = db.prepare_cached(&format!("{CERTIFICATE} WHERE issuer = ? AND serial = ?"))?;
    let mut rows = statement.query(params![issuer.as_str(), serial])?;
    rows.next()?.map(certificate_of).transpose()
}

fn select(db: &Connection, which: &str, values: impl rusqlite::Params) -> Result<Vec<CertificateRow>> {
    let mut statement = db.prepare_cached(&format!("{CERTIFICATE} {which}"))?;
    let mut rows = statement.query(values)?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(certificate_of(row)?);
    }
    Ok(list)
}

/// A page of a tenant's certificates that were in force, of an environment or of all, after the one of this serial number.
pub(crate) fn read_page(
    db: &Connection,
    tenant: &TenantName,
    environment: Option<Environment>,
    after: Option<&[u8]>,
    count: u32,
) -> Result<Vec<CertificateRow>> {
    let which = "INDEXED BY certificate_of WHERE tenant = ?1 AND (?4 IS NULL OR sandbox = ?4) AND standing > 0 AND row > \
                 coalesce((SELECT max(row) FROM certificate WHERE serial = ?2 AND +tenant = ?1), 0) ORDER BY row LIMIT ?3";
    let sandbox = environment.map(Environment::is_sandbox);
    select(db, which, params![tenant.as_str(), after, count, sandbox])
}

/// A tenant's certificates with a serial number, of an environment or of all: one, unless two issuers have used the same.
pub(crate) fn read_by_serial(
    db: &Connection,
    tenant: &TenantName,
    environment: Option<Environment>,
    serial: &[u8],
) -> Result<Vec<CertificateRow>> {
    // The plus keeps the index of tenants out of it, which would read all that the tenant has.
    let which =
        "WHERE serial = ?2 AND +tenant = ?1 AND (?3 IS NULL OR sandbox = ?3) AND standing > 0 ORDER BY row";
    let sandbox = environment.map(Environment::is_sandbox);
    select(db, which, params![tenant.as_str(), serial, sandbox])
}

/// The newest certificate of a credential that was ever in force.
pub(crate) fn read_last(
    db: &Connection,
    tenant: &TenantName,
    credential: &CredentialId,
) -> Result<Option<CertificateRow>> {
    let which = "WHERE tenant = ? AND credential = ? AND standing > 0 ORDER BY row DESC LIMIT 1";
    let found = select(db, which, [tenant.as_str(), credential.as_str()])?;
    Ok(found.into_iter().next())
}

/// The certificate that a call has brought.
pub(crate) fn read_asked(db: &Connection, app: &AppId, key: &str) -> Result<Option<CertificateRow>> {
    let found = select(db, "WHERE app = ? AND asked = ?", params![app.as_str(), key])?;
    Ok(found.into_iter().next())
}

/// No successor at the credential.
const NOT_RENEWED: &str = "NOT EXISTS (SELECT 1 FROM certificate n WHERE n.tenant = c.tenant AND n.credential = c.credential \
                           AND n.standing > 0 AND n.row > c.row)";

/// At most `count` certificates that end in a span of time, have no successor at their credential, and of which nobody was
/// told that they end in so few days.
pub(crate) fn read_unwarned(
    db: &Connection,
    (from, to): (UnixMillis, UnixMillis),
    days: u32,
    count: u32,
) -> Result<Vec<CertificateRow>> {
    let which = format!(
        "AS c INDEXED BY certificate_end WHERE standing = 1 AND not_after_ms BETWEEN ? AND ? AND warned > ? \
         AND {NOT_RENEWED} ORDER BY not_after_ms LIMIT ?"
    );
    select(
        db,
        &which,
        params![from.0.cast_signed(), to.0.cast_signed(), days, count],
    )
}

/// How many certificates end in a span of time and have no successor at their credential.
pub(crate) fn count_ending(db: &Connection, (from, to): (UnixMillis, UnixMillis)) -> Result<u64> {
    let sql = format!(
        "SELECT count(*) FROM certificate AS c WHERE standing = 1 AND not_after_ms BETWEEN ? AND ? AND {NOT_RENEWED}"
    );
    let count: i64 = db
        .prepare_cached(&sql)?
        .query_row(params![from.0.cast_signed(), to.0.cast_signed()], |row| {
            row.get(0)
        })?;
    Ok(count.cast_unsigned())
}

/// At most `count` certificates that end in a span of time and have no successor at their credential, the first first.
pub(crate) fn read_ending(
    db: &Connection,
    from: UnixMillis,
    to: UnixMillis,
    count: u32,
) -> Result<Vec<CertificateRow>> {
    let which = format!(
        "AS c WHERE standing = 1 AND not_after_ms BETWEEN ? AND ? AND {NOT_RENEWED} ORDER BY not_after_ms, row LIMIT ?"
    );
    select(
        db,
        &which,
        params![from.0.cast_signed(), to.0.cast_signed(), count],
    )
}

/// A certificate for a revocation list.
#[derive(Debug)]
pub struct RevokedRow {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// Since when.
    pub at: UnixMillis,
    /// CRLReason (RFC 5280 5.3.1).
    pub reason: u8,
}

pub(crate) fn read_revoked(
    db: &Connection,
    issuer: &AuthorityName,
    now: UnixMillis,
) -> Result<Vec<RevokedRow>> {
    let sql = "SELECT serial, changed_ms, reason FROM certificate \
               WHERE issuer = ? AND standing >= 2 AND not_after_ms >= ? ORDER BY row";
    let read = |row: &Row<'_>| {
        Ok(RevokedRow {
            serial: row.get(0)?,
            at: time_of(row, 1)?,
            reason: row.get(2)?,
        })
    };
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params![issuer.as_str(), now.0.cast_signed()], read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The latest time at which a certificate was prepared or numbers were reserved, as far as the last of each tell.
pub(crate) fn last_certified(db: &Connection) -> Result<UnixMillis> {
    let sql = "SELECT max(coalesce((SELECT changed_ms FROM certificate ORDER BY row DESC LIMIT 1), 0), \
               coalesce((SELECT max(reserved_ms) FROM serial_block), 0))";
    Ok(db.prepare_cached(sql)?.query_row([], |row| time_of(row, 0))?)
}

/// When the last certificate of an issuer was suspended or revoked.
pub(crate) fn last_revocation(db: &Connection, issuer: &AuthorityName) -> Result<Option<UnixMillis>> {
    let sql = "SELECT max(changed_ms) FROM certificate WHERE issuer = ? AND standing >= 2";
    let last: Option<i64> = db
        .prepare_cached(sql)?
        .query_row([issuer.as_str()], |row| row.get(0))?;
    Ok(last.map(|last| UnixMillis(last.cast_unsigned())))
}

/// A revocation list that was made.
#[derive(Debug)]
pub struct KeptCrl {
    /// Its number.
    pub number: u64,
    /// The number of the full list to which it is a delta; `None`: it is a full list.
    pub base: Option<u64>,
    /// The list, in DER.
    pub der: Vec<u8>,
    /// When it was kept.
    pub made_at: UnixMillis,
}

/// The newest full list.
pub(crate) fn read_crl(db: &Connection, issuer: &AuthorityName) -> Result<Option<KeptCrl>> {
    let sql = "SELECT number, base, der, made_ms FROM crl WHERE issuer = ? AND base IS NULL \
               ORDER BY number DESC LIMIT 1";
    read_list(db, sql, params![issuer.as_str()])
}

/// The newest delta to a full list.
pub(crate) fn read_delta(db: &Connection, issuer: &AuthorityName, base: u64) -> Result<Option<KeptCrl>> {
    let sql = "SELECT number, base, der, made_ms FROM crl WHERE issuer = ? AND base = ? \
               ORDER BY number DESC LIMIT 1";
    read_list(db, sql, params![issuer.as_str(), base.cast_signed()])
}

fn read_list(db: &Connection, sql: &str, of: &[&dyn rusqlite::ToSql]) -> Result<Option<KeptCrl>> {
    let read = |row: &Row<'_>| {
        Ok(KeptCrl {
            number: row.get::<_, i64>(0)?.cast_unsigned(),
            base: row.get::<_, Option<i64>>(1)?.map(i64::cast_unsigned),
            der: row.get(2)?,
            made_at: time_of(row, 3)?,
        })
    };
    Ok(db.prepare_cached(sql)?.query_row(of, read).optional()?)
}

/// The number of the revocation list that an issuer publishes next.
pub(crate) fn next_list(db: &Connection, issuer: &AuthorityName) -> Result<u64> {
    Ok(epoch::read(db)?.next_list(last_list(db, issuer)?))
}

/// The same for all that have published any, in an epoch that begins.
pub(crate) fn next_lists(db: &Connection, epoch: DataEpoch) -> Result<Vec<(String, u64)>> {
    let mut statement = db.prepare("SELECT issuer, max(number) FROM crl GROUP BY issuer ORDER BY issuer")?;
    let rows = statement.query_map([], |row| {
        let last = row.get::<_, i64>(1)?.cast_unsigned();
        Ok((row.get(0)?, epoch.next_list(last)))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Leaves out the serial numbers that a lost data folder may have given out after it was copied; and it may have stamped
/// times up to now. Returns the first number of each authority.
pub(crate) fn skip_serials(db: &Connection, epoch: DataEpoch, now: UnixMillis) -> Result<Vec<(String, u64)>> {
    let mut statement =
        db.prepare("SELECT authority, next, reserved_ms FROM serial_block ORDER BY authority")?;
    let rows = statement.query_map([], |row| {
        let next = epoch.first_serial(row.get::<_, i64>(1)?.cast_unsigned());
        Ok((row.get::<_, String>(0)?, next, time_of(row, 2)?.max(now)))
    })?;
    let blocks: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    let sql = "UPDATE serial_block SET next = ?, reserved_ms = ? WHERE authority = ?";
    for (authority, next, reserved) in &blocks {
        db.execute(
            sql,
            params![next.cast_signed(), reserved.0.cast_signed(), authority],
        )?;
    }
    Ok(blocks
        .into_iter()
        .map(|(authority, next, _)| (authority, next))
        .collect())
}

/// How far an authority's serial numbers are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialBlocks {
    /// The first number that is not reserved; 1 in the beginning.
    pub next: u64,
    /// When the last block was reserved.
    pub reserved_at: UnixMillis,
}

pub(crate) fn read_serial_blocks(db: &Connection, authority: &AuthorityName) -> Result<SerialBlocks> {
    let sql = "SELECT next, reserved_ms FROM serial_block WHERE authority = ?";
    let read = |row: &Row<'_>| {
        Ok(SerialBlocks {
            next: row.get::<_, i64>(0)?.cast_unsigned(),
            reserved_at: time_of(row, 1)?,
        })
    };
    let found = db
        .prepare_cached(sql)?
        .query_row([authority.as_str()], read)
        .optional()?;
    Ok(found.unwrap_or(SerialBlocks {
        next: 1,
        reserved_at: UnixMillis(0),
    }))
}

fn authority_key(row: &Row<'_>) -> Result<AuthorityKey> {
    let columns: (Option<Vec<u8>>, Option<String>, Option<Vec<u8>>) = (row.get(4)?, row.get(5)?, row.get(6)?);
    match columns {
        (Some(wrapped), None, None) => Ok(AuthorityKey::Software { wrapped }),
        (None, Some(device), Some(object)) => Ok(AuthorityKey::Device { device, object }),
        _ => Err(corrupt("where an authority's key is")),
    }
}

pub(crate) fn read_authorities(db: &Connection) -> Result<Vec<AuthorityRow>> {
    let sql = "SELECT name, role, kind, issuer, wrapped, device, object, certificate, serial FROM authority ORDER BY name";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        let role: String = row.get(1)?;
        let mut roles = Role::ALL.into_iter();
        let kind: String = row.get(2)?;
        let issuer: Option<String> = row.get(3)?;
        list.push(AuthorityRow {
            name: authority_name(&row.get::<_, String>(0)?)?,
            role: roles
                .find(|known| known.name() == role)
                .ok_or_else(|| corrupt("an authority's role"))?,
            kind: kind.parse().map_err(|_| corrupt("an authority's kind"))?,
            issuer: issuer.as_deref().map(authority_name).transpose()?,
            key: authority_key(row)?,
            certificate: row.get(7)?,
            serial: row.get(8)?,
        });
    }
    Ok(list)
}
