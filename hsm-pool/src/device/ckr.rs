//! `CKR_*` codes in six classes, because there are six reactions (PKCS#11 3.0, 5.1).

use cryptoki::error::{Error, RvError};

/// What a return code calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request is wrong for this key or mechanism: tell the caller, blame nobody else.
    Request,
    /// The session or a handle is gone: open a new session, look the key up again.
    Session,
    /// The device or its library is in trouble: recycle the process.
    Device,
    /// The token is not there, or not the one we know.
    Token,
    /// The PIN is wrong, locked or missing: never try again by itself, an operator must look.
    Auth,
    /// The device is out of something for the moment: later, or elsewhere.
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

/// The class of a return code.
pub fn classify_code(code: &RvError) -> Class {
    use RvError as R;
    match code {
        R::PinIncorrect
        | R::PinInvalid
        | R::PinLenRange
        | R::PinExpired
        | R::PinLocked
        | R::PinTooWeak
        | R::UserPinNotInitialized
        | R::UserTypeInvalid
        | R::UserAnotherAlreadyLoggedIn
        | R::UserTooManyTypes => Class::Auth,
        R::SessionClosed
        | R::SessionHandleInvalid
        | R::SessionParallelNotSupported
        | R::SessionReadOnly
        | R::SessionExists
        | R::SessionReadOnlyExists
        | R::SessionReadWriteSoExists
        | R::UserNotLoggedIn
        | R::UserAlreadyLoggedIn
        | R::KeyHandleInvalid
        | R::ObjectHandleInvalid
        | R::KeyChanged
        | R::OperationActive
        | R::OperationNotInitialized => Class::Session,
        R::TokenNotPresent
        | R::TokenNotRecognized
        | R::TokenWriteProtected
        | R::DeviceRemoved
        | R::SlotIdInvalid => Class::Token,
        R::SessionCount | R::DeviceMemory | R::HostMemory | R::FunctionCanceled | R::Cancel => Class::Busy,
        R::GeneralError
        | R::FunctionFailed
        | R::DeviceError
        | R::CryptokiNotInitialized
        | R::CryptokiAlreadyInitialized
        | R::MutexBad
        | R::MutexNotLocked
        | R::NeedToCreateThreads
        | R::CantLock
        | R::FipsSelfTestFailed
        | R::LibraryLoadFailed
        | R::RandomNoRng
        | R::FunctionNotParallel
        | R::StateUnsaveable => Class::Device,
        R::VendorDefined(_) => Class::Device,
        _ => Class::Request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_code_of_each_class() {
        for (code, class) in [
            (RvError::MechanismInvalid, Class::Request),
            (RvError::DataLenRange, Class::Request),
            (RvError::SessionHandleInvalid, Class::Session),
            (RvError::ObjectHandleInvalid, Class::Session),
            (RvError::DeviceError, Class::Device),
            (RvError::VendorDefined(7), Class::Device),
            (RvError::TokenNotPresent, Class::Token),
            (RvError::PinLocked, Class::Auth),
            (RvError::SessionCount, Class::Busy),
        ] {
            assert_eq!(classify_code(&code), class, "{code:?}");
        }
    }
}
