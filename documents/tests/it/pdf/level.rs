//! The levels B-T, B-LT and B-LTA, with time stamps and revocation lists that OpenSSL makes.

use documents::cms::DigestBytes;
use documents::pdf::{
    ChangeKind, Permission, Request, ValidationData, Verdict, add_validation_data, prepare_time_stamp, verify,
};
use protocol::algorithm::{Algorithm, Hash};

use super::judge::{pyhanko, pyhanko_long_term, qpdf_accepts};
use super::verify::is_valid;
use super::{Signer, fixture};
use crate::support::{Bench, NOW};

/// A time-stamping authority and a CA, run by OpenSSL.
pub(super) struct Authority {
    bench: Bench,
    pub(super) certificate: Vec<u8>,
}

const CONFIG: &str = "
[tsa]
serial = serial
crypto_device = builtin
signer_cert = tsa.pem
signer_key = tsa.key
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512, sm3
signer_digest = sha256
ess_cert_id_alg = sha256
[ca]
database = index
crlnumber = number
default_md = sha256
default_crl_days = 30
[req]
distinguished_name = name
[name]
";

impl Authority {
    pub(super) fn new() -> Self {
        let bench = Bench::new();
        bench.write("config", CONFIG.as_bytes());
        bench.write("serial", b"01\n");
        bench.write("index", b"");
        bench.write("number", b"01\n");
        let usage =
            "-addext extendedKeyUsage=critical,timeStamping -addext keyUsage=critical,digitalSignature";
        bench
            .openssl(&format!(
                "req -x509 -config config -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.pem -subj /CN=TSA -days 3000 {usage}"
            ))
            .accepted();
        bench
            .openssl("x509 -in tsa.pem -outform DER -out tsa.der")
            .accepted();
        let certificate = bench.read("tsa.der");
        Self { bench, certificate }
    }

    /// A token over a digest.
    pub(super) fn stamp(&self, hash: Hash, digest: &[u8]) -> Vec<u8> {
        let name = match hash {
            Hash::Sha384 => "sha384",
            Hash::Sha512 => "sha512",
            Hash::Sm3 => "sm3",
            Hash::Sha256 => "sha256",
        };
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let query = format!("ts -query -digest {hex} -{name} -cert -out query");
        self.bench.openssl(&query).accepted();
        let reply = "ts -reply -config config -section tsa -queryfile query -token_out -out token";
        self.bench.openssl(reply).accepted();
        self.bench.read("token")
    }

    /// The revocation list of a root.
    fn crl(&self, signer: &Signer) -> Vec<u8> {
        self.bench.write("root.der", &signer.root.key.private());
        self.bench.write_pem("root.pem", &signer.root.certificate);
        self.bench
            .openssl("pkey -inform DER -in root.der -out root.key")
            .accepted();
        let make = "ca -config config -name ca -gencrl -keyfile root.key -cert root.pem -out crl.pem";
        self.bench.openssl(make).accepted();
        self.bench
            .openssl("crl -in crl.pem -outform DER -out crl.der")
            .accepted();
        self.bench.read("crl.der")
    }

    fn anchors(&self, signer: &Signer) -> [Vec<u8>; 2] {
        [signer.root.certificate.clone(), self.certificate.clone()]
    }
}

/// Room for a token of the authority.
const TOKEN_BYTES: usize = 6_000;

fn stamped(signer: &Signer, authority: &Authority, pdf: &[u8], request: &Request<'_>) -> Vec<u8> {
    let request = Request {
        time_stamp_bytes: TOKEN_BYTES,
        ..*request
    };
    let prepared = signer.prepare(pdf, &request).unwrap();
    let signature = signer
        .holder
        .key
        .sign(signer.holder.algorithm, prepared.to_sign());
    let digest: DigestBytes = prepared.hash().digest(&signature);
    let token = authority.stamp(prepared.hash(), &digest);
    let update = prepared.assemble_time_stamped(&signature, &token).unwrap();
    [pdf, &update].concat()
}

fn archived(authority: &Authority, pdf: &[u8]) -> Vec<u8> {
    let prepared = prepare_time_stamp(pdf, Hash::Sha256, TOKEN_BYTES, NOW).unwrap();
    let token = authority.stamp(Hash::Sha256, prepared.imprint());
    [pdf, &prepared.assemble(&token).unwrap()].concat()
}

#[test]
fn a_time_stamp_proves_the_time_of_a_signature() {
    let authority = Authority::new();
    for algorithm in [Algorithm::EcdsaP256Sha256, Algorithm::RsaPssSha512] {
        let signer = Signer::new(algorithm);
        let pdf = stamped(&signer, &authority, &fixture("reportlab"), &Request::default());
        qpdf_accepts(&pdf);
        let roots = authority.anchors(&signer);
        let judged = pyhanko(&pdf, &roots.concat());
        assert!(
            judged[0].contains("bottom_line=True") && judged[0].contains("stamp=True"),
            "{judged:?}"
        );
        let report = verify(&pdf, &roots, NOW).unwrap();
        is_valid(&report.signatures[0]);
        let stamp = report.signatures[0].time_stamp.as_ref().unwrap();
        assert_eq!(stamp.authority, "CN=TSA");
        // Long after the certificate expired, the time stamp still says when it was valid.
        let later = protocol::clock::UnixMillis(crate::support::NOT_AFTER.0 + 1000);
        is_valid(&verify(&pdf, &roots, later).unwrap().signatures[0]);
        let untrusted = verify(&pdf, &roots[..1], NOW).unwrap();
        assert_eq!(untrusted.verdict, Some(Verdict::Indeterminate));
    }
}

#[test]
fn a_time_stamp_over_something_else_is_noticed() {
    let authority = Authority::new();
    let signer = Signer::p256();
    let pdf = fixture("reportlab");
    let request = Request {
        time_stamp_bytes: TOKEN_BYTES,
        ..Request::default()
    };
    let prepared = signer.prepare(&pdf, &request).unwrap();
    let signature = signer
        .holder
        .key
        .sign(signer.holder.algorithm, prepared.to_sign());
    let token = authority.stamp(Hash::Sha256, &[7; 32]);
    let update = prepared.assemble_time_stamped(&signature, &token).unwrap();
    let report = verify(&[&pdf[..], &update].concat(), &authority.anchors(&signer), NOW).unwrap();
    assert_eq!(report.verdict, Some(Verdict::Invalid));
    assert_eq!(report.signatures[0].findings[0].code, "time-stamp");
}

#[test]
fn strangers_accept_the_long_term_levels_of_certified_documents() {
    let authority = Authority::new();
    let signer = Signer::p256();
    let roots = authority.anchors(&signer);
    let crls = [authority.crl(&signer)];
    for name in ["reportlab", "latex", "hybrid"] {
        let request = Request {
            certify: Some(Permission::NoChanges),
            ..Request::default()
        };
        let b_t = stamped(&signer, &authority, &fixture(name), &request);
        let certificates = [
            signer.holder.certificate.clone(),
            roots[0].clone(),
            roots[1].clone(),
        ];
        let data = ValidationData {
            certificates: &certificates,
            crls: &crls,
            ..ValidationData::default()
        };
        let b_lt = [&b_t[..], &add_validation_data(&b_t, &data, NOW).unwrap()].concat();
        let b_lta = archived(&authority, &b_lt);
        // Before the authority's certificate expires, once more.
        let again = [&b_lta[..], &add_validation_data(&b_lta, &data, NOW).unwrap()].concat();
        let renewed = archived(&authority, &again);
        for pdf in [&b_lt, &b_lta, &renewed] {
            qpdf_accepts(pdf);
            assert!(pdf.starts_with(&b_t));
        }
        let report = verify(&renewed, &roots, NOW).unwrap();
        assert_eq!(report.signatures.len(), 3, "{name}");
        report.signatures.iter().for_each(is_valid);
        let kinds: Vec<_> = report.signatures[0]
            .later_changes
            .iter()
            .map(|change| change.kind)
            .collect();
        assert_eq!(
            kinds,
            [
                ChangeKind::TimeStamp,
                ChangeKind::TimeStamp,
                ChangeKind::ValidationData
            ]
        );
        let judged = pyhanko(&renewed, &roots.concat());
        assert!(
            judged.iter().all(|line| line.contains("valid=True")),
            "{judged:?}"
        );
        if name != "hybrid" {
            let long_term = pyhanko_long_term(&b_lta, &roots.concat());
            assert!(long_term.contains("AdESPassed.OK"), "{long_term}");
            let without = pyhanko_long_term(&archived(&authority, &b_t), &roots.concat());
            assert!(
                !without.contains("AdESPassed.OK"),
                "the revocation list is needed: {without}"
            );
        }
        // What is there is not added twice.
        let (first, second) = (b_lt.len() - b_t.len(), again.len() - b_lta.len());
        assert!(second < first, "{first} {second}");
    }
}

#[test]
fn validation_data_is_for_a_signature_that_is_there() {
    let pdf = fixture("reportlab");
    let fields = ["Signature1".to_owned()];
    let data = ValidationData {
        fields: &fields,
        ..ValidationData::default()
    };
    let error = add_validation_data(&pdf, &data, NOW).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no signature in the field 'Signature1'"
    );
}
