//! What the benches share: a store with one tenant, app and credential, and attempts to commit to it.

pub mod path;

use std::path::Path;
use std::sync::Arc;

use protocol::algorithm::{Algorithm, Format, KeyKind};
use protocol::ids::{AppId, CredentialId, TenantName};
use smallvec::SmallVec;
use store::{
    App, Attempt, Change, Credential, Delivery, Environment, Fingerprint, HoldTime, Item, NewApp,
    NewCredential, Options, Place, Proof, ProofKind, RequestHash, Store, StoreHandle,
};

/// The one request hash of the benches.
pub const REQUEST: RequestHash = RequestHash([1; 16]);

/// A new store with tenant `t`, app `a` and credential `c`; where it matters, with this public key, private key and
/// tenant's key, the latter two wrapped.
///
/// # Panics
/// When the folder cannot be used: a bench has nothing better to do then.
pub fn store<W: Clone + Send + 'static>(
    folder: &Path,
    wrapped: Option<[&[u8]; 3]>,
    deliver: impl FnMut(Vec<Delivery<W>>) + Send + 'static,
) -> StoreHandle<W> {
    let store = Store::open(folder, Options::default()).expect("the store opens");
    let store = store
        .start(deliver, |error| panic!("{error}"))
        .expect("the store starts");
    let tenant = TenantName::new("t").expect("a name");
    let [public_key, private_key, data_key] = wrapped.unwrap_or([b"spki", b"key", b"data key"]);
    let changes = [
        Change::CreateTenant {
            name: tenant.clone(),
            prepaid: None,
            data_key: data_key.into(),
        },
        Change::CreateApp(NewApp {
            tenant: tenant.clone(),
            id: AppId::new("a").expect("an id"),
            environment: Environment::Production,
            secret: None,
            public_key: None,
            client_certificate: None,
            binding_required: true,
        }),
        Change::CreateCredential(NewCredential {
            tenant,
            id: CredentialId::new("c").expect("an id"),
            environment: Environment::Production,
            kind: KeyKind::P256,
            public_key: public_key.into(),
            place: Place::Software,
            spare: None,
            wrapped: Some(private_key.into()),
            chain: Vec::new(),
            validity: None,
        }),
    ];
    for change in changes {
        store.change("bench", change).expect("the change is made");
    }
    store
}

/// The store's app and credential.
///
/// # Panics
/// When [`store`] did not make this store.
pub fn parties<W>(store: &StoreHandle<W>) -> (Arc<App>, Arc<Credential>) {
    let app = store.directory().app("a").expect("the bench's app");
    let credential = app.tenant.credential("c").expect("the bench's credential");
    (app, credential)
}

/// A key as callers make them: 32 hexadecimal digits, random.
pub fn random_key(number: u64) -> String {
    let mut z = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    format!("{:016x}{:016x}", z ^ (z >> 31), number)
}

/// An attempt to sign under a key.
///
/// # Panics
/// When the bench's app was revoked, which no bench does.
pub fn attempt(app: &Arc<App>, credential: &Arc<Credential>, key: &str) -> Arc<Attempt> {
    let item = Item {
        tenant: app.tenant.row,
        app: app.row,
        credential: credential.row,
        key: key.into(),
        item: 0,
        of: 1,
        request: REQUEST,
        algorithm: Algorithm::EcdsaP256Sha256,
        format: Format::Raw,
        digest: SmallVec::from_slice(&[9; 32]),
        proof: Proof {
            kind: ProofKind::SessionMac,
            bytes: SmallVec::from_slice(&[2; 32]),
            base: None,
        },
        seal: None,
    };
    Arc::new(Attempt {
        fingerprint: Fingerprint::of_call(app.row, key),
        item,
        app: (Arc::clone(app), app.fence.pass().expect("active")),
        credential: (Arc::clone(credential), credential.fence.pass().expect("active")),
        seal: None,
        held: HoldTime::default(),
        marks: protocol::stages::Marks::new(protocol::clock::monotonic()),
    })
}
