//! OCSP: requests by OpenSSL, responses judged by it, and responses of its own.

use documents::crl::Reason;
use documents::ocsp::{
    CertId, IdHash, Named, PrepareError, Refusal, Request, RequestError, Responder, ResponderError, Response,
    Single, Status, VerifyError,
};
use documents::x509::Profile;
use protocol::algorithm::Algorithm;
use protocol::clock::UnixMillis;

use crate::support::{Bench, Holder, serial};

const P256: Algorithm = Algorithm::EcdsaP256Sha256;
/// 2026-11-01: OpenSSL holds responses against the machine's clock, which is later.
const THIS: UnixMillis = UnixMillis(1_793_491_200_000);
/// 2039-12-31.
const NEXT: UnixMillis = UnixMillis(2_208_902_400_000);

/// An issuer, its delegate and somebody whose status is asked for.
struct Pki {
    root: Holder,
    delegate: Holder,
    subject: Holder,
    responder: Responder,
}

impl Pki {
    fn new(algorithm: Algorithm) -> Self {
        let root = Holder::root(P256);
        let delegate = root.issue("Responder", algorithm, Profile::OcspResponder);
        let subject = root.signer(P256);
        let responder = Responder::new(&delegate.certificate, &root.certificate, algorithm).unwrap();
        Self {
            root,
            delegate,
            subject,
            responder,
        }
    }

    fn bench(&self) -> Bench {
        let bench = Bench::new();
        bench.write_pem("ca.pem", &self.root.certificate);
        bench.write_pem("subject.pem", &self.subject.certificate);
        bench
    }

    fn id(&self, hash: IdHash) -> CertId {
        CertId::new(self.responder.issuer(), &serial("Signer"), hash)
    }

    fn respond(&self, id: &CertId, status: Status, nonce: Option<&[u8]>) -> Vec<u8> {
        let single = Single {
            id,
            status,
            this_update: THIS,
            next_update: Some(NEXT),
        };
        let prepared = self.responder.prepare(&[single], THIS, nonce).unwrap();
        let signature = self
            .delegate
            .key
            .sign(self.delegate.algorithm, prepared.to_sign());
        prepared.assemble(&signature).unwrap()
    }
}

const REVOKED: Status = Status::Revoked {
    at: UnixMillis(1_790_000_000_000),
    reason: Reason::KeyCompromise,
};

#[test]
fn openssl_asks_and_accepts_the_answers() {
    for algorithm in [P256, Algorithm::RsaPkcs1Sha256, Algorithm::Ed25519] {
        let pki = Pki::new(algorithm);
        let bench = pki.bench();
        for (hash, name) in [
            (IdHash::Sha1, "sha1"),
            (IdHash::Sha256, "sha256"),
            (IdHash::Sm3, "sm3"),
        ] {
            for (nonce, option) in [(true, "-nonce"), (false, "-no_nonce")] {
                let ask = format!("ocsp -{name} -issuer ca.pem -cert subject.pem {option}");
                bench.openssl(&format!("{ask} -reqout request.der")).accepted();
                let request = Request::parse(&bench.read("request.der")).unwrap();
                assert_eq!(request.nonce.is_some(), nonce);
                let id = &request.ids[0];
                assert_eq!(
                    (id.hash(), id.serial()),
                    (Some(hash), Some(&serial("Signer")[..]))
                );
                assert!(id.is_of(pki.responder.issuer()) && id.is_same(&pki.id(hash)));
                for (status, expected) in [
                    (Status::Good, "subject.pem: good"),
                    (REVOKED, "subject.pem: revoked"),
                    (Status::Unknown, "subject.pem: unknown"),
                ] {
                    let response = pki.respond(id, status, request.nonce.as_deref());
                    bench.write("response.der", &response);
                    let judge = format!(
                        "ocsp -{name} -issuer ca.pem -cert subject.pem -no_nonce -reqin request.der -respin response.der -CAfile ca.pem"
                    );
                    let said = bench.openssl(&judge);
                    assert!(said.text.contains("Response verify OK"), "{}", said.text);
                    assert!(said.text.contains(expected), "{}", said.text);
                    assert!(!said.text.contains("WARNING"), "{}", said.text);
                    let read = Response::parse(&response).unwrap();
                    let ours = read.verify(&pki.root.certificate, id, request.nonce.as_deref(), THIS);
                    assert_eq!(ours, Ok(status));
                }
            }
        }
    }
}

#[test]
fn the_issuer_may_answer_itself_and_others_may_not() {
    let pki = Pki::new(P256);
    let itself = Responder::new(&pki.root.certificate, &pki.root.certificate, P256).unwrap();
    let id = pki.id(IdHash::Sha256);
    let single = Single {
        id: &id,
        status: REVOKED,
        this_update: THIS,
        next_update: None,
    };
    let prepared = itself.prepare(&[single], THIS, None).unwrap();
    let signature = pki.root.key.sign(P256, prepared.to_sign());
    let response = prepared.assemble(&signature).unwrap();
    let bench = pki.bench();
    bench.write("response.der", &response);
    let said = bench.openssl(
        "ocsp -sha256 -no_nonce -issuer ca.pem -cert subject.pem -respin response.der -CAfile ca.pem",
    );
    assert!(said.text.contains("Response verify OK"), "{}", said.text);
    assert!(said.text.contains("Reason: keyCompromise"), "{}", said.text);
    let read = Response::parse(&response).unwrap();
    assert_eq!(read.verify(&pki.root.certificate, &id, None, THIS), Ok(REVOKED));
    let signer = Responder::new(&pki.subject.certificate, &pki.root.certificate, P256).unwrap_err();
    assert_eq!(signer, ResponderError::Purpose);
    let other = Holder::root(P256);
    let foreign = Responder::new(&pki.delegate.certificate, &other.certificate, P256).unwrap_err();
    assert!(matches!(foreign, ResponderError::NotDelegated(_)));
}

#[test]
fn an_sm2_response_is_signed_over_z() {
    let pki = Pki::new(Algorithm::Sm2Sm3E);
    let id = pki.id(IdHash::Sm3);
    let single = Single {
        id: &id,
        status: Status::Good,
        this_update: THIS,
        next_update: None,
    };
    let prepared = pki.responder.prepare(&[single], THIS, None).unwrap();
    let signature = pki.delegate.key.sign(Algorithm::Sm2Sm3E, prepared.to_sign());
    let bench = pki.bench();
    bench.write("data.der", prepared.data());
    bench.write("key.der", &pki.delegate.key.public());
    bench.write("signature.der", &signature);
    bench
        .openssl(
            "pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -digest sm3 -in data.der -sigfile \
             signature.der -pkeyopt distid:1234567812345678",
        )
        .accepted();
    let response = prepared.assemble(&signature).unwrap();
    let read = Response::parse(&response).unwrap();
    assert_eq!(
        read.verify(&pki.root.certificate, &id, None, THIS),
        Ok(Status::Good)
    );
}

#[test]
fn requests_come_in_paths_too() {
    let pki = Pki::new(P256);
    let request = Request {
        ids: vec![pki.id(IdHash::Sha1)],
        nonce: Some(vec![7; 32]),
    };
    let der = request.to_der().unwrap();
    assert_eq!(Request::parse(&der), Ok(request.clone()));
    let bench = Bench::new();
    bench.write("request.der", &der);
    let plain = bench.openssl("base64 -A -in request.der").text;
    let escaped = plain.replace('+', "%2B").replace('/', "%2F").replace('=', "%3d");
    for path in [plain.clone(), format!("/{escaped}"), escaped] {
        assert_eq!(Request::from_path(&path), Ok(request.clone()), "{path}");
    }
    for path in ["", "/", "%%%", "MAA=", &plain[1..], &"A".repeat(30_000)] {
        assert!(Request::from_path(path).is_err(), "{path}");
    }
    let shown = bench.openssl("ocsp -reqin request.der -req_text").text;
    assert!(shown.contains("OCSP Nonce"), "{shown}");
}

#[test]
fn hostile_requests_are_refused_with_the_reason() {
    let pki = Pki::new(P256);
    let ask =
        |ids: Vec<CertId>, nonce: Option<Vec<u8>>| Request::parse(&Request { ids, nonce }.to_der().unwrap());
    let id = pki.id(IdHash::Sha256);
    assert_eq!(ask(vec![], None), Err(RequestError::Count(0)));
    assert_eq!(ask(vec![id.clone(); 65], None), Err(RequestError::Count(65)));
    assert!(ask(vec![id.clone(); 64], Some(vec![1; 128])).is_ok());
    assert_eq!(ask(vec![id.clone()], Some(vec![])), Err(RequestError::Nonce));
    assert_eq!(
        ask(vec![id.clone()], Some(vec![1; 129])),
        Err(RequestError::Nonce)
    );
    assert_eq!(Request::parse(&[0x30; 9000]), Err(RequestError::TooLong));
    let sound = Request {
        ids: vec![id],
        nonce: Some(vec![1; 16]),
    };
    let sound = sound.to_der().unwrap();
    for length in 0..sound.len() {
        assert!(Request::parse(&sound[..length]).is_err(), "{length} bytes");
    }
    for bit in 0..sound.len() * 8 {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = Request::parse(&flipped);
    }
    let bench = pki.bench();
    for refusal in [
        Refusal::MalformedRequest,
        Refusal::TryLater,
        Refusal::Unauthorized,
    ] {
        bench.write("response.der", &refusal.to_der());
        let said = bench.openssl("ocsp -respin response.der -noverify -text");
        assert!(
            said.text.to_lowercase().contains("responder error"),
            "{}",
            said.text
        );
        let read = Response::parse(&refusal.to_der()).err();
        assert_eq!(read, Some(VerifyError::Refused(Some(refusal))));
    }
}

#[test]
fn a_response_holds_for_what_it_says_and_nothing_else() {
    let pki = Pki::new(P256);
    let id = pki.id(IdHash::Sha256);
    let response = pki.respond(&id, REVOKED, Some(&[1; 16]));
    let verify = |response: &[u8], id: &CertId, nonce: &[u8], at| {
        Response::parse(response)?.verify(&pki.root.certificate, id, Some(nonce), at)
    };
    assert_eq!(verify(&response, &id, &[1; 16], THIS), Ok(REVOKED));
    assert_eq!(verify(&response, &id, &[2; 16], THIS), Err(VerifyError::Nonce));
    let late = UnixMillis(NEXT.0 + 1000);
    assert_eq!(
        verify(&response, &id, &[1; 16], late),
        Err(VerifyError::NotCurrent)
    );
    let early = UnixMillis(THIS.0 - 1000);
    assert_eq!(
        verify(&response, &id, &[1; 16], early),
        Err(VerifyError::NotCurrent)
    );
    let other = CertId::new(pki.responder.issuer(), &[5; 16], IdHash::Sha256);
    assert_eq!(
        verify(&response, &other, &[1; 16], THIS),
        Err(VerifyError::OtherCertificate)
    );
    for bit in 0..response.len() * 8 {
        let mut flipped = response.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(status) = verify(&flipped, &id, &[1; 16], THIS) {
            assert_eq!(status, REVOKED, "bit {bit}");
        }
    }
    let foreign = Named::new(&Holder::root(Algorithm::EcdsaP384Sha384).certificate).unwrap();
    let foreign = CertId::new(&foreign, &[5; 16], IdHash::Sha256);
    let single = |status, next_update| Single {
        id: &foreign,
        status,
        this_update: THIS,
        next_update,
    };
    let refused = |single| pki.responder.prepare(&[single], THIS, None).unwrap_err();
    assert_eq!(refused(single(Status::Good, None)), PrepareError::OtherIssuer);
    assert_eq!(
        refused(single(Status::Unknown, Some(THIS))),
        PrepareError::Updates
    );
    assert_eq!(
        pki.responder.prepare(&[], THIS, None).unwrap_err(),
        PrepareError::Nothing
    );
    let expired = pki
        .responder
        .prepare(&[single(Status::Unknown, None)], UnixMillis(0), None);
    assert_eq!(expired.unwrap_err(), PrepareError::NotValidThen);
}
