//! Whether the time of a signature tells something about its secrets (in the manner of dudect: Reparaz, Balasch and
//! Verbauwhede, "Dude, is my code constant time?", 2017): Welch's t-test between two classes of the same call.
//!
//! - *key*: one key for all jobs against random keys, eight at a time.
//! - *nonce*: one job a call; nonces whose four leading bits are zero against all others. The bench has the private key, so
//!   it computes each nonce back from its signature. This is what Minerva and TPM-Fail have read out of other libraries.
//!
//! |t| above 4.5 is what dudect calls a leak. Run it on a quiet machine:
//! `CINNABAR_CRYPTO_MB=$(scripts/crypto-mb.sh target/crypto-mb) cargo bench -p hsm-pool --bench leak`;
//! `BENCH_CALLS` (100,000) is the number of calls for the curves; RSA gets a fiftieth.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot go on says where it stopped"
)]

use std::path::Path;
use std::time::Duration;

use hsm_pool::multi::{Multi, Task, WIDTH};
use hsm_pool::soft::{self, Generated, SoftKey};
use protocol::algorithm::{Algorithm, InputKind, KeyKind};
use protocol::clock;
use protocol::verify::der_to_pair;
use rfc6979::bigint::{NonZero, Odd, U256};

const P256_ORDER: U256 =
    U256::from_be_hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
const SM2_ORDER: U256 = U256::from_be_hex("fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123");
/// Keys of a class, each in memory of its own.
const KEYS: usize = 64;

/// Times of a class, in nanoseconds.
#[derive(Default)]
struct Class(Vec<f64>);

impl Class {
    fn moments(&self, limit: f64) -> (f64, f64, f64) {
        let kept: Vec<_> = self.0.iter().copied().filter(|time| *time <= limit).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (count, mean, variance)
    }
}

/// Welch's t of what is left when the slowest are cut off, at the cut where it is largest.
fn welch(classes: &[Class; 2]) -> f64 {
    let mut all: Vec<_> = classes.iter().flat_map(|class| class.0.iter().copied()).collect();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    let t = |limit| {
        let [(n, mean, variance), (m, other, spread)] =
            [classes[0].moments(limit), classes[1].moments(limit)];
        (mean - other) / (variance / n + spread / m).sqrt()
    };
    [0.5, 0.75, 0.9, 0.99, 1.0]
        .into_iter()
        .map(|share| t(at(share)))
        .fold(0.0, |worst: f64, t| if t.abs() > worst.abs() { t } else { worst })
}

fn read(kind: KeyKind, made: &Generated) -> SoftKey {
    SoftKey::new(kind, &made.pkcs8, &made.public_key)
        .unwrap()
        .with_numbers(&made.pkcs8, &made.public_key)
}

fn random_input(algorithm: Algorithm, random: &mut u64) -> Vec<u8> {
    // A generator for inputs only; nothing secret comes from it.
    let mut next = || {
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) as u8
    };
    let length = match algorithm.input() {
        InputKind::Digest(hash) => hash.bytes(),
        InputKind::Message(_) => 32,
    };
    (0..length).map(|_| next()).collect()
}

fn timed(multi: &Multi, kind: KeyKind, tasks: &[Task<'_>]) -> (Duration, Vec<u8>) {
    let begun = clock::monotonic();
    let made = multi.sign(kind, tasks);
    let took = begun.elapsed();
    (took, made[0].as_deref().unwrap().to_vec())
}

fn key_classes(multi: &Multi, kind: KeyKind, calls: usize) -> [Class; 2] {
    let fixed = soft::generate(kind).unwrap();
    let same: Vec<_> = (0..KEYS).map(|_| read(kind, &fixed)).collect();
    let distinct = if kind.rsa_bits().is_some() { 8 } else { KEYS };
    let other: Vec<_> = (0..distinct)
        .map(|_| read(kind, &soft::generate(kind).unwrap()))
        .collect();
    let algorithm = kind.algorithms()[0];
    let mut classes = [Class::default(), Class::default()];
    let mut random = 1;
    for call in 0..calls {
        let inputs: Vec<_> = (0..WIDTH).map(|_| random_input(algorithm, &mut random)).collect();
        let class = usize::from(random >> 40 & 1 == 1);
        let keys = [&same[..distinct], &other][class];
        let task = |at: usize| Task {
            key: &keys[(call * WIDTH + at) % distinct],
            algorithm,
            input: &inputs[at],
            user_id: b"",
        };
        let tasks: [_; WIDTH] = std::array::from_fn(task);
        let (took, _) = timed(multi, kind, &tasks);
        classes[class].0.push(took.as_nanos() as f64);
    }
    classes
}

/// The private number: the first octet string of 32 bytes in the PKCS#8.
fn secret(made: &Generated) -> U256 {
    let at = made.pkcs8.windows(2).position(|pair| pair == [4, 32]).unwrap();
    U256::from_be_slice(&made.pkcs8[at + 2..at + 34])
}

/// The nonce of a signature, by whoever has the private key.
fn nonce(kind: KeyKind, secret: &U256, input: &[u8], signature: &[u8]) -> U256 {
    let pair = der_to_pair(signature, 32).unwrap();
    let (r, s) = (U256::from_be_slice(&pair[..32]), U256::from_be_slice(&pair[32..]));
    let order = if kind == KeyKind::Sm2 {
        SM2_ORDER
    } else {
        P256_ORDER
    };
    let n = NonZero::new(order).unwrap();
    if kind == KeyKind::Sm2 {
        // s = (1 + d)⁻¹ (k − r d), so k = s + d (s + r).
        return s.add_mod(&secret.mul_mod(&s.add_mod(&r, &n), &n), &n);
    }
    let e = U256::from_be_slice(input).rem(&n);
    let inverse = s.invert_odd_mod(&Odd::new(order).unwrap()).unwrap();
    inverse.mul_mod(&e.add_mod(&secret.mul_mod(&r, &n), &n), &n)
}

fn nonce_classes(multi: &Multi, kind: KeyKind, calls: usize) -> [Class; 2] {
    let made = soft::generate(kind).unwrap();
    let (key, secret) = (read(kind, &made), secret(&made));
    let algorithm = kind.algorithms()[0];
    let mut classes = [Class::default(), Class::default()];
    let mut random = 1;
    for _ in 0..calls {
        let input = random_input(algorithm, &mut random);
        let task = Task {
            key: &key,
            algorithm,
            input: &input,
            user_id: b"",
        };
        let (took, signature) = timed(multi, kind, &[task]);
        let short = nonce(kind, &secret, &input, &signature).bits() <= 252;
        classes[usize::from(!short)].0.push(took.as_nanos() as f64);
    }
    classes
}

fn row(kind: KeyKind, what: &str, classes: &[Class; 2]) {
    let [one, other] = [classes[0].moments(f64::MAX), classes[1].moments(f64::MAX)];
    let t = welch(classes);
    let verdict = if t.abs() > 4.5 { "LEAKS" } else { "nothing seen" };
    println!(
        "| {kind} | {what} | {:.0} | {:.0} | {:.0} | {t:.1} | {verdict} |",
        one.0, other.0, one.1
    );
}

fn main() {
    let Some(path) = std::env::var_os("CINNABAR_CRYPTO_MB") else {
        println!("CINNABAR_CRYPTO_MB names no library: nothing to measure");
        return;
    };
    let calls = std::env::var("BENCH_CALLS").map_or(100_000, |text| text.parse().unwrap());
    let multi = Multi::load(Path::new(&path), None).unwrap();
    println!("| kind | classes | calls | calls | mean ns | worst t | |\n|---|---|---|---|---|---|---|");
    for kind in KeyKind::ALL {
        let calls = if kind.rsa_bits().is_some() {
            calls / 50
        } else {
            calls
        };
        row(kind, "key", &key_classes(&multi, kind, calls));
    }
    for kind in [KeyKind::P256, KeyKind::Sm2] {
        row(kind, "nonce", &nonce_classes(&multi, kind, calls));
    }
}
