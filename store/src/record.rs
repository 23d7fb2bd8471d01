//! Journal records: what an entry says. CBOR arrays, fields only ever added at the end (`docs/store-format.md`).

use aws_lc_rs::digest;
use minicbor::{Decode, Encode};
use protocol::algorithm::{Algorithm, Format};
use protocol::clock::UnixMillis;
use protocol::ids::{AppRow, CredentialRow, GrantRow, SealRow, TenantRow};
use protocol::verify::SignatureBytes;
use smallvec::SmallVec;

use crate::ledger::Unit;

/// Sixteen bytes that stand for one item of one call of one app in the key index.
///
/// 14 bytes of SHA-256 over app and key, then the item number: items of a call are neighbours. A collision needs
/// 2^56 work of the app's own and harms only that app, because the record holds the full key and is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of item 0 of a call.
    pub fn of_call(app: AppRow, key: &str) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&app.0.to_be_bytes());
        hash.update(key.as_bytes());
        let mut bytes = [0; 16];
        bytes[..14].copy_from_slice(&hash.finish().as_ref()[..14]);
        Self(bytes)
    }

    /// The fingerprint of another item of the same call.
    #[must_use]
    pub const fn item(mut self, item: u16) -> Self {
        let [high, low] = item.to_be_bytes();
        self.0[14] = high;
        self.0[15] = low;
        self
    }
}

/// Sixteen bytes of SHA-256 over everything that makes a request the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct RequestHash(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// How the caller proved the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ProofKind {
    /// A MAC under a session key: not provable to a third party.
    #[n(0)]
    SessionMac,
    /// `hmac-sha256` in an HTTP message signature: not provable to a third party.
    #[n(1)]
    HttpMac,
    /// An asymmetric HTTP message signature: provable with the app's registered public key.
    #[n(2)]
    HttpSignature,
    /// The TLS client certificate of the connection.
    #[n(3)]
    ClientCertificate,
}

/// Who asked, and the proof of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proof {
    /// Of which kind.
    #[n(0)]
    pub kind: ProofKind,
    /// The MAC or signature.
    #[cbor(n(1), with = "small_bytes")]
    pub bytes: SmallVec<[u8; 64]>,
    /// What the signature is over, where somebody else can check it.
    #[n(2)]
    pub base: Option<Box<str>>,
}

impl Proof {
    /// CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to a Vec cannot fail")
    }

    /// Reads it back.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }
}

/// Under which seal an item is signed, and by which grant.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UnderSeal {
    /// The seal.
    #[cbor(n(0), with = "rows::seal")]
    pub seal: SealRow,
    /// The grant.
    #[cbor(n(1), with = "rows::grant")]
    pub grant: GrantRow,
    /// On what: the number of a [`protocol::seal::DocumentKind`].
    #[n(2)]
    pub document: u8,
    /// The agent to whom it is granted, by subject id.
    #[n(3)]
    pub agent: Option<Box<str>>,
}

/// What is known of an item whatever became of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Item {
    /// Whose.
    #[cbor(n(0), with = "rows::tenant")]
    pub tenant: TenantRow,
    /// Which app asked.
    #[cbor(n(1), with = "rows::app")]
    pub app: AppRow,
    /// With which credential.
    #[cbor(n(2), with = "rows::credential")]
    pub credential: CredentialRow,
    /// The idempotency key.
    #[n(3)]
    pub key: Box<str>,
    /// The item's place in its call.
    #[n(4)]
    pub item: u16,
    /// Items in the call.
    #[n(5)]
    pub of: u16,
    /// What makes the request the same request.
    #[n(6)]
    pub request: RequestHash,
    /// Algorithm.
    #[cbor(n(7), with = "names::algorithm")]
    pub algorithm: Algorithm,
    /// Format of the result.
    #[cbor(n(8), with = "names::format")]
    pub format: Format,
    /// The digest that was signed; for whole messages the digest of the message.
    #[cbor(n(9), with = "small_bytes")]
    pub digest: SmallVec<[u8; 64]>,
    /// Who asked.
    #[n(10)]
    pub proof: Proof,
    /// Under which seal, if under one.
    #[n(11)]
    pub seal: Option<UnderSeal>,
}

/// Why a finished signature was not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum DiscardReason {
    /// The app was revoked meanwhile.
    #[n(0)]
    App,
    /// The credential was disabled or revoked meanwhile.
    #[n(1)]
    Credential,
    /// The prepaid balance was used up meanwhile.
    #[n(2)]
    Balance,
    /// The tenant was suspended or closed meanwhile.
    #[n(3)]
    Tenant,
    /// The credential's certificate was not valid when the signature was recorded.
    #[n(4)]
    Certificate,
    /// The seal was frozen or revoked meanwhile.
    #[n(5)]
    Seal,
    /// The grant was revoked meanwhile.
    #[n(6)]
    Grant,
    /// The seal or the grant did not count any more when the signature was recorded.
    #[n(7)]
    SealTime,
    /// The grant was used up meanwhile.
    #[n(8)]
    GrantUses,
}

/// The number in place of a result's format in statements: the operation was a time stamp.
pub const TIME_STAMP: u8 = u8::MAX;

/// A time stamp that an app was given.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stamped {
    /// Whose.
    #[cbor(n(0), with = "rows::tenant")]
    pub tenant: TenantRow,
    /// Which app asked.
    #[cbor(n(1), with = "rows::app")]
    pub app: AppRow,
    /// The token's serial number, in hexadecimal.
    #[n(2)]
    pub serial: Box<str>,
    /// With which algorithm it is signed.
    #[cbor(n(3), with = "names::algorithm")]
    pub algorithm: Algorithm,
    /// The authority that made it.
    #[n(4)]
    pub authority: Box<str>,
    /// The digest that was stamped.
    #[cbor(n(5), with = "small_bytes")]
    pub imprint: SmallVec<[u8; 64]>,
}

/// One journal entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// A signature, released after this entry was durable and charged as one unit where a package is named.
    #[n(1)]
    Signature {
        /// What was asked.
        #[n(0)]
        item: Item,
        /// What was released, sealed under its tenant's key: it goes with that key.
        #[cbor(n(1), with = "minicbor::bytes")]
        sealed: Vec<u8>,
        /// The package that paid; `None`: nothing was charged, as on a sandbox.
        #[n(2)]
        package: Option<u32>,
        /// SHA-256 of what was released: whoever has a signature can show that it is this one.
        #[cbor(n(3), with = "minicbor::bytes")]
        sha256: [u8; 32],
    },
    /// Still running when its caller had to be answered.
    #[n(2)]
    Pending {
        /// What was asked.
        #[n(0)]
        item: Item,
    },
    /// A pending item that will not be signed: not charged, and the key may be used again.
    #[n(3)]
    Failed {
        /// What was asked.
        #[n(0)]
        item: Item,
        /// An error code's number.
        #[n(1)]
        code: u16,
    },
    /// A signature that was made but not released: not charged.
    #[n(4)]
    Discarded {
        /// What was asked.
        #[n(0)]
        item: Item,
        /// Why.
        #[n(1)]
        reason: DiscardReason,
    },
    /// An operator's change of the registry.
    #[n(5)]
    Change {
        /// Who, as far as the operator channel knows.
        #[n(0)]
        actor: Box<str>,
        /// What, as `noun.verb`.
        #[n(1)]
        action: Box<str>,
        /// To what.
        #[n(2)]
        subject: Box<str>,
    },
    /// The engine opened the store.
    #[n(6)]
    Opened {
        /// The engine's version.
        #[n(0)]
        version: Box<str>,
    },
    /// An operator accepted that entries are missing.
    #[n(7)]
    LossAccepted {
        /// First missing entry.
        #[n(0)]
        first: u64,
        /// Last missing entry.
        #[n(1)]
        last: u64,
    },
    /// A time stamp, released after this entry was durable and charged as one unit where a package is named.
    #[n(8)]
    TimeStamp {
        /// What was given.
        #[n(0)]
        stamp: Stamped,
        /// The package that paid; `None`: nothing was charged, as on a sandbox.
        #[n(1)]
        package: Option<u32>,
    },
}

impl Record {
    /// The item this entry is about, if it is about one.
    pub const fn item(&self) -> Option<&Item> {
        match self {
            Self::Signature { item, .. }
            | Self::Pending { item }
            | Self::Failed { item, .. }
            | Self::Discarded { item, .. } => Some(item),
            Self::Change { .. }
            | Self::Opened { .. }
            | Self::LossAccepted { .. }
            | Self::TimeStamp { .. } => None,
        }
    }

    /// Reads a record back.
    pub fn decode_from(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        minicbor::decode(bytes)
    }
}

/// A finished signature, and how the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// As its caller gets it.
    pub signature: SignatureBytes,
    /// Sealed under the tenant's key.
    pub sealed: Vec<u8>,
    /// SHA-256 of it.
    pub sha256: [u8; 32],
}

impl Released {
    /// A signature with its sealed form.
    pub fn new(signature: SignatureBytes, sealed: Vec<u8>) -> Self {
        let sha256 = sha256(&signature);
        Self {
            signature,
            sealed,
            sha256,
        }
    }
}

/// SHA-256 of a signature, as its entry has it.
pub fn sha256(signature: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, signature);
    std::array::from_fn(|at| digest.as_ref()[at])
}

/// The tenant whose request a record is about, and whether it is about a signature that was released; read without the
/// rest. `None`: it is about no request.
pub fn tenant_of(record: &[u8]) -> Result<Option<(TenantRow, bool)>, minicbor::decode::Error> {
    let mut d = minicbor::Decoder::new(record);
    d.array()?;
    let kind = d.u32()?;
    if !matches!(kind, 1..=4 | 8) {
        return Ok(None);
    }
    d.array()?;
    d.array()?;
    Ok(Some((TenantRow(d.u32()?), kind == 1)))
}

/// What a statement needs of a [`Record::Signature`] or a [`Record::TimeStamp`], read without copying anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signed<'b> {
    pub(crate) tenant: u32,
    pub(crate) app: u32,
    pub(crate) credential: u32,
    pub(crate) key: &'b str,
    pub(crate) item: u16,
    pub(crate) algorithm: u8,
    pub(crate) format: u8,
    pub(crate) package: Option<u32>,
    /// Under which seal, and by which grant.
    pub(crate) seal: Option<(u32, u32)>,
}

impl<'b> Signed<'b> {
    /// Reads a record; `None` where it is of another kind.
    pub(crate) fn read(record: &'b [u8]) -> Result<Option<Self>, minicbor::decode::Error> {
        let mut d = minicbor::Decoder::new(record);
        d.array()?;
        match d.u32()? {
            1 => {}
            8 => return Self::read_stamp(&mut d).map(Some),
            _ => return Ok(None),
        }
        let fields = d.array()?.unwrap_or(0);
        let item_fields = d.array()?.unwrap_or(0);
        let mut signed = Self {
            tenant: d.u32()?,
            app: d.u32()?,
            credential: d.u32()?,
            key: d.str()?,
            item: d.u16()?,
            algorithm: 0,
            format: 0,
            package: None,
            seal: None,
        };
        // Items in the call, and the request's hash.
        d.skip()?;
        d.skip()?;
        signed.algorithm = d.u8()?;
        signed.format = d.u8()?;
        for field in 9..item_fields {
            match field {
                11 => signed.seal = read_seal(&mut d)?,
                _ => d.skip()?,
            }
        }
        // The signature.
        d.skip()?;
        if fields > 2 {
            signed.package = d.decode()?;
        }
        Ok(Some(signed))
    }

    /// A time stamp belongs to no credential.
    fn read_stamp(d: &mut minicbor::Decoder<'b>) -> Result<Self, minicbor::decode::Error> {
        let fields = d.array()?.unwrap_or(0);
        let stamp_fields = d.array()?.unwrap_or(0);
        let mut stamp = Self {
            tenant: d.u32()?,
            app: d.u32()?,
            credential: 0,
            key: d.str()?,
            item: 0,
            algorithm: d.u8()?,
            format: TIME_STAMP,
            package: None,
            seal: None,
        };
        for _ in 4..stamp_fields {
            d.skip()?;
        }
        // The last field is left out where nothing was charged.
        if fields > 1 {
            stamp.package = d.decode()?;
        }
        Ok(stamp)
    }

    /// What it counts as.
    pub(crate) const fn unit(&self) -> Unit {
        if self.format == TIME_STAMP {
            Unit::TimeStamp
        } else {
            Unit::Signature
        }
    }
}

/// Seal and grant of an item, without the rest.
fn read_seal(d: &mut minicbor::Decoder<'_>) -> Result<Option<(u32, u32)>, minicbor::decode::Error> {
    let seal: Option<UnderSeal> = d.decode()?;
    Ok(seal.map(|under| (under.seal.0, under.grant.0)))
}

/// A [`Record`] about an item, borrowed: what the committing thread writes without copying the item.
#[derive(Debug, Encode)]
pub(crate) enum ItemRecord<'a> {
    /// [`Record::Signature`].
    #[n(1)]
    Signature {
        /// What was asked.
        #[n(0)]
        item: &'a Item,
        /// What is released, sealed.
        #[cbor(n(1), with = "minicbor::bytes")]
        sealed: &'a [u8],
        /// The package that pays.
        #[n(2)]
        package: Option<u32>,
        /// SHA-256 of what is released.
        #[cbor(n(3), with = "minicbor::bytes")]
        sha256: [u8; 32],
    },
    /// [`Record::Pending`].
    #[n(2)]
    Pending {
        /// What was asked.
        #[n(0)]
        item: &'a Item,
    },
    /// [`Record::Failed`].
    #[n(3)]
    Failed {
        /// What was asked.
        #[n(0)]
        item: &'a Item,
        /// An error code's number.
        #[n(1)]
        code: u16,
    },
    /// [`Record::Discarded`].
    #[n(4)]
    Discarded {
        /// What was asked.
        #[n(0)]
        item: &'a Item,
        /// Why.
        #[n(1)]
        reason: DiscardReason,
    },
}

impl Item {
    /// Its fingerprint in the key index.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_call(self.app, &self.key).item(self.item)
    }
}

/// The month an instant belongs to, as YYYYMM in Asia/Shanghai (SEMANTICS 4.4), which has been UTC+8 without
/// daylight saving since 1991.
pub const fn month_of(at: UnixMillis) -> u32 {
    let days = (at.0 / 1000 + 8 * 3600) / 86_400;
    // Days since 1970-01-01 to year and month: Howard Hinnant's civil_from_days, for years after 1970.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + (month <= 2) as u64;
    (year * 100 + month) as u32
}

mod small_bytes {
    use minicbor::decode::Error;
    use minicbor::encode::Write;
    use minicbor::{Decoder, Encoder};
    use smallvec::{Array, SmallVec};

    pub(super) fn encode<A: Array<Item = u8>, C, W: Write>(
        bytes: &SmallVec<A>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(bytes)?;
        Ok(())
    }

    pub(super) fn decode<A: Array<Item = u8>, C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<SmallVec<A>, Error> {
        Ok(SmallVec::from_slice(d.bytes()?))
    }
}

mod rows {
    macro_rules! row {
        ($module:ident, $type:ident) => {
            pub(super) mod $module {
                use minicbor::encode::Write;
                use minicbor::{Decoder, Encoder};
                use protocol::ids::$type;

                pub(in super::super) fn encode<C, W: Write>(
                    row: &$type,
                    e: &mut Encoder<W>,
                    _: &mut C,
                ) -> Result<(), minicbor::encode::Error<W::Error>> {
                    e.u32(row.0)?;
                    Ok(())
                }

                pub(in super::super) fn decode<C>(
                    d: &mut Decoder<'_>,
                    _: &mut C,
                ) -> Result<$type, minicbor::decode::Error> {
                    Ok($type(d.u32()?))
                }
            }
        };
    }

    row!(tenant, TenantRow);
    row!(app, AppRow);
    row!(credential, CredentialRow);
    row!(seal, SealRow);
    row!(grant, GrantRow);
}

mod names {
    macro_rules! number {
        ($module:ident, $type:ident) => {
            pub(super) mod $module {
                use minicbor::encode::Write;
                use minicbor::{Decoder, Encoder};
                use protocol::algorithm::$type;

                pub(in super::super) fn encode<C, W: Write>(
                    value: &$type,
                    e: &mut Encoder<W>,
                    _: &mut C,
                ) -> Result<(), minicbor::encode::Error<W::Error>> {
                    e.u8(value.wire())?;
                    Ok(())
                }

                pub(in super::super) fn decode<C>(
                    d: &mut Decoder<'_>,
                    _: &mut C,
                ) -> Result<$type, minicbor::decode::Error> {
                    let number = d.u8()?;
                    $type::from_wire(number)
                        .ok_or_else(|| minicbor::decode::Error::message("unknown number in a record"))
                }
            }
        };
    }

    number!(algorithm, Algorithm);
    number!(format, Format);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn item(app: u32, key: &str, at: u16) -> Item {
        Item {
            tenant: TenantRow(1),
            app: AppRow(app),
            credential: CredentialRow(1),
            key: key.into(),
            item: at,
            of: 1,
            request: RequestHash([7; 16]),
            algorithm: Algorithm::EcdsaP256Sha256,
            format: Format::Raw,
            digest: SmallVec::from_slice(&[5; 32]),
            proof: Proof {
                kind: ProofKind::SessionMac,
                bytes: SmallVec::from_slice(&[1; 32]),
                base: None,
            },
            seal: None,
        }
    }

    #[test]
    fn an_entry_names_seal_and_grant_and_grows_only_then() {
        let plain = item(1, "k", 0);
        let under = |agent: Option<&str>| UnderSeal {
            seal: SealRow(7),
            grant: GrantRow(70_000),
            document: 1,
            agent: agent.map(Into::into),
        };
        let encoded = |item: &Item| {
            minicbor::to_vec(ItemRecord::Signature {
                item,
                sealed: &[3; 100],
                package: Some(9),
                sha256: [4; 32],
            })
            .unwrap()
        };
        let without = encoded(&plain);
        for agent in [None, Some("li-lei")] {
            let sealed = Item {
                seal: Some(under(agent)),
                ..plain.clone()
            };
            let bytes = encoded(&sealed);
            let signed = Signed::read(&bytes).unwrap().unwrap();
            assert_eq!((signed.seal, signed.package), (Some((7, 70_000)), Some(9)));
            assert_eq!(Record::decode_from(&bytes).unwrap().item(), Some(&sealed));
            assert!(bytes.len() > without.len());
        }
        let signed = Signed::read(&without).unwrap().unwrap();
        assert_eq!(signed.seal, None);
        // An array of eleven, as before there were seals.
        assert_eq!(minicbor::to_vec(&plain).unwrap()[0], 0x8b);
    }

    #[test]
    fn a_time_stamp_reads_as_a_unit_of_its_own() {
        let stamp = Stamped {
            tenant: TenantRow(3),
            app: AppRow(4),
            serial: "40ff".into(),
            algorithm: Algorithm::EcdsaP256Sha256,
            authority: "tsa".into(),
            imprint: SmallVec::from_slice(&[9; 32]),
        };
        for package in [None, Some(7)] {
            let record = Record::TimeStamp {
                stamp: stamp.clone(),
                package,
            };
            let bytes = minicbor::to_vec(&record).unwrap();
            assert_eq!(Record::decode_from(&bytes).unwrap(), record);
            let signed = Signed::read(&bytes).unwrap().unwrap();
            assert_eq!((signed.tenant, signed.app, signed.credential), (3, 4, 0));
            assert_eq!((signed.key, signed.package), ("40ff", package));
            assert_eq!(signed.unit(), Unit::TimeStamp);
        }
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let records = [
            Record::Signature {
                item: item(1, "k", 0),
                sealed: vec![3; 100],
                package: Some(70_000),
                sha256: [4; 32],
            },
            Record::Pending {
                item: item(1, "k", 1),
            },
            Record::Failed {
                item: item(1, "k", 1),
                code: 300,
            },
            Record::Discarded {
                item: item(1, "k", 2),
                reason: DiscardReason::Credential,
            },
            Record::Change {
                actor: "uid 0".into(),
                action: "app.revoke".into(),
                subject: "a".into(),
            },
            Record::LossAccepted { first: 5, last: 9 },
        ];
        for record in records {
            let bytes = minicbor::to_vec(&record).unwrap();
            assert_eq!(Record::decode_from(&bytes).unwrap(), record);
            for end in 0..bytes.len() {
                assert!(Record::decode_from(&bytes[..end]).is_err());
            }
        }
    }

    #[test]
    fn a_signature_record_stays_small() {
        let item = item(1, "0123456789abcdef0123456789abcdef", 0);
        let sealed = vec![3; 100];
        let bytes = minicbor::to_vec(ItemRecord::Signature {
            item: &item,
            sealed: &sealed,
            package: Some(1),
            sha256: [4; 32],
        })
        .unwrap();
        assert!(bytes.len() < 325, "{} bytes", bytes.len());
        assert_eq!(tenant_of(&bytes).unwrap(), Some((item.tenant, true)));
        assert_eq!(
            Record::decode_from(&bytes).unwrap(),
            Record::Signature {
                item,
                sealed,
                package: Some(1),
                sha256: [4; 32],
            }
        );
    }

    #[test]
    fn what_a_statement_needs_is_read_without_the_rest() {
        let item = item(3, "order 7", 5);
        for package in [None, Some(9)] {
            let record = ItemRecord::Signature {
                item: &item,
                sealed: &[3; 100],
                package,
                sha256: [4; 32],
            };
            let bytes = minicbor::to_vec(&record).unwrap();
            let signed = Signed::read(&bytes).unwrap().unwrap();
            assert_eq!((signed.tenant, signed.app, signed.credential), (1, 3, 1));
            assert_eq!((signed.key, signed.item, signed.package), ("order 7", 5, package));
            assert_eq!(signed.algorithm, Algorithm::EcdsaP256Sha256.wire());
            assert_eq!(signed.format, Format::Raw.wire());
            // What follows the package, a hash behind two bytes of its own, is not read.
            for end in 0..bytes.len() - 34 - usize::from(package.is_some()) {
                assert!(Signed::read(&bytes[..end]).is_err(), "{end}");
            }
        }
        let other = minicbor::to_vec(&Record::Pending { item }).unwrap();
        assert_eq!(Signed::read(&other).unwrap(), None);
    }

    #[test]
    fn months_are_those_of_shanghai() {
        // 2026-10-31T15:59:59Z is 23:59:59 in Shanghai, a second later it is November.
        assert_eq!(month_of(UnixMillis(1_793_462_399_000)), 202610);
        assert_eq!(month_of(UnixMillis(1_793_462_400_000)), 202611);
        assert_eq!(month_of(UnixMillis(1_709_136_000_000)), 202402);
        assert_eq!(month_of(UnixMillis(1_709_222_400_000 + 16 * 3_600_000)), 202403);
        assert_eq!(month_of(UnixMillis(0)), 197001);
    }

    #[test]
    fn fingerprints_keep_apps_keys_and_items_apart() {
        let base = Fingerprint::of_call(AppRow(1), "k");
        assert_ne!(base, Fingerprint::of_call(AppRow(2), "k"));
        assert_ne!(base, Fingerprint::of_call(AppRow(1), "l"));
        assert_eq!(base, base.item(0));
        assert_ne!(base, base.item(1));
    }
}
