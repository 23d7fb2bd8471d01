//! The one file that calls `libcrypto_mb`, the multi-buffer part of Intel's Cryptography Primitives Library: eight
//! private-key operations side by side in the lanes of AVX-512 registers.
//!
//! Every call takes up to eight jobs; places that are empty are null pointers, which the library reports and passes
//! over. What comes back is one result a place.
#![expect(
    unsafe_code,
    reason = "a C library is loaded and called here, and nowhere else for this purpose"
)]

use std::ffi::{c_int, c_uchar};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

use aws_lc_rs::digest;
use zeroize::Zeroizing;

/// How many jobs a call takes.
pub const WIDTH: usize = 8;

/// What the library may be, by SHA-256 of the shared object that `scripts/crypto-mb.sh` links from the pinned archive
/// (PyPI `ipp-crypto-static` 2026.2.0) with the linker of the Rust toolchain. Another one must be named by its digest.
pub const PINNED: [&str; 1] = ["8ce879b762a476ec1065151dd843519df4b6e320da809439b99f9be68abf28ce"];

/// Why the library is not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The processor lacks what the library is made of.
    #[error("the processor has no AVX-512 IFMA")]
    Processor,
    /// Looked for along a search path, it could be anybody's.
    #[error("{0} is not an absolute path")]
    Relative(PathBuf),
    /// Somebody else could have put it there.
    #[error("{0} can be changed by others than the service's user")]
    Writable(PathBuf),
    /// It cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It is not what was pinned.
    #[error("{path} has the SHA-256 digest {found}, which is not the pinned one")]
    Digest {
        /// The library.
        path: PathBuf,
        /// What it has.
        found: String,
    },
    /// The dynamic linker refused it.
    #[error("{0}: {1}")]
    Link(PathBuf, libloading::Error),
}

type Bytes = *const [*const c_uchar; WIDTH];
type BytesOut = *const [*mut c_uchar; WIDTH];
type Words = *const [*const u64; WIDTH];
type WordsOut = *const [*mut u64; WIDTH];
type Scratch = *mut c_uchar;
type Method = *const std::ffi::c_void;
type Ecdsa = unsafe extern "C" fn(BytesOut, BytesOut, Bytes, Words, Words, Scratch) -> u32;
type PublicKey = unsafe extern "C" fn(WordsOut, WordsOut, WordsOut, Words, Scratch) -> u32;
type Ed25519 = unsafe extern "C" fn(BytesOut, BytesOut, Bytes, *const [u32; WIDTH], Bytes, Bytes) -> u32;
type RsaCrt =
    unsafe extern "C" fn(Bytes, BytesOut, Words, Words, Words, Words, Words, c_int, Method, Scratch) -> u32;

/// The library, loaded and checked.
pub(super) struct Library {
    p256: Ecdsa,
    p384: Ecdsa,
    sm2_point: PublicKey,
    ed25519: Ed25519,
    rsa: RsaCrt,
    rsa_method: unsafe extern "C" fn(c_int) -> Method,
    rsa_scratch: unsafe extern "C" fn(Method) -> c_int,
    // Never unloaded: the pointers above point into it.
    _library: libloading::Library,
}

/// A pair of numbers, big-endian, left-aligned: r and s.
pub(super) type Pair = [[u8; 48]; 2];
/// What came of each place.
pub(super) type Results<T> = [Option<T>; WIDTH];

/// One ECDSA signature to make on a curve with numbers of `W` words.
pub(super) struct EcdsaJob<'a, const W: usize> {
    /// The digest, left-aligned.
    pub(super) digest: [u8; 48],
    /// The nonce, least significant word first.
    pub(super) nonce: Zeroizing<[u64; W]>,
    /// The private key, least significant word first.
    pub(super) key: &'a [u64; W],
}

/// One Ed25519 signature to make.
pub(super) struct Ed25519Job<'a> {
    pub(super) message: &'a [u8],
    pub(super) seed: &'a [u8; 32],
    pub(super) public: &'a [u8; 32],
}

/// The private numbers of an RSA key (RFC 8017, 3.2), least significant word first.
pub(crate) struct RsaNumbers {
    pub(super) p: Zeroizing<Vec<u64>>,
    pub(super) q: Zeroizing<Vec<u64>>,
    pub(super) dp: Zeroizing<Vec<u64>>,
    pub(super) dq: Zeroizing<Vec<u64>>,
    pub(super) q_inverse: Zeroizing<Vec<u64>>,
}

/// One RSA private-key operation.
pub(super) struct RsaJob<'a> {
    /// The encoded message, big-endian, as long as the modulus.
    pub(super) encoded: &'a [u8],
    pub(super) key: &'a RsaNumbers,
}

/// Fills the places with what each job has, and the rest with nothing.
fn places<J, T>(jobs: &[J], of: impl Fn(&J) -> *const T) -> [*const T; WIDTH] {
    std::array::from_fn(|at| jobs.get(at).map_or(null(), &of))
}

fn places_out<T>(buffers: &mut [T; WIDTH], count: usize) -> [*mut T; WIDTH] {
    let mut at = 0;
    buffers.each_mut().map(|buffer| {
        at += 1;
        if at <= count {
            std::ptr::from_mut(buffer)
        } else {
            null_mut()
        }
    })
}

/// The library gives four bits to each place; zero is success.
fn results<T>(status: u32, count: usize, of: impl Fn(usize) -> T) -> Results<T> {
    std::array::from_fn(|at| (at < count && (status >> (4 * at)) & 0xf == 0).then(|| of(at)))
}

impl Library {
    /// Loads the library if the processor can run it and it is one that was pinned, or has the digest that was named.
    pub(super) fn load(path: &Path, named: Option<&str>) -> Result<Self, LoadError> {
        if !(is_x86_feature_present()) {
            return Err(LoadError::Processor);
        }
        check(path, named)?;
        let failed = |error| LoadError::Link(path.to_owned(), error);
        // SAFETY: loading runs the library's constructors; it is the one whose digest was pinned.
        let library = unsafe { libloading::Library::new(path) }.map_err(failed)?;
        // SAFETY: the names have these types in the headers of the pinned version (`ipp-crypto-include` 2026.2.0), and
        // the library outlives the pointers.
        unsafe {
            Ok(Self {
                p256: *library.get(b"mbx_nistp256_ecdsa_sign_mb8\0").map_err(failed)?,
                p384: *library.get(b"mbx_nistp384_ecdsa_sign_mb8\0").map_err(failed)?,
                sm2_point: *library.get(b"mbx_sm2_ecpublic_key_mb8\0").map_err(failed)?,
                ed25519: *library.get(b"mbx_ed25519_sign_mb8\0").map_err(failed)?,
                rsa: *library.get(b"mbx_rsa_private_crt_mb8\0").map_err(failed)?,
                rsa_method: *library.get(b"mbx_RSA_private_crt_Method\0").map_err(failed)?,
                rsa_scratch: *library.get(b"mbx_RSA_Method_BufSize\0").map_err(failed)?,
                _library: library,
            })
        }
    }

    pub(super) fn p256(&self, jobs: &[EcdsaJob<'_, 4>]) -> Results<Pair> {
        ecdsa(self.p256, jobs)
    }

    pub(super) fn p384(&self, jobs: &[EcdsaJob<'_, 6>]) -> Results<Pair> {
        ecdsa(self.p384, jobs)
    }

    /// The points `[k]G` on the SM2 curve: x and y, least significant word first.
    pub(super) fn sm2_points(&self, nonces: &[Zeroizing<[u64; 4]>]) -> Results<[[u64; 4]; 2]> {
        let count = nonces.len().min(WIDTH);
        let mut x = [[0; 4]; WIDTH];
        let mut y = [[0; 4]; WIDTH];
        let scalars = places(nonces, |nonce| nonce.as_ptr());
        let xs = places_out(&mut x, count).map(<*mut [u64; 4]>::cast);
        let ys = places_out(&mut y, count).map(<*mut [u64; 4]>::cast);
        // SAFETY: each place is null or has room for, or holds, the four words that the function writes or reads; no
        // place for z asks for affine points; without a buffer the function takes one of its own.
        let status = unsafe {
            (self.sm2_point)(
                &raw const xs,
                &raw const ys,
                null(),
                &raw const scalars,
                null_mut(),
            )
        };
        results(status, count, |at| [x[at], y[at]])
    }

    pub(super) fn ed25519(&self, jobs: &[Ed25519Job<'_>]) -> Results<[[u8; 32]; 2]> {
        let count = jobs.len().min(WIDTH);
        let mut r = [[0; 32]; WIDTH];
        let mut s = [[0; 32]; WIDTH];
        let messages = places(jobs, |job| job.message.as_ptr());
        let length = |at: usize| {
            jobs.get(at)
                .map_or(0, |job| u32::try_from(job.message.len()).unwrap_or(0))
        };
        let lengths: [u32; WIDTH] = std::array::from_fn(length);
        let seeds = places(jobs, |job| job.seed.as_ptr());
        let keys = places(jobs, |job| job.public.as_ptr());
        let rs = places_out(&mut r, count).map(<*mut [u8; 32]>::cast);
        let ss = places_out(&mut s, count).map(<*mut [u8; 32]>::cast);
        // SAFETY: each place is null or points to 32 bytes, or to a message of the length given for it.
        let status = unsafe {
            (self.ed25519)(
                &raw const rs,
                &raw const ss,
                &raw const messages,
                &raw const lengths,
                &raw const seeds,
                &raw const keys,
            )
        };
        results(status, count, |at| [r[at], s[at]])
    }

    /// RSA private-key operations (RFC 8017, 5.1.2 with the Chinese remainder theorem), all with moduli of this size.
    pub(super) fn rsa(&self, bits: usize, jobs: &[RsaJob<'_>]) -> Results<Vec<u8>> {
        let (bytes, words) = (bits / 8, bits / 128);
        let count = jobs.len().min(WIDTH);
        if !jobs
            .iter()
            .all(|job| job.encoded.len() == bytes && job.key.fits(words))
        {
            return [const { None }; WIDTH];
        }
        let Ok(size) = c_int::try_from(bits) else {
            return [const { None }; WIDTH];
        };
        let mut out: [Vec<u8>; WIDTH] = std::array::from_fn(|_| vec![0; bytes]);
        // SAFETY: it only looks the size up in a table.
        let method = unsafe { (self.rsa_method)(size) };
        if method.is_null() {
            return [const { None }; WIDTH];
        }
        // SAFETY: the method is one that the library has just given.
        let scratch = usize::try_from(unsafe { (self.rsa_scratch)(method) }).unwrap_or(0);
        // Secrets pass through it; the library aligns it by itself.
        let mut scratch = Zeroizing::new(vec![0_u8; scratch]);
        let mut at = 0;
        let to = out.each_mut().map(|buffer| {
            at += 1;
            if at <= count {
                buffer.as_mut_ptr()
            } else {
                null_mut()
            }
        });
        let from = places(jobs, |job| job.encoded.as_ptr());
        let [p, q, dp, dq, inverse] = [
            places(jobs, |job| job.key.p.as_ptr()),
            places(jobs, |job| job.key.q.as_ptr()),
            places(jobs, |job| job.key.dp.as_ptr()),
            places(jobs, |job| job.key.dq.as_ptr()),
            places(jobs, |job| job.key.q_inverse.as_ptr()),
        ];
        // SAFETY: each place is null or points to a number of the size that `bits` says, which was checked above; the
        // buffer has the size that the method asks for.
        let status = unsafe {
            (self.rsa)(
                &raw const from,
                &raw const to,
                &raw const p,
                &raw const q,
                &raw const dp,
                &raw const dq,
                &raw const inverse,
                size,
                method,
                scratch.as_mut_ptr(),
            )
        };
        results(status, count, |at| out[at].clone())
    }
}

impl RsaNumbers {
    fn fits(&self, words: usize) -> bool {
        [&self.p, &self.q, &self.dp, &self.dq, &self.q_inverse]
            .iter()
            .all(|number| number.len() == words)
    }
}

fn ecdsa<const W: usize>(function: Ecdsa, jobs: &[EcdsaJob<'_, W>]) -> Results<Pair> {
    let count = jobs.len().min(WIDTH);
    let mut r = [[0; 48]; WIDTH];
    let mut s = [[0; 48]; WIDTH];
    let digests = places(jobs, |job| job.digest.as_ptr());
    let nonces = places(jobs, |job| job.nonce.as_ptr());
    let keys = places(jobs, |job| job.key.as_ptr());
    let rs = places_out(&mut r, count).map(<*mut [u8; 48]>::cast);
    let ss = places_out(&mut s, count).map(<*mut [u8; 48]>::cast);
    // SAFETY: each place is null or points to as many bytes or words as the curve's numbers have, at most 48 bytes;
    // without a buffer the function takes one of its own.
    let status = unsafe {
        function(
            &raw const rs,
            &raw const ss,
            &raw const digests,
            &raw const nonces,
            &raw const keys,
            null_mut(),
        )
    };
    results(status, count, |at| [r[at], s[at]])
}

#[cfg(target_arch = "x86_64")]
fn is_x86_feature_present() -> bool {
    std::arch::is_x86_feature_detected!("avx512ifma")
        && std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512dq")
}

#[cfg(not(target_arch = "x86_64"))]
const fn is_x86_feature_present() -> bool {
    false
}

/// Before the linker sees it: nobody else can have put it there, and it is what it should be.
fn check(path: &Path, named: Option<&str>) -> Result<(), LoadError> {
    if !path.is_absolute() {
        return Err(LoadError::Relative(path.to_owned()));
    }
    let failed = |error| LoadError::Read(path.to_owned(), error);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let folder = path.parent().unwrap_or(path);
    let us = rustix::process::geteuid().as_raw();
    for owned in [
        file.metadata().map_err(failed)?,
        folder.metadata().map_err(failed)?,
    ] {
        let ours = owned.uid() == us || owned.uid() == 0;
        if !ours || owned.mode() & 0o022 != 0 {
            return Err(LoadError::Writable(path.to_owned()));
        }
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    let found = hex(digest::digest(&digest::SHA256, &bytes).as_ref());
    let known = named.map_or_else(
        || PINNED.contains(&&*found),
        |named| named.eq_ignore_ascii_case(&found),
    );
    if known {
        return Ok(());
    }
    Err(LoadError::Digest {
        path: path.to_owned(),
        found,
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_the_pinned_one_or_that_others_can_change_is_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        std::fs::write(&path, b"not a library").unwrap();
        let error = check(&path, None).unwrap_err();
        assert!(matches!(error, LoadError::Digest { .. }), "{error}");
        let digest = hex(digest::digest(&digest::SHA256, b"not a library").as_ref());
        assert!(check(&path, Some(&digest)).is_ok());
        assert!(check(&path, Some(&digest.to_uppercase())).is_ok());
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&path, all).unwrap();
        assert!(matches!(check(&path, Some(&digest)), Err(LoadError::Writable(_))));
        assert!(matches!(
            check(Path::new("lib.so"), None),
            Err(LoadError::Relative(_))
        ));
        assert!(matches!(
            check(&folder.path().join("none"), None),
            Err(LoadError::Read(..))
        ));
    }
}
