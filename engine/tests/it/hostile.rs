//! Clients that lie about who they are, what they may use, or when they asked. What they hear must not tell them more
//! than they know, and what they repeat must not count twice.

mod many;
mod oversized;
mod slow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::client::Profile;
use protocol::clock::{self, UnixMillis};
use protocol::error_code::Code;
use protocol::message::{ItemOutcome, ServerFrame};

use crate::raw::{Heard, Http1, Native, Post, dial_tls};
use crate::support::{BOTH, Engine, block_on, checked, credential, request, sign_one};

/// Runs an operator's command that must succeed.
fn operate(engine: &Engine, line: &str) -> String {
    engine.cli(&line.split_whitespace().collect::<Vec<_>>()).ok()
}

/// Makes another tenant with an app and a credential; the app's profile.
fn another_tenant(engine: &Engine, credential: &str) -> Profile {
    operate(engine, "tenant create other");
    operate(
        engine,
        &format!("key create --tenant other --kind p256 {credential}"),
    );
    let known = format!("--listen {} --admin {}", engine.listen, engine.admin);
    operate(
        engine,
        &format!("{known} app create --tenant other other-app --profile-out other.toml"),
    );
    Profile::read(&engine.folder.as_ref().unwrap().path().join("other.toml")).unwrap()
}

#[test]
fn another_tenants_credential_cannot_be_told_from_one_that_does_not_exist() {
    let engine = Engine::start();
    let theirs = another_tenant(&engine, "seal-real");
    let ours = engine.profile();
    block_on(async {
        let mut http = Http1::dial(&ours).await;
        let real = http
            .exchange(&Post::new(&ours, "k", "seal-real", "text").bytes())
            .await;
        let none = http
            .exchange(&Post::new(&ours, "k", "seal-none", "text").bytes())
            .await;
        assert_eq!(none.problem(), (404, "unknown_credential".into()));
        assert_eq!(real, none);

        let mut native = Native::proved(&ours).await;
        let real = native
            .exchange(&native.sign_frame(1, "k", "seal-real", "text"))
            .await;
        let none = native
            .exchange(&native.sign_frame(1, "k", "seal-none", "text"))
            .await;
        assert_eq!(real, none);

        // It is there: its own tenant signs with it, and under the same idempotency key, which is another key there.
        let mut owner = Http1::dial(&theirs).await;
        let signed = owner
            .exchange(&Post::new(&theirs, "k", "seal-real", "text").bytes())
            .await;
        assert_eq!(signed.status, 200);
        let ours = http
            .exchange(&Post::new(&ours, "k", "demo-p256", "other text").bytes())
            .await;
        assert_ne!(ours.signature(), signed.signature());
    });
}

/// The same profile with a secret that is not the app's.
fn with_another_secret(profile: &Profile) -> Profile {
    Profile {
        secret: STANDARD.encode([7; 32]),
        ..profile.clone()
    }
}

#[test]
fn a_wrong_secret_cannot_be_told_from_an_app_that_does_not_exist() {
    let engine = Engine::start();
    let wrong = with_another_secret(&engine.profile());
    let nobody = Profile {
        app_id: "nobody".parse().unwrap(),
        ..wrong.clone()
    };
    block_on(async {
        let mut heard = Vec::new();
        for profile in [&wrong, &nobody] {
            let mut http = Http1::dial(profile).await;
            let answer = http
                .exchange(&Post::new(profile, "k", "demo-p256", "text").bytes())
                .await;
            assert_eq!(answer.problem(), (401, "unauthenticated".into()));
            let mut native = Native::silent(profile).await;
            native.prove(profile).await;
            let (said, code) = native.goodbye().await;
            assert_eq!(code, u64::from(Code::Unauthenticated.wire()));
            heard.push((answer, said));
        }
        assert_eq!(heard[0], heard[1]);
    });
}

#[test]
fn a_revoked_app_is_refused_on_open_and_on_new_connections_until_it_is_enabled_again() {
    let engine = Engine::start();
    let profile = engine.profile();
    let app = profile.app_id.to_string();
    block_on(async {
        for transport in BOTH {
            let open = engine.client(transport).await;
            let wanted = request(&format!("before-{transport:?}"), "text");
            let signature = sign_one(&open, &wanted).await.unwrap();

            operate(&engine, &format!("app revoke {app}"));
            let refused = |code| assert_eq!(code, Code::AppRevoked);
            refused(sign_one(&open, &request("later", "text")).await.unwrap_err().code);
            // Nor is what it was given before.
            refused(sign_one(&open, &wanted).await.unwrap_err().code);
            refused(open.look_up(&wanted.key).await.unwrap_err().code);
            refused(open.usage().await.unwrap_err().code);
            refused(open.credentials().await.unwrap_err().code);
            let mut native = Native::silent(&profile).await;
            native.prove(&profile).await;
            assert_eq!(native.goodbye().await.1, u64::from(Code::AppRevoked.wire()));
            // Whoever cannot prove to be that app does not hear that it is revoked.
            let stranger = with_another_secret(&profile);
            let post = Post::new(&stranger, "k", "demo-p256", "text").bytes();
            let answer = Http1::dial(&stranger).await.exchange(&post).await;
            assert_eq!(answer.problem(), (401, "unauthenticated".into()));

            operate(&engine, &format!("app enable {app}"));
            assert_eq!(
                sign_one(&engine.client(transport).await, &wanted).await.unwrap(),
                signature
            );
        }
    });
}

#[test]
fn a_disabled_credential_is_refused_and_says_so() {
    let engine = Engine::start();
    operate(&engine, "key disable --tenant demo demo-p256");
    block_on(async {
        for transport in BOTH {
            let client = engine.client(transport).await;
            let refusal = sign_one(&client, &request("k", "text")).await.unwrap_err();
            assert_eq!(refusal.code, Code::CredentialDisabled);
            assert!(!credential(&client, "demo-p256").await.active);
        }
    });
}

#[test]
fn created_may_be_a_minute_off_and_not_more_in_either_direction() {
    let engine = Engine::start();
    let profile = engine.profile();
    let now = clock::wall().0;
    block_on(async {
        let mut http = Http1::dial(&profile).await;
        for (at, status) in [(now - 50_000, 200), (now + 50_000, 200)] {
            let mut post = Post::new(&profile, "k", "demo-p256", "text");
            post.created = UnixMillis(at);
            assert_eq!(http.exchange(&post.bytes()).await.status, status);
        }
        for at in [now - 90_000, now + 90_000] {
            let mut post = Post::new(&profile, "k", "demo-p256", "text");
            post.created = UnixMillis(at);
            let heard = http.exchange(&post.bytes()).await;
            assert_eq!(heard.problem(), (401, "stale_request".into()));
        }
        // One second off the tolerance, with the wrong key: the wrong key is what counts.
        let stranger = with_another_secret(&profile);
        let mut post = Post::new(&stranger, "k", "demo-p256", "text");
        post.created = UnixMillis(now - 90_000);
        let heard = http.exchange(&post.bytes()).await;
        assert_eq!(heard.problem(), (401, "unauthenticated".into()));
    });
}

#[test]
fn a_replayed_https_request_brings_the_same_bytes_and_is_counted_once() {
    let engine = Engine::start();
    let profile = engine.profile();
    block_on(async {
        let client = engine.client(BOTH[1]).await;
        let before = client.usage().await.unwrap().signatures;
        let bytes = Post::new(&profile, "order-1", "demo-p256", "text").bytes();
        let mut one = Http1::dial(&profile).await;
        let mut other = Http1::dial(&profile).await;
        // Two of them at once, then one after the other.
        one.send(&bytes).await.unwrap();
        other.send(&bytes).await.unwrap();
        let heard = [
            one.hear().await,
            other.hear().await,
            one.exchange(&bytes).await,
            other.exchange(&bytes).await,
        ];
        let info = credential(&client, "demo-p256").await;
        let outcome = ItemOutcome::Done {
            signature: heard[0].signature(),
            sequence: protocol::ids::Sequence(1),
        };
        checked(&request("order-1", "text"), &info, &outcome);
        assert!(heard.iter().all(|answer| *answer == heard[0]), "{heard:#?}");
        assert_eq!(client.usage().await.unwrap().signatures, before + 1);
    });
}

#[test]
fn a_replayed_frame_brings_the_same_bytes_is_counted_once_and_is_worth_nothing_elsewhere() {
    let engine = Engine::start();
    let profile = engine.profile();
    block_on(async {
        let client = engine.client(BOTH[0]).await;
        let before = client.usage().await.unwrap().signatures;
        let mut session = Native::proved(&profile).await;
        let frame = session.sign_frame(1, "order-1", "demo-p256", "text");
        let first = session.exchange(&[&frame[..], &frame[..]].concat()).await;
        assert!(matches!(
            ServerFrame::decode(&first).unwrap(),
            ServerFrame::Reply(reply) if reply.result.is_ok()
        ));
        assert_eq!(session.exchange(&[]).await, first, "the second of two at once");
        assert_eq!(session.exchange(&frame).await, first, "and a third, later");
        assert_eq!(client.usage().await.unwrap().signatures, before + 1);

        let mut thief = Native::proved(&profile).await;
        thief.send.write_all(&frame).await.unwrap();
        let (said, code) = thief.goodbye().await;
        assert_eq!(said.unwrap().code, Code::Unauthenticated);
        assert_eq!(code, u64::from(Code::Unauthenticated.wire()));
        assert_eq!(
            session.exchange(&frame).await,
            first,
            "the session it was taken from goes on"
        );
    });
}

/// Sends a signed request over HTTP/2.
async fn over_http2(post: &Post<'_>) -> (http::Version, Heard) {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let tls = dial_tls(post.profile, b"h2").await;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls));
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = http::Request::post(format!("https://{}{}", post.authority(), crate::raw::PATH));
    for (name, value) in post.fields() {
        request = request.header(name, value);
    }
    let body = Full::new(bytes::Bytes::from(post.body.clone()));
    let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let heard = Heard {
        status: head.status.as_u16(),
        head: Vec::new(),
        body: body.collect().await.unwrap().to_bytes().to_vec(),
    };
    connection.abort();
    (head.version, heard)
}

#[test]
fn http_2_and_http_1_are_one_service() {
    let engine = Engine::start();
    let profile = engine.profile();
    block_on(async {
        let post = Post::new(&profile, "order-1", "demo-p256", "text");
        let (version, two) = over_http2(&post).await;
        assert_eq!((version, two.status), (http::Version::HTTP_2, 200));
        let one = Http1::dial(&profile).await.exchange(&post.bytes()).await;
        assert_eq!(one.body, two.body);
        let (_, refused) = over_http2(&Post::new(&profile, "order-2", "seal-none", "text")).await;
        assert_eq!(refused.problem(), (404, "unknown_credential".into()));
    });
}
