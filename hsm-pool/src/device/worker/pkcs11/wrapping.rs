//! RFC 5649 key wrapping under the two names it has in PKCS#11.
//!
//! `CKM_AES_KEY_WRAP_KWP` (PKCS#11 3.0) is RFC 5649 and nothing else. `CKM_AES_KEY_WRAP_PAD` is RFC 5649 in some modules
//! (SoftHSM2) and PKCS#7 padding in others. So a wrapped key records mechanism and vendor, and only what is known
//! to be RFC 5649 is taken to a device that knows it under the other name.
#![expect(
    unsafe_code,
    reason = "cryptoki 0.12 has no name for CKM_AES_KEY_WRAP_KWP and no way to make one"
)]

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::slot::Slot;
use cryptoki_sys::{CK_MECHANISM_TYPE, CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD};

use super::TokenError;

/// Vendors whose `CKM_AES_KEY_WRAP_PAD` is RFC 5649.
const PAD_IS_RFC_5649: [&str; 1] = ["SoftHSM project"];

/// How a token wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrapping {
    /// The mechanism's number.
    pub(super) number: u64,
    /// Whether it is RFC 5649.
    rfc_5649: bool,
}

fn is_rfc_5649(mechanism: u64, vendor: &str) -> bool {
    mechanism == CKM_AES_KEY_WRAP_KWP
        || mechanism == CKM_AES_KEY_WRAP_PAD && PAD_IS_RFC_5649.iter().any(|known| vendor.starts_with(known))
}

impl Wrapping {
    /// What a token knows: KWP, which is unambiguous, before PAD.
    pub(super) fn of(module: &Pkcs11, slot: Slot, vendor: &str) -> Option<Self> {
        let knows = |number: &u64| module.get_mechanism_info(slot, mechanism_type(*number)).is_ok();
        let number = [CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD]
            .into_iter()
            .find(knows)?;
        let rfc_5649 = is_rfc_5649(number, vendor);
        Some(Self { number, rfc_5649 })
    }

    pub(super) fn mechanism(self) -> Mechanism<'static> {
        if self.number == CKM_AES_KEY_WRAP_PAD {
            return Mechanism::AesKeyWrapPad;
        }
        Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(
            mechanism_type(self.number),
            None,
        ))
    }

    /// Whether this token can unwrap what another one wrapped.
    pub(super) fn unwraps(self, mechanism: u64, vendor: &str, own_vendor: &str) -> Result<Self, TokenError> {
        let the_same = self.number == mechanism && vendor == own_vendor;
        if the_same || self.rfc_5649 && is_rfc_5649(mechanism, vendor) {
            Ok(self)
        } else {
            Err(TokenError::Unsupported)
        }
    }
}

fn mechanism_type(number: CK_MECHANISM_TYPE) -> MechanismType {
    // SAFETY: MechanismType is `repr(transparent)` over CK_MECHANISM_TYPE, and any number is a value of it.
    unsafe { std::mem::transmute::<CK_MECHANISM_TYPE, MechanismType>(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_rfc_5649_goes_to_another_vendor() {
        let soft = Wrapping {
            number: CKM_AES_KEY_WRAP_PAD,
            rfc_5649: true,
        };
        let kwp = Wrapping {
            number: CKM_AES_KEY_WRAP_KWP,
            rfc_5649: true,
        };
        let other = Wrapping {
            number: CKM_AES_KEY_WRAP_PAD,
            rfc_5649: false,
        };
        assert!(
            kwp.unwraps(CKM_AES_KEY_WRAP_PAD, "SoftHSM project", "Kryoptic")
                .is_ok()
        );
        assert!(
            soft.unwraps(CKM_AES_KEY_WRAP_KWP, "Kryoptic", "SoftHSM project")
                .is_ok()
        );
        assert!(kwp.unwraps(CKM_AES_KEY_WRAP_PAD, "Somebody", "Kryoptic").is_err());
        assert!(
            other
                .unwraps(CKM_AES_KEY_WRAP_KWP, "Kryoptic", "Somebody")
                .is_err()
        );
        assert!(
            other
                .unwraps(CKM_AES_KEY_WRAP_PAD, "Somebody", "Somebody")
                .is_ok()
        );
    }
}
