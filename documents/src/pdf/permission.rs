//! What earlier signatures allow to be changed: DocMDP and FieldMDP (ISO 32000-2 12.8.2).

use serde::{Deserialize, Serialize};

use super::ReadError;
use super::document::Document;
use super::form::Field;
use super::object::{Dictionary, Object, Ref};

/// What may be changed after a certification (Table 257).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// P = 1: nothing.
    NoChanges,
    /// P = 2: filling in forms and signing.
    FormFilling,
    /// P = 3: that, and annotations.
    Annotations,
}

impl Permission {
    /// The permission of a number.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::NoChanges),
            2 => Some(Self::FormFilling),
            3 => Some(Self::Annotations),
            _ => None,
        }
    }

    /// The number that PDF writes.
    pub const fn number(self) -> i64 {
        match self {
            Self::NoChanges => 1,
            Self::FormFilling => 2,
            Self::Annotations => 3,
        }
    }
}

/// The certification of a document: which signature, and what it permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Certification {
    pub(crate) signature: Ref,
    pub(crate) permission: Permission,
}

/// What the catalog's /Perms says (12.8.6).
pub(crate) fn certification(document: &Document<'_>) -> Result<Option<Certification>, ReadError> {
    let permissions = document.dictionary(&document.catalog()?, "Perms")?;
    let Some(signature) = permissions.reference("DocMDP") else {
        return Ok(None);
    };
    let Object::Dictionary(dictionary) = document.load(signature)? else {
        return Err(ReadError::Wrong("the certification in /Perms"));
    };
    let permission = doc_mdp(document, &dictionary)?;
    Ok(permission.map(|permission| Certification {
        signature,
        permission,
    }))
}

/// The permission that a signature's DocMDP transform grants. Without a number it is 2 (Table 257).
pub(crate) fn doc_mdp(
    document: &Document<'_>,
    signature: &Dictionary,
) -> Result<Option<Permission>, ReadError> {
    let Some(parameters) = transform(document, signature, "DocMDP")? else {
        return Ok(None);
    };
    match document.get(&parameters, "P")? {
        Object::Null => Ok(Some(Permission::FormFilling)),
        number => {
            let permission = number.as_integer().and_then(Permission::from_number);
            permission
                .map(Some)
                .ok_or(ReadError::Wrong("the permission of a certification"))
        }
    }
}

/// The parameters of a signature's transform of this method.
fn transform(
    document: &Document<'_>,
    signature: &Dictionary,
    method: &str,
) -> Result<Option<Dictionary>, ReadError> {
    for reference in document.array(signature, "Reference")? {
        let Object::Dictionary(reference) = document.resolve(&reference)? else {
            continue;
        };
        if document.get(&reference, "TransformMethod")?.is_name(method) {
            return document.dictionary(&reference, "TransformParams").map(Some);
        }
    }
    Ok(None)
}

/// Which fields a signature locks (Tables 235 and 258).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    All,
    Only(Vec<String>),
    AllBut(Vec<String>),
}

impl Lock {
    pub(crate) fn read(document: &Document<'_>, parameters: &Dictionary) -> Result<Option<Self>, ReadError> {
        let mut names = Vec::new();
        for name in document.array(parameters, "Fields")? {
            names.extend(document.resolve(&name)?.as_text());
        }
        let action = document.get(parameters, "Action")?;
        Ok(match action.as_name() {
            Some(b"All") => Some(Self::All),
            Some(b"Include") => Some(Self::Only(names)),
            Some(b"Exclude") => Some(Self::AllBut(names)),
            _ => None,
        })
    }

    /// Whether it locks a field. A name stands for the fields below it as well.
    pub(crate) fn covers(&self, field: &str) -> bool {
        let names_it = |name: &String| {
            field
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(names_it),
            Self::AllBut(names) => !names.iter().any(names_it),
        }
    }
}

/// The lock of a signature, if its FieldMDP transform sets one.
pub(crate) fn field_mdp(document: &Document<'_>, signature: &Dictionary) -> Result<Option<Lock>, ReadError> {
    match transform(document, signature, "FieldMDP")? {
        Some(parameters) => Lock::read(document, &parameters),
        None => Ok(None),
    }
}

/// The name of the signature field whose signature locks a field, if there is one.
pub(crate) fn locked_by(
    document: &Document<'_>,
    fields: &[Field],
    name: &str,
) -> Result<Option<String>, ReadError> {
    for field in fields {
        let Some(signature) = field.signature(document)? else {
            continue;
        };
        let lock = field_mdp(document, &signature)?;
        if lock.is_some_and(|lock| lock.covers(name)) {
            return Ok(Some(field.name.clone()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_covers_what_it_names_and_what_is_below() {
        let names = || vec!["a.b".to_owned()];
        assert!(Lock::All.covers("x"));
        for (field, is_named) in [("a.b", true), ("a.b.c", true), ("a.bc", false), ("a", false)] {
            assert_eq!(Lock::Only(names()).covers(field), is_named, "{field}");
            assert_eq!(Lock::AllBut(names()).covers(field), !is_named, "{field}");
        }
    }
}
