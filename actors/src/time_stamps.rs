//! The time-stamping authorities (RFC 3161). A serial number is durable before the token that bears it exists: numbers
//! are reserved in blocks, one durable write for many tokens, and what is left of a block is never used after a restart.
//! A clock that cannot be relied on gives no token (SEMANTICS 3.6).

use std::sync::Arc;

use documents::tsp::{self, Accuracy, Failure};
use documents::x509::ObjectIdentifier;
use parking_lot::Mutex;
use protocol::clock::UnixMillis;
use protocol::error_code::{Code, Refusal};
use store::{CertificateChange, Change, Reader, SerialBlocks};

use crate::certificates::{Authorities, Authority};
use crate::registrar::Ledger;

/// Serial numbers that one durable write reserves.
const BLOCK: u64 = 10_000;
/// A block older than this is given up, in milliseconds. A later start knows of its last token that it is no later than
/// the end of its last block, and stamps nothing before that: after a crash for so long at most, and not at all where the
/// clock was set back meanwhile.
const BLOCK_MS: u64 = 2_000;
/// After a step the clock must hold still for so long before it is believed again, in milliseconds.
const QUIET_MS: u64 = 60_000;

/// What the kernel says of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// It follows a source of time, and is at most so far from it.
    Synchronised {
        /// Milliseconds.
        error_ms: u64,
    },
    /// It follows nothing.
    Unsynchronised,
}

/// One look at the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub wall: UnixMillis,
    /// The monotonic clock, in milliseconds from any beginning.
    pub monotonic_ms: u64,
    /// How the kernel judges the wall clock.
    pub kernel: Kernel,
}

/// Where the time comes from.
pub trait TimeSource: std::fmt::Debug + Send + Sync {
    /// Looks at the clocks.
    fn read(&self) -> Reading;
}

/// How much a clock must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockRule {
    /// Nothing but that it never goes back; tokens state no accuracy. For sandboxes and development.
    Unverified,
    /// That it is within this accuracy, which tokens state.
    Within {
        /// Milliseconds.
        accuracy_ms: u32,
    },
}

impl ClockRule {
    fn accuracy(self) -> Option<Accuracy> {
        match self {
            Self::Unverified => None,
            Self::Within { accuracy_ms } => Some(Accuracy {
                seconds: accuracy_ms / 1000,
                // Below 1000.
                millis: (accuracy_ms % 1000) as u16,
                micros: 0,
            }),
        }
    }
}

/// Why a clock is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The kernel follows no source of time.
    #[error("the kernel says that the clock is not synchronised")]
    Unsynchronised,
    /// The kernel's own bound is above the accuracy.
    #[error("the clock may be wrong by {0} ms, which is more than the stated accuracy")]
    Inaccurate(u64),
    /// Wall and monotonic clock went apart.
    #[error("the clock was set, and has not held still for a minute since")]
    Stepped,
    /// Earlier than the last token.
    #[error("the clock is {0} ms behind the last token")]
    WentBack(u64),
}

/// Holds a clock against its rule and its past.
#[derive(Clone, Copy, Debug)]
pub struct ClockJudge {
    rule: ClockRule,
    last: UnixMillis,
    /// wall − monotonic, once looked at.
    offset_ms: Option<i128>,
    doubted_until_ms: u64,
}

impl ClockJudge {
    /// `last` is the time of the last token that is known of.
    pub const fn new(rule: ClockRule, last: UnixMillis) -> Self {
        Self {
            rule,
            last,
            offset_ms: None,
            doubted_until_ms: 0,
        }
    }

    /// The time for the next token.
    pub fn judge(&mut self, reading: Reading) -> Result<UnixMillis, Doubt> {
        if let ClockRule::Within { accuracy_ms } = self.rule {
            self.check(reading, u64::from(accuracy_ms))?;
        }
        if reading.wall < self.last {
            return Err(Doubt::WentBack(self.last.0 - reading.wall.0));
        }
        self.last = reading.wall;
        Ok(reading.wall)
    }

    fn check(&mut self, reading: Reading, accuracy_ms: u64) -> Result<(), Doubt> {
        let offset = i128::from(reading.wall.0) - i128::from(reading.monotonic_ms);
        let before = *self.offset_ms.get_or_insert(offset);
        if before.abs_diff(offset) > u128::from(accuracy_ms) {
            self.offset_ms = Some(offset);
            self.doubted_until_ms = reading.monotonic_ms + QUIET_MS;
        }
        match reading.kernel {
            Kernel::Unsynchronised => Err(Doubt::Unsynchronised),
            Kernel::Synchronised { error_ms } if error_ms > accuracy_ms => Err(Doubt::Inaccurate(error_ms)),
            Kernel::Synchronised { .. } if reading.monotonic_ms < self.doubted_until_ms => {
                Err(Doubt::Stepped)
            }
            Kernel::Synchronised { .. } => Ok(()),
        }
    }
}

/// The numbers of the current block.
#[derive(Debug)]
struct Serials {
    next: u64,
    end: u64,
    /// Random, so that a store that is restored from a copy does not repeat numbers.
    tag: [u8; 8],
    until: UnixMillis,
}

impl Serials {
    /// A number of the block, if it has one left and is not too old.
    fn take(&mut self, now: UnixMillis) -> Option<[u8; 16]> {
        if self.next >= self.end || now >= self.until {
            return None;
        }
        let mut serial = [0; 16];
        serial[..8].copy_from_slice(&self.tag);
        serial[8..].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        Some(serial)
    }

    fn reserve(
        &mut self,
        ledger: &dyn Ledger,
        authority: &Authority,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        let first = self.end;
        ledger.change(Change::Certificates(CertificateChange::ReserveSerials {
            authority: authority.name.clone(),
            first,
            count: BLOCK,
        }))?;
        let mut tag = [0; 8];
        aws_lc_rs::rand::fill(&mut tag).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
        // Positive, and of full length.
        tag[0] = tag[0] & 0x3f | 0x40;
        *self = Self {
            next: first,
            end: first + BLOCK,
            tag,
            until: UnixMillis(now.0 + BLOCK_MS),
        };
        Ok(())
    }
}

#[derive(Debug)]
struct State {
    serials: Serials,
    clock: ClockJudge,
    /// What was last doubted, so that it is logged once.
    doubt: Option<Doubt>,
}

/// A token that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// TimeStampResp with the token in it, in DER.
    pub response: Vec<u8>,
    /// Its serial number.
    pub serial: [u8; 16],
}

/// A time-stamping authority at work.
#[derive(Debug)]
pub struct TimeStamper {
    authority: Arc<Authority>,
    tokens: tsp::Authority,
    state: Arc<Mutex<State>>,
}

/// No token of an earlier life is later than this.
const fn end_of_block(known: SerialBlocks) -> UnixMillis {
    match known.reserved_at.0 {
        0 => UnixMillis(0),
        reserved => UnixMillis(reserved.saturating_add(BLOCK_MS)),
    }
}

impl TimeStamper {
    /// Opens an authority of [`store::Role::TimeStamping`].
    pub fn open(
        authorities: &Authorities,
        authority: Arc<Authority>,
        reader: &Reader,
        (rule, policy): (ClockRule, ObjectIdentifier),
    ) -> Result<Self, Refusal> {
        let known = reader
            .serial_blocks(&authority.name)
            .map_err(|error| error.refusal())?;
        let state = State {
            serials: Serials {
                next: known.next,
                end: known.next,
                tag: [0; 8],
                until: UnixMillis(0),
            },
            clock: ClockJudge::new(rule, end_of_block(known)),
            doubt: None,
        };
        Self::with_state(
            authorities,
            authority,
            (rule, policy),
            Arc::new(Mutex::new(state)),
        )
    }

    /// The same authority as it is now, with another certificate perhaps; numbers and times go on.
    pub fn again(
        &self,
        authorities: &Authorities,
        authority: Arc<Authority>,
        terms: (ClockRule, ObjectIdentifier),
    ) -> Result<Self, Refusal> {
        Self::with_state(authorities, authority, terms, Arc::clone(&self.state))
    }

    fn with_state(
        authorities: &Authorities,
        authority: Arc<Authority>,
        (rule, policy): (ClockRule, ObjectIdentifier),
        state: Arc<Mutex<State>>,
    ) -> Result<Self, Refusal> {
        let refuse = |error: &dyn std::fmt::Display| {
            Refusal::new(
                Code::Usage,
                format!("time-stamping authority '{}': {error}", authority.name),
            )
        };
        let chain = authorities.chain(&authority);
        let tokens = tsp::Authority::new(&chain, authority.algorithm, policy, rule.accuracy());
        let tokens = tokens.map_err(|error| refuse(&error))?;
        Ok(Self {
            authority,
            tokens,
            state,
        })
    }

    /// The authority.
    pub const fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Stamps.
    pub fn stamp(
        &self,
        ledger: &dyn Ledger,
        clock: &dyn TimeSource,
        request: &tsp::Request,
    ) -> Result<Token, Failure> {
        if self.authority.revoked {
            tracing::error!(authority = %self.authority.name, "a revoked authority stamps no times");
            return Err(Failure::SystemFailure);
        }
        let (now, serial) = self.next(ledger, clock)?;
        let prepared = self.tokens.prepare(request, &serial, now)?;
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(authority = %self.authority.name, %error, "time stamp");
            Failure::SystemFailure
        };
        let signature = self
            .authority
            .sign(prepared.to_sign())
            .map_err(|error| failed(&error))?;
        let response = prepared.assemble(&signature).map_err(|error| failed(&error))?;
        Ok(Token { response, serial })
    }

    /// The time and number of the next token, which grow together.
    fn next(&self, ledger: &dyn Ledger, clock: &dyn TimeSource) -> Result<(UnixMillis, [u8; 16]), Failure> {
        let mut state = self.state.lock();
        let now = state.time(clock.read(), &self.authority)?;
        if let Some(serial) = state.serials.take(now) {
            return Ok((now, serial));
        }
        if let Err(error) = state.serials.reserve(ledger, &self.authority, now) {
            tracing::error!(authority = %self.authority.name, %error, "no serial numbers could be reserved");
            return Err(Failure::SystemFailure);
        }
        // The reservation has taken a while, and its own time is what the next start goes by.
        let now = state.time(clock.read(), &self.authority)?;
        let serial = state.serials.take(now).ok_or(Failure::TimeNotAvailable)?;
        Ok((now, serial))
    }
}

impl State {
    fn time(&mut self, reading: Reading, authority: &Authority) -> Result<UnixMillis, Failure> {
        let judged = self.clock.judge(reading);
        let doubt = judged.err();
        let kind = |doubt: Option<Doubt>| doubt.map(|doubt| std::mem::discriminant(&doubt));
        if kind(doubt) != kind(self.doubt) {
            match doubt {
                Some(doubt) => {
                    tracing::error!(authority = %authority.name, %doubt, "no time stamps are made");
                }
                None => tracing::info!(authority = %authority.name, "time stamps are made again"),
            }
            self.doubt = doubt;
        }
        judged.map_err(|_| Failure::TimeNotAvailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SURE: Kernel = Kernel::Synchronised { error_ms: 5 };
    const RULE: ClockRule = ClockRule::Within { accuracy_ms: 500 };

    fn at(wall: u64, monotonic_ms: u64, kernel: Kernel) -> Reading {
        Reading {
            wall: UnixMillis(wall),
            monotonic_ms,
            kernel,
        }
    }

    #[test]
    fn what_the_kernel_does_not_vouch_for_is_not_stamped() {
        let mut judge = ClockJudge::new(RULE, UnixMillis(0));
        assert_eq!(judge.judge(at(10_000, 1_000, SURE)), Ok(UnixMillis(10_000)));
        let unsure = at(10_001, 1_001, Kernel::Unsynchronised);
        assert_eq!(judge.judge(unsure), Err(Doubt::Unsynchronised));
        let vague = at(10_002, 1_002, Kernel::Synchronised { error_ms: 501 });
        assert_eq!(judge.judge(vague), Err(Doubt::Inaccurate(501)));
        assert_eq!(judge.judge(at(10_003, 1_003, SURE)), Ok(UnixMillis(10_003)));
    }

    #[test]
    fn time_that_went_back_past_the_last_token_is_not_stamped() {
        for rule in [RULE, ClockRule::Unverified] {
            let mut judge = ClockJudge::new(rule, UnixMillis(20_000));
            assert_eq!(judge.judge(at(19_990, 1_000, SURE)), Err(Doubt::WentBack(10)));
            assert_eq!(judge.judge(at(20_000, 1_010, SURE)), Ok(UnixMillis(20_000)));
        }
    }

    #[test]
    fn a_later_life_stamps_nothing_that_an_earlier_one_may_have_stamped() {
        let known = SerialBlocks {
            next: 10_001,
            reserved_at: UnixMillis(50_000),
        };
        // The last token of the block that was reserved then is earlier than its end, whatever the clock is set to.
        let mut judge = ClockJudge::new(ClockRule::Unverified, end_of_block(known));
        assert_eq!(
            judge.judge(at(49_000, 1, SURE)),
            Err(Doubt::WentBack(1_000 + BLOCK_MS))
        );
        assert_eq!(
            judge.judge(at(50_001, 2, SURE)),
            Err(Doubt::WentBack(BLOCK_MS - 1))
        );
        assert!(judge.judge(at(50_000 + BLOCK_MS, 3, SURE)).is_ok());
        let none = SerialBlocks {
            next: 1,
            reserved_at: UnixMillis(0),
        };
        assert_eq!(end_of_block(none), UnixMillis(0));
    }

    #[test]
    fn a_clock_that_was_set_must_hold_still_first() {
        let mut judge = ClockJudge::new(RULE, UnixMillis(0));
        assert!(judge.judge(at(100_000, 1_000, SURE)).is_ok());
        assert!(
            judge.judge(at(101_400, 2_000, SURE)).is_ok(),
            "within the accuracy"
        );
        assert_eq!(judge.judge(at(190_000, 3_000, SURE)), Err(Doubt::Stepped));
        assert_eq!(judge.judge(at(249_999, 62_999, SURE)), Err(Doubt::Stepped));
        assert_eq!(judge.judge(at(250_000, 63_000, SURE)), Ok(UnixMillis(250_000)));
    }

    #[test]
    fn without_a_rule_only_the_past_counts() {
        let mut judge = ClockJudge::new(ClockRule::Unverified, UnixMillis(0));
        assert!(judge.judge(at(100_000, 1_000, Kernel::Unsynchronised)).is_ok());
        assert!(judge.judge(at(900_000, 1_001, Kernel::Unsynchronised)).is_ok());
    }

    #[test]
    fn accuracy_is_stated_as_it_is_demanded() {
        assert_eq!(ClockRule::Unverified.accuracy(), None);
        let accuracy = ClockRule::Within { accuracy_ms: 1_500 }.accuracy().unwrap();
        assert_eq!((accuracy.seconds, accuracy.millis, accuracy.micros), (1, 500, 0));
    }

    #[test]
    fn a_block_ends_with_its_numbers_or_its_time() {
        let mut serials = Serials {
            next: 7,
            end: 9,
            tag: [0x41; 8],
            until: UnixMillis(100),
        };
        assert_eq!(serials.take(UnixMillis(100)), None, "too old");
        let first = serials.take(UnixMillis(99)).unwrap();
        assert_eq!((&first[..8], first[15]), (&[0x41; 8][..], 7));
        assert_eq!(serials.take(UnixMillis(99)).unwrap()[15], 8);
        assert_eq!(serials.take(UnixMillis(99)), None, "used up");
    }
}
