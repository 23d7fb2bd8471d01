//! The ledger: who bought how many units, and where each of them is. Double entry: a [`Transfer`] takes units out of
//! one account and puts them into another, so the sum over all accounts is zero at any moment.
//!
//! - [`kind`]: package kinds as data, with prices and terms.
//! - [`book`]: the rule that says from which package a signature is paid; pure, in memory, the committing thread's own.
//! - [`rows`]: transfers and derived balances on disk, written in the transaction of the entries they pay for.
//! - [`change`]: what an operator may do: grant, correct, use.
//!
//! Units are posted once a commit and package, not once a signature. A hold lives in memory (SEMANTICS 1.1), except for
//! a pending item: its hold is an account like the others, and stays until the outcome is known.

pub(crate) mod book;
pub(crate) mod change;
pub(crate) mod kind;
#[cfg(test)]
mod model;
pub(crate) mod rows;

use protocol::clock::UnixMillis;
use protocol::ids::TenantRow;
use serde::{Deserialize, Serialize};

/// A package's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PackageRow(pub u32);

/// What is counted (SEMANTICS 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Unit {
    /// One signature completed through the interface.
    Signature = 0,
    /// One enterprise account created.
    User = 1,
    /// One contract.
    Contract = 2,
    /// One time stamp.
    #[serde(rename = "time_stamp")]
    TimeStamp = 3,
    /// One certificate issued.
    Certificate = 4,
}

/// An account of a package. The first four are where units come from: their balances are zero or below; those of the
/// others are zero or above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum LedgerAccount {
    /// Sold.
    Sold = 0,
    /// Given free, as compensation.
    Credited = 1,
    /// Put right by hand.
    Corrected = 2,
    /// Used without a limit: by term, by user or by contract.
    Unlimited = 3,
    /// To be used.
    Available = 4,
    /// Held for a pending outcome.
    Held = 5,
    /// Used.
    Used = 6,
    /// Not used in time.
    Lapsed = 7,
}

impl Unit {
    /// All units.
    pub const ALL: [Self; 5] = [
        Self::Signature,
        Self::User,
        Self::Contract,
        Self::TimeStamp,
        Self::Certificate,
    ];

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| *unit as u8 == number)
    }
}

impl LedgerAccount {
    /// All accounts.
    pub const ALL: [Self; 8] = [
        Self::Sold,
        Self::Credited,
        Self::Corrected,
        Self::Unlimited,
        Self::Available,
        Self::Held,
        Self::Used,
        Self::Lapsed,
    ];

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|account| *account as u8 == number)
    }
}

/// Units that go from one account of a package to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) tenant: TenantRow,
    pub(crate) package: PackageRow,
    pub(crate) unit: Unit,
    pub(crate) from: LedgerAccount,
    pub(crate) to: LedgerAccount,
    pub(crate) units: u64,
}

/// A package as bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its row.
    pub row: PackageRow,
    /// Whose.
    pub tenant: TenantRow,
    /// The name of its kind.
    pub kind: String,
    /// What it counts.
    pub unit: Unit,
    /// Whether it counts without a limit.
    pub unlimited: bool,
    /// From when on it can be used.
    pub activated: UnixMillis,
    /// From when on it cannot; `None`: no end.
    pub expires: Option<UnixMillis>,
    /// What was paid, in li (0.001 yuan); `None`: no price was known.
    pub price_li: Option<u64>,
    /// A contract's or an incident's number.
    pub reference: String,
}

impl Package {
    /// Whether it only counts what is used beside signatures, and nobody has bought it.
    pub fn only_counts(&self) -> bool {
        kind::counting(self.unit).is_some_and(|name| name == self.kind)
    }

    /// Whether signatures are paid from it, or free while it lives. Time stamps and certificates are a matter of their own.
    pub fn concerns_signatures(&self) -> bool {
        !matches!(self.unit, Unit::TimeStamp | Unit::Certificate) && !self.only_counts()
    }

    /// Whether signatures are free while it lives: it has no limit, or counts users or contracts.
    pub(crate) fn carries_signatures(&self) -> bool {
        match self.unit {
            Unit::Signature => self.unlimited,
            Unit::User | Unit::Contract => !self.only_counts(),
            Unit::TimeStamp | Unit::Certificate => false,
        }
    }

    /// Whether time stamps are.
    pub(crate) fn carries_stamps(&self) -> bool {
        match self.unit {
            Unit::Signature | Unit::TimeStamp => self.unlimited,
            Unit::User | Unit::Contract => !self.only_counts(),
            Unit::Certificate => false,
        }
    }
}

/// What an account of a package holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Which package.
    pub package: PackageRow,
    /// What is counted.
    pub unit: Unit,
    /// Which account.
    pub account: LedgerAccount,
    /// Units.
    pub units: i64,
}
