//! The names that a script may use for this module: its functions, and every `CKR_*` code.

use cryptoki_sys as sys;
use fault_script::Vocabulary;

/// Hands the names of all functions that a script may name to another macro, behind the arguments given here.
macro_rules! with_functions {
    ($then:ident!($($before:tt)*)) => {
        $then! { $($before)*
            C_Initialize C_Finalize C_GetSlotList C_GetSlotInfo C_GetTokenInfo C_GetMechanismList
            C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession C_CloseSession C_CloseAllSessions
            C_GetSessionInfo C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject C_GetAttributeValue
            C_SetAttributeValue C_FindObjectsInit C_FindObjects C_FindObjectsFinal C_EncryptInit C_Encrypt
            C_DecryptInit C_Decrypt C_SignInit C_Sign C_VerifyInit C_Verify C_GenerateKey C_GenerateKeyPair
            C_WrapKey C_UnwrapKey C_DeriveKey C_GenerateRandom
        }
    };
}
pub(crate) use with_functions;

macro_rules! declare {
    ($($name:ident)*) => {
        /// A function of PKCS#11 that a script may name; its number is its place in the vocabulary.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(non_camel_case_types, reason = "the standard's names")]
        pub(crate) enum Function { $($name),* }

        const FUNCTIONS: &[&str] = &[$(stringify!($name)),*];
    };
}
with_functions!(declare!());

/// The functions that are called in a session. Closing one is left out: it must remain possible.
const IN_SESSION: &[&str] = &[
    "C_InitPIN",
    "C_SetPIN",
    "C_GetSessionInfo",
    "C_Login",
    "C_Logout",
    "C_CreateObject",
    "C_CopyObject",
    "C_DestroyObject",
    "C_GetAttributeValue",
    "C_SetAttributeValue",
    "C_FindObjects*",
    "C_Encrypt*",
    "C_Decrypt*",
    "C_Sign*",
    "C_Verify*",
    "C_Generate*",
    "C_WrapKey",
    "C_UnwrapKey",
    "C_DeriveKey",
];

impl Function {
    /// Whether the function makes no sense without a token in its slot.
    pub(crate) fn needs_token(self) -> bool {
        !matches!(
            self,
            Self::C_Initialize | Self::C_Finalize | Self::C_GetSlotList | Self::C_GetSlotInfo
        )
    }
}

macro_rules! codes {
    ($($name:ident)*) => { &[$((stringify!($name), sys::$name)),*] };
}

/// The words of this module's scripts.
pub(crate) static VOCABULARY: Vocabulary = Vocabulary {
    functions: FUNCTIONS,
    signing: "C_Sign",
    sessions: IN_SESSION,
    codes: codes! {
        CKR_ACTION_PROHIBITED CKR_AEAD_DECRYPT_FAILED CKR_ARGUMENTS_BAD CKR_ATTRIBUTE_READ_ONLY
        CKR_ATTRIBUTE_SENSITIVE CKR_ATTRIBUTE_TYPE_INVALID CKR_ATTRIBUTE_VALUE_INVALID CKR_BUFFER_TOO_SMALL
        CKR_CANCEL CKR_CANT_LOCK CKR_CRYPTOKI_ALREADY_INITIALIZED CKR_CRYPTOKI_NOT_INITIALIZED
        CKR_CURVE_NOT_SUPPORTED CKR_DATA_INVALID CKR_DATA_LEN_RANGE CKR_DEVICE_ERROR CKR_DEVICE_MEMORY
        CKR_DEVICE_REMOVED CKR_DOMAIN_PARAMS_INVALID CKR_ENCRYPTED_DATA_INVALID CKR_ENCRYPTED_DATA_LEN_RANGE
        CKR_EXCEEDED_MAX_ITERATIONS CKR_FIPS_SELF_TEST_FAILED CKR_FUNCTION_CANCELED CKR_FUNCTION_FAILED
        CKR_FUNCTION_NOT_PARALLEL CKR_FUNCTION_NOT_SUPPORTED CKR_FUNCTION_REJECTED CKR_GENERAL_ERROR
        CKR_HOST_MEMORY CKR_INFORMATION_SENSITIVE CKR_KEY_CHANGED CKR_KEY_EXHAUSTED
        CKR_KEY_FUNCTION_NOT_PERMITTED CKR_KEY_HANDLE_INVALID CKR_KEY_INDIGESTIBLE CKR_KEY_NEEDED
        CKR_KEY_NOT_NEEDED CKR_KEY_NOT_WRAPPABLE CKR_KEY_SIZE_RANGE CKR_KEY_TYPE_INCONSISTENT
        CKR_KEY_UNEXTRACTABLE CKR_LIBRARY_LOAD_FAILED CKR_MECHANISM_INVALID CKR_MECHANISM_PARAM_INVALID
        CKR_MUTEX_BAD CKR_MUTEX_NOT_LOCKED CKR_NEED_TO_CREATE_THREADS CKR_NEW_PIN_MODE CKR_NEXT_OTP
        CKR_NO_EVENT CKR_OBJECT_HANDLE_INVALID CKR_OK CKR_OPERATION_ACTIVE CKR_OPERATION_CANCEL_FAILED
        CKR_OPERATION_NOT_INITIALIZED CKR_OPERATION_NOT_VALIDATED CKR_PARAMETER_SET_NOT_SUPPORTED CKR_PENDING
        CKR_PIN_EXPIRED CKR_PIN_INCORRECT CKR_PIN_INVALID CKR_PIN_LEN_RANGE CKR_PIN_LOCKED CKR_PIN_TOO_WEAK
        CKR_PUBLIC_KEY_INVALID CKR_RANDOM_NO_RNG CKR_RANDOM_SEED_NOT_SUPPORTED CKR_SAVED_STATE_INVALID
        CKR_SEED_RANDOM_REQUIRED CKR_SESSION_ASYNC_NOT_SUPPORTED CKR_SESSION_CLOSED CKR_SESSION_COUNT
        CKR_SESSION_EXISTS CKR_SESSION_HANDLE_INVALID CKR_SESSION_PARALLEL_NOT_SUPPORTED CKR_SESSION_READ_ONLY
        CKR_SESSION_READ_ONLY_EXISTS CKR_SESSION_READ_WRITE_SO_EXISTS CKR_SIGNATURE_INVALID
        CKR_SIGNATURE_LEN_RANGE CKR_SLOT_ID_INVALID CKR_STATE_UNSAVEABLE CKR_TEMPLATE_INCOMPLETE
        CKR_TEMPLATE_INCONSISTENT CKR_TOKEN_NOT_INITIALIZED CKR_TOKEN_NOT_PRESENT CKR_TOKEN_NOT_RECOGNIZED
        CKR_TOKEN_RESOURCE_EXCEEDED CKR_TOKEN_WRITE_PROTECTED CKR_UNWRAPPING_KEY_HANDLE_INVALID
        CKR_UNWRAPPING_KEY_SIZE_RANGE CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT CKR_USER_ALREADY_LOGGED_IN
        CKR_USER_ANOTHER_ALREADY_LOGGED_IN CKR_USER_NOT_LOGGED_IN CKR_USER_PIN_NOT_INITIALIZED
        CKR_USER_TOO_MANY_TYPES CKR_USER_TYPE_INVALID CKR_VENDOR_DEFINED CKR_WRAPPED_KEY_INVALID
        CKR_WRAPPED_KEY_LEN_RANGE CKR_WRAPPING_KEY_HANDLE_INVALID CKR_WRAPPING_KEY_SIZE_RANGE
        CKR_WRAPPING_KEY_TYPE_INCONSISTENT
    },
    removed: sys::CKR_TOKEN_NOT_PRESENT,
    states: &["removed", "sessions", "renumber"],
};

#[cfg(test)]
mod tests {
    use fault_script::Script;

    use super::*;

    fn is_understood(text: &str) -> bool {
        Script::parse(text, &VOCABULARY).is_ok()
    }

    #[test]
    fn every_code_can_be_named() {
        assert!(VOCABULARY.codes.len() > 100);
        for (name, _) in VOCABULARY.codes {
            assert!(is_understood(&format!("C_SignInit: error {name}")), "{name}");
        }
        assert!(!is_understood("C_SignInit: error CKR_NO_SUCH_CODE"));
    }

    #[test]
    fn every_function_has_a_bit_and_can_be_named() {
        assert!(FUNCTIONS.len() <= 64);
        assert_eq!(FUNCTIONS[Function::C_GenerateRandom as usize], "C_GenerateRandom");
        for name in FUNCTIONS.iter().chain(IN_SESSION) {
            assert!(is_understood(&format!("{name}: hang")), "{name}");
        }
    }
}
