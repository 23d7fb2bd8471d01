//! The main job: signatures over both transports, recorded once, replayed to whoever asks again.

use protocol::error_code::Code;
use protocol::ids::CredentialId;
use protocol::message::ItemOutcome;

use crate::support::{BOTH, Engine, block_on, checked, credential, key, request, sign_one};

#[test]
fn a_retry_brings_the_same_bytes_and_is_counted_once_on_either_transport() {
    let engine = Engine::start();
    block_on(async {
        for (first, second) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
            let (one, other) = (engine.client(first).await, engine.client(second).await);
            let info = credential(&one, "demo-p256").await;
            let wanted = request(&format!("{first:?}"), "text");
            let before = one.usage().await.unwrap().signatures;
            let signature = checked(&wanted, &info, &sign_one(&one, &wanted).await.unwrap());
            assert_eq!(
                checked(&wanted, &info, &sign_one(&other, &wanted).await.unwrap()),
                signature
            );
            assert_eq!(one.usage().await.unwrap().signatures, before + 1);
            let looked_up = other.look_up(&wanted.key).await.unwrap();
            assert!(matches!(&looked_up[..], [ItemOutcome::Done { signature: s, .. }] if *s == signature));
        }
    });
}

#[test]
fn a_key_used_for_another_request_is_refused_and_an_unused_one_is_not_found() {
    let engine = Engine::start();
    block_on(async {
        for transport in BOTH {
            let client = engine.client(transport).await;
            let name = format!("{transport:?}");
            sign_one(&client, &request(&name, "one")).await.unwrap();
            let refusal = sign_one(&client, &request(&name, "another")).await.unwrap_err();
            assert_eq!(refusal.code, Code::IdempotencyKeyReused);
            assert_eq!(
                client.look_up(&key("never-used")).await.unwrap_err().code,
                Code::NotFound
            );
        }
    });
}

#[test]
fn credentials_are_listed_page_by_page_and_found_one_by_one() {
    let engine = Engine::start();
    // More than one answer holds.
    let lines: Vec<String> = (0..300).map(|number| format!("many-{number:03}")).collect();
    for id in &lines {
        engine.operate(&format!("key create --tenant demo --kind ed25519 {id}"));
    }
    block_on(async {
        for transport in BOTH {
            let client = engine.client(transport).await;
            let all: Vec<String> = client
                .credentials()
                .await
                .unwrap()
                .into_iter()
                .map(|info| info.id)
                .collect();
            assert_eq!(all.len(), 300 + 4);
            assert!(
                all.is_sorted() && lines.iter().all(|id| all.contains(id)),
                "{transport:?}"
            );
            let id = CredentialId::new("many-299").unwrap();
            assert_eq!(client.credential(&id).await.unwrap().unwrap().id, "many-299");
            let none = CredentialId::new("many-300").unwrap();
            assert!(client.credential(&none).await.unwrap().is_none());
        }
    });
}
