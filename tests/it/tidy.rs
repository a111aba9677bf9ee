//! The rules of ARCHITECTURE.md that Cargo does not enforce, checked on parsed sources.

mod imports;
mod queues;
mod sources;
