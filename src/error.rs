//! The error of a hub's start. All other errors are in `fanfare_core::error`.

/// Why a hub did not start. Nothing of the hub is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is invalid. The text has one line for each problem.
    #[error("invalid configuration:\n{0}")]
    Config(#[from] crate::config::ConfigProblems),
    /// The operating system refused a thread, or a thread ended before the start was complete.
    #[error("the hub's threads did not start: {0}")]
    Threads(#[from] std::io::Error),
    /// A setting differs from the other instances of the cluster.
    #[error("{0}")]
    Cluster(#[from] fanfare_core::cluster::SettingConflict),
}
