//! The service level agreement as arithmetic: minutes in, verdict out.
//!
//! Pure: nothing here opens a file, asks for the time or waits. Read it in the order a report is made:
//!
//! - [`answer`]: whether an answer is normal, and whether it counts at all.
//! - [`minute`]: what is recorded of a minute; parts of it add up in any order, so late data only adds.
//! - [`calendar`]: minutes, months and days as China counts them.
//! - [`working_days`] and [`notice`]: public holidays as data, and whether maintenance was announced in time.
//! - [`percent`]: promises and shares as exact numbers, never floating point.
//! - [`policy`]: an agreement as data. `bjca` and `bestsign` are built in; others come as TOML.
//! - [`state`] and [`run`]: what each minute was, and which bad minutes stand together.
//! - [`verdict`]: availability, longest stop, remaining budget, latency, and whether the promise is kept.
//! - [`credit`] and [`incident`]: what a broken promise makes eligible, and the two clocks of a fault.
//! - [`report`], [`strip`] and [`html`]: all of it for machines and for people.
//!
//! `docs/sla.md` gives formulas, options and the clause behind each. It is not the place that keeps minutes (the
//! store does), nor the one that grants credits: it says what is *eligible*.

pub mod answer;
pub mod calendar;
pub mod credit;
pub mod html;
pub mod incident;
pub mod minute;
pub mod notice;
pub mod observed;
pub mod percent;
pub mod policy;
pub mod report;
pub mod run;
pub mod state;
pub mod strip;
pub mod verdict;
pub mod working_days;
