//! What engine and worker process say to each other: the same length-prefixed CBOR frames as on the network, with
//! messages of their own. Both ends are one binary, so there is no version.

use minicbor::{Decode, Encode};
use protocol::frame;

/// One signature to make.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Op<'b> {
    /// Comes back with the result.
    #[n(0)]
    pub(crate) id: u64,
    /// CKA_ID of the key.
    #[cbor(b(1), with = "minicbor::bytes")]
    pub(crate) object: &'b [u8],
    /// An algorithm's wire number.
    #[n(2)]
    pub(crate) algorithm: u8,
    /// Digest or message.
    #[cbor(b(3), with = "minicbor::bytes")]
    pub(crate) input: &'b [u8],
}

/// From the engine to a worker.
#[derive(Debug, Encode, Decode)]
pub(crate) enum ToWorker<'b> {
    /// The first frame: which token, and its PIN.
    #[n(0)]
    Setup {
        #[b(0)]
        module: &'b str,
        #[b(1)]
        label: Option<&'b str>,
        #[b(2)]
        serial: Option<&'b str>,
        #[b(3)]
        pin: &'b str,
    },
    /// Sign these.
    #[n(1)]
    Sign(#[b(0)] Vec<Op<'b>>),
    /// Make a key pair.
    #[n(2)]
    Generate {
        #[b(0)]
        kind: &'b str,
        #[b(1)]
        label: &'b str,
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
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct WireError {
    /// The function and code, for people.
    #[n(0)]
    pub(crate) text: String,
    /// Whether the PIN is to blame.
    #[n(1)]
    pub(crate) auth: bool,
}

/// From a worker to the engine.
#[derive(Debug, Encode, Decode)]
pub(crate) enum FromWorker {
    /// The token is open and the user logged in.
    #[n(0)]
    Ready(#[n(0)] String),
    /// It is not, and will not be.
    #[n(1)]
    SetupFailed(#[n(0)] WireError),
    /// Results, in the order of completion.
    #[n(2)]
    Signed(#[n(0)] Vec<Signed>),
    /// A new key pair.
    #[n(3)]
    Generated {
        #[cbor(n(0), with = "minicbor::bytes")]
        object: Vec<u8>,
        #[cbor(n(1), with = "minicbor::bytes")]
        public_key: Vec<u8>,
    },
    /// No new key pair.
    #[n(4)]
    GenerateFailed(#[n(0)] WireError),
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
