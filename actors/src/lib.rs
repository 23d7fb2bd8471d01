//! The path of a request between front and journal, and the actors on it.
//!
//! In the order a request travels:
//!
//! - [`gate`]: fields in, a call or a refusal out. Pure.
//! - [`core`]: one thread, its calls in flight ([`call`]), their deadlines ([`deadline`], [`wheel`]).
//! - [`shard`]: the actor that works on a core's calls: claims keys, sends tasks, brings outcomes back.
//! - [`metering`]: the actor that owns the prepaid balances; cores spend from leases.
//! - [`task`]: one attempt on its way through the pool, and from the pool to the committing thread.
//! - [`reader`]: reads what memory does not have: replays, look-ups, certificates, usage.
//! - [`services`]: what the cores share, and how outcomes find their core.
//!
//! Beside the path: [`minutes`] keeps what the service agreement is judged by, [`reports`] answers questions that take a
//! while: packages, statements, reconciliation ([`bill`]) and the agreement's months ([`agreement`]), also on paper ([`printed`]); [`keeper`] starts anew what has died, [`vault`] holds the master key, [`registrar`] and [`keymaster`]
//! make an operator's changes, [`stats`] counts, [`latency`] measures; [`audit`] signs a tree over the journal and proves
//! what is in it; [`alerts`] says what is wrong, [`outgoing`] how messages to the outside are addressed, signed and tried
//! again; [`certificates`] and [`time_stamps`] are the authorities, on threads of their own: [`lists`] and [`answers`] say
//! what became of a certificate, [`stamp_callers`] who may have a time stamp, over [`questions`] the cores ask them, and [`answer_log`] counts what they answer to others. What
//! apps ask about certificates waits in [`fair`] lines; [`enrolment`] is how
//! somebody comes to a certificate, by which [`profiles`], and [`subjects`] whose identity was checked for it. [`seals`] makes seals and says who may sign under them.
//!
//! Who talks to whom: front → core → shard → {index, metering, reader, pool}; pool → committing thread → core → shard
//! → front. No sockets, no files, no C; time comes from `protocol::clock`.

pub mod agreement;
pub mod alerts;
pub mod answer_log;
pub mod answers;
pub mod audit;
pub mod bill;
pub mod call;
pub mod certificates;
pub mod core;
mod deadline;
pub mod document_vault;
pub mod enrolment;
pub mod expiry;
pub mod fair;
pub mod gate;
pub mod keeper;
pub mod keymaster;
pub mod latency;
pub mod lists;
pub mod metering;
pub mod minutes;
pub mod outgoing;
pub mod printed;
pub mod profiles;
pub mod questions;
mod reader;
pub mod registrar;
pub mod reports;
pub mod seals;
pub mod services;
mod shard;
pub mod stamp_callers;
pub mod stats;
pub mod subjects;
pub mod task;
pub mod time_stamps;
pub mod vault;
mod wheel;
