//! What shows later how the certificates of a signature stood (ETSI EN 319 142-1 5.4.2).

use protocol::clock::UnixMillis;
use protocol::error_code::Code;
use serde::{Deserialize, Serialize};

use super::Octets;
use crate::crl::{self, Crl};
use crate::ocsp;
use crate::x509::{self, PathError, PathRules, PolicyRules, Revocation, Sources};

/// Most certificates, lists and responses of each kind in one answer.
const EACH_MAX: usize = 64;

/// Why evidence is not enough.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvidenceError {
    /// More than anybody needs.
    #[error("more than {EACH_MAX} certificates, lists or responses")]
    TooMany,
    /// Not a certificate.
    #[error("a certificate given for later verification: {0}")]
    Certificate(#[from] x509::ReadError),
    /// Not a revocation list.
    #[error("a revocation list given for later verification: {0}")]
    List(#[from] crl::ReadError),
    /// Not an OCSP response.
    #[error("an OCSP response given for later verification: {0}")]
    Response(#[from] ocsp::VerifyError),
    /// The issuer's certificate is not there.
    #[error("the certificate of the issuer of '{0}' is needed for later verification")]
    NoIssuer(String),
    /// It does not show how a certificate stands, or shows that it is revoked.
    #[error("what is given for later verification: {0}")]
    Path(#[from] PathError),
}

impl EvidenceError {
    /// The code under which a caller hears of it.
    pub(super) const fn code(&self) -> Code {
        match self {
            Self::Path(PathError::Revoked { .. }) => Code::CredentialDisabled,
            Self::TooMany | Self::Certificate(_) | Self::List(_) | Self::Response(_) => Code::BadAnswer,
            Self::NoIssuer(_) | Self::Path(_) => Code::RevocationUnknown,
        }
    }
}

/// Certificates of which it has to be shown how they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Chains, in DER: somebody's certificate first, then whatever came with it, in no order.
    pub chains: Vec<Vec<Octets>>,
}

impl Wanted {
    /// Each certificate below a root once, with its issuer where that is among those that are known, and where it
    /// says that its standing can be learned. `known` are more certificates.
    pub fn sources(&self, known: &[Vec<u8>]) -> Vec<Asked> {
        let enclosed = self.chains.iter().flatten().map(Octets::as_ref);
        let pool: Vec<&[u8]> = enclosed.chain(known.iter().map(Vec::as_slice)).collect();
        let mut asked: Vec<Asked> = Vec::new();
        for start in self.chains.iter().filter_map(|chain| chain.first()) {
            for (certificate, issuer) in x509::climb(start.as_ref(), &pool) {
                if asked.iter().any(|asked| asked.certificate == certificate) {
                    continue;
                }
                asked.push(Asked {
                    certificate: certificate.to_vec(),
                    issuer: issuer.map(<[u8]>::to_vec),
                    sources: x509::sources(certificate).unwrap_or_default(),
                });
            }
        }
        asked
    }
}

/// A certificate of which it has to be learned how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The certificate, in DER.
    pub certificate: Vec<u8>,
    /// Its issuer's, in DER, if it is known.
    pub issuer: Option<Vec<u8>>,
    /// Where it says that more can be had.
    pub sources: Sources,
}

/// An answer: everything that was found, each in DER.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Certificates that did not come with the signature: issuers, roots.
    #[serde(default)]
    pub certificates: Vec<Octets>,
    /// Revocation lists (RFC 5280 5).
    #[serde(default)]
    pub crls: Vec<Octets>,
    /// OCSP responses (RFC 6960 4.2.1).
    #[serde(default)]
    pub ocsps: Vec<Octets>,
    /// When it was gathered, in milliseconds since 1970: lists and responses must be current then.
    pub at_ms: u64,
}

impl Evidence {
    /// All certificates that belong into the document: those of the chains, those given, and the responders'.
    pub(super) fn certificates(&self, wanted: &Wanted) -> Result<Vec<Vec<u8>>, EvidenceError> {
        let mut all: Vec<Vec<u8>> = Vec::new();
        let given = self.certificates.iter().map(|certificate| &certificate.0);
        let responders = self
            .ocsps
            .iter()
            .map(|response| Ok(ocsp::Response::parse(&response.0)?.certificates()?))
            .collect::<Result<Vec<_>, EvidenceError>>()?;
        let enclosed = wanted.chains.iter().flatten().map(|certificate| &certificate.0);
        for certificate in enclosed.chain(given).chain(responders.iter().flatten()) {
            if !all.contains(certificate) {
                all.push(certificate.clone());
            }
        }
        Ok(all)
    }

    /// That everything can be read, and that it shows of every certificate below a root that it is good.
    pub fn check(&self, wanted: &Wanted) -> Result<(), EvidenceError> {
        if [&self.certificates, &self.crls, &self.ocsps]
            .iter()
            .any(|list| list.len() > EACH_MAX)
        {
            return Err(EvidenceError::TooMany);
        }
        for certificate in &self.certificates {
            x509::validity(&certificate.0)?;
        }
        let pool = self.certificates(wanted)?;
        let lists = self
            .crls
            .iter()
            .map(|list| Crl::parse(&list.0))
            .collect::<Result<Vec<_>, _>>()?;
        let responses = self
            .ocsps
            .iter()
            .map(|response| ocsp::Response::parse(&response.0));
        let responses = responses.collect::<Result<Vec<_>, _>>()?;
        let now = UnixMillis(self.at_ms);
        let rules = PathRules {
            at: now,
            purposes: &[],
            policies: PolicyRules::default(),
            revocation: Some(Revocation {
                lists: &lists,
                responses: &responses,
                now,
            }),
        };
        let starts = wanted.chains.iter().filter_map(|chain| chain.first());
        starts
            .into_iter()
            .try_for_each(|start| check_chain(start.as_ref(), &pool, &rules))
    }
}

/// The highest certificate that can be reached is taken for the anchor: whom a verifier will trust is not known here.
fn check_chain(start: &[u8], pool: &[Vec<u8>], rules: &PathRules<'_>) -> Result<(), EvidenceError> {
    let slices: Vec<&[u8]> = pool.iter().map(Vec::as_slice).collect();
    let steps = x509::climb(start, &slices);
    let anchor = match steps.last() {
        None => return Ok(()),
        Some((_, Some(issuer))) => *issuer,
        Some((certificate, None)) if steps.len() > 1 => *certificate,
        Some((certificate, None)) => return Err(EvidenceError::NoIssuer(x509::subject(certificate)?)),
    };
    x509::validate_path(start, pool, &[anchor], rules)?;
    Ok(())
}
