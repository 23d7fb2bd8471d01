//! What one tenant hears of another: nothing. Each place of the HTTPS interface that can name something is found in its
//! OpenAPI document, and a name of another tenant must bring the same answer, byte for byte, as a name of nobody. A new
//! endpoint, parameter or field without a case fails here.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::algorithm::Hash;
use protocol::client::{Client, Profile, Transport};
use protocol::clock;
use protocol::http_proof::{self, Parts, SignKey};
use serde_json::{Map, Value, json};

use crate::raw::{Heard, Http1};
use crate::strangers::workspace;
use crate::support::{Engine, block_on, request, sign_one};

/// Something that belongs to a tenant and has a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thing {
    Credential,
    /// A credential after which a list goes on.
    Cursor,
    Call,
    /// A call that is looked up.
    Recorded,
    /// A certificate, by its serial number.
    Certificate,
    /// A subject whose identity is checked.
    Subject,
    /// A seal.
    Seal,
    /// A seal after which a list goes on.
    SealCursor,
    /// An operation on documents.
    Operation,
    /// A subject after which a list goes on, or a name that each tenant can give to its own.
    SubjectCursor,
}

impl Thing {
    /// What it is called at tenant acme.
    const fn theirs(self) -> &'static str {
        match self {
            Self::Credential | Self::Cursor => "seal",
            Self::Call => "theirs-1",
            Self::Recorded => "theirs-2",
            Self::Certificate => THEIR_SERIAL,
            Self::Operation => THEIR_OPERATION,
            Self::Subject | Self::SubjectCursor => "theirs-3",
            Self::Seal | Self::SealCursor => "their-seal",
        }
    }

    /// A name of the same length that nobody has.
    const fn nobodys(self) -> &'static str {
        match self {
            Self::Credential | Self::Cursor => "sea1",
            Self::Call => "nobody-1",
            Self::Recorded => "nobody-2",
            Self::Certificate => "40000000000000000000000000000000",
            Self::Operation => NOBODYS_OPERATION,
            Self::Subject | Self::SubjectCursor => "nobody-3",
            Self::Seal | Self::SealCursor => "their-sea1",
        }
    }
}

/// What can be put in a place.
enum Place {
    /// The name of such a thing; and what tenant demo puts there when the place is not looked at.
    Names(Thing, Option<&'static str>),
    /// Nothing that belongs to anybody; and a value, if one has to be given.
    Plain(Option<&'static str>),
}

use Place::{Names, Plain};

/// Stands for the serial number of acme's certificate, which is another one in each engine.
const THEIR_SERIAL: &str = "THEIR-SERIAL";
/// Stands for the name of acme's job, which is another one in each engine.
const THEIR_OPERATION: &str = "THEIR-OPERATION";
const NOBODYS_OPERATION: &str = "0000000000000001";
/// Stands for the month in which the test runs.
const THIS_MONTH: &str = "YYYY-MM";

/// Every operation, and every place in it: a parameter, or a field of the body.
const CASES: &[(&str, &[(&str, Place)])] = &[
    (
        "post /v1/signatures",
        &[
            ("header Idempotency-Key", Names(Thing::Call, Some("ours-1"))),
            ("body credential", Names(Thing::Credential, Some("demo-rsa2048"))),
            ("body algorithm", Plain(None)),
            ("body format", Plain(None)),
            (
                "body digest",
                Plain(Some("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=")),
            ),
            ("body digests", Plain(None)),
            ("body user_id", Plain(None)),
            ("body deadline_ms", Plain(None)),
            ("body seal", Names(Thing::Seal, None)),
            // Both mean nothing without a seal of the app's own, whose grants say which there are.
            ("body document", Plain(None)),
            ("body agent", Plain(None)),
        ],
    ),
    (
        "get /v1/signatures/{idempotency_key}",
        &[
            ("path idempotency_key", Names(Thing::Recorded, Some("ours-1"))),
            ("query proof", Plain(None)),
        ],
    ),
    (
        "get /v1/credentials",
        &[
            ("query after", Names(Thing::Cursor, None)),
            ("query id", Names(Thing::Credential, None)),
        ],
    ),
    (
        "get /v1/seals",
        &[("query after", Names(Thing::SealCursor, None))],
    ),
    (
        "get /v1/seals/{id}",
        &[("path id", Names(Thing::Seal, Some("demo-seal")))],
    ),
    (
        "get /v1/grants",
        &[("query after", Names(Thing::SealCursor, None))],
    ),
    ("get /v1/usage", &[]),
    ("get /v1/packages", &[]),
    (
        "get /v1/statements/{month}",
        &[("path month", Plain(Some(THIS_MONTH)))],
    ),
    ("get /v1/sla/{month}", &[("path month", Plain(Some(THIS_MONTH)))]),
    ("get /v1/notices", &[]),
    (
        "get /v1/certificates",
        &[("query after", Names(Thing::Certificate, None))],
    ),
    (
        "get /v1/certificates/{serial}",
        &[(
            "path serial",
            Names(Thing::Certificate, Some("40000000000000000000000000000001")),
        )],
    ),
    (
        "post /v1/certificates",
        &[
            ("header Idempotency-Key", Plain(Some("issue-1"))),
            ("body profile", Plain(Some("enterprise-signing"))),
            ("body subject", Names(Thing::Subject, Some("demo-enterprise"))),
            ("body request", Plain(None)),
            ("body credential", Names(Thing::Credential, Some("demo-p256"))),
            ("body kind", Plain(None)),
        ],
    ),
    (
        "post /v1/certificates/{serial}/renewal",
        &[
            ("header Idempotency-Key", Plain(Some("renew-1"))),
            (
                "path serial",
                Names(Thing::Certificate, Some("40000000000000000000000000000001")),
            ),
            ("body new_key", Plain(Some("false"))),
        ],
    ),
    (
        "get /v1/certificates/calls/{idempotency_key}",
        &[("path idempotency_key", Plain(Some("issue-9")))],
    ),
    (
        "post /v1/certificates/requests",
        &[
            ("body credential", Names(Thing::Credential, Some("demo-p256"))),
            ("body subject", Plain(None)),
        ],
    ),
    (
        "post /v1/certificates/imports",
        &[
            ("body credential", Names(Thing::Credential, Some("demo-p256"))),
            ("body chain", Plain(Some("nonsense"))),
            ("body root", Plain(None)),
        ],
    ),
    (
        "post /v1/certificates/{serial}/suspension",
        &[(
            "path serial",
            Names(Thing::Certificate, Some("40000000000000000000000000000001")),
        )],
    ),
    (
        "post /v1/certificates/{serial}/resumption",
        &[(
            "path serial",
            Names(Thing::Certificate, Some("40000000000000000000000000000001")),
        )],
    ),
    (
        "post /v1/certificates/{serial}/revocation",
        &[
            (
                "path serial",
                Names(Thing::Certificate, Some("40000000000000000000000000000001")),
            ),
            ("body reason", Plain(Some("superseded"))),
        ],
    ),
    (
        "get /v1/subjects",
        &[("query after", Names(Thing::SubjectCursor, None))],
    ),
    (
        "get /v1/subjects/{id}",
        &[("path id", Names(Thing::Subject, Some("demo-enterprise")))],
    ),
    (
        "post /v1/subjects/{id}/challenge",
        &[("path id", Names(Thing::Subject, Some("nobodys")))],
    ),
    (
        "post /v1/subjects/{id}/erasure",
        &[
            ("path id", Names(Thing::Subject, Some("nobodys"))),
            ("body order", Plain(Some("none"))),
        ],
    ),
    // The last of them: what demo makes here is its own, under the names of acme's.
    (
        "post /v1/subjects",
        &[
            ("body enterprise", Names(Thing::Subject, Some("demo-enterprise"))),
            ("body id", Names(Thing::SubjectCursor, Some("demo-enterprise"))),
            ("body kind", Plain(Some("agent"))),
            ("body name", Plain(Some("Example"))),
            ("body registration", Plain(Some("1"))),
            (
                "body evidence_sha256",
                Plain(Some(
                    "abababababababababababababababababababababababababababababababab",
                )),
            ),
        ],
    ),
    (
        "post /v1/documents/seal",
        &[
            ("header Idempotency-Key", Plain(Some("document-1"))),
            ("body order", Plain(Some("nonsense"))),
            ("body document", Plain(Some("nonsense"))),
        ],
    ),
    (
        "post /v1/documents/verify",
        &[
            ("body order", Plain(None)),
            ("body document", Plain(Some("nonsense"))),
        ],
    ),
    // Whose credentials its order names shows when documents are sealed: they are looked for at the app's own tenant.
    (
        "post /v1/documents/jobs",
        &[
            ("header Idempotency-Key", Plain(Some("job-1"))),
            ("body order", Plain(Some("nonsense"))),
            ("body documents", Plain(None)),
        ],
    ),
    (
        "get /v1/operations/{id}",
        &[("path id", Names(Thing::Operation, Some("0000000000000002")))],
    ),
    (
        "get /v1/operations/{id}/documents",
        &[
            ("path id", Names(Thing::Operation, Some("0000000000000002"))),
            ("query from", Plain(None)),
        ],
    ),
    (
        "put /v1/operations/{id}/documents/{number}",
        &[
            ("path id", Names(Thing::Operation, Some("0000000000000002"))),
            ("path number", Plain(Some("0"))),
            ("body document", Plain(Some("nonsense"))),
        ],
    ),
    (
        "get /v1/operations/{id}/documents/{number}",
        &[
            ("path id", Names(Thing::Operation, Some("0000000000000002"))),
            ("path number", Plain(Some("0"))),
        ],
    ),
    (
        "post /v1/operations/{id}/start",
        &[("path id", Names(Thing::Operation, Some("0000000000000002")))],
    ),
    (
        "post /v1/operations/{id}/cancellation",
        &[("path id", Names(Thing::Operation, Some("0000000000000002")))],
    ),
    // The last of them: it is gone then.
    (
        "delete /v1/operations/{id}",
        &[("path id", Names(Thing::Operation, Some("0000000000000002")))],
    ),
    // Its signature is its proof, and it names what its question was about.
    (
        "post /v1/verifications",
        &[("body token", Plain(Some("nonsense")))],
    ),
    ("get /v1/data-location", &[]),
    // The audit log is everybody's: hashes that tell nothing (docs/audit.md).
    ("get /audit/checkpoint", &[]),
    ("get /audit/cosigned", &[]),
    ("get /audit/tile/{path}", &[("path path", Plain(Some("0/000")))]),
];

/// The operations of the document, and the places in each.
fn documented(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            // The pki listener is another server; what is fetched there is everybody's.
            if operation["servers"].is_array() {
                continue;
            }
            found.insert(format!("{method} {path}"), places(document, operation));
        }
    }
    found
}

fn places(document: &Value, operation: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let mut places: BTreeSet<String> = parameters
        .map(|parameter| format!("{} {}", text(&parameter["in"]), text(&parameter["name"])))
        .collect();
    let bodies = operation["requestBody"]["content"].as_object();
    for body in bodies.into_iter().flat_map(Map::values) {
        let schema = resolve(document, &body["schema"]);
        match schema["properties"].as_object() {
            Some(fields) => places.extend(fields.keys().map(|name| format!("body {name}"))),
            // All of it is a document.
            None => places.extend(["body document".to_owned()]),
        }
    }
    places
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(name) => document.pointer(name.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// A request that names `name` in `place`, and in all others what tenant demo would.
fn ask(operation: &str, places: &[(&str, Place)], named: Option<(&str, &str)>) -> Asked {
    let (method, path) = operation.split_once(' ').unwrap();
    let mut asked = Asked {
        method: method.to_uppercase(),
        path: path.to_owned(),
        ..Asked::default()
    };
    for (place, what) in places {
        let value = match (named, what) {
            (Some((here, name)), _) if here == *place => Some(name),
            (_, Names(_, value) | Plain(value)) => *value,
        };
        if let Some(value) = value {
            asked.put(place, value);
        }
    }
    asked
}

#[derive(Default)]
struct Asked {
    method: String,
    path: String,
    query: Option<String>,
    key: Option<String>,
    body: Map<String, Value>,
}

impl Asked {
    fn put(&mut self, place: &str, value: &str) {
        let month = store::month_of(clock::wall());
        let value = &value.replace(THIS_MONTH, &format!("{}-{:02}", month / 100, month % 100));
        match place.split_once(' ').unwrap() {
            ("path", name) => self.path = self.path.replace(&format!("{{{name}}}"), value),
            ("query", name) => self.query = Some(format!("{name}={value}")),
            ("header", "Idempotency-Key") => self.key = Some(value.to_owned()),
            ("body", name) => {
                let value = match value.as_str() {
                    "false" => Value::Bool(false),
                    text => text.into(),
                };
                self.body.insert(name.to_owned(), value);
            }
            _ => panic!("the suite cannot put anything into '{place}'"),
        }
    }

    /// Sends it as an app and hears the answer, with what differs from call to call taken out.
    async fn send(&self, profile: &Profile, app: &str) -> Heard {
        let authority = format!("{}:{}", profile.server_name, profile.address.port());
        let body = match self.body.is_empty() {
            true => String::new(),
            false => Value::Object(self.body.clone()).to_string(),
        };
        let digest = (!body.is_empty()).then(|| http_proof::content_digest(body.as_bytes()));
        let parts = Parts {
            method: &self.method,
            authority: &authority,
            path: &self.path,
            query: self.query.as_deref(),
            content_digest: digest.as_deref(),
            idempotency_key: self.key.as_deref(),
        };
        let key = SignKey::from_secret(&profile.secret().unwrap());
        let proof = http_proof::sign(&parts, app, clock::wall(), &key).unwrap();
        let query = self.query.as_deref().map(|query| format!("?{query}"));
        let mut text = format!(
            "{} {}{} HTTP/1.1\r\nhost: {authority}\r\nsignature-input: {}\r\nsignature: {}\r\n",
            self.method,
            self.path,
            query.unwrap_or_default(),
            proof.signature_input,
            proof.signature
        );
        let fields = [("idempotency-key", self.key.clone()), ("content-digest", digest)];
        for (name, value) in fields {
            text.extend(value.map(|value| format!("{name}: {value}\r\n")));
        }
        if !body.is_empty() {
            text.push_str(&format!(
                "content-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            ));
        }
        let heard = Http1::dial(profile)
            .await
            .exchange(format!("{text}\r\n{body}").as_bytes())
            .await;
        without_numbers(heard)
    }
}

/// The number of a journal entry is another one each time; everything else must be the same.
fn without_numbers(mut heard: Heard) -> Heard {
    let Ok(mut body) = serde_json::from_slice::<Value>(&heard.body) else {
        return heard;
    };
    let mut masked = false;
    // A minute may begin between two calls.
    for time in ["submitted", "changed", "expires"] {
        if body[time].is_string() {
            body[time] = json!("masked");
            masked = true;
        }
    }
    let items = body["items"].as_array_mut().into_iter().flatten();
    for item in items.filter(|item| item["sequence"].is_u64()) {
        item["sequence"] = json!("masked");
        masked = true;
    }
    if masked {
        heard.body = body.to_string().into_bytes();
        heard
            .head
            .retain(|line| !line.to_lowercase().starts_with("content-length:"));
    }
    heard
}

/// The answer as if its name were `name`: an answer may repeat what was asked for.
fn naming(mut heard: Heard, name: &str) -> Heard {
    let text = String::from_utf8(heard.body).unwrap().replace(name, "NAME");
    heard.body = text.into_bytes();
    for line in &mut heard.head {
        *line = line.replace(name, "NAME");
    }
    heard
}

/// An engine where tenant acme has a credential and has signed with it.
async fn engine_with_acme() -> Engine {
    let engine = Engine::start();
    engine.make_prepaid(10);
    let client = Client::connect(&engine.prepaid_profile(), Transport::Quic, 1)
        .await
        .unwrap();
    for call in [Thing::Call, Thing::Recorded] {
        let mut wanted = request(call.theirs(), "of acme");
        wanted.credential = Thing::Credential.theirs().into();
        sign_one(&client, &wanted).await.unwrap();
    }
    let picture = workspace().join("documents/tests/fixtures/pdf/seal.png");
    engine.operate(&format!(
        "seals create --tenant acme {} --name Theirs --credential seal --shared --picture {}",
        Thing::Seal.theirs(),
        picture.display()
    ));
    let subject = json!({
        "id": Thing::Subject.theirs(), "kind": "enterprise", "name": "Acme", "registration": "1",
        "evidence_sha256": "ab".repeat(32),
    });
    let asked = Asked {
        method: "POST".into(),
        path: "/v1/subjects".into(),
        body: subject.as_object().unwrap().clone(),
        ..Asked::default()
    };
    let profile = engine.prepaid_profile();
    assert_eq!(asked.send(&profile, profile.app_id.as_str()).await.status, 200);
    engine
}

/// The serial number of the certificate of acme's credential.
fn their_serial(engine: &Engine) -> String {
    let list: Value = serde_json::from_str(&engine.operate("cert list --tenant acme")).unwrap();
    list[0]["serial"].as_str().unwrap().to_owned()
}

/// The name of a job of acme's.
async fn their_operation(engine: &Engine) -> String {
    let body =
        json!({ "order": { "signers": [{ "credential": Thing::Credential.theirs() }] }, "documents": 1 });
    let asked = Asked {
        method: "POST".into(),
        path: "/v1/documents/jobs".into(),
        key: Some("their-job".into()),
        body: body.as_object().unwrap().clone(),
        ..Asked::default()
    };
    let profile = engine.prepaid_profile();
    let heard = asked.send(&profile, profile.app_id.as_str()).await;
    assert_eq!(heard.status, 202, "{}", String::from_utf8_lossy(&heard.body));
    let location = heard
        .head
        .iter()
        .find(|line| line.to_lowercase().starts_with("location:"));
    location.unwrap().rsplit('/').next().unwrap().trim().to_owned()
}

async fn document(profile: &Profile) -> Value {
    let authority = format!("{}:{}", profile.server_name, profile.address.port());
    let text = format!("GET /openapi.json HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    let heard = Http1::dial(profile).await.exchange(text.as_bytes()).await;
    serde_json::from_slice(&heard.body).unwrap()
}

#[test]
fn every_operation_parameter_and_field_has_a_case() {
    let engine = Engine::start();
    let document = block_on(document(&engine.profile()));
    let cases: BTreeMap<String, BTreeSet<String>> = CASES
        .iter()
        .map(|(operation, places)| {
            let places = places.iter().map(|(place, _)| (*place).to_owned());
            ((*operation).to_owned(), places.collect())
        })
        .collect();
    assert_eq!(
        documented(&document),
        cases,
        "the document, and the cases of this suite"
    );
}

#[test]
fn the_name_of_another_tenants_thing_is_like_a_name_of_nobody() {
    block_on(async {
        let engine = engine_with_acme().await;
        let (demo, acme) = (engine.profile(), engine.prepaid_profile());
        let serial = their_serial(&engine);
        let operation_name = their_operation(&engine).await;
        // The call that demo asks for again.
        let (operation, places) = &CASES[0];
        ask(operation, places, None)
            .send(&demo, demo.app_id.as_str())
            .await;
        for (operation, places) in CASES {
            for (place, what) in *places {
                let Names(thing, _) = what else { continue };
                let hear = async |profile: &Profile, name: &str| {
                    let asked = ask(operation, places, Some((*place, name)));
                    naming(asked.send(profile, profile.app_id.as_str()).await, name)
                };
                let their_name = match thing {
                    Thing::Certificate => &serial,
                    Thing::Operation => &operation_name,
                    thing => thing.theirs(),
                };
                let theirs = hear(&demo, their_name).await;
                let nobodys = hear(&demo, thing.nobodys()).await;
                assert_eq!(theirs, nobodys, "{operation}: {place}");
                if !matches!(thing, Thing::Cursor | Thing::SubjectCursor | Thing::SealCursor) {
                    let owner = hear(&acme, their_name).await;
                    assert_ne!(
                        owner, theirs,
                        "{operation}: {place}: the owner hears something else"
                    );
                }
            }
        }
    });
}

#[test]
fn what_names_nothing_tells_only_of_ones_own() {
    block_on(async {
        let engine = engine_with_acme().await;
        let demo = engine.profile();
        for (operation, places) in CASES {
            let asked = ask(operation, places, None);
            let heard = asked.send(&demo, demo.app_id.as_str()).await;
            let text = String::from_utf8_lossy(&heard.body);
            for word in ["acme", "erp", Thing::Credential.theirs(), Thing::Call.theirs()] {
                // The names of fields are nobody's.
                let values = text.replace(&format!("\"{word}\":"), "");
                assert!(!values.contains(&format!("\"{word}\"")), "{operation}: {text}");
            }
        }
    });
}

#[test]
fn an_app_of_another_tenant_is_like_an_app_of_nobody_to_whoever_has_not_its_secret() {
    block_on(async {
        let engine = engine_with_acme().await;
        let demo = engine.profile();
        let proved = CASES.iter().filter(|(operation, _)| {
            !operation.contains(" /audit/") && !operation.contains("/verifications")
        });
        for (operation, places) in proved {
            let asked = ask(operation, places, None);
            let theirs = naming(asked.send(&demo, "erp").await, "erp");
            let nobodys = naming(asked.send(&demo, "er1").await, "er1");
            assert_eq!(theirs, nobodys, "{operation}");
            assert_eq!(theirs.status, 401, "{operation}");
        }
    });
}

#[test]
fn the_digest_of_the_cases_is_one() {
    let (_, places) = &CASES[0];
    let Some((_, Plain(Some(digest)))) = places.iter().find(|(place, _)| *place == "body digest") else {
        panic!("no digest")
    };
    assert_eq!(STANDARD.decode(digest).unwrap(), Hash::Sha256.digest(b"abc")[..]);
}
