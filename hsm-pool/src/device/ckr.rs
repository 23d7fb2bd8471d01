//! `CKR_*` codes in six classes, because there are six reactions (PKCS#11 3.0, 5.1).

use cryptoki::error::{Error, RvError};

/// What a return code calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Class {
    /// The request is wrong for this key or mechanism: tell the caller, blame nobody else.
    #[n(0)]
    Request,
    /// The session or a handle is gone: open a new session, look the key up again.
    #[n(1)]
    Session,
    /// The device or its library is in trouble: recycle the process.
    #[n(2)]
    Device,
    /// The token is not there, or not the one we know.
    #[n(3)]
    Token,
    /// The PIN is wrong, locked or missing: never try again by itself, an operator must look.
    #[n(4)]
    Auth,
    /// The device is out of something for the moment: later, or elsewhere.
    #[n(5)]
    Busy,
}

/// The class of a failed call.
pub fn classify(error: &Error) -> Class {
    match error {
        Error::Pkcs11(code, _) => classify_code(code),
        Error::LibraryLoading(_) | Error::NullFunctionPointer | Error::MissingSymbol(_) => Class::Device,
        Error::PinNotSet => Class::Auth,
        _ => Class::Request,
    }
}

/// The class of a return code: the whole table of PKCS#11 3.1, 5.1.6, so that a new code of the library does not
/// compile until somebody has thought about it.
#[rustfmt::skip] // a table, as wide as the page
pub const fn classify_code(code: &RvError) -> Class {
    use RvError as R;
    match code {
        R::ArgumentsBad | R::NoEvent | R::AttributeReadOnly | R::AttributeSensitive |
            R::AttributeTypeInvalid | R::AttributeValueInvalid | R::ActionProhibited | R::DataInvalid |
            R::DataLenRange | R::EncryptedDataInvalid | R::EncryptedDataLenRange | R::FunctionNotSupported |
            R::CurveNotSupported | R::KeySizeRange | R::KeyTypeInconsistent | R::KeyNotNeeded | R::KeyNeeded |
            R::KeyIndigestible | R::KeyFunctionNotPermitted | R::KeyNotWrappable | R::KeyUnextractable |
            R::MechanismInvalid | R::MechanismParamInvalid | R::SignatureInvalid | R::SignatureLenRange |
            R::TemplateIncomplete | R::TemplateInconsistent | R::UnwrappingKeySizeRange |
            R::UnwrappingKeyTypeInconsistent | R::WrappedKeyInvalid | R::WrappedKeyLenRange |
            R::WrappingKeySizeRange | R::WrappingKeyTypeInconsistent | R::RandomSeedNotSupported |
            R::DomainParamsInvalid | R::BufferTooSmall | R::SavedStateInvalid | R::InformationSensitive |
            R::NewPinMode | R::NextOtp | R::ExceededMaxIterations | R::PublicKeyInvalid | R::FunctionRejected => Class::Request,
        R::SessionClosed | R::SessionHandleInvalid | R::SessionParallelNotSupported | R::SessionReadOnly |
            R::SessionExists | R::SessionReadOnlyExists | R::SessionReadWriteSoExists | R::UserNotLoggedIn |
            R::UserAlreadyLoggedIn | R::KeyHandleInvalid | R::ObjectHandleInvalid |
            R::UnwrappingKeyHandleInvalid | R::WrappingKeyHandleInvalid | R::KeyChanged | R::OperationActive |
            R::OperationNotInitialized => Class::Session,
        R::GeneralError | R::FunctionFailed | R::DeviceError | R::CryptokiNotInitialized |
            R::CryptokiAlreadyInitialized | R::MutexBad | R::MutexNotLocked | R::NeedToCreateThreads |
            R::CantLock | R::FipsSelfTestFailed | R::LibraryLoadFailed | R::RandomNoRng |
            R::FunctionNotParallel | R::StateUnsaveable | R::VendorDefined(_) | R::UnknownErrorCode(_) => Class::Device,
        R::TokenNotPresent | R::TokenNotRecognized | R::TokenWriteProtected | R::DeviceRemoved |
            R::SlotIdInvalid => Class::Token,
        R::PinIncorrect | R::PinInvalid | R::PinLenRange | R::PinExpired | R::PinLocked | R::PinTooWeak |
            R::UserPinNotInitialized | R::UserTypeInvalid | R::UserAnotherAlreadyLoggedIn |
            R::UserTooManyTypes => Class::Auth,
        R::SessionCount | R::DeviceMemory | R::HostMemory | R::FunctionCanceled | R::Cancel => Class::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::error::Rv;
    use cryptoki_sys as sys;

    /// Every code of the standard by its number, as a module returns it, and what it calls for.
    #[test]
    #[rustfmt::skip] // a table, as wide as the page
    fn every_code_of_the_standard_has_its_class() {
        let classes: [(Class, &[sys::CK_RV]); 6] = [
            (Class::Request, &[
                sys::CKR_ARGUMENTS_BAD, sys::CKR_NO_EVENT, sys::CKR_ATTRIBUTE_READ_ONLY,
                sys::CKR_ATTRIBUTE_SENSITIVE, sys::CKR_ATTRIBUTE_TYPE_INVALID, sys::CKR_ATTRIBUTE_VALUE_INVALID,
                sys::CKR_ACTION_PROHIBITED, sys::CKR_DATA_INVALID, sys::CKR_DATA_LEN_RANGE,
                sys::CKR_ENCRYPTED_DATA_INVALID, sys::CKR_ENCRYPTED_DATA_LEN_RANGE,
                sys::CKR_FUNCTION_NOT_SUPPORTED, sys::CKR_CURVE_NOT_SUPPORTED, sys::CKR_KEY_SIZE_RANGE,
                sys::CKR_KEY_TYPE_INCONSISTENT, sys::CKR_KEY_NOT_NEEDED, sys::CKR_KEY_NEEDED,
                sys::CKR_KEY_INDIGESTIBLE, sys::CKR_KEY_FUNCTION_NOT_PERMITTED, sys::CKR_KEY_NOT_WRAPPABLE,
                sys::CKR_KEY_UNEXTRACTABLE, sys::CKR_MECHANISM_INVALID, sys::CKR_MECHANISM_PARAM_INVALID,
                sys::CKR_SIGNATURE_INVALID, sys::CKR_SIGNATURE_LEN_RANGE, sys::CKR_TEMPLATE_INCOMPLETE,
                sys::CKR_TEMPLATE_INCONSISTENT, sys::CKR_UNWRAPPING_KEY_SIZE_RANGE,
                sys::CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT, sys::CKR_WRAPPED_KEY_INVALID,
                sys::CKR_WRAPPED_KEY_LEN_RANGE, sys::CKR_WRAPPING_KEY_SIZE_RANGE,
                sys::CKR_WRAPPING_KEY_TYPE_INCONSISTENT, sys::CKR_RANDOM_SEED_NOT_SUPPORTED,
                sys::CKR_DOMAIN_PARAMS_INVALID, sys::CKR_BUFFER_TOO_SMALL, sys::CKR_SAVED_STATE_INVALID,
                sys::CKR_INFORMATION_SENSITIVE, sys::CKR_NEW_PIN_MODE, sys::CKR_NEXT_OTP,
                sys::CKR_EXCEEDED_MAX_ITERATIONS, sys::CKR_PUBLIC_KEY_INVALID, sys::CKR_FUNCTION_REJECTED]),
            (Class::Session, &[
                sys::CKR_SESSION_CLOSED, sys::CKR_SESSION_HANDLE_INVALID,
                sys::CKR_SESSION_PARALLEL_NOT_SUPPORTED, sys::CKR_SESSION_READ_ONLY, sys::CKR_SESSION_EXISTS,
                sys::CKR_SESSION_READ_ONLY_EXISTS, sys::CKR_SESSION_READ_WRITE_SO_EXISTS,
                sys::CKR_USER_NOT_LOGGED_IN, sys::CKR_USER_ALREADY_LOGGED_IN, sys::CKR_KEY_HANDLE_INVALID,
                sys::CKR_OBJECT_HANDLE_INVALID, sys::CKR_UNWRAPPING_KEY_HANDLE_INVALID,
                sys::CKR_WRAPPING_KEY_HANDLE_INVALID, sys::CKR_KEY_CHANGED, sys::CKR_OPERATION_ACTIVE,
                sys::CKR_OPERATION_NOT_INITIALIZED]),
            (Class::Device, &[
                sys::CKR_GENERAL_ERROR, sys::CKR_FUNCTION_FAILED, sys::CKR_DEVICE_ERROR,
                sys::CKR_CRYPTOKI_NOT_INITIALIZED, sys::CKR_CRYPTOKI_ALREADY_INITIALIZED, sys::CKR_MUTEX_BAD,
                sys::CKR_MUTEX_NOT_LOCKED, sys::CKR_NEED_TO_CREATE_THREADS, sys::CKR_CANT_LOCK,
                sys::CKR_FIPS_SELF_TEST_FAILED, sys::CKR_LIBRARY_LOAD_FAILED, sys::CKR_RANDOM_NO_RNG,
                sys::CKR_FUNCTION_NOT_PARALLEL, sys::CKR_STATE_UNSAVEABLE, sys::CKR_VENDOR_DEFINED,
                sys::CKR_VENDOR_DEFINED + 0x1234, 0x7fff_1234]),
            (Class::Token, &[
                sys::CKR_TOKEN_NOT_PRESENT, sys::CKR_TOKEN_NOT_RECOGNIZED, sys::CKR_TOKEN_WRITE_PROTECTED,
                sys::CKR_DEVICE_REMOVED, sys::CKR_SLOT_ID_INVALID]),
            (Class::Auth, &[
                sys::CKR_PIN_INCORRECT, sys::CKR_PIN_INVALID, sys::CKR_PIN_LEN_RANGE, sys::CKR_PIN_EXPIRED,
                sys::CKR_PIN_LOCKED, sys::CKR_PIN_TOO_WEAK, sys::CKR_USER_PIN_NOT_INITIALIZED,
                sys::CKR_USER_TYPE_INVALID, sys::CKR_USER_ANOTHER_ALREADY_LOGGED_IN,
                sys::CKR_USER_TOO_MANY_TYPES]),
            (Class::Busy, &[
                sys::CKR_SESSION_COUNT, sys::CKR_DEVICE_MEMORY, sys::CKR_HOST_MEMORY,
                sys::CKR_FUNCTION_CANCELED, sys::CKR_CANCEL]),
        ];
        for (class, codes) in classes {
            for &code in codes {
                let Rv::Error(error) = Rv::from(code) else { panic!("{code:#x} is no error") };
                assert_eq!(classify_code(&error), class, "{error:?} ({code:#x})");
            }
        }
    }
}
