//! The native protocol: encoding, proving and reading one request and one reply.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use protocol::frame::{self, FrameReader};
use protocol::ids::Sequence;
use protocol::message::{self, Answer, ClientFrame, Inputs, ItemOutcome, Request, ServerFrame, Sign};
use protocol::session::{Context, SessionKey};

fn key() -> SessionKey {
    let context = Context {
        app: "demo-app",
        client_nonce: &[1; 32],
        server_nonce: &[2; 32],
        certificate_hash: &[3; 32],
        exporter: None,
    };
    SessionKey::derive(&[4; 32], &context)
}

fn request_frame(key: &SessionKey) -> Vec<u8> {
    let digest = [5; 32];
    let sign = Sign {
        request: 1,
        app: "demo-app",
        credential: "demo-p256",
        algorithm: 1,
        key: "0123456789abcdef0123456789abcdef",
        inputs: Inputs([&digest[..]].into_iter().collect()),
        deadline_ms: None,
        format: None,
        user_id: None,
        seal: None,
        document: None,
        agent: None,
    };
    let mut body = Vec::with_capacity(256);
    Request::Sign(sign).encode(&mut body);
    let mac = key.seal(&body);
    let mut out = Vec::with_capacity(256);
    frame::append(&mut out, |out| message::encode_sealed(out, &body, &mac));
    out
}

fn frames(c: &mut Criterion) {
    let key = key();
    let wire = request_frame(&key);
    c.bench_function("frame/request: encode and seal", |b| {
        b.iter(|| black_box(request_frame(&key)));
    });
    c.bench_function("frame/request: read, check MAC, decode", |b| {
        b.iter(|| {
            let mut reader = FrameReader::default();
            reader.extend(&wire);
            let payload = reader.next_frame(1 << 18).expect("sound").expect("whole");
            let ClientFrame::Sealed { body, mac } = ClientFrame::decode(payload).expect("sound") else {
                unreachable!("a sealed frame was written")
            };
            key.open(body, mac).expect("proved");
            black_box(Request::decode(body).expect("sound"));
        });
    });
    let answer = Ok(Answer::Items(vec![ItemOutcome::Done {
        signature: vec![7; 71],
        sequence: Sequence(1),
    }]));
    let mut out = Vec::with_capacity(256);
    c.bench_function("frame/reply: encode", |b| {
        b.iter(|| {
            out.clear();
            message::encode_reply(&mut out, 1, black_box(&answer));
        });
    });
    c.bench_function("frame/reply: decode", |b| {
        b.iter(|| black_box(ServerFrame::decode(&out).expect("sound")));
    });
}

criterion_group!(benches, frames);
criterion_main!(benches);
