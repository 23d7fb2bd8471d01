//! Settings of certificates: what profiles say instead of the built-in table, verification services, and warnings.

use std::path::PathBuf;
use std::sync::Arc;

use actors::profiles::Profiles;
use actors::subjects::{Verifier, can_verify};
use documents::x509::{FlagSet, KeyUsages, ObjectIdentifier, Profile};
use protocol::algorithm::KeyKind;
use protocol::error_code::{Code, Refusal};
use protocol::verify::PublicKey;
use serde::{Deserialize, Serialize};

use super::usage;

/// What a profile says instead of the built-in table, `[[certificate_profile]]` in the file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileSpec {
    /// Which: enterprise-signing, enterprise-seal, seal-maker, agent, tls, credential; root, intermediate, issuing, tsa,
    /// ocsp.
    name: String,
    /// Whether certificates of it are issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    /// Days of validity, never beyond the issuer's. For authorities `ca create --days` comes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    days: Option<u32>,
    /// Of the profile intermediate: how many more authorities may follow on a path (RFC 5280 4.2.1.9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_length: Option<u8>,
    /// Kinds of keys that are certified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kinds: Option<Vec<KeyKind>>,
    /// digitalSignature, nonRepudiation, keyEncipherment, dataEncipherment, keyAgreement (RFC 5280 4.2.1.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_usage: Option<Vec<String>>,
    /// Extended key usages, by object identifier (RFC 5280 4.2.1.12).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purposes: Option<Vec<String>>,
    /// Certificate policies, by object identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policies: Option<Vec<String>>,
    /// Where the revocation list is; where the issuer publishes it, if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crl: Option<Vec<String>>,
    /// Where OCSP answers are; where the issuer answers, if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ocsp: Option<Vec<String>>,
    /// Names: texts with {organization}, {person}, {tenant}, {credential} or {dns}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    country: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organization: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    common_name: Option<String>,
}

/// A verification service whose answers count, `[[verifier]]` in the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifierSpec {
    /// `kid` in its answers.
    name: String,
    /// Its public key, PEM.
    public_key: PathBuf,
}

const USAGES: [(&str, KeyUsages); 5] = [
    ("digitalSignature", KeyUsages::DigitalSignature),
    ("nonRepudiation", KeyUsages::NonRepudiation),
    ("keyEncipherment", KeyUsages::KeyEncipherment),
    ("dataEncipherment", KeyUsages::DataEncipherment),
    ("keyAgreement", KeyUsages::KeyAgreement),
];

fn key_usage(names: &[String]) -> Result<FlagSet<KeyUsages>, String> {
    let mut all: FlagSet<KeyUsages> = FlagSet::default();
    for name in names {
        let known = USAGES.iter().find(|(known, _)| known == name);
        let unknown = || {
            let known: Vec<&str> = USAGES.iter().map(|(known, _)| *known).collect();
            format!("no key usage is called '{name}'; there are {}", known.join(", "))
        };
        all |= known.ok_or_else(unknown)?.1;
    }
    Ok(all)
}

/// timeStamping and OCSPSigning (RFC 5280 4.2.1.12), and anyExtendedKeyUsage, which is both: whoever has them speaks for
/// the authority.
const SERVANTS: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9"),
    ObjectIdentifier::new_unwrap("2.5.29.37.0"),
];

fn identifiers(texts: &[String]) -> Result<Vec<ObjectIdentifier>, String> {
    let read = |text: &String| ObjectIdentifier::new(text).map_err(|error| format!("'{text}': {error}"));
    texts.iter().map(read).collect()
}

fn set_path_length(base: &mut Profile, said: Option<u8>) -> Result<(), String> {
    let Some(said) = said else { return Ok(()) };
    let Profile::Intermediate { authorities_below } = base else {
        return Err("a path length is the profile intermediate's to set".into());
    };
    if said == 0 {
        return Err(
            "an authority below which there is none is an issuing one: path_length is at least 1".into(),
        );
    }
    *authorities_below = said;
    Ok(())
}

/// The built-in profiles with the changes of the file.
pub(super) fn profiles(specs: &[ProfileSpec]) -> Result<Profiles, Refusal> {
    let mut profiles = Profiles::default();
    for spec in specs {
        let wrong = |text: String| {
            usage(format!(
                "configuration: certificate_profile '{}': {text}",
                spec.name
            ))
        };
        change(&mut profiles, spec).map_err(wrong)?;
    }
    Ok(profiles)
}

fn change(profiles: &mut Profiles, spec: &ProfileSpec) -> Result<(), String> {
    if let Err(unknown) = profiles.get(&spec.name) {
        return Err(unknown.message.into_owned());
    }
    let Some(profile) = profiles.get_mut(&spec.name) else {
        return Ok(());
    };
    let is_authority = profile.base.rules().authority;
    let is_servant = matches!(profile.base, Profile::TimeStamping | Profile::OcspResponder);
    if is_authority && (spec.key_usage.is_some() || spec.purposes.is_some()) {
        return Err("what an authority's key may do is fixed".into());
    }
    if is_servant && spec.key_usage.is_some() {
        return Err("what its key may do is fixed".into());
    }
    let named = [&spec.country, &spec.organization, &spec.common_name];
    if (is_authority || is_servant) && named.into_iter().any(Option::is_some) {
        return Err("`ca create --subject` names authorities".into());
    }
    set_path_length(&mut profile.base, spec.path_length)?;
    if spec.days == Some(0) {
        return Err("days is at least 1".into());
    }
    if is_servant && spec.purposes.is_some() {
        return Err("its purpose is fixed (RFC 3161 2.3, RFC 6960 4.2.2.2)".into());
    }
    set(&mut profile.enabled, spec.enabled);
    set(&mut profile.days, spec.days.map(u64::from));
    set(&mut profile.kinds, spec.kinds.clone());
    set(
        &mut profile.policies,
        spec.policies.as_deref().map(identifiers).transpose()?,
    );
    set(&mut profile.crl, spec.crl.clone());
    set(&mut profile.ocsp, spec.ocsp.clone());
    let usages = spec.key_usage.as_deref().map(key_usage).transpose()?;
    profile.key_usage = usages.or(profile.key_usage);
    let purposes = spec.purposes.as_deref().map(identifiers).transpose()?;
    if let Some(own) = purposes
        .iter()
        .flatten()
        .find(|purpose| SERVANTS.contains(purpose))
    {
        return Err(format!(
            "the purpose {own} is for servants of authorities (the profiles tsa and ocsp)"
        ));
    }
    profile.purposes = purposes.or_else(|| profile.purposes.take());
    let template = &mut profile.template;
    for (place, said) in [
        (&mut template.country, &spec.country),
        (&mut template.organization, &spec.organization),
        (&mut template.common_name, &spec.common_name),
    ] {
        if let Some(said) = said {
            *place = (!said.is_empty()).then(|| said.clone());
        }
    }
    Ok(())
}

fn set<T>(place: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *place = said;
    }
}

/// Days before the end of a certificate at which it is told of, the most first.
pub(super) fn warn_days(days: &[u32]) -> Arc<[u32]> {
    let mut days = days.to_vec();
    days.sort_unstable_by(|a, b| b.cmp(a));
    days.dedup();
    days.into()
}

/// Reads the keys of the verification services.
pub(super) fn verifiers(specs: &[VerifierSpec]) -> Result<Arc<[Verifier]>, Refusal> {
    specs.iter().map(VerifierSpec::read).collect()
}

impl VerifierSpec {
    fn read(&self) -> Result<Verifier, Refusal> {
        let path = self.public_key.display();
        let text = std::fs::read_to_string(&self.public_key);
        let text = text.map_err(|error| Refusal::new(Code::File, format!("{path}: {error}")))?;
        let wrong = |text: &str| usage(format!("configuration: verifier '{}': {path}: {text}", self.name));
        let block = pem::parse(text).map_err(|_| wrong("not PEM"))?;
        let key = PublicKey::from_spki(block.contents()).map_err(|error| wrong(&error.to_string()))?;
        if !can_verify(key.kind()) {
            return Err(wrong("an RSA, P-256, P-384 or Ed25519 key is needed"));
        }
        Ok(Verifier {
            name: self.name.clone(),
            public_key: Arc::new(key),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> ProfileSpec {
        ProfileSpec {
            name: name.into(),
            ..ProfileSpec::default()
        }
    }

    #[test]
    fn the_file_changes_what_it_names_and_nothing_else() {
        let changed = ProfileSpec {
            days: Some(365),
            purposes: Some(vec!["1.3.6.1.5.5.7.3.36".into()]),
            key_usage: Some(vec!["digitalSignature".into()]),
            common_name: Some("Seal of {organization}".into()),
            ..spec("enterprise-seal")
        };
        let profiles = profiles(&[changed]).unwrap();
        let seal = profiles.get("enterprise-seal").unwrap();
        assert_eq!((seal.days, seal.purposes.as_ref().unwrap().len()), (365, 1));
        assert_eq!(
            seal.template.common_name.as_deref(),
            Some("Seal of {organization}")
        );
        assert_eq!(seal.template.country.as_deref(), Some("CN"));
        let built_in = Profiles::default();
        assert_eq!(profiles.get("agent").unwrap(), built_in.get("agent").unwrap());
    }

    fn assert_wrong<const N: usize>(bad: [(ProfileSpec, &str); N]) {
        for (spec, word) in bad {
            let error = profiles(&[spec]).unwrap_err();
            assert!(error.message.contains(word), "{error}");
        }
    }

    #[test]
    fn what_is_fixed_of_authorities_is_an_error_that_names_it() {
        assert_wrong([
            (
                ProfileSpec {
                    key_usage: Some(Vec::new()),
                    ..spec("issuing")
                },
                "authority",
            ),
            (
                ProfileSpec {
                    key_usage: Some(Vec::new()),
                    ..spec("tsa")
                },
                "fixed",
            ),
            (
                ProfileSpec {
                    common_name: Some("Root".into()),
                    ..spec("root")
                },
                "--subject",
            ),
            (
                ProfileSpec {
                    path_length: Some(1),
                    ..spec("issuing")
                },
                "path length",
            ),
            (
                ProfileSpec {
                    path_length: Some(0),
                    ..spec("intermediate")
                },
                "path_length",
            ),
        ]);
    }

    #[test]
    fn what_cannot_be_meant_is_an_error_that_names_it() {
        let bad = [
            (spec("nobody"), "nobody"),
            (
                ProfileSpec {
                    days: Some(0),
                    ..spec("agent")
                },
                "days",
            ),
            (
                ProfileSpec {
                    key_usage: Some(vec!["keyCertSign".into()]),
                    ..spec("agent")
                },
                "keyCertSign",
            ),
            (
                ProfileSpec {
                    purposes: Some(vec!["serverAuth".into()]),
                    ..spec("agent")
                },
                "serverAuth",
            ),
            (
                ProfileSpec {
                    purposes: Some(vec!["1.3.6.1.5.5.7.3.9".into()]),
                    ..spec("agent")
                },
                "1.3.6.1.5.5.7.3.9",
            ),
            (
                ProfileSpec {
                    purposes: Some(vec!["1.3.6.1.5.5.7.3.36".into(), "1.3.6.1.5.5.7.3.8".into()]),
                    ..spec("enterprise-seal")
                },
                "1.3.6.1.5.5.7.3.8",
            ),
        ];
        assert_wrong(bad);
        assert_eq!(&*warn_days(&[1, 30, 7, 7]), [30, 7, 1]);
    }
}
