//! The cost of one client's input, counted in allocations: a cost per input must not grow with the
//! number of inputs, nor with the number of streams alike.

#![allow(clippy::disallowed_methods, reason = "the tests' clock starts at a real moment")]

mod ahead;
mod collapse;
mod history;
mod ids;
mod patterns;
mod support;
