//! Every error code, sorted by blame. A blame has one reaction: the caller corrects, an overload is retried
//! later, a device fails over, corrupt data stops us, a bug is ours to fix. One code has one stable name, one
//! number on the wire, one HTTP status and one exit code, and this table is the only place that says so.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The request is wrong; the same request will fail again.
    Caller,
    /// We lack capacity, or the caller is over its contract; later may succeed.
    Overload,
    /// A device that holds the key does not work.
    Device,
    /// What is on disk contradicts itself.
    Data,
    /// Ours.
    Bug,
}

macro_rules! codes {
    ($( $(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $status:literal, $blame:ident, retry $retry:literal; )*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Code { $( $(#[$doc])* $variant = $number, )* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The stable name: `code` in problem documents and on standard error.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// The HTTP status.
            pub const fn http_status(self) -> u16 {
                match self { $( Self::$variant => $status, )* }
            }

            /// Whose fault.
            pub const fn blame(self) -> Blame {
                match self { $( Self::$variant => Blame::$blame, )* }
            }

            /// Whether the same request, with the same idempotency key, may succeed later.
            pub const fn retryable(self) -> bool {
                match self { $( Self::$variant => $retry, )* }
            }

            /// The code of a wire number.
            pub const fn from_wire(number: u16) -> Option<Self> {
                match number { $( $number => Some(Self::$variant), )* _ => None }
            }
        }
    };
}

codes! {
    /// The bytes do not follow the protocol.
    MalformedRequest = 100, "malformed_request", 400, Caller, retry false;
    /// A protocol version we do not speak.
    UnsupportedVersion = 101, "unsupported_version", 400, Caller, retry false;
    /// A frame or body above its limit.
    TooLarge = 102, "too_large", 413, Caller, retry false;
    /// The digest's length does not fit the algorithm.
    DigestLength = 103, "digest_length", 422, Caller, retry false;
    /// The algorithm is unknown, or the credential's key cannot do it.
    UnsupportedAlgorithm = 104, "unsupported_algorithm", 422, Caller, retry false;
    /// No such credential for this app.
    UnknownCredential = 105, "unknown_credential", 404, Caller, retry false;
    /// The credential is disabled, suspended or revoked.
    CredentialDisabled = 106, "credential_disabled", 403, Caller, retry false;
    /// The idempotency key was used for another request.
    IdempotencyKeyReused = 107, "idempotency_key_reused", 422, Caller, retry false;
    /// A signing request without an idempotency key, or with one that is not well-formed.
    IdempotencyKeyInvalid = 108, "idempotency_key_invalid", 400, Caller, retry false;
    /// No proof, a wrong proof, or an unknown app: deliberately one code.
    Unauthenticated = 109, "unauthenticated", 401, Caller, retry false;
    /// The app is revoked or its tenant is closed.
    AppRevoked = 110, "app_revoked", 403, Caller, retry false;
    /// `created` is too far from the server's clock.
    StaleRequest = 111, "stale_request", 401, Caller, retry false;
    /// The body does not match its Content-Digest.
    ContentDigestMismatch = 112, "content_digest_mismatch", 400, Caller, retry false;
    /// More items than one call may carry.
    BatchTooLarge = 113, "batch_too_large", 422, Caller, retry false;
    /// A message longer than the algorithm takes.
    MessageTooLong = 114, "message_too_long", 422, Caller, retry false;
    /// Nothing is known under this idempotency key.
    NotFound = 115, "not_found", 404, Caller, retry false;
    /// The prepaid balance is used up.
    QuotaExhausted = 116, "quota_exhausted", 403, Caller, retry false;
    /// The format does not fit the algorithm or the credential.
    UnsupportedFormat = 117, "unsupported_format", 422, Caller, retry false;
    /// The rest of a frame or of a proof did not arrive in time.
    PeerTooSlow = 118, "peer_too_slow", 408, Caller, retry false;
    /// The app requires a session bound to the TLS exporter.
    BindingRequired = 119, "binding_required", 401, Caller, retry false;
    /// The method is not allowed on this path.
    MethodNotAllowed = 120, "method_not_allowed", 405, Caller, retry false;
    /// The body's media type is not the one this path takes.
    UnsupportedMediaType = 121, "unsupported_media_type", 415, Caller, retry false;
    /// The path is not one of ours.
    UnknownPath = 122, "unknown_path", 404, Caller, retry false;
    /// The tenant is suspended: it may look, and sign nothing.
    TenantSuspended = 123, "tenant_suspended", 403, Caller, retry false;
    /// The tenant is closed.
    TenantClosed = 124, "tenant_closed", 403, Caller, retry false;
    /// Production calls are taken from the activation date only.
    NotActivated = 125, "not_activated", 403, Caller, retry false;
    /// The term of every package is over.
    PackageExpired = 126, "package_expired", 403, Caller, retry false;
    /// The month is not one that can be asked for.
    MonthInvalid = 127, "month_invalid", 422, Caller, retry false;
    /// It was signed and counted so long ago that its signature is not kept for a retry any more.
    ReplyExpired = 128, "reply_expired", 410, Caller, retry false;
    /// The certificate of the credential has expired.
    CertificateExpired = 129, "certificate_expired", 403, Caller, retry false;
    /// A command line, profile or configuration that cannot be used.
    Usage = 130, "usage", 400, Caller, retry false;
    /// A local file that cannot be read or written.
    File = 131, "file", 400, Caller, retry false;
    /// A signature that does not verify.
    SignatureInvalid = 132, "signature_invalid", 422, Caller, retry false;
    /// An operator's request names something that exists already.
    AlreadyExists = 133, "already_exists", 409, Caller, retry false;
    /// The operator does not have the role that this needs.
    RoleMissing = 134, "role_missing", 403, Caller, retry false;
    /// It was recorded as a proposal: a second operator has to approve it.
    ApprovalNeeded = 135, "approval_needed", 409, Caller, retry false;
    /// Whoever proposed something cannot approve it as well.
    SecondOperatorNeeded = 136, "second_operator_needed", 403, Caller, retry false;
    /// What is named is in a state in which this is not possible.
    WrongState = 137, "wrong_state", 409, Caller, retry false;
    /// A host name or an origin under which the console is not reached.
    OriginRefused = 138, "origin_refused", 403, Caller, retry false;
    /// The certificate of the credential is not valid yet, by the engine's clock.
    CertificateNotYetValid = 139, "certificate_not_yet_valid", 403, Caller, retry false;
    /// A document that cannot be read, or is too large.
    DocumentUnreadable = 140, "document_unreadable", 422, Caller, retry false;
    /// A document that an earlier signature, its encryption or its form keep from being sealed in this way.
    DocumentRefused = 141, "document_refused", 422, Caller, retry false;
    /// A picture that cannot be a seal.
    ImageUnusable = 142, "image_unusable", 422, Caller, retry false;
    /// An electronic seal that is not what its maker signed, is not valid now, or does not allow the signer's certificate.
    SealUnusable = 143, "seal_unusable", 422, Caller, retry false;
    /// Nothing shows how a certificate stands, so a document cannot be made that shows it later.
    RevocationUnknown = 144, "revocation_unknown", 422, Caller, retry false;

    /// The body of a document has to be announced with its length.
    LengthRequired = 145, "length_required", 411, Caller, retry false;
    /// The caller cancelled the operation before its turn.
    OperationCancelled = 146, "operation_cancelled", 409, Caller, retry false;

    /// A certificate request that is not granted: its proof, key, names or wishes.
    RequestRefused = 150, "certificate_request_refused", 422, Caller, retry false;
    /// A certificate chain that does not belong to the key, or leads nowhere.
    ChainRefused = 151, "certificate_chain_refused", 422, Caller, retry false;
    /// The subject's identity is not approved.
    SubjectNotApproved = 152, "subject_not_approved", 403, Caller, retry false;
    /// An answer of a verification service that is not signed, not asked for, too late, or given before.
    VerificationRefused = 153, "verification_refused", 403, Caller, retry false;

    /// The app's tenant has no such seal.
    UnknownSeal = 160, "unknown_seal", 404, Caller, retry false;
    /// The seal is not in use yet: a draft, or in review.
    SealNotActive = 161, "seal_not_active", 403, Caller, retry false;
    /// The seal is frozen.
    SealFrozen = 162, "seal_frozen", 403, Caller, retry false;
    /// The seal is revoked for good, or destroyed.
    SealRevoked = 163, "seal_revoked", 403, Caller, retry false;
    /// The seal's validity is over, or has not begun.
    SealExpired = 164, "seal_expired", 403, Caller, retry false;
    /// Nobody has granted the seal to the app, or to this agent of it.
    SealNotGranted = 165, "seal_not_granted", 403, Caller, retry false;
    /// The grant's time is over, or has not begun.
    GrantExpired = 166, "grant_expired", 403, Caller, retry false;
    /// The grant is revoked.
    GrantRevoked = 167, "grant_revoked", 403, Caller, retry false;
    /// The grant was used as often as it allows.
    GrantUsedUp = 168, "grant_used_up", 403, Caller, retry false;
    /// The grant is not for this kind of document.
    DocumentNotGranted = 169, "document_not_granted", 403, Caller, retry false;
    /// The credential signs only under its seals.
    CredentialReserved = 170, "credential_reserved", 403, Caller, retry false;

    /// We cannot keep the promise for this request now.
    Overloaded = 200, "overloaded", 503, Overload, retry true;
    /// The app is above its contracted rate.
    RateLimited = 201, "rate_limited", 429, Overload, retry true;
    /// Too many connections, in all or from this address.
    TooManyConnections = 202, "too_many_connections", 503, Overload, retry true;
    /// The engine is stopping.
    ShuttingDown = 203, "shutting_down", 503, Overload, retry true;
    /// The disk is full; reading goes on.
    StorageFull = 204, "storage_full", 503, Overload, retry true;
    /// The part of the engine that held the request restarted.
    Restarted = 205, "restarted", 503, Overload, retry true;
    /// The request's deadline passed before it was started.
    DeadlineExceeded = 206, "deadline_exceeded", 503, Overload, retry true;
    /// The entry is not under a signed checkpoint of the audit log yet.
    ProofPending = 220, "proof_pending", 503, Overload, retry true;

    /// No device that holds the key works.
    DeviceUnavailable = 300, "device_unavailable", 503, Device, retry true;
    /// The device answered with an error.
    DeviceFailed = 301, "device_failed", 503, Device, retry true;
    /// The device's signature did not verify; it was not released.
    SignatureRejected = 302, "signature_rejected", 503, Device, retry true;
    /// Still running at the deadline, durably recorded; ask again by idempotency key.
    OutcomePending = 303, "outcome_pending", 504, Device, retry true;
    /// Still running at the deadline, and even the record of that did not come back; retry with the same key.
    OutcomeUnknown = 304, "outcome_unknown", 504, Device, retry true;
    /// The clock is behind what is on record: it was set back, and nothing is certified.
    ClockBehind = 315, "clock_behind", 503, Device, retry true;
    /// The authority that would certify is expired or not yet valid.
    AuthorityUnavailable = 316, "authority_unavailable", 503, Device, retry true;

    /// The store contradicts itself.
    DataCorrupt = 400, "data_corrupt", 500, Data, retry false;

    /// A fault of ours.
    Internal = 500, "internal", 500, Bug, retry true;
    /// The service could not be reached, or the connection broke.
    Connection = 501, "connection", 503, Bug, retry true;
    /// The server's answer does not follow the protocol, or its signature does not verify.
    BadAnswer = 502, "bad_answer", 502, Bug, retry false;
}

impl Code {
    /// The number on the wire.
    pub const fn wire(self) -> u16 {
        self as u16
    }

    /// The exit code of the command line: 2 the caller's mistake, 3 refused for load, 4 the service failed.
    pub const fn exit_code(self) -> u8 {
        match self.blame() {
            Blame::Caller => 2,
            Blame::Overload => 3,
            Blame::Device | Blame::Data | Blame::Bug => 4,
        }
    }

    /// The code of a stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| serde::de::Error::custom("unknown error code"))
    }
}

/// A refusal or failure as the caller hears it: a code, one sentence, and when to come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// One sentence that names what was wrong. Never holds a secret.
    pub message: std::borrow::Cow<'static, str>,
    /// When a retry makes sense, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
}

impl Refusal {
    /// A refusal with a fixed or composed sentence.
    pub fn new(code: Code, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        let message = message.into();
        Self {
            code,
            message,
            retry_after_ms: None,
        }
    }

    /// The same, with a time after which to retry.
    #[must_use]
    pub fn retry_after_ms(mut self, milliseconds: u32) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        for &code in Code::ALL {
            assert_eq!(Code::from_wire(code.wire()), Some(code));
            assert_eq!(Code::from_name(code.name()), Some(code));
        }
    }

    #[test]
    fn blame_decides_the_exit_code_and_the_status_class() {
        for &code in Code::ALL {
            let caller = code.blame() == Blame::Caller;
            assert_eq!(caller, code.exit_code() == 2, "{code}");
            assert_eq!(
                caller,
                (400..500).contains(&code.http_status()) && code != Code::RateLimited,
                "{code}"
            );
        }
    }
}
