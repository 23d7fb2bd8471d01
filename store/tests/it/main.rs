//! The store from outside: what survives, what is refused, what is noticed.

mod support;

mod durability;
mod judgement;
mod trouble;
