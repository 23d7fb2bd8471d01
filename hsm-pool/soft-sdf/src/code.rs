//! The codes of GM/T 0018-2012, annex A, and the names that a script may use.

use std::ffi::c_int;

use fault_script::Vocabulary;

/// What a function has come to; the code of a failure is the library's answer.
pub(crate) type SdrResult<T> = Result<T, c_int>;

/// The answer to a caller.
pub(crate) fn answer(call: impl FnOnce() -> SdrResult<()>) -> c_int {
    call().err().unwrap_or(SDR_OK)
}

macro_rules! codes {
    ($($name:ident $number:literal $doc:literal;)*) => {
        $(
            #[doc = $doc]
            #[allow(dead_code, reason = "scripts name more of them than this library answers by itself")]
            pub(crate) const $name: c_int = $number;
        )*
        const CODES: &[(&str, u64)] = &[$((stringify!($name), $number)),*];
    };
}

codes! {
    SDR_OK 0 "Done.";
    SDR_UNKNOWERR 0x0100_0001 "Unknown error.";
    SDR_NOTSUPPORT 0x0100_0002 "The interface is not supported.";
    SDR_COMMFAIL 0x0100_0003 "Communication with the device failed.";
    SDR_HARDFAIL 0x0100_0004 "The module does not respond.";
    SDR_OPENDEVICE 0x0100_0005 "The device could not be opened.";
    SDR_OPENSESSION 0x0100_0006 "The session could not be made.";
    SDR_PARDENY 0x0100_0007 "No right to use the private key.";
    SDR_KEYNOTEXIST 0x0100_0008 "There is no such key.";
    SDR_ALGNOTSUPPORT 0x0100_0009 "The algorithm is not supported.";
    SDR_ALGMODNOTSUPPORT 0x0100_000A "The mode is not supported.";
    SDR_PKOPERR 0x0100_000B "The operation with the public key failed.";
    SDR_SKOPERR 0x0100_000C "The operation with the private key failed.";
    SDR_SIGNERR 0x0100_000D "Signing failed.";
    SDR_VERIFYERR 0x0100_000E "Verification failed.";
    SDR_SYMOPERR 0x0100_000F "The symmetric operation failed.";
    SDR_STEPERR 0x0100_0010 "A step is out of order.";
    SDR_FILESIZEERR 0x0100_0011 "The file is too long.";
    SDR_FILENOEXIST 0x0100_0012 "There is no such file.";
    SDR_FILEOFSERR 0x0100_0013 "The offset in the file is wrong.";
    SDR_KEYTYPEERR 0x0100_0014 "The key is of another type.";
    SDR_KEYERR 0x0100_0015 "The key is wrong.";
    SDR_ENCDATAERR 0x0100_0016 "The ECC ciphertext is wrong.";
    SDR_RANDERR 0x0100_0017 "No random numbers.";
    SDR_PRKRERR 0x0100_0018 "The right to use the private key was not given.";
    SDR_MACERR 0x0100_0019 "The MAC failed.";
    SDR_FILEEXISTS 0x0100_001A "The file exists.";
    SDR_FILEWERR 0x0100_001B "The file could not be written.";
    SDR_NOBUFFER 0x0100_001C "Not enough space.";
    SDR_INARGERR 0x0100_001D "An argument is wrong.";
    SDR_OUTARGERR 0x0100_001E "An argument for an answer is wrong.";
}

/// A code from a script, which may be any number.
pub(crate) fn from_script(code: u64) -> c_int {
    c_int::try_from(code).unwrap_or(SDR_UNKNOWERR)
}

macro_rules! functions {
    ($($name:ident)*) => {
        /// A function that a script may name; its number is its place in the vocabulary.
        #[derive(Clone, Copy, Debug)]
        #[expect(non_camel_case_types, reason = "the standard's names")]
        pub(crate) enum Function { $($name),* }

        const FUNCTIONS: &[&str] = &[$(stringify!($name)),*];
    };
}
functions! {
    SDF_OpenDevice SDF_CloseDevice SDF_OpenSession SDF_CloseSession SDF_GetDeviceInfo SDF_GenerateRandom
    SDF_GetPrivateKeyAccessRight SDF_ReleasePrivateKeyAccessRight SDF_ExportSignPublicKey_ECC SDF_InternalSign_ECC
    SDF_InternalVerify_ECC
}

/// The words of this library's scripts.
pub(crate) static VOCABULARY: Vocabulary = Vocabulary {
    functions: FUNCTIONS,
    signing: "SDF_InternalSign_ECC",
    sessions: &[
        "SDF_Get*",
        "SDF_Generate*",
        "SDF_Release*",
        "SDF_Export*",
        "SDF_Internal*",
    ],
    codes: CODES,
    removed: 0x0100_0003,
    states: &["removed", "sessions"],
};

#[cfg(test)]
mod tests {
    use fault_script::Script;

    use super::*;

    const SDR_BASE: c_int = 0x0100_0000;

    #[test]
    fn codes_count_up_from_the_base() {
        assert_eq!(CODES[0], ("SDR_OK", 0));
        for ((name, code), place) in CODES.iter().zip(SDR_BASE..).skip(1) {
            assert_eq!(from_script(*code), place, "{name}");
        }
        assert_eq!(SDR_OUTARGERR, SDR_BASE + 0x1e);
        assert_eq!(VOCABULARY.removed, SDR_COMMFAIL as u64);
    }

    #[test]
    fn scripts_may_name_functions_and_codes() {
        for (name, _) in CODES {
            assert!(Script::parse(&format!("SDF_Open*: error {name}"), &VOCABULARY).is_ok());
        }
        for name in FUNCTIONS.iter().chain(VOCABULARY.sessions) {
            assert!(Script::parse(&format!("{name}: hang"), &VOCABULARY).is_ok());
        }
        // SDF has no slots.
        assert!(Script::parse("renumber 100", &VOCABULARY).is_err());
    }
}
