//! A credential's next certificate: for the same key, or with a new one. The credential keeps its id, its usage and its
//! fence; what a new key replaces is destroyed in the same transaction.

use std::sync::Arc;

use protocol::algorithm::KeyKind;
use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use protocol::ids::{CredentialId, KeyRow, TenantName};
use rusqlite::{Connection, params};

use crate::certificates::{self, CertificateNumber};
use crate::directory::{Directory, Place, Validity};
use crate::error::Result;
use crate::registry::{Effect, NewKey, SpareRow, credential_of, encode_chain, insert_key, refuse, tenant_of};

/// A key that takes the place of a credential's.
#[derive(Debug)]
pub struct RenewedKey {
    /// Its kind.
    pub kind: KeyKind,
    /// SubjectPublicKeyInfo.
    pub public_key: Box<[u8]>,
    /// Where the private key is.
    pub place: Place,
    /// The private key, as in [`crate::NewCredential`].
    pub wrapped: Option<Box<[u8]>>,
    /// The spare pair that it is made of, if it is.
    pub spare: Option<SpareRow>,
}

/// A credential's next certificate.
#[derive(Debug)]
pub struct Renewal {
    /// Whose.
    pub tenant: TenantName,
    /// Which credential.
    pub id: CredentialId,
    /// The key that it had when the certificate was signed, and its last certificate: it is renewed only if it still has
    /// that key, and if that certificate is still the last one and in force.
    pub seen: (KeyRow, Option<CertificateNumber>),
    /// Certificates in DER, the credential's own first.
    pub chain: Vec<Vec<u8>>,
    /// When all of them are valid.
    pub validity: Validity,
    /// Its new key; `None`: the one it has.
    pub key: Option<RenewedKey>,
}

impl Renewal {
    pub(crate) fn describe(&self) -> (&'static str, String) {
        let (tenant, id) = (&self.tenant, &self.id);
        match &self.key {
            None => ("credential.renew", format!("{tenant}/{id}")),
            Some(key) => ("credential.rekey", format!("{tenant}/{id} {}", key.kind)),
        }
    }
}

/// Writes a renewal into the open transaction. It comes before the issue of the certificate: what was the last one when
/// it was signed has to be the last one still.
pub(crate) fn apply(
    db: &Connection,
    directory: &Directory,
    at: UnixMillis,
    renewal: Renewal,
) -> Result<Effect> {
    let Renewal {
        tenant,
        id,
        seen: (seen_key, seen_last),
        chain,
        validity,
        key,
    } = renewal;
    let owner = tenant_of(directory, &tenant)?;
    let credential = credential_of(directory, &tenant, &id)?;
    if credential.place() == Place::Destroyed {
        let text = format!("the key of '{tenant}/{id}' is destroyed");
        return Err(refuse(Code::CredentialDisabled, text));
    }
    if credential.key != seen_key {
        let text = format!("'{tenant}/{id}' has got another key meanwhile; nothing is renewed");
        return Err(refuse(Code::WrongState, text));
    }
    certificates::check_last(db, &tenant, &id, seen_last)?;
    db.execute(
        "UPDATE credential SET chain = ?, not_before_ms = ?, not_after_ms = ? WHERE row = ?",
        params![
            encode_chain(&chain),
            validity.from.0.cast_signed(),
            validity.to.0.cast_signed(),
            credential.row.0
        ],
    )?;
    let Some(key) = key else {
        return Ok(Effect::Renewed(owner, credential, validity));
    };
    let new = NewKey {
        kind: key.kind,
        public_key: &key.public_key,
        place: &key.place,
        wrapped: key.wrapped.as_deref(),
        spare: key.spare,
    };
    let row = insert_key(db, at, owner.row, &new)?;
    db.execute(
        "UPDATE credential SET key = ? WHERE row = ?",
        params![row.0, credential.row.0],
    )?;
    db.execute("DELETE FROM key_home WHERE key = ?", [credential.key.0])?;
    let sql = "UPDATE key SET wrapped = NULL, kek = NULL, object = NULL, destroyed = TRUE WHERE row = ?";
    db.execute(sql, [credential.key.0])?;
    let successor = credential.with_key(row, key.kind, key.place);
    Ok(Effect::Renewed(owner, Arc::new(successor), validity))
}
