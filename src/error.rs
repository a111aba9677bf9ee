//! Why a hub did not start. All other errors are `fanfare_core::error`'s.

/// Why a hub did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is invalid.
    #[error("invalid configuration:\n{0}")]
    Config(#[from] crate::config::ConfigProblems),
    /// The hub's threads could not be started.
    #[error("the hub's threads did not start: {0}")]
    Threads(#[from] std::io::Error),
}
