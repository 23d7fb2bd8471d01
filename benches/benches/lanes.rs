//! One signature of each kind on one core, with and without verifying it, and a lane with its queues.
//!
//! With `CINNABAR_CRYPTO_MB` (the path that `scripts/crypto-mb.sh` prints) eight at a time as well.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::{Sender, bounded};
use hsm_pool::job::{Finished, Home, Sink, Work};
use hsm_pool::keys::{KeyMaterial, KeySource};
use hsm_pool::lanes::Verify;
use hsm_pool::multi::{Multi, Task, WIDTH};
use hsm_pool::pool::{Pool, PoolConfig};
use hsm_pool::soft::{self, SoftKey};
use protocol::algorithm::{Algorithm, InputKind, KeyKind};
use protocol::clock;
use protocol::ids::{KeyRow, TenantRow};
use protocol::verify::SM2_DEFAULT_USER_ID;

fn multi() -> Option<Arc<Multi>> {
    let path = std::env::var_os("CINNABAR_CRYPTO_MB").filter(|path| !path.is_empty())?;
    Some(Arc::new(
        Multi::load(Path::new(&path), None).expect("the library"),
    ))
}

fn input(algorithm: Algorithm) -> Vec<u8> {
    match algorithm.input() {
        InputKind::Digest(hash) => hash.digest(b"text").to_vec(),
        InputKind::Message(_) => vec![7; 32],
    }
}

fn keys(c: &mut Criterion) {
    let multi = multi();
    for kind in KeyKind::ALL {
        let made = soft::generate(kind).expect("a key");
        let key = SoftKey::new(kind, &made.pkcs8, &made.public_key).expect("a key");
        let key = key.with_numbers(&made.pkcs8, &made.public_key);
        let algorithm = kind.algorithms()[0];
        let input = input(algorithm);
        c.bench_function(&format!("key/{kind}: sign"), |b| {
            b.iter(|| black_box(key.sign(algorithm, &input, SM2_DEFAULT_USER_ID).expect("signed")));
        });
        let signature = key.sign(algorithm, &input, SM2_DEFAULT_USER_ID).expect("signed");
        c.bench_function(&format!("key/{kind}: verify"), |b| {
            b.iter(|| {
                key.check(algorithm, &input, SM2_DEFAULT_USER_ID, &signature)
                    .expect("valid");
            });
        });
        let Some(multi) = &multi else { continue };
        let mut group = c.benchmark_group("key");
        group.throughput(Throughput::Elements(WIDTH as u64));
        group.bench_function(format!("{kind}: sign eight at a time"), |b| {
            let user_id = SM2_DEFAULT_USER_ID;
            let task = Task {
                key: &key,
                algorithm,
                input: &input,
                user_id,
            };
            b.iter(|| black_box(multi.sign(kind, &[task; WIDTH])));
        });
        group.finish();
    }
}

struct Job(Instant);

impl Work for Job {
    fn key(&self) -> KeyRow {
        KeyRow(1)
    }
    fn kind(&self) -> KeyKind {
        KeyKind::P256
    }
    fn algorithm(&self) -> Algorithm {
        Algorithm::EcdsaP256Sha256
    }
    fn input(&self) -> &[u8] {
        &[7; 32]
    }
    fn user_id(&self) -> &[u8] {
        &[]
    }
    fn home(&self) -> Home<'_> {
        Home::Software
    }
    fn tenant(&self) -> TenantRow {
        TenantRow(1)
    }
    fn deadline(&self) -> Instant {
        self.0
    }
}

struct OneKey(soft::Generated);

impl KeySource for OneKey {
    fn load(&self, _: KeyRow) -> Result<KeyMaterial, String> {
        Ok(KeyMaterial {
            public_key: self.0.public_key.clone(),
            pkcs8: Some(self.0.pkcs8.clone()),
            wrapped: None,
        })
    }
}

struct Count(Sender<usize>);

impl Sink<Job> for Count {
    fn finished(&self, batch: Vec<Finished<Job>>) {
        let _ = self.0.send(batch.len());
    }
}

fn lane(c: &mut Criterion) {
    let (sender, finished) = bounded(4096);
    let config = PoolConfig {
        lanes: hsm_pool::elastic::Bounds { min: 1, max: 1 },
        queue: 4096,
        queue_ms_max: 1_000,
        verify: Verify::Sampled,
        multi: multi(),
        key_cache: 10,
        devices: Vec::new(),
    };
    let source = Arc::new(OneKey(soft::generate(KeyKind::P256).expect("a key")));
    let sink: Arc<dyn Sink<Job>> = Arc::new(Count(sender));
    let pool = Pool::start(config, source, &sink).expect("a pool");
    let mut group = c.benchmark_group("lane");
    for jobs in [1usize, 64, 512] {
        group.throughput(Throughput::Elements(jobs as u64));
        group.bench_function(format!("p256, {jobs} jobs there and back"), |b| {
            b.iter(|| {
                let deadline = clock::monotonic() + Duration::from_secs(10);
                for _ in 0..jobs {
                    assert!(pool.submit(Job(deadline)).is_ok());
                }
                let mut done = 0;
                while done < jobs {
                    done += finished.recv().expect("a batch");
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, keys, lane);
criterion_main!(benches);
