//! The operators' side: the plain-HTTP listener that shows health and metrics, and the socket through which the
//! command line makes changes.

pub(crate) mod audit;
pub(crate) mod certificates;
pub(crate) mod control;
pub(crate) mod devices;
pub(crate) mod http;
pub(crate) mod incidents;
pub(crate) mod keep;
pub(crate) mod keys;
pub(crate) mod latency;
pub(crate) mod ledger;
pub(crate) mod messages;
pub(crate) mod metrics;
pub(crate) mod operator;
pub(crate) mod operators;
pub(crate) mod seals;
pub(crate) mod socket;
pub(crate) mod subjects;
