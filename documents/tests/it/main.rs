//! What this crate makes is judged by OpenSSL, and what OpenSSL makes is judged by this crate.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cms;
mod corpus;
mod crl;
mod csr;
mod hostile;
mod ocsp;
mod ofd;
mod paper;
mod path;
mod pdf;
mod pkits;
mod profiles;
mod seal_image;
mod seals;
mod support;
mod tsp;
mod x509;
