//! The rules of ARCHITECTURE.md not enforced by Cargo, checked on parsed sources.

mod grants;
mod imports;
mod queues;
mod sources;
