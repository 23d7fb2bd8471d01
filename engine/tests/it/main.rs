//! The engine from outside: the real binary, real QUIC and TLS, real files.

mod support;

mod signing;
mod tidy;
