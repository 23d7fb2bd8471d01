//! Too many: connections, streams, datagrams that mean nothing. What is held for them is bounded, and others are served.

use std::net::UdpSocket;

use protocol::client::{Client, Transport};
use protocol::error_code::Code;
use protocol::frame;
use quinn::{RecvStream, SendStream};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::slow::nothing_is_in_flight;
use crate::raw::{Native, soon};
use crate::support::{BOTH, Engine, Setup, block_on, request, sign_one, wait_until};

/// Resident memory of the engine, in MiB.
fn resident_mib(engine: &Engine) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", engine.process.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

const STREAMS: usize = 64;
const CONNECTIONS: usize = 160;
/// What 10,240 idle streams on 160 connections may cost. A few kilobytes each are needed; a receive window each, which
/// would be 5 GiB, must not be held.
const IDLE_MIB_MAX: u64 = 256;

/// A session with as many streams as it may have, each used once and then left alone.
async fn idle_session(engine: &Engine, number: usize) -> (Native, Vec<(SendStream, RecvStream)>) {
    let mut session = Native::proved(&engine.profile()).await;
    let frame = session.sign_frame(1, &format!("idle-{number}"), "demo-p256", "text");
    session.exchange(&frame).await;
    let mut streams = Vec::new();
    for _ in 1..STREAMS {
        let (mut send, mut recv) = session.connection.open_bi().await.unwrap();
        // The same call again: found by its key, signed only once.
        send.write_all(&frame).await.unwrap();
        let mut header = [0; frame::HEADER_BYTES];
        soon("a reply", recv.read_exact(&mut header)).await.unwrap();
        let mut reply = vec![0; u32::from_be_bytes(header) as usize];
        soon("a reply", recv.read_exact(&mut reply)).await.unwrap();
        streams.push((send, recv));
    }
    (session, streams)
}

#[test]
fn ten_thousand_idle_streams_cost_little_and_others_are_served() {
    let engine = Engine::start();
    let before = resident_mib(&engine);
    block_on(async {
        let client = engine.client(BOTH[0]).await;
        let mut idle = Vec::new();
        for number in 0..CONNECTIONS {
            idle.push(idle_session(&engine, number).await);
            sign_one(&client, &request(&format!("meanwhile-{number}"), "text"))
                .await
                .unwrap();
        }
        let streams: usize = idle.iter().map(|(_, streams)| streams.len() + 1).sum();
        assert!(streams > 10_000, "{streams}");
        let used = resident_mib(&engine) - before;
        println!("{streams} idle streams: {used} MiB");
        assert!(used < IDLE_MIB_MAX, "{used} MiB");
        // One more than the limit is not opened; the transport makes the client wait.
        let (session, _) = &idle[0];
        let one_more = session.connection.open_bi();
        let one_more = tokio::time::timeout(std::time::Duration::from_millis(100), one_more).await;
        assert!(one_more.is_err(), "a 65th stream was opened");

        // They were alive all the time: streams still answer, and new clients are served.
        let (session, _) = &mut idle[CONNECTIONS - 1];
        let frame = session.sign_frame(2, "again", "demo-p256", "text");
        session.exchange(&frame).await;
        for transport in BOTH {
            let client = engine.client(transport).await;
            sign_one(&client, &request(&format!("new-{transport:?}"), "text"))
                .await
                .unwrap();
        }
    });
    nothing_is_in_flight(&engine);
}

#[test]
fn datagrams_that_mean_nothing_are_dropped_and_others_are_served() {
    let engine = Engine::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    block_on(async {
        let client = engine.client(BOTH[0]).await;
        sign_one(&client, &request("before", "text")).await.unwrap();
        let before = resident_mib(&engine);
        let mut bytes = vec![0; 1400];
        for number in 0..20_000_usize {
            // Lengths from nothing to a full datagram; short headers, long ones, Initials of version 1 and of none.
            let datagram = &mut bytes[..number * 7 % 1401];
            aws_lc_rs::rand::fill(datagram).unwrap();
            let first = [0x40, 0xc0, 0x80, 0x00][number % 4];
            for (byte, value) in datagram
                .iter_mut()
                .zip([first, 0, 0, 0, (number % 8 / 4) as u8, 8])
            {
                *byte = value;
            }
            socket.send_to(datagram, engine.listen).unwrap();
            if number % 100 == 0 {
                sign_one(&client, &request(&format!("meanwhile-{number}"), "text"))
                    .await
                    .unwrap();
            }
        }
        let grown = resident_mib(&engine).saturating_sub(before);
        assert!(grown < 64, "{grown} MiB");
        let late = engine.client(BOTH[0]).await;
        sign_one(&late, &request("after", "text")).await.unwrap();
    });
}

/// Connects over QUIC; the session must come to life.
async fn connected(engine: &Engine) -> Client {
    engine.client(Transport::Quic).await
}

#[test]
fn connections_above_the_limit_of_an_address_are_refused_and_places_come_back() {
    let engine = Setup::default()
        .set("cores", 1)
        .set("connections_per_address_max", 4)
        .start();
    let profile = engine.profile();
    block_on(async {
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(connected(&engine).await);
        }
        let refusal = Client::connect(&profile, Transport::Quic, 1).await.unwrap_err();
        assert_eq!(refusal.code, Code::Connection);
        assert!(refusal.message.contains("refused"), "{refusal}");
        let mut tcp = TcpStream::connect(profile.address).await.unwrap();
        let mut rest = Vec::new();
        // Closed without a word: before TLS there are none.
        let _ = soon("the end of a connection", tcp.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"");
        for (number, client) in open.iter().enumerate() {
            sign_one(client, &request(&format!("open-{number}"), "text"))
                .await
                .unwrap();
        }
        assert!(engine.metric("cinnabar_requests_refused_total{code=\"too_many_connections\"}") >= 2.0);

        // One leaves, one may come, over either transport.
        for transport in BOTH {
            open.pop().unwrap().close().await;
            let client = loop {
                // The server hears of a goodbye a moment later than the client says it.
                match Client::connect(&profile, transport, 1).await {
                    Ok(client) => break client,
                    Err(refusal) => assert_eq!(refusal.code, Code::Connection),
                }
            };
            sign_one(&client, &request(&format!("came-{transport:?}"), "text"))
                .await
                .unwrap();
            open.push(client);
        }
    });
    wait_until("the engine is ready", || engine.admin_get("/readyz").0 == 200);
}
