//! The pool from outside: software lanes, a real SoftHSM2 behind worker processes, and a device that misbehaves.

mod support;

mod device;
mod software;
