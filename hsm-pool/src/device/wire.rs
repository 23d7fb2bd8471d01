//! What engine and worker process say to each other: the same length-prefixed CBOR frames as on the network, with
//! messages of their own. Both ends are one binary, so there is no version.

use minicbor::{Decode, Encode};
use protocol::frame;

use super::ckr::Class;
use crate::keys::WrappedKey;

/// One signature to make.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Op<'b> {
    /// Comes back with the result.
    #[n(0)]
    pub(crate) id: u64,
    /// An algorithm's wire number.
    #[n(1)]
    pub(crate) algorithm: u8,
    /// Digest or message.
    #[cbor(b(2), with = "minicbor::bytes")]
    pub(crate) input: &'b [u8],
    /// With which key.
    #[b(3)]
    pub(crate) key: OpKey<'b>,
}

/// The key of an op.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum OpKey<'b> {
    /// An object in the device.
    #[n(0)]
    Object(#[cbor(b(0), with = "minicbor::bytes")] &'b [u8]),
    /// A key that is unwrapped when it is needed.
    #[n(1)]
    Wrapped {
        /// Names it in the worker's cache.
        #[n(0)]
        row: u32,
        /// Whose it is.
        #[n(1)]
        tenant: u32,
        /// A key kind's name.
        #[b(2)]
        kind: &'b str,
        /// How it is wrapped.
        #[n(3)]
        mechanism: u64,
        /// By which vendor's device.
        #[b(6)]
        vendor: &'b str,
        /// Under what.
        #[cbor(b(4), with = "minicbor::bytes")]
        kek: &'b [u8],
        /// The wrapped key.
        #[cbor(b(5), with = "minicbor::bytes")]
        blob: &'b [u8],
    },
}

/// The first frame: which token, its PIN, and what the process may do.
#[derive(Debug, Encode, Decode)]
pub(crate) struct Setup<'b> {
    /// PKCS#11 or SDF.
    #[n(0)]
    pub(crate) sdf: bool,
    #[b(1)]
    pub(crate) module: &'b str,
    #[b(2)]
    pub(crate) label: Option<&'b str>,
    #[b(3)]
    pub(crate) serial: Option<&'b str>,
    #[b(4)]
    pub(crate) pin: &'b str,
    /// Sessions, each on a thread of its own.
    #[n(5)]
    pub(crate) sessions: u16,
    /// Unwrapped keys kept.
    #[n(6)]
    pub(crate) cache: u32,
    /// Folders the module may write to, and nowhere else, where the kernel can see to it.
    #[b(7)]
    pub(crate) writable: Option<Vec<&'b str>>,
    /// The probe key's name, where the configuration has one.
    #[b(8)]
    pub(crate) probe: Option<&'b str>,
}

/// From the engine to a worker.
#[derive(Debug, Encode, Decode)]
pub(crate) enum ToWorker<'b> {
    /// The first frame.
    #[n(0)]
    Setup(#[b(0)] Setup<'b>),
    /// Sign these.
    #[n(1)]
    Sign(#[b(0)] Vec<Op<'b>>),
    /// Do this.
    #[n(2)]
    Order(#[n(0)] Order),
}

/// Something an operator wants done in a device. Rare, so it owns what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Order {
    /// Make a key pair. With `kek`: a pair that can leave the device, wrapped under it.
    #[n(0)]
    Generate {
        #[n(0)]
        kind: String,
        #[n(1)]
        label: String,
        /// Whether it stays in the device as an object.
        #[n(2)]
        keep: bool,
        #[cbor(n(3), with = "minicbor::bytes")]
        kek: Option<Vec<u8>>,
    },
    /// Make an object of a wrapped key.
    #[n(1)]
    Unwrap {
        #[n(0)]
        key: WrappedKey,
        #[n(1)]
        kind: String,
        #[n(2)]
        label: String,
        #[cbor(n(3), with = "minicbor::bytes")]
        object: Vec<u8>,
    },
    /// Destroy a key pair.
    #[n(2)]
    Destroy(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// List the private keys.
    #[n(3)]
    List,
    /// Find the probe key, or make it.
    #[n(4)]
    ProbeKey,
    /// Make a wrapping key.
    #[n(5)]
    MakeKek(#[n(0)] String),
    /// Make an RSA pair through which a wrapping key can come in.
    #[n(6)]
    MakeTransport,
    /// Wrap a wrapping key for another device's transport key (SubjectPublicKeyInfo).
    #[n(7)]
    ExportKek {
        #[cbor(n(0), with = "minicbor::bytes")]
        kek: Vec<u8>,
        #[cbor(n(1), with = "minicbor::bytes")]
        transport: Vec<u8>,
    },
    /// Take a wrapping key in.
    #[n(8)]
    ImportKek {
        #[cbor(n(0), with = "minicbor::bytes")]
        kek: Vec<u8>,
        #[n(1)]
        label: String,
        #[cbor(n(2), with = "minicbor::bytes")]
        transport: Vec<u8>,
        #[cbor(n(3), with = "minicbor::bytes")]
        blob: Vec<u8>,
    },
    /// Sign once with a key, to prove that it is there and the right one.
    #[n(9)]
    Prove {
        /// Where it is an object.
        #[cbor(n(0), with = "minicbor::bytes")]
        object: Vec<u8>,
        /// Where it is wrapped.
        #[n(1)]
        wrapped: Option<WrappedKey>,
        #[n(2)]
        kind: String,
        #[n(3)]
        algorithm: u8,
        #[cbor(n(4), with = "minicbor::bytes")]
        input: Vec<u8>,
    },
    /// Find a key pair that is there already: by label in PKCS#11, by index in SDF.
    #[n(10)]
    Find {
        #[n(0)]
        name: String,
        #[n(1)]
        kind: String,
    },
}

/// The result of one op.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Signed {
    #[n(0)]
    pub(crate) id: u64,
    /// The signature, in the algorithm's usual encoding.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) signature: Vec<u8>,
    /// Why there is none.
    #[n(2)]
    pub(crate) error: Option<WireError>,
    /// How long the device took, in microseconds.
    #[n(3)]
    pub(crate) us: u32,
    /// Whether a wrapped key had to be unwrapped first.
    #[n(4)]
    pub(crate) unwrapped: bool,
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct WireError {
    /// The function and code, for people.
    #[n(0)]
    pub(crate) text: String,
    /// What it calls for.
    #[n(1)]
    pub(crate) class: Class,
}

/// What a token says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TokenFacts {
    /// Label.
    #[n(0)]
    pub label: String,
    /// Serial number.
    #[n(1)]
    pub serial: String,
    /// Manufacturer and model.
    #[n(2)]
    pub model: String,
    /// The interface and its version.
    #[n(3)]
    pub interface: String,
    /// Sessions one application may open; 0: it does not say.
    #[n(4)]
    pub sessions_max: u64,
    /// Wrapping keys: CKA_ID and check value.
    #[n(5)]
    pub keks: Vec<Kek>,
}

/// A wrapping key in a device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Kek {
    /// CKA_ID.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: Vec<u8>,
    /// CKA_LABEL.
    #[n(1)]
    pub label: String,
    /// CKA_CHECK_VALUE; empty where the device does not show it.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub check: Vec<u8>,
}

/// A private key in a device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceObject {
    /// CKA_ID.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: Vec<u8>,
    /// CKA_LABEL.
    #[n(1)]
    pub label: String,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Ordered {
    #[n(0)]
    Done,
    /// A key pair: CKA_ID (empty if it does not stay), SubjectPublicKeyInfo, and the wrapped private key.
    #[n(1)]
    Made {
        #[cbor(n(0), with = "minicbor::bytes")]
        object: Vec<u8>,
        #[cbor(n(1), with = "minicbor::bytes")]
        public_key: Vec<u8>,
        #[n(2)]
        wrapped: Option<WrappedKey>,
    },
    #[n(2)]
    Objects(#[n(0)] Vec<DeviceObject>),
    #[n(3)]
    Kek(#[n(0)] Kek),
    #[n(4)]
    Blob(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(5)]
    Failed(#[n(0)] WireError),
}

/// From a worker to the engine.
#[derive(Debug, Encode, Decode)]
pub(crate) enum FromWorker {
    /// The token is open and the user logged in.
    #[n(0)]
    Ready(#[n(0)] TokenFacts),
    /// It is not, and will not be.
    #[n(1)]
    SetupFailed(#[n(0)] WireError),
    /// Results, in the order of completion.
    #[n(2)]
    Signed(#[n(0)] Vec<Signed>),
    /// What came of an order.
    #[n(3)]
    Ordered(#[n(0)] Ordered),
    /// The last words of a process whose session is in doubt: these were not started.
    #[n(4)]
    Leaving(#[n(0)] Vec<u64>),
}

/// Largest frame between engine and worker: a batch of the longest messages.
pub(crate) const FRAME_BYTES_MAX: usize = 8 << 20;

/// A message as a frame.
pub(crate) fn to_frame(message: &impl Encode<()>) -> Vec<u8> {
    let mut out = Vec::new();
    frame::append(&mut out, |out| {
        minicbor::encode(message, out).expect("writing to a Vec cannot fail");
    });
    out
}
