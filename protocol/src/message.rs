//! The messages of the native protocol, as CBOR with integer keys (`docs/wire.cddl`).
//!
//! A frame's payload is a CBOR array `[type, …]`. A request travels as `[5, body, mac]`, where `body` is a byte
//! string holding the encoded `[operation, map]`: the MAC is over exactly the bytes that arrived, so nothing is
//! ever encoded again to be checked.

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Decoder, Encode, Encoder};
use smallvec::SmallVec;

use crate::algorithm::{Algorithm, Format, KeyKind};
use crate::error_code::{Code, Refusal};
use crate::ids::Sequence;
use crate::limits::BATCH_ITEMS_MAX;
use crate::seal::{DocumentKind, SealInfo};

/// The protocol version, also in the ALPN name.
pub const VERSION: u32 = 1;
/// The ALPN protocol name.
pub const ALPN: &[u8] = b"cinnabar/1";

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const PROVE: u8 = 3;
const PROVED: u8 = 4;
const SEALED: u8 = 5;
const REPLY: u8 = 6;
const CLOSING: u8 = 7;

const OP_SIGN: u8 = 1;
const OP_LOOKUP: u8 = 2;
const OP_CREDENTIALS: u8 = 3;
const OP_USAGE: u8 = 4;
const OP_STAMP: u8 = 5;
const OP_STATUS: u8 = 6;
const OP_SEALS: u8 = 7;

/// Bytes that are not a message of this protocol.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct MessageError {
    what: &'static str,
    source: minicbor::decode::Error,
}

fn malformed(what: &'static str) -> impl FnOnce(minicbor::decode::Error) -> MessageError {
    move |source| MessageError { what, source }
}

/// How a session is bound to its TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Binding {
    /// To the server certificate only, for stacks without an exporter.
    Certificate = 0,
    /// To the TLS exporter as well (RFC 8446 7.5).
    Exporter = 1,
    /// The client's certificate is the proof; requests carry no MAC.
    ClientCertificate = 2,
}

impl Binding {
    const fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Certificate),
            1 => Some(Self::Exporter),
            2 => Some(Self::ClientCertificate),
            _ => None,
        }
    }
}

/// The client's first message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Protocol version.
    #[n(0)]
    pub version: u32,
    /// The app that will be proved.
    #[n(1)]
    pub app: String,
    /// 32 fresh random bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// A [`Binding`] number.
    #[n(3)]
    pub binding: u8,
}

impl Hello {
    /// The binding asked for, if it is one.
    pub const fn binding(&self) -> Option<Binding> {
        Binding::from_wire(self.binding)
    }
}

/// The server's answer to a hello: its nonce, and the limits of this session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// Protocol version.
    #[n(0)]
    pub version: u32,
    /// 32 fresh random bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// Largest frame payload, in bytes.
    #[n(2)]
    pub frame_bytes_max: u32,
    /// Digests or messages in one request.
    #[n(3)]
    pub batch_items_max: u32,
    /// Requests in flight on the session.
    #[n(4)]
    pub in_flight_max: u32,
}

/// Either side's proof of the session key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Proof {
    /// HMAC-SHA-256, or empty where a client certificate is the proof.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub mac: Vec<u8>,
}

/// What a client sends.
#[derive(Debug)]
pub enum ClientFrame<'b> {
    /// Opens a session.
    Hello(Hello),
    /// Proves it.
    Prove(Proof),
    /// One request and its MAC.
    Sealed {
        /// The encoded request, to be checked and then read by [`Request::decode`].
        body: &'b [u8],
        /// HMAC-SHA-256 over `body` under the session key.
        mac: &'b [u8],
    },
}

impl<'b> ClientFrame<'b> {
    /// Reads one frame payload.
    pub fn decode(payload: &'b [u8]) -> Result<Self, MessageError> {
        let mut decoder = Decoder::new(payload);
        Self::decode_from(&mut decoder).map_err(malformed("frame"))
    }

    fn decode_from(d: &mut Decoder<'b>) -> Result<Self, minicbor::decode::Error> {
        let items = d.array()?;
        let frame = match (d.u8()?, items) {
            (HELLO, Some(2)) => Self::Hello(d.decode()?),
            (PROVE, Some(2)) => Self::Prove(d.decode()?),
            (SEALED, Some(3)) => Self::Sealed {
                body: d.bytes()?,
                mac: d.bytes()?,
            },
            _ => {
                return Err(minicbor::decode::Error::message(
                    "not a frame that a client sends",
                ));
            }
        };
        expect_end(d)?;
        Ok(frame)
    }
}

fn expect_end(d: &Decoder<'_>) -> Result<(), minicbor::decode::Error> {
    if d.position() == d.input().len() {
        Ok(())
    } else {
        Err(minicbor::decode::Error::message("bytes after the end").at(d.position()))
    }
}

/// The inputs of one signing request: 1 to 64 byte strings, borrowed from the frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs<'b>(pub SmallVec<[&'b [u8]; 4]>);

impl<'bytes: 'b, 'b, C> Decode<'bytes, C> for Inputs<'b> {
    fn decode(d: &mut Decoder<'bytes>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let items = d
            .array()?
            .ok_or_else(|| minicbor::decode::Error::message("array of unknown length"))?;
        // The count is the caller's word; reserve nothing for it beyond one item past the limit.
        let mut inputs = SmallVec::new();
        for _ in 0..items.min(BATCH_ITEMS_MAX as u64 + 1) {
            inputs.push(d.bytes()?);
        }
        for _ in inputs.len() as u64..items {
            d.bytes()?;
        }
        Ok(Self(inputs))
    }
}

impl<C> Encode<C> for Inputs<'_> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(self.0.len() as u64)?;
        for input in &self.0 {
            e.bytes(input)?;
        }
        Ok(())
    }
}

/// A signing request on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sign<'b> {
    /// Chosen by the client, unique among its requests in flight; the reply carries it.
    #[n(0)]
    pub request: u64,
    /// The app; must be the session's.
    #[b(1)]
    pub app: &'b str,
    /// The credential to sign with; with a seal, empty or the seal's own.
    #[b(2)]
    pub credential: &'b str,
    /// An [`Algorithm`] number.
    #[n(3)]
    pub algorithm: u8,
    /// The idempotency key.
    #[b(4)]
    pub key: &'b str,
    /// Digests or messages.
    #[b(5)]
    pub inputs: Inputs<'b>,
    /// Milliseconds from now after which the answer is of no use.
    #[n(6)]
    pub deadline_ms: Option<u32>,
    /// A [`Format`] number; 0 if absent.
    #[n(7)]
    pub format: Option<u8>,
    /// SM2 user id for `sm2-sm3`; `1234567812345678` if absent.
    #[b(8)]
    pub user_id: Option<&'b ByteSlice>,
    /// The seal to sign under.
    #[b(9)]
    pub seal: Option<&'b str>,
    /// A [`DocumentKind`] number, with a seal; 0 if absent.
    #[n(10)]
    pub document: Option<u8>,
    /// The agent who uses the seal, by subject id.
    #[b(11)]
    pub agent: Option<&'b str>,
}

/// Asks what became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lookup<'b> {
    /// The request id.
    #[n(0)]
    pub request: u64,
    /// The app; must be the session's.
    #[b(1)]
    pub app: &'b str,
    /// The idempotency key of the call.
    #[b(2)]
    pub key: &'b str,
}

/// Asks for the app's usage.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ask<'b> {
    /// The request id.
    #[n(0)]
    pub request: u64,
    /// The app; must be the session's.
    #[b(1)]
    pub app: &'b str,
}

/// Asks for the app's credentials, by id, as many as fit into one answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AskCredentials<'b> {
    /// The request id.
    #[n(0)]
    pub request: u64,
    /// The app; must be the session's.
    #[b(1)]
    pub app: &'b str,
    /// Those after this id; from the first on if absent.
    #[b(2)]
    pub after: Option<&'b str>,
    /// Only this one.
    #[b(3)]
    pub only: Option<&'b str>,
}

/// Asks for the seals of the app's tenant, by id, as many as fit into one answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AskSeals<'b> {
    /// The request id.
    #[n(0)]
    pub request: u64,
    /// The app; must be the session's.
    #[b(1)]
    pub app: &'b str,
    /// Those after this id; from the first on if absent.
    #[b(2)]
    pub after: Option<&'b str>,
    /// Only this one, with its picture if it is granted to the app.
    #[b(3)]
    pub only: Option<&'b str>,
}

/// A query of another standard, carried as it is: TimeStampReq (RFC 3161 2.4.1) or OCSPRequest (RFC 6960 4.1.1), in DER.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Query<'b> {
    /// The request id.
    #[n(0)]
    pub request: u64,
    /// The app; must be the session's.
    #[b(1)]
    pub app: &'b str,
    /// The query, in DER.
    #[b(2)]
    pub query: &'b ByteSlice,
    /// The time-stamping authority; the one that fits the hash if absent.
    #[b(3)]
    pub authority: Option<&'b str>,
}

/// What is inside a sealed frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'b> {
    /// Sign digests or messages.
    Sign(Sign<'b>),
    /// What became of a call?
    Lookup(Lookup<'b>),
    /// Which credentials may this app use?
    Credentials(AskCredentials<'b>),
    /// What has this app used?
    Usage(Ask<'b>),
    /// A time stamp, recorded and charged.
    Stamp(Query<'b>),
    /// How do certificates stand?
    Status(Query<'b>),
    /// Which seals has this app's tenant?
    Seals(AskSeals<'b>),
}

impl<'b> Request<'b> {
    /// Reads a sealed frame's body.
    pub fn decode(body: &'b [u8]) -> Result<Self, MessageError> {
        let mut decoder = Decoder::new(body);
        Self::decode_from(&mut decoder).map_err(malformed("request"))
    }

    fn decode_from(d: &mut Decoder<'b>) -> Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(2) {
            return Err(minicbor::decode::Error::message("a request is an array of two"));
        }
        let request = match d.u8()? {
            OP_SIGN => Self::Sign(d.decode()?),
            OP_LOOKUP => Self::Lookup(d.decode()?),
            OP_CREDENTIALS => Self::Credentials(d.decode()?),
            OP_USAGE => Self::Usage(d.decode()?),
            OP_STAMP => Self::Stamp(d.decode()?),
            OP_STATUS => Self::Status(d.decode()?),
            OP_SEALS => Self::Seals(d.decode()?),
            _ => return Err(minicbor::decode::Error::message("unknown operation")),
        };
        expect_end(d)?;
        Ok(request)
    }

    /// The request id and the app it names.
    pub const fn head(&self) -> (u64, &'b str) {
        match self {
            Self::Sign(sign) => (sign.request, sign.app),
            Self::Lookup(lookup) => (lookup.request, lookup.app),
            Self::Credentials(ask) => (ask.request, ask.app),
            Self::Seals(ask) => (ask.request, ask.app),
            Self::Usage(ask) => (ask.request, ask.app),
            Self::Stamp(query) | Self::Status(query) => (query.request, query.app),
        }
    }

    /// Appends the encoded body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        let written = match self {
            Self::Sign(sign) => pair(&mut e, OP_SIGN, sign),
            Self::Lookup(lookup) => pair(&mut e, OP_LOOKUP, lookup),
            Self::Credentials(ask) => pair(&mut e, OP_CREDENTIALS, ask),
            Self::Usage(ask) => pair(&mut e, OP_USAGE, ask),
            Self::Stamp(query) => pair(&mut e, OP_STAMP, query),
            Self::Status(query) => pair(&mut e, OP_STATUS, query),
            Self::Seals(ask) => pair(&mut e, OP_SEALS, ask),
        };
        written.expect(INFALLIBLE);
    }
}

const INFALLIBLE: &str = "writing to a Vec cannot fail";

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn pair<T: Encode<()>>(e: &mut Encoder<&mut Vec<u8>>, kind: u8, value: &T) -> Written {
    e.array(2)?.u8(kind)?.encode(value)?;
    Ok(())
}

/// Appends a hello payload.
pub fn encode_hello(out: &mut Vec<u8>, hello: &Hello) {
    pair(&mut Encoder::new(out), HELLO, hello).expect(INFALLIBLE);
}

/// Appends a welcome payload.
pub fn encode_welcome(out: &mut Vec<u8>, welcome: &Welcome) {
    pair(&mut Encoder::new(out), WELCOME, welcome).expect(INFALLIBLE);
}

/// Appends the client's proof.
pub fn encode_prove(out: &mut Vec<u8>, proof: &Proof) {
    pair(&mut Encoder::new(out), PROVE, proof).expect(INFALLIBLE);
}

/// Appends the server's proof.
pub fn encode_proved(out: &mut Vec<u8>, proof: &Proof) {
    pair(&mut Encoder::new(out), PROVED, proof).expect(INFALLIBLE);
}

/// Appends a sealed payload.
pub fn encode_sealed(out: &mut Vec<u8>, body: &[u8], mac: &[u8]) {
    let mut e = Encoder::new(out);
    let written: Written = (|| {
        e.array(3)?.u8(SEALED)?.bytes(body)?.bytes(mac)?;
        Ok(())
    })();
    written.expect(INFALLIBLE);
}

/// A refusal on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct WireRefusal<'b> {
    #[n(0)]
    code: u16,
    #[b(1)]
    name: &'b str,
    #[b(2)]
    message: &'b str,
    #[n(3)]
    retryable: bool,
    #[n(4)]
    retry_after_ms: Option<u32>,
}

impl<'b> WireRefusal<'b> {
    fn of(refusal: &'b Refusal) -> Self {
        Self {
            code: refusal.code.wire(),
            name: refusal.code.name(),
            message: &refusal.message,
            retryable: refusal.code.retryable(),
            retry_after_ms: refusal.retry_after_ms,
        }
    }

    fn owned(&self) -> Result<Refusal, minicbor::decode::Error> {
        let code = Code::from_wire(self.code)
            .ok_or_else(|| minicbor::decode::Error::message("unknown error code"))?;
        let message = self.message.to_owned().into();
        Ok(Refusal {
            code,
            message,
            retry_after_ms: self.retry_after_ms,
        })
    }
}

/// What became of one item of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Signed, recorded and charged.
    Done {
        /// The signature in the format asked for.
        signature: Vec<u8>,
        /// Its journal entry.
        sequence: Sequence,
    },
    /// Still running at the deadline; durably recorded as such.
    Pending,
    /// Not signed and not charged.
    Failed(Refusal),
}

/// One of the app's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialInfo {
    /// Its id.
    pub id: String,
    /// The kind of its key.
    pub kind: KeyKind,
    /// Whether it signs now.
    pub active: bool,
    /// SubjectPublicKeyInfo (RFC 5280 4.1.2.7), DER.
    pub public_key: Vec<u8>,
    /// The certificate and its issuers up to, not including, the root; DER each.
    pub chain: Vec<Vec<u8>>,
}

/// Completed signatures of an app, from the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageInfo {
    /// All of them.
    pub signatures: u64,
    /// By credential id.
    pub by_credential: Vec<(String, u64)>,
    /// By month (Asia/Shanghai), as `YYYY-MM`.
    pub by_month: Vec<(String, u64)>,
}

/// What an answered request brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The items of a signing call or of a lookup, in order.
    Items(Vec<ItemOutcome>),
    /// The app's credentials.
    Credentials(Vec<CredentialInfo>),
    /// The app's usage.
    Usage(UsageInfo),
    /// TimeStampResp (RFC 3161 2.4.2) or OCSPResponse (RFC 6960 4.2.1), in DER.
    Response(Vec<u8>),
    /// Seals of the app's tenant.
    Seals(Vec<SealInfo>),
}

/// A reply: the answer, or one refusal for the whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request it answers.
    pub request: u64,
    /// What it says.
    pub result: Result<Answer, Refusal>,
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerFrame {
    /// Answers a hello.
    Welcome(Welcome),
    /// Answers a proof.
    Proved(Proof),
    /// Answers a request.
    Reply(Reply),
    /// Says why the session ends.
    Closing(Refusal),
}

// Keys of a reply map.
const REPLY_REQUEST: u8 = 0;
const REPLY_ITEMS: u8 = 1;
const REPLY_REFUSAL: u8 = 2;
const REPLY_CREDENTIALS: u8 = 3;
const REPLY_USAGE: u8 = 4;
const REPLY_RESPONSE: u8 = 5;
const REPLY_SEALS: u8 = 6;

/// Appends a reply payload.
pub fn encode_reply(out: &mut Vec<u8>, request: u64, result: &Result<Answer, Refusal>) {
    write_reply(&mut Encoder::new(out), request, result).expect(INFALLIBLE);
}

fn write_reply(e: &mut Encoder<&mut Vec<u8>>, request: u64, result: &Result<Answer, Refusal>) -> Written {
    e.array(2)?.u8(REPLY)?.map(2)?.u8(REPLY_REQUEST)?.u64(request)?;
    match result {
        Ok(Answer::Items(items)) => {
            e.u8(REPLY_ITEMS)?.array(items.len() as u64)?;
            items.iter().try_for_each(|item| write_item(e, item))
        }
        Ok(Answer::Credentials(list)) => {
            e.u8(REPLY_CREDENTIALS)?.array(list.len() as u64)?;
            list.iter().try_for_each(|info| write_credential(e, info))
        }
        Ok(Answer::Usage(usage)) => {
            e.u8(REPLY_USAGE)?;
            write_usage(e, usage)
        }
        Ok(Answer::Response(der)) => {
            e.u8(REPLY_RESPONSE)?.bytes(der)?;
            Ok(())
        }
        Ok(Answer::Seals(list)) => {
            e.u8(REPLY_SEALS)?.encode(list)?;
            Ok(())
        }
        Err(refusal) => {
            e.u8(REPLY_REFUSAL)?.encode(WireRefusal::of(refusal))?;
            Ok(())
        }
    }
}

fn write_item(e: &mut Encoder<&mut Vec<u8>>, item: &ItemOutcome) -> Written {
    match item {
        ItemOutcome::Done { signature, sequence } => {
            e.map(3)?
                .u8(0)?
                .u8(0)?
                .u8(1)?
                .bytes(signature)?
                .u8(2)?
                .u64(sequence.0)?;
        }
        ItemOutcome::Pending => {
            e.map(1)?.u8(0)?.u8(1)?;
        }
        ItemOutcome::Failed(refusal) => {
            e.map(2)?.u8(0)?.u8(2)?.u8(3)?.encode(WireRefusal::of(refusal))?;
        }
    }
    Ok(())
}

fn write_credential(e: &mut Encoder<&mut Vec<u8>>, info: &CredentialInfo) -> Written {
    e.map(6)?.u8(0)?.str(&info.id)?.u8(1)?.str(info.kind.name())?;
    e.u8(2)?.array(info.kind.algorithms().len() as u64)?;
    for algorithm in info.kind.algorithms() {
        e.u8(algorithm.wire())?;
    }
    e.u8(3)?.bool(info.active)?.u8(4)?.bytes(&info.public_key)?;
    e.u8(5)?.array(info.chain.len() as u64)?;
    for certificate in &info.chain {
        e.bytes(certificate)?;
    }
    Ok(())
}

fn write_usage(e: &mut Encoder<&mut Vec<u8>>, usage: &UsageInfo) -> Written {
    e.map(3)?.u8(0)?.u64(usage.signatures)?;
    for (key, counts) in [(1u8, &usage.by_credential), (2, &usage.by_month)] {
        e.u8(key)?.map(counts.len() as u64)?;
        for (name, count) in counts {
            e.str(name)?.u64(*count)?;
        }
    }
    Ok(())
}

/// Appends a closing payload.
pub fn encode_closing(out: &mut Vec<u8>, refusal: &Refusal) {
    pair(&mut Encoder::new(out), CLOSING, &WireRefusal::of(refusal)).expect(INFALLIBLE);
}

impl ServerFrame {
    /// Reads one frame payload, as a client does.
    pub fn decode(payload: &[u8]) -> Result<Self, MessageError> {
        let mut decoder = Decoder::new(payload);
        Self::decode_from(&mut decoder).map_err(malformed("frame"))
    }

    fn decode_from(d: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(2) {
            return Err(minicbor::decode::Error::message(
                "a server frame is an array of two",
            ));
        }
        let frame = match d.u8()? {
            WELCOME => Self::Welcome(d.decode()?),
            PROVED => Self::Proved(d.decode()?),
            REPLY => Self::Reply(read_reply(d)?),
            CLOSING => Self::Closing(d.decode::<WireRefusal<'_>>()?.owned()?),
            _ => {
                return Err(minicbor::decode::Error::message(
                    "not a frame that a server sends",
                ));
            }
        };
        expect_end(d)?;
        Ok(frame)
    }
}

fn read_reply(d: &mut Decoder<'_>) -> Result<Reply, minicbor::decode::Error> {
    let (mut request, mut result) = (None, None);
    for _ in 0..definite(d.map()?)? {
        match d.u8()? {
            REPLY_REQUEST => request = Some(d.u64()?),
            REPLY_ITEMS => result = Some(Ok(Answer::Items(read_list(d, read_item)?))),
            REPLY_CREDENTIALS => {
                result = Some(Ok(Answer::Credentials(read_list(d, read_credential)?)));
            }
            REPLY_USAGE => result = Some(Ok(Answer::Usage(read_usage(d)?))),
            REPLY_RESPONSE => result = Some(Ok(Answer::Response(d.bytes()?.to_vec()))),
            REPLY_SEALS => result = Some(Ok(Answer::Seals(read_list(d, read_seal)?))),
            REPLY_REFUSAL => result = Some(Err(d.decode::<WireRefusal<'_>>()?.owned()?)),
            _ => d.skip()?,
        }
    }
    let incomplete = || minicbor::decode::Error::message("a reply without its id or its result");
    Ok(Reply {
        request: request.ok_or_else(incomplete)?,
        result: result.ok_or_else(incomplete)?,
    })
}

fn definite(length: Option<u64>) -> Result<u64, minicbor::decode::Error> {
    length.ok_or_else(|| minicbor::decode::Error::message("indefinite length"))
}

fn read_list<T>(
    d: &mut Decoder<'_>,
    read: fn(&mut Decoder<'_>) -> Result<T, minicbor::decode::Error>,
) -> Result<Vec<T>, minicbor::decode::Error> {
    let length = definite(d.array()?)?;
    (0..length).map(|_| read(d)).collect()
}

fn read_item(d: &mut Decoder<'_>) -> Result<ItemOutcome, minicbor::decode::Error> {
    let (mut state, mut signature, mut sequence, mut refusal) = (None, None, 0, None);
    for _ in 0..definite(d.map()?)? {
        match d.u8()? {
            0 => state = Some(d.u8()?),
            1 => signature = Some(d.bytes()?.to_vec()),
            2 => sequence = d.u64()?,
            3 => refusal = Some(d.decode::<WireRefusal<'_>>()?.owned()?),
            _ => d.skip()?,
        }
    }
    match (state, signature, refusal) {
        (Some(0), Some(signature), _) => Ok(ItemOutcome::Done {
            signature,
            sequence: Sequence(sequence),
        }),
        (Some(1), ..) => Ok(ItemOutcome::Pending),
        (Some(2), _, Some(refusal)) => Ok(ItemOutcome::Failed(refusal)),
        _ => Err(minicbor::decode::Error::message(
            "an item without a known outcome",
        )),
    }
}

fn read_credential(d: &mut Decoder<'_>) -> Result<CredentialInfo, minicbor::decode::Error> {
    let (mut id, mut kind, mut active) = (String::new(), None, false);
    let (mut public_key, mut chain) = (Vec::new(), Vec::new());
    for _ in 0..definite(d.map()?)? {
        match d.u8()? {
            0 => id = d.str()?.to_owned(),
            1 => kind = d.str()?.parse::<KeyKind>().ok(),
            3 => active = d.bool()?,
            4 => public_key = d.bytes()?.to_vec(),
            5 => chain = read_list(d, |d| Ok(d.bytes()?.to_vec()))?,
            _ => d.skip()?,
        }
    }
    let kind = kind.ok_or_else(|| minicbor::decode::Error::message("unknown key kind"))?;
    Ok(CredentialInfo {
        id,
        kind,
        active,
        public_key,
        chain,
    })
}

fn read_seal(d: &mut Decoder<'_>) -> Result<SealInfo, minicbor::decode::Error> {
    d.decode()
}

fn read_usage(d: &mut Decoder<'_>) -> Result<UsageInfo, minicbor::decode::Error> {
    let mut usage = UsageInfo::default();
    for _ in 0..definite(d.map()?)? {
        match d.u8()? {
            0 => usage.signatures = d.u64()?,
            1 => usage.by_credential = read_counts(d)?,
            2 => usage.by_month = read_counts(d)?,
            _ => d.skip()?,
        }
    }
    Ok(usage)
}

fn read_counts(d: &mut Decoder<'_>) -> Result<Vec<(String, u64)>, minicbor::decode::Error> {
    let length = definite(d.map()?)?;
    (0..length).map(|_| Ok((d.str()?.to_owned(), d.u64()?))).collect()
}

/// The algorithm and format of a signing request, or the code that says which is unknown.
pub fn algorithm_and_format(sign: &Sign<'_>) -> Result<(Algorithm, Format), Code> {
    let algorithm = Algorithm::from_wire(sign.algorithm).ok_or(Code::UnsupportedAlgorithm)?;
    let format = Format::from_wire(sign.format.unwrap_or(0)).ok_or(Code::UnsupportedFormat)?;
    Ok((algorithm, format))
}

/// The kind of document of a signing request that names a seal, if it is known.
pub fn document_kind(sign: &Sign<'_>) -> Option<DocumentKind> {
    DocumentKind::from_wire(sign.document.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{DocumentKinds, GrantInfo, SealState};

    fn sign<'b>(inputs: &[&'b [u8]]) -> Sign<'b> {
        Sign {
            request: 7,
            app: "demo-app",
            credential: "demo-p256",
            algorithm: Algorithm::EcdsaP256Sha256.wire(),
            key: "order-1",
            inputs: Inputs(inputs.iter().copied().collect()),
            deadline_ms: Some(500),
            format: None,
            user_id: None,
            seal: None,
            document: None,
            agent: None,
        }
    }

    fn seal() -> SealInfo {
        SealInfo {
            id: "contracts".into(),
            name: "合同专用章".into(),
            state: SealState::Active,
            credential: "seal-key".into(),
            width_mm: 42,
            height_mm: 42,
            from_ms: 1,
            to_ms: 2,
            grants: vec![GrantInfo {
                id: "g-1".into(),
                active: true,
                agent: None,
                documents: DocumentKinds::EVERY.bits(),
                from_ms: 1,
                to_ms: 2,
                uses_max: Some(9),
                uses: 3,
            }],
            picture: Some(vec![0x89, 0x50].into()),
            ses: None,
        }
    }

    #[test]
    fn a_seal_is_named_in_a_request_and_costs_nothing_where_it_is_not() {
        let digest = [5; 32];
        let (mut plain, mut sealed) = (Vec::new(), Vec::new());
        Request::Sign(sign(&[&digest])).encode(&mut plain);
        let request = Request::Sign(Sign {
            credential: "",
            seal: Some("contracts"),
            document: Some(DocumentKind::Pdf.wire()),
            agent: Some("li-lei"),
            ..sign(&[&digest])
        });
        request.encode(&mut sealed);
        assert_eq!(Request::decode(&sealed).unwrap(), request);
        // A map of seven, as before there were seals.
        assert_eq!(plain[2], 0xa7);
        for end in 0..sealed.len() {
            assert!(Request::decode(&sealed[..end]).is_err(), "cut at {end}");
        }
        let mut asked = Vec::new();
        let ask = Request::Seals(AskSeals {
            request: 7,
            app: "demo-app",
            after: None,
            only: Some("contracts"),
        });
        ask.encode(&mut asked);
        assert_eq!(Request::decode(&asked).unwrap(), ask);
    }

    #[test]
    fn a_request_reads_back_as_it_was_written() {
        let digest = [5; 32];
        let mut body = Vec::new();
        let request = Request::Sign(sign(&[&digest]));
        request.encode(&mut body);
        assert_eq!(Request::decode(&body).unwrap(), request);
        let mut payload = Vec::new();
        encode_sealed(&mut payload, &body, &[9; 32]);
        let ClientFrame::Sealed { body: sealed, mac } = ClientFrame::decode(&payload).unwrap() else {
            panic!("not sealed");
        };
        assert_eq!((sealed, mac), (&body[..], &[9u8; 32][..]));
    }

    #[test]
    fn queries_of_other_standards_are_carried_as_they_are() {
        let query = |authority| Query {
            request: 8,
            app: "demo-app",
            query: (&[0x30, 3, 2, 1, 1][..]).into(),
            authority,
        };
        let reads_back = |request: &Request<'_>| {
            let mut body = Vec::new();
            request.encode(&mut body);
            let read = Request::decode(&body).unwrap();
            assert_eq!(read.head(), (8, "demo-app"));
            let mut again = Vec::new();
            read.encode(&mut again);
            assert_eq!(again, body);
            for end in 0..body.len() {
                assert!(Request::decode(&body[..end]).is_err(), "cut at {end}");
            }
        };
        reads_back(&Request::Stamp(query(Some("tsa-1"))));
        reads_back(&Request::Status(query(None)));
    }

    #[test]
    fn truncation_anywhere_is_an_error_and_never_a_panic() {
        let digest = [5; 32];
        let mut body = Vec::new();
        Request::Sign(sign(&[&digest, &digest])).encode(&mut body);
        for end in 0..body.len() {
            assert!(Request::decode(&body[..end]).is_err(), "cut at {end}");
        }
        body.push(0);
        assert!(Request::decode(&body).is_err(), "trailing byte");
    }

    #[test]
    fn a_batch_above_the_limit_shows_as_such_without_being_kept() {
        let digest = [1; 32];
        let many = vec![&digest[..]; 1000];
        let mut body = Vec::new();
        Request::Sign(sign(&many)).encode(&mut body);
        let Request::Sign(read) = Request::decode(&body).unwrap() else {
            panic!("not a sign")
        };
        assert_eq!(read.inputs.0.len(), BATCH_ITEMS_MAX + 1);
    }

    #[test]
    fn replies_read_back_as_they_were_written() {
        let refusal = Refusal::new(Code::Overloaded, "queue is full").retry_after_ms(40);
        let answers = [
            Ok(Answer::Items(vec![
                ItemOutcome::Done {
                    signature: vec![1, 2],
                    sequence: Sequence(9),
                },
                ItemOutcome::Pending,
                ItemOutcome::Failed(refusal.clone()),
            ])),
            Ok(Answer::Credentials(vec![CredentialInfo {
                id: "a".into(),
                kind: KeyKind::Sm2,
                active: true,
                public_key: vec![3],
                chain: vec![vec![4], vec![5]],
            }])),
            Ok(Answer::Usage(UsageInfo {
                signatures: 5,
                by_credential: vec![("a".into(), 5)],
                by_month: vec![("2026-11".into(), 5)],
            })),
            Ok(Answer::Response(vec![0x30, 0])),
            Ok(Answer::Seals(vec![seal()])),
            Err(refusal),
        ];
        for result in answers {
            let mut payload = Vec::new();
            encode_reply(&mut payload, 3, &result);
            let expected = ServerFrame::Reply(Reply { request: 3, result });
            assert_eq!(ServerFrame::decode(&payload).unwrap(), expected);
        }
    }
}
