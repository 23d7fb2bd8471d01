//! SM2 signatures (GB/T 32918.2, 6.1): what one at a time and eight together have in common, in constant time.
//!
//! The crate computes (1 + d)⁻¹ for each signature; here it is kept with the key.

use protocol::verify::{SignatureBytes, pair_to_der};
use sm2::elliptic_curve::ops::Reduce;
use sm2::elliptic_curve::sec1::ToSec1Point;
use sm2::elliptic_curve::{Group, PrimeField};
use sm2::{FieldBytes, NonZeroScalar, ProjectivePoint, Scalar};
use zeroize::Zeroizing;

use crate::nonce::{self, Fresh};

/// A private key d.
pub(crate) struct Sm2Key {
    bytes: Zeroizing<[u8; 32]>,
    /// (1 + d)⁻¹.
    inverse: Zeroizing<Scalar>,
}

impl Sm2Key {
    /// `None` for what is no private key: 0, n − 1, or more.
    pub(crate) fn new(bytes: Zeroizing<[u8; 32]>) -> Option<Self> {
        let secret = Zeroizing::new(NonZeroScalar::try_from(bytes.as_slice()).ok()?);
        let inverse = Option::from((Scalar::ONE + **secret).invert())?;
        Some(Self {
            bytes,
            inverse: Zeroizing::new(inverse),
        })
    }

    /// A hedged nonce for e (SEMANTICS 3.2).
    pub(crate) fn nonce(&self, e: &[u8; 32], fresh: &Fresh) -> Zeroizing<[u8; 32]> {
        nonce::sm2(&self.bytes, e, fresh)
    }

    /// One signature. `None`: with this nonce there is none, once in 2^32.
    pub(crate) fn sign(&self, e: &[u8; 32], fresh: &Fresh) -> Option<SignatureBytes> {
        let nonce = self.nonce(e, fresh);
        let scalar = Zeroizing::new(Option::<Scalar>::from(Scalar::from_repr(FieldBytes::from(
            *nonce,
        )))?);
        let point = ProjectivePoint::mul_by_generator(&scalar).to_affine();
        let encoded = point.to_sec1_point(false);
        self.finish(e, &nonce, encoded.as_bytes())
    }

    /// r = e + x mod n, s = (1 + d)⁻¹ · (k − r·d) = (1 + d)⁻¹ · (k + r) − r mod n, for k·G as an uncompressed point.
    /// One that is not on the curve was computed wrongly and gives nothing.
    pub(crate) fn finish(&self, e: &[u8; 32], nonce: &[u8; 32], point: &[u8]) -> Option<SignatureBytes> {
        sm2::PublicKey::from_sec1_bytes(point).ok()?;
        let x: [u8; 32] = point.get(1..33)?.try_into().ok()?;
        let nonce = Zeroizing::new(Option::<Scalar>::from(Scalar::from_repr(FieldBytes::from(
            *nonce,
        )))?);
        let reduced = |bytes: [u8; 32]| <Scalar as Reduce<FieldBytes>>::reduce(&FieldBytes::from(bytes));
        let r = reduced(*e) + reduced(x);
        let s = *self.inverse * (*nonce + r) - r;
        let zero = Scalar::default();
        if r == zero || r + *nonce == zero || s == zero {
            return None;
        }
        pair_to_der(&[r.to_repr(), s.to_repr()].concat())
    }
}
