//! NIST's Public Key Interoperability Test Suite (PKITS 1.0.1, the 2011 certificates), as the package
//! `cryptography-vectors` carries it.
//!
//! Each test is an end certificate; all authorities and all lists are there for the taking, as in a real
//! repository, and the path is looked for among them. Where the suite names an expected result it is in the
//! name of the file, but for section 4.8 and parts of 4.10 and 4.12, whose results depend on the policies
//! asked for; those are in the table below (PKITS, sections 4.8, 4.10 and 4.12).

use std::path::{Path, PathBuf};
use std::process::Command;

use documents::crl::Crl;
use documents::x509::{PathError, PathRules, PolicyRules, Revocation, ValidPath, validate_path};
use spki::ObjectIdentifier;

use crate::support::NOW;

/// Tests that need what we do not have, and why. All of them are refused, which the suite does not ask for.
const NOT_APPLICABLE: [(&str, &str); 3] = [
    ("ValidDSASignaturesTest4EE", "4.1.4: DSA"),
    ("ValidDSAParameterInheritanceTest5EE", "4.1.5: DSA"),
    (
        "Validpre2000UTCnotBeforeDateTest3EE",
        "4.2.3: valid from 1950 on, and our times begin with 1970",
    ),
];

const ANY: &[u8] = &[];

/// What is asked of the policies.
#[derive(Clone, Copy, Default)]
struct Ask {
    /// The last numbers of NIST-test-policy-1 to 6.
    acceptable: &'static [u8],
    required: bool,
    no_mapping: bool,
    no_any: bool,
}

const fn ask(acceptable: &'static [u8]) -> Ask {
    Ask {
        acceptable,
        required: false,
        no_mapping: false,
        no_any: false,
    }
}

const fn require(acceptable: &'static [u8]) -> Ask {
    Ask {
        required: true,
        ..ask(acceptable)
    }
}

const NO_MAPPING: Ask = Ask {
    no_mapping: true,
    ..ask(ANY)
};
const NO_ANY: Ask = Ask {
    no_any: true,
    ..ask(ANY)
};

/// The number in the suite, the end certificate, what is asked, and whether the path is valid.
const BY_POLICY: [(&str, &str, Ask, bool); 54] = [
    ("4.8.1.1", "ValidCertificatePathTest1EE", require(ANY), true),
    ("4.8.1.2", "ValidCertificatePathTest1EE", require(&[1]), true),
    ("4.8.1.3", "ValidCertificatePathTest1EE", require(&[2]), false),
    ("4.8.1.4", "ValidCertificatePathTest1EE", require(&[1, 2]), true),
    ("4.8.2.1", "AllCertificatesNoPoliciesTest2EE", ask(ANY), true),
    ("4.8.2.2", "AllCertificatesNoPoliciesTest2EE", require(ANY), false),
    ("4.8.3.1", "DifferentPoliciesTest3EE", ask(ANY), true),
    ("4.8.3.2", "DifferentPoliciesTest3EE", require(ANY), false),
    ("4.8.3.3", "DifferentPoliciesTest3EE", require(&[1, 2]), false),
    ("4.8.4", "DifferentPoliciesTest4EE", ask(ANY), false),
    ("4.8.5", "DifferentPoliciesTest5EE", ask(ANY), false),
    ("4.8.6.1", "OverlappingPoliciesTest6EE", ask(ANY), true),
    ("4.8.6.2", "OverlappingPoliciesTest6EE", ask(&[1]), true),
    ("4.8.6.3", "OverlappingPoliciesTest6EE", ask(&[2]), false),
    ("4.8.7", "DifferentPoliciesTest7EE", ask(ANY), false),
    ("4.8.8", "DifferentPoliciesTest8EE", ask(ANY), false),
    ("4.8.9", "DifferentPoliciesTest9EE", ask(ANY), false),
    ("4.8.10.1", "AllCertificatesSamePoliciesTest10EE", ask(ANY), true),
    ("4.8.10.2", "AllCertificatesSamePoliciesTest10EE", ask(&[1]), true),
    ("4.8.10.3", "AllCertificatesSamePoliciesTest10EE", ask(&[2]), true),
    ("4.8.11.1", "AllCertificatesanyPolicyTest11EE", ask(ANY), true),
    ("4.8.11.2", "AllCertificatesanyPolicyTest11EE", ask(&[1]), true),
    ("4.8.12", "DifferentPoliciesTest12EE", ask(ANY), false),
    ("4.8.13.1", "AllCertificatesSamePoliciesTest13EE", ask(&[1]), true),
    ("4.8.13.2", "AllCertificatesSamePoliciesTest13EE", ask(&[2]), true),
    ("4.8.13.3", "AllCertificatesSamePoliciesTest13EE", ask(&[3]), true),
    ("4.8.14.1", "AnyPolicyTest14EE", ask(&[1]), true),
    ("4.8.14.2", "AnyPolicyTest14EE", ask(&[2]), false),
    ("4.8.15", "UserNoticeQualifierTest15EE", ask(ANY), true),
    ("4.8.16", "UserNoticeQualifierTest16EE", ask(ANY), true),
    ("4.8.17", "UserNoticeQualifierTest17EE", ask(ANY), true),
    ("4.8.18.1", "UserNoticeQualifierTest18EE", ask(&[1]), true),
    ("4.8.18.2", "UserNoticeQualifierTest18EE", ask(&[2]), true),
    ("4.8.19", "UserNoticeQualifierTest19EE", ask(ANY), true),
    ("4.8.20", "CPSPointerQualifierTest20EE", ask(ANY), true),
    ("4.10.1.1", "ValidPolicyMappingTest1EE", ask(&[1]), true),
    ("4.10.1.2", "ValidPolicyMappingTest1EE", ask(&[2]), false),
    ("4.10.1.3", "ValidPolicyMappingTest1EE", NO_MAPPING, false),
    ("4.10.2.1", "InvalidPolicyMappingTest2EE", ask(ANY), false),
    ("4.10.2.2", "InvalidPolicyMappingTest2EE", NO_MAPPING, false),
    ("4.10.3.1", "ValidPolicyMappingTest3EE", ask(&[1]), false),
    ("4.10.3.2", "ValidPolicyMappingTest3EE", ask(&[2]), true),
    ("4.10.5.1", "ValidPolicyMappingTest5EE", ask(&[1]), true),
    ("4.10.5.2", "ValidPolicyMappingTest5EE", ask(&[6]), false),
    ("4.10.6.1", "ValidPolicyMappingTest6EE", ask(&[1]), true),
    ("4.10.6.2", "ValidPolicyMappingTest6EE", ask(&[6]), false),
    ("4.10.9", "ValidPolicyMappingTest9EE", ask(ANY), true),
    ("4.10.11", "ValidPolicyMappingTest11EE", ask(ANY), true),
    ("4.10.12.1", "ValidPolicyMappingTest12EE", ask(&[1]), true),
    ("4.10.12.2", "ValidPolicyMappingTest12EE", ask(&[2]), true),
    ("4.10.13", "ValidPolicyMappingTest13EE", ask(ANY), true),
    ("4.10.14", "ValidPolicyMappingTest14EE", ask(ANY), true),
    ("4.12.3.1", "inhibitAnyPolicyTest3EE", ask(ANY), true),
    ("4.12.3.2", "inhibitAnyPolicyTest3EE", NO_ANY, false),
];

/// The folder of the suite, in the Python environment that `make test` makes.
fn folder() -> PathBuf {
    let given = std::env::var_os("TEST_PYTHON").map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = given.unwrap_or_else(|| workspace.join("target/venv/bin/python"));
    assert!(
        python.exists(),
        "no {}; `scripts/install.sh test target/venv` makes it",
        python.display()
    );
    let find = "import cryptography_vectors as v; print(v.__path__[0])";
    let output = Command::new(python).args(["-c", find]).output().unwrap();
    assert!(output.status.success(), "cryptography-vectors is not installed");
    let path = String::from_utf8(output.stdout).unwrap();
    PathBuf::from(path.trim()).join("x509/PKITS_data")
}

/// Whether a path is refused for what the test is about, as far as its name tells.
fn is_the_reason(number: &str, name: &str, fault: &PathError) -> bool {
    let about = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let revocation = matches!(
        fault,
        PathError::Revoked { .. } | PathError::RevocationUnknown { .. }
    );
    if !number.is_empty() {
        *fault == PathError::Policy
    } else if about(&["BasicSelfIssued"]) {
        revocation || *fault == PathError::BadSignature
    } else if about(&["DSA", "pre2000UTCnotBefore"]) {
        matches!(fault, PathError::UnsupportedAlgorithm | PathError::Unreadable(_))
    } else if about(&["nameConstraints"]) {
        matches!(fault, PathError::NameConstraints { .. })
    } else if about(&[
        "CRL",
        "RLIssuer",
        "distributionPoint",
        "onlySome",
        "onlyContains",
        "Revoked",
        "SerialNumber",
    ]) {
        revocation
    } else if about(&["olicies", "olicy"]) {
        *fault == PathError::Policy
    } else if about(&["pathLen", "cAFalse", "basicConstraints", "keyCertSign"]) {
        *fault == PathError::NotAnAuthority
    } else if about(&["notAfter", "notBefore"]) {
        matches!(fault, PathError::NotValidThen { .. })
    } else {
        // Signatures, names, key rollover, an unknown critical extension.
        *fault != PathError::Policy && *fault != PathError::TooComplex
    }
}

struct Suite {
    /// By the name of the file without its ending.
    certificates: Vec<(String, Vec<u8>)>,
    lists: Vec<Vec<u8>>,
}

impl Suite {
    fn load() -> Self {
        let folder = folder();
        let files = |name: &str| {
            let mut files: Vec<_> = std::fs::read_dir(folder.join(name))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            files
        };
        let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        let certificates = files("certs")
            .into_iter()
            .map(|path| (stem(&path), std::fs::read(path).unwrap()));
        let lists = files("crls").into_iter().map(|path| std::fs::read(path).unwrap());
        Self {
            certificates: certificates.collect(),
            lists: lists.collect(),
        }
    }

    fn certificate(&self, name: &str) -> &[u8] {
        let found = self.certificates.iter().find(|(stem, _)| stem == name);
        &found.unwrap_or_else(|| panic!("no certificate {name}")).1
    }

    fn validate(&self, lists: &[Crl<'_>], name: &str, ask: Ask) -> Result<ValidPath, PathError> {
        let policy = |number: &u8| ObjectIdentifier::new_unwrap(&format!("2.16.840.1.101.3.2.1.48.{number}"));
        let rules = PathRules {
            at: NOW,
            purposes: &[],
            policies: PolicyRules {
                acceptable: ask.acceptable.iter().map(policy).collect(),
                required: ask.required,
                no_mapping: ask.no_mapping,
                no_any: ask.no_any,
            },
            revocation: Some(Revocation {
                lists,
                responses: &[],
                now: NOW,
            }),
        };
        let authorities = self.certificates.iter().filter(|(name, _)| !name.ends_with("EE"));
        let authorities: Vec<_> = authorities.map(|(_, der)| der).collect();
        let anchor = self.certificate("TrustAnchorRootCertificate");
        validate_path(self.certificate(name), &authorities, &[anchor], &rules)
    }
}

#[test]
fn every_test_of_the_suite_comes_out_as_it_says() {
    let suite = Suite::load();
    // Lists that cannot be read are refused, as the suite means it.
    let lists: Vec<_> = suite
        .lists
        .iter()
        .filter_map(|der| Crl::parse(der).ok())
        .collect();
    let mut wrong = Vec::new();
    let mut judge = |number: &str, name: &str, ask: Ask, expected: bool| {
        let verdict = suite.validate(&lists, name, ask);
        let for_its_reason = verdict
            .as_ref()
            .err()
            .is_none_or(|fault| is_the_reason(number, name, fault));
        if verdict.is_ok() != expected || !for_its_reason {
            wrong.push(format!(
                "{number} {name}: {:?}",
                verdict.map(|path| path.policies)
            ));
        }
    };
    for (number, name, ask, valid) in BY_POLICY {
        judge(number, name, ask, valid);
    }
    let mut by_name = 0;
    for (name, _) in &suite.certificates {
        let in_table = BY_POLICY
            .iter()
            .any(|(number, other, ..)| other == name && *number != "4.8.1.1");
        let expected = match NOT_APPLICABLE.iter().find(|(other, _)| other == name) {
            Some(_) => false,
            None => name.starts_with("Valid"),
        };
        if name.ends_with("EE") && (!in_table || name == "ValidCertificatePathTest1EE") {
            judge("", name, Ask::default(), expected);
            by_name += 1;
        }
    }
    assert!(by_name > 180, "only {by_name} end certificates were found");
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
