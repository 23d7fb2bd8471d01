//! Operators' orders about authorities and certificates.

use actors::certificates::{AuthorityPlan, Founded, check_clock, found};
use actors::enrolment::{Application, show};
use actors::registrar::Ledger;
use actors::task::Task;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use documents::crl::Reason;
use documents::csr;
use documents::x509::{self, NameParts};
use hsm_pool::pool::Pool;
use protocol::algorithm::{Hash, KeyKind};
use protocol::clock::{self, UnixMillis};
use protocol::error_code::{Code, Refusal};
use protocol::ids::{AuthorityName, CredentialId, SubjectId, TenantName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{By, CertificateRow, CertificateStanding, Environment, Role};

use super::keys::unhex;
use crate::pki::Pki;

const DAY_MS: u64 = 24 * 3_600_000;
/// Certificates in one answer.
pub(crate) const LISTED_MAX: u32 = 256;
/// Certificates in a list of those that end.
const ENDING_LISTED_MAX: u32 = 10_000;

/// What an operator wants done with certificates.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "certificate-order", rename_all = "kebab-case")]
pub(crate) enum CertificateOrder {
    /// Makes an authority.
    Found {
        name: AuthorityName,
        role: NewRole,
        kind: KeyKind,
        /// RFC 4514; made of the name if not given.
        subject: Option<String>,
        issuer: Option<AuthorityName>,
        /// What the profile says if not given.
        days: Option<u64>,
        /// The device in which its key is made.
        device: Option<String>,
    },
    /// Another certificate for an authority's key.
    RenewAuthority {
        name: AuthorityName,
        days: Option<u64>,
    },
    /// By its issuer's list.
    RevokeAuthority {
        name: AuthorityName,
        /// CRLReason (RFC 5280 5.3.1).
        reason: u8,
    },
    Authorities,
    List {
        tenant: TenantName,
        /// Those after this serial number, hexadecimal.
        after: Option<String>,
    },
    /// What ends soon.
    Ending {
        days: u32,
    },
    /// Certifies a key by its request, or the key of a credential.
    Issue {
        tenant: TenantName,
        profile: String,
        subject: Option<SubjectId>,
        issuer: Option<AuthorityName>,
        what: Certifiable,
    },
    Renew {
        tenant: TenantName,
        credential: CredentialId,
        new_key: bool,
    },
    /// A request for another authority.
    Request {
        tenant: TenantName,
        credential: CredentialId,
        /// RFC 4514.
        subject: Option<String>,
    },
    /// What another authority has answered, PEM.
    Import {
        tenant: TenantName,
        credential: CredentialId,
        chain: String,
        root: Option<String>,
    },
    Set {
        tenant: TenantName,
        /// May be left out where there is a serial number.
        credential: Option<CredentialId>,
        /// Hexadecimal; the credential's newest in force if not given.
        serial: Option<String>,
        to: NewStanding,
    },
}

/// What is certified.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Certifiable {
    /// A key that is not here, by its request (PKCS#10), PEM.
    Request(String),
    /// A credential's key.
    Credential(CredentialId),
}

/// The roles that an operator can give.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NewRole {
    /// Certifies itself, intermediate and issuing authorities.
    Root,
    /// Certifies issuing authorities.
    Intermediate,
    /// Certifies credentials, time-stamping authorities and OCSP responders.
    Issuing,
    /// Stamps times.
    Tsa,
    /// Answers for its issuer.
    Ocsp,
}

/// What a certificate is to become.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NewStanding {
    Suspended,
    Resumed,
    /// CRLReason (RFC 5280 5.3.1).
    Revoked(u8),
}

/// Carries orders about certificates out.
pub(crate) struct Certificates<'a> {
    pub(crate) pki: &'a Pki,
    /// Of a running engine.
    pub(crate) pool: Option<&'a Pool<Task>>,
    pub(crate) ledger: &'a dyn Ledger,
    /// Who orders.
    pub(crate) actor: &'a str,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Certificates<'_> {
    pub(crate) fn obey(&self, order: CertificateOrder) -> Result<Value, Refusal> {
        match order {
            CertificateOrder::Found {
                name,
                role,
                kind,
                subject,
                issuer,
                days,
                device,
            } => {
                let subject = match subject {
                    Some(text) => text.parse().map_err(usage)?,
                    None => default_subject(&name)?,
                };
                let role = match role {
                    NewRole::Root => Role::Root,
                    NewRole::Intermediate => Role::Intermediate,
                    NewRole::Issuing => Role::Issuing,
                    NewRole::Tsa => Role::TimeStamping,
                    NewRole::Ocsp => Role::Ocsp,
                };
                let profile = self.pki.settings.profiles.get(role.name())?;
                self.found(AuthorityPlan {
                    name,
                    role,
                    kind,
                    subject,
                    issuer,
                    days: days.unwrap_or(profile.days),
                    device,
                })
            }
            CertificateOrder::RenewAuthority { name, days } => self.renew_authority(&name, days),
            CertificateOrder::RevokeAuthority { name, reason } => self.revoke_authority(&name, reason),
            CertificateOrder::Authorities => self.authorities(),
            CertificateOrder::List { tenant, after } => self.list(&tenant, after.as_deref()),
            CertificateOrder::Ending { days } => self.ending(days),
            order @ (CertificateOrder::Issue { .. }
            | CertificateOrder::Renew { .. }
            | CertificateOrder::Request { .. }
            | CertificateOrder::Import { .. }) => self.enrol(order),
            CertificateOrder::Set {
                tenant,
                credential,
                serial,
                to,
            } => self.set(&tenant, credential.as_ref(), serial.as_deref(), to),
        }
    }

    fn enrol(&self, order: CertificateOrder) -> Result<Value, Refusal> {
        let office = self.pki.office(self.pool)?;
        let enrolment = office.enrolment(self.ledger);
        let now = clock::wall();
        let certified = match order {
            CertificateOrder::Issue {
                tenant,
                profile,
                subject,
                issuer,
                what,
            } => {
                self.ledger.tenant(&tenant)?;
                let application = Application {
                    tenant,
                    profile,
                    subject,
                    issuer,
                    asked: None,
                    environment: Environment::Production,
                };
                match what {
                    Certifiable::Request(pem) => {
                        enrolment.issue_for_request(application, &read_request(&pem)?, now)?
                    }
                    Certifiable::Credential(id) => {
                        enrolment.issue_for_credential(application, &id, false, now)?
                    }
                }
            }
            CertificateOrder::Renew {
                tenant,
                credential,
                new_key,
            } => enrolment.renew(&tenant, &credential, (new_key, None), now)?,
            CertificateOrder::Import {
                tenant,
                credential,
                chain,
                root,
            } => {
                let chain = read_certificates(&chain)?;
                let root = root.map(|root| read_certificates(&root)).transpose()?;
                let root = root.and_then(|mut root| root.pop());
                enrolment.import(&tenant, &credential, (chain, root), now)?
            }
            CertificateOrder::Request {
                tenant,
                credential,
                subject,
            } => {
                let subject = subject.map(|text| text.parse()).transpose().map_err(usage)?;
                let request = enrolment.request(&tenant, &credential, subject)?;
                return Ok(json!({ "request": csr::to_pem(&request) }));
            }
            _ => return Err(Refusal::new(Code::Internal, "an order of another kind")),
        };
        Ok(certified.show(None))
    }

    /// Certificates in force that end within so many days, the first first.
    fn ending(&self, days: u32) -> Result<Value, Refusal> {
        let now = clock::wall();
        let until = UnixMillis(now.0.saturating_add(u64::from(days) * DAY_MS));
        let rows = self
            .pki
            .reader()?
            .certificates_ending(now, until, ENDING_LISTED_MAX);
        let rows = rows.map_err(|error| error.refusal())?;
        let with_tenant = |row: &CertificateRow| {
            let mut value = show(row);
            value["tenant"] = json!(row.holder.as_ref().map(|holder| &holder.tenant));
            value
        };
        Ok(Value::Array(rows.iter().map(with_tenant).collect()))
    }

    /// A page of a tenant's certificates.
    fn list(&self, tenant: &TenantName, after: Option<&str>) -> Result<Value, Refusal> {
        self.ledger.tenant(tenant)?;
        let after = after.map(|text| unhex(text).ok_or_else(|| usage("a serial number is hexadecimal")));
        let after = after.transpose()?;
        let rows = self
            .pki
            .reader()?
            .certificate_page((tenant, None), after.as_deref(), LISTED_MAX);
        let rows = rows.map_err(|error| error.refusal())?;
        Ok(Value::Array(rows.iter().map(show).collect()))
    }

    /// The certificate that an order is about.
    fn find(
        &self,
        tenant: &TenantName,
        credential: Option<&CredentialId>,
        serial: Option<&str>,
    ) -> Result<CertificateRow, Refusal> {
        self.ledger.tenant(tenant)?;
        let reader = self.pki.reader()?;
        let missing = || {
            let text = match credential {
                Some(credential) => {
                    format!("credential '{tenant}/{credential}' has no such certificate of ours")
                }
                None => format!("tenant '{tenant}' has no such certificate"),
            };
            Refusal::new(Code::NotFound, text)
        };
        let found = match (credential, serial) {
            (Some(credential), None) => reader.last_certificate(tenant, credential),
            (_, Some(serial)) => {
                let serial = unhex(serial).ok_or_else(missing)?;
                let rows = reader.certificates_by_serial((tenant, None), &serial);
                let is_its = |row: &CertificateRow| {
                    let holder = row.holder.as_ref().and_then(|holder| holder.credential.as_ref());
                    credential.is_none() || holder == credential
                };
                rows.map(|rows| rows.into_iter().rev().find(is_its))
            }
            (None, None) => return Err(usage("name a credential or a serial number")),
        };
        found.map_err(|error| error.refusal())?.ok_or_else(missing)
    }

    fn authorities(&self) -> Result<Value, Refusal> {
        let current = self.pki.current();
        let reader = self.pki.reader()?;
        let mut list = Vec::new();
        for authority in current.authorities.all() {
            let crl = reader.crl(&authority.name).map_err(|error| error.refusal())?;
            let (_, not_after) = x509::validity(&authority.certificate).map_err(usage)?;
            list.push(json!({
                "name": authority.name,
                "role": authority.role.name(),
                "kind": authority.kind,
                "issuer": authority.issuer,
                "device": authority.device(),
                "revoked": authority.revoked,
                "serial": hex(&authority.serial),
                "subject": x509::subject(&authority.certificate).map_err(usage)?,
                "not_after_ms": not_after.0,
                "crl_number": crl.map(|crl| crl.number),
                "certificate": x509::to_pem(&authority.certificate),
            }));
        }
        Ok(Value::Array(list))
    }

    fn set(
        &self,
        tenant: &TenantName,
        credential: Option<&CredentialId>,
        serial: Option<&str>,
        to: NewStanding,
    ) -> Result<Value, Refusal> {
        let standing = match to {
            NewStanding::Suspended => CertificateStanding::Suspended,
            NewStanding::Resumed => CertificateStanding::Issued,
            NewStanding::Revoked(reason) => CertificateStanding::Revoked {
                reason: revocation(reason)?.number(),
            },
        };
        let row = &self.find(tenant, credential, serial)?;
        let current = self.pki.current();
        let reader = self.pki.reader()?;
        let published = current.authorities.set_standing(
            self.ledger,
            &reader,
            row,
            (standing, By::Operator),
            clock::wall(),
        )?;
        Ok(
            json!({ "serial": hex(&row.serial), "issuer": row.issuer, "standing": standing.name(), "crl_number": published }),
        )
    }

    /// The ceremony: what was made, by whom and when, signed by the authority that has certified it.
    fn found(&self, plan: AuthorityPlan) -> Result<Value, Refusal> {
        let now = clock::wall();
        let name = plan.name.clone();
        check_place(&plan, self.pool)?;
        check_clock(&self.pki.reader()?, now)?;
        let keys = (&*self.pki.vault, &self.pki.devices);
        let made = found(&self.pki.current().authorities, self.ledger, keys, plan, now)?;
        let ceremony = "a certificate authority is made";
        self.conclude(ceremony, &name, made, now)
    }

    fn renew_authority(&self, name: &AuthorityName, days: Option<u64>) -> Result<Value, Refusal> {
        let (now, reader) = (clock::wall(), self.pki.reader()?);
        let current = self.pki.current();
        let made = current
            .authorities
            .renew(self.ledger, &reader, name.as_str(), days, now)?;
        let ceremony = "the key of a certificate authority is certified again";
        self.conclude(ceremony, name, made, now)
    }

    /// What an operator is told of a ceremony, and keeps.
    fn conclude(
        &self,
        ceremony: &str,
        name: &AuthorityName,
        made: Founded,
        began: UnixMillis,
    ) -> Result<Value, Refusal> {
        self.pki.reload()?;
        let transcript = self.transcript(ceremony, name, &made, began)?;
        let current = self.pki.current();
        let signer = current.authorities.get(made.certified_by.as_str())?;
        let signature = signer.sign_message(transcript.as_bytes())?;
        if let Err(error) = self.pki.publish_due(clock::wall()) {
            tracing::warn!(%error, "the authority's revocation list could not be made yet");
        }
        Ok(json!({
            "certificate": x509::to_pem(&made.certificate),
            "transcript": transcript,
            "signature": STANDARD.encode(&signature[..]),
        }))
    }

    fn revoke_authority(&self, name: &AuthorityName, reason: u8) -> Result<Value, Refusal> {
        let (reason, reader) = (revocation(reason)?, self.pki.reader()?);
        let current = self.pki.current();
        let now = clock::wall();
        let published = current
            .authorities
            .revoke(self.ledger, &reader, name.as_str(), reason, now)?;
        self.pki.reload()?;
        Ok(
            json!({ "authority": name, "standing": "revoked", "reason": reason.name(), "crl_number": published }),
        )
    }

    fn transcript(
        &self,
        ceremony: &str,
        name: &AuthorityName,
        Founded {
            certificate,
            certified_by,
        }: &Founded,
        began: UnixMillis,
    ) -> Result<String, Refusal> {
        let current = self.pki.current();
        let authority = current.authorities.get(name.as_str())?;
        let public_key = x509::subject_public_key(certificate).map_err(usage)?;
        let signer = current.authorities.get(certified_by.as_str())?;
        let text = json!({
            "ceremony": ceremony,
            "operator": self.actor,
            "began_ms": began.0,
            "ended_ms": clock::wall().0,
            "authority": name,
            "role": authority.role.name(),
            "kind": authority.kind,
            "device": authority.device(),
            "subject": x509::subject(certificate).map_err(usage)?,
            "serial": hex(&x509::serial_number(certificate).map_err(usage)?),
            "public_key_sha256": hex(&Hash::Sha256.digest(&public_key)),
            "certificate_sha256": hex(&Hash::Sha256.digest(certificate)),
            "certificate": x509::to_pem(certificate),
            "certified_by": certified_by,
            "signed_with": signer.algorithm,
        });
        let text = serde_json::to_string_pretty(&text);
        text.map_err(|error| Refusal::new(Code::Internal, format!("JSON: {error}")))
    }
}

fn usage(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Usage, error.to_string())
}

/// A device has to be there before anything is asked of it.
fn check_place(plan: &AuthorityPlan, pool: Option<&Pool<Task>>) -> Result<(), Refusal> {
    let (Some(device), Some(pool)) = (&plan.device, pool) else {
        return Ok(());
    };
    match pool.devices().iter().any(|known| *known.name == **device) {
        true => Ok(()),
        false => Err(Refusal::new(Code::NotFound, format!("no device '{device}'"))),
    }
}

fn default_subject(name: &AuthorityName) -> Result<x509::Name, Refusal> {
    let parts = NameParts {
        country: Some("CN"),
        organization: Some("Cinnabar"),
        common_name: Some(name.as_str()),
    };
    parts.try_into().map_err(usage)
}

/// The reasons for which a certificate is revoked for good.
fn revocation(number: u8) -> Result<Reason, Refusal> {
    match Reason::from_number(number) {
        Some(Reason::CertificateHold | Reason::RemoveFromCrl) | None => Err(usage(format!(
            "{number} is not a reason to revoke (RFC 5280 5.3.1)"
        ))),
        Some(reason) => Ok(reason),
    }
}

/// The request in a PEM file (RFC 7468 7).
pub(crate) fn read_request(text: &str) -> Result<Vec<u8>, Refusal> {
    let refuse = |what: &str| Refusal::new(Code::RequestRefused, format!("the certificate request: {what}"));
    let block = pem::parse(text).map_err(|_| refuse("not PEM"))?;
    match block.tag() {
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Ok(block.into_contents()),
        other => Err(refuse(&format!("the PEM block is a {other}"))),
    }
}

/// The certificates in a PEM file, in its order.
pub(crate) fn read_certificates(text: &str) -> Result<Vec<Vec<u8>>, Refusal> {
    let refuse = |what: &str| Refusal::new(Code::ChainRefused, format!("the chain: {what}"));
    let blocks = pem::parse_many(text).map_err(|_| refuse("not PEM"))?;
    if blocks.iter().any(|block| block.tag() != "CERTIFICATE") {
        return Err(refuse("a PEM block that is no certificate"));
    }
    Ok(blocks.into_iter().map(pem::Pem::into_contents).collect())
}
