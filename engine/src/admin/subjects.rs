//! Operators' orders about subjects whose identities are checked.

use actors::subjects::{Details, Subjects, Submission, Verifier};
use protocol::clock;
use protocol::error_code::{Code, Refusal};
use protocol::ids::{SubjectId, TenantName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Environment, SubjectKind, SubjectStep};

/// Subjects in one answer.
pub(crate) const LISTED_MAX: u32 = 256;

/// What an operator wants done with subjects.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "subject-order", rename_all = "kebab-case")]
pub(crate) enum SubjectOrder {
    Submit {
        tenant: TenantName,
        new: NewSubject,
    },
    Step {
        tenant: TenantName,
        id: SubjectId,
        step: SubjectStep,
        #[serde(default)]
        reason: String,
    },
    Challenge {
        tenant: TenantName,
        id: SubjectId,
    },
    /// Of a verification service.
    Answer {
        token: String,
    },
    List {
        tenant: TenantName,
        after: Option<SubjectId>,
    },
}

/// A subject as it is submitted.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSubject {
    /// Its id, unique within the tenant.
    #[schema(value_type = String)]
    pub(crate) id: SubjectId,
    /// `enterprise`, `agent` or `legal-representative`.
    #[schema(value_type = String)]
    pub(crate) kind: SubjectKind,
    /// Its full name, as it will be in certificates.
    pub(crate) name: String,
    /// The number under which it is registered: 统一社会信用代码, or that of an identity document.
    pub(crate) registration: String,
    /// The enterprise that a person acts for: that subject's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) enterprise: Option<SubjectId>,
    /// SHA-256 of the evidence, hexadecimal; the evidence itself is kept elsewhere.
    pub(crate) evidence_sha256: String,
}

impl NewSubject {
    /// The same in the words of the actors.
    pub(crate) fn submission(self, environment: Environment) -> Result<Submission, Refusal> {
        let malformed = || {
            let text = "evidence_sha256 is not the hexadecimal form of 32 bytes";
            Refusal::new(Code::MalformedRequest, text)
        };
        let evidence = super::keys::unhex(&self.evidence_sha256).and_then(|bytes| bytes.try_into().ok());
        Ok(Submission {
            id: self.id,
            kind: self.kind,
            environment,
            evidence: evidence.ok_or_else(malformed)?,
            details: Details {
                name: self.name,
                registration: self.registration,
                enterprise: self.enterprise,
            },
        })
    }
}

/// Carries an order out.
pub(crate) fn obey(
    subjects: &Subjects<'_>,
    verifiers: &[Verifier],
    actor: &str,
    order: SubjectOrder,
) -> Result<Value, Refusal> {
    match order {
        SubjectOrder::Submit { tenant, new } => {
            subjects.submit(&tenant, new.submission(Environment::Production)?)?;
        }
        SubjectOrder::Step {
            tenant,
            id,
            step,
            reason,
        } => subjects.step(&tenant, &id, step, (actor, &reason))?,
        SubjectOrder::Challenge { tenant, id } => return subjects.challenge(&tenant, &id, clock::wall()),
        SubjectOrder::Answer { token } => subjects.answer(verifiers, &token)?,
        SubjectOrder::List { tenant, after } => return list(subjects, (&tenant, None), after.as_ref()),
    }
    Ok(json!({}))
}

/// A page of a tenant's subjects of an environment, or of all, masked.
pub(crate) fn list(
    subjects: &Subjects<'_>,
    of: (&TenantName, Option<Environment>),
    after: Option<&SubjectId>,
) -> Result<Value, Refusal> {
    subjects.ledger.tenant(of.0)?;
    let rows = subjects.reader.subjects(of, after, LISTED_MAX);
    let rows = rows.map_err(|error| error.refusal())?;
    let shown = rows.iter().map(|row| subjects.show(row));
    Ok(Value::Array(shown.collect::<Result<_, _>>()?))
}
