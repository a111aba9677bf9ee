//! A TCP proxy in front of Redis. It holds, delays or resets connections: all of them, or all of
//! one kind.

mod connection;
mod pump;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use self::connection::Connection;

/// The treatment of bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Holds all bytes in both directions; nothing is lost.
    Stall,
    /// Resets open and new connections.
    Cut,
    /// Delays bytes by this time in each direction, in order.
    Delay(Duration),
}

/// The use of a connection, as named by the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Commands, publishes among them.
    Publish,
    /// Pushes of published events.
    Subscribe,
    /// Not known, or not yet.
    Other,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Other];

    /// The kind named in a client's first bytes, by `CLIENT SETNAME`.
    fn told_by(bytes: &[u8]) -> Option<Self> {
        let names: [(&[u8], Self); 2] =
            [(b"fanfare-publish", Self::Publish), (b"fanfare-subscribe", Self::Subscribe)];
        let found = names.into_iter().find(|(name, _)| {
            bytes.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name))
        });
        found.map(|(_, kind)| kind)
    }
}

/// The mode of each kind, in the order of [`Kind::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Modes([Mode; 3]);

impl Modes {
    fn of(self, kind: Kind) -> Mode {
        self.0[kind as usize]
    }
}

/// Open connections by kind, in the order of [`Kind::ALL`].
type Counts = Arc<[AtomicUsize; 3]>;

/// A running proxy with its own address. Dropping it closes all connections.
pub struct ChaosProxy {
    pub addr: SocketAddr,
    modes: watch::Sender<Modes>,
    open: Counts,
    _tasks: JoinSet<()>,
}

impl ChaosProxy {
    /// Starts a proxy in front of `target`, in [`Mode::Pass`].
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let addr = listener.local_addr().expect("bound");
        let modes = watch::Sender::new(Modes([Mode::Pass; 3]));
        let open = Counts::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, modes.subscribe(), open.clone()));
        Self { addr, modes, open, _tasks: tasks }
    }

    /// The URL for `--redis`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    pub fn set(&self, mode: Mode) {
        self.modes.send_replace(Modes([mode; 3]));
    }

    pub fn set_for(&self, kind: Kind, mode: Mode) {
        self.modes.send_modify(|modes| modes.0[kind as usize] = mode);
    }

    /// Number of open connections of this kind.
    pub fn open(&self, kind: Kind) -> usize {
        self.open[kind as usize].load(Ordering::SeqCst)
    }

    /// Number of open connections.
    pub fn all_open(&self) -> usize {
        Kind::ALL.into_iter().map(|kind| self.open(kind)).sum()
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    modes: watch::Receiver<Modes>,
    open: Counts,
) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("there are files left");
        let connection = Connection::new(client, modes.clone(), open.clone());
        connections.spawn(connection.run(target));
        while connections.try_join_next().is_some() {}
    }
}
