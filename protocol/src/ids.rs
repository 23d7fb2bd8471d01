//! Newtypes for every id, so that one cannot stand where another is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{ID_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("is empty")]
    Empty,
    /// More bytes than the limit.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// A byte outside the allowed set.
    #[error("holds a character that is not allowed")]
    Character,
}

fn check_name(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong(ID_BYTES_MAX));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(IdError::Character)
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes 1 to 64 bytes of ASCII letters, digits, `-`, `_` and `.`.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check_name(text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into()
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_id!(
    /// The name of a tenant: a customer, the party that pays.
    TenantName
);
name_id!(
    /// The id of an app: a business system of a tenant, the party that proves its requests.
    AppId
);
name_id!(
    /// The id of a credential (a key and its certificate), unique within its tenant.
    CredentialId
);
name_id!(
    /// The name of a certificate authority, or of one of its servants: a time-stamping authority, an OCSP responder.
    AuthorityName
);

name_id!(
    /// The id of a subject whose identity is checked: an enterprise, or a person who acts for one; unique within its
    /// tenant.
    SubjectId
);

name_id!(
    /// The id of a seal, unique within its tenant.
    SealId
);

name_id!(
    /// The id of a grant: who may use a seal, and how; unique within its tenant.
    GrantId
);

name_id!(
    /// The name of an operator: a person who manages, uses or audits.
    OperatorName
);

macro_rules! row_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

row_id!(
    /// A tenant's row number in the registry: what the journal records.
    TenantRow
);
row_id!(
    /// An app's row number in the registry.
    AppRow
);
row_id!(
    /// A credential's row number in the registry.
    CredentialRow
);
row_id!(
    /// A key's row number in the registry.
    KeyRow
);

row_id!(
    /// A seal's row number in the registry: what the journal records.
    SealRow
);
row_id!(
    /// A grant's row number in the registry: what the journal records.
    GrantRow
);

/// A journal sequence number: dense, from 1, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An idempotency key: names one call of one app for good. 1 to 128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Checks and takes a key.
    pub fn new(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(IdError::TooLong(IDEMPOTENCY_KEY_BYTES_MAX));
        }
        if text.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'"') {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Character)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for IdempotencyKey {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::new(&text)
    }
}

impl From<IdempotencyKey> for String {
    fn from(key: IdempotencyKey) -> Self {
        key.0.into()
    }
}

impl std::str::FromStr for IdempotencyKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_allow_only_the_documented_characters() {
        assert!(AppId::new("demo-app_1.x").is_ok());
        assert_eq!(AppId::new(""), Err(IdError::Empty));
        assert_eq!(AppId::new("a/b"), Err(IdError::Character));
        assert_eq!(AppId::new(&"a".repeat(65)), Err(IdError::TooLong(ID_BYTES_MAX)));
    }

    #[test]
    fn idempotency_keys_are_visible_ascii_without_quotes() {
        assert!(IdempotencyKey::new("order/2026-11-23#7").is_ok());
        for bad in ["", "with space", "quote\"", "tab\t", "é"] {
            assert!(IdempotencyKey::new(bad).is_err(), "{bad:?}");
        }
    }
}
