//! Every bound of the protocol, with its unit in its name. Bounds that depend on one another are asserted below,
//! so that a change that breaks a relation does not compile. `docs/limits.md` says why each has its value.

/// Largest frame payload on the native protocol, in bytes.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Largest frame before a session is proved, in bytes: a hello and a proof need far less.
pub const FRAME_UNPROVED_BYTES_MAX: usize = 4 * 1024;
/// Largest HTTP request body, in bytes.
pub const HTTP_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Largest document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Largest document whose sealing is awaited, in bytes; a larger one is an operation (202).
pub const DOCUMENT_CALL_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest request about a document beside the document itself, in bytes: the order, and a picture in it.
pub const DOCUMENT_ORDER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long the upload of a document may take, in milliseconds: 128 MiB at 9 Mbit/s.
pub const DOCUMENT_UPLOAD_MS_MAX: u64 = 120_000;
/// For how long the documents of a job are kept after it was made, in milliseconds.
pub const JOB_KEPT_MS: u64 = 7 * 24 * 3_600_000;
/// Digests or messages in one call whose answer is awaited (SEMANTICS 2.1).
pub const BATCH_ITEMS_MAX: usize = 64;
/// Longest message for the algorithms that sign a whole message, in bytes (SEMANTICS 2.2).
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// Longest id of a tenant, an app or a credential, in bytes.
pub const ID_BYTES_MAX: usize = 64;
/// Longest SM2 user id, in bytes (GB/T 32918.2 counts its bits in 16 bits; nobody needs that many).
pub const SM2_USER_ID_BYTES_MAX: usize = 128;
/// Largest picture of a seal, in bytes: it goes twice into the frame that brings a seal to an app, once in the electronic
/// seal itself.
pub const SEAL_PICTURE_BYTES_MAX: usize = 96 * 1024;
/// Longest algorithm-independent signature the engine produces, in bytes (RSA-4096).
pub const SIGNATURE_BYTES_MAX: usize = 512;

/// The client hears at the latest after this long, in milliseconds (SEMANTICS 1.3).
pub const ANSWER_MS_MAX: u64 = 2_500;
/// If even the record of "pending" does not come back from the disk, the client hears then, in milliseconds.
pub const ANSWER_HARD_MS_MAX: u64 = 2_800;
/// The promise (SLA A 4.2), in milliseconds.
pub const PROMISE_MS_MAX: u64 = 3_000;
/// A device call that takes longer is taken for hung and its process is killed, in milliseconds.
pub const DEVICE_HANG_MS_MAX: u64 = 2_000;
/// The shortest deadline a caller may ask for, in milliseconds.
pub const DEADLINE_MS_MIN: u64 = 10;

/// Requests in flight on one native session.
pub const SESSION_IN_FLIGHT_MAX: usize = 4_096;
/// Bidirectional streams one connection may have open.
pub const SESSION_STREAMS_MAX: u32 = 64;
/// A session that is not proved after this long is closed, in milliseconds.
pub const SESSION_PROOF_MS_MAX: u64 = 5_000;
/// The rest of a frame must arrive within this time after its first byte, in milliseconds.
pub const FRAME_REST_MS_MAX: u64 = 5_000;
/// How far `created` of an HTTP message signature may be from the server's clock, in seconds (SEMANTICS 2.4).
pub const HTTP_CREATED_SKEW_S_MAX: u64 = 60;

/// For how long a retry or a look-up gets the recorded signature, in milliseconds (SEMANTICS 1.4). Its key is used up for
/// as long as the journal is kept.
pub const REPLY_KEPT_MS: u64 = 30 * 24 * 3_600_000;

const _: () = assert!(ANSWER_MS_MAX < ANSWER_HARD_MS_MAX && ANSWER_HARD_MS_MAX < PROMISE_MS_MAX);
const _: () = assert!(DEVICE_HANG_MS_MAX < ANSWER_MS_MAX);
const _: () = assert!(DEADLINE_MS_MIN < ANSWER_MS_MAX);
// A frame must be able to carry one message of the largest size beside its ids, and a full batch of digests.
const _: () = assert!(FRAME_BYTES_MAX > MESSAGE_BYTES_MAX + 1024);
const _: () = assert!(FRAME_BYTES_MAX > BATCH_ITEMS_MAX * 66 + 1024);
// Base64 grows a message by a third.
const _: () = assert!(FRAME_BYTES_MAX > 2 * SEAL_PICTURE_BYTES_MAX + 56 * 1024);
const _: () = assert!(HTTP_BODY_BYTES_MAX > MESSAGE_BYTES_MAX / 3 * 4 + 1024);
const _: () = assert!(FRAME_UNPROVED_BYTES_MAX < FRAME_BYTES_MAX);
