//! A store in a scratch folder with one tenant, one app, one credential, and a mailbox for what it delivers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use protocol::algorithm::{Algorithm, Format, KeyKind};
use protocol::ids::{AppId, CredentialId, TenantName};
use smallvec::SmallVec;
use store::{
    Attempt, Change, Claim, Delivery, Draft, Environment, Fingerprint, HoldTime, Item, NewApp, NewCredential,
    Options, Outcome, Place, Proof, ProofKind, Released, RequestHash, Store, StoreHandle,
};

pub(crate) const REQUEST: RequestHash = RequestHash([1; 16]);

pub(crate) struct World {
    pub(crate) store: StoreHandle<u32>,
    pub(crate) delivered: Receiver<Delivery<u32>>,
}

#[expect(clippy::disallowed_methods, reason = "a test's mailbox, emptied by the test")]
pub(crate) fn open(folder: &Path, options: Options) -> World {
    let (sender, delivered) = unbounded();
    let deliver = move |deliveries: Vec<Delivery<u32>>| {
        for delivery in deliveries {
            let _ = sender.send(delivery);
        }
    };
    let store = Store::open(folder, options).unwrap();
    World {
        store: store.start(deliver, |error| panic!("{error}")).unwrap(),
        delivered,
    }
}

/// A new store with tenant `t`, app `a` and credential `c`.
pub(crate) fn create(folder: &Path, options: Options, prepaid: Option<u64>) -> World {
    let world = open(folder, options);
    let tenant = TenantName::new("t").unwrap();
    let changes = [
        Change::CreateTenant {
            name: tenant.clone(),
            prepaid,
            data_key: b"data key".as_slice().into(),
        },
        Change::CreateApp(NewApp {
            tenant: tenant.clone(),
            id: AppId::new("a").unwrap(),
            environment: Environment::Production,
            secret: Some(b"wrapped".as_slice().into()),
            public_key: None,
            client_certificate: None,
            binding_required: true,
        }),
        Change::CreateCredential(NewCredential {
            tenant,
            id: CredentialId::new("c").unwrap(),
            environment: Environment::Production,
            kind: KeyKind::P256,
            public_key: b"spki".as_slice().into(),
            place: Place::Software,
            spare: None,
            wrapped: Some(b"key".as_slice().into()),
            chain: vec![b"certificate".to_vec(), b"issuer".to_vec()],
            validity: None,
        }),
    ];
    for change in changes {
        world.store.change("test", change).unwrap();
    }
    world
}

impl World {
    pub(crate) fn attempt(&self, key: &str) -> Arc<Attempt> {
        let app = self.store.directory().app("a").unwrap();
        let credential = app.tenant.credential("c").unwrap();
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
        let (app_epoch, credential_epoch) = (app.fence.pass().unwrap(), credential.fence.pass().unwrap());
        Arc::new(Attempt {
            fingerprint: item.fingerprint(),
            item,
            app: (app, app_epoch),
            credential: (credential, credential_epoch),
            seal: None,
            held: HoldTime::default(),
            marks: protocol::stages::Marks::new(protocol::clock::monotonic()),
        })
    }

    pub(crate) fn key(&self, key: &str) -> Fingerprint {
        Fingerprint::of_call(self.store.directory().app("a").unwrap().row, key)
    }

    pub(crate) fn claim(&self, key: &str, waiter: u32) -> Claim {
        self.store.index().claim(self.key(key), REQUEST, waiter)
    }

    /// Claims, "signs" and commits.
    pub(crate) fn sign(&self, key: &str) -> Outcome {
        let attempt = self.attempt(key);
        assert_eq!(self.claim(key, 7), Claim::Fresh);
        self.store.commit(vec![signed(&attempt)]).unwrap();
        self.next()
    }

    /// Stops the threads and lets go of the folder.
    pub(crate) fn stop(self) {
        self.store.stop();
    }

    pub(crate) fn next(&self) -> Outcome {
        self.delivered
            .recv_timeout(Duration::from_secs(10))
            .expect("something is delivered")
            .outcome
    }

    pub(crate) fn used(&self) -> u64 {
        let app = self.store.directory().app("a").unwrap().row;
        self.store
            .reader()
            .unwrap()
            .usage(app)
            .unwrap()
            .iter()
            .map(|row| row.units)
            .sum()
    }

    pub(crate) fn entries(&self) -> Vec<store::Entry> {
        let mut all = Vec::new();
        let from = protocol::ids::Sequence(1);
        let collect = |entry| {
            all.push(entry);
            Ok(())
        };
        self.store.reader().unwrap().entries(from, collect).unwrap();
        all
    }
}

pub(crate) fn signed(attempt: &Arc<Attempt>) -> Draft {
    let released = Released::new(SmallVec::from_slice(b"signature"), b"sealed".to_vec());
    Draft::Signed(Arc::clone(attempt), released)
}
