//! Peers that are silent or slow: each is shown the door in its time, and nobody else notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::client::{Client, Profile};
use protocol::error_code::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::{Http1, Native, Post, dial_tls, framed, soon};
use crate::support::{BOTH, Engine, Setup, block_on, request, sign_one, wait_until};

const TOO_SLOW: u64 = Code::PeerTooSlow as u64;

/// A peer that never says anything on its connection.
async fn silent(profile: &Profile) {
    let native = Native::silent(profile).await;
    assert_eq!(native.close_code().await, TOO_SLOW);
}

/// A peer that stops in the middle of its first frame.
async fn half_a_hello(profile: &Profile) {
    let mut native = Native::silent(profile).await;
    let hello = framed(&native.hello());
    native.send.write_all(&hello[..20]).await.unwrap();
    assert_eq!(native.close_code().await, TOO_SLOW);
}

/// A peer that says hello and never proves anything.
async fn no_proof(profile: &Profile) {
    let mut native = Native::silent(profile).await;
    let hello = framed(&native.hello());
    native.exchange(&hello).await;
    assert_eq!(native.close_code().await, TOO_SLOW);
}

/// A proved peer that stops in the middle of a frame, after an honest request.
async fn half_a_frame(profile: &Profile) {
    let mut native = Native::proved(profile).await;
    let frame = native.sign_frame(1, "half", "demo-p256", "text");
    native.exchange(&frame).await;
    native.send.write_all(&frame[..frame.len() / 2]).await.unwrap();
    let (said, code) = native.goodbye().await;
    assert_eq!(said.unwrap().code, Code::PeerTooSlow);
    assert_eq!(code, TOO_SLOW);
}

/// A proved peer that sends a byte now and then, as if that were progress.
async fn a_frame_in_drops(profile: &Profile) {
    let mut native = Native::proved(profile).await;
    let frame = native.sign_frame(1, "drops", "demo-p256", "text");
    let mut turns = tokio::time::interval(Duration::from_millis(200));
    for byte in frame {
        turns.tick().await;
        if native.send.write_all(&[byte]).await.is_err() {
            break;
        }
    }
    assert_eq!(native.close_code().await, TOO_SLOW);
}

/// A TCP peer that never begins TLS.
async fn no_tls(profile: &Profile) {
    let mut tcp = TcpStream::connect(profile.address).await.unwrap();
    tcp.write_all(&[22, 3]).await.unwrap();
    let mut rest = Vec::new();
    let _ = soon("the end of a TCP connection", tcp.read_to_end(&mut rest)).await;
}

/// An HTTPS peer that never sends the body it announced.
async fn no_body(profile: &Profile) {
    let mut http = Http1::dial(profile).await;
    let bytes = Post::new(profile, "no-body", "demo-p256", "text").bytes();
    http.send(&bytes[..bytes.len() - 10]).await.unwrap();
    assert_eq!(http.hear().await.problem(), (408, "peer_too_slow".into()));
}

/// An HTTPS peer that shakes hands and then says nothing, or half of what would say which HTTP it speaks.
async fn no_request(profile: &Profile, alpn: &[u8], begins: &[u8]) {
    let mut tls = dial_tls(profile, alpn).await;
    tls.write_all(begins).await.unwrap();
    let mut rest = Vec::new();
    let _ = soon("the end of an HTTPS connection", tls.read_to_end(&mut rest)).await;
}

/// An HTTPS peer that sends a header line now and then, as if that were progress.
async fn a_head_in_drops(profile: &Profile) {
    let mut http = Http1::dial(profile).await;
    http.send(b"GET /v1/usage HTTP/1.1\r\n").await.unwrap();
    let mut turns = tokio::time::interval(Duration::from_millis(200));
    for _ in 0..100 {
        turns.tick().await;
        if http.send(b"a: b\r\n").await.is_err() {
            break;
        }
    }
    http.closed().await;
}

/// An HTTP/2 peer that asks once, and then does not even answer a ping.
async fn no_pong(profile: &Profile) {
    const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // HEADERS on stream 1, END_STREAM and END_HEADERS: GET / over https by indices of the static table (RFC 7541 A).
    const GET: &[u8] = b"\0\0\x03\x01\x05\0\0\0\x01\x82\x84\x87";
    no_request(profile, b"h2", &[PREFACE_AND_SETTINGS, GET].concat()).await;
}

/// An honest client: every signature must come, however many peers are slow beside it.
async fn honest(client: &Client, name: &str, over: &AtomicBool) -> u64 {
    let mut signed = 0;
    while !over.load(Ordering::Relaxed) {
        let wanted = request(&format!("{name}-{signed}"), "text");
        sign_one(client, &wanted).await.unwrap();
        signed += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    signed
}

#[test]
fn slow_and_silent_peers_are_shown_the_door_and_disturb_nobody() {
    // With one core all of them share it.
    let engine = Setup::default()
        .set("cores", 1)
        .set("http_silence_ms_max", 3_000)
        .start();
    let profile = engine.profile();
    let over = AtomicBool::new(false);
    block_on(async {
        let (quic, https) = (engine.client(BOTH[0]).await, engine.client(BOTH[1]).await);
        let slow = async {
            tokio::join!(
                silent(&profile),
                half_a_hello(&profile),
                no_proof(&profile),
                half_a_frame(&profile),
                a_frame_in_drops(&profile),
                no_tls(&profile),
                no_body(&profile),
                no_request(&profile, b"http/1.1", b""),
                no_request(&profile, b"http/1.1", b"P"),
                no_request(&profile, b"h2", b""),
                no_request(&profile, b"h2", b"PRI * HTTP/2.0\r\n\r\nSM"),
                a_head_in_drops(&profile),
                no_pong(&profile),
            );
            over.store(true, Ordering::Relaxed);
        };
        let (one, other, ()) =
            tokio::join!(honest(&quic, "quic", &over), honest(&https, "https", &over), slow);
        assert!(one > 100 && other > 100, "{one} over QUIC, {other} over HTTPS");
    });
    nothing_is_in_flight(&engine);
    // Three before their proof, two in a frame, one in a body.
    let told = engine.metric("cinnabar_requests_refused_total{code=\"peer_too_slow\"}");
    assert_eq!(told, 6.0);
}

/// What is not answered would show here.
pub(super) fn nothing_is_in_flight(engine: &Engine) {
    wait_until("nothing in flight", || {
        engine.metric("cinnabar_requests_in_flight") == 0.0
    });
}
