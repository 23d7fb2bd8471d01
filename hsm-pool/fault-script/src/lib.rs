//! The script by which a test device misbehaves. Two C libraries read one: the faulty PKCS#11 module and the software
//! SDF library; each brings its own names of functions and codes (`Vocabulary`).
//!
//! A script is a list of clauses, one a line or separated by `;`. What follows `#` is a comment.
//!
//! ```text
//! [FUNCTIONS:] [P%] [after N] [times N] [for MS] [slow TIME] FAULT
//! ```
//!
//! The first clause that fits a call decides it; a call that none fits goes through. `FUNCTIONS` are names with commas
//! between them; a name may end with `*`. Without them a clause means the device's signing call.
//!
//! | condition | the clause fits |
//! |---|---|
//! | `P%` | this share of the calls, each by its own throw |
//! | `after N` | once N calls of its functions have been made since the script was read |
//! | `times N` | the first N calls that would fit, then no more |
//! | `for MS` | for this many milliseconds since the script was read, or since `after` was over |
//!
//! | fault | what the call does |
//! |---|---|
//! | `ok` | goes through |
//! | `slow TIME` | waits, then goes through, or does what the next word says |
//! | `wrong` | gives a signature with a flipped bit |
//! | `error CODE` | answers this code, by name or in hexadecimal, and does nothing |
//! | `lost` | ends every session, and says so; once, unless the clause has `P%` or `times` |
//! | `hang` | never returns |
//! | `crash`, `crash segfault`, `crash exit N` | aborts, reads where nothing is, or ends the process with this code |
//!
//! `TIME` in milliseconds: `5`; `5..20`, even between the two; `exp 10`, exponential with this mean; `lognormal 10 0.5`,
//! log-normal with this median and this standard deviation of the natural logarithm.
//!
//! States hold for every call while their clause fits (they know no `P%` and no functions): `removed [CODE]`, there is
//! no token; `sessions N`, no more sessions than that in this process; `renumber N`, slot ids are higher by N;
//! `renumber rotate`, each token has the id of the next one.
//!
//! A setting: `seed N` makes the throws the same in each run.
//!
//! The call after a change of the file obeys the new script, whose counts and times begin anew.

mod changes;
mod delay;
mod rules;
mod script;
mod vocabulary;
mod watch;

pub use delay::Delay;
pub use rules::{Rules, Verdict};
pub use script::{Crash, Fault, Renumber, Script, ScriptError};
pub use vocabulary::Vocabulary;
pub use watch::{Watch, crash, hang};
