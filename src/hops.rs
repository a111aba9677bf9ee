//! The hops of an event on its way through the hub, for `scripts/hops`: a line of the log each, at level `trace` of the
//! target `fanfare::hops`. Without this level, a hop costs one comparison.

/// Logs a hop with its time, in microseconds since 1970.
macro_rules! hop {
    ($name:literal) => {
        tracing::trace!(
            target: "fanfare::hops",
            at = $crate::clock::since_1970().as_micros() as u64,
            $name
        )
    };
}

pub(crate) use hop;
