//! Profiles: what certificates are for, as data. The built-in ones are a table; the configuration changes single entries
//! of it. What a profile puts into a certificate is linted like everything else before it is signed.

use std::collections::BTreeMap;

use documents::x509::{Custom, FlagSet, KeyUsages, Name, NameError, NameParts, ObjectIdentifier, Profile};
use protocol::algorithm::KeyKind;
use protocol::error_code::{Code, Refusal};
use store::SubjectKind;

/// The profile of a credential whose key was just made: it names tenant and credential, and nobody's identity.
pub const CREDENTIAL: &str = "credential";
/// The profile of TLS servers; its names come from the request.
pub const TLS: &str = "tls";

/// Whose identity has to be approved before a certificate is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nobody's.
    None,
    /// An enterprise's.
    Enterprise,
    /// A person's who acts for an enterprise, and that enterprise's.
    Person,
}

impl Proof {
    /// Whether a subject of this kind is one that is asked for.
    pub const fn takes(self, kind: SubjectKind) -> bool {
        match self {
            Self::None => false,
            Self::Enterprise => matches!(kind, SubjectKind::Enterprise),
            Self::Person => matches!(kind, SubjectKind::Agent | SubjectKind::LegalRepresentative),
        }
    }
}

/// What takes the place of `{organization}`, `{person}`, `{tenant}` and `{credential}` in names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    /// The enterprise as it was approved; the tenant where no identity is checked.
    pub organization: &'a str,
    /// The person as it was approved.
    pub person: &'a str,
    /// The tenant.
    pub tenant: &'a str,
    /// The credential; nothing where the key is not here.
    pub credential: &'a str,
    /// The first DNS name of the request.
    pub dns: &'a str,
}

/// The subject's name, as texts with places to be filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Two capital letters.
    pub country: Option<String>,
    /// The organization.
    pub organization: Option<String>,
    /// The common name.
    pub common_name: Option<String>,
}

impl Template {
    /// The name. What is filled in stays text: a comma in it starts nothing.
    pub fn fill(&self, names: &Names<'_>) -> Result<Name, NameError> {
        let fill = |text: &Option<String>| text.as_deref().map(|text| filled(text, names));
        let (organization, common_name) = (fill(&self.organization), fill(&self.common_name));
        NameParts {
            country: self.country.as_deref(),
            organization: organization.as_deref(),
            common_name: common_name.as_deref(),
        }
        .try_into()
    }
}

/// In one pass, so that a brace in a name means nothing.
fn filled(text: &str, names: &Names<'_>) -> String {
    let places = [
        ("{organization}", names.organization),
        ("{person}", names.person),
        ("{tenant}", names.tenant),
        ("{credential}", names.credential),
        ("{dns}", names.dns),
    ];
    let (mut out, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        match places.iter().find(|(place, _)| rest.starts_with(place)) {
            Some((place, name)) => {
                out.push_str(name);
                rest = &rest[place.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out.trim().to_owned()
}

/// What a key is certified for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateProfile {
    /// Whether certificates of it are issued at all.
    pub enabled: bool,
    /// Whose identity has to be approved.
    pub proof: Proof,
    /// Days of validity; never beyond the issuer's.
    pub days: u64,
    /// Kinds of keys that are certified.
    pub kinds: Vec<KeyKind>,
    /// What it is for.
    pub base: Profile,
    /// What the configuration says of the key's uses instead.
    pub key_usage: Option<FlagSet<KeyUsages>>,
    /// What it says of purposes instead.
    pub purposes: Option<Vec<ObjectIdentifier>>,
    /// Certificate policies.
    pub policies: Vec<ObjectIdentifier>,
    /// Where the revocation list is; nothing: where the issuer publishes.
    pub crl: Vec<String>,
    /// Where OCSP answers are; nothing: where the issuer answers.
    pub ocsp: Vec<String>,
    /// The subject's name.
    pub template: Template,
}

impl CertificateProfile {
    /// What it puts into a certificate that may name these servers.
    pub fn document(&self, dns: &[String], ips: &[std::net::IpAddr]) -> Profile {
        let named = matches!(self.base, Profile::TlsServer { .. });
        let (dns, ips) = if named {
            (dns.to_vec(), ips.to_vec())
        } else {
            (Vec::new(), Vec::new())
        };
        if self.key_usage.is_none() && self.purposes.is_none() {
            return match &self.base {
                Profile::TlsServer { .. } => Profile::TlsServer { dns, ips },
                base => base.clone(),
            };
        }
        let rules = self.base.rules();
        Profile::Custom(Custom {
            key_usage: self.key_usage.unwrap_or(rules.key_usage),
            purposes: self.purposes.clone().unwrap_or_else(|| rules.purposes.to_vec()),
            dns,
            ips,
        })
    }

    /// Whether a key of this kind is certified.
    pub fn check_kind(&self, name: &str, kind: KeyKind) -> Result<(), Refusal> {
        if self.kinds.contains(&kind) {
            return Ok(());
        }
        let allowed: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        let text = format!(
            "the profile {name} does not certify {kind} keys, only {}",
            allowed.join(", ")
        );
        Err(Refusal::new(Code::RequestRefused, text))
    }
}

/// All profiles, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profiles(BTreeMap<String, CertificateProfile>);

impl Default for Profiles {
    fn default() -> Self {
        let all = BUILTIN.iter().map(|entry| (entry.0.to_owned(), entry_of(entry)));
        Self(all.collect())
    }
}

/// Name, whose identity, days, what for, organization, common name.
type Entry = (
    &'static str,
    Proof,
    u64,
    fn() -> Profile,
    Option<&'static str>,
    Option<&'static str>,
);

/// The built-in table. Those of authorities have no names here: whoever founds one names it.
const BUILTIN: [Entry; 11] = [
    (
        CREDENTIAL,
        Proof::None,
        825,
        || Profile::Signer,
        Some("{organization}"),
        Some("{tenant} {credential}"),
    ),
    (
        "enterprise-signing",
        Proof::Enterprise,
        825,
        || Profile::Signer,
        Some("{organization}"),
        Some("{organization}"),
    ),
    (
        "enterprise-seal",
        Proof::Enterprise,
        825,
        || Profile::Seal,
        Some("{organization}"),
        Some("{organization}"),
    ),
    (
        "seal-maker",
        Proof::Enterprise,
        825,
        || Profile::SealMaker,
        Some("{organization}"),
        Some("{organization}"),
    ),
    (
        "agent",
        Proof::Person,
        825,
        || Profile::Agent,
        Some("{organization}"),
        Some("{person}"),
    ),
    (
        TLS,
        Proof::None,
        397,
        || Profile::TlsServer {
            dns: Vec::new(),
            ips: Vec::new(),
        },
        None,
        Some("{dns}"),
    ),
    ("root", Proof::None, 7_300, || Profile::Root, None, None),
    (
        "intermediate",
        Proof::None,
        5_475,
        || Profile::Intermediate { authorities_below: 1 },
        None,
        None,
    ),
    ("issuing", Proof::None, 3_650, || Profile::Issuing, None, None),
    ("tsa", Proof::None, 3_650, || Profile::TimeStamping, None, None),
    ("ocsp", Proof::None, 3_650, || Profile::OcspResponder, None, None),
];

fn entry_of(&(_, proof, days, base, organization, common_name): &Entry) -> CertificateProfile {
    CertificateProfile {
        enabled: true,
        proof,
        days,
        kinds: KeyKind::ALL.to_vec(),
        base: base(),
        key_usage: None,
        purposes: None,
        policies: Vec::new(),
        crl: Vec::new(),
        ocsp: Vec::new(),
        template: Template {
            country: common_name
                .filter(|_| organization.is_some())
                .map(|_| "CN".to_owned()),
            organization: organization.map(str::to_owned),
            common_name: common_name.map(str::to_owned),
        },
    }
}

impl Profiles {
    /// A profile by name.
    pub fn get(&self, name: &str) -> Result<&CertificateProfile, Refusal> {
        let missing = || {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let text = format!("no profile is called '{name}'; there are {}", known.join(", "));
            Refusal::new(Code::NotFound, text)
        };
        self.0.get(name).ok_or_else(missing)
    }

    /// The same, to be changed by the configuration.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut CertificateProfile> {
        self.0.get_mut(name)
    }

    /// One that apps may ask for: nobody proves to this engine that a server's names are an app's.
    pub fn check_for_apps(&self, name: &str) -> Result<(), Refusal> {
        if matches!(self.for_subjects(name)?.base, Profile::TlsServer { .. }) {
            let text = format!(
                "certificates of the profile {name} are issued by operators only (`cinnabar cert issue`)"
            );
            return Err(Refusal::new(Code::RequestRefused, text));
        }
        Ok(())
    }

    /// One that is for subjects, not for authorities and their servants.
    pub fn for_subjects(&self, name: &str) -> Result<&CertificateProfile, Refusal> {
        let profile = self.get(name)?;
        let refuse = |text: String| Err(Refusal::new(Code::RequestRefused, text));
        if !profile.enabled {
            return refuse(format!("certificates of the profile {name} are not issued here"));
        }
        match profile.base {
            Profile::Root
            | Profile::Intermediate { .. }
            | Profile::Issuing
            | Profile::TlsRoot
            | Profile::TimeStamping
            | Profile::OcspResponder => refuse(format!(
                "the profile {name} is for authorities (`cinnabar ca create`)"
            )),
            _ => Ok(profile),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_mean_nothing() {
        let names = Names {
            organization: "Evil,CN=Bank",
            person: "{organization}",
            tenant: "acme",
            ..Names::default()
        };
        let template = Template {
            country: Some("CN".into()),
            organization: Some("{organization}".into()),
            common_name: Some("{person} {tenant} {credential}".into()),
        };
        let name = template.fill(&names).unwrap();
        assert_eq!(name.to_string(), "CN={organization} acme,O=Evil\\,CN=Bank,C=CN");
        let empty = Names::default();
        assert!(template.fill(&empty).is_err(), "an organization of no letters");
    }

    #[test]
    fn the_table_is_sound_and_changes_stay_where_they_are_made() {
        let mut profiles = Profiles::default();
        for (name, ..) in BUILTIN {
            profiles.get(name).unwrap();
        }
        assert_eq!(profiles.get("nobody").unwrap_err().code, Code::NotFound);
        assert!(profiles.for_subjects("issuing").is_err());
        assert!(profiles.check_for_apps("agent").is_ok());
        assert_eq!(
            profiles.check_for_apps(TLS).unwrap_err().code,
            Code::RequestRefused
        );
        let seal = profiles.get_mut("enterprise-seal").unwrap();
        assert_eq!(seal.document(&[], &[]), Profile::Seal);
        seal.purposes = Some(Vec::new());
        seal.kinds = vec![KeyKind::Sm2];
        let Profile::Custom(custom) = seal.document(&["a.example".into()], &[]) else {
            panic!("not changed");
        };
        assert_eq!((custom.purposes.len(), custom.dns.len()), (0, 0));
        assert_eq!(custom.key_usage, Profile::Seal.rules().key_usage);
        assert!(seal.check_kind("enterprise-seal", KeyKind::P256).is_err());
        assert!(
            profiles
                .get("agent")
                .unwrap()
                .check_kind("agent", KeyKind::P256)
                .is_ok()
        );
    }
}
