//! Too much of anything at once: frames, bodies and heads above their limits.

use protocol::error_code::Code;

use super::slow::nothing_is_in_flight;
use crate::raw::{Http1, Native, Post};
use crate::support::{BOTH, Engine, block_on, request, sign_one};

const TEN_MIB: usize = 10 << 20;

#[test]
fn a_frame_of_10_mib_ends_its_connection_and_no_other() {
    let engine = Engine::start();
    let profile = engine.profile();
    block_on(async {
        let mut other = Native::proved(&profile).await;
        let mut native = Native::proved(&profile).await;
        let honest = native.sign_frame(1, "before", "demo-p256", "text");
        native.exchange(&honest).await;
        native
            .send
            .write_all(&(TEN_MIB as u32).to_be_bytes())
            .await
            .unwrap();
        // All of it is offered; the connection is closed long before all of it is taken.
        assert!(native.send.write_all(&vec![0; TEN_MIB]).await.is_err());
        let (_, code) = native.goodbye().await;
        assert_eq!(code, u64::from(Code::TooLarge.wire()));
        let frame = other.sign_frame(1, "other", "demo-p256", "text");
        other.exchange(&frame).await;
    });
    nothing_is_in_flight(&engine);
}

/// A request whose body is announced, or sent in chunks, and is too large.
fn with_body(authority: &str, framing: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /v1/signatures HTTP/1.1\r\nhost: {authority}\r\n{framing}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn a_body_above_its_limit_is_refused_however_it_is_framed() {
    let engine = Engine::start();
    let profile = engine.profile();
    let authority = Post::new(&profile, "k", "demo-p256", "text").authority();
    let two_mib = vec![b'a'; 2 << 20];
    let chunked = [
        format!("{:x}\r\n", two_mib.len()).as_bytes(),
        &two_mib,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    block_on(async {
        for bytes in [
            with_body(
                &authority,
                &format!("content-length: {}", two_mib.len()),
                &two_mib,
            ),
            with_body(&authority, "transfer-encoding: chunked", &chunked),
            // Announced and never sent: nobody has to wait for it.
            with_body(&authority, "content-length: 99999999999", b""),
        ] {
            let mut http = Http1::dial(&profile).await;
            // The answer may come, and the connection close, before all of it is sent.
            let _ = http.send(&bytes).await;
            assert_eq!(http.hear().await.problem(), (413, "too_large".into()));
        }
        let client = engine.client(BOTH[1]).await;
        sign_one(&client, &request("after", "text")).await.unwrap();
    });
    nothing_is_in_flight(&engine);
}

#[test]
fn a_head_above_its_limit_is_refused_and_its_connection_closed() {
    let engine = Engine::start();
    let profile = engine.profile();
    block_on(async {
        for head in [
            format!(
                "GET /v1/usage HTTP/1.1\r\nhost: x\r\nfill: {}\r\n\r\n",
                "a".repeat(1 << 20)
            ),
            format!(
                "GET /v1/usage HTTP/1.1\r\nhost: x\r\n{}\r\n",
                "a: b\r\n".repeat(1000)
            ),
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20)),
        ] {
            let mut http = Http1::dial(&profile).await;
            let _ = http.send(head.as_bytes()).await;
            let status = http.hear().await.status;
            assert!([414, 431].contains(&status), "{status}");
            http.closed().await;
        }
        let client = engine.client(BOTH[1]).await;
        sign_one(&client, &request("after", "text")).await.unwrap();
    });
}
