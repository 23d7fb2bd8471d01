//! Time stamps: requests by OpenSSL, tokens judged by it, and tokens of its own.

use documents::tsp::{
    Accuracy, Authority, AuthorityError, Failure, Request, ResponseError, Stamp, VerifyError, rejection,
    token_of, verify_token,
};
use documents::x509::{PathError, Profile};
use protocol::algorithm::{Algorithm, Hash};
use protocol::clock::UnixMillis;
use spki::ObjectIdentifier;

use crate::support::{Bench, Holder, NOW, content};

const P256: Algorithm = Algorithm::EcdsaP256Sha256;
const POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.55555.2.1");
const ACCURACY: Accuracy = Accuracy {
    seconds: 1,
    millis: 500,
    micros: 100,
};
const HASHES: [(Hash, &str); 4] = [
    (Hash::Sha256, "sha256"),
    (Hash::Sha384, "sha384"),
    (Hash::Sha512, "sha512"),
    (Hash::Sm3, "sm3"),
];

/// A root, and a time-stamping authority below it.
pub(crate) struct Tsa {
    pub(crate) root: Holder,
    holder: Holder,
    authority: Authority,
}

impl Tsa {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let root = Holder::root(P256);
        let holder = root.issue("TSA", algorithm, Profile::TimeStamping);
        let chain = [&holder.certificate, &root.certificate];
        let authority = Authority::new(&chain, algorithm, POLICY, Some(ACCURACY)).unwrap();
        Self {
            root,
            holder,
            authority,
        }
    }

    pub(crate) fn respond(&self, request: &Request, serial: &[u8]) -> Vec<u8> {
        let prepared = self.authority.prepare(request, serial, NOW).unwrap();
        let signature = self.holder.key.sign(self.holder.algorithm, prepared.to_sign());
        prepared.assemble(&signature).unwrap()
    }

    fn verify(
        &self,
        response: &[u8],
        request: Option<&Request>,
        content: &[u8],
    ) -> Result<Stamp, VerifyError> {
        let token = token_of(response).unwrap();
        verify_token(
            token,
            &|hash| hash.digest(content),
            request,
            &[&self.root.certificate],
        )
    }
}

fn query(bench: &Bench, name: &str, content: &[u8], options: &str) -> Request {
    bench.write("content", content);
    bench
        .openssl(&format!(
            "ts -query -data content -{name} {options} -out query.tsq"
        ))
        .accepted();
    Request::parse(&bench.read("query.tsq")).unwrap()
}

#[test]
fn openssl_accepts_tokens_of_every_key_and_imprint() {
    let content = content();
    for algorithm in [
        P256,
        Algorithm::EcdsaP384Sha384,
        Algorithm::RsaPkcs1Sha256,
        Algorithm::RsaPkcs1Sha512,
    ] {
        let tsa = Tsa::new(algorithm);
        let bench = Bench::new();
        bench.write_pem("ca.pem", &tsa.root.certificate);
        bench.write_pem("tsa.pem", &tsa.holder.certificate);
        for (hash, name) in HASHES {
            for (options, untrusted) in [("-cert", ""), ("-cert -no_nonce", ""), ("", "-untrusted tsa.pem")] {
                let request = query(&bench, name, &content, options);
                assert_eq!(request.hash, hash);
                bench.write("reply.tsr", &tsa.respond(&request, &[0x80, 1]));
                let verify = format!("ts -verify -in reply.tsr -CAfile ca.pem {untrusted}");
                bench
                    .openssl(&format!("{verify} -queryfile query.tsq"))
                    .accepted();
                bench.openssl(&format!("{verify} -data content")).accepted();
            }
        }
        let shown = bench.openssl("ts -reply -in reply.tsr -text").text;
        for expected in [
            "Status: Granted.",
            "Policy OID: 1.3.6.1.4.1.55555.2.1",
            "Serial number: 0x8001",
            "Time stamp: Jan 15 08:00:00 2027 GMT",
            "0x01 seconds, 0x01F4 millis, 0x64 micros",
        ] {
            assert!(shown.contains(expected), "{expected} is not in:\n{shown}");
        }
        bench.write("content", b"something else");
        let verify = "ts -verify -in reply.tsr -CAfile ca.pem -untrusted tsa.pem -data content";
        bench.openssl(verify).refused("message imprint mismatch");
    }
}

#[test]
fn we_accept_our_tokens_in_every_algorithm() {
    let content = content();
    let algorithms = Algorithm::ALL
        .into_iter()
        .filter(|a| !matches!(a, Algorithm::Ed25519 | Algorithm::Sm2Sm3));
    for algorithm in algorithms {
        let tsa = Tsa::new(algorithm);
        for (hash, _) in HASHES {
            let request = Request::new(hash, &hash.digest(&content), &[0x81; 16]).unwrap();
            assert_eq!(Request::parse(&request.to_der().unwrap()), Ok(request.clone()));
            let response = tsa.respond(&request, &[7]);
            let stamp = tsa.verify(&response, Some(&request), &content).unwrap();
            assert_eq!((stamp.time, stamp.policy, stamp.hash), (NOW, POLICY, hash));
            assert_eq!(stamp.certificate, tsa.holder.certificate);
            assert_eq!(stamp.serial, [7]);
            let other = tsa.verify(&response, Some(&request), b"something else");
            assert_eq!(other, Err(VerifyError::Imprint), "{algorithm}");
        }
    }
}

#[test]
fn an_sm2_token_is_signed_over_z_and_the_attributes() {
    let tsa = Tsa::new(Algorithm::Sm2Sm3E);
    let content = content();
    let request = Request::new(Hash::Sm3, &Hash::Sm3.digest(&content), &[]).unwrap();
    let response = tsa.respond(&request, &[1]);
    // OpenSSL 3.0 knows no SM2 in CMS, so it is shown the signature and what it covers: the attributes as a
    // SET. They are the last [0] before the signature algorithm.
    let bench = Bench::new();
    bench.write("response.der", &response);
    bench.write("key.der", &tsa.holder.key.public());
    let parsed = bench.openssl("asn1parse -inform DER -in response.der").text;
    let offset = |line: &str| line.split(':').next().unwrap().trim().parse::<usize>().unwrap();
    let lines: Vec<_> = parsed.lines().collect();
    let attributes = lines.iter().rfind(|line| line.contains("cont [ 0 ]")).unwrap();
    let signature = lines.iter().rfind(|line| line.contains("OCTET STRING")).unwrap();
    let mut set = response[offset(attributes)..].to_vec();
    set[0] = 0x31;
    assert_eq!(set[1], 0x81, "128 to 255 bytes");
    set.truncate(3 + usize::from(set[2]));
    bench.write("set.der", &set);
    bench.write("signature.der", &response[offset(signature) + 2..]);
    bench
        .openssl(
            "pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -digest sm3 -in set.der -sigfile \
             signature.der -pkeyopt distid:1234567812345678",
        )
        .accepted();
}

#[test]
fn we_accept_what_openssl_stamped() {
    let tsa = Tsa::new(Algorithm::RsaPkcs1Sha256);
    let content = content();
    let bench = Bench::new();
    let request = query(&bench, "sha384", &content, "-cert");
    bench.write_pem("tsa.pem", &tsa.holder.certificate);
    bench.write("tsa.key", &tsa.holder.key.private());
    bench
        .openssl("rsa -inform DER -in tsa.key -out tsa.key.pem")
        .accepted();
    // The certificate is named by the older attribute with SHA-1, or the newer.
    for named_by in ["sha1", "sha256"] {
        bench.write("serial", b"0A\n");
        let config = format!(
            "[tsa]\ndefault_tsa=t\n[t]\nserial=serial\nsigner_digest=sha256\ndefault_policy=1.2.3.4\n\
             digests=sha256,sha384\naccuracy=millisecs:5\nordering=yes\ntsa_name=yes\n\
             clock_precision_digits=3\ness_cert_id_chain=no\ness_cert_id_alg={named_by}\n"
        );
        bench.write("ts.cnf", config.as_bytes());
        let reply = "ts -reply -config ts.cnf -queryfile query.tsq -signer tsa.pem -inkey tsa.key.pem";
        bench.openssl(&format!("{reply} -out reply.tsr")).accepted();
        let response = bench.read("reply.tsr");
        let stamp = tsa.verify(&response, Some(&request), &content).unwrap();
        assert_eq!(stamp.policy.to_string(), "1.2.3.4");
        assert_eq!(stamp.serial, [0x0b]);
    }
    let response = bench.read("reply.tsr");
    let another = Request::new(Hash::Sha384, &Hash::Sha384.digest(&content), &[5]).unwrap();
    let verdict = tsa.verify(&response, Some(&another), &content);
    assert_eq!(verdict, Err(VerifyError::Nonce));
}

#[test]
fn what_is_wrong_with_a_request_is_told_by_its_bit() {
    let bench = Bench::new();
    bench.write("content", b"x");
    let refused = |options: &str| {
        bench
            .openssl(&format!("ts -query -data content {options} -out query.tsq"))
            .accepted();
        Request::parse(&bench.read("query.tsq")).unwrap_err()
    };
    assert_eq!(refused("-sha1"), Failure::BadAlgorithm);
    assert_eq!(refused("-md5"), Failure::BadAlgorithm);
    let good = Request::new(Hash::Sha256, &[1; 32], &[1])
        .unwrap()
        .to_der()
        .unwrap();
    for length in 0..good.len() {
        assert_eq!(Request::parse(&good[..length]), Err(Failure::BadDataFormat));
    }
    let mut version = good.clone();
    version[4] = 2;
    assert_eq!(Request::parse(&version), Err(Failure::BadRequest));
    assert_eq!(Request::parse(&[0; 5000]), Err(Failure::BadDataFormat));
    assert_eq!(Request::new(Hash::Sha256, &[1; 31], &[]), None);
    let tsa = Tsa::new(P256);
    let mut request = Request::new(Hash::Sha256, &[1; 32], &[1]).unwrap();
    request.policy = Some(ObjectIdentifier::new_unwrap("1.2.3"));
    let failure = tsa.authority.prepare(&request, &[1], NOW).unwrap_err();
    assert_eq!(failure, Failure::UnacceptedPolicy);
    bench.write("reply.tsr", &rejection(failure));
    let shown = bench.openssl("ts -reply -in reply.tsr -text").text;
    assert!(shown.contains("Status: Rejected."), "{shown}");
    assert!(shown.contains("the requested policy is not supported"), "{shown}");
    assert_eq!(
        token_of(&bench.read("reply.tsr")),
        Err(ResponseError::Rejected(Some(Failure::UnacceptedPolicy)))
    );
    request.policy = Some(POLICY);
    for serial in [&[0][..], &[1; 21]] {
        assert_eq!(
            tsa.authority.prepare(&request, serial, NOW).unwrap_err(),
            Failure::SystemFailure
        );
    }
    let expired = tsa.authority.prepare(&request, &[1], UnixMillis(0)).unwrap_err();
    assert_eq!(expired, Failure::SystemFailure);
}

#[test]
fn only_a_certificate_for_time_stamping_stamps() {
    let root = Holder::root(P256);
    let signer = root.signer(P256);
    let refused = Authority::new(&[&signer.certificate], P256, POLICY, None).unwrap_err();
    assert_eq!(refused, AuthorityError::Purpose);
    let tsa = Tsa::new(P256);
    let refused = Authority::new(&[&tsa.holder.certificate], Algorithm::Ed25519, POLICY, None).unwrap_err();
    assert_eq!(refused, AuthorityError::Algorithm(Algorithm::Ed25519));
}

#[test]
fn a_token_that_was_tampered_with_says_nothing_else() {
    let tsa = Tsa::new(P256);
    let content = content();
    let request = Request::new(Hash::Sha256, &Hash::Sha256.digest(&content), &[9]).unwrap();
    let response = tsa.respond(&request, &[1]);
    let token = token_of(&response).unwrap();
    let verify = |token: &[u8]| {
        verify_token(
            token,
            &|hash| hash.digest(&content),
            Some(&request),
            &[&tsa.root.certificate],
        )
    };
    let genuine = verify(token).unwrap();
    for bit in 0..token.len() * 8 {
        let mut flipped = token.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(stamp) = verify(&flipped) {
            assert_eq!(stamp, genuine, "bit {bit}");
        }
    }
    for length in 0..token.len() {
        assert!(verify(&token[..length]).is_err(), "{length} bytes");
        assert!(token_of(&response[..length]).is_err());
    }
    let impostor = Holder::root(P256);
    let verdict = verify_token(token, &|h| h.digest(&content), None, &[&impostor.certificate]);
    assert_eq!(verdict, Err(VerifyError::Path(PathError::BadSignature)));
}
