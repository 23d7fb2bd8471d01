//! What a certificate is for, as a table (RFC 5280 4.2.1.3, 4.2.1.9, 4.2.1.12).

use std::borrow::Cow;
use std::net::IpAddr;

use const_oid::db::rfc5280::{
    ID_KP_CLIENT_AUTH, ID_KP_EMAIL_PROTECTION, ID_KP_OCSP_SIGNING, ID_KP_SERVER_AUTH, ID_KP_TIME_STAMPING,
};
use der::flagset::FlagSet;
use spki::ObjectIdentifier;
use x509_cert::ext::pkix::KeyUsages;

/// id-kp-documentSigning (RFC 9336 3.1).
pub(crate) const ID_KP_DOCUMENT_SIGNING: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.36");

/// What a certificate is for; this decides its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// An authority that certifies itself, and may have others below it.
    Root,
    /// An authority below a root, with at most `authorities_below` more between it and a subject.
    Intermediate {
        /// The path length constraint.
        authorities_below: u8,
    },
    /// An authority that certifies subjects and no further authorities.
    Issuing,
    /// An enterprise that signs documents and digests: digitalSignature and nonRepudiation, and no extended
    /// key usage, so that plain `openssl cms -verify` accepts its signatures (SEMANTICS 6.3).
    Signer,
    /// An enterprise's seal: it seals documents, and mail programs accept it.
    Seal,
    /// Whoever makes electronic seals and signs them (制章人, GB/T 38540).
    SealMaker,
    /// A person who acts for an enterprise (经办人): signs, and proves who it is to a TLS server.
    Agent,
    /// A time-stamping authority (RFC 3161 2.3: this purpose alone, and critical).
    TimeStamping,
    /// A delegated OCSP responder (RFC 6960 4.2.2.2), whose own revocation nobody is to ask for.
    OcspResponder,
    /// An authority that issues the certificates of TLS servers and nothing below them.
    TlsRoot,
    /// A TLS server, by the names and addresses it is reached at.
    TlsServer {
        /// DNS names.
        dns: Vec<String>,
        /// Addresses.
        ips: Vec<IpAddr>,
    },
    /// What the configuration says instead; never an authority.
    Custom(Custom),
}

/// The uses of a key that is no authority's, as the configuration gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// What the key may do.
    pub key_usage: FlagSet<KeyUsages>,
    /// For which purposes; empty: for all, as far as the key usage goes.
    pub purposes: Vec<ObjectIdentifier>,
    /// Names of a TLS server.
    pub dns: Vec<String>,
    /// Addresses of a TLS server.
    pub ips: Vec<IpAddr>,
}

/// What a profile puts into a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether it is an authority.
    pub authority: bool,
    /// Most authorities below it; `None`: no limit of its own.
    pub authorities_below: Option<u8>,
    /// What the key may do.
    pub key_usage: FlagSet<KeyUsages>,
    /// For which purposes; empty: for all, as far as the key usage goes.
    pub purposes: Cow<'static, [ObjectIdentifier]>,
    /// Whether software that does not know the purposes must refuse the certificate.
    pub purposes_critical: bool,
    /// id-pkix-ocsp-nocheck (RFC 6960 4.2.2.2.1): revocation of this certificate is not published.
    pub no_check: bool,
}

impl Profile {
    /// The profiles that need no further words, with the names they have in configuration and on the command
    /// line.
    pub const NAMED: [(&'static str, Self); 10] = [
        ("root", Self::Root),
        ("intermediate", Self::Intermediate { authorities_below: 1 }),
        ("issuing", Self::Issuing),
        ("enterprise-signing", Self::Signer),
        ("enterprise-seal", Self::Seal),
        ("seal-maker", Self::SealMaker),
        ("agent", Self::Agent),
        ("tsa", Self::TimeStamping),
        ("ocsp", Self::OcspResponder),
        ("tls-root", Self::TlsRoot),
    ];

    /// The profile of a name in [`Self::NAMED`].
    pub fn by_name(name: &str) -> Option<Self> {
        let mut named = Self::NAMED.into_iter();
        named
            .find(|(known, _)| *known == name)
            .map(|(_, profile)| profile)
    }

    /// What it puts into a certificate.
    pub fn rules(&self) -> Rules {
        let signs = KeyUsages::DigitalSignature | KeyUsages::NonRepudiation;
        match self {
            Self::Root => Rules::authority(None),
            Self::Intermediate { authorities_below } => Rules::authority(Some(*authorities_below)),
            Self::Issuing | Self::TlsRoot => Rules::authority(Some(0)),
            Self::Signer | Self::SealMaker => Rules::subject(signs, &[]),
            Self::Seal => Rules::subject(signs, &[ID_KP_EMAIL_PROTECTION, ID_KP_DOCUMENT_SIGNING]),
            Self::Agent => Rules::subject(signs, &[ID_KP_CLIENT_AUTH, ID_KP_EMAIL_PROTECTION]),
            Self::TimeStamping => Rules {
                purposes_critical: true,
                ..Rules::subject(signs, &[ID_KP_TIME_STAMPING])
            },
            Self::OcspResponder => Rules {
                no_check: true,
                ..Rules::subject(KeyUsages::DigitalSignature.into(), &[ID_KP_OCSP_SIGNING])
            },
            Self::TlsServer { .. } => {
                Rules::subject(KeyUsages::DigitalSignature.into(), &[ID_KP_SERVER_AUTH])
            }
            Self::Custom(custom) => Rules {
                // A time-stamping certificate has this purpose alone, and critical (RFC 3161 2.3).
                purposes_critical: custom.purposes.contains(&ID_KP_TIME_STAMPING),
                no_check: custom.purposes.contains(&ID_KP_OCSP_SIGNING),
                purposes: custom.purposes.clone().into(),
                ..Rules::subject(custom.key_usage, &[])
            },
        }
    }
}

impl Rules {
    fn authority(authorities_below: Option<u8>) -> Self {
        Self {
            authority: true,
            authorities_below,
            key_usage: KeyUsages::KeyCertSign | KeyUsages::CRLSign,
            purposes: Cow::Borrowed(&[]),
            purposes_critical: false,
            no_check: false,
        }
    }

    const fn subject(key_usage: FlagSet<KeyUsages>, purposes: &'static [ObjectIdentifier]) -> Self {
        Self {
            authority: false,
            authorities_below: None,
            key_usage,
            purposes: Cow::Borrowed(purposes),
            purposes_critical: false,
            no_check: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_authorities_certify() {
        for (name, profile) in Profile::NAMED {
            let rules = profile.rules();
            assert_eq!(
                rules.key_usage.contains(KeyUsages::KeyCertSign),
                rules.authority,
                "{name}"
            );
            assert_eq!(Profile::by_name(name), Some(profile));
        }
        assert_eq!(Profile::by_name("tls"), None, "a server needs names");
    }
}
